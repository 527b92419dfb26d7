"""Speech in: any sound file, bytes or array becomes one waveform (S,) float32 in [-1, 1].

Files are decoded and resampled chunk by chunk: memory holds the result and a few frames.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain, groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE
from stillspeak.errors import AudioError
from stillspeak.media.source import (
    Wanted,
    can_jump,
    holds_still,
    open_container,
    reason,
    source_name,
)

if TYPE_CHECKING:
    import av

Waveform = npt.NDArray[np.float32]

AUDIO_FORMATS = "a WAV, FLAC, MP3, M4A, OGG or Opus file, or a video with sound"
SOUND = Wanted("a sound", AUDIO_FORMATS, AudioError)
MAX_SECONDS = 3 * 3600.0
# More than any converter gives: the rate says how much memory a second takes.
MAX_RATE = 1_000_000
# Of live sound; more means an array with its axes swapped.
MAX_CHANNELS = 32

# Decoded lossy sound passes 1.0 by a little; nothing meant for [-1, 1] passes this by far.
_SMALL_OVER = 1.5
_NEVER_AUDIO = 8.0
_SAMPLE_TYPES: dict[str, npt.DTypeLike] = {
    "u8": np.uint8,
    "s16": np.int16,
    "s32": np.int32,
    "s64": np.int64,
    "flt": np.float32,
    "dbl": np.float64,
}
# A hole in the timestamps longer than this is silence that the container left out; one
# longer than the second number is a clock that jumped, where filling would be wrong.
_GAP_SECONDS = 0.05
_JUMP_SECONDS = 60.0
# Seconds of many pieces, summed: far below a sample, far above what rounding adds up to.
_ROUNDING = 1e-6
# Samples by which a waveform that is being read grows at most.
_GROWTH = 2**24
# Live sound; wider integers usually hold 16-bit samples, and would be silence.
_LIVE_TYPES = frozenset(np.dtype(kind) for kind in (np.int16, np.int32, np.uint8))
# Sound decoded before and after a stretch, for decoders and the resampler to settle.
_RUN_UP = 0.5
_SETTLE = 0.1


def load_audio(
    source: str | Path | bytes | tuple[npt.NDArray[Any], int],
    *,
    sample_rate: int = SAMPLE_RATE,
    max_seconds: float = MAX_SECONDS,
    name: str | None = None,
) -> Waveform:
    """Read speech as (S,) float32 mono in [-1, 1] at ``sample_rate`` samples a second.

    Channels are averaged. Integer samples are divided by their format's full range and
    float samples taken as they are (small overs are clipped): the scale is never guessed
    from the loudness. Silence is not an error here.

    Args:
        source: a path or the bytes of any sound or video file that FFmpeg decodes, or
            ``(samples, rate)`` with samples (S,), (S, C) or (C, S): the channels are the
            shorter axis, the second one in a square.
        sample_rate: samples a second of the result.
        max_seconds: the longest sound accepted.
        name: what messages call the source; the path, or ``<bytes>``, by default.

    Raises:
        AudioError: missing, empty or text file; no sound track or no samples in it; NaN or
            infinite samples; floats on an integer scale; too long; a rate that is not
            positive; an array of the wrong shape or type.
    """
    if sample_rate <= 0:
        raise ValueError(f"sample_rate is {sample_rate}, it must be positive")
    if isinstance(source, tuple):
        if len(source) != 2:
            raise ValueError(f"source has {len(source)} items; give (samples, rate)")
        label = "<array>" if name is None else name
        chunks = array_chunks(*source, name=label)
    else:
        label = source_name(source, name)
        chunks = file_chunks(source, name=label)
    return _collect(chunks, sample_rate=sample_rate, max_seconds=max_seconds, name=label)


def load_track(
    source: str | Path | bytes,
    *,
    sample_rate: int = SAMPLE_RATE,
    max_seconds: float = MAX_SECONDS,
    name: str | None = None,
) -> tuple[Waveform, float]:
    """Like ``load_audio`` for files, and the time of sample 0 on the container's clock.

    That start is in seconds, and a video's first frame need not share it.

    Raises:
        AudioError: as ``load_audio``.
    """
    label = source_name(source, name)
    chunks, start = _with_start(file_chunks(source, name=label))
    return _collect(chunks, sample_rate=sample_rate, max_seconds=max_seconds, name=label), start


def read_track(
    path: str | Path, *, sample_rate: int = SAMPLE_RATE
) -> Iterator[tuple[Waveform, float]]:
    """A file's first sound track piece by piece; memory holds one piece, whatever the length.

    Yields:
        Pieces (S,) float32 mono in [-1, 1] that follow each other without a gap, and when
        the first one began, in seconds on the container's clock.

    Raises:
        AudioError: as ``load_audio``, but for the length.
    """
    name = str(path)
    chunks, start = _with_start(file_chunks(path, name=name))
    for piece, _ in _resampled(chunks, sample_rate, name):
        yield piece, start


def _with_start(chunks: Iterator[Chunk]) -> tuple[Iterator[Chunk], float]:
    """Chunks, and the time of the first one in seconds on the container's clock."""
    head = list(islice(chunks, 1))
    return chain(head, chunks), (head[0].start or 0.0) if head else 0.0


def load_stretch(
    path: str | Path, start: float, end: float, *, sample_rate: int = SAMPLE_RATE
) -> Waveform:
    """What sounds from ``start`` to ``end``, by the file's time stamps.

    What comes before is skipped, not decoded, where the file allows it. Times are seconds on the
    container's clock; ``load_track`` returns where that begins.

    Returns:
        (S,) float32 mono in [-1, 1] with S = round((end - start) * sample_rate), zeros
        where the file has no sound.

    Raises:
        AudioError: as ``load_audio``.
    """
    if not end > start:
        raise ValueError(f"the stretch from {start} to {end} s holds nothing")
    name = str(path)
    wave = np.zeros(round((end - start) * sample_rate), dtype=np.float32)
    for enter in (start - _RUN_UP, None) if start > 4 * _RUN_UP else (None,):
        chunks, late = _within(
            file_chunks(path, name=name, enter=enter), start - _SETTLE, end + _SETTLE
        )
        if late and enter is not None:
            continue  # the file cannot be entered there, or its sound begins later
        if not chunks:
            break
        at = round(((chunks[0].start or 0.0) - start) * sample_rate)
        for piece, _ in _resampled(iter(chunks), sample_rate, name):
            begin, stop = max(at, 0), min(at + piece.shape[0], wave.shape[0])
            if begin < stop:
                wave[begin:stop] = piece[begin - at : stop - at]
            at += piece.shape[0]
        break
    return wave


def _within(chunks: Iterator[Chunk], start: float, end: float) -> tuple[list[Chunk], bool]:
    """Chunks between two times, and whether the first one of all came too late for them."""
    kept: list[Chunk] = []
    late = False
    time: float | None = None
    for chunk in chunks:
        if time is None:
            late = chunk.start is None or chunk.start > start
        begin = chunk.start if chunk.start is not None else time or 0.0
        time = begin + chunk.samples.shape[1] / chunk.rate
        if begin >= end:
            break
        if time > start:
            kept.append(replace(chunk, start=begin))
    return kept, late or time is None


def frame_windows(audio: Waveform, window: int, hop: int) -> Waveform:
    """One audio window for each video frame: (S,) -> (T, N), T = floor(S / hop).

    Window t is centred on the samples [t * hop, (t + 1) * hop) that sound while frame t is
    shown; zeros stand where the waveform has not begun or has ended.

    Args:
        audio: (S,) float32 in [-1, 1].
        window: N, samples in a window, at least ``hop``; ``window - hop`` is even.
        hop: samples in a video frame.

    Returns:
        (T, N) float32, a read-only view of one padded buffer: overlapping windows share
        their samples, so T windows cost T * hop floats, not T * N.

    Raises:
        ValueError: the audio is not (S,), or window and hop do not fit each other.
    """
    if audio.ndim != 1:
        raise ValueError(f"audio has shape {audio.shape}, it must be (S,)")
    if not window >= hop > 0:
        raise ValueError(f"window {window} and hop {hop}: need window >= hop > 0")
    if (window - hop) % 2:
        raise ValueError(f"window {window} - hop {hop} is odd: no window can be centred")
    T = audio.shape[0] // hop
    left = (window - hop) // 2
    size = (T - 1) * hop + window if T else window
    padded = np.zeros(size, dtype=np.float32)
    # The context of the last windows may still hold samples of an unfinished hop.
    real = audio[: size - left]
    padded[left : left + real.shape[0]] = real
    return np.lib.stride_tricks.sliding_window_view(padded, window)[::hop][:T]


HEADROOM = 0.98
"""Largest value of sounds that were added."""


def mixed(sounds: Sequence[Waveform]) -> Waveform:
    """Sounds (S,) at once: (S,) float32, as long as the longest, all of it softer by one factor
    where the sum would be louder than :data:`HEADROOM`."""
    mix = np.zeros(max(map(len, sounds)), np.float32)
    for sound in sounds:
        mix[: len(sound)] += sound
    loudest = float(np.abs(mix).max(initial=0.0))
    return mix if loudest <= HEADROOM else np.asarray(mix * (HEADROOM / loudest), np.float32)


def whole_rate(rate: float, *, name: str) -> int:
    """Check a sample rate and return it as an int.

    Raises:
        AudioError: it is not a positive whole number of Hz, or above :data:`MAX_RATE`.
    """
    try:
        right = math.isfinite(rate) and rate > 0 and rate == int(rate)
    except (TypeError, OverflowError):  # no number, or one beyond all bounds
        right = False
    if not right:
        raise AudioError(f"{name}: the sample rate is {rate}; give a positive whole number of Hz")
    if rate > MAX_RATE:
        raise AudioError(f"{name}: the sample rate is {rate}; give at most {MAX_RATE} Hz")
    return int(rate)


def mono_chunk(samples: npt.NDArray[Any], *, name: str) -> Waveform:
    """A piece of live sound as (S,) float32 mono; channels are averaged.

    Args:
        samples: (S,) or (S, C), C up to :data:`MAX_CHANNELS`; int16, int32 or uint8, which are
            divided by their full range, or floats in [-1, 1], taken as they are. S may be 0.
        name: what messages call the sound.

    Raises:
        AudioError: another shape or type, NaN or infinite samples, floats on an integer scale.
    """
    try:
        array = np.asarray(samples)
    except ValueError as error:  # a list of lists of unequal lengths
        raise AudioError(f"{name}: the samples are no array; give (S,) or (S, channels)") from error
    if array.ndim not in (1, 2) or (array.ndim == 2 and not 1 <= array.shape[1] <= MAX_CHANNELS):
        raise AudioError(
            f"{name}: the samples have shape {array.shape}; give (S,) or (S, channels), with at "
            f"most {MAX_CHANNELS} channels"
        )
    if array.size and array.dtype.kind != "f" and array.dtype.newbyteorder("=") not in _LIVE_TYPES:
        raise AudioError(
            f"{name}: the samples are {array.dtype}; give int16, int32, uint8 or floats"
        )
    if not array.size:
        return np.zeros(0, np.float32)
    # A new check each time: a chunk that is refused says nothing about the next.
    wave = _to_float(array, _ScaleCheck(name)).reshape(len(array), -1)
    return np.asarray(wave.mean(axis=1, dtype=np.float32))


class ChunkResampler:
    """Resamples sound in chunks from one rate to another; joined, they are as ``load_audio``'s.

    Chunks are (S,), or (C, S) with ``channels``, C.
    """

    def __init__(self, rate: int, sample_rate: int, channels: int | None = None) -> None:
        self._rates = (rate, sample_rate)
        self._shape = () if channels is None else (channels,)
        self._stream = None if rate == sample_rate else self._new_stream()
        self.open = False
        """Whether something has come in since the last :meth:`finish` or :meth:`clear`."""

    @cached_property
    def delay(self) -> float:
        """Seconds of sound that it holds back at most, found by trying: soxr works in blocks."""
        if self._stream is None:
            return 0.0
        stream = self._new_stream()
        rate, sample_rate = self._rates
        step = np.zeros((max(rate // 1000, 1), *self._shape), np.float32)
        longest = 0.0
        for _ in range(2000):
            stream.resample_chunk(step)
            longest = max(longest, stream.delay())
        return longest / sample_rate + len(step) / rate

    def feed(self, samples: Waveform) -> Waveform:
        """(S,) float32, S not 0 -> what is ready by now, (S',) float32 in [-1, 1]."""
        self.open = True
        return self._resample(samples)

    def finish(self) -> Waveform:
        """The rest of what came in, (S',) float32 in [-1, 1]; what comes next is a new sound."""
        rest = np.zeros((*self._shape, 0), np.float32)
        if self._stream is not None and self.open:
            rest = self._resample(rest, last=True)
        self.clear()
        return rest

    def clear(self) -> None:
        """Forget what came in."""
        self.open = False
        if self._stream is not None:
            self._stream.clear()

    def _resample(self, samples: Waveform, *, last: bool = False) -> Waveform:
        if self._stream is not None:  # which has the channels side by side
            samples = self._stream.resample_chunk(np.ascontiguousarray(samples.T), last=last).T
        return np.clip(samples, -1.0, 1.0)

    def _new_stream(self) -> Any:
        import soxr

        channels = self._shape[0] if self._shape else 1
        return soxr.ResampleStream(*self._rates, channels, dtype="float32", quality="HQ")


@dataclass(frozen=True)
class Chunk:
    """A piece of sound as decoded, (C, S) float32; the rate in Hz, the start in seconds."""

    samples: Waveform
    rate: int
    start: float | None = None
    channels: tuple[str, ...] = ()
    """FFmpeg's names of the loudspeakers, such as ``FL``; empty where they are not known."""


def _collect(
    chunks: Iterator[Chunk], *, sample_rate: int, max_seconds: float, name: str
) -> Waveform:
    """Mix and resample chunks one after another and join them, within ``max_seconds``."""
    # One array that grows in place: joining pieces at the end would take twice the memory, and
    # where memory is short NumPy says so clearly, a decoder does not.
    wave: Waveform = np.empty(0, dtype=np.float32)
    filled = 0
    for piece, seconds_in in _resampled(chunks, sample_rate, name):
        if seconds_in > max_seconds + _ROUNDING:
            raise AudioError(
                f"{name}: longer than {max_seconds:g} s; cut it, or raise the limit (max_seconds)"
            )
        end = filled + piece.shape[0]
        if end > wave.shape[0]:
            wave.resize(end + min(end // 2, _GROWTH), refcheck=False)
        wave[filled:end] = piece
        filled = end
    # A sample or two at a high rate can be less than one sample of the result.
    wave.resize(max(filled, 1), refcheck=False)
    return wave


def _resampled(
    chunks: Iterator[Chunk], sample_rate: int, name: str
) -> Iterator[tuple[Waveform, float]]:
    """Chunks at their own rates -> (S,) float32 mono in [-1, 1], and seconds read so far."""
    seconds = 0.0
    # Rates change inside a file where files were joined end to end.
    for rate, same in groupby(chunks, key=lambda chunk: chunk.rate):
        resampler = ChunkResampler(rate, sample_rate)
        for chunk in same:
            seconds += chunk.samples.shape[1] / rate
            yield resampler.feed(chunk.samples.mean(axis=0, dtype=np.float32)), seconds
        yield resampler.finish(), seconds
    if not seconds:
        raise AudioError(f"{name}: holds no sound samples; give a sound that is not empty")


def sound_stream(container: av.container.InputContainer, name: str) -> av.AudioStream:
    """The sound track that is taken of a file, the first one; AudioError where there is none."""
    if not container.streams.audio:
        if holds_still(container):
            raise AudioError(f"{name}: a picture, not a sound; the picture comes before the sound")
        raise AudioError(f"{name}: has no sound track; give {AUDIO_FORMATS}")
    return container.streams.audio[0]


def file_chunks(
    source: str | Path | bytes, *, name: str, enter: float | None = None
) -> Iterator[Chunk]:
    """Decode a file's sound track to chunks (C, S) float32, holes filled with zeros.

    With ``enter``, from about that second of the container's clock on: where the file allows no
    such jump the chunks begin elsewhere, as their ``start`` says.
    """
    import av

    with open_container(source, name, SOUND) as container:
        stream = sound_stream(container, name)
        # Only plain samples can be on a wrong scale; a codec that overshoots is damaged.
        codec = stream.codec_context
        # There is none where the decoder is not known; decoding then says so.
        plain = codec is not None and codec.name.startswith("pcm_")
        scale = _ScaleCheck(name, refuse_loud=plain)
        expected: float | None = None
        if enter is not None and stream.time_base and can_jump(container):
            with suppress(av.FFmpegError, OSError):
                container.seek(int(enter / stream.time_base), stream=stream)
        for frame in _decoded(container, name):
            samples = _planar(frame, scale)
            channels = tuple(channel.name for channel in frame.layout.channels)
            start = None if frame.pts is None else frame.time
            rate = whole_rate(frame.sample_rate, name=name)
            if start is not None and expected is not None:
                hole = start - expected
                if _GAP_SECONDS < hole < _JUMP_SECONDS:
                    count = round(hole * rate)
                    for at in range(0, count, rate):  # a second at a time
                        zeros = np.zeros((len(samples), min(rate, count - at)), np.float32)
                        yield Chunk(zeros, rate, expected + at / rate, channels)
            yield Chunk(samples, rate, start, channels)
            if start is None:
                start = expected
            expected = None if start is None else start + samples.shape[1] / rate
        scale.finish()


def _decoded(container: av.container.InputContainer, name: str) -> Iterator[av.AudioFrame]:
    """Frames of the sound track; damaged packets are left out."""
    import av

    problem: av.FFmpegError | None = None
    found = False
    try:
        for packet in container.demux(sound_stream(container, name)):
            try:
                for frame in packet.decode():
                    if isinstance(frame, av.AudioFrame) and frame.samples:
                        found = True
                        yield frame
            except av.FFmpegError as error:
                problem = error
    except av.FFmpegError as error:
        problem = error  # the container breaks off here: keep what came before
    except OSError as error:  # the disk's fault, not the file's: there may be more
        raise AudioError(f"{name}: cannot be read ({reason(error)})") from error
    if problem is not None and not found:
        raise AudioError(
            f"{name}: the sound track cannot be decoded ({reason(problem)}); give {AUDIO_FORMATS}"
        ) from problem


def _planar(frame: av.AudioFrame, scale: _ScaleCheck) -> Waveform:
    """A decoded frame, planar or packed, of any sample format as (C, S) float32."""
    channels = len(frame.layout.channels)
    planar = frame.format.is_planar
    # PyAV's to_ndarray is not used: it takes pointers for planes until one is null, and from eight
    # channels on there is none, so that it reads memory that is not the frame's.
    planes = frame.planes[: channels if planar else 1]
    size = frame.samples * (1 if planar else channels)
    kind = _SAMPLE_TYPES[frame.format.packed.name]
    array = np.stack([np.frombuffer(bytes(plane), kind, size) for plane in planes])
    if not planar:
        array = array.reshape(-1, channels).T
    return _to_float(array, scale)


def array_chunks(samples: npt.NDArray[Any], rate: int, *, name: str) -> Iterator[Chunk]:
    """An array (S,), (S, C) or (C, S) as chunks of about ten seconds."""
    array = np.asarray(samples)
    rate = whole_rate(rate, name=name)
    if array.ndim not in (1, 2):
        raise AudioError(
            f"{name}: the samples have shape {array.shape}; give (S,), (S, channels) or "
            "(channels, S)"
        )
    if array.dtype.kind not in "iuf":
        raise AudioError(f"{name}: the samples are {array.dtype}; give integers or floats")
    if array.size == 0:
        return  # the caller says so
    if array.ndim == 1:
        array = array[:, None]
    elif array.shape[0] < array.shape[1]:
        array = array.T
    scale = _ScaleCheck(name)
    step = rate * 10
    for begin in range(0, array.shape[0], step):
        part = _to_float(array[begin : begin + step], scale)
        yield Chunk(part.T, rate)
    scale.finish()


def _to_float(array: npt.NDArray[Any], scale: _ScaleCheck) -> Waveform:
    """Samples of any integer or float type as float32; integers by their full range."""
    if array.dtype.kind == "f":
        scale.see(array)
        return array.astype(np.float32)
    half = float(2 ** (array.dtype.itemsize * 8 - 1))
    centre = half if array.dtype.kind == "u" else 0.0
    return ((array.astype(np.float64) - centre) / half).astype(np.float32)


@dataclass
class _ScaleCheck:
    """Watches float samples go by and refuses NaN, infinity and floats on an integer scale."""

    name: str
    refuse_loud: bool = True
    peak: float = 0.0
    whole: bool = True

    def see(self, array: npt.NDArray[Any]) -> None:
        """Note one chunk of float samples of any shape."""
        peak = float(np.abs(array).max())
        if not math.isfinite(peak):
            raise AudioError(
                f"{self.name}: holds NaN or infinite samples; repair or re-export the sound"
            )
        if not self.refuse_loud:
            return
        self.peak = max(self.peak, peak)
        self.whole = self.whole and bool((array == np.rint(array)).all())
        if self.peak > _NEVER_AUDIO:
            self._refuse()

    def finish(self) -> None:
        """Refuse samples that were all whole numbers beyond [-1, 1]."""
        if self.peak > _SMALL_OVER and self.whole:
            self._refuse()

    def _refuse(self) -> None:
        raise AudioError(
            f"{self.name}: float samples reach {self.peak:g}, but floats must lie in [-1, 1]; "
            "divide them by the full range (32768 for 16 bit) or give them as integers"
        )
