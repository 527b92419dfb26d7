"""Files cut into pieces and joined again."""

import shutil
from pathlib import Path

import pytest

from archive import cut, find_pieces, join, missing_pieces, read_box, write_box
from stillspeak.errors import DataError


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Three files, one of them empty."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a.bin").write_bytes(bytes(range(256)) * 40)
    (folder / "b.bin").write_bytes(b"")
    (folder / "c.bin").write_bytes(b"abc" * 1000)
    return {"a.bin": folder / "a.bin", "sub/b.bin": folder / "b.bin", "c.bin": folder / "c.bin"}


@pytest.mark.parametrize("size", [900, 1024, 4096, 10**6])
def test_cut_and_join(files: dict[str, Path], tmp_path: Path, size: int) -> None:
    pieces = cut(files, tmp_path / "out", kind="state", step=7, piece_bytes=size)
    assert max(piece.stat().st_size for piece in pieces) <= size
    assert pieces[0].name == f"state-000000007-001-of-{len(pieces):03d}.piece"
    (boxes,) = find_pieces([tmp_path / "out"]).values()
    joined = join(boxes, tmp_path / "back")
    assert (joined.kind, joined.step) == ("state", 7)
    for name, path in files.items():
        assert (tmp_path / "back" / name).read_bytes() == path.read_bytes()
    assert sorted(p.name for p in (tmp_path / "back").rglob("*") if p.is_file()) == [
        "a.bin",
        "b.bin",
        "c.bin",
    ]


def test_pieces_from_several_folders(files: dict[str, Path], tmp_path: Path) -> None:
    pieces = cut(files, tmp_path / "one", kind="state", step=7, piece_bytes=4096)
    (tmp_path / "two").mkdir()
    shutil.copy(pieces[0], tmp_path / "two")  # there twice
    shutil.move(pieces[1], tmp_path / "two")
    (boxes,) = find_pieces([tmp_path / "one"]).values()
    assert missing_pieces(boxes) == [2]
    with pytest.raises(DataError, match=r"lacks 2 of its \d pieces"):
        join(boxes, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    (boxes,) = find_pieces([tmp_path / "one", tmp_path / "two"]).values()
    join(boxes, tmp_path / "back")


def test_what_is_refused(files: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(DataError, match="too small"):
        cut(files, out, kind="state", step=7, piece_bytes=100)
    with pytest.raises(DataError, match="nothing to send"):
        cut({}, out, kind="state", step=7, piece_bytes=100)
    with pytest.raises(DataError, match="no such folder"):
        find_pieces([out])
    first = cut(files, out, kind="state", step=7, piece_bytes=4096)[0]
    files["c.bin"].write_bytes(b"other")
    cut(files, out, kind="state", step=8, piece_bytes=4096)
    with pytest.raises(DataError, match="two different sets"):
        find_pieces([out])
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(DataError, match="send this file again"):
        find_pieces([out])


def test_a_piece_cannot_write_outside(files: dict[str, Path], tmp_path: Path) -> None:
    (piece,) = cut(files, tmp_path / "out", kind="state", step=7, piece_bytes=10**6)
    box = read_box(piece)
    content = box.read(0, box.size - box.start)
    box.table["files"][1]["name"] = "../c.bin"
    write_box(piece, box.table, [content])
    (boxes,) = find_pieces([tmp_path / "out"]).values()
    with pytest.raises(DataError, match="refused"):
        join(boxes, tmp_path / "back")
    box.table["files"][1]["name"] = "c.bin"
    write_box(piece, box.table, [content[::-1]])
    (boxes,) = find_pieces([tmp_path / "out"]).values()
    with pytest.raises(DataError, match="not what was sent"):
        join(boxes, tmp_path / "back")
    assert not list((tmp_path / "back").iterdir())
