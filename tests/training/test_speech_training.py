"""What the default model learns: a speech encoder from Whisper's, and the mouth's pose from it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from stillspeak.data.cache import CachedClip, load_manifest
from stillspeak.data.channel import ChannelConfig
from stillspeak.errors import ConfigError, DataError, TrainingError
from stillspeak.face.mouth import opening_of
from stillspeak.models.pose import PoseConfig
from stillspeak.models.speech import SPEECH_FORMAT, TOKEN, SpeechEncoderConfig
from stillspeak.models.whisper import WhisperEncoder, encoder_of_whisper
from stillspeak.training.auxiliary.distillation import (
    DistillationObjective,
    Recordings,
    SpeechDataConfig,
    set_distances,
)
from stillspeak.training.auxiliary.pose import (
    PoseDataConfig,
    PoseObjective,
    load_lips,
    pose_basis,
)
from stillspeak.training.run import RunOptions, train
from stillspeak.weights import load_model, load_speech_encoder, read_info
from support.animate import speech, write_wav
from support.whisper import ctranslate2, whisper_weights

ROOT = Path(__file__).resolve().parents[2]
ENCODER = SpeechEncoderConfig(width=16, heads=2, behind=6, ahead=(1, 1))

SPEECH = """
[speech]
width = 16
heads = 2
behind = 6
ahead = [1, 1]
[speech_data]
batch = 2
seconds = 1.0
held_out = 3
[channel]
codec = 0.0
[training]
steps = 6
learning_rate = 3e-3
warmup_steps = 1
ema = 0.5
validate_every = 3
log_every = 1
precision = "32-true"
"""

POSE = """
[pose]
hidden = 8
basis = 3
[pose_data]
sequences = 5
seconds = 2.0
frames = 25
batch = 3
[channel]
codec = 0.0
[training]
steps = 40
learning_rate = 1e-2
warmup_steps = 2
ema = 0.5
validate_every = 20
log_every = 1
precision = "32-true"
"""


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("whisper") / "model.bin"
    weights = {name: value.numpy() for name, value in whisper_weights().items()}
    path.write_bytes(ctranslate2(weights))
    return path


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six speakers of two corpora, two sounds each."""
    folder = tmp_path_factory.mktemp("speech")
    for seed, place in enumerate(("one/a", "one/b", "one/c", "two/d", "two/e", "two/f")):
        (folder / place).mkdir(parents=True)
        for name, seconds in (("short", 0.6), ("long", 1.7)):
            write_wav(folder / place / f"{name}.wav", speech(seconds, seed))
    return folder


@pytest.fixture(scope="module")
def encoder(teacher: Path, recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A speech encoder's weights file, as a run writes it."""
    folder = tmp_path_factory.mktemp("encoder")
    run_speech(folder, teacher, recordings, "training.steps=2")
    return folder / "run" / "last.safetensors"


def run_speech(
    folder: Path, teacher: Path, data: Path, *more: str, resume: bool = False, **options: Any
) -> str:
    config = folder / "speech.toml"
    config.write_text(SPEECH)
    overrides = (f"speech_data.teacher={teacher}", *more)
    return train(
        RunOptions(config, data, folder / "run", overrides, resume, device="cpu"), **options
    )


def run_pose(
    folder: Path, encoder: Path, data: Path, *more: str, resume: bool = False, **options: Any
) -> str:
    config = folder / "pose.toml"
    config.write_text(POSE)
    overrides = (f"pose_data.speech={encoder}", *more)
    return train(
        RunOptions(config, data, folder / "run", overrides, resume, device="cpu"), **options
    )


def rows(folder: Path, kind: str) -> list[dict[str, Any]]:
    lines = (folder / "run" / "metrics.jsonl").read_text("utf-8").splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == kind]


def same_weights(one: Path, other: Path) -> bool:
    a, b = load_file(one), load_file(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


# --- recordings ---------------------------------------------------------------------------------


def test_recordings_are_drawn_by_corpus_and_speaker(recordings: Path) -> None:
    found = Recordings(recordings, 3)
    assert found.speakers + len(found.apart) // 2 == 6 and found.apart
    assert not found.left_out
    for length in (8000, 40_000):
        drawn = found.draw(length, np.random.default_rng(1))
        assert drawn.shape == (length,) and drawn.dtype == np.float32
        assert 0.01 < np.abs(drawn).max() <= 1
        assert np.array_equal(drawn, found.draw(length, np.random.default_rng(1)))


def test_recordings_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no recordings"):
        Recordings(tmp_path, 2)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bad.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match="no recording can be read"):
        Recordings(tmp_path, 10**6)
    write_wav(tmp_path / "a" / "good.wav", speech(1.0))
    found = Recordings(tmp_path, 10**6)
    assert found.speakers == 1 and len(found.left_out) == 1 and "bad.wav" in found.left_out[0]


# --- the speech encoder -------------------------------------------------------------------------


def speech_objective(teacher: Path, recordings: Path, **data: Any) -> DistillationObjective:
    values = {"teacher": str(teacher), "batch": 2, "seconds": 1.0, "held_out": 3, **data}
    channel = ChannelConfig(codec=0.0)
    return DistillationObjective(ENCODER, SpeechDataConfig(**values), channel, recordings, seed=1)


def test_examples_depend_on_the_step_alone(teacher: Path, recordings: Path) -> None:
    one, other = speech_objective(teacher, recordings), speech_objective(teacher, recordings)
    one.batch(2)
    for a, b in zip(one.batch(5), other.batch(5), strict=True):
        assert torch.equal(a, b) and a.isfinite().all()
    assert not torch.equal(one.batch(5)[0], one.batch(6)[0])
    clean, spoilt, before = one.batch(0)
    tokens = 50
    wanted = TOKEN * (tokens + ENCODER.delay - 1) + 2 * 520
    assert clean.shape == spoilt.shape == (2, wanted) and before.shape == (2,)
    assert spoilt.abs().max() <= 1


def test_the_encoder_starts_as_whispers_layers(teacher: Path, recordings: Path) -> None:
    network = speech_objective(teacher, recordings).network.state_dict()
    weights = encoder_of_whisper(whisper_weights(), ENCODER).state_dict()
    for name, value in weights.items():
        if not name.endswith("distance"):
            assert torch.equal(network[name], value)
    assert network["layers.0.distance"].any()


def test_distances_stand_for_what_positions_did() -> None:
    weights = whisper_weights()
    network, teacher = encoder_of_whisper(weights, ENCODER), WhisperEncoder(weights, 2, 2)
    set_distances(network, teacher, torch.randn(2, 16_000) * 0.1)
    distance = network.layers[0].get_parameter("distance")
    assert distance.shape == (2, 8) and distance.any()
    torch.testing.assert_close(distance.mean(1), torch.zeros(2), atol=1e-5, rtol=0)


def test_a_run_goes_on_as_if_it_had_never_stopped(
    teacher: Path, recordings: Path, tmp_path: Path
) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    for folder in (straight, resumed):
        folder.mkdir()
    assert "all 6 steps" in run_speech(straight, teacher, recordings)
    assert "minutes are over" in run_speech(resumed, teacher, recordings, minutes=0.0)
    assert "all 6 steps" in run_speech(resumed, teacher, recordings, resume=True)
    assert same_weights(*(f / "run" / "last.safetensors" for f in (straight, resumed)))
    losses = [row["loss"] for row in rows(straight, "train")]
    assert len(losses) == 6 and np.isfinite(losses).all()
    assert losses == [row["loss"] for row in rows(resumed, "train")]
    found = rows(straight, "validation")
    assert found[-1]["loss"] < found[0]["loss"]
    assert {"loss", "clean"} <= found[-1].keys()
    network, told = load_speech_encoder(straight / "run" / "best.safetensors")
    assert network.config == ENCODER
    assert told["info"]["speakers"] == Recordings(recordings, 3).speakers
    assert told["info"]["hours"] > 0


def test_a_run_may_start_from_an_encoder_with_other_looks_ahead(
    teacher: Path, recordings: Path, encoder: Path
) -> None:
    objective = speech_objective(teacher, recordings, start=str(encoder))
    known, _ = load_speech_encoder(encoder)
    for name, value in known.state_dict().items():
        assert torch.equal(objective.network.state_dict()[name], value)
    wider = SpeechEncoderConfig(width=16, heads=2, behind=9, ahead=(3, 0))
    data = SpeechDataConfig(teacher=str(teacher), start=str(encoder), batch=1, seconds=1.0)
    other = DistillationObjective(wider, data, ChannelConfig(codec=0.0), recordings, seed=1)
    mine = other.network.layers[0].get_parameter("distance")  # type: ignore[union-attr]
    theirs = known.layers[0].get_parameter("distance")
    assert torch.equal(mine[:, 3:11], theirs)


def test_a_teacher_is_needed(recordings: Path) -> None:
    data = SpeechDataConfig()
    with pytest.raises(ConfigError, match=r"speech_data\.teacher names no file"):
        DistillationObjective(ENCODER, data, ChannelConfig(), recordings, seed=1)


@pytest.mark.parametrize(
    "changes", [{"batch": 0}, {"held_out": 1}, {"seconds": 30.0}, {"speed": 1.0}, {"nothing": -0.1}]
)
def test_speech_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"speech_data\."):
        SpeechDataConfig(**changes)


# --- the pose -----------------------------------------------------------------------------------


def pose_objective(encoder: Path, cache: Path, **data: Any) -> PoseObjective:
    values = {"sequences": 4, "seconds": 2.0, "frames": 25, "batch": 3, **data}
    clips = load_manifest(cache)
    return PoseObjective(
        PoseConfig(hidden=8, basis=3),
        PoseDataConfig(speech=str(encoder), **values),
        ChannelConfig(codec=0.0),
        [c for c in clips if c.split == "train"],
        [c for c in clips if c.split == "validation"],
        seed=1,
    )


def test_lips_are_relative_to_their_rest(speaking_cache: Path) -> None:
    lips = load_lips(load_manifest(speaking_cache)[0])
    assert lips.poses.shape == (20, 41, 2) and lips.audio.shape == (20 * 640,)
    gap = opening_of(lips.poses)
    assert abs(float(gap.min())) < 0.01 < float(gap.max())


def test_a_basis_holds_what_moves() -> None:
    random = np.random.default_rng(0)
    away = random.standard_normal((41, 2)).astype(np.float32)
    from stillspeak.face.mouth import mirrored_points

    symmetric = away + away[mirrored_points()] * np.array([-1, 1], np.float32)
    poses = random.standard_normal((50, 1, 1)).astype(np.float32) * symmetric
    basis = pose_basis([poses], [1.0], 2)
    assert basis.shape == (2, 82)
    first = basis[0] / basis[0].norm()
    wanted = torch.from_numpy(symmetric.ravel())
    assert abs(float(first @ (wanted / wanted.norm()))) == pytest.approx(1, abs=1e-3)
    assert basis[1].norm() < 1e-2 * basis[0].norm()


def test_pose_examples_depend_on_the_step_alone(encoder: Path, speaking_cache: Path) -> None:
    one, other = pose_objective(encoder, speaking_cache), pose_objective(encoder, speaking_cache)
    one.batch(2)
    for a, b in zip(one.batch(5), other.batch(5), strict=True):
        assert torch.equal(a, b)
    features, poses, weight, joined = one.batch(0)
    assert features.shape == (3, 50, 16) and poses.shape == (3, 25, 82)
    assert weight.shape == joined.shape == (3, 25) and weight.min() >= 1


@pytest.mark.parametrize("adversarial", [0.0, 0.1])
def test_a_pose_run_goes_on_as_if_it_had_never_stopped(
    encoder: Path, speaking_cache: Path, tmp_path: Path, adversarial: float
) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    more = f"pose_data.adversarial={adversarial}"
    for folder in (straight, resumed):
        folder.mkdir()
    assert "all 40 steps" in run_pose(straight, encoder, speaking_cache, more)
    assert "minutes are over" in run_pose(resumed, encoder, speaking_cache, more, minutes=0.0)
    assert "all 40 steps" in run_pose(resumed, encoder, speaking_cache, more, resume=True)
    assert same_weights(*(f / "run" / "last.safetensors" for f in (straight, resumed)))
    points = [row["points"] for row in rows(straight, "train")]
    assert np.mean(points[-8:]) < np.mean(points[:8])
    found = rows(straight, "validation")[-1]
    assert {"opening_r", "width_r", "opening_amplitude", "width_amplitude", "score"} <= found.keys()


def test_a_pose_run_writes_a_whole_generator(
    encoder: Path, speaking_cache: Path, tmp_path: Path
) -> None:
    run_pose(tmp_path, encoder, speaking_cache, "training.steps=3")
    path = tmp_path / "run" / "last.safetensors"
    generator = load_model(path)
    assert (generator.config.decoder, generator.config.audio_input) == ("layers", "speech")
    own = generator.context_encoder.speech.state_dict()  # type: ignore[union-attr]
    for name, value in load_speech_encoder(encoder)[0].state_dict().items():
        assert torch.equal(own[name], value)
    info = read_info(path)["info"]
    assert info["speakers"] == {"a": 2, "b": 1}
    assert info["speech"]["steps"] == 2
    assert read_info(encoder)["config"]["width"] == 16


def test_other_voices_speak_the_clips_sentences(
    encoder: Path, speaking_cache: Path, tmp_path: Path
) -> None:
    voices = tmp_path / "voices"
    (voices / "a").mkdir(parents=True)
    with pytest.raises(DataError, match=r"holds no SPEAKER/STEM__VOICE\.wav"):
        pose_objective(encoder, speaking_cache, voices=str(voices))
    write_wav(voices / "a" / "one__x.wav", speech(0.7, seed=3))
    usual = pose_objective(encoder, speaking_cache, made_voice=0.0, other_voice=0.0)
    made = pose_objective(
        encoder, speaking_cache, made_voice=1.0, other_voice=0.0, voices=str(voices)
    )
    assert not torch.equal(usual.batch(0)[0], made.batch(0)[0])


def test_a_speech_encoder_is_needed(speaking_cache: Path) -> None:
    clips: list[CachedClip] = load_manifest(speaking_cache)
    with pytest.raises(ConfigError, match=r"pose_data\.speech names no file"):
        PoseObjective(PoseConfig(), PoseDataConfig(), ChannelConfig(), clips, clips, seed=1)


@pytest.mark.parametrize(
    "changes",
    [{"sequences": 0}, {"seconds": 1.0}, {"made_voice": 2.0}, {"adversarial": -1.0}],
)
def test_pose_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"pose_data\."):
        PoseDataConfig(**changes)


# --- generators beside them ---------------------------------------------------------------------


def test_a_generator_that_draws_nothing_is_trained_by_its_parts(
    speaking_cache: Path, tmp_path: Path
) -> None:
    more = ("generator.decoder=layers", "generator.audio_input=speech", "generator.noise_dim=0")
    with pytest.raises(ConfigError, match=r"configs/speech\.toml and configs/pose\.toml") as error:
        train(
            RunOptions(
                ROOT / "configs" / "smoke.toml", speaking_cache, tmp_path / "run", overrides=more
            )
        )
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_a_generator_cannot_start_from_the_layers(speaking_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="says the mouth's pose"):
        train(
            RunOptions(
                ROOT / "configs" / "smoke.toml",
                speaking_cache,
                tmp_path / "run",
                start_from="layers",
                device="cpu",
            )
        )


@pytest.mark.parametrize("name", ["speech", "pose"])
def test_the_objectives_start_from_nothing_but_their_own(
    name: str, speaking_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--from is for generators"):
        train(
            RunOptions(
                ROOT / "configs" / f"{name}.toml",
                speaking_cache,
                tmp_path / "run",
                start_from="temporal",
            )
        )


def test_weights_say_what_they_are(encoder: Path) -> None:
    assert read_info(encoder)["info"]["steps"] == 2
    assert SPEECH_FORMAT == "stillspeak-speech-1"
