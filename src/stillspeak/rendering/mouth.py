"""A talking mouth in any photo: skin and lips moved, and behind them teeth, tongue and the dark."""

from __future__ import annotations

from typing import Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.face.align import smoothstep
from stillspeak.face.mouth import CHIN, LIPS
from stillspeak.models.refiner import MouthRefiner
from stillspeak.rendering.light import Light, still_light
from stillspeak.rendering.lipline import inner_lips, landmark_lips
from stillspeak.rendering.mesh import Rest, face_frame, rest_pose
from stillspeak.rendering.raster import Box, Floats, Picture, Points, around, box_of, filled, soft
from stillspeak.rendering.refine import Refinement, View, released_refiner
from stillspeak.rendering.sheets import ALONG, DRAWN, LipContours, LipSheets, Sheets, cubic_through
from stillspeak.rendering.teeth import CarriedInside, InsideMouth

_SHADE = 0.035  # how far the lips' shadow reaches, in distances between the eyes
_CREASE = 0.006  # half the width of the line between lips that met after the still was taken
_CREASE_DARK = 0.7
_FROM_ABOVE = 0.02  # how much further down it falls
_LOWER_LIP = 25  # the middle of the lower inner lip, in a pose
_FOLD = 0.05  # how much of a lip is folded inwards at its contour
_ONE_MAP = np.empty(0, np.float32)  # x and y of what is fetched are in the first map
_STILL = 0.03  # pixels by which nothing is seen to move
_RIM, _RIM_DARK = 0.014, 0.3  # how far the lips' inner rim is darker, and how much


class Hole(NamedTuple):
    """Where one frame shows the inside of the mouth."""

    share: Floats  # (h, w) float32, of each pixel, 0 to 1
    corner: tuple[int, int]  # x, y of the first pixel in the picture
    moved: float  # 0 where the mouth is the still's, 1 where it has moved


class Known(NamedTuple):
    """What a video tells of a mouth, and a still alone does not. Without an inside only the skin is
    drawn: other lips will cover it."""

    rest: Rest
    light: Light
    inside: CarriedInside | None


class MouthLayers:
    """Draws one still with its mouth in any pose. A frame depends on its pose alone.

    Args:
        picture: (H, W, 3) uint8.
        points: (478, 2) landmarks of the face in pixels of the picture, or (478, 3) with depth.
        refiner: corrects what is drawn; the one that comes with the package if "released".
        known: of the mouth, where the picture is a frame of a video.

    Attributes:
        box: x0, y0, x1, y1 of the pixels that can change, ends excluded.
        open: share, 0 to 1, by which the still's own mouth counts as open.
        light: of the still.
        view: what a refiner sees.
        drawn: x0, y0, x1, y1 of the pixels that the last frame changed, ends excluded.
        ring: (20, 2) pixels of its outer lips.
        last: how the last frame was drawn; a refiner is trained on it.
    """

    def __init__(
        self,
        picture: Picture,
        points: npt.NDArray[np.floating],
        refiner: MouthRefiner | Literal["released"] | None = "released",
        known: Known | None = None,
    ) -> None:
        self._picture = np.ascontiguousarray(picture)
        rows, columns = picture.shape[:2]
        frame = face_frame(points)
        flat = np.asarray(points, np.float64)[:, :2]
        rest = rest_pose(frame.points) if known is None else known.rest
        self.open = rest.open
        self._unit = frame.scale
        self._jaw_to_picture = rest.scale * frame.jacobians[CHIN]
        self._down = frame.axes[:, 1]
        self._across = np.array([self._down[1], -self._down[0]])
        if known is None:
            face = box_of(flat, rows, columns)
            self.light = still_light(self._picture, flat, frame.scale, face)
        else:
            self.light = known.light
        light = self.light
        self._blur = max(0.75 * light.blur, 0.004 * frame.scale)
        bare = known is not None and known.inside is None
        look = (frame, flat, rest, light.blur)
        lips = landmark_lips(flat) if bare else inner_lips(self._picture, *look)
        self._sheets = LipSheets(frame, rest, lips.upper, lips.lower, flat, (rows, columns))
        self.box = x0, y0, x1, y1 = self._sheets.box
        x, y = np.arange(x0, x1, dtype=np.float32), np.arange(y0, y1, dtype=np.float32)
        self._places = np.stack(np.meshgrid(x, y), axis=-1)
        seam = self._sheets.seam
        self._inside: InsideMouth | CarriedInside | None
        if known is None:
            self._inside = InsideMouth(self._picture, frame, rest, lips, seam, light)
        else:
            self._inside = known.inside
        if not bare:
            self._upper = self._folded(lips.upper, 1)
            self._lower = self._folded(lips.lower, -1)
        self.view = View(seam[[0, -1]].mean(axis=0), frame.axes, frame.scale)
        self.drawn: Box = (0, 0, 0, 0)
        self.ring = flat[list(LIPS[:20])]
        self.last: Hole | None = None
        self._refinement: Refinement | None = None
        if refiner is not None and self.box[0] < self.box[2] and self.box[1] < self.box[3]:
            network = released_refiner() if refiner == "released" else refiner
            given = (self._picture, self.view, light.teeth, self.box)
            self._refinement = Refinement(*given, self._sheets.fade_in(self.view), network)

    def _folded(self, line: Points, beyond: int) -> Picture:
        """The still's box with a lip going on beyond its inner contour (ALONG, 2), over what lies
        below it (1) or above (-1): so the contour can be drawn through pixels of one lip alone."""
        x0, y0, x1, y1 = self.box
        part = self._picture[y0:y1, x0:x1]
        if not part.size:
            return part
        x, y = np.arange(x0, x1), np.arange(y0, y1)[:, None]
        u, v = (x * axis[0] + y * axis[1] for axis in (self._across, self._down))
        fine = cubic_through(ALONG, DRAWN) @ line
        ends = fine @ self._across
        over = beyond * (v - np.interp(u, ends, fine @ self._down))
        # Folded back at the contour, and no further than the lip is thick.
        depth = _FOLD * self._unit
        over = np.where((u > ends.min()) & (u < ends.max()), np.maximum(over, 0), 0)
        back = -beyond * (over + depth * (1 - np.exp(-over / depth))) * (over > 0)
        map_x = (x - x0 + back * self._down[0]).astype(np.float32)
        map_y = (y - y0 + back * self._down[1]).astype(np.float32)
        return np.asarray(
            cv2.remap(part, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        )

    def draw(self, pose: npt.NDArray[np.floating], out: Picture | None = None) -> Picture:
        """The still with its mouth in a pose.

        Args:
            pose: (41, 2) displacements of ``face.mouth.POSE_POINTS`` from the mouth at rest, in the
                face's own frame and in distances between the eyes.
            out: (H, W, 3) uint8 to draw into, the still or a frame drawn before; a new copy of
                the still if None.

        Returns:
            (H, W, 3) uint8: ``out``, equal to the still outside :attr:`box`.
        """
        if out is None:
            out = self._picture.copy()
        x0, y0, x1, y1 = self.box
        if x0 >= x1 or y0 >= y1:
            return out
        targets = self._sheets.targets(pose)
        self.ring = targets[:20]
        lips = self._sheets.contours(targets)
        sheets = self._sheets.sheets(targets, lips, parted=self._inside is not None)
        share = self._sheets.moved(targets)
        boxes = [self._pixels(sheets.cells)]
        for cells in _around(sheets.cells, self._sheets.rows, self._sheets.columns):
            cells = _moving(sheets.skin, cells)
            box = self._pixels(cells)
            if box[0] < box[2] and box[1] < box[3]:
                moved = self._moved(self._picture, (0, 0), sheets.skin, cells, box)
                out[box[1] : box[3], box[0] : box[2]] = moved
                boxes.append(box)
        box = boxes[0]
        some = box[0] < box[2] and box[1] < box[3]
        if some and self._inside is None:
            moved = self._moved(self._picture, (0, 0), sheets.skin, sheets.cells, box)
            out[box[1] : box[3], box[0] : box[2]] = moved
        elif some:
            hole, corner = self._draw_mouth(out, box, sheets, lips, np.asarray(pose, np.float64))
            self.last = Hole(hole, corner, share)
            if self._refinement is not None and share:
                self._refinement.apply(out, hole, corner, share)
                boxes.append(self._refinement.box)
        self.drawn = around(boxes)
        return out

    def _moved(
        self, source: Picture, corner: tuple[int, int], offsets: Floats, cells: Box, box: Box
    ) -> Picture:
        """The pixels of a box, each fetched from where its offset points.

        Args:
            source: the picture, or a part of it whose first pixel is at ``corner``.
            offsets: (h, w, 2) on the whole coarse grid, pixels.
            cells: rows and columns, ends excluded, that cover the box.
        """
        step, (left, top) = self._sheets.step, self._sheets.corner
        # Two more cells on each side, so that the cubic is the same wherever it is cut.
        r0, r1 = max(cells[0] - 2, 0), min(cells[1] + 2, self._sheets.rows)
        c0, c1 = max(cells[2] - 2, 0), min(cells[3] + 2, self._sheets.columns)
        size = ((c1 - c0) * step, (r1 - r0) * step)
        x0, y0, x1, y1 = box
        window = (
            slice(y0 - top - r0 * step, y1 - top - r0 * step),
            slice(x0 - left - c0 * step, x1 - left - c0 * step),
        )
        coarse = offsets[r0:r1, c0:c1] - np.array(corner, np.float32)
        fine = cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        places = np.array(fine[window], np.float32)
        bx, by = self.box[:2]
        places += self._places[y0 - by : y1 - by, x0 - bx : x1 - bx]
        return np.asarray(
            cv2.remap(source, places, _ONE_MAP, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        )

    def _pixels(self, cells: Box) -> Box:
        """x0, y0, x1, y1 of the picture's pixels in rows and columns of cells."""
        step, (left, top) = self._sheets.step, self._sheets.corner
        r0, r1, c0, c1 = cells
        x0, y0, x1, y1 = self.box
        return (
            max(left + c0 * step, x0),
            max(top + r0 * step, y0),
            min(left + c1 * step, x1),
            min(top + r1 * step, y1),
        )

    def _draw_mouth(
        self, out: Picture, box: Box, sheets: Sheets, lips: LipContours, pose: Points
    ) -> tuple[Floats, tuple[int, int]]:
        """Part the sheets, show what is behind them; the hole (h, w) and its first pixel's x, y."""
        corner = self.box[:2]
        x0, y0, x1, y1 = box
        part = out[y0:y1, x0:x1]
        below = self._below((lips.upper + lips.lower) / 2, box)
        # Each sheet is fetched where it shows: few rows show both.
        rows = [np.flatnonzero((share > 0).any(axis=1)) for share in (1 - below, below)]
        shown = []
        lip_sheets = ((self._upper, sheets.upper), (self._lower, sheets.lower))
        for (source, sheet), seen in zip(lip_sheets, rows, strict=True):
            first, last = (int(seen[0]), int(seen[-1]) + 1) if len(seen) else (0, 0)
            moved = np.zeros(part.shape, np.uint8)
            if first < last:
                at = (x0, y0 + first, x1, y0 + last)
                moved[first:last] = self._moved(source, corner, sheet, sheets.cells, at)
            shown.append(moved)
        part[:] = cv2.blendLinear(shown[1], shown[0], below, 1 - below)
        self._draw_crease(part, lips, box)
        none = np.zeros((1, 1), np.float32), (x0, y0)
        if not lips.gap.any():
            return none
        ring = np.concatenate([lips.upper, lips.lower[::-1]])
        reach = int(2 * _RIM * self._unit + 4 * self._blur) + 3
        w0, h0, w1, h1 = box_of(ring - (x0, y0), y1 - y0, x1 - x0, reach)
        if w0 >= w1 or h0 >= h1:
            return none
        at = (x0 + w0, y0 + h0, x0 + w1, y0 + h1)
        share = soft(filled(ring - np.array(at[:2]), h1 - h0, w1 - w0), self._blur)
        self._fill(part[h0:h1, w0:w1], share, at, pose)
        return share, at[:2]

    def _fill(self, part: Picture, hole: Floats, box: Box, pose: Points) -> None:
        """Show the inside of the mouth through a hole (h, w) in a part of the frame."""
        if hole.max() <= 1 / 512:
            return
        # The chin's skin gives way; the teeth below go between it and the lip.
        jaw = self._jaw_to_picture @ (0.65 * pose[-1] + 0.35 * pose[_LOWER_LIP])
        assert self._inside is not None
        inside = self._inside.draw(box, jaw, light_within(hole, self._unit, self._down))
        # What lips turn inwards gets less light.
        rim = soft(hole, _RIM * self._unit)
        skin = part * (1 - _RIM_DARK * rim)[..., None]
        skin += hole[..., None] * (inside - skin)
        part[:] = np.clip(skin + 0.5, 0, 255).astype(np.uint8)

    def _below(self, line: Points, box: Box) -> Floats:
        """(h, w) the share of each pixel of a box below a contour, which goes on straight."""
        x0, y0, x1, y1 = box
        far = 4.0 * (x1 - x0 + y1 - y0)
        first, last = line[0] - far * self._across, line[-1] + far * self._across
        under = far * self._down
        ring = np.concatenate([[first], line, [last, last + under, first + under]])
        top, bottom = y0, y1
        slope = self._across[1] / max(self._across[0], 1e-3)
        if self._down[1] > 0.7:
            # Upright as most faces are, few rows are neither all above nor all below.
            ends = line[0, 1] + (x0 - line[0, 0]) * slope, line[-1, 1] + (x1 - line[-1, 0]) * slope
            heights = np.concatenate([line[:, 1], ends])
            top = int(np.clip(np.floor(heights.min()) - 1, y0, y1))
            bottom = int(np.clip(np.ceil(heights.max()) + 2, top, y1))
        below = np.zeros((y1 - y0, x1 - x0), np.float32)
        below[bottom - y0 :] = 1
        if top < bottom:
            ring -= np.array((x0, top))
            below[top - y0 : bottom - y0] = filled(ring, bottom - top, x1 - x0)
        return below

    def _draw_crease(self, part: Picture, lips: LipContours, box: Box) -> None:
        """The dark line between lips that met after the still was taken."""
        if self.open == 0:
            return
        near = 1 - smoothstep(lips.gap / (0.05 * self._unit))
        ends = np.sin(np.linspace(0, np.pi, len(near))) ** 0.5
        wide = (_CREASE * self._unit * near * ends)[:, None] * self._down
        middle = (lips.upper + lips.lower) / 2
        ring = np.concatenate([middle - wide, (middle + wide)[::-1]]) - np.array(box[:2])
        reach = int(3 * _CREASE * self._unit) + 3
        w0, h0, w1, h1 = box_of(ring, part.shape[0], part.shape[1], reach)
        part = part[h0:h1, w0:w1]
        if not part.size:
            return
        line = filled(ring - np.array((w0, h0)), part.shape[0], part.shape[1])
        line = soft(line, max(0.6 * _CREASE * self._unit, 0.6))
        share = (_CREASE_DARK * self.open * line)[..., None]
        assert self._inside is not None
        part[:] = (part + share * (self._inside.shade - part) + 0.5).astype(np.uint8)


def light_within(hole: Floats, unit: float, down: Points) -> Floats:
    """(h, w) the light that comes past the lips, 0 to 1, for a hole (h, w) of a mouth with ``unit``
    pixels between the eyes and the face's ``down`` (2,)."""
    sigma = _SHADE * unit
    edge = int(2 * sigma) + 1
    padded = cv2.copyMakeBorder(hole, edge, edge, edge, edge, cv2.BORDER_CONSTANT, value=0)
    small = max(int(sigma // 2), 1)
    size = (max(padded.shape[1] // small, 1), max(padded.shape[0] // small, 1))
    light = soft(cv2.resize(padded, size, interpolation=cv2.INTER_AREA), sigma / small)
    # Light falls in from above: it is the upper lip that throws a shadow.
    shift = edge - _FROM_ABOVE * unit * down
    start = (shift + 0.5) / small - 0.5
    to_small = np.array([[1 / small, 0, start[0]], [0, 1 / small, start[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    light = cv2.warpAffine(light, to_small, hole.shape[::-1], flags=flags)
    return np.asarray(np.clip(1.6 * light - 0.1, 0.1, 1), np.float32)


def _around(cells: Box, rows: int, columns: int) -> tuple[Box, ...]:
    """Rows and columns, ends excluded, of what lies around a block of cells."""
    r0, r1, c0, c1 = cells
    return (0, r0, 0, columns), (r1, rows, 0, columns), (r0, r1, 0, c0), (r0, r1, c1, columns)


def _moving(offsets: Floats, cells: Box) -> Box:
    """The part of a block of cells, and one more around it, beyond which no pixel moves visibly."""
    r0, r1, c0, c1 = cells
    moves = np.abs(offsets[r0:r1, c0:c1]).max(axis=2) > _STILL
    rows, columns = np.flatnonzero(moves.any(axis=1)), np.flatnonzero(moves.any(axis=0))
    if not len(rows):
        return r0, r0, c0, c0
    return (
        max(r0 + int(rows[0]) - 1, r0),
        min(r0 + int(rows[-1]) + 2, r1),
        max(c0 + int(columns[0]) - 1, c0),
        min(c0 + int(columns[-1]) + 2, c1),
    )
