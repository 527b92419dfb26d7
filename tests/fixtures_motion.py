"""What a motion makes of a still, for tests."""

import torch
import torch.nn.functional as F

from stillspeak.models.decoders import Motion
from stillspeak.models.layers import identity_grid


def compose(still: torch.Tensor, motion: Motion) -> torch.Tensor:
    """A still (1, 3, H, W) in [-1, 1] moved and painted over: (1, T, 3, H, W)."""
    height, width = still.shape[-2:]
    flow, mask, colour = motion.joined((height, width))[0].split((2, 1, 3), 1)
    grid = identity_grid(height, width) + flow.permute(0, 2, 3, 1)
    source = still.expand(len(flow), -1, -1, -1)
    moved = F.grid_sample(source, grid, "bilinear", "border", align_corners=False)
    return torch.lerp(moved, colour, mask)[None]
