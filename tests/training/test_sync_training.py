"""The sync network's training: examples, losses, and a run from the command to an offset."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from stillspeak.data.cache import CachedClip, load_manifest
from stillspeak.data.config import AugmentConfig
from stillspeak.errors import ConfigError, DataError
from stillspeak.evaluation.measures.sync import load_sync_scorer
from stillspeak.models.syncnet import SyncNetConfig
from stillspeak.training.run import RunOptions, train
from stillspeak.training.scorers.sync import SyncDataConfig, SyncObjective, clip_loss, window_loss

SMALL = SyncNetConfig(bands=16, picture_channels=(4, 6, 8, 8), sound_channels=(8, 8), dim=8)
PLAIN = AugmentConfig(
    mirror=0,
    rotate=0,
    scale=0,
    shift=0,
    warp=0,
    gain=0,
    gamma=0,
    speed=0,
    audio_noise=0,
    audio_eq_db=0,
    audio_gain_db=0,
)
WRITE = Callable[..., CachedClip]


def blinking(write_clip: WRITE, folder: Path, name: str, seed: int, **more: Any) -> CachedClip:
    """A clip whose mouth is light just while a tone is heard, at random moments."""
    count = more.pop("frames", 60)
    random = np.random.default_rng(seed)
    on = np.repeat(random.random(count // 3 + 1) < 0.5, 3)[:count]
    pictures = np.full((count, 128, 96, 3), 60, np.uint8)
    pictures[on, 80:104, 36:64] = 220
    tone = 0.3 * np.sin(2 * np.pi * 300 * np.arange(count * 640) / 16_000)
    audio = tone * np.repeat(on, 640) + 1e-3 * random.standard_normal(count * 640)
    return write_clip(folder, name=name, frames=count, pictures=pictures, audio=audio, **more)


@pytest.fixture
def cache(tmp_path: Path, write_clip: WRITE) -> Path:
    folder = tmp_path / "cache"
    for i in range(6):
        blinking(write_clip, folder, f"one{i}", i, speaker="a")
    blinking(write_clip, folder, "two", 7, speaker="b")
    blinking(write_clip, folder, "short", 8, speaker="b", frames=24)
    blinking(write_clip, folder, "three", 9, speaker="v", split="validation")
    return folder


def objective(cache: Path, augment: AugmentConfig = PLAIN, **data: Any) -> SyncObjective:
    clips = load_manifest(cache)
    return SyncObjective(
        SMALL,
        SyncDataConfig(**{"batch": 3, "frames": 30, "held_out": 1, "voice": 0.0, **data}),
        augment,
        [c for c in clips if c.split == "train"],
        [c for c in clips if c.split == "validation"],
        seed=1,
    )


def test_an_example_is_moving_mouths_with_their_own_sound(cache: Path) -> None:
    mouths, sound = objective(cache).batch(0)
    assert mouths.shape == (3, 30, 32, 40) and sound.shape == (3, 30 * 640)
    light = mouths[:, :, 10:14, 18:22].mean((2, 3)) > 0
    loud = sound.view(3, 30, 640).abs().amax(-1)
    for bright, level in zip(light, loud, strict=True):
        assert level[bright].min() > 5 * level[~bright].max()


def test_examples_depend_on_the_step_alone(cache: Path) -> None:
    strong = AugmentConfig(pitch=0.3)
    first, second = objective(cache, strong, voice=1.0), objective(cache, strong, voice=1.0)
    first.batch(3)
    for a, b in zip(first.batch(7), second.batch(7), strict=True):
        assert torch.equal(a, b) and a.isfinite().all()
    assert not torch.equal(first.batch(7)[0], first.batch(8)[0])


def test_short_clips_and_those_out_of_sync_are_left_out(cache: Path) -> None:
    assert objective(cache).speakers == {"a": 5, "b": 1}
    assert objective(cache, leave_out=("b/two", "a/one0")).speakers == {"a": 4}
    with pytest.raises(DataError, match="no training clip has 70 frames"):
        objective(cache, frames=70)


def test_a_window_chooses_among_its_neighbours() -> None:
    perfect = torch.nn.functional.one_hot(torch.arange(40)).float()[None]
    loss, right = window_loss(perfect, perfect, torch.tensor(10.0))
    assert float(loss) < 1e-6 and float(right) == 1
    alike = torch.ones(1, 40, 4) / 2
    loss, _ = window_loss(alike, alike, torch.tensor(10.0))
    # 10 neighbours on each side, less at the ends.
    counts = [min(t, 10) + min(39 - t, 10) + 1 for t in range(40)]
    assert float(loss) == pytest.approx(np.log(counts).mean(), rel=1e-4)


def test_a_clip_chooses_shift_zero() -> None:
    distances = torch.ones(2, 21)
    assert float(clip_loss(distances, torch.tensor(20.0))) == pytest.approx(np.log(21), rel=1e-4)
    distances[:, 10] = 0
    assert float(clip_loss(distances, torch.tensor(20.0))) < 1e-3


def test_a_run_learns_what_belongs_together_and_its_weights_load(
    cache: Path, tmp_path: Path
) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(
        """
        [sync]
        bands = 16
        picture_channels = [4, 6, 8, 8]
        sound_channels = [8, 8]
        dim = 8
        [sync_data]
        batch = 4
        frames = 40
        held_out = 1
        voice = 0.0
        [augment]
        mirror = 0.0
        rotate = 0.0
        warp = 0.0
        shift = 1.0
        speed = 0.0
        [training]
        steps = 80
        learning_rate = 0.01
        warmup_steps = 5
        ema = 0.9
        validate_every = 40
        log_every = 10
        precision = "32-true"
        """
    )
    run = tmp_path / "run"
    assert "all 80 steps" in train(RunOptions(config, cache, run), info={"command": "by a test"})
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validations = [row for row in rows if row["kind"] == "validation"]
    assert validations[-1]["exact"] == 1 and validations[-1]["exact_held_out"] == 1
    scorer = load_sync_scorer(run / "best.safetensors")
    clips = load_manifest(cache)
    tensors = load_file(next(c.file for c in clips if c.split == "validation"))
    frames, audio = tensors["frames"], tensors["audio"]
    in_sync = scorer.measure(frames, audio)
    assert in_sync.offset == 0 and in_sync.confidence > 0.2
    # Sound that comes later than its picture has a positive offset.
    late = np.concatenate((np.zeros(4 * 640, np.float32), audio))[: len(audio)]
    assert scorer.measure(frames, late).offset == 4
    assert scorer.measure(frames, audio[6 * 640 :]).offset == -6
    still = scorer.measure(np.repeat(frames[:1], len(frames), 0), audio)
    assert still.confidence < in_sync.confidence / 2


@pytest.mark.parametrize(
    "changes",
    [{"batch": 0}, {"frames": 24}, {"held_out": -1}, {"voice": 2.0}, {"clip_weight": -1.0}],
)
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"sync_data\."):
        SyncDataConfig(**changes)
