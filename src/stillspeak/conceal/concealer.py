"""Fill the gaps of a video, frame by frame, however long it is: the part that knows no files."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.conceal.gap import Anchor, AnchorRenderer, End, GapFiller, pass_over
from stillspeak.conceal.options import GapKeywords, GapOptions
from stillspeak.dub.heard import HeardPoses, model_place
from stillspeak.dub.mouth_model import MouthModel
from stillspeak.errors import ConfigError, FaceError, NoFaceError, VideoError
from stillspeak.face.align import (
    invert_transform,
    similarity_transform,
    smoothstep,
    transform_points,
)
from stillspeak.face.eyes import EYELIDS, LEFT_EYELIDS, RIGHT_EYELIDS
from stillspeak.face.landmarks import (
    Face,
    check_face,
    choose_face,
)
from stillspeak.face.scenes import difference, thumbnail
from stillspeak.face.steady import RIGID
from stillspeak.face.tracker import FaceSearch, following
from stillspeak.media.audio import Waveform
from stillspeak.models.config import GeneratorConfig
from stillspeak.motion.process import MotionProcess
from stillspeak.options import AnimateOptions
from stillspeak.rendering.appearance import AppearanceGatherer
from stillspeak.rendering.blend import blend
from stillspeak.rendering.raster import Picture, filled, warped
from stillspeak.rendering.video_mouth import VideoMouth

LONG = 20.0
"""Seconds of a gap after which frames are made without waiting for its end."""

TAIL = 10.0
"""Seconds of a long gap that wait for its end all the same."""

REST = 0.4
"""Seconds beside a good frame without a blink: half a one would have to be cut off."""

SHUT, OPEN = 0.4, 0.25
"""MediaPipe's blink coefficient, the mean of both eyes, from which they count as shut, and up to
which as open."""

RECENT = 12
"""Good frames before a gap among which open eyes are looked for: a blink is shorter."""

LOOK = 3
"""Which of them are looked at: every third, the nearest first."""

EVERY, LOOKS = 2, 100
"""Every so many good frames the mouth is looked at, and how often at most."""

_SAME_FACE = 1.0  # widths of a face by which it may move within a gap and still be the same
_OTHER_SCENE = 0.5  # difference of two pictures, see ``face.scenes``
_EYE = 1.8  # what is moved of an open eye, over its size


@dataclass(frozen=True, eq=False)
class InputFrame:
    """A frame of the input: its place in model frames, and its picture unless that is lost."""

    place: float
    picture: Picture | None


@dataclass
class GapStats:
    """What was done, counted as it is done."""

    frames: int = 0
    generated: int = 0
    gaps: int = 0
    longest: float = 0.0
    """Frames of the longest gap, in seconds."""
    without_face: int = 0
    """Gaps beside which no usable face was found: interpolated or held."""
    cuts: int = 0
    """Gaps in which the scene changes."""
    eased: int = 0
    """Good frames changed to ease the return from a gap."""
    reasons: list[str] = field(default_factory=list)
    """Why a face could not be used, each reason once."""


class Concealer(MouthModel):
    """Generates the lost frames of videos; keeps the model and the detector loaded.

    Arguments and errors are those of :class:`~stillspeak.dub.mouth_model.MouthModel`.
    """

    _does = "conceal"

    def conceal(
        self,
        frames: Sequence[Picture] | npt.NDArray[np.uint8],
        lost: npt.NDArray[np.bool_] | Sequence[bool],
        audio: Waveform,
        *,
        fps: float = 25.0,
        **choices: Any,
    ) -> npt.NDArray[np.uint8]:
        """All frames of a clip at once, the lost ones generated.

        Args:
            frames: (T, H, W, 3) uint8; what stands in lost places does not matter.
            lost: (T,) bool.
            audio: (S,) float32 in [-1, 1] at the generator's rate, from the first frame on.
            fps: frames a second.
            choices: as for :meth:`fill`.

        Returns:
            (T, H, W, 3) uint8, equal to ``frames`` where nothing is lost.

        Raises:
            ConfigError, VideoError, NoFaceError: as :meth:`fill`; or shapes that do not fit.
        """
        missing = np.asarray(lost)
        if missing.shape != (len(frames),) or missing.dtype != bool:
            raise ConfigError(
                f"lost is {missing.dtype} {missing.shape}; give one bool for each of "
                f"{len(frames)} frames"
            )
        if not fps > 0:
            raise ConfigError(f"fps is {fps:g}; give a positive number")
        given = (
            InputFrame(model_place(index / fps, fps, self.generator), None if gone else picture)
            for index, (picture, gone) in enumerate(zip(frames, missing, strict=True))
        )
        return np.stack([picture for picture, _ in self.fill(given, [audio], **choices)])

    def fill(
        self,
        frames: Iterable[InputFrame],
        sound: Iterable[Waveform],
        *,
        stats: GapStats | None = None,
        name: str = "the video",
        **options: Unpack[GapKeywords],
    ) -> Iterator[tuple[Picture, bool]]:
        """Frames in order, each with whether it was generated. Memory does not grow.

        Args:
            frames: in order, (H, W, 3) uint8 of one size.
            sound: pieces (S,) float32 in [-1, 1] at the generator's rate; sample 0 is place 0.
            stats: counts what is done; eased frames apart.
            name: what messages call the video.
            options: seed, face, blink, expression, online, memory, ease: see :class:`GapOptions`.

        Raises:
            ConfigError: an option out of range.
            VideoError: not one good frame.
            NoFaceError: no usable face beside any gap.
        """
        given = GapOptions(**options)
        motion = eyes_and_brows(given.motion, self.generator.config)
        heard = HeardPoses(self.generator, sound, motion)
        with following(self.detector) as follower:
            search = FaceSearch(self.detector, follower)
            run = _GapRun(self, heard, given, stats or GapStats(), name, search)
            yield from run.all(frames)


def eyes_and_brows(options: AnimateOptions, config: GeneratorConfig) -> MotionProcess:
    """What moves them as in ``animate``; where the head is, the video says."""
    return MotionProcess(
        options.seed,
        config,
        blink=options.blink,
        expression=options.expression,
        head_motion=0.0,
    )


class _GapRun:
    """One video on its way through."""

    def __init__(
        self,
        concealer: Concealer,
        heard: HeardPoses,
        options: GapOptions,
        stats: GapStats,
        name: str,
        search: FaceSearch,
    ) -> None:
        self._concealer, self._generator = concealer, concealer.generator
        self._search = search
        self._heard, self._options, self._stats, self._name = heard, options, stats, name
        self._good: InputFrame | None = None  # the last good frame
        self._end: AnchorRenderer | Anchor | None = None  # the same, ready to be drawn from
        self._place: tuple[float, float] | None = None  # of the face last seen
        self._pending: list[float] = []
        self._mixing_from: float | None = None
        self._gap_begins: float | None = None
        self._faces = self._goods = self._looked = 0
        self._recent: deque[InputFrame] = deque(maxlen=RECENT)
        self._looks = AppearanceGatherer()
        self._mouth: VideoMouth | None = None  # of all looks so far
        self._easing: tuple[AnchorRenderer | Anchor, int] | None = None  # from what, frames done

    def all(self, frames: Iterable[InputFrame]) -> Iterator[tuple[Picture, bool]]:
        for frame in frames:
            if frame.picture is None:
                yield from self._lost(frame.place)
                continue
            if self._gap_begins is not None and self._options.ease and self._end:
                self._easing = (self._end, 0)
            yield from self._close_gap(frame)
            self._stats.frames += 1
            shown = self._eased(frame)
            self._good, self._end = frame, None
            self._recent.append(frame)
            self._goods += 1
            if self._goods % EVERY == 0 and self._looked < LOOKS:
                self._glance(frame)
            self._heard.forget(frame.place)
            yield frame.picture if shown is None else shown, shown is not None
        if self._pending and self._good is None:
            raise VideoError(f"{self._name}: every frame is lost; one good frame is needed")
        yield from self._close_gap(None)
        if self._stats.gaps and not self._faces:
            why = self._stats.reasons[0] if self._stats.reasons else "no face found"
            raise NoFaceError(
                f"{self._name}: no usable face beside any of its {self._stats.gaps} gaps ({why})"
            )

    def _lost(self, place: float) -> Iterator[tuple[Picture, bool]]:
        """A lost frame waits for the end of its gap, unless that may not be waited for."""
        fps = self._generator.config.fps
        if self._gap_begins is None:
            self._gap_begins = place
            self._stats.gaps += 1
        self._pending.append(place)
        self._stats.longest = max(self._stats.longest, (place - self._gap_begins + 1) / fps)
        if self._good is None:
            return
        if self._options.online:
            yield from self._draw(self._pending, None)
            self._pending = []
        elif place - self._pending[0] > round(LONG * fps):
            early = [p for p in self._pending if p <= place - TAIL * fps]
            self._pending = self._pending[len(early) :]
            yield from self._draw(early, None)
            self._mixing_from = early[-1]

    def _curves_at(
        self, places: npt.NDArray[np.float64], before: float | None, after: float | None
    ) -> torch.Tensor:
        """Eyes and brows (T, 4) at places in order, at rest beside the good frames ``before`` and
        ``after``."""
        share, fps = np.ones(len(places)), self._generator.config.fps
        if before is not None:
            share *= smoothstep(((places - before) / fps - REST) / REST)
        if after is not None:
            share *= smoothstep(((after - places) / fps - REST) / REST)
        return self._heard.curves(places) * torch.from_numpy(share).float()[:, None]

    def _filler(self, before: End, after: End) -> GapFiller:
        return GapFiller(
            *(self._heard, self._generator.config.fps, before, after),
            memory=self._options.memory,
            mixing_from=self._mixing_from,
        )

    def _eased(self, frame: InputFrame) -> Picture | None:
        """A good frame on the way from the generated picture to itself; None: it is itself."""
        assert frame.picture is not None
        if self._easing is None:
            return None
        end, done = self._easing
        ease = self._options.ease
        self._easing = (end, done + 1) if done + 1 < ease else None
        (guess,) = self._filler(end, None).draw(np.array([frame.place]), self._curves_at)
        self._stats.eased += 1
        return pass_over(guess, frame.picture, (done + 1) / (ease + 1))

    def _close_gap(self, frame: InputFrame | None) -> Iterator[tuple[Picture, bool]]:
        """Draw what still waits; ``frame`` is the good one that ends the gap."""
        if self._pending:
            # The past alone: before the first good frame there is none, and that frame must do.
            use = None if self._options.online and self._good is not None else frame
            yield from self._draw(self._pending, use)
        self._pending, self._mixing_from, self._gap_begins = [], None, None

    def _draw(
        self, places: list[float], frame: InputFrame | None
    ) -> Iterator[tuple[Picture, bool]]:
        """Generate frames between the last good one and, if it is known, the next."""
        first_part = self._end is None
        if first_part and self._good is not None:
            self._end = self._made_ready(self._good)
        before, after = self._end, None if frame is None else self._made_ready(frame)
        parts: list[tuple[list[float], End, End]] = [(places, before, after)]
        if before is not None and after is not None and _apart(before.anchor, after.anchor):
            self._stats.cuts += 1
            middle = len(places) // 2
            parts = [(places[:middle], before, None), (places[middle:], None, after)]
        for part, *ends in parts:
            if not part:
                continue
            if first_part and not any(isinstance(end, AnchorRenderer) for end in ends):
                self._stats.without_face += 1
            for picture in self._filler(*ends).draw(np.array(part), self._curves_at):
                self._stats.frames += 1
                self._stats.generated += 1
                yield picture, True
        if frame is None:
            self._heard.forget(places[-1])
        elif after is not None:
            self._end = after

    def _made_ready(self, frame: InputFrame) -> AnchorRenderer | Anchor:
        """A good frame to draw from; an anchor alone where no face can be used."""
        assert frame.picture is not None
        try:
            found = self._find(frame.picture)
            check_face(found, name=self._name)
        except FaceError as problem:
            why = str(problem).removeprefix(f"{self._name}: ")
            if why not in self._stats.reasons and len(self._stats.reasons) < 10:
                self._stats.reasons.append(why)
            return Anchor(frame.picture, None, frame.place)
        self._faces += 1
        self._look(frame.picture, found)
        ready = self._renderer(Anchor(frame.picture, found.points, frame.place))
        ready.compare(self._heard)
        if _closure(found) >= SHUT:
            ready.opened = self._opened(frame, found)
        return ready

    def _opened(self, frame: InputFrame, face: Face) -> AnchorRenderer | None:
        """A frame with the open eyes of one before it; None: there is none."""
        assert frame.picture is not None
        height, width = frame.picture.shape[:2]
        for other in list(self._recent)[-LOOK::-LOOK]:
            assert other.picture is not None
            found = self._nearest(other.picture)
            if found is None or _closure(found) > OPEN:
                continue
            points = face.points.copy()
            head = similarity_transform(found.points[list(RIGID)], points[list(RIGID)])
            points[list(EYELIDS)] = transform_points(found.points[list(EYELIDS)], head)
            mask = np.zeros((height, width), np.float32)
            for lids in (LEFT_EYELIDS, RIGHT_EYELIDS):
                rim = points[list(lids)].astype(np.float64)
                middle = rim.mean(axis=0)
                mask = np.maximum(mask, filled(middle + _EYE * (rim - middle), height, width))
            moved = warped(other.picture, invert_transform(head), (width, height))
            across = float(np.ptp(points[:, 0]))
            anchor = Anchor(blend(frame.picture, moved, mask, across), points, frame.place)
            return self._renderer(anchor)
        return None

    def _glance(self, frame: InputFrame) -> None:
        """Learn what the mouth looks like from a good frame, if it shows the face."""
        assert frame.picture is not None
        with suppress(FaceError):
            found = self._find(frame.picture)
            check_face(found)
            self._look(frame.picture, found)

    def _look(self, picture: Picture, face: Face) -> None:
        if self._looked < LOOKS:
            self._looks.add(picture, face.points)
            self._looked += 1
            self._mouth = None

    def _renderer(self, anchor: Anchor) -> AnchorRenderer:
        self._mouth = self._mouth or VideoMouth(self._looks.appearance())
        return AnchorRenderer(anchor, self._mouth, self._generator)

    def _nearest(self, picture: Picture) -> Face | None:
        if self._place is None:
            return None
        place, faces = self._place, self._concealer.detector.detect(picture)
        near = min(faces, key=lambda face: math.dist(face.centre, place), default=None)
        return None if near is None else self._search.exact(picture, near)

    def _find(self, picture: Picture) -> Face:
        """The face that speaks: the one asked for, later the one nearest to where it was."""
        found = self._nearest(picture)
        if found is None:
            faces = self._concealer.detector.detect(picture)
            found = choose_face(faces, self._options.face, name=self._name)
            found = self._search.exact(picture, found) or found
        self._place = found.centre
        return found


def _closure(face: Face) -> float:
    shapes = face.blendshapes
    return (shapes.get("eyeBlinkLeft", 0.0) + shapes.get("eyeBlinkRight", 0.0)) / 2


def _apart(first: Anchor, second: Anchor) -> bool:
    """Whether the two ends of a gap do not show the same scene."""
    if first.points is not None and second.points is not None:
        size = np.ptp(first.points, axis=0).max()
        other = np.ptp(second.points, axis=0).max()
        away = np.abs(first.points.mean(axis=0) - second.points.mean(axis=0)).max()
        if away > _SAME_FACE * size or not 0.6 < other / size < 1.7:
            return True
    small = [thumbnail(anchor.picture) for anchor in (first, second)]
    return difference(*small) > _OTHER_SCENE
