"""Cumulative probability of blur detection (Narvekar and Karam 2009), whole videos at a time.

Written from the paper's definition; where the paper leaves a choice, the one of the authors'
published reference is taken, so that the numbers agree with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from stillspeak.errors import VideoError

BLOCK = 64
"""Pixels along each side of a block; what is left at the right and the bottom is ignored."""

EDGE_SHARE = 0.002
"""A block counts if more than this share of its pixels are Canny edges."""

LOW_CONTRAST = 50
"""Up to this contrast (levels of 255, whole ones) a block's just noticeable blur is the wider."""

JUST_NOTICEABLE = (5, 3)
"""Edge widths in pixels at which blur is just noticed: low contrast, high contrast."""

MAX_SIDE = 101
"""Pixels an edge is followed to either side at most."""

_ACROSS = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]]) / 8
_FLAT_ANGLE = 22.5


def cpbd(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Sharpness of each frame: the share of edge pixels whose blur is not noticed.

    An edge of width w in a block of just noticeable width j is seen as blurred with the
    probability 1 - exp(-(w / j)^3.6), and CPBD is the share of edge pixels where that is at
    most 63 %: exactly those with w <= j, since widths are whole numbers. (T, H, W) grey levels in
    [0, 255] give (T,) in [0, 1], higher is sharper; 0 where no edge is found.

    Raises:
        VideoError: frames smaller than one block.
    """
    rows, columns = (size // BLOCK for size in levels.shape[1:])
    if not rows or not columns:
        raise VideoError(
            f"frames of {levels.shape[1]} x {levels.shape[2]} pixels hold no block of "
            f"{BLOCK} x {BLOCK}: CPBD is not defined for them"
        )
    blocks = _blocks(levels)
    counted = np.stack([_edge_blocks(frame) for frame in levels])
    contrast = (blocks.max(axis=(-2, -1)) - blocks.min(axis=(-2, -1))).astype(int)
    noticeable = np.where(contrast <= LOW_CONTRAST, *JUST_NOTICEABLE)
    widths = _blocks(edge_widths(levels))
    there = widths.astype(bool) & counted[..., None, None]
    sharp = there & (widths <= noticeable[..., None, None])
    total = there.sum(axis=(1, 2, 3, 4))
    share: npt.NDArray[np.float64] = sharp.sum(axis=(1, 2, 3, 4)) / np.maximum(total, 1)
    return share


def edge_widths(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Widths of near-vertical edges, after Marziliano et al. 2002: (T, H, W) grey levels to
    (T, H, W) pixels, 0 where there is no edge. The grey level is followed along the row for as
    long as it keeps falling on the dark side and rising on the bright side.
    """
    edges = _sobel_edges(levels)
    edges[:, [0, -1], :] = False
    edges[:, :, [0, -1]] = False
    frame, row, column = np.nonzero(edges)
    across = levels[frame, row, column + 1] - levels[frame, row, column - 1]
    down = levels[frame, row + 1, column] - levels[frame, row - 1, column]
    angle = np.degrees(np.arctan2(down, across))
    angle[across == 0] = 0  # as the reference has it
    rising, falling = np.abs(angle) <= _FLAT_ANGLE, np.abs(angle) >= 180 - _FLAT_ANGLE
    vertical = rising | falling
    frame, row, column = frame[vertical], row[vertical], column[vertical]
    # A falling edge is followed as the rising one of the negative.
    sign = np.where(rising[vertical], 1.0, -1.0)
    widths = np.zeros(levels.shape, np.int64)
    widths[frame, row, column] = sum(
        _follow(levels, frame, row, column, sign, direction) for direction in (-1, 1)
    )
    return widths


def _follow(
    levels: npt.NDArray[np.float64],
    frame: npt.NDArray[np.intp],
    row: npt.NDArray[np.intp],
    column: npt.NDArray[np.intp],
    sign: npt.NDArray[np.float64],
    direction: int,
) -> npt.NDArray[np.int64]:
    """How far K edges reach to one side, the step beside the pixel included: (K,), 1 to 101."""
    reach = np.ones(len(column), np.int64)
    going = np.arange(len(column))
    last = levels.shape[2] - 1
    for distance in range(1, MAX_SIDE):
        inner = column[going] + direction * distance
        outer = inner + direction
        inside = (outer >= 0) & (outer <= last)
        going, inner, outer = going[inside], inner[inside], outer[inside]
        f, r = frame[going], row[going]
        onward = sign[going] * direction * (levels[f, r, outer] - levels[f, r, inner]) > 0
        going = going[onward]
        if not len(going):
            break
        reach[going] += 1
    return reach


def _edge_blocks(frame: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Which whole blocks of a frame (H, W) have enough Canny edges: (rows, columns)."""
    from skimage.feature import canny

    edges = canny(frame)  # type: ignore[no-untyped-call]
    enough: npt.NDArray[np.bool_] = _blocks(edges[None])[0].sum((2, 3)) > EDGE_SHARE * BLOCK**2
    return enough


def _sobel_edges(levels: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Thinned edges of the horizontal Sobel derivative. (T, H, W) -> (T, H, W)."""
    strength = np.square(ndimage.convolve(levels, _ACROSS[None]))
    limit = 2 * np.sqrt(strength.mean(axis=(-2, -1), keepdims=True))
    strength[strength <= limit] = 0
    padded = np.pad(strength, ((0, 0), (1, 1), (1, 1)))
    beside = (strength > padded[:, 1:-1, :-2]) & (strength > padded[:, 1:-1, 2:])
    above = (strength > padded[:, :-2, 1:-1]) & (strength > padded[:, 2:, 1:-1])
    edges: npt.NDArray[np.bool_] = beside | above
    return edges


def _blocks(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(T, H, W) -> (T, rows, columns, 64, 64), whole blocks only."""
    T, H, W = values.shape
    rows, columns = H // BLOCK, W // BLOCK
    whole = values[:, : rows * BLOCK, : columns * BLOCK]
    return whole.reshape(T, rows, BLOCK, columns, BLOCK).swapaxes(2, 3)
