"""What the metrics of one clip look at: frames and sound, and what is found in them, once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.layouts.grid import PAUSES
from stillspeak.errors import VideoError
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
from stillspeak.evaluation.real_cache import RealSide
from stillspeak.evaluation.tools import Tools
from stillspeak.face.landmarks import LANDMARKS, Face
from stillspeak.face.mouth import face_height, lip_opening, mouth_width


class Sync(NamedTuple):
    """offset: frames by which sound and pictures fit best. confidence: how clearly."""

    offset: int
    confidence: float


class Mouth(NamedTuple):
    """What a mouth does over time, (T,) each, NaN where there is no face.

    opening: between the inner lips. width: between the corners. Pixels of the aligned crop, in
    which the eyes and the nose stay in place: the face's own frame.
    """

    opening: npt.NDArray[np.float64]
    width: npt.NDArray[np.float64]


class Silence(NamedTuple):
    """frames: (T,) bool, which frames are silent. source: ``word timings`` or ``energy``."""

    frames: npt.NDArray[np.bool_]
    source: str


@dataclass(eq=False)
class Material:
    """One clip: T generated and T real frames of the same moments, and the sound.

    What several metrics need is found when first asked for and kept. Frames that are equal,
    byte by byte, are looked at once.

    Attributes:
        generated: (T, H, W, 3) uint8, aligned crops at 25 frames a second.
        real: the same of the real video; its first frame is the still.
        audio: (S,) float32 mono in [-1, 1] at 16 kHz.
        words: (start s, end s, word); empty: there are no word timings.
        text: the sentence, for clips without word timings.
        tools: what the metrics need, loaded.
        kept: what earlier evaluations found in the real frames; None: nothing is kept.
        others: gives the real mouths of other clips, when they are asked for.

    Raises:
        VideoError: other numbers or sizes of frames.
    """

    generated: Frames
    real: Frames
    audio: npt.NDArray[np.float32]
    words: Sequence[tuple[float, float, str]] = ()
    text: str | None = None
    tools: Tools = field(default_factory=Tools)
    kept: RealSide | None = None
    others: Callable[[], Sequence[Mouth]] = tuple
    _faces: dict[bytes, Face | None] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.generated.shape != self.real.shape:
            raise VideoError(
                f"{len(self.generated)} generated frames of {_size(self.generated)} and "
                f"{len(self.real)} real ones of {_size(self.real)} cannot be compared"
            )

    def __len__(self) -> int:
        return len(self.real)

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return len(self) / VIDEO_FPS

    @property
    def sentence(self) -> str | None:
        """What is said, in lower-case words; None: nobody knows."""
        spoken = [word for _, _, word in self.words if word.lower() not in PAUSES]
        text = " ".join(spoken) if spoken else self.text or ""
        return " ".join(text.lower().split()) or None

    @cached_property
    def generated_faces(self) -> list[Face | None]:
        """T faces in pixels of the crop, None where there is none."""
        _ = self._kept_faces  # a generated frame may be a real one
        return self._find(self.generated)

    @cached_property
    def real_faces(self) -> list[Face | None]:
        """The same of the real frames, found in the same way."""
        if self._kept_faces is not None:
            return self._kept_faces
        faces = self._find(self.real)
        if self.kept is not None:
            self.kept.keep_faces(faces)
        return faces

    @cached_property
    def generated_points(self) -> npt.NDArray[np.float64]:
        """(T, 478, 2) landmarks, NaN where there is no face."""
        return _points(self.generated_faces)

    @cached_property
    def real_points(self) -> npt.NDArray[np.float64]:
        """(T, 478, 2) landmarks, NaN where there is no face."""
        return _points(self.real_faces)

    @cached_property
    def generated_opening(self) -> npt.NDArray[np.float64]:
        """(T,) opening between the inner lips in pixels, NaN where there is no face."""
        return lip_opening(self.generated_points).astype(np.float64)

    @cached_property
    def real_opening(self) -> npt.NDArray[np.float64]:
        """(T,) opening between the inner lips in pixels, NaN where there is no face."""
        return lip_opening(self.real_points).astype(np.float64)

    @cached_property
    def generated_mouth(self) -> Mouth:
        """Opening and width."""
        width = mouth_width(self.generated_points).astype(np.float64)
        return Mouth(self.generated_opening, width)

    @cached_property
    def real_mouth(self) -> Mouth:
        """Opening and width."""
        return Mouth(self.real_opening, mouth_width(self.real_points).astype(np.float64))

    @cached_property
    def other_mouths(self) -> Sequence[Mouth]:
        """Real mouths of other clips."""
        return self.others()

    @cached_property
    def face_height(self) -> float:
        """Median over the real frames, in pixels of the crop; NaN where no face was found."""
        heights = face_height(self.real_points)
        known = heights[np.isfinite(heights)]
        return float(np.median(known)) if len(known) else float("nan")

    @cached_property
    def levels(self) -> Levels | None:
        """Closed and open mouth in face heights, by the real lips; None: they never close."""
        return closing_levels(self.real_opening / self.face_height)

    @cached_property
    def closures(self) -> Closures | None:
        """Closures of the real lips amid speech, and those found in the generated ones."""
        if self.levels is None:
            return None
        silent = self.silence.frames
        real = self.real_opening / self.face_height
        places = real_closures(real, self.levels, silent)
        if self.words:
            places = at_times(places, bilabial_times(self.words), VIDEO_FPS)
        opening = self.generated_opening / self.face_height
        return compare_closures(opening, real, places, self.levels, silent)

    @cached_property
    def generated_closure(self) -> npt.NDArray[np.float64]:
        """(T,) mean of the two eyeBlink blendshapes in [0, 1], NaN where there is no face."""
        return np.array([_closure(face) for face in self.generated_faces])

    @cached_property
    def real_closure(self) -> npt.NDArray[np.float64]:
        """The same of the real frames."""
        return np.array([_closure(face) for face in self.real_faces])

    @cached_property
    def generated_brow(self) -> npt.NDArray[np.float64]:
        """(T,) height of the brows above the eyes in pixels, NaN where there is no face."""
        return brow_curve(self.generated_points)

    @cached_property
    def real_brow(self) -> npt.NDArray[np.float64]:
        """The same of the real frames."""
        return brow_curve(self.real_points)

    @cached_property
    def embeddings(self) -> tuple[Embeddings, Embeddings]:
        """Vectors of the generated (T, D) and of the real frames (T, D)."""
        assert self.tools.embedding is not None
        embed = self.tools.embedding.embed
        known = None if self.kept is None else self.kept.embeddings()
        if known is None:
            vectors = _once([*self.generated, *self.real], embed)
            generated, real = np.stack(vectors[: len(self)]), np.stack(vectors[len(self) :])
            if self.kept is not None:
                self.kept.keep_embeddings(real)
            return generated, real
        rows = {_name(frame): row for frame, row in zip(self.real, known, strict=True)}
        return np.stack(_once(self.generated, embed, rows)), known

    @cached_property
    def generated_sync(self) -> Sync:
        """Offset between the generated frames and the sound.

        Raises:
            VideoError: the clip is too short.
        """
        return self.real_sync if self.is_real else self._sync(self.generated)

    @cached_property
    def real_sync(self) -> Sync:
        """The same of the real frames."""
        known = None if self.kept is None else self.kept.value("sync")
        if known is not None:
            return Sync(*known)
        sync = self._sync(self.real)
        if self.kept is not None:
            self.kept.keep_value("sync", sync)
        return sync

    @cached_property
    def generated_reading(self) -> str:
        """What the lip reader reads from the generated frames."""
        assert self.tools.lipreader is not None
        return self.real_reading if self.is_real else self.tools.lipreader.read(self.generated)

    @cached_property
    def real_reading(self) -> str:
        """What it reads from the real ones."""
        assert self.tools.lipreader is not None
        known = None if self.kept is None else self.kept.value("lipreader")
        if known is not None:
            return str(known)
        text = self.tools.lipreader.read(self.real)
        if self.kept is not None:
            self.kept.keep_value("lipreader", text)
        return text

    @cached_property
    def is_real(self) -> bool:
        """Every generated frame equals the real one."""
        return bool(np.array_equal(self.generated, self.real))

    @cached_property
    def silence(self) -> Silence:
        """Which frames are silent: by word timings where there are some, else by energy."""
        if self.words:
            return Silence(silent_frames(self.words, len(self), VIDEO_FPS), "word timings")
        return Silence(quiet_frames(self.audio, len(self)), "energy")

    @cached_property
    def _kept_faces(self) -> list[Face | None] | None:
        """Faces of the real frames that were kept."""
        faces = None if self.kept is None else self.kept.faces()
        if faces is not None:
            keys = (_name(frame) for frame in self.real)
            self._faces.update(zip(keys, faces, strict=True))
        return faces

    def _sync(self, frames: Frames) -> Sync:
        assert self.tools.sync is not None
        # Sound may end before or after the picture, as it does in files.
        sound = np.zeros(len(self) * SAMPLE_RATE // VIDEO_FPS, np.float32)
        sound[: len(self.audio)] = self.audio[: len(sound)]
        found = self.tools.sync.measure(frames, sound)
        return Sync(int(found.offset), float(found.confidence))

    def _find(self, frames: Frames) -> list[Face | None]:
        detector = self.tools.landmarks
        assert detector is not None
        found = []
        for frame in frames:
            key = _name(frame)
            if key not in self._faces:
                self._faces[key] = find_in_crop(frame, detector)
            found.append(self._faces[key])
        return found


def _once(
    frames: Iterable[npt.NDArray[np.uint8]],
    work: Callable[[Sequence[npt.NDArray[np.uint8]]], npt.NDArray[np.float64]],
    known: Mapping[bytes, npt.NDArray[np.float64]] | None = None,
) -> list[npt.NDArray[np.float64]]:
    """Rows of ``work`` for frames, of which equal ones are given to it once and known ones not."""
    frames = list(frames)
    rows = dict(known or {})
    different = {_name(frame): frame for frame in frames}
    new = {key: frame for key, frame in different.items() if key not in rows}
    if new:
        rows.update(zip(new, work(list(new.values())), strict=True))
    return [rows[_name(frame)] for frame in frames]


def _name(frame: npt.NDArray[np.uint8]) -> bytes:
    """What equal frames have in common and others not, in few bytes."""
    return hashlib.sha256(frame.tobytes()).digest()


def _points(faces: Sequence[Face | None]) -> npt.NDArray[np.float64]:
    missing = np.full((LANDMARKS, 2), np.nan)
    return np.stack([missing if f is None else f.points.astype(np.float64) for f in faces])


def _closure(face: Face | None) -> float:
    if face is None:
        return float("nan")
    return (face.blendshapes["eyeBlinkLeft"] + face.blendshapes["eyeBlinkRight"]) / 2


def _size(frames: Frames) -> str:
    return f"{frames.shape[2]} x {frames.shape[1]} pixels"
