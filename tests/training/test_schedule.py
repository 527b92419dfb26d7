"""How learning rates fall: along a cosine, or by a tenth every epoch as in the paper."""

import math
from collections.abc import Callable

import pytest

from stillspeak.data.dataset import TrainingData
from stillspeak.training.config import RunConfig, TrainingConfig
from stillspeak.training.loop import TrainingLoop
from stillspeak.training.optimization import decay, learning_rate
from stillspeak.training.trainer import GeneratorTraining

EPOCH = 7
"""Steps in an epoch."""


def by_epochs(**changes: float) -> TrainingConfig:
    values = {"steps": 10_000, "learning_rate": 2e-4, "warmup_steps": 0, "decay": "epoch"}
    return TrainingConfig(**(values | changes))  # type: ignore[arg-type]


def test_after_the_twentieth_epoch_a_tenth_less_every_epoch() -> None:
    def rate(step: int) -> float:
        return learning_rate(by_epochs(), step, "frames", steps_per_epoch=EPOCH)

    assert {rate(step) for step in range(20 * EPOCH)} == {2e-4}
    expected = {21: 1.8e-4, 22: 1.62e-4, 23: 1.458e-4, 31: 2e-4 * 0.9**11, 120: 2e-4 * 0.9**100}
    for epoch, value in expected.items():  # counted from 1
        for step in ((epoch - 1) * EPOCH, epoch * EPOCH - 1):
            assert rate(step) == pytest.approx(value, rel=1e-9)


def test_another_epoch_and_another_rate() -> None:
    config = by_epochs(decay_epoch=2, decay_rate=0.5)
    found = [decay(config, step, 3) for step in range(15)]
    assert found == [1.0] * 6 + [0.5] * 3 + [0.25] * 3 + [0.125] * 3
    assert decay(by_epochs(decay_epoch=0, decay_rate=0.0), 10**6, 3) == 1


def test_warm_up_and_the_audio_encoders_share_go_with_it() -> None:
    config = by_epochs(
        decay_epoch=2, audio_steps=10, audio_learning_rate=0.3, warmup_steps=4, decay_rate=0.5
    )

    def rate(step: int, group: str) -> float:
        return learning_rate(config, step, group, steps_per_epoch=5) / 2e-4

    assert rate(0, "audio") == pytest.approx(0.25)
    assert rate(9, "audio") == pytest.approx(1)  # epoch 2: as yet nothing is taken away
    assert rate(10, "frames") == pytest.approx(0.25 * 0.5)
    assert rate(13, "audio") == pytest.approx(0.3 * 0.5)
    assert rate(15, "frames") == pytest.approx(0.25)


def test_the_cosine_knows_no_epochs() -> None:
    config = TrainingConfig(steps=1000, warmup_steps=0, decay_from=0.6, learning_rate=1.0)
    for epoch in (1, 7, 10_000):
        assert decay(config, 600, epoch) == 1
        assert decay(config, 800, epoch) == pytest.approx(0.505)
        assert decay(config, 1000, epoch) == pytest.approx(0.01)
        assert decay(config, 5000, epoch) == pytest.approx(0.01)
        assert learning_rate(config, 700, "frames", steps_per_epoch=epoch) == pytest.approx(
            0.01 + 0.99 * (1 + math.cos(math.pi / 4)) / 2
        )


# ------------------------------------------------------------------------------ in the trainer

RATES = {
    "frame_learning_rate": 1e-3,
    "sequence_learning_rate": 5e-5,
    "sync_learning_rate": 1e-4,
}


def rates(trainer: TrainingLoop, step: int) -> dict[str, float]:
    trainer.task.step = step
    found: dict[str, float] = {}
    for player in (trainer.task.generator, *trainer.task.discriminators):
        found |= trainer.task.rates(player)
    return found


def test_the_sequence_discriminators_rate_is_fixed_in_the_papers_schedule(
    game: Callable[..., RunConfig],
    make: Callable[..., TrainingLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training = {"decay": "epoch", "warmup_steps": 0, "learning_rate": 2e-4}
    training["audio_learning_rate"] = 1.0
    trainer = make(game(adversarial=RATES, training=training))
    monkeypatch.setattr(GeneratorTraining, "steps_per_epoch", EPOCH)
    start = {"audio": 2e-4, "frames": 2e-4, "frame": 1e-3, "sequence": 5e-5, "sync": 1e-4}
    assert rates(trainer, 0) == pytest.approx(start)
    assert rates(trainer, 20 * EPOCH - 1) == pytest.approx(start)
    later = {name: rate * 0.81 for name, rate in start.items()} | {"sequence": 5e-5}
    assert rates(trainer, 21 * EPOCH) == pytest.approx(later)


def test_along_the_cosine_all_rates_fall_alike(
    game: Callable[..., RunConfig], make: Callable[..., TrainingLoop]
) -> None:
    training = {"steps": 1000, "warmup_steps": 0, "decay_from": 0.6, "learning_rate": 2e-4}
    training["audio_learning_rate"] = 1.0
    trainer = make(game(adversarial=RATES, training=training))
    start = {"audio": 2e-4, "frames": 2e-4, "frame": 1e-3, "sequence": 5e-5, "sync": 1e-4}
    assert rates(trainer, 600) == pytest.approx(start)
    assert rates(trainer, 800) == pytest.approx({n: r * 0.505 for n, r in start.items()})


def test_rates_reach_the_optimisers(
    game: Callable[..., RunConfig], make: Callable[..., TrainingLoop]
) -> None:
    training = {"decay": "epoch", "decay_epoch": 1, "warmup_steps": 0, "learning_rate": 2e-4}
    training["audio_learning_rate"] = 1.0
    trainer = make(game(adversarial=RATES, training=training))
    trainer.task.step = 6  # three clips, one a step: the third epoch
    trainer.task.train_step([trainer.task.data.batch(6)])
    found = {
        group["name"]: group["lr"]
        for player in (trainer.task.generator, *trainer.task.discriminators)
        for group in player.optimizer.param_groups
    }
    start = {"audio": 2e-4, "frames": 2e-4, "frame": 1e-3, "sync": 1e-4}
    expected = {name: rate * 0.81 for name, rate in start.items()} | {"sequence": 5e-5}
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("count", "batch", "accumulate", "expected"),
    [
        *((3, 1, 1, 3), (3, 2, 1, 2), (3, 3, 1, 1), (3, 8, 1, 1)),
        *((16_000, 16, 1, 1000), (16_000, 4, 4, 1000), (16_001, 4, 4, 1001), (100, 8, 3, 5)),
    ],
)
def test_steps_in_an_epoch(
    count: int,
    batch: int,
    accumulate: int,
    expected: int,
    game: Callable[..., RunConfig],
    make: Callable[..., TrainingLoop],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    alone = {"frame": 0.0, "sequence": 0.0, "sync": 0.0}
    monkeypatch.setattr(TrainingData, "__len__", lambda _: count)
    trainer = make(
        game(
            data={"batch": batch},
            training={"accumulate": accumulate, "validate_every": 0},
            adversarial=alone,
        )
    )
    assert trainer.task.steps_per_epoch == expected
    assert trainer.task.validate_every == expected
