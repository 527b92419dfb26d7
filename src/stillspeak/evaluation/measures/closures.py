"""Where the lips close, and whether generated lips close there too: b, p and m.

Openings are (T,) in face heights, NaN where no face was found. What counts as closed is decided by
the real lips of the same clip: detectors see some people's closed lips apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.data.layouts.grid import PAUSES
from stillspeak.evaluation.measures.runs import runs

Curve = npt.NDArray[np.float64]

SHUT_QUANTILE, WIDE_QUANTILE = 0.02, 0.95
"""Of the real opening: the closed and the open mouth of a clip."""

SHUT_LIMIT = 0.02
"""A closed mouth wider than this, in face heights, is none: it never closes in this clip."""

CLOSED_SHARE, OPEN_SHARE = 0.15, 0.3
"""Of the way from closed to open: below the first the mouth is closed, above the second open."""

CLOSED_LEAST = 0.005
"""Face heights above the closed mouth that count as closed at least: the detector trembles."""

LONGEST = 8
"""Frames (0.32 s) that a closure lasts at most; longer ones are pauses."""

OPENS_WITHIN = 6
"""Frames before and after a closure within which the real mouth is open."""

NEAR = 2
"""Frames before and after a real closure in which the generated lips may close."""

AT_WORD = 3
"""Frames by which a closure may be away from the word's begin or end that it belongs to."""

CLOSED_DEFINITION = (
    "Openings of the inner lips (points 13 and 14) are in face heights: over the median distance "
    "of forehead and chin (10 and 152) in the real frames. A mouth is closed up to s + "
    f"max({CLOSED_SHARE:g} (w - s), {CLOSED_LEAST:g}), s and w the "
    f"{SHUT_QUANTILE:.0%} and {WIDE_QUANTILE:.0%} quantiles of the clip's real "
    f"openings; there is no value where s is above {SHUT_LIMIT:g} or "
    f"{OPEN_SHARE:g} (w - s) not above {CLOSED_LEAST:g}."
).replace("%", " %")
CLOSURE_DEFINITION = (
    "A closure is a run of frames with closed real lips, eight at most, with an opening above s + "
    f"{OPEN_SHARE:g} (w - s) in the six frames before and in the six after, and not all "
    "of it and of two frames around silent. With word timings those count that are within three "
    "frames of the begin of a word spelled with b, p or m there (not ph, pn, ps, pt; not the "
    "letter m), or of the end of one that ends so (the letter m, not b and p; be, me, pe from four "
    "letters on); without, all. It is found if the generated lips are closed, by the real ones' "
    "limit, in it or in the two frames before or after."
)


class Levels(NamedTuple):
    """closed: the opening at and below which a mouth is closed. open: above which it is open."""

    closed: float
    open: float


class Closures(NamedTuple):
    """real: how many closures of the real lips there are amid speech. found: those at which the
    generated lips close. chance: share of other moments amid speech at which these are closed;
    NaN: there are none.
    """

    real: int
    found: int
    chance: float


def closing_levels(real: Curve) -> Levels | None:
    """What counts as closed and as open in a clip, by its real opening; None: its mouth does not
    move or never closes.
    """
    known = real[np.isfinite(real)]
    if not len(known):
        return None
    shut, wide = np.quantile(known, (SHUT_QUANTILE, WIDE_QUANTILE))
    way = wide - shut
    if shut > SHUT_LIMIT or OPEN_SHARE * way <= CLOSED_LEAST:
        return None
    closed = shut + max(CLOSED_SHARE * way, CLOSED_LEAST)
    return Levels(float(closed), float(shut + OPEN_SHARE * way))


def bilabial_times(words: Iterable[tuple[float, float, str]]) -> list[float]:
    """Seconds at which words (start s, end s, word) close the lips, by their spelling: see
    :data:`CLOSURE_DEFINITION`. The letter m is spoken em and ends with it; b and p begin with it.
    """
    times = []
    for start, end, word in words:
        text = word.lower()
        if text in PAUSES or not text:
            continue
        if text[0] in "bpm" and text != "m" and text[:2] not in ("ph", "pn", "ps", "pt"):
            times.append(start)
        whole = len(text) > 1 or text == "m"
        if (whole and text[-1] in "bpm") or (len(text) > 3 and text[-2:] in ("be", "me", "pe")):
            times.append(end)
    return times


def real_closures(
    real: Curve, levels: Levels, silent: npt.NDArray[np.bool_]
) -> list[tuple[int, int]]:
    """Closures amid speech, first frame and the one after the last: runs of closed frames,
    :data:`LONGEST` at most, with an open mouth within :data:`OPENS_WITHIN` frames before and
    after, and not all in silence (T,).
    """
    found = []
    for first, stop in runs(real <= levels.closed):
        before, after = real[max(first - OPENS_WITHIN, 0) : first], real[stop : stop + OPENS_WITHIN]
        opens = (before > levels.open).any() and (after > levels.open).any()
        around = silent[max(first - NEAR, 0) : stop + NEAR]
        if stop - first <= LONGEST and opens and not around.all():
            found.append((first, stop))
    return found


def at_times(
    closures: Sequence[tuple[int, int]], times: Sequence[float], fps: float
) -> list[tuple[int, int]]:
    """Those of the closures that are within :data:`AT_WORD` frames of one of the times."""
    moments = [time * fps for time in times]
    return [
        (first, stop)
        for first, stop in closures
        if any(first - AT_WORD <= moment <= stop - 1 + AT_WORD for moment in moments)
    ]


def compare_closures(
    generated: Curve,
    real: Curve,
    closures: Sequence[tuple[int, int]],
    levels: Levels,
    silent: npt.NDArray[np.bool_],
) -> Closures:
    """Look for the generated lips' closures where the real ones are, :data:`NEAR` frames before and
    after included, and for the chance in every other stretch of that many frames (by the closures'
    median): amid speech, not silent altogether, and free of those frames and of pauses, in which
    the real mouth is closed for longer than :data:`LONGEST`.
    """
    shut = generated <= levels.closed
    places = [(max(first - NEAR, 0), stop + NEAR) for first, stop in closures]
    found = sum(bool(shut[first:stop].any()) for first, stop in places)
    taken = np.zeros(len(shut), bool)
    pauses = [(a, b) for a, b in runs(real <= levels.closed) if b - a > LONGEST]
    for first, stop in places + pauses:
        taken[first:stop] = True
    spoken = np.flatnonzero(~silent)
    chance = float("nan")
    if closures and len(spoken):
        size = int(np.median([stop - first for first, stop in closures])) + 2 * NEAR
        begins = range(int(spoken[0]), int(spoken[-1]) + 2 - size)
        free = [t for t in begins if not (taken[t : t + size].any() or silent[t : t + size].all())]
        if free:
            chance = float(np.mean([shut[t : t + size].any() for t in free]))
    return Closures(len(closures), found, chance)
