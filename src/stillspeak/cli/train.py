"""``stillspeak train``: a training run, or what one would cost."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from stillspeak.cli.common import Device, command_line, in_bytes, in_time, progress_bar, usage

if TYPE_CHECKING:
    from stillspeak.training.dry_run import Plan


def train(
    config: Annotated[Path, "TOML file, see configs/."],
    data: Annotated[Path, "A prepared cache."],
    run: Annotated[Path, "The run's folder."],
    minutes: Annotated[float | None, "Stop after this many minutes."] = None,
    resume: Annotated[bool, "Go on from the newest checkpoint."] = False,
    start_from: Annotated[str | None, "--from", "Take over what fits of a model's weights."] = None,
    device: Device = "auto",
    overrides: Annotated[
        list[str] | None, "--set", "section.key=value over the file's values."
    ] = None,
    dry_run: Annotated[bool, "Print what the run would cost; write nothing."] = False,
    as_json: Annotated[bool, "--json", "Print a dry run as JSON."] = False,
    quiet: Annotated[bool, "--quiet", "-q", "No progress bar."] = False,
) -> None:
    """Train a generator, or a network that measures, on a prepared cache."""
    from stillspeak.training.run import RunOptions
    from stillspeak.training.run import train as run_training

    usage({"--json goes with --dry-run": as_json and not dry_run})
    # Under torchrun every process runs this; one speaks for all.
    first = os.environ.get("RANK", "0") == "0"
    quiet = quiet or not first

    def report(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr)

    options = RunOptions(config, data, run, tuple(overrides or ()), resume, start_from, device)
    if dry_run:
        from stillspeak.training.dry_run import dry_run as measure

        plan = measure(options, report=report)
        if first and as_json:
            print(json.dumps(plan.table()))
        elif first:
            _print_plan(plan, minutes)
        return

    with progress_bar("training", None, quiet) as advance:
        reason = run_training(
            options,
            minutes=minutes,
            info={"command": command_line()},
            report=report,
            progress=lambda step, steps, values: advance(
                step, f"of {steps}  loss {values['loss']:.4f}"
            ),
        )
    if first:
        print(f"stopped: {reason}; the run is in {run}")


def _print_plan(plan: Plan, minutes: float | None) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    add = table.add_row

    def parameters(name: str, parts: Mapping[str, int]) -> None:
        listed = ", ".join(f"{part} {number:,}" for part, number in parts.items())
        add(name, f"{sum(parts.values()):,} parameters: {listed}" if parts else "none")

    each = "" if plan.processes == 1 else f" in each of {plan.processes} processes"
    memory, disk = plan.memory, plan.disk
    add("device", plan.device + each)
    add("precision", f"{plan.precision}: {plan.precision_reason}")
    add("data", f"{plan.clips} clips of {plan.speakers} speakers, {plan.validation_clips} to check")
    parameters("generator", plan.generator)
    parameters("discriminators", plan.discriminators)
    if plan.training_only:
        add("training only", f"{plan.training_only:,} parameters that are not released")
    add("a frame", f"{plan.gflop_frame:.4g} GFLOP, and {plan.gflop_clip:.4g} once a clip")
    add("steps", f"{plan.steps_left} left of {plan.steps}; {plan.steps_per_epoch} an epoch")
    for phase in plan.phases:
        waits = ", slowed by its batches" if phase.batch_seconds > phase.step_seconds else ""
        add(
            phase.name,
            f"{phase.steps_left} steps from {phase.first_step} on, each {phase.gflop_step:.4g} "
            f"GFLOP and {phase.step_seconds:.3g} s{waits}; batches {in_bytes(phase.batch_bytes)} "
            f"in {phase.batch_seconds:.3g} s; activations {in_bytes(phase.activation_bytes)}; "
            f"{in_time(phase.seconds_left)} left",
        )
    if plan.validations_left:
        add("validations", f"{plan.validations_left} left, each {plan.validation_seconds:.3g} s")
    add(
        "memory",
        f"{in_bytes(memory.total)}: parameters {in_bytes(memory.parameters)}, gradients "
        f"{in_bytes(memory.gradients)}, optimisers {in_bytes(memory.optimizers)}, average "
        f"{in_bytes(memory.average)}, activations {in_bytes(memory.activations)}, batch "
        f"{in_bytes(memory.batch)}",
    )
    if memory.cuda_peak is not None:
        add("CUDA peak", in_bytes(memory.cuda_peak))
    add(
        "disk",
        f"{in_bytes(disk.total)}: up to {disk.checkpoints} checkpoints of "
        f"{in_bytes(disk.checkpoint)}, 2 weights files of {in_bytes(disk.weights)}",
    )
    cut = "" if minutes is None else f"; this call stops after {in_time(60 * minutes)}"
    add("time left", in_time(plan.seconds_left) + cut)
    Console(soft_wrap=not sys.stdout.isatty()).print(table, markup=False, highlight=False)
