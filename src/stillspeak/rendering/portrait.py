"""A face in a photo, with everything that is known before the first sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.constants import FRAME_HEIGHT
from stillspeak.errors import ConfigError
from stillspeak.face.align import Transform, crop_face, face_transform, resample, scale_transform
from stillspeak.media.marks.origin import Source
from stillspeak.models.engine import Engine
from stillspeak.models.pixels import to_model
from stillspeak.rendering.check import StillWarning
from stillspeak.rendering.raster import Picture

MAX_SIDE = 1920
"""Longer side of a video whose size was not asked for."""

MAX_WIDTH = 8192
"""Width that a height which was asked for may bring with it."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """A face, where it is in its photo, and what an engine has made of it."""

    photo: Picture  # (H, W, 3) uint8
    points: npt.NDArray[np.float32] | None  # (478, 2) landmarks in its pixels; None: not known
    pose: Transform  # (2, 3) pixels of the photo -> pixels of the aligned crop of 128 x 96
    crop: Picture  # (h, w, 3) uint8, the aligned crop at the engine's size
    still: torch.Tensor  # (1, 3, h, w) in [-1, 1], the same as the engine sees it
    prepared: Any  # what all frames share, as the engine's ``prepare_still`` gave it
    source: Source | None = None  # where the photo comes from, for credentials
    warnings: tuple[StillWarning, ...] = ()  # what makes videos of it worse
    others: tuple[npt.NDArray[np.float32], ...] = ()  # landmarks of the photo's other faces
    alpha: npt.NDArray[np.uint8] | None = None  # (H, W) of a photo that is shown on white

    @classmethod
    def of(
        cls,
        photo: Picture,
        points: npt.NDArray[np.float32],
        engine: Engine[Any],
        source: Source | None = None,
        warnings: tuple[StillWarning, ...] = (),
        others: tuple[npt.NDArray[np.float32], ...] = (),
    ) -> Portrait:
        """A face whose landmarks (478, 2) in a photo are known, as are those of ``others``."""
        config, pose = engine.config, face_transform(points)
        crop = crop_at(photo, pose, config.height, config.width)
        prepared = _prepared(engine, crop)
        return cls(photo, points, pose, crop, *prepared, source, warnings, others)

    @classmethod
    def of_crop(
        cls, crop: Picture, points: npt.NDArray[np.float32] | None, engine: Engine[Any]
    ) -> Portrait:
        """A face that is aligned already, with its landmarks (478, 2) if they were found."""
        pose = scale_transform(np.eye(2, 3), FRAME_HEIGHT / len(crop))
        return cls(crop, points, pose, crop, *_prepared(engine, crop))


def _prepared(engine: Engine[Any], crop: Picture) -> tuple[torch.Tensor, Any]:
    with torch.inference_mode():
        still = to_model(crop[None]).to(engine.device)
        return still, engine.prepare_still(still)


def crop_at(photo: Picture, pose: Transform, height: int, width: int) -> Picture:
    """The aligned crop with so many rows and columns: (height, width, 3) uint8."""
    return crop_face(photo, scale_transform(pose, height / FRAME_HEIGHT), height, width)


def fit_picture(picture: Picture, height: int | None) -> Picture:
    """Resize a picture to a height, or so that it is no larger than :data:`MAX_SIDE`.

    Args:
        picture: (H, W, C) uint8, C at most 4.
        height: rows wanted; None keeps a picture that is small enough as it is.

    Raises:
        ConfigError: a height that is too large for so wide a picture.
    """
    rows, columns = picture.shape[:2]
    if height is None:
        factor = min(1.0, MAX_SIDE / max(rows, columns))
    else:
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
