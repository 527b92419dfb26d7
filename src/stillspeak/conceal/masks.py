"""What hides a face, frame by frame: a picture, a video or a rectangle."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.errors import ImageError, InputError, VideoError
from stillspeak.face.align import FloatArray
from stillspeak.media.image import load_image
from stillspeak.media.video_editor import timed_frames
from stillspeak.rendering.raster import Picture

Mask = npt.NDArray[np.float32]
"""(H, W) float32 in [0, 1]: 1 where the face is hidden."""

HIDDEN = 0.5
"""Share of white from which a pixel counts as hidden."""

_RECTANGLE = re.compile(r"^\s*\d+\s*,\s*\d+\s*,\s*\d+\s*,\s*\d+\s*$")
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


class MaskSource:
    """Masks by name.

    Args:
        mask: a picture or a video, white where the face is hidden, or ``x,y,width,height``.
        size: height and width of the video.

    Raises:
        ImageError: the picture cannot be read or has another size.
        InputError: a rectangle outside the picture.
    """

    def __init__(self, mask: str | Path, size: tuple[int, int]) -> None:
        self._name, self._size = str(mask), size
        self._still: Mask | None = None
        if _RECTANGLE.match(self._name):
            self._still = self._rectangle()
        elif Path(self._name).suffix.lower() in _PICTURES:
            self._still = self._read(load_image(self._name))

    def masks(self) -> Iterator[Mask]:
        """One mask a frame, from the first on.

        Raises:
            VideoError: the video cannot be read, has another size, or ends too early.
        """
        if self._still is not None:
            yield from repeat(self._still)
        count = 0
        for count, frame in enumerate(timed_frames(self._name), 1):  # noqa: B007
            yield self._read(frame.rgb())
        raise VideoError(
            f"{self._name}: the mask ends after {count} frames, before the video does; give a "
            "mask of the same length"
        )

    def _rectangle(self) -> Mask:
        height, width = self._size
        x, y, across, down = (int(part) for part in self._name.split(","))
        if not (across and down and x < width and y < height):
            raise InputError(
                f"--occlusion {self._name}: no part of a picture of {width}x{height}; give "
                "x,y,width,height in pixels"
            )
        drawn = np.zeros(self._size, np.float32)
        drawn[y : y + down, x : x + across] = 1.0
        return drawn

    def _read(self, picture: Picture) -> Mask:
        height, width = picture.shape[:2]
        if (height, width) != self._size:
            kind = ImageError if Path(self._name).suffix.lower() in _PICTURES else VideoError
            raise kind(
                f"{self._name}: the mask has {width}x{height} pixels and the video "
                f"{self._size[1]}x{self._size[0]}; give one of the same size"
            )
        # What a codec turned black and white into is black and white again.
        level = picture.astype(np.float32).mean(axis=2) / 255
        return np.asarray(np.clip((level - 0.1) / 0.8, 0, 1), np.float32)


def values_at(mask: npt.NDArray[Any], points: FloatArray) -> npt.NDArray[Any]:
    """(K,) of a mask (H, W) at points (K, 2), those beyond the picture at its edge."""
    rows, columns = np.rint(points[:, ::-1]).astype(int).T
    return np.asarray(mask[rows.clip(0, mask.shape[0] - 1), columns.clip(0, mask.shape[1] - 1)])
