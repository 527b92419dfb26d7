"""Names that visitors' files have: shown, never used as a path."""

from __future__ import annotations

import shlex
import unicodedata

MAX_NAME = 100
"""Characters of a name that are kept."""


def shown_name(name: str | None, default: str) -> str:
    """What messages call a file: its last part, one line, without what cannot be seen."""
    last = (name or "").replace("\\", "/").rsplit("/", 1)[-1]
    # Controls could break lines, and marks of direction could turn a name around.
    clean = "".join(c for c in last if unicodedata.category(c)[0] != "C")
    clean = " ".join(clean.split())
    if len(clean) > MAX_NAME:
        stem, dot, suffix = clean.rpartition(".")
        end = dot + suffix if stem and len(suffix) <= 8 else ""
        clean = clean[: MAX_NAME - len(end) - 1] + "…" + end
    return clean if clean.strip(".") else default


def file_argument(name: str) -> str:
    """A file's name as one word of a shell command, never taken for an option or for stdin."""
    return shlex.quote(f"./{name}" if name.startswith("-") else name)
