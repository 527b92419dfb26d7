"""The lip reader's objective: examples, losses, and a run from the command's entry to a reading."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from stillspeak.data.cache import CachedClip, load_manifest
from stillspeak.data.config import AugmentConfig
from stillspeak.errors import ConfigError, DataError
from stillspeak.evaluation.measures.lipreading import load_lip_reader
from stillspeak.models.lipnet import ALPHABET, LipNetConfig, sample_mouths
from stillspeak.training.auxiliary.task import hold_out
from stillspeak.training.run import RunOptions, train
from stillspeak.training.scorers.lipreading import (
    KEPT_BOX,
    LipReadingDataConfig,
    LipReadingObjective,
    known_places,
)

SMALL = LipNetConfig(colours=1, channels=(4, 6, 8), state=12, dropout=0.0)
PLAIN = AugmentConfig(mirror=0, rotate=0, scale=0, shift=0, warp=0, gain=0, gamma=0)
STILL = LipReadingDataConfig(batch=2, speed=0.0, drop=0.0, margin=(0.08, 0.08), held_out=0)
WRITE = Callable[..., CachedClip]


def spoken(
    write_clip: WRITE, folder: Path, speaker: str, name: str, words: list[Any], **more: Any
) -> CachedClip:
    """A prepared clip with word timings: each word is a light patch in a place of its own."""
    frames = more.pop("frames", 24)
    pictures = np.full((frames, 128, 96, 3), 60, np.uint8)
    places = {"bin": 24, "blue": 36, "lay": 48, "red": 60}
    for start, end, word in words:
        if word in places:
            left = places[word]
            pictures[round(start * 25) : round(end * 25), 76:100, left : left + 12] = 220
    clip = write_clip(folder, speaker, name, frames=frames, pictures=pictures, **more)
    tensors = load_file(clip.file)
    save_file(
        tensors,
        clip.file,
        {"key": '"k"', "speaker": json.dumps(speaker), "words": json.dumps(words)},
    )
    return clip


WORDS_A = [[0.0, 0.2, "sil"], [0.2, 0.4, "bin"], [0.4, 0.6, "blue"], [0.6, 0.96, "sil"]]
WORDS_B = [[0.2, 0.4, "lay"], [0.4, 0.72, "red"]]


@pytest.fixture
def cache(tmp_path: Path, write_clip: WRITE) -> Path:
    folder = tmp_path / "cache"
    for i in range(4):
        spoken(write_clip, folder, "a", f"bb{i}", WORDS_A if i % 2 else WORDS_B)
    spoken(write_clip, folder, "b", "lr", WORDS_B)
    spoken(write_clip, folder, "v", "bb", WORDS_A, split="validation")
    return folder


def objective(cache: Path, **more: Any) -> LipReadingObjective:
    clips = load_manifest(cache)
    return LipReadingObjective(
        SMALL,
        more.pop("data", STILL),
        more.pop("augment", PLAIN),
        [c for c in clips if c.split == "train"],
        [c for c in clips if c.split == "validation"],
        seed=1,
        steps=100,
    )


def test_an_example_is_the_words_with_their_frames(cache: Path) -> None:
    mouths, labels, lengths, words = objective(cache).batch(0)
    assert mouths.shape[:2] == (2, 1) and mouths.shape[3:] == (50, 100)
    assert mouths.shape[2] == words.shape[1]
    for row, length, frames in zip(labels, lengths, words, strict=True):
        text = "".join(ALPHABET[label - 1] for label in row[:length].tolist())
        assert text in ("bin blue", "lay red")
        # Two frames of silence before the words, then five of the first one.
        assert frames[:2].tolist() == [0, 0]
        assert len(set(frames[2:7].tolist())) == 1 and frames[2] != 0
        assert frames[7] not in (0, int(frames[2]))


def test_examples_depend_on_the_step_alone(cache: Path) -> None:
    first, second = (
        objective(cache, augment=AugmentConfig()),
        objective(cache, augment=AugmentConfig()),
    )
    first.batch(3)
    for a, b in zip(first.batch(7), second.batch(7), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(first.batch(7)[0], first.batch(8)[0])


def test_mirrored_mouths_are_mirrored(cache: Path) -> None:
    plain = objective(cache, augment=PLAIN).batch(5)[0]
    mirrored = objective(
        cache, augment=AugmentConfig(mirror=1, rotate=0, scale=0, shift=0, warp=0, gain=0, gamma=0)
    ).batch(5)[0]
    # The region lies off the crop's middle by (47.5 - 50) px: 2 * 2.5 / 0.63 pixels of it.
    moved = torch.roll(mirrored.flip(-1), -8, -1)
    assert float((plain - moved)[..., 10:-10].abs().mean()) < 0.05


def test_sampling_takes_the_right_pixels() -> None:
    frames = np.zeros((1, 52, 84, 1), np.uint8)
    frames[0, :, :, 0] = np.arange(84)[None, :]
    grid = torch.stack(
        torch.meshgrid(torch.tensor([70.0]), torch.tensor([20.0, 21.5]), indexing="ij")[::-1], -1
    )
    # Column 12 of the kept part is column 20 of the crop.
    assert (sample_mouths(frames, grid, KEPT_BOX)[0, 0, 0] * 255).tolist()[0] == pytest.approx(
        [12, 13.5]
    )


def test_words_lose_their_weight_as_the_run_goes_on(cache: Path) -> None:
    task = objective(cache)
    batch = task.batch(0)
    with torch.no_grad():
        first, last = (task.loss(task.network, batch, step) for step in (0, 100))
    assert float(first["loss"]) == pytest.approx(float(first["ctc"] + first["word"]))
    assert float(last["loss"]) == pytest.approx(float(last["ctc"]))


def test_held_out_clips_are_apart_and_always_the_same(cache: Path) -> None:
    task = objective(cache, data=LipReadingDataConfig(held_out=1))
    (apart,) = task._held_out
    assert apart.clip.speaker == "a"
    assert apart.clip.name not in [c.clip.name for c in task._clips if c.clip.speaker == "a"]
    again, rest = hold_out([*task._clips, apart], 1, lambda s: s.clip)
    assert [c.clip.name for c in again] == [apart.clip.name] and len(rest) == 4
    assert len(hold_out([*task._clips, apart], 100, lambda s: s.clip)[0]) == 1  # a quarter of four


def test_grid_words_have_places_others_have_not() -> None:
    assert known_places({"bin", "now", "q"})[0] == ["bin", "lay", "place", "set"]
    assert len(known_places({"bin"})) == 6
    assert known_places({"bin", "hello"}) == [["bin", "hello"]]


def test_clips_without_timings_teach_nothing(tmp_path: Path, write_clip: WRITE) -> None:
    write_clip(tmp_path, "a")
    with pytest.raises(DataError, match="no training clip has word timings"):
        objective(tmp_path)


@pytest.mark.e2e
def test_a_run_learns_to_read_and_its_weights_load(cache: Path, tmp_path: Path) -> None:
    config = tmp_path / "tiny.toml"
    config.write_text(
        """
        [lipnet]
        colours = 1
        channels = [4, 6, 8]
        state = 32
        dropout = 0.0
        [lipnet_data]
        batch = 4
        speed = 0.0
        drop = 0.0
        held_out = 1
        [augment]
        mirror = 0.0
        rotate = 0.0
        scale = 0.0
        shift = 1.0
        warp = 0.0
        [training]
        steps = 150
        learning_rate = 0.005
        warmup_steps = 5
        ema = 0.9
        validate_every = 75
        log_every = 10
        precision = "32-true"
        """
    )
    run = tmp_path / "run"
    assert "all 150 steps" in train(RunOptions(config, cache, run), info={"command": "by a test"})
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    validations = [row for row in rows if row["kind"] == "validation"]
    assert validations[-1]["wer"] == 0 and validations[-1]["wer_held_out"] == 0
    reader = load_lip_reader(run / "best.safetensors")
    clips = load_manifest(cache)
    frames = load_file(next(c.file for c in clips if c.split == "validation"))["frames"]
    assert reader.read(frames) == "bin blue"
    with pytest.raises(ConfigError, match="holds a run already"):
        train(RunOptions(config, cache, run))
    with pytest.raises(ConfigError, match="--from is for generators"):
        train(RunOptions(config, cache, tmp_path / "other", start_from="temporal"))
    assert "all 150 steps" in train(RunOptions(config, cache, run, resume=True))


@pytest.mark.parametrize(
    "changes",
    [{"batch": 0}, {"held_out": -1}, {"margin": (0.5, 0.1)}, {"drop": 2.0}, {"speed": 1.0}],
)
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"lipnet_data\."):
        LipReadingDataConfig(**changes)
