"""Sheets of frames for a report, after Figures 4 and 5 of the paper.

Frames of models are made again from the prepared cache, exactly as they were scored; those of
other systems' videos are read from the results' ``aligned/`` folder.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.constants import VIDEO_FPS
from stillspeak.data.cache import CachedClip, load_manifest
from stillspeak.errors import DataError, StillspeakError, WeightsError
from stillspeak.evaluation.measures.expression import find_blinks
from stillspeak.evaluation.measures.image_quality import Frames
from stillspeak.evaluation.measures.runs import runs
from stillspeak.evaluation.report.results import SystemResults, natural
from stillspeak.evaluation.systems import (
    FrameSource,
    Loaded,
    Recording,
    System,
    frame_source,
    load_recording,
    open_system,
)
from stillspeak.evaluation.traces import curve, spoken
from stillspeak.reporting.page import Figures

BROW_EXCURSION = 1.0
"""Pixels by which eyebrows must leave the clip's median height to be shown as moving; ten times
what the landmarks tremble."""

BROW_FRAMES = 3
"""Frames in a row for which they must."""

MOMENTS = 8
"""Columns of a sheet at most."""

GAP = 4
"""Pixels between frames."""

FACES = 4
"""Rows of a sheet in which several faces speak the same sound."""


@dataclass(frozen=True)
class Strip:
    """Frames side by side: what they show, and the 8-bit RGBA PNG."""

    label: str
    png: bytes


@dataclass(frozen=True)
class Sheet:
    """Rows of frames under common column headings, one a frame of every row."""

    title: str
    caption: str
    columns: tuple[str, ...]
    strips: tuple[Strip, ...]


@dataclass(frozen=True)
class Movement:
    """A blink or a movement of the eyebrows: frames ``start`` to ``stop`` (exclusive), strongest
    at ``peak``, with ``size`` (blendshape units, or pixels, up positive).
    """

    clip: str
    start: int
    stop: int
    peak: int
    size: float


class SystemFrames:
    """Frames of one system's results, made when first asked for. ``data`` is the prepared cache,
    ``keys`` are those of the clips as scored. All methods raise StillspeakError where frames
    cannot be read or made again.
    """

    def __init__(
        self, system: System, data: Path | None, folder: Path, keys: Mapping[str, str]
    ) -> None:
        self._system, self._data, self._folder, self._keys = system, data, folder, keys
        self._source: FrameSource | None = None
        self._clips: dict[Path, dict[str, CachedClip]] = {}
        self._made: dict[tuple[str, str], Frames] = {}

    def real(self, clip: str) -> Loaded:
        """The real video of a clip."""
        if self._system.kind == "videos":
            return self._read(self._folder / "aligned" / "real", clip, check=False)
        if self._data is None:
            raise DataError("the summary names no prepared cache; give it with --data")
        return self._read(self._data, clip, check=True)

    def generated(self, clip: str) -> Frames:
        """(T, H, W, 3) uint8: the frames that were scored."""
        if self._system.kind == "videos":
            return self._read(self._folder / "aligned" / "videos", clip, check=False).frames
        return self.speaking(clip, clip)

    def speaking(self, face: str, sound: str) -> Frames:
        """(T, H, W, 3) uint8: the first frame of one clip, driven by another's sound."""
        if (face, sound) not in self._made:
            still, driving = self.real(face).frames, self.real(sound)
            if face != sound:
                still = np.repeat(still[:1], len(driving.frames), axis=0)
            self._made[face, sound] = self._generator()(still, driving.audio).frames
        return self._made[face, sound]

    def _generator(self) -> FrameSource:
        if self._source is None:
            then = self._system
            now = open_system(then.label, then.animate)
            if now.sha256 != then.sha256:
                raise WeightsError(
                    f"the weights called {then.label} are not those that were evaluated "
                    f"(SHA-256 {now.sha256[:12]} instead of {then.sha256[:12]})"
                )
            self._source = frame_source(now)
        return self._source

    def _read(self, cache: Path, clip: str, *, check: bool) -> Loaded:
        if cache not in self._clips:
            self._clips[cache] = {f"{c.speaker}/{c.name}": c for c in load_manifest(cache)}
        found = self._clips[cache].get(clip)
        if found is None:
            raise DataError(f"the prepared cache {cache.name} holds no clip {clip}")
        key = f"{found.key} {found.frames}"
        if check and self._keys.get(clip, key) != key:
            raise DataError(f"the prepared cache {cache.name} holds another clip {clip} by now")
        return load_recording(Recording(found.file, key))


def draw_sheets(
    system: SystemResults, figures: Figures, data: Path | None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Sheets of one system, and why there are none."""
    if data is None and system.summary.data is not None:
        data = Path(system.summary.data)
    frames = SystemFrames(system.system, data, system.folder, system.keys)
    made: list[dict[str, Any]] = []
    reasons: list[str] = []

    def add(what: str, draw: Callable[[], Sheet]) -> None:
        try:
            made.append(_sheet(draw(), figures))
        except (StillspeakError, OSError) as error:
            reasons.append(f"{system.name}, {what}: {' '.join(str(error).split())}")

    if system.kind == "model":
        first = {system.speakers[clip]: clip for clip in sorted(system.speakers, reverse=True)}
        faces = [first[speaker] for speaker in sorted(first, key=natural)][:FACES]
        add("the same sound on several faces", partial(same_sound, frames, faces, system.name))
    if system.kind == "videos":
        reasons.append(
            f"{system.name}, the same sound on several faces: these are given videos, which no "
            "other sound can drive"
        )
    if system.kind == "still":
        return made, reasons
    if not system.traces:
        reasons.append(f"{system.name}, blinks and brows: its results hold no traces")
        return made, reasons
    fps = next(iter(system.traces.values()))["fps"]
    moves = brow_movements(system.traces, "generated")
    many = f"in {len(system.traces)} clips"
    if found := blinks(system.traces, "generated"):
        add("a blink", partial(blink_sheet, frames, found[0], system.name, fps))
    else:
        reasons.append(f"{system.name}: no whole blink was found {many}, so none is shown")
    for way, sign in (("lowered (a frown)", -1), ("raised", 1)):
        move = next((move for move in moves if sign * move.size > 0), None)
        if move is not None:
            add("brows", partial(brow_sheet, frames, move, system.name, fps))
        else:
            reasons.append(
                f"{system.name}: no brows {way} by more than {BROW_EXCURSION:g} px for "
                f"{BROW_FRAMES} frames were found {many}, so none are shown"
            )
    return made, reasons


def _sheet(sheet: Sheet, figures: Figures) -> dict[str, Any]:
    strips = []
    for row in sheet.strips:
        picture = figures.png(row.png, f"{row.label}. Frames: {', '.join(sheet.columns)}.")
        strips.append({"label": row.label, "picture": picture})
    return vars(sheet) | {"strips": strips}


def same_sound(frames: SystemFrames, clips: Sequence[str], name: str) -> Sheet:
    """One sentence spoken by several faces, and by its own speaker in truth (paper, Figure 4); the
    first clip gives sound and words, each gives a face.
    """
    sound = clips[0]
    truth = frames.real(sound)
    columns, moments = _moments(truth)
    rows = [Strip(f"real video, {sound}", strip(truth.frames[[0, *moments]]))]
    for clip in clips:
        still = frames.real(clip).frames[0]
        made = frames.speaking(clip, sound)
        moving = made[[min(m, len(made) - 1) for m in moments]]
        rows.append(Strip(f"{name}, still of {clip}", strip([still, *moving])))
    said = f"“{truth.text}”" if truth.text else "one sentence"
    return Sheet(
        f"The same sound on several faces: {name}",
        f"{said}, the sound of {sound}, on the first frames of {len(clips)} clips, one a speaker "
        "in the order of their names. First column: the still; then the middle of each word"
        f"{'' if spoken(truth.words) else ' (no word timings: equal distances)'}. Top row: the "
        "real video that the sound is from. Aligned crops of 128 x 96 pixels, as generated.",
        ("still", *columns),
        tuple(rows),
    )


def _moments(truth: Loaded) -> tuple[list[str], list[int]]:
    """Column headings and frames: words and their middles, or equal distances."""
    last = len(truth.frames) - 1
    chosen = spoken(truth.words)
    if not chosen:
        places = np.linspace(0, last, MOMENTS)[1:].round().astype(int)
        return [f"{place / VIDEO_FPS:.2f} s" for place in places], [int(p) for p in places]
    if len(chosen) > MOMENTS - 1:
        places = np.linspace(0, len(chosen) - 1, MOMENTS - 1).round().astype(int)
        chosen = [chosen[i] for i in places]
    middles = [min(last, int((start + end) / 2 * VIDEO_FPS)) for start, end, _ in chosen]
    return [word for _, _, word in chosen], middles


def blinks(traces: Mapping[str, Mapping[str, Any]], side: str) -> list[Movement]:
    """Blinks in traces by clip, deepest first, those that the clip cuts off left out; ``side`` is
    ``generated`` or ``real``.
    """
    found = []
    for clip, trace in traces.items():
        closure = curve(trace[side]["closure"])
        for start, stop in find_blinks(closure):
            if start > 0 and stop < len(closure):
                peak = start + int(np.argmax(closure[start:stop]))
                size = float(closure[peak] - np.nanmedian(closure))
                found.append(Movement(clip, start, stop, peak, size))
    return sorted(found, key=lambda m: (-m.size, m.clip, m.start))


def brow_movements(traces: Mapping[str, Mapping[str, Any]], side: str) -> list[Movement]:
    """Stretches in which the eyebrows are higher or lower than the clip's median by
    :data:`BROW_EXCURSION` pixels for :data:`BROW_FRAMES` frames or more, largest first.
    """
    found = []
    for clip, trace in traces.items():
        height = curve(trace[side]["brow"])
        if not np.isfinite(height).any():
            continue
        away = np.nan_to_num(height - np.nanmedian(height), nan=0.0)
        for sign in (1, -1):
            for start, stop in runs(sign * away > BROW_EXCURSION):
                if stop - start >= BROW_FRAMES:
                    peak = start + int(np.argmax(sign * away[start:stop]))
                    found.append(Movement(clip, start, stop, peak, float(away[peak])))
    return sorted(found, key=lambda m: (-abs(m.size), m.clip, m.start))


def blink_sheet(frames: SystemFrames, blink: Movement, name: str, fps: float) -> Sheet:
    """A blink from open over closed to open (paper, Figure 5 b)."""
    start, peak, stop = blink.start, blink.peak, blink.stop
    places = (start - 1, (start + peak) // 2, peak, (peak + stop) // 2, stop)
    words = ("open", "closing", "closed", "opening", "open")
    title = f"A blink: {name}, {blink.clip}"
    caption = (
        f"Frames around the {'deepest' if name != 'real' else 'deepest real'} blink found, "
        f"{start / fps:.2f} to {stop / fps:.2f} s; the eyes' closure (mean eyeBlink "
        f"blendshape) rises by {blink.size:.2f} above the clip's median."
    )
    return _moving(frames, blink.clip, places, words, name, fps, title, caption)


def brow_sheet(frames: SystemFrames, move: Movement, name: str, fps: float) -> Sheet:
    """A movement of the eyebrows (paper, Figure 5 a)."""
    way = "raised" if move.size > 0 else "lowered"
    places = (max(0, move.start - 3), move.start, move.peak, move.stop - 1, move.stop + 2)
    words = ("before", "begins", way, "ends", "after")
    title = f"Brows {way}: {name}, {move.clip}"
    caption = (
        f"Frames around the largest movement of the eyebrows found, {move.start / fps:.2f} to "
        f"{move.stop / fps:.2f} s: {abs(move.size):.1f} px {'above' if move.size > 0 else 'below'} "
        "the clip's median height over the line through the eye corners. A nodding head moves "
        "this height as well."
    )
    return _moving(frames, move.clip, places, words, name, fps, title, caption)


def _moving(
    frames: SystemFrames,
    clip: str,
    places: Sequence[int],
    words: Sequence[str],
    name: str,
    fps: float,
    title: str,
    caption: str,
) -> Sheet:
    made, real = frames.generated(clip), frames.real(clip).frames
    at = [max(0, min(place, len(made) - 1, len(real) - 1)) for place in places]
    rows = [Strip(name, strip(made[at]))]
    if not np.array_equal(made[at], real[at]):
        rows.append(Strip("real video, same moments", strip(real[at])))
    columns = tuple(
        f"{word} {place / fps:.2f}\N{NO-BREAK SPACE}s"
        for word, place in zip(words, at, strict=True)
    )
    return Sheet(title, caption, columns, tuple(rows))


def strip(frames: Sequence[npt.NDArray[np.uint8]] | Frames) -> bytes:
    """Frames (H, W, 3) uint8 side by side as a PNG, a transparent gap between them."""
    from PIL import Image

    opaque = np.pad(frames, ((0, 0), (0, 0), (0, 0), (0, 1)), constant_values=255)
    board = np.concatenate(np.pad(opaque, ((0, 0), (0, 0), (0, GAP), (0, 0))), axis=1)
    buffer = io.BytesIO()
    Image.fromarray(board[:, :-GAP]).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
