"""From speech features to the mouth's pose: see :mod:`stillspeak.face.mouth` for what that is."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from stillspeak.system.configuration import BelowOne, configuration

POSE_NUMBERS = 82
"""x and y of 41 points."""


@configuration("pose")
class PoseConfig:
    """Sizes of a :class:`PosePredictor`."""

    hidden: Annotated[int, Field(strict=True, ge=1, le=4096)] = 128
    """Size of the GRU's state."""
    layers: Annotated[int, Field(strict=True, ge=1, le=16)] = 1
    basis: Annotated[int, Field(strict=True, ge=1, le=POSE_NUMBERS)] = 10
    """Directions in which poses may go."""
    dropout: BelowOne = 0.2


class PosePredictor(nn.Module):
    """Two readings of two tokens a frame, onto a linear basis of poses: a linear one, which holds
    for new speakers best, and a GRU, which keeps lips still in silence; their mean."""

    mean: Tensor
    deviation: Tensor
    basis: Tensor

    def __init__(self, config: PoseConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("deviation", torch.ones(width))
        self.register_buffer("basis", torch.zeros(config.basis, POSE_NUMBERS))
        self.direct = nn.Linear(width, config.basis)
        self.enter = nn.Linear(2 * width, config.hidden)
        self.gru = nn.GRU(config.hidden, config.hidden, config.layers, batch_first=True)
        self.dropout = nn.Dropout(config.dropout)
        self.leave = nn.Linear(2 * config.hidden, config.basis)

    def initial_state(self, clips: int = 1) -> Tensor:
        """(layers, B, hidden): zeros."""
        return self.mean.new_zeros(self.config.layers, clips, self.config.hidden)

    def paired(self, features: Tensor) -> Tensor:
        """Features (B, 2 T, width) -> standardised (B, T, 2 width)."""
        return torch.unflatten((features - self.mean) / self.deviation, 1, (-1, 2)).flatten(2)

    def recurrent(self, paired: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The GRU's reading alone: (B, T, basis) and the new state."""
        x = torch.tanh(self.enter(self.dropout(paired)))
        y, state = self.gru(x, state)
        coefficients: Tensor = self.leave(self.dropout(torch.cat((x, y), 2)))
        return coefficients, state

    def forward(self, features: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2 T, width) and the state -> coefficients (B, T, basis), new state."""
        paired = self.paired(features)
        coefficients, state = self.recurrent(paired, state)
        return (coefficients + self.read(paired)) / 2, state

    def read(self, paired: Tensor) -> Tensor:
        """The linear reading alone, of the mean of a frame's two tokens: (B, T, basis)."""
        coefficients: Tensor = self.direct(torch.unflatten(paired, 2, (2, -1)).mean(2))
        return coefficients

    def shapes(self, coefficients: Tensor) -> Tensor:
        """(B, T, basis) -> (B, T, 41, 2): displacements from the rest pose, in eye distances."""
        return torch.unflatten(coefficients @ self.basis, 2, (-1, 2))
