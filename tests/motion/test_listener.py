"""Moods are heard frame by frame: calm when unsure, the same whatever the portions."""

import json
import os
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from stillspeak.errors import ConfigError, WeightsError
from stillspeak.media.audio import frame_windows, load_audio
from stillspeak.models.engine import InferenceEngine
from stillspeak.models.mood import EMOTIONS, MOOD_FORMAT, MoodClassifier, MoodConfig
from stillspeak.models.speech import SpeechEncoder, SpeechEncoderConfig
from stillspeak.motion.listener import SHOWN, VISIBLE, MoodListener, check_encoder, load_mood
from stillspeak.motion.moods import MOODS
from stillspeak.weights import load_model, read_info
from support.animate import lively

RESOURCE = Path(str(files("stillspeak"))) / "resources" / "mood.safetensors"
SPEECH = Path(os.environ.get("STILLSPEAK_SPEECH", Path(__file__).parents[3] / "shared" / "speech"))
SECOND = 25


@pytest.fixture(scope="module")
def engine() -> InferenceEngine:
    return InferenceEngine(load_model())


@torch.inference_mode()
def heard(engine: InferenceEngine, sound: np.ndarray) -> torch.Tensor:
    """(1, 2 T, D) features as they come in use."""
    config = engine.config
    windows = torch.tensor(frame_windows(sound.astype(np.float32), config.window, config.hop))
    none = torch.zeros(1, len(windows), 0)
    decoded, _ = engine.step(None, windows[None], none, engine.initial_state())
    assert decoded.features is not None
    return decoded.features


# --- a classifier whose answers are known -------------------------------------------------------


def plain() -> MoodClassifier:
    """Of width 8: feature 0 says whether somebody speaks, feature 1 + k how emotion k sounds."""
    network = MoodClassifier(MoodConfig(width=8, sure=0.8, doubtful=0.5))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        network.speaks.weight[0, 0] = 20.0
        for emotion in range(len(EMOTIONS)):
            network.emotion.weight[emotion, 1 + emotion] = 10.0
    return network.eval()


def voice(emotion: str | None, seconds: float, strength: float = 1.0) -> np.ndarray:
    """(1, 2 T, 8) features of somebody who sounds like that; None: nobody speaks."""
    features = np.zeros((1, int(2 * SECOND * seconds), 8), np.float32)
    features[..., 0] = -1 if emotion is None else 1
    if emotion is not None:
        features[..., 1 + EMOTIONS.index(emotion)] = strength
    return features


def column(emotion: str) -> int:
    return MOODS.index(SHOWN[emotion])


@pytest.mark.parametrize("emotion", SHOWN)
def test_an_emotion_shows_as_its_mood(emotion: str) -> None:
    shown = MoodListener(network=plain()).hear(voice(emotion, 4))
    assert shown.shape == (4 * SECOND, len(MOODS)) and shown.dtype == np.float32
    assert shown[-1].argmax() == column(emotion) and shown[-1].max() > 0.9
    assert np.abs(shown.sum(1) - 1).max() < 1e-5 and shown.min() >= 0


@pytest.mark.parametrize("emotion", ["neutral", "boredom"])
def test_boredom_looks_neutral(emotion: str) -> None:
    shown = MoodListener(network=plain()).hear(voice(emotion, 4))
    assert np.array_equal(shown, np.eye(len(MOODS), dtype=np.float32)[[0] * (4 * SECOND)])


def test_the_first_second_of_speech_is_calm_and_then_it_comes_gently() -> None:
    happy = MoodListener(network=plain()).hear(voice("happiness", 4))[:, column("happiness")]
    assert not happy[:SECOND].any()
    # After a pause of any length as well.
    later = np.concatenate((voice(None, 30), voice("happiness", 4)), 1)
    late = MoodListener(network=plain()).hear(later)[30 * SECOND :, column("happiness")]
    assert not late[:SECOND].any() and late[-1] > 0.9
    assert np.abs(np.diff(happy)).max() < 0.12
    begin = int(np.flatnonzero(happy)[0])
    assert 0.8 < happy[begin + SECOND] < 0.97


def test_a_mood_fades_when_nobody_speaks() -> None:
    listener = MoodListener(network=plain())
    assert listener.hear(voice("anger", 5))[-1, column("anger")] > 0.9
    after = listener.hear(voice(None, 10))
    angry = after[:, column("anger")]
    assert angry[SECOND // 2] > 0.9  # a breath between two words
    angry = angry[SECOND:]
    assert (np.diff(angry) <= 0).all() and np.abs(np.diff(angry)).max() < 0.05
    assert angry[5 * SECOND] < VISIBLE and after[-1, 0] == 1 and not after[-1, 1:].any()


def test_it_begins_when_sure_and_ends_when_doubtful(monkeypatch: pytest.MonkeyPatch) -> None:
    listener = MoodListener(network=plain())
    listener.hear(voice("neutral", 3))
    seen = []
    for chance in (0.7, 0.79, 0.85, 0.7, 0.55, 0.45, 0.7):
        said = np.array([1 - chance, 0, 0, chance, 0, 0, 0])
        monkeypatch.setattr(listener, "probabilities", lambda said=said: said)
        seen.append(listener.hear(voice("neutral", 4))[-1, column("anger")])
    assert seen[:2] == [0, 0] and seen[5] < 0.05 and seen[6] < seen[5] + 1e-6
    assert np.allclose(seen[2:5], [0.7, 0.4, 0.1], atol=0.05)


def test_another_mood_takes_over_and_surprise_is_never_heard() -> None:
    listener = MoodListener(network=plain())
    sounds = [voice("sadness", 5), voice("fear", 8), voice("disgust", 8)]
    shown = np.concatenate([listener.hear(sound) for sound in sounds])
    assert shown[5 * SECOND - 1, column("sadness")] > 0.9
    assert shown[13 * SECOND - 1, column("fear")] > 0.9
    assert shown[-1, column("disgust")] > 0.9 and shown[-1, column("sadness")] < 0.01
    assert shown.sum(1).max() < 1 + 1e-5 and not shown[:, MOODS.index("surprised")].any()


def portions(count: int, seed: int) -> Iterator[int]:
    random = np.random.default_rng(seed)
    while count:
        taken = min(int(random.integers(1, 30)), count)
        yield taken
        count -= taken


def test_portions_change_no_bit() -> None:
    random = np.random.default_rng(1)
    network = plain()
    with torch.no_grad():
        network.speaks.weight.normal_(0, 2, generator=torch.Generator().manual_seed(1))
    features = random.normal(0, 1, (1, 2 * 400, 8)).astype(np.float32)
    features[..., 4] += np.sin(np.arange(800) / 60)
    whole = MoodListener(network=network).hear(features)
    assert whole[:, 1:].max() > VISIBLE  # something is heard
    for parts in ([1] * 400, list(portions(400, 1)), list(portions(400, 2))):
        listener, at, given = MoodListener(network=network), 0, []
        for count in parts:
            given.append(listener.hear(features[:, 2 * at : 2 * (at + count)].copy()))
            at += count
        assert np.array_equal(np.concatenate(given), whole)
    assert np.array_equal(MoodListener(network=network).hear(torch.tensor(features)), whole)


def test_nothing_grows_with_the_sound() -> None:
    def kept(thing: object) -> int:
        values = vars(thing).values()
        return sum(value.nbytes if isinstance(value, np.ndarray) else 1 for value in values)

    listener = MoodListener(network=plain())
    listener.hear(voice("anger", 1))
    before = kept(listener) + kept(listener._pool)
    for _ in range(60):
        listener.hear(voice("fear", 2))
        listener.hear(voice(None, 2))
    assert kept(listener) + kept(listener._pool) == before
    assert listener._pool.heard <= 50 * plain().config.memory + 1


# --- the released one ---------------------------------------------------------------------------


def test_the_resource_says_how_it_was_made_and_how_well_it_hears() -> None:
    header = read_info(RESOURCE)
    info = header["info"]
    assert {"command", "data", "licence", "scores"} <= info.keys()
    assert "EMO-DB" in info["data"] and "LibriSpeech" in info["data"] and "CC BY" in info["data"]
    assert info["scores"]["unweighted recall, EMO-DB, one speaker left out"] >= 0.7
    (read,) = (name for name in info["scores"] if "LibriSpeech" in name)
    assert info["scores"][read] >= 0.9
    assert RESOURCE.stat().st_size < 40_000
    with safe_open(RESOURCE, "np") as file:
        assert file.metadata()["format"] == MOOD_FORMAT
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds == {np.dtype(np.float16)}


def test_the_released_encoder_is_known_and_another_one_is_refused(engine: InferenceEngine) -> None:
    check_encoder(engine.speech)
    MoodListener(engine.speech)
    torch.manual_seed(0)
    for other in (SpeechEncoder(SpeechEncoderConfig()), lively("layers").speech):
        with pytest.raises(ConfigError, match="has another one; use the default model"):
            MoodListener(other)
    with pytest.raises(ConfigError, match="has no speech encoder"):
        MoodListener(lively("unet").speech)


def test_a_damaged_resource_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mood.safetensors"
    path.write_bytes(RESOURCE.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=r"mood\.safetensors"):
        load_mood(path)
    path.write_bytes(RESOURCE.read_bytes().replace(json.dumps(512).encode(), b"256", 1))
    with pytest.raises(WeightsError):
        load_mood(path)


def test_the_bundled_sentence_and_silence_are_neutral(engine: InferenceEngine) -> None:
    sentence = load_audio(RESOURCE.parent / "speech.flac")[: 16_000 * 6]
    random = np.random.default_rng(0)
    hiss = 0.003 * random.standard_normal(16_000 * 3)
    for sound in (sentence, np.zeros(16_000 * 3), hiss):
        shown = MoodListener(engine.speech).hear(heard(engine, np.asarray(sound)))
        assert shown[:, 1:].max() < VISIBLE
    assert shown[:, 0].min() == 1  # of hiss, nothing at all


@pytest.mark.skipif(not (SPEECH / "emodb").is_dir(), reason=f"no EMO-DB in {SPEECH}")
@pytest.mark.parametrize("name", ["03a01Wa", "03a01Fa", "15a04Ac", "16b10Td", "16b10Eb", "03a01Nc"])
def test_emotions_that_it_was_taught_are_heard(engine: InferenceEngine, name: str) -> None:
    (path,) = (SPEECH / "emodb").rglob(f"{name}.*")
    sound = np.tile(np.asarray(load_audio(path)), 3)
    mood = {
        "W": "angry",
        "F": "happy",
        "A": "fearful",
        "T": "sad",
        "E": "disgusted",
        "N": "neutral",
    }
    shown = MoodListener(engine.speech).hear(heard(engine, sound))
    assert MOODS[int(shown[-1].argmax())] == mood[name[5]]
