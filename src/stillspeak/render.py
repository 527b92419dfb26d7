"""From what the decoder gives to the frames that are shown.

The generator works on the aligned crop of 128 x 96 pixels. The warp decoder's motion has no
resolution of its own, so it is applied to the picture's own pixels; a U-Net's frames are
shown at the crop's size, or drawn into the picture where they differ from the still. In a whole
picture both fade to nothing at the face's outline.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.constants import FRAME_HEIGHT
from stillspeak.errors import ConfigError
from stillspeak.face.align import crop_face, face_transform, resample, transform_points
from stillspeak.face.eyes import eye_outlines
from stillspeak.face.paste import FacePaster
from stillspeak.face.warp import FaceWarper, face_support
from stillspeak.media.provenance import Source
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import Decoded, Motion, compose
from stillspeak.models.generator import Generator
from stillspeak.models.gesture import Gesture, Overlay, gesture_frames, gesture_motion
from stillspeak.models.pixels import from_model, to_model
from stillspeak.models.regions import LOWER_BOX, scale_box
from stillspeak.models.sway import CROP, HEAD, Reach, sway_around, sway_frames, sway_motion

Picture = npt.NDArray[np.uint8]

MAX_SIDE = 1920
"""Longer side of a video whose size was not asked for."""

MAX_WIDTH = 8192
"""Width that a height which was asked for may bring with it."""


def fit_picture(picture: Picture, height: int | None) -> Picture:
    """Resize a picture to a height, or so that it is no larger than :data:`MAX_SIDE`.

    Args:
        picture: (H, W, 3) uint8.
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


class FaceRenderer:
    """Renders frames of one face in one picture. What is constant in a clip is made once.

    Args:
        picture: (H, W, 3) uint8.
        points: (478, 2) landmarks of the face in pixels of the picture.
        generator: makes the still's context.
        whole: paste the face back into the whole picture, else show the bare crop.
        lines: height of the bare crop; 128 if None.
        still: the picture's origin, for the credentials of what is written.
    """

    def __init__(
        self,
        picture: Picture,
        points: npt.NDArray[np.float32],
        generator: Generator,
        *,
        whole: bool,
        lines: int | None = None,
        still: Source | None = None,
    ) -> None:
        self.still = still
        config = generator.config
        device = next(generator.parameters()).device
        to_crop = face_transform(points, scale=config.height / FRAME_HEIGHT)
        crop = crop_face(picture, to_crop, config.height, config.width)
        with torch.inference_mode():
            self.context = generator.prepare_still(
                to_model(crop[None]).to(device), lower_part(picture, points, config).to(device)
            )
        self._crop = (config.height, config.width)
        self._picture, self._points = picture, points
        self._gesture = Gesture(
            crop, eye_outlines(transform_points(points, face_transform(points)))
        )
        self._warp, self._whole = config.decoder == "warp", whole

        scale = 1.0
        if lines is not None:
            scale = lines / config.height
        # Rows and columns must come out whole and keep the crop's shape.
        rows = max(round(scale * config.height / 4) * 4, 4)
        columns = round(rows * config.width / config.height)
        transform = face_transform(points, scale=rows / FRAME_HEIGHT)
        self._size = (rows, columns)
        self._source: torch.Tensor | None = None
        if self._warp and not whole:
            self._source = to_model(crop_face(picture, transform, rows, columns)[None]).to(device)
        self._paster: FacePaster | None = None
        if whole and not self._warp:
            self._paster = FacePaster(picture, transform, rows, columns)
        self._warpers: dict[Reach, FaceWarper] = {}
        self._supports: dict[tuple[int, int], torch.Tensor] = {}
        shape = picture.shape[:2] if whole else self._size
        self.height, self.width = int(shape[0]), int(shape[1])

    @torch.inference_mode()
    def render(
        self,
        decoded: Decoded,
        poses: torch.Tensor | None = None,
        curves: torch.Tensor | None = None,
    ) -> Iterator[Picture]:
        """Frames (H, W, 3) uint8 of what the decoder gave for one clip.

        ``poses`` (T, 3) moves the head, see :mod:`stillspeak.models.sway`, and ``curves`` (T, 2)
        eyes and brows, see :mod:`stillspeak.models.gesture`; None leaves them.
        """
        if curves is not None:
            decoded = self._gesticulate(decoded, self._gesture.overlay(curves))
        if self._whole and decoded.motion is not None:
            yield from self._warp_picture(decoded.motion, poses)
            return
        if self._whole:
            support = self._support(*self._crop).to(decoded.frames)
            decoded = Decoded(
                torch.lerp(self.context.still[:, None], decoded.frames, support), None
            )
        if poses is not None:
            decoded = self._sway(decoded, poses)
        for index in range(decoded.frames.shape[1]):
            crop = self._draw(decoded, index)
            yield crop if self._paster is None else self._paster.paste(crop)

    def _warp_picture(self, motion: Motion, poses: torch.Tensor | None) -> Iterator[Picture]:
        """The whole picture with the motion applied to its own pixels."""
        motion = motion.flat()
        support = self._support(*motion.flow.shape[-2:]).to(motion.flow)
        motion = motion._replace(flow=motion.flow * support, mask=motion.mask * support)
        reach = CROP
        if poses is not None:
            reach = HEAD
            motion = sway_around(motion, poses, reach)
        if reach not in self._warpers:
            transform = face_transform(self._points)
            self._warpers[reach] = FaceWarper(self._picture, transform, reach)
        flow, mask, colour = (
            part[0].permute(0, 2, 3, 1).float().cpu().numpy()
            for part in (motion.flow, motion.mask, motion.colour)
        )
        for index in range(len(flow)):
            shown = mask[index, ..., 0]
            levels = _levels(colour[index], shown)
            yield self._warpers[reach].draw(flow[index], shown, levels)

    def _support(self, height: int, width: int) -> torch.Tensor:
        """How much of what the decoder does a grid over the crop lets through: (height, width)."""
        size = (height, width)
        if size not in self._supports:
            self._supports[size] = torch.from_numpy(face_support(self._points, height, width))
        return self._supports[size]

    def _gesticulate(self, decoded: Decoded, overlay: Overlay) -> Decoded:
        if decoded.motion is None:
            return Decoded(gesture_frames(decoded.frames[0], overlay)[None], None)
        return self._composed(decoded, gesture_motion(decoded.motion, overlay))

    def _composed(self, decoded: Decoded, motion: Motion) -> Decoded:
        """With another motion; frames are made only where the crop's own are shown."""
        if self._whole or self._size != self._crop:
            return Decoded(decoded.frames, motion)
        return Decoded(compose(self.context.still, motion), motion)

    def _sway(self, decoded: Decoded, poses: torch.Tensor) -> Decoded:
        if decoded.motion is None:
            return Decoded(sway_frames(decoded.frames[0], poses)[None], None)
        return self._composed(decoded, sway_motion(decoded.motion, poses))

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


def lower_part(
    picture: Picture, points: npt.NDArray[np.float32], config: GeneratorConfig
) -> torch.Tensor:
    """The still's ``regions.LOWER_BOX`` at twice the crop's resolution, from the picture.

    Args:
        picture: (H, W, 3) uint8.
        points: (478, 2) landmarks in its pixels.
        config: of the generator, for the crop's size.

    Returns:
        (1, 3, h, w) float32 in [-1, 1].
    """
    height, width = 2 * config.height, 2 * config.width
    top, bottom, left, right = scale_box(LOWER_BOX, height, width)
    to_box = face_transform(points, scale=height / FRAME_HEIGHT)
    to_box[:, 2] -= left, top
    return to_model(crop_face(picture, to_box, bottom - top, right - left)[None])


def _levels(colour: npt.NDArray[np.float32], mask: npt.NDArray[np.float32]) -> Picture:
    """Painted colours (h, w, 3) in [-1, 1] as uint8, where the mask (h, w) lets any through."""
    where = mask > 0
    rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
    levels = np.zeros(colour.shape, np.uint8)
    if len(rows):
        # Some more, since the photo may show the mean of several cells.
        box = tuple(slice(max(at[0] - 16, 0), at[-1] + 17) for at in (rows, columns))
        levels[box] = np.rint((colour[box] + 1) * 127.5).clip(0, 255)
    return levels
