"""Frame decoders: the paper's U-Net, and a decoder that moves the still's own pixels.

Both have one interface. ``prepare`` computes what depends on the still alone, once a clip;
``forward`` turns latents into frames, any number of frames at a time.
"""

from __future__ import annotations

from itertools import pairwise, zip_longest
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillspeak.models.config import GeneratorConfig
from stillspeak.models.encoders import IdentityEncoding
from stillspeak.models.layers import SkipFusion, conv_up, identity_grid


class StillContext(NamedTuple):
    """What all frames of a clip share: the still, its code and the projected skips."""

    still: Tensor  # (B, 3, H, W) in [-1, 1]
    code: Tensor  # (B, identity_dim)
    skips: tuple[Tensor, ...]  # coarse to fine, one map a decoder level


class Motion(NamedTuple):
    """How the warp decoder makes a frame out of the still. Resolution-free.

    flow: (B, T, 2, h, w) where in the still each output pixel comes from, as an offset (x, y)
        in the [-1, 1] coordinates of ``grid_sample``.
    mask: (B, T, 1, h, w) in [0, 1], share of the painted colour.
    colour: (B, T, 3, h, w) in [-1, 1], what the still does not show.
    """

    flow: Tensor
    mask: Tensor
    colour: Tensor


class Decoded(NamedTuple):
    """Frames (B, T, 3, H, W) in [-1, 1], and the motion where the decoder has one."""

    frames: Tensor
    motion: Motion | None


class FrameDecoder(Protocol):
    """What a frame decoder offers to the generator."""

    def prepare(self, still: Tensor, identity: IdentityEncoding) -> StillContext:
        """Compute once a clip what depends on the still (B, 3, H, W) alone."""

    def __call__(self, context: StillContext, latent: Tensor) -> Decoded:
        """Latents (B, T, latent_dim) -> T frames a clip."""


class UNetDecoder(nn.Module):
    """The paper's frame decoder: a U-Net of transposed convolutions (section 2.1.3).

    Skips are the identity encoder's maps except the finest, and none from the still itself;
    ``config.finest_skip`` adds the finest, to compare with the warp decoder on equal terms.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        coarse_to_fine = config.identity_channels[::-1]
        top = coarse_to_fine[0]
        self.root = nn.Sequential(
            nn.ConvTranspose2d(config.latent_dim, top, config.coarse_size, bias=False),
            nn.BatchNorm2d(top),
            nn.ReLU(inplace=True),
        )
        self.skips = len(coarse_to_fine) - (not config.finest_skip)
        self.fuse = nn.ModuleList(SkipFusion(c, c) for c in coarse_to_fine[: self.skips])
        self.up = nn.ModuleList(conv_up(a, b) for a, b in pairwise(coarse_to_fine))
        self.head = nn.ConvTranspose2d(coarse_to_fine[-1], 3, 4, 2, 1)

    def prepare(self, still: Tensor, identity: IdentityEncoding) -> StillContext:
        """See :class:`FrameDecoder`."""
        maps = identity.maps[::-1][: self.skips]
        skips = tuple(fuse.project(m) for fuse, m in zip(self.fuse, maps, strict=True))  # type: ignore[operator]
        return StillContext(still, identity.code, skips)

    def forward(self, context: StillContext, latent: Tensor) -> Decoded:
        """See :class:`FrameDecoder`."""
        clips = latent.shape[0]
        x = self.root(latent.flatten(0, 1)[:, :, None, None])
        # One skip less than levels, unless the finest level has one too.
        for fuse, skip, up in zip_longest(self.fuse, context.skips, self.up):
            x = fuse(x, skip)
            x = x if up is None else up(x)
        frames = torch.tanh(self.head(x))
        return Decoded(torch.unflatten(frames, 0, (clips, -1)), None)


class WarpDecoder(nn.Module):
    """Move the still's pixels by a predicted flow and paint only what the still hides.

    frame = (1 - mask) * warp(still, flow) + mask * colour, all predicted at half the crop's
    resolution. The flow starts at zero and the mask near zero, so an untrained decoder
    returns the still.
    """

    MASK_BIAS = -2.0  # sigmoid(-2) = 0.12: trust the still first
    FLOW_UNIT = 0.1  # one unit of the head's output is a twentieth of the crop

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = config.warp_channels[::-1]
        skips = config.identity_channels[::-1]
        self.root = nn.Sequential(
            nn.ConvTranspose2d(config.latent_dim, widths[0], config.coarse_size, bias=False),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(inplace=True),
        )
        self.fuse = nn.ModuleList(SkipFusion(c, s) for c, s in zip(widths, skips, strict=True))
        self.up = nn.ModuleList(conv_up(a, b) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], 6, 3, 1, 1)
        nn.init.zeros_(self.head.weight[:3])
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)
        nn.init.constant_(self.head.bias[2:3], self.MASK_BIAS)

    def prepare(self, still: Tensor, identity: IdentityEncoding) -> StillContext:
        """See :class:`FrameDecoder`."""
        maps = identity.maps[::-1]
        skips = tuple(fuse.project(m) for fuse, m in zip(self.fuse, maps, strict=True))  # type: ignore[operator]
        return StillContext(still, identity.code, skips)

    def motion(self, context: StillContext, latent: Tensor) -> Motion:
        """Latents (B, T, latent_dim) -> flow, mask and colour at half resolution."""
        clips = latent.shape[0]
        x = self.root(latent.flatten(0, 1)[:, :, None, None])
        x = self.fuse[0](x, context.skips[0])
        for up, fuse, skip in zip(self.up, self.fuse[1:], context.skips[1:], strict=True):
            x = fuse(up(x), skip)
        # The composition is done in float32: half a pixel of flow is below bfloat16's steps.
        out = torch.unflatten(self.head(x).float(), 0, (clips, -1))
        return Motion(
            flow=out[:, :, :2] * self.FLOW_UNIT,
            mask=torch.sigmoid(out[:, :, 2:3]),
            colour=torch.tanh(out[:, :, 3:]),
        )

    def forward(self, context: StillContext, latent: Tensor) -> Decoded:
        """See :class:`FrameDecoder`."""
        motion = self.motion(context, latent)
        return Decoded(compose(context.still, motion), motion)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resampling of (B, T, C, h, w) to (B, T, C, H, W)."""
    if x.shape[-2:] == size:
        return x
    flat = F.interpolate(x.flatten(0, 1), size, mode="bilinear", align_corners=False)
    return torch.unflatten(flat, 0, x.shape[:2])


def warp(still: Tensor, flow: Tensor) -> Tensor:
    """Sample the still where the flow points.

    Args:
        still: (B, 3, H, W).
        flow: (B, T, 2, h, w), resized to the still's resolution if it has another.

    Returns:
        (B, T, 3, H, W). Points outside take the border's colour.
    """
    height, width = still.shape[-2:]
    frames = flow.shape[1]
    offset = resize(flow, (height, width)).flatten(0, 1).permute(0, 2, 3, 1)
    grid = identity_grid(height, width, device=still.device) + offset
    source = still.float().unsqueeze(1).expand(-1, frames, -1, -1, -1).flatten(0, 1)
    moved = F.grid_sample(source, grid, "bilinear", "border", align_corners=False)
    return torch.unflatten(moved, 0, (-1, frames))


def compose(still: Tensor, motion: Motion) -> Tensor:
    """Make frames from a still of any resolution.

    Args:
        still: (B, 3, H, W) in [-1, 1]; the crop itself, or the same crop with more pixels.
        motion: at any resolution.

    Returns:
        (B, T, 3, H, W) in [-1, 1].
    """
    size = (still.shape[-2], still.shape[-1])
    mask = resize(motion.mask, size)
    return torch.lerp(warp(still, motion.flow), resize(motion.colour, size), mask)
