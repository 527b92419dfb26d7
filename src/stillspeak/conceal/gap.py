"""Fill one gap: from the good frame before it to the good frame after it.

Each good frame is the reference image of its own renderer, which draws the mouth in layers. Both
renderings follow the head's drift and are mixed by nearness. In a gap of a frame or two no mouth
gets far, and the optical flow between its ends alone fills it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.conceal.optical_flow import Maps, dense_flow, pull, without_speech
from stillspeak.dub.heard import HeardPoses, Poses
from stillspeak.face.align import invert_transform, smoothstep
from stillspeak.models.generator import Generator
from stillspeak.motion.frames import FaceMotion
from stillspeak.rendering.appearance import POSE, face_at_lips
from stillspeak.rendering.mesh import face_frame
from stillspeak.rendering.portrait import Portrait
from stillspeak.rendering.raster import Picture
from stillspeak.rendering.renderer import FaceRenderer
from stillspeak.rendering.video_mouth import VideoMouth, joined
from stillspeak.synthesis import CHUNK

Times = npt.NDArray[np.float64]

CurvesAt = Callable[[Times, float | None, float | None], Tensor]
"""Curves (T, 4) of eyes and brows at places (T,), told where the good frames are."""

SHORT = 0.12
"""Seconds from good frame to good frame up to which the picture's own movement between them says
more than the sound does: gaps of two frames at 25 a second."""

MISSED = 0.5
"""Seconds from a good frame in which what the drawing of it misses is made up for."""

ALIKE = 0.1
"""Distance between poses, in distances between the eyes, from which none of it is."""

RISE = 0.12
"""Seconds from a good frame in which, the other end of the gap being unknown, the mouth begins to
move: so near to it the mouth that was seen is a better guess than one that is heard."""

OPENING = (0.04, 0.2)
"""Seconds from a good frame in which the eyes are shut at which they begin to open and are open."""


def fading(since: Times, until: Times | None, memory: float) -> tuple[Times, Times]:
    """How much of the difference at each end of a gap still counts within it.

    The difference is taken for a process that forgets: known at both ends, its expectation
    between them is linear in a gap shorter than ``memory`` and falls off exponentially from both
    ends in a longer one.

    Args:
        since: (T,) seconds since the good frame before the gap.
        until: (T,) seconds to the one after it; None: it is not known.
        memory: seconds, positive; 0: the ends do not count.

    Returns:
        Twice (T,) in [0, 1]: for the end before and the end after.
    """
    if memory <= 0:
        return np.zeros_like(since), np.zeros_like(since)
    if until is None:
        return np.exp(-since / memory), np.zeros_like(since)
    whole = since + until

    # sinh(a) / sinh(b) without its large numbers
    def share(part: Times) -> Times:
        above = -np.expm1(-2 * part / memory)
        below = -np.expm1(-2 * whole / memory)
        return np.asarray(np.exp((part - whole) / memory) * above / below)

    return share(until), share(since)


@dataclass(frozen=True, eq=False)
class Anchor:
    """A good frame beside a gap.

    picture: (H, W, 3) uint8.
    points: (478, 2) landmarks of the speaking face; None: no face can be used.
    place: its time in model frames.
    """

    picture: Picture
    points: npt.NDArray[np.float32] | None
    place: float

    @property
    def anchor(self) -> Anchor:
        """Itself, so that it can stand for an :class:`AnchorRenderer`."""
        return self


class AnchorRenderer:
    """Draws frames out of one anchor with a face."""

    def __init__(self, anchor: Anchor, mouth: VideoMouth, generator: Generator) -> None:
        assert anchor.points is not None
        self.anchor, self._generator = anchor, generator
        self._mouth = mouth.still(anchor.picture, anchor.points)
        frame, own = face_frame(anchor.points), mouth.appearance
        self.seen: Poses = (frame.points[POSE] - own.rest) / own.scale
        """(41, 2) the mouth's pose as the camera saw it."""
        self.at_lips = face_at_lips(frame)
        self.heard: Poses | None = None
        self.opened: AnchorRenderer | None = None
        """The same with its eyes open, where they are shut in the anchor."""

    def compare(self, heard: HeardPoses) -> None:
        """Find out what the sound says of the anchor's own moment."""
        self.heard = heard.at(np.array([self.anchor.place]))[0]

    def joined(self, poses: Poses, share: Times) -> Poses:
        """Heard poses (T, 41, 2), brought to what was seen as far as that counts, (T,); as they
        are where it is not known what is heard of the anchor."""
        if self.heard is None:
            return poses
        return np.asarray(poses + share[:, None, None] * (self.seen - self.heard))

    @cached_property
    def _face(self) -> FaceRenderer:
        """What moves eyes and skin."""
        assert self.anchor.points is not None
        return FaceRenderer(Portrait.of(self.anchor.picture, self.anchor.points, self._generator))

    @cached_property
    def _missed(self) -> npt.NDArray[np.int16]:
        """(H, W, 3) the anchor less the drawing of its own mouth."""
        (drawn,) = self._draw(self.seen[None], None)
        return self.anchor.picture.astype(np.int16) - drawn

    def _draw(self, poses: Poses, curves: Tensor | None) -> Iterator[Picture]:
        motion = None if curves is None else FaceMotion.from_face(curves.numpy())
        for index, pose in enumerate(poses):
            picture = self._mouth.draw(pose)
            if motion is not None:
                now = motion.at(index)
                self._face.drawn = []
                self._face.look(now, picture)
                self._face.move(now, picture, [self._mouth.drawn, *self._face.drawn])
            yield picture

    def render(self, poses: Poses, curves: Tensor | None, distance: Times) -> Iterator[Picture]:
        """Whole pictures of poses (T, 41, 2) and curves (T, 17), None leaving eyes and skin,
        at distances (T,) in seconds from the anchor."""
        # What is missed of an open mouth must not show in a shut one.
        away = np.abs(poses - self.seen).max(axis=(1, 2)) / ALIKE
        near = np.clip(1 - distance / MISSED, 0, 1) * np.clip(1 - away, 0, 1)
        for picture, share in zip(self._draw(poses, curves), near, strict=True):
            if share > 0:
                whole = np.rint(picture + share * self._missed)
                picture = whole.clip(0, 255).astype(np.uint8)
            yield picture

    def render_opening(
        self, poses: Poses, curves: Tensor | None, distance: Times
    ) -> Iterator[Picture]:
        """As :meth:`render`, with eyes that open a moment away from the anchor."""
        if self.opened is None:
            return self.render(poses, curves, distance)
        open_ = smoothstep((distance - OPENING[0]) / (OPENING[1] - OPENING[0]))
        asleep = None if curves is None else torch.zeros_like(curves)
        shut = self.render(poses, asleep, distance)
        if not open_.any():
            return shut
        awake = self.opened.render(poses, curves, distance)
        return (_mean(a, b, float(c)) for a, b, c in zip(shut, awake, open_, strict=True))


End = AnchorRenderer | Anchor | None
"""One end of a gap; an anchor without a face is only mixed and held."""


class GapFiller:
    """Generates the frames of one gap.

    Args:
        heard: what the sound says.
        fps: model frames a second.
        before, after: the good frames beside it, one perhaps unknown; renderers after ``compare``.
        memory: see :func:`fading`, in seconds.
        mixing_from: the place from which the frame after takes part, in a gap whose first
            frames were made without it; None: from the frame before on.
    """

    def __init__(
        self,
        heard: HeardPoses,
        fps: int,
        before: End,
        after: End,
        *,
        memory: float,
        mixing_from: float | None,
    ) -> None:
        self._heard, self._fps, self._memory = heard, fps, memory
        self._ends: tuple[End, End] = (before, after)
        self._before, self._after = (None if end is None else end.anchor for end in self._ends)
        self._mixing_from = mixing_from
        self._flows: tuple[Maps, Maps] | None = None
        if self._before is not None and self._after is not None:
            span = (self._after.place - self._before.place) / fps
            if mixing_from is None and span < 1.05 * SHORT:  # clocks of milliseconds
                self._ends = (self._before, self._after)
            self._flows = (self._drift(*self._ends), self._drift(*self._ends[::-1]))

    @torch.inference_mode()
    def draw(self, places: Times, curves_at: CurvesAt) -> Iterator[Picture]:
        """Pictures (H, W, 3) uint8 at places (T,) in model frames within the gap, in order."""
        known = [None if end is None else end.place for end in (self._before, self._after)]
        for start in range(0, len(places), CHUNK):
            part = places[start : start + CHUNK]
            yield from self._chunk(part, curves_at(part, *known))

    def _chunk(self, places: Times, curves: Tensor) -> Iterator[Picture]:
        before, after = self._before, self._after
        since = None if before is None else (places - before.place) / self._fps
        until = None if after is None else (after.place - places) / self._fps
        if since is None:
            assert until is not None
            shares = fading(until, None, self._memory)[::-1]
            nearness = np.ones(len(places))
        else:
            shares = fading(since, until, self._memory)
            nearness = np.zeros(len(places))
            if before is not None and after is not None:
                start = before.place if self._mixing_from is None else self._mixing_from
                nearness = np.clip((places - start) / (after.place - start), 0, 1)
        poses = self._poses(places, shares)
        drawn: list[Iterator[Picture] | None] = []
        for end, distance in zip(self._ends, (since, until), strict=True):
            if isinstance(end, AnchorRenderer):
                assert distance is not None and poses is not None
                drawn.append(end.render_opening(poses, curves, distance))
            else:
                drawn.append(None if end is None else iter([end.picture] * len(places)))
        for share in nearness:
            yield self._mixed([None if one is None else next(one) for one in drawn], float(share))

    def _poses(self, places: Times, shares: tuple[Times, Times]) -> Poses | None:
        """(T, 41, 2) the mouth at places; None: no end has a face."""
        pairs = zip(self._ends, shares, strict=True)
        sides = [(end, share) for end, share in pairs if isinstance(end, AnchorRenderer)]
        if not sides:
            return None
        poses = self._heard.at(places)
        for side, share in sides:
            poses = side.joined(poses, share)
        if None in self._ends and self._memory > 0:
            side = sides[0][0]
            away = np.abs(places - side.anchor.place) / self._fps
            rise = np.clip(away / RISE, 0, 1)[:, None, None]
            poses = side.seen + rise * (poses - side.seen)
        return poses

    def _mixed(self, pictures: list[Picture | None], share: float) -> Picture:
        """The two ends' pictures of one moment, a share of ``share`` being that of after."""
        first, second = pictures
        if first is None or second is None:
            only = second if first is None else first
            assert only is not None
            return only
        if self._flows is not None:
            first = pull(first, self._flows[0], share)
            second = pull(second, self._flows[1], 1 - share)
        return _mean(first, second, share)

    @staticmethod
    def _drift(one: End, other: End) -> Maps:
        """How everything but the mouth moves from one end to the other."""
        assert one is not None and other is not None
        flow = dense_flow(one.anchor.picture, other.anchor.picture)
        if isinstance(one, AnchorRenderer) and isinstance(other, AnchorRenderer):
            assert one.anchor.points is not None
            head = joined(invert_transform(one.at_lips), other.at_lips)
            flow = without_speech(flow, one.anchor.points, head)
        return flow


def pass_over(first: Picture, second: Picture, share: float) -> Picture:
    """A picture between two of one scene, what moved being on its way, a share of the second."""
    there, back = dense_flow(first, second), dense_flow(second, first)
    return _mean(pull(first, there, share), pull(second, back, 1 - share), share)


def _mean(first: Picture, second: Picture, share: float) -> Picture:
    if share <= 0:
        return first
    if share >= 1:
        return second
    mixed = first.astype(np.float32)
    mixed += share * (second.astype(np.float32) - mixed)
    return np.asarray(np.rint(mixed), np.uint8)
