"""The command line, in this process: what it writes, prints and returns."""

import io
import json
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
import pytest
import typer

import stillspeak
from stillspeak.cli import app as cli
from stillspeak.media.video import iter_frames, probe_video
from stillspeak.options import OPTIONS
from stillspeak.system.configuration import range_of
from support.animate import (
    listing,
    masked_portrait,
    portrait,
    portrait_face,
    save_lively,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)

animate_module = import_module("stillspeak.animate")
synthesis = import_module("stillspeak.synthesis")


class Outcome(NamedTuple):
    code: int
    out: bytes
    err: str


@pytest.fixture
def run(monkeypatch, capfdbinary) -> Callable[..., Outcome]:
    """Runs the command line as the console script does."""
    use_shared_detector(monkeypatch)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["stillspeak", *map(str, arguments)])
        capfdbinary.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = stop.code or 0
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        out, err = capfdbinary.readouterr()
        return Outcome(code, out, err.decode())

    return run


@pytest.fixture
def files(tmp_path) -> Path:
    """A folder with photo.png, speech.wav (0.4 s) and tiny.safetensors."""
    write_picture(tmp_path / "photo.png", portrait())
    write_wav(tmp_path / "speech.wav", speech(0.4))
    save_lively(tmp_path / "tiny.safetensors")
    return tmp_path


@pytest.fixture
def animate(run, files, monkeypatch) -> Callable[..., Outcome]:
    """Runs ``stillspeak animate`` with the small model, in the folder of the files."""
    monkeypatch.chdir(files)
    return lambda *arguments: run("animate", *arguments, "--model", "tiny.safetensors")


# --- one video ----------------------------------------------------------------------------------


def test_a_video_is_made_and_its_name_printed(animate, files):
    before = {path.name for path in files.iterdir()}
    outcome = animate("photo.png", "speech.wav", "-o", "out.mp4")
    assert outcome == Outcome(0, b"out.mp4\n", "")
    assert {path.name for path in files.iterdir()} - before == {"out.mp4"}
    info = probe_video(files / "out.mp4")
    assert (info.width, info.height, info.fps, info.has_audio) == (256, 256, 25, True)
    assert len(list(iter_frames(files / "out.mp4"))) == 10


def test_two_faces_speak_in_one_video(run, files, monkeypatch):
    monkeypatch.chdir(files)
    write_picture(files / "two.png", np.concatenate((portrait(), portrait()[:, ::-1]), axis=1))
    write_wav(files / "other.wav", speech(0.8, seed=1))
    save_lively(files / "layers.safetensors", "layers")
    words = ["two.png", "speech.wav", "-o", "two.mp4", "--model", "layers.safetensors"]
    made = run("animate", *words, "--face", "1,0", "--speech-for", "0=other.wav", "-q")
    assert made == Outcome(0, b"", "")
    assert len(list(iter_frames(files / "two.mp4"))) == 20
    for wrong, said in (
        (["--face", "0,0"], "face 0 is named twice"),
        (["--face", "0,x"], "face must be a whole number, not 'x'"),
        (["--speech-for", "1=other.wav"], "face 1 is not among the others"),
    ):
        outcome = run("animate", *words, *wrong)
        assert outcome.code == 2 and said in re.sub(r"[\s│]+", " ", outcome.err)
    assert "face number 2, 2 faces" in run("animate", *words, "--overwrite", "--face", "0,2").err


def test_quiet_prints_nothing(animate, files):
    assert animate("photo.png", "speech.wav", "-o", "out.gif", "-q") == Outcome(0, b"", "")
    assert (files / "out.gif").is_file()


def test_json_tells_what_was_made(animate):
    outcome = animate("photo.png", "speech.wav", "-o", "o.gif", "--json", "--seed", 3, "--crop")
    result = json.loads(outcome.out)
    assert result.pop("took") > 0
    assert re.fullmatch("[0-9a-f]{8}", result.pop("identifier"))
    assert result == {
        "output": "o.gif",
        "frames": 10,
        "fps": 25,
        "width": 96,
        "height": 128,
        "seconds": 0.4,
        "model": "tiny.safetensors",
        "seed": 3,
        "warnings": [],
    }
    assert outcome.err == ""


def test_a_covered_mouth_is_warned_of_in_one_line_and_in_json(animate, files):
    write_picture(files / "masked.png", masked_portrait())
    outcome = animate("masked.png", "speech.wav", "-o", "o.gif", "--json", "--crop")
    (warning,) = json.loads(outcome.out)["warnings"]
    assert warning["code"] == "mouth_covered"
    assert outcome.err == f"stillspeak: warning: masked.png: {warning['message']}\n"
    assert animate("masked.png", "speech.wav", "-o", "p.gif", "-q", "--crop").err == ""


def test_jobs_carry_warnings(animate, files):
    write_picture(files / "masked.png", masked_portrait())
    rows = "photo,speech,output\nphoto.png,speech.wav,0.gif\nmasked.png,speech.wav,1.gif\n"
    (files / "jobs.csv").write_text(rows)
    outcome = animate("--jobs", "jobs.csv", "--crop", "--json")
    found = [json.loads(line)["warnings"] for line in outcome.out.splitlines()]
    assert [[one["code"] for one in each] for each in found] == [[], ["mouth_covered"]]
    assert outcome.code == 0
    assert outcome.err == f"stillspeak: warning: jobs.csv, line 3: {found[1][0]['message']}\n"


def test_a_mouth_beyond_the_edge_is_refused(animate, files):
    row = int(portrait_face().points[13, 1])
    write_picture(files / "cut.png", portrait()[:row])
    outcome = animate("cut.png", "speech.wav", "-o", "o.gif")
    assert outcome.code == 1 and gifs(files) == set()
    assert outcome.err.startswith("stillspeak: cut.png: the mouth is cut off by the picture's edge")


@pytest.mark.e2e
def test_options_arrive(animate, files):
    animate("photo.png", "speech.wav", "-o", "a", "--crop")
    animate(
        "photo.png", "speech.wav", "-o", "b", "--crop", "--seed", 9, "--device", "cpu", "--no-mark"
    )
    animate("photo.png", "speech.wav", "-o", "c", "--size", 200, "--face", 0)
    animate("photo.png", "speech.wav", "-o", "d", "--crop", "--size", 512)
    first = {name: next(iter(frames_of(files / name))) for name in "abcd"}
    shapes = {name: frame.shape for name, frame in first.items()}
    assert shapes == {
        "a": (128, 96, 3), "b": (128, 96, 3), "c": (200, 200, 3), "d": (512, 384, 3)
    }  # fmt: skip
    assert not np.array_equal(first["a"], first["b"])
    with stillspeak.Animator(files / "tiny.safetensors") as animator:
        made = animator.animate(files / "photo.png", files / "speech.wav", seed=9, crop=True)
    assert np.array_equal(first["b"], made.frames[0])


def frames_of(folder: Path) -> list[np.ndarray]:
    import PIL.Image

    return [np.asarray(PIL.Image.open(path)) for path in sorted(folder.glob("*.png"))]


def test_an_existing_output_is_kept_unless_told_otherwise(animate, files):
    (files / "out.gif").write_bytes(b"mine")
    outcome = animate("photo.png", "speech.wav", "-o", "out.gif")
    assert (outcome.code, outcome.out) == (1, b"")
    assert "out.gif: exists already" in outcome.err
    assert (files / "out.gif").read_bytes() == b"mine"
    assert animate("photo.png", "speech.wav", "-o", "out.gif", "--overwrite").code == 0
    assert (files / "out.gif").read_bytes()[:4] == b"GIF8"


def test_an_existing_output_costs_no_model(animate, files, monkeypatch):
    (files / "out.gif").write_bytes(b"mine")
    monkeypatch.setattr(animate_module, "load_model", lambda model: pytest.fail("loaded"))
    assert animate("photo.png", "speech.wav", "-o", "out.gif").code == 1


# --- standard input and output ------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1])
def test_an_input_can_come_from_stdin(animate, files, monkeypatch, place):
    names = ["photo.png", "speech.wav"]
    feed(monkeypatch, (files / names[place]).read_bytes())
    arguments = [*names[:place], "-", *names[place + 1 :]]
    assert animate(*arguments, "-o", "piped.gif", "-q", "--crop", "--no-mark").code == 0
    animate(*names, "-o", "named.gif", "-q", "--crop", "--no-mark")
    assert (files / "piped.gif").read_bytes() == (files / "named.gif").read_bytes()


@pytest.mark.parametrize("place", [0, 1])
def test_errors_call_stdin_by_its_name(animate, monkeypatch, place):
    feed(monkeypatch, b"")
    arguments = ["photo.png", "speech.wav"]
    arguments[place] = "-"
    outcome = animate(*arguments, "-o", "out.mp4")
    assert outcome.code == 1
    assert outcome.err.startswith("stillspeak: standard input: the file is empty")


def test_closed_streams_are_one_line(animate, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    outcome = animate("-", "speech.wav", "-o", "out.mp4")
    assert outcome[::2] == (1, "stillspeak: standard input: is closed; give a file\n")
    monkeypatch.setattr(sys, "stdout", None)
    outcome = animate("photo.png", "speech.wav", "-o", "-")
    assert outcome[::2] == (
        1,
        "stillspeak: standard output: is closed; give the name of a file\n",
    )


def test_stdin_is_read_up_to_a_bound(animate, monkeypatch):
    monkeypatch.setattr("stillspeak.cli.common.MAX_STDIN_BYTES", 2**20)
    feed(monkeypatch, bytes(2**20 + 1))
    outcome = animate("-", "speech.wav", "-o", "out.mp4")
    assert outcome.code == 1
    assert outcome.err == "stillspeak: standard input: more than 1 MiB; give a file\n"


def feed(monkeypatch: pytest.MonkeyPatch, data: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


@pytest.mark.parametrize(
    ("options", "container", "codec"),
    [
        ([], "mov,mp4,m4a,3gp,3g2,mj2", "h264"),
        (["--format", "webm"], "matroska,webm", "vp9"),
        (["--format", "gif"], "gif", "gif"),
    ],
)
def test_the_video_can_go_to_stdout_and_nothing_else_does(
    animate, files, options, container, codec
):
    before = listing(files)
    outcome = animate("photo.png", "speech.wav", "--crop", "-o", "-", *options)
    assert (outcome.code, outcome.err) == (0, "")
    with av.open(io.BytesIO(outcome.out)) as file:
        assert file.format.name == container
        assert file.streams.video[0].codec_context.name == codec
        assert len(list(file.decode(video=0))) == 10
    assert listing(files) == before


def test_a_full_stdout_is_one_line(animate, monkeypatch):
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("no /dev/full on this system")
    with full.open("wb") as file:
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BufferedWriter(file.raw)))
        outcome = animate("photo.png", "speech.wav", "--crop", "-o", "-")
        sys.stdout.write("what Python writes out at its exit raises nothing")
        sys.stdout.flush()
    assert outcome.code == 1
    assert outcome.err == "stillspeak: no space left on device\n"


# --- usage errors -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "animate",
        "animate photo.png",
        "animate photo.png speech.wav",
        "animate photo.png speech.wav more.wav -o out.mp4",
        "animate - - -o out.mp4",
        "animate photo.png speech.wav -o out.mp4 --sed 1",
        "animate photo.png speech.wav -o out.mp4 --seed x",
        "animate photo.png speech.wav -o out.mp4 --seed -1",
        "animate photo.png speech.wav -o out.mp4 --face -1",
        "animate photo.png speech.wav -o out.mp4 --size 63",
        "animate photo.png speech.wav -o out.mp4 --size 4097",
        "animate photo.png speech.wav -o out.mp4 --device tpu",
        "animate photo.png speech.wav -o out.mp4 --format gif",
        "animate photo.png speech.wav -o out.mp4 --shard 1/2",
        "animate photo.png speech.wav -o out.mp4 --skip-existing",
        "animate photo.png speech.wav -o - --format avi",
        "animate photo.png speech.wav -o - --json",
        "animate photo.png speech.wav --jobs jobs.csv",
        "animate --jobs jobs.csv -o out.mp4",
        "animate --jobs jobs.csv --shard 3/2",
        "animate --jobs jobs.csv --shard half",
        "prepare . cache --layout elsewhere",
        "no-such-command",
        "--no-such-option",
    ],
)
def test_usage_errors_exit_with_2(run, files, monkeypatch, arguments):
    monkeypatch.chdir(files)
    Path("jobs.csv").write_text("photo,speech,output\nphoto.png,speech.wav,out.mp4\n")
    monkeypatch.setattr(animate_module, "load_model", lambda model: pytest.fail("loaded"))
    before = listing(files)
    outcome = run(*arguments.split())
    assert outcome.code == 2
    assert outcome.out == b""
    assert "Usage: stillspeak" in outcome.err
    assert "Traceback" not in outcome.err
    assert listing(files) == before


@pytest.mark.parametrize("name", ["animate", "stream"])
def test_the_command_line_has_every_option_with_its_range_and_default(name):
    shown = {one.name: one for one in command(name).params}
    for option, about in OPTIONS.items():
        assert shown[option].opts == [f"--{option.replace('_', '-')}"]
        assert (shown[option].default, shown[option].help) == (about.default, about.description)
        if any(range_of(about)) and (name, option) != ("animate", "face"):  # several, as a text
            assert (shown[option].min, shown[option].max) == range_of(about)


def command(name: str):
    return typer.main.get_command(cli.app).commands[name]


# --- many videos --------------------------------------------------------------------------------


@pytest.fixture
def table(files) -> Path:
    """Six jobs: the third has no face, the fifth no sound."""
    write_picture(files / "wall.png", np.full((128, 128, 3), 120, np.uint8))
    rows = [("photo.png", "speech.wav")] * 6
    rows[2] = ("wall.png", "speech.wav")
    rows[4] = ("photo.png", "missing.wav")
    lines = [f"{photo},{sound},{n}.gif" for n, (photo, sound) in enumerate(rows)]
    path = files / "jobs.csv"
    path.write_text("\n".join(["photo,speech,output", *lines]))
    return path


def gifs(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if path.suffix not in (".png", ".wav")} - {
        "jobs.csv",
        "tiny.safetensors",
    }


@pytest.mark.e2e
def test_jobs_share_one_model_and_fail_one_by_one(animate, table, files, monkeypatch):
    loaded = []
    load = animate_module.load_model
    monkeypatch.setattr(
        animate_module, "load_model", lambda model: (loaded.append(model), load(model))[1]
    )
    outcome = animate("--jobs", table, "--crop")
    assert loaded == ["tiny.safetensors"]
    assert outcome.code == 1
    assert outcome.out == b"4 videos made, 0 were there already, 2 failed\n"
    wall, missing = outcome.err.splitlines()
    assert wall.startswith(f"stillspeak: {table}, line 4: {files / 'wall.png'}: no face found")
    assert missing.startswith(f"stillspeak: {table}, line 6: {files / 'missing.wav'}: no such")
    assert gifs(files) == {"0.gif", "1.gif", "3.gif", "5.gif"}


@pytest.mark.e2e
def test_jobs_as_json_and_their_second_run(animate, table, files):
    animate("--jobs", table, "--crop", "--shard", "1/2", "-q")
    assert gifs(files) == {"0.gif"}
    outcome = animate("--jobs", table, "--crop", "--skip-existing", "--json")
    rows = [json.loads(line) for line in outcome.out.splitlines()]
    assert [row["line"] for row in rows] == [2, 3, 4, 5, 6, 7]
    assert [row["skipped"] for row in rows] == [True, False, False, False, False, False]
    assert [row["frames"] for row in rows] == [0, 10, 0, 10, 0, 10]
    assert [bool(row["error"]) for row in rows] == [False, False, True, False, True, False]
    assert rows[1]["output"] == str(files / "1.gif")
    assert outcome.code == 1
    assert len(outcome.err.splitlines()) == 2


@pytest.mark.e2e
def test_shards_make_every_video_once(animate, table, files):
    table.write_text(re.sub(r"\n(wall|.*missing).*", "", table.read_text()))
    made: list[str] = []
    for part in ("1/3", "2/3", "3/3"):
        before = gifs(files)
        outcome = animate("--jobs", table, "--crop", "--shard", part)
        assert outcome.code == 0
        made += gifs(files) - before
    assert sorted(made) == ["0.gif", "1.gif", "3.gif", "5.gif"]


def test_a_wrong_table_is_one_line(animate, files):
    outcome = animate("--jobs", "none.csv")
    assert (outcome.code, outcome.out) == (1, b"")
    assert outcome.err == (
        "stillspeak: none.csv: cannot be read as a CSV table (no such file or directory)\n"
    )


# --- the rest -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.e2e
@pytest.mark.parametrize(("options", "shown"), [([], True), (["--quiet"], False)])
def test_a_terminal_gets_a_progress_bar(animate, monkeypatch, options, shown):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    assert animate("photo.png", "speech.wav", "-o", "out.gif", *options).code == 0
    assert ("animating" in terminal.getvalue()) is shown
    assert ("10/10" in terminal.getvalue()) is shown


@pytest.mark.e2e
def test_the_demo_makes_the_bundled_example(run, files, monkeypatch):
    import skimage.data

    asked = []
    monkeypatch.setattr(skimage.data, "astronaut", lambda: (asked.append(1), portrait())[1])
    monkeypatch.chdir(files)
    # A few frames of the sentence will do.
    windows = synthesis.frame_windows
    seconds = []

    def first_windows(audio, window, hop):
        seconds.append(len(audio) / (25 * hop))
        return windows(audio, window, hop)[:5]

    monkeypatch.setattr(synthesis, "frame_windows", first_windows)
    outcome = run("demo", "--model", "tiny.safetensors")
    assert (outcome.code, outcome.err) == (0, "")
    assert outcome.out.decode() == f"{files / 'demo.mp4'}\n"
    assert asked == [1]
    assert seconds[0] > 3
    assert probe_video(files / "demo.mp4").has_audio
    again = run("demo", "--model", "tiny.safetensors")
    assert again.code == 1
    assert "demo.mp4: exists already" in again.err
    quiet = run("demo", "-o", "b.gif", "--model", "tiny.safetensors", "-q")
    assert quiet == Outcome(0, b"", "")


def test_the_version(run):
    assert run("--version") == Outcome(0, f"stillspeak {stillspeak.__version__}\n".encode(), "")


@pytest.mark.parametrize("name", sorted(typer.main.get_command(cli.app).commands))
def test_every_command_and_option_explains_itself(run, name):
    outcome = run(name, "--help")
    assert outcome.code == 0
    assert f"stillspeak {name}".encode() in outcome.out
    assert command(name).help
    for parameter in command(name).params:
        assert parameter.help or parameter.name == "help", parameter.name


def test_weights_are_listed_and_shown(run, files):
    listed = run("weights").out.decode()
    assert re.search(r"^layers .*\(default\)$", listed, re.MULTILINE)
    shown = json.loads(run("weights", files / "tiny.safetensors").out)
    assert shown["file"] == str(files / "tiny.safetensors")
    assert shown["info"] == {"made": "for tests"}
    assert shown["config"]["decoder"] == "unet"


def test_a_message_of_several_lines_is_put_on_one(run, files):
    outcome = run("animate", "a\nb.png", files / "speech.wav", "-o", files / "o.gif")
    assert outcome.code == 1
    assert outcome.err == "stillspeak: a b.png: no such file; check the path\n"


def test_what_the_system_refuses_is_one_line(run, files):
    outcome = run("animate", files / "photo.png", files / "speech.wav", "-o", "x" * 300 + ".mp4")
    assert outcome.code == 1
    assert outcome.err == f"stillspeak: {'x' * 300}.mp4: file name too long\n"
