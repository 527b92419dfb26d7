"""The training loop: it learns, it stops cleanly, and a resumed run is a straight one."""

import json
import math
import os
import signal
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from torch import nn

import stillspeak.training.trainer as trainer_module
from stillspeak.data.cache import CachedClip
from stillspeak.data.config import AugmentConfig
from stillspeak.data.dataset import Batch, TrainingData
from stillspeak.errors import CheckpointError, TrainingError
from stillspeak.system.configuration import merge, read_toml, to_table
from stillspeak.system.runtime import Precision
from stillspeak.training.checkpoint import checkpoint_path, latest_checkpoint, load_checkpoint
from stillspeak.training.config import RunConfig, TrainingConfig, run_config
from stillspeak.training.distributed import launch_fabric
from stillspeak.training.loop import TrainingLoop
from stillspeak.training.optimization import EMA, OptimizerState, learning_rate
from stillspeak.training.trainer import GeneratorTraining
from stillspeak.training.validation import Validation
from stillspeak.weights import load_model, read_info

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.toml"
Progress = Callable[[int, Mapping[str, float]], None]


def smoke(**tables: Any) -> RunConfig:
    """The smoke configuration with a difference."""
    return run_config(merge(read_toml(SMOKE), tables), name="smoke")


def at_step(step: int, act: Callable[[], object]) -> Progress:
    """A progress callback that does something at one step."""

    def progress(now: int, _metrics: Mapping[str, float]) -> None:
        if now == step:
            act()

    return progress


def send(number: int) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def metrics(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == kind]


def differences(first: Any, second: Any, at: str = "") -> list[str]:
    """Where two nested states differ in a single bit."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return [d for k in first for d in differences(first[k], second[k], f"{at}/{k}")]
    if isinstance(first, list):
        assert len(first) == len(second)
        pairs = zip(first, second, strict=True)
        return [d for i, (a, b) in enumerate(pairs) for d in differences(a, b, f"{at}/{i}")]
    if isinstance(first, torch.Tensor):
        return [] if torch.equal(first, second) else [at]
    return [] if first == second else [at]


def final(folder: Path) -> dict[str, Any]:
    """All that a run ends with, but for its duration and the tale of how it came about."""
    path = latest_checkpoint(folder)
    assert path is not None
    state = load_checkpoint(path)
    assert state.pop("seconds") > 0
    assert state.pop("history")
    return state


# ------------------------------------------------------------------ learning


@pytest.mark.e2e
def test_the_loss_falls(make: Callable[..., TrainingLoop], tmp_path: Path) -> None:
    off = {field.name: 0.0 for field in fields(AugmentConfig)}
    config = smoke(
        augment=off,
        data={"batch": 4},
        training={"steps": 40, "audio_steps": 0, "learning_rate": 5e-3, "decay_from": 1.0},
    )
    assert make(config).fit() == "all 40 steps are done"
    losses = [line["l1"] for line in metrics(tmp_path / "run", "train")]
    assert len(losses) == 40
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])


def test_a_smoke_run_leaves_all_its_files(
    make: Callable[..., TrainingLoop], tmp_path: Path
) -> None:
    seen: list[int] = []
    trainer = make(validate=True)
    reason = trainer.fit(progress=lambda step, _: seen.append(step))
    assert reason == "all 8 steps are done"
    assert seen == list(range(1, 9))
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors",
        "checkpoint-000000008.safetensors",
        "last.safetensors",
        "metrics.jsonl",
        "samples",
        "tensorboard",
    ]
    train = metrics(folder, "train")
    assert set(train[0]) == {
        *("step", "kind", "loss", "mouth_shape", "gradient_norm", "steps_per_second", "seconds")
    }
    assert {"l1", "gradient", "mouth_shape"} <= set(train[2])
    assert [line["step"] for line in metrics(folder, "validation")] == [4, 8]
    assert sorted(path.name for path in (folder / "samples").iterdir()) == [
        *("validation-0000004.mp4", "validation-0000004.png"),
        *("validation-0000008.mp4", "validation-0000008.png"),
    ]


def test_best_weights_load_and_say_how_they_were_made(
    make: Callable[..., TrainingLoop], tmp_path: Path
) -> None:
    trainer = make(validate=True)
    trainer.fit()
    best = tmp_path / "run" / "best.safetensors"
    generator = load_model(best)
    assert generator.config == trainer.task.config.generator
    info = read_info(best)["info"]
    assert info["command"] == "a test"
    assert info["steps"] in (4, 8)
    assert info["precision"] == "32-true"
    assert info["speakers"] == {"a": 2, "b": 1}
    assert info["validation"]["mouth_psnr"] == pytest.approx(trainer.best)
    assert info["run"] == to_table(trainer.task.config)
    # What is released is the average, not the last step.
    last = load_model(tmp_path / "run" / "last.safetensors").state_dict()
    for name, mean in trainer.task.ema.module.state_dict().items():
        assert torch.equal(last[name], mean.half().float() if mean.is_floating_point() else mean)
    objective = final(tmp_path / "run")["objective"]
    name = "decoder.head.weight"
    assert not torch.equal(last[name], objective[f"generator.{name}"].half().float())


def test_a_run_in_bfloat16_keeps_its_weights_in_float32(
    clips: list[CachedClip], tmp_path: Path
) -> None:
    config = smoke(training={"steps": 4})
    precision = Precision("bf16-mixed", "a test")
    fabric = launch_fabric(torch.device("cpu"), precision)
    data = TrainingData(clips[:3], config.data, config.augment, config.generator, seed=0)
    task = GeneratorTraining(config, fabric, data, clips[3:], precision=precision)
    trainer = TrainingLoop(task, fabric, tmp_path)
    assert trainer.fit() == "all 4 steps are done"
    state = final(tmp_path)
    for part in ("objective", "average"):
        floats = [t for t in state[part].values() if t.is_floating_point()]
        assert {t.dtype for t in floats} == {torch.float32}
        assert all(torch.isfinite(t).all() for t in floats)
    assert all(math.isfinite(line["loss"]) for line in metrics(tmp_path, "train"))


# -------------------------------------------------------- stopping, resuming


def test_a_resumed_run_is_a_straight_one(make: Callable[..., TrainingLoop], tmp_path: Path) -> None:
    config = smoke()
    make(config, "straight", validate=True).fit()

    stopped = make(config, "resumed", validate=True)
    reason = stopped.fit(progress=at_step(4, send(signal.SIGTERM)))
    assert reason == "SIGTERM was received"
    half = final(tmp_path / "resumed")
    assert half["step"] == 4
    torch.manual_seed(999)  # another process has another random state
    resumed = make(config, "resumed", validate=True)
    assert resumed.resume() == 4
    assert resumed.fit() == "all 8 steps are done"

    straight, other = final(tmp_path / "straight"), final(tmp_path / "resumed")
    assert straight["step"] == 8
    assert differences(straight, other) == []
    # The comparison sees what four steps do.
    changed = differences(straight, half)
    for part in ("objective/generator.decoder.head.weight", "average/decoder.head.weight"):
        assert f"/{part}" in changed
    assert any("/optimizer/state" in name and "exp_avg_sq" in name for name in changed)
    for name in ("frame", "sequence", "sync"):
        parts = [d for d in changed if d.startswith(f"/adversaries/{name}/")]
        assert any("/network/" in d for d in parts)
        assert any("exp_avg_sq" in d for d in parts)

    for name in ("straight", "resumed"):
        folder = tmp_path / name
        assert [line["step"] for line in metrics(folder, "train")] == list(range(1, 9))
        assert [line["step"] for line in metrics(folder, "validation")] == [4, 8]
    for kind in ("train", "validation"):
        pairs = zip(
            metrics(tmp_path / "straight", kind), metrics(tmp_path / "resumed", kind), strict=True
        )
        for first, second in pairs:
            for clock in ("seconds", "steps_per_second"):
                first.pop(clock, None)
                second.pop(clock, None)
            assert first == second
    best = [load_model(tmp_path / name / "best.safetensors") for name in ("straight", "resumed")]
    assert differences(*(dict(b.state_dict()) for b in best)) == []


def test_a_resume_inside_the_warm_start(make: Callable[..., TrainingLoop], tmp_path: Path) -> None:
    config = smoke(training={"steps": 5, "audio_steps": 3})
    make(config, "straight").fit()
    make(config, "resumed").fit(progress=at_step(2, send(signal.SIGTERM)))
    assert (tmp_path / "resumed" / "last.safetensors").exists()  # what has been heard so far
    resumed = make(config, "resumed")
    resumed.resume()
    resumed.fit()
    assert differences(final(tmp_path / "straight"), final(tmp_path / "resumed")) == []


def test_another_seed_is_another_run(make: Callable[..., TrainingLoop], tmp_path: Path) -> None:
    config = smoke(training={"steps": 3})
    make(config, "first").fit()
    make(replace(config, training=replace(config.training, seed=2)), "second").fit()
    name = "generator.decoder.head.weight"
    first, second = (final(tmp_path / n)["objective"][name] for n in ("first", "second"))
    assert not torch.equal(first, second)


def test_lines_after_the_checkpoint_are_not_doubled(
    make: Callable[..., TrainingLoop], tmp_path: Path
) -> None:
    """A process that is killed has logged steps that its checkpoint does not know."""
    config = smoke(training={"checkpoint_minutes": 1e-9})
    trainer = make(config)

    def killed() -> None:
        raise KeyboardInterrupt  # as abrupt as it gets without ending the test

    with pytest.raises(KeyboardInterrupt):
        trainer.fit(progress=at_step(6, killed))
    folder = tmp_path / "run"
    assert [line["step"] for line in metrics(folder, "train")] == [1, 2, 3, 4, 5, 6]
    resumed = make(config)
    assert resumed.resume() == 5
    resumed.fit()
    assert [line["step"] for line in metrics(folder, "train")] == list(range(1, 9))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_with_a_checkpoint(
    number: signal.Signals, make: Callable[..., TrainingLoop], tmp_path: Path
) -> None:
    before = signal.getsignal(number)
    reason = make().fit(progress=at_step(3, send(number)))
    assert reason == f"{number.name} was received"
    assert latest_checkpoint(tmp_path / "run") == checkpoint_path(tmp_path / "run", 3)
    assert (tmp_path / "run" / "last.safetensors").exists()
    assert signal.getsignal(number) == before


def test_the_time_is_over(make: Callable[..., TrainingLoop], tmp_path: Path) -> None:
    assert make().fit(minutes=0) == "0 minutes are over"
    assert latest_checkpoint(tmp_path / "run") == checkpoint_path(tmp_path / "run", 1)


def test_old_checkpoints_are_dropped(make: Callable[..., TrainingLoop], tmp_path: Path) -> None:
    make(smoke(training={"checkpoint_minutes": 1e-9, "keep_checkpoints": 3})).fit()
    names = sorted(p.name for p in (tmp_path / "run").glob("checkpoint-*"))
    assert names == [f"checkpoint-00000000{step}.safetensors" for step in (6, 7, 8)]


def test_a_resume_with_another_generator_is_refused(make: Callable[..., TrainingLoop]) -> None:
    trainer = make(smoke(training={"steps": 3}))
    trainer.fit()
    other = make(smoke(generator={"context_dim": 20}))
    with pytest.raises(CheckpointError, match=r"another \[generator\]"):
        other.resume()
    longer = make(smoke(training={"steps": 5, "learning_rate": 1e-4}))
    assert longer.resume() == 3  # a longer run is the same run
    assert longer.fit() == "all 5 steps are done"


def test_nothing_to_resume(make: Callable[..., TrainingLoop], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no checkpoint; start without --resume"):
        make().resume()


def test_a_finished_run_has_nothing_left_to_do(
    make: Callable[..., TrainingLoop], tmp_path: Path
) -> None:
    config = smoke(training={"steps": 3})
    make(config).fit()
    before = final(tmp_path / "run")
    again = make(config)
    again.resume()
    assert again.fit() == "all 3 steps are done"
    assert differences(before, final(tmp_path / "run")) == []


# ----------------------------------------------------------- when it goes wrong


def test_a_loss_that_is_no_number(
    make: Callable[..., TrainingLoop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = TrainingData.batch

    def poisoned(self: TrainingData, step: int, rank: int = 0) -> Batch:
        batch = draw(self, step, rank)
        return batch._replace(windows=batch.windows * math.nan) if step == 5 else batch

    monkeypatch.setattr(TrainingData, "batch", poisoned)
    trainer = make(smoke(training={"checkpoint_minutes": 1e-9}))
    with pytest.raises(TrainingError, match=r"l1 is nan at step 6.*learning rate"):
        trainer.fit()
    state = final(tmp_path / "run")
    assert state["step"] == 5
    for part in ("objective", "average"):
        assert all(torch.isfinite(t).all() for t in state[part].values())
    assert not (tmp_path / "run" / "last.safetensors").exists()


def test_an_error_of_the_data_comes_through(
    make: Callable[..., TrainingLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: TrainingData, step: int, rank: int = 0) -> Batch:
        raise OSError("the disk is gone")

    monkeypatch.setattr(TrainingData, "batch", broken)
    with pytest.raises(OSError, match="the disk is gone"):
        make().fit()


def test_patience_ends_a_run(
    make: Callable[..., TrainingLoop], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([20.0, 25.0, 24.0, 25.0, 30.0])
    picture = torch.zeros(4, 4, 3, dtype=torch.uint8).numpy()

    def known(*_: Any, **__: Any) -> Validation:
        return Validation({"mouth_psnr": next(scores)}, [(picture, [picture], [picture])])

    monkeypatch.setattr(trainer_module, "validate", known)
    config = smoke(training={"steps": 20, "audio_steps": 0, "validate_every": 1, "patience": 2})
    trainer = make(config, validate=True)
    assert trainer.fit() == "no better mouth_psnr in 2 validations"
    assert trainer.task.step == 4  # 25 again is not better
    assert trainer.best == 25
    assert read_info(tmp_path / "run" / "best.safetensors")["info"]["steps"] == 2
    state = final(tmp_path / "run")
    assert (state["best"], state["stale"]) == (25, 2)
    resumed = make(config, validate=True)
    resumed.resume()
    assert (resumed.best, resumed.stale) == (25, 2)


# ------------------------------------------------------------------- its parts


def test_learning_rates() -> None:
    config = TrainingConfig(
        steps=1000,
        audio_steps=100,
        learning_rate=1e-3,
        audio_learning_rate=0.3,
        warmup_steps=10,
        decay_from=0.6,
    )

    def rate(step: int, group: str = "frames") -> float:
        return learning_rate(config, step, group)

    assert rate(0, "audio") == pytest.approx(1e-4)
    assert rate(4, "audio") == pytest.approx(5e-4)
    assert rate(9, "audio") == rate(99, "audio") == pytest.approx(1e-3)
    # After the warm start the frames warm up, and the audio goes on at its share.
    assert rate(100) == pytest.approx(1e-4)
    assert rate(100, "audio") == pytest.approx(0.3e-4)
    assert rate(109) == rate(600) == pytest.approx(1e-3)
    assert rate(600, "audio") == pytest.approx(3e-4)
    # Along a cosine to 1 %.
    assert rate(700) == pytest.approx(1e-3 * (0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2))
    assert rate(800) == pytest.approx(1e-3 * 0.505)
    assert rate(1000) == pytest.approx(1e-5)
    plain = TrainingConfig(
        steps=10, warmup_steps=0, decay_from=1.0, learning_rate=0.5, audio_learning_rate=1.0
    )
    assert {learning_rate(plain, step, g) for step in range(11) for g in ("audio", "frames")} == {
        0.5
    }


def test_the_average_forgets_its_start_and_then_holds_on() -> None:
    module = nn.BatchNorm1d(1)
    average = EMA(module, 0.9)
    with torch.no_grad():
        module.weight.fill_(2.0)
        module.running_mean.fill_(4.0)
    module.num_batches_tracked += 3
    average.update(module, 1)  # 2 / 11 of the old
    assert average.module.weight.item() == pytest.approx(2 - 2 / 11)
    assert average.module.running_mean.item() == pytest.approx(4 - 4 * 2 / 11)
    assert average.module.num_batches_tracked == 3
    before = average.module.weight.item()
    average.update(module, 10_000)  # nine tenths of it
    assert average.module.weight.item() == pytest.approx(0.9 * before + 0.1 * 2)
    assert not average.module.training
    assert not average.module.weight.requires_grad
    assert module.weight.item() == 2


class Line(nn.Module):
    """y = w x with w = (3, 4): the gradient of the sum is x."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([3.0, 4.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.weight * x).sum()


def player(fabric: Fabric, clip_norm: float) -> tuple[OptimizerState, Line]:
    line = Line()
    optimizer = torch.optim.SGD([{"params": line.parameters(), "name": "frames"}], lr=99.0)
    module, wrapped = fabric.setup(line, optimizer)
    return OptimizerState("line", module, wrapped, clip_norm), line


@pytest.mark.parametrize(
    ("clip_norm", "expected"),
    [(0.0, [3 - 0.1 * 6, 4 - 0.1 * 8]), (1.0, [3 - 0.1 * 0.6, 4 - 0.1 * 0.8])],
)
@pytest.mark.parametrize("scaled", [False, True])
def test_a_player_clips_the_true_gradient(
    clip_norm: float, expected: list[float], scaled: bool, fabric: Fabric
) -> None:
    if scaled:  # float16 training multiplies the loss by 65,536 on its way back
        plugin = MixedPrecision("16-mixed", device="cpu")
        fabric = Fabric(accelerator="cpu", devices=1, plugins=[plugin])
    one, line = player(fabric, clip_norm)
    one.clear()
    fabric.backward(one.module(torch.tensor([6.0, 8.0])))
    assert one.norm(fabric) == pytest.approx(10, rel=1e-3)
    one.update({"frames": 0.1})
    assert line.weight.tolist() == pytest.approx(expected, rel=1e-3)


def test_a_player_tells_of_a_gradient_that_is_no_number(fabric: Fabric) -> None:
    one, _ = player(fabric, 1.0)
    fabric.backward(torch.sqrt(one.module(torch.zeros(2))))  # 0, with an endless slope
    assert math.isnan(one.norm(fabric))


def test_an_overflow_under_loss_scaling_leaves_the_step_out() -> None:
    fabric = launch_fabric(torch.device("cpu"), Precision("16-mixed", "a test"))
    scaler = fabric.strategy.precision.scaler
    one, line = player(fabric, 1.0)
    scale = scaler.get_scale()
    fabric.backward(torch.sqrt(one.module(torch.zeros(2))))
    assert not math.isfinite(one.norm(fabric))
    one.update({"frames": 0.1})
    # The trainer renews the scale, once for all players.
    assert scaler.get_scale() == scale
    scaler.update()
    assert scaler.get_scale() < scale
    assert line.weight.tolist() == [3, 4]


def test_a_run_in_float16_scales_its_losses(clips: list[CachedClip], tmp_path: Path) -> None:
    config = smoke(training={"precision": "16-mixed"})
    precision = Precision("16-mixed", "a test")
    fabric = launch_fabric(torch.device("cpu"), precision)
    data = TrainingData(clips[:3], config.data, config.augment, config.generator, seed=0)
    task = GeneratorTraining(config, fabric, data, [], precision=precision)
    trainer = TrainingLoop(task, fabric, tmp_path)
    assert trainer.fit() == "all 8 steps are done"
    state = final(tmp_path)
    # Renewed once a step, however many players moved.
    assert state["scaler"]["_growth_tracker"] + 8 * (state["scaler"]["scale"] < 65536) >= 8
    floats = [t for t in state["objective"].values() if t.is_floating_point()]
    assert {t.dtype for t in floats} == {torch.float32}
    assert all(torch.isfinite(t).all() for t in floats)


def test_frozen_norms_keep_their_statistics_and_learn_on(
    make: Callable[..., TrainingLoop], tmp_path: Path
) -> None:
    make(smoke(training={"steps": 5}), "before").fit()
    make(smoke(training={"steps": 8, "freeze_norms_from": 5}), "after").fit()
    before, after = (final(tmp_path / name)["objective"] for name in ("before", "after"))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in changed if "running_" in name or "num_batches" in name]
    assert "generator.identity_encoder.layers.0.1.weight" in changed
    make(smoke(training={"steps": 8}), "renewed").fit()
    renewed = final(tmp_path / "renewed")["objective"]
    name = "generator.identity_encoder.layers.0.1.running_mean"
    assert not torch.equal(renewed[name], before[name])
