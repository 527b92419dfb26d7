"""Put the crops that a U-Net paints back into the photo."""

from __future__ import annotations

import cv2
import numpy as np

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.face.align import (
    FloatArray,
    Transform,
    crop_box_in_photo,
    crop_face,
    resample,
    scale_transform,
    smoothstep,
    transform_points,
)
from stillspeak.rendering.raster import Floats, Picture, depth_within

JAW_DROP = 12.0
"""Lines of the 128 by which the chin may come down."""

FADE = 9.0
"""Pixels of the crop over which the change fades to nothing inside the face's outline."""

_FINE = 4  # times the crop's resolution at which the outline is drawn

# Mean change of a crop pixel's neighbourhood, in levels of 255, up to which the photo's fine
# detail stays and from which it has gone: below lies a generator's noise, above a moving lip.
_STILL, _MOVING = 4.0, 16.0
_NEIGHBOURHOOD = 2.0  # standard deviation in pixels of a 96 wide crop


def face_support(points: FloatArray, pose: Transform, height: int, width: int) -> Floats:
    """How much of the motion is let through: 1 in the face, 0 from its outline on.

    The outline is the hull of the landmarks, lengthened below for the jaw to open, so that hair,
    background and collar do not take part.

    Args:
        points: (478, 2) landmarks in photo pixels.
        pose: (2, 3) photo pixels -> pixels of the 128 x 96 crop.
        height, width: rows and columns of the grid over the crop that is returned.
    """
    placed = transform_points(np.asarray(points, float), scale_transform(pose, _FINE))
    below = placed[placed[:, 1] > np.median(placed[:, 1])] + (0, JAW_DROP * _FINE)
    hull = cv2.convexHull(np.concatenate([placed, below]).astype(np.float32))
    # A border around the crop, so that a face that reaches over it does not end there abruptly.
    rows, columns = FRAME_HEIGHT * _FINE, FRAME_WIDTH * _FINE
    near = depth_within(np.rint(hull).astype(np.int32) + 1, rows, columns)
    fade = smoothstep(near / (FADE * _FINE))
    support = cv2.resize(fade, (width, height), interpolation=cv2.INTER_AREA)
    support[[0, -1]] = 0
    support[:, [0, -1]] = 0
    return np.asarray(support, dtype=np.float32)


class FacePaster:
    """Puts crops of one clip back into one photo.

    A photo is the crop drawn at its size plus a rest, the fine detail. That stays where the crop
    changes little and goes where it changes much: skin stays sharp, and no trace of the old lips is
    left. A crop that changes nothing leaves the photo bit for bit what it was. All fades to nothing
    towards the crop's border.

    Args:
        photo: (H, W, 3) uint8.
        transform: (2, 3) photo pixels -> crop pixels, as the crop was made with.
        height, width: rows and columns of the crops.
        feather: share of the crop's width over which it fades out at each border, > 0 to 0.5.
    """

    def __init__(
        self, photo: Picture, transform: Transform, height: int, width: int, feather: float = 0.12
    ) -> None:
        self._photo = np.ascontiguousarray(photo)
        self._shape = (height, width, 3)
        edges = (-0.5, -0.5, width - 0.5, height - 0.5)
        self.box = crop_box_in_photo(transform, edges, photo.shape[0], photo.shape[1])
        x0, y0, x1, y1 = self.box
        self._to_crop = np.array(transform, dtype=np.float64)
        self._to_crop[:, 2] += self._to_crop[:, :2] @ (x0, y0)
        self._mask = _feather_mask(self._to_crop, y1 - y0, x1 - x0, height, width, feather * width)
        self._patch = self._photo[y0:y1, x0:x1].astype(np.float32)
        self._original = crop_face(self._photo, transform, height, width).astype(np.float32)
        self._fine = self._patch - self._draw(self._original)

    def paste(self, crop: Picture) -> Picture:
        """The photo with one crop (height, width, 3) uint8 in it: a new array, outside :attr:`box`
        equal to the photo. ValueError: the crop has another shape."""
        if crop.shape != self._shape:
            raise ValueError(f"need a crop of {self._shape}, got {crop.shape}")
        out = self._photo.copy()
        x0, y0, x1, y1 = self.box
        change = crop.astype(np.float32) - self._original
        drawn = self._draw(np.concatenate([change, _how_much_moves(change)], axis=2))
        patch = drawn[..., :3] - np.clip(drawn[..., 3:], 0.0, 1.0) * self._fine
        patch *= self._mask
        patch += self._patch
        out[y0:y1, x0:x1] = np.clip(np.rint(patch), 0, 255).astype(np.uint8)
        return out

    def _draw(self, crop: Floats) -> Floats:
        """(height, width, C) float32 in crop pixels -> the same in the box's photo pixels."""
        x0, y0, x1, y1 = self.box
        if x0 == x1 or y0 == y1:  # the crop lies outside the photo
            return np.zeros((y1 - y0, x1 - x0, crop.shape[2]), dtype=np.float32)
        return resample(crop, self._to_crop, y1 - y0, x1 - x0)


def _how_much_moves(change: Floats) -> Floats:
    """(height, width, 3) change in levels -> (height, width, 1), 0 where still, 1 where moving."""
    sigma = _NEIGHBOURHOOD * change.shape[1] / FRAME_WIDTH
    near = cv2.GaussianBlur(np.abs(change).mean(axis=2), (0, 0), sigma)
    moves = smoothstep((near - _STILL) / (_MOVING - _STILL))
    return np.asarray(moves, np.float32)[..., None]


def _feather_mask(
    to_crop: Transform, rows: int, columns: int, height: int, width: int, ramp: float
) -> Floats:
    """(rows, columns, 1) float32: 1 inside, smoothly 0 over ``ramp`` crop pixels at its border."""
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    u = to_crop[0, 0] * x + to_crop[0, 1] * y + to_crop[0, 2]
    v = to_crop[1, 0] * x + to_crop[1, 1] * y + to_crop[1, 2]
    across = np.minimum(u + 0.5, width - 0.5 - u) / ramp
    down = np.minimum(v + 0.5, height - 0.5 - v) / ramp
    # The product rounds the corners off; a plain minimum would show its diagonals.
    return (smoothstep(across) * smoothstep(down)).astype(np.float32)[..., None]
