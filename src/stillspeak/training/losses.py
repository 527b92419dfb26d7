"""Loss terms of the generator. Each takes tensors and gives one number: testable by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.models.decoders import Motion
from stillspeak.models.regions import crop_region, region_box

HUBER_PIXELS = 4.0
"""Landmark errors up to here are weighed by their square, larger ones by their size."""


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


def forward_points(
    motion: Motion, still_points: Tensor, size: tuple[int, int], *, rounds: int = 8
) -> Tensor:
    """Where the still's landmarks come to lie in the generated frames.

    The flow says for each output point where it comes from; this solves it the other way
    round by fixed-point iteration.

    Args:
        motion: of K frames.
        still_points: (B, L, 2) pixels.
        size: height and width of the frame.
        rounds: of the iteration.

    Returns:
        (B, K, L, 2) pixels.
    """
    frames = motion.flow.shape[1]
    source = still_points.unsqueeze(1).expand(-1, frames, -1, -1)
    points = source
    for _ in range(rounds):
        points = source - flow_at(motion.flow, points.contiguous(), *size)
    return points


def mouth_interior(points: Tensor, size: tuple[int, int]) -> Tensor:
    """Where a picture shows the inside of the mouth: an ellipse between the inner lips.

    Args:
        points: (B, K, L, 2) landmarks in pixels.
        size: height and width of the frame.

    Returns:
        (B, K, 1, H, W) of 0 and 1.
    """
    left, right, top, bottom = (points[..., i, :] for i in (78, 308, 13, 14))
    centre = (top + bottom) / 2
    half_width = (right - left).norm(dim=-1, keepdim=True).clamp_min(1) / 2
    half_height = (bottom - top).norm(dim=-1, keepdim=True).clamp_min(0.5) / 2
    along = (right - left) / (2 * half_width)
    across = torch.stack((-along[..., 1], along[..., 0]), -1)
    ys = torch.arange(size[0], device=points.device, dtype=points.dtype)
    xs = torch.arange(size[1], device=points.device, dtype=points.dtype)
    grid = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)  # (H, W, 2)
    offset = grid - centre[..., None, None, :]
    a = (offset * along[..., None, None, :]).sum(-1) / half_width[..., None]
    b = (offset * across[..., None, None, :]).sum(-1) / half_height[..., None]
    inside: Tensor = (a.square() + b.square() <= 1).to(points.dtype)
    return inside.unsqueeze(2)


def newly_open(frame_points: Tensor, still_points: Tensor, size: tuple[int, int]) -> Tensor:
    """The inside of the mouth where the still does not show it, as it has it more closed.

    Args:
        frame_points: (B, K, L, 2) landmarks of the real frames, pixels.
        still_points: (B, L, 2) landmarks of the still.
        size: height and width of the frame.

    Returns:
        (B, K, 1, H, W) in [0, 1]: the interior, times how much wider than in the still the
        mouth is open, two pixels counting as all.
    """
    opening = (frame_points[..., 13, :] - frame_points[..., 14, :]).norm(dim=-1)
    before = (still_points[..., 13, :] - still_points[..., 14, :]).norm(dim=-1).unsqueeze(1)
    share: Tensor = ((opening - before) / 2).clamp(0, 1)
    return mouth_interior(frame_points, size) * share[..., None, None, None]


def point_distances(points: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Distances of pairs of landmarks. (..., L, 2) -> (..., P)."""
    first = points[..., [a for a, _ in pairs], :]
    second = points[..., [b for _, b in pairs], :]
    # The square root's slope at zero is infinite, and closed lips are at zero.
    return (first - second).square().sum(-1).add(1e-4).sqrt()


def amplitude_loss(generated: Tensor, real: Tensor) -> Tensor:
    """How far the size of the mouth's movements is from the real one.

    A regression moves less than what it predicts: by the correlation that it reaches, if it
    is a good one. This asks for the same root mean square of the differences between the
    frames of a clip, without asking which frame moves where.

    Args:
        generated, real: (B, K, P) distances in pixels, K at least 2.

    Returns:
        The mean over P of (ratio of the two root mean squares, minus 1) squared.
    """

    def size(distances: Tensor) -> Tensor:
        differences = distances.unsqueeze(1) - distances.unsqueeze(2)  # (B, K, K, P)
        return differences.square().mean(dim=(0, 1, 2)).add(1e-4).sqrt()

    return (size(generated) / size(real) - 1).square().mean()


def psnr(generated: Tensor, real: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of pictures in [-1, 1], over all their pixels."""
    error = F.mse_loss(generated, real)
    return 10 * torch.log10(4 / error.clamp_min(1e-12))
