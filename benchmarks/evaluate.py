"""Where the time of an evaluation goes, and CPBD beside the package it is compared with.

    python benchmarks/evaluate.py --data CACHE [--model NAME] [--clips N]
    python benchmarks/evaluate.py --cpbd [PICTURE.txt ...]

The first scores clips in this process with one thread and prints seconds of CPU a clip, stage by
stage. The second needs cpbd-py312 (dev extra); it takes scikit-image's pictures and any matrix
of grey levels in a text file, such as the reference picture in the source distribution of
cpbd-py312, each as it is and with two blurs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from stillspeak.data.prepare import load_manifest
from stillspeak.evaluation.evaluate import _detector, _one_thread
from stillspeak.evaluation.identity import load_embedder
from stillspeak.evaluation.material import Material
from stillspeak.evaluation.registry import all_metrics
from stillspeak.evaluation.systems import Recording, frame_source, load_recording, open_system

REPEATS = 3


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="prepared cache with a test split")
    parser.add_argument("--model", default="default")
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--cpbd", nargs="*", type=Path, metavar="PICTURE")
    arguments = parser.parse_args()
    if arguments.cpbd is not None:
        compare_cpbd(arguments.cpbd)
    if arguments.data is not None:
        with _one_thread():
            profile(arguments.data, arguments.model, arguments.clips)


def profile(data: Path, model: str, count: int) -> None:
    """Seconds of CPU a clip for each stage and metric."""
    clips = [clip for clip in load_manifest(data) if clip.split == "test"][:count]
    source = frame_source(open_system(model))
    detector, embedder = _detector(), load_embedder()
    total: dict[str, float] = {}

    def timed(name: str, work: Callable[[], object]) -> object:
        begin = time.process_time()
        result = work()
        total[name] = total.get(name, 0.0) + time.process_time() - begin
        return result

    for clip in clips:
        real = timed("read", lambda c=clip: load_recording(Recording(c.file, c.key)))
        frames = timed("generate", lambda r=real: source(r.frames, r.audio))
        material = Material(frames, real.frames, real.audio, real.words, detector, embedder)
        timed("landmarks, generated", lambda m=material: m.generated_faces)
        timed("landmarks, real", lambda m=material: m.real_faces)
        timed("embeddings", lambda m=material: m.embeddings)
        for metric in all_metrics():
            timed(metric.name, lambda m=material, k=metric: k.measure(m))
    detector.close()
    for name, seconds in sorted(total.items(), key=lambda item: -item[1]):
        print(f"{name:24}{seconds / len(clips):8.3f} s")
    print(f"{'a clip':24}{sum(total.values()) / len(clips):8.3f} s")


def compare_cpbd(files: list[Path]) -> None:
    """Values and best of three times of both, on the same pictures."""
    import cpbd as reference
    from scipy.ndimage import gaussian_filter
    from skimage import data

    from stillspeak.evaluation.cpbd import cpbd

    grey = np.array([0.2125, 0.7154, 0.0721])
    pictures = {
        "camera": data.camera().astype(float),
        "coins": data.coins().astype(float),
        "astronaut": data.astronaut() @ grey,
        "chelsea": data.chelsea() @ grey,
        **{file.stem: np.loadtxt(file, delimiter=",") for file in files},
    }
    print(f"{'picture':24}{'blur':>5}{'package':>10}{'here':>10}{'package ms':>12}{'here ms':>10}")
    for name, picture in pictures.items():
        for blur in (0, 1, 2):
            levels = gaussian_filter(picture, blur) if blur else picture
            theirs, slow = best(lambda x=levels: float(reference.compute(x)))
            ours, quick = best(lambda x=levels: float(cpbd(x[None])[0]))
            print(
                f"{name:24}{blur:5}{theirs:10.4f}{ours:10.4f}{1000 * slow:12.1f}"
                f"{1000 * quick:10.1f}  {slow / quick:.0f} times"
            )


def best(work: Callable[[], float]) -> tuple[float, float]:
    """The result and the shortest CPU time of a few calls."""
    times = []
    for _ in range(REPEATS):
        begin = time.process_time()
        result = work()
        times.append(time.process_time() - begin)
    return result, min(times)


if __name__ == "__main__":
    main()
