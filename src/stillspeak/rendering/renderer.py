"""From what the decoder gives to the frames that are shown: a chain of steps.

The mouth's pose is drawn in layers into the picture's own pixels, then come the eyes, then the
head's movement. A U-Net paints the aligned crop of 128 x 96 pixels instead; its frames are shown at
the crop's size, or pasted into the picture, fading to nothing at the face's outline.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from stillspeak.constants import FRAME_HEIGHT
from stillspeak.face.align import Transform, invert_transform, scale_transform, transform_points
from stillspeak.models.decoders import Decoded
from stillspeak.models.pixels import from_model, to_model
from stillspeak.rendering.head import CROP, HEAD, HeadWarper, move_head_in_frames
from stillspeak.rendering.mouth import MouthLayers
from stillspeak.rendering.paste import FacePaster, face_support
from stillspeak.rendering.portrait import Portrait, crop_at
from stillspeak.rendering.raster import Picture, Points

if TYPE_CHECKING:
    from stillspeak.rendering.eyes import EyeLayers


class FaceRenderer:
    """Renders frames of one face in one picture. What is constant in a clip is made once.

    Args:
        portrait: the face.
        crop: show the bare crop instead of the whole photo.
        size: height of the bare crop; the generator's own if None. A whole photo keeps its own.
    """

    def __init__(self, portrait: Portrait, *, crop: bool = False, size: int | None = None) -> None:
        self.portrait = portrait
        self._whole = not crop
        height, width = portrait.crop.shape[:2]
        self._crop = (height, width)
        lines = size if crop and size is not None else height
        # Rows and columns must come out whole and keep the crop's shape.
        rows = max(round(lines / 4) * 4, 4)
        self._size = (rows, round(rows * width / height))
        shape = portrait.photo.shape[:2] if self._whole else self._size
        self.height, self.width = int(shape[0]), int(shape[1])

    @torch.inference_mode()
    def render(
        self,
        decoded: Decoded,
        poses: torch.Tensor | None = None,
        curves: torch.Tensor | None = None,
    ) -> Iterator[Picture]:
        """Frames (H, W, 3) uint8 of what the decoder gave for one clip.

        ``poses`` (T, 3) moves the head, see :mod:`stillspeak.rendering.head`, and ``curves`` (T, 4)
        eyes and brows, see :mod:`stillspeak.rendering.eyes`; None leaves them.
        """
        if decoded.pose is None:
            yield from self._painted(decoded.frames, poses, curves)
            return
        flows = None if poses is None else self._head.flows(poses)
        for index, pose in enumerate(decoded.pose[0].double().cpu().numpy()):
            frame = self._surface[0].copy() if self._mouth is None else self._mouth.draw(pose)
            # Eyes that never move need not be measured.
            if curves is not None and curves[index].any() and self.eyes is not None:
                frame = self.eyes.draw(curves[index].numpy(), frame)
            if flows is not None:
                frame = self._head.draw(flows[index], frame)
            yield frame

    def _painted(
        self, frames: torch.Tensor, poses: torch.Tensor | None, curves: torch.Tensor | None
    ) -> Iterator[Picture]:
        """The same of a U-Net's frames (1, T, 3, h, w)."""
        if self._whole:
            frames = torch.lerp(self.portrait.still[:, None], frames, self._support.to(frames))
        frames = frames[0]
        if curves is not None and self._eyes_of_crop is not None:
            crops = from_model(frames)
            for crop, row in zip(crops, curves.numpy(), strict=True):
                self._eyes_of_crop.draw(row, crop)
            frames = to_model(crops).to(frames)
        if poses is not None:
            frames = move_head_in_frames(frames, poses)
        for frame in torch.split(frames, 1):
            if self._size != self._crop:
                frame = torch.nn.functional.interpolate(frame, self._size, mode="bicubic")
            crop = from_model(frame)[0]
            yield self._paster.paste(crop) if self._whole else crop

    @cached_property
    def _surface(self) -> tuple[Picture, Transform]:
        """The picture that is shown, and its pixels' places in the crop of 128 x 96."""
        portrait = self.portrait
        if self._whole:
            return portrait.photo, portrait.pose
        return crop_at(portrait.photo, portrait.pose, *self._size), _of_crop(self._size[0])

    @cached_property
    def _mouth(self) -> MouthLayers | None:
        """What draws the mouth; None: no face was found."""
        picture, to_crop = self._surface
        points = self._points_in(to_crop)
        return None if points is None else MouthLayers(picture, points)

    @cached_property
    def eyes(self) -> EyeLayers | None:
        """What draws eyes and brows into the picture that is shown; None: no face was found."""
        return self._eyes_in(*self._surface)

    @cached_property
    def _eyes_of_crop(self) -> EyeLayers | None:
        """The same for frames as the generator paints them."""
        return self._eyes_in(self.portrait.crop, _of_crop(self._crop[0]))

    def _eyes_in(self, picture: Picture, to_crop: Transform) -> EyeLayers | None:
        points = self._points_in(to_crop)
        if points is None:
            return None
        from stillspeak.rendering.eyes import EyeLayers  # loads SciPy

        return EyeLayers(picture, points)

    @cached_property
    def _head(self) -> HeadWarper:
        """What moves the head."""
        picture, to_crop = self._surface
        return HeadWarper(picture.shape[:2], to_crop, HEAD if self._whole else CROP)

    @cached_property
    def _support(self) -> torch.Tensor:
        """How much of what a U-Net paints shows in the photo: (h, w)."""
        portrait = self.portrait
        assert portrait.points is not None
        return torch.from_numpy(face_support(portrait.points, portrait.pose, *self._crop))

    @cached_property
    def _paster(self) -> FacePaster:
        transform = scale_transform(self.portrait.pose, self._size[0] / FRAME_HEIGHT)
        return FacePaster(self.portrait.photo, transform, *self._size)

    def _points_in(self, to_crop: Transform) -> Points | None:
        """The landmarks in a picture whose pixels' places in the crop of 128 x 96 are known."""
        if self.portrait.points is None:
            return None
        points = transform_points(self.portrait.points, self.portrait.pose)
        return np.asarray(transform_points(points, invert_transform(to_crop)), np.float64)


def _of_crop(rows: int) -> Transform:
    """Pixels of an aligned crop with so many rows -> pixels of the one with 128."""
    return scale_transform(np.eye(2, 3), FRAME_HEIGHT / rows)
