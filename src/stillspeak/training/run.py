"""Start or resume a training run from a configuration, a prepared cache and a folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stillspeak import __version__
from stillspeak.configuration import merge, parse_overrides, read_toml, to_table
from stillspeak.data.dataset import TrainingData
from stillspeak.data.prepare import load_manifest
from stillspeak.errors import ConfigError, DataError, MissingDependencyError
from stillspeak.runtime import Precision, choose_device, choose_precision
from stillspeak.training.checkpoint import latest_checkpoint
from stillspeak.training.config import run_config
from stillspeak.training.trainer import Trainer

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
    device: str = "auto",
    info: Mapping[str, Any] | None = None,
    report: Report = lambda _: None,
    progress: Callable[[int, int, Mapping[str, float]], None] | None = None,
) -> str:
    """Train a generator.

    Args:
        config_file: TOML, see ``configs/``.
        cache: a prepared cache with training and, for validation, other speakers.
        folder: of the run; made if missing.
        overrides: ``section.key=value`` over the file's values.
        minutes: wall-clock limit of this call.
        resume: go on from the folder's newest checkpoint.
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

    chosen = choose_device(device)
    precision = choose_precision(config.training.precision, chosen)
    report(f"device {chosen}, precision {precision.name}: {precision.reason}")
    fabric = launch_fabric(chosen, precision)

    data = TrainingData(
        training, config.data, config.augment, config.generator, seed=config.training.seed
    )
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
            **(info or {}),
        },
    )
    if resume:
        report(f"resumed at step {trainer.resume()}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(to_table(config), indent=1) + "\n", "utf-8")
    return trainer.fit(
        minutes=minutes,
        progress=progress and (lambda step, m: progress(step, config.training.steps, m)),
    )


def launch_fabric(device: torch.device, precision: Precision) -> Fabric:
    """Fabric on one device, with a batch's numbers left in float32.

    Fabric's mixed precision rounds every float that enters a module to 16 bits: landmarks in
    pixels would lose a quarter of a pixel. Autocast alone chooses which operations may round.

    Raises:
        MissingDependencyError: the ``train`` extra is not installed.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision
    except ImportError as error:
        raise MissingDependencyError(
            "training needs the 'train' extra: pip install 'stillspeak[train]'"
        ) from error

    class Autocast(MixedPrecision):
        def convert_input(self, data: Any) -> Any:
            return data

    if precision.name == "32-true":
        fabric = Fabric(accelerator=device.type, devices=1, precision="32-true")
    else:
        scaler = torch.amp.GradScaler(device.type) if precision.name == "16-mixed" else None
        plugin = Autocast(precision.name, device.type, scaler)
        fabric = Fabric(accelerator=device.type, devices=1, plugins=[plugin])
    fabric.launch()
    return fabric
