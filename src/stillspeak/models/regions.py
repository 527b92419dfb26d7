"""Parts of the aligned crop that losses and discriminators look at."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # preparing a corpus takes LOWER_BOX from here, and its workers need no torch
    from torch import Tensor

    from stillspeak.models.config import Region

MOUTH_BOX = (72, 112, 24, 76)
"""Rows and columns of the mouth in a 128 x 96 crop: around the canonical mouth corners
(36, 88) and (64, 87), with room for an open jaw and for the augmentation's shifts."""

LOWER_BOX = (56, 128, 12, 84)
"""Rows and columns, in a 128 x 96 crop, that ``prepare --mouth-scale 2`` keeps at double scale:
:data:`MOUTH_BOX` plus a margin for warps and augmentation, the same in a mirrored crop."""

EYES_BOX = (26, 56, 14, 82)
"""The same of eyes and brows, around the canonical eye corners (24, 43) to (72, 42)."""


def region_box(region: Region, height: int, width: int) -> tuple[int, int, int, int]:
    """First and last row and column (exclusive) of a region in a frame of that size."""
    if region == "frame":
        return 0, height, 0, width
    if region == "lower":
        return height // 2, height, 0, width
    return scale_box(EYES_BOX if region == "eyes" else MOUTH_BOX, height, width)


def scale_box(box: tuple[int, int, int, int], height: int, width: int) -> tuple[int, int, int, int]:
    """A box of the 128 x 96 crop, rows before columns, in a crop of another size."""
    top, bottom, left, right = box
    return top * height // 128, bottom * height // 128, left * width // 96, right * width // 96


def crop_region(frames: Tensor, region: Region) -> Tensor:
    """The region of frames (..., H, W)."""
    return crop_box(frames, region_box(region, frames.shape[-2], frames.shape[-1]))


def crop_box(frames: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """Rows and columns of frames (..., H, W)."""
    top, bottom, left, right = box
    return frames[..., top:bottom, left:right]
