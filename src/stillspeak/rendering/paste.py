"""Put generated crops back into the photo they were cut from."""

from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from stillspeak.constants import FRAME_WIDTH
from stillspeak.face.align import (
    Image,
    Transform,
    crop_box_in_photo,
    crop_face,
    resample,
    smoothstep,
)

PasteMode = Literal["detail", "residual", "blend"]
"""How a crop goes back into its photo, see :class:`FacePaster`."""

# Mean change of a crop pixel's neighbourhood, in levels of 255, up to which the photo's fine
# detail stays and from which it has gone: below lies a generator's noise, above a moving lip.
_STILL, _MOVING = 4.0, 16.0
_NEIGHBOURHOOD = 2.0  # standard deviation in pixels of a 96 wide crop


class FacePaster:
    """Puts crops of one clip back into one photo.

    A photo is sharper than the crop that was cut out of it. Taken apart it is the crop drawn at
    the photo's size plus a rest, the fine detail; the modes differ in what becomes of the rest:

    - ``detail`` (default): stays where the crop changes little, goes where it changes much, so
      that skin and hair stay sharp and no trace of the old lips is left around the new ones.
    - ``residual``: stays everywhere.
    - ``blend``: goes everywhere; the crop is shown at its own resolution.

    In the first two a crop that changes nothing leaves the photo bit for bit what it was. All
    fade to nothing towards the crop's border. What does not depend on the crop is computed once.
    """

    def __init__(
        self,
        photo: Image,
        transform: Transform,
        height: int,
        width: int,
        feather: float = 0.12,
        *,
        mode: PasteMode = "detail",
    ) -> None:
        """Prepare the photo.

        Args:
            photo: (H, W, 3) uint8.
            transform: (2, 3) photo pixels -> crop pixels, as the crop was made with.
            height: rows of the crops.
            width: columns of the crops.
            feather: share of the crop's width over which it fades out at each border, > 0 to 0.5.
            mode: "detail", "residual" or "blend".

        Raises:
            ValueError: if the feather or the mode is out of range.
        """
        if not 0 < feather <= 0.5:
            raise ValueError(f"feather must be more than 0 and at most 0.5, got {feather}")
        if mode not in get_args(PasteMode):
            raise ValueError(f"mode must be one of {get_args(PasteMode)}, got {mode!r}")
        self._photo = np.ascontiguousarray(photo)
        self._mode = mode
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

    def mask(self) -> npt.NDArray[np.float32]:
        """(H, W) float32 in [0, 1]: how much of each photo pixel comes from the crop."""
        full = np.zeros(self._photo.shape[:2], dtype=np.float32)
        x0, y0, x1, y1 = self.box
        full[y0:y1, x0:x1] = self._mask[..., 0]
        return full

    def paste(self, crop: Image) -> Image:
        """The photo with one crop in it.

        Args:
            crop: (height, width, 3) uint8.

        Returns:
            (H, W, 3) uint8, a new array; outside :attr:`box` equal to the photo.

        Raises:
            ValueError: if the crop has another shape.
        """
        if crop.shape != self._shape:
            raise ValueError(f"need a crop of {self._shape}, got {crop.shape}")
        out = self._photo.copy()
        x0, y0, x1, y1 = self.box
        change = crop.astype(np.float32) - self._original
        if self._mode == "blend":
            patch = self._draw(change) - self._fine
        elif self._mode == "residual":
            patch = self._draw(change)
        else:
            gone = _how_much_moves(change)
            drawn = self._draw(np.concatenate([change, gone], axis=2))
            patch = drawn[..., :3] - np.clip(drawn[..., 3:], 0.0, 1.0) * self._fine
        patch *= self._mask
        patch += self._patch
        out[y0:y1, x0:x1] = np.clip(np.rint(patch), 0, 255).astype(np.uint8)
        return out

    def _draw(self, crop: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """(height, width, C) float32 in crop pixels -> the same in the box's photo pixels."""
        x0, y0, x1, y1 = self.box
        if x0 == x1 or y0 == y1:  # the crop lies outside the photo
            return np.zeros((y1 - y0, x1 - x0, crop.shape[2]), dtype=np.float32)
        return resample(crop, self._to_crop, y1 - y0, x1 - x0)


def _how_much_moves(change: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """(height, width, 3) change in levels -> (height, width, 1), 0 where still, 1 where moving."""
    import cv2

    sigma = _NEIGHBOURHOOD * change.shape[1] / FRAME_WIDTH
    near = cv2.GaussianBlur(np.abs(change).mean(axis=2), (0, 0), sigma)
    moves: npt.NDArray[np.float32] = smoothstep((near - _STILL) / (_MOVING - _STILL))
    return np.expand_dims(moves, axis=2)


def _feather_mask(
    to_crop: Transform, rows: int, columns: int, height: int, width: int, ramp: float
) -> npt.NDArray[np.float32]:
    """(rows, columns, 1) float32: 1 inside, smoothly 0 at the crop's border and beyond.

    ``ramp`` is the width of the fading band in crop pixels.
    """
    y, x = np.mgrid[:rows, :columns].astype(np.float64)
    u = to_crop[0, 0] * x + to_crop[0, 1] * y + to_crop[0, 2]
    v = to_crop[1, 0] * x + to_crop[1, 1] * y + to_crop[1, 2]
    across = np.minimum(u + 0.5, width - 0.5 - u) / ramp
    down = np.minimum(v + 0.5, height - 0.5 - v) / ramp
    # The product rounds the corners off; a plain minimum would show its diagonals.
    mask = (smoothstep(across) * smoothstep(down)).astype(np.float32)
    return np.expand_dims(mask, axis=2)
