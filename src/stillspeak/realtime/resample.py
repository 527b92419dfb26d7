"""Sound of any rate to another one while it comes in, about 1 ms late.

FFmpeg's resampler has a short filter. The one for files, soxr, holds back a whole frame.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from stillspeak.media.audio import Waveform

EMPTY: Waveform = np.zeros(0, np.float32)


class Resampler:
    """Sound of any rate in, of one rate out."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.clear()

    def clear(self) -> None:
        """Drop what is held back."""
        self._rate_in = self.rate
        self._filter: Any = None

    def feed(self, sound: Waveform, rate: int) -> Waveform:
        """(S,) float32 at ``rate`` -> (S',); the rate may change from call to call."""
        rest = EMPTY if rate == self._rate_in else self.finish()
        self._rate_in = rate
        if rate != self.rate and len(sound):
            sound = self._filtered(sound)
        return np.concatenate((rest, sound)) if len(rest) else sound

    def finish(self) -> Waveform:
        """What is held back; the next sound starts afresh."""
        rest = EMPTY if self._filter is None else self._filtered(None)
        self._filter = None
        return rest

    def _filtered(self, sound: Waveform | None) -> Waveform:
        import av

        if self._filter is None:
            self._filter = av.AudioResampler(format="fltp", layout="mono", rate=self.rate)
        frame = None
        if sound is not None:
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), "fltp", "mono")
            frame.sample_rate = self._rate_in
        pieces = [piece.to_ndarray()[0] for piece in self._filter.resample(frame)]
        return np.concatenate((EMPTY, *pieces))


class BlockResampler:
    """Blocks of one frame's length at one rate to whole blocks at another.

    Silence in front makes up for the samples held back, which would cost a whole frame.
    """

    def __init__(self, rate: int, sample_rate: int, fps: int) -> None:
        self._rate = rate
        self._second, self._fps, self._blocks = sample_rate, fps, 0
        self._resampler = Resampler(sample_rate)
        self._padding = 0
        if rate != sample_rate:
            silence = np.zeros(rate // fps, np.float32)
            passed = sum(len(self._resampler.feed(silence, rate)) for _ in range(4))
            self._padding = max(4 * sample_rate // fps - passed, 0) + 1
        self.clear()

    def clear(self) -> None:
        """Forget what came in."""
        self._resampler.clear()
        self._ready = np.zeros(self._padding, np.float32)

    def feed(self, block: Waveform) -> Waveform:
        """(rate / fps,) -> (sample_rate / fps,) float32, to the sample below or above."""
        if not self._padding:
            return block
        begin, end = (n * self._second // self._fps for n in (self._blocks, self._blocks + 1))
        self._blocks, size = self._blocks + 1, end - begin
        ready = np.concatenate((self._ready, self._resampler.feed(block, self._rate)))
        if len(ready) < size:  # does not happen with the padding above
            ready = np.concatenate((np.zeros(size - len(ready), np.float32), ready))
        self._ready = ready[size:]
        return np.clip(ready[:size], -1.0, 1.0)
