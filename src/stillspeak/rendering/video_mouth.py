"""A talking mouth in any frame of a video.

Skin and lips are the frame's own, moved from where they are to where they should be: pose, light
and expression stay. Teeth come from the frame that shows them best. Where lips that are wide open
in a frame have to move far, they come from a frame in which they are closed.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.face.align import Transform, invert_transform, smoothstep
from stillspeak.rendering.appearance import (
    POSE,
    Appearance,
    ClosedLips,
    cheeks,
    face_at_lips,
    lip_thickness,
    rest_from,
)
from stillspeak.rendering.blend import RING, blend
from stillspeak.rendering.mesh import FaceFrame, face_frame, open_share
from stillspeak.rendering.mouth import Known, MouthLayers
from stillspeak.rendering.raster import Box, Picture, Points, around, box_of, filled
from stillspeak.rendering.teeth import CarriedInside

_GAIN = (0.4, 2.5)  # how much brighter or darker a frame may be lit than the one that lends teeth
_NEAR, _FAR = 0.03, 0.07  # distances by which open lips move from which, and up to which, they
# are borrowed, in distances between the eyes
_PRESSED, _WHOLE = 0.5, 0.8  # share of the lips that is seen: pressed lips are borrowed, too
_WIDER = np.array([1.15, 1.5])  # what is borrowed, over the lips' width and height
_FADE = 0.05  # over which it passes into the frame, in widths of a face
_FACE = 1.6  # width of a face, in distances between the eyes


class _Lender(NamedTuple):
    """Closed lips made ready to be drawn."""

    layers: MouthLayers
    to_picture: Transform
    canvas: Picture


class VideoMouth:
    """Draws a speaker's mouth into the frames of a video, each by its own landmarks.

    Args:
        appearance: of the speaker.
    """

    def __init__(self, appearance: Appearance) -> None:
        self.appearance = appearance
        self._lender = lru_cache(maxsize=None)(self._made_ready)
        self._last: ClosedLips | None = None

    def draw(
        self,
        picture: Picture,
        points: npt.NDArray[np.floating],
        pose: npt.NDArray[np.floating],
        share: float = 1.0,
        moved: Points | None = None,
    ) -> tuple[Picture, Box]:
        """A frame with the mouth in a pose.

        Args:
            picture: (H, W, 3) uint8; it is not changed.
            points: (478, 2) landmarks in its pixels.
            pose: (41, 2) displacements from rest in distances between the eyes.
            share: how much of the drawing shows; 0 leaves the frame as it is.
            moved: (41, 2) how far lips and chin are moved in the face's own frame, averaged over a
                moment: the skin around follows it, and trembles less. None: as in this frame.

        Returns:
            A new (H, W, 3) uint8, equal to ``picture`` outside a box x0, y0, x1, y1.
        """
        flat = np.asarray(points, np.float64)[:, :2]
        frame = face_frame(flat)
        borrowed = self._borrowed(frame, pose)
        layers = self._layers(picture, flat, frame, moved, lips=borrowed < 1)
        out = layers.draw(pose)
        box = layers.drawn
        if borrowed > 0:
            box = around(
                [box, self._borrow(out, frame, layers.ring, np.asarray(pose, np.float64), borrowed)]
            )
        x0, y0, x1, y1 = box
        if share < 1:
            part, was = out[y0:y1, x0:x1], picture[y0:y1, x0:x1].astype(np.float32)
            part[:] = np.rint(was + share * (part - was))
        return out, box

    def _borrowed(self, frame: FaceFrame, pose: npt.NDArray[np.floating]) -> float:
        """How much of another frame's lips is shown: where open or pressed lips move far."""
        own = self.appearance
        if not own.closed:
            return 0.0
        lips = frame.points[POSE]
        seen = lip_thickness(lips) / lip_thickness(own.rest)
        pressed = 1 - smoothstep((seen - _PRESSED) / (_WHOLE - _PRESSED))
        far = np.abs(own.rest + own.scale * pose - lips).max()
        way = smoothstep((far - _NEAR) / (_FAR - _NEAR))
        return max(open_share(frame.points), float(pressed)) * float(way)

    def still(self, picture: Picture, points: npt.NDArray[np.floating]) -> MouthLayers:
        """What draws many poses into one frame (H, W, 3) uint8 with its landmarks (478, 2), and
        corrects them as in a still: frames beside it do not have to agree."""
        flat = np.asarray(points, np.float64)[:, :2]
        return self._layers(picture, flat, face_frame(flat), refiner="released")

    def _layers(
        self,
        picture: Picture,
        points: Points,
        frame: FaceFrame,
        moved: Points | None = None,
        *,
        lips: bool = True,
        refiner: Literal["released"] | None = None,
    ) -> MouthLayers:
        own = self.appearance
        gain = np.clip(cheeks(picture, points, frame.scale) / own.cheeks, *_GAIN)
        back = joined(invert_transform(face_at_lips(frame)), own.to_picture)
        light = own.light._replace(
            teeth=np.minimum(own.light.teeth * gain, 250.0),
            lip=own.light.lip * gain,
            blur=own.light.blur * frame.scale / own.unit,
        )
        rest = rest_from(frame, own.rest, own.scale, moved)
        known = Known(rest, light, CarriedInside(own.inside, back, gain) if lips else None)
        # The frame's light is right already: nothing corrects it.
        return MouthLayers(picture, points, refiner, known)

    def _borrow(
        self, out: Picture, frame: FaceFrame, ring: Points, pose: Points, strength: float
    ) -> Box:
        """Lay lips that were closed over those drawn in a frame, in place, around (20, 2) pixels
        of the outer lips; the box that changed."""
        lender = self._lender(self._nearest(frame))
        lender.layers.draw(pose, lender.canvas)
        width = _FACE * frame.scale
        reach = int((_FADE + RING) * width) + 4
        middle = ring.mean(axis=0)
        axes = frame.axes
        wide = middle + ((ring - middle) @ np.linalg.inv(axes).T * _WIDER) @ axes.T
        x0, y0, x1, y1 = box = box_of(wide, out.shape[0], out.shape[1], reach)
        if x0 >= x1 or y0 >= y1:
            return box
        corner = np.array((x0, y0), np.float64)
        back = joined(invert_transform(face_at_lips(frame)), lender.to_picture)
        back[:, 2] += back[:, :2] @ corner
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        made = cv2.warpAffine(
            lender.canvas, back, (x1 - x0, y1 - y0), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        mask = filled(wide - corner, y1 - y0, x1 - x0)
        part = out[y0:y1, x0:x1]
        part[:] = blend(part, np.asarray(made, np.uint8), mask, width, _FADE, strength)
        return box

    def _nearest(self, frame: FaceFrame) -> ClosedLips:
        """Closed lips of a head turned as this one is; those used last if they are as good."""
        facing = frame.rotation[:, 2]

        def like(lips: ClosedLips) -> float:
            return float(facing @ lips.facing) + (1e-3 if lips is self._last else 0)

        self._last = max(self.appearance.closed, key=like)
        return self._last

    def _made_ready(self, lips: ClosedLips) -> _Lender:
        frame = face_frame(lips.points)
        layers = self._layers(lips.picture, lips.points, frame)
        return _Lender(layers, face_at_lips(frame), lips.picture.copy())


def joined(first: Transform, second: Transform) -> Transform:
    """One (2, 3) transform after the other."""
    return np.asarray(second @ np.vstack([first, (0.0, 0.0, 1.0)]))
