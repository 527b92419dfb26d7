"""Time stretching: length, pitch and place in time."""

import numpy as np
import pytest

from stillspeak.data.augment import time_stretch, time_warp

RATE = 16_000


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
def test_length_changes_and_pitch_stays(factor: float) -> None:
    tone = np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE).astype(np.float32)
    out = time_stretch(tone, factor, RATE)
    assert len(out) == round(RATE * factor)
    middle = out[2000:-2000] * np.hanning(len(out) - 4000)
    spectrum = np.abs(np.fft.rfft(middle, 4 * RATE))
    assert abs(np.argmax(spectrum) / 4 - 200) <= 4
    assert 0.8 < np.sqrt(2 * np.mean(out[2000:-2000] ** 2)) < 1.1  # pieces add up, none cancel


@pytest.mark.parametrize("factor", [0.75, 1.25])
def test_events_keep_their_place(factor: float) -> None:
    random = np.random.default_rng(0)
    noise = random.standard_normal(RATE).astype(np.float32) * 0.01
    noise[8000:8800] += random.standard_normal(800).astype(np.float32)
    out = time_stretch(noise, factor, RATE)
    energy = np.convolve(out**2, np.ones(400), "same")
    centre = np.sum(np.arange(len(out)) * energy) / energy.sum()
    assert abs(centre - 8400 * factor) < 0.012 * RATE  # 12 ms, a third of a frame


def test_same_length_is_the_same_sound() -> None:
    random = np.random.default_rng(1)
    voice = np.convolve(random.standard_normal(RATE), np.hanning(40), "same").astype(np.float32)
    out = time_stretch(voice, 1.0, RATE)
    assert np.abs(out[500:-500] - voice[500:-500]).max() < 1e-3 * np.abs(voice).max()


def test_the_pace_may_change() -> None:
    clicks = np.zeros(RATE, np.float32)
    clicks[[4000, 12000]] = 1
    clicks = np.convolve(clicks, np.hanning(400), "same").astype(np.float32)
    out = time_warp(clicks, lambda at: np.interp(at, (0, 8000, RATE), (0, 6000, RATE)), RATE, RATE)
    assert len(out) == RATE
    for first, place in ((0, 16 / 3 * 1000), (8000, 8000 + 6000 / 1.25)):
        assert abs(first + np.argmax(out[first : first + 8000]) - place) < 0.012 * RATE
