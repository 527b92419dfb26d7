"""The package that is built: what is in it, and that it works where nothing else of ours is."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

from stillspeak import __version__
from stillspeak.media.video import probe_video
from support.animate import portrait, speech, write_picture, write_wav

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[1]
LIMIT = 60_000_000
"""Bytes that a wheel may have."""


class Built(NamedTuple):
    wheel: Path
    sdist: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """What ``python -m build`` makes: the source archive, and from that the wheel.

    Without isolation, since that would fetch the build backend from the network.
    """
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return Built(wheel, sdist)


@pytest.fixture(scope="module")
def machine(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and its dependencies, and no checkout in sight.

    The dependencies are those of this environment, by a path that says nothing of an editable
    installation in it.
    """
    folder = tmp_path_factory.mktemp("machine") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    variables = {"base": str(folder), "platbase": str(folder)}
    site = Path(sysconfig.get_path("purelib", vars=variables))
    own = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "dependencies.pth").write_text("\n".join(sorted(own)) + "\n")
    command = [sys.executable, "-m", "pip", "--python", str(folder / "bin" / "python"), "install"]
    command += ["--quiet", "--no-deps", "--no-index", "--no-compile", str(built.wheel)]
    subprocess.run(command, check=True)
    return folder


def run(machine: Path, folder: Path, *command: object) -> str:
    """Standard output of a program of the machine, run in a folder, without our variables."""
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "STILLSPEAK"))
    }
    environment |= {"HOME": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    words = [str(machine / "bin" / str(command[0])), *map(str, command[1:])]
    done = subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(built: Built) -> None:
    names = set(zipfile.ZipFile(built.wheel).namelist())
    assert {name.split("/")[0] for name in names} == {
        "stillspeak",
        f"stillspeak-{__version__}.dist-info",
    }
    checked_in = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "src"],
        capture_output=True,
        text=True,
    )
    if checked_in.returncode == 0:  # not from an archive
        there = {line for line in checked_in.stdout.splitlines() if (ROOT / line).is_file()}
        assert {f"src/{n}" for n in names if n.startswith("stillspeak/")} == there
    assert {
        "stillspeak/py.typed",
        "stillspeak/resources/speech.flac",
        "stillspeak/resources/canonical_face.json",
        "stillspeak/resources/face_landmarker.task",
        "stillspeak/resources/LICENSE-face_landmarker.txt",
        "stillspeak/resources/weights/catalogue.json",
        "stillspeak/resources/report/report.html.j2",
    } <= names
    static = ROOT / "src" / "stillspeak" / "web" / "static"
    pages = {f"stillspeak/{p.relative_to(static.parents[1])}" for p in static.rglob("*.*")}
    assert pages <= names
    assert any(name.endswith(".html") for name in pages)


def test_the_wheel_is_small_and_holds_the_weights_used_unasked(built: Built) -> None:
    assert built.wheel.stat().st_size < LIMIT
    with zipfile.ZipFile(built.wheel) as archive:
        table = json.loads(archive.read("stillspeak/resources/weights/catalogue.json"))
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    shipped = {table["models"][table["default"]]["file"]}
    shipped |= {entry["file"] for entry in table["scorers"].values()}
    for name in shipped:
        assert sizes[f"stillspeak/resources/weights/{name}"] > 100_000
    assert not [name for name in sizes if re.search(r"\.(mpg|mp4|align|pkl|pt|pth)$", name)]


def test_the_metadata(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        folder = f"stillspeak-{__version__}.dist-info"
        metadata = archive.read(f"{folder}/METADATA").decode()
        scripts = archive.read(f"{folder}/entry_points.txt").decode()
        assert f"{folder}/licenses/LICENSE" in archive.namelist()
        notice = archive.read("stillspeak/resources/weights/LICENSE-whisper.txt").decode()
    assert "Copyright (c) 2022 OpenAI" in notice
    assert f"\nVersion: {__version__}\n" in metadata
    assert "\nLicense-Expression: MIT\n" in metadata
    assert "stillspeak = stillspeak.cli.app:main" in scripts
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in extras["optional-dependencies"]:
        assert f"\nProvides-Extra: {extra}\n" in metadata


def test_the_source_archive(built: Built) -> None:
    """It builds the wheel (that is how the wheel was made) and brings the configurations."""
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "pyproject.toml", "README.md", "LICENSE", "MODEL_CARD.md", "CHANGELOG.md", "CITATION.cff",
        "SECURITY.md", "configs/pose.toml", "src/stillspeak/py.typed", "PKG-INFO",
    } <= names  # fmt: skip
    allowed = {"src", "configs", ".gitignore"}
    assert {n.split("/")[0] for n in names if "/" in n} <= allowed
    assert not [name for name in names if name.startswith(("tests", "cache", "runs", "weights"))]


def test_it_animates_where_there_is_nothing_but_the_wheel(machine: Path, tmp_path: Path) -> None:
    write_picture(tmp_path / "photo.png", portrait())
    write_wav(tmp_path / "speech.wav", speech(0.4))
    told = run(machine, tmp_path, "stillspeak", "animate", "photo.png", "speech.wav", "-o", "v.mp4")
    assert told == "v.mp4\n"
    info = probe_video(tmp_path / "v.mp4")
    assert (info.width, info.height, info.fps, info.has_audio) == (256, 256, 25, True)
    assert {path.name for path in tmp_path.iterdir()} >= {"photo.png", "speech.wav", "v.mp4"}


def test_its_weights_are_those_of_the_wheel(machine: Path, tmp_path: Path) -> None:
    where = "import json, stillspeak; print(json.dumps(stillspeak.__file__))"
    package = Path(json.loads(run(machine, tmp_path, "python", "-c", where))).parent
    assert package.is_relative_to(machine)
    lines = run(machine, tmp_path, "stillspeak", "weights").splitlines()
    rows = {line.split()[0]: line for line in lines}
    assert "(default)" in rows["layers"]
    assert "MiB" in rows["layers"]
    assert " - " in rows["temporal"]  # not in the wheel, and said so
    shown = json.loads(run(machine, tmp_path, "stillspeak", "weights", "layers"))
    assert Path(shown["file"]).is_relative_to(package)
    assert run(machine, tmp_path, "stillspeak", "--version") == f"stillspeak {__version__}\n"


PROGRAM = """\
import stillspeak

animation = stillspeak.animate("photo.jpg", "speech.wav", seed=3)
reveal_type(animation.save("video.mp4"))
reveal_type(stillspeak.StreamSession("photo.jpg").latency)
reveal_type(animation.fps)
stillspeak.animate("photo.jpg", "speech.wav", blink="often")
stillspeak.animat("photo.jpg", "speech.wav")
"""


def test_a_type_checker_sees_the_types(machine: Path, tmp_path: Path) -> None:
    """As a user's mypy does: through py.typed of an installed package."""
    (tmp_path / "program.py").write_text(PROGRAM)
    # What torch and OpenCV are made of takes mypy half a minute and is not asked for here.
    skipped = ("torch.*", "cv2.*", "PIL.*", "av.*", "scipy.*")
    (tmp_path / "mypy.ini").write_text(
        "[mypy]\nstrict = true\n"
        + "".join(f"[mypy-{name}]\nfollow_imports = skip\n" for name in skipped)
    )
    command = [sys.executable, "-m", "mypy", "--python-executable", str(machine / "bin" / "python")]
    command += ["--cache-dir", str(tmp_path / "cache"), "--config-file", "mypy.ini", "program.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    lines = done.stdout.splitlines()
    told = {int(line.split(":")[1]): line for line in lines if line.startswith("program.py:")}
    assert set(told) == {4, 5, 6, 7, 8}, done.stdout
    assert re.search(r'type is "(builtins\.)?int"', told[4])
    assert re.search(r'type is "stillspeak\.stream\.\w+"', told[5])
    assert re.search(r'type is "(builtins\.)?float"', told[6])
    assert 'Argument "blink"' in told[7]
    assert "no attribute" in told[8]
