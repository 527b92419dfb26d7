"""An imperceptible mark in the pixels: 32 bits that survive re-encoding and a change of size.

Spread spectrum in the luma (Cox, Kilian, Leighton, Shamoon 1997), on a canonical picture that every
frame is scaled to: the mark sits at fixed *cycles a picture*, so a scaled video needs no search. In
a band of its cosine transform each coefficient gets a chip of +1 or -1. Some chips are a pilot, the
same in every video; the rest are six bytes (identifier and checksum), each one of 256 orthogonal
sequences.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby, islice

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

BITS = 32
"""Length of an identifier."""
SMALLEST = 48
"""Shorter side in pixels of the frames that have room for a mark at all."""
CANON = 256
"""Side of the canonical picture in pixels."""
LOW = 28.0
"""Where the band of the mark begins, in half cycles over the canonical picture."""

PRESENT_WITH_IDENTIFIER = 4.0
"""Score from which on a valid checksum counts."""
PRESENT = 7.0
"""Score from which on there is a mark although its identifier cannot be read."""

_KEY = b"stillspeak watermark 1"
_SYMBOLS, _SYMBOL_CHIPS, _PILOT_CHIPS = 6, 2048, 4096
_CHIPS = _PILOT_CHIPS + _SYMBOLS * _SYMBOL_CHIPS
_RING = 6.0
"""Width in half cycles of the rings over which the spectrum is levelled."""
_REACHES = (1e9, 120.0, 80.0, 55.0, 40.0)
"""How far up the band the chips are believed, in half cycles; a reader tries them all."""
_AIM_REACH = 80.0
"""Reach for which the mark is made strong enough: what is left after an encoder's work."""
_AIM_PILOT, _AIM_SYMBOL, _RIVAL = 5.0, 4.3, 2.0
"""Scores of the pilot and of each right sequence that are aimed at, and the most that a wrong
one may have."""
_WEIGHTS = 0.5, 1.5
"""The least and the most that the pilot and a right sequence are weighted with."""
_FULL_SIZE = 300
"""Shorter side in pixels below which the mark is made stronger: an encoder takes more of it."""
_CHANCE_MEAN, _CHANCE_SPREAD = 6.0, 0.6
"""Mean and standard deviation of the evidence, below, in noise."""
_WINDOW = 25
"""Frames that are averaged before a reading."""
_REFRESH = 25
"""Frames after which it is looked whether the picture has changed."""
_CHANGED = 1.0
"""Mean difference in grey levels of the canonical picture from which on it has."""
_BAR = 12
"""Range of grey levels in a row or column that may still be a bar beside the picture."""


@dataclass(frozen=True)
class Reading:
    """What was found in the pixels."""

    present: bool
    identifier: int | None
    """32 bits, where the checksum confirms them."""
    score: float
    """Evidence for a mark in standard deviations above what chance gives: 0 is chance."""
    frames: int
    """Frames that were looked at."""


class Watermarker:
    """Marks frame after frame of one video.

    Args:
        identifier: 32 bits, 0 to 2**32 - 1.

    Raises:
        ValueError: the identifier is out of range.
    """

    def __init__(self, identifier: int) -> None:
        self._data = _payload(identifier)
        self._shape: tuple[int, ...] = ()
        self._count = 0
        self._seen: Floats | None = None
        self._weights: _Weights | None = None
        self._plus = self._minus = np.zeros(0, np.uint8)

    def mark(self, frame: Frame) -> Frame:
        """The marked frame, an array of its own; frames of another size begin anew.

        Args:
            frame: (H, W, 3) uint8 RGB. It is not changed.
        """
        import cv2

        if frame.shape != self._shape:
            self._shape, self._count, self._seen, self._weights = frame.shape, 0, None, None
        if self._count % _REFRESH == 0:
            picture = _canonical(frame)
            if self._seen is None or float(np.abs(picture - self._seen).mean()) > _CHANGED:
                self._seen = picture
                self._make(picture, frame.shape[0], frame.shape[1])
        self._count += 1
        added = cv2.add(frame, self._plus)
        return np.asarray(cv2.subtract(added, self._minus), np.uint8)

    def _make(self, picture: Floats, height: int, width: int) -> None:
        import cv2

        rounds = 2
        if self._weights is None:
            self._weights, rounds = _Weights(self._data), 5
        pattern = _fit(picture, self._data, self._weights, height, width, rounds=rounds)
        if pattern.shape != (height, width):
            pattern = _resized(pattern, height, width, cv2.INTER_CUBIC)
        # Halves of a grey level count, so they are scattered instead of rounded away.
        steps = np.floor(pattern + _scatter(height, width))
        plus = np.clip(steps, 0, 255).astype(np.uint8)
        minus = np.clip(-steps, 0, 255).astype(np.uint8)
        self._plus, self._minus = cv2.merge([plus] * 3), cv2.merge([minus] * 3)


def read_watermark(frames: Iterable[Frame], *, limit: int = 1500) -> Reading:
    """Look for a mark, a second of video after the other, until it is found beyond doubt.

    Args:
        frames: (H, W, 3) uint8 RGB, at least one.
        limit: frames that are looked at, at most.
    """
    whole, inside = _Sum(), _Sum()
    best = Reading(False, None, 0.0, 0)
    count = 0
    for window in _windows(frames, limit):
        count += len(window)
        whole.add(window)
        sums = [whole]
        if (box := _inside_bars(window[0])) is not None:
            inside.add([frame[box] for frame in window])
            sums.append(inside)
        best = max((one.reading(count) for one in sums), key=lambda reading: reading.score)
        if best.identifier is not None and best.score >= PRESENT:
            break
    return best


def symbol_bits(frames: Iterable[Frame]) -> int:
    """The 32 bits that are most likely there, right or wrong: for counting bit errors."""
    total = _Sum()
    for window in _windows(frames, 1500):
        total.add(window)
    _, data = _best(total.mean())
    return int.from_bytes(data.argmax(axis=1)[:4].astype(np.uint8).tobytes(), "big")


class _Sum:
    """Levelled coefficients of window after window."""

    def __init__(self) -> None:
        self.total: Floats = np.zeros(_CHIPS, np.float32)
        self.windows = 0

    def add(self, window: list[Frame]) -> None:
        picture = np.asarray(np.mean([_canonical(frame) for frame in window], axis=0), np.float32)
        self.total = self.total + _levelled(picture)
        self.windows += 1

    def mean(self) -> Floats:
        return np.asarray(self.total / max(self.windows, 1), np.float32)

    def reading(self, count: int) -> Reading:
        """The best of all ways to look; the identifier is taken from that one alone."""
        mean = self.mean()
        ways = (_best(values) for values in (mean, mean * _tables().mirror))
        score, data = max(ways, key=lambda pair: pair[0])
        identifier = _identifier(data) if score >= PRESENT_WITH_IDENTIFIER else None
        present = identifier is not None or score >= PRESENT
        return Reading(present, identifier, round(score, 2), count)


class _Weights:
    """How strong the pilot and each sequence of each symbol are embedded."""

    def __init__(self, data: bytes) -> None:
        self.pilot = 0.7
        self.symbols: Floats = np.zeros((_SYMBOLS, 256), np.float32)
        self.symbols[np.arange(_SYMBOLS), list(data)] = 0.7


def _fit(
    picture: Floats, data: bytes, weights: _Weights, height: int, width: int, *, rounds: int
) -> Floats:
    """The pattern for a canonical picture, whose weights are adapted until it reads well.

    (CANON, CANON) float32, or (H, W) where the frames are smaller than that.
    """
    import cv2

    tables = _tables()
    kept = _kept_by_size(height, width)
    smaller = max(_FULL_SIZE / min(height, width), 1.0)
    room = _headroom(picture, min(smaller**1.45, 6.0))
    louder = min(smaller**0.7, 2.2)
    aim_pilot, aim_symbol = _AIM_PILOT * louder, _AIM_SYMBOL * louder
    right = np.arange(_SYMBOLS), list(data)
    for left in range(rounds, -1, -1):
        pilot = np.full(_PILOT_CHIPS, weights.pilot, np.float32)
        chips = np.concatenate([pilot, (weights.symbols @ tables.sequences).ravel()])
        spectrum = np.zeros(CANON * CANON, np.float32)
        spectrum[tables.places] = chips * tables.signs * kept
        pattern = np.asarray(cv2.idct(spectrum.reshape(CANON, CANON)), np.float32)
        # A weight of 1 stands for a pattern with a standard deviation of 1.
        pattern *= room * (CANON / np.sqrt(_CHIPS))
        shown = pattern
        if height < CANON or width < CANON:
            pattern = _resized(pattern, height, width, cv2.INTER_AREA)
            shown = _resized(pattern, CANON, CANON, cv2.INTER_LINEAR)
        if not left:
            return pattern
        score, scores = _scores(_levelled(picture + shown), _AIM_REACH)
        step = weights.pilot / max(score, 1.0)
        weights.pilot = float(np.clip(weights.pilot + (aim_pilot - score) * step, *_WEIGHTS))
        own = scores[right]
        steps = weights.symbols[right] / np.maximum(own, 1.0)
        rivals = np.maximum(scores - _RIVAL, 0.0)
        rivals[right] = 0.0
        new = np.clip(weights.symbols[right] + (aim_symbol - own) * steps, *_WEIGHTS)
        weights.symbols -= rivals * steps[:, None]
        weights.symbols[right] = new
    raise AssertionError("rounds is at least 0")


def _payload(identifier: int) -> bytes:
    """Six bytes: the identifier and its checksum."""
    if not 0 <= identifier < 2**BITS:
        raise ValueError(f"identifier is {identifier}, it must have {BITS} bits")
    data = identifier.to_bytes(4, "big")
    return data + (zlib.crc32(_KEY + data) & 0xFFFF).to_bytes(2, "big")


def _identifier(scores: Floats) -> int | None:
    """The identifier with a valid checksum among the likeliest bytes.

    One byte may be the next likeliest instead, which makes seven candidates.
    """
    likeliest = np.argsort(scores, axis=1)[:, :-3:-1]
    for changed in range(-1, _SYMBOLS):
        candidate = np.where(np.arange(_SYMBOLS) == changed, likeliest[:, 1], likeliest[:, 0])
        data = candidate.astype(np.uint8).tobytes()
        identifier = int.from_bytes(data[:4], "big")
        if _payload(identifier) == data:
            return identifier
    return None


def _scores(values: Floats, reach: float) -> tuple[float, Floats]:
    """The pilot's score and those of every sequence, (symbols, 256), in standard deviations."""
    tables = _tables()
    weighted = values * tables.signs
    if reach < 1e6:
        weighted = weighted * np.exp(-((tables.radii / reach) ** 2))
    spread = float(np.sqrt(np.mean(weighted**2))) or 1.0
    pilot = float(weighted[:_PILOT_CHIPS].sum() / (np.sqrt(_PILOT_CHIPS) * spread))
    parts = weighted[_PILOT_CHIPS:].reshape(_SYMBOLS, _SYMBOL_CHIPS)
    return pilot, (parts @ tables.sequences.T) / (np.sqrt(_SYMBOL_CHIPS) * spread)


def _best(values: Floats) -> tuple[float, Floats]:
    """The evidence and the sequences' scores of the reach that finds most.

    Evidence is the likeliest message's correlation over all chips, as deviations from noise.
    """
    ways = []
    for pilot, scores in (_scores(values, reach) for reach in _REACHES):
        total = pilot * _PILOT_CHIPS**0.5 + float(scores.max(axis=1).sum()) * _SYMBOL_CHIPS**0.5
        ways.append((float((total / _CHIPS**0.5 - _CHANCE_MEAN) / _CHANCE_SPREAD), scores))
    return max(ways, key=lambda pair: pair[0])


def _levelled(picture: Floats) -> Floats:
    """The chips' coefficients of a canonical picture, (chips,) float32 of a like size.

    Loud regions and loud frequencies are turned down, single large values cut: what is left of
    the picture is noise of one strength, under which the mark lies.
    """
    import cv2

    tables = _tables()
    band = cv2.idct(cv2.dct(picture) * tables.band)
    loudness = np.sqrt(cv2.GaussianBlur(band * band, (0, 0), 5.0) + 1.0)
    quiet = np.clip(band / loudness, -2.5, 2.5) * loudness**-0.6
    values = cv2.dct(quiet).ravel()[tables.places]
    power = np.bincount(tables.rings, values * values) / tables.ring_sizes
    level = np.sqrt(power + 1e-12)[tables.rings]
    return np.asarray(np.clip(values / level, -3.0, 3.0), np.float32)


def _headroom(picture: Floats, strength: float) -> Floats:
    """How large the pattern may be at each place of a canonical picture, in grey levels."""
    import cv2

    fine = picture - cv2.GaussianBlur(picture, (0, 0), 1.5)
    busy = np.sqrt(np.maximum(cv2.boxFilter(fine * fine, -1, (5, 5)), 0.0))
    # The least of the neighbourhood: an edge lends nothing to the flat side of it.
    busy = cv2.GaussianBlur(cv2.erode(busy, np.ones((7, 7), np.uint8)), (0, 0), 1.5)
    light = np.clip(cv2.GaussianBlur(picture, (0, 0), 2.0) / 70.0, 0.35, 1.0)
    return np.asarray(strength * np.clip(0.3 * busy, 0.6, 2.5) * light)


@cache
def _kept_by_size(height: int, width: int) -> Floats:
    """Share of each chip's frequency that a frame of so many pixels has room for."""
    tables = _tables()
    rows, columns = np.divmod(tables.places, CANON)
    return np.exp(-((np.hypot(rows / height, columns / width) / 0.75) ** 4)).astype(np.float32)


@cache
def _scatter(height: int, width: int) -> Floats:
    """Thresholds in [0, 1) that turn fractions into a fine regular mixture of neighbours."""
    grid = np.zeros((1, 1))
    for _ in range(3):
        grid = np.block([[4 * grid, 4 * grid + 2], [4 * grid + 3, 4 * grid + 1]])
    tiles = np.tile((grid + 0.5) / 64, (height // 8 + 1, width // 8 + 1))
    return tiles[:height, :width].astype(np.float32)


def _resized(values: Floats, height: int, width: int, way: int) -> Floats:
    import cv2

    return np.asarray(cv2.resize(values, (width, height), interpolation=way), np.float32)


def _canonical(frame: Frame) -> Floats:
    """The luma of a frame (H, W, 3), as (CANON, CANON) float32 in [0, 255]."""
    import cv2

    luma = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    way = cv2.INTER_AREA if min(luma.shape) >= CANON else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(luma, (CANON, CANON), interpolation=way), np.float32)


def _inside_bars(frame: Frame) -> tuple[slice, slice] | None:
    """Rows and columns of the picture between even bars; None without such bars."""
    import cv2

    luma = cv2.cvtColor(np.ascontiguousarray(frame), cv2.COLOR_RGB2GRAY)
    box = []
    for axis in (1, 0):
        busy = np.flatnonzero(luma.max(axis=axis) - luma.min(axis=axis) > _BAR)
        if not busy.size:
            return None
        box.append(slice(int(busy[0]), int(busy[-1]) + 1))
    height, width = (side.stop - side.start for side in box)
    if height >= 0.98 * luma.shape[0] and width >= 0.98 * luma.shape[1]:
        return None
    return (box[0], box[1]) if min(height, width) >= 32 else None


def _windows(frames: Iterable[Frame], limit: int) -> Iterator[list[Frame]]:
    """Lists of frames that are averaged, of one size each."""
    for _, alike in groupby(islice(frames, limit), key=lambda frame: frame.shape):
        while window := list(islice(alike, _WINDOW)):
            yield window


@dataclass(frozen=True)
class _Tables:
    """What every mark has in common, in the order of the chips: pilot, then the symbols."""

    places: npt.NDArray[np.intp]
    """Index of each chip's coefficient in the flattened transform."""
    signs: Floats
    """The pseudo-random +1 or -1 that every chip is multiplied with."""
    radii: Floats
    """Frequency of each chip in half cycles."""
    rings: npt.NDArray[np.intp]
    ring_sizes: npt.NDArray[np.intp]
    mirror: Floats
    """-1 where mirroring the picture turns a coefficient's sign."""
    band: Floats
    """(CANON, CANON), 1 where there is a chip."""
    sequences: Floats
    """(256, chips of a symbol) of +1 and -1, orthogonal."""


@cache
def _tables() -> _Tables:
    from scipy.linalg import hadamard

    rows, columns = np.divmod(np.arange(CANON * CANON), CANON)
    radii = np.hypot(rows, columns)
    order = np.argsort(np.where(radii >= LOW, radii, np.inf), kind="stable")[:_CHIPS]
    # A hash and no random generator: the same on every machine and with every version.
    stream = np.frombuffer(hashlib.shake_256(_KEY).digest(9 * _CHIPS), np.uint8)
    shuffle = np.argsort(stream[: 8 * _CHIPS].view("<u8"), kind="stable")
    places = order[shuffle]
    signs = np.where(stream[8 * _CHIPS :] & 1, 1.0, -1.0).astype(np.float32)
    rings = ((radii[places] - LOW) / _RING).astype(np.intp)
    band = np.zeros(CANON * CANON, np.float32)
    band[places] = 1.0
    return _Tables(
        places=places,
        signs=signs,
        radii=radii[places].astype(np.float32),
        rings=rings,
        ring_sizes=np.maximum(np.bincount(rings), 1),
        mirror=np.where(columns[places] % 2, -1.0, 1.0).astype(np.float32),
        band=band.reshape(CANON, CANON),
        sequences=hadamard(_SYMBOL_CHIPS)[1:257].astype(np.float32),
    )
