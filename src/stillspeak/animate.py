"""The main path: one picture and one speech clip become a talking-face video.

:func:`animate` reads from top to bottom as the walk from two inputs to one output; what each
step does stands in the module that it is called from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.errors import AudioError, ConfigError
from stillspeak.face.landmarks import (
    LandmarkDetector,
    MediaPipeDetector,
    check_face,
    choose_face,
)
from stillspeak.media.audio import frame_windows, load_audio
from stillspeak.media.image import load_image
from stillspeak.media.source import source_name
from stillspeak.media.video import write_video
from stillspeak.models.generator import Generator
from stillspeak.render import FaceRenderer, fit_picture
from stillspeak.runtime import choose_device
from stillspeak.weights import DEFAULT_MODEL, load_model

if TYPE_CHECKING:
    import PIL.Image

MIN_SECONDS = 0.2
"""Shortest speech that is animated: five frames."""

SILENCE = 10 ** (-70 / 20)
"""Peak below which a whole clip counts as silence: -70 dB of full scale."""

CHUNK = 16
"""Frames generated at a time; memory grows with it and not with the sound's length."""

MAX_SEED = 2**63 - 1
"""Largest seed: what every random number generator takes."""


class Animator:
    """A loaded model and detector, for any number of animations.

    Args:
        model: a released model's name, a weights file, or a generator.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        detector: finds the face; MediaPipe's by default, loaded when first needed.

    Raises:
        WeightsError: the weights cannot be used.
        ConfigError: the device is not there.
    """

    def __init__(
        self,
        model: str | Path | Generator = DEFAULT_MODEL,
        *,
        device: str = "auto",
        detector: LandmarkDetector | None = None,
    ) -> None:
        self.device = choose_device(device)
        loaded = model if isinstance(model, Generator) else load_model(model)
        self.generator = loaded.to(self.device).eval()
        self._detector = detector

    @property
    def detector(self) -> LandmarkDetector:
        """The face detector, loaded when first asked for."""
        if self._detector is None:
            self._detector = MediaPipeDetector()
        return self._detector

    def close(self) -> None:
        """Release the detector."""
        if self._detector is not None:
            self._detector.close()
            self._detector = None

    def __enter__(self) -> Animator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def animate(
        self,
        image: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
        audio: str | Path | bytes | tuple[npt.NDArray[Any], int],
        *,
        seed: int = 0,
        face: int | None = None,
        crop: bool = False,
        size: int | None = None,
        image_name: str | None = None,
        audio_name: str | None = None,
    ) -> Animation:
        """Make a picture speak.

        Args:
            image: path, bytes, PIL picture, or array (H, W, 3) uint8.
            audio: path, bytes, or ``(samples, rate)``.
            seed: decides what the sound does not: the same seed gives the same video.
            face: which face, 0 being the largest; None takes the largest.
            crop: the bare aligned crop instead of the whole picture.
            size: height of the video in pixels. By default the picture's own, at most
                1,920 on its longer side, and 128 for the crop. The crop's is rounded to
                a multiple of 4, so that its shape stays.
            image_name: what messages call the picture; its path, or e.g. ``<bytes>``.
            audio_name: what messages call the sound.

        Returns:
            The animation; its frames are generated when they are asked for.

        Raises:
            ImageError, AudioError: an input cannot be read, or the sound is too short or silent.
            FaceError: no usable face.
            ConfigError: a size or seed out of range.
        """
        if not 0 <= seed <= MAX_SEED:
            raise ConfigError(f"seed {seed} is out of range; give 0 to {MAX_SEED}")
        config = self.generator.config
        speech = load_audio(audio, sample_rate=config.sample_rate, name=audio_name)
        _check_speech(speech, config.sample_rate, source_name(audio, audio_name))
        name = source_name(image, image_name)
        picture = fit_picture(load_image(image, name=name), None if crop else size)
        shown = name if crop or size is None else f"{name} at size {size}"
        found = choose_face(self.detector.detect(picture), face, name=shown)
        check_face(found, name=shown)
        renderer = FaceRenderer(
            picture, found.points, self.generator, whole=not crop, lines=size if crop else None
        )
        return Animation(self.generator, renderer, speech, seed)


@dataclass(frozen=True, eq=False)
class Animation:
    """A talking face: frames (H, W, 3) uint8 RGB at :attr:`fps`, with its sound.

    Iterating generates the frames, chunk by chunk, each time anew and each time the same.
    """

    generator: Generator
    renderer: FaceRenderer
    audio: npt.NDArray[np.float32]
    """The speech, (S,) float32 in [-1, 1] at :attr:`sample_rate`."""
    seed: int

    @property
    def fps(self) -> int:
        """Frames a second."""
        return self.generator.config.fps

    @property
    def sample_rate(self) -> int:
        """Audio samples a second."""
        return self.generator.config.sample_rate

    @property
    def height(self) -> int:
        """Height of a frame in pixels."""
        return self.renderer.height

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return self.renderer.width

    def __len__(self) -> int:
        return len(self.audio) // self.generator.config.hop

    @torch.inference_mode()
    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        generator = self.generator
        windows = frame_windows(self.audio, generator.config.window, generator.config.hop)
        random = torch.Generator().manual_seed(self.seed)
        state = generator.initial_state()
        for start in range(0, len(windows), CHUNK):
            chunk = torch.tensor(windows[start : start + CHUNK]).unsqueeze(0)
            noise = generator.draw_noise(1, chunk.shape[1], random)
            decoded, state = generator.step(
                self.renderer.context, chunk.to(noise.device), noise, state
            )
            yield from self.renderer.render(decoded)

    @property
    def frames(self) -> npt.NDArray[np.uint8]:
        """All frames at once: (T, H, W, 3) uint8."""
        return np.stack(list(self))

    def save(self, path: str | Path, *, overwrite: bool = False) -> int:
        """Write the video; the suffix decides the format (mp4, webm, gif, none: PNG folder).

        Returns:
            Frames written.

        Raises:
            OutputExistsError: ``path`` exists and ``overwrite`` is False.
            OutputError: it cannot be written.
        """
        return write_video(path, self, overwrite=overwrite, **self.video_settings)

    @property
    def video_settings(self) -> dict[str, Any]:
        """What ``write_video`` needs besides the frames."""
        return {
            "fps": self.fps,
            "audio": self.audio,
            "sample_rate": self.sample_rate,
            "metadata": {"comment": "Synthetic talking-face video, made with stillspeak"},
        }


def animate(
    image: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
    audio: str | Path | bytes | tuple[npt.NDArray[Any], int],
    *,
    model: str | Path | Generator = DEFAULT_MODEL,
    device: str = "auto",
    seed: int = 0,
    face: int | None = None,
    crop: bool = False,
    size: int | None = None,
) -> Animation:
    """Make one picture speak; for many, keep an :class:`Animator`.

    Arguments, result and errors as in :class:`Animator` and :meth:`Animator.animate`.
    """
    with Animator(model, device=device) as animator:
        return animator.animate(image, audio, seed=seed, face=face, crop=crop, size=size)


def _check_speech(speech: npt.NDArray[np.float32], sample_rate: int, name: str) -> None:
    seconds = len(speech) / sample_rate
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{name}: {1000 * seconds:.0f} ms of sound are too short to animate; "
            f"give at least {1000 * MIN_SECONDS:.0f} ms"
        )
    if not np.abs(speech).max() > SILENCE:
        raise AudioError(f"{name}: holds only silence; give a recording of speech")
