"""Start or resume a training run from a configuration, a prepared cache and a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stillspeak import __version__
from stillspeak.data.dataset import Examples, TrainingData
from stillspeak.data.device_dataset import DeviceDataset
from stillspeak.errors import ConfigError
from stillspeak.system.configuration import Table, merge, parse_overrides, read_toml, to_table
from stillspeak.system.runtime import Precision, choose_device, choose_precision
from stillspeak.training.auxiliary.kinds import auxiliary_config, auxiliary_kind, real_clips
from stillspeak.training.auxiliary.task import AuxiliaryTraining
from stillspeak.training.checkpoint import latest_checkpoint, own_folder
from stillspeak.training.config import run_config
from stillspeak.training.distributed import launch_fabric, shutdown_process_group
from stillspeak.training.loop import Task, TrainingLoop
from stillspeak.training.trainer import GeneratorTraining
from stillspeak.weights import file_sha256, resolve_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Report = Callable[[str], None]


@dataclass(frozen=True)
class RunOptions:
    """What is trained, on what, and where.

    Attributes:
        config_file: TOML, see ``configs/``.
        cache: a prepared cache with training and, for validation, other speakers; a folder of
            recordings for the speech encoder.
        folder: of the run; made if missing.
        overrides: ``section.key=value`` over the file's values.
        resume: go on from the folder's newest checkpoint.
        start_from: a released model's name or a weights file, of which the generator takes over
            what fits.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    config_file: Path
    cache: Path
    folder: Path
    overrides: tuple[str, ...] = ()
    resume: bool = False
    start_from: str | Path | None = None
    device: str = "auto"

    def table(self) -> Table:
        """The configuration, merged.

        Raises:
            ConfigError: the file or an override is wrong, the folder holds a run already, or
                ``resume`` and ``start_from`` were both given.
        """
        table = merge(read_toml(self.config_file), parse_overrides(self.overrides))
        if self.start_from is not None and auxiliary_kind(table):
            raise ConfigError("--from is for generators; an auxiliary network starts afresh")
        if not self.resume and latest_checkpoint(self.folder):
            raise ConfigError(
                f"{self.folder}: holds a run already; add --resume to go on with it, or name a "
                "new folder"
            )
        if self.resume and self.start_from is not None:
            raise ConfigError("a resumed run has its own weights; leave out --from or --resume")
        return table


def train(
    options: RunOptions,
    *,
    minutes: float | None = None,
    info: Mapping[str, Any] | None = None,
    report: Report = lambda _: None,
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> str:
    """Train a generator, or an auxiliary network (a configuration with ``[lipnet]``, ...).

    Args:
        options: what is trained, on what, and where.
        minutes: wall-clock limit of this call.
        info: what weights files of this run say besides configuration and scores.
        report: gets lines about what was chosen and why.
        progress: gets step, steps and the latest metrics.

    Returns why the run stopped.

    Raises:
        ConfigError: a wrong configuration, or a folder that holds another run.
        DataError: the cache has no usable training clips.
        TrainingError: the run broke off.
        MissingDependencyError: the ``train`` extra is not installed.
    """
    loop = assemble(options, info=info, report=report)
    task = loop.task
    own = own_folder(options.folder, from_step=task.step, table=task.table)
    # Of several processes the first one writes.
    with own if loop.fabric.is_global_zero else nullcontext():
        reason = loop.fit(
            minutes=minutes,
            progress=progress and (lambda step, m: progress(step, task.schedule.steps, m)),
        )
    shutdown_process_group()
    return reason


def assemble(
    options: RunOptions, *, info: Mapping[str, Any] | None = None, report: Report = lambda _: None
) -> TrainingLoop:
    """A run that is ready to start, resumed if asked for. Writes nothing; see :func:`train`.

    Raises:
        CheckpointError: there is nothing to resume, or it does not fit.
    """
    table = options.table()
    device = choose_device(options.device)
    make = _auxiliary if auxiliary_kind(table) else _generator
    task, fabric, about = make(options, table, device, report)
    about |= {"stillspeak": __version__, "torch": str(torch.__version__), "device": str(device)}
    loop = TrainingLoop(task, fabric, options.folder, about | dict(info or {}))
    if options.resume:
        report(f"resumed at step {loop.resume()}")
    elif options.start_from is not None:
        assert isinstance(task, GeneratorTraining)
        path, _ = resolve_model(options.start_from)
        taken, own = task.start_from(path)
        loop.history[-1]["from_weights"] = {"file": path.name, "sha256": file_sha256(path)}
        report(f"{path.name}: {taken} of the generator's {own} tensors taken over")
    return loop


Assembled = tuple[Task, "Fabric", dict[str, Any]]
"""What is trained, by what, and what weights files say of it."""


def _generator(
    options: RunOptions, table: Table, device: torch.device, report: Report
) -> Assembled:
    config = run_config(table, name=str(options.config_file))
    training, validation = real_clips(options.cache)
    precision = choose_precision(config.training.precision, device)
    fabric = _launch(device, precision, report)
    dataset: type[Examples] = DeviceDataset if config.data.resident else TrainingData
    parts = (training, config.data, config.augment, config.generator)
    data = dataset(*parts, seed=config.training.seed, device=fabric.device)
    report(
        f"{len(data)} training clips of {len(data.speakers)} speakers, "
        f"{len(validation)} validation clips of {len({c.speaker for c in validation})}"
    )
    task = GeneratorTraining(config, fabric, data, validation, precision=precision)
    return task, fabric, {"processes": fabric.world_size, "precision_reason": precision.reason}


def _auxiliary(
    options: RunOptions, table: Table, device: torch.device, report: Report
) -> Assembled:
    config = auxiliary_config(table, name=str(options.config_file))
    precision = choose_precision(config.training.precision, device)
    if precision.name == "16-mixed":  # these networks are small enough to do without
        precision = Precision("32-true", "no bfloat16 here, and float16 would need loss scaling")
    fabric = _launch(device, precision, report)
    objective = config.objective(options.cache)
    task = AuxiliaryTraining(objective, config.training, fabric, to_table(config))
    return task, fabric, {"precision": precision.name}


def _launch(device: torch.device, precision: Precision, report: Report) -> Fabric:
    report(f"device {device}, precision {precision.name}: {precision.reason}")
    return launch_fabric(device, precision)
