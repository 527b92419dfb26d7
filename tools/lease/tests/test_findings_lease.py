"""What fuzzing found in packed caches and pieces; each failed before it was mended."""

import json
from pathlib import Path
from typing import Any

import pytest

from archive import Box, confined, cut, find_pieces, read_box, write_box
from pack import _decode_tensor, pack, unpack
from stillspeak.errors import DataError
from support.fuzz_targets import _cache

DEEP = "[" * 20_000 + "]" * 20_000


@pytest.fixture
def part(tmp_path: Path) -> Path:
    (path,) = pack(_cache(tmp_path / "cache"), tmp_path / "parts", workers=1).parts
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"set": 3},
        {"set": None},
        {"part": []},
        {"part": "../1"},
        {"parts": 10**18},
        {"parts": 1e400},
        {"clips": 3},
        {"clips": [3]},
        {"clips": [{"file": "a/b.safetensors", "bytes": "many"}]},
        {"clips": [{"file": "a/b.safetensors", "bytes": -1}]},
    ],
)
def test_a_packs_table_of_other_types(
    part: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    table = read_box(part).table | change
    write_box(part, table, [b""])
    with pytest.raises(DataError, match="its table is damaged"):
        unpack(tmp_path / "parts", tmp_path / "again", workers=1)


def test_a_packs_table_without_an_end(part: Path, tmp_path: Path) -> None:
    write_box(part, read_box(part).table | {"clips": [{"file": "a", "bytes": 2**70}]}, [b""])
    with pytest.raises(DataError):
        unpack(tmp_path / "parts", tmp_path / "again", workers=1)
    with pytest.raises(DataError, match="disagree"):
        Box(part, {}, 0, part.stat().st_size).read(0, 2**70)


@pytest.mark.parametrize(
    "described",
    [
        {"coding": "h264", "shape": [2**40, 16, 16, 3], "dtype": "|u1", "packets": [4]},
        {"coding": "h264", "shape": [1, 2**20, 2**11, 3], "dtype": "|u1", "packets": [4]},
        {"coding": "lzma", "shape": [2**30], "dtype": "<f4"},
        {"coding": "steps", "shape": [2**20, 478, 2], "dtype": "<f4", "step": 1},
        {"coding": "flac", "shape": [2**50], "dtype": "<f4", "packets": [4], "head": ""},
    ],
)
def test_a_packed_tensor_that_no_memory_holds(described: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"too large|others than stated|cannot be decoded|sound"):
        _decode_tensor({"name": "frames", **described}, b"data")


def test_an_unpacked_caches_record_of_other_types(part: Path, tmp_path: Path) -> None:
    unpack(tmp_path / "parts", tmp_path / "again", workers=1)
    path = tmp_path / "again" / "unpacked.json"
    record = json.loads(path.read_text())
    for change in ({"parts": 10**18}, {"parts": None}, {"set": 3}, {"clips": {"x": []}}):
        path.write_text(json.dumps(record | change))
        with pytest.raises(DataError, match="damaged; remove"):
            unpack(tmp_path / "parts", tmp_path / "again", workers=1)
    path.write_text(DEEP)
    with pytest.raises(DataError, match="damaged; remove"):
        unpack(tmp_path / "parts", tmp_path / "again", workers=1)


@pytest.mark.parametrize(
    "change", [{"pieces": 10**18}, {"piece": 0}, {"step": 1e400}, {"files": 3}]
)
def test_a_piece_that_says_it_is_one_of_many(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / "a").write_bytes(b"text")
    (path,) = cut({"a": tmp_path / "a"}, tmp_path / "p", kind="run", step=1, piece_bytes=9999)
    write_box(path, read_box(path).table | change, [b"text"])
    with pytest.raises(DataError, match="not a piece of a run"):
        find_pieces([tmp_path / "p"])


@pytest.mark.parametrize("name", ["a\ud800.txt", "a\n.txt", "x" * 300, "/".join("a" * 50)])
def test_a_packed_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="that is refused"):
        confined(tmp_path, name)
