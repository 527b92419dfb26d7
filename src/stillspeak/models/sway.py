"""The head's own small movement, laid over what the decoder made of the face."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.models.decoders import Motion
from stillspeak.models.layers import identity_grid

FADE = 0.35
"""Share of the crop's half over which the movement fades to nothing towards its border."""

PIVOT = (0.0, 0.75)
"""What the head tilts about, in [-1, 1] coordinates of the crop: where it sits on the neck."""


def sway_field(poses: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel comes from when the head moves.

    Args:
        poses: (T, 3) tilt in degrees and shift (x, y) in pixels of a 128 x 96 crop.
        height, width: of the field.

    Returns:
        (T, 2, height, width) offsets (x, y) in the [-1, 1] coordinates of ``grid_sample``; zero
        along the border.
    """
    grid = identity_grid(height, width)
    aspect = torch.tensor([96 / 128, 1.0])  # so that a tilt is one in pixels
    place = (grid - torch.tensor(PIVOT)) * aspect
    angle = -torch.deg2rad(poses[:, 0])[:, None, None]
    cos, sin = torch.cos(angle), torch.sin(angle)
    x, y = place[..., 0], place[..., 1]
    moved = torch.stack((cos * x - sin * y, sin * x + cos * y), -1)
    shift = poses[:, None, None, 1:] * torch.tensor([2 / 96, 2 / 128])
    offset = (moved - place) / aspect - shift
    return (offset * _fade(grid)[..., None]).permute(0, 3, 1, 2)


def sway_motion(motion: Motion, poses: Tensor) -> Motion:
    """A motion with the head's movement in it, so that the still is sampled once.

    Args:
        motion: of T frames of one clip (B = 1).
        poses: (T, 3), see :func:`sway_field`.
    """
    motion = motion.flat()
    height, width = motion.flow.shape[-2:]
    field = sway_field(poses, height, width).to(motion.flow)
    flow, mask, colour = (
        _sample(part[0], field) for part in (motion.flow, motion.mask, motion.colour)
    )
    return Motion((flow + field)[None], mask[None], colour[None])


def sway_frames(frames: Tensor, poses: Tensor) -> Tensor:
    """Frames (T, 3, H, W) with the head's movement, for decoders that paint."""
    field = sway_field(poses, frames.shape[-2], frames.shape[-1]).to(frames)
    return _sample(frames, field)


def _sample(maps: Tensor, field: Tensor) -> Tensor:
    grid = identity_grid(maps.shape[-2], maps.shape[-1]).to(maps) + field.permute(0, 2, 3, 1)
    return F.grid_sample(maps, grid, "bilinear", "border", align_corners=False)


def _fade(grid: Tensor) -> Tensor:
    """1 inside, 0 at the border, with no corner between: (H, W)."""
    inside = ((1 - grid.abs()) / FADE).clamp(0, 1).prod(-1)
    return inside.square() * (3 - 2 * inside)
