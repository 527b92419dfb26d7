"""Pixels: what lies where in a picture, the boxes around points, and the insides of outlines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Points = npt.NDArray[np.float64]
"""(..., 2) x and y, or other float64 numbers."""

Floats = npt.NDArray[np.float32]
"""Maps and masks."""

Picture = npt.NDArray[np.uint8]
"""(H, W, 3) uint8 RGB."""

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, ends excluded."""

LUMA = np.array([0.299, 0.587, 0.114])


def box_of(points: npt.NDArray[np.floating], rows: int, columns: int, reach: int = 0) -> Box:
    """The box around (..., 2) points and ``reach`` pixels more, cut to the picture."""
    axes = tuple(range(points.ndim - 1))
    x0, y0 = np.floor(points.min(axis=axes)).astype(int) - reach
    x1, y1 = np.ceil(points.max(axis=axes)).astype(int) + 1 + reach
    x0, x1 = np.clip((x0, x1), 0, columns)
    y0, y1 = np.clip((y0, y1), 0, rows)
    return int(x0), int(y0), int(x1), int(y1)


def around(boxes: Iterable[Box]) -> Box:
    """The smallest box around several, of which empty ones do not count."""
    kept = [box for box in boxes if box[0] < box[2] and box[1] < box[3]]
    if not kept:
        return 0, 0, 0, 0
    x0, y0, x1, y1 = zip(*kept, strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def sampled(picture: npt.NDArray[Any], places: npt.NDArray[np.floating]) -> npt.NDArray[Any]:
    """A picture at places (h, w, 2) between its pixels; beyond its border that goes on."""
    x, y = (np.ascontiguousarray(places[..., axis], np.float32) for axis in (0, 1))
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def warped(
    picture: npt.NDArray[Any], matrix: npt.NDArray[np.floating], size: tuple[int, int]
) -> npt.NDArray[Any]:
    """A picture of a size (w, h) fetched by (2, 3) new pixels -> the picture's, border repeated."""
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    moved = cv2.warpAffine(picture, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(moved)


def soft(picture: npt.NDArray[Any], sigma: float) -> npt.NDArray[Any]:
    """A picture blurred by a Gaussian of so many pixels; by less than a fifth it is none."""
    if sigma < 0.2:
        return picture
    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma))


def filled(ring: npt.NDArray[np.floating], rows: int, columns: int) -> Floats:
    """(rows, columns) the share of each pixel that lies inside a ring of (K, 2) pixels."""
    fine = 4  # times as many rows and columns, which are averaged
    mask = np.zeros((rows * fine, columns * fine), np.uint8)
    placed = np.rint(((ring + 0.5) * fine - 0.5) * 16).astype(np.int32)
    cv2.fillPoly(mask, [placed], 255, cv2.LINE_8, 4)
    small = cv2.resize(mask, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.multiply(small, np.float32(1 / 255), dtype=np.float32)


def depth_within(hull: npt.NDArray[np.int32], rows: int, columns: int) -> Floats:
    """(rows, columns) how many pixels it is from each one to the outline (K, 2) of a convex shape
    or to the border; 0 outside. Pixel 1, 1 of the outline is the first one."""
    inside = np.zeros((rows + 2, columns + 2), np.uint8)
    cv2.fillConvexPoly(inside, hull, 1)
    inside[[0, -1]] = inside[:, [0, -1]] = 0
    near = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    return near.astype(np.float32)
