"""Loudness, pitch and accents: whatever the level, the voice and the background."""

import numpy as np
import pytest

from stillspeak.media.audio import frame_windows
from stillspeak.motion.prosody import (
    ACCENT,
    FEATURES,
    LOUDNESS,
    PAUSE,
    PHRASE,
    PITCH,
    SPEAKING,
    VOICING,
    ProsodyTracker,
    pause_seconds,
)

RATE, HOP = 16_000, 640


def voice(hertz: np.ndarray, level: np.ndarray) -> np.ndarray:
    """A buzz of a pitch and a size, one number each a frame."""
    time = np.arange(len(hertz) * HOP) / HOP
    pitch, size = (np.interp(time, np.arange(len(x)) + 0.5, x) for x in (hertz, level))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    return np.asarray(0.1 * size * sum(np.sin(k * phase) / k for k in range(1, 8)), np.float32)


def heard(sound: np.ndarray) -> np.ndarray:
    return ProsodyTracker().hear(frame_windows(sound, 2560, HOP))


def syllables(frames: int) -> np.ndarray:
    return np.clip(np.sin(2 * np.pi * 4 * np.arange(frames) / 25), 0.1, 1)


@pytest.mark.parametrize("hertz", [85.0, 120.0, 220.0, 330.0])
def test_the_pitch_is_found_relative_to_the_speakers_own(hertz: float) -> None:
    pitch = np.full(200, hertz)
    pitch[150:160] *= 2**0.25  # a quarter of an octave
    found = heard(voice(pitch, np.ones(200)))
    assert found.shape == (200, FEATURES) and found.dtype == np.float32
    assert found[20:145, VOICING].min() > 0.8
    assert np.abs(found[20:145, PITCH]).max() < 0.05
    assert found[156:159, PITCH].min() > 0.15
    assert found[150:162, ACCENT].max() > 2 * found[100:145, ACCENT].max() + 0.1


def test_neither_level_nor_background_matters() -> None:
    sound = voice(np.full(300, 120.0), np.r_[np.zeros(100), syllables(100), np.zeros(100)])
    hiss = 0.001 * np.random.default_rng(0).standard_normal(len(sound)).astype(np.float32)
    loud, soft, noisy = heard(sound), heard(0.05 * sound), heard(sound + hiss)
    for other in (soft, noisy):
        # Until speech was heard nobody knows how loud it is.
        off = np.abs(other[110:, LOUDNESS] - loud[110:, LOUDNESS])
        assert off.mean() < 0.1
        assert np.corrcoef(other[115:200, ACCENT], loud[115:200, ACCENT])[0, 1] > 0.95


def test_pauses_and_phrases_are_told_by_their_length() -> None:
    level = np.r_[np.zeros(50), np.ones(50), np.zeros(75)]
    found = heard(voice(np.full(175, 150.0), level))
    assert (found[5:45, PAUSE] > 0.9).all() and (found[5:45, PHRASE] == 0).all()
    assert (found[55:95, PAUSE] == 0).all() and (np.diff(found[55:95, PHRASE]) > 0).all()
    assert (found[55:95, LOUDNESS] > SPEAKING).all() and (found[105:, LOUDNESS] < SPEAKING).all()
    long = [pause_seconds(float(pause)) for pause in found[[125, 150], PAUSE]]
    assert long == pytest.approx([1.04, 2.04], abs=0.12)


def test_noise_and_clicks_have_no_accent() -> None:
    random = np.random.default_rng(1)
    noise = 0.1 * random.standard_normal(200 * HOP).astype(np.float32)
    clicks = np.zeros(200 * HOP, np.float32)
    clicks[:: 40 * HOP] = 0.9
    for sound in (noise, clicks):
        assert heard(sound)[:, ACCENT].mean() < 0.03
    speech = voice(np.full(200, 120.0), syllables(200))
    assert heard(speech)[:, ACCENT].mean() > 0.1


def test_frame_by_frame_is_the_same_and_anything_may_come() -> None:
    sound = voice(np.full(100, 140.0), syllables(100))
    whole, tracker = heard(sound), ProsodyTracker()
    single = np.concatenate([tracker.hear(w[None]) for w in frame_windows(sound, 2560, HOP)])
    assert np.array_equal(whole, single)
    odd = [np.zeros(0), np.zeros(2560), np.ones(2560), np.full(2560, 1e-30), np.full(1, 0.5)]
    for window in odd:
        assert np.isfinite(tracker.step(window.astype(np.float32))).all()
    assert tracker.hear(np.zeros((0, 2560), np.float32)).shape == (0, FEATURES)
