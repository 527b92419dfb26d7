"""What geometry leaves out of a drawn mouth: a small network that corrects its light.

It sees the still and the drawn frame around the mouth and says how much brighter or darker each
place should be. The answer is a smooth factor: fine detail stays the picture's own, what is black
stays black, and it serves faces of any size.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stillspeak.system.configuration import BelowOne, configuration

REFINER_FORMAT = "stillspeak-refiner-1"

COLUMNS, ROWS = 96, 80
"""Pixels of what the network sees."""

PIXELS = 60.0
"""A distance between the eyes."""

TOP = -0.45
"""Its upper border, in distances between the eyes below the line where the lips meet."""

_MOST = 0.5  # by which share a place is made brighter or darker at most
_INSIDE = 0.4  # and how much of that inside the mouth: a mean of many mouths is grey
_BORDER = (0.12, 0.1)  # share of width and height over which the correction fades in


_Width = Annotated[int, Field(strict=True, ge=1, le=1024)]


@configuration("refiner")
class RefinerConfig:
    """Sizes of a :class:`MouthRefiner`."""

    channels: tuple[_Width, _Width, _Width] = (16, 32, 48)
    """Of the maps at a half, a quarter and an eighth of the size that it sees."""
    dropout: BelowOne = 0.2
    """Share of the coarsest maps left out in training."""


class MouthRefiner(nn.Module):
    """A U-Net of three scales."""

    window: Tensor

    def __init__(self, config: RefinerConfig) -> None:
        super().__init__()
        self.config = config
        a, b, c = config.channels
        self.enter = nn.ModuleList([_conv(28, a), _conv(a, a)])
        self.down = nn.ModuleList([_conv(a, b, 2), _conv(b, b)])
        self.deep = nn.ModuleList([_conv(b, c, 2), _conv(c, c), _conv(c, c)])
        self.dropout = nn.Dropout2d(config.dropout)
        self.up = nn.ModuleList([_conv(c + b, b), _conv(b + a, a)])
        self.leave = _conv(a, 1)
        nn.init.zeros_(self.leave.weight)
        assert self.leave.bias is not None
        nn.init.zeros_(self.leave.bias)
        with torch.device("cpu"):  # as in models.speech: the meta device takes seconds
            self.register_buffer("window", _window(), persistent=False)

    def forward(self, still: Tensor, drawn: Tensor, hole: Tensor) -> Tensor:
        """By how much to change the light of a drawn frame.

        Args:
            still: (B, 3, ROWS, COLUMNS), 1 being white in its light.
            drawn: the same of the frame.
            hole: (B, 1, ROWS, COLUMNS) share of each pixel that shows the inside of the mouth.

        Returns:
            (B, 1, ROWS / 2, COLUMNS / 2) the share of itself that each pixel gains; 0 at the
            border. All colours alike, so that no tint changes.
        """
        x = F.pixel_unshuffle(torch.cat((still - 0.5, drawn - 0.5, hole), 1), 2)
        fine = _through(self.enter, x)
        middle = _through(self.down, fine)
        first, *others = self.deep
        coarse = _act(first(middle))
        coarse = self.dropout(coarse + _through(others, coarse))
        middle = _act(self.up[0](torch.cat((_doubled(coarse), middle), 1)))
        fine = _act(self.up[1](torch.cat((_doubled(middle), fine), 1)))
        allowed = self.window * (1 - (1 - _INSIDE) * F.avg_pool2d(hole, 2))
        correction: Tensor = _MOST * torch.tanh(self.leave(fine)) * allowed
        return correction


def golden_refiner(network: MouthRefiner) -> Tensor:
    """What a network answers to waves: a vector, the same on every machine."""
    y = torch.linspace(0, math.pi, ROWS)[:, None]
    x = torch.linspace(0, math.pi, COLUMNS)
    waves = torch.stack([0.5 + 0.4 * torch.sin(k * x + (3 - k) * y) for k in range(1, 8)])
    given: Tensor = network(waves[None, :3], waves[None, 3:6], waves[None, 6:])
    return given[0, :, ::5, ::6].flatten()


def _conv(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, 1)


def _act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.1)


def _through(layers: nn.ModuleList | list[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = _act(layer(x))
    return x


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def _window() -> Tensor:
    """(1, 1, ROWS / 2, COLUMNS / 2) 1 in the middle, 0 at the border."""

    def ramp(count: int, share: float) -> Tensor:
        t = torch.linspace(0, 1, count)
        t = (torch.minimum(t, 1 - t) / share).clamp(0, 1)
        return t * t * (3 - 2 * t)

    return (ramp(ROWS // 2, _BORDER[1])[:, None] * ramp(COLUMNS // 2, _BORDER[0]))[None, None]
