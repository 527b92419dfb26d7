"""Lips and skin in two sheets: one above the line between the lips, one below.

Each sheet is a thin-plate spline that brings every landmark exactly to its new place; along the
line between the lips they part, everywhere else they are one. They are known on a coarse grid of
the picture's own pixels and say where each of these comes from.
"""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.face.align import smoothstep
from stillspeak.face.mouth import LIPS, POSE_POINTS
from stillspeak.models.refiner import COLUMNS, ROWS
from stillspeak.rendering.mesh import AROUND, LOWER, UPPER, FaceFrame, Rest, face_model
from stillspeak.rendering.raster import Box, Floats, Points, depth_within
from stillspeak.rendering.refine import View

ALONG = 21
"""Points along either inner lip that the sheets hold."""

DRAWN = 81
"""Points along the drawn contour of either inner lip."""

CELL = 0.05
"""Side of a cell of the coarse grid, in distances between the eyes, as are all lengths here."""

HELD = (
    # eyes, nose and cheekbones
    33, 145, 133, 362, 374, 263, 6, 4, 1, 129, 358, 98, 327, 2, 117, 346, 123, 352, 50, 280,
    # the face's border above the jaw
    234, 454, 93, 323, 132, 361,
)  # fmt: skip
"""Points that no mouth moves."""

_UNDER = {106: 91, 335: 321, 182: 181, 406: 405, 83: 84, 313: 314, 18: 17}
"""Points right under the lower lip, and those of the lip that they hang on."""

_HUNG = 0.7  # share of what they are moved less than the lip that is made up

_JAW = (93, 132, 58, 172, 136, 150, 176, 152, 400, 379, 365, 397, 288, 361, 323)
_NOSE_TIP = 4
_RING = 1.35  # times as far from the nose as the jaw: there nothing moves
_BELOW = 0.35  # to which the picture gives way under the chin
_FADE = 0.25  # over which movement fades inside the border
_APART = 0.06  # from the lips on, the two sheets become one
_JOINED = 0.16  # and are one from here
_SIDES = 0.1  # over which they are blended beyond the corners
_MOVED = 0.03
# What is heard is a mean of what may have been said, and so lips hover that should touch: up to
_TOUCH, _FREE = 0.005, 0.035  # the first distance they do, from the second on they are as heard
_CLOSED = 0.012  # distance at which lips that part let go of one another sideways
_GAP, _GAP_CORNER = 0.85, 0.35  # landmarks show an opening this much too wide, most at its corners
_GAP_BELOW = 0.8  # share of it that is the lower lip's


class Sheets(NamedTuple):
    """Where pixels come from, on the coarse grid: offsets in pixels, (h, w, 2) float32.

    ``skin`` is the mean of the two sheets away from the lips. Within ``cells`` (row, row, column,
    column, ends excluded) ``upper`` and ``lower`` are to be parted along the contour.
    """

    skin: Floats
    upper: Floats
    lower: Floats
    cells: Box


class LipContours(NamedTuple):
    """The inner contours of one frame, in pixels of the picture, from the left to the right."""

    upper: Points  # (DRAWN, 2)
    lower: Points  # (DRAWN, 2), nowhere above ``upper``
    gap: Points  # (DRAWN,) between them


class LipSheets:
    """The skin of one still, and how a mouth pose moves it.

    Args:
        frame: of the still's face.
        rest: its mouth at rest.
        upper: (ALONG, 2) pixels, the still's upper inner lip from corner to corner.
        lower: (ALONG, 2) of the lower one; the same where the still's mouth is closed.
        points: (478, 2) landmarks in pixels.
        shape: rows and columns of the picture.

    Attributes:
        seam: (ALONG, 2) pixels, where the inner lips meet at rest.
        box: x0, y0, x1, y1 of the pixels that can move, ends excluded.
        corner: x, y of the grid's first pixel, perhaps outside the picture.
        step: pixels a side of one of its cells.
        rows, columns: of cells.
    """

    def __init__(
        self,
        frame: FaceFrame,
        rest: Rest,
        upper: Points,
        lower: Points,
        points: Points,
        shape: tuple[int, int],
    ) -> None:
        self.unit = frame.scale
        self._rest = rest
        self._follow = face_model().follow
        self._lips_to_picture = frame.jacobians[list(LIPS)]
        self._skin_to_picture = frame.jacobians[list(AROUND)]
        self.across, self.down = frame.axes.T
        self._under = [20 + AROUND.index(point) for point in _UNDER]
        self._over = [LIPS.index(point) for point in _UNDER.values()]
        self._finer = cubic_through(11, ALONG)
        # Landmarks along a lip make a polygon; a lip has no corners but its ends.
        self._speech = self._finer @ _evened(11)
        self._drawn = cubic_through(ALONG, DRAWN)
        # Sources: the outer ring, the skin around, what is held; then either inner lip.
        nose = points[_NOSE_TIP]
        held = np.concatenate([points[list(HELD)], nose + _RING * (points[list(_JAW)] - nose)])
        common = np.concatenate([points[list(LIPS[:20])], points[list(AROUND)], held])
        corners = np.stack([(upper[0] + lower[0]) / 2, (upper[-1] + lower[-1]) / 2])
        self._sources = np.concatenate([common, corners, upper[1:-1], lower[1:-1]])
        self.seam = self._rest_line(points, upper, lower)
        n, inner = len(common) + 2, ALONG - 2
        self._sheets = (np.r_[0:n, n : n + inner], np.r_[0:n, n + inner : n + 2 * inner])
        self._inner = [np.r_[n - 2, rows[n:], n - 1] for rows in self._sheets]  # with the corners
        self._n_common = len(common)
        self._box(points, shape)
        self._fade = self._border(points)
        # Where nothing moves nothing is computed.
        self._moving = np.flatnonzero(self._fade)
        cells = self._cells.reshape(-1, 2)[self._moving]
        self._grid = np.ascontiguousarray(cells / self.unit, np.float32)

    def _rest_line(self, points: Points, upper: Points, lower: Points) -> Points:
        """(ALONG, 2) pixels, where the inner lips meet at rest."""
        seen = (upper + lower) / 2
        lips = np.einsum("kij,kj->ki", self._lips_to_picture, self._rest.lips)
        at_rest = self._finer @ (points[list(LIPS)] + lips)[20:][list(UPPER)]
        if self._rest.follows:
            inner = lips[20:]
            seen = seen + self._finer @ ((inner[list(UPPER)] + inner[list(LOWER)]) / 2)
        return np.asarray(seen + self._rest.open * (at_rest - seen))

    def _box(self, points: Points, shape: tuple[int, int]) -> None:
        """Cells over the lower face: the pixels that can change."""
        step = max(round(CELL * self.unit), 1)
        held, skin = points[list(HELD)], points[[*_JAW, *AROUND, *LIPS]]
        below = skin + (_BELOW * self.unit) * self.down
        reach = np.concatenate([skin, below, held[[6, 7, 8, 9, 20, 21]]])
        low = np.floor(reach.min(axis=0)).astype(int)
        cells = np.ceil((reach.max(axis=0) - low) / step).astype(int) + 1
        self.step, self.corner = step, (int(low[0]), int(low[1]))
        self.columns, self.rows = int(cells[0]), int(cells[1])
        x = low[0] + (np.arange(self.columns) + 0.5) * step - 0.5
        y = low[1] + (np.arange(self.rows) + 0.5) * step - 0.5
        self._cells = np.stack(np.meshgrid(x, y), axis=-1)
        self._grid_across = self._cells @ self.across
        self._grid_down = self._cells @ self.down
        x0, y0 = self.corner
        self.box = (
            max(x0, 0),
            max(y0, 0),
            min(x0 + self.columns * step, shape[1]),
            min(y0 + self.rows * step, shape[0]),
        )

    def _border(self, points: Points) -> Floats:
        """(h, w, 1) how much of the movement is let through: 0 at the face's border."""
        fine = 4
        eyes = points[[33, 263]].mean(axis=0)
        below = points[points @ self.down > eyes @ self.down]
        lowered = below + (_BELOW * self.unit) * self.down
        hull = cv2.convexHull(np.concatenate([points, lowered]).astype(np.float32))[:, 0]
        placed = (hull - self.corner) / self.step * fine
        outline = np.rint(placed + 1).astype(np.int32)
        near = depth_within(outline, self.rows * fine, self.columns * fine)
        fade = smoothstep(near / (_FADE / CELL * fine))
        small = cv2.resize(fade, (self.columns, self.rows), interpolation=cv2.INTER_AREA)
        # Two cells, so that a cubic through them ends on nothing.
        small[[0, 1, -2, -1]] = 0
        small[:, [0, 1, -2, -1]] = 0
        return np.asarray(small, np.float32)[..., None]

    def fade_in(self, view: View) -> Floats:
        """How much of a correction is let through, at every other pixel of a view."""
        x, y = np.meshgrid(np.arange(0.5, COLUMNS, 2), np.arange(0.5, ROWS, 2))
        places = np.stack([x, y], axis=-1) @ view.to_picture[:, :2].T + view.to_picture[:, 2]
        cells = ((places - self.corner + 0.5) / self.step - 0.5).astype(np.float32)
        return np.asarray(cv2.remap(self._fade[..., 0], cells[..., 0], cells[..., 1], 1))

    def moved(self, targets: Points) -> float:
        """0 where the mouth stays as the still has it, 1 where it moved."""
        far = np.abs(targets - self._sources).max() / self.unit
        return float(smoothstep(far / _MOVED))

    def targets(self, pose: npt.NDArray[np.floating]) -> Points:
        """(K, 2) where the points that the sheets hold come to lie, in pixels, for displacements
        (41, 2) of ``face.mouth.POSE_POINTS`` from the mouth at rest."""
        rest = self._rest
        speech = np.asarray(pose, np.float64)
        assert speech.shape == (len(POSE_POINTS), 2), speech.shape
        skin = rest.skin
        if skin is None:
            skin = rest.around + rest.scale * (self._follow @ speech.ravel()).reshape(-1, 2)
        skin = np.einsum("kij,kj->ki", self._skin_to_picture, skin)
        lips = np.einsum("kij,kj->ki", self._lips_to_picture, rest.scale * speech[:-1])
        outer = np.einsum("kij,kj->ki", self._lips_to_picture[:20], rest.lips[:20])
        inner = lips[20:]
        upper, lower = self._narrowed(
            self.seam + self._speech @ inner[list(UPPER)],
            self.seam + self._speech @ inner[list(LOWER)],
        )
        to = self._sources.copy()
        to[:20] += outer + lips[:20]
        to[20 : 20 + len(skin)] += skin
        # Or the shade under the lip is drawn out to a stain.
        moved = to - self._sources
        to[self._under] += _HUNG * (moved[self._over] - moved[self._under])
        n = self._n_common
        to[n] = (upper[0] + lower[0]) / 2
        to[n + 1] = (upper[-1] + lower[-1]) / 2
        to[self._sheets[0][n + 2 :]] = upper[1:-1]
        to[self._sheets[1][n + 2 :]] = lower[1:-1]
        return self._parted(to)

    def _narrowed(self, upper: Points, lower: Points) -> tuple[Points, Points]:
        """The opening as it is seen between inner lips whose landmarks are (ALONG, 2) each."""
        gap = np.maximum((lower - upper) @ self.down, 0)
        off_middle = np.abs(np.linspace(-1, 1, len(gap)))
        less = np.minimum(1 - _GAP + _GAP_CORNER * off_middle**2, 1)
        move = (less * gap)[:, None] * self.down
        return upper + (1 - _GAP_BELOW) * move, lower - _GAP_BELOW * move

    def _parted(self, to: Points) -> Points:
        """Bring together the lips where they all but meet, and take apart those that cross."""
        n = self._n_common + 2
        rows = [part[n:] for part in self._sheets]
        upper, lower = to[rows[0]], to[rows[1]]
        gap = (lower - upper) @ self.down
        wanted = gap * smoothstep((gap / self.unit - _TOUCH) / (_FREE - _TOUCH))
        move = ((gap - np.where(gap > 0, wanted, 0)) / 2)[:, None] * self.down
        sideways = ((lower - upper) @ self.across)[:, None] * self.across / 2
        shut = (1 - smoothstep(gap / (2 * _CLOSED * self.unit)))[:, None]
        to[rows[0]] = upper + move + shut * sideways
        to[rows[1]] = lower - move - shut * sideways
        return to

    def contours(self, targets: Points) -> LipContours:
        """The inner lips of one frame."""
        upper, lower = (self._drawn @ targets[rows] for rows in self._inner)
        gap = np.maximum((lower - upper) @ self.down, 0)
        crossed = ((lower - upper) @ self.down - gap)[:, None] * self.down
        return LipContours(upper, lower - crossed, gap)

    def sheets(self, targets: Points, lips: LipContours, *, parted: bool = True) -> Sheets:
        """Where the pixels of one frame come from; unless parted, both sheets are the upper one."""
        offsets = self._sources - targets
        if not offsets.any():
            none = np.zeros((self.rows, self.columns, 2), np.float32)
            return Sheets(none, none, none, self._touched(targets))
        kernel = thin_plate(self._grid, targets / self.unit)
        shape = (self.rows, self.columns, 2)
        parts = []
        for rows in self._sheets[: 1 + parted]:
            weights, plane = thin_plate_spline(targets[rows] / self.unit, offsets[rows])
            field = np.zeros((self.rows * self.columns, 2), np.float32)
            field[self._moving] = kernel[:, rows] @ weights + self._grid @ plane[1:] + plane[0]
            parts.append(field.reshape(shape) * self._fade)
        if not parted:
            return Sheets(parts[0], parts[0], parts[0], self._touched(targets))
        upper, lower = parts
        # Beyond the corners the two are blended, and away from the lips they become one.
        middle = (lips.upper + lips.lower) / 2
        x, y = middle @ self.across, middle @ self.down
        height = np.interp(self._grid_across, x, y)
        share = smoothstep((self._grid_down - height) / (_SIDES * self.unit) + 0.5)[..., None]
        skin = upper + share.astype(np.float32) * (lower - upper)
        near = np.ones(shape[:2], np.uint8)
        ring = (targets[:20] - self.corner + 0.5) / self.step - 0.5
        cv2.fillPoly(near, [np.rint(ring * 16).astype(np.int32)], 0, cv2.LINE_8, 4)
        distance = cv2.distanceTransform(near, cv2.DIST_L2, 5) * (self.step / self.unit)
        one = smoothstep((distance - _APART) / (_JOINED - _APART)).astype(np.float32)[..., None]
        upper = upper + one * (skin - upper)
        lower = lower + one * (skin - lower)
        return Sheets(skin, upper, lower, self._touched(targets))

    def _touched(self, targets: Points) -> Box:
        """Rows and columns of the cells in which the sheets may part."""
        ring = (targets[:20] - self.corner) / self.step
        reach = _JOINED / CELL + 1
        low = np.floor(ring.min(axis=0) - reach).astype(int)
        high = np.ceil(ring.max(axis=0) + reach).astype(int)
        (x0, y0), (x1, y1) = (np.clip(end, 0, (self.columns, self.rows)) for end in (low, high))
        return int(y0), int(y1), int(x0), int(x1)


def thin_plate(places: npt.NDArray[np.floating], centres: npt.NDArray[np.floating]) -> Floats:
    """(P, K) r^2 log r^2 between (P, 2) places and (K, 2) centres."""
    a, b = np.asarray(places, np.float32), np.asarray(centres, np.float32)
    middle = b.mean(axis=0)
    a, b = a - middle, b - middle
    squared = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2 * (a @ b.T)
    np.maximum(squared, 1e-9, out=squared)
    return np.asarray(squared * np.log(squared), np.float32)


def thin_plate_spline(centres: Points, values: Points) -> tuple[Floats, Floats]:
    """The thin-plate spline through values (K, 2) at centres (K, 2): weights (K, 2) and the
    plane (3, 2) of 1, x and y."""
    k = len(centres)
    near = centres - centres.mean(axis=0)
    squares = (near**2).sum(axis=1)
    apart = np.maximum(squares[:, None] + squares - 2 * (near @ near.T), 1e-12)
    system = np.zeros((k + 3, k + 3))
    system[:k, :k] = apart * np.log(apart)
    system[range(k), range(k)] = _STIFF
    system[:k, k] = system[k, :k] = 1
    system[:k, k + 1 :] = centres
    system[k + 1 :, :k] = centres.T
    solved = np.linalg.solve(system, np.concatenate([values, np.zeros((3, values.shape[1]))]))
    return solved[:k].astype(np.float32), solved[k:].astype(np.float32)


_STIFF = 1e-5


def _evened(points: int) -> Points:
    """(points, points) a running mean of three, the ends kept."""
    mean = np.eye(points) / 2
    mean += (np.eye(points, k=1) + np.eye(points, k=-1)) / 4
    mean[[0, -1]] = np.eye(points)[[0, -1]]
    return np.asarray(mean)


@cache
def cubic_through(points: int, samples: int) -> Points:
    """(samples, points) the natural cubic through equally spaced points, at equal steps."""
    from scipy.interpolate import CubicSpline

    knots = np.linspace(0, 1, points)
    spline = CubicSpline(knots, np.eye(points), bc_type="natural")
    matrix = np.asarray(spline(np.linspace(0, 1, samples)))
    matrix.flags.writeable = False
    return matrix
