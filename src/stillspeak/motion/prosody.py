"""Prosody of speech, frame by frame: loudness, pitch and accents, as a window lets them be heard.

Everything is relative to what was heard before, so that neither the microphone nor the voice
matters: loudness to a running level and to the background, pitch to the speaker's own.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS

Floats = npt.NDArray[np.float32]

LOUDNESS, SLOPE, VOICING, PITCH, ACCENT, PAUSE, PHRASE = range(7)
"""Columns of :meth:`ProsodyTracker.hear`."""

FEATURES = 7
"""Numbers a frame."""

HOP = SAMPLE_RATE // VIDEO_FPS
"""Samples a frame."""

SPEAKING = 0.35
"""Loudness from which somebody speaks."""

SPAN_SECONDS = 0.04
"""Sound that one frame is judged by: three periods of a low voice."""

_LOWEST, _HIGHEST = 70.0, 500.0  # Hz that a voice's pitch may have
_VOICED = 0.55  # of the autocorrelation, from which sound has a pitch
_RANGE = 2.3  # powers of ten of the mean square between silence and full loudness
_LEAST_RANGE = 1.0  # ... where the background is loud
_USUAL = -1.6  # log10 of the mean square at which speech is expected before any was heard
_LEAST = -5.5  # ... and at which it is at least
_FLOOR = -7.0  # of the background at least
_FALL, _RISE = 0.2, 0.5  # by which level and background move a second
_PAUSE_SECONDS, _PHRASE_SECONDS = 0.4, 1.0
_BREAK = 0.3  # seconds of silence that end a phrase


class _Sound(NamedTuple):
    """Of one frame: log10 of the mean square, pitch in Hz and how voiced it is, 0 to 1."""

    power: float
    pitch: float
    voicing: float


class ProsodyTracker:
    """Hears sound window by window; how many at a time does not matter.

    Args:
        sample_rate: of the windows, which follow one another 25 times a second.
    """

    def __init__(self, sample_rate: int = SAMPLE_RATE) -> None:
        self._rate, self._second = sample_rate, 1 / VIDEO_FPS
        self._span = round(SPAN_SECONDS * sample_rate)
        self._lead = sample_rate // VIDEO_FPS
        self._powers = [10**_FLOOR] * 2
        self._level: float | None = None
        self._floor = _FLOOR
        self._loud = self._usual = self._pitch = self._accent = 0.0
        self._voice: float | None = None  # the speaker's own pitch, log2 Hz
        self._silent, self._spoken = math.inf, 0.0  # seconds

    def hear(self, windows: Floats) -> Floats:
        """Features (T, FEATURES) of windows (T, N) in [-1, 1], the frame in their middle; they are
        of the next frame's sound where a window holds it, as all windows of generators do.

        loudness: 0 the background or silence, 1 the loudest lately.
        slope: by how much it rises.
        voicing: 0 to 1, periodicity of what is loud.
        pitch: octaves above the speaker's own, -1 to 1; fades where there is none.
        accent: 0 to 1, by how much this syllable stands out in loudness and pitch.
        pause: 0 while somebody speaks, to 1 in a long silence.
        phrase: 0 in a pause, to 1 in a long phrase.
        """
        return np.array([self.step(w) for w in windows], np.float32).reshape(-1, FEATURES)

    def step(self, window: Floats) -> tuple[float, ...]:
        """The features of one window (N,)."""
        first = max((len(window) - self._span) // 2, 0)
        if first >= self._lead:  # muscles are told before the sound is there
            first += self._lead
        middle = window[first:][: self._span]
        power, hertz, voicing = _listen(middle, self._rate)
        second = self._second
        # Three frames' mean, so that a click is not loud speech.
        self._powers = [*self._powers[-2:], 10**power]
        steady = math.log10(sum(self._powers) / 3)
        if voicing >= _VOICED:  # no other sound tells how loud speech is
            self._level = steady if self._level is None else max(self._level, steady)
        if self._level is not None:
            self._level = max(self._level - _FALL * second, _LEAST)
        self._floor = max(min(self._floor + _RISE * second, power), _FLOOR)
        level = _USUAL if self._level is None else self._level
        low = max(level - _RANGE, min(self._floor + 0.3, level - _LEAST_RANGE))
        loud = min(max((power - low) / (level - low), 0.0), 1.0)
        slope = loud - self._loud
        self._loud += min(second / 0.08, 1.0) * slope
        voicing *= min(loud / SPEAKING, 1.0)
        voiced = voicing >= _VOICED
        self._follow_pitch(hertz if voiced else None)
        above = max(loud - self._usual, 0.0)
        self._usual += min(second / 0.5, 1.0) * (loud - self._usual)
        stands_out = voicing * (1.5 * above + 1.5 * loud * max(self._pitch, 0.0)) if voiced else 0.0
        self._accent += min(second / 0.08, 1.0) * (min(stands_out, 1.0) - self._accent)
        if loud >= SPEAKING:
            self._spoken = (self._spoken if self._silent < _BREAK else 0.0) + second
            self._silent = 0.0
        else:
            self._silent += second
        pause = 1 - math.exp(-self._silent / _PAUSE_SECONDS)
        phrase = 1 - math.exp(-self._spoken / _PHRASE_SECONDS) if self._silent < _BREAK else 0.0
        return loud, slope, voicing, self._pitch, self._accent, pause, phrase

    def _follow_pitch(self, hertz: float | None) -> None:
        second = self._second
        if hertz is None:
            self._pitch *= math.exp(-second / 0.2)
            return
        octave = math.log2(hertz)
        if self._voice is None:
            self._voice = octave
        self._pitch += min(second / 0.06, 1.0) * (
            min(max(octave - self._voice, -1.0), 1.0) - self._pitch
        )
        self._voice += min(second / 2.0, 1.0) * (octave - self._voice)


def pause_seconds(pause: float) -> float:
    """How long nobody has spoken, from the feature ``pause``; some 4 seconds at most."""
    return -_PAUSE_SECONDS * math.log(1.0001 - pause) if pause else 0.0


def _listen(sound: Floats, rate: int) -> _Sound:
    """Power, pitch and voicing of some tens of milliseconds (S,)."""
    power = float(np.dot(sound, sound)) / max(len(sound), 1)
    if power < 10**_FLOOR:
        return _Sound(_FLOOR, 0.0, 0.0)
    taper, own, size = _taper(len(sound))
    spectrum = np.fft.rfft((sound - sound.mean()) * taper, size)
    alike = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, size)
    first, last = int(rate / _HIGHEST), min(math.ceil(rate / _LOWEST), len(own) - 1)
    if last <= first or alike[0] <= 0:
        return _Sound(math.log10(power), 0.0, 0.0)
    ratio = alike[first : last + 1] / alike[0] / own[first : last + 1]
    most = float(ratio.max())
    # The shortest period that is nearly as good: its multiples are periods too.
    place = int(np.argmax(ratio >= 0.85 * most))
    if not place:  # what rises towards the border repeats faster than a voice
        return _Sound(math.log10(power), 0.0, 0.0)
    while place + 1 < len(ratio) and ratio[place + 1] > ratio[place]:
        place += 1
    return _Sound(math.log10(power), rate / (first + place), min(max(most, 0.0), 1.0))


@lru_cache(maxsize=4)
def _taper(length: int) -> tuple[Floats, npt.NDArray[np.float64], int]:
    """A window for so many samples, its own autocorrelation up to two thirds of them, and the
    size of the transform."""
    taper = np.hanning(length + 2)[1:-1]
    size = 1 << (2 * length - 1).bit_length()
    own = np.fft.irfft(np.abs(np.fft.rfft(taper, size)) ** 2, size)
    return taper.astype(np.float32), own[: 2 * length // 3] / own[0], size
