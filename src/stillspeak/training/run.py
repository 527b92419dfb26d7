"""Start or resume a training run from a configuration, a prepared cache and a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from stillspeak import __version__
from stillspeak.data.dataset import Examples, TrainingData
from stillspeak.data.device_dataset import ResidentData
from stillspeak.data.prepare import CachedClip, load_manifest
from stillspeak.errors import ConfigError, DataError
from stillspeak.system.configuration import merge, parse_overrides, read_toml, to_table
from stillspeak.system.runtime import Precision, choose_device, choose_precision
from stillspeak.training.checkpoint import latest_checkpoint, own_folder
from stillspeak.training.config import run_config
from stillspeak.training.distributed import launch_fabric, leave_processes
from stillspeak.training.scorers.run import lesson_kind, train_lesson
from stillspeak.training.trainer import Trainer
from stillspeak.weights import resolve_model

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Report = Callable[[str], None]


def train(
    config_file: Path,
    cache: Path,
    folder: Path,
    *,
    overrides: tuple[str, ...] = (),
    minutes: float | None = None,
    resume: bool = False,
    start_from: str | Path | None = None,
    device: str = "auto",
    info: Mapping[str, Any] | None = None,
    report: Report = lambda _: None,
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> str:
    """Train a generator, or a network that measures (a configuration with ``[lipnet]``).

    Args:
        config_file: TOML, see ``configs/``.
        cache: a prepared cache with training and, for validation, other speakers.
        folder: of the run; made if missing.
        overrides: ``section.key=value`` over the file's values.
        minutes: wall-clock limit of this call.
        resume: go on from the folder's newest checkpoint.
        start_from: a released model's name or a weights file, of which the generator takes
            over what fits.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        info: what weights files of this run shall say besides configuration and scores.
        report: gets lines about what was chosen and why.
        progress: gets step, steps and the latest metrics.

    Returns:
        Why the run stopped.

    Raises:
        ConfigError: a wrong configuration, or a folder that holds another run.
        DataError: the cache has no usable training clips.
        TrainingError: the run broke off.
        MissingDependencyError: the ``train`` extra is not installed.
    """
    table = merge(read_toml(config_file), parse_overrides(overrides))
    if lesson_kind(table):
        if start_from is not None:
            raise ConfigError("--from is for generators; a measuring network starts afresh")
        return train_lesson(
            table,
            cache,
            folder,
            name=str(config_file),
            minutes=minutes,
            resume=resume,
            device=device,
            info=info,
            report=report,
            progress=progress,
        )
    trainer, fabric, *_ = assemble(
        config_file,
        cache,
        folder,
        overrides=overrides,
        resume=resume,
        start_from=start_from,
        device=device,
        info=info,
        report=report,
    )
    config = trainer.config
    first = fabric.is_global_zero  # of several processes it is the one that writes
    table = to_table(config)
    with own_folder(folder, from_step=trainer.step, table=table) if first else nullcontext():
        reason = trainer.fit(
            minutes=minutes,
            progress=progress and (lambda step, m: progress(step, config.training.steps, m)),
        )
    leave_processes()
    return reason


class Assembly(NamedTuple):
    """A run that is ready to start; nothing of it has been written."""

    trainer: Trainer
    fabric: Fabric
    data: Examples
    validation: list[CachedClip]
    precision: Precision


def assemble(
    config_file: Path,
    cache: Path,
    folder: Path,
    *,
    overrides: tuple[str, ...] = (),
    resume: bool = False,
    start_from: str | Path | None = None,
    device: str = "auto",
    info: Mapping[str, Any] | None = None,
    report: Report = lambda _: None,
) -> Assembly:
    """Everything that a run needs, without writing anything. Arguments as :func:`train`'s.

    Raises:
        ConfigError: a wrong configuration, or a folder that holds another run.
        CheckpointError: there is nothing to resume, or it does not fit.
        DataError: the cache has no usable training clips.
        MissingDependencyError: the ``train`` extra is not installed.
    """
    table = merge(read_toml(config_file), parse_overrides(overrides))
    if lesson_kind(table):
        raise ConfigError(f"{config_file}: describes a network that measures; only train it")
    config = run_config(table, name=str(config_file))
    if not resume and latest_checkpoint(folder):
        raise ConfigError(
            f"{folder}: holds a run already; add --resume to go on with it, or name a new folder"
        )
    clips = load_manifest(cache)
    training = [clip for clip in clips if clip.split == "train"]
    validation = [clip for clip in clips if clip.split == "validation"]
    if not training:
        raise DataError(f"{cache}: holds no clip of a training speaker; prepare some")

    if resume and start_from is not None:
        raise ConfigError("a resumed run has its own weights; leave out --from or --resume")

    chosen = choose_device(device)
    precision = choose_precision(config.training.precision, chosen)
    report(f"device {chosen}, precision {precision.name}: {precision.reason}")
    fabric = launch_fabric(chosen, precision)

    data: Examples
    parts = (training, config.data, config.augment, config.generator)
    if config.data.resident:
        data = ResidentData(*parts, seed=config.training.seed, device=fabric.device)
    else:
        data = TrainingData(*parts, seed=config.training.seed)
    report(
        f"{len(data)} training clips of {len(data.speakers)} speakers, "
        f"{len(validation)} validation clips of {len({c.speaker for c in validation})}"
    )
    trainer = Trainer(
        config,
        fabric,
        data,
        validation,
        folder,
        precision=precision,
        info={
            "stillspeak": __version__,
            "torch": str(torch.__version__),
            "device": str(chosen),
            "processes": fabric.world_size,
            "precision_reason": precision.reason,
            **(info or {}),
        },
    )
    if resume:
        report(f"resumed at step {trainer.resume()}")
    elif start_from is not None:
        path, _ = resolve_model(start_from)
        taken, own = trainer.start_from(path)
        report(f"{path.name}: {taken} of the generator's {own} tensors taken over")
    return Assembly(trainer, fabric, data, validation, precision)
