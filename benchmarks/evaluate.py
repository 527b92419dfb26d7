"""Where the time of an evaluation goes, and CPBD beside the package it is compared with.

    python benchmarks/evaluate.py --data CACHE [--model NAME] [--clips 50] [--workers 2]
    python benchmarks/evaluate.py --data CACHE --parts 3
    python benchmarks/evaluate.py --cpbd [PICTURE.txt ...]

The first runs whole evaluations of the test clips in a temporary folder, as the command does: the
model's when nothing is known of the real frames, then the still's when all is, and prints seconds
of the clock and of CPU for both. The second scores a few clips in this process with one thread:
seconds of the clock and of CPU a clip, stage by stage, and the functions that take most by
cProfile. --lip-reader FILE and --sync FILE are those of the command. The third needs cpbd-py312
(dev extra); it takes scikit-image's pictures and any matrix of grey levels in a text file, such as
the reference picture in the source distribution of cpbd-py312, each as it is and with two blurs.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stillspeak.data.prepare import load_manifest
from stillspeak.errors import MissingDependencyError, WeightsError
from stillspeak.evaluation.clip import EvaluationClip
from stillspeak.evaluation.evaluate import evaluate_model
from stillspeak.evaluation.metrics import all_metrics
from stillspeak.evaluation.scoring import one_thread
from stillspeak.evaluation.systems import Recording, frame_source, load_recording, open_system
from stillspeak.evaluation.tools import TOOLS, Tools, load_tools
from stillspeak.evaluation.traces import trace

REPEATS = 3
FUNCTIONS = 12


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="prepared cache with a test split")
    parser.add_argument("--model", default="default")
    parser.add_argument("--clips", type=int, default=50)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--parts", type=int, metavar="CLIPS", help="stage by stage, one thread")
    parser.add_argument("--lip-reader", type=Path)
    parser.add_argument("--sync", type=Path)
    parser.add_argument("--cpbd", nargs="*", type=Path, metavar="PICTURE")
    arguments = parser.parse_args()
    if arguments.cpbd is not None:
        compare_cpbd(arguments.cpbd)
    if arguments.data is None:
        return
    if arguments.parts is None:
        whole(arguments)
        return
    with one_thread():
        parts(arguments)


def whole(arguments: argparse.Namespace) -> None:
    """Two evaluations of the same clips in worker processes; the second finds the real cache."""
    print("| | clips | clock s | CPU s | CPU s a clip | share of two cores |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        for system, known in (
            (arguments.model, "nothing"),
            ("still", "what is in the real frames"),
        ):
            begin, cpu = time.monotonic(), _cpu()
            result = evaluate_model(
                system,
                arguments.data,
                Path(folder) / system,
                clips=arguments.clips,
                lip_reader=arguments.lip_reader,
                sync=arguments.sync,
                real_cache=Path(folder) / "real-cache",
                workers=arguments.workers,
            )
            clock, cpu = time.monotonic() - begin, _cpu() - cpu
            assert not result.failed, result.failed
            print(
                f"| {system}, known: {known} | {result.scored} | {clock:.1f} | {cpu:.1f} | "
                f"{cpu / result.scored:.2f} | {cpu / clock / 2:.0%} |"
            )
            left_out = ", ".join(result.left_out) or "nothing"
        kept = sum(f.stat().st_size for f in (Path(folder) / "real-cache").rglob("*.*"))
        print(f"\n{len(result.metrics)} metrics, left out: {left_out}; {kept / 2**20:.1f} MiB kept")


def _cpu() -> float:
    """Seconds of CPU of this process and of those that it waited for."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def parts(arguments: argparse.Namespace) -> None:
    """Seconds a clip for each stage and metric, and the functions that take most."""
    test = [clip for clip in load_manifest(arguments.data) if clip.split == "test"]
    clips = test[: arguments.parts]
    total: dict[str, list[float]] = {}
    profile = cProfile.Profile()

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.monotonic(), time.process_time()
        profile.enable()
        result = work()
        profile.disable()
        spent = total.setdefault(name, [0.0, 0.0])
        spent[0] += time.monotonic() - begin[0]
        spent[1] += time.process_time() - begin[1]
        return result

    source = frame_source(open_system(arguments.model))
    tools = _tools(arguments)
    loaded = tools.versions
    metrics = [metric for metric in all_metrics() if set(metric.tools) <= set(loaded)]
    for clip in clips:
        real = timed("reading", lambda c=clip: load_recording(Recording(c.file, c.key)))
        frames = timed("generating", lambda r=real: source(r.frames, r.audio))
        m = EvaluationClip(frames, real.frames, real.audio, real.words, real.text, tools)
        timed("landmarks, generated", lambda m=m: m.generated.faces)
        timed("landmarks, real", lambda m=m: m.real.faces)
        if "embedding" in loaded:
            timed("embeddings, both", lambda m=m: m.embeddings)
        if "sync" in loaded:
            timed("sync, generated", lambda m=m: m.generated_sync)
            timed("sync, real", lambda m=m: m.real_sync)
        if "lipreader" in loaded:
            timed("lip reader, generated", lambda m=m: m.generated_reading)
            timed("lip reader, real", lambda m=m: m.real_reading)
        for metric in metrics:
            timed(metric.name, lambda m=m, k=metric: k.measure(m))
        timed("trace", lambda m=m, c=clip: trace(c.name, m))
    tools.close()
    print("| | clock s a clip | CPU s a clip |\n| --- | ---: | ---: |")
    for name, spent in sorted(total.items(), key=lambda item: -item[1][1]):
        print(f"| {name} | {spent[0] / len(clips):.3f} | {spent[1] / len(clips):.3f} |")
    sums = np.sum(list(total.values()), axis=0) / len(clips)
    print(f"| a clip | {sums[0]:.2f} | {sums[1]:.2f} |\n")
    statistics = pstats.Stats(profile).stats  # type: ignore[attr-defined]
    longest = sorted(statistics.items(), key=lambda item: -item[1][2])[:FUNCTIONS]
    print("| function | calls a clip | own s a clip |\n| --- | ---: | ---: |")
    for (file, _, name), (_, calls, own, _, _) in longest:
        where = Path(file).stem if file != "~" else "built in"
        print(f"| {where}: {name} | {calls / len(clips):.0f} | {own / len(clips):.3f} |")


def _tools(arguments: argparse.Namespace) -> Tools:
    """All tools that are there."""
    given = {"lipreader": arguments.lip_reader, "sync": arguments.sync}
    files = {name: file for name, file in given.items() if file is not None}
    loaded: dict[str, Any] = {}
    for name in TOOLS:
        try:
            loaded |= dict(load_tools([name], files))
        except (MissingDependencyError, WeightsError) as error:
            print(f"without {name}: {error}\n")
    return Tools(**loaded)


def compare_cpbd(files: list[Path]) -> None:
    """Values and best of three times of both, on the same pictures."""
    import cpbd as reference
    from scipy.ndimage import gaussian_filter
    from skimage import data

    from stillspeak.evaluation.measures.cpbd import cpbd

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
