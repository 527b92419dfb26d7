"""What the metrics of one clip look at: frames and sound, and what is found in them, once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.layouts.grid import PAUSES
from stillspeak.errors import VideoError
from stillspeak.evaluation.measures.accents import accents
from stillspeak.evaluation.measures.closures import (
    Closures,
    Levels,
    at_times,
    bilabial_times,
    closing_levels,
    compare_closures,
    real_closures,
)
from stillspeak.evaluation.measures.expression import brow_curve
from stillspeak.evaluation.measures.identity import Embeddings
from stillspeak.evaluation.measures.image_quality import Frames
from stillspeak.evaluation.measures.lips import find_in_crop, quiet_frames, silent_frames
from stillspeak.evaluation.real_cache import RealCache
from stillspeak.evaluation.tools import Tool, Tools
from stillspeak.face.landmarks import LANDMARKS, Face
from stillspeak.face.mouth import face_height, lip_opening, mouth_width

T = TypeVar("T")
Curve = npt.NDArray[np.float64]
Head = npt.NDArray[np.floating]


class Sync(NamedTuple):
    """offset: frames by which sound and pictures fit best. confidence: how clearly."""

    offset: int
    confidence: float


class OtherClip(NamedTuple):
    """What a generated video should not fit, (T,) each: the real mouth's opening and width in
    pixels of the aligned crop, NaN where there is no face, and the voice's accents.
    """

    opening: Curve
    width: Curve
    accents: Curve


class Silence(NamedTuple):
    """frames: (T,) bool, which frames are silent. source: ``word timings`` or ``energy``."""

    frames: npt.NDArray[np.bool_]
    source: str


class ObservedFrames:
    """The generated or the real frames (T, H, W, 3) of a clip, and the face in each of them."""

    def __init__(self, frames: Frames, detect: Callable[[], list[Face | None]]) -> None:
        self.frames = frames
        self._detect = detect
        self.tracked_head: Head | None = None
        """The head as it was found before frames were aligned, like :attr:`head`."""

    @cached_property
    def faces(self) -> list[Face | None]:
        """T faces in pixels of the crop, None where there is none."""
        return self._detect()

    @cached_property
    def points(self) -> npt.NDArray[np.float64]:
        """(T, 478, 2) landmarks, NaN where there is no face."""
        missing = np.full((LANDMARKS, 2), np.nan)
        return np.array([missing if f is None else f.points for f in self.faces], np.float64)

    @cached_property
    def opening(self) -> Curve:
        """(T,) opening between the inner lips in pixels, NaN where there is no face."""
        return lip_opening(self.points).astype(np.float64)

    @cached_property
    def width(self) -> Curve:
        """(T,) width of the mouth in pixels, NaN where there is no face."""
        return mouth_width(self.points).astype(np.float64)

    @cached_property
    def eye_closure(self) -> Curve:
        """(T,) mean of the two eyeBlink blendshapes in [0, 1], NaN where there is no face."""
        nowhere = {"eyeBlinkLeft": np.nan, "eyeBlinkRight": np.nan}
        shapes = [nowhere if f is None else f.blendshapes for f in self.faces]
        return np.array([(s["eyeBlinkLeft"] + s["eyeBlinkRight"]) / 2 for s in shapes])

    @cached_property
    def head(self) -> Curve:
        """(T, 3) turn, nod and tilt in degrees, NaN where there is no face: as they were found
        before alignment, else in these frames.
        """
        if self.tracked_head is not None:
            return np.asarray(self.tracked_head, np.float64)
        missing = (np.nan,) * 3
        poses = [missing if f is None else (f.yaw, f.pitch, f.roll) for f in self.faces]
        return np.array(poses, np.float64).reshape(-1, 3)

    @cached_property
    def brow(self) -> Curve:
        """(T,) height of the brows above the eyes in pixels, NaN where there is no face."""
        return brow_curve(self.points)


class EvaluationClip:
    """One clip: T generated and T real frames of the same moments, and the sound.

    What several metrics need is found when first asked for and kept. Frames that are equal,
    byte by byte, are analysed once.

    Args:
        generated: (T, H, W, 3) uint8, aligned crops at 25 frames a second.
        real: the same of the real video; its first frame is the reference image.
        audio: (S,) float32 mono in [-1, 1] at 16 kHz.
        words: (start s, end s, word); empty: there are no word timings.
        text: the sentence, for clips without word timings.
        tools: what the metrics need, loaded.
        real_cache: what earlier evaluations found in the real frames.
        others: gives what is known of other clips, when it is asked for.

    Raises:
        VideoError: the numbers or sizes of the frames differ.
    """

    def __init__(
        self,
        generated: Frames,
        real: Frames,
        audio: npt.NDArray[np.float32],
        words: Sequence[tuple[float, float, str]] = (),
        text: str | None = None,
        tools: Tools | None = None,
        real_cache: RealCache | None = None,
        others: Callable[[], Sequence[OtherClip]] = tuple,
    ) -> None:
        if generated.shape != real.shape:
            raise VideoError(
                f"{len(generated)} generated frames of {_size(generated)} and "
                f"{len(real)} real ones of {_size(real)} cannot be compared"
            )
        self.generated = ObservedFrames(generated, self._generated_faces)
        self.real = ObservedFrames(real, self._real_faces)
        self.audio = audio
        self.words = words
        self.text = text
        self.tools = tools or Tools()
        self._cache = real_cache or RealCache()
        self._others = others
        self._faces: dict[bytes, Face | None] = {}

    def track_heads(self, generated: Head | None, real: Head | None) -> None:
        """Take the heads' poses, (T, 3) turn, nod and tilt in degrees, from where alignment has not
        changed them; None: find them in the frames.
        """
        self.real.tracked_head = real
        self.generated.tracked_head = real if generated is None and self.is_real else generated

    def __len__(self) -> int:
        return len(self.real.frames)

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return len(self) / VIDEO_FPS

    @property
    def sentence(self) -> str | None:
        """What is said, in lower-case words; None if it is not known."""
        spoken = [word for _, _, word in self.words if word.lower() not in PAUSES]
        text = " ".join(spoken) if spoken else self.text or ""
        return " ".join(text.lower().split()) or None

    @cached_property
    def others(self) -> Sequence[OtherClip]:
        """What is known of other clips."""
        return self._others()

    @cached_property
    def accents(self) -> Curve:
        """(T,) how much each frame's sound is accented."""
        return accents(self.audio, len(self))

    @cached_property
    def face_height(self) -> float:
        """Median over the real frames, in pixels of the crop; NaN where no face was found."""
        heights = face_height(self.real.points)
        known = heights[np.isfinite(heights)]
        return float(np.median(known)) if len(known) else float("nan")

    @cached_property
    def levels(self) -> Levels | None:
        """Closed and open mouth in face heights, by the real lips; None: they never close."""
        return closing_levels(self.real.opening / self.face_height)

    @cached_property
    def closures(self) -> Closures | None:
        """Closures of the real lips amid speech, and those found in the generated ones."""
        if self.levels is None:
            return None
        silent = self.silence.frames
        real = self.real.opening / self.face_height
        places = real_closures(real, self.levels, silent)
        if self.words:
            places = at_times(places, bilabial_times(self.words), VIDEO_FPS)
        opening = self.generated.opening / self.face_height
        return compare_closures(opening, real, places, self.levels, silent)

    @cached_property
    def embeddings(self) -> tuple[Embeddings, Embeddings]:
        """Vectors of the generated (T, D) and of the real frames (T, D)."""
        assert self.tools.embedding is not None
        embed, cache = self.tools.embedding.embed, self._cache
        frames = self.real.frames
        real = _kept(cache.embeddings, lambda: _once(frames, embed), cache.keep_embeddings)
        rows = {_digest(frame): row for frame, row in zip(frames, real, strict=True)}
        return _once(self.generated.frames, embed, rows), real

    @cached_property
    def generated_sync(self) -> Sync:
        """Offset between the generated frames and the sound; VideoError if they are too short."""
        return self.real_sync if self.is_real else self._sync(self.generated.frames)

    @cached_property
    def real_sync(self) -> Sync:
        """The same of the real frames."""
        return Sync(*self._kept_value("sync", lambda: self._sync(self.real.frames)))

    @cached_property
    def generated_reading(self) -> str:
        """What the lip reader reads from the generated frames."""
        return self.real_reading if self.is_real else self._read(self.generated.frames)

    @cached_property
    def real_reading(self) -> str:
        """What it reads from the real ones."""
        return str(self._kept_value("lipreader", lambda: self._read(self.real.frames)))

    @cached_property
    def is_real(self) -> bool:
        """Every generated frame equals the real one."""
        return bool(np.array_equal(self.generated.frames, self.real.frames))

    @cached_property
    def silence(self) -> Silence:
        """By word timings where there are some, else by energy."""
        if self.words:
            return Silence(silent_frames(self.words, len(self), VIDEO_FPS), "word timings")
        return Silence(quiet_frames(self.audio, len(self)), "energy")

    def _kept_value(self, tool: Tool, find: Callable[[], Any]) -> Any:
        cache = self._cache
        return _kept(partial(cache.value, tool), find, partial(cache.keep_value, tool))

    def _generated_faces(self) -> list[Face | None]:
        _ = self._kept_faces  # a generated frame may be a real one
        return self._find(self.generated.frames)

    def _real_faces(self) -> list[Face | None]:
        return _kept(
            lambda: self._kept_faces, lambda: self._find(self.real.frames), self._cache.keep_faces
        )

    @cached_property
    def _kept_faces(self) -> list[Face | None] | None:
        """Faces of the real frames that were kept."""
        faces = self._cache.faces()
        if faces is not None:
            keys = (_digest(frame) for frame in self.real.frames)
            self._faces.update(zip(keys, faces, strict=True))
        return faces

    def _find(self, frames: Frames) -> list[Face | None]:
        assert self.tools.landmarks is not None
        found = []
        for frame in frames:
            key = _digest(frame)
            if key not in self._faces:
                self._faces[key] = find_in_crop(frame, self.tools.landmarks)
            found.append(self._faces[key])
        return found

    def _sync(self, frames: Frames) -> Sync:
        assert self.tools.sync is not None
        # Sound may end before or after the picture, as it does in files.
        sound = np.zeros(len(self) * SAMPLE_RATE // VIDEO_FPS, np.float32)
        sound[: len(self.audio)] = self.audio[: len(sound)]
        found = self.tools.sync.measure(frames, sound)
        return Sync(int(found.offset), float(found.confidence))

    def _read(self, frames: Frames) -> str:
        assert self.tools.lipreader is not None
        return self.tools.lipreader.read(frames)


def _kept(load: Callable[[], T | None], find: Callable[[], T], keep: Callable[[T], None]) -> T:
    """What was kept, or what is found now and kept."""
    known = load()
    if known is None:
        known = find()
        keep(known)
    return known


def _once(
    frames: Iterable[npt.NDArray[np.uint8]],
    work: Callable[[Sequence[npt.NDArray[np.uint8]]], npt.NDArray[np.float64]],
    known: Mapping[bytes, npt.NDArray[np.float64]] | None = None,
) -> npt.NDArray[np.float64]:
    """Rows of ``work`` for frames, of which equal ones are given to it once and known ones not."""
    keys = [(_digest(frame), frame) for frame in frames]
    rows = dict(known or {})
    new = {key: frame for key, frame in keys if key not in rows}
    if new:
        rows.update(zip(new, work(list(new.values())), strict=True))
    return np.stack([rows[key] for key, _ in keys])


def _digest(frame: npt.NDArray[np.uint8]) -> bytes:
    return hashlib.sha256(frame.tobytes()).digest()


def _size(frames: Frames) -> str:
    return f"{frames.shape[2]} x {frames.shape[1]} pixels"
