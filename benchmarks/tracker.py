"""How steadily, how promptly and how fast a face is followed through videos.

    python benchmarks/tracker.py VIDEO... [--frames 250]

For each video: the detector picture by picture; the tracker unsteadied; the tracker; the tracker
without look-ahead. Columns: CPU milliseconds a frame, decoding aside; how far the head trembles
(root mean square of second differences over root 6, so that noise counts as its own deviation, of
the quieter half of the frames) and how far the lips do (of the quietest fifth), in thousandths of
the distance between the eyes; the lips' lag behind the unsteadied ones in frames (the peak of a
parabola through three correlations) and the size of their movements relative to those.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import numpy as np

from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.face.mouth import lip_opening, mouth_shapes
from stillspeak.face.steady import RIGID, eye_distance
from stillspeak.face.tracker import AHEAD, FaceTracker
from stillspeak.media.video_editor import timed_frames

Tracks = list[np.ndarray | None]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("videos", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=250, help="at most so many of a video")
    arguments = parser.parse_args()
    print("| video | | ms a frame | found | head | lips | lag | size |")
    print("| --- | --- |" + " ---: |" * 6)
    with MediaPipeDetector() as detector:
        for path in arguments.videos:
            pictures = [frame.rgb() for frame in islice(timed_frames(path), arguments.frames)]
            for line in rows(pictures, detector):
                print(f"| {path.parent.name}/{path.stem} | {line} |", flush=True)


def rows(pictures: list[np.ndarray], detector: MediaPipeDetector) -> list[str]:
    """Cells of each way for one video."""

    def each() -> Tracks:
        found = map(detector.detect, pictures)
        return [faces[0].points if faces else None for faces in found]

    def tracked(ahead: int = AHEAD) -> Tracks:
        seen = FaceTracker(detector, ahead=ahead).track(pictures, lambda picture: picture)
        return [None if face is None else face.points for _, face in seen]

    def unsteadied() -> Tracks:
        with patch("stillspeak.face.tracker.steady", lambda near, at: near[list(at).index(0)]):
            return tracked()

    ways: dict[str, Callable[[], Tracks]] = {
        "picture by picture": each,
        "unsteadied": unsteadied,
        "tracked": tracked,
        "tracked, no look-ahead": lambda: tracked(ahead=0),
    }
    results = {}
    for name, way in ways.items():
        started = time.process_time()
        points = way()
        results[name] = points, 1000 * (time.process_time() - started) / len(pictures)
    both = [k for k in range(len(pictures)) if all(p[k] is not None for p, _ in results.values())]
    lines = []
    for name, (points, took) in results.items():
        found = sum(p is not None for p in points)
        cells = [name, f"{took:.1f}", f"{found}/{len(points)}"]
        if len(both) > 10:
            ours, real = (
                np.array([one[k] for k in both]) for one in (points, results["unsteadied"][0])
            )
            cells += [f"{1000 * value:.1f}" for value in trembles(ours)]
            cells += [f"{v:.2f}" for v in lag_and_size(lip_opening(ours), lip_opening(real))]
        lines.append(" | ".join(cells))
    return lines


def trembles(points: np.ndarray) -> tuple[float, float]:
    """Of the head and of the lips within it, in distances between the eyes; (T, 478, 2) pixels."""
    unit = float(np.median([eye_distance(frame) for frame in points]))
    both = (points[:, list(RIGID)] / unit, mouth_shapes(points))
    head, lips = (
        np.sqrt((np.diff(one, 2, axis=0) ** 2).sum(axis=2).mean(axis=1) / 6) for one in both
    )
    return float(np.quantile(head, 0.25)), float(np.quantile(lips, 0.2))


def lag_and_size(ours: np.ndarray, real: np.ndarray) -> tuple[float, float]:
    """Of two openings (T,)."""
    before, same, after = (
        np.corrcoef(real[2:-2], np.roll(ours, -lag)[2:-2])[0, 1] for lag in (-1, 0, 1)
    )
    return (after - before) / (2 * (2 * same - before - after)), ours.std() / real.std()


if __name__ == "__main__":
    main()
