"""The whole state of a training run in one file: safetensors with JSON inside, no pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from stillspeak.errors import CheckpointError, ConfigError
from stillspeak.system.atomic import claim, whole_file
from stillspeak.system.configuration import read_json

FORMAT = "stillspeak-checkpoint-1"
_SEPARATOR = "|"

State = dict[str, Any]
"""Nested dictionaries of tensors and JSON values, as ``state_dict`` gives them."""


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a run's state: nested mappings (keys without ``|``), lists, tensors and JSON values.

    Raises:
        CheckpointError: the disk refuses.
    """
    tensors: dict[str, Tensor] = {}
    skeleton = _take_tensors(state, "", tensors)
    try:
        # save_file would write to a temporary file of its own, which a kill leaves behind.
        data = save(tensors, {"format": FORMAT, "state": json.dumps(skeleton)})
        with whole_file(path) as partial:
            partial.write_bytes(data)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be written ({error}); free some space") from error


def load_checkpoint(path: Path, *, device: str = "cpu") -> State:
    """Read what :func:`save_checkpoint` wrote.

    Raises:
        CheckpointError: missing, damaged, or not a checkpoint.
    """
    try:
        with safe_open(path, framework="pt", device=device) as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise CheckpointError(f"{path}: not a stillspeak checkpoint")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: there is no such checkpoint") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: damaged ({error}); use an older checkpoint") from error
    try:
        state = _put_tensors(read_json(metadata["state"]), tensors)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{path}: damaged ({error!r}); use an older checkpoint") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: damaged (holds no state); use an older checkpoint")
    return state


def latest_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint of a run, by its step."""
    return max(folder.glob("checkpoint-*.safetensors"), default=None)


@contextmanager
def own_folder(folder: Path, *, from_step: int, table: Mapping[str, Any]) -> Iterator[None]:
    """Have a run's folder, made if missing, for this process alone, and write the configuration
    to ``config.json``. ``from_step`` is the step of the checkpoint that the run goes on from.

    Raises:
        ConfigError: another process trains there, or did since the checkpoint was read.
    """
    folder.mkdir(parents=True, exist_ok=True)
    busy = ConfigError(f"{folder}: another stillspeak train is running there; name a new folder")
    with claim(folder, busy):
        newest = latest_checkpoint(folder)
        if newest is not None and newest != checkpoint_path(folder, from_step):
            raise ConfigError(f"{folder}: another run ended there just now; use --resume")
        with whole_file(folder / "config.json") as partial:
            partial.write_text(json.dumps(table, indent=1) + "\n", "utf-8")
        yield


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint of a step lies."""
    return folder / f"checkpoint-{step:09d}.safetensors"


def prune_checkpoints(folder: Path, keep: int) -> None:
    """Delete all but the newest ``keep`` checkpoints."""
    for old in sorted(folder.glob("checkpoint-*.safetensors"))[:-keep]:
        old.unlink(missing_ok=True)


def _take_tensors(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors[name] = value.detach().contiguous().cpu().clone()
        return {"__tensor__": name}
    if isinstance(value, Mapping):
        # JSON keys are strings; an optimiser's are numbers, so the pairs are kept as a list.
        return {
            "__pairs__": [
                [key, _take_tensors(item, f"{name}{_SEPARATOR}{key}", tensors)]
                for key, item in value.items()
            ]
        }
    if isinstance(value, list | tuple):
        return [
            _take_tensors(item, f"{name}{_SEPARATOR}{index}", tensors)
            for index, item in enumerate(value)
        ]
    return value


def _put_tensors(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "__tensor__" in value:
            return tensors[value["__tensor__"]]
        return {key: _put_tensors(item, tensors) for key, item in value["__pairs__"]}
    if isinstance(value, list):
        return [_put_tensors(item, tensors) for item in value]
    return value
