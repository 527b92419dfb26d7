"""A checkpoint gives back exactly what was put in, or says why not."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stillspeak.errors import CheckpointError
from stillspeak.training.checkpoint import (
    FORMAT,
    checkpoint_path,
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)


def equal(first: Any, second: Any) -> bool:
    """Whether two nested states are the same, types and keys included."""
    if isinstance(first, torch.Tensor):
        return (
            isinstance(second, torch.Tensor)
            and first.dtype == second.dtype
            and first.shape == second.shape
            and torch.equal(first, second)
        )
    if isinstance(first, dict):
        return list(first) == list(second) and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, list | tuple):
        return len(first) == len(second) and all(map(equal, first, second))
    return type(first) is type(second) and first == second


def state() -> dict[str, Any]:
    shared = torch.arange(6.0).view(2, 3)
    return {
        "step": 7,
        "rate": 1e-3,
        "nothing": None,
        "flag": True,
        "name": "a|b",
        "random": torch.get_rng_state(),
        "module": {"a.weight": shared, "same": shared, "turned": shared.t(), "empty": {}},
        "optimizer": {
            "state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.randn(2, 3)}, 10: {}},
            "param_groups": [{"params": [0, 1], "betas": [0.8, 0.98], "lr": 0.1}],
        },
        "kinds": [torch.tensor([1], dtype=torch.int64), torch.zeros(0), torch.ones(2).half()],
    }


def test_nested_state_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-1.safetensors"
    expected = state()
    save_checkpoint(path, expected)
    loaded = load_checkpoint(path)
    assert equal(loaded, expected)
    assert list(loaded["optimizer"]["state"]) == [0, 10]  # numbers, not strings
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    expected["module"]["a.weight"][0, 0] = 99
    assert not equal(loaded, expected)


def test_an_optimizer_s_state_comes_back(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([{"params": [parameter], "name": "frames"}], betas=(0.8, 0.98))
    parameter.square().sum().backward()
    optimizer.step()
    save_checkpoint(tmp_path / "c", {"optimizer": optimizer.state_dict()})
    other = torch.optim.AdamW([{"params": [torch.nn.Parameter(torch.ones(3))], "name": "x"}])
    other.load_state_dict(load_checkpoint(tmp_path / "c")["optimizer"])
    assert equal(other.state_dict()["state"], optimizer.state_dict()["state"])
    assert other.param_groups[0]["name"] == "frames"
    assert list(other.param_groups[0]["betas"]) == [0.8, 0.98]


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "checkpoint-000000001.safetensors"
    save_checkpoint(path, state())
    return path


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


def test_a_damaged_file(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[:-100])
    assert "damaged" in refusal(saved)
    saved.write_text("hello")
    assert "damaged" in refusal(saved)


def test_a_damaged_header(saved: Path) -> None:
    for metadata in ({"format": FORMAT}, {"format": FORMAT, "state": "{"}):
        save_file({"x": torch.zeros(1)}, saved, metadata)
        assert "damaged" in refusal(saved)
    lost = {"format": FORMAT, "state": json.dumps({"__pairs__": [["a", {"__tensor__": "y"}]]})}
    save_file({"x": torch.zeros(1)}, saved, lost)
    assert "damaged" in refusal(saved)


def test_a_foreign_file(saved: Path) -> None:
    save_file({"x": torch.zeros(1)}, saved)
    assert "not a stillspeak checkpoint" in refusal(saved)
    save_file({"x": torch.zeros(1)}, saved, {"format": "stillspeak-generator-1"})
    assert "not a stillspeak checkpoint" in refusal(saved)


def test_a_missing_file(tmp_path: Path) -> None:
    assert "no such checkpoint" in refusal(tmp_path / "gone")


def test_a_save_that_fails_keeps_the_old_checkpoint(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(CheckpointError, match="No space left"):
            save_checkpoint(saved, {"step": 8})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]


def test_the_newest_and_the_oldest(tmp_path: Path) -> None:
    assert latest_checkpoint(tmp_path) is None
    for step in (5, 100, 20, 1_000_000):
        save_checkpoint(checkpoint_path(tmp_path, step), {"step": step})
    (tmp_path / "best.safetensors").touch()
    assert latest_checkpoint(tmp_path) == checkpoint_path(tmp_path, 1_000_000)
    prune_checkpoints(tmp_path, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "best.safetensors",
        "checkpoint-000000100.safetensors",
        "checkpoint-001000000.safetensors",
    ]
    prune_checkpoints(tmp_path, 5)
    assert len(list(tmp_path.iterdir())) == 3
