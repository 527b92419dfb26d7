"""The inside of the mouth: where it is, and when it is new."""

import math

import torch

from stillspeak.training.losses import mouth_interior, newly_open

SIZE = (128, 96)


def mouth(opening: float, width: float = 24.0) -> torch.Tensor:
    points = torch.zeros(1, 1, 478, 2)
    points[..., 78, :] = torch.tensor([48 - width / 2, 88.0])
    points[..., 308, :] = torch.tensor([48 + width / 2, 88.0])
    points[..., 13, :] = torch.tensor([48.0, 88 - opening / 2])
    points[..., 14, :] = torch.tensor([48.0, 88 + opening / 2])
    return points


def test_interior_is_the_ellipse_between_the_lips() -> None:
    inside = mouth_interior(mouth(10.0), SIZE)
    assert inside.shape == (1, 1, 1, *SIZE)
    assert math.isclose(inside.sum().item(), math.pi * 12 * 5, rel_tol=0.05)
    assert inside[0, 0, 0, 88, 48] == 1
    assert inside[0, 0, 0, 88, 61] == inside[0, 0, 0, 94, 48] == 0


def test_interior_turns_with_the_mouth() -> None:
    points = mouth(4.0)
    upright = mouth_interior(points, SIZE)[0, 0, 0]
    centre = torch.tensor([48.0, 88.0])
    offset = points - centre
    turned = centre + torch.stack((-offset[..., 1], offset[..., 0]), -1)
    inside = mouth_interior(turned, SIZE)[0, 0, 0]
    assert inside[98, 48] == 1
    assert inside[88, 58] == 0
    assert upright[88, 58] == 1
    assert inside.sum() == upright.sum()


def test_only_what_the_still_hides_is_new() -> None:
    target = mouth(10.0)
    assert newly_open(target, mouth(10.0)[:, 0], SIZE).sum() == 0
    assert newly_open(target, mouth(12.0)[:, 0], SIZE).sum() == 0
    half = newly_open(target, mouth(9.0)[:, 0], SIZE)
    assert half.max() == 0.5
    assert newly_open(target, mouth(0.0)[:, 0], SIZE).max() == 1
