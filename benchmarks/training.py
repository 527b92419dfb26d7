"""What a step of training costs, part by part, and how far from the machine's limit it runs.

    python benchmarks/training.py --data CACHE [--configs slim baseline] [--output results.json]

Each configuration is built as `stillspeak train` builds it and stepped in memory with all its
discriminators at work; nothing of a run is written. Parts are timed on their own, on the same
batch, one after the other, so their sum differs from the whole step by what they share. Numbers
are medians over the repetitions after a warm-up. The limit is a large matrix product, measured in
the precision that the run multiplies in.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from stillspeak.data.dataset import Batch, Prefetcher, grouped
from stillspeak.training.profiling import FlopCounter, synchronize
from stillspeak.training.run import Assembly, assemble

CONFIGS = Path(__file__).parents[1] / "configs"
ALL = ("slim", "baseline", "paper")
REDUCED_ON_CPU = {"paper": ("data.batch=2",)}
"""What is made smaller where there is no accelerator; the table names it."""
PENALTY = "R1 (a step's share)"


def main() -> None:
    """Measure each configuration and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="prepared cache")
    parser.add_argument("--configs", nargs="+", default=ALL, help="names in configs/, or files")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", dest="overrides", action="append", default=[])
    parser.add_argument("--repeats", type=int, default=7, help="timings of which each is a median")
    parser.add_argument("--steps", type=int, default=10, help="steps with the prefetch thread")
    parser.add_argument("--matrix", type=int, help="side of the matrix product for the limit")
    parser.add_argument("--output", type=Path, help="write the numbers as JSON")
    arguments = parser.parse_args()

    rows = []
    peaks: dict[str, float] = {}
    for name in arguments.configs:
        run, changes = build(name, arguments.data, arguments.device, arguments.overrides)
        precision = run.precision.name
        if precision not in peaks:
            peaks[precision] = peak_gflops(run.fabric.device, precision, arguments.matrix)
        row = {"config": Path(name).stem, "changed": " ".join(changes), "precision": precision}
        row |= measure(run, arguments.repeats, arguments.steps)
        row["matrix product, GFLOP/s"] = peaks[precision]
        row["share of it"] = row["GFLOP/s"] / peaks[precision]
        rows.append(row)
        print(json.dumps(row), flush=True)
        del run
        gc.collect()
    machine = describe(arguments.device)
    print(f"\n{machine}\n\n{markdown(rows)}")
    if arguments.output:
        arguments.output.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1))


def build(
    name: str, data: Path, device: str, overrides: list[str]
) -> tuple[Assembly, tuple[str, ...]]:
    """The run of a configuration, and what of it was changed."""
    file = Path(name) if name.endswith(".toml") else CONFIGS / f"{name}.toml"
    accelerated = torch.cuda.is_available() and device in ("auto", "cuda")
    changes = (*(() if accelerated else REDUCED_ON_CPU.get(name, ())), *overrides)
    with tempfile.TemporaryDirectory() as folder:
        return assemble(file, data, Path(folder, "run"), overrides=changes, device=device), changes


def measure(run: Assembly, repeats: int, steps: int) -> dict[str, Any]:
    """All numbers of one configuration. Times are in seconds."""
    trainer, device = run.trainer, run.fabric.device
    config = trainer.config
    r1 = config.adversarial.r1 if trainer.discriminator_players else 0.0
    penalised = 1 / config.adversarial.r1_every if r1 else 0.0
    accumulate = config.training.accumulate
    batch = run.data.batch(0)
    batches = [batch] * accumulate
    first = config.game_start  # a step with the penalty, as every r1_every-th after it

    def step(number: int) -> None:
        trainer.step = number
        trainer.train_step(batches)

    without, flops_without = step_cost(lambda: step(first + 1), device, repeats)
    whole, flops = without, flops_without
    if r1 and penalised < 1:
        with_penalty, flops_with = step_cost(lambda: step(first), device, repeats)
        whole += penalised * (with_penalty - without)
        flops += penalised * (flops_with - flops_without)
    parts = time_parts(run, batch, repeats)
    total = sum(parts.values())
    loop, waited = with_prefetch(run, first + 1, steps)
    clips = config.data.batch * accumulate
    make = accumulate * timed(lambda: run.data.batch(0), device, repeats)
    return {
        "batch": clips,
        "GFLOP a step": flops / 1e9,
        "step_s": whole,
        "GFLOP/s": flops / 1e9 / whole,
        "decoded frames/s": clips * config.data.decoded_frames / loop,
        "audio windows/s": clips * config.data.window_frames / loop,
        "making a step's batches_s": make,
        "step with batches made in line_s": whole + make,
        "step with the prefetch thread_s": loop,
        "of which waiting for a batch": waited / loop,
        "sum of the parts_s": total,
        "shares of the parts": {name: seconds / total for name, seconds in parts.items()},
        "GPU busy": gpu_busy(lambda: step(first + 1)) if device.type == "cuda" else None,
    }


def time_parts(run: Assembly, batch: Batch, repeats: int) -> dict[str, float]:
    """Median seconds of each part of a step, all its batches and players included."""
    trainer, fabric = run.trainer, run.fabric
    game = trainer.config.adversarial
    accumulate = trainer.config.training.accumulate
    player = trainer.generator_player
    objective: Any = player.module.module  # Fabric's wrapper holds ours
    batch = fabric.to_device(batch)
    random = torch.Generator().manual_seed(0)
    noise = objective.generator.draw_noise(*batch.windows.shape[:2], random)
    players = [player, *trainer.discriminator_players]
    taken: dict[str, list[float]] = {}

    def part(name: str, act: Callable[[], Any], times: float = 1) -> Any:
        synchronize(fabric.device)
        began = time.perf_counter()
        result = act()
        synchronize(fabric.device)
        taken.setdefault(name, []).append(times * (time.perf_counter() - began))
        return result

    for _ in range(repeats + 1):  # the first one warms up
        for one in players:
            one.clear()
            one.module.train()
        result = part("generator forward", lambda: player.module(batch, noise), accumulate)
        part("generator backward", lambda: fabric.backward(result.loss), accumulate)  # noqa: B023
        frames = result.frames.detach()
        for opponent in trainer.discriminator_players:
            adversary: Any = opponent.module.module
            draw = adversary.draw(batch, random)

            def advise(adversary: Any = adversary, draw: Any = draw, frames: Any = frames) -> None:
                seen = frames.clone().requires_grad_()
                adversary.requires_grad_(False)
                with fabric.autocast():
                    terms = adversary.advise(batch, seen, draw)
                adversary.requires_grad_(True)
                fabric.backward(sum(getattr(game, name) * term for name, term in terms.items()))

            def learn(penalise: bool, one: Any = opponent, d: Any = draw, f: Any = frames) -> None:
                fabric.backward(one.module(batch, f, d, penalise).loss)

            part(f"{opponent.name}: advice", advise, accumulate)
            part(f"{opponent.name}: own step", lambda: learn(False), accumulate)
            if game.r1:
                part(f"{opponent.name}: with R1", lambda: learn(True), accumulate)
        for one in players:
            norms = part(f"norm of {one.name}", lambda: one.norm(fabric))  # noqa: B023
            assert norms >= 0
            rates = {group["name"]: group["lr"] for group in one.optimizer.param_groups}
            part(f"optimiser of {one.name}", lambda: one.move(rates))  # noqa: B023
        part("EMA", lambda: trainer.average.update(objective.generator, trainer.step))
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}
    summed: dict[str, float] = {}
    for name, seconds in medians.items():
        if name.startswith("norm of"):
            name = "norms and clipping"
        elif name.startswith("optimiser of"):
            name = "optimisers"
        elif name.endswith("with R1"):
            plain = medians[name.replace("with R1", "own step")]
            name, seconds = PENALTY, max(seconds - plain, 0.0) / game.r1_every
        summed[name] = summed.get(name, 0.0) + seconds
    return summed


def with_prefetch(run: Assembly, first: int, steps: int) -> tuple[float, float]:
    """Mean seconds of a step in the real loop, and of the wait in it. Two steps warm up."""
    trainer = run.trainer
    trainer.step = first
    loader = Prefetcher(
        run.data, range(first, first + steps + 2), audio_steps=0, parts=trainer.parts
    )
    waits = []
    began = 0.0
    try:
        groups = iter(grouped(loader, len(trainer.parts)))
        for number in range(steps + 2):
            if number == 2:
                synchronize(run.fabric.device)
                began = time.perf_counter()
            asked = time.perf_counter()
            batches = next(groups)
            waits.append(time.perf_counter() - asked)
            trainer.train_step(batches)
        synchronize(run.fabric.device)
        return (time.perf_counter() - began) / steps, statistics.fmean(waits[2:])
    finally:
        loader.close()


def step_cost(act: Callable[[], None], device: torch.device, repeats: int) -> tuple[float, int]:
    """Median seconds and floating-point operations; counting them warms up."""
    with FlopCounter() as counter:
        act()
    return timed(act, device, repeats), counter.flops


def timed(act: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of an act, after one for warming up."""
    taken = []
    for _ in range(repeats + 1):
        synchronize(device)
        began = time.perf_counter()
        act()
        synchronize(device)
        taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])


def peak_gflops(device: torch.device, precision: str, side: int | None) -> float:
    """What a large square matrix product reaches at best."""
    side = side or (8192 if device.type == "cuda" else 2048)
    types = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16, "32-true": torch.float32}
    a = torch.randn(side, side, device=device).to(types[precision])
    b = torch.randn(side, side, device=device).to(types[precision])
    best = float("inf")
    for _ in range(8):
        synchronize(device)
        began = time.perf_counter()
        a @ b
        synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * side**3 / best / 1e9


def gpu_busy(act: Callable[[], None]) -> float:
    """Share of a step's time in which the GPU runs a kernel."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        began = time.perf_counter()
        for _ in range(3):
            act()
        torch.cuda.synchronize()
        wall = time.perf_counter() - began
    kernels = sum(event.self_device_time_total for event in profiler.key_averages())
    return kernels / 1e6 / wall


def describe(device: str) -> str:
    """The machine in a line."""
    parts = [platform.machine(), f"{os.cpu_count()} cores", f"{torch.get_num_threads()} threads"]
    parts += [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    if torch.cuda.is_available() and device in ("auto", "cuda"):
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table with a column a configuration; shares in percent."""
    lines = ["| | " + " | ".join(row["config"] for row in rows) + " |"]
    lines.append("| --- |" + " ---: |" * len(rows))

    def line(name: str, cells: list[Any]) -> None:
        lines.append(f"| {name} | " + " | ".join(map(cell, cells)) + " |")

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    for key in rows[0]:
        if all(row[key] in (None, "") for row in rows):
            continue
        if key in ("share of it", "of which waiting for a batch", "GPU busy"):
            line(f"{key}, %", [None if row[key] is None else 100 * row[key] for row in rows])
        elif key == "shares of the parts":
            names = dict.fromkeys(name for row in rows for name in row[key])
            for name in names:
                shares = [row[key].get(name) for row in rows]
                line(f"{name}, %", [None if share is None else 100 * share for share in shares])
        elif key != "config":
            name = f"{key[:-2]}, s" if key.endswith("_s") else key
            line(name, [row[key] for row in rows])
    return "\n".join(lines)


if __name__ == "__main__":
    main()
