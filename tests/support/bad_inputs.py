"""Inputs that the command line cannot use, and a process of its own for each."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import tempfile
import wave
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]

ANIMATE = "animate photo.jpg speech.wav -o out.mp4"
POSES = "poses speech.wav -o out.jsonl"
RATE = 16_000


@dataclass(frozen=True)
class Row:
    """A bad input, the command that is given it, and how it is made in the working folder."""

    input: str
    command: str
    make: Callable[[Path], object]


@dataclass(frozen=True)
class Outcome:
    """What a command did: its exit code and everything that it printed, by lines."""

    code: int
    lines: tuple[str, ...]

    @property
    def fine(self) -> bool:
        """Whether it failed with one line of ours."""
        return self.code == 1 and len(self.lines) == 1 and self.lines[0].startswith("stillspeak: ")


# --- making inputs ----------------------------------------------------------------------------


def good(folder: Path) -> None:
    """A picture with a face and a sound, both as they should be."""
    import PIL.Image
    from skimage.data import astronaut

    PIL.Image.fromarray(astronaut()[:256, 96:352]).save(folder / "photo.jpg", quality=95)
    sound(folder, speech(0.6))


def speech(seconds: float) -> np.ndarray:
    """(S,) float: syllables of a tone."""
    time = np.arange(round(seconds * RATE)) / RATE
    return 0.3 * np.sin(2 * np.pi * 180 * time) * (0.5 + 0.5 * np.sin(2 * np.pi * 4 * time))


def sound(folder: Path, samples: np.ndarray, rate: int = RATE) -> None:
    """speech.wav, 16 bit."""
    with wave.open(str(folder / "speech.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())


def float_sound(folder: Path, samples: np.ndarray) -> None:
    """speech.wav, 32-bit floats."""
    data = samples.astype("<f4").tobytes()
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 3, 1, RATE, 4 * RATE, 4, 32)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    (folder / "speech.wav").write_bytes(struct.pack("<4sI", b"RIFF", len(body)) + body)


def with_nan(folder: Path) -> None:
    samples = speech(0.6)
    samples[1000] = np.nan
    float_sound(folder, samples)


def film(folder: Path, name: str, *, with_sound: bool) -> None:
    """A video without a face."""
    from stillspeak.media.video_writer import write_video

    pictures = [np.full((64, 64, 3), 8 * k, np.uint8) for k in range(15)]
    tone = speech(0.6).astype(np.float32) if with_sound else None
    write_video(folder / name, pictures, audio=tone)


def to(name: str, content: bytes | str) -> Callable[[Path], object]:
    """A file with this content."""
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def half(name: str) -> Callable[[Path], object]:
    """A good file that was cut in the middle."""

    def cut(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return cut


def bomb(folder: Path) -> None:
    """A PNG of a few hundred bytes that says it has 10,000 megapixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(bytes(9999))), chunk(b"IEND", b""))
    (folder / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))


def picture(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], object]:
    """photo.jpg, changed as an array."""

    def make(folder: Path) -> None:
        import PIL.Image

        with PIL.Image.open(folder / "photo.jpg") as file:
            array = np.asarray(file)
        PIL.Image.fromarray(change(array)).save(folder / "photo.jpg", quality=95)

    return make


def noise(array: np.ndarray) -> np.ndarray:
    return np.random.default_rng(0).integers(100, 140, array.shape, np.uint8)


def two_small(array: np.ndarray) -> np.ndarray:
    small = array[::3, ::3]
    page = np.full((300, 400, 3), 255, np.uint8)
    page[60 : 60 + len(small), 60 : 60 + small.shape[1]] = small
    page[60 : 60 + len(small), 240 : 240 + small.shape[1]] = small[:, ::-1]
    return page


def broken_tiff(folder: Path) -> None:
    import PIL.Image

    file = io.BytesIO()
    random = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    PIL.Image.fromarray(random).save(file, "TIFF", compression="tiff_adobe_deflate")
    data = bytearray(file.getvalue())
    data[200:260] = bytes(60)
    (folder / "photo.tif").write_bytes(data)


def weights(change: Callable[[dict[str, str]], object]) -> Callable[[Path], object]:
    """model.safetensors: released weights with another header."""

    def make(folder: Path) -> None:
        from safetensors import safe_open
        from safetensors.torch import save_file

        from stillspeak.weights import catalogue

        with safe_open(catalogue()["default"].path, framework="pt") as file:
            metadata = dict(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        change(metadata)
        save_file(tensors, folder / "model.safetensors", metadata)

    return make


def setting(**values: object) -> Callable[[dict[str, str]], object]:
    """A header whose configuration says something else."""

    def change(metadata: dict[str, str]) -> None:
        metadata["config"] = json.dumps(json.loads(metadata["config"]) | values)

    return change


def released_half(folder: Path) -> None:
    from stillspeak.weights import catalogue

    data = catalogue()["default"].path.read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


def lip_reader(folder: Path) -> None:
    from stillspeak.weights import scorers

    shutil.copy(scorers()["lipnet"].path, folder / "model.safetensors")


def manifest(line: str) -> Callable[[Path], object]:
    """A prepared cache with this line in its manifest."""

    def make(folder: Path) -> None:
        (folder / "cache").mkdir()
        (folder / "cache" / "manifest.jsonl").write_text(line + "\n")
        smoke(folder)

    return make


def smoke(folder: Path) -> None:
    for path in (ROOT / "configs").glob("*.toml"):  # it extends others
        shutil.copy(path, folder / path.name)


TRAINING_CLIP = json.dumps(
    {"file": "a.safetensors", "speaker": "a", "stem": "x", "name": "x", "split": "train"}
    | {"frames": 50, "key": "k", "text": None}
)


def study(name: str, content: str) -> Callable[[Path], object]:
    """A folder with one file of a study."""

    def make(folder: Path) -> None:
        (folder / "study").mkdir()
        (folder / "study" / "study.toml").write_text('kind = "mos"\n')
        (folder / "study" / name).write_text(content)

    return make


def corpus(folder: Path) -> None:
    (folder / "grid" / "s1").mkdir(parents=True)
    (folder / "grid" / "s1" / "bbaf2n.mp4").touch()
    (folder / "grid" / "split.json").write_text('{"train": ["s1"], "validation": "s2"}')


def videos_of_text(folder: Path) -> None:
    (folder / "ours").mkdir()
    (folder / "ours" / "a.mp4").write_text("not a video\n")


TRAIN = "train --config smoke.toml --data cache --run run"
LOST = "conceal film.mp4 out.mp4 --lost"


def with_film(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def both(folder: Path) -> None:
        film(folder, "film.mp4", with_sound=True)
        make(folder)

    return both


def nothing(folder: Path) -> None:
    """What is there is good; the command is not."""


ROWS = (
    Row("an empty picture", ANIMATE, to("photo.jpg", b"")),
    Row("text named .jpg", ANIMATE, to("photo.jpg", "hello\n")),
    Row(
        "a sound named .jpg",
        ANIMATE,
        lambda folder: shutil.copy(folder / "speech.wav", folder / "photo.jpg"),
    ),
    Row("a picture cut in half", ANIMATE, half("photo.jpg")),
    Row("a PNG of 10,000 megapixels", ANIMATE.replace(".jpg", ".png"), bomb),
    Row("a damaged TIFF", ANIMATE.replace(".jpg", ".tif"), broken_tiff),
    Row("a picture without a face", ANIMATE, picture(noise)),
    Row("two faces, both too small", ANIMATE, picture(two_small)),
    Row("one face, the second asked for", f"{ANIMATE} --face 1", nothing),
    Row("a picture that is not there", ANIMATE.replace("photo", "none"), nothing),
    Row("a folder in place of a picture", ANIMATE.replace("photo.jpg", "."), nothing),
    Row("an empty sound", ANIMATE, to("speech.wav", b"")),
    Row("text named .wav", ANIMATE, to("speech.wav", "hello\n")),
    Row("a sound of zeros", ANIMATE, lambda folder: sound(folder, np.zeros(RATE))),
    Row("a sound of 50 ms", ANIMATE, lambda folder: sound(folder, speech(0.05))),
    Row("a sound with one NaN", ANIMATE, with_nan),
    Row("floats up to 32767", ANIMATE, lambda folder: float_sound(folder, 32767 * speech(0.6))),
    Row(
        "a sound of more than three hours",
        ANIMATE,
        lambda folder: sound(folder, np.tile(speech(1)[::160], 10_900), rate=100),
    ),
    Row(
        "a video without sound, as the sound",
        ANIMATE.replace("speech.wav", "film.mp4"),
        lambda folder: film(folder, "film.mp4", with_sound=False),
    ),
    Row("a sound that is not there", ANIMATE.replace("speech", "none"), nothing),
    Row("an output that exists", ANIMATE, to("out.mp4", b"mine")),
    Row("a suffix that is not written", ANIMATE.replace(".mp4", ".mp3"), nothing),
    Row("a folder that does not exist", ANIMATE.replace("out", "none/out"), nothing),
    Row("a place that takes no files", ANIMATE.replace("out", "/proc/out"), nothing),
    Row(
        "a table of jobs without outputs",
        "animate --jobs jobs.csv",
        to("jobs.csv", "photo,speech\nphoto.jpg,speech.wav\n"),
    ),
    Row("poses of a sound of zeros", POSES, lambda folder: sound(folder, np.zeros(RATE))),
    Row("poses of text named .wav", POSES, to("speech.wav", "hello\n")),
    Row("poses where a file is", POSES, to("out.jsonl", b"mine")),
    Row("poses in a folder that does not exist", POSES.replace("out", "none/out"), nothing),
    Row("empty weights", "weights model.safetensors", to("model.safetensors", b"")),
    Row(
        "a pickle named .safetensors",
        "weights model.safetensors",
        to("model.safetensors", pickle.dumps({"weights": [1.0] * 99})),
    ),
    Row("weights that are not there", "weights none.safetensors", nothing),
    Row("weights cut in half", f"{ANIMATE} --model model.safetensors", released_half),
    Row("weights of a lip reader", f"{ANIMATE} --model model.safetensors", lip_reader),
    Row(
        "weights that ask for a width of 4,000,000",
        f"{ANIMATE} --model model.safetensors",
        weights(setting(context_dim=4_000_000)),
    ),
    Row(
        "weights of another size than they say",
        f"{ANIMATE} --model model.safetensors",
        weights(setting(context_dim=1024)),
    ),
    Row(
        "weights with another golden answer",
        f"{ANIMATE} --model model.safetensors",
        weights(lambda metadata: metadata.update(golden="[0.5, null]")),
    ),
    Row(
        "a configuration with an unknown key",
        "train --config a.toml --data cache --run run",
        to("a.toml", "[training]\nstep = 5\n"),
    ),
    Row(
        "a configuration with a word for a number",
        "train --config a.toml --data cache --run run",
        to("a.toml", '[training]\nsteps = "many"\n'),
    ),
    Row(
        "a configuration that is no TOML",
        "train --config a.toml --data cache --run run",
        to("a.toml", "[training\n"),
    ),
    Row(
        "a configuration that extends itself",
        "train --config a.toml --data cache --run run",
        to("a.toml", 'extends = "a.toml"\n'),
    ),
    Row(
        "settings of a server out of range",
        "serve --config a.toml",
        to("a.toml", "max_seconds = -1\n"),
    ),
    Row("no prepared cache", TRAIN, smoke),
    Row("a manifest that is no JSON", TRAIN, manifest("{")),
    Row("a manifest nested 10,000 deep", TRAIN, manifest("[" * 10_000)),
    Row(
        "a manifest with a line break in a key",
        TRAIN,
        manifest('{"file": "a", "spea\\nker\\u001b[31m": 1}'),
    ),
    Row(
        "a manifest with a clip of a thousandth of a frame",
        TRAIN,
        manifest(TRAINING_CLIP.replace("50", "0.001")),
    ),
    Row(
        "a cache without the split that is asked for",
        "evaluate --model still --data cache -o out",
        manifest(TRAINING_CLIP),
    ),
    Row("a split that is no list", "prepare grid cache", corpus),
    Row(
        "lost intervals that end before they begin",
        f"{LOST} lost.csv",
        with_film(to("lost.csv", "start,end\n2.0,1.0\n")),
    ),
    Row(
        "lost intervals with a number of 400 digits",
        f"{LOST} lost.json",
        with_film(to("lost.json", '{"frames": [[9' + "0" * 400 + ", 3]]}")),
    ),
    Row("a video that is text", f"{LOST} 3-5", to("film.mp4", "hello\n")),
    Row("a study without its videos", "study serve study", study("study.toml", 'kind = "mos"\n')),
    Row(
        "a study whose list of videos is damaged",
        "study serve study",
        study("materials.json", "[1"),
    ),
    Row("a study of files that are no videos", "study init new ours --mos", videos_of_text),
    Row("a file of noise to inspect", "inspect a.mp4", to("a.mp4", bytes(range(256)) * 20)),
)

QUICK = {
    "empty weights": "model.safetensors: not a weights file or damaged (",
    "a pickle named .safetensors": "model.safetensors: not a weights file or damaged (",
    "a table of jobs without outputs": "jobs.csv: needs the columns photo, speech, output and may",
    "a configuration with a word for a number": "a.toml: training.steps: ",
}
"""Rows that take a second or two, and how their line begins."""


# --- running them -----------------------------------------------------------------------------


def run(row: Row) -> Outcome:
    """Make a row's input in a new folder and run its command there."""
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as own:
        folder = Path(name)
        good(folder)
        row.make(folder)
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        environment = os.environ | {
            "COLUMNS": "1000",
            "PYTHONPATH": str(ROOT / "src"),
            "STILLSPEAK_CONFIG": own,  # certificates are made where there are none
        }
        done = subprocess.run(
            [sys.executable, "-m", "stillspeak", *row.command.split()],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        if after != before:
            changed = sorted(str(p.relative_to(folder)) for p, _ in after.items() ^ before.items())
            raise RuntimeError(f"{row.input}: files were changed or left: {', '.join(changed)}")
        text = done.stdout + done.stderr
        for form in {str(folder), str(folder.resolve())}:
            text = text.replace(f"{form}/", "").replace(form, ".")
    return Outcome(done.returncode, tuple(text.splitlines()))
