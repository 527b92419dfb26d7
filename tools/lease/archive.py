"""Files that travel in pieces: boxes that prove themselves, and cutting files into boxes.

A box is one file, written to a temporary name and renamed:

==========  =====================================================================
bytes       what
==========  =====================================================================
18          ``stillspeak box 1`` and two line ends
32          SHA-256 of all that follows
4           length of the table, little-endian
as said     the table, JSON
the rest    the content, described by the table
==========  =====================================================================

The same content always makes the same bytes. A box is read without pickle, and no name in its
table is used before it was checked to stay inside the folder that is written to.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from stillspeak.errors import DataError
from stillspeak.system.atomic import whole_file
from stillspeak.system.configuration import read_json

MAGIC = b"stillspeak box 1\n\n"
MIB = 2**20

PIECE = re.compile(r"(?P<kind>[a-z]+)-(?P<step>\d{9})-\d{3,}-of-\d{3,}\.piece")
"""Names of the files that :func:`cut` writes."""

_TABLE_LIMIT = 64 * MIB
_CHUNK = 4 * MIB
_NAME_LIMIT = 200
_DEPTH_LIMIT = 16
MOST_PARTS = 999_999
"""Files that one thing may be cut into."""
_LENGTH = 4
OVERHEAD = len(MAGIC) + hashlib.sha256().digest_size + _LENGTH
"""Bytes of a box besides its table and its content."""


@dataclass(frozen=True)
class Box:
    """A box that was read and found whole: where, its table, and where the content begins."""

    path: Path
    table: dict[str, Any]
    start: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        """``count`` bytes of the content from ``offset``.

        Raises:
            DataError: the content is shorter than that.
        """
        data = b""
        if offset >= 0 <= count and self.start + offset + count <= self.size:
            with self.path.open("rb") as file:
                file.seek(self.start + offset)
                data = file.read(count)
        if len(data) != count:
            raise DataError(f"{self.path}: its table and its content disagree; make it again")
        return data


def table_bytes(table: Mapping[str, Any]) -> bytes:
    """The table as it stands in a box."""
    return json.dumps(table, separators=(",", ":"), sort_keys=True).encode()


def write_box(path: Path, table: Mapping[str, Any], content: Iterable[bytes]) -> int:
    """Write a box. Returns its size in bytes.

    Raises:
        DataError: the disk refuses.
    """
    head = table_bytes(table)
    digest = hashlib.sha256()
    with replacing(path) as file:
        file.write(MAGIC + bytes(digest.digest_size))
        for data in (len(head).to_bytes(_LENGTH, "little"), head, *content):
            digest.update(data)
            file.write(data)
        size = file.tell()
        file.seek(len(MAGIC))
        file.write(digest.digest())
    return size


def read_box(path: Path) -> Box:
    """Check a box from its first to its last byte and read its table.

    Raises:
        DataError: it cannot be read, is something else, or is not as it was written.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                raise DataError(f"{path}: not a file that stillspeak packed; remove it")
            stated = file.read(digest.digest_size)
            head = b""
            length = file.read(_LENGTH)
            digest.update(length)
            table_size = int.from_bytes(length, "little")
            if table_size <= _TABLE_LIMIT:
                head = file.read(table_size)
                digest.update(head)
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
            size = file.tell()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    if digest.digest() != stated:
        raise DataError(f"{path}: damaged (its SHA-256 is another); send this file again")
    try:
        table = read_json(head)
    except ValueError:
        table = None
    if not isinstance(table, dict):
        raise DataError(f"{path}: its table cannot be read; make it again")
    return Box(path, table, OVERHEAD + len(head), size)


def confined(folder: Path, name: object, *, suffix: str | None = None) -> Path:
    """Where a name from a table lies in a folder.

    Raises:
        DataError: it would lie outside, is hidden, unprintable or too long, or has another suffix.
    """
    text = name if isinstance(name, str) else ""
    parts = PurePosixPath(text).parts
    fine = (
        bool(parts)
        and text == "/".join(parts)
        and text.isprintable()
        and not any(part.startswith(".") or set(part) & set('\\:\0/"*?<>|') for part in parts)
        and all(len(part.encode()) <= _NAME_LIMIT for part in parts)
        and len(parts) <= _DEPTH_LIMIT
        and (suffix is None or text.endswith(suffix))
    )
    target = folder.joinpath(*parts) if fine else folder
    if not fine or not target.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{folder}: a packed file wants to be called {name!r}; that is refused")
    return target


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name only when all is written.

    Raises:
        DataError: the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial, partial.open("wb") as file:
            yield file
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------ files in pieces


def cut(
    files: Mapping[str, Path], folder: Path, *, kind: str, step: int, piece_bytes: int
) -> list[Path]:
    """Lay files end to end and cut the row into boxes.

    Args:
        files: by the name they shall have again, ``/`` between folders.
        folder: where the pieces go; made if missing.
        kind: one lower-case word for what this is.
        step: the training step it belongs to.
        piece_bytes: no piece is larger.

    Returns:
        The pieces, in order: ``KIND-STEP-001-of-003.piece``.

    Raises:
        DataError: nothing to cut, a file cannot be read, or the pieces are too small.
    """
    if not files:
        raise DataError(f"{folder}: there is nothing to send of this kind: {kind}")
    try:
        listed = [
            {"name": name, "bytes": path.stat().st_size, "sha256": sha256_of(path)}
            for name, path in sorted(files.items())
        ]
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror})") from error
    whole: dict[str, Any] = {"kind": kind, "step": step, "files": listed}
    whole["set"] = hashlib.sha256(table_bytes(whole)).hexdigest()
    total = sum(int(entry["bytes"]) for entry in listed)  # type: ignore[call-overload]
    # Room for a table whose numbers are as long as they can be.
    widest = whole | {"piece": 10**6, "pieces": 10**6, "offset": total, "count": piece_bytes}
    room = piece_bytes - OVERHEAD - len(table_bytes(widest))
    if room < 1:
        raise DataError(f"{folder}: pieces of {piece_bytes} bytes are too small; allow larger ones")
    pieces = max(-(-total // room), 1)
    paths = []
    row = _row([files[str(entry["name"])] for entry in listed], room)
    for number in range(1, pieces + 1):
        content = next(row, b"")
        path = folder / f"{kind}-{step:09d}-{number:03d}-of-{pieces:03d}.piece"
        table = whole | {
            "piece": number,
            "pieces": pieces,
            "offset": (number - 1) * room,
            "count": len(content),
        }
        size = write_box(path, table, [content])
        assert size <= piece_bytes
        paths.append(path)
    return paths


def _row(paths: Sequence[Path], room: int) -> Iterator[bytes]:
    """The files' bytes end to end, ``room`` at a time."""
    held = bytearray()
    for path in paths:
        with path.open("rb") as file:
            while data := file.read(room - len(held)):
                held += data
                if len(held) == room:
                    yield bytes(held)
                    held.clear()
    if held:
        yield bytes(held)


@dataclass(frozen=True)
class Joined:
    """A set of pieces that was put together: what it was and the files, by name."""

    kind: str
    step: int
    files: dict[str, Path]


def find_pieces(folders: Sequence[Path]) -> dict[str, list[Box]]:
    """The pieces in some folders, each checked, by kind; a piece that is there twice counts once.

    Raises:
        DataError: no piece at all, a damaged one, or two sets of one kind.
    """
    found: dict[str, dict[int, Box]] = {}
    sets: dict[str, tuple[str, Path]] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder")
        for path in sorted(folder.iterdir()):
            if not PIECE.fullmatch(path.name):
                continue
            box = read_box(path)
            try:
                kind, number = str(box.table["kind"]), int(box.table["piece"])
                identity = str(box.table["set"])
                int(box.table["step"])
                if not 1 <= number <= int(box.table["pieces"]) <= MOST_PARTS:
                    raise ValueError("its number")
                files = box.table["files"]
                if not all(int(e["bytes"]) >= 0 and e["name"] and e["sha256"] for e in files):
                    raise ValueError("its files")
            except (LookupError, ValueError, TypeError, OverflowError) as error:
                raise DataError(f"{path}: not a piece of a run; remove it") from error
            known, other = sets.setdefault(kind, (identity, path))
            if known != identity:
                raise DataError(
                    f"{path} and {other.name} are pieces of two different sets; "
                    "keep those of one and remove the others"
                )
            found.setdefault(kind, {})[number] = box
    if not found:
        raise DataError(f"{', '.join(map(str, folders))}: no pieces here; name the right folder")
    return {kind: [boxes[number] for number in sorted(boxes)] for kind, boxes in found.items()}


def missing_pieces(boxes: Sequence[Box]) -> list[int]:
    """Numbers of the pieces that a set lacks."""
    there = {int(box.table["piece"]) for box in boxes}
    return sorted(set(range(1, int(boxes[0].table["pieces"]) + 1)) - there)


def join(boxes: Sequence[Box], folder: Path) -> Joined:
    """Put a set of pieces together again; no file is replaced before all were found right.

    Args:
        boxes: of one set, as from :func:`find_pieces`.
        folder: where the files go; made if missing.

    Raises:
        DataError: pieces are missing or contradict each other, a name leads outside the
            folder, or the disk refuses.
    """
    table = boxes[0].table
    where = boxes[0].path.parent
    lacking = missing_pieces(boxes)
    if lacking:
        raise DataError(
            f"{where}: {table['kind']} of step {table['step']} lacks "
            f"{', '.join(map(str, lacking))} of its {table['pieces']} pieces; fetch them first"
        )
    targets = [confined(folder, entry["name"]) for entry in table["files"]]
    partials: list[tuple[Path, Path]] = []
    stream = _stream(boxes)
    held = b""
    try:
        for entry, target in zip(table["files"], targets, strict=True):
            left, digest = int(entry["bytes"]), hashlib.sha256()
            partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
            partial.parent.mkdir(parents=True, exist_ok=True)
            partials.append((partial, target))
            with partial.open("wb") as file:
                while left:
                    held = held or next(stream, b"")
                    if not held:
                        break
                    data, held = held[:left], held[left:]
                    digest.update(data)
                    file.write(data)
                    left -= len(data)
            if left or digest.hexdigest() != entry["sha256"]:
                raise DataError(f"{where}: {entry['name']} is not what was sent; send it again")
        for partial, target in partials:
            partial.replace(target)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror})") from error
    finally:
        for partial, _ in partials:
            partial.unlink(missing_ok=True)
    names = [str(entry["name"]) for entry in table["files"]]
    return Joined(str(table["kind"]), int(table["step"]), dict(zip(names, targets, strict=True)))


def _stream(boxes: Sequence[Box]) -> Iterator[bytes]:
    for box in boxes:
        yield box.read(0, box.size - box.start)
