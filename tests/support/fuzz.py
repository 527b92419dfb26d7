"""Fuzzing: what a bad input may do, damage to good inputs, and the watch over both.

A *target* reads one kind of input. A *case* is a byte that chooses one of its *forms* and the
content of a file of that form; whoever makes cases (hypothesis, atheris, plain chance) hands
bytes to :func:`check`, which holds the target to the contract:

* the input works, or an error of ``stillspeak.errors`` says in one line of printable text why not;
* it takes :data:`SECONDS` at most, and :data:`MEMORY` of memory on top of what there was;
* no file stays open, none is left in the temporary folder and none half written.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import random
import re
import resource
import shutil
import signal
import tempfile
import time
import tomllib
import traceback
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import FrameType
from typing import Any

from stillspeak.errors import StillspeakError

SECONDS = 30.0
"""For one case. Most take milliseconds; the machine may be busy with other things."""

MEMORY = 512 * 2**20
"""Bytes by which the process may grow during one case."""

ADDRESSES = 4 * 2**30
"""Bytes of address space that a case may take: larger wishes are refused and show as a finding,
where a generous system would grant them and kill the process later."""

Body = Callable[[bytes, Path], None]


class FindingError(AssertionError):
    """The contract was broken."""


class _HangError(BaseException):
    """A case took too long; no handler of ``Exception`` may swallow it."""


@dataclass(frozen=True)
class Form:
    """One form of a target's inputs.

    Attributes:
        name: for messages.
        seeds: makes good inputs, once.
        body: reads an input; the folder is empty, and its own.
        shape: how an input is taken apart to be damaged: bytes, json, lines (of JSON), toml,
            text, safetensors or box.
        fresh: whether files that are open after a case were opened in it; a server keeps its
            connections.
    """

    name: str
    seeds: Callable[[], Sequence[bytes]]
    body: Body
    shape: str = "bytes"
    fresh: bool = True


@dataclass
class Target:
    """A kind of input: its forms, and what was seen while it was tried."""

    name: str
    forms: tuple[Form, ...]
    cases: int = 0
    worked: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    growth: int = 0

    @cached_property
    def seeds(self) -> tuple[tuple[bytes, ...], ...]:
        """Inputs to start from, of each form; one at least is good, or damage would show nothing.

        All are tried once, so that what loads late is there before anything is measured.
        """
        made = tuple(tuple(form.seeds()) for form in self.forms)
        with tempfile.TemporaryDirectory() as folder:
            for number, (form, seeds) in enumerate(zip(self.forms, made, strict=True)):
                good = 0
                for index, seed in enumerate(seeds):
                    place = Path(folder, f"{number}-{index}")
                    place.mkdir()
                    with suppress(StillspeakError):
                        form.body(seed, place)
                        good += 1
                assert good or not seeds, f"{form.name}: no seed is good"
        return made


# --- the contract -----------------------------------------------------------------------------


def check(target: Target, case: bytes) -> str:
    """Try one case.

    Returns:
        ``"worked"``, or the name of the error's class.

    Raises:
        FindingError: the contract was broken.
    """
    if not case:
        return "worked"
    target.seeds  # noqa: B018 - made before the watch begins
    form = target.forms[case[0] % len(target.forms)]
    target.cases += 1
    began = time.perf_counter()
    with _own_folders() as (folder, spare):
        files = _open_files()
        with _watched(form) as growth:
            outcome = _run(form, case[1:], folder)
        target.growth = max(target.growth, growth())
        if growth() > MEMORY:
            raise FindingError(f"{form.name}: memory grew by {growth() / 2**20:.0f} MiB")
        if form.fresh and _open_files() - files:
            gc.collect()  # what an error's traceback held
            if left := _open_files() - files:
                raise FindingError(f"{form.name}: left open: {', '.join(sorted(left))}")
        half = [path.name for path in folder.rglob("*.partial")]
        if half or any(spare.iterdir()):
            raise FindingError(f"{form.name}: left behind: {half or list(spare.iterdir())}")
    target.slowest = max(target.slowest, time.perf_counter() - began)
    if outcome == "worked":
        target.worked += 1
    else:
        target.refused[outcome] += 1
    return outcome


def _run(form: Form, content: bytes, folder: Path) -> str:
    try:
        form.body(content, folder)
    except StillspeakError as error:
        message = str(error)
        if not message.strip() or len(message.splitlines()) > 1:
            raise FindingError(f"{form.name}: not one line: {message!r}") from error
        if strange := {c for c in message if unicodedata.category(c) in ("Cc", "Cs")}:
            raise FindingError(f"{form.name}: prints {strange}: {message!r}") from error
        return type(error).__name__
    except FindingError:
        raise
    except _HangError as error:
        raise FindingError(f"{form.name}: takes longer than {SECONDS:g} s") from error
    except Exception as error:
        raise FindingError(f"{form.name}: {type(error).__name__}: {error}"[:500]) from error
    return "worked"


@contextmanager
def _own_folders() -> Iterator[tuple[Path, Path]]:
    """A folder for the case, and one that takes the system's temporary folder's place."""
    base = Path(tempfile.mkdtemp(prefix="fuzz-"))
    before = tempfile.tempdir
    try:
        folder, spare = base / "case", base / "tmp"
        folder.mkdir()
        spare.mkdir()
        tempfile.tempdir = str(spare)
        yield folder, spare
    finally:
        tempfile.tempdir = before
        shutil.rmtree(base, ignore_errors=True)


@contextmanager
def _watched(form: Form) -> Iterator[Callable[[], int]]:
    """Bounds on time and address space; the function tells by how many bytes memory grew."""

    def late(number: int, frame: FrameType | None) -> None:
        raise _HangError

    before = signal.signal(signal.SIGALRM, late)
    limits = resource.getrlimit(resource.RLIMIT_AS)
    size, start = _memory("VmSize"), _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    resource.setrlimit(resource.RLIMIT_AS, (size + ADDRESSES, limits[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    peak = start
    try:
        yield lambda: peak - start
    except _HangError as error:
        raise FindingError(f"{form.name}: takes longer than {SECONDS:g} s") from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        signal.signal(signal.SIGALRM, before)
        peak = _memory("VmHWM")


def _memory(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{name}:")[2].split()[0])


def _open_files() -> set[str]:
    """What this process holds open, by number and name."""
    found = set()
    for number in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names alone, and quickly
        try:
            found.add(f"{number} {os.readlink(f'/proc/self/fd/{number}')}")  # noqa: PTH115
        except OSError:  # the listing's own
            continue
    return found


def place_of(error: BaseException) -> str:
    """Where in the package an error came from, to tell findings apart."""
    cause = error.__cause__ or error
    frames = [f for f in traceback.extract_tb(cause.__traceback__) if "/stillspeak/" in f.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "-"
    return f"{type(cause).__name__} at {where}"


# --- making cases -----------------------------------------------------------------------------


def plain_case(target: Target, chance: random.Random) -> bytes:
    """A case by plain chance: now and then noise, mostly a good input damaged up to four times."""
    number = chance.randrange(len(target.forms))
    if chance.random() < 0.08:
        return bytes([number]) + chance.randbytes(chance.randrange(400))
    content = chance.choice(target.seeds[number])
    for _ in range(chance.choice((1, 1, 2, 3, 4))):
        content = damage(content, chance, target.forms[number], target.seeds[number])
    return bytes([number]) + content


def damage(content: bytes, chance: random.Random, form: Form, seeds: Sequence[bytes]) -> bytes:
    """One damage to a file's content: to its structure where it still has one, or to its bytes."""
    if form.shape != "bytes" and chance.random() < 0.75:
        try:
            return _STRUCTURES[form.shape](content, chance)
        except (
            *(LookupError, ValueError, TypeError, AttributeError, ArithmeticError),
            *(RecursionError, zlib.error),
        ):
            pass  # damaged already, beyond recognition
    return _damaged_bytes(content, chance, seeds)


def _damaged_bytes(content: bytes, chance: random.Random, seeds: Sequence[bytes]) -> bytes:
    data = bytearray(content)
    at = chance.randrange(len(data) + 1)
    # The head of a file decides more than the rest of it.
    if data and chance.random() < 0.4:
        at = chance.randrange(min(len(data), 96))
    length = chance.choice((1, 2, 4, 8, chance.randrange(1, 200)))
    match chance.randrange(11):
        case 0 | 1 if at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        case 2 if at < len(data):
            data[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
        case 3:
            del data[at:]
        case 4:
            del data[at : at + length]
        case 5:
            data[at:at] = chance.randbytes(length)
        case 6:
            data[at:at] = data[at : at + length] * chance.choice((1, 2, 50))
        case 7:
            other = chance.choice(list(seeds))
            cut = chance.randrange(len(other) + 1)
            data[at:] = other[cut:]
        case 8:
            size = chance.choice((1, 2, 4, 8))
            number = chance.choice((0, 1, 2 ** (8 * size - 1) - 1, 2 ** (8 * size - 1), -1))
            data[at : at + size] = (number % 2 ** (8 * size)).to_bytes(
                size, chance.choice(("big", "little"))
            )
        case 9:
            data[at : at + length] = bytes(len(data[at : at + length]))
        case _:
            data += chance.choice((b"\0", b"\n", b"\xff\xfe", chance.randbytes(length)))
    return bytes(data)


_DEEP = "@@deep@@"


def _odd(chance: random.Random) -> Any:
    """A value that nobody expects: extreme, of another type, unprintable, or deep."""
    numbers = (0, -1, 1, 2, 3, 2**16, 2**31 - 1, 2**31, 2**53, 2**63, 2**64, -(2**63), 10**18)
    floats = (0.5, -0.0, 1e308, -1e308, 5e-324, float("nan"), float("inf"), -float("inf"))
    texts = (
        "", " ", "a", "x" * 5000, "\0", "\n", "a\nb\r\nc", "\u2028", "\x85", "\x1b[31mred",
        "\ud800", "\N{LATIN SMALL LETTER E WITH ACUTE}\u0301", "\uff11", "../../../etc/passwd",
        "/etc/passwd",
        ".", "a/b", "nan", "1e999", "-1", "%s%n", "{0}", "__class__",
    )  # fmt: skip
    match chance.randrange(9):
        case 0 | 1:
            return chance.choice(numbers)
        case 2:
            return chance.choice((10**40, -(10**40), 10**400))
        case 3:
            return chance.choice(floats)
        case 4 | 5:
            return chance.choice(texts)
        case 6:
            return chance.choice((None, True, False))
        case 7:
            return chance.choice(([], {}, [[]], [None], {"a": 1}, [1, 2, 3], [0] * 3000, {"": []}))
        case _:
            return _DEEP


def _damaged_value(value: Any, chance: random.Random) -> Any:
    """JSON values with one of them replaced, removed, repeated, renamed or moved."""
    value = copy.deepcopy(value)
    holders: list[tuple[Any, Any]] = []

    def walk(holder: Any) -> None:
        items = holder.items() if isinstance(holder, dict) else enumerate(holder)
        for key, item in items:
            holders.append((holder, key))
            if isinstance(item, dict | list):
                walk(item)

    if isinstance(value, dict | list):
        walk(value)
    if not holders or chance.random() < 0.04:
        return _odd(chance)
    holder, key = chance.choice(holders)
    match chance.randrange(10):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder.insert(key, copy.deepcopy(chance.choice(holder)))
        case 1:
            holder[str(_odd(chance))] = holder.pop(key)
        case 2:
            other, place = chance.choice(holders)
            holder[key] = copy.deepcopy(other[place])
        case 3 if isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] = chance.choice((-holder[key], holder[key] * 1000, float(holder[key]), 0))
        case 4:
            holder[key] = [holder[key]]
        case _:
            holder[key] = _odd(chance)
    return value


def _deepened(text: str, chance: random.Random, brackets: str = "[]") -> str:
    deep = chance.choice((30, 300, 20_000))
    return text.replace(f'"{_DEEP}"', brackets[0] * deep + brackets[1] * deep)


def _dumped(value: Any, chance: random.Random) -> bytes:
    text = json.dumps(value, ensure_ascii=chance.random() < 0.7)
    return _deepened(text, chance).encode("utf-8", "surrogatepass")


def _json(content: bytes, chance: random.Random) -> bytes:
    return _dumped(_damaged_value(json.loads(content), chance), chance)


def _lines(content: bytes, chance: random.Random) -> bytes:
    lines = content.splitlines()
    index = chance.randrange(len(lines))
    match chance.randrange(6):
        case 0:
            lines.insert(chance.randrange(len(lines) + 1), lines[index])
        case 1:
            del lines[index]
        case _:
            lines[index] = _json(lines[index], chance)
    return b"\n".join(lines) + b"\n"


def _toml(content: bytes, chance: random.Random) -> bytes:
    table = _damaged_value(tomllib.loads(content.decode()), chance)
    return _deepened(as_toml(table), chance).encode("utf-8", "surrogatepass")


def as_toml(value: Any, *, top: bool = True) -> str:
    """A table as TOML: one line a key, tables below it inline. None is left out."""
    if isinstance(value, dict):
        items = [
            f"{json.dumps(str(k), ensure_ascii=False)} = {as_toml(v, top=False)}"
            for k, v in value.items()
            if v is not None
        ]
        return "\n".join(items) + "\n" if top else "{" + ", ".join(items) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(as_toml(v, top=False) for v in value if v is not None) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value)
    return json.dumps(str(value), ensure_ascii=False) if isinstance(value, str) else str(value)


def _text(content: bytes, chance: random.Random) -> bytes:
    """A table of separated cells, or words: one of them replaced."""
    parts = re.split(r"([,;\n\r\t =/-])", content.decode("utf-8", "surrogateescape"))
    index = chance.randrange(len(parts))
    match chance.randrange(5):
        case 0:
            parts[index] = ""
        case 1:
            parts[index] = parts[index][:100] * chance.choice((2, 1000))
        case 2:
            parts.insert(index, chance.choice(parts))
        case _:
            parts[index] = str(_odd(chance)).replace(_DEEP, '"' * 3)
    return "".join(parts).encode("utf-8", "surrogatepass")


def _safetensors(content: bytes, chance: random.Random) -> bytes:
    """Damage to the header, to the JSON inside its metadata, or to the tensors."""
    size = int.from_bytes(content[:8], "little")
    header, body = json.loads(content[8 : 8 + size]), bytearray(content[8 + size :])
    metadata = header.get("__metadata__", {})
    match chance.randrange(6):
        case 0 if body:
            at = chance.randrange(len(body))
            length = chance.choice((1, 2, 400, len(body)))
            value = chance.choice((b"\0", b"\xff", b"\x7f\xc0", b"\0\x7c"))
            body[at : at + length] = (value * length)[: len(body[at : at + length])]
        case 1:
            header = _damaged_value(header, chance)
        case 2:
            names = [name for name in header if name != "__metadata__"]
            one, two = chance.choice(names), chance.choice(names)
            header[one], header[two] = header[two], header[one]
        case _:
            name = chance.choice(list(metadata))
            metadata[name] = _json(metadata[name].encode(), chance).decode("utf-8", "replace")
    text = _dumped(header, chance)
    stated = (
        len(text) if chance.random() < 0.95 else chance.choice((0, 2**40, 2**63, len(text) + 1))
    )
    return stated.to_bytes(8, "little") + text + bytes(body)


_STRUCTURES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "json": _json,
    "lines": _lines,
    "toml": _toml,
    "text": _text,
    "safetensors": _safetensors,
}
