"""The loop around measuring networks: it learns, stops cleanly, and resumes as if straight."""

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from stillspeak.errors import CheckpointError, ConfigError, TrainingError
from stillspeak.training.auxiliary.task import AuxiliaryTraining, AuxiliaryTrainingConfig
from stillspeak.training.checkpoint import latest_checkpoint, load_checkpoint
from stillspeak.training.loop import TrainingLoop


class Line:
    """An objective: y = 2x, with dropout so that randomness within the network counts."""

    name = "line"
    score = "error"
    higher_is_better = False

    def __init__(self, poison_at: int | None = None, hidden: int = 1) -> None:
        torch.manual_seed(0)
        self.network: nn.Module = nn.Sequential(
            nn.Linear(1, hidden, bias=False), nn.Dropout(0.1), nn.Linear(hidden, 1, bias=False)
        )
        self.exports: list[tuple[str, dict[str, Any]]] = []
        self.poison_at = poison_at

    def batch(self, step: int) -> tuple[Tensor, ...]:
        return (torch.randn(16, 1, generator=torch.Generator().manual_seed(step)),)

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], step: int
    ) -> Mapping[str, Tensor]:
        (x,) = batch
        loss = (network(x) - 2 * x).square().mean()
        return {"loss": loss * float("nan") if step == self.poison_at else loss}

    def validate(self, network: nn.Module) -> Mapping[str, float]:
        assert not network.training
        return {"error": abs(float(network(torch.ones(1, 1))) - 2)}

    def export(self, network: nn.Module, path: Path, info: Mapping[str, Any]) -> None:
        assert not network.training
        path.write_text(json.dumps(dict(info)))


CONFIG = AuxiliaryTrainingConfig(
    steps=60,
    learning_rate=0.05,
    warmup_steps=2,
    log_every=5,
    validate_every=20,
    ema=0.8,
    keep_checkpoints=1,
)


def trainer(
    folder: Path, objective: Line | None = None, config: AuxiliaryTrainingConfig = CONFIG
) -> Any:
    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    table = {"line": {"hidden": 1}, "training": {"steps": config.steps}}
    task = AuxiliaryTraining(objective or Line(), config, fabric, table)
    return TrainingLoop(task, fabric, folder, {"command": "by a test"})


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def test_it_learns_and_keeps_the_best(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    assert run.fit() == "all 60 steps are done"
    errors = [row["error"] for row in rows(tmp_path, "validation")]
    assert len(errors) == 3 and min(errors) < 0.3
    best = json.loads((tmp_path / "best.safetensors").read_text())
    assert best["validation"]["error"] == run.best == min(errors)
    last = json.loads((tmp_path / "last.safetensors").read_text())
    assert last["steps"] == 60
    assert last["history"] == [{"from_step": 0, "command": "by a test"}]
    assert len(list(tmp_path.glob("checkpoint-*"))) == 1


def test_a_resumed_run_is_a_straight_one(tmp_path: Path) -> None:
    straight = trainer(tmp_path / "straight")
    straight.fit()
    stopped = trainer(tmp_path / "resumed")

    def stop(step: int, _: Mapping[str, float]) -> None:
        if step == 25:
            os.kill(os.getpid(), signal.SIGTERM)

    assert stopped.fit(progress=stop) == "SIGTERM was received"
    assert stopped.task.step == 25
    again = trainer(tmp_path / "resumed")
    assert again.resume() == 25
    again.fit()
    timing = ("seconds", "steps_per_second")

    def losses(folder: Path) -> list[dict[str, Any]]:
        return [{k: v for k, v in r.items() if k not in timing} for r in rows(folder, "train")]

    assert losses(tmp_path / "straight") == losses(tmp_path / "resumed")
    states = [
        load_checkpoint(latest_checkpoint(tmp_path / n))  # type: ignore[arg-type]
        for n in ("straight", "resumed")
    ]
    for part in ("network", "average"):
        for name, value in states[0][part].items():
            assert torch.equal(value, states[1][part][name])
    assert [chapter["from_step"] for chapter in states[1]["history"]] == [0, 25]


def test_time_ends_a_run(tmp_path: Path) -> None:
    assert trainer(tmp_path).fit(minutes=0.0) == "0 minutes are over"
    assert latest_checkpoint(tmp_path) is not None


def test_nonsense_stops_the_run_and_moves_nothing(tmp_path: Path) -> None:
    run = trainer(tmp_path, Line(poison_at=3))
    with pytest.raises(TrainingError, match="loss is nan at step 4"):
        run.fit()
    assert run.task.step == 3


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).fit(minutes=0.0)
    with pytest.raises(CheckpointError, match="another network"):
        trainer(tmp_path, Line(hidden=2)).resume()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        trainer(tmp_path / "none").resume()


def test_the_rate_rises_and_falls() -> None:
    config = AuxiliaryTrainingConfig(steps=100, learning_rate=1.0, warmup_steps=10, decay_from=0.5)
    assert config.rate(0) == pytest.approx(0.1)
    assert config.rate(9) == config.rate(50) == pytest.approx(1.0)
    assert config.rate(75) == pytest.approx(0.01 + 0.99 * 0.5)
    assert config.rate(100) == pytest.approx(0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"steps": 0},
        {"learning_rate": 0.0},
        {"betas": (1.0, 0.9)},
        {"ema": 1.0},
        {"decay_from": 2.0},
        {"clip_norm": -1.0},
        {"checkpoint_minutes": 0.0},
    ],
)
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"training\."):
        AuxiliaryTrainingConfig(**changes)
