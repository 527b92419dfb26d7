"""The pages of the documentation, taken apart: blocks of code, commands, links, headings."""

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]

FENCE = re.compile(r"^(```+)([\w+-]*)[^\n]*\n(.*?)^\1 *$", re.MULTILINE | re.DOTALL)
SHELL_LANGUAGES = {"", "sh", "bash", "shell", "console"}
GENERATED = {"docs/api.md", "docs/commands.md", "docs/dependencies.md", "docs/metrics.md"}
"""Pages that exist on the built site alone: scripts/reference.py."""


class Block(NamedTuple):
    """A fenced block of a page."""

    page: str
    line: int
    language: str
    text: str


class Command(NamedTuple):
    """A line that is meant for a shell."""

    page: str
    line: int
    text: str

    @property
    def words(self) -> list[str]:
        return shlex.split(self.text, comments=True)


@cache
def pages() -> tuple[str, ...]:
    """Every Markdown page of the repository that people read, relative to its root."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]
    found += ROOT.glob("examples/**/*.md")
    return tuple(sorted(str(path.relative_to(ROOT)) for path in found))


@cache
def text(page: str) -> str:
    return (ROOT / page).read_text("utf-8")


def prose(page: str) -> str:
    """A page without its blocks of code."""
    return FENCE.sub("", text(page))


def blocks(page: str) -> Iterator[Block]:
    for match in FENCE.finditer(text(page)):
        line = text(page).count("\n", 0, match.start()) + 2
        yield Block(page, line, match[2].lower(), match[3])


def commands(page: str) -> Iterator[Command]:
    """Every command of a page's shell blocks, continued lines joined."""
    for block in blocks(page):
        if block.language not in SHELL_LANGUAGES:
            continue
        if re.search(r"\{$", block.text, re.MULTILINE):
            continue  # another program's configuration
        line = block.line
        waiting = ""
        for raw in block.text.splitlines():
            one = waiting + raw.strip().removeprefix("$ ")
            if one.endswith("\\"):
                waiting = one[:-1]
            else:
                waiting = ""
                if one and not one.startswith("#"):
                    yield Command(page, line, re.sub(r"\s+#.*$", "", one))
            line += 1


def all_commands() -> list[Command]:
    return [command for page in pages() for command in commands(page)]


def slug(heading: str) -> str:
    """The anchor that a heading gets on a page: as GitHub makes it."""
    bare = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    bare = re.sub(r"[*`]", "", bare).strip().lower()
    return re.sub(r"[^\w\- ]", "", bare).replace(" ", "-")


def anchors(page: str) -> set[str]:
    """All anchors of a page, numbered where a heading comes twice."""
    found: dict[str, int] = {}
    result = set()
    for heading in re.findall(r"^#{1,6} +(.+?) *#*$", prose(page), re.MULTILINE):
        name = slug(heading)
        count = found.get(name, 0)
        found[name] = count + 1
        result.add(f"{name}-{count}" if count else name)
    return result | set(re.findall(r'<a (?:id|name)="([^"]+)"', text(page)))


def links(page: str) -> list[str]:
    """The targets of a page's links and pictures, code left out."""
    bare = re.sub(r"`[^`\n]*`", "", prose(page))
    inline = re.findall(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)", bare)
    named = re.findall(r"^\[[^\]]+\]:\s+(\S+)", bare, re.MULTILINE)
    return [*inline, *named]
