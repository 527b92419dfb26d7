"""The pictures in README and docs: made by scripts from the code and the weights that are there."""

import importlib.util
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]


def script(name: str) -> ModuleType:
    """A script of scripts/ as a module."""
    spec = importlib.util.spec_from_file_location(f"script_{name}", ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return script("figures")


def test_the_figures_are_those_of_the_code(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["figures.py", "--check"])
    assert figures.main() == 0, capsys.readouterr().err


def test_another_architecture_is_noticed(
    figures: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from dataclasses import replace

    config = figures.default_config()
    thinner = replace(config, pose=replace(config.pose, basis=config.pose.basis - 1))
    monkeypatch.setattr(figures, "default_config", lambda: thinner)
    monkeypatch.setattr(sys, "argv", ["figures.py", "--check"])
    assert figures.main() == 1
    assert "generator-default.svg: not what the code is" in capsys.readouterr().err


def test_a_name_that_is_gone_is_noticed(figures: ModuleType) -> None:
    figures.named("media.image.load_image")
    with pytest.raises(AttributeError):
        figures.named("media.image.load_picture")
    with pytest.raises(ImportError):
        figures.named("medium.image.load_image")


FIGURES = sorted((ROOT / "docs/figures").glob("*.svg"))


@pytest.mark.parametrize("path", FIGURES, ids=lambda path: path.name)
def test_a_figure_is_sound_and_its_text_is_inside(path: Path) -> None:
    root = ET.parse(path).getroot()  # noqa: S314 - our own file
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    space = "{http://www.w3.org/2000/svg}"
    assert root.findtext(f"{space}title")
    for box in root.iter(f"{space}rect"):
        right = float(box.get("x", 0)) + float(box.get("width", 0))
        bottom = float(box.get("y", 0)) + float(box.get("height", 0))
        assert right <= width
        assert bottom <= height
    for text in root.iter(f"{space}text"):
        assert 0 < float(text.get("x", 0)) < width
        assert 0 < float(text.get("y", 0)) < height
    assert "script" not in path.read_text("utf-8")


def test_the_numbers_in_the_paper_are_in_the_figure(figures: ModuleType) -> None:
    """Sections 2.1 and 2.2: 50, 256 and 10 numbers, two layers, six channels, six layers."""
    drawn = {
        name: (ROOT / "docs/figures" / f"{name}.svg").read_text("utf-8")
        for name in ("generator-paper", "system", "sequence-discriminator")
    }
    for words in ("z_id 50", "z_c 256", "z_n 10", "GRU, 2 layers", "GRU, 1 layer", "0.16 s"):
        assert words in drawn["generator-paper"]
    assert "6 layers" in drawn["system"]
    assert "6 channels" in drawn["system"]
    assert "classifier, 2 layers" in drawn["sequence-discriminator"]


def test_the_moving_picture_of_the_readme() -> None:
    path = ROOT / "docs/images/demo.gif"
    assert path.stat().st_size < 1_500_000
    assert "docs/images/demo.gif" in (ROOT / "README.md").read_text("utf-8")
    with Image.open(path) as picture:
        assert picture.n_frames > 40
        assert b"Synthetic" in picture.info["comment"]
        frames = []
        for index in range(0, 40, 5):
            picture.seek(index)
            frames.append(np.asarray(picture.convert("RGB")).astype(int))
    moves = np.abs(np.diff(frames, axis=0)).max(axis=(0, 3)) > 20
    wide = moves.shape[1]
    assert moves[:, wide // 2 :].sum() > 200  # the face
    assert not moves[: len(moves) // 4, : wide // 3].any()  # the still beside it


def test_the_moving_picture_is_put_together_rightly(tmp_path: Path) -> None:
    maker = script("readme_picture")
    grey = Image.new("RGB", (maker.STILL, maker.STILL), "grey")
    wave = np.linspace(0, 1, maker.STILL, dtype=np.float32)
    pictures = []
    for share, colour in ((0.1, "red"), (0.5, "green"), (0.9, "green")):
        frame = Image.new("RGB", (maker.SIDE, maker.SIDE), colour)
        pictures.append(maker.panel(grey, frame, wave, share))
    assert maker.save(pictures, 80, tmp_path / "p.gif") == (tmp_path / "p.gif").stat().st_size
    with Image.open(tmp_path / "p.gif") as made:
        assert made.n_frames == 3
        for index, picture in enumerate(pictures):
            made.seek(index)
            difference = np.asarray(made.convert("RGB")).astype(int) - np.asarray(picture)
            assert np.abs(difference).max() < 40
    assert [path.name for path in tmp_path.iterdir()] == ["p.gif"]
