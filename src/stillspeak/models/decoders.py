"""The paper's frame decoder, a U-Net, and what a generator gives: frames or the mouth's poses."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stillspeak.errors import ConfigError
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.encoders import IdentityEncoding
from stillspeak.models.layers import SkipFusion, conv_up


class StillContext(NamedTuple):
    """What all frames of a clip share: the still, its code and the projected skips."""

    still: Tensor  # (B, 3, H, W) in [-1, 1]
    code: Tensor  # (B, identity_dim)
    skips: tuple[Tensor, ...]  # coarse to fine, one map a decoder level


class Decoded:
    """Frames, or the poses of a mouth that is drawn without a network; one of the two.

    Args:
        frames: (B, T, 3, H, W) in [-1, 1].
        pose: (B, T, 41, 2), see :mod:`stillspeak.face.mouth`.
        features: (B, 2 T, D) what the speech encoder heard, two tokens a frame, if there is one.
    """

    __slots__ = ("_frames", "features", "pose")

    def __init__(
        self,
        frames: Tensor | None = None,
        *,
        pose: Tensor | None = None,
        features: Tensor | None = None,
    ) -> None:
        assert (frames is None) != (pose is None)
        self._frames, self.pose, self.features = frames, pose, features

    @property
    def frames(self) -> Tensor:
        """(B, T, 3, H, W) in [-1, 1].

        Raises:
            ConfigError: a pose was decoded, which only :mod:`stillspeak.rendering` draws.
        """
        if self._frames is None:
            raise ConfigError(
                "a model with decoder = 'layers' gives the mouth's pose and makes no frames; use "
                "Animator or StreamSession, which draw it"
            )
        return self._frames


class UNetDecoder(nn.Module):
    """The paper's frame decoder: a U-Net of transposed convolutions (section 2.1.3).

    Skips are the identity encoder's maps except the finest, and none from the still itself.
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
        self.fuse = nn.ModuleList(SkipFusion(c, c) for c in coarse_to_fine[:-1])
        self.up = nn.ModuleList(conv_up(a, b) for a, b in pairwise(coarse_to_fine))
        self.head = nn.ConvTranspose2d(coarse_to_fine[-1], 3, 4, 2, 1)

    def prepare(self, still: Tensor, identity: IdentityEncoding) -> StillContext:
        """Compute once a clip what depends on the still (B, 3, H, W) alone."""
        maps = identity.maps[:0:-1]
        skips = tuple(fuse.project(m) for fuse, m in zip(self.fuse, maps, strict=True))  # type: ignore[operator]
        return StillContext(still, identity.code, skips)

    def forward(self, context: StillContext, latent: Tensor) -> Decoded:
        """Latents (B, T, latent_dim) -> T frames a clip."""
        clips = latent.shape[0]
        x = self.root(latent.flatten(0, 1)[:, :, None, None])
        for fuse, skip, up in zip(self.fuse, context.skips, self.up, strict=True):
            x = up(fuse(x, skip))
        frames = torch.tanh(self.head(x))
        return Decoded(torch.unflatten(frames, 0, (clips, -1)))
