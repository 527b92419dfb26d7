"""The inner lips of a still to the pixel: landmarks brought to the edges that the picture shows."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.face.align import smoothstep
from stillspeak.face.mouth import INNER_LIPS, OUTER_LIPS
from stillspeak.rendering.light import toothy
from stillspeak.rendering.mesh import LOWER, UPPER, FaceFrame, Rest
from stillspeak.rendering.raster import Picture, Points, sampled
from stillspeak.rendering.sheets import ALONG, cubic_through

_REACH = 0.035  # how far an edge is looked for, in distances between the eyes
_STEPS = 29
_SPOTS = 61
_LEFT_OVER = 0.03  # how far beyond the edge found teeth are looked for
_SPARE, _SPARE_ANYWAY = 0.3, 0.015  # how much a lip may lose: of its thickness, and in any case
_REDDER = 0.2  # by which lips are redder than teeth, if teeth are to be told from them
_MARGIN = 0.004  # by which an open mouth's lips lose, beyond their blur, where teeth begin


class Lipline(NamedTuple):
    """The still's inner lips from the left corner to the right, (ALONG, 2) pixels each.

    Of a closed mouth all are the dark line between the lips. ``upper`` and ``lower`` of an open
    one lie so far in the lips that nothing of the teeth is left on them, ``upper_teeth`` and
    ``lower_teeth`` so far inside that nothing of the lips is seen between them.
    """

    upper: Points
    lower: Points
    upper_teeth: Points
    lower_teeth: Points


def inner_lips(
    picture: Picture, frame: FaceFrame, points: Points, rest: Rest, blur: float
) -> Lipline:
    """Find a still's inner lips; landmarks (478, 2) and the blur of its edges are in pixels."""
    down = frame.axes[:, 1]
    inner = points[list(INNER_LIPS)]
    finer = cubic_through(11, _SPOTS)
    upper, lower = finer @ inner[list(UPPER)], finer @ inner[list(LOWER)]
    reach = _REACH * frame.scale
    if rest.open == 0:
        middle = (upper + lower) / 2
        seam = _thinned(middle + _darkest(picture, middle, down, reach)[:, None] * down)
        return Lipline(seam, seam, seam, seam)
    margin = _MARGIN * frame.scale + blur
    # Towards the corners the lips are thin and the edges many: the landmarks are trusted there.
    from_corner = np.minimum(np.linspace(0, 1, _SPOTS), np.linspace(1, 0, _SPOTS))
    sure = smoothstep(12 * from_corner)
    edge_upper = sure * _edges(picture, upper, down, reach)
    edge_lower = sure * _edges(picture, lower, down, reach)
    away = smoothstep(30 * from_corner) * margin
    seen = (upper + edge_upper[:, None] * down, lower + edge_lower[:, None] * down)
    left = _left_over(picture, *seen, down, _LEFT_OVER * frame.scale)
    # No lip loses more than it can spare: what is left of it is stretched.
    ring = points[list(OUTER_LIPS)]
    outer = (finer @ ring[list(UPPER)], finer @ ring[list(LOWER)])
    spare = [_SPARE * np.abs((b - a) @ down) for a, b in zip(outer, (upper, lower), strict=True)]
    lost = [
        np.minimum(away + n, np.maximum(m, _SPARE_ANYWAY * frame.scale))
        for n, m in zip(left, spare, strict=True)
    ]
    lines = (
        upper + (edge_upper - lost[0])[:, None] * down,
        lower + (edge_lower + lost[1])[:, None] * down,
        upper + (edge_upper + away)[:, None] * down,
        lower + (edge_lower - away)[:, None] * down,
    )
    return Lipline(*map(_thinned, lines))


def landmark_lips(points: Points) -> Lipline:
    """The inner lips where landmarks (478, 2) have them."""
    inner, finer = points[list(INNER_LIPS)], cubic_through(11, ALONG)
    upper, lower = finer @ inner[list(UPPER)], finer @ inner[list(LOWER)]
    return Lipline(upper, lower, upper, lower)


def _left_over(
    picture: Picture, upper: Points, lower: Points, down: Points, reach: float
) -> tuple[Points, Points]:
    """(_SPOTS,) twice: how far beyond the upper and the lower line teeth go on, up to ``reach``."""
    steps = np.linspace(0, 1, 12)[:, None, None]
    inside = sampled(picture, upper + steps * (lower - upper)).reshape(-1, 3).astype(np.float64)
    bright = inside.sum(axis=1)
    best = (bright >= np.quantile(bright, 0.75)) & (bright <= np.quantile(bright, 0.95))
    white = inside[best].mean(axis=0) + 1
    out = []
    for line, way in ((upper, -1.0), (lower, 1.0)):
        beyond = sampled(picture, line + way * steps * reach * down).astype(np.float64)
        lip = np.median(beyond[-1], axis=0) + 1
        redder = np.log(lip[0] / lip[1]) - np.log(white[0] / white[1])
        far = np.zeros(_SPOTS)
        if redder > _REDDER and white.sum() > 1.1 * lip.sum():
            teeth = toothy(beyond, white) > 0.5
            far = reach * np.cumprod(teeth, axis=0).sum(axis=0) / len(steps)
            far = np.array([far[max(k - 2, 0) : k + 3].max() for k in range(_SPOTS)])
            far = np.convolve(np.pad(far, 2, mode="edge"), np.full(5, 0.2), mode="valid")
        far[[0, -1]] = 0
        out.append(far)
    return out[0], out[1]


def _thinned(line: Points) -> Points:
    return np.asarray(line[:: (_SPOTS - 1) // (ALONG - 1)])


def _strip(picture: Picture, line: Points, down: Points, reach: float) -> npt.NDArray[np.float32]:
    """(_STEPS, _SPOTS, 3) the picture along a line, from above it to below, as CIE Lab."""
    steps = np.linspace(-reach, reach, _STEPS)
    strip = sampled(picture, line[None] + steps[:, None, None] * down)
    return np.asarray(cv2.cvtColor(strip.astype(np.float32) / 255, cv2.COLOR_RGB2Lab))


def _darkest(picture: Picture, line: Points, down: Points, reach: float) -> Points:
    """(_SPOTS,) how far below the line the darkest path runs."""
    light = cv2.GaussianBlur(_strip(picture, line, down, reach)[..., 0], (5, 3), 0)
    return smooth_path((light - light.min(axis=0)) / 12, reach)


def _edges(picture: Picture, line: Points, down: Points, reach: float) -> Points:
    """(_SPOTS,) how far below the line the strongest edge runs."""
    strip = cv2.GaussianBlur(_strip(picture, line, down, reach), (5, 3), 0)
    change = np.gradient(strip, axis=0)
    strength = np.sqrt((change**2 * (1, 3, 1)).sum(axis=-1))
    strength /= np.quantile(strength, 0.95) + 1e-3
    return smooth_path(1.5 * (1 - strength.clip(0, 1)), reach)


def smooth_path(cost: npt.NDArray[np.floating], reach: float, rows: int = _STEPS) -> Points:
    """The cheapest smooth path through (rows, N) from left to right: (N,) distances from the middle
    row, which lies ``reach`` from the first and the last."""
    offsets = np.linspace(-1, 1, rows)
    cost = cost + 0.8 * offsets[:, None] ** 2
    jump = 60 * (offsets[:, None] - offsets[None]) ** 2
    total, came = cost[:, 0], np.zeros(cost.shape, int)
    for spot in range(1, cost.shape[1]):
        ways = total[None] + jump
        came[:, spot] = ways.argmin(axis=1)
        total = ways.min(axis=1) + cost[:, spot]
    row = int(total.argmin())
    path = np.empty(cost.shape[1])
    for spot in range(cost.shape[1] - 1, -1, -1):
        path[spot] = offsets[row]
        row = came[row, spot]
    kernel = np.hanning(9)[1:-1]
    padded = np.pad(path, len(kernel) // 2, mode="edge")
    return np.asarray(reach * np.convolve(padded, kernel / kernel.sum(), mode="valid"))
