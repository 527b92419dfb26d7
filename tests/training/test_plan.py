"""A dry run: its numbers against a real run's, and that it leaves nothing."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from stillspeak.errors import CheckpointError, ConfigError
from stillspeak.models.generator import Generator
from stillspeak.system.configuration import merge, parse_overrides, read_toml
from stillspeak.training.checkpoint import latest_checkpoint
from stillspeak.training.config import run_config
from stillspeak.training.dry_run import (
    ADVERSARIAL,
    ALONE,
    AUDIO,
    MemoryPlan,
    Plan,
    _kinds,
    _validations_left,
    dry_run,
    phase_steps,
)
from stillspeak.training.run import RunOptions, assemble, train

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.toml"
PLAIN = (
    *("adversarial.frame=0.0", "adversarial.sequence=0.0", "adversarial.sync=0.0"),
    *("adversarial.feature_matching=0.0", "training.precision='32-true'"),
)
ADVERSARIES = (
    *("adversarial.sync=0.0", "adversarial.start=4", "adversarial.r1=0.5"),
    *("adversarial.r1_every=4", "training.precision='32-true'"),
)


def config(*overrides: str):  # type: ignore[no-untyped-def]
    return run_config(merge(read_toml(SMOKE), parse_overrides(overrides)), name="smoke")


@pytest.fixture(scope="module")
def game(speaking_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """A dry run with discriminators, and the folder that it was given."""
    folder = tmp_path_factory.mktemp("plan") / "run"
    return dry_run(
        RunOptions(SMOKE, speaking_cache, folder, overrides=ADVERSARIES, device="cpu")
    ), folder


def test_nothing_is_written(game: tuple[Plan, Path]) -> None:
    assert not game[1].exists()
    assert list(game[1].parent.iterdir()) == []


def test_parameters_are_those_of_the_networks(
    game: tuple[Plan, Path], speaking_cache: Path
) -> None:
    plan, folder = game
    run = assemble(RunOptions(SMOKE, speaking_cache, folder, overrides=ADVERSARIES, device="cpu"))
    generator = Generator(run.task.config.generator)
    assert sum(plan.generator.values()) == sum(p.numel() for p in generator.parameters())
    # One layer, 10 wide: three matrices of both kinds with their biases.
    assert plan.generator["noise generator"] == 2 * 3 * 10 * 10 + 2 * 3 * 10
    assert plan.training_only == 16 * 7 + 7
    for player in run.task.discriminators:
        own = sum(p.numel() for p in player.module.parameters())
        assert plan.discriminators[player.name] == own
    assert list(plan.discriminators) == ["frame", "sequence"]


def test_phases_steps_and_epochs(game: tuple[Plan, Path]) -> None:
    plan, _ = game
    names = [(p.name, p.first_step, p.steps_left) for p in plan.phases]
    assert names == [(AUDIO, 0, 2), (ALONE, 2, 2), (ADVERSARIAL, 4, 4)]
    assert (plan.steps, plan.step, plan.steps_left) == (8, 0, 8)
    assert (plan.clips, plan.speakers, plan.validation_clips) == (3, 2, 1)
    assert plan.steps_per_epoch == math.ceil(3 / 2)
    assert plan.validations_left == 2  # after steps 4 and 8
    audio, alone, with_discriminators = plan.phases
    assert 0 < audio.gflop_step < alone.gflop_step < with_discriminators.gflop_step
    assert audio.activation_bytes < alone.activation_bytes
    # 2 clips of 8 windows of 2560 samples and 7 mouth distances.
    assert audio.batch_bytes == 4 * 2 * 8 * (2560 + 7)
    # 12 windows, a still and 5 frames, 5 positions.
    pictures = 6 * 4 * 3 * 128 * 96
    assert alone.batch_bytes == 2 * (4 * 12 * (2560 + 7) + pictures + 5 * 8)
    spent = sum(p.steps_left * max(p.step_seconds, p.batch_seconds) for p in plan.phases)
    assert plan.seconds_left == pytest.approx(spent + 2 * plan.validation_seconds)
    assert plan.table()["seconds_left"] == plan.seconds_left


def test_memory_and_disk_are_what_a_real_run_takes(
    game: tuple[Plan, Path], speaking_cache: Path, tmp_path: Path
) -> None:
    plan, _ = game
    train(RunOptions(SMOKE, speaking_cache, tmp_path, overrides=ADVERSARIES, device="cpu"))
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    # The file adds names and places: JSON, some hundred bytes a tensor.
    assert 0 < checkpoint.stat().st_size - plan.disk.checkpoint < 300_000
    assert 0 < (tmp_path / "last.safetensors").stat().st_size - plan.disk.weights < 30_000
    assert plan.disk.checkpoints == 3
    assert plan.disk.total == 3 * plan.disk.checkpoint + 2 * plan.disk.weights
    trained = 4 * (sum(plan.generator.values()) + plan.training_only)
    trained += 4 * sum(plan.discriminators.values())
    memory = plan.memory
    assert memory.gradients == trained
    assert trained < memory.parameters < 1.3 * trained  # running statistics, regions
    assert 2 * trained <= memory.optimizers < 2.01 * trained  # and a count of steps
    assert memory.activations == max(p.activation_bytes for p in plan.phases)


def test_a_resumed_run_has_its_own_steps_left_and_stays_as_it_was(
    speaking_cache: Path, tmp_path: Path
) -> None:
    train(
        RunOptions(
            SMOKE, speaking_cache, tmp_path, overrides=(*PLAIN, "training.steps=3"), device="cpu"
        )
    )
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError, match="--resume"):
        dry_run(RunOptions(SMOKE, speaking_cache, tmp_path, overrides=PLAIN, device="cpu"))
    plan = dry_run(
        RunOptions(SMOKE, speaking_cache, tmp_path, overrides=PLAIN, resume=True, device="cpu")
    )
    assert [(p.name, p.first_step, p.steps_left) for p in plan.phases] == [(ALONE, 3, 5)]
    assert (plan.step, plan.steps_left, plan.discriminators) == (3, 5, {})
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_run_that_is_over_and_one_that_never_began(speaking_cache: Path, tmp_path: Path) -> None:
    train(
        RunOptions(
            SMOKE, speaking_cache, tmp_path, overrides=(*PLAIN, "training.steps=2"), device="cpu"
        )
    )
    steps = (*PLAIN, "training.steps=2")
    plan = dry_run(
        RunOptions(SMOKE, speaking_cache, tmp_path, overrides=steps, resume=True, device="cpu")
    )
    assert (plan.phases, plan.validations_left, plan.seconds_left) == ((), 0, 0.0)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        dry_run(RunOptions(SMOKE, speaking_cache, tmp_path / "new", resume=True, device="cpu"))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        (0, {AUDIO: range(2), ALONE: range(2, 4), ADVERSARIAL: range(4, 8)}),
        (3, {ALONE: range(3, 4), ADVERSARIAL: range(4, 8)}),
        (6, {ADVERSARIAL: range(6, 8)}),
        (8, {}),
    ],
)
def test_phases_from_a_step_on(step: int, expected: dict[str, range]) -> None:
    assert dict(phase_steps(config(*ADVERSARIES), step)) == expected
    late = config(*ADVERSARIES, "adversarial.start=100")
    assert ADVERSARIAL not in dict(phase_steps(late, step))


def test_steps_with_the_penalty_count_by_their_share() -> None:
    run = config(*ADVERSARIES)  # the game starts at 4, the penalty is on 4, 8, ...
    assert _kinds(run, ADVERSARIAL, 4) == [(4, 0.25), (5, 0.75)]
    assert _kinds(run, ADVERSARIAL, 6) == [(8, 0.25), (9, 0.75)]
    assert _kinds(run, ALONE, 2) == [(2, 1.0)]
    assert _kinds(config(*ADVERSARIES, "adversarial.r1=0.0"), ADVERSARIAL, 5) == [(5, 1.0)]


@pytest.mark.parametrize(("step", "every", "left"), [(0, 4, 2), (4, 4, 1), (0, 1, 6), (8, 4, 0)])
def test_validations_left_skip_the_audio_warm_start(step: int, every: int, left: int) -> None:
    assert _validations_left(config(*PLAIN), step, every) == left


def test_bytes_add_up() -> None:
    assert MemoryPlan(1, 2, 4, 8, 16, 32, cuda_peak=1000).total == 63


def test_progress_is_reported(speaking_cache: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    report: Callable[[str], None] = lines.append
    overrides = (*PLAIN, "training.steps=2")
    dry_run(
        RunOptions(SMOKE, speaking_cache, tmp_path, overrides=overrides, device="cpu"),
        report=report,
    )
    assert lines[-1] == f"measuring a few steps: {AUDIO}"
