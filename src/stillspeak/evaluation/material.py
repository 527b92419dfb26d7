"""What the metrics of one clip look at: frames and sound, and what is found in them, once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import VideoError
from stillspeak.evaluation.identity import Embedder, Embeddings
from stillspeak.evaluation.image_quality import Frames, grey
from stillspeak.evaluation.lips import find_in_crop, quiet_frames, silent_frames
from stillspeak.face.landmarks import LANDMARKS, Face, LandmarkDetector
from stillspeak.face.mouth import lip_opening

Tool = Literal["landmarks", "embedding"]
"""What a metric may need beyond frames and sound."""


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
        detector: finds landmarks; None where no metric asks for them.
        embedder: embeds faces; None where no metric asks for it.

    Raises:
        VideoError: other numbers or sizes of frames.
    """

    generated: Frames
    real: Frames
    audio: npt.NDArray[np.float32]
    words: Sequence[tuple[float, float, str]] = ()
    detector: LandmarkDetector | None = None
    embedder: Embedder | None = None
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

    @cached_property
    def generated_grey(self) -> npt.NDArray[np.float64]:
        """(T, H, W) in [0, 255]."""
        return grey(self.generated)

    @cached_property
    def generated_faces(self) -> list[Face | None]:
        """T faces in pixels of the crop, None where there is none."""
        return self._find(self.generated)

    @cached_property
    def real_faces(self) -> list[Face | None]:
        """The same of the real frames, found in the same way."""
        return self._find(self.real)

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
    def generated_closure(self) -> npt.NDArray[np.float64]:
        """(T,) mean of the two eyeBlink blendshapes in [0, 1], NaN where there is no face."""
        return np.array([_closure(face) for face in self.generated_faces])

    @cached_property
    def embeddings(self) -> tuple[Embeddings, Embeddings]:
        """Vectors of the generated (T, D) and of the real frames (T, D)."""
        assert self.embedder is not None
        frames = [*self.generated, *self.real]
        vectors = _once(frames, self.embedder.embed)
        return np.stack(vectors[: len(self)]), np.stack(vectors[len(self) :])

    @cached_property
    def silence(self) -> Silence:
        """Which frames are silent: by word timings where there are some, else by energy."""
        if self.words:
            return Silence(silent_frames(self.words, len(self), VIDEO_FPS), "word timings")
        return Silence(quiet_frames(self.audio, len(self)), "energy")

    def _find(self, frames: Frames) -> list[Face | None]:
        assert self.detector is not None
        found = []
        for frame in frames:
            key = frame.tobytes()
            if key not in self._faces:
                self._faces[key] = find_in_crop(frame, self.detector)
            found.append(self._faces[key])
        return found


def _once(
    frames: Sequence[npt.NDArray[np.uint8]],
    work: Callable[[Sequence[npt.NDArray[np.uint8]]], npt.NDArray[np.float64]],
) -> list[npt.NDArray[np.float64]]:
    """Rows of ``work`` for frames, of which equal ones are given to it once."""
    place: dict[bytes, int] = {}
    different: list[npt.NDArray[np.uint8]] = []
    for frame in frames:
        if place.setdefault(frame.tobytes(), len(different)) == len(different):
            different.append(frame)
    rows = work(different)
    return [rows[place[frame.tobytes()]] for frame in frames]


def _points(faces: Sequence[Face | None]) -> npt.NDArray[np.float64]:
    missing = np.full((LANDMARKS, 2), np.nan)
    return np.stack([missing if f is None else f.points.astype(np.float64) for f in faces])


def _closure(face: Face | None) -> float:
    if face is None:
        return float("nan")
    return (face.blendshapes["eyeBlinkLeft"] + face.blendshapes["eyeBlinkRight"]) / 2


def _size(frames: Frames) -> str:
    return f"{frames.shape[2]} x {frames.shape[1]} pixels"
