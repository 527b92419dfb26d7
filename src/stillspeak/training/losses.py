"""Loss terms of the generator. Each takes tensors and gives one number: testable by hand."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.models.decoders import Motion

MOUTH_BOX = (72, 112, 24, 76)
"""Rows and columns of the mouth in a 128 x 96 crop: around the canonical mouth corners
(36, 88) and (64, 87), with room for an open jaw and for the augmentation's shifts."""

HUBER_PIXELS = 4.0
"""Landmark errors up to here are weighed by their square, larger ones by their size."""


def region_weights(height: int, width: int, *, upper: float, lower: float, mouth: float) -> Tensor:
    """Weights (1, 1, 1, H, W) of the frame's regions for the L1 error.

    The paper uses upper = 0 and lower = mouth = 1 (section 2.3, equation 2).
    """
    weights = torch.full((height, width), float(upper))
    weights[height // 2 :] = lower
    top, bottom, left, right = _scaled_box(height, width)
    weights[top:bottom, left:right] = mouth
    return weights.view(1, 1, 1, height, width)


def _scaled_box(height: int, width: int) -> tuple[int, int, int, int]:
    top, bottom, left, right = MOUTH_BOX
    return (
        top * height // 128,
        bottom * height // 128,
        left * width // 96,
        right * width // 96,
    )


def mouth_crop(frames: Tensor) -> Tensor:
    """The mouth's part of frames (..., H, W)."""
    top, bottom, left, right = _scaled_box(frames.shape[-2], frames.shape[-1])
    return frames[..., top:bottom, left:right]


def weighted_l1(generated: Tensor, real: Tensor, weights: Tensor) -> Tensor:
    """Mean of the weighted absolute error over frames (B, K, 3, H, W), per unit of weight."""
    return ((generated - real).abs() * weights).mean() / weights.mean()


def gradient_l1(generated: Tensor, real: Tensor, weights: Tensor) -> Tensor:
    """Weighted L1 between horizontal and between vertical differences: edges where they are."""
    error = generated - real
    across = (error[..., 1:] - error[..., :-1]).abs() * weights[..., 1:]
    down = (error[..., 1:, :] - error[..., :-1, :]).abs() * weights[..., 1:, :]
    return (across.mean() + down.mean()) / weights.mean()


def flow_smoothness(flow: Tensor) -> Tensor:
    """Mean absolute first difference of a flow (B, K, 2, h, w), in flow cells of h rows."""
    pixels = flow * (flow.shape[-2] / 2)
    across = (pixels[..., 1:] - pixels[..., :-1]).abs().mean()
    down = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().mean()
    return across + down


def flow_at(flow: Tensor, points: Tensor, height: int, width: int) -> Tensor:
    """The flow at given points.

    Args:
        flow: (B, K, 2, h, w) in [-1, 1] units.
        points: (B, K, L, 2) in pixels of a (height, width) frame.

    Returns:
        (B, K, L, 2) in the same pixels.
    """
    size = points.new_tensor([width, height])
    where = (points.flatten(0, 1) + 0.5) * (2 / size) - 1
    at = F.grid_sample(
        flow.flatten(0, 1), where.unsqueeze(1), "bilinear", "border", align_corners=False
    )
    return (at.squeeze(2).transpose(1, 2) * (size / 2)).view_as(points)


def landmark_loss(
    flow: Tensor, frame_points: Tensor, still_points: Tensor, weights: Tensor, size: tuple[int, int]
) -> Tensor:
    """Where the flow takes each target landmark, against where the still has it.

    Args:
        flow: (B, K, 2, h, w) in [-1, 1] units.
        frame_points: (B, K, L, 2) landmarks of the real frames, pixels.
        still_points: (B, L, 2) the same landmarks in the still.
        weights: (L,) how much each counts.
        size: height and width of the frame in pixels.

    Returns:
        The weighted mean Huber loss of x and y, in pixels: quadratic below
        :data:`HUBER_PIXELS`, since an absolute error would be least at the median, which for
        a mouth that is mostly half closed is too closed.
    """
    landed = frame_points + flow_at(flow, frame_points, *size)
    error = F.huber_loss(
        landed, still_points.unsqueeze(1).expand_as(landed), reduction="none", delta=HUBER_PIXELS
    )
    return (error.sum(-1) * weights).mean() / weights.mean()


def forward_points(motion: Motion, still_points: Tensor, size: tuple[int, int]) -> Tensor:
    """Where the still's landmarks come to lie in the generated frames.

    The flow says for each output point where it comes from; this solves it the other way
    round by fixed-point iteration.

    Args:
        motion: of K frames.
        still_points: (B, L, 2) pixels.
        size: height and width of the frame.

    Returns:
        (B, K, L, 2) pixels.
    """
    frames = motion.flow.shape[1]
    source = still_points.unsqueeze(1).expand(-1, frames, -1, -1)
    points = source
    for _ in range(8):
        points = source - flow_at(motion.flow, points.contiguous(), *size)
    return points


def psnr(generated: Tensor, real: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], over all their pixels."""
    error = F.mse_loss(generated, real)
    return 10 * torch.log10(4 / error.clamp_min(1e-12))
