"""The configurations in the repository: each can be built, and each is what its name says."""

from pathlib import Path
from typing import Any

import pytest

from stillspeak.system.configuration import read_toml, to_table
from stillspeak.training.adversarial.discriminators import make_adversaries
from stillspeak.training.auxiliary.kinds import auxiliary_config, auxiliary_kind
from stillspeak.training.config import RunConfig, run_config

FOLDER = Path(__file__).parents[2] / "configs"
EVERY = sorted(path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.toml"))
LESSONS = [name for name in EVERY if auxiliary_kind(read_toml(FOLDER / name))]
FILES = [name for name in EVERY if name not in LESSONS]

DIFFERENCES: dict[str, tuple[str, dict[str, Any]]] = {
    "ablations/no-adversary.toml": (
        "slim.toml",
        {"adversarial.frame": 0.0, "adversarial.sequence": 0.0, "adversarial.sync": 0.0},
    ),
    "ablations/no-frame.toml": ("slim.toml", {"adversarial.frame": 0.0}),
    "ablations/no-noise.toml": ("slim.toml", {"generator.noise_dim": 0}),
    "ablations/no-sequence.toml": ("slim.toml", {"adversarial.sequence": 0.0}),
    "baseline.toml": (
        "slim.toml",
        {
            "generator.context_layers": 0,
            "generator.noise_dim": 0,
            "generator.window_seconds": 0.36,
            "adversarial.sequence": 0.0,
            "adversarial.sync": 0.0,
        },
    ),
    "variants/hinge.toml": (
        "slim.toml",
        {
            "adversarial.form": "hinge",
            "adversarial.r1": 0.0,
            "frame_discriminator.norm": "spectral",
            "sequence_discriminator.norm": "spectral",
            "sync_discriminator.norm": "spectral",
        },
    ),
    "variants/least-squares.toml": ("slim.toml", {"adversarial.form": "least_squares"}),
    "variants/paper-full-face.toml": ("paper.toml", {"objective.upper": 1.0}),
    "variants/paper-printed.toml": ("paper.toml", {"adversarial.form": "minimax"}),
}
"""What a variant changes, and of what."""


def load(name: str) -> RunConfig:
    return run_config(read_toml(FOLDER / name), name=name)


def flat(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in table.items():
        found |= (
            flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_run(name: str) -> None:
    config = load(name)
    assert run_config(to_table(config), name="again") == config
    first = (FOLDER / name).read_text("utf-8").splitlines()[0]
    assert first.startswith("# ")  # what it is for


@pytest.mark.parametrize("name", LESSONS)
def test_every_measuring_network_has_its_run(name: str) -> None:
    config = auxiliary_config(read_toml(FOLDER / name), name=name)
    assert auxiliary_config(to_table(config), name="again") == config
    assert (FOLDER / name).read_text("utf-8").startswith("# ")


def test_every_ablation_and_variant_has_its_line_here() -> None:
    assert {name for name in FILES if "/" in name} <= set(DIFFERENCES) <= set(FILES)


@pytest.mark.parametrize("name", DIFFERENCES)
def test_a_variant_differs_in_nothing_but_what_its_name_says(name: str) -> None:
    parent, difference = DIFFERENCES[name]
    before, after = flat(to_table(load(parent))), flat(to_table(load(name)))
    assert before.keys() == after.keys()
    assert {key: value for key, value in after.items() if before[key] != value} == difference


def test_who_plays_in_each() -> None:
    def players(name: str) -> set[str]:
        game = load(name).adversarial
        return {n for n in ("frame", "sequence", "sync") if getattr(game, n)}

    assert players("paper.toml") == {"frame", "sequence"}
    everyone = {"frame", "sequence", "sync"}
    for name in ("slim.toml", "smoke.toml"):
        assert players(name) == everyone
    assert players("baseline.toml") == {"frame"}
    assert [a.name for a in make_adversaries(load("slim.toml"))] == ["frame", "sequence", "sync"]


def test_paper_toml_holds_the_papers_numbers() -> None:
    config = load("paper.toml")
    generator, game, training = config.generator, config.adversarial, config.training
    # Section 2.1.
    assert (generator.height, generator.width, generator.fps) == (128, 96, 25)
    assert generator.window_seconds == 0.16
    assert (generator.identity_dim, generator.context_dim, generator.noise_dim) == (50, 256, 10)
    assert generator.context_layers == 2
    assert len(generator.identity_channels) == 5  # and one more that gives the encoding
    # Section 2.2.1: six layers.
    assert len(config.frame_discriminator.channels) == 5
    # Section 2.3: log-likelihoods, lambda 400, the lower half alone and evenly.
    assert game.form in ("log", "minimax")
    assert game.frame == game.sequence == 1
    assert game.sync == game.feature_matching == game.r1 == game.start == game.fade == 0
    objective = flat(to_table(config.objective))
    assert objective.pop("l1") == 400
    assert (objective.pop("upper"), objective.pop("lower")) == (0, 1)
    assert objective.pop("mouth") == 1
    assert not [name for name, weight in objective.items() if weight]
    # Optimisation.
    assert training.optimizer == "adam"
    assert training.learning_rate == 2e-4
    assert training.audio_steps == training.warmup_steps == training.clip_norm == 0
    assert (game.frame_learning_rate, game.sequence_learning_rate) == (1e-3, 5e-5)
    assert (training.decay, training.decay_epoch, training.decay_rate) == ("epoch", 20, 0.1)
    # Ten epochs without a better reconstruction.
    assert (training.best, training.validate_every, training.patience) == ("reconstruction", 0, 10)
    # Section 3.1: mirrored, and changed in no other way.
    augment = flat(to_table(config.augment))
    assert augment.pop("mirror") == 0.5
    augment.pop("audio_noise_db")  # of noise that is never added
    assert set(augment.values()) == {0}
