"""The gallery is made whole. What its sheets look like is asserted nowhere."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import PIL.Image
import pytest

from stillspeak.face.landmarks import Face
from support.animate import portrait, portrait_face, save_lively, shared_detector, write_picture

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def gallery() -> ModuleType:
    spec = importlib.util.spec_from_file_location("gallery", ROOT / "scripts" / "gallery.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gallery"] = module  # where dataclasses look up their annotations
    spec.loader.exec_module(module)
    return module


class Detector:
    """The session's detector, which nobody closes; in crops, which are many, it does not look."""

    def __init__(self, max_faces: int = 1) -> None:
        self.version = shared_detector().version

    def detect(self, image: np.ndarray) -> list[Face]:
        in_crop = len(image) == 3 * (128 + 2 * 32)
        return [portrait_face()] if in_crop else shared_detector().detect(image)

    def __enter__(self) -> "Detector":
        return self

    def __exit__(self, *exc_info: object) -> None: ...


def run(gallery: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> None:
    monkeypatch.setattr(gallery, "MediaPipeDetector", Detector)
    monkeypatch.setattr(sys, "argv", ["gallery.py", *map(str, words)])
    gallery.main()


def test_gallery_from_a_cache_and_weights(
    gallery: ModuleType, monkeypatch: pytest.MonkeyPatch, speaking_cache: Path, tmp_path: Path
) -> None:
    weights, pictures, private = tmp_path / "m.safetensors", tmp_path / "in", tmp_path / "private"
    save_lively(weights)
    pictures.mkdir()
    write_picture(pictures / "someone.png", portrait())
    (pictures / "notes.txt").write_text("no picture")
    (pictures / "broken.jpg").write_bytes(b"no picture")
    page, old, own = (tmp_path / "g" / name for name in ("README.md", "old.jpg", "own.jpg"))
    old.parent.mkdir()
    for file in (old, own):
        file.write_bytes(b"a sheet")
    begin, end = gallery.BEGIN, gallery.END
    page.write_text(f"Before.\n{begin}\n![x](old.jpg)\n{end}\nAfter. ![x](own.jpg)\n")
    short = np.tile(np.sin(0.1 * np.arange(640, dtype=np.float32)), 20)
    monkeypatch.setattr(gallery, "SPEECH", (short, 16_000))
    command = ["--model", weights, "--data", speaking_cache, "--speakers", "a", "v", "--seed", 7]
    command += ["--searched", 2, "--output", page.parent]
    run(gallery, monkeypatch, *command, "--pictures", pictures, "--private", private)

    text = page.read_text()
    assert text.startswith(f"Before.\n{begin}\n\nMade by `python scripts/gallery.py --model ")
    assert text.endswith(f"{end}\nAfter. ![x](own.jpg)\n")
    assert "seed 7" in text and "CC BY 4.0" in " ".join(text.split())
    assert "**No blink found.** 2 clips" in text
    sheets = ["grid-a", "grid-a-mouths", "grid-v", "grid-v-mouths", "demo", "same-sound"]
    sheets += ["silence", "open-mouths", "head", "moods"]
    assert {file.stem for file in page.parent.glob("*.jpg")} == {*sheets, "own"}
    for sheet in sheets:
        assert f"]({sheet}.jpg)" in text
        assert PIL.Image.open(page.parent / f"{sheet}.jpg").size[0] > 500
    assert "someone" not in text
    assert [file.name for file in sorted(private.iterdir())] == ["README.md", "someone.jpg"]
    assert "## broken\n\nNot animated: " in (private / "README.md").read_text()

    before = {file.name: file.read_bytes() for file in page.parent.iterdir()}
    run(gallery, monkeypatch, *command)
    assert {file.name: file.read_bytes() for file in page.parent.iterdir()} == before


def test_moments_are_those_of_the_real_lips(gallery: ModuleType) -> None:
    opening = np.full(75, 3.0)
    opening[[8, 14, 40]] = 0.5
    opening[[20, 45, 60]] = 8, 9, 7
    words = [(0.0, 0.6, "sil"), (0.6, 1.0, "bin"), (1.6, 2.0, "by"), (2.0, 2.6, "zero")]
    assert gallery.moments(words, opening) == [
        ("silence\n0.32 s", 8),
        ("closed: bin\n0.56 s", 14),
        ("widest: bin\n0.80 s", 20),
        ("closed: by\n1.60 s", 40),
        ("widest: by\n1.80 s", 45),
        ("widest: zero\n2.40 s", 60),
    ]
    assert [t for _, t in gallery.moments([], opening)] == [9, 18, 28, 37, 46, 56, 65, 74]


def test_frames_of_a_blink_are_consecutive(
    gallery: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = np.arange(50, dtype=np.uint8)[:, None, None, None] * np.ones((1, 128, 96, 3), np.uint8)

    class Painted:
        def generated(self, clip: str) -> np.ndarray:
            return frames

        def real(self, clip: str) -> object:
            return gallery.Loaded(frames + 100, np.zeros(1), [])

    def blink(start: int, stop: int, peak: int) -> tuple[list[str], list[list[int]], str]:
        move = gallery.Movement("s2/x", start, stop, peak, 0.5)
        page = gallery.movement_page(Painted(), move, "ours", "blink", "A blink", "Deep.")
        values = [[int(p[0, 0, 0]) for p in pictures] for _, pictures in page.rows]
        return list(page.columns), values, page.caption

    columns, rows, caption = blink(10, 15, 12)
    assert columns[4] == "0.48 s (most)"
    assert rows[:2] == [list(range(8, 17))] * 2
    assert rows[2] == [t + 100 for t in range(8, 17)]
    assert caption == "Consecutive frames of s2/x. Deep."
    columns, rows, caption = blink(0, 50, 23)
    assert len(rows[0]) == gallery.CONSECUTIVE and 23 in rows[0]
    assert (rows[0][0], rows[0][-1]) == (0, 49)
    assert caption.startswith("Frames of")


def test_what_is_private_stays_out(
    gallery: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, problem in (
        (["--pictures", tmp_path], "belong together"),
        (["--pictures", tmp_path, "--private", tmp_path / "g" / "x"], "lies in the gallery"),
    ):
        with pytest.raises(SystemExit):
            run(gallery, monkeypatch, "--output", tmp_path / "g", *words)
        assert problem in capsys.readouterr().err
    with pytest.raises(SystemExit, match=r"gallery: .*no prepared clips here"):
        run(gallery, monkeypatch, "--model", "temporal", "--data", tmp_path)


def test_labelled_rows_of_unequal_heights(gallery: ModuleType) -> None:
    margin = gallery.MARGIN
    red, blue = np.array([200, 0, 0], np.uint8), np.array([0, 0, 200], np.uint8)
    wide, low = np.tile(red, (10, 40, 1)), np.tile(blue, (5, 40, 1))
    sheet = gallery.labelled_sheet(
        [("above", [wide, wide]), ("", [low])], ["one", "two\nlines"], gap=4
    )
    assert sheet.shape[1] == 2 * margin + 84
    ys, xs = np.nonzero((sheet == red).all(axis=-1))
    assert (ys.max() - ys.min() + 1, xs.min(), xs.max() + 1) == (10, margin, margin + 84)
    below = sheet[ys.max() + 1 :]
    assert (below == blue).all(axis=-1).sum() == 5 * 40
    assert (below[:, margin + 40 :] == 255).all()
    headings = sheet[: ys.min()]
    assert headings.min() < 50
    assert headings[:, margin + 44 :].min() < 50


def test_scaled_to_a_width_shapes_stay(gallery: ModuleType) -> None:
    nine = np.full((4, 3, 3), 9, np.uint8)
    assert gallery.scale_to_width(nine, 6).shape == (8, 6, 3)
    assert (gallery.scale_to_width(nine, 6) == 9).all()
    assert gallery.scale_to_width(np.zeros((1, 50, 3), np.uint8), 5).shape == (1, 5, 3)
