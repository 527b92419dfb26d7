"""Whether something is before the mouth: a hand, a cup, a microphone.

A network looks at the mouth, and the lips' colour beside the upper face's is compared with what it
is in the rest of the video. Either alone errs, on pursed lips or in passing light; something that
passes before a mouth changes both, for several frames in a row.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import chain, repeat
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from stillspeak.face.align import smoothstep
from stillspeak.face.mouth import OUTER_LIPS
from stillspeak.rendering.check import COVERED, SELDOM_COVERED, covered_score
from stillspeak.rendering.light import median_colour
from stillspeak.rendering.mesh import face_frame
from stillspeak.rendering.raster import LUMA, Picture, Points

T = TypeVar("T")

LASTS = 3
"""Frames in a row that something has to be seen before the mouth."""

FADE = 3
"""Frames over which a drawing gives way."""

_ABOVE = 2.5  # by which the network's score exceeds the video's usual one
_UNLIKE = 2.5  # deviations from the usual colour of the lips
_SURELY = 0.7  # share of the way to unlike up to which lips surely are bare
_PARTS = ((1, 2, 3, 17, 18, 19), (4, 5, 6, 14, 15, 16), (7, 8, 9, 11, 12, 13))  # of the ring
_LEAST = np.array(
    [0.08, 0.04] * len(_PARTS)
)  # that count as a deviation at least: of brightness, of redness


class MouthCover:
    """What a video's bare mouth looks like, and whether one is bare.

    Looks at frames of a person one by one, in most of which nothing is before the mouth, and then
    tells of others.
    """

    def __init__(self) -> None:
        self._colours: list[Points] = []
        self._scores: list[float] = []

    def add(self, picture: Picture, points: npt.NDArray[np.floating]) -> None:
        """A picture (H, W, 3) uint8 and landmarks (478, 2) in its pixels."""
        self._colours.append(_lips(picture, points))
        self._scores.append(covered_score(picture, points))

    @cached_property
    def _limits(self) -> tuple[Points, Points, float]:
        """The lips' usual colour (6,), how far from it is unlike, and the network's limit."""
        usual = np.median(self._colours, axis=0)
        spread = 1.4826 * np.median(np.abs(self._colours - usual), axis=0)
        score = max(COVERED, float(np.median(self._scores)) + _ABOVE)
        return usual, _UNLIKE * np.maximum(spread, _LEAST), score

    def bare(self) -> npt.NDArray[np.bool_]:
        """Of each picture that was added, whether surely nothing is before its mouth."""
        usual, limit, score = self._limits
        away = (np.abs(self._colours - usual) / limit).max(axis=1)
        return np.asarray((away < _SURELY) & (np.array(self._scores) < score - 1))

    def before(self, picture: Picture, points: npt.NDArray[np.floating]) -> bool:
        """Whether something is before the mouth of one frame."""
        usual, limit, score = self._limits
        away = np.abs(_lips(picture, points) - usual) / limit
        return bool(away.max() > 1) and covered_score(picture, points) > score


def _lips(picture: Picture, points: npt.NDArray[np.floating]) -> Points:
    """(6,) how bright and how red lips are beside the upper face, in logarithms: on the left, in
    the middle, and on the right."""
    flat = np.asarray(points, np.float64)[:, :2]
    unit = face_frame(flat).scale
    ring = flat[list(OUTER_LIPS)]
    inner = ring + 0.15 * (ring.mean(axis=0) - ring)
    skin = median_colour(picture, flat[list(SELDOM_COVERED)], 0.06 * unit)
    found = []
    for part in _PARTS:
        lips = median_colour(picture, inner[list(part)], 0.02 * unit)
        found += [np.log((lips @ LUMA) / (skin @ LUMA))]
        found += [np.log(lips[0] / lips[1]) - np.log(skin[0] / skin[1])]
    return np.array(found)


def shares(frames: Iterable[tuple[T, bool]]) -> Iterator[tuple[T, float]]:
    """How much of a drawing shows, 0 to 1, of frames in order, each with whether something is
    before the mouth. :data:`LASTS` + :data:`FADE` frames are held back."""
    ahead = LASTS + FADE
    hidden: deque[bool] = deque([False] * (2 * ahead + 1), maxlen=2 * ahead + 1)
    waiting: deque[T] = deque()
    last: Iterable[None] = repeat(None, ahead)
    for count, one in enumerate(chain(frames, last), 1):
        hidden.append(one is not None and one[1])
        if one is not None:
            waiting.append(one[0])
        if count > ahead and waiting:
            runs = np.flatnonzero(np.convolve(hidden, np.ones(LASTS), "valid") == LASTS)
            away = [max(r - ahead, ahead - (r + LASTS - 1), 0) for r in runs.tolist()]
            share = smoothstep(np.array(min(away, default=FADE + 1) / (FADE + 1)))
            yield waiting.popleft(), float(share)
