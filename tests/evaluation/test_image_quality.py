"""Nearness and sharpness, against numbers worked out by hand."""

import numpy as np
import pytest

from stillspeak.errors import VideoError
from stillspeak.evaluation.image_quality import grey, psnr, sharpness, ssim
from stillspeak.evaluation.stability import lip_jitter, pixel_jitter


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


def test_other_sizes_are_refused() -> None:
    for metric in (psnr, ssim):
        with pytest.raises(VideoError, match="3 frames"):
            metric(noise(3), noise(4))


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
