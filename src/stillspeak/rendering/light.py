"""What a still tells of its camera and light: sharpness, noise, and the colour teeth would have."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.face.align import smoothstep
from stillspeak.face.eyes import LEFT_EYELIDS, RIGHT_EYELIDS
from stillspeak.rendering.raster import LUMA, Box, Floats, Picture, Points, soft

_CHEEKS = (50, 280, 205, 425, 101, 330)
_LIP, _LIP_EDGE = (87, 14, 317), (84, 17, 314)
_IRISES = ((468, 469, 470, 471, 472), (473, 474, 475, 476, 477))

# Found on the portraits of Face Research Lab London whose smiles show teeth.
_TEETH = 1.21  # luma over the geometric mean of the cheeks' and the eyes' white
_TINT = np.array([0.916, 1.0, 0.983])  # and colour
_OF_WHITE = np.array([0.5, 0.5, 0.85])  # how much of it is the eyes' white's, the rest the cheeks'
_WHITE = np.array([0.816, 0.936, 1.02])  # the eyes' white over the cheeks', where it is not seen
_SKIN = np.log(1.27)  # how red over green the cheeks were there
_SEEN = 60  # pixels of the eyes' white that tell its colour


def edge_blur(picture: Picture, box: Box) -> float:
    """Standard deviation in pixels of the blur of a picture's sharpest edges in a box.

    Blurring once more weakens an edge the less the more it is blurred already.
    """
    x0, y0, x1, y1 = box
    part = np.ascontiguousarray(picture[y0:y1, x0:x1])
    if not part.size:
        return 1.0
    grey = cv2.cvtColor(part, cv2.COLOR_RGB2GRAY).astype(np.float32)
    light = soft(grey, 0.7)  # against noise
    again = 1.5
    first, second = _slopes(light), _slopes(soft(light, again))
    strong = first >= max(float(np.quantile(first, 0.98)), 4.0)
    if not strong.any():
        return 1.0
    ratio = float(np.median(first[strong] / np.maximum(second[strong], 1e-3)))
    total = again**2 / max(ratio**2 - 1, 0.02)
    return float(np.sqrt(np.clip(total - 0.5, 0.09, 64.0)))


def _slopes(grey: Floats) -> Floats:
    return np.asarray(cv2.magnitude(cv2.Scharr(grey, -1, 1, 0), cv2.Scharr(grey, -1, 0, 1)) / 32)


def noise_level(picture: Picture, points: Points, unit: float) -> float:
    """Standard deviation of the noise on the cheeks, in levels of 255."""
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(np.float32)
    levels = []
    for x, y in points[list(_CHEEKS)]:
        patch = _around(grey, x, y, max(0.1 * unit, 4))
        if patch.size >= 25:
            rest = patch - soft(patch, 1.5)
            levels.append(1.4826 * float(np.median(np.abs(rest))))
    return float(np.median(levels)) if levels else 0.0


def _around(picture: npt.NDArray, x: float, y: float, reach: float) -> npt.NDArray:  # type: ignore[type-arg]
    x0, x1 = (round(float(np.clip(v, 0, picture.shape[1]))) for v in (x - reach, x + reach))
    y0, y1 = (round(float(np.clip(v, 0, picture.shape[0]))) for v in (y - reach, y + reach))
    return picture[y0:y1, x0:x1]


def median_colour(picture: Picture, places: Points, reach: float) -> Points:
    """(3,) median around (K, 2) places, in levels of 255, never 0."""
    patches = [_around(picture, x, y, max(reach, 2)).reshape(-1, 3) for x, y in places]
    found = np.concatenate(patches)
    return np.asarray(np.median(found, axis=0) if len(found) else np.full(3, 128.0)) + 1.0


class Light(NamedTuple):
    """What paint must look like in a still."""

    teeth: Points  # (3,) levels of 255 that well-lit teeth would have
    lip: Points  # (3,) levels of the lower lip
    colourful: float  # 0 where the picture is grey, 1 where it shows colours as usual
    blur: float  # of edges, standard deviation in pixels
    noise: float  # standard deviation in levels of 255

    def paint(self, *ratio: float) -> Floats:
        """(3,) the colour of something as bright as this beside the teeth."""
        share = np.array(ratio)
        grey = share @ LUMA
        return np.asarray(self.teeth * (grey + self.colourful * (share - grey)), np.float32)


def still_light(picture: Picture, points: Points, unit: float, box: Box) -> Light:
    """Measure a still with landmarks (478, 2), ``unit`` pixels between the eyes, and its lower
    face in a box.

    Colours only enter as products of powers that add up to one, so a picture that is warmer,
    darker or grey gives teeth that are so to the same degree.
    """
    skin = median_colour(picture, points[list(_CHEEKS)], 0.06 * unit)
    colourful = float(np.clip(np.log(skin[0] / skin[1]) / _SKIN, 0, 1))
    usual = skin * _WHITE**colourful
    seen = _whites(picture, points)
    share = min(len(seen) / _SEEN, 1.0)
    white = usual
    if len(seen):
        bright = seen @ LUMA
        inside = (bright >= np.quantile(bright, 0.5)) & (bright <= np.quantile(bright, 0.92))
        ratio = (seen[inside].mean(axis=0) + 1) / usual
        white = usual * np.clip(ratio, 0.75, 1.8) ** share
    luma = _TEETH * np.sqrt((skin @ LUMA) * (white @ LUMA))
    shares = (white / (white @ LUMA)) ** _OF_WHITE * (skin / (skin @ LUMA)) ** (1 - _OF_WHITE)
    teeth = shares * _TINT**colourful
    teeth = np.minimum(teeth * (luma / (teeth @ LUMA)), 250.0)
    lip = median_colour(picture, (points[list(_LIP)] + points[list(_LIP_EDGE)]) / 2, unit / 30)
    noise = noise_level(picture, points, unit)
    return Light(teeth, lip, colourful, edge_blur(picture, box), noise)


def toothy(pixels: npt.NDArray[np.generic], white: Points) -> Floats:
    """(...) how likely pixels (..., 3) show a tooth, 0 to 1, where the brightest are (3,) white."""
    seen = pixels.astype(np.float32) + 1
    bright = smoothstep((seen @ LUMA / (white @ LUMA) - 0.3) / 0.2)
    red = np.log(seen[..., 0] / seen[..., 1]) - np.log(white[0] / white[1])
    return np.asarray(bright * (1 - smoothstep((red - 0.22) / 0.15)), np.float32)


def _whites(picture: Picture, points: Points) -> Points:
    """(N, 3) pixels between the lids and beside the irises."""
    found = []
    for rim, iris in zip((LEFT_EYELIDS, RIGHT_EYELIDS), _IRISES, strict=True):
        lids = points[list(rim)]
        low = np.floor(lids.min(axis=0)).astype(int).clip(0)
        high = np.ceil(lids.max(axis=0)).astype(int) + 1
        part = picture[low[1] : high[1], low[0] : high[0]]
        if not part.size:
            continue
        inside = np.zeros(part.shape[:2], np.uint8)
        cv2.fillPoly(inside, [np.rint(lids - low).astype(np.int32)], 1)
        centre = points[iris[0]] - low
        radius = np.linalg.norm(points[list(iris[1:])] - points[iris[0]], axis=1).mean()
        y, x = np.nonzero(inside)
        beside = np.hypot(x - centre[0], y - centre[1]) > 1.15 * radius
        found.append(part[y[beside], x[beside]].astype(np.float64))
    return np.concatenate(found) if found else np.zeros((0, 3))
