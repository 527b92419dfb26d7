"""Blinks and brows laid over what the decoder made: eyelids that come down over the eye.

An upper eyelid is skin that slides over an eyeball at rest. Moving pixels of the still does just
that at any resolution, for any face whose eyelids are known, and closes the eye completely. A
network did not learn as much from the corpus that is here (docs/experiments.md, section 17).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.constants import BLINK_PEAK, BROW_PIXELS, FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.models.decoders import Motion, split
from stillspeak.models.layers import identity_grid

FloatArray = npt.NDArray[np.float64]

Eye = tuple[FloatArray, FloatArray, FloatArray]
"""An eye's upper and lower rim and its brow, each (K, 2)."""

SHUT = BLINK_PEAK[0]
"""Closure, in the measure of ``rendering.expression``, from which the eyes are shut."""

LASHES = 0.2
"""Pixels of the crop below the lid's rim that come down with it. More would bring some of the iris,
and a detector would take the lid for half open."""

OVERLAP = 1.3
"""Pixels by which a shut lid goes beyond the lower one's rim. Both were chosen on fifteen clips of
GRID's training speakers, of which a detector then sees every eye close, by .50 on average."""

EDGE = 0.9
"""Pixels over which the lid's edge is drawn."""

LINE = 0.8
"""Pixels on each side of that edge over which the lashes fade."""

FOREHEAD = 18.0
"""Pixels above the brows over which their movement fades to nothing."""

BESIDE = 8.0
"""The same beside them."""

FINE = (2 * FRAME_HEIGHT, 2 * FRAME_WIDTH)
"""Rows and columns of the grid: the lid's edge is sharper than the decoder's own cells."""


class Overlay(NamedTuple):
    """What gestures do to frames, on a grid of :data:`FINE`.

    field: (T, 2, h, w) where each pixel comes from, offsets (x, y) in the [-1, 1] coordinates of
        ``grid_sample``.
    line: (T, 1, h, w) in [0, 1], share of the lashes' colour along a lid that comes down.
    colour: (1, 3, h, w) in [-1, 1], that colour.
    """

    field: Tensor
    line: Tensor
    colour: Tensor


class Eyelids:
    """The eyes and brows of one face, and how they move.

    Args:
        still: (H, W, 3) uint8, the aligned crop of any resolution.
        eyes: of each eye, image left first, the upper and the lower lid's rim and the brow, each
            (K, 2) in pixels of the 128 x 96 crop, as ``face.eyes.eye_outlines`` gives them.
    """

    def __init__(self, still: npt.NDArray[np.uint8], eyes: Sequence[Eye]) -> None:
        rows, columns = FINE
        self._y = (np.arange(rows) + 0.5) * FRAME_HEIGHT / rows - 0.5
        self._x = (np.arange(columns) + 0.5) * FRAME_WIDTH / columns - 0.5
        self._eyes = [
            (self._curve(upper), self._curve(lower), self._arch(brow))
            for upper, lower, brow in eyes
        ]
        self._inside = [
            (self._x > upper[:, 0].min()) & (self._x < upper[:, 0].max()) for upper, _, _ in eyes
        ]
        self._brow_share = torch.from_numpy(self._brows(eyes)).float()
        colours = np.zeros((3, *FINE), np.float32)
        middle = np.mean([upper[:, 0].mean() for upper, _, _ in eyes])
        for (upper, _, _), side in zip(eyes, (self._x <= middle, self._x > middle), strict=True):
            colours[:, :, side] = _darkest(still, upper)[:, None, None]
        self._colour = torch.from_numpy(colours)[None]

    def overlay(self, curves: Tensor) -> Overlay:
        """What the gestures do to T frames.

        Args:
            curves: (T, 2) closure of the eyes and height of the brows, relative to the still's, as
                ``rendering.expression`` draws them.
        """
        closed = (curves[:, 0] / SHUT).clamp(0, 1).double().tolist()
        field = torch.zeros(len(closed), 2, *FINE)
        line = torch.zeros(len(closed), 1, *FINE)
        for frame, share in enumerate(closed):
            if share > 0:
                offset, lashes = self._lids(share)
                field[frame, 1], line[frame, 0] = torch.from_numpy(offset), torch.from_numpy(lashes)
        # What is raised shows what was lower.
        field[:, 1] += BROW_PIXELS * curves[:, 1, None, None] * self._brow_share
        field[:, 1] *= 2 / FRAME_HEIGHT
        return Overlay(field, line, self._colour)

    def _curve(self, points: FloatArray) -> FloatArray:
        """Heights of a polyline at the grid's columns, level beyond its ends."""
        order = np.argsort(points[:, 0])
        return np.asarray(np.interp(self._x, points[order, 0], points[order, 1]))

    def _arch(self, points: FloatArray) -> FloatArray:
        """Heights of a parabola through a brow's points, which lie on both of its edges."""
        middle = points[:, 0].mean()
        fit = np.polyfit(points[:, 0] - middle, points[:, 1], 2)
        across = self._x.clip(points[:, 0].min(), points[:, 0].max())
        return np.asarray(np.polyval(fit, across - middle))

    def _lids(self, closed: float) -> tuple[FloatArray, FloatArray]:
        """Vertical offsets in pixels for eyes that are closed by a share of their opening, and
        where the lashes lie; FINE each."""
        offset, line = np.zeros(FINE), np.zeros(FINE)
        for outline, inside in zip(self._eyes, self._inside, strict=True):
            columns = np.flatnonzero(inside)
            if not len(columns):
                continue
            upper, lower, brow = (part[columns] for part in outline)
            # Some of the skin below the brow unfolds; the brow itself stays.
            top = np.minimum(brow + 1.0, upper - 3.0)
            # Nothing is to be seen further above or below than this.
            fade = OVERLAP + 6 * LINE
            first, last = np.searchsorted(
                *(self._y, (top.min() - fade, max(upper.max(), lower.max()) + fade))
            )
            y = self._y[first:last, None]
            box = (slice(first, last), slice(columns[0], columns[-1] + 1))
            open_ = np.maximum(lower - upper, 0)
            reach = np.minimum(open_ / 2, 1)  # nothing sticks out where the lids meet
            rim = upper + closed * (open_ + OVERLAP * reach)
            source_rim = upper + min(2 * closed, 1.0) * LASHES * reach
            source = top + (y - top) * (source_rim - top) / np.maximum(rim - top, 1e-6)
            covered = np.clip((rim - y) / EDGE + 0.5, 0, 1) * (y > top)
            offset[box] += covered * (source - y)
            # Within the edge lies what the lid pushes together of the eye: lashes hide it.
            near = np.exp(-(((y - rim - EDGE / 4) / LINE) ** 2)) * reach
            line[box] += 0.9 * _smooth(np.array(1.5 * closed)) * near
        return offset, line

    def _brows(self, eyes: Sequence[Eye]) -> FloatArray:
        """How much each place takes part in the brows' movement: FINE, in [0, 1]."""
        y, share = self._y[:, None], np.zeros(FINE)
        for (upper, _, brow), (_, _, points) in zip(self._eyes, eyes, strict=True):
            rim = np.maximum(upper - 1.0, brow + 2.0)
            below = _smooth((rim - y) / (rim - brow))
            above = _smooth((y - (brow - FOREHEAD)) / FOREHEAD)
            x = points[:, 0]
            beside = np.maximum(np.maximum(x.min() - self._x, self._x - x.max()), 0)
            share = np.maximum(share, np.minimum(below, above) * _smooth(1 - beside / BESIDE))
        return share


def move_eyelids(motion: Motion, overlay: Overlay) -> Motion:
    """A motion with eyes and brows in it, so that the still is sampled once.

    Args:
        motion: of T frames of one clip (B = 1).
        overlay: of the same frames.
    """
    field, line, lashes = (part.to(motion.flow) for part in overlay)
    joined = motion.joined(FINE)[0]
    top, bottom, left, right = _moving(field, line)
    if top < bottom:
        box = (..., slice(top, bottom), slice(left, right))
        field, line, lashes = field[box], line[box], lashes[box]
        part = _sample(joined, field, (top, left))
        flow, mask, colour = part[:, :2], part[:, 2:3], part[:, 3:]
        both = mask + line - mask * line
        # Paint over paint: each colour by the share of it that is to be seen.
        colour = torch.lerp(colour, lashes, line / both.clamp_min(1e-6))
        joined[box] = torch.cat((flow + field, both, colour), 1)
    return Motion(*split(joined[None]))


def move_eyelids_in_frames(frames: Tensor, overlay: Overlay) -> Tensor:
    """Frames (T, 3, H, W) with eyes and brows, for decoders that paint."""
    size = (frames.shape[-2], frames.shape[-1])
    field, line, lashes = (
        F.interpolate(part.to(frames), size, mode="bilinear", align_corners=False)
        for part in overlay
    )
    return torch.lerp(_sample(frames, field, (0, 0)), lashes.expand_as(frames), line)


def _darkest(still: npt.NDArray[np.uint8], rim: FloatArray) -> npt.NDArray[np.float32]:
    """The lashes' colour, (3,) in [-1, 1]: the darker half of what lies along the upper lid."""
    scale = len(still) / FRAME_HEIGHT
    spots = (rim[:, None] + np.array([[0, 0], [0, 0.4], [0, 0.8]])).reshape(-1, 2)
    columns, rows = np.rint((spots + 0.5) * scale - 0.5).astype(int).T
    rows, columns = rows.clip(0, len(still) - 1), columns.clip(0, still.shape[1] - 1)
    seen = still[rows, columns].astype(np.float32)
    dark = seen[np.argsort(seen.sum(axis=1))[: len(seen) // 2]].mean(axis=0)
    return np.asarray(dark / 127.5 - 1, np.float32)


def _moving(field: Tensor, line: Tensor) -> tuple[int, int, int, int]:
    """Rows and columns, ends excluded, outside of which nothing moves or is drawn."""
    where = ((field[:, 1] != 0) | (line[:, 0] != 0)).any(0)
    rows, columns = where.any(1).nonzero(), where.any(0).nonzero()
    if not len(rows):
        return 0, 0, 0, 0
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _sample(maps: Tensor, field: Tensor, corner: tuple[int, int]) -> Tensor:
    """Maps (T, C, H, W) where the field points, which covers (T, 2, h, w) of them from ``corner``,
    a row and a column, on."""
    (top, left), (height, width) = corner, field.shape[-2:]
    grid = _grid(maps.shape[-2], maps.shape[-1]).to(maps)[top : top + height, left : left + width]
    grid = grid + field.permute(0, 2, 3, 1)
    return F.grid_sample(maps, grid, "bilinear", "border", align_corners=False)


_grid = lru_cache(maxsize=4)(identity_grid)


def _smooth(x: FloatArray) -> FloatArray:
    t = np.clip(x, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
