"""The head's own small movement, laid over the face that speaks."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.models.layers import identity_grid

FADE = 0.35
"""Share of the half over which the movement fades to nothing towards the border."""

PIVOT = (0.0, 0.75)
"""What the head tilts about, in [-1, 1] coordinates of the crop: where it sits on the neck."""


ASPECT = 96 / 128
"""Width of a coordinate x in those of y."""

SHOULDERS = 1.6
"""Where in [-1, 1] coordinates of the crop, y, nothing moves any more."""

Reach = tuple[float, float]
"""How far a grid goes, (x, y) in halves of the crop: (1, 1) is the crop itself."""

CROP: Reach = (1.0, 1.0)

HEAD: Reach = (2.0, 2.0)
"""What the movement may take along in a whole picture: the head with its hair."""


def head_field(poses: Tensor, height: int, width: int, reach: Reach = CROP) -> Tensor:
    """Where each pixel comes from when the head moves.

    Args:
        poses: (T, 3) tilt in degrees and shift (x, y) in pixels of a 128 x 96 crop.
        height, width: of the field.
        reach: what the field covers.

    Returns:
        (T, 2, height, width) offsets (x, y) in the [-1, 1] coordinates of the crop; zero along
        the field's border.
    """
    angle = -torch.deg2rad(poses[:, 0])
    sin, less = torch.sin(angle), torch.cos(angle) - 1
    unit_x, unit_y = 2 / 96, 2 / 128
    # Turning about the pivot and shifting are sums of three maps, with numbers for each pose.
    x = torch.stack((less, -sin / ASPECT, -unit_x * poses[:, 1]), 1)
    y = torch.stack((ASPECT * sin, less, -unit_y * poses[:, 2]), 1)
    weights = torch.stack((x, y), 1)
    return (weights @ _basis(height, width, reach)).view(len(poses), 2, height, width)


def move_head_in_frames(frames: Tensor, poses: Tensor) -> Tensor:
    """Frames (T, 3, H, W) with the head's movement, for decoders that paint."""
    field = head_field(poses, frames.shape[-2], frames.shape[-1]).to(frames)
    grid = identity_grid(frames.shape[-2], frames.shape[-1]).to(frames) + field.permute(0, 2, 3, 1)
    return F.grid_sample(frames, grid, "bilinear", "border", align_corners=False)


@lru_cache(maxsize=4)
def _places(height: int, width: int, reach: Reach) -> Tensor:
    """Where the grid's cells lie, in coordinates of the crop: (H, W, 2), x before y."""
    return identity_grid(height, width) * torch.tensor(reach)


@lru_cache(maxsize=4)
def _basis(height: int, width: int, reach: Reach) -> Tensor:
    """What offsets are sums of: the way from the pivot, x and y, and 1; all fade towards the
    border. (3, H * W)."""
    grid = _places(height, width, reach)
    way = grid - torch.tensor(PIVOT)
    maps = torch.stack((way[..., 0], way[..., 1], torch.ones_like(way[..., 0])))
    return (maps * _fade(grid)).flatten(1)


def _fade(grid: Tensor) -> Tensor:
    """1 inside, exactly 0 on the grid's outermost places, with no corner between: (H, W)."""
    x, y = grid[..., 0], grid[..., 1]
    end_x, end_y = x[:, [0, -1]].abs().min(), y[[0, -1]].abs().min()
    across = (end_x - x.abs()) / (FADE * end_x)
    above = (end_y + y) / (FADE * end_y)
    # Below it fades from the same place at any reach: the neck moves, the shoulders stay.
    end_y = end_y.clamp(max=SHOULDERS)
    below = (end_y - y) / (end_y - 1 + FADE)
    inside = torch.stack((across, torch.minimum(above, below))).clamp(0, 1).prod(0)
    return inside.square() * (3 - 2 * inside)
