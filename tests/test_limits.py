"""What is too large is refused, and what the machine cannot give is said, in one line."""

import errno
import json
import os
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from stillspeak import weights
from stillspeak.animate import Animator
from stillspeak.batch import BatchJob, run_jobs
from stillspeak.cli import app as cli
from stillspeak.data import prepare as prepare_module
from stillspeak.data.cache import load_manifest
from stillspeak.data.corpora import find_grid
from stillspeak.data.prepare import prepare
from stillspeak.errors import ConfigError, DataError, WeightsError, of_the_machine, out_of_memory
from stillspeak.media.audio import load_audio
from stillspeak.options import AnimateOptions
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
from support.kill import Killer

pytestmark = pytest.mark.e2e

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")

ANIMATE = ["animate", "photo.png", "speech.wav", "-o", "out.mp4", "--model", "model.safetensors"]


def png(path: Path, width: int, height: int) -> Path:
    """A black picture that takes no more room here than it must."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    press = zlib.compressobj(9)
    rows = b"".join(press.compress(bytes(1 + width)) for _ in range(height)) + press.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )
    return path


def hours(path: Path, count: float, head: bytes = b"") -> Path:
    """A WAV file of so many hours whose silence takes no room on the disk."""
    size = 2 * round(count * 3600 * RATE)
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", size)
    with path.open("wb") as file:
        file.write(struct.pack("<4sI", b"RIFF", len(body) + size) + body + head)
        file.truncate(8 + len(body) + size)
    return path


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_picture(tmp_path / "photo.png", portrait())
    write_wav(tmp_path / "speech.wav", speech(0.4))
    save_lively(tmp_path / "model.safetensors")
    return tmp_path


@pytest.fixture
def refused(files: Path, kill: Killer) -> Callable[..., str]:
    """Runs a limited command in a process of its own, which has to fail with one line."""

    def run(call: str, amount: int, *arguments: str) -> str:
        before = listing(files)
        absolute = [
            str(files / a) if (files / a).exists() or a == "out.mp4" else a for a in arguments
        ]
        one = kill.start(call, amount, *absolute, folder=files)
        assert one.finish() == 1, one.log.read_text()
        assert listing(files) == before
        assert len(one.said) == 1, one.log.read_text()
        (line,) = one.said
        assert line.startswith("stillspeak: ")
        return line.removeprefix("stillspeak: ").replace(f"{files}/", "")

    return run


# --- memory -------------------------------------------------------------------------------------


@linux
def test_a_picture_that_is_a_bomb_takes_no_memory(files: Path, refused: Callable[..., str]) -> None:
    """Of 300 megapixels not one is decoded: the header is enough."""
    png(files / "photo.png", 20_000, 15_000)
    line = refused("with_memory", 400, *ANIMATE)
    assert line == (
        "photo.png: 20000x15000 is 300.0 megapixels, the limit is 64; make the picture smaller"
    )


@linux
def test_a_picture_for_which_there_is_no_memory(files: Path, refused: Callable[..., str]) -> None:
    png(files / "photo.png", 8000, 7900)
    assert refused("with_memory", 150, *ANIMATE) == cli.NO_MEMORY


@linux
def test_three_hours_of_sound_for_which_there_is_no_memory(
    files: Path, refused: Callable[..., str]
) -> None:
    hours(files / "speech.wav", 3, head=np.int16(speech(1) * 3e4).tobytes())
    assert refused("with_memory", 150, *ANIMATE) == cli.NO_MEMORY


def test_sound_of_exactly_the_limit_is_within_it(tmp_path: Path) -> None:
    """Thousands of pieces whose lengths are no binary fractions are summed."""
    sound = hours(tmp_path / "a.wav", 0.1)
    assert len(load_audio(sound, max_seconds=360)) == 360 * RATE
    with pytest.raises(Exception, match=r"a\.wav: longer than 359\.9 s"):
        load_audio(sound, max_seconds=359.9)


def test_weights_that_are_far_too_large(files: Path) -> None:
    path = files / "model.safetensors"
    with path.open("r+b") as file:
        file.truncate(weights.MAX_BYTES + 2**30)
    with pytest.raises(WeightsError, match=r"model\.safetensors: 5\.0 GiB, the limit .* is 4;"):
        weights.load_model(path)


@linux
def test_weights_for_which_there_is_no_memory(files: Path, refused: Callable[..., str]) -> None:
    """A tensor that claims three gigabytes, all of them there: a file with a hole."""
    path = files / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensor = {"dtype": "F32", "shape": [750_000_000], "data_offsets": [0, 3_000_000_000]}
    header = json.dumps({"__metadata__": metadata, "x": tensor}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header)
    os.truncate(path, 8 + len(header) + 3_000_000_000)
    line = refused("with_memory", 300, *ANIMATE)
    assert line == cli.NO_MEMORY or line.startswith("model.safetensors: ")


@pytest.mark.parametrize(
    ("error", "memory", "machine"),
    [
        (MemoryError(), True, True),
        (OSError(errno.ENOMEM, "x"), True, True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            True,
            True,
        ),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"), True, True),
        (ImportError("libtorch_cpu.so: failed to map segment from shared object"), True, True),
        (OSError(errno.EMFILE, "x"), False, True),
        (OSError(errno.ENOSPC, "x"), False, True),
        (RuntimeError("unable to open file <x>: Too many open files (24)"), False, True),
        (OSError(errno.ENOENT, "x"), False, False),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False, False),
        (ImportError("No module named 'x'"), False, False),
        (ValueError("out of memory"), False, False),
    ],
)
def test_what_the_machine_refuses_is_told_from_other_errors(
    error: Exception, memory: bool, machine: bool
) -> None:
    assert out_of_memory(error) == memory
    assert of_the_machine(error) == machine
    outer = DataError("a clip cannot be read")
    outer.__cause__ = error
    assert of_the_machine(outer) == machine


def test_no_file_is_blamed_where_there_is_no_memory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def wrong(prog_name: str) -> None:
        cause = RuntimeError("DefaultCPUAllocator: can't allocate memory")
        raise WeightsError("x.safetensors: its tensors do not fit") from cause

    monkeypatch.setattr(cli, "app", wrong)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == f"stillspeak: {cli.NO_MEMORY}\n"


def test_an_error_of_the_code_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(prog_name: str) -> None:
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(cli, "app", wrong)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        cli.main()


def test_one_job_too_large_does_not_stop_the_others(
    files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_shared_detector(monkeypatch)
    sounds = [files / "speech.wav", files / "other.wav"]
    write_wav(sounds[1], speech(0.4))
    jobs = [BatchJob(n, files / "photo.png", s, files / f"{n}.mp4") for n, s in enumerate(sounds)]
    with Animator(files / "model.safetensors") as animator:
        real = animator.animate

        def animate(photo: Path, sound: Path, options: AnimateOptions, **more: Any) -> object:
            if sound == sounds[0]:
                raise MemoryError
            return real(photo, sound, options, **more)

        monkeypatch.setattr(animator, "animate", animate)
        first, second = run_jobs(animator, jobs)
    assert first.error == f"{files / '0.mp4'}: not enough memory for this one"
    assert second.frames == 10


# --- open files ---------------------------------------------------------------------------------


@linux
@pytest.mark.parametrize("more", [0, 1, 2])
def test_too_few_open_files(refused: Callable[..., str], more: int) -> None:
    assert "too many open files" in refused("with_files", more, *ANIMATE)


def test_prepare_keeps_its_clips_where_the_machine_has_nothing_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip that cannot be looked at now is neither a bad one nor removed."""
    source = tmp_path / "corpus" / "s1" / "bbaf2n.mp4"
    source.parent.mkdir(parents=True)
    source.write_bytes(b"a video")
    made = tmp_path / "cache" / "s1" / "bbaf2n.safetensors"
    made.parent.mkdir(parents=True)
    made.write_bytes(b"made before")

    class Nobody:
        version = "nobody"

        def close(self) -> None:
            pass

    def full(path: Path, *_: object) -> str:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(prepare_module, "_sha256", full)
    with pytest.raises(DataError, match=r"Too many open files.*is kept") as caught:
        prepare(
            find_grid(tmp_path / "corpus"), tmp_path / "cache",
            detector_factory=Nobody, workers=0,  # type: ignore[arg-type]
        )  # fmt: skip
    assert "\n" not in str(caught.value)
    assert made.read_bytes() == b"made before"
    monkeypatch.undo()
    with pytest.raises(DataError):
        load_manifest(tmp_path / "cache")


# --- size and length of the output --------------------------------------------------------------


@pytest.mark.parametrize("size", ["63", "4097", "999999999999", "-128"])
def test_sizes_out_of_range(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: str
) -> None:
    use_shared_detector(monkeypatch)
    before = listing(files)
    monkeypatch.setattr(sys, "argv", ["stillspeak", *ANIMATE, "--size", size])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert f"equal to {4096 if int(size) > 64 else 64}" in capsys.readouterr().err
    with pytest.raises(ConfigError, match=f"size: must be at .*, not {size}"):
        AnimateOptions(size=int(size))
    assert listing(files) == before


def test_a_size_that_a_wide_picture_makes_too_wide(
    files: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use_shared_detector(monkeypatch)
    wide = np.zeros((256, 1024, 3), np.uint8)
    wide[:, 384:640] = portrait()
    write_picture(files / "photo.png", wide)
    monkeypatch.setattr(sys, "argv", ["stillspeak", *ANIMATE, "--size", "4096"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 1
    assert "16384 pixels wide, more than 8192; give a smaller size" in capsys.readouterr().err
    assert not (files / "out.mp4").exists()
