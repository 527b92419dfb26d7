"""``stillspeak stream``: a file, raw sound on stdin, a microphone; what is recorded and shown."""

import io
import os
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from stillspeak.cli.app import app, main
from stillspeak.errors import OutputError, StillspeakError
from stillspeak.media.marks.inspection import inspect_file
from stillspeak.media.video import iter_frames, read_clip
from stillspeak.media.video_recorder import Recorder
from support.animate import (
    RATE,
    listing,
    portrait,
    save_lively,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("stream")
    return SimpleNamespace(
        photo=str(write_picture(folder / "photo.png", portrait())),
        speech=str(write_wav(folder / "speech.wav", speech(1.0))),
        model=str(save_lively(folder / "small.safetensors")),
    )


def run(*arguments: Any, **options: Any) -> Any:
    return CliRunner().invoke(app, ["stream", *map(str, arguments)], **options)


def lag(a: np.ndarray, b: np.ndarray, most: int) -> int:
    """By how many samples b comes after a."""
    size = min(len(a), len(b)) - most
    scores = {
        shift: float(np.dot(a[most:size], b[most + shift : size + shift]))
        for shift in range(-most, most + 1)
    }
    return max(scores, key=scores.__getitem__)


def test_a_file_is_recorded_with_pictures_and_sound_in_step(files, tmp_path, monkeypatch):
    use_shared_detector(monkeypatch)
    film = tmp_path / "film.mp4"
    common = ("--model", files.model, "--crop", "--no-mark")
    result = run(files.photo, "--input", files.speech, "--record", film, *common)
    assert result.exit_code == 0, result.output
    assert "film.mp4" in result.stderr and " 0.00 s of sound lost" in result.stderr
    frames, sound = read_clip(film)
    frames = list(frames)
    assert len(frames) in (26, 27)  # 25 of speech, and what the resampler held
    # The sound as it was, where it was: within 2 ms of the resampler and the encoder.
    assert abs(lag(speech(1.0), sound, 200)) <= 32
    # The pictures are animate's, each at its place or, on a busy machine, a little late.
    offline = tmp_path / "offline.mp4"
    whole = CliRunner().invoke(
        app, ["animate", files.photo, files.speech, "-o", str(offline), "--quiet", *common]
    )
    assert whole.exit_code == 0, whole.output
    expected = np.stack(list(iter_frames(offline))).astype(int)
    places = []
    for index, frame in enumerate(frames[:23]):
        errors = np.abs(expected - frame).mean(axis=(1, 2, 3))
        places.append(index - int(np.argmin(errors)))
    # One by one some are taken for their neighbours', which look alike.
    assert -1 <= np.median(places) <= 3
    with av.open(str(film)) as container:
        assert "Synthetic" in container.metadata["comment"]
    assert listing(tmp_path) == listing(tmp_path) and len(list(tmp_path.iterdir())) == 2


@pytest.mark.e2e
def test_what_is_recorded_is_marked(files, tmp_path, monkeypatch):
    use_shared_detector(monkeypatch)
    found = []
    for name, more in (("a", ()), ("b", ("--label",)), ("c", ("--no-mark",))):
        film = tmp_path / f"{name}.mp4"
        words = ("--input", files.speech, "--record", film, "--model", files.model, *more)
        result = run(files.photo, *words)
        assert result.exit_code == 0, result.output
        assert ("without marks" in result.stderr) == (name == "c")
        found.append(inspect_file(film))
    assert [one.verdict for one in found] == ["intact", "intact", "unmarked"]
    first = found[0]
    assert first.credentials is not None
    assert first.watermark.identifier == first.credentials.watermark is not None
    # Another recording, another identifier.
    assert first.watermark.identifier != found[1].watermark.identifier
    (still,) = first.credentials.ingredients  # what was said is not known before the end
    assert still["title"] == "the still"


class Shell:
    """Real pipes in place of standard input and output."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.patch = monkeypatch
        self.out = b""

    def run(self, *arguments: Any, stdin: bytes = b"", stop_after: int | None = None) -> None:
        """What the console script does; the reader closes the pipe after so many bytes."""
        reads, given = os.pipe()
        taken, writes = os.pipe()

        def give() -> None:
            with os.fdopen(given, "wb") as file:
                file.write(stdin)

        def take() -> None:
            with os.fdopen(taken, "rb", buffering=0) as file:
                while piece := file.read(65536):
                    self.out += piece
                    if stop_after is not None and len(self.out) >= stop_after:
                        return

        threads = [threading.Thread(target=give), threading.Thread(target=take)]
        for thread in threads:
            thread.start()
        monkey = self.patch
        with (
            os.fdopen(reads) as file_in,
            os.fdopen(writes, "w") as file_out,
            monkey.context() as patch,
        ):
            patch.setattr(sys, "stdin", file_in)
            patch.setattr(sys, "stdout", file_out)
            patch.setattr(sys, "argv", ["stillspeak", "stream", *map(str, arguments)])
            with pytest.raises(SystemExit) as end:
                main()
        assert not end.value.code
        for thread in threads:
            thread.join(60)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Shell:
    use_shared_detector(monkeypatch)
    return Shell(monkeypatch)


def test_raw_sound_on_stdin_is_shown_on_stdout(files, shell, capfd):
    pcm = np.rint(np.repeat(speech(0.6)[:, None], 2, 1) * 32767).astype("<i2").tobytes()
    shell.run(
        files.photo, "--input", "-", "--rate", RATE, "--channels", 2, "-o", "-",
        "--model", files.model, "--crop", stdin=pcm,
    )  # fmt: skip
    with av.open(io.BytesIO(shell.out)) as container:
        assert container.format.name.startswith("matroska")
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        assert sum(p.size > 0 and p.stream.type == "video" for p in container.demux()) >= 14
    with av.open(io.BytesIO(shell.out)) as container:
        sound = np.concatenate([f.to_ndarray().ravel() for f in container.decode(audio=0)])
    assert np.abs(sound).max() > 5000
    said = capfd.readouterr().err.splitlines()
    assert len(said) == 1 and "pictures" in said[0]


@pytest.mark.parametrize("form", ["rgb24", "mjpeg"])
def test_bare_pictures_on_stdout(files, shell, capfd, form):
    shell.run(
        files.photo, "--input", files.speech, "--seconds", "0.4", "-o", "-", "--format", form,
        "--model", files.model, "--crop", "-q",
    )  # fmt: skip
    assert not capfd.readouterr().err
    if form == "rgb24":
        size = 128 * 96 * 3
        assert len(shell.out) % size == 0 and 1 <= len(shell.out) // size <= 10
    else:
        assert shell.out.startswith(b"\xff\xd8") and shell.out.endswith(b"\xff\xd9")
        assert 1 <= shell.out.count(b"\xff\xd8\xff\xe0") <= 10


@pytest.mark.e2e
def test_a_player_that_is_closed_ends_it(files, shell, tmp_path):
    film = tmp_path / "film.mp4"
    shell.run(
        files.photo, "--input", files.speech, "--record", film, "-o", "-", "--model", files.model,
        "--crop", stop_after=1000,
    )  # fmt: skip
    assert 1 <= len(list(iter_frames(film))) <= 27


@pytest.mark.e2e
def test_ctrl_c_leaves_a_film_that_plays(files, tmp_path):
    """While stdin stays open and silent, as a microphone's pipe does."""
    film = tmp_path / "film.mp4"
    command = [
        sys.executable, "-m", "stillspeak", "stream", files.photo, "--input", "-", "--live",
        "--record", film, "-o", "-", "--format", "rgb24", "--model", files.model, "--crop",
    ]  # fmt: skip
    with subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        try:
            # Ten pictures have come: it is under way.
            process.stdin.write(np.rint(speech(0.5) * 32767).astype("<i2").tobytes())
            process.stdin.flush()
            assert len(process.stdout.read(10 * 128 * 96 * 3)) == 10 * 128 * 96 * 3
            drain = threading.Thread(target=process.stdout.read)
            drain.start()
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0, process.stderr.read()
            drain.join()
        finally:
            process.kill()
    assert len(list(iter_frames(film))) >= 10
    assert [entry.name for entry in tmp_path.iterdir()] == ["film.mp4"]


class Devices:
    """Stands in for sounddevice: a microphone that hears a sentence, or none."""

    class PortAudioError(Exception):
        pass

    def __init__(self, there: bool = True) -> None:
        self.there = there
        self.asked: Any = None
        self.closed = False

    def query_devices(self, device: Any, kind: str) -> dict[str, Any]:
        assert kind == "input"
        self.asked = device
        if not self.there:
            raise self.PortAudioError("Error querying device -1")
        return {"default_samplerate": 44_100.0}

    def InputStream(self, **options: Any) -> Any:  # noqa: N802
        devices = self

        class Stream:
            def __enter__(self) -> None:
                self.over = threading.Event()
                self.thread = threading.Thread(target=self.speak)
                self.thread.start()

            def speak(self) -> None:
                sound = np.interp(np.arange(44_100) / 44_100, np.arange(RATE) / RATE, speech(1.0))
                size = options["blocksize"]
                buffer = np.zeros((size, 1), np.float32)
                begin = 0
                while not self.over.wait(size / 44_100):
                    buffer[:, 0] = sound[np.arange(begin, begin + size) % len(sound)]
                    options["callback"](buffer, size, None, None)
                    buffer[:] = np.nan  # the sound system uses it again
                    begin += size

            def __exit__(self, *_: object) -> None:
                self.over.set()
                self.thread.join()
                devices.closed = True

        return Stream()


def test_a_microphone(files, tmp_path, monkeypatch):
    use_shared_detector(monkeypatch)
    devices = Devices()
    monkeypatch.setitem(sys.modules, "sounddevice", devices)
    film = tmp_path / "film.mp4"
    result = run(
        files.photo, "--mic", "--mic-device", "1", "--seconds", 1.2, "--record", film,
        "--model", files.model, "--crop",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert devices.closed and devices.asked == 1
    frames, sound = read_clip(film)
    assert 15 <= len(list(frames)) <= 30
    assert np.abs(sound).max() > 0.2


def test_no_microphone_is_one_clear_line(files, tmp_path, monkeypatch):
    use_shared_detector(monkeypatch)
    film = tmp_path / "film.mp4"

    def message() -> str:
        result = run(files.photo, "--mic", "--record", film, "--model", files.model, "--crop")
        assert isinstance(result.exception, StillspeakError)
        assert not list(tmp_path.iterdir())
        return str(result.exception)

    monkeypatch.setitem(sys.modules, "sounddevice", Devices(there=False))
    assert "no microphone can be opened" in message() and "--input" in message()
    monkeypatch.setitem(sys.modules, "sounddevice", None)  # import raises ImportError
    assert "stillspeak[mic]" in message()

    class NoLibrary:
        def find_spec(self, name: str, *_: Any) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice")
    monkeypatch.setattr(sys, "meta_path", [NoLibrary(), *sys.meta_path])
    assert "libportaudio2" in message()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--mic, or --input"),
        (["--mic", "--input", "x"], "--mic, or --input"),
        (["--input", "x"], "--record"),
        (["--input", "x", "-o", "out.mp4"], "stdout"),
        (["--input", "x", "-o", "-", "--format", "avi"], "mkv"),
        (["--input", "x", "-o", "-", "--mic-device", "1"], "--mic"),
    ],
)
def test_usage(arguments, message):
    result = run("photo.png", *arguments)
    assert result.exit_code == 2 and message in result.output.replace("\n", " ")


def test_files_that_cannot_be(files, tmp_path, monkeypatch):
    use_shared_detector(monkeypatch)
    film = tmp_path / "film.mp4"
    common = ("--model", files.model, "--crop")
    missing = run(files.photo, "--input", tmp_path / "no.wav", "--record", film, *common)
    assert "no such file" in str(missing.exception)
    assert not film.exists()
    wrong = run(files.photo, "--input", files.speech, "--record", tmp_path / "film.gif", *common)
    assert "mp4" in str(wrong.exception)
    film.write_bytes(b"mine")
    there = run(files.photo, "--input", files.speech, "--record", film, *common)
    assert "exists already" in str(there.exception) and film.read_bytes() == b"mine"


# --- the recorder -------------------------------------------------------------------------------


def test_the_recorder_shows_the_last_picture_where_one_is_missing(tmp_path):
    film = tmp_path / "film.mp4"
    tone = np.sin(np.arange(1920) / 10).astype(np.float32)
    with Recorder(film, fps=25, rate=48_000) as recorder:
        recorder.add(None, tone)  # before the first picture: that one stands for it
        for index in range(10):
            picture = np.full((32, 33, 3), 20 * index, np.uint8)
            recorder.add(picture if index % 3 == 0 else None, tone)
        assert recorder.frames == 11
    levels = [round(float(frame.mean()) / 20) for frame in iter_frames(film)]
    assert levels == [0, 0, 0, 0, 3, 3, 3, 6, 6, 6, 9]


def test_the_recorder_leaves_nothing_without_pictures_and_nothing_of_a_failure(tmp_path):
    with Recorder(tmp_path / "empty.mp4", fps=25, rate=48_000) as recorder:
        recorder.add(None, np.zeros(1920, np.float32))
    assert recorder.frames == 0 and not list(tmp_path.iterdir())
    with (
        pytest.raises(ValueError, match="torn"),
        Recorder(tmp_path / "torn.mp4", fps=25, rate=48_000) as recorder,
    ):
        recorder.add(np.zeros((32, 32, 3), np.uint8), np.zeros(1920, np.float32))
        recorder._failed = True
        raise ValueError("torn")
    assert not list(tmp_path.iterdir())
    late = tmp_path / "late.mp4"
    with (
        pytest.raises(OutputError, match="exists"),
        Recorder(late, fps=25, rate=48_000) as recorder,
    ):
        recorder.add(np.zeros((32, 32, 3), np.uint8), np.zeros(1920, np.float32))
        late.write_bytes(b"mine")
    assert late.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1
