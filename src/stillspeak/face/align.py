"""Bring a face to the canonical position: similarity transforms and cropping.

Pixel convention, everywhere in ``face``: x runs right, y runs down, integer coordinates are
pixel **centres**, so the middle of the top-left pixel is (0, 0) and a picture W pixels wide
spans x from -0.5 to W - 0.5. A transform is a (2, 3) float64 matrix ``[A | b]`` that maps a
column vector p to ``A p + b``.

The canonical positions are in ``resources/canonical_face.json``; they were derived from the
alignment of the paper's authors' public code (five stable points: nose base, eye corners).
"""

import json
import math
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH

FloatArray = npt.NDArray[np.floating[Any]]
"""A float32 or float64 array."""
Transform = npt.NDArray[np.float64]
"""A (2, 3) float64 matrix."""
Image = npt.NDArray[np.uint8]
"""A (H, W, 3) uint8 picture."""

SMOOTHING_WINDOW = 7
"""Frames over which landmarks of a video are averaged before alignment."""

_MAX_OVERSAMPLING = 8


@dataclass(frozen=True)
class CanonicalFace:
    """The stable points: rows ``indices`` (5,) of the 478-point mesh and their positions ``points``
    (5, 2) float64 (x, y) in an aligned crop of ``height`` x ``width`` pixels.
    """

    indices: tuple[int, ...]
    points: npt.NDArray[np.float64]
    height: int
    width: int


@cache
def canonical_face() -> CanonicalFace:
    """The canonical face, read once from ``resources/canonical_face.json``."""
    text = resources.files("stillspeak").joinpath("resources/canonical_face.json").read_text("utf8")
    spec = json.loads(text)
    points = np.array([(p["x"], p["y"]) for p in spec["points"]], dtype=np.float64)
    points.flags.writeable = False
    # The two statements of the crop's size must never drift apart.
    assert (spec["height"], spec["width"]) == (FRAME_HEIGHT, FRAME_WIDTH)
    indices = tuple(int(p["mediapipe"]) for p in spec["points"])
    return CanonicalFace(indices, points, FRAME_HEIGHT, FRAME_WIDTH)


def similarity_transform(source: FloatArray, target: FloatArray) -> Transform:
    """The rotation, scale and shift that bring ``source`` closest to ``target``, both (K, 2).

    Closed-form least squares (Umeyama 1991 for two dimensions), never a reflection.

    Raises:
        ValueError: if the shapes differ or all source points coincide.
    """
    a = np.asarray(source, dtype=np.float64)
    b = np.asarray(target, dtype=np.float64)
    if a.shape != b.shape or a.ndim != 2 or a.shape[1] != 2 or len(a) < 2:
        raise ValueError(f"need two (K, 2) arrays with K >= 2, got {a.shape} and {b.shape}")
    a_mean, b_mean = a.mean(axis=0), b.mean(axis=0)
    a0, b0 = a - a_mean, b - b_mean
    spread = float((a0**2).sum())
    if spread <= 0.0 or not math.isfinite(spread):
        raise ValueError("the source points coincide or are not finite: no transform exists")
    # In the plane the best rotation and scale are one complex number, b ~ c a, with
    # c = sum(conj(a) b) / sum(|a|^2): the reflection that Umeyama excludes cannot arise.
    cos = float((a0 * b0).sum()) / spread
    sin = float((a0[:, 0] * b0[:, 1] - a0[:, 1] * b0[:, 0]).sum()) / spread
    matrix = np.array([[cos, -sin], [sin, cos]])
    return np.column_stack([matrix, b_mean - matrix @ a_mean])


def face_transform(points: FloatArray, *, scale: float = 1.0) -> Transform:
    """The transform from photo pixels to pixels of the aligned crop, by (478, 2) landmarks. A
    ``scale`` of 4 stands for a 512x384 crop of the same region, see :func:`scale_transform`.
    """
    if not scale > 0:
        raise ValueError(f"scale must be positive, got {scale}")
    face = canonical_face()
    fit = similarity_transform(np.asarray(points)[list(face.indices)], face.points)
    return scale_transform(fit, scale)


def scale_transform(transform: Transform, scale: float) -> Transform:
    """A transform to a crop of the same region with ``scale`` times the lines, as (2, 3) float64.

    Pixel edges, not centres, are kept in place.
    """
    scaled = transform * scale
    scaled[:, 2] += 0.5 * scale - 0.5
    return scaled


def invert_transform(transform: Transform) -> Transform:
    """The exact inverse of a (2, 3) transform, as (2, 3) float64."""
    (a, b, x), (c, d, y) = np.asarray(transform, dtype=np.float64)
    det = a * d - b * c
    if det == 0.0 or not math.isfinite(det):
        raise ValueError("the transform has no inverse")
    inverse = np.array([[d, -b], [-c, a]]) / det
    return np.column_stack([inverse, -inverse @ np.array([x, y])])


def transform_points(points: FloatArray, transform: Transform) -> FloatArray:
    """Map (..., 2) points through a (2, 3) transform; the points' float dtype is kept."""
    p = np.asarray(points)
    out = p.astype(np.float64) @ transform[:, :2].T + transform[:, 2]
    return out.astype(p.dtype if np.issubdtype(p.dtype, np.floating) else np.float64)


def crop_box_in_photo(
    transform: Transform, edges: tuple[float, float, float, float], height: int, width: int
) -> tuple[int, int, int, int]:
    """The photo pixels that a rectangle of the crop touches, cut to the photo of ``height`` x
    ``width``: x0, y0, x1, y1, ends excluded; empty where it lies outside. ``edges`` are x0, y0,
    x1, y1 in crop pixels.
    """
    left, top, right, bottom = edges
    edge = np.array([(left, top), (right, top), (left, bottom), (right, bottom)])
    corners = transform_points(edge, invert_transform(transform))
    x0, y0 = np.floor(corners.min(axis=0)).astype(int)
    x1, y1 = np.ceil(corners.max(axis=0)).astype(int) + 1
    x0, x1 = np.clip((x0, x1), 0, width)
    y0, y1 = np.clip((y0, y1), 0, height)
    return int(x0), int(y0), int(x1), int(y1)


def smooth_landmarks(points: FloatArray, window: int = SMOOTHING_WINDOW) -> FloatArray:
    """Centred moving average of landmarks (T, K, 2) over an odd number of frames, the dtype kept.
    Near the ends the window holds the frames that exist, so no frame is lost and none lags.
    """
    if window < 1 or window % 2 == 0:
        raise ValueError(f"window must be a positive odd number of frames, got {window}")
    p = np.asarray(points)
    T = len(p)
    total = np.zeros((T + 1, *p.shape[1:]), dtype=np.float64)
    np.cumsum(p, axis=0, dtype=np.float64, out=total[1:])
    centre = np.arange(T)
    start = np.maximum(centre - window // 2, 0)
    stop = np.minimum(centre + window // 2 + 1, T)
    count = (stop - start).reshape(-1, *[1] * (p.ndim - 1))
    return np.asarray((total[stop] - total[start]) / count, p.dtype)


def crop_face(image: Image, transform: Transform, height: int, width: int) -> Image:
    """Cut the aligned face out of a picture, as :func:`resample` does, with a transform of photo
    pixels to crop pixels: (height, width, 3) uint8, contiguous. A pure shift by whole pixels
    copies pixels unchanged.
    """
    out = resample(image, invert_transform(transform), height, width)
    return np.ascontiguousarray(out, dtype=np.uint8)


def resample(
    image: npt.NDArray[Any], to_source: Transform, height: int, width: int
) -> npt.NDArray[Any]:
    """Draw a picture (H, W, C), uint8 or float32 and C at most 4, on a new grid of ``height`` x
    ``width`` pixels, which ``to_source`` maps to the picture's: anti-aliased, edges repeated.
    """
    import cv2

    step = math.sqrt(abs(float(np.linalg.det(to_source[:, :2]))))  # source pixels an output pixel
    if step > _MAX_OVERSAMPLING:
        # A very large face: average whole blocks of the source first.
        block = int(step // (_MAX_OVERSAMPLING // 2))
        image = _block_mean(image, block)
        to_source = to_source / block
        to_source[:, 2] += 0.5 / block - 0.5
        step /= block
    # Shrinking: draw on a grid fine enough to miss no source pixel, then average the cells of
    # each output pixel: a box filter that turns with the face.
    n = math.ceil(step) if step > 1.0 + 1e-6 else 1
    if n > 1:
        fine = to_source.copy()
        fine[:, :2] /= n
        fine[:, 2] += to_source[:, :2] @ np.full(2, 0.5 / n - 0.5)
        to_source = fine
    size, flags = (width * n, height * n), cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(image, to_source, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    if n > 1:
        out = cv2.resize(out, (width, height), interpolation=cv2.INTER_AREA)
    return np.asarray(out).reshape(height, width, -1)


def _block_mean(image: npt.NDArray[Any], block: int) -> npt.NDArray[Any]:
    """Average blocks of ``block`` x ``block`` pixels, the last ones filled with edge pixels."""
    import cv2

    rows, columns = -(-image.shape[0] // block), -(-image.shape[1] // block)
    below, right = rows * block - image.shape[0], columns * block - image.shape[1]
    padded = cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(cv2.resize(padded, (columns, rows), interpolation=cv2.INTER_AREA))


def smoothstep(x: FloatArray) -> FloatArray:
    """0 below 0, 1 above 1, between them a smooth curve; of ``x``'s shape and dtype."""
    t = np.clip(x, 0.0, 1.0)
    return np.asarray(t * t * (3.0 - 2.0 * t))
