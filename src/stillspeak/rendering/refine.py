"""Corrects a drawn mouth's light by what was learned from real ones."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch

from stillspeak.models.refiner import (
    COLUMNS,
    PIXELS,
    REFINER_FORMAT,
    ROWS,
    TOP,
    MouthRefiner,
    RefinerConfig,
    golden_refiner,
)
from stillspeak.rendering.raster import Box, Floats, Picture, Points, box_of

_RESOURCE = "resources/mouth_refiner.safetensors"
_FINER = 3  # times as fine is the correction made before it is turned into the picture


def load_refiner(path: Path) -> MouthRefiner:
    """Read a refiner's weights file.

    Raises:
        WeightsError: as for :func:`stillspeak.weights.load_network`.
    """
    from stillspeak.weights import load_network

    return load_network(
        path,
        format_name=REFINER_FORMAT,
        build=lambda table: MouthRefiner(RefinerConfig(**table)),
        golden=golden_refiner,
    )[0]


@cache
def released_refiner() -> MouthRefiner:
    """The one that comes with the package, read once."""
    with resources.as_file(resources.files("stillspeak").joinpath(_RESOURCE)) as path:
        network = load_refiner(path)
    # What torch computes quickest for one small picture.
    return network.to(memory_format=torch.channels_last)  # type: ignore[no-any-return, call-overload]


class View:
    """What a refiner sees of a picture.

    Args:
        middle: (2,) pixels, the middle of the line where the lips meet.
        axes: (2, 2) the face's right and down, columns of unit length.
        unit: pixels between the eyes.
    """

    def __init__(self, middle: Points, axes: Points, unit: float) -> None:
        self.scale = unit / PIXELS
        corner = np.array([(0.5 - COLUMNS / 2) / PIXELS, TOP + 0.5 / PIXELS])
        self.to_picture = np.column_stack([axes * self.scale, middle + unit * (axes @ corner)])

    def of(self, picture: npt.NDArray, corner: tuple[int, int] = (0, 0)) -> npt.NDArray:  # type: ignore[type-arg]
        """(ROWS, COLUMNS, ...) of a picture, or of a part of it that begins at x, y of a corner."""
        matrix = self.to_picture.copy()
        matrix[:, 2] -= corner
        if self.scale > 1.05:
            # Averages of so many pixels first, where there are many.
            fewer = max(int(self.scale / 1.5), 1)
            rest = self.scale / fewer
            sigma = 0.5 * float(np.sqrt(rest**2 - 1))
            margin = fewer * (int(3 * sigma) + 2)
            x0, y0, x1, y1 = self.box(picture.shape[:2], corner, margin)
            size = ((x1 - x0) // fewer, (y1 - y0) // fewer)
            if size[0] < 1 or size[1] < 1:
                return np.zeros((ROWS, COLUMNS, *picture.shape[2:]), picture.dtype)
            picture = picture[y0 : y0 + size[1] * fewer, x0 : x0 + size[0] * fewer]
            if fewer > 1:
                picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
            picture = cv2.GaussianBlur(picture, (0, 0), sigma)
            matrix[:, 2] -= x0, y0
            matrix /= fewer
            matrix[:, 2] += 0.5 / fewer - 0.5
        border, flags = cv2.BORDER_REPLICATE, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen = cv2.warpAffine(picture, matrix, (COLUMNS, ROWS), flags=flags, borderMode=border)
        return np.asarray(seen)

    def hole(self, share: Floats, corner: tuple[int, int]) -> Floats:
        """(ROWS, COLUMNS) of a part (h, w) of a mask that begins at a corner; 0 beyond it."""
        bordered = cv2.copyMakeBorder(share, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        return np.asarray(self.of(bordered, (corner[0] - 1, corner[1] - 1)), np.float32)

    def box(self, shape: tuple[int, ...], corner: tuple[int, int] = (0, 0), margin: int = 0) -> Box:
        """x0, y0, x1, y1 in a part of the picture around what is seen, ends excluded."""
        ends = np.array([[0, 0], [COLUMNS, 0], [0, ROWS], [COLUMNS, ROWS]]) - 0.5
        placed = ends @ self.to_picture[:, :2].T + self.to_picture[:, 2] - corner
        return box_of(placed, shape[0], shape[1], margin)


class Refinement:
    """Corrects the frames of one still.

    Args:
        picture: (H, W, 3) uint8, the still.
        view: of its mouth.
        white: (3,) levels of 255 of white in its light.
        box: x0, y0, x1, y1 of the pixels that may change.
        fade: (ROWS / 2, COLUMNS / 2) float32, how much may be changed where, 0 to 1.
        network: the refiner.

    Attributes:
        box: x0, y0, x1, y1 of the pixels that it changes, ends excluded.
    """

    def __init__(
        self,
        picture: Picture,
        view: View,
        white: Points,
        box: Box,
        fade: Floats,
        network: MouthRefiner,
    ) -> None:
        self._view, self._network, self._fade = view, network, fade
        self._white = np.asarray(white, np.float32)
        self._still = self._seen(picture)
        x0, y0, x1, y1 = view.box(picture.shape[:2])
        self.box = (max(x0, box[0]), max(y0, box[1]), min(x1, box[2]), min(y1, box[3]))
        # From the picture to the correction's own pixels.
        step = 2 / _FINER
        matrix = np.linalg.inv(np.vstack([view.to_picture, (0, 0, 1)]))[:2] / step
        matrix[:, 2] += (0.5 / step - 0.5) + matrix[:, :2] @ self.box[:2]
        self._to_fine = matrix

    def _seen(self, picture: Picture) -> torch.Tensor:
        """(1, 3, ROWS, COLUMNS) what the network sees of a picture."""
        seen = np.ascontiguousarray(self._view.of(picture).transpose(2, 0, 1), np.float32)
        return torch.from_numpy(seen / self._white[:, None, None])[None]

    @torch.inference_mode()
    def apply(
        self, frame: Picture, hole: Floats, corner: tuple[int, int], share: float = 1.0
    ) -> None:
        """Correct a drawn frame (H, W, 3) uint8 in place, by a share of 0 to 1, its mouth's inside
        showing through a hole (h, w), 0 to 1, whose first pixel is at a corner x, y."""
        x0, y0, x1, y1 = self.box
        if x0 >= x1 or y0 >= y1 or share <= 0:
            return
        inside = np.zeros((1, 1, ROWS, COLUMNS), np.float32)
        if hole.any():
            inside[0, 0] = self._view.hole(hole, corner)
        given = self._network(self._still, self._seen(frame), torch.from_numpy(inside))
        gain = given[0, 0].numpy() * (share * self._fade)
        size = (_FINER * gain.shape[1], _FINER * gain.shape[0])
        fine = cv2.resize(gain, size, interpolation=cv2.INTER_CUBIC)
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        factor = cv2.warpAffine(
            fine + 1, self._to_fine, (x1 - x0, y1 - y0), flags=flags, borderValue=1
        )
        part = frame[y0:y1, x0:x1]
        part[:] = cv2.multiply(part, cv2.merge([factor] * 3), dtype=cv2.CV_8U)
