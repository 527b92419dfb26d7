"""The command line's prepare: its layouts, its lists, and what it says of videos left out."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillspeak.cli import app as cli
from stillspeak.constants import SAMPLE_RATE
from stillspeak.data.cache import load_manifest
from stillspeak.media.audio import load_audio
from stillspeak.media.video_writer import write_video
from support.film import SPEECH, talk


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Runs ``stillspeak prepare``: exit code and lines of standard output and error."""

    def run(*arguments: object) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["stillspeak", "prepare", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return run


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def test_the_help_names_the_layouts(run: Callable[..., tuple[int, list[str], list[str]]]) -> None:
    code, out, _ = run("--help")
    words = " ".join(" ".join(out).replace("│", " ").split())
    assert code == 0
    assert "grid, tcd-timit, crema-d, or folder" in words


def test_a_list_of_tcd_timit(
    tmp_path: Path, run: Callable[..., tuple[int, list[str], list[str]]]
) -> None:
    names = ("01M", "13F", "21M", "27M")
    touch(tmp_path, *(f"volunteers/{n}/Clips/straightcam/sa{k}.mp4" for n in names for k in (1, 2)))
    code, out, err = run(tmp_path, tmp_path / "cache", "--layout", "tcd-timit", "--list")
    assert (code, err) == (0, [])
    assert [line.split() for line in out] == [
        ["test", "13F", "2", "clips"],
        ["train", "01M", "2", "clips"],
        ["validation", "21M", "2", "clips"],
    ]
    assert not (tmp_path / "cache").exists()


def test_a_list_of_crema_d(
    tmp_path: Path, run: Callable[..., tuple[int, list[str], list[str]]]
) -> None:
    touch(
        tmp_path,
        *(f"VideoFlash/1001_{s}_ANG_XX.flv" for s in ("DFA", "IEO")),
        "VideoFlash/1001_DFA_SAD_LO.flv",
        "VideoFlash/1008_DFA_HAP_HI.flv",
    )
    code, out, _ = run(tmp_path, "cache", "--layout", "crema-d", "--list")
    assert code == 0
    assert [line.split() for line in out] == [
        ["train", "1001", "3", "clips", "anger", "2", "sad", "1"],
        ["validation", "1008", "1", "clips", "happy", "1"],
    ]


@pytest.mark.e2e
def test_a_list_of_a_folder(
    tmp_path: Path, run: Callable[..., tuple[int, list[str], list[str]]]
) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    talk(videos / "anna.mp4", utterances=2)
    (videos / "anna.mov").write_text("no video")
    code, out, err = run(videos, tmp_path / "cache", "--layout", "folder", "--list")
    assert code == 1
    assert [line.split()[:4] for line in out[:1]] == [["train", "anna", "2", "clips"]]
    assert 6 < float(out[0].split()[4]) < 8
    assert out[1].startswith("no speaker is for validation")
    (line,) = err
    assert line.startswith(f"stillspeak: left out: {videos / 'anna.mov'}: not a")
    (videos / "anna.mov").unlink()
    code, _, err = run(videos, tmp_path / "cache", "--layout", "folder", "--list")
    assert (code, err) == (0, [])
    code, out, err = run(
        videos,
        tmp_path / "cache",
        "--layout=folder",
        "--list",
        "--min-seconds=4",
        "--max-seconds=10",
    )
    assert code == 1
    assert "no speech of at least 4 s" in err[0]
    assert err[-1].startswith(f"stillspeak: {videos}: none of 1 videos can be used")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--layout", "folder", "--min-seconds", "0.5"],
        ["--layout", "folder", "--max-seconds", "3"],
        ["--layout", "grid", "--max-seconds", "9"],
        ["--layout", "elsewhere"],
    ],
)
def test_usage(
    tmp_path: Path, run: Callable[..., tuple[int, list[str], list[str]]], arguments: list[str]
) -> None:
    code, out, err = run(tmp_path, "cache", *arguments)
    assert (code, out) == (2, [])
    assert "Usage" in err[0]


def test_some_splits_alone(
    tmp_path: Path, run: Callable[..., tuple[int, list[str], list[str]]]
) -> None:
    touch(tmp_path, *(f"volunteers/{n}/Clips/straightcam/sa1.mp4" for n in ("01M", "13F", "21M")))
    given = (tmp_path, tmp_path / "cache", "--layout", "tcd-timit", "--list")
    for splits in (["train"], ["test", "validation"]):
        code, out, _ = run(*given, *(word for split in splits for word in ("--split", split)))
        assert code == 0
        assert [line.split()[0] for line in out] == splits


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [("--split", "dev", "'dev' is not one of train, validation, test"), ("--mouth-scale", 3, "3")],
)
def test_splits_and_scales_that_there_are_not(
    option: str,
    value: object,
    says: str,
    tmp_path: Path,
    run: Callable[..., tuple[int, list[str], list[str]]],
) -> None:
    code, _, err = run(tmp_path, tmp_path / "cache", option, value)
    assert code == 2
    assert says in " ".join(" ".join(err).replace("│", " ").split())


@pytest.mark.e2e
def test_a_folder_is_prepared(
    tmp_path: Path, run: Callable[..., tuple[int, list[str], list[str]]]
) -> None:
    """A portrait that speaks, and a wall that does: the wall is named with its time span."""
    portrait = np.asarray(pytest.importorskip("skimage.data").astronaut())[:224, 110:334]
    videos, cache = tmp_path / "videos", tmp_path / "cache"
    (videos / "eileen").mkdir(parents=True)
    sound = load_audio(SPEECH)[: round(3.2 * SAMPLE_RATE)]
    for name, picture in (("talk", portrait), ("wall", np.full_like(portrait, 90))):
        write_video(videos / "eileen" / f"{name}.mp4", [picture] * 80, audio=sound)
    code, out, err = run(videos, cache, "--layout", "folder", "--workers", 1)
    assert code == 1
    (line,) = [line for line in err if line.startswith("stillspeak: ")]
    assert "left out" in line
    assert "wall.mp4, 0.00 to" in line
    assert "no face in frames 0 to 5" in line
    assert out[-1].startswith("1 clips prepared, 0 were there already, 1 left out;")
    (cached,) = load_manifest(cache)
    assert (cached.speaker, cached.split, cached.name) == ("eileen", "train", "talk-00000000")
    assert 50 <= cached.frames <= 80
    kept = [json.loads(p.read_text()) for p in (cache / ".segments").iterdir()]
    assert len(kept) == 2
