"""``stillspeak dub``: what it prints, what it refuses, and that nothing half-written stays."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stillspeak.cli.app import main
from stillspeak.dub import mouth_model as core
from stillspeak.weights import save_model
from support.animate import shared_detector, speech, write_wav
from support.conceal import talker, talking, write_timed
from support.dub import samples, shown
from support.videos import listing

COUNT = 20
SECONDS = COUNT / 25


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("dub")
    save_model(talker(), folder / "small.safetensors", {"made": "for tests"})
    grey = np.full((10, 128, 128, 3), 120, np.uint8)
    (folder / "text.mp4").write_text("not a video")
    (folder / "taken.mp4").write_bytes(b"of value")
    return SimpleNamespace(
        folder=folder,
        model=folder / "small.safetensors",
        video=write_timed(folder / "a.mp4", talking(COUNT), range(COUNT), speech(SECONDS), crf=12),
        speech=write_wav(folder / "speech.wav", speech(SECONDS, seed=4)),
        grey=write_timed(folder / "grey.mp4", grey, range(10), None),
        text=folder / "text.mp4",
        taken=folder / "taken.mp4",
    )


class Command:
    """The command in this process, with the session's detector."""

    def __init__(self, model: Path, patch: pytest.MonkeyPatch, capsys: Any) -> None:
        patch.setattr(core, "MediaPipeDetector", shared_detector)
        self._model, self._patch, self._capsys = model, patch, capsys

    def __call__(self, *arguments: Any) -> tuple[int, str, str]:
        """Exit code, standard output and error."""
        words = ["stillspeak", "dub", *map(str, arguments), "--model", str(self._model)]
        self._patch.setattr(sys, "argv", words)
        self._capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def dub(files, monkeypatch, capsys) -> Command:
    return Command(files.model, monkeypatch, capsys)


def test_the_mouth_changes_and_the_rest_does_not(files, dub, tmp_path):
    output = tmp_path / "out.mp4"
    code, out, err = dub(files.video, files.speech, "-o", output, "--crf", 0)
    assert (code, "Traceback" in err) == (0, False)
    assert f"{output}: 20 of 20 frames with a new mouth, 0.80 s" in out
    assert shown(output) == shown(files.video)
    changed = [
        new[0] != old[0] for new, old in zip(samples(output), samples(files.video), strict=True)
    ]
    where = np.logical_or.reduce(changed)
    assert 0.005 < where.mean() < 0.25
    assert not where[:90].any()  # of 256 lines: eyes and forehead
    assert sum(one.any() for one in changed) == 20


def test_standard_input_is_a_sound_and_the_record_is_json(files, dub, tmp_path, monkeypatch):
    output = tmp_path / "out.mkv"
    code, out, err = dub(files.video, files.speech, "-o", tmp_path / "first.mkv", "--no-mark", "-q")
    assert (code, out, err) == (0, "", "")
    given = SimpleNamespace(buffer=io.BytesIO(files.speech.read_bytes()))
    monkeypatch.setattr(sys, "stdin", given)
    code, out, err = dub(files.video, "-", "-o", output, "--no-mark", "--json", "-q")
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert (record["frames"], record["generated"], record["without_face"]) == (20, 20, 0)
    assert (record["seconds"], record["cuts"], record["reasons"]) == (0.8, 0, {})
    assert record["notes"] == [] and record["took"] > 0
    for one, other in zip(samples(output), samples(tmp_path / "first.mkv"), strict=True):
        assert all(map(np.array_equal, one, other))


MISTAKES = [
    (["nowhere.mp4", "SPEECH"], 1, "nowhere.mp4: no such file"),
    (["VIDEO", "nowhere.wav"], 1, "nowhere.wav: no such file"),
    (["TEXT", "SPEECH"], 1, "text.mp4: not a video"),
    (["VIDEO", "TEXT"], 1, "text.mp4: not a sound"),
    (["VIDEO", "GREY"], 1, "grey.mp4: has no sound track"),
    (["SPEECH", "SPEECH"], 1, "speech.wav: has no picture track"),
    (["GREY", "SPEECH"], 1, "grey.mp4"),
    (["VIDEO", "SPEECH", "-o", "out.avi"], 1, "suffix .avi"),
    (["VIDEO", "SPEECH", "-o", "nowhere/out.mp4"], 1, "nowhere"),
    (["VIDEO", "SPEECH", "-o", "VIDEO"], 1, "is the video that is read"),
    (["VIDEO", "SPEECH", "-o", "TAKEN"], 1, "exists already"),
    (["VIDEO", "SPEECH", "--fit", "stretch"], 2, "'stretch' is not one of"),
    (["VIDEO", "SPEECH", "--keep-background-sound", "2"], 2, "less than or"),
    (["VIDEO", "SPEECH", "--face", "9"], 1, "face"),
    (["VIDEO", "SPEECH", "--device", "abacus"], 2, "'abacus' is not one of"),
    (["VIDEO", "SPEECH", "--no-mark", "--certificate", "a.pem"], 2, "--no-mark forbids"),
]


@pytest.mark.parametrize(("words", "code", "said"), MISTAKES)
def test_a_mistake_is_said_in_a_line_and_leaves_nothing(
    files, dub, tmp_path, monkeypatch, words, code, said
):
    monkeypatch.chdir(tmp_path)
    before = listing(files.folder)
    names = {
        name.upper(): getattr(files, name) for name in ("video", "speech", "grey", "text", "taken")
    }
    given = [*words, *([] if "-o" in words else ["-o", "out.mp4"])]
    ended, out, err = dub(*(names.get(word, word) for word in given), "-q")
    assert ended == code, err
    assert said in " ".join(err.split())
    assert "Traceback" not in err and out == ""
    if code == 1:
        assert err.startswith("stillspeak: ") and err.count("\n") == 1
    assert listing(tmp_path) == [] and listing(files.folder) == before
    assert files.taken.read_bytes() == b"of value"
