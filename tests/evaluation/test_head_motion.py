"""How heads move: measured on movements whose numbers are known."""

import numpy as np
import pytest

from stillspeak.errors import VideoError
from stillspeak.evaluation.measures import head
from stillspeak.evaluation.measures.accents import accents


def nodding(hertz: float, degrees: float, frames: int = 250, **more: float) -> np.ndarray:
    """A head (T, 3) that nods as a sine, and trembles by white noise of some degrees."""
    angles = np.zeros((frames, 3))
    angles[:, 1] = degrees * np.sin(2 * np.pi * hertz * np.arange(frames) / 25)
    noise = np.random.default_rng(0).normal(0, more.get("noise", 0.0), angles.shape)
    return angles + noise


def test_how_far_and_how_fast() -> None:
    slow = nodding(0.4, 3)
    turn, nod, tilt = head.deviations(slow)
    assert (turn, tilt) == (0, 0)
    assert nod == pytest.approx(3 / np.sqrt(2), rel=0.03)
    # Mean absolute slope of a sine: 4 f times its height.
    assert head.speed(slow) == pytest.approx(4 * 0.4 * 3, rel=0.05)
    assert head.amplitude(nodding(0.4, 1.5), slow) == pytest.approx(0.5, rel=1e-6)
    assert np.isnan(head.amplitude(slow, np.zeros((250, 3))))
    # Trembling counts for less than half of what it is.
    assert head.deviations(nodding(1, 0, noise=0.2)).max() < 0.1


@pytest.mark.parametrize("octave", range(5))
def test_power_lies_in_the_octave_of_the_movement(octave: int) -> None:
    middle = list(head.BANDS.values())[octave]
    shares = head.octave_shares(nodding(middle, 1, noise=0.01))
    assert shares[octave] > 0.9
    assert shares.sum() == pytest.approx(1)


def test_octaves_that_a_short_clip_cannot_tell() -> None:
    shares = head.octave_shares(nodding(2, 1, frames=25))  # whole periods from 1 Hz on
    assert np.isnan(shares).tolist() == [True, True, False, False, False]
    assert np.nansum(shares) == pytest.approx(1)
    assert np.isnan(head.octave_shares(np.zeros((75, 3)))).all()


def test_spectra_apart() -> None:
    slow, fast = nodding(0.4, 1), nodding(4, 0.2)
    assert head.spectrum_distance(slow, 3 * slow) == pytest.approx(0, abs=1e-9)
    assert head.spectrum_distance(slow, fast) > 0.95
    assert np.isnan(head.spectrum_distance(slow, np.zeros((250, 3))))


def test_gaps_are_bridged_and_many_are_no_head() -> None:
    whole = nodding(0.4, 3)
    holes = whole.copy()
    holes[[0, 7, 8, 40]] = np.nan
    assert head.deviations(holes) == pytest.approx(head.deviations(whole), rel=0.05)
    with pytest.raises(VideoError, match="fewer than half of the frames show a face"):
        head.deviations(np.full((10, 3), np.nan))


def test_a_nod_on_each_accent() -> None:
    time = np.arange(100) / 25
    beats = (np.sin(2 * np.pi * 1.5 * time) > 0.8).astype(float)
    assert head.with_accents(3 * beats - 1, beats) == pytest.approx(1, abs=0.05)
    assert head.with_accents(-beats, beats) == pytest.approx(-1, abs=0.05)
    assert head.with_accents(np.zeros(100), beats) == 0
    assert head.with_accents(beats, np.zeros(80)) == 0


def test_accents_are_where_a_voice_is_louder_than_around() -> None:
    time = np.arange(50 * 640) / 16000
    voice = np.sign(np.sin(2 * np.pi * 150 * time)).astype(np.float32)
    sound = 0.02 * voice
    sound[: 5 * 640] *= 10  # how loud this voice may be
    sound[30 * 640 : 36 * 640] *= 10
    found = accents(sound, 60)  # the picture lasts longer than the sound
    assert found.shape == (60,)
    assert found[31:36].min() > 2 * found[22:30].max()
    assert 0 <= found.min() <= found.max() <= 1
    assert (accents(np.zeros(6400, np.float32), 10) == 0).all()
    assert accents(np.zeros(0, np.float32), 0).shape == (0,)
