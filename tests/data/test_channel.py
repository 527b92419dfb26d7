"""What may happen to a voice: it keeps its length and its place, and a seed decides the rest."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest

from stillspeak.constants import SAMPLE_RATE
from stillspeak.data import channel
from stillspeak.data.channel import CODECS, ChannelConfig, through_channel
from stillspeak.errors import ConfigError

Sound = np.ndarray


def voice(seconds: float = 1.5, seed: int = 0) -> Sound:
    """(S,) float32: syllables of noise, with pauses; nothing in it repeats."""
    random = np.random.default_rng(seed)
    length = round(seconds * SAMPLE_RATE)
    time = np.arange(length) / SAMPLE_RATE
    syllables = np.clip(np.sin(2 * np.pi * 3 * time + seed), 0, 1)
    spectrum = np.fft.rfft(random.standard_normal(length))
    spectrum[np.fft.rfftfreq(length, 1 / SAMPLE_RATE) > 3000] = 0
    return (0.1 * syllables * np.fft.irfft(spectrum, length)).astype(np.float32)


def lag(changed: Sound, sound: Sound) -> int:
    """By how many samples the changed sound is late."""
    size = 2 * len(sound)
    likeness = np.fft.irfft(np.fft.rfft(changed, size) * np.conj(np.fft.rfft(sound, size)), size)
    place = int(np.argmax(likeness))
    return place if place < size // 2 else place - size


CHANGES: dict[str, Callable[[Sound, np.random.Generator], Sound]] = {
    "level": lambda sound, _: channel.level(sound, 0.02),
    "mixed": lambda sound, random: channel.mixed(sound, channel.noise(len(sound), random), 10.0),
    "equalised": channel.equalised,
    "in_room": channel.in_room,
    "telephone": lambda sound, _: channel.telephone(sound),
    "coded": channel.coded,
    "through_channel": lambda sound, random: through_channel(sound, ChannelConfig(), random),
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("length", [24_000, 23_457])
def test_a_voice_keeps_its_length_and_its_place(name: str, seed: int, length: int) -> None:
    sound = voice()[:length]
    before = sound.copy()
    changed = CHANGES[name](sound, np.random.default_rng(seed))
    assert changed.shape == sound.shape and changed.dtype == np.float32
    assert np.isfinite(changed).all()
    assert abs(lag(changed, sound)) <= 1
    assert np.array_equal(sound, before)  # the caller's own stays as it is


@pytest.mark.parametrize("name", CHANGES)
def test_a_seed_decides(name: str) -> None:
    one, same = (CHANGES[name](voice(), np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(one, same)
    if name not in ("level", "telephone"):
        others = [CHANGES[name](voice(), np.random.default_rng(seed)) for seed in range(4, 9)]
        assert not all(np.array_equal(other, one) for other in others)


@pytest.mark.parametrize("name", CHANGES)
def test_silence_is_no_trouble(name: str) -> None:
    silent = np.zeros(8000, np.float32)
    changed = CHANGES[name](silent, np.random.default_rng(0))
    assert changed.shape == (8000,) and np.isfinite(changed).all()


@pytest.mark.parametrize("make", [channel.noise, channel.music])
def test_noise_and_music_are_as_long_as_asked_for(make: Callable[..., Sound]) -> None:
    for length in (1600, 16_001, 40_000):
        made = make(length, np.random.default_rng(length))
        assert made.shape == (length,) and made.dtype == np.float32 and made.any()
        assert np.array_equal(made, make(length, np.random.default_rng(length)))


def test_a_level_is_a_root_mean_square() -> None:
    assert np.sqrt(np.mean(channel.level(voice(), 0.02) ** 2)) == pytest.approx(0.02, rel=1e-4)


def test_a_mixture_has_the_ratio_asked_for() -> None:
    sound = voice()
    other = channel.mixed(sound, channel.noise(len(sound), np.random.default_rng(0)), 12.0) - sound
    assert 10 * np.log10(np.mean(sound**2) / np.mean(other**2)) == pytest.approx(12, abs=0.01)


def test_a_telephone_lets_its_band_through_alone() -> None:
    random = np.random.default_rng(0)
    white = (0.1 * random.standard_normal(SAMPLE_RATE)).astype(np.float32)
    hertz = np.fft.rfftfreq(len(white), 1 / SAMPLE_RATE)

    def power(sound: Sound, low: float, high: float) -> float:
        spectrum = np.abs(np.fft.rfft(sound)[(hertz >= low) & (hertz < high)]) ** 2
        return 10 * np.log10(float(spectrum.mean()))

    heard = channel.telephone(white)
    assert power(heard, 400, 3300) == pytest.approx(power(white, 400, 3300), abs=0.3)
    assert power(heard, 0, 150) < power(white, 0, 150) - 20
    assert power(heard, 4000, 8000) < power(white, 4000, 8000) - 20
    assert len(np.unique(heard)) <= 255  # eight bits


def test_a_room_answers_after_the_voice() -> None:
    click = np.zeros(16_000, np.float32)
    click[4000] = 1
    wet = channel.in_room(click, np.random.default_rng(1))
    assert np.abs(wet[:4000]).max() < 1e-6
    assert wet[4000] == pytest.approx(1, abs=1e-5)
    late = wet[4001:]
    assert 0.02 < np.sum(late**2) < 1.7  # -16 to 2 dB, cut at the end
    assert np.sum(late[:4000] ** 2) > np.sum(late[4000:8000] ** 2)


@pytest.mark.parametrize("codec", range(len(CODECS)), ids=[name for name, *_ in CODECS])
def test_a_codec_changes_the_sound_in_its_place(
    codec: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(channel, "CODECS", CODECS[codec : codec + 1])
    sound = voice(2.0)
    heard = channel.coded(sound, np.random.default_rng(0))
    assert lag(heard, sound) == 0
    likeness = np.corrcoef(heard, sound)[0, 1]
    assert 0.7 < likeness < 0.99999


def test_shares_of_nothing_leave_the_voice_but_for_its_level() -> None:
    shares = {f.name: 0.0 for f in fields(ChannelConfig) if isinstance(f.default, float)}
    config = ChannelConfig(**{**shares, "gain_db": (-6.0, -6.0)})
    sound = voice()
    heard = through_channel(sound, config, np.random.default_rng(0))
    wanted = channel.level(sound, 0.05 * 10 ** (-6 / 20))
    assert np.abs(heard - wanted).max() <= 1 / 32767


def test_gain_that_is_too_much_is_clipped() -> None:
    config = ChannelConfig(clean=1.0, telephone=0.0, codec=0.0, gain_db=(40.0, 40.0))
    heard = through_channel(voice(), config, np.random.default_rng(0))
    assert heard.max() == 1 and heard.min() == -1


def test_babble_is_made_of_the_others() -> None:
    shares = {f.name: 0.0 for f in fields(ChannelConfig) if isinstance(f.default, float)}
    config = ChannelConfig(**{**shares, "babble": 1.0, "gain_db": (0.0, 0.0)})
    calls = []

    def other() -> Sound:
        calls.append(1)
        return voice(seed=len(calls))

    sound = voice()
    heard = through_channel(sound, config, np.random.default_rng(0), other)
    assert 2 <= len(calls) <= 5
    assert not np.allclose(heard, channel.level(sound, 0.05), atol=1e-3)
    alone = through_channel(sound, config, np.random.default_rng(0))
    assert np.abs(alone - channel.level(sound, 0.05)).max() <= 1 / 32767


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"room": 1.5}, "channel.room: must be at most 1"),
        ({"codec": -0.1}, "channel.codec: must be at least 0"),
        ({"gain_db": (3.0, -3.0)}, "channel.gain_db must be two numbers"),
        ({"noise_db": (0.0, 101.0)}, "channel.noise_db.1: must be at most 100"),
    ],
)
def test_shares_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ChannelConfig(**values)  # type: ignore[arg-type]
