"""Loss terms of the generator. Each takes tensors and returns one number."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.models.regions import crop_region, region_box


def region_weights(
    height: int, width: int, *, upper: float, lower: float, mouth: float, eyes: float = 0.0
) -> Tensor:
    """Weights (1, 1, 1, H, W) of the frame's regions for the L1 error; eyes 0: as ``upper``.

    The paper uses upper = 0 and lower = mouth = 1 (section 2.3, equation 2).
    """
    weights = torch.full((height, width), float(upper))
    weights[height // 2 :] = lower
    top, bottom, left, right = region_box("mouth", height, width)
    weights[top:bottom, left:right] = mouth
    if eyes:
        top, bottom, left, right = region_box("eyes", height, width)
        weights[top:bottom, left:right] = eyes
    return weights.view(1, 1, 1, height, width)


def mouth_crop(frames: Tensor) -> Tensor:
    """The mouth's part of frames (..., H, W)."""
    return crop_region(frames, "mouth")


def weighted_l1(generated: Tensor, real: Tensor, weights: Tensor) -> Tensor:
    """Mean of the weighted absolute error over frames (B, K, 3, H, W), per unit of weight.

    Weights are of any shape that broadcasts to (B, K, 1, H, W).
    """
    return ((generated - real).abs() * weights).mean() / weights.mean()


def gradient_l1(generated: Tensor, real: Tensor, weights: Tensor) -> Tensor:
    """Weighted L1 between horizontal and between vertical differences: edges where they are."""
    error = generated - real
    across = (error[..., 1:] - error[..., :-1]).abs() * weights[..., 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weights[..., 1:, :]
    return (across.mean() + down.mean()) / weights.mean()


def psnr(generated: Tensor, real: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], over all their pixels."""
    error = F.mse_loss(generated, real)
    return 10 * torch.log10(4 / error.clamp_min(1e-12))
