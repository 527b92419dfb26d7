"""Which frames of a video are lost: said in text or files, or seen in the pictures."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.errors import InputError

GRAMMAR = "give e.g. 1.0-1.4,2.2-2.6 in seconds or 25-34,55-64 in frame numbers"

_MAX_FILE = 4 * 2**20
_MOST = 10**15
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)\s*([sf]?)"
_INTERVAL = re.compile(rf"^{_NUMBER}\s*(?:(-|:|\.\.|\u2013)\s*(?:{_NUMBER})?)?$")

FROZEN = 0.75
"""Levels of 255: a picture none of whose blocks of 16 x 16 differs by more in the mean from the one
before is a repetition of it. Grain and the codec's noise alone make more than that in a picture
that the camera took."""

BLACK = 20.0
"""Levels of 255 that no block of a black picture exceeds in the mean."""


@dataclass(frozen=True)
class Interval:
    """Lost frames, in seconds [start, stop) or in frame numbers from 0, both included."""

    start: float
    stop: float
    frames: bool

    def holds(self, index: int, seconds: float, interval: float) -> bool:
        """Whether a frame is lost: by its number, or by its time from the first one."""
        if self.frames:
            return self.start <= index <= self.stop
        # A frame counts by its middle, so that rounding at an edge takes none in or out.
        middle = seconds + interval / 2
        return self.start <= middle < self.stop


def parse_lost(text: str, *, name: str = "--lost") -> tuple[Interval, ...]:
    """Intervals from text such as ``1.0-1.4, 2.2-2.6`` or ``25-34, 60``.

    Numbers with a decimal point are seconds and whole numbers frame numbers from 0 on, the last
    one included; ``s`` and ``f`` behind a number say so (``1s-2s``, ``25f-34f``). Without
    a second number the interval goes on to the end: ``70-``.

    Args:
        text: intervals separated by commas, semicolons or lines; ``#`` begins a comment.
        name: what messages call it.

    Raises:
        InputError: text that is not such.
    """
    found = []
    for line, row in enumerate(text.splitlines(), start=1):
        where = f"{name}, line {line}" if "\n" in text else name
        for part in re.split(r"[,;]", row.partition("#")[0]):
            if part.strip():
                found.append(_parse(part.strip(), where))
    return _checked(found, name)


def read_lost(path: str | Path) -> tuple[Interval, ...]:
    """Intervals from a file: .txt as :func:`parse_lost`, .csv or .json.

    A CSV has the columns ``start,end`` (seconds), or ``first,last`` (frame numbers), or ``frame``;
    a JSON a list of pairs, or of frame numbers, or ``{"seconds": [[1.0, 1.4]]}`` or
    ``{"frames": [[25, 34]]}``. In a bare list of pairs, pairs of whole numbers are frames.

    Raises:
        InputError: it cannot be read or says something else.
    """
    file = Path(path)
    try:
        if file.stat().st_size > _MAX_FILE:
            raise InputError(f"{path}: larger than 4 MiB; give a list of intervals")
        text = file.read_text("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path, or {GRAMMAR}") from None
    except IsADirectoryError:
        raise InputError(f"{path}: a folder; give a .csv, .json or .txt file") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise InputError(f"{path}: cannot be read as text ({problem})") from problem
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return _checked(_from_csv(text, str(path)), str(path))
    if suffix == ".json":
        return _checked(_from_json(text, str(path)), str(path))
    if suffix == ".txt":
        return parse_lost(text if "\n" in text else text + "\n", name=str(path))
    raise InputError(f"{path}: not a list of lost intervals; give a .csv, .json or .txt file")


def lost_from(text: str) -> tuple[Interval, ...]:
    """Intervals as they stand, or the name of a file of them; InputError: neither."""
    if Path(text).suffix.lower() in (".csv", ".json", ".txt"):
        return read_lost(text)
    return parse_lost(text)


def lost_frames(intervals: Iterable[Interval], count: int, fps: float) -> npt.NDArray[np.bool_]:
    """(count,) bool: which frames of a video at an even rate are lost."""
    known = tuple(intervals)
    lost = (any(one.holds(i, i / fps, 1 / fps) for one in known) for i in range(count))
    return np.fromiter(lost, bool, count)


class PictureCheck:
    """Sees frozen, repeated and black pictures, one picture after another."""

    def __init__(self) -> None:
        self._last: npt.NDArray[np.uint8] | None = None

    def lost(self, picture: npt.NDArray[np.uint8]) -> bool:
        """Whether a picture (H, W, 3) uint8 repeats the last good one, or is black."""
        grey = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
        last = self._last
        if _blocks(grey).max() <= BLACK or (
            last is not None and _blocks(cv2.absdiff(grey, last)).max() <= FROZEN
        ):
            return True
        self._last = grey
        return False


def _blocks(grey: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    size = (max(grey.shape[1] // 16, 1), max(grey.shape[0] // 16, 1))
    return np.asarray(cv2.resize(grey.astype(np.float32), size, interpolation=cv2.INTER_AREA))


def _parse(part: str, name: str) -> Interval:
    match = _INTERVAL.match(part)
    if match is None:
        raise InputError(f"{name}: {part!r} is not an interval; {GRAMMAR}")
    first, first_unit, dash, last, last_unit = match.groups()
    units = {unit for unit in (first_unit, last_unit) if unit}
    if len(units) > 1:
        raise InputError(f"{name}: {part!r} mixes seconds and frames; {GRAMMAR}")
    pointed = "." in first or "." in (last or "")
    frames = units == {"f"} or (not units and not pointed)
    if frames and pointed:
        raise InputError(f"{name}: {part!r} has a part of a frame; {GRAMMAR}")
    if not dash:
        if not frames:
            raise InputError(f"{name}: {part!r} is one moment, not an interval; {GRAMMAR}")
        return Interval(float(first), float(first), True)
    return Interval(float(first), math.inf if last is None else float(last), frames)


def _checked(found: list[Interval], name: str) -> tuple[Interval, ...]:
    if not found:
        raise InputError(f"{name}: names no interval; {GRAMMAR}")
    for one in found:
        if not (one.stop > one.start or (one.frames and one.stop == one.start)):
            raise InputError(f"{name}: {one.start:g}-{one.stop:g} ends before it begins")
    return tuple(sorted(found, key=lambda one: (one.frames, one.start)))


def _from_csv(text: str, name: str) -> list[Interval]:
    rows = csv.DictReader(text.splitlines())
    columns = {column.strip().lower() for column in rows.fieldnames or () if column}
    kinds = ((("start", "end"), False), (("first", "last"), True), (("frame",), True))
    kind = next((kind for kind in kinds if columns >= set(kind[0])), None)
    if kind is None:
        raise InputError(
            f"{name}: needs the columns start,end (seconds), first,last (frame numbers) or frame"
        )
    names, frames = kind
    found = []
    for line, row in enumerate(rows, start=2):
        values = {(key or "").strip().lower(): value for key, value in row.items()}
        try:
            numbers = [float(values[key] or "") for key in names]
        except (TypeError, ValueError):
            wanted = " and ".join(names)
            raise InputError(f"{name}, line {line}: {wanted} must be numbers") from None
        found.append(_interval(numbers[0], numbers[-1], frames, f"{name}, line {line}"))
    return found


def _from_json(text: str, name: str) -> list[Interval]:
    try:
        data = json.loads(text)
    except ValueError as problem:
        raise InputError(f"{name}: not JSON ({problem})") from None
    except RecursionError:
        raise InputError(f"{name}: not a list of intervals") from None
    unit: str | None = None
    if isinstance(data, dict) and len(data) == 1 and data.keys() <= {"frames", "seconds"}:
        ((unit, data),) = data.items()
    if not isinstance(data, list):
        raise InputError(f'{name}: not a list of intervals; give e.g. {{"seconds": [[1.0, 1.4]]}}')
    found = []
    for item in data:
        pair = item if isinstance(item, list) else [item, item]
        numbers = [n for n in pair if isinstance(n, int | float) and not isinstance(n, bool)]
        if len(numbers) != 2 or len(pair) != 2:
            raise InputError(f"{name}: {json.dumps(item)[:60]} is not a pair of numbers")
        whole = all(isinstance(n, int) for n in numbers)
        frames = whole if unit is None else unit == "frames"
        # Whole numbers of hundreds of digits are no floats.
        start, stop = (
            float(min(max(n, -_MOST), _MOST) if isinstance(n, int) else n) for n in numbers
        )
        found.append(_interval(start, stop, frames, name))
    return found


def _interval(start: float, stop: float, frames: bool, name: str) -> Interval:
    if not (math.isfinite(start) and math.isfinite(stop) and start >= 0):
        raise InputError(f"{name}: {start:g}-{stop:g} is not an interval of a video")
    if frames and (start % 1 or stop % 1):
        raise InputError(f"{name}: {start:g}-{stop:g} has a part of a frame")
    return Interval(start, stop, frames)
