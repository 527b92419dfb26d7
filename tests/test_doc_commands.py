"""The pages are followed as a reader would: every command and every piece of Python is run.

What takes hours, a corpus or a network has a stand-in: small weights in the default's place, a
cache of four small clips for GRID, a few training steps of the smallest configuration. Options are
passed on as they stand on the page. Commands that other tests run are listed with those tests.
"""

import ast
import builtins
import functools
import importlib.util
import io
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer

from stillspeak.cli import app as cli
from stillspeak.media.video_writer import write_video
from stillspeak.weights import catalogue, scorers
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
from support.docs import ROOT, Block, Command, all_commands, blocks, commands, pages

pytestmark = pytest.mark.e2e

SMOKE = ROOT / "configs" / "smoke.toml"

SAMPLES = 8_000
"""Of every sound only so many are animated: half a second."""

FOLLOWED = {"animate", "demo", "evaluate", "prepare", "report", "train", "weights"}
"""Commands that are run here, wherever they stand."""

PROGRAMS = {
    "benchmarks/animate.py": "tests/test_benchmarks_speed.py",
    "benchmarks/conceal.py": "tests/conceal/test_conceal_benchmark.py",
    "benchmarks/imports.py": "tests/test_benchmarks_speed.py",
    "benchmarks/marks.py": "tests/test_benchmarks_marks.py",
    "benchmarks/streaming.py": "tests/test_benchmarks_streaming.py",
    "examples/animate.py": "tests/test_examples.py",
    "examples/batch.py": "tests/test_examples.py",
    "examples/blendshapes.py": "tests/test_poses.py",
    "examples/onnx_mouth.py": "tests/test_export.py",
    "examples/streaming.py": "tests/test_examples.py",
    "scripts/fuzz.py": "tests/fuzz/test_bad_inputs.py",
    "scripts/make_rest.py": "tests/test_scripts_voices.py",
    "scripts/make_voices.py": "tests/test_scripts_voices.py",
}
"""Programs of this repository that pages name, and the test file that runs each."""

WHOLE = {"README.md", "docs/index.md", "docs/streaming.md"}
"""Pages of which at least one piece of Python stands by itself."""


def named(command: Command) -> str | None:
    """Which command of ours a line calls; None for other programs."""
    words = command.words
    if "stillspeak" not in words:
        return None
    rest = words[words.index("stillspeak") + 1 :]
    return rest[0] if rest and not rest[0].startswith("-") else ""


# --- the stand-ins ----------------------------------------------------------------------------


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speaking_cache: Path
) -> Iterator[Callable[[Command], None]]:
    """Runs one command after another in a folder of its own, as a reader would."""
    use_shared_detector(monkeypatch)
    animate = import_module("stillspeak.animate")
    real = animate.load_model
    monkeypatch.setattr(
        animate, "load_model", lambda name: lively() if name in catalogue() else real(name)
    )
    heard = animate.load_audio
    monkeypatch.setattr(animate, "load_audio", lambda *a, **options: heard(*a, **options)[:SAMPLES])
    # No processes of their own for four clips.
    prepare = import_module("stillspeak.data.prepare")
    evaluate = import_module("stillspeak.evaluation.evaluate")
    monkeypatch.setattr(prepare, "prepare", _alone(prepare.prepare, detector=True))
    monkeypatch.setattr(evaluate, "default_detector", shared_detector)
    for name in ("evaluate_model", "evaluate_videos", "evaluate_folder"):
        monkeypatch.setattr(evaluate, name, _alone(getattr(evaluate, name)))

    place = tmp_path / "desk"
    place.mkdir()
    monkeypatch.chdir(place)
    write_picture(place / "photo.jpg", portrait())
    write_wav(place / "speech.wav", speech(0.4))
    write_picture(place / "couple.jpg", np.hstack([portrait(), portrait()]))
    write_wav(place / "answer.wav", speech(0.6))
    (place / "configs").symlink_to(ROOT / "configs")
    for name in ("CACHE", "cache/grid"):
        shutil.copytree(speaking_cache, place / name)
    for name in (
        "talk.mp4",
        "FOLDER/a.mp4",
        "CORPUS/s1/bbaf2n.mp4",
        "../shared/grid/s1/bbaf2n.mp4",
    ):
        _talking(place / name)
    for name in ("THEIRS/s1/a.mp4", "REAL/s1/a.mp4"):
        _crops(place / name)
    weights = save_lively(place / "small.safetensors")

    def follow(command: Command) -> None:
        _follow(monkeypatch, weights, command)
        if named(command) == "prepare":  # a whole corpus instead of the clip that was there
            cache = Path(command.words[-1])
            assert (cache / "manifest.jsonl").is_file()
            shutil.rmtree(cache)
            shutil.copytree(speaking_cache, cache)

    yield follow


def _alone(function: Callable[..., Any], *, detector: bool = False) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        options["workers"] = 0
        if detector:
            options["detector_factory"] = shared_detector
        return function(*arguments, **options)

    return wrapped


def _talking(path: Path) -> None:
    """A film of a face that does not move, with sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, [portrait()] * 10, audio=speech(0.4))


def _crops(path: Path) -> None:
    """A video of aligned crops, which are taken as they are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(len(str(path)))
    frames = random.integers(60, 200, (10, 128, 96, 3), dtype=np.uint8)
    write_video(path, frames, audio=speech(0.4))


def _translate(name: str, words: list[str], weights: Path) -> list[str] | None:
    """A command with its stand-ins; None where a page's hours have nothing to stand for them."""
    words = list(words)

    def replace(option: str, value: object) -> None:
        words[words.index(option) + 1] = str(value)

    if name == "train":
        config = words[words.index("--config") + 1]
        run = Path(words[words.index("--run") + 1])
        if config in ("configs/lipnet.toml", "configs/sync.toml"):
            # A training in miniature is in tests/training; its weights stand for those of hours.
            run.mkdir(parents=True)
            shutil.copy(scorers()[Path(config).stem].path, run / "best.safetensors")
            return None
        if config in ("configs/speech.toml", "configs/pose.toml", "configs/refiner.toml"):
            run.mkdir(parents=True)  # in miniature in tests/training as well
            return None
        if run.exists() and "--resume" not in words:
            shutil.rmtree(run)  # a page's examples are of several readers
        replace("--config", SMOKE)
        if "--from" in words:
            replace("--from", weights)
        steps = 3 if "--resume" in words else 2
        words += ["--device", "cpu", "--set", f"training.steps={steps}"]
        words += ["--set", "training.audio_steps=1", "--set", "training.precision='32-true'"]
    elif "--speech-for" in words:  # which a model that paints refuses
        words += ["--model", str(save_lively(Path("layers.safetensors"), "layers"))]
    elif name == "evaluate":
        words += ["--metrics", "psnr"]
        if "--model" in words:
            if words[words.index("--model") + 1] not in ("still", "real"):
                replace("--model", weights)
            words += ["--split", "validation"]
    return words


def _follow(monkeypatch: pytest.MonkeyPatch, weights: Path, command: Command) -> None:
    """Run a command and expect that it succeeds."""
    words = command.words
    if words[0] == "mkdir":
        subprocess.run(words, check=True)
        return
    words = words[words.index("stillspeak") + 1 :]
    streams = {}
    for sign in ("<", ">"):
        if sign in words:
            at = words.index(sign)
            streams[sign] = words[at + 1]
            del words[at : at + 2]
    name = words[0]
    given = _translate(name, words[1:], weights)
    if given is None:
        return
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["stillspeak", name, *given])
        if "<" in streams:
            data = Path(streams["<"]).read_bytes()
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
        out = io.BytesIO()
        if ">" in streams:
            patch.setattr(sys, "stdout", io.TextIOWrapper(out))
        try:
            cli.main()
        except SystemExit as stop:
            assert not stop.code, f"{command.page}:{command.line}: {command.text}"
        if ">" in streams:
            Path(streams[">"]).write_bytes(out.getvalue())


def _prepare(page: str) -> None:
    """What a page says that a reader has: its tables, and results of a chapter that is not run."""
    for block in blocks(page):
        if block.language == "csv":
            Path("jobs.csv").write_text(block.text)


def _followed(page: str) -> list[Command]:
    found = [c for c in commands(page) if named(c) in FOLLOWED or c.text.startswith("mkdir ")]
    return found if any(named(c) for c in found) else []


# --- the tests --------------------------------------------------------------------------------

FOLLOW = [page for page in pages() if _followed(page)]


@pytest.mark.parametrize("page", FOLLOW)
def test_a_pages_commands_work_one_after_another(
    page: str, desk: Callable[[Command], None], capsys: pytest.CaptureFixture[str]
) -> None:
    _prepare(page)
    for command in _followed(page):
        if named(command) == "report":
            # A page may show results beside others that stand in its text alone.
            for name in re.findall(r"results/\w+", command.text):
                if not Path(name).exists():
                    shutil.copytree("results/still", name)
        desk(command)
        words = command.words
        for option in ("-o", "--output", "--run", ">"):
            if option in words and "--dry-run" not in words:
                target = words[words.index(option) + 1]
                assert target == "-" or Path(target).exists(), f"{command.text}: no {target}"


@functools.cache
def told_by_tests() -> str:
    """The sources of all tests but those of pages."""
    own = {"test_doc_commands.py", "test_docs.py", "docs.py"}
    sources = [p for p in (ROOT / "tests").rglob("*.py") if p.name not in own]
    return "\n".join(path.read_text("utf-8") for path in sources)


def test_every_command_of_ours_is_run_by_a_test() -> None:
    """Those that are not run here by tests of their own, where the name stands as an argument."""
    wrong = []
    for command in all_commands():
        name = named(command)
        if name and name not in FOLLOWED and name != "COMMAND":
            rest = command.words[command.words.index("stillspeak") + 1 :]
            inner = getattr(typer.main.get_command(cli.app).commands.get(name), "commands", {})
            for word in [name, *([rest[1]] if len(rest) > 1 and rest[1] in inner else [])]:
                if f'"{word}"' not in told_by_tests():
                    wrong.append(f"{command.page}:{command.line}: {command.text}")
    assert wrong == []


def test_every_program_of_ours_is_run_by_a_test() -> None:
    wrong = []
    for command in all_commands():
        words = command.words
        if words[0] in ("python", "python3") and words[1].endswith(".py"):
            place = PROGRAMS.get(words[1])
            source = (ROOT / place).read_text("utf-8") if place else ""
            script = Path(words[1])
            if script.name not in source and f'load("{script.stem}")' not in source:
                wrong.append(f"{command.page}:{command.line}: {command.text}")
    assert wrong == [], "add the program and its test to PROGRAMS in tests/test_doc_commands.py"


PYTHON = [page for page in pages() if any(b.language in ("python", "py") for b in blocks(page))]


def stands_alone(block: Block, names: dict[str, Any]) -> bool:
    """Whether a piece of Python needs nothing but what the page has said before."""
    tree = ast.parse(block.text)
    if any(isinstance(node, ast.AsyncWith | ast.AsyncFor | ast.Await) for node in tree.body):
        return False  # of an asynchronous function that the page leaves out
    used, made = set(), {*names, *dir(builtins)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            (used if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.ExceptHandler):
            made.add(node.name or "")
        elif isinstance(node, ast.arg):
            made.add(node.arg)
    modules = {
        (node.module if isinstance(node, ast.ImportFrom) else node.names[0].name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
    }
    return used <= made and all(importlib.util.find_spec(name) for name in modules)


@pytest.mark.parametrize("page", PYTHON)
def test_a_pages_python_runs(
    page: str, desk: Callable[[Command], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Piece by piece; fragments that leave their surroundings to the reader are compiled only."""
    sound = speech(0.4)
    shown: list[Any] = []
    # A page leaves the microphone, the screen and the speaker to its reader.
    pieces: Sequence[np.ndarray] = np.array_split((sound * 32767).astype(np.int16), 20)
    names: dict[str, Any] = {
        "__name__": "__main__",
        "microphone": pieces,
        "sound": pieces,
        "show": lambda *what: shown.append(what),
    }
    ran = 0
    for block in blocks(page):
        if block.language not in ("python", "py"):
            continue
        flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
        code = compile(block.text, f"{page}:{block.line}", "exec", flags=flags)
        if stands_alone(block, names):
            exec(code, names)  # noqa: S102 - our page
            ran += 1
    capsys.readouterr()
    assert ran or page not in WHOLE
    if page == "docs/index.md":
        assert ran == 3
        assert {"python.mp4", "take-1.mp4", "take-2.mp4"} <= {p.name for p in Path().iterdir()}
    if page == "docs/streaming.md":
        assert len(shown) > 25
        assert shown[0][0].shape == portrait().shape
        onnx = [what[0] for what in shown if what[1] == "onnx"]
        assert len(onnx) == 6
        assert {pose.shape for pose in onnx} == {(41, 2)}
        assert (onnx[0] != onnx[-1]).any()


def test_the_quickstart_goes_through_what_the_readme_promises() -> None:
    """Both begin alike, so that a reader of either is not told two different things."""
    start = {command.text for command in commands("docs/index.md")}
    readme = {command.text for command in commands("README.md")}
    beginnings = ("sudo apt-get", "pip install --constraint")
    shared = {line for line in readme if line.startswith(beginnings)}
    assert len(shared) == 2
    assert shared <= start
    assert {"stillspeak demo", "stillspeak animate photo.jpg speech.wav -o video.mp4"} <= start
