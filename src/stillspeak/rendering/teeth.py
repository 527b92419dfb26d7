"""What is behind the lips: upper teeth that stay with the skull, lower teeth and tongue that go
with the jaw, the dark behind them.

A still that shows its teeth lends them; otherwise an arch of average teeth is drawn in its light.
Lengths are in distances between the eyes; u runs right and v down from where the lips meet.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.face.align import Transform, smoothstep
from stillspeak.face.mouth import LIPS
from stillspeak.rendering.light import Light, toothy
from stillspeak.rendering.lipline import Lipline, smooth_path
from stillspeak.rendering.mesh import FaceFrame, Rest
from stillspeak.rendering.raster import (
    LUMA,
    Box,
    Floats,
    Picture,
    Points,
    filled,
    sampled,
    soft,
    warped,
)
from stillspeak.rendering.sheets import DRAWN, cubic_through

EDGE = 0.035
"""How far the upper front teeth come down below the line where the lips meet."""

OVERLAP = 0.04
"""How far the lower front teeth stand behind the upper ones with the jaw closed."""

_BOW = 0.16  # how much the upper row rises towards its ends
_LEFT, _RIGHT, _TOP, _BOTTOM = -0.7, 0.7, -0.35, 0.85  # what the layers cover
_ROWS_DARK = 0.86  # of the light around, what a line between two rows of teeth has at most
_LOWERED = 0.06  # how far teeth that are seen may be moved down at most
_SHOWN = 0.12  # share of the mouth's middle from which teeth count as shown
_DEEP = np.array([1.1, 0.95, 0.85])  # tint of the throat over the line between the lips
_REDDER_DIM = np.array([0.0, 0.18, 0.3])  # light that comes past lips is the redder the less it is
_DARKEST = 0.5  # light in which a tooth still shows what colour it is
_SEED = 20


class _Arch(NamedTuple):
    """One row of teeth, from the middle outwards."""

    widths: tuple[float, ...]
    lengths: tuple[float, ...]
    edges: tuple[float, ...]  # how much shorter each ends than the first
    points: tuple[float, ...]  # how pointed each is
    dark: float  # share of light that is lost at its ends


_UPPER = _Arch(
    widths=(0.135, 0.104, 0.088, 0.072, 0.062, 0.055),
    lengths=(0.165, 0.142, 0.158, 0.135, 0.115, 0.1),
    edges=(0.0, 0.011, 0.003, 0.014, 0.02, 0.026),
    points=(0.002, 0.004, 0.012, 0.007, 0.005, 0.004),
    dark=0.75,
)
_LOWER = _Arch(
    widths=(0.084, 0.092, 0.09, 0.084, 0.08, 0.08),
    lengths=(0.13, 0.135, 0.15, 0.13, 0.12, 0.1),
    edges=(0.0, 0.002, 0.0, 0.012, 0.02, 0.025),
    points=(0.001, 0.001, 0.008, 0.005, 0.004, 0.004),
    dark=0.8,
)


class _Own(NamedTuple):
    """The teeth that a still shows."""

    across: Points  # (DRAWN,) from left to right, in distances between the eyes
    edge: Points  # (DRAWN,) how far down they reach there, behind the lower lip too
    colour: Points  # (3,) levels of 255 of the brightest
    bottom: Points  # (DRAWN, 2) pixels, the end of what is seen of them
    lowered: float = 0.0  # how much further down they are drawn than they are seen


def _own_teeth(
    picture: Picture, lips: Lipline, axes: Points, centre: Points, scale: float
) -> _Own | None:
    """Find out what a still shows of its upper teeth; None if hardly anything."""
    drawn = cubic_through(len(lips.upper), DRAWN)
    top, bottom = drawn @ lips.upper_teeth, drawn @ lips.lower_teeth
    steps = np.linspace(0, 1, 33)
    seen = sampled(picture, top + steps[:, None, None] * (bottom - top)).astype(np.float64)
    middle = seen[:, DRAWN // 4 : -DRAWN // 4].reshape(-1, 3)
    bright = middle @ LUMA
    best = (bright >= np.quantile(bright, 0.75)) & (bright <= np.quantile(bright, 0.95))
    own = _Own(np.zeros(0), np.zeros(0), middle[best].mean(axis=0) + 1, bottom)
    teeth = toothy(seen, own.colour) > 0.5
    rows = _between_rows(seen @ LUMA, teeth)
    if rows is not None:
        teeth &= steps[:, None] < rows
        bottom = top + rows[:, None] * (bottom - top)
        steps_down = np.minimum(steps[:, None] / np.maximum(rows, 1e-3), 1)
    else:
        steps_down = np.repeat(steps[:, None], DRAWN, axis=1)
    skin = picture.reshape(-1, 3)
    if teeth[:, DRAWN // 4 : -DRAWN // 4].mean() < _SHOWN or own.colour @ LUMA < 0.4 * skin.mean():
        return None
    # The last of them in each column, then a smooth curve through these.
    last = len(steps) - 1 - teeth[::-1].argmax(axis=0)
    down = np.where(teeth.any(axis=0), steps_down[last, range(DRAWN)], 0)
    edge = (top + down[:, None] * (bottom - top) - centre) @ np.linalg.inv(axes).T
    u, v = edge.T
    wide = np.abs(u - u[DRAWN // 2]) < 0.3 * scale
    height = np.linalg.norm(bottom - top, axis=1)
    known = wide & (height > 0.3 * height.max())
    arc = np.polyval(np.polyfit(u[known], v[known], 2), u)
    inner = np.clip(u, u[known].min(), u[known].max())
    at = np.interp(inner, u, arc)
    arc = np.where(inner == u, arc, at + np.minimum(arc - at, 0))
    # They are at least as long as they would be at rest; the lower lip hides what is not seen.
    hidden = max(EDGE * scale - arc[DRAWN // 2], 0)
    touching = down[known].mean() > 0.85 and rows is None
    # Or else the upper lip is taken to rest a little too low, and they with it.
    lowered = 0 if touching else min(hidden, _LOWERED * scale)
    if touching:
        arc = arc + hidden
    return own._replace(across=u, edge=arc + lowered, bottom=bottom, lowered=lowered)


def _between_rows(bright: Points, teeth: npt.NDArray[np.bool_]) -> Points | None:
    """Where the upper teeth end if lower ones follow directly: (DRAWN,) shares of the way from lip
    to lip along (N, DRAWN) luma; None if there is no second row."""
    n = len(bright)
    even = cv2.GaussianBlur(bright, (5, 3), 0)
    around = cv2.blur(bright, (5, 2 * (n // 5) + 1), borderType=cv2.BORDER_REPLICATE)
    dip = even / np.maximum(around, 1)
    low, high = n // 3, n - n // 8
    part = dip[low:high]
    at = smooth_path(8 * (part - part.min(axis=0)).clip(0, 1), 1.0, rows=len(part))
    rows = (low + (at + 1) / 2 * (len(part) - 1)) / (n - 1)
    columns = range(DRAWN // 3, DRAWN - DRAWN // 3)
    places = np.rint(rows * (n - 1)).astype(int)
    dark = np.median([dip[places[c], c] for c in columns])
    below = np.mean([teeth[places[c] + 2 :, c].mean() for c in columns])
    return rows if dark < _ROWS_DARK and below > 0.6 else None


def _line_colour(picture: Picture, lips: Lipline, light: Light) -> Floats:
    """(3,) levels of the darkest that the still shows between the lips."""
    steps = np.linspace(0, 1, 9)[:, None, None]
    places = (lips.upper + steps * (lips.lower - lips.upper))[:, 3:-3]
    seen = sampled(picture, places).reshape(-1, 3)
    bright = seen @ LUMA
    darkest = seen[bright <= np.quantile(bright, 0.3)].mean(axis=0)
    # A mouth full of teeth shows nothing dark.
    return np.asarray(np.minimum(darkest, light.paint(0.36, 0.2, 0.18)), np.float32)


class InsideMouth:
    """The layers behind the lips of one still, which meet at rest along a seam (ALONG, 2) pixels.

    Attributes:
        shade: (3,) float32 levels of the line between closed lips.
    """

    def __init__(
        self,
        picture: Picture,
        frame: FaceFrame,
        rest: Rest,
        lips: Lipline,
        seam: Points,
        light: Light,
    ) -> None:
        axes = frame.jacobians[list(LIPS)].mean(axis=0)
        centre = seam[len(seam) // 2]
        corners = np.array([(u, v) for u in (_LEFT, _RIGHT) for v in (_TOP, _BOTTOM)]) @ axes.T
        low = np.floor(centre + corners.min(axis=0)).astype(int)
        high = np.ceil(centre + corners.max(axis=0)).astype(int) + 1
        self.corner = (int(low[0]), int(low[1]))
        self._size = (int(high[0] - low[0]), int(high[1] - low[1]))
        fine = int(np.clip(np.ceil(220 / frame.scale), 2, 6))
        u, v = self._coordinates(np.linalg.inv(axes), centre, fine)
        scale = rest.scale
        blur = 0.85 * light.blur
        own = _own_teeth(picture, lips, axes, centre, scale) if rest.open > 0 else None
        bow = _BOW * np.maximum(np.abs(u) / scale - 0.05, 0) ** 2
        edge = np.asarray(scale * (EDGE - bow), np.float32)
        self._dimming = (light.colourful * _REDDER_DIM).astype(np.float32)
        self.shade = _line_colour(picture, lips, light)
        # The more contrast between teeth and lips' line, the darker what lies deeper.
        contrast = np.clip((self.shade @ LUMA) / (light.teeth @ LUMA), 0.1, 0.65)
        deep = min(1.25 * contrast, 0.65) * self.shade * _DEEP**light.colourful
        drawn = light._replace(teeth=float(np.clip(1.18 - 0.8 * contrast, 0.7, 1)) * light.teeth)
        if own is not None:
            # Those that go on behind the lips are like those that are seen.
            edge = np.interp(u, own.across, own.edge).astype(np.float32)
            drawn = light._replace(teeth=own.colour)
        upper = _premultiplied(*_teeth(u / scale, (edge - v) / scale, _UPPER, drawn))
        jaw_v: Floats = (v - (EDGE - OVERLAP)) / scale + 0.6 * _BOW * (u / scale) ** 2
        lower = _premultiplied(*_teeth(u / scale, jaw_v, _LOWER, drawn))
        lower[..., :3] *= 0.85
        tongue = _premultiplied(*_tongue(u / scale, jaw_v, light))
        jaw = tongue * (1 - lower[..., 3:]) + lower
        self._upper, self._jaw = self._shrunk(upper, blur), self._shrunk(jaw, blur)
        self._own = np.zeros((*self._size[::-1], 1), np.float32)
        dark = np.broadcast_to(deep.astype(np.float32), (*u.shape, 3))
        self._dark = self._shrunk(dark.astype(np.float32), 0)
        if own is not None:
            self._keep_own(picture, frame, lips, own)
        noise = np.random.default_rng(_SEED).standard_normal((*self._size[::-1], 1))
        noise = soft(noise.astype(np.float32), 0.5) * light.noise * 1.5
        self._noise = np.asarray(noise, np.float32)[..., None]

    def _coordinates(self, to_face: Points, centre: Points, fine: int) -> tuple[Floats, Floats]:
        """u and v of a grid ``fine`` times as fine as the picture's."""
        columns, rows = self._size
        x = self.corner[0] + (np.arange(columns * fine) + 0.5) / fine - 0.5 - centre[0]
        y = self.corner[1] + (np.arange(rows * fine) + 0.5) / fine - 0.5 - centre[1]
        u = to_face[0, 0] * x + to_face[0, 1] * y[:, None]
        v = to_face[1, 0] * x + to_face[1, 1] * y[:, None]
        return u.astype(np.float32), v.astype(np.float32)

    def _shrunk(self, fine: Floats, blur: float) -> Floats:
        """On the picture's own grid, and as blurred as the picture."""
        small = cv2.resize(fine, self._size, interpolation=cv2.INTER_AREA)
        return soft(np.asarray(small, np.float32), blur)

    def _keep_own(self, picture: Picture, frame: FaceFrame, lips: Lipline, own: _Own) -> None:
        """Lay the teeth that the still shows over those that are drawn."""
        columns, rows = self._size
        shift = own.lowered * (frame.jacobians[list(LIPS)].mean(axis=0) @ (0.0, 1.0))
        corner = np.array(self.corner) - shift
        move = np.column_stack([np.eye(2), corner])
        flags = (cv2.INTER_CUBIC if own.lowered else cv2.INTER_NEAREST) | cv2.WARP_INVERSE_MAP
        seen = cv2.warpAffine(
            picture, move, self._size, flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        drawn = cubic_through(len(lips.upper), DRAWN)
        ring = np.concatenate([drawn @ lips.upper_teeth, own.bottom[::-1]])
        inside = filled(ring - corner, rows, columns)
        inside = np.minimum(inside, 2 * np.maximum(soft(inside, 0.008 * frame.scale) - 0.5, 0))
        teeth = soft(toothy(seen, own.colour), 0.004 * frame.scale) * inside
        share = teeth[..., None].astype(np.float32)
        seen = np.concatenate([seen.astype(np.float32), np.ones_like(share)], axis=2)
        self._upper = self._upper * (1 - share) + seen * share
        self._own = share

    def brighten(self, box: Box, lit: Floats) -> None:
        """Take off the own teeth the shadow in which the lips leave them: the light (h, w) in a box
        of the picture, as :meth:`draw` takes it."""
        columns, rows = self._size
        x, y = np.array(box[:2]) - self.corner
        shift = np.array([[1.0, 0, -x], [0, 1.0, -y]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        seen = cv2.warpAffine(
            lit, shift, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE
        )
        light = np.maximum(seen, _DARKEST)[..., None]
        light = light * (1 - self._dimming * (1 - light))
        shade = self._upper[..., 3:] * self.shade
        bare = shade + (self._upper[..., :3] - shade) / light
        self._upper[..., :3] += self._own * (bare - self._upper[..., :3])

    def draw(self, box: Box, jaw: Points, lit: Floats, place: Transform | None = None) -> Floats:
        """(h, w, 3) float32 levels of what a hole in this box of the picture shows, the jaw being
        displaced by (2,) pixels. Where no light (h, w) gets in it looks like closed lips. The box
        may be another frame's: ``place`` (2, 3) is where its pixels are in this one."""
        layers = (self._upper, self._dark, self._noise)
        none = np.zeros(2)
        upper, dark, noise = (_cut(part, box, self.corner, none, place) for part in layers)
        low = _cut(self._jaw, box, self.corner, jaw, place)
        out = dark * (1 - low[..., 3:]) + low[..., :3]
        out = out * (1 - upper[..., 3:]) + upper[..., :3]
        light = lit[..., None] * (1 - self._dimming * (1 - lit[..., None]))
        out = self.shade + (out - self.shade) * light
        # Grain goes with the light.
        grain = noise.reshape(*out.shape[:2], 1) * (0.2 + out / 200)
        return np.asarray(out + grain, np.float32)


class CarriedInside:
    """The inside of a mouth as one frame of a video shows it, in another frame.

    Args:
        inside: of the one frame.
        place: (2, 3) pixels of the other frame -> of the one.
        gain: (3,) how much brighter the other one is lit.

    Attributes:
        shade: (3,) float32 levels of the line between closed lips.
    """

    def __init__(self, inside: InsideMouth, place: Transform, gain: Points) -> None:
        self._inside, self._place = inside, place
        self._gain = np.asarray(gain, np.float32)
        self.shade = inside.shade * self._gain

    def draw(self, box: Box, jaw: Points, lit: Floats) -> Floats:
        """See :meth:`InsideMouth.draw`."""
        return self._gain * self._inside.draw(box, jaw, lit, self._place)


def _cut(
    layer: Floats, box: Box, corner: tuple[int, int], move: Points, place: Transform | None
) -> Floats:
    """A box of a picture from a layer; beyond the layer its border is repeated."""
    x0, y0, x1, y1 = box
    left, top = x0 - corner[0], y0 - corner[1]
    rows, columns = layer.shape[:2]
    if place is None:
        inside = left >= 0 and top >= 0 and left + x1 - x0 <= columns and top + y1 - y0 <= rows
        if inside and not move.any():
            return layer[top : top + y1 - y0, left : left + x1 - x0]
        place = np.eye(2, 3)
    matrix = np.array(place, np.float64)
    matrix[:, 2] += matrix[:, :2] @ (np.array((x0, y0)) - move) - corner
    return warped(layer, matrix, (x1 - x0, y1 - y0))


def _premultiplied(colour: Floats, alpha: Floats) -> Floats:
    """(h, w, 3) and (h, w) -> (h, w, 4)."""
    share = alpha[..., None]
    return np.concatenate([colour * share, share], axis=2).astype(np.float32)


def _teeth(u: Floats, inward: Floats, arch: _Arch, light: Light) -> tuple[Floats, Floats]:
    """Colour (h, w, 3) and alpha (h, w) of a row of teeth; u is 0 between the front teeth, and
    inward the distance from their edges towards the gum."""
    sides = np.abs(u)
    ends = np.cumsum(arch.widths)
    which = np.minimum(np.searchsorted(ends, sides.ravel()).reshape(u.shape), len(ends) - 1)

    def each(values: tuple[float, ...] | Points) -> Floats:
        return np.asarray(values, np.float32)[which]

    width = each(arch.widths)
    t = 2 * (sides - each(ends) + width) / width - 1  # -1 to 1 across each tooth
    t = np.where(t > 1, 1, t)
    # No two teeth are quite alike.
    rng = np.random.default_rng(_SEED)
    unlike = rng.normal(size=(2, 2 * len(ends)))
    number = which + len(ends) * (u > 0)
    length = each(arch.lengths)
    rounded = 0.011 * np.abs(t) ** 7 + each(arch.points) * np.abs(t)
    edge = each(arch.edges) + rounded
    edge += 0.0025 * unlike[0][number]
    v = inward - edge  # from this tooth's edge
    along = v / length
    alpha = smoothstep(v / 0.008 + 0.5)
    # Between two teeth lies a line of shade, wider at their edges.
    beside = (1 - np.abs(t)) * width / 2
    wide = 0.0045 + 0.0035 * smoothstep(1 - v / 0.04)
    gap = np.exp(-((beside / wide) ** 2)) * (0.26 + 0.2 * smoothstep(1 - v / 0.035))
    shape = 1 - 0.13 * t**2 - 0.05 * (1 - smoothstep(v / 0.03)) - 0.10 * smoothstep(along - 0.35)
    gleam = 0.05 * np.exp(-(((t + 0.15) / 0.4) ** 2) - ((along - 0.45) / 0.22) ** 2)
    bright = (shape + gleam) * (1 - gap) * (1 + 0.018 * unlike[1][number])
    away = smoothstep((sides - 0.06) / 0.40)
    bright *= 1 - arch.dark * away
    warm = (0.25 + 0.5 * smoothstep(along) + 0.5 * away)[..., None].astype(np.float32)
    colour = light.paint(1, 1, 1) * (1 - warm) + light.paint(1.0, 0.95, 0.84) * warm
    colour = colour * bright[..., None]
    # The gum, scalloped.
    neck = length - 0.018 * (1 - t**2) + 0.01
    gum = smoothstep((v - neck) / 0.014 + 0.5)[..., None]
    pink = light.paint(0.62, 0.36, 0.34) * (1 - arch.dark * away)[..., None]
    return (colour * (1 - gum) + pink * gum).astype(np.float32), alpha.astype(np.float32)


def _tongue(u: Floats, v: Floats, light: Light) -> tuple[Floats, Floats]:
    """Colour and alpha of the tongue; v from the lower front teeth's edges down."""
    top = -0.13 + 1.0 * u**2 + 0.012 * np.exp(-((u / 0.03) ** 2))
    alpha = smoothstep((v - top) / 0.05 + 0.3) * (1 - smoothstep((np.abs(u) - 0.3) / 0.14))
    lit = 0.5 + 0.5 * smoothstep((v - top) / 0.18) - 0.22 * smoothstep(np.abs(u) / 0.4)
    # A tongue is as pink as the lips, which may be painted.
    colour = np.sqrt(light.lip * light.paint(0.66, 0.36, 0.38)) * lit[..., None]
    return colour.astype(np.float32), alpha.astype(np.float32)
