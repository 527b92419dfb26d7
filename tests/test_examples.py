"""The example programs and the notebook, run as they are but with a small model."""

import ast
import json
import re
import runpy
import shutil
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stillspeak
from stillspeak.media.video import probe_video
from support.animate import (
    SharedDetector,
    lively,
    portrait,
    shared_detector,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)

pytestmark = pytest.mark.e2e

FOLDER = Path(__file__).parents[1] / "examples"
PROGRAMS = {"animate.py", "batch.py", "streaming.py"}
NOTEBOOK = FOLDER / "stillspeak.ipynb"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in. A small model and a shared detector take the default's place, and
    of every sound only a second is animated.
    """
    use_shared_detector(monkeypatch)
    monkeypatch.setattr(import_module("stillspeak.animate"), "load_model", lambda name: lively())
    audio = import_module("stillspeak.animate").load_audio
    monkeypatch.setattr(
        import_module("stillspeak.animate"), "load_audio", lambda *a, **o: audio(*a, **o)[:16_000]
    )
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> int:
    """A program as ``python examples/NAME ARGUMENTS``: its exit code."""
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(FOLDER / name), run_name="__main__")
    return int(stop.value.code or 0)


def inputs(folder: Path) -> tuple[Path, Path]:
    return (
        write_picture(folder / "photo.png", portrait()),
        write_wav(folder / "speech.wav", speech(0.4)),
    )


def test_every_example_is_named_and_compiles() -> None:
    there = {path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".ipynb")}
    assert there >= PROGRAMS | {NOTEBOOK.name}
    page = (FOLDER / "README.md").read_text("utf-8")
    for name in there:
        assert f"({name})" in page
        if name.endswith(".py"):
            tree = ast.parse((FOLDER / name).read_text("utf-8"))
            assert ast.get_docstring(tree)
    for name in PROGRAMS:
        assert f"python examples/{name} " in page


def test_animate(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, sound = inputs(place)
    assert run(monkeypatch, "animate.py", photo, sound, "video.mp4") == 0
    assert capsys.readouterr().out == "video.mp4: 10 frames, 256 x 256 pixels\n"
    assert probe_video(place / "video.mp4").has_audio
    assert run(monkeypatch, "animate.py", "missing.png", sound, "other.mp4") == 1
    assert capsys.readouterr().err == "cannot animate: missing.png: no such file; check the path\n"
    assert not (place / "other.mp4").exists()
    assert run(monkeypatch, "animate.py", "--help") == 2


def test_animate_without_files(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(monkeypatch, "animate.py") == 0
    info = probe_video(place / "hello.mp4")
    assert (info.width, info.height, info.has_audio) == (512, 512, True)


def test_batch(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, sound = inputs(place)
    for folder in ("photos", "sounds"):
        (place / folder).mkdir()
    for name in ("a.png", "b.png"):
        shutil.copy(photo, place / "photos" / name)
    write_picture(place / "photos" / "grey.png", np.full((200, 200, 3), 127, np.uint8))
    (place / "photos" / "notes.txt").write_text("not a picture")
    shutil.copy(sound, place / "sounds" / "hello.wav")
    assert run(monkeypatch, "batch.py", "photos", "sounds", "videos") == 1
    out, err = capsys.readouterr()
    assert out.splitlines() == ["videos/a-hello.mp4", "videos/b-hello.mp4"]
    assert err.startswith("left out: photos/grey.png: no face found")
    (place / "photos" / "grey.png").unlink()
    assert run(monkeypatch, "batch.py", "photos", "sounds", "videos") == 0
    assert capsys.readouterr() == ("", "")  # all there already
    assert run(monkeypatch, "batch.py") == 2


def test_streaming(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, sound = inputs(place)
    assert run(monkeypatch, "streaming.py", photo, sound, "stream.mp4") == 0
    told = re.fullmatch(
        r"stream\.mp4: (\d+) frames; a frame waits for (\d+) ms of sound\n", capsys.readouterr().out
    )
    assert told is not None
    # The utterance's ten, a second's twenty-five, and of five more those that were not dropped.
    assert 35 < int(told[1]) <= 40
    assert int(told[2]) == 100
    assert probe_video(place / "stream.mp4").has_audio
    assert run(monkeypatch, "streaming.py", "-h") == 2


def test_the_notebook_runs(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cell after cell in one namespace, as a kernel does; the last expression is the result."""
    book = json.loads(NOTEBOOK.read_text("utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in book["cells"]}) == len(book["cells"])
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = []
    for number, cell in enumerate(c for c in book["cells"] if c["cell_type"] == "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
        source = "".join(cell["source"]).replace("SECONDS = 2.0", "SECONDS = 0.6")
        tree = ast.parse(source, f"cell {number}")
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, f"cell {number}", "exec"), names)  # noqa: S102 - our own notebook
        if isinstance(last, ast.Expr):
            code = compile(ast.Expression(last.value), f"cell {number}", "eval")
            shown.append(eval(code, names))  # noqa: S307
    out = capsys.readouterr().out
    assert "15 frames of 256 x 256 at 25" in out
    assert re.search(r"largest difference from the whole clip: [01] of 255", out)
    assert "no face found" in out
    assert (place / "notebook.mp4").is_file()
    pictures = [picture.size for picture in shown if hasattr(picture, "size")]
    assert pictures == [(256, 256), (768, 256), (256, 256)]


def test_the_stand_ins_are_in_their_places(place: Path) -> None:
    """Or the programs above would have been run with the released model, and slowly."""
    with stillspeak.Animator() as animator:
        assert animator.generator is lively()
        assert isinstance(animator.detector, SharedDetector)
    assert shared_detector().closed
