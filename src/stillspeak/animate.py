"""The main path: one picture and one speech clip become a talking-face video.

:func:`animate` reads from top to bottom as the walk from two inputs to one output; what each
step does stands in the module that it is called from.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from stillspeak.animation import Animation
from stillspeak.errors import AudioError
from stillspeak.face.landmarks import (
    LandmarkDetector,
    MediaPipeDetector,
    choose_face,
)
from stillspeak.media.audio import load_audio
from stillspeak.media.image import load_image
from stillspeak.media.marks.origin import Origin, Source, describe_picture, describe_sound
from stillspeak.media.source import source_name
from stillspeak.models.engine import InferenceEngine, packing_works
from stillspeak.models.generator import Generator
from stillspeak.options import AnimateOptions, OptionKeywords, takes_options
from stillspeak.rendering.check import check_still
from stillspeak.rendering.portrait import Portrait, fit_picture
from stillspeak.synthesis import Synthesizer
from stillspeak.system.runtime import choose_decoder_type, choose_device
from stillspeak.weights import DEFAULT_MODEL, identify_model, load_model

if TYPE_CHECKING:
    import PIL.Image

MIN_SECONDS = 0.2
"""Shortest speech that is animated: five frames."""

SILENCE = 10 ** (-70 / 20)
"""Peak below which a whole clip counts as silence: -70 dB of full scale."""


class Animator:
    """A loaded model and detector, for any number of animations.

    Args:
        model: a released model's name, a weights file, or a generator.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        detector: finds the face; MediaPipe's by default, loaded when first needed.
        precision: of the frame decoder: ``float32``, ``bfloat16``, or ``auto``: bfloat16 where the
            CPU has it in hardware. On a photo its frames differ by at most 2 levels of 255.

    Raises:
        WeightsError: the weights cannot be used.
        ConfigError: the device is not there; an unknown precision.
    """

    def __init__(
        self,
        model: str | Path | Generator = DEFAULT_MODEL,
        *,
        device: str = "auto",
        detector: LandmarkDetector | None = None,
        precision: str = "auto",
    ) -> None:
        self.device = choose_device(device)
        self._type = choose_decoder_type(precision, self.device)
        if precision == "auto" and not packing_works(self._type):
            self._type = choose_decoder_type("float32", self.device)
        loaded = model if isinstance(model, Generator) else load_model(model)
        self.generator = loaded.to(self.device).eval()
        self._model = None if isinstance(model, Generator) else model
        self._identity: tuple[str, str | None] | None = None
        self._detector = detector
        self._engine: InferenceEngine | None = None

    @property
    def engine(self) -> InferenceEngine:
        """The generator made ready to run, which is done when first asked for.

        Its weights are those of that moment.
        """
        if self._engine is None:
            self._engine = InferenceEngine(self.generator, dtype=self._type)
        return self._engine

    @property
    def detector(self) -> LandmarkDetector:
        """The face detector, loaded when first asked for."""
        if self._detector is None:
            self._detector = MediaPipeDetector(any_way_up=True)
        return self._detector

    @property
    def model_identity(self) -> tuple[str, str | None]:
        """Name and SHA-256 of the weights, for a video's credentials; looked up when first asked.

        Of a generator that was handed in, neither is known.
        """
        if self._identity is None:
            self._identity = identify_model(self._model)
        return self._identity

    def close(self) -> None:
        """Release the detector."""
        if self._detector is not None:
            self._detector.close()
            self._detector = None

    def __enter__(self) -> Animator:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @takes_options
    def animate(
        self,
        image: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
        audio: str | Path | bytes | tuple[npt.NDArray[Any], int],
        options: AnimateOptions | None = None,
        *,
        image_name: str | None = None,
        audio_name: str | None = None,
        **keywords: Unpack[OptionKeywords],
    ) -> Animation:
        """Make a picture speak.

        Args:
            image: path, bytes, PIL picture, or array (H, W, 3) uint8.
            audio: path, bytes, or ``(samples, rate)``.
            options: all options in one value; those that follow take precedence.
            image_name: what messages call the picture; its path, or e.g. ``<bytes>``.
            audio_name: what messages call the sound.
            face: which face, 0 being the largest; None takes the largest.
            crop: the bare aligned crop instead of the whole picture.
            size: height of the video in pixels. By default the picture's own, at most
                1,920 on its longer side, and 128 for the crop. The crop's is rounded to
                a multiple of 4, so that its shape stays.
            seed: decides what the sound does not: the same seed gives the same video.
            blink: times as many blinks as people make; 0: none.
            expression: size of the movements of brows and gaze, 1 being people's.
            head_motion: size of small movements of the head; 0: it rests.

        Returns:
            The animation; its frames are generated when they are asked for.

        Raises:
            ImageError, AudioError: an input cannot be read, or the sound is too short or silent.
            FaceError: no usable face.
            ConfigError: a size, seed or strength out of range.
        """
        options = replace(options or AnimateOptions(), **keywords)
        config = self.generator.config
        speech = load_audio(audio, sample_rate=config.sample_rate, name=audio_name)
        check_speech(speech, config.sample_rate, source_name(audio, audio_name))
        synthesizer = self.synthesizer(image, options, image_name=image_name)
        origin = self.origin(synthesizer, describe_sound(audio, speech))
        return Animation(synthesizer, speech, origin)

    def origin(self, face: Synthesizer, speech: Source | None, **more: Any) -> Origin:
        """What a face's video is made from, for its credentials."""
        name, sha256 = self.model_identity
        size = [face.renderer.width, face.renderer.height]
        settings = {**face.options.record(), "size": size, **more}
        return Origin(name, sha256, face.portrait.source, speech, settings=settings)

    def synthesizer(
        self,
        image: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
        options: AnimateOptions | None = None,
        *,
        image_name: str | None = None,
    ) -> Synthesizer:
        """A face before its first sound, with what depends on the picture alone computed.

        Args:
            image, options, image_name: as for :meth:`animate`.

        Raises:
            ImageError: the picture cannot be read.
            FaceError: no usable face.
            ConfigError: a size that makes so wide a picture too large.
        """
        name = source_name(image, image_name)
        loaded = load_image(image, name=name)
        still = describe_picture(image, loaded)
        options = options or AnimateOptions()
        size = options.size
        picture = fit_picture(loaded, None if options.crop else size)
        shown = name if options.crop or size is None else f"{name} at size {size}"
        found = choose_face(self.detector.detect(picture), options.face, name=shown)
        warnings = check_still(picture, found, name=shown)
        portrait = Portrait.of(picture, found.points, self.engine, still, warnings)
        return Synthesizer(self.engine, portrait, options)


@takes_options
def animate(
    image: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
    audio: str | Path | bytes | tuple[npt.NDArray[Any], int],
    *,
    model: str | Path | Generator = DEFAULT_MODEL,
    device: str = "auto",
    **options: Unpack[OptionKeywords],
) -> Animation:
    """Make one picture speak; for many, keep an :class:`Animator`.

    Arguments, result and errors as in :class:`Animator` and :meth:`Animator.animate`.
    """
    with Animator(model, device=device) as animator:
        return animator.animate(image, audio, **options)


def check_speech(speech: npt.NDArray[np.float32], sample_rate: int, name: str) -> None:
    """Refuse sound that holds nothing to speak.

    Args:
        speech: (S,) float32 in [-1, 1].
        sample_rate: samples a second.
        name: what messages call it.

    Raises:
        AudioError: too short or silent.
    """
    seconds = len(speech) / sample_rate
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{name}: {1000 * seconds:.0f} ms of sound are too short to animate; "
            f"give at least {1000 * MIN_SECONDS:.0f} ms"
        )
    if not np.abs(speech).max() > SILENCE:
        raise AudioError(f"{name}: holds only silence; give a recording of speech")
