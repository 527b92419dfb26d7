"""Each loss term against numbers worked out by hand."""

import math

import pytest
import torch

from stillspeak.training.losses import (
    gradient_l1,
    mouth_crop,
    psnr,
    region_weights,
    weighted_l1,
)

SIZE = (128, 96)


def test_region_weights() -> None:
    weights = region_weights(*SIZE, upper=1, lower=3, mouth=5)[0, 0, 0]
    assert weights.shape == SIZE
    assert (weights[:64] == 1).all()
    assert weights[64, 0] == weights[71, 50] == weights[112, 50] == weights[90, 23] == 3
    assert weights[72, 24] == weights[111, 75] == 5
    assert weights[90, 76] == 3
    assert weights.sum() == 64 * 96 * 1 + (64 * 96 - 40 * 52) * 3 + 40 * 52 * 5


def test_region_weights_of_the_paper_and_of_fractions() -> None:
    paper = region_weights(*SIZE, upper=0, lower=1, mouth=1)[0, 0, 0]
    assert paper[:64].sum() == 0
    assert paper[64:].mean() == 1
    assert region_weights(*SIZE, upper=1, lower=3, mouth=2.5)[0, 0, 0, 90, 50] == 2.5


def test_regions_scale_with_the_frame() -> None:
    small = region_weights(64, 48, upper=1, lower=3, mouth=5)[0, 0, 0]
    assert (small[36:56, 12:38] == 5).all()
    assert (small == 5).sum() == 20 * 26


def test_mouth_crop() -> None:
    rows = torch.arange(128.0).view(128, 1).expand(128, 96)
    crop = mouth_crop(rows[None])
    assert crop.shape == (1, 40, 52)
    assert crop[0, 0, 0] == 72
    assert crop[0, -1, 0] == 111


def test_weighted_l1() -> None:
    real = torch.zeros(1, 1, 3, 2, 2)
    generated = real.clone()
    generated[..., 0, :] = 0.5  # the upper row is off by a half, the lower one by one
    generated[..., 1, :] = -1
    weights = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2, 1).expand(1, 1, 1, 2, 2)
    # (0.5 * 1 + 1 * 3) / (1 + 3)
    assert weighted_l1(generated, real, weights).item() == pytest.approx(0.875)
    assert weighted_l1(generated, real, 7 * weights).item() == pytest.approx(0.875)


def test_gradient_l1() -> None:
    real = torch.zeros(1, 1, 1, 2, 3)
    weights = torch.ones(1, 1, 1, 2, 3)
    generated = torch.tensor([[0.0, 1.0, 3.0], [0.0, 0.0, 0.0]]).view(1, 1, 1, 2, 3)
    # Across: 1, 2, 0, 0 -> mean 0.75. Down: 0, 1, 3 -> mean 4/3.
    assert gradient_l1(generated, real, weights).item() == pytest.approx(0.75 + 4 / 3)
    # A constant offset has no edges.
    assert gradient_l1(real + 0.3, real, weights).item() == pytest.approx(0, abs=1e-7)
    # The right column weighs four, the others one: (1*1 + 2*4 + 0 + 0) / 4, down (0+1+3*4) / 3,
    # both over the mean weight 2.
    weights[..., 2] = 4
    expected = (9 / 4 + 13 / 3) / 2
    assert gradient_l1(generated, real, weights).item() == pytest.approx(expected)
    # With 1 above and 3 below: across (1 + 2) * 1 / 4, down (0 + 1 + 3) * 3 / 3, over 2.
    weights = torch.tensor([1.0, 3.0]).view(1, 1, 1, 2, 1).expand(1, 1, 1, 2, 3)
    assert gradient_l1(generated, real, weights).item() == pytest.approx((3 / 4 + 4) / 2)


def test_psnr() -> None:
    real = torch.zeros(1, 3, 4, 4)
    # The range [-1, 1] is 2 wide: 10 log10(4 / 0.01).
    assert psnr(real + 0.1, real).item() == pytest.approx(10 * math.log10(400), rel=1e-5)
    half = real.clone()
    half[..., :2] = 0.2  # half the pixels by 0.2: mean square 0.02
    assert psnr(half, real).item() == pytest.approx(10 * math.log10(200), rel=1e-5)
    assert psnr(real, real).item() == pytest.approx(126.02, abs=0.01)
