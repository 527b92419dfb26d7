"""Lost frames of videos, made by ``stillspeak conceal`` and by simpler means.

    python benchmarks/conceal.py [--speakers s2 s4 s15] [--clips N] [--output results/conceal]
    python benchmarks/conceal.py --videos DIR/*.mp4 [--frames 75] [--output results/conceal]

In each clip 5, 20 or 50 % of the frames are lost in bursts, drawn anew for each clip from --seed: a
Gilbert channel, in which bursts and the stretches between them are geometric. The first and the
last frame stay. Lost frames are replaced by: the last good frame, held; the linear mixture of the
frames on both sides; ours (both sides known); ours --online (the past alone). All is compared with
the real frames on the lost frames alone, in the aligned crop (128 x 96, by the real frame's
landmarks, the same for all). Lip openings are read by MediaPipe from crops of all kinds alike.

The clips are those of STILLSPEAK_GRID, else ../shared/grid, or the first frames of any videos.
Writes RESULTS.json and table.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stillspeak.conceal.concealer import Concealer
from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.data.layouts.grid import grid_root
from stillspeak.errors import DataError, StillspeakError
from stillspeak.evaluation.measures.image_quality import mouth, psnr, ssim
from stillspeak.evaluation.measures.lips import track_lips
from stillspeak.face.align import crop_face, face_transform, smooth_landmarks
from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.media.video import read_clip

CONDITIONS = {5: 4.0, 20: 8.0, 50: 16.0}
"""Percent of frames lost, and the mean length of a burst in frames."""

METHODS = ("hold", "linear", "ours --online", "ours")

COLUMNS = {
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "mouth_psnr": "mouth PSNR, dB",
    "mouth_ssim": "mouth SSIM",
    "lip_correlation": "lip correlation",
    "lip_amplitude": "lip amplitude",
    "lip_error": "lip error, px",
}

LENGTHS = ((1, 2), (3, 5), (6, 12), (13, 75))
"""Gap lengths in frames that are told apart."""

VALIDATION = ("s20", "s23", "s27", "s29", "s30", "s34")
TEST = ("s2", "s4", "s15")


def main() -> None:
    """Parse arguments, run, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--speakers", nargs="+", default=list(TEST))
    parser.add_argument("--clips", type=int, default=6, help="at most so many of a speaker")
    parser.add_argument("--videos", nargs="+", type=Path, help="instead of GRID clips")
    parser.add_argument("--frames", type=int, default=75, help="at most so many of a video")
    parser.add_argument("--repeats", type=int, default=3, help="loss patterns of 5 %% a clip")
    parser.add_argument("--model", default="default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, default=Path("results/conceal"))
    arguments = parser.parse_args()
    try:
        files = arguments.videos or clip_files(arguments.speakers, arguments.clips)
        run(arguments, files)
    except StillspeakError as error:
        raise SystemExit(f"conceal: {error}") from error


def clip_files(speakers: list[str], most: int) -> list[Path]:
    """The first clips by name of each speaker."""
    root = grid_root()
    if root is None:
        raise DataError("there is no GRID corpus; name its folder in STILLSPEAK_GRID")
    found = []
    for speaker in speakers:
        files = sorted(p for p in (root / speaker).glob("*") if p.suffix in (".mp4", ".mpg"))
        found += files[:most]
    if not found:
        raise DataError(f"{root}: holds no clip of {', '.join(speakers)}")
    return found


def bursts(count: int, percent: float, mean: float, random: np.random.Generator) -> np.ndarray:
    """(count,) bool: lost frames in geometric bursts, as near to the percentage as they come."""
    wanted = max(round(count * percent / 100), 1)
    end_burst = 1 / mean
    begin_burst = end_burst * percent / (100 - percent)
    best: np.ndarray | None = None
    for _ in range(200):
        lost = np.zeros(count, bool)
        inside = False
        for index in range(1, count - 1):
            inside = random.random() < (1 - end_burst if inside else begin_burst)
            lost[index] = inside
        if best is None or abs(int(lost.sum()) - wanted) < abs(int(best.sum()) - wanted):
            best = lost
        if abs(int(best.sum()) - wanted) <= 1:
            break
    assert best is not None
    return best


def gap_lengths(lost: np.ndarray) -> np.ndarray:
    """(T,) the length of the gap that each lost frame lies in, 0 where nothing is lost."""
    lengths = np.zeros(len(lost), int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], lost.astype(int), [0]])))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        lengths[start:stop] = stop - start
    return lengths


def simple(frames: np.ndarray, lost: np.ndarray, *, hold: bool) -> np.ndarray:
    """The lost frames held or mixed linearly; the first and last frame are good."""
    out = frames.copy()
    good = np.flatnonzero(~lost)
    for index in np.flatnonzero(lost):
        before, after = good[good < index][-1], good[good > index][0]
        share = 0.0 if hold else (index - before) / (after - before)
        first, second = (frames[k].astype(np.float32) for k in (before, after))
        out[index] = np.rint(first + share * (second - first)).astype(np.uint8)
    return out


def run(arguments: argparse.Namespace, files: list[Path]) -> None:
    """Every clip under every condition by every method."""
    samples: list[dict[str, Any]] = []
    took = {"ours": [0.0, 0], "ours --online": [0.0, 0]}
    with MediaPipeDetector(max_faces=1) as detector, Concealer(arguments.model) as concealer:
        for number, path in enumerate(files):
            pictures, audio = read_clip(path)
            frames = np.stack(list(islice(pictures, arguments.frames)))
            points = landmarks(frames, detector)
            transforms = [face_transform(p) for p in smooth_landmarks(points)]
            truth = crops(frames, transforms, np.arange(len(frames)))
            opening = track_lips(truth, detector)
            random = np.random.default_rng([arguments.seed, number])
            for percent, mean in CONDITIONS.items():
                for _ in range(arguments.repeats if percent == 5 else 1):
                    lost = bursts(len(frames), percent, mean, random)
                    places = np.flatnonzero(lost)
                    for method in METHODS:
                        started = time.process_time()
                        filled = fill(concealer, method, frames, lost, audio, arguments.seed)
                        if method in took:
                            took[method][0] += time.process_time() - started
                            took[method][1] += len(places)
                        made = crops(filled, transforms, places)
                        samples.append(
                            {
                                "clip": f"{path.parent.name}/{path.stem}",
                                "percent": percent,
                                "method": method,
                                "places": places.tolist(),
                                "gaps": gap_lengths(lost)[places].tolist(),
                                **frame_scores(made, truth[places]),
                                "opening": track_lips(made, detector).tolist(),
                                "real": opening[places].tolist(),
                                "rest": float(np.nanmean(opening)),
                            }
                        )
            print(f"{number + 1}/{len(files)} {path.parent.name}/{path.stem}", flush=True)
    write(arguments, files, samples, took)


def landmarks(frames: np.ndarray, detector: MediaPipeDetector) -> np.ndarray:
    """(T, 478, 2), those of the frame before where no face is found."""
    found: list[np.ndarray] = []
    for frame in frames:
        faces = detector.detect(frame)
        if not faces and not found:
            raise DataError("no face in a clip's first frame")
        found.append(faces[0].points if faces else found[-1])
    return np.stack(found)


def crops(frames: np.ndarray, transforms: list[np.ndarray], places: np.ndarray) -> np.ndarray:
    """Aligned crops of some frames, (N, 128, 96, 3)."""
    return np.stack(
        [crop_face(frames[i], transforms[i], FRAME_HEIGHT, FRAME_WIDTH) for i in places]
    )


def fill(
    concealer: Concealer,
    method: str,
    frames: np.ndarray,
    lost: np.ndarray,
    audio: np.ndarray,
    seed: int,
) -> np.ndarray:
    """All frames with the lost ones replaced."""
    if method in ("hold", "linear"):
        return simple(frames, lost, hold=method == "hold")
    blank = frames.copy()
    blank[lost] = 0  # nothing of them can be seen
    return concealer.conceal(blank, lost, audio, seed=seed, online=method == "ours --online")


def frame_scores(made: np.ndarray, real: np.ndarray) -> dict[str, list[float]]:
    """Frame by frame."""
    pairs = [(made[k : k + 1], real[k : k + 1]) for k in range(len(made))]
    return {
        "psnr": [psnr(a, b) for a, b in pairs],
        "ssim": [ssim(a, b) for a, b in pairs],
        "mouth_psnr": [psnr(mouth(a), mouth(b)) for a, b in pairs],
        "mouth_ssim": [ssim(mouth(a), mouth(b)) for a, b in pairs],
    }


def summary(samples: list[dict[str, Any]], keep: tuple[int, int] = (1, 10**6)) -> dict[str, Any]:
    """Means over the lost frames of gaps of some lengths; lips over all of them together.

    Each clip's mean real opening is taken out first, so that who speaks does not count.
    """
    parts: dict[str, list[float]] = {
        key: [] for key in ("psnr", "ssim", "mouth_psnr", "mouth_ssim")
    }
    ours, real = [], []
    for sample in samples:
        chosen = [k for k, gap in enumerate(sample["gaps"]) if keep[0] <= gap <= keep[1]]
        for key, values in parts.items():
            values += [sample[key][k] for k in chosen]
        ours += [sample["opening"][k] - sample["rest"] for k in chosen]
        real += [sample["real"][k] - sample["rest"] for k in chosen]
    a, b = np.array(ours), np.array(real)
    both = np.isfinite(a) & np.isfinite(b)
    a, b = a[both], b[both]
    means: dict[str, Any] = {}
    for key, values in parts.items():
        # A frame without any error would make the mean infinite.
        finite = [value for value in values if np.isfinite(value)]
        means[key] = round(float(np.mean(finite)), 4) if finite else None
    if len(a) > 2 and a.std() > 0 and b.std() > 0:
        means["lip_correlation"] = round(float(np.corrcoef(a, b)[0, 1]), 4)
        means["lip_amplitude"] = round(float(a.std() / b.std()), 4)
        means["lip_error"] = round(float(np.abs(a - b).mean()), 4)
    return {
        **means,
        "frames": len(ours),
        "lips_found": round(float(both.mean()), 4) if ours else None,
    }


def write(
    arguments: argparse.Namespace,
    files: list[Path],
    samples: list[dict[str, Any]],
    took: dict[str, list[float]],
) -> None:
    """RESULTS.json and table.md."""

    def of(method: str, percent: int | None = None) -> list[dict[str, Any]]:
        return [s for s in samples if s["method"] == method and percent in (None, s["percent"])]

    by_loss = {
        f"{percent} %": {method: summary(of(method, percent)) for method in METHODS}
        for percent in CONDITIONS
    }
    by_length = {
        f"{low} to {high}": {method: summary(of(method), (low, high)) for method in METHODS}
        for low, high in LENGTHS
    }
    speed = {m: round(1000 * seconds / max(n, 1), 2) for m, (seconds, n) in took.items()}
    record = {
        "command": f"python benchmarks/conceal.py --speakers {' '.join(arguments.speakers)} "
        f"--clips {arguments.clips} --repeats {arguments.repeats} --seed {arguments.seed} "
        f"--model {arguments.model}",
        "clips": [f"{p.parent.name}/{p.stem}" for p in files],
        "bursts": {f"{p} %": f"{m:g} frames in the mean" for p, m in CONDITIONS.items()},
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "torch": torch.__version__,
        "cpu_ms_a_lost_frame": speed,
        "by_loss": by_loss,
        "by_gap_length": by_length,
    }
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "RESULTS.json").write_text(json.dumps(record, indent=1) + "\n", "utf-8")
    text = "\n\n".join([table("lost", by_loss), table("gap, frames", by_length)]) + "\n"
    (arguments.output / "table.md").write_text(text, "utf-8")
    print(text)
    print(json.dumps(speed))


def table(heading: str, groups: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Markdown of one grouping."""
    lines = [
        f"| {heading} | | " + " | ".join(COLUMNS.values()) + " | frames |",
        "| --- | --- |" + " ---: |" * (len(COLUMNS) + 1),
    ]
    for group, methods in groups.items():
        for method, values in methods.items():
            cells = [number(key, values.get(key)) for key in COLUMNS]
            lines.append(f"| {group} | {method} | {' | '.join(cells)} | {values['frames']} |")
    return "\n".join(lines)


def number(key: str, value: float | None) -> str:
    """As the tables print it."""
    if value is None:
        return "–"
    return f"{value:.3f}" if "ssim" in key else f"{value:.2f}"


if __name__ == "__main__":
    main()
