"""Ways to run one frame at a time on a CPU, timed in turns and compared with the plain modules.

    python benchmarks/step_paths.py [--model default] [--frames 150]

Every way sees the same face (skimage's astronaut), hears the same sound (the bundled sentence) and
draws the same noise, so its frames are compared with those of the modules in float32, in levels of
255. The way of `StreamSession` is "engine, decoder in bfloat16" where the processor multiplies
that, else "engine, float32". ONNX Runtime comes with the `onnx` extra; OpenVINO is tried where it
is installed. int8 is ONNX Runtime's static quantisation, its ranges found on this very sentence.

Writes OUTPUT.md and OUTPUT.json (results/step_paths unless told); nothing here asserts a number.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.data import astronaut

from stillspeak.export import OnnxExport, export_onnx, face_inputs, open_onnx
from stillspeak.media.audio import frame_windows
from stillspeak.models.engine import Engine, InferenceEngine
from stillspeak.models.generator import Generator
from stillspeak.runtime import torch_threads
from stillspeak.weights import load_model
from streaming import machine, sentence

WARM = 15
"""Frames of each way that are not timed."""

CALIBRATED = 60
"""Frames over which the ranges for int8 are found."""

Frame = np.ndarray[Any, Any]
Step = Callable[[Frame, Frame], Frame]
"""A window (1, N) and noise (1, D) to the next frame (3, H, W) in [-1, 1]; states are inside."""


@dataclass
class Way:
    """One way to run the generator, and what it took."""

    name: str
    threads: int
    step: Step
    built_s: float
    times: list[float] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)


class Material:
    """What every way is given."""

    def __init__(self, generator: Generator) -> None:
        config = generator.config
        self.generator = generator
        self.face = face_inputs(astronaut(), generator)  # type: ignore[no-untyped-call]
        self.windows = frame_windows(sentence(), config.window, config.hop)
        random = torch.Generator().manual_seed(0)
        self.noise = generator.draw_noise(1, len(self.windows), random)[0].numpy()

    def at(self, number: int) -> tuple[Frame, Frame]:
        """Window and noise of a frame; the sentence comes over and over."""
        place = number % len(self.windows)
        return self.windows[place : place + 1].copy(), self.noise[place : place + 1]


# --- ways ---------------------------------------------------------------------------------------


def torch_way(
    material: Material, runs: Engine[Any], *, threads: int = 1, autocast: bool = False
) -> Callable[[], Step]:
    """The modules, or the inference engine."""

    def build() -> Step:
        face = {name: torch.from_numpy(value) for name, value in material.face.items()}
        with torch.inference_mode():
            prepared = runs.prepare_still(face["still"], face.get("lower"))
        state = runs.initial_state()

        @torch.inference_mode()
        def step(window: Frame, noise: Frame) -> Frame:
            nonlocal state
            with torch_threads(threads), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                decoded, state = runs.step(
                    prepared, torch.from_numpy(window)[None], torch.from_numpy(noise)[None], state
                )
            return decoded.frames[0, 0].float().numpy()

        return step

    return build


def compiled_way(material: Material, *, threads: int) -> Callable[[], Step]:
    """torch.compile of the decoder; its first frames, which compile it, count as building."""

    def build() -> Step:
        torch._dynamo.reset()
        generator = copy.deepcopy(material.generator)
        generator.decode = torch.compile(generator.decode, dynamic=False)  # type: ignore[method-assign]
        step = torch_way(material, generator, threads=threads)()
        for number in range(3):
            step(*material.at(number))
        return torch_way(material, generator, threads=threads)()

    return build


def onnx_way(
    material: Material, made: OnnxExport, step: Path, *, threads: int
) -> Callable[[], Step]:
    """ONNX Runtime."""
    return lambda: _fed(material, made, open_onnx(step, threads=threads))[0]


def _fed(material: Material, made: OnnxExport, session: Any) -> tuple[Step, list[dict[str, Frame]]]:
    """A step of a session with its states, and what its first steps were fed."""
    first = open_onnx(made.still)
    names = [port.name for port in first.get_outputs()]
    shapes = {port.name: port.shape for port in session.get_inputs()}
    outputs = [port.name for port in session.get_outputs()]
    given = material.face | dict(zip(names, first.run(names, material.face), strict=True))
    feed = {name: given.get(name, np.zeros(shape, np.float32)) for name, shape in shapes.items()}
    heard: list[dict[str, Frame]] = []

    def step(window: Frame, noise: Frame) -> Frame:
        feed["window"] = window
        if "noise" in feed:
            feed["noise"] = noise
        if len(heard) < CALIBRATED:
            heard.append(dict(feed))
        got = dict(zip(outputs, session.run(outputs, feed), strict=True))
        feed.update({n: got[f"next_{n}"] for n in shapes if n.endswith("_state")})
        return got["frame"][0]

    return step, heard


def quantised(material: Material, made: OnnxExport, folder: Path) -> Path:
    """step.onnx with int8 weights and activations, ranges from the sentence's beginning."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_static

    step, heard = _fed(material, made, open_onnx(made.step))
    for number in range(CALIBRATED):
        step(*material.at(number))

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.rest: Iterator[dict[str, Frame]] = iter(heard)

        def get_next(self) -> dict[str, Frame] | None:
            return next(self.rest, None)

    place = folder / "int8.onnx"
    kinds = ["Conv", "ConvTranspose", "Gemm", "MatMul"]
    quantize_static(
        str(made.step),
        str(place),
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=kinds,
    )
    return place


def openvino_way(
    material: Material, made: OnnxExport, *, threads: int, precision: str
) -> Callable[[], Step]:
    """OpenVINO on the same graphs."""

    class Session:
        """Looks like ONNX Runtime's."""

        def __init__(self) -> None:
            import openvino

            core = openvino.Core()
            options = {
                "INFERENCE_NUM_THREADS": threads,
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_PRECISION_HINT": precision,
            }
            self.compiled = core.compile_model(core.read_model(made.step), "CPU", options)
            self.request = self.compiled.create_infer_request()
            self.ports = open_onnx(made.step)
            self.get_inputs, self.get_outputs = self.ports.get_inputs, self.ports.get_outputs

        def run(self, names: list[str], feed: dict[str, Frame]) -> list[Frame]:
            self.request.infer(feed)
            return [self.request.get_tensor(name).data.copy() for name in names]

    return lambda: _fed(material, made, Session())[0]


# --- turns --------------------------------------------------------------------------------------


def ways(material: Material, folder: Path) -> Iterator[tuple[str, int, Callable[[], Step]]]:
    """Name, threads and builder of each; the first is what the others are compared with."""
    generator = material.generator
    threads = sorted({1, os.cpu_count() or 1})
    last = copy.deepcopy(generator).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = InferenceEngine(generator)
    half = InferenceEngine(generator, dtype=torch.bfloat16)
    made = export_onnx(generator, folder / "onnx", check=False)
    small = quantised(material, made, folder)
    for count in threads:
        yield "modules, float32", count, torch_way(material, generator, threads=count)
    for count in threads:
        yield "modules, channels-last", count, torch_way(material, last, threads=count)
        build = torch_way(material, generator, threads=count, autocast=True)
        yield "modules, bfloat16 autocast", count, build
        yield "torch.compile, float32", count, compiled_way(material, threads=count)
        yield "engine, float32", count, torch_way(material, plain, threads=count)
        yield "engine, decoder in bfloat16", count, torch_way(material, half, threads=count)
        yield "ONNX Runtime, float32", count, onnx_way(material, made, made.step, threads=count)
        yield "ONNX Runtime, int8", count, onnx_way(material, made, small, threads=count)
        if importlib.util.find_spec("openvino"):
            for name in ("f32", "bf16"):
                build = openvino_way(material, made, threads=count, precision=name)
                yield f"OpenVINO, {name}", count, build


def measure(generator: Generator, frames: int, rounds: int) -> list[dict[str, Any]]:
    """Every way, in turns."""
    material = Material(generator)
    rows: list[Way] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, threads, build in ways(material, Path(folder)):
            begin = time.perf_counter()
            step = build()
            rows.append(Way(name, threads, step, time.perf_counter() - begin))
        each = max(frames // rounds, 1)
        for turn in range(rounds + 1):
            for way in rows:
                for _ in range(each if turn else WARM):
                    given = material.at(len(way.frames))
                    begin = time.perf_counter()
                    frame = way.step(*given)
                    if turn:
                        way.times.append(time.perf_counter() - begin)
                    way.frames.append(np.array(frame, np.float32))
    wanted = np.stack(rows[0].frames)
    return [row(way, wanted) for way in rows]


def row(way: Way, wanted: Frame) -> dict[str, Any]:
    """What a way took, and how far its frames are from the modules'."""
    off = 127.5 * np.abs(np.stack(way.frames) - wanted)
    return {
        "way": way.name,
        "threads": way.threads,
        "build_s": way.built_s,
        "median_ms": 1000 * float(np.median(way.times)),
        "p99_ms": 1000 * float(np.percentile(way.times, 99)),
        "most_off": float(off.max()),
        "mean_off": float(off.mean()),
    }


COLUMNS = {
    "way": ("a frame at a time", "{}"),
    "threads": ("threads", "{}"),
    "median_ms": ("median, ms", "{:.1f}"),
    "p99_ms": ("99 %, ms", "{:.1f}"),
    "build_s": ("to build, s", "{:.2f}"),
    "most_off": ("off at most, levels", "{:.3f}"),
    "mean_off": ("on average", "{:.4f}"),
}


def main() -> None:
    """Build every way, take turns, write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="alive", help="one whose own network draws")
    parser.add_argument("--frames", type=int, default=150, help="timed frames of each way")
    parser.add_argument("--rounds", type=int, default=5, help="turns that they are taken in")
    parser.add_argument("--output", type=Path, default=Path("results/step_paths"))
    arguments = parser.parse_args()
    before = os.getloadavg()[0]
    rows = measure(load_model(arguments.model), arguments.frames, arguments.rounds)
    about = machine() | {"load": [before, os.getloadavg()[0]], "model": arguments.model}
    lines = [
        f"| {' | '.join(name for name, _ in COLUMNS.values())} |",
        f"| --- |{' ---: |' * (len(COLUMNS) - 1)}",
        *(
            f"| {' | '.join(form.format(one[key]) for key, (_, form) in COLUMNS.items())} |"
            for one in rows
        ),
    ]
    text = json.dumps(about) + "\n\n" + "\n".join(lines) + "\n"
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.with_suffix(".json").write_text(json.dumps(about | {"rows": rows}), "utf-8")
    arguments.output.with_suffix(".md").write_text(text, "utf-8")
    print(text)


if __name__ == "__main__":
    main()
