"""Layers that several networks share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def normed(conv: nn.Conv1d | nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
    """A convolution without bias, its batch norm, and ReLU."""
    kind = nn.BatchNorm1d if isinstance(conv, nn.Conv1d) else nn.BatchNorm2d
    return [conv, kind(conv.out_channels), nn.ReLU(inplace=True)]


def conv_down(in_channels: int, out_channels: int) -> nn.Sequential:
    """Halve height and width: Conv2d k4 s2 p1 without bias, BatchNorm, ReLU."""
    return nn.Sequential(*normed(nn.Conv2d(in_channels, out_channels, 4, 2, 1, bias=False)))


def conv_up(in_channels: int, out_channels: int) -> nn.Sequential:
    """Double height and width: ConvTranspose2d k4 s2 p1 without bias, BatchNorm, ReLU."""
    return nn.Sequential(
        *normed(nn.ConvTranspose2d(in_channels, out_channels, 4, 2, 1, bias=False))
    )


def waveform_layers(sample_rate: int, widths: Sequence[int]) -> list[nn.Module]:
    """1-D convolutions over a waveform (paper, section 2.1.2), with BatchNorm and ReLU: the first,
    with a kernel of 5 ms, gives a step a millisecond, each further one halves the steps."""
    ms = sample_rate // 1000
    layers = normed(nn.Conv1d(1, widths[0], 5 * ms, ms, 2 * ms, bias=False))
    for a, b in pairwise(widths):
        layers += normed(nn.Conv1d(a, b, 4, 2, 1, bias=False))
    return layers


class SkipFusion(nn.Module):
    """ConvT k3 over the concatenation of a skip map and the running map, BatchNorm, ReLU.

    The skip does not change within a clip: its half of the sum is computed once by :meth:`project`.
    """

    def __init__(self, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.skip_channels = skip_channels
        self.conv = nn.ConvTranspose2d(skip_channels + channels, channels, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(channels)

    def project(self, skip: Tensor) -> Tensor:
        """The skip's half of the convolution. (B, C_skip, H, W) -> (B, C, H, W)."""
        return F.conv_transpose2d(skip, self.conv.weight[: self.skip_channels], padding=1)

    def forward(self, x: Tensor, projected: Tensor) -> Tensor:
        """(B*T, C, H, W) and the projected skip (B, C, H, W) -> (B*T, C, H, W)."""
        y = F.conv_transpose2d(x, self.conv.weight[self.skip_channels :], padding=1)
        y = add_per_clip(y, projected)
        return F.relu_(self.norm(y))


def add_per_clip(x: Tensor, per_clip: Tensor) -> Tensor:
    """Add a map that all frames of a clip share. (B*T, C, H, W) + (B, C, H, W)."""
    clips = per_clip.shape[0]
    return (torch.unflatten(x, 0, (clips, -1)) + per_clip.unsqueeze(1)).flatten(0, 1)


def identity_grid(height: int, width: int, *, device: torch.device | None = None) -> Tensor:
    """Pixel-centre coordinates in [-1, 1] for ``grid_sample(align_corners=False)``.

    Returns (H, W, 2) float32, x before y.
    """
    ys = (torch.arange(height, device=device, dtype=torch.float32) + 0.5) * (2 / height) - 1
    xs = (torch.arange(width, device=device, dtype=torch.float32) + 0.5) * (2 / width) - 1
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)


def region_grid(
    centre: tuple[float, float], extent: tuple[float, float], height: int, width: int
) -> Tensor:
    """Where the pixels of a region of the aligned crop lie, x and y: (height, width, 2) float32.
    ``centre`` and ``extent`` are x, y in pixels of the crop."""
    xs = centre[0] + extent[0] * ((torch.arange(width) + 0.5) / width - 0.5)
    ys = centre[1] + extent[1] * ((torch.arange(height) + 0.5) / height - 0.5)
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)
