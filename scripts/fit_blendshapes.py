"""Fits resources/blendshapes.safetensors: which ARKit blendshapes a mouth's pose stands for.

    python scripts/fit_blendshapes.py CACHE OUT --report REPORT [--videos FOLDER]

CACHE holds prepared GRID clips (``stillspeak prepare``), whose frames come with MediaPipe's
blendshape scores. A linear map takes poses to how far the scores rise above the person's own at
rest. Speakers of the training split teach it, those of the validation split say how smooth it is
and which scores it can tell, those of the test split and the videos in FOLDER only measure it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from stillspeak.constants import VIDEO_FPS
from stillspeak.data.cache import CachedClipReader, load_manifest
from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.face.mouth import REST_SHARE, mirrored_points, mouth_shapes, opening_of, rest_shape
from stillspeak.media.video import iter_frames
from stillspeak.models.engine import InferenceEngine
from stillspeak.motion.shapes import BLENDSHAPES
from stillspeak.options import AnimateOptions
from stillspeak.synthesis import Performer
from stillspeak.weights import load_model

Array = npt.NDArray[np.float64]

DATA = "GRID (Cooke, Barker, Cunningham, Shao 2006), 13 training speakers, CC BY 4.0"
MOUTH = [name for name in BLENDSHAPES if name.startswith(("jaw", "mouth"))]
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3)
TOLD, SEEN = 0.5, 0.03
"""Correlation with the validation speakers' scores, and how far one frame in a hundred of the
training speakers' rises: a shape that is below either, on one side or both, stays 0."""
PER_SPEAKER = 60
SECONDS = 4.0
"""Of each video."""


class Clip(NamedTuple):
    """One person's frames: poses (T, 82) and how far scores rose above those at rest (T, n)."""

    who: str
    poses: Array
    rises: Array
    heard: Array | None = None


def main(arguments: list[str]) -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--videos", type=Path)
    options = parser.parse_args(arguments)
    engine = InferenceEngine(load_model().eval())
    clips = {split: list(cached(options.cache, split, engine)) for split in ("train", "test")}
    judges = list(cached(options.cache, "validation"))
    ridge = max(RIDGES, key=lambda one: float(np.mean(score(fit(clips["train"], one), judges)[0])))
    weights = fit(clips["train"], ridge)
    told = score(weights, judges)[0] >= TOLD
    rises = np.concatenate([clip.rises for clip in clips["train"]])
    told &= np.quantile(rises, 0.99, axis=0) >= SEEN
    kept = np.flatnonzero(told & told[mirrored_names()])
    info = {
        "command": "python scripts/fit_blendshapes.py CACHE OUT --report REPORT",
        "data": DATA,
        "names": [MOUTH[index] for index in kept],
    }
    shapes = np.ascontiguousarray(weights[:, kept].T, np.float16)
    save_file({"shapes": shapes}, options.out, {"info": json.dumps(info)})
    sets = {"validation": judges, "test": clips["test"]}
    sets["test, heard"] = [clip._replace(poses=clip.heard) for clip in clips["test"]]
    if options.videos is not None:
        sets["videos"] = list(filmed(options.videos))
    report = {"ridge": ridge, "sets": {}}
    for name, found in sets.items():
        measures = score(weights, found)
        columns = zip(MOUTH, *(one.tolist() for one in measures), strict=True)
        rows = {each: {"r": r, "error": e, "mean": m} for each, r, e, m in columns}
        report["sets"][name] = {"people": len({clip.who for clip in found}), "shapes": rows}
        print(name, {one: rows[one] for one in info["names"]})
    options.report.write_text(json.dumps(report, indent=1), "utf-8")
    return 0


def cached(cache: Path, split: str, engine: InferenceEngine | None = None) -> Iterator[Clip]:
    """A split's clips, at most :data:`PER_SPEAKER` of a person; with an engine, what it hears."""
    counts: dict[str, int] = {}
    for row in load_manifest(cache):
        counts[row.speaker] = counts.get(row.speaker, 0) + (row.split == split)
        if row.split != split or counts[row.speaker] > PER_SPEAKER:
            continue
        with CachedClipReader(row.file) as file:
            names = file.metadata["blendshapes"]
            columns = [names.index(name) for name in MOUTH]
            scores = file.get_tensor("blendshapes").astype(np.float64)[:, columns]
            clip = clip_of(row.speaker, file.get_tensor("landmarks"), scores)
            if engine is not None and split == "test":
                steps = Performer(engine, AnimateOptions()).perform([file.get_tensor("audio")])
                poses = [decoded.pose[0].double().numpy() for decoded, _ in steps]
                clip = clip._replace(heard=np.concatenate(poses).reshape(-1, 82))
        yield clip


def filmed(folder: Path) -> Iterator[Clip]:
    """The first seconds of a folder's videos, each of one person."""
    for path in sorted(folder.glob("*.mp4")):
        points, scores = [], []
        with MediaPipeDetector(1) as detector:
            for frame in iter_frames(path, fps=VIDEO_FPS, end=SECONDS):
                for face in detector.detect(frame):
                    points.append(face.points)
                    scores.append([face.blendshapes[name] for name in MOUTH])
        if points:
            yield clip_of(path.name, np.array(points), np.array(scores))


def clip_of(who: str, points: npt.NDArray[np.floating], scores: Array) -> Clip:
    shapes = mouth_shapes(points)
    gap = opening_of(shapes)
    rest = scores[gap <= np.quantile(gap, REST_SHARE)].mean(0)
    return Clip(who, (shapes - rest_shape(shapes)).reshape(len(gap), -1), scores - rest)


def mirrored_names() -> list[int]:
    """Where each of :data:`MOUTH` goes when the picture is mirrored."""
    sides = {"Left": "Right", "Right": "Left"}
    other = {one: one[: -len(a)] + b for one in MOUTH for a, b in sides.items() if one.endswith(a)}
    return [MOUTH.index(other.get(one, one)) for one in MOUTH]


def fit(clips: list[Clip], ridge: float) -> Array:
    """(82, n) of clips and their mirror images, each person counting by the root of his frames."""
    other = mirrored_names()
    frames: dict[str, int] = {}
    for clip in clips:
        frames[clip.who] = frames.get(clip.who, 0) + len(clip.poses)
    square, cross, total = np.zeros((82, 82)), np.zeros((82, len(MOUTH))), 0.0
    for clip in clips:
        weight = 1 / np.sqrt(frames[clip.who])
        mirrored = clip.poses.reshape(-1, 41, 2)[:, mirrored_points()] * (-1, 1)
        for poses, rises in (
            (clip.poses, clip.rises),
            (mirrored.reshape(len(mirrored), -1), clip.rises[:, other]),
        ):
            square += weight * poses.T @ poses
            cross += weight * poses.T @ rises
            total += weight * len(poses)
    return np.linalg.solve(square / total + ridge * np.eye(82), cross / total)


def score(weights: Array, clips: list[Clip]) -> tuple[Array, Array, Array]:
    """(n,) correlation, mean error and mean of the scores, all from 0 to 1."""
    wanted = np.clip(np.concatenate([clip.rises for clip in clips]), 0, 1)
    found = np.clip(np.concatenate([clip.poses for clip in clips]) @ weights, 0, 1)
    a, b = found - found.mean(0), wanted - wanted.mean(0)
    spread = np.sqrt((a**2).mean(0) * (b**2).mean(0))
    r = np.where(spread > 1e-9, (a * b).mean(0) / np.maximum(spread, 1e-9), 0)
    return r, np.abs(found - wanted).mean(0), wanted.mean(0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
