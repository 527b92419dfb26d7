"""Each loss term against numbers worked out by hand."""

import math

import pytest
import torch

from stillspeak.models.decoders import Motion
from stillspeak.training.losses import (
    HUBER_PIXELS,
    flow_at,
    flow_smoothness,
    forward_points,
    gradient_l1,
    landmark_loss,
    mouth_crop,
    psnr,
    region_weights,
    weighted_l1,
)

SIZE = (128, 96)


def constant_flow(right: float, down: float, size: tuple[int, int] = (64, 48)) -> torch.Tensor:
    """A flow (1, 1, 2, h, w) of so many pixels of a 128 x 96 frame."""
    units = torch.tensor([right * 2 / 96, down * 2 / 128])
    return units.view(1, 1, 2, 1, 1).expand(1, 1, 2, *size).contiguous()


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


def test_flow_smoothness() -> None:
    assert flow_smoothness(constant_flow(3, -2)).item() == 0
    flow = torch.zeros(1, 1, 2, 4, 3)
    flow[0, 0, 0, :, 1] = 0.5  # one cell of four rows is 0.5 units
    # Across: of 2 x 4 x 2 differences the eight of x are 1. Down: none.
    assert flow_smoothness(flow).item() == pytest.approx(0.5)


@pytest.mark.parametrize("size", [(128, 96), (64, 48)])
def test_flow_at_reads_pixels(size: tuple[int, int]) -> None:
    points = torch.tensor([[10.0, 20.0], [95.0, 127.0], [0.0, 0.0]]).view(1, 1, 3, 2)
    found = flow_at(constant_flow(3, -2, size), points, *SIZE)
    assert found.shape == points.shape
    torch.testing.assert_close(found, torch.tensor([3.0, -2.0]).expand(1, 1, 3, 2))


def test_flow_at_looks_at_the_point() -> None:
    # Across by its own x, down by twice its own y: linear, so that bilinear reading is exact.
    ys, xs = torch.meshgrid(torch.arange(64.0), torch.arange(48.0), indexing="ij")
    x, y = xs * 2 + 0.5, ys * 2 + 0.5  # where the cells' centres lie in the frame's pixels
    flow = torch.stack((x * 2 / 96, 2 * y * 2 / 128))[None, None]
    points = torch.tensor([[10.0, 20.0], [33.5, 77.25]]).view(1, 1, 2, 2)
    expected = torch.tensor([[10.0, 40.0], [33.5, 154.5]]).view(1, 1, 2, 2)
    torch.testing.assert_close(flow_at(flow, points, *SIZE), expected, atol=1e-3, rtol=0)


def test_landmark_loss_is_zero_for_the_right_flow() -> None:
    still = torch.rand(1, 478, 2) * torch.tensor([80.0, 100.0]) + 8
    frame = (still - torch.tensor([3.0, -2.0]))[:, None]
    loss = landmark_loss(constant_flow(3, -2), frame, still, torch.ones(478), SIZE)
    assert loss.item() == pytest.approx(0, abs=1e-8)
    wrong = landmark_loss(constant_flow(-3, 2), frame, still, torch.ones(478), SIZE)
    # Off by 6 and by 4 pixels, linear beyond 4: 4 * (6 - 4 / 2) + 4 * 4 / 2.
    assert HUBER_PIXELS == 4
    assert wrong.item() == pytest.approx(24, rel=1e-4)


def test_landmark_loss_weighs_landmarks() -> None:
    still = torch.full((1, 2, 2), 50.0)
    frame = still[:, None].clone()
    frame[0, 0, 0, 0] += 0.5  # 0.5 * 0.5 / 2 = 0.125
    frame[0, 0, 1, 1] -= 3  # 3 * 3 / 2 = 4.5
    flow = constant_flow(0, 0)
    loss = landmark_loss(flow, frame, still, torch.tensor([1.0, 4.0]), SIZE)
    assert loss.item() == pytest.approx((0.125 * 1 + 4.5 * 4) / 2 / 2.5, rel=1e-4)


def test_forward_points_undo_a_flow() -> None:
    still = torch.rand(1, 5, 2) * 60 + 15
    flow = torch.cat((constant_flow(3, -2), constant_flow(0, 5)), dim=1)
    motion = Motion(flow, torch.zeros(1, 2, 1, 64, 48), torch.zeros(1, 2, 3, 64, 48))
    points = forward_points(motion, still, SIZE)
    assert points.shape == (1, 2, 5, 2)
    torch.testing.assert_close(points[0, 0], still[0] - torch.tensor([3.0, -2.0]))
    torch.testing.assert_close(points[0, 1], still[0] - torch.tensor([0.0, 5.0]))


def test_forward_points_of_a_stretch() -> None:
    # Each output row y comes from y + 0.25 (y - 60): what lay at 70 comes to lie at 68.
    ys = torch.arange(64.0) * 2 + 0.5
    flow = torch.zeros(1, 1, 2, 64, 48)
    flow[0, 0, 1] = (0.25 * (ys - 60) * 2 / 128)[:, None]
    motion = Motion(flow, torch.zeros(1, 1, 1, 64, 48), torch.zeros(1, 1, 3, 64, 48))
    points = forward_points(motion, torch.tensor([[[40.0, 70.0]]]), SIZE)
    torch.testing.assert_close(
        points, torch.tensor([40.0, 68.0]).view(1, 1, 1, 2), atol=1e-3, rtol=0
    )


def test_psnr() -> None:
    real = torch.zeros(1, 3, 4, 4)
    # The range [-1, 1] is 2 wide: 10 log10(4 / 0.01).
    assert psnr(real + 0.1, real).item() == pytest.approx(10 * math.log10(400), rel=1e-5)
    half = real.clone()
    half[..., :2] = 0.2  # half the pixels by 0.2: mean square 0.02
    assert psnr(half, real).item() == pytest.approx(10 * math.log10(200), rel=1e-5)
    assert psnr(real, real).item() == pytest.approx(126.02, abs=0.01)
