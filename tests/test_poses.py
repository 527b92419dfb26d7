"""What a face does with a sound, as other tools read it."""

import json
import runpy
import sys
import tracemalloc
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import stillspeak
from stillspeak.animate import Animator
from stillspeak.cli import app as cli
from stillspeak.constants import BLINK_PEAK
from stillspeak.errors import AudioError, ConfigError, OutputExistsError
from stillspeak.face.mouth import POSE_POINTS
from stillspeak.media.audio import frame_windows
from stillspeak.motion.frames import FaceMotion, unit
from stillspeak.motion.shapes import BLENDSHAPES, VISEMES, Viseme, VisemeReader, blendshapes
from stillspeak.options import AnimateOptions
from stillspeak.poses import PoseFrame, PoseTrack
from stillspeak.synthesis import CHUNK, Performer
from stillspeak.weights import load_model
from support.animate import (
    lively,
    portrait,
    save_lively,
    shared_detector,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)

RATE = 16_000


@pytest.fixture(scope="module")
def animator():
    return Animator(lively("layers"), detector=shared_detector())


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command line in an empty folder: exit code, standard output and error."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stillspeak", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code or 0, *capsys.readouterr()

    return run


def frames(track: PoseTrack) -> list[PoseFrame]:
    return [one for one in track if isinstance(one, PoseFrame)]


def shape(weights: np.ndarray, name: str) -> float:
    return float(weights[..., BLENDSHAPES.index(name)].squeeze())


def test_the_mouth_is_the_one_that_a_video_of_the_same_sound_shows(animator):
    sound, options = speech(1.0), AnimateOptions(seed=5, mood="happy")
    face = animator.synthesizer(portrait(), options)
    windows = frame_windows(sound, face.engine.config.window, 640)
    drawn = [face.compute(windows[at : at + CHUNK]) for at in range(0, len(windows), CHUNK)]
    poses = np.concatenate([decoded.pose[0].numpy() for decoded, _ in drawn])
    heads = np.concatenate([motion.head for _, motion in drawn])
    found = frames(stillspeak.hear_poses((sound, RATE), options, animator=animator))
    assert [one.time for one in found] == [index / 25 for index in range(25)]
    assert np.array_equal([one.pose for one in found], poses)
    assert np.array_equal([one.head for one in found], heads)
    assert np.abs(poses).max() > 0.01


def test_how_the_sound_is_cut_changes_nothing(animator):
    sound = speech(1.3)

    def performed(size: int) -> np.ndarray:
        pieces = (sound[at : at + size] for at in range(0, len(sound), size))
        steps = Performer(animator.engine, AnimateOptions()).perform(pieces)
        return np.concatenate([decoded.pose[0].numpy() for decoded, _ in steps])

    whole = performed(len(sound))
    assert len(whole) == 32  # whole frames in 1.3 s
    for size in (100, 7001):
        assert np.array_equal(performed(size), whole)


@pytest.mark.parametrize(("fps", "count"), [(25, 20), (50, 40), (30, 24), (24, 19), (29.97, 23)])
def test_other_rates_are_those_of_a_video_with_the_same_option(animator, fps, count):
    sound, options = speech(0.8), AnimateOptions(fps=fps)
    found = list(stillspeak.hear_poses((sound, RATE), options, animator=animator))
    visemes = [one for one in found if isinstance(one, Viseme)]
    found = [one for one in found if isinstance(one, PoseFrame)]
    steps = list(Performer(animator.engine, options).perform([sound]))
    poses = np.concatenate([decoded.pose[0].numpy() for decoded, _ in steps])
    assert len(found) == len(poses) == count
    np.testing.assert_allclose([one.pose for one in found], poses, atol=1e-6)
    rate = float(options.frame_rate(25))
    assert [one.time for one in found] == pytest.approx(np.arange(count) / rate)
    usual = stillspeak.hear_poses((sound, RATE), animator=animator)
    assert visemes == [one for one in usual if isinstance(one, Viseme)]


def test_a_file_holds_a_header_frames_and_visemes_that_follow_each_other(animator, tmp_path):
    path = tmp_path / "poses.jsonl"
    track = stillspeak.hear_poses((speech(1.0), RATE), animator=animator)
    assert track.save(path) == 25
    with pytest.raises(OutputExistsError, match=r"poses\.jsonl: exists already"):
        track.save(path)
    header, *lines = map(json.loads, path.read_text("utf-8").splitlines())
    assert (header["format"], header["version"], header["fps"]) == ("stillspeak-poses", 1, 25)
    assert header["points"] == list(POSE_POINTS)
    assert header["blendshapes"] == list(BLENDSHAPES)
    seen = [line for line in lines if "time" in line]
    assert np.shape([line["pose"] for line in seen]) == (25, 41, 2)
    weights = np.array([line["blendshapes"] for line in seen])
    assert weights.shape == (25, 52) and weights.min() >= 0 and weights.max() <= 1
    still = [name for name, column in zip(BLENDSHAPES, weights.T, strict=True) if not column.any()]
    assert set(header["always_0"]) <= set(still)
    visemes = [line for line in lines if "viseme" in line]
    assert visemes[0]["start"] == 0 and visemes[-1]["end"] == 1
    for before, after in pairwise(visemes):
        assert before["end"] == after["start"] and before["viseme"] != after["viseme"]
    for line in visemes:
        assert line["viseme"] in header["visemes"] == {k: list(v) for k, v in VISEMES.items()}
        told = lines.index(line)  # it comes when it has ended
        assert sum("time" in one for one in lines[:told]) >= round(line["end"] * 25)


def test_the_released_model_opens_the_jaw_for_speech_and_shuts_the_lips_for_silence():
    sound = files("stillspeak").joinpath("resources", "speech.flac").read_bytes()
    speech_, rate = stillspeak.load_audio(sound)[: 3 * RATE], RATE
    padded = np.concatenate((np.zeros(RATE, np.float32), speech_))
    track = list(stillspeak.hear_poses((padded, rate)))
    jaws = np.array([shape(one.blendshapes, "jawOpen") for one in track if len(one) == 5])
    assert jaws[5:20].max() < 0.1 < jaws[25:].max()
    names = {one.name for one in track if isinstance(one, Viseme)}
    assert {"sil", "PP", "ou", "E", "DD"} <= names
    first = next(one for one in track if isinstance(one, Viseme))
    assert first.name == "sil" and 0.9 < first.end < 1.4


def test_eyes_brows_and_moods_are_in_arkits_names():
    motion = FaceMotion.rest(1)
    poses = np.zeros((1, 41, 2))
    assert not blendshapes(poses, motion).any()
    motion.closure[:] = BLINK_PEAK[0]
    motion.gaze[:] = (15, -6)
    motion.units[:, unit("inner_brow_raiser")] = 0.5
    motion.units[:, unit("lip_corner_puller")] = 2.0
    weights = blendshapes(poses, motion)
    assert shape(weights, "eyeBlinkLeft") == shape(weights, "eyeBlinkRight") == 1
    # The picture's right is the person's left.
    assert shape(weights, "eyeLookOutLeft") == shape(weights, "eyeLookInRight") == 0.5
    assert shape(weights, "eyeLookOutRight") == shape(weights, "eyeLookDownLeft") == 0
    assert shape(weights, "eyeLookUpLeft") == pytest.approx(0.2)
    assert shape(weights, "browInnerUp") == 0.5
    assert shape(weights, "mouthSmileLeft") == 1


def test_an_open_mouth_is_an_open_jaw_and_a_narrow_one_a_pucker():
    engine = load_model()
    assert engine.predicts_poses
    lips = np.zeros((2, 41, 2))
    lower = [index for index, point in enumerate(POSE_POINTS) if point in (14, 87, 317, 17, 152)]
    lips[0, lower, 1] = 0.25
    corners = [POSE_POINTS.index(point) for point in (61, 78, 291, 308)]
    lips[1, corners, 0] = (0.1, 0.1, -0.1, -0.1)
    weights = blendshapes(lips, FaceMotion.rest(2))
    assert shape(weights[0], "jawOpen") > 0.3 > shape(weights[1], "jawOpen")
    assert shape(weights[1], "mouthPucker") > 0.1


def test_visemes_read_frame_by_frame_end_where_the_poses_do():
    reader = VisemeReader(25)
    assert reader.finish() == []
    reader = VisemeReader(25)
    assert reader.feed(np.zeros((41, 2))) == []
    (only,) = reader.finish()
    assert (only.start, only.end) == (0, 1 / 25)


def test_long_sound_takes_no_more_memory(tmp_path):
    model = lively("layers")

    def most(seconds: float) -> int:
        path = write_wav(tmp_path / f"{seconds}.wav", speech(seconds))
        track = stillspeak.hear_poses(path, model=model, blink=0, expression=0, head_motion=0)
        tracemalloc.start()
        for _ in track.lines():
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return peak

    most(1)
    assert most(6) < most(2) + 2**19


def test_mistakes_are_one_line_and_leave_nothing(tmp_path, animator):
    silent = write_wav(tmp_path / "silent.wav", np.zeros(RATE, np.float32))
    short = write_wav(tmp_path / "short.wav", speech(0.1))
    out = tmp_path / "out.jsonl"
    for path, why in ((silent, "holds only silence"), (short, "too short")):
        with pytest.raises(AudioError, match=why):
            stillspeak.hear_poses(path, animator=animator).save(out)
    with pytest.raises(ConfigError, match="fps: must be at least 1, not 0"):
        stillspeak.hear_poses(silent, animator=animator, fps=0)
    with pytest.raises(ConfigError, match="paints frames and has no poses"):
        stillspeak.hear_poses(silent, model=lively("unet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["short.wav", "silent.wav"]


def test_the_command_writes_what_the_function_does(run, tmp_path):
    write_wav(tmp_path / "speech.wav", speech(0.6))
    save_lively(tmp_path / "tiny.safetensors", "layers")
    command = ("poses", "speech.wav", "--model", "tiny.safetensors", "--mood", "sad")
    code, out, _ = run(*command, "-o", "out.jsonl", "--json")
    told = json.loads(out)
    assert (code, told["frames"], told["fps"]) == (0, 15, 25)
    track = stillspeak.hear_poses("speech.wav", model="tiny.safetensors", mood="sad")
    assert (tmp_path / "out.jsonl").read_text("utf-8").splitlines() == list(track.lines())
    assert run(*command, "-o", "-")[1].splitlines() == list(track.lines())
    assert run(*command, "-o", "out.jsonl")[0] == 1
    assert run(*command, "-o", "out.jsonl", "--overwrite", "-q") == (0, "", "")
    assert run("poses", "speech.wav")[0] == 2
    assert run("poses", "none.wav", "-o", "x.jsonl")[2].startswith("stillspeak: none.wav: ")
    assert not (tmp_path / "x.jsonl").exists()


def test_animate_writes_the_same_beside_its_video(run, tmp_path, monkeypatch):
    use_shared_detector(monkeypatch)
    write_wav(tmp_path / "speech.wav", speech(0.4))
    write_picture(tmp_path / "photo.png", portrait())
    save_lively(tmp_path / "tiny.safetensors", "layers")
    command = "animate photo.png speech.wav -o out.gif --model tiny.safetensors --seed 4 --no-mark"
    assert run(*command.split(), "--export", "poses.jsonl")[0] == 0
    assert (tmp_path / "out.gif").exists()
    track = stillspeak.hear_poses("speech.wav", model="tiny.safetensors", seed=4)
    assert (tmp_path / "poses.jsonl").read_text("utf-8").splitlines() == list(track.lines())


def test_the_example_makes_curves_that_pass_through_every_frame(animator, tmp_path, capsys):
    path, out = tmp_path / "poses.jsonl", tmp_path / "curves.json"
    track = stillspeak.hear_poses((speech(1.0), RATE), animator=animator)
    track.save(path)
    example = runpy.run_path(str(Path(__file__).parents[1] / "examples" / "blendshapes.py"))
    example["main"](path, out)
    made = json.loads(out.read_text("utf-8"))
    seen = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    seen = [line for line in seen if "time" in line]
    assert made["fps"] == 25 and made["visemes"]
    for place, name in enumerate(BLENDSHAPES):
        weights = [line["blendshapes"][place] for line in seen]
        keys = made["curves"].get(name, [[0, 0], [1, 0]])
        found = np.interp([line["time"] for line in seen], *zip(*keys, strict=True))
        np.testing.assert_allclose(found, weights, atol=1e-9)
    told = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert told and set(told) == set(made["curves"])
