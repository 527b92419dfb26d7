"""Eyes that blink and look about in any photo: lids in layers before the eyeball.

The upper lid is skin that slides over an eyeball at rest. Its colour, which is smooth, unfolds from
the strip of skin between brow and lashes, and the lashes go with the lid's edge. What lies above
the strip, a brow or a spectacle rim, a lid never touches.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.constants import BLINK_PEAK
from stillspeak.face.align import smoothstep
from stillspeak.face.eyes import eye_outlines
from stillspeak.rendering.eyeshape import (
    BELOW,
    COLUMNS,
    LASHES,
    ROWS,
    EyeShape,
    behind_dark_glass,
    eye_shape,
    wears_spectacles,
)
from stillspeak.rendering.light import edge_blur
from stillspeak.rendering.mesh import face_frame
from stillspeak.rendering.raster import Box, Floats, Picture, Points, box_of, soft

SHUT = BLINK_PEAK[0]
"""Closure, in the measure of ``motion.frames``, from which the eyes are shut."""

# Lengths are in distances between the eyes.
_CREASE_DOWN = 0.15  # share of the lid's way that its crease comes down
_FRINGE = 0.09  # length of lashes that hang down
_STANDING = 0.15  # height up to which lashes may stand
_LINE = 0.8  # how dark the line of the lashes is at most
_SHADE, _SHADED = 0.3, 0.02  # the lid's shadow on the eyeball, and how far it goes
_BULGE = 0.16  # how much lighter a shut lid is half way down
_GRAIN = 0.62  # how far below the eye skin's grain is taken from
_EYEBALL = 0.19  # its radius
_EYES = ((33, 133), (362, 263))
_BETWEEN = (168, 6)  # on the nose


class _Pixels:
    """The pixels of a box, and where they lie in the face: u, v (h, w) pixels across and down."""

    def __init__(self, box: Box, axes: Points) -> None:
        self.box = box
        x0, y0, x1, y1 = box
        self._x = np.arange(x1 - x0, dtype=np.float32)
        self._y = np.arange(y1 - y0, dtype=np.float32)[:, None]
        x, y = self._x + x0, self._y + y0
        self.u = (x * axes[0, 0] + y * axes[1, 0]).astype(np.float32)
        self.v = (x * axes[0, 1] + y * axes[1, 1]).astype(np.float32)
        self._across, self._down = axes.T.astype(np.float32)

    def of(self, picture: Picture) -> Picture:
        """The box's part of a picture, (h, w, 3)."""
        x0, y0, x1, y1 = self.box
        return picture[y0:y1, x0:x1]

    def fetched(
        self, maps: Any, down: Floats, across: Floats | None = None, method: int = cv2.INTER_CUBIC
    ) -> Any:
        """A part of the frame, or maps (h, w, ...), with each pixel from so many pixels further
        down and across."""
        x, y = self._x + down * self._down[0], self._y + down * self._down[1]
        if across is not None:
            x, y = x + across * self._across[0], y + across * self._across[1]
        return np.asarray(cv2.remap(maps, x, y, method, borderMode=cv2.BORDER_REPLICATE))

    def looked_up(self, maps: Floats, down: Floats) -> Any:
        """Smooth maps, likewise."""
        return self.fetched(maps, down, method=cv2.INTER_LINEAR)


class _Eye:
    """One eye of one still, and how it is drawn."""

    def __init__(
        self, picture: Picture, shape: EyeShape, iris: Points, axes: Points, unit: float, hung: bool
    ) -> None:
        self._unit = unit
        self._pixels = pixels = _Pixels(_box_of(shape, axes, unit, picture.shape[:2]), axes)
        self.box = pixels.box
        part = pixels.of(picture).astype(np.float32)
        u = pixels.u

        def at(line: Points) -> Floats:
            return np.asarray(np.interp(u, shape.grid, line), np.float32)

        self._rim, self._low, self._top = at(shape.rim), at(shape.low), at(shape.top)
        self._crease, self._lashes = at(shape.crease), at(shape.lashes)
        self._way, self._rise, self._taper = at(shape.way), at(shape.rise), at(shape.taper)
        self._lined, self._turned = at(shape.lined), at(shape.turned)
        self._fanned = at(shape.fanned)
        self._moves = (self._way > 0).astype(np.float32)
        first, last = shape.ends
        self._colours = shape.colours
        self._column = ((u - first) * (COLUMNS - 1) / (last - first)).astype(np.float32)
        self._blur = edge_blur(picture, self.box)
        self._soft = max(1.0, 1.5 * self._blur)
        self._hung = self._taper * hung
        ratio = (part + 1) / (self._skin(pixels.v) + 1)
        self._measure_lashes(part, ratio, iris @ axes)
        self._grain = self._grain_below(picture, axes[:, 1])
        self._looks = self._looking(iris @ axes)

    def _measure_lashes(self, part: Floats, ratio: Floats, iris: Points) -> None:
        """Colour and size of the lashes, and the strip with and without them."""
        unit = self._unit
        height = (self._rim - self._pixels.v) / unit
        along = self._taper > 0.6
        dark = np.maximum(1 - ratio.mean(axis=2), 0)[along & (height > 0) & (height < 0.06)]
        self._thick = float(np.clip(0.036 * dark.mean() if dark.size else 0, 0.006, 0.02)) * unit
        # No sliver of the eyeball goes with the lid.
        limit = np.where(height < 0.05, 1.03 + 3 * (1 - self._taper) ** 2, np.inf)
        self._ratio = np.minimum(ratio, limit[..., None]).astype(np.float32)
        self._bare = self._without_lashes(self._ratio)
        thin = self._ratio / self._bare
        dense = smoothstep(1.6 - height / 0.025)[..., None]
        thin += dense * (np.minimum(thin, self._ratio) - thin)
        self._hanging = np.minimum(thin, 1).min(axis=2)
        near = along & (height < 0.03) & (height > -0.01)
        radius = np.linalg.norm(iris[1:] - iris[0], axis=1).mean()
        beside = near & (np.abs(self._pixels.u - iris[0, 0]) > radius)
        seen = part[beside if beside.sum() > 20 else near]
        grey = seen.mean(axis=1)
        seen = seen[grey <= np.quantile(grey, 0.3)] if len(seen) else np.zeros((1, 3))
        self._dark = seen.mean(axis=0).astype(np.float32)

    def _without_lashes(self, ratio: Floats) -> Floats:
        """The strip without what is thin and dark and stands up."""
        reach = max(int(0.05 * self._unit) | 1, 3)
        across = abs(self._pixels.u[0, -1] - self._pixels.u[0, 0])
        level = across > abs(self._pixels.u[-1, 0] - self._pixels.u[0, 0])
        kernel = np.ones((1, reach) if level else (reach, 1), np.uint8)
        even = soft(ratio, max(0.004 * self._unit, 0.5))
        closed = cv2.morphologyEx(even, cv2.MORPH_CLOSE, kernel)
        lash = smoothstep(((closed - even).max(axis=2) - 0.03) / 0.08)
        lash = soft(lash, max(0.006 * self._unit, 0.5))
        closed = soft(closed, max(0.01 * self._unit, 0.5))
        return np.asarray(ratio + np.minimum(2 * lash, 1)[..., None] * (closed - ratio))

    def _looking(self, iris: Points) -> Floats:
        """(h, w) how much of the eyeball's turn each pixel shows."""
        unit, pixels = self._unit, self._pixels
        radius = np.linalg.norm(iris[1:] - iris[0], axis=1).mean()
        away = np.hypot(pixels.u - iris[0, 0], pixels.v - iris[0, 1]) / radius
        weight = 1 - smoothstep((away - 1.1) / 0.9)
        weight *= smoothstep((pixels.v - self._rim - 0.01 * unit) / (0.03 * unit))
        weight *= smoothstep((self._low - pixels.v + 0.005 * unit) / (0.02 * unit))
        return np.asarray(weight, np.float32)

    def _grain_below(self, picture: Picture, down: Points) -> Floats:
        """(h, w) the grain of the skin below the eye, as a ratio around 0."""
        x0, y0, x1, y1 = self.box
        dx, dy = np.rint(_GRAIN * self._unit * down).astype(int)
        x = (np.arange(x0, x1) + dx).clip(0, picture.shape[1] - 1)
        y = (np.arange(y0, y1) + dy).clip(0, picture.shape[0] - 1)
        patch = picture[y[:, None], x]
        grey = cv2.cvtColor(patch, cv2.COLOR_RGB2GRAY).astype(np.float32)
        even = soft(grey, max(0.012 * self._unit, 0.8))
        return np.asarray(np.clip(grey / (even + 1) - 1, -0.05, 0.05))

    def _skin(self, heights: Floats) -> Floats:
        """(h, w, 3) the strip's smooth colours at heights (h, w) of the still."""
        share = (heights - self._top) / (self._lashes - self._top)
        row = np.clip(share, 0, 1) * (ROWS - 1)
        linear, border = cv2.INTER_LINEAR, cv2.BORDER_REPLICATE
        found = cv2.remap(self._colours, self._column, row, linear, borderMode=border)
        return np.asarray(found)

    def look(self, turn: Points, part: Picture) -> None:
        """Turn the eyeball by (2,) pixels across and down the face, in the box of a frame."""
        across, down = turn.astype(np.float32)
        part[:] = self._pixels.fetched(part, -down * self._looks, -across * self._looks)

    def close(self, closed: float, part: Picture) -> None:
        """Bring the lids together, a share of their way, in a frame's pixels in the box."""
        way = closed * self._way
        delta = self._pixels.v - self._rim - way  # below the lid's edge
        turned = _eased(1.5 * closed - 0.25)
        made = self._behind(closed, delta, turned, part)
        lid = self._lid(closed, way, delta, turned)
        cover = np.clip(0.5 - delta / self._soft, 0, 1) * self._moves
        cover *= self._pixels.v > self._top
        made += cover[..., None] * (lid - made)
        # The line of the lashes: sharper above, and no sharper than the photo.
        size = self._thick * (0.4 + 0.6 * self._lined)
        size = np.where(delta < 0, 0.8, 1.4).astype(np.float32) * size + 0.4
        blurred = np.hypot(size, 0.7 * self._blur)
        line = _LINE * _eased(3 * closed) * self._lined * size / blurred
        line *= np.exp(-((delta / blurred) ** 2))
        made += line[..., None] * (self._dark - made)
        part[:] = np.clip(made + 0.5, 0, 255).astype(np.uint8)

    def _behind(self, closed: float, delta: Floats, turned: float, part: Picture) -> Floats:
        """(h, w, 3) the eyeball and the lower lid, in the shade of the upper one."""
        unit = self._unit
        rise = closed * self._rise
        below = self._pixels.v - self._low + rise
        shifted = rise * (1 - smoothstep(below / (BELOW * unit)))
        lower = self._pixels.fetched(part, np.asarray(shifted, np.float32))
        edge = np.clip(below / self._soft + 0.5, 0, 1) * self._moves
        made = part + edge[..., None] * (lower.astype(np.float32) - part)
        # Lashes that stood up hang down: the strip above the edge, mirrored.
        hanging = 1 - self._pixels.looked_up(self._hanging, self._rim - delta - self._pixels.v)
        hanging *= turned * self._hung * (1 - smoothstep(delta / (_FRINGE * unit)))
        shade = _SHADE * turned * self._taper * np.exp(-np.maximum(delta, 0) / (_SHADED * unit))
        made *= np.where(delta > 0, (1 - hanging) * (1 - shade), 1)[..., None]
        return np.asarray(made)

    def _lid(self, closed: float, way: Floats, delta: Floats, turned: float) -> Floats:
        """(h, w, 3) the upper lid; right above its edge."""
        unit, v = self._unit, self._pixels.v
        crease, lashes = self._crease + _CREASE_DOWN * way, self._lashes + way
        stretch = (lashes - crease) / (self._lashes - self._crease)
        fold = self._top + (v - self._top) * (self._crease - self._top) / (crease - self._top)
        unfolded = self._crease + (v - crease) / stretch
        source = np.where(v < crease, fold, np.where(v < lashes, unfolded, v - way))
        # Skin that unfolds shows its own grain, not what was seen of it stretched.
        new = smoothstep((v - crease) / (0.25 * (lashes - crease) + 1)) * (1 - 1 / stretch)
        rooted = smoothstep((v - lashes) / (0.4 * LASHES * unit) + 0.5)
        up = np.clip(-delta / (LASHES * unit), 0, 1)
        kept = (1 - new) * (1 - rooted) + rooted * (1 - turned * up * self._turned)
        bare = _eased(2 * closed)
        seen = self._ratio + bare * (self._bare - self._ratio) if bare < 1 else self._bare
        seen = self._pixels.looked_up(seen, source - v)
        standing = self._turned * (1 - smoothstep(-delta / (_STANDING * unit)))
        fan = self._fanned * (1 - smoothstep((self._rim - source) / (_STANDING * unit)))
        standing = turned * np.maximum(standing, fan)
        seen += standing[..., None] * np.maximum(1 - seen, 0)
        place = np.clip((v - crease) / np.maximum(self._rim + way - crease, 1), 0, 1)
        round_ = closed * place * (_BULGE * self._taper * (1 - place) - 0.02)
        grain = new * (1 - rooted) * self._grain + round_
        light = 1 + kept[..., None] * (seen - 1) + grain[..., None]
        return np.asarray(self._skin(source) * light)


def _eased(x: float) -> float:
    return float(smoothstep(np.array(x)))


class EyeLayers:
    """Draws one still with its eyes closed to any degree and its gaze turned.

    A frame depends on its numbers alone.

    Args:
        picture: (H, W, 3) uint8.
        points: (478, 2) landmarks of the face in pixels of the picture, or (478, 3) with depth.

    Attributes:
        blink: share, 0 to 1, of a blink that is drawn; it is the same for both eyes.
        spectacles: whether the face wears some.
        boxes: x0, y0, x1, y1 of the pixels that can change, ends excluded, one an eye.
        notes: why ``blink`` is not 1; empty if it is.
    """

    def __init__(self, picture: Picture, points: npt.NDArray[np.floating]) -> None:
        self._picture = np.ascontiguousarray(picture)
        frame = face_frame(points)
        flat = np.asarray(points, np.float64)[:, :2]
        down = frame.jacobians[list(_BETWEEN)].mean(axis=0)[:, 1]
        down = down / np.linalg.norm(down)
        axes = np.column_stack([(down[1], -down[0]), down])
        outlines = eye_outlines(flat)
        self.spectacles = wears_spectacles(self._picture, flat, axes, frame.scale)
        shapes = [eye_shape(self._picture, one, frame, axes, self.spectacles) for one in outlines]
        irises = (flat[468:473], flat[473:478])
        self._eyes = [
            _Eye(self._picture, shape, iris, axes, frame.scale, not self.spectacles)
            for shape, iris in zip(shapes, irises, strict=True)
        ]
        # Pixels across and down the face that an eye's iris moves for a radian.
        self._turns = [
            _EYEBALL * axes.T @ frame.jacobians[list(corners)].mean(axis=0) for corners in _EYES
        ]
        # An eye alone would wink.
        self.blink = min(shape.drawn for shape in shapes)
        self.notes = tuple(dict.fromkeys(shape.why for shape in shapes if shape.why))
        if self.spectacles and behind_dark_glass(self._picture, flat, frame.scale):
            self.blink, self.notes = 0.0, ("dark glasses",)
        self.boxes = [eye.box for eye in self._eyes]
        self._seen = not {"dark glasses", "eyes shut"} & set(self.notes)

    def draw(
        self, closure: float, gaze: npt.NDArray[np.floating], out: Picture | None = None
    ) -> Picture:
        """The still with its eyes in another state.

        Args:
            closure, gaze: one frame's of a :class:`~stillspeak.motion.frames.FaceMotion`; ``gaze``
                is (2,).
            out: (H, W, 3) uint8 to draw into, the still or a frame drawn before; a new copy of
                the still if None.

        Returns:
            (H, W, 3) uint8: ``out``, unchanged where nothing moves.
        """
        if out is None:
            out = self._picture.copy()
        share = self.blink * min(max(float(closure) / SHUT, 0.0), 1.0)
        looks = share < 1 and self._seen and bool(np.any(gaze))
        for eye, turn in zip(self._eyes, self._turns, strict=True):
            x0, y0, x1, y1 = eye.box
            part = out[y0:y1, x0:x1]
            if not part.size:
                continue
            if looks:
                eye.look(turn @ np.radians(np.asarray(gaze, np.float64)), part)
            if share > 0:
                eye.close(share, part)
        return out


def _box_of(shape: EyeShape, axes: Points, unit: float, size: tuple[int, int]) -> Box:
    """The pixels that a blink or a look can change."""
    moved = shape.way > 0
    if not moved.any():
        return 0, 0, 0, 0
    u = shape.grid[moved]
    over = np.column_stack([u, shape.top[moved] - 2])
    under = np.column_stack([u, (shape.low + BELOW * unit)[moved] + 2])
    return box_of(np.concatenate([over, under]) @ axes.T, *size, reach=1)
