"""A jitter buffer: sound of any rate and chunk size in, one block per frame out, whenever asked.

What waits is bounded, and what is lost is counted. Live sound that waits too long is caught up
with: pauses are skipped, and speech is compressed in time a little.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.errors import ConfigError
from stillspeak.media.audio import Waveform, mono_chunk, whole_rate
from stillspeak.realtime.resample import EMPTY, Resampler

LIVE_MAX_BUFFER = 0.5
"""Seconds of sound that may wait in a conversation; beyond it the oldest is dropped."""

MAX_BUFFER = 30.0
"""Seconds of sound that may wait where it is produced faster than it is played."""

PREBUFFER = 0.04
"""Seconds of live sound that have to wait before it starts, against the network's jitter."""

TIME_COMPRESSION = 0.04
"""How much faster live sound is played while too much waits: less than a semitone."""

QUIET = 10 ** (-45 / 20)
"""Root mean square below which a live block counts as a pause, which may be skipped."""

SOUND = "<live sound>"
"""What messages call the sound."""


@dataclass
class SoundCounts:
    """What happened to the sound that came in, in samples at the buffer's rate."""

    taken: int = 0
    dropped: int = 0
    """Lost because too much was waiting."""
    skipped: int = 0
    """Left out to catch up: pauses, and what time compression takes out."""
    filled: int = 0
    """Silence where sound had not come in time."""
    mended: int = 0
    """NaN and infinite samples, replaced by zeros."""


@dataclass(frozen=True, eq=False)
class AudioBlock:
    """The sound of one frame."""

    sound: Waveform
    """(rate / fps,) float32 in [-1, 1]."""
    heard: int = 0
    """How many of the samples came in; those after them are silence."""
    ended: bool = False
    """An utterance ends with this block."""


class JitterBuffer:
    """Takes sound as it comes and gives it back in blocks of one frame's length.

    Args:
        rate: samples a second of the blocks; a multiple of ``fps``.
        fps: blocks a second.
        live: the delay is kept small. Otherwise sound may come faster than it is played, and waits.
        max_buffer: seconds that may wait; :data:`LIVE_MAX_BUFFER` or :data:`MAX_BUFFER` if None.

    Raises:
        ConfigError: the rate is no multiple of the frame rate, or ``max_buffer`` is too short.
    """

    def __init__(
        self, rate: int, fps: int, *, live: bool = False, max_buffer: float | None = None
    ) -> None:
        if rate <= 0 or rate % fps:
            raise ConfigError(
                f"{rate} Hz is no multiple of {fps} frames a second; give 16000, 24000 or 48000"
            )
        self.rate, self.live, self.block = rate, live, rate // fps
        if max_buffer is None:
            max_buffer = LIVE_MAX_BUFFER if live else MAX_BUFFER
        self._prebuffer = round(PREBUFFER * rate) if live else 0
        self._max_buffer = round(max_buffer * rate)
        if self._max_buffer < 2 * self.block + self._prebuffer:
            raise ConfigError(f"a buffer of {max_buffer:g} s is too short; give at least 0.2")
        self.counts = SoundCounts()
        self._resampler = Resampler(rate)
        self.clear()

    def clear(self) -> None:
        """Drop everything that waits, ends of utterances included."""
        self._items: deque[Waveform | None] = deque()  # None ends an utterance
        self._waiting = 0
        self._dry = True
        self._grew = False
        self._open = False  # inside an utterance
        self._resampler.clear()

    @property
    def seconds(self) -> float:
        """Sound that waits, in seconds."""
        return self._waiting / self.rate

    @property
    def empty(self) -> bool:
        """Whether nothing waits, not even the end of an utterance."""
        return not self._items

    def room(self, seconds: float) -> bool:
        """Whether this much more may wait; always true if nothing does."""
        return self._waiting == 0 or self._waiting + seconds * self.rate <= self._max_buffer

    def push(self, samples: npt.NDArray[Any], rate: int) -> None:
        """Append sound; what does not fit is dropped and counted.

        Args:
            samples: (S,) or (S, C) int16, int32, uint8, or floats in [-1, 1]. NaN and infinite
                samples become zeros.
            rate: samples a second; it may change from one call to the next.

        Raises:
            AudioError: another shape or type, floats on an integer scale, an impossible rate.
        """
        rate = whole_rate(rate, name=SOUND)
        array = np.asarray(samples)
        if array.dtype.kind == "f":
            sane = np.isfinite(array)
            self.counts.mended += int(array.size - np.count_nonzero(sane))
            array = np.where(sane, array, 0)
        self._append(self._resampler.feed(mono_chunk(array, name=SOUND), rate))

    def silence(self, seconds: float) -> None:
        """Append a gap: sound that is known to be lost."""
        self._append(np.zeros(min(round(seconds * self.rate), self._max_buffer), np.float32))

    def end(self) -> None:
        """Mark the end of an utterance: its last samples do not wait for more."""
        self._append(self._resampler.finish())
        self._items.append(None)

    def take(self) -> AudioBlock:
        """The next block; silence where there is no sound."""
        grew, self._grew = self._grew, False
        have, ended = self._ahead()
        wanted = self.block + (self._prebuffer if self._dry else 0)
        # Less than a block is played too, once no more of it comes: nobody announced its end.
        if not ended and have < wanted and (grew or not have):
            self._dry = True
            if self._open and not self.live:
                self.counts.filled += self.block
            return AudioBlock(np.zeros(self.block, np.float32))
        sound, ended = self._next()
        while self._behind(ended) and rms(sound) < QUIET:
            self.counts.skipped += len(sound)
            sound, ended = self._next()
        if self._behind(ended):
            sound = self._compressed(sound)
        heard = len(sound)
        self._dry = ended or heard < self.block
        self._open = not ended
        if self._open:
            self.counts.filled += self.block - heard
        return AudioBlock(np.pad(sound, (0, self.block - heard)), heard, ended)

    def _compressed(self, sound: Waveform) -> Waveform:
        """A block that holds a little more sound than its length, from ``sound`` on."""
        extra = self._pull(round(TIME_COMPRESSION * self.block))
        self.counts.skipped += len(extra)
        longer = np.concatenate((sound, extra))
        places = np.arange(self.block) * (len(longer) / self.block)
        played: Waveform = np.interp(places, np.arange(len(longer)), longer).astype(np.float32)
        return played

    def _behind(self, ended: bool) -> bool:
        """Whether more live sound waits than jitter requires, within an utterance."""
        return self.live and not ended and self._waiting >= self._prebuffer + 2 * self.block

    def _ahead(self) -> tuple[int, bool]:
        """Samples up to the next end of an utterance, and whether there is one."""
        have = 0
        for item in self._items:
            if item is None:
                return have, True
            have += len(item)
        return have, False

    def _next(self) -> tuple[Waveform, bool]:
        """Up to a block, and whether the utterance ends with it."""
        sound = self._pull(self.block)
        ended = bool(self._items) and self._items[0] is None
        if ended:
            self._items.popleft()
        return sound, ended

    def _pull(self, size: int) -> Waveform:
        """Up to ``size`` samples, not beyond the end of an utterance."""
        pieces = [EMPTY]
        missing = size
        while missing and self._items and (item := self._items[0]) is not None:
            self._items.popleft()
            if len(item) > missing:
                self._items.appendleft(item[missing:])
                item = item[:missing]
            pieces.append(item)
            missing -= len(item)
        self._waiting -= size - missing
        return np.concatenate(pieces)

    def _append(self, sound: Waveform) -> None:
        if not len(sound):
            return
        self._grew = True
        if not self.live and self._waiting:  # else one chunk of any length, as `room` says
            room = max(self._max_buffer - self._waiting, 0)
            self.counts.dropped += len(sound[room:])
            sound = sound[:room]
        if len(sound):
            self._items.append(sound)
            self._waiting += len(sound)
            self.counts.taken += len(sound)
        if self.live and self._waiting > self._max_buffer:
            self._drop_oldest(self._waiting - self._prebuffer - self.block)

    def _drop_oldest(self, samples: int) -> None:
        self.counts.dropped += samples
        ends = 0
        while samples:
            samples -= len(self._pull(samples))
            if samples:  # ends of utterances stay
                self._items.popleft()
                ends += 1
        self._items.extendleft([None] * ends)


def rms(sound: Waveform) -> float:
    """Root mean square of (S,); 0 of nothing."""
    return math.sqrt(float(np.dot(sound, sound)) / len(sound)) if len(sound) else 0.0
