"""The watch stops what has gone wrong, in time and not before."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillspeak.errors import ConfigError, TrainingError
from stillspeak.training.checkpoint import latest_checkpoint, load_checkpoint
from stillspeak.training.config import RunConfig, WatchConfig
from stillspeak.training.divergence import DivergenceMonitor
from stillspeak.training.loop import TrainingLoop

STEPS = 4


def watch(**limits: float) -> DivergenceMonitor:
    values = {"accuracy": 0.9, "gradient": 100.0, "variance": 0.5, **limits}
    return DivergenceMonitor(WatchConfig(steps=STEPS, **values))


CASES = [
    ("sync_accuracy", 0.95, 0.85, "the sync discriminator is right 95.0% of the time"),
    ("gradient_norm", 150.0, 50.0, "gradient_norm is 150"),
    ("frame_gradient_norm", 150.0, 50.0, "frame_gradient_norm is 150"),
    ("variance", 0.25, 0.75, "generated frames vary 0.250 times as much as real ones"),
]


@pytest.mark.parametrize(("name", "bad", "good", "says"), CASES)
def test_a_limit_is_judged_after_enough_steps(
    name: str, bad: float, good: float, says: str
) -> None:
    watching = watch()
    for _ in range(STEPS - 1):
        assert watching.trouble({name: bad}) is None
    told = watching.trouble({name: bad})
    assert told is not None
    assert told.startswith(says)
    assert told.endswith(f"on average over {STEPS} steps")
    assert "\n" not in told
    healthy = watch()
    assert all(healthy.trouble({name: good}) is None for _ in range(3 * STEPS))


@pytest.mark.parametrize(("name", "bad", "good", "says"), CASES)
def test_averages_are_judged_and_old_values_leave_them(
    name: str, bad: float, good: float, says: str
) -> None:
    """Bad and good average to the limit itself, which is no trouble; one more bad one is."""
    watching = watch()
    values = [bad, bad, good, good, bad, good]
    assert [watching.trouble({name: v}) for v in values] == [None] * len(values)
    # Of the last four, three are bad now.
    assert watching.trouble({name: bad}) is None  # good, bad, good, bad
    assert watching.trouble({name: bad}) is not None  # bad, good, bad, bad


@pytest.mark.parametrize(("name", "bad", "good", "says"), CASES)
def test_zero_switches_a_limit_off(name: str, bad: float, good: float, says: str) -> None:
    limit = next(k for k in ("accuracy", "gradient", "variance") if k in name)
    watching = watch(**{limit: 0.0})
    assert all(watching.trouble({name: bad}) is None for _ in range(3 * STEPS))


@pytest.mark.parametrize(("name", "bad", "good", "says"), CASES)
def test_what_is_no_number_is_left_out(name: str, bad: float, good: float, says: str) -> None:
    watching = watch()
    for odd in (math.nan, math.inf, -math.inf) * STEPS:
        assert watching.trouble({name: odd}) is None
    for _ in range(STEPS - 1):
        assert watching.trouble({name: bad}) is None
        assert watching.trouble({name: math.inf}) is None
    assert watching.trouble({name: bad}) is not None


def test_one_bad_discriminator_among_good_ones_is_named() -> None:
    watching = watch()
    values = {"frame_accuracy": 0.6, "sequence_accuracy": 0.99, "sync_accuracy": 0.5}
    told = [watching.trouble(values) for _ in range(STEPS)][-1]
    assert told is not None
    assert "the sequence discriminator is right 99.0%" in told
    assert "adversarial.sequence_learning_rate" in told
    assert "watch.accuracy 0.9" in told


def test_other_numbers_are_nobodys_business() -> None:
    watching = watch()
    values = {"loss": 1e9, "l1": -5.0, "frame_loss": 0.0, "frame": 1e9, "frame_r1": 1e9}
    assert all(watching.trouble(values) is None for _ in range(3 * STEPS))


def test_names_that_come_later_are_counted_from_their_start() -> None:
    watching = watch()
    for _ in range(3 * STEPS):
        assert watching.trouble({"variance": 1.0}) is None
    for _ in range(STEPS - 1):
        assert watching.trouble({"variance": 1.0, "frame_accuracy": 1.0}) is None
    assert watching.trouble({"variance": 1.0, "frame_accuracy": 1.0}) is not None
    # Nor is what is past held against a step that says nothing of it.
    assert watching.trouble({"variance": 1.0}) is None


@pytest.mark.parametrize(
    "limits", [{"steps": 0}, {"accuracy": -0.1}, {"gradient": math.nan}, {"variance": math.inf}]
)
def test_limits_that_make_no_sense(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"watch.{next(iter(limits))}"):
        WatchConfig(**limits)


# ------------------------------------------------------------------------------ in a whole run


def test_a_run_whose_discriminator_wins_is_stopped(
    game: Callable[..., RunConfig], make: Callable[..., TrainingLoop], tmp_path: Path
) -> None:
    """The generator stands still, and its frames are easily told from real ones."""
    config = game(
        adversarial={"sequence": 0.0, "sync": 0.0, "frame_learning_rate": 1e-2},
        watch={"steps": 3, "accuracy": 0.85},
        training={"steps": 60, "learning_rate": 1e-9, "checkpoint_minutes": 1e-9},
    )
    trainer = make(config)
    with pytest.raises(TrainingError) as caught:
        trainer.fit()
    message = str(caught.value)
    assert message.startswith(
        f"stopped at step {trainer.task.step}: the frame discriminator is right "
    )
    assert "adversarial.frame_learning_rate" in message
    assert "on average over 3 steps" in message
    assert str(tmp_path / "run") in message
    assert "\n" not in message
    assert 3 <= trainer.task.step < 60
    # The state before the last step is whole, and the run can go on from it.
    last = latest_checkpoint(tmp_path / "run")
    assert last is not None
    assert load_checkpoint(last)["step"] == trainer.task.step - 1
    again = make(config)
    assert again.resume() == trainer.task.step - 1
    assert math.isfinite(again.task.train_step([again.task.data.batch(again.task.step)])["loss"])


def test_the_same_run_without_a_limit_goes_on(
    game: Callable[..., RunConfig], make: Callable[..., TrainingLoop]
) -> None:
    config = game(
        adversarial={"sequence": 0.0, "sync": 0.0, "frame_learning_rate": 1e-2},
        watch={"steps": 1, "accuracy": 0.0, "variance": 0.0, "gradient": 0.0},
        training={"steps": 5, "learning_rate": 1e-9},
    )
    assert make(config).fit() == "all 5 steps are done"
