"""Renders moods on many faces and lets the evaluation's judge say which mood each video shows.

    python benchmarks/moods.py FACES [--count 20] [--sheet moods.png] [--sheet-faces A B ...]

FACES is a folder of portraits; of pictures whose names hold ``_smiling`` none is taken, since a
photo that smiles already can hardly look sad. Each speaks the bundled sentence in each mood, the
first 3 s of it, and the judge compares the video's blendshapes with those of the photo, as
``mood_strength`` of ``stillspeak evaluate`` does. Prints the matrix of asked and judged moods.
--sheet draws six moods at three strengths on six faces, one moment of each video.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import islice, product
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillspeak.animate import Animator
from stillspeak.errors import FaceError
from stillspeak.evaluation.measures.mood import judge_mood
from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.media.audio import load_audio
from stillspeak.media.contact_sheet import contact_sheet
from stillspeak.media.image import load_image
from stillspeak.motion.moods import MOODS

SECONDS = 3.0
SETTLED = 20
"""Frame from which a mood is judged: it is there within half a second."""

EVERY = 3
"""Of the frames every third is judged."""

STRENGTHS = (0.5, 1.0, 1.5)
"""Of the sheet."""

HEIGHT = 384
"""Lines of a video."""

Picture = npt.NDArray[np.uint8]


@cache
def _animator() -> Animator:
    import torch

    torch.set_num_threads(1)
    return Animator(device="cpu")


@cache
def _detector() -> MediaPipeDetector:
    return MediaPipeDetector(max_faces=1)


@cache
def _speech() -> npt.NDArray[np.float32]:
    from importlib import resources

    with resources.as_file(resources.files("stillspeak") / "resources" / "speech.flac") as path:
        return load_audio(path, sample_rate=16000)[: round(SECONDS * 16000)]


def frames(portrait: Path, mood: str, seed: int) -> list[Picture]:
    """The judged frames of one video."""
    animation = _animator().animate(
        load_image(portrait), (_speech(), 16000), mood=mood, seed=seed, size=HEIGHT
    )
    return list(islice(animation.frames, SETTLED, None, EVERY))


def judged(task: tuple[Path, str, int]) -> str | None:
    """The mood that one video shows; None: no usable face."""
    try:
        shown = frames(*task)
        (still,) = _detector().detect(load_image(task[0]))[:1]
    except (FaceError, ValueError):
        return None
    faces = [face.blendshapes for frame in shown for face in _detector().detect(frame)[:1]]
    return judge_mood(faces, still.blendshapes).mood if faces else None


def row(task: tuple[Path, int]) -> list[Picture]:
    """One face in six moods at three strengths: the middle of each video."""
    portrait, seed = task
    return [
        frames(portrait, f"{mood}:{strength}", seed)[8]
        for mood, strength in product(MOODS[1:], STRENGTHS)
    ]


def table(counts: Counter[tuple[str, str]]) -> str:
    """Asked moods down, judged moods across."""
    lines = ["| asked | " + " | ".join(MOODS) + " | recall |"]
    lines.append("| --- |" + " ---: |" * (len(MOODS) + 1))
    recalls = []
    for asked in MOODS:
        found = [counts[asked, mood] for mood in MOODS]
        recalls.append(counts[asked, asked] / max(sum(found), 1))
        lines.append(f"| {asked} | {' | '.join(map(str, found))} | {recalls[-1]:.2f} |")
    lines.append(f"\nMean recall {np.mean(recalls):.2f}; by chance {1 / len(MOODS):.2f}.")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse arguments, render, print, draw."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("faces", type=Path)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--sheet", type=Path, help="draw it into this PNG")
    parser.add_argument("--sheet-faces", type=Path, nargs="+", help="instead of the first six")
    given = parser.parse_args(arguments)
    found = [p for p in sorted(given.faces.iterdir()) if p.suffix in (".jpg", ".jpeg", ".png")]
    portraits = [p for p in found if "_smiling" not in p.name][: given.count]
    if not portraits:
        raise SystemExit(f"moods: {given.faces}: holds no portraits")
    asked = [(p, mood) for p in portraits for mood in MOODS]
    tasks = [(p, f"{mood}:{given.strength}", seed) for seed, (p, mood) in enumerate(asked)]
    with ProcessPoolExecutor(given.workers) as pool:
        moods = list(pool.map(judged, tasks))
        counts = Counter((a, m) for (_, a), m in zip(asked, moods, strict=True) if m is not None)
        print(table(counts))
        if lost := moods.count(None):
            print(f"moods: {lost} videos show no face", file=sys.stderr)
        if given.sheet is not None:
            faces = given.sheet_faces or portraits[:6]
            rows = list(pool.map(row, [(face, seed) for seed, face in enumerate(faces)]))
            import cv2

            size = (144, 192)
            small = [[cv2.resize(p, size, interpolation=cv2.INTER_AREA) for p in r] for r in rows]
            sheet = contact_sheet([[np.asarray(p, np.uint8) for p in r] for r in small])
            cv2.imwrite(str(given.sheet), sheet[..., ::-1])


if __name__ == "__main__":
    main()
