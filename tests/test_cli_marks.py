"""``stillspeak inspect``, and the marks that ``animate`` leaves unless it is told not to."""

import hashlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner

from stillspeak.cli import app as cli
from stillspeak.media.marks.certificates import own_root
from stillspeak.media.marks.inspection import inspect_file
from stillspeak.media.video import iter_frames
from stillspeak.media.video_writer import write_video
from support.animate import (
    portrait,
    save_lively,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)
from support.marks import flipped, marks, origin, speaking

pytestmark = pytest.mark.e2e


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line as the console script does: exit code, stdout, stderr."""
    use_shared_detector(monkeypatch)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stillspeak", *map(str, arguments)])
        capsys.readouterr()
        code: Any = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def files(tmp_path, monkeypatch):
    write_picture(tmp_path / "photo.png", portrait())
    write_wav(tmp_path / "speech.wav", speech(0.4))
    save_lively(tmp_path / "tiny.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """One file of every verdict."""
    folder = tmp_path_factory.mktemp("verdicts")
    write_video(folder / "intact.mp4", speaking(5), marks=marks(1))
    flipped(folder / "intact.mp4", -40).rename(folder / "tampered.mp4")
    write_video(folder / "re-encoded.webm", speaking(5), marks=marks(1))
    write_video(folder / "unmarked.mp4", speaking(5))
    return folder


# --- inspect ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code"),
    [("intact.mp4", 0), ("re-encoded.webm", 3), ("unmarked.mp4", 4), ("tampered.mp4", 6)],
)
def test_every_verdict_has_its_word_and_its_exit_code(run, examples, name, code):
    verdict = name.split(".")[0]
    got, out, err = run("inspect", examples / name)
    assert (got, err) == (code, "")
    assert out.splitlines()[0].startswith(f"{examples / name}: {verdict} (")
    got, out, _ = run("inspect", examples / name, "--json")
    assert got == code
    table = json.loads(out)
    assert (table["file"], table["verdict"]) == (str(examples / name), verdict)
    assert (table["credentials"] is None) == (verdict in ("re-encoded", "unmarked"))
    assert table["watermark"]["present"] == (verdict != "unmarked")


def test_the_text_tells_what_is_known(run, examples):
    _, out, _ = run("inspect", examples / "intact.mp4")
    for part in (
        "signed by   installation",
        "a self-made certificate that is trusted here",
        "c2pa.created, c2pa.watermarked.bound",
        "trainedAlgorithmicMedia",
        f"alive, SHA-256 {64 * 'a'}",
        f"still       SHA-256 {1:064x}",
        f"watermark   {origin(1).identifier:08x}",
    ):
        assert part in out
    _, out, _ = run("inspect", examples / "tampered.mp4")
    assert "problem     assertion.bmffHash.mismatch" in out
    _, out, _ = run("inspect", examples / "unmarked.mp4")
    assert "watermark   not found" in out


def test_json_tells_the_same(run, examples):
    table = json.loads(run("inspect", examples / "intact.mp4", "--json")[1])
    told = table["credentials"]
    assert told["intact"] and told["self_made"] and told["problems"] == []
    assert told["source_types"] == ["trainedAlgorithmicMedia"]
    assert told["watermark"] == table["watermark"]["identifier"] == f"{origin(1).identifier:08x}"
    assert [one["title"] for one in told["ingredients"]] == ["the still", "the speech"]


def test_of_several_files_the_worst_decides(run, examples):
    names = [examples / "unmarked.mp4", examples / "intact.mp4", examples / "tampered.mp4"]
    code, out, _ = run("inspect", *names)
    assert code == 6
    assert [line.split(": ")[1].split()[0] for line in out.splitlines() if ".mp4: " in line] == [
        "unmarked",
        "intact",
        "tampered",
    ]
    code, out, err = run("inspect", examples / "nowhere.mp4", *names, "--json")
    assert code == 1 and "nowhere.mp4" in err and len(err.splitlines()) == 1
    lines = [json.loads(line) for line in out.splitlines()]
    assert "error" in lines[0] and [line["verdict"] for line in lines[1:]][-1] == "tampered"


def test_whom_to_trust_can_be_said(run, examples, tmp_path, monkeypatch):
    root = tmp_path / "root.pem"
    root.write_text(own_root())
    assert run("inspect", examples / "intact.mp4", "--trust", root)[0] == 0
    monkeypatch.setenv("STILLSPEAK_CONFIG", str(tmp_path / "elsewhere"))
    write_video(tmp_path / "other.mp4", speaking(5), marks=marks(1))
    code, out, _ = run("inspect", tmp_path / "other.mp4", "--trust", root)
    assert code == 5 and "untrusted" in out
    # Without --trust it is what it is: unchanged, by somebody.
    code, out, _ = run("inspect", examples / "intact.mp4")
    assert code == 0 and "a self-made certificate, which anyone can make" in out
    for text, said in (("words", "holds no certificate"), (None, "cannot be read")):
        wrong = tmp_path / "wrong.pem"
        wrong.unlink(missing_ok=True)
        if text is not None:
            wrong.write_text(text)
        code, _, err = run("inspect", examples / "intact.mp4", "--trust", wrong)
        assert code == 1 and said in err and len(err.splitlines()) == 1


def test_what_a_file_says_cannot_steer_the_terminal(run, tmp_path):
    from stillspeak.media.marks.marking import Marks
    from stillspeak.media.marks.origin import Origin

    evil = Marks(Origin("\x1b]0;owned\x07 model", 64 * "a"))
    write_video(tmp_path / "a.mp4", speaking(5), marks=evil)
    _, out, _ = run("inspect", tmp_path / "a.mp4")
    assert "\x1b" not in out and "\x07" not in out and "model" in out


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# --- animate ------------------------------------------------------------------------------------


def test_a_video_is_marked_unless_told_otherwise(run, files):
    common = ("animate", "photo.png", "speech.wav", "--model", "tiny.safetensors")
    code, out, err = run(*common, "-o", "a.mp4", "--json")
    assert (code, err.strip()) == (0, "") or "animating" in err
    found = inspect_file(files / "a.mp4")
    assert found.verdict == "intact"
    identifier = json.loads(out)["identifier"]
    assert re.fullmatch("[0-9a-f]{8}", identifier)
    assert f"{found.watermark.identifier:08x}" == identifier
    told = found.credentials
    assert told.model == "tiny"
    assert (
        told.model_sha256 == hashlib.sha256((files / "tiny.safetensors").read_bytes()).hexdigest()
    )
    made_from = [sha256(files / name) for name in ("photo.png", "speech.wav")]
    assert [one["sha256"] for one in told.ingredients] == made_from
    code, out, err = run(*common, "-o", "b.mp4", "--json", "--no-mark")
    assert code == 0 and json.loads(out)["identifier"] is None
    assert "written without marks; say yourself that it is synthetic" in err
    assert inspect_file(files / "b.mp4").verdict == "unmarked"
    # The same video again has the same identifier: it can be looked up.
    run(*common, "-o", "c.mp4", "-q")
    assert inspect_file(files / "c.mp4").watermark.identifier == found.watermark.identifier
    run(*common, "-o", "d.mp4", "-q", "--seed", 4)
    assert inspect_file(files / "d.mp4").watermark.identifier != found.watermark.identifier


def test_a_label_is_seen(run, files):
    common = ("animate", "photo.png", "speech.wav", "--model", "tiny.safetensors", "-q")
    for name, more in (
        ("plain", ()),
        ("label", ("--label",)),
        ("text", ("--label-text", "Synthetic")),
    ):
        assert run(*common, "-o", f"{name}.mp4", *more)[0] == 0
    first = {
        n: next(iter(iter_frames(files / f"{n}.mp4"))).astype(int)
        for n in ("plain", "label", "text")
    }
    corner = (slice(-30, None), slice(0, 100))
    for name in ("label", "text"):
        assert np.abs(first[name] - first["plain"])[corner].mean() > 20
    assert np.abs(first["label"] - first["text"])[corner].mean() > 5


@pytest.mark.parametrize(
    ("more", "code", "said"),
    [
        (("--label-text", "人"), 1, "not in the font"),
        (("--certificate", "photo.png"), 1, "one of the two is missing"),
        (("--certificate", "a.pem", "--key", "b.pem"), 1, "a.pem: cannot be read"),
        (("--certificate", "a.pem", "--key", "b.pem", "--no-mark"), 2, "--no-mark"),
    ],
)
def test_what_cannot_be_is_said_at_once(run, files, more, code, said):
    common = ("animate", "photo.png", "speech.wav", "--model", "nowhere.safetensors")
    got, _, err = run(*common, "-o", "a.mp4", *more)
    assert got == code and said in re.sub(r"\s+", " ", err)
    assert not (files / "a.mp4").exists()


def test_jobs_are_marked_too(run, files):
    (files / "jobs.csv").write_text("photo,speech,output\nphoto.png,speech.wav,a.mp4\n")
    common = ("animate", "--jobs", "jobs.csv", "--model", "tiny.safetensors", "--crop", "-q")
    assert run(*common)[0] == 0
    assert inspect_file(files / "a.mp4").verdict == "intact"
    assert run(*common, "--overwrite", "--no-mark")[0] == 0
    assert inspect_file(files / "a.mp4").verdict == "unmarked"


def test_from_python_it_is_the_same(files, monkeypatch):
    import stillspeak

    use_shared_detector(monkeypatch)
    animation = stillspeak.animate("photo.png", "speech.wav", model="tiny.safetensors", crop=True)
    animation.save("a.mp4", label="AI")
    animation.save("b.mp4", mark=False)
    animation.save("frames")
    verdicts = [inspect_file(files / name).verdict for name in ("a.mp4", "b.mp4", "frames")]
    assert verdicts == ["intact", "unmarked", "intact"]
    # The frames that are handed out are the generator's own.
    assert np.array_equal(next(iter(animation)), animation.frames[0])
    saved = np.asarray(PIL.Image.open(files / "frames" / "000000.png"))
    assert 0 < np.abs(saved.astype(int) - animation.frames[0]).mean() < 4


def test_every_command_that_writes_videos_has_the_options():
    for name in ("animate", "stream", "serve", "conceal"):
        help_text = CliRunner().invoke(cli.app, [name, "--help"], env={"COLUMNS": "200"}).output
        for option in ("--no-mark", "--certificate", "--key"):
            assert option in help_text, (name, option)
