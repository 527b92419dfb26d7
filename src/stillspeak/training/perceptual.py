"""A perceptual term: distance between what a network trained on photographs sees.

No package carries such a network's weights here, so the user names a safetensors file with the
convolutions of VGG-16 under torchvision's names (``features.0.weight``, ...).
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stillspeak.errors import ConfigError

_LAYERS = (0, 2, 5, 7, 10, 12, 14)
"""Places of VGG-16's convolutions up to relu3_3 among its ``features``; beyond it, a mouth of
40 x 52 pixels has hardly any cells left."""

_WIDTHS = (3, 64, 64, 128, 128, 256, 256, 256)
_POOLED = (2, 4)
"""Convolutions that a pooling by two stands before."""

_COMPARED = (1, 3, 6)
"""Convolutions after which features are compared: relu1_2, relu2_2, relu3_3."""


class PerceptualDistance(nn.Module):
    """Mean absolute difference of unit-length VGG-16 features. The weights are the user's file, not
    a run's state: they are buffers that no checkpoint holds.

    Raises:
        ConfigError: the file cannot be read or lacks a layer.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: Path) -> None:
        super().__init__()
        try:
            state = load_file(weights)
        except (OSError, SafetensorError) as error:
            raise ConfigError(
                f"{weights}: cannot be read as safetensors ({error}); objective.perceptual_weights "
                "names VGG-16's weights"
            ) from error
        for number, place in enumerate(_LAYERS):
            shape = (_WIDTHS[number + 1], _WIDTHS[number], 3, 3)
            for kind, wanted in (("weight", shape), ("bias", shape[:1])):
                name = f"features.{place}.{kind}"
                if name not in state or state[name].shape != wanted:
                    raise ConfigError(f"{weights}: holds no {name} as VGG-16 has it")
                self.register_buffer(f"{kind}{number}", state[name].float(), persistent=False)
        # ImageNet's statistics, in which VGG's input is given, moved to a range of [-1, 1].
        mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
        deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
        self.register_buffer("mean", 2 * mean - 1, persistent=False)
        self.register_buffer("deviation", 2 * deviation, persistent=False)

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        """Frames (B, 3, H, W) in [-1, 1] -> one number."""
        with torch.no_grad():
            truth = self._features(real)
        pairs = zip(self._features(generated), truth, strict=True)
        return torch.stack([(a - b).abs().mean() for a, b in pairs]).mean()

    def _features(self, frames: Tensor) -> list[Tensor]:
        x = (frames - self.mean) / self.deviation
        found: list[Tensor] = []
        for number in range(len(_LAYERS)):
            if number in _POOLED:
                x = F.max_pool2d(x, 2)
            weight, bias = self.get_buffer(f"weight{number}"), self.get_buffer(f"bias{number}")
            x = F.relu(F.conv2d(x, weight, bias, padding=1))
            if number in _COMPARED:
                full = x.float()
                length = full.square().sum(1, keepdim=True).add(1e-8).sqrt()
                found.append(full / length * full.shape[1] ** 0.5)
        return found
