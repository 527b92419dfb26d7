"""How the whole picture moves from the frame before a gap to the one after it, but for the mouth.

The mouth is the model's; head, hair, shoulders and background drift between the two good frames.
Dense optical flow between them says how, and where the speaking mouth would mislead it, in the
lower face, the head's rigid movement stands in.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.face.align import (
    FloatArray,
    Image,
    Transform,
    face_transform,
    smoothstep,
)

Maps = npt.NDArray[np.float32]

SIDE = 640
"""Longer side in pixels of the pictures that the flow is looked for in."""

LOWER = (62.0, 84.0)
"""Lines of the 128 from which the flow gives way to the head's movement, and where it is gone."""


def dense_flow(first: Image, second: Image) -> Maps:
    """Where each pixel of ``first`` went in ``second``: (H, W, 2) float32 pixels (x, y)."""
    height, width = first.shape[:2]
    scale = min(SIDE / max(height, width), 1.0)
    size = (max(round(width * scale), 16), max(round(height * scale), 16))
    grey = [
        cv2.resize(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        for picture in (first, second)
    ]
    search = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((size[1], size[0], 2), np.float32)
    flow = cv2.GaussianBlur(search.calc(grey[0], grey[1], start), (0, 0), 2.0)
    flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(flow * (width / size[0], height / size[1]), np.float32)


def without_speech(flow: Maps, points: FloatArray, head: Transform) -> Maps:
    """A flow whose lower face moves as the head does, whatever the mouth says.

    Args:
        flow: (H, W, 2) of a picture.
        points: (478, 2) landmarks of its face.
        head: (2, 3) where the flow should lead around the mouth.
    """
    height, width = flow.shape[:2]
    share = lower_face(points, height, width)[..., None]
    return np.asarray(flow + share * (displacement(head, height, width) - flow), np.float32)


def lower_face(points: FloatArray, height: int, width: int) -> Maps:
    """(height, width) float32: 1 where a mouth and a jaw move, smoothly 0 elsewhere."""
    x, y = _grid(points, height, width)
    down = smoothstep((y - LOWER[0]) / (LOWER[1] - LOWER[0]))
    up = smoothstep((146.0 - y) / 24.0)
    across = smoothstep((58.0 - np.abs(x - 49.0)) / 20.0)
    return np.asarray(down * up * across, np.float32)


def pull(picture: npt.NDArray[np.uint8], flow: Maps, share: float) -> npt.NDArray[np.uint8]:
    """Move a picture by a part of a flow: (H, W, 3) uint8, a new array.

    ``flow`` leads from this picture to another one; pixels are fetched from where they were.
    """
    height, width = picture.shape[:2]
    x, y = pixel_axes(height, width)
    x, y = x - share * flow[..., 0], y - share * flow[..., 1]
    return np.asarray(cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE))


def displacement(transform: FloatArray, height: int, width: int) -> Maps:
    """How far a (2, 3) transform moves each pixel: (height, width, 2) float32."""
    x, y = pixel_axes(height, width)
    (a, b, c), (d, e, f) = np.asarray(transform, np.float32)
    return np.stack((a * x + b * y + c - x, d * x + e * y + f - y), axis=-1)


def pixel_axes(height: int, width: int) -> tuple[Maps, Maps]:
    """Each pixel's x (1, width) and y (height, 1), float32."""
    return np.arange(width, dtype=np.float32)[None], np.arange(height, dtype=np.float32)[:, None]


def _grid(points: FloatArray, height: int, width: int) -> tuple[Maps, Maps]:
    """Each pixel's place in the aligned crop: x and y, (height, width) float32."""
    moved = displacement(face_transform(points), height, width)
    x, y = pixel_axes(height, width)
    return moved[..., 0] + x, moved[..., 1] + y
