"""Blinks and brows laid over what the decoder made: eyelids that come down over the eye.

An upper eyelid is skin that slides over an eyeball at rest. Moving pixels of the still does just
that at any resolution, for any face whose eyelids are known, and closes the eye completely. A
network did not learn as much from the corpus that is here (docs/experiments.md, section 17).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.models.decoders import Motion
from stillspeak.models.expression import BLINK_PEAK, BROW_PIXELS
from stillspeak.models.layers import identity_grid

FloatArray = npt.NDArray[np.float64]

Eye = tuple[FloatArray, FloatArray, FloatArray]
"""An eye's upper and lower rim and its brow, each (K, 2)."""

SHUT = BLINK_PEAK[0]
"""Closure, in the measure of ``models.expression``, from which the eyes are shut."""

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


class Gesture:
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
                ``models.expression`` draws them.
        """
        closed = (curves[:, 0] / SHUT).clamp(0, 1).double().tolist()
        lids = [self._lids(share) for share in closed]
        down = torch.from_numpy(np.stack([offset for offset, _ in lids])).float()
        line = torch.from_numpy(np.stack([line for _, line in lids])).float()
        # What is raised shows what was lower.
        down = down + BROW_PIXELS * curves[:, 1, None, None] * self._brow_share
        down = down * (2 / FRAME_HEIGHT)
        field = torch.stack((torch.zeros_like(down), down), 1)
        return Overlay(field, line[:, None], self._colour)

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
        if closed <= 0:
            return offset, line
        y = self._y[:, None]
        for (upper, lower, brow), inside in zip(self._eyes, self._inside, strict=True):
            # Some of the skin below the brow unfolds; the brow itself stays.
            top = np.minimum(brow + 1.0, upper - 3.0)
            open_ = np.maximum(lower - upper, 0)
            reach = np.minimum(open_ / 2, 1)  # nothing sticks out where the lids meet
            rim = upper + closed * (open_ + OVERLAP * reach)
            source_rim = upper + min(2 * closed, 1.0) * LASHES * reach
            source = top + (y - top) * (source_rim - top) / np.maximum(rim - top, 1e-6)
            covered = np.clip((rim - y) / EDGE + 0.5, 0, 1) * (y > top) * inside
            offset += covered * (source - y)
            # Within the edge lies what the lid pushes together of the eye: lashes hide it.
            near = np.exp(-(((y - rim - EDGE / 4) / LINE) ** 2)) * inside * reach
            line += 0.9 * _smooth(np.array(1.5 * closed)) * near
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


def gesture_motion(motion: Motion, overlay: Overlay) -> Motion:
    """A motion with eyes and brows in it, so that the still is sampled once.

    Args:
        motion: of T frames of one clip (B = 1).
        overlay: of the same frames.
    """
    field, line, lashes = (part.to(motion.flow) for part in overlay)
    flow, mask, colour = (_sample(part[0], field) for part in motion.maps(FINE))
    joined = mask + line - mask * line
    # Paint over paint: each colour by the share of it that is to be seen.
    colour = torch.lerp(colour, lashes, line / joined.clamp_min(1e-6))
    return Motion((flow + field)[None], joined[None], colour[None])


def gesture_frames(frames: Tensor, overlay: Overlay) -> Tensor:
    """Frames (T, 3, H, W) with eyes and brows, for decoders that paint."""
    size = (frames.shape[-2], frames.shape[-1])
    field, line, lashes = (
        F.interpolate(part.to(frames), size, mode="bilinear", align_corners=False)
        for part in overlay
    )
    return torch.lerp(_sample(frames, field), lashes.expand_as(frames), line)


def _darkest(still: npt.NDArray[np.uint8], rim: FloatArray) -> npt.NDArray[np.float32]:
    """The lashes' colour, (3,) in [-1, 1]: the darker half of what lies along the upper lid."""
    scale = len(still) / FRAME_HEIGHT
    spots = (rim[:, None] + np.array([[0, 0], [0, 0.4], [0, 0.8]])).reshape(-1, 2)
    columns, rows = np.rint((spots + 0.5) * scale - 0.5).astype(int).T
    rows, columns = rows.clip(0, len(still) - 1), columns.clip(0, still.shape[1] - 1)
    seen = still[rows, columns].astype(np.float32)
    dark = seen[np.argsort(seen.sum(axis=1))[: len(seen) // 2]].mean(axis=0)
    return np.asarray(dark / 127.5 - 1, np.float32)


def _sample(maps: Tensor, field: Tensor) -> Tensor:
    """Maps (T, C, h, w) where the field points; only rows in which anything moves are sampled."""
    moves = field[:, 1].abs().amax((0, 2)) > 0
    stop = int(moves.nonzero().max()) + 1 if moves.any() else 0
    height, width = maps.shape[-2:]
    grid = identity_grid(height, width).to(maps)[:stop] + field[:, :, :stop].permute(0, 2, 3, 1)
    upper = F.grid_sample(maps, grid, "bilinear", "border", align_corners=False)
    return torch.cat((upper, maps[:, :, stop:]), 2)


def _smooth(x: FloatArray) -> FloatArray:
    t = np.clip(x, 0, 1)
    return np.asarray(t * t * (3 - 2 * t))
