"""Whatever is wrong with what a user gives: one line, exit code 1, nothing left behind."""

import errno
import os
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import save_file

from stillspeak.animate import Animation
from stillspeak.cli import app as cli
from stillspeak.media import video_writer
from support.animate import (
    RATE,
    listing,
    lively,
    portrait,
    save_lively,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)


@pytest.fixture
def files(tmp_path, monkeypatch) -> Path:
    """The current folder: photo.jpg, speech.wav and model.safetensors, all of them good."""
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "photo.jpg", portrait())
    write_wav(tmp_path / "speech.wav", speech(0.4))
    save_lively(tmp_path / "model.safetensors")
    return tmp_path


GOOD = ["animate", "photo.jpg", "speech.wav", "-o", "out.mp4", "--model", "model.safetensors"]


@pytest.fixture
def refused(files, monkeypatch, capfd) -> Callable[..., str]:
    """Runs the command line, checks that it fails as it should and gives the line it says."""
    use_shared_detector(monkeypatch)

    def refused(*arguments: str, code: int = 1, folder: Path = files) -> str:
        before = listing(folder)
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["stillspeak", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capfd.readouterr()
        assert stop.value.code == code
        assert out == ""
        assert listing(folder) == before
        if code == 130 and not err:
            return ""
        (line,) = err.splitlines()
        assert line.startswith("stillspeak: ")
        return line.removeprefix("stillspeak: ")

    return refused


def test_the_good_inputs_are_good(files, monkeypatch):
    use_shared_detector(monkeypatch)
    monkeypatch.setattr(sys, "argv", ["stillspeak", *GOOD])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0
    assert (files / "out.mp4").stat().st_size > 5000


# --- pictures -----------------------------------------------------------------------------------


def wall(path: Path) -> None:
    noise = np.random.default_rng(0).normal(120, 5, (256, 256, 3))
    write_picture(path, noise.clip(0, 255).astype(np.uint8))


def truncate(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty; give a JPEG"),
        (lambda path: path.write_text("hello\n"), "not a picture stillspeak can read"),
        (lambda path: path.write_bytes(bytes(999)), "not a picture stillspeak can read"),
        (truncate, "the picture is damaged or cut short"),
        (wall, "no face found; use a picture in which one face looks at the camera"),
        (lambda path: path.unlink(), "no such file; check the path"),
        (lambda path: (path.unlink(), path.mkdir()), "a folder, not a picture"),
    ],
)
def test_bad_pictures(refused, files, spoil, message):
    spoil(files / "photo.jpg")
    assert refused(*GOOD).startswith(f"photo.jpg: {message}")


def test_a_face_that_is_not_there(refused):
    line = refused(*GOOD, "--face", "1")
    assert line.startswith("photo.jpg: there is no face number 1, 1 face was found")


def test_a_face_that_is_too_small(refused, files):
    write_picture(files / "photo.jpg", np.ascontiguousarray(portrait()[::3, ::3]))
    assert refused(*GOOD).startswith("photo.jpg: the face is too small, its eyes are 1")


# --- sounds -------------------------------------------------------------------------------------


def float_wav(path: Path, samples: np.ndarray) -> None:
    """A WAV file of 32-bit floats."""
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    path.write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)


def with_nan(path: Path) -> None:
    samples = speech(0.4)
    samples[1000] = np.nan
    float_wav(path, samples)


def as_video_without_sound(path: Path) -> None:
    mute = path.with_name("mute.mp4")
    video_writer.write_video(mute, [np.zeros((32, 32, 3), np.uint8)] * 5)
    mute.replace(path)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "the file is empty; give a WAV"),
        (lambda path: path.write_text("hello\n"), "not a sound stillspeak can read"),
        (lambda path: write_wav(path, np.zeros(0)), "holds no sound samples"),
        (lambda path: write_wav(path, np.zeros(RATE)), "holds only silence; give a recording"),
        (lambda path: write_wav(path, speech(0.05)), "50 ms of sound are too short to animate"),
        (with_nan, "holds NaN or infinite samples; repair or re-export the sound"),
        (lambda path: float_wav(path, 3e4 * speech(0.4)), "float samples reach"),
        (as_video_without_sound, "has no sound track"),
        (lambda path: path.unlink(), "no such file; check the path"),
    ],
)
def test_bad_sounds(refused, files, spoil, message):
    spoil(files / "speech.wav")
    assert refused(*GOOD).startswith(f"speech.wav: {message}")


def test_float_sound_as_such_is_good(files, monkeypatch):
    """Or else the tests of bad floats would tell nothing."""
    use_shared_detector(monkeypatch)
    float_wav(files / "speech.wav", speech(0.4))
    monkeypatch.setattr(sys, "argv", ["stillspeak", *GOOD])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 0


# --- weights ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(b""), "not a weights file or damaged"),
        (lambda path: path.write_text("hello\n"), "not a weights file or damaged"),
        (truncate, "not a weights file or damaged"),
        (
            lambda path: save_file(lively().state_dict(), path),
            "a safetensors file, but not stillspeak weights",
        ),
        (lambda path: path.unlink(), "no such weights file, and no released model (baseline, "),
        (lambda path: (path.unlink(), path.mkdir()), "no such weights file"),
    ],
)
def test_bad_weights(refused, files, spoil, message):
    spoil(files / "model.safetensors")
    assert refused(*GOOD).startswith(f"model.safetensors: {message}")


# --- outputs ------------------------------------------------------------------------------------


def into(output: str) -> list[str]:
    return [output if argument == "out.mp4" else argument for argument in GOOD]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("none/out.mp4", "none/out.mp4: the folder none does not exist"),
        ("photo.jpg/out.mp4", "photo.jpg/out.mp4: the folder photo.jpg is not a folder"),
        ("out.mp3", "out.mp3: videos with the suffix .mp3 are not written; give .mp4"),
        ("", "(empty): not a name to write to; give .mp4"),
    ],
)
def test_bad_outputs(refused, output, message):
    assert refused(*into(output)).startswith(message)


def test_an_output_that_is_a_folder(refused, files):
    (files / "a.mp4").mkdir()
    assert refused(*into("a.mp4")).startswith("a.mp4: is a folder; give the name of a file in it")


@pytest.mark.parametrize("output", ["speech.wav.mp4", "frames"])
def test_an_existing_output(refused, files, output):
    place = files / output
    if output == "frames":
        place.mkdir()
        place = place / "000000.png"
    place.write_bytes(b"mine")
    assert refused(*into(output)).startswith(f"{output}: exists already")
    assert place.read_bytes() == b"mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder(refused, files):
    (files / "locked").mkdir()
    (files / "locked").chmod(0o500)
    line = refused(*into("locked/out.mp4"))
    assert line.startswith("locked/out.mp4: no permission to write into the folder locked")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_folder_that_takes_no_files(refused):
    """Nobody can make a file there; root only finds out when trying."""
    assert refused(*into("/proc/out.mp4")).startswith("/proc/out.mp4: ")


# --- what happens on the way --------------------------------------------------------------------


@pytest.mark.parametrize("output", ["out.mp4", "out.webm", "out.gif", "frames"])
@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_fills_up(refused, files, monkeypatch, output, there):
    if there and output == "frames":
        (files / output).mkdir()
        (files / output / "000000.png").write_bytes(b"mine")
    elif there:
        (files / output).write_bytes(b"mine")
    kind = {"out.gif": "_GifWriter", "frames": "_FolderWriter"}.get(output, "_MovieWriter")
    writer, added = getattr(video_writer, kind), []
    add = writer.add

    def add_some(self, frame):
        if len(added) == 5:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        added.append(add(self, frame))

    monkeypatch.setattr(writer, "add", add_some)
    line = refused(*into(output), "--overwrite")
    assert line == f"{output}: the disk is full; free some space or write elsewhere"


@pytest.mark.parametrize("output", ["out.mp4", "out.gif", "frames"])
def test_a_file_that_may_not_grow(refused, files, output):
    """A real refusal by the system in the middle of writing, whoever does the writing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, hard))
    try:
        line = refused(*into(output))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert line.startswith(f"{output}: cannot be written (file too large")


@pytest.mark.parametrize("output", ["out.mp4", "frames"])
def test_ctrl_c_between_frames(refused, monkeypatch, output):
    frames = Animation.__iter__

    def interrupted(self):
        for number, frame in enumerate(frames(self)):
            if number == 5:
                raise KeyboardInterrupt
            yield frame

    monkeypatch.setattr(Animation, "__iter__", interrupted)
    assert refused(*into(output), code=130) in ("", "interrupted")


def test_a_failing_shard_leaves_nothing_half_made(refused, files):
    (files / "jobs.csv").write_text("photo,speech,output\nphoto.jpg,none.wav,a.mp4\n")
    line = refused("animate", "--jobs", "jobs.csv", "--model", "model.safetensors", "-q")
    assert line == "jobs.csv, line 2: none.wav: no such file; check the path"


# --- as a program of its own --------------------------------------------------------------------


@pytest.mark.e2e
def test_a_run_says_nothing_but_its_result_and_ctrl_c_leaves_nothing(files):
    """MediaPipe's, TensorFlow's and FFmpeg's chatter must reach nobody's terminal."""
    program = [sys.executable, "-m", "stillspeak"]
    quiet = subprocess.run([*program, *GOOD, "--quiet"], capture_output=True, check=False)
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"", b"")
    assert (files / "out.mp4").is_file()

    write_wav(files / "speech.wav", np.tile(speech(1), 600))
    before = listing(files)
    command = [*program, *into("long.mp4")]

    def heed_interrupts() -> None:
        """A suite that was started in a shell's background ignores them, and its children too."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, preexec_fn=heed_interrupts
    ) as process:
        deadline = time.monotonic() + 120
        while not list(files.glob(".*")) and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == b""
    assert b"Traceback" not in err
    assert len(err.splitlines()) <= 1
    assert listing(files) == before
