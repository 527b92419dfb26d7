"""What a run would cost, measured by a few of its steps, without writing anything.

``stillspeak train --dry-run`` builds the run as the real one does, takes a few steps of each of
its phases in memory, and lets all of it go.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, astuple, dataclass
from itertools import islice
from typing import Any

import torch

from stillspeak.data.dataset import AudioBatch, Batch, Examples
from stillspeak.data.loader import grouped, open_loader
from stillspeak.errors import ConfigError
from stillspeak.models.generator import Generator
from stillspeak.training.auxiliary.kinds import auxiliary_kind
from stillspeak.training.config import RunConfig
from stillspeak.training.profiling import FlopCounter, SavedActivations, nbytes, synchronize
from stillspeak.training.run import Report, RunOptions, assemble
from stillspeak.training.trainer import GeneratorTraining
from stillspeak.training.validation import show_beside, validate

AUDIO = "audio warm start"
ALONE = "reconstruction"
ADVERSARIAL = "with discriminators"

TIMED_SECONDS = 10.0
"""How long steps of one kind are timed, if more than one fits."""
TIMED_STEPS = 5
"""How many steps of one kind are timed at most."""


@dataclass(frozen=True)
class PhasePlan:
    """A stretch of the run whose steps do the same. Rates are those of this process."""

    name: str
    first_step: int
    steps_left: int
    gflop_step: float
    """Forward and backward passes of all networks; steps with and without R1 in the mean."""
    step_seconds: float
    """Beside the thread that makes batches, which the step waits for if that takes longer."""
    batch_seconds: float
    """Making a step's batches."""
    batch_bytes: int
    """Of a step's batches."""
    activation_bytes: int
    """The most that autograd keeps at once."""

    @property
    def seconds_left(self) -> float:
        return self.steps_left * max(self.step_seconds, self.batch_seconds)


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes on the device of one process. The libraries themselves, their workspaces and batches
    made ahead come on top."""

    parameters: int
    """With running statistics."""
    gradients: int
    optimizers: int
    average: int
    activations: int
    """The largest of the phases'."""
    batch: int
    cuda_peak: int | None
    """What PyTorch's allocator had given out at most, on CUDA."""

    @property
    def total(self) -> int:
        """The sum of all but ``cuda_peak``."""
        return sum(astuple(self)[:-1])


@dataclass(frozen=True)
class DiskPlan:
    """Bytes in the run's folder. Pictures, videos and metrics come on top."""

    checkpoint: int
    checkpoints: int
    """How many there are at most: one more than is kept, while the newest is written."""
    weights: int
    """``best.safetensors`` and ``last.safetensors``, each."""

    @property
    def total(self) -> int:
        return self.checkpoints * self.checkpoint + 2 * self.weights


@dataclass(frozen=True)
class Plan:
    """What a run is made of and what it would cost. Times are in seconds."""

    device: str
    processes: int
    precision: str
    precision_reason: str
    clips: int
    speakers: int
    validation_clips: int
    generator: dict[str, int]
    """Parameters by part."""
    discriminators: dict[str, int]
    """Parameters by name."""
    training_only: int
    """Parameters beside the generator that serve its training and are not released."""
    gflop_frame: float
    """Generating one frame more: sound, noise and decoder, without a gradient."""
    gflop_clip: float
    """What generating costs once a clip: the still."""
    phases: tuple[PhasePlan, ...]
    """Those of which steps are left."""
    step: int
    steps: int
    steps_per_epoch: int
    validations_left: int
    validation_seconds: float
    """One validation, its clip's share measured on one clip."""
    memory: MemoryPlan
    disk: DiskPlan

    @property
    def steps_left(self) -> int:
        return self.steps - self.step

    @property
    def seconds_left(self) -> float:
        """Steps and validations that are left. Writing checkpoints comes on top."""
        steps = sum(phase.seconds_left for phase in self.phases)
        return steps + self.validations_left * self.validation_seconds

    def table(self) -> dict[str, Any]:
        """All of it as JSON values, with the sums."""
        table = asdict(self)
        table["phases"] = [{**asdict(p), "seconds_left": p.seconds_left} for p in self.phases]
        table["memory"]["total"] = self.memory.total
        table["disk"]["total"] = self.disk.total
        return {**table, "steps_left": self.steps_left, "seconds_left": self.seconds_left}


def dry_run(options: RunOptions, *, report: Report = lambda _: None) -> Plan:
    """Say what :func:`stillspeak.training.run.train` would cost, by a few steps of each phase that
    is left. Writes nothing; errors are those of ``train``."""
    if auxiliary_kind(options.table()):
        raise ConfigError(f"{options.config_file}: only a generator's run can be tried dry")
    task = assemble(options, report=report).task
    assert isinstance(task, GeneratorTraining)
    return measure(task, report=report)


def measure(task: GeneratorTraining, *, report: Report = lambda _: None) -> Plan:
    """See :func:`dry_run`. The weights change: the task is of no use afterwards."""
    config, first, device = task.config, task.step, task.fabric.device
    generator = task.averaged_generator
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    gflop_frame, gflop_clip = _generating(generator)
    phases = []
    for name, steps in phase_steps(config, first):
        report(f"measuring a few steps: {name}")
        phases.append(_phase(task, name, steps))
    networks = [task.generator, *task.discriminators]
    modules = [state.module for state in networks]
    memory = MemoryPlan(
        parameters=sum(nbytes([*m.parameters(), *m.buffers()]) for m in modules),
        gradients=sum(nbytes([p for p in m.parameters() if p.requires_grad]) for m in modules),
        optimizers=sum(nbytes(state.optimizer.state_dict()) for state in networks),
        average=nbytes([*generator.parameters(), *generator.buffers()]),
        activations=max((phase.activation_bytes for phase in phases), default=0),
        batch=max((phase.batch_bytes for phase in phases), default=0),
        cuda_peak=torch.cuda.max_memory_allocated(device) if device.type == "cuda" else None,
    )
    left = _validations_left(config, first, task.validate_every) if task.validation else 0
    if left:
        report("measuring a validation")
    parts = ("identity_encoder", "context_encoder", "noise_generator", "decoder")
    return Plan(
        device=str(device),
        processes=task.fabric.world_size,
        precision=task.precision.name,
        precision_reason=task.precision.reason,
        clips=len(task.data),
        speakers=len(task.data.speakers),
        validation_clips=len(task.validation),
        generator={name.replace("_", " "): count(getattr(generator, name)) for name in parts},
        discriminators={p.name: count(p.module) for p in task.discriminators},
        training_only=count(task.generator.module) - count(generator),
        gflop_frame=gflop_frame,
        gflop_clip=gflop_clip,
        phases=tuple(phases),
        step=first,
        steps=config.training.steps,
        steps_per_epoch=task.steps_per_epoch,
        validations_left=left,
        validation_seconds=_validating(task) if left else 0.0,
        memory=memory,
        disk=DiskPlan(
            checkpoint=nbytes(task.state()),
            checkpoints=config.training.keep_checkpoints + 1,
            weights=sum(
                value.numel() * (2 if value.is_floating_point() else value.element_size())
                for value in generator.state_dict().values()
            ),
        ),
    )


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def phase_steps(config: RunConfig, step: int) -> list[tuple[str, range]]:
    """The phases of which steps are left from ``step`` on, by name, with those steps."""
    training, adversarial = config.training, config.adversarial
    plays = adversarial.frame or adversarial.sequence or adversarial.sync
    start = min(config.adversarial_start, training.steps) if plays else training.steps
    phases = [
        (AUDIO, range(training.audio_steps)),
        (ALONE, range(training.audio_steps, start)),
        (ADVERSARIAL, range(start, training.steps)),
    ]
    left = ((name, range(max(steps.start, step), steps.stop)) for name, steps in phases)
    return [(name, steps) for name, steps in left if steps]


def _phase(task: GeneratorTraining, name: str, steps: range) -> PhasePlan:
    device = task.fabric.device
    audio = name == AUDIO
    batches, batch_seconds = _batches(task.data, steps.start, audio, task.parts)
    known = [tensor for batch in batches for tensor in batch]
    for state in (task.generator, *task.discriminators):
        known += [*state.module.parameters(), *state.module.buffers()]
    flops = seconds = 0.0
    peak = 0
    for step, share in _kinds(task.config, name, steps.start):
        task.step = step
        activations = SavedActivations(known)
        began = time.perf_counter()
        with FlopCounter() as counter, activations:
            task.train_step(batches)
        synchronize(device)
        peak = max(peak, activations.peak)
        flops += share * counter.flops
        # All processes take the same number of steps, or they would wait for each other.
        repeats = int(TIMED_SECONDS / max(time.perf_counter() - began, 1e-9))
        repeats = task.fabric.broadcast(min(max(repeats, 1), TIMED_STEPS))
        seconds += share * _timed(task, step, audio, repeats)
    return PhasePlan(
        name=name,
        first_step=steps.start,
        steps_left=len(steps),
        gflop_step=flops / 1e9,
        step_seconds=seconds,
        batch_seconds=batch_seconds,
        batch_bytes=nbytes(batches),
        activation_bytes=peak,
    )


def _kinds(config: RunConfig, name: str, first: int) -> list[tuple[int, float]]:
    """A step of each kind that a phase has, with the kind's share of the steps."""
    adversarial = config.adversarial
    if name != ADVERSARIAL or not adversarial.r1 or adversarial.r1_every == 1:
        return [(first, 1.0)]
    penalised = first + (config.adversarial_start - first) % adversarial.r1_every
    return [(penalised, 1 / adversarial.r1_every), (penalised + 1, 1 - 1 / adversarial.r1_every)]


def _timed(task: GeneratorTraining, step: int, audio: bool, repeats: int) -> float:
    """Median seconds of a step, taken ``repeats`` times while batches are made."""
    loader = open_loader(
        task.data,
        range(step, step + repeats),
        audio_steps=step + repeats if audio else 0,
        parts=task.parts,
    )
    taken = []
    with closing(loader):
        for batches in islice(grouped(loader, len(task.parts)), repeats):
            task.step = step
            began = time.perf_counter()
            task.train_step(batches)
            synchronize(task.fabric.device)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken)


def _batches(
    data: Examples, step: int, audio: bool, parts: Sequence[int]
) -> tuple[list[Batch | AudioBatch], float]:
    """A step's batches, and the seconds that making them takes once files are at hand."""
    make: Callable[[int, int], Batch | AudioBatch] = data.audio_batch if audio else data.batch
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        batches = [make(step, part) for part in parts]
        taken.append(time.perf_counter() - began)
    return batches, min(taken)


@torch.no_grad()
def _generating(generator: Generator) -> tuple[float, float]:
    """GFLOP of one frame, and of what is done once a clip."""
    config = generator.config
    like = next(generator.parameters())
    still = like.new_zeros(1, 3, config.height, config.width)
    windows, noise = like.new_zeros(1, 1, config.window), like.new_zeros(1, 1, config.noise_dim)
    with FlopCounter() as clip:
        prepared = generator.prepare_still(still)
    with FlopCounter() as frame:
        generator.step(prepared, windows, noise, generator.initial_state())
    return frame.flops / 1e9, clip.flops / 1e9


def _validations_left(config: RunConfig, step: int, every: int) -> int:
    """Multiples of ``every`` after ``step`` and the audio warm start, up to the last step."""
    done = max(step, config.training.audio_steps)
    return max(config.training.steps // every - done // every, 0)


def _validating(task: GeneratorTraining) -> float:
    """Seconds of a validation: one clip's scores times the clips, and one clip's video."""
    generator = task.averaged_generator
    clip = task.validation[0]
    device = task.fabric.device
    began = time.perf_counter()
    validate(generator, [clip], device=device)
    synchronize(device)
    scored = time.perf_counter()
    show_beside(generator, clip)
    synchronize(device)
    return len(task.validation) * (scored - began) + time.perf_counter() - scored
