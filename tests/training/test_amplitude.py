"""The amplitude term against numbers worked out by hand."""

import math

import torch

from stillspeak.training.losses import amplitude_loss, point_distances


def test_same_movement_costs_nothing() -> None:
    real = torch.tensor([[[1.0], [5.0], [3.0]]])
    assert amplitude_loss(real + 7.0, real).item() < 1e-6  # an offset is no movement


def test_half_the_movement_costs_a_quarter() -> None:
    real = torch.tensor([[[0.0], [40.0]], [[10.0], [30.0]]])
    loss = amplitude_loss(real / 2, real)
    assert math.isclose(loss.item(), 0.25, abs_tol=1e-3)


def test_a_still_mouth_is_pushed_to_move() -> None:
    real = torch.tensor([[[0.0], [4.0]]])
    generated = torch.tensor([[[2.0], [2.1]]], requires_grad=True)
    amplitude_loss(generated, real).backward()
    assert generated.grad is not None
    assert generated.grad[0, 1, 0] < 0 < generated.grad[0, 0, 0]  # descent parts the two


def test_distances_of_pairs() -> None:
    points = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [3.0, 0.0]]])
    distances = point_distances(points, ((0, 1), (1, 2)))
    assert torch.allclose(distances, torch.tensor([[5.0, 4.0]]), atol=1e-4)
    assert torch.isfinite(point_distances(torch.zeros(1, 2, 2), ((0, 1),))).all()
