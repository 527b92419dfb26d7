"""A head that moves in depth and a face that shows feelings: one displacement field, one look-up.

The head turns, nods and tilts about the top of the neck. How far each pixel goes follows from its
depth: the average face's at the landmarks, the skull's around them. Hair and ears go along, the
shoulders stay. In between the picture gives way: nothing tears, and what would come out from behind
is filled by what was beside it. Action units displace the skin at the landmarks. All this is known
on a coarse grid; each pixel of the frame then looks up where it comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from itertools import zip_longest
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.face.align import smoothstep
from stillspeak.face.mouth import INNER_LIPS
from stillspeak.motion.frames import UNITS
from stillspeak.rendering.mesh import FaceFrame, face_frame, face_model
from stillspeak.rendering.raster import Box, Floats, Picture, Points, around, box_of, soft
from stillspeak.rendering.sheets import thin_plate, thin_plate_spline

# Lengths are in distances between the eyes, x to the face's right, y down from the eyes, z away.
PIVOT = (0.0, 1.25, 1.15)
"""What the head turns about: the top of the neck."""

CELL = 0.055
"""Side of a cell of the grid."""

_SKULL = 1.0  # depth of the head's outline, and of all around it
_CROWN, _SIDE = 1.95, 1.4  # how far hair reaches above the eyes and to either side
_MIDDLE = 0.1  # height of the head's middle
_FADE = 0.85  # over which movement ends beyond the hair, as a share of its distance
_CHIN, _SHOULDERS = 1.9, 3.7  # heights between which the neck gives way
_EDGE = 0.7  # over which movement across the picture's edge ends before it
_OVAL_RING = 1.3  # times as far from the nose as the face's outline: no unit moves skin there
_BAND = 6  # rows of cells that are drawn at a time
_SOLVE = 4  # steps in which the field is turned round
_SMOOTH = 0.2  # standard deviation over which depth is smoothed
_STILL = 0.02  # pixels by which nothing is seen to move
_BOUND = 1.35  # largest intensity of a unit
_NEAR_OTHERS = 0.16  # share of the way to another face over which movement ends half way to it
_LARGEST = 2**22  # pixels up to which samples between them are kept
_RESOURCE = "resources/face_units.safetensors"

_OUTLINE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
    148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
_NOSE = 1

BROWS = ("inner_brow_raiser", "outer_brow_raiser", "brow_lowerer")
LIDS = ("upper_lid_raiser", "lid_tightener", "cheek_raiser")


@cache
def unit_fields() -> npt.NDArray[np.float64]:
    """(len(UNITS), 478, 2) displacements along the skin for each action unit at intensity 1."""
    from safetensors.numpy import load

    stored = load(resources.files("stillspeak").joinpath(_RESOURCE).read_bytes())
    fields = stored["units"].astype(np.float64)
    assert len(fields) == len(UNITS)
    fields.flags.writeable = False
    return fields


class FaceMover:
    """Moves the head and the face's skin in frames of one picture.

    Args:
        picture: (H, W, 3) uint8, or (H, W, 4) where frames are so, too.
        points: (478, 2) landmarks of the face in its pixels, or (478, 3) with depth.
        others: landmarks of other faces in the picture: movement ends half way to them.
        spectacles: it wears some, which would bend if the skin behind them moved in full.

    Attributes:
        box: x0, y0, x1, y1 of the pixels that can change, ends excluded.
    """

    def __init__(
        self,
        picture: Picture,
        points: npt.NDArray[np.floating],
        *,
        others: Sequence[npt.NDArray[np.floating]] = (),
        spectacles: bool = False,
    ) -> None:
        self._size = picture.shape[:2]
        self._frame = frame = face_frame(points)
        flat = np.asarray(points, np.float64)[:, :2]
        self._lay_grid()
        centres, values = self._known(flat)
        places = self._cells.reshape(-1, 2)
        kernel = thin_plate(places / frame.scale, centres / frame.scale)
        weights, plane = thin_plate_spline(centres / frame.scale, values)
        at = (places / frame.scale).astype(np.float32)
        fields = kernel @ weights + at @ plane[1:] + plane[0]
        fields = fields.reshape(*self._cells.shape[:2], -1)
        let = self._let_through(flat, others)
        skin = fields[..., 1:] * (self._in_face(flat)[..., None] * frame.scale)
        skin = skin.reshape(*skin.shape[:2], -1, 2).transpose(2, 3, 0, 1)
        for name in (*BROWS, *LIDS) if spectacles else ():
            skin[UNITS.index(name)] *= 0.35 if name in BROWS else 0.5
        self._units = np.ascontiguousarray(skin * self._edges, np.float32)
        # An outline is steep, and steps in depth would show in it as waves.
        camera = self._in_camera(soft(fields[..., 0].astype(np.float32), _SMOOTH / CELL))
        pivot = frame.rotation @ PIVOT
        arm = (camera - pivot) * (frame.scale * self._head_share(camera) * let)[..., None]
        self._arms = np.ascontiguousarray(np.moveaxis(arm, -1, 0), np.float32)
        self._source = Samples(picture, self.box)

    def draw(
        self,
        head: npt.NDArray[np.floating],
        units: npt.NDArray[np.floating],
        frame: Picture,
        changed: Sequence[Box] = (),
    ) -> Picture:
        """Move the face in a frame, in place.

        Args:
            head: (3,) degrees: turn, nod, tilt; see :class:`~stillspeak.motion.frames.FaceMotion`.
            units: (len(UNITS),) intensities.
            frame: as the picture, with everything drawn that moves along.
            changed: boxes beyond which the frame is the picture.

        Returns:
            ``frame``; the same, pixel by pixel, where nothing moves.
        """
        if not (np.any(head) or np.any(units)):
            return frame
        moved = self._displacement(head, units)
        x0, y0, x1, y1 = self._touched(moved)
        if x0 >= x1 or y0 >= y1:
            return frame
        self._source.update(frame, changed)
        (left, top), step = self.corner, self.step
        times = np.float32(self._source.times)
        x, y = (
            (place - first) * times
            for place, first in zip(self._sources(moved), self.box, strict=False)
        )
        # A few rows of cells at a time, which the processor's cache holds.
        begin, end = (y0 - top) // step, -(-(y1 - top) // step)
        for row in range(begin, end, _BAND):
            above, below = max(row - 1, 0), min(row + _BAND + 1, self.rows)
            size = (self.columns * step, (below - above) * step)
            first = top + above * step  # the pixels' first row
            upper, lower = max(top + row * step, y0), min(top + (row + _BAND) * step, y1)
            inside = np.s_[upper - first : lower - first, x0 - left : x1 - left]
            fine = [cv2.resize(part[above:below], size)[inside] for part in (x, y)]
            self._source.look_up((fine[0], fine[1]), frame[upper:lower, x0:x1])
        return frame

    def _displacement(
        self, head: npt.NDArray[np.floating], units: npt.NDArray[np.floating]
    ) -> Floats:
        """(2, h, w) pixels, x and y, by which what the photo has in each cell moves."""
        own = self._frame.rotation
        turned = own @ rotation(head) @ own.T - np.eye(3)
        moved: Floats = np.tensordot(turned[:2].astype(np.float32), self._arms, 1)
        for place in np.flatnonzero(units):
            moved += np.float32(np.clip(units[place], -_BOUND, _BOUND)) * self._units[place]
        moved *= self._edges
        return moved

    def _sources(self, moved: Floats) -> Floats:
        """(2, h, w) pixels that each cell of the frame comes from: p with p + moved(p) there."""
        sources = self._places - moved
        first = self._first[:, None, None]
        for _ in range(_SOLVE):
            x, y = (sources - first) / np.float32(self.step)
            for axis in (0, 1):
                there = cv2.remap(moved[axis], x, y, cv2.INTER_LINEAR)
                sources[axis] = self._places[axis] - there
        return np.asarray(sources, np.float32)

    def _touched(self, moved: Floats) -> Box:
        """The box of pixels that move visibly."""
        moves = np.abs(moved).max(axis=0) > _STILL
        rows, columns = np.flatnonzero(moves.any(axis=1)), np.flatnonzero(moves.any(axis=0))
        if not len(rows):
            return 0, 0, 0, 0
        (left, top), step = self.corner, self.step
        reach = int(np.abs(moved).max()) + 1  # what moves covers what was beside it
        x0, y0, x1, y1 = self.box
        return (
            max(left + (int(columns[0]) - 1) * step - reach, x0),
            max(top + (int(rows[0]) - 1) * step - reach, y0),
            min(left + (int(columns[-1]) + 2) * step + reach, x1),
            min(top + (int(rows[-1]) + 2) * step + reach, y1),
        )

    def _lay_grid(self) -> None:
        """Cells over the head and what gives way around it, in pixels of the picture."""
        frame = self._frame
        side, above = (1 + _FADE) * _SIDE, (1 + _FADE) * _CROWN - _MIDDLE
        ends = [(x, y, _SKULL) for x in (-side, 0, side) for y in (-above, 0, _SHOULDERS)]
        placed = frame.origin + frame.scale * (np.array(ends) @ frame.rotation[:2].T)
        x0, y0, x1, y1 = self.box = box_of(placed, *self._size)
        self.step = max(round(CELL * frame.scale), 1)
        # A cell more on each side, so that every pixel lies between centres.
        self.corner = (x0 - self.step, y0 - self.step)
        self.columns = max(-(-(x1 - x0) // self.step), 0) + 2
        self.rows = max(-(-(y1 - y0) // self.step), 0) + 2
        self._first = np.array(self.corner, np.float32) + (self.step - 1) / 2
        x = self._first[0] + self.step * np.arange(self.columns)
        y = self._first[1] + self.step * np.arange(self.rows)
        self._cells = np.stack(np.meshgrid(x, y), axis=-1).astype(np.float64)
        self._places = np.moveaxis(self._cells, -1, 0).astype(np.float32)
        rows, columns = self._size
        ramp = _EDGE * frame.scale
        across = np.minimum(x, columns - 1 - x) / ramp
        down = np.minimum(y, rows - 1 - y) / ramp
        self._edges = np.empty(self._places.shape, np.float32)
        self._edges[0], self._edges[1] = smoothstep(across)[None, :], smoothstep(down)[:, None]

    def _known(self, points: Points) -> tuple[Points, Points]:
        """(K, 2) places in pixels, and what is known there, (K, 1 + 2 len(UNITS)): the depth in
        the camera's view, then each unit's displacement in distances between the eyes."""
        frame, model = self._frame, face_model()
        skin = np.setdiff1d(np.arange(468), INNER_LIPS)  # irises move on their own, inner lips too
        depth = _camera_depth(frame, model.template[:, 2])[skin]
        along = np.einsum("pij,upj->upi", frame.jacobians, unit_fields()) / frame.scale
        units = along[:, skin].transpose(1, 0, 2).reshape(len(skin), -1)
        outline = points[list(_OUTLINE)]
        near = points[_NOSE] + _OVAL_RING * (outline - points[_NOSE])
        angles = np.linspace(0, 2 * np.pi, 24, endpoint=False)
        rings = []
        for far in (1.0, 1.5, 2.2):
            x, y = far * _SIDE * np.sin(angles), _MIDDLE - far * _CROWN * np.cos(angles)
            ring = np.column_stack([x, y, np.full(len(x), _SKULL)])
            rings.append(frame.origin + frame.scale * (ring @ frame.rotation[:2].T))
        around = np.concatenate(rings)
        # The skull's depth as the camera sees it: a plane through its middle.
        flat = _depth_of_plane(frame, around)
        oval = _depth_of_plane(frame, near)
        centres = np.concatenate([points[skin], near, around])
        none = np.zeros((len(near) + len(around), units.shape[1]))
        depths = np.concatenate([depth, oval, flat])[:, None]
        return centres, np.hstack([depths, np.concatenate([units, none])])

    def _in_camera(self, depth: npt.NDArray[np.floating]) -> Points:
        """(h, w, 3) places of the cells' surfaces, from the middle between the eyes."""
        flat = (self._cells - self._frame.origin) / self._frame.scale
        return np.concatenate([flat, depth[..., None]], axis=-1)

    def _head_share(self, camera: Points) -> Points:
        """(h, w) 1 where pixels go with the head, 0 where they stay."""
        own = camera @ self._frame.rotation
        x, y = own[..., 0] / _SIDE, own[..., 1]
        above = np.minimum(y - _MIDDLE, 0) / _CROWN
        beside = 1 - smoothstep((np.hypot(x, above) - 1) / _FADE)
        below = 1 - smoothstep((y - _CHIN) / (_SHOULDERS - _CHIN))
        return np.asarray(beside * below)

    def _let_through(self, points: Points, others: Sequence[npt.NDArray[np.floating]]) -> Points:
        """(h, w) 1, but nothing from half way to another face on."""
        let = np.ones(self._cells.shape[:2])
        own = points[_NOSE]
        for other in others:
            apart = np.asarray(other, np.float64)[_NOSE, :2] - own
            share = (self._cells - own) @ apart / (apart @ apart)
            let *= 1 - smoothstep((share - 0.5 + _NEAR_OTHERS) / _NEAR_OTHERS)
        return let

    def _in_face(self, points: Points) -> Points:
        """(h, w) 1 in the face, 0 well outside, where a spline may still waver."""
        outline = points[list(_OUTLINE)]
        hull = points[_NOSE] + _OVAL_RING * (outline - points[_NOSE])
        mask = np.zeros(self._cells.shape[:2], np.uint8)
        placed = np.rint((hull - self._first) / self.step * 16).astype(np.int32)
        cv2.fillPoly(mask, [placed], 1, cv2.LINE_8, 4)
        inner = cv2.distanceTransform(np.pad(mask, 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
        return np.asarray(smoothstep(inner * CELL / 0.2))


class Samples:
    """A part of a picture to look up between its pixels, quickly.

    OpenCV is quickest with four channels and linear interpolation, which alone would blur. So cubic
    samples are kept half way between the pixels, too; where nothing moves pixels stay exact.

    Args:
        picture: (H, W, 3) or (H, W, 4) uint8.
        box: the part.

    Attributes:
        times: samples a pixel, either way; the first pixel of the part is sample 0.
    """

    def __init__(self, picture: Picture, box: Box) -> None:
        self._box = x0, y0, x1, y1 = box
        self.times = 2 if (x1 - x0) * (y1 - y0) <= _LARGEST else 1
        shape = (self.times * max(y1 - y0, 1), self.times * max(x1 - x0, 1))
        self._samples = np.zeros(shape, np.uint32)  # four channels
        self._found = np.empty((0, 0, 4), np.uint8)
        self._changed: Sequence[Box] = ()
        self.update(picture, [box])
        self._changed = ()

    def update(self, frame: Picture, changed: Sequence[Box]) -> None:
        """From now on the part is that of a frame, which differs from the picture in some boxes
        at most."""
        left, top, right, bottom = self._box
        height, width = frame.shape[:2]
        # What the last frame changed is put right, too.
        both = zip_longest(changed, self._changed, fillvalue=(0, 0, 0, 0))
        self._changed = changed
        for bx0, by0, bx1, by1 in map(around, both):
            # Samples in between feel two pixels to either side.
            x0, y0 = max(bx0 - 2, left), max(by0 - 2, top)
            x1, y1 = min(bx1 + 2, right), min(by1 + 2, bottom)
            if x0 >= x1 or y0 >= y1:
                continue
            a0, b0 = max(x0 - 1, 0), max(y0 - 1, 0)
            a1, b1 = min(x1 + 2, width), min(y1 + 2, height)
            part: npt.NDArray[Any] = frame[b0:b1, a0:a1]
            if frame.shape[2] == 3:
                part = cv2.cvtColor(part, cv2.COLOR_RGB2RGBA)
            ends = (1 - (y0 - b0), 2 - (b1 - y1), 1 - (x0 - a0), 2 - (a1 - x1))
            if any(ends):
                part = cv2.copyMakeBorder(part, *ends, cv2.BORDER_REPLICATE)
            n = self.times
            area = self._samples[n * (y0 - top) : n * (y1 - top), n * (x0 - left) : n * (x1 - left)]
            for across in range(n):
                line = _half_way(part, 1) if across else part[:, 1:-2]
                for down in range(n):
                    found = _half_way(line, 0) if down else line[1:-2]
                    area[down::n, across::n] = np.ascontiguousarray(found).view(np.uint32)[..., 0]

    def look_up(self, places: tuple[Floats, Floats], out: Picture) -> None:
        """Write what is at samples x and y (h, w) to (h, w, 3) pixels, or (h, w, 4)."""
        rows, columns = self._samples.shape
        samples = self._samples.view(np.uint8).reshape(rows, columns, 4)
        if self._found.shape[:2] != out.shape[:2]:
            self._found = np.empty((*out.shape[:2], 4), np.uint8)
        linear, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
        # x and y apart: OpenCV 5.0 gets one map of both wrong, where it interpolates linearly.
        cv2.remap(samples, *places, linear, self._found, borderMode=border)
        if out.shape[2] == 4:
            out[:] = self._found
        else:
            cv2.cvtColor(self._found, cv2.COLOR_RGBA2RGB, out)


def _half_way(part: npt.NDArray[Any], axis: int) -> npt.NDArray[Any]:
    """What lies half way between neighbours along an axis, by the cubic through four of them:
    three less than there are."""
    a, b, c, d = (
        part[k : len(part) - 3 + k] if axis == 0 else part[:, k : part.shape[1] - 3 + k]
        for k in range(4)
    )
    inner, outer = cv2.addWeighted(b, 0.5, c, 0.5, 0), cv2.addWeighted(a, 0.5, d, 0.5, 0)
    return np.asarray(cv2.addWeighted(inner, 1.125, outer, -0.125, 0))


def rotation(head: npt.NDArray[np.floating]) -> Points:
    """(3, 3) of turn, nod and tilt (3,) in degrees, in the face's own frame: x right, y down, z
    away from the viewer."""
    turn, nod, tilt = np.radians(np.asarray(head, np.float64))
    c, s = np.cos(turn), np.sin(turn)
    # What is nearer to the viewer, z < 0, goes to the right.
    about_y = np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    c, s = np.cos(nod), np.sin(nod)
    about_x = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    c, s = np.cos(tilt), np.sin(tilt)
    about_z = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def _camera_depth(frame: FaceFrame, depth: Points) -> Points:
    """(478,) depth in the camera's view, of depths in the face's own frame at its landmarks."""
    own = np.column_stack([frame.points, depth])
    return np.asarray(own @ frame.rotation[2])


def _depth_of_plane(frame: FaceFrame, places: Points) -> Points:
    """(K,) depth in the camera's view of the plane z = ``_SKULL`` of the face, at (K, 2) pixels."""
    flat = (places - frame.origin) / frame.scale
    normal = frame.rotation[:, 2]  # of the plane, as the camera sees it
    facing = max(normal[2], 0.4)
    return np.asarray((_SKULL - flat @ normal[:2]) / facing)
