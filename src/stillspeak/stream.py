"""A live talking face: sound comes in chunks of any size, frames go out as soon as they can.

How the sound is cut changes nothing: the frames are those of :meth:`Animator.animate` for the same
seed. There 16 frames are computed at a time, whose sums may round otherwise, so a colour may differ
by 2 levels of 255.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol, Unpack

import numpy as np
import numpy.typing as npt

from stillspeak.animate import COMMENT, Animator
from stillspeak.constants import SAMPLE_RATE
from stillspeak.errors import AudioError, ConfigError
from stillspeak.media.audio import ChunkResampler, Waveform, mono_chunk, whole_rate
from stillspeak.media.marks.marking import Marks
from stillspeak.models.engine import Engine
from stillspeak.models.generator import Generator
from stillspeak.motion.moods import Mood
from stillspeak.options import AnimateOptions, OptionKeywords, takes_options
from stillspeak.rendering.check import StillWarning
from stillspeak.system.runtime import torch_threads
from stillspeak.weights import DEFAULT_MODEL

if TYPE_CHECKING:
    import PIL.Image

PIECE = 65_536
"""Samples taken from a push at a time, which bounds the memory."""

TIMED_STEPS = 1000
"""Steps, the latest ones, that the measured latency is of."""

SOUND = "<chunk>"
"""What messages call the sound."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame of a session."""

    picture: npt.NDArray[np.uint8]
    """(H, W, 3) uint8 RGB, an array of its own."""
    index: int
    """Frames before this one since the session began; no number is left out or comes twice."""
    sample: int
    """Time stamp: where the frame begins, in samples at the session's rate since it began. This is
    floor(index * rate / fps) in integers, exact after any time."""
    fps: int | Fraction
    """Frames a second."""

    @property
    def seconds(self) -> float:
        """Time stamp in seconds since the session began."""
        return float(self.index / self.fps)


@dataclass(frozen=True)
class Latency:
    """How long a session's frames take, in seconds."""

    algorithmic: float
    """From a frame's first sample to the last one that it waits for: the frame itself and the half
    of its window beyond. 0.1 for windows of 0.16 s at 25 frames a second; at another frame rate
    than the model's, half of the model's frames and a whole one more."""
    resampling: float
    """What the resampler holds back on top of it; 0 where the sound has the model's rate."""
    median: float | None
    """Computing time of a frame over the latest steps; None before the first."""
    percentile_99: float | None
    """The time that one of a hundred frames exceeds."""


class LiveFace(Protocol):
    """What speaks in a session: a :class:`~stillspeak.synthesis.Synthesizer`, or a face that
    someone's camera shows."""

    engine: Engine[Any]
    fps: Fraction

    @property
    def warnings(self) -> tuple[StillWarning, ...]: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def step(self, windows: npt.NDArray[np.float32]) -> Iterator[npt.NDArray[np.uint8]]: ...

    def rest(self) -> Iterator[npt.NDArray[np.uint8]]: ...

    def reset(self, *, motion: bool = True) -> None: ...

    def set_mood(self, mood: Mood) -> None: ...

    def check_mood(self, mood: Mood) -> None: ...


def check_threads(threads: int | None) -> None:
    """Raise ConfigError where so many threads cannot compute."""
    if threads is not None and threads < 1:
        raise ConfigError(f"{threads} threads cannot compute; give 1 or more")


class StreamSession:
    """One face that speaks what is pushed, from now on and for as long as it goes.

    The session has one time line. Sound that is pushed and silence from :meth:`idle` follow each
    other on it; what :meth:`reset` drops was never there. Frames follow without a gap, and a
    frame's ``sample`` tells which sound belongs to it. Not for several threads at a time.

    Args:
        image, options: as for :meth:`Animator.animate`, whose keywords may be given too.
        model, device, precision: as for :class:`Animator`.
        sample_rate: samples a second of what is pushed, any whole number up to 1,000,000.
        threads: that a frame is computed in; None: torch's own number. One is enough for a released
            model, and does not wait for a second core that others are using.
        animator: a loaded model and detector to use, in place of ``model``, ``device`` and
            ``precision``. Any number of sessions may share it, and none closes it.

    Raises:
        ImageError, FaceError, WeightsError: as for :class:`Animator`.
        AudioError: a sample rate that cannot be.
        ConfigError: an option or the number of threads out of range; the device is not there.
    """

    @takes_options
    def __init__(
        self,
        image: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
        options: AnimateOptions | None = None,
        *,
        model: str | Path | Generator = DEFAULT_MODEL,
        sample_rate: int = SAMPLE_RATE,
        device: str = "auto",
        precision: str = "auto",
        threads: int | None = 1,
        animator: Animator | None = None,
        **keywords: Unpack[OptionKeywords],
    ) -> None:
        options = replace(options or AnimateOptions(), **keywords)
        check_threads(threads)
        with torch_threads(threads), ExitStack() as after:
            own = animator
            if own is None:
                own = after.enter_context(Animator(model, device=device, precision=precision))
            face = own.synthesizer(image, options)
            # The speech is not known before it was said.
            self._origin = own.origin(face, None, live=secrets.token_hex(8))
        self._open(face, sample_rate, threads)

    def _open(self, face: LiveFace, sample_rate: int, threads: int | None) -> None:
        """Begin with a face."""
        self._face, self._threads = face, threads
        self.sample_rate = whole_rate(sample_rate, name=SOUND)
        """Samples a second of what is pushed."""
        config = self._config = face.engine.config
        fps = face.fps
        self.fps = fps.numerator if fps.denominator == 1 else fps
        """Frames a second."""
        self._left = (config.window - config.hop) // 2
        self._resampler = ChunkResampler(self.sample_rate, config.sample_rate)
        self._piece = min(PIECE, self.sample_rate)  # a second at most
        self._times: deque[float] = deque(maxlen=TIMED_STEPS)
        self._before = 0  # frames that were given before the last reset
        self._begin()

    def _begin(self, motion: bool = True) -> None:
        """Everything that sound and time have changed, as at the start."""
        self._made = 0  # frames of the model
        self._given = 0  # frames at the session's rate
        self._more: deque[Frame] = deque()  # made beyond what was asked for
        self._heard = 0  # samples at the input's rate, or as much silence
        # At the model's rate, from the beginning of the next frame's window on.
        self._sound: Waveform = np.zeros(self._left, np.float32)
        self._resampler.clear()
        self._face.reset(motion=motion)

    @property
    def height(self) -> int:
        """Height of a frame in pixels."""
        return self._face.size[0]

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return self._face.size[1]

    @property
    def warnings(self) -> tuple[StillWarning, ...]:
        """What about the still makes its video worse; none for a good one."""
        return self._face.warnings

    @property
    def video_settings(self) -> dict[str, Any]:
        """What ``write_video`` needs for a recording besides frames and sound; with marks."""
        return {"fps": self.fps, "metadata": {"comment": COMMENT}, "marks": Marks(self._origin)}

    @property
    def position(self) -> int:
        """Where on the time line the next pushed sample goes, in samples at the session's rate."""
        return int(-(-self._before * self.sample_rate // self.fps)) + self._heard

    @property
    def latency(self) -> Latency:
        """What the frames wait for, and how long the latest ones took."""
        config = self._config
        times = np.array(self._times)
        own = (self._left + config.hop) / config.sample_rate
        between = 0.5 / config.fps + 1 / float(self.fps)
        return Latency(
            algorithmic=own if self.fps == config.fps else own + between,
            resampling=self._resampler.delay,
            median=float(np.median(times)) if times.size else None,
            percentile_99=float(np.percentile(times, 99)) if times.size else None,
        )

    def push(self, samples: npt.NDArray[Any], sample_rate: int | None = None) -> list[Frame]:
        """Hear the next sound.

        Args:
            samples: (S,) or (S, C), S from 0 on: int16, int32 or uint8, or floats in [-1, 1].
                Channels are averaged.
            sample_rate: if given, has to be the session's: a check, for sources that may change.

        Returns:
            The frames whose windows are whole by now, often none.

        Raises:
            AudioError: another shape, type or rate, NaN or infinite samples, floats beyond any
                sound. Nothing of the chunk was heard then, and the session goes on.
        """
        if sample_rate is not None and whole_rate(sample_rate, name=SOUND) != self.sample_rate:
            raise AudioError(
                f"{SOUND}: the sample rate is {sample_rate}, but the session's is "
                f"{self.sample_rate}; open another session for another rate"
            )
        sound = mono_chunk(samples, name=SOUND)
        window = self._config.window
        for begin in range(0, len(sound), self._piece):
            self._hear(sound[begin : begin + self._piece])
            while len(self._sound) >= window:
                self._step()
        return self._all()

    def flush(self) -> list[Frame]:
        """The utterance ends here: all frames whose own sound is whole, often none or two.

        With those before they are as many as :meth:`Animator.animate` generates. Sound too
        short for a frame of its own stays, as the beginning of the next frame.
        """
        self._sound = np.concatenate((self._sound, self._resampler.finish()))
        while len(self._sound) >= self._left + self._config.hop:
            self._step()
        self._give(self._face.rest())
        return self._all()

    def idle(self, frames: int) -> list[Frame]:
        """The next frames of a pause: what has been heard, if anything, then silence.

        Blinks, brows and head go on. What is pushed next follows on these frames.

        Args:
            frames: how many; as many a second are needed as the session's rate says.

        Raises:
            ConfigError: a number that cannot be.
        """
        if not isinstance(frames, int | np.integer) or isinstance(frames, bool) or frames < 0:
            raise ConfigError(f"{frames} idle frames cannot be made; give a whole number from 0 on")
        if not frames:
            return []
        self._sound = np.concatenate((self._sound, self._resampler.finish()))
        config = self._config
        while len(self._more) < frames:
            if (self._given + 1) * config.fps > self._made * self.fps:
                self._step()
            else:  # nothing beyond the pause is heard for the sake of what lies between
                self._give(self._face.rest())
        self._heard = max(self._heard, -(-self._made * self.sample_rate // config.fps))
        return [self._more.popleft() for _ in range(frames)]

    def set_mood(self, mood: str | Mood) -> None:
        """Change the mood from the next frame on, smoothly; it stays after :meth:`reset` too.

        Args:
            mood: such as ``happy``, ``happy:0.5`` or ``auto``; takes the place of the option's
                whole plan.

        Raises:
            ConfigError: there is no such mood, its strength is out of range, or the model cannot
                hear moods.
        """
        self._face.set_mood(self.read_mood(mood) if isinstance(mood, str) else mood)

    def read_mood(self, text: str) -> Mood:
        """What :meth:`set_mood` would set; it raises the same errors."""
        mood = Mood.parse(text)
        self._face.check_mood(mood)
        return mood

    def reset(self, *, motion: bool = True) -> None:
        """Interrupt: what has been heard and not yet shown is dropped, and the state with it.

        The frames that follow are those of a new session, but their time stamps go on.

        Args:
            motion: False lets head, eyes and mood go on from where they are; only the mouth begins
                anew.
        """
        self._before += self._given - len(self._more)
        self._begin(motion)

    def _hear(self, piece: Waveform) -> None:
        """Append (S,) float32 at the input's rate, S not 0, to the sound that waits."""
        config = self._config
        if not self._resampler.open:
            # Where the sound stopped, its end was rounded to a sample of the model's: the next one
            # begins where it does on the time line, so that this never adds up.
            begin = (2 * self._heard * config.sample_rate + self.sample_rate) // (
                2 * self.sample_rate
            )
            length = max(begin - self._made * config.hop + self._left, 0)
            gap = np.zeros(max(length - len(self._sound), 0), np.float32)
            self._sound = np.concatenate((self._sound[:length], gap))
        self._sound = np.concatenate((self._sound, self._resampler.feed(piece)))
        self._heard += len(piece)

    def _step(self) -> None:
        """Make the next frame; what of its window was not heard is silence."""
        began = perf_counter()
        config, length = self._config, len(self._sound)
        sound = np.pad(self._sound, (0, max(config.window - length, 0)))
        self._give(self._face.step(sound[None, : config.window]))
        # Silence stands in for what is left of the frame's own sound.
        self._sound = sound[config.hop : max(length, config.hop + self._left)]
        self._made += 1
        self._times.append(perf_counter() - began)

    def _give(self, pictures: Iterator[npt.NDArray[np.uint8]]) -> None:
        with torch_threads(self._threads):
            for picture in pictures:
                index = self._before + self._given
                sample = int(index * self.sample_rate // self.fps)
                self._more.append(Frame(picture, index, sample, self.fps))
                self._given += 1

    def _all(self) -> list[Frame]:
        frames = list(self._more)
        self._more.clear()
        return frames
