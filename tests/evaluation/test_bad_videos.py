"""Bad input to the command evaluate: each file is named with its reason, the others are scored."""

import json
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stillspeak.cli.app import main
from stillspeak.evaluation import evaluate
from stillspeak.media.video_writer import write_video
from support.animate import portrait, speech
from support.faces import face_pictures

FRAMES = 12
METRICS = "psnr,ssim,silent_jitter"


def crops(seed: int = 0, frames: int = FRAMES) -> np.ndarray:
    return face_pictures(3 + 3 * np.sin(0.8 * np.arange(frames) + seed), seed)


def talking(path: Path, seed: int = 0, frames: int = FRAMES, fps: int = 25) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, crops(seed, frames), fps=fps, audio=speech(frames / fps))
    return path


def sounding(path: Path, samples: np.ndarray) -> Path:
    """Aligned crops with float samples (S,) at 16 kHz that are not looked at."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 96, 128, "yuv420p"
        sound = container.add_stream("pcm_f32le", rate=16_000, layout="mono")
        for k, pixels in enumerate(crops()):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        chunk = av.AudioFrame.from_ndarray(samples[None].astype(np.float32), "flt", "mono")
        chunk.sample_rate, chunk.pts, chunk.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(sound.encode(chunk))
        container.mux(sound.encode(None))
    return path


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in this process; gives exit code, output and errors."""

    def call(*arguments: object, workers: int = 0) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stillspeak", "evaluate", *map(str, arguments)])
        for name in ("evaluate_model", "evaluate_videos"):
            real = getattr(evaluate, name)
            wrapped = lambda *a, r=real, **k: r(*a, **(k | {"workers": workers}))  # noqa: E731
            monkeypatch.setattr(evaluate, name, wrapped)
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        finally:
            monkeypatch.undo()
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def without_sound(path: Path) -> None:
    write_video(path, crops(), audio=None)


def cut(path: Path) -> None:
    """Half of the file is missing; the index stands at its beginning."""
    data = talking(path).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def cut_with_its_index(path: Path) -> None:
    data = sounding(path, SILENCE).read_bytes()
    path.write_bytes(data[: len(data) // 2])


def two_faces(path: Path) -> None:
    both = np.concatenate([portrait(), portrait()], axis=1)
    write_video(path, [both] * FRAMES, audio=speech(FRAMES / 25))


SILENCE = np.zeros(16_000 * FRAMES // 25)
NAN = SILENCE + np.nan

BAD: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "no sound": ("x.mp4", without_sound, "x.mp4: has no sound; add the speech that drives it"),
    "other length": (
        "x.mp4",
        lambda path: talking(path, frames=18),
        "x.mp4: lasts 0.72 s and the real video 0.48 s; cut both to the same speech",
    ),
    "other frame rate": (
        "x.mp4",
        lambda path: talking(path, frames=15, fps=30),
        "x.mp4: shows 30 frames a second and the real video 25; convert it to the same rate",
    ),
    "two faces": ("x.mp4", two_faces, "x.mp4: shows two faces; cut it to the one that speaks"),
    "zero bytes": ("x.mp4", lambda path: path.write_bytes(b""), "x.mp4: the file is empty"),
    "text called .mp4": (
        "x.mp4",
        lambda path: path.write_text("not a film\n" * 50),
        "x.mp4: not a video stillspeak can read (the file starts like text)",
    ),
    "truncated": ("x.mp4", cut, "x.mp4: 8 frames at 25 a second, the real video "),
    "truncated, no index": ("x.mov", cut_with_its_index, "x.mov: "),
    "missing": ("y.mp4", lambda path: talking(path), "has no video of this name"),
    "NaN in the sound": (
        "x.mkv",
        lambda path: sounding(path, NAN),
        "x.mkv: holds NaN or infinite samples; repair or re-export the sound",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_video_is_named_and_the_others_are_scored(
    kind: str, command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    name, damage, reason = BAD[kind]
    for clip, seed in (("good", 1), ("x", 0)):
        talking(tmp_path / "real" / "s1" / f"{clip}.mp4", seed)
    talking(tmp_path / "made" / "s1" / "good.mp4", 2)
    damage(tmp_path / "made" / "s1" / name)
    ask = ["--videos", tmp_path / "made", "--real", tmp_path / "real", "-o", tmp_path / "r"]
    code, out, err = command(*ask, "--metrics", METRICS)
    assert code == 1
    assert err.startswith("stillspeak: s1/x: skipped: ")
    assert err.count("\n") == 1
    assert reason in err
    assert "1 clips scored, 0 were there already, 1 failed" in out
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert (summary["clips"], [f["clip"] for f in summary["failed"]]) == (1, ["s1/x"])
    lines = (tmp_path / "r" / "values.jsonl").read_text().splitlines()
    assert {json.loads(line)["clip"] for line in lines} == {"s1/good"}


@pytest.mark.parametrize("kind", ["NaN in the sound", "zero bytes", "truncated"])
def test_a_bad_real_video_is_named(
    kind: str, command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    name, damage, _ = BAD[kind]
    for clip in ("good", "x"):
        talking(tmp_path / "made" / "s1" / f"{clip}.mp4", 2)
    talking(tmp_path / "real" / "s1" / "good.mp4")
    damage(tmp_path / "real" / "s1" / name)
    ask = ["--videos", tmp_path / "made", "--real", tmp_path / "real", "-o", tmp_path / "r"]
    code, out, err = command(*ask, "--metrics", METRICS)
    assert code == 1
    assert f"real/s1/{name}" in err
    assert "1 clips scored" in out


def test_silent_sound_is_scored(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    for folder in ("real", "made"):
        sounding(tmp_path / folder / "s1" / "x.mkv", SILENCE)
    ask = ["--videos", tmp_path / "made", "--real", tmp_path / "real", "-o", tmp_path / "r"]
    code, _, err = command(*ask, "--metrics", METRICS)
    assert (code, err) == (0, "")
    rows = map(json.loads, (tmp_path / "r" / "values.jsonl").read_text().splitlines())
    values = {row["metric"]: row for row in rows}
    assert values["psnr"]["value"] == "inf"
    assert values["silent_jitter"]["value"] > 0
    assert values["silent_jitter"]["note"] == "silence by energy"


@pytest.mark.e2e
def test_one_broken_file_among_fifty(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    first = [
        talking(tmp_path / side / "s0" / "00.mp4", k) for k, side in enumerate(("real", "made"))
    ]
    for folder, source in zip((tmp_path / "real", tmp_path / "made"), first, strict=True):
        for n in range(1, 50):
            (folder / f"s{n % 5}").mkdir(exist_ok=True)
            shutil.copy(source, folder / f"s{n % 5}" / f"{n:02}.mp4")
    broken = tmp_path / "made" / "s3" / "33.mp4"
    data = bytearray(broken.read_bytes())
    data[40 : len(data) // 2] = bytes(len(data) // 2 - 40)
    broken.write_bytes(data)
    ask = ["--videos", tmp_path / "made", "--real", tmp_path / "real", "-o", tmp_path / "r"]
    code, out, err = command(*ask, "--metrics", "psnr", workers=2)
    assert code == 1
    assert err.startswith(f"stillspeak: s3/33: skipped: {broken}: ")
    assert err.count("\n") == 1
    assert "49 clips scored, 0 were there already, 1 failed" in out
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert (summary["clips"], summary["metrics"]["psnr"]["clips"]) == (49, 49)
    assert [f["clip"] for f in summary["failed"]] == ["s3/33"]


@pytest.mark.parametrize("damage", ["zero bytes", "truncated", "other tensors", "missing"])
def test_a_damaged_clip_of_a_prepared_cache(
    damage: str,
    command: Callable[..., tuple[int, str, str]],
    speaking_cache: Path,
    tmp_path: Path,
) -> None:
    from safetensors.numpy import save_file

    cache = Path(shutil.copytree(speaking_cache, tmp_path / "cache"))
    file = cache / "a" / "two.safetensors"
    if damage == "missing":
        file.unlink()
    elif damage == "other tensors":
        save_file({"words": np.zeros(3)}, file)
    else:
        file.write_bytes(file.read_bytes()[: 0 if damage == "zero bytes" else 4000])
    ask = ["--model", "still", "--data", cache, "--split", "train", "-o", tmp_path / "r"]
    code, out, err = command(*ask, "--metrics", METRICS)
    assert code == 1
    assert err.startswith(f"stillspeak: a/two: skipped: {file}: ")
    assert "run stillspeak prepare again" in err
    assert err.count("\n") == 1
    assert "2 clips scored, 0 were there already, 1 failed" in out
