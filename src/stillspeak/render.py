"""From what the decoder gives to the frames that are shown.

The generator works on the aligned crop of 128 x 96 pixels. The warp decoder's motion has no
resolution of its own, so it is applied to the picture's own pixels; a U-Net's frames are
shown at the crop's size, or drawn into the picture where they differ from the still.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.constants import FRAME_HEIGHT
from stillspeak.errors import ConfigError
from stillspeak.face.align import crop_face, face_transform, resample
from stillspeak.face.paste import FacePaster
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import Decoded, compose
from stillspeak.models.generator import Generator
from stillspeak.models.pixels import from_model, to_model
from stillspeak.models.regions import LOWER_BOX, scale_box
from stillspeak.models.sway import sway_frames, sway_motion

Picture = npt.NDArray[np.uint8]

MAX_SIDE = 1920
"""Longer side of a video whose size was not asked for."""

MIN_SIZE, MAX_SIZE = 64, 4096
"""Heights in pixels that can be asked for."""

MAX_WIDTH = 8192
"""Width that a height which was asked for may bring with it."""

MAX_SCALE = 8
"""Largest size of the crop relative to 128 x 96: 1,024 lines of face."""


def fit_picture(picture: Picture, height: int | None) -> Picture:
    """Resize a picture to a height, or so that it is no larger than :data:`MAX_SIDE`.

    Args:
        picture: (H, W, 3) uint8.
        height: rows wanted; None keeps a picture that is small enough as it is.

    Raises:
        ConfigError: a height out of range, or too large for so wide a picture.
    """
    rows, columns = picture.shape[:2]
    if height is None:
        factor = min(1.0, MAX_SIDE / max(rows, columns))
    else:
        _check_size(height)
        factor = height / rows
        if columns * factor > MAX_WIDTH:
            raise ConfigError(
                f"size {height} makes a picture of {columns}x{rows} {columns * factor:.0f} pixels "
                f"wide, more than {MAX_WIDTH}; give a smaller size"
            )
    if factor == 1.0:
        return picture
    new_rows, new_columns = max(round(rows * factor), 1), max(round(columns * factor), 1)
    step = np.array([[columns / new_columns, 0, 0], [0, rows / new_rows, 0]], float)
    step[:, 2] = (step[0, 0] - 1) / 2, (step[1, 1] - 1) / 2  # pixel edges stay in place
    return np.ascontiguousarray(resample(picture, step, new_rows, new_columns), dtype=np.uint8)


class FaceRenderer:
    """Renders frames of one face in one picture. What is constant in a clip is made once.

    Args:
        picture: (H, W, 3) uint8.
        points: (478, 2) landmarks of the face in pixels of the picture.
        generator: makes the still's context.
        whole: paste the face back into the whole picture, else show the bare crop.
        lines: height of the bare crop; 128 if None.

    Raises:
        ConfigError: a height out of range.
    """

    def __init__(
        self,
        picture: Picture,
        points: npt.NDArray[np.float32],
        generator: Generator,
        *,
        whole: bool,
        lines: int | None = None,
    ) -> None:
        config = generator.config
        device = next(generator.parameters()).device
        to_crop = face_transform(points, scale=config.height / FRAME_HEIGHT)
        still = crop_face(picture, to_crop, config.height, config.width)
        with torch.inference_mode():
            self.context = generator.prepare_still(
                to_model(still[None]).to(device), _lower(picture, points, config).to(device)
            )
        self._crop = (config.height, config.width)

        own = 1 / np.sqrt(abs(np.linalg.det(to_crop[:, :2])))
        if lines is not None:
            _check_size(lines)
            scale = lines / config.height
        elif whole and config.decoder == "warp":
            scale = float(np.clip(own, 1, MAX_SCALE))  # a crop pixel for each of the picture's
        else:
            scale = 1.0
        # Rows and columns must come out whole and keep the crop's shape.
        rows = max(round(scale * config.height / 4) * 4, 4)
        columns = round(rows * config.width / config.height)
        transform = face_transform(points, scale=rows / FRAME_HEIGHT)
        self._size = (rows, columns)
        self._paster = FacePaster(picture, transform, rows, columns) if whole else None
        self._source: torch.Tensor | None = None
        if config.decoder == "warp":
            self._source = to_model(crop_face(picture, transform, rows, columns)[None]).to(device)
        shape = picture.shape[:2] if whole else self._size
        self.height, self.width = int(shape[0]), int(shape[1])

    @torch.inference_mode()
    def render(self, decoded: Decoded, poses: torch.Tensor | None = None) -> Iterator[Picture]:
        """Frames (H, W, 3) uint8 of what the decoder gave for one clip.

        ``poses`` (T, 3) moves the head, see :mod:`stillspeak.models.sway`; None leaves it.
        """
        if poses is not None:
            decoded = self._sway(decoded, poses)
        for index in range(decoded.frames.shape[1]):
            crop = self._draw(decoded, index)
            yield crop if self._paster is None else self._paster.paste(crop)

    def _sway(self, decoded: Decoded, poses: torch.Tensor) -> Decoded:
        if decoded.motion is None:
            return Decoded(sway_frames(decoded.frames[0], poses)[None], None)
        motion = sway_motion(decoded.motion, poses)
        if self._size != self._crop:
            return Decoded(decoded.frames, motion)
        return Decoded(compose(self.context.still, motion), motion)

    def _draw(self, decoded: Decoded, index: int) -> Picture:
        frame = decoded.frames[:, index : index + 1]
        if self._size != self._crop:
            if decoded.motion is not None and self._source is not None:
                frame = compose(self._source, decoded.motion.frames(slice(index, index + 1)))
            else:
                frame = torch.nn.functional.interpolate(
                    frame[0], self._size, mode="bicubic", align_corners=False
                )[None]
        picture: Picture = from_model(frame[0])[0]
        return picture


def _lower(
    picture: Picture, points: npt.NDArray[np.float32], config: GeneratorConfig
) -> torch.Tensor:
    """The still's ``regions.LOWER_BOX`` at twice the crop's resolution, from the picture."""
    height, width = 2 * config.height, 2 * config.width
    top, bottom, left, right = scale_box(LOWER_BOX, height, width)
    to_box = face_transform(points, scale=height / FRAME_HEIGHT)
    to_box[:, 2] -= left, top
    return to_model(crop_face(picture, to_box, bottom - top, right - left)[None])


def _check_size(height: int) -> None:
    if not MIN_SIZE <= height <= MAX_SIZE:
        raise ConfigError(f"size {height} is out of range; give {MIN_SIZE} to {MAX_SIZE} pixels")
