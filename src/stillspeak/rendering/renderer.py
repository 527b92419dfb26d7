"""From what the decoder gives to the frames that are shown.

A mouth's pose is drawn in layers into the picture's own pixels. A U-Net paints the aligned crop of
128 x 96 pixels; its frames are shown at the crop's size, or drawn into the picture where they
differ from the still, fading to nothing at the face's outline.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.face.align import Transform, invert_transform, scale_transform, transform_points
from stillspeak.models.decoders import Decoded
from stillspeak.models.pixels import from_model, to_model
from stillspeak.rendering.eyes import EyeLayers
from stillspeak.rendering.head import (
    CROP,
    HEAD,
    Reach,
    head_field,
    move_head_in_frames,
)
from stillspeak.rendering.layers import MouthLayers
from stillspeak.rendering.paste import FacePaster
from stillspeak.rendering.portrait import Picture, Portrait, crop_at
from stillspeak.rendering.warp import FaceWarper, face_support


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
        self._warpers: dict[Reach, FaceWarper] = {}
        self._supports: dict[tuple[int, int], torch.Tensor] = {}
        shape = portrait.photo.shape[:2] if self._whole else self._size
        self.height, self.width = int(shape[0]), int(shape[1])

    @cached_property
    def _paster(self) -> FacePaster:
        transform = scale_transform(self.portrait.pose, self._size[0] / FRAME_HEIGHT)
        return FacePaster(self.portrait.photo, transform, *self._size)

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
        if decoded.pose is not None:
            yield from self._draw_layers(decoded.pose[0], poses, curves)
            return
        if self._whole:
            support = self._support(*self._crop).to(decoded.frames)
            decoded = Decoded(torch.lerp(self.portrait.still[:, None], decoded.frames, support))
        if curves is not None and self._eyes_of_crop is not None:
            decoded = self._draw_eyes(decoded, self._eyes_of_crop, curves)
        if poses is not None:
            decoded = Decoded(move_head_in_frames(decoded.frames[0], poses)[None])
        for index in range(decoded.frames.shape[1]):
            crop = self._draw(decoded, index)
            yield self._paster.paste(crop) if self._whole else crop

    @cached_property
    def _surface(self) -> tuple[Picture, npt.NDArray[np.float64]]:
        """The picture that is shown, and its pixels' places in the crop of 128 x 96."""
        portrait = self.portrait
        if self._whole:
            return portrait.photo, portrait.pose
        crop = crop_at(portrait.photo, portrait.pose, *self._size)
        return crop, scale_transform(np.eye(2, 3), FRAME_HEIGHT / len(crop))

    @cached_property
    def _layers(self) -> MouthLayers | None:
        """What draws the mouth; None: nobody found a face."""
        points = self._points_in(self._surface[1])
        return None if points is None else MouthLayers(self._surface[0], points)

    @cached_property
    def eyes(self) -> EyeLayers | None:
        """What draws eyes and brows into the picture that is shown; None: nobody found a face."""
        points = self._points_in(self._surface[1])
        return None if points is None else EyeLayers(self._surface[0], points)

    @cached_property
    def _eyes_of_crop(self) -> EyeLayers | None:
        """The same for frames as the generator paints them."""
        crop = self.portrait.crop
        points = self._points_in(scale_transform(np.eye(2, 3), FRAME_HEIGHT / len(crop)))
        return None if points is None else EyeLayers(crop, points)

    def _points_in(self, to_crop: Transform) -> npt.NDArray[np.float64] | None:
        """The landmarks in a picture whose pixels' places in the crop of 128 x 96 are known."""
        if self.portrait.points is None:
            return None
        points = transform_points(self.portrait.points, self.portrait.pose)
        return np.asarray(transform_points(points, invert_transform(to_crop)), np.float64)

    def _draw_layers(
        self, mouth: torch.Tensor, poses: torch.Tensor | None, curves: torch.Tensor | None
    ) -> Iterator[Picture]:
        """Frames whose mouth is drawn in layers, (T, 41, 2), then the eyes, and the head moved."""
        picture, to_crop = self._surface
        flows: npt.NDArray[np.float32] | None = None
        reach = HEAD if self._whole else CROP
        if poses is not None:
            size = (round(reach[1] * FRAME_HEIGHT / 2), round(reach[0] * FRAME_WIDTH / 2))
            field = head_field(poses, *size, reach)
            flows = field.permute(0, 2, 3, 1).float().cpu().numpy()
            if reach not in self._warpers:
                self._warpers[reach] = FaceWarper(picture, to_crop, reach)
        for index, pose in enumerate(mouth.double().cpu().numpy()):
            frame = picture.copy() if self._layers is None else self._layers.draw(pose)
            # Who never moves needs no eyes measured.
            if curves is not None and curves[index].any() and self.eyes is not None:
                frame = self.eyes.draw(curves[index].numpy(), frame)
            if flows is not None:
                frame = self._warpers[reach].draw(flows[index], frame)
            yield frame

    def _support(self, height: int, width: int) -> torch.Tensor:
        """How much of what the decoder does a grid over the crop lets through: (height, width)."""
        size = (height, width)
        if size not in self._supports:
            assert self.portrait.points is not None
            support = face_support(self.portrait.points, self.portrait.pose, height, width)
            self._supports[size] = torch.from_numpy(support)
        return self._supports[size]

    @staticmethod
    def _draw_eyes(decoded: Decoded, eyes: EyeLayers, curves: torch.Tensor) -> Decoded:
        """Frames of the generator's size with eyes and brows drawn in."""
        frames = from_model(decoded.frames[0])
        for frame, row in zip(frames, curves.numpy(), strict=True):
            eyes.draw(row, frame)
        return Decoded(to_model(frames)[None].to(decoded.frames))

    def _draw(self, decoded: Decoded, index: int) -> Picture:
        frame = decoded.frames[:, index : index + 1]
        if self._size != self._crop:
            frame = torch.nn.functional.interpolate(
                frame[0], self._size, mode="bicubic", align_corners=False
            )[None]
        picture: Picture = from_model(frame[0])[0]
        return picture
