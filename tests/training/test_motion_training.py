"""What the motion generator learns from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillspeak.data.cache import CachedClip, load_manifest
from stillspeak.errors import DataError
from stillspeak.models.motion import MotionConfig
from stillspeak.motion.prosody import ACCENT
from stillspeak.training.auxiliary.motion import (
    BROWS,
    LIDS,
    NOD,
    MotionDataConfig,
    MotionObjective,
    alike,
    likeliest,
    load_moves,
)
from stillspeak.training.run import RunOptions, train
from stillspeak.weights import read_info

CONFIG = """
[motion]
hidden = 8
noise = 2
slow_noise = 1
[motion_data]
batch = 8
[training]
steps = 60
learning_rate = 1e-2
warmup_steps = 2
ema = 0.5
validate_every = 20
log_every = 5
precision = "32-true"
"""


def nodding(seed: int, way: float) -> dict[str, Any]:
    """Somebody whose head goes down, or up, on loud syllables, and who blinks once."""
    random = np.random.default_rng(seed)
    time = np.arange(80 * 640) / 16_000
    envelope = np.clip(np.sin(2 * np.pi * 1.3 * time + seed), 0, 1)
    audio = 0.3 * envelope * np.sin(2 * np.pi * 140 * time + np.sin(2 * np.pi * 140 * time))
    loud = envelope[320::640]
    wander = np.cumsum(random.standard_normal((80, 3)), 0) / 10
    head = wander + way * np.outer(np.roll(loud, 2), [0, 2.0, 0])
    blink = np.zeros(80)
    blink[40:46] = (0.2, 0.5, 0.6, 0.4, 0.2, 0.12)
    shapes = {"eyeBlinkLeft": blink, "eyeBlinkRight": blink, "jawOpen": 0.2 * random.random(80)}
    return {"audio": audio, "head": head, "shapes": shapes, "frames": 80}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_clip: Callable[..., CachedClip]) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    for name in ("one", "two", "three"):
        write_clip(folder, "down", name, **nodding(len(name), 1.0))
        write_clip(folder, "up", name, **nodding(2 * len(name), -1.0))
    write_clip(folder, "v", split="validation", **nodding(9, 1.0))
    return folder


def objective(cache: Path, **data: Any) -> MotionObjective:
    clips = load_manifest(cache)
    return MotionObjective(
        MotionConfig(hidden=8, noise=2, slow_noise=1),
        MotionDataConfig(**{"batch": 8, **data}),
        [clip for clip in clips if clip.split == "train"],
        [clip for clip in clips if clip.split == "validation"],
        seed=3,
    )


def test_blinks_are_found_and_taken_out_of_lids_and_brows(cache: Path) -> None:
    moves = load_moves(load_manifest(cache)[0])
    assert moves.blinks == (40,)
    assert moves.moves.shape == (80, 5) and moves.heard.shape == (80, 7)
    assert np.ptp(moves.moves[:, LIDS]) < 0.05 and np.ptp(moves.moves[:, BROWS]) < 0.01


def test_speakers_are_made_alike_and_all_nod_down_on_accents(cache: Path) -> None:
    clips = [load_moves(clip) for clip in load_manifest(cache)[:6]]
    made, scale = alike(clips)
    assert scale.shape == (5,) and (scale > 0).all()
    for one in made:
        assert np.abs(one.moves.mean(0)).max() < 1e-3
        louder = one.heard[:, ACCENT] - one.heard[:, ACCENT].mean()
        assert louder[:-3] @ one.moves[3:, NOD] > 0
    # Of three clips, the usual deviation counts as two more.
    assert 0.7 < float(np.mean([one.moves[:, :3].std() for one in made])) < 1.2


def test_batches_depend_on_seed_and_step_alone(cache: Path) -> None:
    one, other = objective(cache), objective(cache)
    for a, b in zip(one.batch(5), other.batch(5), strict=True):
        assert torch.equal(a, b)
    moves, heard, drawn = one.batch(6)
    assert not torch.equal(moves, one.batch(5)[0])
    assert moves.shape == (8, 75, 5) and heard.shape == (8, 100, 7) and drawn.shape == (8, 100, 3)


@pytest.mark.e2e
def test_a_run_comes_nearer_and_its_weights_say_how(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "motion.toml"
    path.write_text(CONFIG)
    run = tmp_path / "run"
    train(RunOptions(path, cache, run), info={"command": "of a test"})
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    scores = [row["distance"] for row in rows if row["kind"] == "validation"]
    assert len(scores) == 3 and scores[-1] < 0.7 * scores[0]
    info = read_info(run / "last.safetensors")
    assert info["config"]["hidden"] == 8
    assert json.dumps(info).count("of a test") and info["info"]["speakers"] == {"down": 3, "up": 3}


def test_the_critic_takes_part_where_it_is_asked_for(cache: Path) -> None:
    game = objective(cache)
    terms = game.loss(game.network, game.batch(0), 0)
    assert {"critic", "fooled", "chance", "quiet"} <= set(terms)
    terms["loss"].backward()
    assert all(p.grad is not None for p in game.network.parameters() if p.requires_grad)
    plain = objective(cache, adversarial=0.0)
    assert "critic" not in plain.loss(plain.network, plain.batch(0), 0)


def test_the_odds_of_a_blink_are_found_again() -> None:
    torch.manual_seed(0)
    inputs = torch.rand(20_000, 2, dtype=torch.float64)
    truth = torch.tensor([2.0, -1.0, -3.0], dtype=torch.float64)
    odds = inputs @ truth[:2] + truth[2]
    events = (torch.rand(20_000, dtype=torch.float64) < torch.sigmoid(odds)).double()
    found = likeliest(inputs, events, torch.ones(20_000, dtype=torch.float64))
    torch.testing.assert_close(found, truth, atol=0.25, rtol=0)
    # What never happens has no odds without a bound.
    never = likeliest(inputs, 0 * events, torch.ones_like(events))
    assert torch.isfinite(never).all()


def test_what_cannot_be_learned_from_is_refused(
    tmp_path: Path, write_clip: Callable[..., CachedClip]
) -> None:
    plain = write_clip(tmp_path, frames=80)
    with pytest.raises(DataError, match="names no blendshapes"):
        load_moves(plain)
    short = write_clip(tmp_path, name="short", frames=30)
    with pytest.raises(DataError, match="75 frames"):
        MotionObjective(MotionConfig(), MotionDataConfig(), [short], [], seed=0)
