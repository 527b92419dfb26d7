"""The main path: one picture and one speech clip become a talking-face video."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from stillspeak.errors import AudioError, ConfigError
from stillspeak.face.landmarks import LandmarkDetector, MediaPipeDetector, choose_face
from stillspeak.media.audio import Waveform, load_audio, mixed
from stillspeak.media.image import load_cutout
from stillspeak.media.marks.marking import MarkChoices, Marks
from stillspeak.media.marks.origin import Origin, Source, describe_image, describe_speech
from stillspeak.media.sound import SoundSource, mixed_sounds, sound_of
from stillspeak.media.source import source_name
from stillspeak.media.video_writer import keeps_transparency, write_video
from stillspeak.models.engine import InferenceEngine, packing_works
from stillspeak.models.generator import Generator
from stillspeak.options import AnimateOptions, OptionKeywords, takes_options
from stillspeak.rendering.check import StillWarning, check_still
from stillspeak.rendering.portrait import Portrait, fit_picture
from stillspeak.synthesis import Synthesizer, speak_together
from stillspeak.system.runtime import choose_decoder_type, choose_device
from stillspeak.weights import DEFAULT_MODEL, identify_model, load_model

if TYPE_CHECKING:
    import PIL.Image

COMMENT = "Synthetic talking-face video, made with stillspeak"
"""What the plain metadata of a video says."""

MIN_SECONDS = 0.2
"""Shortest speech that is animated: five frames."""

SILENCE = 10 ** (-70 / 20)
"""Peak below which a whole clip counts as silence: -70 dB of full scale."""


SpeechSource = str | Path | bytes | tuple[npt.NDArray[Any], int]
"""A sound: path, bytes, or ``(samples, rate)``."""

MOMENTS = 0x9E3779B9
"""Between the seeds of when two faces of a picture blink."""


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
        self._detector = detector

    @cached_property
    def engine(self) -> InferenceEngine:
        """The generator made ready to run, with the weights it has when this is first used."""
        return InferenceEngine(self.generator, dtype=self._type)

    @property
    def detector(self) -> LandmarkDetector:
        """The face detector, loaded when first used."""
        if self._detector is None:
            self._detector = MediaPipeDetector(any_way_up=True)
        return self._detector

    @cached_property
    def model_identity(self) -> tuple[str, str | None]:
        """Name and SHA-256 of the weights; that of a generator that was handed in is None."""
        return identify_model(self._model)

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
        audio: SpeechSource,
        options: AnimateOptions | None = None,
        *,
        image_name: str | None = None,
        audio_name: str | None = None,
        others: Mapping[int, SpeechSource | None] | None = None,
        **keywords: Unpack[OptionKeywords],
    ) -> Animation:
        """Make a picture speak.

        Args:
            image: path, bytes, PIL picture, or array (H, W, 3) uint8.
            audio: path, bytes, or ``(samples, rate)``.
            options: all options in one value.
            image_name: what messages call the picture; its path, or e.g. ``<bytes>``.
            audio_name: what messages call the sound.
            others: more faces of the picture that move, by their numbers, and what each says; None:
                it listens. Options are the same for all. The video is as long as the longest
                speech, and its sound is all of them.
            **keywords: single fields of :class:`~stillspeak.options.AnimateOptions`, such as
                ``seed``. They take precedence over ``options``.

        Returns:
            The animation; its frames are generated when they are asked for.

        Raises:
            ImageError, AudioError: an input cannot be read, or the sound is too short or silent.
            FaceError: no usable face.
            ConfigError: a size, seed or strength out of range; several faces in a crop, with a
                model that paints crops, or one of them twice.
        """
        options = replace(options or AnimateOptions(), **keywords)
        speech, track = self._speech(audio, audio_name), sound_of(audio, name=audio_name)
        if not others:
            (synthesizer,) = self._faces(image, options, image_name, cutout=True)
            origin = self.origin(synthesizer, describe_speech(audio, speech))
            return Animation(synthesizer, speech, origin, sound=track)
        self._check_several(options, others)
        faces = self._faces(image, options, image_name, list(others), cutout=True)
        sounds, tracks, said = [speech], [track], {}
        for number, source in others.items():
            sounds.append(np.zeros(0, np.float32) if source is None else self._speech(source))
            if source is not None:
                tracks.append(sound_of(source))
                said[number] = describe_speech(source, sounds[-1])
        numbers = [options.face or 0, *others]
        origin = self.origin(faces[0], describe_speech(audio, speech), faces=numbers)
        origin = replace(origin, others=said)
        speakers = tuple(zip(faces, sounds, strict=True))
        heard = mixed_sounds(tracks) if len(tracks) > 1 else track
        return Animation(faces[0], mixed(sounds), origin, speakers, heard)

    def _speech(self, audio: SpeechSource, name: str | None = None) -> Waveform:
        """A speech (S,) that can be animated."""
        rate = self.generator.config.sample_rate
        speech = load_audio(audio, sample_rate=rate, name=name)
        check_speech(speech, rate, source_name(audio, name))
        return speech

    def _check_several(self, options: AnimateOptions, others: Mapping[int, Any]) -> None:
        if (options.face or 0) in others:
            raise ConfigError(f"face {options.face or 0} is named twice")
        if options.crop:
            raise ConfigError("a crop shows one face; leave out crop, or the other faces")
        if self.generator.config.decoder != "layers":
            raise ConfigError(
                "this model paints one face; for several use one that draws into the picture, such "
                f"as {DEFAULT_MODEL}"
            )

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

        Arguments and errors are those of :meth:`animate`. Transparency is laid on white.
        """
        return self._faces(image, options or AnimateOptions(), image_name)[0]

    def _faces(
        self,
        image: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
        options: AnimateOptions,
        image_name: str | None,
        others: Sequence[int] = (),
        *,
        cutout: bool = False,
    ) -> list[Synthesizer]:
        """The face of the options, and others of the same picture."""
        name = source_name(image, image_name)
        loaded = load_cutout(image, name=name)
        still = describe_image(image, np.ascontiguousarray(loaded[..., :3]))
        size = options.size
        fitted = fit_picture(loaded, None if options.crop else size)
        picture = np.ascontiguousarray(fitted[..., :3])
        seen = fitted[..., 3] if cutout and fitted.shape[2] == 4 else None
        shown = name if options.crop or size is None else f"{name} at size {size}"
        detected = self.detector.detect(picture)
        made: list[Synthesizer] = []
        for number in (options.face, *others):
            found = choose_face(detected, number, name=shown)
            warnings = check_still(picture, found, name=shown)
            beside = tuple(face.points for face in detected if face is not found)
            portrait = Portrait.of(picture, found.points, self.engine, still, warnings, beside)
            portrait = replace(portrait, alpha=seen)
            # Others blink at other times.
            moments = (options.seed + len(made) * MOMENTS) % 2**63
            one = replace(options, face=number)
            made.append(Synthesizer(self.engine, portrait, one, moments=moments))
        return made


@dataclass(frozen=True, eq=False)
class Animation:
    """A talking face: frames (H, W, 3) uint8 RGB at :attr:`fps`, with its sound; RGBA, (H, W, 4),
    where the picture has transparency.

    Iterating generates the frames, chunk by chunk, each time anew and each time the same. They
    are unmarked; writing them marks them as synthetic.
    """

    synthesizer: Synthesizer
    """Makes the frames; the animation itself only uses copies of it."""
    audio: npt.NDArray[np.float32]
    """The speech, or the sum of all, (S,) float32 in [-1, 1] at :attr:`sample_rate`: what the model
    hears."""
    origin: Origin = field(default_factory=Origin)
    """What the frames are made from, as content credentials name it."""
    speakers: tuple[tuple[Synthesizer, npt.NDArray[np.float32]], ...] = ()
    """All faces that move and what each says, where there are several: (S,), empty for nothing."""
    sound: SoundSource | None = None
    """The sound as it was given, its rate and channels included: what videos get. None: they get
    :attr:`audio`. It is read again from its file each time."""

    @property
    def fps(self) -> float:
        """Frames a second; a whole number is an int."""
        fps = self.synthesizer.fps
        return fps.numerator if fps.denominator == 1 else float(fps)

    @property
    def sample_rate(self) -> int:
        """Audio samples a second."""
        return self.synthesizer.engine.config.sample_rate

    @property
    def height(self) -> int:
        """Height of a frame in pixels."""
        return self.synthesizer.renderer.height

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return self.synthesizer.renderer.width

    @property
    def transparent(self) -> bool:
        """Whether its frames are RGBA."""
        return self.synthesizer.renderer.transparent

    @property
    def warnings(self) -> tuple[StillWarning, ...]:
        """What about the still makes its video worse; none for a good one."""
        if not self.speakers:
            return self.synthesizer.warnings
        return tuple(
            replace(warning, message=f"face {face.options.face or 0}: {warning.message}")
            for face, _ in self.speakers
            for warning in face.warnings
        )

    def lost_in(self, path: str | Path) -> tuple[StillWarning, ...]:
        """What an output of this name does not keep of the picture."""
        if not self.transparent or keeps_transparency(path):
            return ()
        message = (
            "its transparent parts are laid on white; .webm, .mov, .gif and a folder of PNG files "
            "keep them"
        )
        return (StillWarning("transparency_lost", message),)

    def __len__(self) -> int:
        config = self.synthesizer.engine.config
        return int(Fraction(len(self.audio) // config.hop, config.fps) * self.synthesizer.fps)

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        if not self.speakers:
            return self.synthesizer.restarted().speak(self.audio)
        faces, sounds = zip(*self.speakers, strict=True)
        return speak_together([face.restarted() for face in faces], sounds)

    @property
    def frames(self) -> npt.NDArray[np.uint8]:
        """All frames at once: (T, H, W, C) uint8."""
        return np.stack(list(self))

    def save(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        mark: bool = True,
        label: str | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
        progress: Callable[[int], None] = lambda frames: None,
    ) -> int:
        """Write the video; the suffix decides the format, see
        :func:`~stillspeak.media.video_writer.write_video`.

        Args:
            path: where to write.
            overwrite: replace what is there.
            mark: leave an imperceptible watermark and, except in webm and mkv, content credentials
                that say that the video is synthetic. Without them only a comment in the file says
                so; tell viewers yourself.
            label: a visible text in the corner.
            certificate, key: PEM files to sign with instead of the installation's own
                certificate; see :func:`stillspeak.media.marks.signing.find_signer`.
            progress: called with the number of frames so far after each one.

        Returns:
            Frames written.

        Raises:
            OutputExistsError: ``path`` exists and ``overwrite`` is False.
            OutputError: it cannot be written.
            ConfigError: the label or the certificate cannot be used.
        """
        settings = self.video_settings
        choices = MarkChoices(mark, label, certificate, key)
        settings["marks"] = choices.applied(settings["marks"])

        def frames() -> Iterator[npt.NDArray[np.uint8]]:
            for number, frame in enumerate(self, start=1):
                yield frame
                progress(number)

        return write_video(path, frames(), overwrite=overwrite, **settings)

    @property
    def video_settings(self) -> dict[str, Any]:
        """What ``write_video`` needs besides the frames; with marks."""
        return {
            "fps": self.synthesizer.fps,
            "audio": self.sound or self.audio,
            "sample_rate": self.sample_rate,
            "metadata": {"comment": COMMENT},
            "marks": Marks(self.origin),
        }


@takes_options
def animate(
    image: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
    audio: SpeechSource,
    *,
    model: str | Path | Generator = DEFAULT_MODEL,
    device: str = "auto",
    others: Mapping[int, SpeechSource | None] | None = None,
    **options: Unpack[OptionKeywords],
) -> Animation:
    """Make one picture speak; for many, keep an :class:`Animator`.

    Arguments, result and errors as in :class:`Animator` and :meth:`Animator.animate`.
    """
    with Animator(model, device=device) as animator:
        return animator.animate(image, audio, others=others, **options)


def check_speech(speech: npt.NDArray[np.float32], sample_rate: int, name: str) -> None:
    """Raise AudioError where sound (S,) in [-1, 1], called ``name``, is too short or silent."""
    seconds = len(speech) / sample_rate
    if seconds < MIN_SECONDS:
        raise AudioError(
            f"{name}: {1000 * seconds:.0f} ms of sound are too short to animate; "
            f"give at least {1000 * MIN_SECONDS:.0f} ms"
        )
    if not np.abs(speech).max() > SILENCE:
        raise AudioError(f"{name}: holds only silence; give a recording of speech")
