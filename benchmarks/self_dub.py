"""Dub real clips with their own sound, and compare with what the camera saw.

    python benchmarks/self_dub.py --videos ../shared/wild --grid ../shared/grid --clips 24

Every number stands beside a control, the same video dubbed with another clip's sound: a mouth that
kept to the video's own lips would follow these there too. Frames are compared before encoding.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np

from stillspeak.data.layouts.grid import find_grid
from stillspeak.dub.dubber import Dubber, DubFrame, DubStats
from stillspeak.evaluation.measures.closures import (
    closing_levels,
    compare_closures,
    real_closures,
)
from stillspeak.evaluation.measures.lips import quiet_frames
from stillspeak.face.landmarks import LANDMARKS, MediaPipeDetector
from stillspeak.face.mouth import LIPS, face_height, lip_opening, mouth_width
from stillspeak.media.video import read_clip
from stillspeak.rendering.raster import Picture

LONGEST = 250
"""Frames of a clip at most."""

LAGS = 5
SUFFIXES = (".mp4", ".mpg", ".mov")


@dataclass(frozen=True)
class Score:
    """One clip. Lips are compared as lip opening over face height; ``lag`` is the best, in frames,
    positive where the dubbed lips are late. ``border`` and ``face`` are temporal differences over
    the real clip's: in the outermost tenth of an eye distance of what changed, and in all of it
    away from the lips. ``control`` is ``opening`` with another clip's sound."""

    clip: str
    frames: int
    drawn: int
    opening: float
    best: float
    lag: int
    width: float
    amplitude: float
    control: float
    closures: int
    found: int
    chance: float
    sharpness: float
    border: float
    face: float


def dubbed(dubber: Dubber, frames: Sequence[Picture], sound: np.ndarray) -> list[Picture]:
    """Frames dubbed with a sound."""
    bursts = (frames[k : k + 6] for k in range(0, len(frames), 12))
    stats = DubStats()
    given = (DubFrame(picture, float(k)) for k, picture in enumerate(frames))
    out = []
    for frame, picture, (x0, y0, x1, y1) in dubber.draw(
        given, [sound], dubber.appearance(bursts), stats=stats
    ):
        if picture is not None:
            outside = (picture != frame.picture).any(axis=2)
            outside[y0:y1, x0:x1] = False
            if outside.any():
                raise AssertionError("pixels outside the box have changed")
        out.append(frame.picture if picture is None else picture)
    return out


def landmarks(detector: MediaPipeDetector, frames: Sequence[Picture]) -> np.ndarray:
    """(T, 478, 2), NaN where there is no face; each frame on its own."""
    missing = np.full((LANDMARKS, 2), np.nan)
    found = (detector.detect(frame) for frame in frames)
    return np.array([faces[0].points if faces else missing for faces in found], np.float64)


def correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Of the frames in which both are known."""
    known = np.isfinite(one) & np.isfinite(other)
    return float(np.corrcoef(one[known], other[known])[0, 1])


def best_lag(made: np.ndarray, real: np.ndarray) -> tuple[float, int]:
    """The largest correlation and by how many frames ``made`` is late for it."""
    found = []
    for lag in range(-LAGS, LAGS + 1):
        a, b = made[max(lag, 0) :], real[max(-lag, 0) :]
        length = min(len(a), len(b))
        found.append((correlation(a[:length], b[:length]), lag))
    return max(found)


def sharpness(real: Sequence[Picture], made: Sequence[Picture], points: np.ndarray) -> float:
    """Mean gradient around the mouth over the real one's, in the video's own pixels."""
    ratios = []
    for before, after, place in zip(real, made, points, strict=True):
        if not np.isfinite(place).all():
            continue
        unit = np.linalg.norm(place[33] - place[263])
        x, y = place[list(LIPS)].mean(axis=0)
        rows = slice(max(int(y - 0.4 * unit), 0), int(y + 0.4 * unit))
        columns = slice(max(int(x - 0.5 * unit), 0), int(x + 0.5 * unit))
        grey = [
            cv2.cvtColor(one[rows, columns], cv2.COLOR_RGB2GRAY).astype(float)
            for one in (before, after)
        ]
        first, second = (np.hypot(*np.gradient(one)).mean() for one in grey)
        ratios.append(second / first)
    return float(np.mean(ratios))


def flicker(
    real: Sequence[Picture], made: Sequence[Picture], points: np.ndarray
) -> tuple[float, float]:
    """``border`` and ``face`` of a :class:`Score`."""
    sums = np.zeros((2, 2))
    last: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
    for before, after, place in zip(real, made, points, strict=True):
        changed = (before != after).any(axis=2).astype(np.uint8)
        greys = [cv2.cvtColor(p, cv2.COLOR_RGB2GRAY).astype(float) for p in (before, after)]
        if np.isfinite(place).all() and last is not None:
            unit = np.linalg.norm(place[33] - place[263])
            both = cv2.morphologyEx(changed | last[2], cv2.MORPH_CLOSE, np.ones((9, 9)))
            side = 2 * round(0.1 * unit) + 1
            inner = cv2.erode(both, np.ones((side, side)))
            lips = np.zeros_like(both)
            cv2.fillConvexPoly(lips, cv2.convexHull(np.rint(place[list(LIPS)]).astype(int)), 1)
            side = 2 * round(0.15 * unit) + 1
            lips = cv2.dilate(lips, np.ones((side, side)))
            for k, where in enumerate(((both > 0) & (inner == 0), (both > 0) & (lips == 0))):
                sums[k] += [
                    np.abs(now - then)[where].sum()
                    for now, then in zip(greys, last[:2], strict=True)
                ]
        last = (greys[0], greys[1], changed)
    border, face = np.divide(sums[:, 1], sums[:, 0], out=np.full(2, np.nan), where=sums[:, 0] > 0)
    return float(border), float(face)


def score(dubber: Dubber, detector: MediaPipeDetector, path: Path, other: np.ndarray) -> Score:
    """Dub one clip with its own sound and with another."""
    pictures, sound = read_clip(path)
    frames = list(islice(pictures, LONGEST))
    sound = sound[: len(frames) * 640]
    made = dubbed(dubber, frames, sound)
    wrong = dubbed(dubber, frames, np.resize(other, len(sound)).astype(np.float32))
    points, drawn, control = (landmarks(detector, one) for one in (frames, made, wrong))
    height = float(np.nanmedian(face_height(points)))
    real, mine, theirs = (
        lip_opening(one).astype(np.float64) / height for one in (points, drawn, control)
    )
    levels, found = closing_levels(real), (0, 0, float("nan"))
    if levels is not None:
        quiet = quiet_frames(sound, len(frames))
        shut = real_closures(real, levels, quiet)
        found = tuple(compare_closures(mine, real, shut, levels, quiet))
    best, lag = best_lag(mine, real)
    border, face = flicker(frames, made, points)
    return Score(
        clip="/".join(path.with_suffix("").parts[-2:]),
        frames=len(frames),
        drawn=sum(a is not b for a, b in zip(frames, made, strict=True)),
        opening=correlation(mine, real),
        best=best,
        lag=lag,
        width=correlation(*(mouth_width(one).astype(float) for one in (drawn, points))),
        amplitude=float(np.nanstd(mine) / np.nanstd(real)),
        control=correlation(theirs, real),
        closures=found[0],
        found=found[1],
        chance=found[2],
        sharpness=sharpness(frames, made, points),
        border=border,
        face=face,
    )


def clips(arguments: argparse.Namespace) -> Iterator[list[Path]]:
    """The clips of GRID's test speakers, in turn, and those of a folder."""
    if arguments.grid:
        test = [clip for clip in find_grid(arguments.grid) if clip.split == "test"]
        speakers = dict.fromkeys(clip.speaker for clip in test)
        of_each = [[clip.path for clip in test if clip.speaker == name] for name in speakers]
        turns = (found[k] for k in range(len(test)) for found in of_each if k < len(found))
        yield list(islice(turns, arguments.clips))
    if arguments.videos:
        yield sorted(p for p in arguments.videos.iterdir() if p.suffix in SUFFIXES)


def summary(scores: Sequence[Score]) -> dict[str, float]:
    """Medians over clips; closures over all of them together."""
    names = ("opening", "best", "control", "width", "amplitude", "sharpness", "border", "face")
    told = {name: float(np.nanmedian([getattr(s, name) for s in scores])) for name in names}
    real, found = (sum(getattr(s, name) for s in scores) for name in ("closures", "found"))
    chances = [s.chance for s in scores if np.isfinite(s.chance)]
    chance = float(np.mean(chances)) if chances else float("nan")
    lags = float(np.mean([abs(s.lag) <= 1 for s in scores]))
    return {**told, "closures": found / max(real, 1), "of": real, "chance": chance, "lag01": lags}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=Path, help="a folder of talking videos")
    parser.add_argument("--grid", type=Path, help="GRID, a folder a speaker")
    parser.add_argument("--clips", type=int, default=24, help="of GRID")
    parser.add_argument("--json", type=Path, help="where the scores are written")
    arguments = parser.parse_args()
    every = []
    detector = MediaPipeDetector(max_faces=1, search=False)
    with Dubber() as dubber:
        for group in clips(arguments):
            scores = []
            for k, path in enumerate(group):
                other = read_clip(group[(k + len(group) // 2) % len(group)])[1]
                scores.append(score(dubber, detector, path, other))
                print(
                    json.dumps(
                        {
                            k: v if isinstance(v, str) else round(v, 3)
                            for k, v in asdict(scores[-1]).items()
                        }
                    ),
                    flush=True,
                )
            told = {name: round(value, 3) for name, value in summary(scores).items()}
            print(json.dumps({"clips": len(scores), **told}), flush=True)
            every += scores
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(one) for one in every], indent=1))


if __name__ == "__main__":
    main()
