"""What is evaluated: a model, the floor (the still, repeated), the ceiling (the real video), or
videos that another system made.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.cache import open_clip
from stillspeak.data.layouts.grid import read_alignment
from stillspeak.errors import ConfigError, DataError, FaceError
from stillspeak.evaluation.measures.head import bridged
from stillspeak.evaluation.measures.image_quality import Frames
from stillspeak.evaluation.measures.lips import find_in_crop
from stillspeak.face.align import crop_face, face_transform, scale_transform, smooth_landmarks
from stillspeak.face.landmarks import (
    LANDMARKS,
    Face,
    LandmarkDetector,
    MediaPipeDetector,
    check_face,
)
from stillspeak.media.video import read_clip

if TYPE_CHECKING:  # most of what imports this needs no torch
    from stillspeak.models.generator import Generator
    from stillspeak.options import AnimateOptions

SystemKind = Literal["model", "still", "real", "videos"]

SEED = 0
"""Of the noise that a model draws: one video a clip, always the same."""

SECOND_FACE = 0.25
"""A second face of this share of the largest one's area, or more, makes a video ambiguous."""


@dataclass(frozen=True)
class System:
    """What is evaluated, in a form that worker processes can be given.

    ``sha256`` is that of the weights; for what has none, its kind. ``animate`` names the options of
    a model that are not the defaults, see :func:`animate_options`.
    """

    kind: SystemKind
    label: str
    sha256: str
    weights: Path | None = None
    animate: str = ""

    @property
    def name(self) -> str:
        """What it is called beside others."""
        return f"{self.label} {self.animate}".strip()

    @property
    def identity(self) -> str:
        """What the frames that it makes depend on, beside the clip."""
        return f"{self.sha256} {self.animate}".strip()


@dataclass(frozen=True)
class Recording:
    """One aligned video: a prepared clip, or a video file of bare aligned crops.

    ``key`` is the hash of everything that it depends on.
    """

    file: Path
    key: str
    prepared: bool = True
    alignment: Path | None = None
    """Word timings beside a bare crop; a prepared clip holds its own."""
    frames: int = 0
    """T, at 25 a second."""


class Loaded(NamedTuple):
    """frames (T, H, W, 3) uint8, audio (S,) float32, words as (start s, end s, word), the
    transcript, if there is one, and the head before alignment, if there was one: (T, 3) turn, nod
    and tilt in degrees.
    """

    frames: Frames
    audio: npt.NDArray[np.float32]
    words: list[tuple[float, float, str]]
    text: str | None = None
    head: npt.NDArray[np.floating] | None = None


ANIMATE = ("blink", "expression", "head_motion", "mood")
"""Options of a model that an evaluation may change."""


def animate_options(text: str) -> AnimateOptions:
    """Options such as ``head_motion=0,mood=happy``.

    Raises:
        ConfigError: another option, or a value that it cannot have.
    """
    from stillspeak.options import AnimateOptions

    values: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = (one.strip() for one in part.partition("="))
        if name not in ANIMATE or not value:
            raise ConfigError(
                f"{part.strip()!r} is no option of a model; give {', '.join(ANIMATE)}, such as "
                "head_motion=0"
            )
        values[name] = value
    return AnimateOptions(**values)


def open_system(model: str | Path, animate: str = "") -> System:
    """The system that a name stands for: ``still``, ``real``, a released model or a weights file;
    and the options of a model, see :func:`animate_options`.

    Raises:
        WeightsError: the weights cannot be used.
        DataError: the model works at other sizes or rates than prepared clips have.
        ConfigError: other options, or options for what is no model.
    """
    given = animate_options(animate).changed()
    changed = ",".join(f"{name}={value}" for name, value in given.items())
    if changed and model in ("still", "real"):
        raise ConfigError(f"{model} is no model and has no options ({changed})")
    if model in ("still", "real"):
        kind: SystemKind = "still" if model == "still" else "real"
        return System(kind, kind, kind)
    from stillspeak.weights import file_sha256, load_model, resolve_model

    config = load_model(model).config
    wanted = (FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE, VIDEO_FPS)
    if (config.height, config.width, config.sample_rate, config.fps) != wanted:
        raise DataError(
            f"{model}: works on {config.height} x {config.width} pixels, {config.sample_rate} "
            f"samples and {config.fps} frames a second; evaluation is defined for "
            f"{FRAME_HEIGHT} x {FRAME_WIDTH}, {SAMPLE_RATE} and {VIDEO_FPS}"
        )
    path, _ = resolve_model(model)
    return System("model", str(model), file_sha256(path), path.absolute(), changed)


def load_recording(recording: Recording) -> Loaded:
    """Read an aligned video.

    Raises:
        DataError, VideoError, AudioError: it cannot be read, or has no sound.
    """
    if not recording.prepared:
        frames, audio = read_clip(recording.file, fps=VIDEO_FPS, sample_rate=SAMPLE_RATE)
        times = [] if recording.alignment is None else read_alignment(recording.alignment)
        words = [(word.start, word.end, word.word) for word in times]
        return Loaded(np.stack(list(frames)), audio, words)
    from safetensors import SafetensorError

    try:
        with open_clip(recording.file) as clip:
            words = [(float(a), float(b), str(w)) for a, b, w in clip.metadata.get("words") or []]
            text = clip.metadata.get("text")
            text = text if isinstance(text, str) else None
            head = clip.get_tensor("head_pose") if clip.has("head_pose") else None
            return Loaded(clip.get_tensor("frames"), clip.get_tensor("audio"), words, text, head)
    except (SafetensorError, ValueError, TypeError) as error:
        raise DataError(
            f"{recording.file}: the prepared clip is damaged ({error}); run stillspeak prepare "
            "again"
        ) from error


class Made(NamedTuple):
    """frames (T, H, W, 3) uint8, and the head before they were aligned as in :class:`Loaded`."""

    frames: Frames
    head: npt.NDArray[np.floating] | None = None


FrameSource = Callable[[Frames, npt.NDArray[np.float32]], Made]
"""Makes a system's frames from the real ones' (T, H, W, 3) uint8 first, and the sound (S,)."""


def frame_source(system: System) -> FrameSource:
    """How a system's frames are made; for ``videos`` there is nothing to make."""
    if system.kind == "model":
        from stillspeak.weights import load_model

        assert system.weights is not None
        options, detector = animate_options(system.animate), MediaPipeDetector()
        moves = options.head_motion > 0
        # Drawn larger, so that being aligned costs no more than it costs a corpus.
        options = replace(options, size=2 * FRAME_HEIGHT) if moves else options
        animator = CropAnimator(load_model(system.weights), detector, options)

        def speak(real: Frames, audio: npt.NDArray[np.float32]) -> Made:
            frames = animator.animate(real[0], audio)
            return follow_head(frames, detector) if moves else Made(frames)

        return speak
    if system.kind == "still":
        return lambda real, audio: Made(np.repeat(real[:1], len(real), axis=0))
    return lambda real, audio: Made(real)


def follow_head(frames: Frames, detector: LandmarkDetector) -> Made:
    """Crops (T, 128 k, 96 k, 3) aligned as a corpus is, by landmarks averaged over seven frames:
    (T, 128, 96, 3). Those without a face are aligned between their neighbours, or not at all.
    """
    faces = [find_in_crop(frame, detector) for frame in frames]
    height, width = FRAME_HEIGHT, FRAME_WIDTH
    if not any(faces):
        unmoved = scale_transform(np.eye(2, 3), height / frames.shape[1])
        return Made(np.stack([crop_face(frame, unmoved, height, width) for frame in frames]))
    nowhere = np.full((LANDMARKS, 2), np.nan)
    points = np.array([nowhere if f is None else f.points for f in faces])
    poses = [(np.nan,) * 3 if f is None else (f.yaw, f.pitch, f.roll) for f in faces]
    smooth = smooth_landmarks(bridged(points, least=0))
    aligned = [
        crop_face(frame, face_transform(place), height, width)
        for frame, place in zip(frames, smooth, strict=True)
    ]
    return Made(np.stack(aligned), np.array(poses))


class CropAnimator:
    """Makes aligned crops speak as ``animate`` makes pictures speak, with all that it moves. The
    detector finds the eyes: MediaPipe by default, loaded when first needed.
    """

    def __init__(
        self,
        generator: Generator,
        detector: LandmarkDetector | None = None,
        options: AnimateOptions | None = None,
    ) -> None:
        self._generator = generator
        self._detector = detector
        self._options = options

    def animate(
        self, still: npt.NDArray[np.uint8], audio: npt.NDArray[np.float32], seed: int = SEED
    ) -> Frames:
        """(T, H, W, 3) uint8 from an aligned crop (H, W, 3) and a sound (S,).

        The sound helps to decide when the eyes blink: at other moments in every video of a seed,
        at the same ones in every run. A crop in which no face is found keeps its eyes still.
        """
        from stillspeak.options import AnimateOptions
        from stillspeak.rendering.portrait import Portrait
        from stillspeak.synthesis import Synthesizer

        if self._detector is None:
            self._detector = MediaPipeDetector()
        found = self._detector.detect(still)
        face = Portrait.of_crop(still, found[0].points if found else None, self._generator)
        moments = seed + zlib.crc32(audio.tobytes())
        options = replace(self._options or AnimateOptions(), crop=True, seed=seed)
        speaking = Synthesizer(self._generator, face, options, moments=moments)
        return np.stack(list(speaking.speak(audio)))


class OneFaceDetector:
    """Finds the face of a video and refuses a video that shows two, or one that is too small."""

    def __init__(self, detector: LandmarkDetector | None = None) -> None:
        self._detector = detector or MediaPipeDetector(max_faces=2)

    @property
    def version(self) -> str:
        """As the detector's, with the rule."""
        return f"{self._detector.version}, one face below {SECOND_FACE}"

    def detect(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """The face of an (H, W, 3) uint8 picture, or none.

        Raises:
            FaceError: there are two.
            FaceTooSmallError: the face has too few pixels.
        """
        faces = self._detector.detect(image)
        if len(faces) > 1 and faces[1].area >= SECOND_FACE * faces[0].area:
            raise FaceError("shows two faces; cut it to the one that speaks")
        if faces:
            check_face(faces[0], max_yaw=float("inf"), name="a frame")
        return faces[:1]

    def close(self) -> None:
        """Release the detector."""
        self._detector.close()
