"""From what the decoder gives to the frames that are shown: a chain of steps.

The mouth's pose is drawn in layers into the picture's own pixels, then come the eyes; head and skin
move with all that is drawn. A U-Net paints the aligned crop of 128 x 96 pixels instead, which is
shown at its size, or pasted into the picture, fading to nothing at the face's outline.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from stillspeak.constants import FRAME_HEIGHT
from stillspeak.face.align import Transform, invert_transform, scale_transform, transform_points
from stillspeak.models.decoders import Decoded
from stillspeak.models.pixels import from_model, to_model
from stillspeak.motion.frames import FaceMotion
from stillspeak.rendering.cutout import cut_out
from stillspeak.rendering.head import FaceMover
from stillspeak.rendering.mouth import MouthLayers
from stillspeak.rendering.paste import FacePaster, face_support
from stillspeak.rendering.portrait import Portrait, crop_at
from stillspeak.rendering.raster import Box, Picture, Points

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
        self.drawn: list[Box] = []
        """Boxes x0, y0, x1, y1, ends excluded, that :meth:`draw` and :meth:`look` changed last."""
        self._alpha = portrait.alpha if self._whole else None
        shape = portrait.photo.shape[:2] if self._whole else self._size
        self.height, self.width = int(shape[0]), int(shape[1])

    @torch.inference_mode()
    def render(self, decoded: Decoded, motion: FaceMotion | None = None) -> Iterator[Picture]:
        """Frames (H, W, 3) uint8 of what the decoder gave for one clip, with a motion of as many
        frames; None: nothing but the mouth moves. Those of a cut-out are RGBA, (H, W, 4)."""
        drawn: Iterator[Picture]
        if decoded.pose is not None:
            drawn = (self.draw(pose) for pose in decoded.pose[0].double().cpu().numpy())
            drawn_in = None
        else:
            drawn = self._painted(decoded.frames, motion)
            drawn_in = [self._paster.box if self._whole else (0, 0, self.width, self.height)]
        for index, frame in enumerate(drawn):
            now = None if motion is None else motion.at(index)
            if decoded.pose is not None and now is not None:
                self.look(now, frame)
            frame = self.see_through(frame)
            if now is not None:
                self.move(now, frame, drawn_in or self.drawn)
            yield frame if self._alpha is None else cut_out(frame)

    def draw(self, pose: Points, canvas: Picture | None = None) -> Picture:
        """The picture with the mouth in a pose (41, 2); drawn into ``canvas`` (H, W, 3), a frame of
        the same picture, if given."""
        self.drawn = []
        if self._mouth is not None:
            canvas = self._mouth.draw(pose, canvas)
            self.drawn.append(self._mouth.drawn)
            return canvas
        return self._surface[0].copy() if canvas is None else canvas

    def look(self, motion: FaceMotion, canvas: Picture) -> Picture:
        """Close and turn the eyes in a frame, in place, as one frame's motion says."""
        # Eyes that never move need not be measured.
        moves = motion.closure.any() or motion.gaze.any()
        if moves and self.eyes is not None:
            self.eyes.draw(float(motion.closure[0]), motion.gaze[0], canvas)
            self.drawn += self.eyes.boxes
        return canvas

    def see_through(self, canvas: Picture) -> Picture:
        """A frame as :meth:`move` takes it: that of a cut-out gets the transparency (H, W, 4)."""
        return canvas if self._alpha is None else np.dstack((canvas, self._alpha))

    def move(self, motion: FaceMotion, canvas: Picture, changed: Sequence[Box]) -> Picture:
        """Move head and skin in a frame, in place. What moves along must be drawn by now: of
        several faces in one picture, all of them. ``changed`` are boxes beyond which the frame is
        the picture: :attr:`drawn` of all faces, and :attr:`reach` of those moved before."""
        moves = motion.head.any() or motion.units.any()
        if moves and self._mover is not None:
            self._mover.draw(motion.head[0], motion.units[0], canvas, changed)
        return canvas

    @property
    def transparent(self) -> bool:
        """Whether the picture is a cut-out, and frames are RGBA."""
        return self._alpha is not None

    @property
    def reach(self) -> Box:
        """The box of what :meth:`move` can change."""
        return (0, 0, 0, 0) if self._mover is None else self._mover.box

    def _painted(self, frames: torch.Tensor, motion: FaceMotion | None) -> Iterator[Picture]:
        """A U-Net's frames (1, T, 3, h, w) at the size that is shown, with their eyes moved."""
        if self._whole:
            frames = torch.lerp(self.portrait.still[:, None], frames, self._support.to(frames))
        for index, frame in enumerate(torch.split(frames[0], 1)):
            eyes = None if motion is None else motion.at(index)
            if eyes is not None and self._eyes_of_crop is not None:
                painted = from_model(frame)[0]
                self._eyes_of_crop.draw(float(eyes.closure[0]), eyes.gaze[0], painted)
                frame = to_model(painted[None]).to(frames)
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
        """What draws the eyes into the picture that is shown; None: no face was found."""
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
    def _mover(self) -> FaceMover | None:
        """What moves head and skin in the picture that is shown; None: no face was found."""
        picture, to_crop = self._surface
        points = self._points_in(to_crop)
        if points is None:
            return None
        to_surface = invert_transform(to_crop)
        others = [
            transform_points(transform_points(other, self.portrait.pose), to_surface)
            for other in self.portrait.others
        ]
        spectacles = self.eyes is not None and self.eyes.spectacles
        return FaceMover(self.see_through(picture), points, others=others, spectacles=spectacles)

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
