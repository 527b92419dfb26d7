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

from stillspeak.errors import ConfigError
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.encoders import IdentityEncoding
from stillspeak.models.layers import SkipFusion, add_per_clip, conv_up, identity_grid
from stillspeak.models.regions import LOWER_BOX, crop_box, mouth_in_lower, region_box, scale_box


class StillContext(NamedTuple):
    """What all frames of a clip share: the still, its code and the projected skips."""

    still: Tensor  # (B, 3, H, W) in [-1, 1]
    code: Tensor  # (B, identity_dim)
    skips: tuple[Tensor, ...]  # coarse to fine, one map a decoder level
    mouth: tuple[Tensor, ...] = ()  # the mouth branch's maps of the still, coarse to fine


class Maps(NamedTuple):
    """Flow, mask and colour on one grid; see :class:`Motion`."""

    flow: Tensor
    mask: Tensor
    colour: Tensor


class Motion(NamedTuple):
    """How the warp decoder makes a frame out of the still. Resolution-free.

    flow: (B, T, 2, h, w) where in the still each output pixel comes from, as an offset (x, y)
        in the [-1, 1] coordinates of ``grid_sample``, always of the whole crop.
    mask: (B, T, 1, h, w) in [0, 1], share of the painted colour.
    colour: (B, T, 3, h, w) in [-1, 1], what the still does not show.
    mouth: the same three around the mouth (``regions.MOUTH_BOX``) on a finer grid, which count
        there instead; None for a decoder without a mouth branch. At the box's border they are
        what the coarse ones are.
    """

    flow: Tensor
    mask: Tensor
    colour: Tensor
    mouth: Maps | None = None

    def frames(self, places: slice) -> Motion:
        """Some of the T frames."""
        mouth = None if self.mouth is None else Maps(*(part[:, places] for part in self.mouth))
        return Motion(self.flow[:, places], self.mask[:, places], self.colour[:, places], mouth)

    def maps(self, size: tuple[int, int]) -> Maps:
        """Flow, mask and colour on a grid of H x W over the whole crop."""
        return split(self.joined(size))

    def joined(self, size: tuple[int, int]) -> Tensor:
        """:meth:`maps` in one new tensor, (B, T, 6, H, W): flow, mask, colour. Three small maps are
        resampled faster together than one by one."""
        whole = torch.cat((self.flow, self.mask, self.colour), 2)
        if self.mouth is None:
            return resize(whole, size)
        # The mouth's box must fall on whole cells.
        multiple = size[0] * self.flow.shape[-1] == size[1] * self.flow.shape[-2]
        if not multiple or size[0] % self.flow.shape[-2]:
            return self.flat().joined(size)
        whole = resize(whole, size)
        top, bottom, left, right = region_box("mouth", *size)
        detail = torch.cat(self.mouth, 2)
        whole[..., top:bottom, left:right] = resize(detail, (bottom - top, right - left))
        return whole

    def flat(self) -> Motion:
        """The same motion without a mouth of its own, on a grid as fine as the mouth's."""
        if self.mouth is None:
            return self
        height, width = self.flow.shape[-2:]
        top, bottom, _, _ = region_box("mouth", height, width)
        scale = self.mouth.flow.shape[-2] // (bottom - top)
        return Motion(*self.maps((height * scale, width * scale)))


class Decoded:
    """Frames (B, T, 3, H, W) in [-1, 1], and the motion where the decoder has one; or the pose of
    a mouth that is drawn without a network.

    Args:
        frames: None: composed from ``still`` and ``motion`` when first looked at. Who applies the
            motion to a larger picture never looks.
        motion: None for a decoder that paints.
        still: (B, 3, H, W), where ``frames`` is None.
        pose: (B, T, 41, 2), see :mod:`stillspeak.face.pose`; then there is nothing else.
    """

    __slots__ = ("_frames", "_still", "motion", "pose")

    def __init__(
        self,
        frames: Tensor | None,
        motion: Motion | None,
        still: Tensor | None = None,
        pose: Tensor | None = None,
    ) -> None:
        self._frames, self.motion, self._still, self.pose = frames, motion, still, pose

    @property
    def frames(self) -> Tensor:
        """(B, T, 3, H, W) in [-1, 1].

        Raises:
            ConfigError: a pose was decoded, which only :mod:`stillspeak.rendering` draws.
        """
        if self.pose is not None:
            raise ConfigError(
                "a model with decoder = 'layers' gives the mouth's pose and makes no frames; use "
                "Animator or StreamSession, which draw it"
            )
        if self._frames is None:
            assert self._still is not None and self.motion is not None
            self._frames = compose(self._still, self.motion)
        return self._frames

    @property
    def length(self) -> int:
        """T, without composing anything."""
        flow = None if self.motion is None else self.motion.flow
        for counted in (self._frames, flow, self.pose):
            if counted is not None:
                return counted.shape[1]
        raise AssertionError("nothing was decoded")


class FrameDecoder(Protocol):
    """What a frame decoder offers to the generator."""

    def prepare(
        self, still: Tensor, identity: IdentityEncoding, lower: Tensor | None = None
    ) -> StillContext:
        """Compute once a clip what depends on the still (B, 3, H, W) alone.

        ``lower`` is its ``regions.LOWER_BOX`` at twice the resolution, (B, 3, h, w), where the
        picture is known that finely; a decoder with a mouth branch enlarges the still else.
        """

    def __call__(self, context: StillContext, latent: Tensor) -> Decoded:
        """Latents (B, T, latent_dim) -> T frames a clip."""


class LayersDecoder(nn.Module):
    """Nothing to learn: the encoding is the mouth's pose, and :mod:`stillspeak.rendering` draws it
    in layers into the photo."""

    def prepare(
        self, still: Tensor, identity: IdentityEncoding, lower: Tensor | None = None
    ) -> StillContext:
        """See :class:`FrameDecoder`."""
        return StillContext(still, identity.code, ())

    def forward(self, context: StillContext, latent: Tensor) -> Decoded:
        """Poses (B, T, 82) -> the same, as (B, T, 41, 2)."""
        return Decoded(None, None, pose=torch.unflatten(latent, 2, (-1, 2)))


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

    def prepare(
        self, still: Tensor, identity: IdentityEncoding, lower: Tensor | None = None
    ) -> StillContext:
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
    resolution, and around the mouth at twice the crop's (:class:`MouthBranch`). The flow starts
    at zero and the mask near zero, so an untrained decoder returns the still.
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
        self.mouth: MouthBranch | None = MouthBranch(config) if config.mouth_channels else None

    def prepare(
        self, still: Tensor, identity: IdentityEncoding, lower: Tensor | None = None
    ) -> StillContext:
        """See :class:`FrameDecoder`."""
        maps = identity.maps[::-1]
        skips = tuple(fuse.project(m) for fuse, m in zip(self.fuse, maps, strict=True))  # type: ignore[operator]
        if self.mouth is None:
            return StillContext(still, identity.code, skips)
        if lower is None:
            lower = enlarged_lower(still)
        return StillContext(still, identity.code, skips, self.mouth.prepare(lower))

    def motion(self, context: StillContext, latent: Tensor) -> Motion:
        """Latents (B, T, latent_dim) -> flow, mask and colour at half resolution, and the
        mouth's at double."""
        clips = latent.shape[0]
        x = self.root(latent.flatten(0, 1)[:, :, None, None])
        x = self.fuse[0](x, context.skips[0])
        for up, fuse, skip in zip(self.up, self.fuse[1:], context.skips[1:], strict=True):
            x = fuse(up(x), skip)
        # The composition is done in float32: half a pixel of flow is below bfloat16's steps.
        raw = self.head(x).float()
        whole = self._maps(torch.unflatten(raw, 0, (clips, -1)))
        if self.mouth is None:
            return Motion(*whole)
        change = self.mouth(x, context.mouth).float()
        fine = self._maps(torch.unflatten(self.mouth.spread(raw) + change, 0, (clips, -1)))
        mouth = (
            torch.lerp(
                torch.unflatten(self.mouth.spread(part.flatten(0, 1)), 0, (clips, -1)),
                detail,
                self.mouth.window,
            )
            for part, detail in zip(whole, fine, strict=True)
        )
        return Motion(*whole, Maps(*mouth))

    def _maps(self, raw: Tensor) -> Maps:
        return Maps(
            flow=raw[:, :, :2] * self.FLOW_UNIT,
            mask=torch.sigmoid(raw[:, :, 2:3]),
            colour=torch.tanh(raw[:, :, 3:]),
        )

    def forward(self, context: StillContext, latent: Tensor) -> Decoded:
        """See :class:`FrameDecoder`."""
        motion = self.motion(context, latent)
        return Decoded(compose(context.still, motion), motion)


class MouthBranch(nn.Module):
    """Flow, mask and colour of the mouth on a grid four times as fine as the decoder's own.

    The decoder's last map, cut to the mouth's box, goes up two levels, beside what the still
    shows there at twice the crop's resolution. What comes out is added to the decoder's own
    prediction; towards the box's border it fades to nothing, so that no edge can show. It has no
    batch norms: pieces of a few frames have not the data's statistics.
    """

    SCALE = 4  # cells of the fine grid to a side of the decoder's
    FADE = 8  # cells over which it fades: four pixels of the crop

    window: Tensor

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        coarse, fine = config.mouth_channels
        self.box = region_box("mouth", config.height // 2, config.width // 2)
        """The mouth in the decoder's last map: rows and columns, ends excluded."""
        self._lower = mouth_in_lower(config.height, config.width)
        self.see_fine = nn.Conv2d(3, fine, 4, 2, 1)
        self.see_coarse = nn.Conv2d(fine, coarse, 4, 2, 1)
        self.enter = nn.Conv2d(config.warp_channels[0], coarse, 3, 1, 1)
        self.enter_still = nn.Conv2d(coarse, coarse, 3, 1, 1, bias=False)
        self.up = nn.ConvTranspose2d(coarse, fine, 4, 2, 1)
        self.fuse = nn.Conv2d(fine, fine, 3, 1, 1)
        self.fuse_still = nn.Conv2d(fine, fine, 3, 1, 1, bias=False)
        self.head = nn.ConvTranspose2d(fine, 6, 4, 2, 1)
        for layer in self.children():
            nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
        # Half of the sum comes from the still.
        for layer in (self.enter, self.enter_still, self.fuse, self.fuse_still):
            layer.weight.data.mul_(2**-0.5)
        nn.init.zeros_(self.head.weight)
        assert self.head.bias is not None
        nn.init.zeros_(self.head.bias)
        top, bottom, left, right = self.box
        rows, columns = (self.SCALE * (b - a) for a, b in ((top, bottom), (left, right)))
        self.register_buffer("window", _window(rows, columns, self.FADE), persistent=False)

    def prepare(self, lower: Tensor) -> tuple[Tensor, ...]:
        """The still's part, once a clip.

        Args:
            lower: (B, 3, h, w) the still's ``regions.LOWER_BOX`` at twice the crop's resolution.

        Returns:
            Maps at a half and at a quarter of the fine grid, coarse first.
        """
        top, bottom, left, right = self._lower
        fine = F.relu(self.see_fine(lower[..., top:bottom, left:right]))
        coarse = F.relu(self.see_coarse(fine))
        return self.enter_still(coarse), self.fuse_still(fine)

    def forward(self, x: Tensor, still: tuple[Tensor, ...]) -> Tensor:
        """The decoder's last map (B*T, C, h, w) and the still's maps -> (B*T, 6, rows, columns)."""
        top, bottom, left, right = self.box
        x = F.relu(add_per_clip(self.enter(x[..., top:bottom, left:right]), still[0]))
        x = F.relu(self.up(x))
        x = F.relu(add_per_clip(self.fuse(x), still[1]))
        change: Tensor = self.head(x)
        return change

    def spread(self, coarse: Tensor) -> Tensor:
        """The box's part of a map (N, C, h, w) on the fine grid, as resizing all would give it."""
        top, bottom, left, right = self.box
        # A cell more on each side, which interpolation at the box's border needs.
        part = coarse[..., top - 1 : bottom + 1, left - 1 : right + 1]
        scale = self.SCALE
        part = F.interpolate(part, scale_factor=scale, mode="bilinear", align_corners=False)
        return part[..., scale:-scale, scale:-scale]


def _window(rows: int, columns: int, fade: int) -> Tensor:
    """(rows, columns): 1 inside, falling to 0 at the border."""

    def ramp(count: int) -> Tensor:
        place = torch.arange(count) + 0.5
        return (torch.minimum(place, count - place) / fade).clamp(max=1)

    return ramp(rows)[:, None] * ramp(columns)[None, :]


def enlarged_lower(still: Tensor) -> Tensor:
    """``regions.LOWER_BOX`` of stills (B, 3, H, W) drawn at twice their resolution, for pictures
    that are not known any finer."""
    large = F.interpolate(still, scale_factor=2, mode="bicubic", align_corners=False)
    return crop_box(large, scale_box(LOWER_BOX, *large.shape[-2:])).clamp(-1, 1)


def split(joined: Tensor) -> Maps:
    """(B, T, 6, h, w) -> flow, mask and colour, without a copy."""
    return Maps(joined[:, :, :2], joined[:, :, 2:3], joined[:, :, 3:])


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
    flow, mask, colour = motion.maps((still.shape[-2], still.shape[-1]))
    return torch.lerp(warp(still, flow), colour, mask)


def compose_mouth(lower: Tensor, maps: Maps, size: tuple[int, int]) -> Tensor:
    """The mouth's box alone, at twice the crop's resolution.

    Args:
        lower: (B, 3, h, w) the still's ``regions.LOWER_BOX`` at that resolution.
        maps: the mouth's, see :attr:`Motion.mouth`.
        size: height and width of the crop.

    Returns:
        (B, T, 3, rows, columns) in [-1, 1]. The flow leads out of the box; where it leads out of
        ``lower`` the border's colour is taken.
    """
    height, width = lower.shape[-2:]
    top, bottom, left, right = mouth_in_lower(*size)
    grid = identity_grid(height, width, device=lower.device)[top:bottom, left:right]
    # The flow is in units of the whole crop, which is larger than the region.
    unit = grid.new_tensor([2 * size[1] / width, 2 * size[0] / height])
    offset = maps.flow.flatten(0, 1).permute(0, 2, 3, 1) * unit
    frames = maps.flow.shape[1]
    source = lower.float().unsqueeze(1).expand(-1, frames, -1, -1, -1).flatten(0, 1)
    moved = F.grid_sample(source, grid + offset, "bilinear", "border", align_corners=False)
    return torch.lerp(torch.unflatten(moved, 0, (-1, frames)), maps.colour, maps.mask)
