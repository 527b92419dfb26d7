"""What the mouth refiner learns from."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from stillspeak.data.cache import CachedClip, load_manifest
from stillspeak.errors import ConfigError, DataError
from stillspeak.face.align import crop_face, face_transform, transform_points
from stillspeak.face.mouth import POSE_POINTS
from stillspeak.models.refiner import COLUMNS, ROWS, MouthRefiner, RefinerConfig
from stillspeak.models.regions import LOWER_BOX
from stillspeak.rendering.mesh import face_frame
from stillspeak.rendering.mouth import MouthLayers
from stillspeak.rendering.refine import load_refiner
from stillspeak.training.auxiliary.refiner import (
    RefinerDataConfig,
    RefinerObjective,
    clip_examples,
    pair_examples,
)
from stillspeak.training.run import RunOptions, train
from stillspeak.weights import read_info
from support.mouths import drawing, opened

CONFIG = """
[refiner]
channels = [8, 8, 8]
[refiner_data]
stills = 2
frames = 6
batch = 4
[training]
steps = 60
learning_rate = 1e-2
warmup_steps = 2
ema = 0.5
validate_every = 20
log_every = 5
precision = "32-true"
"""


def talking(frames: int, seed: int) -> dict[str, np.ndarray]:
    """A clip whose mouth opens and shuts; what is in it glows green, unlike any drawn one."""
    picture, points = drawing(60, 0)
    layers, frame = MouthLayers(picture, points, None), face_frame(points)
    to_crop = face_transform(points)
    big = to_crop * 2
    big[:, 2] += 0.5
    top, bottom, left, right = LOWER_BOX
    rows: dict[str, list[np.ndarray]] = {"pictures": [], "mouths": [], "landmarks": []}
    for t in range(frames):
        pose = opened(0.12 * (1 - np.cos(0.9 * t + seed)))
        shown = layers.draw(pose).astype(np.float32)
        assert layers.last is not None
        x, y = layers.last.corner
        part = layers.last.share
        shown[y : y + part.shape[0], x : x + part.shape[1], 1] += 60 * part
        shown = shown.clip(0, 255).astype(np.uint8)
        moved = points.copy()
        moved[list(POSE_POINTS)] += pose * frame.scale
        rows["landmarks"].append(transform_points(moved, to_crop))
        rows["pictures"].append(crop_face(shown, to_crop, 128, 96))
        rows["mouths"].append(
            crop_face(shown, big, 256, 192)[2 * top : 2 * bottom, 2 * left : 2 * right]
        )
    return {name: np.stack(values) for name, values in rows.items()}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, write_clip: Callable[..., CachedClip]) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    for seed, (speaker, split) in enumerate((("a", "train"), ("b", "train"), ("v", "validation"))):
        write_clip(folder, speaker, frames=16, split=split, **talking(16, seed))
    return folder


def objective(cache: Path, **data: Any) -> RefinerObjective:
    clips = load_manifest(cache)
    options = {"stills": 2, "frames": 6, "batch": 4, **data}
    return RefinerObjective(
        RefinerConfig(channels=(8, 8, 8)),
        RefinerDataConfig(**options),
        [clip for clip in clips if clip.split == "train"],
        [clip for clip in clips if clip.split == "validation"],
        seed=3,
    )


def test_an_example_shows_still_frame_and_truth_in_one_place(cache: Path) -> None:
    clip = load_manifest(cache)[0]
    made = list(clip_examples(clip, 1, 8, np.random.default_rng(0)))
    assert len(made) == 8
    assert any(example.hole.max() > 200 for example in made)
    for example in made:
        assert (
            example.still.shape == example.drawn.shape == example.real.shape == (ROWS, COLUMNS, 3)
        )
        assert example.hole.shape == (ROWS, COLUMNS) and example.hole.dtype == np.uint8
        skin = cv2.dilate(example.hole, np.ones((9, 9))) == 0
        off = np.abs(example.drawn.astype(int) - example.real)[skin]
        assert off.mean() < 4
        if example.hole.max() > 200:
            inside = example.hole > 200
            green = (example.real.astype(int) - example.drawn)[inside]
            assert green[:, 1].mean() > 30 > np.abs(green[:, [0, 2]]).mean()


def test_batches_depend_on_seed_and_step_alone(cache: Path) -> None:
    one, other = objective(cache), objective(cache)
    for a, b in zip(one.batch(5), other.batch(5), strict=True):
        assert torch.equal(a, b)
    still, drawn, real, hole, share, inside = one.batch(6)
    assert not torch.equal(still, one.batch(5)[0])
    assert still.shape == drawn.shape == real.shape == (4, 3, ROWS, COLUMNS)
    assert hole.shape == (4, 1, ROWS, COLUMNS) and share.shape == (4,)
    assert (inside == 1).all()
    assert hole.min() >= 0 and hole.max() <= 1 and share.min() >= 0 and share.max() <= 1


def test_a_run_learns_the_colour_and_its_weights_load(cache: Path, tmp_path: Path) -> None:
    path = tmp_path / "refiner.toml"
    path.write_text(CONFIG)
    run = tmp_path / "run"
    train(RunOptions(path, cache, run), info={"command": "of a test"})
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    gains = [row["gain"] for row in rows if "gain" in row]
    assert len(gains) == 3 and gains[-1] > 1
    network = load_refiner(run / "last.safetensors")
    assert network.config == RefinerConfig(channels=(8, 8, 8))
    info = read_info(run / "last.safetensors")
    assert json.dumps(info).count("of a test") and json.dumps(info).count("speakers")


def test_the_critic_takes_part_where_it_is_asked_for(cache: Path) -> None:
    game = objective(cache, adversarial=0.1)
    terms = game.loss(game.network, game.batch(0), 0)
    assert {"critic", "fooled"} <= set(terms)
    terms["loss"].backward()
    assert all(p.grad is not None for p in game.network.parameters())
    plain = objective(cache)
    assert "critic" not in plain.loss(plain.network, plain.batch(0), 0)


def test_a_pair_is_drawn_with_each_others_mouth() -> None:
    picture, points = drawing(90, 0)
    pose = opened(0.2)
    moved = points.copy()
    moved[list(POSE_POINTS)] += pose * face_frame(points).scale
    wide = MouthLayers(picture, points, None).draw(pose)
    opens, closes = pair_examples((picture, wide), (points, moved))
    assert opens.hole.max() > 200 and closes.hole.mean() < 5
    assert opens.inside == closes.inside == 0
    for example in (opens, closes):
        before = np.abs(example.still.astype(int) - example.real).mean()
        assert np.abs(example.drawn.astype(int) - example.real).mean() < 0.8 * before


def test_what_cannot_be_learned_from_is_refused(
    tmp_path: Path, write_clip: Callable[..., CachedClip]
) -> None:
    clip = write_clip(tmp_path)
    with pytest.raises(DataError, match="--mouth-scale 2"):
        list(clip_examples(clip, 1, 2, np.random.default_rng(0)))
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"PERSON_neutral\.jpg"):
        RefinerObjective(
            RefinerConfig(), RefinerDataConfig(pairs=str(tmp_path / "none")), [], [], seed=0
        )
    with pytest.raises(ConfigError, match="channels"):
        RefinerConfig(channels=(0, 8, 8))
    with pytest.raises(ConfigError, match="grey"):
        RefinerDataConfig(grey=2)
    with pytest.raises(ConfigError, match="batch"):
        RefinerDataConfig(batch=0)
    assert MouthRefiner(RefinerConfig()).config.channels == (16, 32, 48)
