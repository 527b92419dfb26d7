"""The head's movement: it goes where it should, and the border of the crop stays."""

import pytest
import torch

from stillspeak.rendering.head import (
    HEAD,
    SHOULDERS,
    head_field,
    move_head_in_frames,
)


def spot(x: int, y: int) -> torch.Tensor:
    """A picture (1, 3, 128, 96) that is dark but for a soft spot."""
    ys, xs = torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing="ij")
    light = torch.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 8)
    return (2 * light - 1).expand(1, 3, -1, -1)


def middle(picture: torch.Tensor) -> tuple[float, float]:
    light = (picture[0] + 1).clamp_min(0)
    ys, xs = torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing="ij")
    return float((light * xs).sum() / light.sum()), float((light * ys).sum() / light.sum())


def test_no_pose_no_field() -> None:
    assert not head_field(torch.zeros(2, 3), 32, 24).any()


def test_the_border_stays() -> None:
    field = head_field(torch.tensor([[3.0, 2.0, -2.0]]), 128, 96)[0]
    assert field.abs().max() > 0.02
    for edge in (field[:, 0], field[:, -1], field[:, :, 0], field[:, :, -1]):
        assert edge.abs().max() < 1e-3


@pytest.mark.parametrize(("dx", "dy"), [(2.0, 0.0), (0.0, -2.0), (1.5, 1.0)])
def test_a_shift_is_that_many_pixels(dx: float, dy: float) -> None:
    still = spot(48, 60)
    moved = move_head_in_frames(still, torch.tensor([[0.0, dx, dy]]))
    x, y = middle(moved[0])
    assert (x - 48, y - 60) == pytest.approx((dx, dy), abs=0.1)


def test_a_tilt_turns_about_the_neck() -> None:
    # The pivot lies at x 47.5, y 111.5; a spot 51.5 px above it goes 51.5 sin(2 degrees) aside.
    x, y = middle(move_head_in_frames(spot(48, 60), torch.tensor([[2.0, 0.0, 0.0]]))[0])
    assert x - 48 == pytest.approx(51.5 * 0.0349, abs=0.15)
    assert y == pytest.approx(60, abs=0.1)


@pytest.mark.parametrize("reach", [(1.0, 1.0), HEAD])
def test_nothing_moves_on_the_grid_s_outermost_places(reach: tuple[float, float]) -> None:
    field = head_field(torch.tensor([[4.0, 3.0, -3.0]]), 64, 48, reach)
    for edge in (field[..., 0, :], field[..., -1, :], field[..., 0], field[..., -1]):
        assert not edge.any()
    assert field.abs().max() > 0.05


def test_a_wider_reach_moves_the_whole_head_alike_and_not_the_shoulders() -> None:
    shift = head_field(torch.tensor([[0.0, 2.0, 0.0]]), 128, 96, HEAD)[0, 0]
    rows = (torch.arange(128) + 0.5) / 64 * HEAD[1] - HEAD[1]
    columns = (torch.arange(96) + 0.5) / 48 * HEAD[0] - HEAD[0]
    head = shift[(rows > -1.25) & (rows < 0.6)][:, columns.abs() < 1.2]
    assert torch.allclose(head, torch.tensor(-2 * 2 / 96), atol=1e-5)
    assert not shift[rows > SHOULDERS].any()


def test_the_field_never_folds() -> None:
    """Three times people's motion, and what lies side by side still does."""
    poses = torch.tensor([[10.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, -8.0], [6.0, 5.0, 5.0]])
    field = head_field(poses, 128, 96, HEAD)
    # In cells of the grid; a slope of -1 lays two places on one.
    x = field[:, 0] * 96 / (2 * HEAD[0])
    y = field[:, 1] * 128 / (2 * HEAD[1])
    assert x.diff(dim=2).min() > -1
    assert y.diff(dim=1).min() > -1
