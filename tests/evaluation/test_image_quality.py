"""Nearness and sharpness, against numbers worked out by hand."""

import numpy as np
import pytest

from stillspeak.evaluation.measures.image_quality import (
    fdbm,
    grey,
    mouth,
    psnr,
    psnr_frames,
    sharpness,
    ssim,
)
from stillspeak.evaluation.measures.stability import lip_jitter, lip_unrest, pixel_jitter


def noise(frames: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 20, 24, 3), dtype=np.uint8)


def flat(level: int, frames: int = 3) -> np.ndarray:
    return np.full((frames, 20, 24, 3), level, np.uint8)


def test_grey_weighs_colours() -> None:
    colours = np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]]]], np.uint8)
    assert grey(colours)[0, 0].tolist() == pytest.approx([54.1875, 182.427, 18.3855, 9.0])


def test_psnr_of_a_known_error() -> None:
    # 20 levels everywhere: 20 log10(255 / 20). In uint8, 10 - 30 would be 236.
    assert psnr(flat(10), flat(30)) == pytest.approx(20 * np.log10(255 / 20))
    assert psnr(noise(), noise()) == np.inf


def test_psnr_is_of_the_whole_video() -> None:
    other = np.concatenate((flat(10, 1), flat(50, 1)))
    # Mean squared error (0 + 40^2) / 2, not the mean of an infinite and a finite decibel.
    assert psnr(other, flat(10, 2)) == pytest.approx(10 * np.log10(255**2 / 800))


def test_ssim_is_one_for_itself_and_less_for_others() -> None:
    assert ssim(noise(), noise()) == pytest.approx(1)
    assert ssim(noise(), noise(seed=1)) < 0.2
    # Flat against flat only the luminance term differs: (2ab + c) / (a^2 + b^2 + c).
    a, b, c = 100.0, 140.0, (0.01 * 255) ** 2
    assert ssim(flat(100), flat(140)) == pytest.approx((2 * a * b + c) / (a**2 + b**2 + c))


def test_sharpness_of_a_ramp_and_of_its_blur() -> None:
    ramp = np.repeat(np.arange(24, dtype=np.uint8)[None, None, :, None] * 3, 20, axis=1)
    assert sharpness(np.repeat(ramp, 3, axis=3)) == pytest.approx(3)
    blurred = noise().astype(float)
    blurred = (blurred + np.roll(blurred, 1, axis=2)) / 2
    assert sharpness(blurred.astype(np.uint8)) < 0.8 * sharpness(noise())


def test_jitter_sees_trembling_and_no_steady_change() -> None:
    steady = np.concatenate([flat(10 * t, 1) for t in range(6)])
    assert pixel_jitter(steady) == 0
    trembling = np.concatenate([flat(10 * (t % 2), 1) for t in range(6)])
    assert pixel_jitter(trembling) == pytest.approx(20)
    assert lip_jitter(np.array([0.0, 1, 0, 1, 0])) == pytest.approx(2)


def test_jitter_looks_only_where_it_is_told() -> None:
    openings = np.array([0.0, 5, 0, 1, 2, 3, 9])
    quiet = np.array([False, False, True, True, True, True, False])
    assert lip_jitter(openings, quiet) == 0
    assert lip_jitter(openings) > 1
    assert np.isnan(lip_jitter(openings, np.zeros(7, bool)))
    assert np.isnan(lip_jitter(np.array([1.0, 2])))
    openings[4] = np.nan  # a frame without a face takes its neighbours' differences along
    assert np.isnan(lip_jitter(openings, quiet))


def test_psnr_frame_by_frame_leaves_equal_frames_out() -> None:
    other = np.concatenate((flat(10, 1), flat(50, 1), flat(30, 1)))
    expected = np.mean([20 * np.log10(255 / 40), 20 * np.log10(255 / 20)])
    assert psnr_frames(other, flat(10)) == pytest.approx(expected)
    assert psnr_frames(noise(), noise()) == np.inf


def test_psnr_agrees_with_scikit_image() -> None:
    from skimage.metrics import peak_signal_noise_ratio

    a, b = noise(), noise(seed=1)
    assert psnr(a, b) == pytest.approx(
        peak_signal_noise_ratio(grey(b), grey(a), data_range=255), abs=1e-9
    )


def test_the_mouth_is_where_training_looks_for_it() -> None:
    from stillspeak.models.regions import MOUTH_BOX

    frames = np.zeros((1, 128, 96, 3), np.uint8)
    top, bottom, left, right = MOUTH_BOX
    frames[:, top:bottom, left:right] = 1
    assert mouth(frames).all()
    assert mouth(frames).sum() == frames.sum()
    assert mouth(np.zeros((2, 256, 192, 3), np.uint8)).shape == (2, 80, 104, 3)


def test_gaussian_ssim_of_flat_frames_and_of_a_known_window() -> None:
    a, b, c = 100.0, 140.0, (0.01 * 255) ** 2
    expected = (2 * a * b + c) / (a**2 + b**2 + c)
    assert ssim(flat(100), flat(140), gaussian=True) == pytest.approx(expected)
    assert ssim(noise(), noise(), gaussian=True) == pytest.approx(1)
    # One window of 11 x 11, summed up by hand.
    x, y = grey(noise(1)[:, :11, :11])[0], grey(noise(1, 1)[:, :11, :11])[0]
    bell = np.exp(-0.5 * np.square(np.arange(-5, 6) / 1.5))
    weights = np.outer(bell, bell) / bell.sum() ** 2
    mx, my = (weights * x).sum(), (weights * y).sum()
    vx, vy = (weights * x**2).sum() - mx**2, (weights * y**2).sum() - my**2
    both = (weights * x * y).sum() - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    hand = (2 * mx * my + c1) * (2 * both + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    got = ssim(noise(1)[:, :11, :11], noise(1, 1)[:, :11, :11], gaussian=True)
    assert got == pytest.approx(hand)


def test_fdbm_counts_coefficients() -> None:
    # A flat frame has the mean alone, a cosine two more; a black one nothing.
    assert fdbm(flat(9, 2)) == 1 / (20 * 24)
    assert fdbm(flat(0, 1)) == 0
    wave = np.rint(120 + 100 * np.cos(np.pi * np.arange(24)))  # +- in turn: exact in uint8
    frame = np.repeat(np.repeat(wave[None, None, :, None], 20, 1), 3, 3).astype(np.uint8)
    assert fdbm(frame) == 2 / (20 * 24)


def test_fdbm_of_a_known_shift_and_blur() -> None:
    frames = noise(2)
    assert fdbm(np.roll(frames, 3, axis=2)) == fdbm(frames)
    smooth = frames.astype(float)
    for _ in range(40):
        smooth = (np.roll(smooth, 1, 2) + 2 * smooth + np.roll(smooth, -1, 2)) / 4
    assert fdbm(smooth.astype(np.uint8)) < 0.9 * fdbm(frames)


def test_unrest_is_the_change_between_silent_frames() -> None:
    openings = np.array([0.0, 1, 3, 3, 9])
    assert lip_unrest(openings) == pytest.approx((1 + 2 + 0 + 6) / 4)
    assert lip_unrest(openings, np.array([True, True, True, False, True])) == pytest.approx(1.5)
    assert np.isnan(lip_unrest(openings, np.array([True, False, True, False, True])))
    assert np.isnan(lip_unrest(np.array([1.0])))
    assert lip_unrest(np.array([1.0, np.nan, 4, 5])) == pytest.approx(1)
