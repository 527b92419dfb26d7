"""A talking mouth in any photo: skin and lips moved, and behind them teeth, tongue and the dark."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillspeak.face.align import smoothstep
from stillspeak.rendering.light import still_light
from stillspeak.rendering.lipline import Lipline, inner_lips
from stillspeak.rendering.mesh import CHIN, POSE, face_frame, rest_pose
from stillspeak.rendering.mouth import ALONG, DRAWN, Lips, LipSheets, Sheets, cubic_through
from stillspeak.rendering.teeth import InsideMouth, filled

Points = npt.NDArray[np.float64]
Floats = npt.NDArray[np.float32]
Picture = npt.NDArray[np.uint8]

_SHADE = 0.035  # how far the lips' shadow reaches, in distances between the eyes
_CREASE = 0.007  # half the width of the line between lips that met after the still was taken
_CREASE_DARK = 0.5
_LOWER_LIP = 25  # the middle of the lower inner lip, in a pose
_RIM, _RIM_DARK = 0.014, 0.3  # how far the lips' inner rim is darker, and how much


class MouthLayers:
    """Draws one still with its mouth in any pose. What is constant is made once.

    Args:
        picture: (H, W, 3) uint8.
        points: (478, 2) landmarks of the face in pixels of the picture, or (478, 3) with depth.

    Attributes:
        box: x0, y0, x1, y1 of the pixels that can change, ends excluded.
        open: share, 0 to 1, by which the still's own mouth counts as open.
    """

    def __init__(self, picture: Picture, points: npt.NDArray[np.floating]) -> None:
        self._picture = np.ascontiguousarray(picture)
        frame = face_frame(points)
        flat = np.asarray(points, np.float64)[:, :2]
        rest = rest_pose(frame.points)
        self.open = rest.open
        self._unit, self._scale = frame.scale, rest.scale
        self._jaw_to_picture = rest.scale * frame.jacobians[CHIN]
        self._down = frame.axes[:, 1]
        eyes = flat[[33, 263]]
        low, high = np.floor(flat.min(axis=0)).astype(int), np.ceil(flat.max(axis=0)).astype(int)
        rows, columns = picture.shape[:2]
        x0, x1 = (int(v) for v in np.clip((low[0], high[0]), 0, columns))
        y0, y1 = (int(v) for v in np.clip((low[1], high[1]), 0, rows))
        light = still_light(self._picture, flat, frame.scale, (x0, y0, x1, y1))
        self.light = light
        self._blur = max(0.75 * light.blur, 0.004 * frame.scale)
        lips = inner_lips(self._picture, frame, flat, rest, light.blur)
        self._sheets = LipSheets(frame, rest, lips.upper, lips.lower, flat, (rows, columns))
        self.box = self._sheets.box
        seam = self._sheets.contours(self._sheets.targets(np.zeros((len(POSE), 2))))
        middle = ((seam.upper + seam.lower) / 2)[:: (DRAWN - 1) // (ALONG - 1)]
        self._inside = InsideMouth(self._picture, frame, rest, lips, middle, light)
        self._upper, self._lower, self._textures_at = self._textures(lips, eyes)

    def _textures(self, lips: Lipline, eyes: Points) -> tuple[Picture, Picture, tuple[int, int]]:
        """The still with the upper lip going on below its contour, and the lower one above.

        So the contour can be drawn through pixels of one lip alone, wherever it comes to lie.
        """
        import cv2

        reach = 0.25 * self._unit
        both = np.concatenate([lips.upper, lips.lower])
        x0, y0, x1, y1 = self.box
        low = np.maximum(np.floor(both.min(axis=0) - reach).astype(int), (x0, y0))
        high = np.minimum(np.ceil(both.max(axis=0) + reach).astype(int), (x1, y1))
        x, y = np.meshgrid(np.arange(low[0], high[0]), np.arange(low[1], high[1]))
        across = np.array([self._down[1], -self._down[0]])
        u, v = (x * axis[0] + y * axis[1] for axis in (across, self._down))
        drawn = cubic_through(ALONG, DRAWN)
        out = []
        for line, sign in ((lips.upper, 1), (lips.lower, -1)):
            fine = drawn @ line
            height = np.interp(u, fine @ across, fine @ self._down)
            beyond = sign * (v - height)
            # Folded back at the contour, and no further than the lip is thick.
            depth = 0.05 * self._unit
            folded = depth * (1 - np.exp(-np.maximum(beyond, 0) / depth))
            back = np.where(beyond > 0, -sign * (beyond + folded), 0)
            part = self._picture[low[1] : high[1], low[0] : high[0]]
            map_x = (x - low[0] + back * self._down[0]).astype(np.float32)
            map_y = (y - low[1] + back * self._down[1]).astype(np.float32)
            whole = self._picture.copy()
            folded_part = cv2.remap(
                part, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
            )
            inside = (u > (fine @ across).min()) & (u < (fine @ across).max())
            whole[low[1] : high[1], low[0] : high[0]] = np.where(
                inside[..., None], folded_part, part
            )
            out.append(whole)
        return out[0], out[1], (0, 0)

    def draw(self, pose: npt.NDArray[np.floating], out: Picture | None = None) -> Picture:
        """The still with its mouth in a pose.

        Args:
            pose: (41, 2) displacements of ``mesh.POSE`` from the mouth at rest, in the face's own
                frame and in distances between the eyes.
            out: (H, W, 3) uint8 to draw into, the still or a frame drawn before; a new copy of
                the still if None.

        Returns:
            (H, W, 3) uint8: ``out``, equal to the still outside :attr:`box`.
        """
        if out is None:
            out = self._picture.copy()
        targets = self._sheets.targets(pose)
        lips = self._sheets.contours(targets)
        sheets = self._sheets.sheets(targets, lips)
        x0, y0, x1, y1 = self.box
        out[y0:y1, x0:x1] = self._moved(
            self._picture, sheets.skin, (0, self._sheets.rows, 0, self._sheets.columns), self.box
        )
        self._draw_mouth(out, sheets, lips, pose)
        return out

    def _moved(
        self,
        source: Picture,
        offsets: Floats,
        cells: tuple[int, int, int, int],
        box: tuple[int, int, int, int],
    ) -> Picture:
        """The pixels of a box, each fetched from where its offset points."""
        import cv2

        step, (left, top) = self._sheets.step, self._sheets.corner
        # Two more cells on each side, so that the cubic is the same wherever it is cut.
        r0, r1 = max(cells[0] - 2, 0), min(cells[1] + 2, self._sheets.rows)
        c0, c1 = max(cells[2] - 2, 0), min(cells[3] + 2, self._sheets.columns)
        size = ((c1 - c0) * step, (r1 - r0) * step)
        x0, y0, x1, y1 = box
        columns = slice(x0 - left - c0 * step, x1 - left - c0 * step)
        rows = slice(y0 - top - r0 * step, y1 - top - r0 * step)
        maps = []
        for axis, start in (
            (0, np.arange(x0, x1, dtype=np.float32)),
            (1, np.arange(y0, y1, dtype=np.float32)[:, None]),
        ):
            part = np.ascontiguousarray(offsets[r0:r1, c0:c1, axis])
            fine = cv2.resize(part, size, interpolation=cv2.INTER_CUBIC)
            maps.append(fine[rows, columns] + start)
        return np.asarray(
            cv2.remap(source, maps[0], maps[1], cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        )

    def _draw_mouth(
        self, out: Picture, sheets: Sheets, lips: Lips, pose: npt.NDArray[np.floating]
    ) -> None:
        """Part the sheets along the lips, and show what is behind them."""
        step, (left, top) = self._sheets.step, self._sheets.corner
        r0, r1, c0, c1 = sheets.cells
        x0, y0, x1, y1 = self.box
        box = (
            max(left + c0 * step, x0),
            max(top + r0 * step, y0),
            min(left + c1 * step, x1),
            min(top + r1 * step, y1),
        )
        if box[0] >= box[2] or box[1] >= box[3]:
            return
        import cv2

        upper = self._moved(self._upper, sheets.upper, sheets.cells, box)
        lower = self._moved(self._lower, sheets.lower, sheets.cells, box)
        middle = (lips.upper + lips.lower) / 2
        below_upper, below, below_lower = (
            self._below(line, box) for line in (lips.upper, middle, lips.lower)
        )
        part = out[box[1] : box[3], box[0] : box[2]]
        part[:] = cv2.blendLinear(lower, upper, below, 1 - below)
        self._draw_crease(part, lips, box)
        hole = _soft(below_upper - below_lower, self._blur)
        touched = hole > 1 / 512
        rows, columns = np.flatnonzero(touched.any(axis=1)), np.flatnonzero(touched.any(axis=0))
        if not len(rows):
            return
        # What lips turn inwards gets less light.
        rim = _soft(hole, _RIM * self._unit)
        reach = int(2 * _RIM * self._unit) + 1
        h0, h1 = max(rows[0] - reach, 0), min(rows[-1] + 1 + reach, part.shape[0])
        w0, w1 = max(columns[0] - reach, 0), min(columns[-1] + 1 + reach, part.shape[1])
        window = (slice(h0, h1), slice(w0, w1))
        x, y = box[0] + int(w0), box[1] + int(h0)
        # The chin's skin gives way; the teeth below go between it and the lip.
        jaw = self._jaw_to_picture @ (0.4 * pose[-1] + 0.6 * pose[_LOWER_LIP])
        lit = self._light_within(hole, (h0, h1, w0, w1))
        inside = self._inside.draw((x, y, x + int(w1 - w0), y + int(h1 - h0)), jaw, lit)
        share = hole[window][..., None]
        skin = part[window] * (1 - _RIM_DARK * rim[window])[..., None]
        skin += share * (inside - skin)
        part[window] = np.clip(skin + 0.5, 0, 255).astype(np.uint8)

    def _below(self, line: Points, box: tuple[int, int, int, int]) -> Floats:
        """(h, w) the share of each pixel of a box below a contour and its continuation."""
        x0, y0, x1, y1 = box
        far = 4.0 * (x1 - x0 + y1 - y0)
        across = np.array([self._down[1], -self._down[0]])
        first, last = line[0] - far * across, line[-1] + far * across
        ring = np.concatenate(
            [[first], line, [last, last + far * self._down, first + far * self._down]]
        )
        return filled(ring - (x0, y0), y1 - y0, x1 - x0)

    def _light_within(self, hole: Floats, part: tuple[int, int, int, int]) -> Floats:
        """(h, w) the light that comes past the lips, 0 to 1."""
        import cv2

        sigma = _SHADE * self._unit
        h0, h1, w0, w1 = part
        margin = int(2 * sigma) + 1
        padded = cv2.copyMakeBorder(
            hole[h0:h1, w0:w1], margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=0
        )
        small = max(int(sigma // 2), 1)
        size = (max(padded.shape[1] // small, 1), max(padded.shape[0] // small, 1))
        light = cv2.resize(padded, size, interpolation=cv2.INTER_AREA)
        light = cv2.GaussianBlur(light, (0, 0), sigma / small)
        light = cv2.resize(light, padded.shape[::-1], interpolation=cv2.INTER_LINEAR)
        light = light[margin:-margin, margin:-margin]
        return np.asarray(np.clip(1.6 * light - 0.1, 0.1, 1), np.float32)

    def _draw_crease(self, part: Picture, lips: Lips, box: tuple[int, int, int, int]) -> None:
        """The dark line between lips that met after the still was taken."""
        import cv2

        if self.open == 0:
            return
        near = 1 - smoothstep(lips.gap / (0.05 * self._unit))
        ends = np.sin(np.linspace(0, np.pi, len(near))) ** 0.5
        wide = (_CREASE * self._unit * near * ends)[:, None] * self._down
        middle = (lips.upper + lips.lower) / 2
        ring = np.concatenate([middle - wide, (middle + wide)[::-1]])
        line = filled(ring - box[:2], part.shape[0], part.shape[1])
        line = np.asarray(
            cv2.GaussianBlur(line, (0, 0), max(0.6 * _CREASE * self._unit, 0.6)), np.float32
        )
        dark = 1 - _CREASE_DARK * self.open * line
        part[:] = (part * dark[..., None] + 0.5).astype(np.uint8)


def _soft(mask: Floats, sigma: float) -> Floats:
    import cv2

    return np.asarray(cv2.GaussianBlur(mask, (0, 0), sigma))
