"""Live speed: what a frame takes, how soon the first one comes, how many faces a machine holds.

    python benchmarks/streaming.py [--parts steps cold sessions webrtc memory] [--hours 0.1]

`steps` times `StreamSession` frame by frame with sound that comes 40 ms at a time, beside the
paper's full-width generator (configs/paper.toml, random weights) and ONNX Runtime, in turns, so
that whatever else the machine does meets all of them. The clock's column is what you wait;
the CPU's is what all threads of the process computed, which neighbours disturb less. `cold` starts
a process of its own and stops the clock at its first frame. `sessions` runs real-time faces in
threads until frames come late. `webrtc` is benchmarks/webrtc.py. `memory` pushes hours of sound.

Writes OUTPUT.md and OUTPUT.json (results/streaming by default); nothing here asserts a number.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

PARTS = ("steps", "cold", "sessions", "webrtc", "memory")
MODELS = ("default", "temporal")
VIEWS: dict[str, dict[str, Any]] = {
    "crop": {"crop": True, "head_motion": 0.0},
    "photo, 512 lines": {"size": 512, "head_motion": 0.0},
    "photo, 512 lines, head motion": {"size": 512, "head_motion": 1.0},
    "photo, 1024 lines": {"size": 1024, "head_motion": 0.0},
    "photo, 1024 lines, head motion": {"size": 1024, "head_motion": 1.0},
}
REFERENCE = "reference"
BARE = "crop, as the network gives it"
"""Without blinks and brows, which are drawn over it: what the reference gives too."""

WARM = 15
"""Frames of each row that are not timed."""

LATE = 0.01
"""Share of frames that may come late where sessions are said to be held."""

FPS = 25
HOP = 640
"""Samples of a frame at 16 kHz."""

Row = dict[str, Any]


def main() -> None:
    """Run the parts that were asked for and write what they gave."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--models", nargs="+", default=list(MODELS))
    parser.add_argument("--frames", type=int, default=300, help="timed frames of each row")
    parser.add_argument("--rounds", type=int, default=6, help="turns that they are taken in")
    parser.add_argument("--starts", type=int, default=5, help="cold starts of each kind")
    parser.add_argument("--most", type=int, default=8, help="sessions tried at most")
    parser.add_argument("--seconds", type=float, default=15.0, help="that sessions are watched")
    parser.add_argument("--calls", type=int, default=2, help="WebRTC sessions at most")
    parser.add_argument("--hours", type=float, default=0.1, help="of sound, for memory")
    parser.add_argument("--output", type=Path, default=Path("results/streaming"))
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        cold_worker(Path(arguments.worker))
        return
    result: dict[str, Any] = {"machine": machine()}
    model = arguments.models[0]
    runs: dict[str, Callable[[], Any]] = {
        "steps": lambda: steps(arguments.models, arguments.frames, arguments.rounds),
        "cold": lambda: cold(model, arguments.starts),
        "sessions": lambda: sessions(model, arguments.most, arguments.seconds),
        "webrtc": lambda: calls(model, arguments.calls, arguments.seconds),
        "memory": lambda: memory(model, arguments.hours),
    }
    for part in PARTS:
        if part in arguments.parts:
            before = load()
            rows = runs[part]()
            result[part] = {"load_before": before, "load_after": load(), "rows": rows}
            write(arguments.output, result)
    print(arguments.output.with_suffix(".md").read_text("utf-8"))


def machine() -> dict[str, Any]:
    """What it ran on, and when."""
    import torch

    from stillspeak import __version__

    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "cores": os.cpu_count(),
        "processor": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "stillspeak": __version__,
    }


def processor() -> str:
    """The processor's name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def load() -> float | None:
    """Processes that ran or waited for a core over the last minute."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def sentence() -> Any:
    """The bundled sentence, (S,) float32 at 16 kHz."""
    from importlib.resources import files

    from stillspeak.media.audio import load_audio

    return load_audio(Path(str(files("stillspeak"))) / "resources" / "speech.flac")


def hops() -> Iterator[Any]:
    """The sentence over and over, a frame's sound at a time."""
    samples = sentence()
    samples = samples[: len(samples) // HOP * HOP]
    while True:
        for begin in range(0, len(samples), HOP):
            yield samples[begin : begin + HOP]


# --- steps ------------------------------------------------------------------------------------


class Times:
    """Seconds of each step by the clock and of the process's CPU, all threads together."""

    def __init__(self) -> None:
        self.clock: list[float] = []
        self.cpu: list[float] = []

    def time(self, act: Callable[[], Any]) -> None:
        """Run something once."""
        clock, cpu = time.perf_counter(), time.process_time()
        act()
        self.clock.append(time.perf_counter() - clock)
        self.cpu.append(time.process_time() - cpu)

    def row(self) -> Row:
        """Frames a second and percentiles in milliseconds."""
        import numpy as np

        clock, cpu = np.array(self.clock), np.array(self.cpu)
        row: Row = {"frames": len(clock), "fps": 1 / float(clock.mean())}
        for name, times in (("clock", clock), ("cpu", cpu)):
            for percentile in (50, 95, 99):
                row[f"{name}_p{percentile}_ms"] = 1000 * float(np.percentile(times, percentile))
        row["fps_cpu"] = 1 / float(cpu.mean())
        return row


def steps(models: Sequence[str], frames: int, rounds: int) -> list[Row]:
    """Every view of every model, ONNX Runtime and the reference, in turns."""
    from skimage.data import astronaut

    from stillspeak.animate import Animator

    photo = astronaut()  # type: ignore[no-untyped-call]
    turns: list[tuple[Row, Callable[[], Any], Times]] = []
    detector = None
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            animator = Animator(model, device="cpu", detector=detector)
            detector = animator.detector
            for view, options in VIEWS.items():
                about = {"what": named(model), "view": view, "threads": 1}
                turns.append((about, session_step(animator, photo, options), Times()))
            about = {"what": named(model), "view": BARE, "threads": 1}
            turns.append((about, bare_step(animator), Times()))
            place = Path(folder, named(model))
            about = {"what": f"{named(model)}, ONNX Runtime", "view": BARE, "threads": 1}
            turns.append((about, onnx_step(animator.generator, place), Times()))
        for threads in sorted({1, os.cpu_count() or 1}):
            about = {"what": REFERENCE, "view": BARE, "threads": threads}
            turns.append((about, reference_step(threads), Times()))
        for _, act, _ in turns:
            for _ in range(WARM):
                act()
        for _ in range(rounds):
            for _, act, times in turns:
                act()  # what the neighbour in the row left in the caches is not this one's
                for _ in range(max(frames // rounds, 1)):
                    times.time(act)
        if detector is not None:
            detector.close()
    rows = [about | times.row() for about, _, times in turns]
    best = max((row["fps"] for row in rows if row["what"] == REFERENCE), default=None)
    alone = next(
        (row["fps_cpu"] for row in rows if row["what"] == REFERENCE and row["threads"] == 1), None
    )
    for row in rows:
        if best and alone:
            row["times_reference"] = row["fps"] / best
            if row["threads"] == 1:
                row["times_reference_cpu"] = row["fps_cpu"] / alone
    return rows


def named(model: str) -> str:
    """A model by the name of its weights."""
    from stillspeak.weights import catalogue

    return catalogue()[model].name if model in catalogue() else Path(model).stem


def session_step(animator: Any, photo: Any, options: dict[str, Any]) -> Callable[[], Any]:
    """Push a frame's sound, get a frame."""
    from stillspeak.stream import StreamSession

    session = StreamSession(photo, animator=animator, **options)
    sound = hops()
    while not session.push(next(sound)):  # the look-ahead
        pass
    return lambda: session.push(next(sound))


def onnx_step(generator: Any, folder: Path) -> Callable[[], Any]:
    """One run of hear.onnx or step.onnx, its states handed on."""
    import numpy as np

    from stillspeak.export.onnx import OnnxStep, export_onnx, run_still

    made = export_onnx(generator, folder, check=False)
    config = generator.config
    random = np.random.default_rng(0)
    shared = None
    if made.still is not None:
        still = random.uniform(-1, 1, (1, 3, config.height, config.width))
        shared = run_still(made.still, still.astype(np.float32))
    graph = OnnxStep(made.step, shared)
    sound = hops()
    heard = np.zeros(config.window, np.float32)

    def step() -> Any:
        nonlocal heard
        heard = np.concatenate((heard[config.hop :], next(sound)))
        inputs = {"window": heard[None]}
        if "noise" in graph.feed:
            noise = 0.33 * random.standard_normal(graph.feed["noise"].shape)
            inputs["noise"] = noise.astype(np.float32)
        got = graph(**inputs)
        if made.still is None:
            return got["pose"]
        return ((got["frame"][0].transpose(1, 2, 0) + 1) * 127.5).round().astype(np.uint8)

    return step


def bare_step(animator: Any) -> Callable[[], Any]:
    """A frame of the inference engine, as sessions run it."""
    return torch_step(animator.engine, 1)


def reference_step(threads: int) -> Callable[[], Any]:
    """The paper's generator at full width, module by module, a frame at a time.

    The still's code and skips are computed once, as for a whole clip, so that the reference is not
    made slower than it has to be.
    """
    from stillspeak.models.generator import Generator

    generator = Generator(reference_config()).eval().requires_grad_(False)
    return torch_step(generator, threads)


def torch_step(engine: Any, threads: int) -> Callable[[], Any]:
    """A frame's sound to a frame (128, 96, 3), or to the pose of a mouth (41, 2)."""
    import torch

    from stillspeak.models.pixels import from_model
    from stillspeak.synthesis import Recurrence
    from stillspeak.system.runtime import torch_threads

    config = engine.config
    random = torch.Generator().manual_seed(0)
    still = torch.rand(1, 3, config.height, config.width, generator=random) * 2 - 1
    with torch.inference_mode():
        prepared = engine.prepare_still(still)
    heard_before = Recurrence(engine, 0)
    sound = hops()
    heard = torch.zeros(config.window)

    @torch.inference_mode()
    def step() -> Any:
        nonlocal heard
        heard = torch.cat((heard[config.hop :], torch.from_numpy(next(sound))))
        with torch_threads(threads):
            inputs = heard_before.inputs(heard.view(1, -1).numpy())
            decoded, heard_before.state = engine.step(prepared, *inputs)
            if decoded.pose is not None:
                return decoded.pose[0].numpy()
            return from_model(decoded.frames[0])

    return step


def reference_config() -> Any:
    """The generator of configs/paper.toml."""
    import tomllib

    from stillspeak.models.config import GeneratorConfig

    table = tomllib.loads((ROOT / "configs" / "paper.toml").read_text("utf-8"))["generator"]
    return GeneratorConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})


# --- cold start -------------------------------------------------------------------------------


def cold(model: str, starts: int) -> list[Row]:
    """Seconds from starting a process to its first frame, without and with the detector."""
    import numpy as np

    taken: dict[str, list[tuple[float, float]]] = {"aligned crop": [], "detector": []}
    with tempfile.TemporaryDirectory() as folder:
        jobs = cold_inputs(Path(folder), model)
        for _ in range(starts):
            for name, job in jobs.items():
                began = time.monotonic()
                command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(job)]
                process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
                assert process.stdout is not None
                with process.stdout:
                    line = process.stdout.readline()
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                if process.returncode:
                    raise SystemExit(f"a cold start failed with exit code {process.returncode}")
                answer = json.loads(line)
                if name == "aligned crop" and answer["mediapipe"]:
                    raise SystemExit("the cold start without the detector imported it")
                # One clock for all processes of a machine.
                taken[name].append((answer["at"] - began, usage.ru_utime + usage.ru_stime))
    rows = []
    for name, times in taken.items():
        clock, cpu = (np.array(one) for one in zip(*times, strict=True))
        rows.append(
            {
                "still": name,
                "starts": len(times),
                "median_s": float(np.median(clock)),
                "least_s": float(clock.min()),
                "most_s": float(clock.max()),
                "cpu_median_s": float(np.median(cpu)),
            }
        )
    return rows


def cold_inputs(folder: Path, model: str) -> dict[str, Path]:
    """Jobs for the worker: a crop whose landmarks are known, and a photo."""
    import numpy as np
    from skimage.data import astronaut

    from stillspeak.face.align import crop_face, face_transform, transform_points
    from stillspeak.face.landmarks import MediaPipeDetector

    photo = astronaut()  # type: ignore[no-untyped-call]
    detector = MediaPipeDetector()
    (found,) = detector.detect(photo)
    detector.close()
    to_crop = face_transform(found.points)
    crop = crop_face(photo, to_crop, 128, 96)
    points = transform_points(found.points, to_crop).astype(np.float32)
    np.savez(folder / "crop.npz", picture=crop, points=points)
    np.savez(folder / "photo.npz", picture=photo)
    np.save(folder / "sound.npy", sentence()[:8000])
    jobs = {}
    for name, file in (("aligned crop", "crop.npz"), ("detector", "photo.npz")):
        jobs[name] = folder / f"{file}.json"
        job = {"still": str(folder / file), "sound": str(folder / "sound.npy"), "model": model}
        jobs[name].write_text(json.dumps(job), "utf-8")
    return jobs


def cold_worker(job: Path) -> None:
    """In a process of its own: the first frame, and the moment at which it was there."""
    import numpy as np

    from stillspeak.animate import Animator
    from stillspeak.face.landmarks import Face
    from stillspeak.stream import StreamSession

    told = json.loads(job.read_text("utf-8"))
    with np.load(told["still"]) as file:
        still = dict(file)

    class Known:
        """With an aligned crop the place of the face is known."""

        version = "known"

        def detect(self, image: Any) -> list[Face]:
            return [Face(still["points"], {}, 0.0, 0.0, 0.0)]

        def close(self) -> None:
            """Nothing is open."""

    known = "points" in still
    with Animator(told["model"], device="cpu", detector=Known() if known else None) as animator:
        session = StreamSession(still["picture"], animator=animator, crop=known)
        frames = session.push(np.load(told["sound"])[: 4 * HOP])
        at = time.monotonic()
    assert frames
    print(json.dumps({"at": at, "mediapipe": "mediapipe" in sys.modules}), flush=True)


# --- sessions ---------------------------------------------------------------------------------


def sessions(model: str, most: int, seconds: float) -> list[Row]:
    """Faces that talk in real time, each in a thread of its own, until frames come late."""
    from skimage.data import astronaut

    from stillspeak.animate import Animator
    from stillspeak.stream import StreamSession

    photo = astronaut()  # type: ignore[no-untyped-call]
    rows: list[Row] = []
    with Animator(model, device="cpu") as animator:
        for view in ("crop", "photo, 512 lines"):
            options = VIEWS[view]
            for count in range(1, most + 1):
                faces = [
                    StreamSession(photo, animator=animator, seed=seed, **options)
                    for seed in range(count)
                ]
                row = {"view": view} | together(faces, seconds)
                rows.append(row)
                if not row["held"]:
                    break
    return rows


def together(faces: Sequence[Any], seconds: float) -> Row:
    """Push each face its sound in real time; a frame is late if 40 ms after its sound is pushed
    it is not there."""
    import numpy as np

    lateness: list[list[float]] = [[] for _ in faces]
    cpu = time.process_time()
    began = time.monotonic() + 0.2

    def talk(number: int, face: Any) -> None:
        sound = hops()
        # One after the other, as calls begin.
        start = began + number / FPS / len(faces)
        for beat in range(round(seconds * FPS)):
            due = start + beat / FPS
            time.sleep(max(due - time.monotonic(), 0))
            if face.push(next(sound)):
                lateness[number].append(time.monotonic() - due)

    threads = [threading.Thread(target=talk, args=one) for one in enumerate(faces)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    took = time.monotonic() - began
    cpu = time.process_time() - cpu
    waited = np.concatenate([np.array(one) for one in lateness])
    late = float((waited > 1 / FPS).mean())
    return {
        "sessions": len(faces),
        "held": late <= LATE,
        "late": late,
        "fps_least": min(len(one) for one in lateness) / took,
        "median_ms": 1000 * float(np.median(waited)),
        "p99_ms": 1000 * float(np.percentile(waited, 99)),
        "cores": cpu / took,
    }


# --- calls ------------------------------------------------------------------------------------


def calls(model: str, most: int, seconds: float) -> list[Row]:
    """What benchmarks/webrtc.py measures."""
    return list(asyncio.run(sibling("webrtc").run(most, seconds, model)))


def sibling(name: str) -> ModuleType:
    """Another benchmark as a module."""
    place = Path(__file__).with_name(f"{name}.py")
    spec = importlib.util.spec_from_file_location(f"benchmark_{name}", place)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- memory -----------------------------------------------------------------------------------


def memory(model: str, hours: float, minutes: float = 1.0) -> list[Row]:
    """Resident memory after every minute of sound at 48 kHz, pushed as fast as it is heard."""
    import numpy as np
    import soxr
    from skimage.data import astronaut

    from stillspeak.stream import StreamSession

    rate = 48_000
    sound = soxr.resample(sentence(), 16_000, rate)
    photo = astronaut()  # type: ignore[no-untyped-call]
    session = StreamSession(photo, model=model, crop=True, sample_rate=rate)
    begin, frames = time.perf_counter(), 0
    rows: list[Row] = []
    chunk, heard, place = rate // 50, 0, 0
    while heard < hours * 3600 * rate:
        piece = np.take(sound, range(place, place + chunk), mode="wrap")
        frames += len(session.push(piece))
        heard, place = heard + chunk, (place + chunk) % len(sound)
        if heard >= len(rows) * minutes * 60 * rate:
            rows.append({"minutes": heard / rate / 60, "frames": frames, "rss_mb": resident()})
    last = session.push(np.zeros(rate, np.int16))[-1]
    rows.append(
        {
            "minutes": heard / rate / 60,
            "frames": last.index + 1,
            "rss_mb": resident(),
            "took_s": time.perf_counter() - begin,
            "stamp_error": last.sample - last.index * rate // FPS,
        }
    )
    return rows


def resident() -> float:
    """Resident memory of this process in MB, now; at most, where the system tells no more."""
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except OSError:
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- what is written --------------------------------------------------------------------------


def write(output: Path, result: dict[str, Any]) -> None:
    """OUTPUT.json and OUTPUT.md."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    output.with_suffix(".md").write_text(page(result), "utf-8")


COLUMNS: dict[str, tuple[str, dict[str, tuple[str, str]]]] = {
    "steps": (
        "A frame at a time",
        {
            "what": ("", "{}"),
            "view": ("view", "{}"),
            "threads": ("threads", "{}"),
            "fps": ("frames/s", "{:.0f}"),
            "clock_p50_ms": ("clock: median, ms", "{:.1f}"),
            "clock_p95_ms": ("95 %", "{:.1f}"),
            "clock_p99_ms": ("99 %", "{:.1f}"),
            "cpu_p50_ms": ("CPU: median, ms", "{:.1f}"),
            "cpu_p99_ms": ("99 %", "{:.1f}"),
            "times_reference": ("times the reference's frames/s", "{:.1f}"),
            "times_reference_cpu": ("the same by CPU, one thread each", "{:.1f}"),
        },
    ),
    "cold": (
        "Cold start to the first frame",
        {
            "still": ("still", "{}"),
            "starts": ("starts", "{}"),
            "median_s": ("median, s", "{:.2f}"),
            "least_s": ("least", "{:.2f}"),
            "most_s": ("most", "{:.2f}"),
            "cpu_median_s": ("CPU, s", "{:.2f}"),
        },
    ),
    "sessions": (
        "Sessions in real time",
        {
            "view": ("view", "{}"),
            "sessions": ("sessions", "{}"),
            "held": ("held", "{}"),
            "late": ("late frames", "{:.2%}"),
            "fps_least": ("frames/s, least", "{:.1f}"),
            "median_ms": ("wait: median, ms", "{:.1f}"),
            "p99_ms": ("99 %", "{:.1f}"),
            "cores": ("cores used", "{:.2f}"),
        },
    ),
    "webrtc": (
        "Through WebRTC and back",
        {
            "sessions": ("sessions", "{}"),
            "fps_least": ("frames/s, least", "{:.1f}"),
            "delay_median": ("delay: median, s", "{:.3f}"),
            "delay_95": ("95 %", "{:.3f}"),
            "cores": ("cores used, clients too", "{:.2f}"),
        },
    ),
    "memory": (
        "Memory",
        {
            "minutes": ("minutes of sound", "{:.0f}"),
            "frames": ("frames", "{}"),
            "rss_mb": ("resident, MB", "{:.1f}"),
        },
    ),
}


def page(result: dict[str, Any]) -> str:
    """The tables in Markdown."""
    about = result["machine"]
    lines = [
        "# Streaming",
        "",
        f"{about['date']}, {about['cores']} cores ({about['processor']}), "
        f"CPython {about['python']}, torch {about['torch']}, stillspeak {about['stillspeak']}.",
        "",
    ]
    for part, (heading, columns) in COLUMNS.items():
        if part not in result:
            continue
        run = result[part]
        lines += [
            f"## {heading}",
            "",
            f"Load {run['load_before']} before, {run['load_after']} after.",
            "",
        ]
        rows = run["rows"]
        if part == "memory":  # a minute's rows in the JSON, an hour's worth here
            every = max(len(rows) // 12, 1)
            rows = [*rows[:-1:every], rows[-1]]
        lines += table(rows, columns)
    return "\n".join(lines).rstrip() + "\n"


def table(rows: Sequence[Row], columns: dict[str, tuple[str, str]]) -> list[str]:
    """Rows as Markdown; columns that no row has are left out."""
    there = {key: column for key, column in columns.items() if any(key in row for row in rows)}
    lines = ["| " + " | ".join(name for name, _ in there.values()) + " |"]
    lines.append(
        "| " + " | ".join("---" if form == "{}" else "---:" for _, form in there.values()) + " |"
    )
    for row in rows:
        cells = (form.format(row[key]) if key in row else "" for key, (_, form) in there.items())
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
