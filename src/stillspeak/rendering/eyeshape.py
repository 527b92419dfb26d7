"""What a still tells of an eye: where its lids run, what they look like, and what lies before them.

Lengths are in distances between the eyes unless pixels are said.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from stillspeak.face.align import smoothstep
from stillspeak.rendering.light import median_colour
from stillspeak.rendering.mesh import FaceFrame
from stillspeak.rendering.raster import Floats, Picture, Points, box_of, sampled, soft

LASHES = 0.045
"""Above the lid's edge, what moves with it as it is."""

BELOW = 0.2
"""Over which the lower lid's movement fades."""

ROWS, COLUMNS = 28, 56
"""Of a strip's smooth colours."""

_STEP = 0.5  # pixels between the columns of a line
_RISE = 0.2  # share of the opening by which the lower lid comes up
_INNER, _OUTER = 0.06, 0.18  # skin beyond the corners that may move
_DROP = 0.02  # by which the outer corner comes down
_EVEN = 0.03  # over which the lids' meeting line is smoothed
_RAISED = 0.010  # how far lids' edges lie above the detector's points
_OVERLAP = 0.006  # of lids that are shut
_STRIP = 0.05  # height that a strip should have
_LEAST = 0.02  # and has at least
_ROOM = 0.02  # between a rim and the lashes for a blink
_ABOVE_EDGE = 0.025  # between a strip and a rim above it
_DARKER = 0.12  # contrast from which what is darker above the eye is no skin
_GUESS = 0.05  # weight of the skin below the eye where nothing is known of the lid
_LIT = 0.85  # brightness of a lid over that of the skin around at least, more or less
_RIM = 0.25  # slope of log luma over .015 from which an edge is a rim's
_PAST = 0.05  # share of an eye's width by which what crosses it goes past its corners
_LONG = 0.25  # share of a strip that a rim's edge crosses at least
_BRIDGE = 0.3  # the same measure of a line across the nose; faces without spectacles: up to .2
_DARK_GLASS = 0.4  # brightness below the eyes over that of the cheeks
_SHUT, _OPEN = 0.1, 0.16  # opening over width: shut up to here, open from here
_NOTHING_BEFORE = 0.95  # share of a strip that must be in the picture


@dataclass(frozen=True)
class EyeShape:
    """One eye of a still. Lines are heights in pixels down the face, over ``grid`` across it."""

    grid: Points  # (K,) pixels across the face
    rim: Points  # of the upper lid
    low: Points  # of the lower lid
    top: Points  # where the strip of skin above the eye begins, below the brow
    crease: Points  # of the upper lid
    lashes: Points  # where they begin, above ``rim``
    way: Points  # pixels that the upper lid comes down to be shut
    rise: Points  # pixels that the lower one comes up
    taper: Points  # share, 0 at the corners
    lined: Points  # the same for the line of the lashes, which goes beyond the outer corner
    turned: Points  # share by which lashes that stand up are turned down with the lid
    fanned: Points  # share by which they spread to the side, at the outer corner
    ends: tuple[float, float]  # first and last place across of ``colours``
    colours: Floats  # (ROWS, COLUMNS, 3) smooth, of the strip from ``top`` to ``lashes``
    drawn: float  # share of a blink that can be drawn, 0 to 1
    why: str  # it is not 1; empty if it is


class _Strip:
    """Reads a still between two lines."""

    def __init__(self, picture: Picture, grid: Points, ends: tuple[float, float], axes: Points):
        self._picture, self._axes = picture, axes
        self._grid, self.ends = grid, ends
        self._u = np.linspace(*ends, COLUMNS)

    def places(self, top: Points, end: Points) -> Points:
        """(ROWS, COLUMNS, 2) pixels of the picture."""
        first, last = self.across(top), self.across(end)
        v = first + np.linspace(0, 1, ROWS)[:, None] * (last - first)
        u = np.broadcast_to(self._u, v.shape)
        return np.asarray(np.stack([u, v], axis=-1) @ self._axes.T)

    def read(self, top: Points, end: Points, reach: float) -> Floats:
        """(ROWS, COLUMNS, 3) softened by so many pixels."""
        places = self.places(top, end)
        x0, y0, x1, y1 = box_of(places, self._picture.shape[0], self._picture.shape[1], 4)
        part = self._picture[y0:y1, x0:x1]
        if not part.size:
            return np.full((ROWS, COLUMNS, 3), 128, np.float32)
        return sampled(soft(part, max(reach, 0.5)).astype(np.float32), places - (x0, y0))

    def across(self, line: Points) -> Points:
        """(COLUMNS,) a line at the strip's columns."""
        return np.asarray(np.interp(self._u, self._grid, line))

    def line(self, shares: Points, top: Points, end: Points) -> Points:
        """A line that lies a share (COLUMNS,) of the way from one to another."""
        share = np.interp(self._grid, self._u, shares)
        return np.asarray(top + share * (end - top))


def eye_shape(
    picture: Picture,
    outline: tuple[Points, Points, Points],
    frame: FaceFrame,
    axes: Points,
    spectacles: bool,
) -> EyeShape:
    """Measure an eye.

    Args:
        picture: (H, W, 3) uint8.
        outline: upper lid, lower lid, brow, as ``face.eyes.eye_outlines`` gives them, pixels.
        frame: of the face.
        axes: (2, 2) the face's right and down in the picture, unit columns.
        spectacles: whether rims are to be expected.
    """
    unit = frame.scale
    upper, lower, brow = (part @ axes for part in outline)
    outer, inner = upper[0, 0], upper[-1, 0]
    width = abs(outer - inner)
    margin = 0.3 * unit
    grid = np.arange(min(outer, inner) - margin, max(outer, inner) + margin, _STEP)
    rim, low = _curve(upper, grid), _curve(lower, grid)
    along = (grid - inner) / (outer - inner)  # 0 at the inner corner, 1 at the outer
    beyond = np.maximum(along - 1, 0) * width / unit
    opening = np.where((along > 0) & (along < 1), np.maximum(low - rim, 0), 0)
    ratio = float(opening.max() / width)
    taper: Points = np.asarray(smoothstep(opening / (0.11 * unit)), np.float64)
    rim = rim - _RAISED * unit * taper
    drop = smoothstep((along - 0.45) / 0.55) * (1 - smoothstep(beyond / _OUTER))
    # What is behind glass moves as little as can be: a rim may lie anywhere around it.
    moved = 0.0 if spectacles else 1.0
    met = ndimage.gaussian_filter1d(low - moved * _RISE * opening, _EVEN * unit / _STEP)
    met = met + moved * _DROP * unit * drop
    way = ndimage.gaussian_filter1d(met - rim + _OVERLAP * unit * taper, _EVEN * unit / _STEP)
    way = np.where(way > 0.002 * unit, way, 0)
    lashes = rim - LASHES * unit
    side = np.sign(outer - inner)
    ends = sorted((inner - side * _INNER * unit, outer + side * _OUTER * unit))
    strip = _Strip(picture, grid, (ends[0], ends[1]), axes)
    top = _below_brow(strip, _arch(brow, grid), lashes, unit)
    if spectacles:
        top = _below_rim(strip, top, lashes, unit)
    room = float(((lashes - top) / unit)[taper > 0.3].min(initial=1))
    if spectacles and _crossed(strip, lashes, low, along, unit):
        room = 0.0
    seen = _share_inside(strip.places(top, low), picture.shape[:2])
    drawn, why = _how_far(ratio, room, seen, spectacles)
    top = np.minimum(top, lashes - _LEAST * unit)
    colours = strip.read(top, lashes, 0.006 * unit)
    under = strip.read(low + 0.1 * unit, low + 0.2 * unit, 0.006 * unit)
    heights = strip.across((lashes - top) / unit)
    return EyeShape(
        grid=grid,
        rim=rim,
        low=low,
        top=top,
        crease=_crease(strip, colours, top, lashes),
        lashes=lashes,
        way=way,
        rise=low - rim - way + _OVERLAP * unit * taper,
        taper=taper,
        lined=smoothstep(along / 0.35) * (1 - smoothstep((beyond + 0.01) / 0.06)),
        turned=(along > 0) * (1 - smoothstep(beyond / (0.6 * _OUTER))),
        fanned=smoothstep((along - 0.6) / 0.25) * (1 - smoothstep(beyond / (0.6 * _OUTER))),
        ends=strip.ends,
        colours=_smooth(colours, heights, np.median(under, axis=(0, 1))),
        drawn=drawn,
        why=why,
    )


def _how_far(ratio: float, room: float, seen: float, spectacles: bool) -> tuple[float, str]:
    """What share of a blink can be drawn, and why no more."""
    if seen < _NOTHING_BEFORE:
        return 0.0, "an eye at the picture's edge"
    if ratio < _OPEN:
        return float(smoothstep(np.array((ratio - _SHUT) / (_OPEN - _SHUT)))), "eyes shut"
    if spectacles and room < _ROOM:
        return float(smoothstep(np.array(2 * room / _ROOM - 1))), "a spectacle rim before a lid"
    return 1.0, ""


def _share_inside(places: Points, shape: tuple[int, int]) -> float:
    x, y = places[..., 0], places[..., 1]
    return float(((x >= 0) & (y >= 0) & (x <= shape[1] - 1) & (y <= shape[0] - 1)).mean())


def _curve(points: Points, grid: Points) -> Points:
    """Heights of a smooth line through points (K, 2), level beyond its ends."""
    from scipy.interpolate import PchipInterpolator

    order = np.argsort(points[:, 0])
    u, kept = np.unique(points[order, 0], return_index=True)
    heights = points[order, 1][kept]
    return np.asarray(PchipInterpolator(u, heights)(np.clip(grid, u[0], u[-1])))


def _arch(brow: Points, grid: Points) -> Points:
    """The lower edge of a brow, by its landmarks."""
    u, v = brow[5:].T
    fit = np.polyfit(u - u.mean(), v, 2)
    return np.asarray(np.polyval(fit, np.clip(grid, u.min(), u.max()) - u.mean()))


def _below_brow(strip: _Strip, brow: Points, lashes: Points, unit: float) -> Points:
    """Where skin begins below a brow, and below hair that hangs over it: where it gets bright."""
    brow = np.minimum(brow, lashes - _STRIP * unit)
    grey = strip.read(brow, lashes, 0.006 * unit).mean(axis=2)
    grey = ndimage.gaussian_filter(grey, (0.7, 1.5), mode="nearest")
    brightest = np.argmax(grey[: int(0.8 * ROWS)], axis=0)
    first = np.full(COLUMNS, 1.5)
    for column, end in enumerate(brightest):
        dark, bright = grey[0, column], grey[end, column]
        if bright - dark > _DARKER * bright:
            hair = np.flatnonzero(grey[: end + 1, column] < dark + 0.8 * (bright - dark))
            first[column] = hair[-1] + 1
    first = ndimage.maximum_filter1d(ndimage.median_filter(first, 7), 5)
    return strip.line(ndimage.gaussian_filter1d(first, 3) / (ROWS - 1), brow, lashes)


def _below_rim(strip: _Strip, top: Points, lashes: Points, unit: float) -> Points:
    """Where a strip begins whose upper part lies behind a spectacle rim."""
    # It gets brighter below a rim, or above one that shines; towards lashes it only gets darker.
    slope, height = _slopes(strip, top, lashes, unit)
    edges = slope > _RIM
    # A rim runs on where lashes end.
    parts, _ = ndimage.label(edges, np.ones((3, 3)))
    for number, (_, across) in enumerate(ndimage.find_objects(parts), 1):
        if across.stop - across.start < _LONG * COLUMNS:
            edges[parts == number] = False
    last = np.where(edges.any(axis=0), len(edges) - 1 - np.argmax(edges[::-1], axis=0), -1)
    first = np.where(last >= 0, last + _ABOVE_EDGE * unit / height, 0)
    first = ndimage.maximum_filter1d(first, 5)
    return strip.line(np.minimum(first / (ROWS - 1), 1), top, lashes)


def _crossed(strip: _Strip, lashes: Points, low: Points, along: Points, unit: float) -> bool:
    """Whether an edge crosses the open eye from beyond one corner to beyond the other."""
    slope, _ = _slopes(strip, lashes, low + _ABOVE_EDGE * unit, unit)
    parts, _ = ndimage.label(np.abs(slope) > _RIM, np.ones((3, 3)))
    at = strip.across(along)
    return any(
        at[across].min() < -_PAST and at[across].max() > 1 + _PAST
        for _, across in ndimage.find_objects(parts)
    )


def _slopes(strip: _Strip, top: Points, end: Points, unit: float) -> tuple[Points, float]:
    """(ROWS, COLUMNS) slopes of log luma down a strip, over .015, and pixels a row."""
    grey = np.log(strip.read(top, end, 0.004 * unit).mean(axis=2) + 8)
    height = max(float(np.median(end - top)) / (ROWS - 1), 1e-6)
    return np.gradient(grey, axis=0) * (0.015 * unit / height), height


def _crease(strip: _Strip, colours: Floats, top: Points, lashes: Points) -> Points:
    """The darkest line along the strip; somewhere in its lower half where there is none."""
    grey = colours.mean(axis=2)
    filled = ndimage.grey_closing(grey, (9, 1), mode="nearest")
    dark = ndimage.gaussian_filter((filled - grey) / (filled + 1), (1, 3))
    rows = np.linspace(0, 1, ROWS)[:, None]
    weight = (dark * smoothstep((rows - 0.3) / 0.2) + 1e-4) ** 3
    share = ndimage.gaussian_filter1d((weight * rows).sum(axis=0) / weight.sum(axis=0), 4)
    return strip.line(np.clip(share, 0.3, 0.85), top, lashes)


def _smooth(colours: Floats, heights: Points, under: Points) -> Floats:
    """The strip without lashes, crease and pores; nowhere much darker than the skin around, of
    which ``under`` (3,) is that below the eye."""
    colours = colours.copy()
    last = int(0.8 * ROWS)
    # Lashes begin here, and a fold is darker than the skin that is folded in it.
    lit = np.maximum(colours[last - 1], colours[: last // 2].mean(axis=0))
    colours[last:] = colours[last - 1] + 0.4 * (lit - colours[last - 1])
    filled = ndimage.grey_closing(colours, (9, 9, 1), mode="nearest")
    even = ndimage.percentile_filter(filled, 60, (3, 9, 1), mode="nearest")
    known = np.broadcast_to(smoothstep((heights - _LEAST) / _STRIP)[:, None], (ROWS, COLUMNS, 1))
    near, count = (
        ndimage.gaussian_filter(part, (2, 6, 0), mode="nearest") for part in (even * known, known)
    )
    near = (near + _GUESS * 0.9 * under) / (count + _GUESS)
    even = near + known * (even - near)
    lit = _LIT * np.minimum(under, np.quantile(even, 0.8, axis=(0, 1)))
    even = even + 0.75 * np.maximum(lit - even, 0)
    return np.asarray(ndimage.gaussian_filter(even, (1.5, 3, 0), mode="nearest"), np.float32)


def wears_spectacles(picture: Picture, points: Points, axes: Points, unit: float) -> bool:
    """Whether something with sharp edges lies across the nose between the eyes, of landmarks
    (478, 2) and axes as for :func:`eye_shape`, the eyes being ``unit`` pixels apart."""
    u, v = np.linspace(-0.05, 0.05, 9), np.linspace(-0.35, 0.35, 141)
    places = np.stack(np.meshgrid(u, v), axis=-1) @ axes.T * unit
    places += (points[133] + points[362]) / 2
    grey = sampled(picture, places).mean(axis=2)
    # An edge across the nose is as sharp at every place along it.
    log = np.median(ndimage.gaussian_filter1d(np.log(grey + 8), 1.2, axis=0), axis=1)
    return bool(np.abs(log[3:] - log[:-3]).max() > _BRIDGE)


def behind_dark_glass(picture: Picture, points: Points, unit: float) -> bool:
    """Whether what is around the eyes is so much darker than the cheeks that it is glass."""
    below, cheeks = (
        median_colour(picture, points[places], 0.05 * unit).mean()
        for places in ([230, 450], [50, 280])
    )
    return bool(below < _DARK_GLASS * cheeks)
