"""Between pictures, uint8 (H, W, 3), and what the networks see, float (3, H, W) in [-1, 1]."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor


def to_model(pictures: npt.NDArray[np.uint8]) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def from_model(frames: Tensor) -> npt.NDArray[np.uint8]:
    """(B, 3, H, W) float in [-1, 1] -> (B, H, W, 3) uint8, contiguous."""
    scaled = frames.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255)
    return np.ascontiguousarray(scaled.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
