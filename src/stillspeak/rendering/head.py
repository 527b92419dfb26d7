"""The head's own small movement, laid over the face that speaks.

It is known on a coarse grid over the aligned crop and around it. Each pixel of the picture looks up
where it comes from: one that does not move is bit for bit what it was.
"""

from __future__ import annotations

import math
from functools import lru_cache

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.face.align import Transform, crop_box_in_photo, smoothstep
from stillspeak.models.layers import identity_grid
from stillspeak.rendering.raster import Box, Floats, Picture, warped

FADE = 0.35
"""Share of the half over which the movement fades to nothing towards the border."""

PIVOT = (0.0, 0.75)
"""What the head tilts about, in [-1, 1] coordinates of the crop: where it sits on the neck."""

ASPECT = 96 / 128
"""Width of a coordinate x in those of y."""

SHOULDERS = 1.6
"""Where in [-1, 1] coordinates of the crop, y, nothing moves any more."""

Reach = tuple[float, float]
"""How far a grid goes, (x, y) in halves of the crop: (1, 1) is the crop itself."""

CROP: Reach = (1.0, 1.0)

HEAD: Reach = (2.0, 2.0)
"""What the movement may take along in a whole picture: the head with its hair."""

EDGE = 24.0
"""Pixels of the crop from the picture's edge over which movement across that edge fades to nothing:
wide enough for a head that moves by eight pixels to be squeezed there, and not smeared."""


def head_field(poses: Tensor, height: int, width: int, reach: Reach = CROP) -> Tensor:
    """Where each pixel comes from when the head moves.

    Args:
        poses: (T, 3) tilt in degrees and shift (x, y) in pixels of a 128 x 96 crop.
        height, width: of the field.
        reach: what the field covers.

    Returns:
        (T, 2, height, width) offsets (x, y) in the [-1, 1] coordinates of the crop; zero along
        the field's border.
    """
    angle = -torch.deg2rad(poses[:, 0])
    sin, less = torch.sin(angle), torch.cos(angle) - 1
    unit_x, unit_y = 2 / 96, 2 / 128
    # Turning about the pivot and shifting are sums of three maps, with numbers for each pose.
    x = torch.stack((less, -sin / ASPECT, -unit_x * poses[:, 1]), 1)
    y = torch.stack((ASPECT * sin, less, -unit_y * poses[:, 2]), 1)
    weights = torch.stack((x, y), 1)
    return (weights @ _basis(height, width, reach)).view(len(poses), 2, height, width)


def move_head_in_frames(frames: Tensor, poses: Tensor) -> Tensor:
    """Frames (T, 3, H, W) with the head's movement, for decoders that paint."""
    field = head_field(poses, frames.shape[-2], frames.shape[-1]).to(frames)
    grid = identity_grid(frames.shape[-2], frames.shape[-1]).to(frames) + field.permute(0, 2, 3, 1)
    return F.grid_sample(frames, grid, "bilinear", "border", align_corners=False)


class HeadWarper:
    """Moves the head in frames of one picture. What does not change in a clip is made once.

    Args:
        size: rows and columns of the picture.
        transform: (2, 3) pixels of the picture -> pixels of the 128 x 96 crop.
        reach: how far the movement goes.
    """

    def __init__(self, size: tuple[int, int], transform: Transform, reach: Reach = CROP) -> None:
        self._size = size
        self._transform = np.array(transform, dtype=np.float64)
        self._reach = reach
        # Displacements of the crop's [-1, 1] coordinates -> displacements in pixels.
        half = np.diag([FRAME_WIDTH / 2, FRAME_HEIGHT / 2])
        self._to_photo = (np.linalg.inv(self._transform[:, :2]) @ half).T.astype(np.float32)
        self.box = self._box_of((-1.0, -1.0, 1.0, 1.0))
        x0, y0, x1, y1 = self.box
        ramp = EDGE / math.sqrt(abs(float(np.linalg.det(self._transform[:, :2]))))
        self._across = _off_the_edge(x0, x1, size[1], ramp)[None, :]
        self._down = _off_the_edge(y0, y1, size[0], ramp)[:, None]
        self._x = np.arange(x0, x1, dtype=np.float32)[None, :]
        self._y = np.arange(y0, y1, dtype=np.float32)[:, None]

    def flows(self, poses: Tensor) -> Floats:
        """The field of poses (T, 3) as :meth:`draw` takes it, one for each frame: (T, h, w, 2)."""
        height = round(self._reach[1] * FRAME_HEIGHT / 2)
        width = round(self._reach[0] * FRAME_WIDTH / 2)
        field = head_field(poses, height, width, self._reach)
        return np.asarray(field.permute(0, 2, 3, 1).float().cpu().numpy())

    def draw(self, flow: Floats, frame: Picture) -> Picture:
        """Move the head in a frame (H, W, 3) uint8, in place, by a flow (h, w, 2)."""
        box = self._touched((flow[..., 0] != 0) | (flow[..., 1] != 0))
        x0, y0, x1, y1 = box
        if x0 >= x1 or y0 >= y1:
            return frame
        bx, by = self.box[:2]
        rows, columns = slice(y0 - by, y1 - by), slice(x0 - bx, x1 - bx)
        (xx, xy), (yx, yy) = self._to_photo
        across, down = flow[..., 0], flow[..., 1]
        # One by one: OpenCV interpolates two channels at once in coarser steps.
        offset_x = self._spread(across * xx + down * yx, box)
        offset_y = self._spread(across * xy + down * yy, box)
        offset_x *= self._across[:, columns]
        offset_y *= self._down[rows]
        offset_x += self._x[:, columns]
        offset_y += self._y[rows]
        frame[y0:y1, x0:x1] = cv2.remap(
            frame, offset_x, offset_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        return frame

    def _spread(self, maps: Floats, box: Box) -> Floats:
        """Maps on the grid -> on the picture's pixels in a box."""
        x0, y0, x1, y1 = box
        to_grid = self._to_grid(maps.shape[0], maps.shape[1])
        step = math.sqrt(abs(float(np.linalg.det(to_grid[:, :2]))))
        if step > 1.5:  # a grid finer than the picture: average before looking up
            block = round(step)
            size = (-(-maps.shape[1] // block), -(-maps.shape[0] // block))
            maps = np.asarray(cv2.resize(maps, size, interpolation=cv2.INTER_AREA), np.float32)
            to_grid = self._to_grid(size[1], size[0])
        to_grid[:, 2] += to_grid[:, :2] @ (x0, y0)
        return np.asarray(warped(maps, to_grid, (x1 - x0, y1 - y0)), np.float32)

    def _to_grid(self, height: int, width: int) -> Transform:
        """(2, 3) pixels of the picture -> cells of a grid over the crop and what is around it."""
        centre = ((FRAME_WIDTH - 1) / 2, (FRAME_HEIGHT - 1) / 2)
        scale = np.array([width / FRAME_WIDTH, height / FRAME_HEIGHT]) / self._reach
        to_grid = self._transform.copy()
        to_grid[:, 2] -= centre
        to_grid *= scale[:, None]
        to_grid[:, 2] += ((width - 1) / 2, (height - 1) / 2)
        return to_grid

    def _touched(self, where: Floats) -> Box:
        """The box of pixels whose look-up meets one of these cells."""
        rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
        if not len(rows):
            return 0, 0, 0, 0
        height, width = where.shape
        # A cell is felt up to the middle of the next; one more for an averaged grid.
        x0, x1 = columns[0] - 1.5, columns[-1] + 2.5
        y0, y1 = rows[0] - 1.5, rows[-1] + 2.5
        box = (2 * x0 / width - 1, 2 * y0 / height - 1, 2 * x1 / width - 1, 2 * y1 / height - 1)
        return self._box_of((max(box[0], -1), max(box[1], -1), min(box[2], 1), min(box[3], 1)))

    def _box_of(self, region: tuple[float, ...]) -> Box:
        """Pixels x0, y0, x1, y1 (ends excluded) of a region in [-1, 1] of the grid."""
        (left, top, right, bottom), (rx, ry) = region, self._reach
        middle = (FRAME_WIDTH / 2 - 0.5, FRAME_HEIGHT / 2 - 0.5)
        x = middle[0] + np.array([left, right]) * rx * FRAME_WIDTH / 2
        y = middle[1] + np.array([top, bottom]) * ry * FRAME_HEIGHT / 2
        return crop_box_in_photo(self._transform, (x[0], y[0], x[1], y[1]), *self._size)


@lru_cache(maxsize=4)
def _basis(height: int, width: int, reach: Reach) -> Tensor:
    """What offsets are sums of: the way from the pivot, x and y, and 1; all fade towards the
    border. (3, H * W)."""
    grid = identity_grid(height, width) * torch.tensor(reach)
    way = grid - torch.tensor(PIVOT)
    maps = torch.stack((way[..., 0], way[..., 1], torch.ones_like(way[..., 0])))
    return (maps * _fade(grid)).flatten(1)


def _fade(grid: Tensor) -> Tensor:
    """1 inside, exactly 0 on the grid's outermost places, with no corner between: (H, W)."""
    x, y = grid[..., 0], grid[..., 1]
    end_x, end_y = x[:, [0, -1]].abs().min(), y[[0, -1]].abs().min()
    across = (end_x - x.abs()) / (FADE * end_x)
    above = (end_y + y) / (FADE * end_y)
    # Below it fades from the same place at any reach: the neck moves, the shoulders stay.
    end_y = end_y.clamp(max=SHOULDERS)
    below = (end_y - y) / (end_y - 1 + FADE)
    inside = torch.stack((across, torch.minimum(above, below))).clamp(0, 1).prod(0)
    return inside.square() * (3 - 2 * inside)


def _off_the_edge(start: int, stop: int, length: int, ramp: float) -> Floats:
    """(stop - start,) 1 in the picture, smoothly 0 at its first and last pixel."""
    place = np.arange(start, stop, dtype=np.float32)
    near = np.minimum(place, length - 1 - place) / ramp
    return np.asarray(smoothstep(near), dtype=np.float32)
