"""The speech encoder: a stream is the whole, bounded on both sides, whatever its level; Whisper."""

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.errors import ConfigError, WeightsError
from stillspeak.models.encoders import SpeechContextEncoder
from stillspeak.models.generator import Generator
from stillspeak.models.speech import (
    BANDS,
    FLOOR,
    QUIETEST,
    REACH,
    SPECTRUM,
    STEP,
    TOKEN,
    LogMel,
    SpeechEncoder,
    SpeechEncoderConfig,
    follow,
    mel_filters,
)
from stillspeak.models.whisper import WhisperEncoder, encoder_of_whisper, read_ctranslate2
from support.whisper import ctranslate2, whisper_weights

CONFIG = SpeechEncoderConfig(width=16, heads=2, behind=7, ahead=(2, 0, 1))
TOKENS = 60


def sound(tokens: int = TOKENS, level: float = 0.05, seed: int = 0) -> Tensor:
    """(1, S): noise in syllables, as long as so many tokens need."""
    random = np.random.default_rng(seed)
    length = TOKEN * (tokens - 1) + 2 * REACH
    gusts = 1 + 0.8 * np.sin(2 * np.pi * 4 * np.arange(length) / 16_000)
    wave = level * gusts * random.standard_normal(length)
    return torch.from_numpy(wave.astype(np.float32))[None]


@pytest.fixture(scope="module")
def encoder() -> SpeechEncoder:
    """A random one whose distances matter."""
    torch.manual_seed(2)
    encoder = SpeechEncoder(CONFIG).eval().requires_grad_(False)
    for layer in encoder.layers:
        layer.distance.normal_()
    encoder.place.normal_()
    return encoder


@torch.no_grad()
def heard(encoder: SpeechEncoder, wave: Tensor, portions: Sequence[int]) -> Tensor:
    """(1, m, width): the features of a sound that comes in so many tokens at a time."""
    state, at, given = encoder.initial_state(), 0, []
    for count in portions:
        begin = TOKEN * at + (0 if not at else 2 * REACH - TOKEN - (SPECTRUM - STEP))
        end = TOKEN * (at + count - 1) + 2 * REACH
        features, state = encoder(wave[:, begin:end], state)
        given.append(features)
        at += count
    return torch.cat(given, 1)


# --- a stream -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "portions",
    [[1] * TOKENS, [2] * (TOKENS // 2), [15, 2, 2, 1, 30, 10], [5, 55], [59, 1]],
    ids=["token by token", "frame by frame", "mixed", "two", "the last one"],
)
def test_a_stream_is_the_whole(encoder: SpeechEncoder, portions: list[int]) -> None:
    whole = heard(encoder, sound(), [TOKENS])
    assert whole.shape == (1, TOKENS - CONFIG.delay, CONFIG.width)
    assert whole.std() > 0.1
    torch.testing.assert_close(heard(encoder, sound(), portions), whole, atol=1e-4, rtol=0)


def test_clips_of_a_batch_do_not_meet(encoder: SpeechEncoder) -> None:
    waves = torch.cat((sound(seed=1), sound(seed=2, level=0.5)))
    both, _ = encoder(waves, encoder.initial_state(2))
    for wave, features in zip(waves, both, strict=True):
        alone, _ = encoder(wave[None], encoder.initial_state())
        torch.testing.assert_close(alone[0], features, atol=1e-4, rtol=0)


def test_a_token_needs_its_reach_and_its_delay_and_nothing_later(encoder: SpeechEncoder) -> None:
    token = 20
    last = TOKEN * (token + CONFIG.delay) + 2 * REACH  # the first sample that it does not need
    wave = sound()
    features = heard(encoder, wave, [TOKENS])
    later, within = wave.clone(), wave.clone()
    later[:, last:] = 0.9
    within[:, last - SPECTRUM // 2 : last] = 0.9
    assert torch.equal(heard(encoder, later, [TOKENS])[:, : token + 1], features[:, : token + 1])
    changed = heard(encoder, within, [TOKENS])
    assert not torch.equal(changed[:, token], features[:, token])
    assert torch.equal(changed[:, :token], features[:, :token])


def test_what_lies_farther_back_than_the_layers_look_is_forgotten(encoder: SpeechEncoder) -> None:
    """But for the level, which is given here."""
    torch.manual_seed(0)
    mel = torch.randn(1, BANDS, 2 * TOKENS + 3)
    other = mel.clone()
    other[:, :, :11] = torch.randn(1, BANDS, 11)  # of the first six tokens
    layers = encoder.initial_state().layers
    a, _ = encoder.encode(mel, layers)
    b, _ = encoder.encode(other, layers)
    known = 6 + len(CONFIG.ahead) * CONFIG.behind
    assert torch.equal(a[:, known:], b[:, known:])
    assert not torch.allclose(a[:, 4], b[:, 4], atol=1e-3)


@pytest.mark.e2e
def test_the_state_does_not_grow(encoder: SpeechEncoder) -> None:
    torch.manual_seed(1)
    state, sizes, worst = encoder.initial_state(), [], 0.0
    wave = 0.1 * torch.randn(1, 2 * TOKEN + SPECTRUM - STEP)
    with torch.inference_mode():
        _, state = encoder(sound(5), state)
        for _ in range(2000):
            features, state = encoder(wave, state)
            assert features.shape == (1, 2, CONFIG.width)
            parts = [*state[:3], *(part for layer in state.layers for part in layer)]
            sizes.append(sum(part.numel() for part in parts))
            worst = max(worst, float(features.abs().max()))
    reach = max(CONFIG.behind + ahead for ahead in CONFIG.ahead)
    assert set(sizes[reach:]) == {max(sizes)} == {sizes[-1]}
    assert worst < 100


# --- the level ----------------------------------------------------------------------------------


def test_gain_changes_nothing_but_what_lies_at_the_floor(encoder: SpeechEncoder) -> None:
    """Bands are shown over the level: 30 dB less is the same, up to the floor that is added."""
    loud, soft = sound(level=0.05), sound(level=0.05) * 10 ** (-30 / 20)
    mel = encoder.spectra
    one, other = (mel(w, torch.zeros(1, 0), torch.full((1,), QUIETEST)) for w in (loud, soft))
    # At 30 dB less, a band that lies 60 dB below the level has a power of some 1e-9.
    assert float(mel.power(soft).min()) > 1e3 * FLOOR
    torch.testing.assert_close(one[0], other[0], atol=1e-3, rtol=0)
    assert float(one[2] - other[2]) == pytest.approx(3, abs=1e-3)
    a, b = heard(encoder, loud, [TOKENS]), heard(encoder, soft, [TOKENS])
    torch.testing.assert_close(a, b, atol=5e-3, rtol=0)


def test_what_is_softer_than_any_speech_is_silence(encoder: SpeechEncoder) -> None:
    silent, faint = torch.zeros_like(sound()), sound(level=1e-7)
    a, b = heard(encoder, silent, [TOKENS]), heard(encoder, faint, [TOKENS])
    speech = heard(encoder, sound(), [TOKENS])
    assert (a - b).abs().max() < 0.2 * (a - speech).abs().max()
    assert a.isfinite().all()


def test_the_level_rises_at_once_and_falls_slowly() -> None:
    energy = torch.tensor([[-4.0, -1.0, -4.0, -4.0, -2.0]])
    levels, last = follow(energy, torch.tensor([-3.0]))
    wanted = [-3.002, -1.0, -1.002, -1.004, -1.006]
    torch.testing.assert_close(levels, torch.tensor([wanted]))
    assert float(last) == pytest.approx(wanted[-1])
    # The same in two parts.
    first, between = follow(energy[:, :3], torch.tensor([-3.0]))
    second, _ = follow(energy[:, 3:], between)
    torch.testing.assert_close(torch.cat((first, second), 1), levels)


def test_mel_filters_are_slaneys_as_whisper_has_them() -> None:
    filters = mel_filters()
    assert filters.shape == (80, 201) and filters.min() == 0
    assert float(filters[0, 1]) == pytest.approx(0.02486259)  # the first of librosa's
    assert not filters[:, 0].any() and not filters[:, -1].any()
    peaks = filters.argmax(1)
    assert (peaks.diff() >= 0).all() and peaks[0] == 1 and peaks[-1] == 192
    # Unit area where a triangle is wide enough for bins of 40 Hz to see it.
    torch.testing.assert_close(40 * filters[50:].sum(1), torch.ones(30), atol=0.05, rtol=0)
    for row, peak in zip(filters, peaks, strict=True):
        assert (row[: peak + 1].diff() >= 0).all() and (row[peak:].diff() <= 0).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 10, "heads": 3}, "multiple of speech.heads"),
        ({"width": 8192}, "at most 4096"),
        ({"behind": 0}, "speech.behind"),
        ({"ahead": ()}, "speech.ahead"),
        ({"ahead": (1, -1)}, "speech.ahead"),
    ],
)
def test_sizes_that_cannot_be(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SpeechEncoderConfig(**values)  # type: ignore[arg-type]


# --- windows ------------------------------------------------------------------------------------


def test_windows_give_poses_whatever_their_number(tiny) -> None:  # type: ignore[no-untyped-def]
    config = tiny("layers", audio_input="speech", noise_dim=0, speech=CONFIG)
    torch.manual_seed(3)
    encoder = Generator(config).eval().context_encoder
    assert isinstance(encoder, SpeechContextEncoder)
    encoder.pose.basis.normal_()
    frames = 12
    assert config.window == config.hop + 2 * (TOKEN * 4 + REACH - config.hop)
    wave = F.pad(
        0.1 * torch.randn(1, frames * config.hop), ((config.window - config.hop) // 2,) * 2
    )
    windows = wave.unfold(1, config.window, config.hop)
    with torch.inference_mode():
        whole, _ = encoder(windows, encoder.initial_state())
        assert whole.shape == (1, frames, 82)
        for portions in ([1] * frames, [5, 1, 6]):
            state, at, given = encoder.initial_state(), 0, []
            for count in portions:
                poses, state = encoder(windows[:, at : at + count], state)
                given.append(poses)
                at += count
            torch.testing.assert_close(torch.cat(given, 1), whole, atol=1e-4, rtol=0)


# --- Whisper ------------------------------------------------------------------------------------


def by_hand(weights: Mapping[str, Tensor], wave: Tensor, heads: int) -> list[Tensor]:
    """Whisper's encoder written out, (S,) -> its stem's and each layer's output (T, width)."""
    w = {name.removeprefix("encoder/"): value.double() for name, value in weights.items()}
    window = torch.hann_window(400, dtype=torch.float64)
    spectra = torch.stft(wave.double(), 400, 160, window=window, return_complex=True)
    power = mel_filters().double() @ spectra[:, :-1].abs().square()
    logs = power.clamp_min(1e-10).log10()
    x = ((torch.maximum(logs, logs.max() - 8) + 4) / 4)[None]
    for conv, stride in (("conv1", 1), ("conv2", 2)):
        x = F.gelu(F.conv1d(x, w[f"{conv}/weight"], w[f"{conv}/bias"], stride, 1))
    x = x[0].T + w["position_encodings/encodings"][: x.shape[2]]
    outputs, width = [x], x.shape[1]

    def linear(name: str, y: Tensor) -> Tensor:
        return y @ w[f"{name}/weight"].T + w[f"{name}/bias"]

    def norm(name: str, y: Tensor) -> Tensor:
        y = (y - y.mean(1, keepdim=True)) / (y.var(1, correction=0, keepdim=True) + 1e-5).sqrt()
        return y * w[f"{name}/gamma"] + w[f"{name}/beta"]

    for layer in range(2):
        name = f"layer_{layer}/self_attention"
        joined = linear(f"{name}/linear_0", norm(f"{name}/layer_norm", x))
        seen = []
        for head in range(heads):
            size = width // heads
            query, key, value = (
                joined[:, part * width + head * size : part * width + (head + 1) * size]
                for part in range(3)
            )
            seen.append((query @ key.T / size**0.5).softmax(1) @ value)
        x = x + linear(f"{name}/linear_1", torch.cat(seen, 1))
        name = f"layer_{layer}/ffn"
        inner = F.gelu(linear(f"{name}/linear_0", norm(f"{name}/layer_norm", x)))
        x = x + linear(f"{name}/linear_1", inner)
        outputs.append(x)
    return outputs


def test_whispers_encoder_is_whispers() -> None:
    weights = whisper_weights()
    wave = sound(40, level=0.1)[:, : 40 * TOKEN]
    given = WhisperEncoder(weights, depth=2, heads=2)(wave)
    wanted = by_hand(weights, wave[0], heads=2)
    assert len(given) == len(wanted) == 3
    for ours, theirs in zip(given, wanted, strict=True):
        assert ours.shape == (1, 40, 16)
        torch.testing.assert_close(ours[0].double(), theirs, atol=1e-4, rtol=1e-4)


def test_an_encoder_of_whisper_has_its_layers_and_the_mean_of_its_positions() -> None:
    weights = whisper_weights()
    encoder = encoder_of_whisper(weights, CONFIG_OF_TWO)
    places = weights["encoder/position_encodings/encodings"]
    torch.testing.assert_close(encoder.place.detach(), places.mean(0))
    expand = encoder.layers[1].get_parameter("expand.weight")
    assert torch.equal(expand.detach(), weights["encoder/layer_1/ffn/linear_0/weight"])
    assert not any(layer.distance.any() for layer in encoder.layers)


CONFIG_OF_TWO = SpeechEncoderConfig(width=16, heads=2, behind=5, ahead=(1, 1))


def test_other_weights_are_no_whisper_encoder() -> None:
    weights = whisper_weights()
    with pytest.raises(WeightsError, match="32 wide on 80 bands"):
        encoder_of_whisper(weights, SpeechEncoderConfig(width=32, heads=2, ahead=(1, 1)))
    del weights["encoder/conv2/bias"]
    with pytest.raises(WeightsError, match="hold no encoder/conv2/bias"):
        encoder_of_whisper(weights, CONFIG_OF_TWO)


# --- files of CTranslate2 -----------------------------------------------------------------------


TENSORS = {
    "encoder/a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "encoder/half": np.array([0.5, -1.5], np.float16),
    "encoder/scalar": np.array(3, np.int8),
}


def test_the_floats_of_a_ctranslate2_file(tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(ctranslate2(TENSORS) + b"aliases")
    given = read_ctranslate2(path)
    assert sorted(given) == ["encoder/a", "encoder/half"]
    for name, value in given.items():
        assert value.dtype == torch.float32
        assert np.array_equal(value.numpy(), TENSORS[name])


def many(count: int) -> bytes:
    data = ctranslate2({})
    return data[:-4] + struct.pack("<I", count)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"nothing of the kind",
        ctranslate2(TENSORS, version=5),
        *(ctranslate2(TENSORS)[:length] for length in (3, 20, 40, 60, -1)),
        many(2**31),
        many(3),
        ctranslate2(TENSORS).replace(struct.pack("<II", 2, 3), struct.pack("<II", 2, 4)),
    ],
    ids=["empty", "text", "version", *(f"cut {i}" for i in range(5)), "many", "none", "shape"],
)
def test_a_damaged_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    with pytest.raises(WeightsError, match=r"model\.bin: not a CTranslate2 model of version 6"):
        read_ctranslate2(path)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="cannot be read"):
        read_ctranslate2(tmp_path / "none.bin")


def test_log_mel_hears_the_same_in_parts() -> None:
    mel, wave = LogMel(), sound()
    none, quiet = torch.zeros(1, 0), torch.full((1,), QUIETEST)
    whole, _, _ = mel(wave, none, quiet)
    cut = 20 * STEP
    first, energy, level = mel(wave[:, : cut + SPECTRUM - STEP], none, quiet)
    second, _, _ = mel(wave[:, cut:], energy, level)
    torch.testing.assert_close(torch.cat((first, second), 2), whole, atol=1e-4, rtol=0)
