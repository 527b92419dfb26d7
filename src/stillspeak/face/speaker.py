"""Who speaks in a video: of all people, the one whose lips moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Generic, Protocol, TypeVar

import numpy as np

from stillspeak.errors import NoFaceError
from stillspeak.face.landmarks import (
    MAX_YAW,
    MIN_EYE_DISTANCE,
    Face,
    LandmarkDetector,
    choose_face,
)
from stillspeak.face.mouth import POSE_POINTS
from stillspeak.face.steady import Points, eye_distance, place_of
from stillspeak.face.tracker import FaceSearch, Picture, following
from stillspeak.face.who import OTHER, Who

STILL = 0.006
"""How far lips that rest seem to move from frame to frame, in distances between the eyes."""


class Collector(Protocol):
    """Looks at the frames of one person."""

    def add(self, picture: Picture, points: Points) -> None:
        """A frame (H, W, 3) uint8 and landmarks (478, 2) float32 in its pixels."""


C = TypeVar("C", bound=Collector)


@dataclass(frozen=True, eq=False)
class Speaker(Generic[C]):
    """A person in bursts of frames.

    Attributes:
        who: for :class:`~stillspeak.face.tracker.FaceTracker`, to follow the same person.
        bursts: by burst and frame, landmarks (478, 2) float32 in pixels; None where the face is
            not found, is small, or is turned away.
        moved: how far the lips moved from frame to frame, summed over the bursts, in distances
            between the eyes.
        people: how many were seen.
        collected: what looked at the person's frames.
    """

    who: Who
    bursts: list[list[Points | None]]
    moved: float
    people: int
    collected: C


@dataclass(eq=False)
class _Person(Generic[C]):
    """seen: by burst, the landmarks of each frame; size: of the face in the first one, pixels."""

    size: float
    collected: C
    who: Who = field(default_factory=Who)
    seen: dict[int, list[Points | None]] = field(default_factory=dict)
    moved: float = 0.0


def choose_speaker(
    bursts: Iterable[Sequence[Picture]],
    detector: LandmarkDetector,
    collector: Callable[[], C],
    *,
    face: int | None = None,
    name: str = "the video",
) -> Speaker[C]:
    """The person whose lips move most in bursts of consecutive frames from all over a video.

    One burst is looked at at a time; five to ten frames show speech. Where nobody's lips move, it
    is the person with the largest face. People are told apart by :mod:`stillspeak.face.who`.

    Args:
        bursts: each a few consecutive frames (H, W, 3) uint8.
        detector: finds all faces of a picture.
        collector: makes what looks at one person's frames.
        face: which face of the first burst with as many, 0 being the largest; None: see above.
        name: what messages call the video.

    Raises:
        NoFaceError: no usable face in any burst, or no such one.
    """
    people: list[_Person[C]] = []
    lengths: list[int] = []
    wanted: _Person[C] | None = None
    most: list[Face] = []
    with following(detector) as follower:
        search = FaceSearch(detector, follower)
        for pictures in bursts:
            faces = _usable(search, pictures)
            most = max(most, faces, key=len)
            persons = []
            for found in faces:
                person = _known(people, found, pictures[0], len(lengths))
                if person is None:
                    person = _Person(found.size, collector())
                    people.append(person)
                person.who.add(pictures[0], found)
                person.seen[len(lengths)] = []
                persons.append(person)
            for person, first in zip(persons, faces, strict=True):
                person.seen[len(lengths)] = points = _followed(search, pictures, first)
                person.moved += _moved(points)
                for picture, place in zip(pictures, points, strict=True):
                    if place is not None:
                        person.collected.add(picture, place)
            if face is not None and wanted is None and len(persons) > face:
                wanted = persons[face]
            lengths.append(len(pictures))
    if not people:
        raise NoFaceError(
            f"{name}: no usable face found in any of {len(lengths)} places; use a video in which "
            "one face looks at the camera"
        )
    if face is not None and wanted is None:
        choose_face(most, face, name=name)
    chosen = wanted or max(people, key=lambda one: (one.moved, one.size))
    seen = [chosen.seen.get(k, [None] * length) for k, length in enumerate(lengths)]
    return Speaker(chosen.who, seen, chosen.moved, len(people), chosen.collected)


def _usable(search: FaceSearch, pictures: Sequence[Picture]) -> list[Face]:
    """Faces of a burst's first picture that can be followed, the largest first."""
    if not pictures:
        return []
    search.forget()
    found = [search.take(pictures[0], face) for face in search.whole(pictures[0])]
    return [face for face in found if face is not None and _of_use(face)]


def _of_use(face: Face) -> bool:
    return face.eye_distance >= MIN_EYE_DISTANCE and abs(face.yaw) <= MAX_YAW


def _known(people: list[_Person[C]], face: Face, picture: Picture, burst: int) -> _Person[C] | None:
    """Whose face it is: the likest person's not seen yet in this burst; None: a new one's."""
    others = [one for one in people if burst not in one.seen]
    found = [(one.who.difference(picture, face), k) for k, one in enumerate(others)]
    least, k = min(found, default=(OTHER, 0))
    return others[k] if least < OTHER else None


def _followed(search: FaceSearch, pictures: Sequence[Picture], first: Face) -> list[Points | None]:
    """One face's landmarks in each picture of a burst."""
    search.forget()
    faces = [search.take(pictures[0], first), *map(search.again, pictures[1:])]
    return [face.points if face is not None and _of_use(face) else None for face in faces]


def _moved(burst: Sequence[Points | None]) -> float:
    """How far lips and chin moved within the face, more than they seem to when they rest."""
    moved = 0.0
    for one, two in pairwise(burst):
        if one is None or two is None:
            continue
        pose = list(POSE_POINTS)
        (turn, there), (_, here) = place_of(two, one), place_of(one, one)
        before, after = (points[pose] @ (1, 1j) for points in (one, two))
        apart = (after - there) / turn - (before - here)
        way = float(np.sqrt((np.abs(apart) ** 2).mean())) / eye_distance(one)
        moved += max(0.0, way - STILL)
    return moved
