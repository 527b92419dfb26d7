"""The part of ``dub`` that knows no files: frames in, frames with a new mouth out."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

import numpy as np
import torch

from stillspeak.dub.cover import MouthCover, shares
from stillspeak.dub.heard import HeardPoses
from stillspeak.dub.mouth_model import MouthModel
from stillspeak.face.landmarks import LandmarkDetector
from stillspeak.face.speaker import choose_speaker
from stillspeak.face.steady import Points as Landmarks
from stillspeak.face.tracker import FaceTracker, TrackedFace
from stillspeak.face.who import Who
from stillspeak.media.audio import Waveform
from stillspeak.rendering.appearance import POSE, Appearance, AppearanceGatherer
from stillspeak.rendering.mesh import face_frame
from stillspeak.rendering.raster import Box, Picture, Points
from stillspeak.rendering.video_mouth import VideoMouth
from stillspeak.system.threads import read_ahead

AHEAD = 2
"""Frames that may be looked at before the ones before them are drawn."""

SLOW = 3.0
"""Model frames, 40 ms each, over which the skin around a mouth is slower than lips: before and
after, less and less. Seen and heard shapes both tremble, and cheeks and chins are heavy."""

_WEIGHTS = np.array([1.0, 2.0, 3.0, 2.0, 1.0]) / 9  # of poses heard around a frame
MOST = 8
"""Frames held back for that, however many there are a second."""

NO_FACE, COVERED_MOUTH = "no usable face", "something before the mouth"
"""Why a frame stays as it is."""


@dataclass(frozen=True, eq=False)
class DubFrame:
    """A frame on its way through.

    picture: (H, W, 3) uint8, upright; place: of the new sound, in model frames; token: the
    caller's own, handed back.
    """

    picture: Picture
    place: float
    token: Any = None


@dataclass
class DubStats:
    """What was done, counted as it is done."""

    drawn: int = 0
    """Frames with a new mouth."""
    cuts: int = 0
    """Frames that begin another scene."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Frames without a new mouth, by why there is none."""

    def miss(self, why: str) -> None:
        """A frame without a new mouth."""
        self.reasons[why] = self.reasons.get(why, 0) + 1


@dataclass(frozen=True, eq=False)
class DubAppearance:
    """What a video tells of its speaker: mouth, what it looks like bare, and who it is."""

    mouth: Appearance
    cover: MouthCover
    who: Who

    @classmethod
    def gather(
        cls,
        detector: LandmarkDetector,
        samples: Iterable[Sequence[Picture]],
        *,
        face: int | None = None,
        name: str = "the video",
    ) -> DubAppearance:
        """See :meth:`Dubber.appearance`."""
        speaker = choose_speaker(samples, detector, _Looks, face=face, name=name)
        looks = speaker.collected
        return cls(looks.mouth.appearance(looks.cover.bare()), looks.cover, speaker.who)


class _Looks:
    """Gathers what frames of one person tell."""

    def __init__(self) -> None:
        self.mouth, self.cover = AppearanceGatherer(), MouthCover()

    def add(self, picture: Picture, points: Landmarks) -> None:
        """A frame (H, W, 3) uint8 and landmarks (478, 2) float32 in its pixels."""
        self.mouth.add(picture, points)
        self.cover.add(picture, points)


class Dubber(MouthModel):
    """Gives videos new speech; keeps the model and the detector loaded.

    Arguments and errors are those of :class:`~stillspeak.dub.mouth_model.MouthModel`.
    """

    _does = "dub"

    def appearance(
        self,
        samples: Iterable[Sequence[Picture]],
        *,
        face: int | None = None,
        name: str = "the video",
    ) -> DubAppearance:
        """What the speaker's mouth looks like.

        Args:
            samples: bursts of consecutive frames (H, W, 3) uint8 from all over the video, each
                taken when asked for.
            face: which face speaks, 0 being the largest; None: the one whose lips move.
            name: what messages call the video.

        Raises:
            NoFaceError: no usable face in any of them.
        """
        return DubAppearance.gather(self.detector, samples, face=face, name=name)

    @torch.inference_mode()
    def draw(
        self,
        frames: Iterable[DubFrame],
        sound: Iterable[Waveform],
        appearance: DubAppearance,
        *,
        stats: DubStats | None = None,
    ) -> Iterator[tuple[DubFrame, Picture | None, Box]]:
        """Frames in order, each with its new picture (H, W, 3) uint8 and the box in which that
        differs; None: it stays as it is. Memory does not grow.

        Args:
            frames: in order, (H, W, 3) uint8 of one size.
            sound: pieces (S,) float32 in [-1, 1] at the generator's rate; sample 0 is place 0.
            appearance: of :meth:`appearance`.
            stats: counts what is done.
        """
        counted = stats or DubStats()
        heard = HeardPoses(self.generator, sound)
        mouth = VideoMouth(appearance.mouth)
        tracker = FaceTracker(self.detector, who=appearance.who)

        def tracked() -> Iterator[tuple[_Tracked, bool]]:
            for frame, face in tracker.track(frames, lambda one: one.picture):
                hidden = face is not None and appearance.cover.before(frame.picture, face.points)
                shape = None if face is None else face_frame(face.points).points[POSE]
                yield _Tracked(frame, face, shape), hidden

        # Faces are looked for in one thread while mouths are drawn in another.
        with closing(read_ahead(tracked(), AHEAD)) as found:
            for (frame, face, _), shown, shape in _with_shapes(shares(found)):
                heard.forget(frame.place - SLOW)
                share = 0.0 if face is None else face.sure * shown
                if face is not None:
                    counted.cuts += bool(face.cut)
                if face is None or share <= 0:
                    counted.miss(NO_FACE if face is None else COVERED_MOUTH)
                    yield frame, None, (0, 0, 0, 0)
                    continue
                said = heard.at(frame.place + np.arange(-2.0, 3.0))
                own = appearance.mouth
                slowly = own.rest + own.scale * np.tensordot(_WEIGHTS, said, 1) - shape
                counted.drawn += 1
                yield frame, *mouth.draw(frame.picture, face.points, said[2], share, slowly)


class _Tracked(NamedTuple):
    """A frame, its face and the shape (41, 2) of its mouth in the face's own frame."""

    frame: DubFrame
    face: TrackedFace | None
    shape: Points | None


class _Moment(NamedTuple):
    """What is kept of a frame that is gone."""

    place: float
    shape: Points | None
    goes_on: bool  # whether it shows the face of the frame before it, too


def _with_shapes(
    frames: Iterable[tuple[_Tracked, float]],
) -> Iterator[tuple[_Tracked, float, Points]]:
    """Each frame with its mouth's shape averaged over :data:`SLOW` model frames to either side, not
    beyond a cut or where the face is lost; at most :data:`MOST` frames are held back."""
    waiting: deque[tuple[_Tracked, float]] = deque()
    moments: deque[_Moment] = deque()
    turn = 0  # the moment of the first frame that waits

    def averaged() -> tuple[_Tracked, float, Points]:
        here = moments[turn]
        sums, weights = np.zeros((len(POSE), 2)), 0.0
        before = takewhile(lambda k: moments[k + 1].goes_on, range(turn - 1, -1, -1))
        after = takewhile(lambda k: moments[k].goes_on, range(turn + 1, len(moments)))
        for other in (here, *(moments[k] for k in (*before, *after))):
            weight = SLOW - abs(other.place - here.place)
            if weight > 0 and other.shape is not None:
                sums, weights = sums + weight * other.shape, weights + weight
        return *waiting.popleft(), sums / max(weights, 1e-9)

    for item in frames:
        frame, face, shape = item[0]
        waiting.append(item)
        moments.append(_Moment(frame.place, shape, face is not None and not face.cut))
        while len(waiting) > MOST or frame.place - moments[turn].place >= SLOW:
            yield averaged()
            turn += 1
            if turn > MOST:
                moments.popleft()
                turn -= 1
    while waiting:
        yield averaged()
        turn += 1
