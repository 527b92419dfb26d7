"""Random changes: nothing at strength zero, alike in still and target."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from stillspeak.data.augment import augment_audio, augment_frames
from stillspeak.data.config import AugmentConfig
from stillspeak.errors import ConfigError

RATE = 16_000


def only(**strengths: Any) -> AugmentConfig:
    """Everything off but these."""
    return AugmentConfig(**({field.name: 0.0 for field in fields(AugmentConfig)} | strengths))


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def pictures(examples: int = 2, count: int = 3) -> torch.Tensor:
    """Frames (B, F, 3, 128, 96)."""
    source = torch.Generator().manual_seed(0)
    return torch.rand(examples, count, 3, 128, 96, generator=source) * 2 - 1


def speech(seconds: float = 1.0) -> np.ndarray:
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.2 * np.sin(2 * np.pi * 220 * time) + 0.1 * np.sin(2 * np.pi * 1900 * time)).astype(
        np.float32
    )


# ------------------------------------------------------------------ pictures


def test_strength_zero_changes_nothing() -> None:
    frames = pictures()
    changed = augment_frames(frames, only(), random())
    torch.testing.assert_close(changed, frames, atol=1e-4, rtol=0)
    changed = augment_frames(frames, AugmentConfig(), random())
    assert (changed - frames).abs().max() > 0.1


def blobs(points: torch.Tensor) -> torch.Tensor:
    """Frames (B, F, 3, 128, 96) with one soft bright spot at each (B, F, 2) point."""
    ys, xs = torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing="ij")
    x, y = points[..., 0, None, None], points[..., 1, None, None]
    spot = torch.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 2.0**2))
    return (spot * 2 - 1).unsqueeze(2).expand(-1, -1, 3, -1, -1).contiguous()


def centroids(frames: torch.Tensor) -> torch.Tensor:
    """Where the spots are: (B, F, 2)."""
    bright = (frames.mean(2) + 1) / 2
    bright = torch.where(bright > 0.05, bright, 0)
    ys, xs = torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing="ij")
    total = bright.sum((-2, -1))
    return torch.stack(
        ((bright * xs).sum((-2, -1)) / total, (bright * ys).sum((-2, -1)) / total), -1
    )


@pytest.mark.parametrize(
    ("strengths", "least"),
    [
        ({"rotate": 12.0}, 2),
        ({"scale": 0.15}, 1.5),
        ({"shift": 6.0}, 3),
        ({"warp": 2.0}, 2),
        ({"rotate": 4.0, "scale": 0.06, "shift": 3.0, "warp": 2.0}, 2),
    ],
)
def test_the_picture_moves_by_what_is_asked_for(strengths: dict[str, float], least: float) -> None:
    spots = torch.tensor([[30.0, 40.0], [64.0, 44.0], [49.0, 72.0], [36.0, 88.0], [63.0, 87.0]])
    points = spots.view(1, 5, 2).expand(8, 5, 2)
    frames = blobs(points)
    changed = augment_frames(frames, only(**strengths), random())
    assert least < (centroids(changed) - points).norm(dim=-1).max() < 16


def test_still_and_target_change_alike_and_examples_do_not() -> None:
    frames = pictures(examples=2, count=1)
    frames = frames[:1].expand(2, 4, 3, 128, 96).contiguous()
    changed = augment_frames(frames, AugmentConfig(), random())
    for frame in range(1, 4):
        assert torch.equal(changed[:, 0], changed[:, frame])
    assert (changed[0] - changed[1]).abs().mean() > 0.02


@pytest.mark.parametrize("strengths", [{"gain": 0.5}, {"gamma": 0.8}, {"colour": 0.4}])
def test_light_stays_in_range(strengths: dict[str, float]) -> None:
    frames = pictures(examples=4)
    changed = augment_frames(frames, only(**strengths), random())
    assert changed.min() >= -1
    assert changed.max() <= 1
    by_channel = (changed - frames).mean((1, 3, 4))  # (B, 3)
    assert by_channel.abs().max() > 0.02
    if "colour" in strengths:
        assert by_channel.std(dim=1).min() > 1e-3
    else:
        # Brightness has no colour: a grey picture stays grey.
        grey = augment_frames(torch.zeros_like(frames), only(**strengths), random())
        assert grey.amax(2).sub(grey.amin(2)).max() < 1e-6


def test_a_seed_decides() -> None:
    frames = pictures()
    first = augment_frames(frames, AugmentConfig(), random(1))
    again = augment_frames(frames, AugmentConfig(), random(1))
    other = augment_frames(frames, AugmentConfig(), random(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --------------------------------------------------------------------- sound


def test_silent_strengths_leave_sound_alone() -> None:
    sound = speech()
    changed = augment_audio(sound, RATE, only(), random())
    assert np.array_equal(changed, sound)
    assert changed.dtype == np.float32


def test_sound_stays_in_range() -> None:
    config = AugmentConfig(audio_gain_db=30, audio_noise=1.0, audio_noise_db=0, audio_eq_db=20)
    peaks = []
    for seed in range(20):
        changed = augment_audio(speech(0.3), RATE, config, random(seed))
        assert changed.shape == (4800,)
        assert np.isfinite(changed).all()
        peaks.append(np.abs(changed).max())
    assert max(peaks) == 1  # cut, not scaled
    assert min(peaks) < 0.5


def test_gain_stays_within_its_decibels() -> None:
    sound = 0.1 * speech()
    gains = [
        20
        * np.log10(
            augment_audio(sound, RATE, only(audio_gain_db=6.0), random(s)).std() / sound.std()
        )
        for s in range(40)
    ]
    assert -6 <= min(gains) < -4
    assert 4 < max(gains) <= 6


def test_noise_is_as_loud_as_asked_for() -> None:
    sound = speech()
    config = only(audio_noise=1.0, audio_noise_db=15.0)
    ratios = []
    for seed in range(40):
        noise = augment_audio(sound, RATE, config, random(seed)).astype(float) - sound
        ratios.append(10 * np.log10(np.mean(sound.astype(float) ** 2) / np.mean(noise**2)))
    assert 14.9 <= min(ratios) < 18
    assert 42 < max(ratios) <= 45.1


def test_noise_comes_as_often_as_asked_for() -> None:
    sound = speech(0.1)
    noisy = [
        not np.array_equal(augment_audio(sound, RATE, only(audio_noise=0.3), random(s)), sound)
        for s in range(200)
    ]
    assert 0.2 < np.mean(noisy) < 0.4


def test_silence_stays_silence() -> None:
    silence = np.zeros(4000, np.float32)
    config = AugmentConfig(audio_noise=1.0)
    assert not augment_audio(silence, RATE, config, random()).any()


def test_the_equaliser_changes_bands_and_not_time() -> None:
    sound = speech()
    changed = augment_audio(sound, RATE, only(audio_eq_db=6.0), random(1))
    before, after = np.abs(np.fft.rfft(sound)), np.abs(np.fft.rfft(changed))
    decibel = 20 * np.log10(after[[220, 1900]] / before[[220, 1900]])
    assert np.abs(decibel).max() > 1
    assert abs(decibel[0] - decibel[1]) > 0.5
    # Zero phase: a click stays where it is.
    click = np.zeros(4000, np.float32)
    click[1234] = 0.5
    assert np.abs(augment_audio(click, RATE, only(audio_eq_db=6.0), random(1))).argmax() == 1234


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mirror", 1.5),
        ("audio_noise", -0.1),
        ("rotate", -1.0),
        ("scale", float("nan")),
        ("warp", float("inf")),
        ("speed", -0.2),
    ],
)
def test_strengths_that_make_no_sense(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"augment\.{name}"):
        AugmentConfig(**{name: value})
    AugmentConfig(audio_noise_db=-5.0)
