"""The documentation keeps its word: links lead somewhere, commands parse, messages exist."""

import ast
import inspect
import json
import pkgutil
import re
import tomllib
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import typer

import stillspeak
from stillspeak import batch
from stillspeak.cli import app as cli
from stillspeak.errors import MissingDependencyError
from stillspeak.options import OPTIONS
from support.docs import (
    GENERATED,
    ROOT,
    Command,
    all_commands,
    anchors,
    blocks,
    commands,
    links,
    pages,
    prose,
    slug,
    text,
)

GROUP = typer.main.get_command(cli.app)

KNOWN = {
    "apt-get",
    "arecord",
    "cat",
    "cd",
    "cp",
    "curl",
    "docker",
    "ffmpeg",
    "ffplay",
    "git",
    "mkdir",
    "ls",
    ".",
    "xdg-open",
}
"""Programs that a page may name and that are not ours."""


KNOWN |= {"arecord", "ffplay", "ffprobe", "psql", "createdb", "pg_dump"}


def programs(command: Command) -> list[list[str]]:
    """A line's programs with their words: parts of pipes, without redirections and variables."""
    found: list[list[str]] = [[]]
    words = command.words
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in ("|", "&&", ";", "&"):
            found.append([])
        elif word in ("<", ">", ">>", "2>"):
            skip = True
        else:
            found[-1].append(word)
    result = []
    for part in found:
        while part and (re.match(r"[A-Z_]+=", part[0]) or part[0] in ("sudo", "env", "time")):
            part = part[1:]
        if part and part[0] == "torchrun":
            assert "--" in part, "torchrun would look for its own options among ours"
            part = part[part.index("--") + 1 :]
        if part:
            result.append(part)
    return result


# --- links ------------------------------------------------------------------------------------


def test_links_lead_somewhere_inside_the_repository() -> None:
    wrong = []
    for page in pages():
        for link in links(page):
            if re.match(r"(https?|mailto):", link):
                continue
            target, _, anchor = link.partition("#")
            path = ((ROOT / page).parent / target if target else ROOT / page).resolve()
            if not path.is_relative_to(ROOT.resolve()):
                wrong.append(f"{page}: {link}")
                continue
            inside = str(path.relative_to(ROOT.resolve()))
            there = path.exists() or inside in GENERATED
            if there and anchor and path.suffix == ".md" and inside not in GENERATED:
                there = anchor in anchors(inside)
            if not there:
                wrong.append(f"{page}: {link}")
    assert wrong == []


@pytest.mark.parametrize(
    ("heading", "anchor"),
    [
        ("On one accelerator", "on-one-accelerator"),
        ("animate.py", "animatepy"),
        ("class `stream.Frame`", "class-streamframe"),
        ("What, then?", "what-then"),
        ("See [here](there.md)", "see-here"),
    ],
)
def test_anchors_are_made_as_on_the_web(heading: str, anchor: str) -> None:
    assert slug(heading) == anchor


def test_the_index_names_every_page() -> None:
    named = {link.partition("#")[0] for link in links("docs/index.md")}
    for page in pages():
        if page.startswith("docs/") and page != "docs/index.md":
            assert page.removeprefix("docs/") in named, f"docs/index.md does not name {page}"


def test_the_pages_stay_few_and_short() -> None:
    written = [text(str(path.relative_to(ROOT))) for path in (ROOT / "docs").rglob("*.md")]
    assert len(written) <= 14 and sum(len(page.split()) for page in written) <= 25_000


def test_every_picture_is_shown_somewhere() -> None:
    shown = {
        ((ROOT / page).parent / link).resolve()
        for page in pages()
        for link in links(page)
        if link.endswith((".png", ".jpg", ".gif", ".svg"))
    }
    for path in (ROOT / "docs").rglob("*"):
        if path.suffix in (".png", ".jpg", ".gif", ".svg"):
            assert path.resolve() in shown, f"{path.relative_to(ROOT)} is on no page"


# --- commands ---------------------------------------------------------------------------------


def leaf(words: list[str]) -> tuple[Any, list[str]]:
    """The command that words lead to, through groups, and the rest of them."""
    command: Any = GROUP
    rest = list(words)
    while hasattr(command, "commands") and rest and rest[0] in command.commands:
        command = command.commands[rest.pop(0)]
    assert not hasattr(command, "commands"), f"no command {' '.join(words)!r}"
    return command, rest


def spellings(command: Any) -> set[str]:
    found = {"--help", "-h"}
    for parameter in command.params:
        found |= {*parameter.opts, *parameter.secondary_opts}
    return found


def declared(script: Path) -> set[str]:
    """Options that a program's source declares."""
    source = script.read_text("utf-8")
    return {"--help", "-h"} | set(re.findall(r"""["'](--[a-z][\w-]*|-[a-z])["']""", source))


def test_commands_can_be_given() -> None:
    """By the real parsers where they are ours: an option that is gone does not pass."""
    wrong = []
    for command in all_commands():
        for part in programs(command):
            try:
                give(command, part)
            except (AssertionError, click.ClickException) as error:
                wrong.append(f"{command.page}:{command.line}: {command.text}: {error}")
    assert wrong == []


def give(command: Command, part: list[str]) -> None:
    """Check one program of a command line.

    Raises:
        AssertionError: there is no such thing.
        ClickException: the command line does not take it.
    """
    program, *words = part
    if program == "stillspeak":
        if words in (["--version"], ["--help"]) or words[:1] == ["COMMAND"]:
            return
        called, rest = leaf(words)
        if "..." in rest:  # what stands for more of the same
            given = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
            assert given <= spellings(called)
            return
        if rest[-1:] != ["--help"]:
            called.make_context(called.name, list(rest))
    elif program in ("python", "python3", ".venv/bin/python"):
        if words[:1] == ["-m"]:
            assert words[1] in ("venv", "build", "pytest", "stillspeak", "pip")
            return
        script = ROOT / words[0]
        assert script.is_file()
        given = {word.split("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)}
        assert given <= declared(script)
    elif program == "make":
        known = set(re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE))
        asked = [word for word in words if "=" not in word]
        assert set(asked) <= known
        for word in set(words) - set(asked):
            assert f"$({word.split('=')[0]})" in text_of("Makefile")
    elif program == "pip":
        project = tomllib.loads(text_of("pyproject.toml"))["project"]
        for extras in re.findall(r"\[([\w,]+)\]", " ".join(words)):
            assert set(extras.split(",")) <= set(project["optional-dependencies"])
        for word in words[1:]:
            if word.endswith((".txt", ".toml")):
                assert (ROOT / word).is_file()
    elif program == "nox":
        noxfile = text_of("noxfile.py")
        for word in words:
            if not word.startswith("-"):
                assert f"def {word.split('-')[0]}(" in noxfile
    elif program == "pytest":
        for word in words:
            if word.endswith(".py"):
                assert (ROOT / word).is_file()
    else:
        assert program in KNOWN, f"{command.text!r}: teach tests/test_docs.py about {program!r}"


@cache
def text_of(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def test_an_option_that_is_gone_is_noticed() -> None:
    called, rest = leaf(["animate", "a.jpg", "b.wav", "-o", "c.mp4", "--blinks", "2"])
    with pytest.raises(Exception, match="blinks"):
        called.make_context(called.name, rest)
    with pytest.raises(AssertionError, match="no command"):
        leaf(["anima", "a.jpg"])


def test_options_named_in_prose_exist() -> None:
    known = {"--version", "--help", "-h"}

    def gather(command: Any) -> None:
        if hasattr(command, "commands"):
            for child in command.commands.values():
                gather(child)
        else:
            known.update(spellings(command))

    gather(GROUP)
    for folder in ("scripts", "benchmarks", "examples"):
        for script in (ROOT / folder).glob("*.py"):
            known.update(declared(script))
    for command in all_commands():  # options of other programs, which stand in their commands
        for program, *words in programs(command):
            if program != "stillspeak":
                known.update(word.split("=")[0] for word in words if word.startswith("-"))
    known |= {"--constraint", "--build-arg", "--no-deps", "--no-index", "--find-links", "--target"}
    wrong = []
    for page in pages():
        if page == "CHANGELOG.md":  # what an earlier version had may be gone
            continue
        for code in re.findall(r"`([^`\n]+)`", prose(page)):
            for word in code.split():
                if re.match(r"--[a-z]", word) and re.sub(r"[=,;.)].*$", "", word) not in known:
                    wrong.append(f"{page}: {word}")
    assert wrong == []


# --- Python -----------------------------------------------------------------------------------

PYTHON = [block for page in pages() for block in blocks(page) if block.language in ("python", "py")]


def test_python_uses_names_that_exist() -> None:
    wrong = []
    for block in PYTHON:
        for node in ast.walk(ast.parse(block.text)):
            names: list[str] = []
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                names = [f"{node.value.id}.{node.attr}"]
            wrong += [f"{block.page}:{block.line}: {n}" for n in names if not known(n)]
    assert wrong == []


def test_names_of_ours_in_prose_exist() -> None:
    wrong = []
    for page in pages():
        if page not in ("CHANGELOG.md", "docs/experiments.md"):  # they tell of what was
            names = re.findall(r"`(stillspeak(?:\.\w+)+)", prose(page))
            wrong += [f"{page}: {name}" for name in names if not known(name)]
    assert wrong == []


def known(name: str) -> bool:
    """Whether a dotted name is one of ours that can be imported, or not one of ours."""
    try:
        return not name.startswith("stillspeak.") or pkgutil.resolve_name(name) is not None
    except MissingDependencyError:  # an adapter whose extra is not installed
        return True
    except (ImportError, AttributeError):
        return False


def test_data_in_pages_can_be_read() -> None:
    parsers = {"json": json.loads, "toml": tomllib.loads}
    for page in pages():
        for block in blocks(page):
            if block.language in parsers:
                parsers[block.language](block.text)


# --- the names of our modules and files ------------------------------------------------------


def test_files_named_in_prose_exist() -> None:
    folders = "configs|docs|examples|benchmarks|scripts|tests|src"
    sources = [path.relative_to(ROOT) for path in ROOT.rglob("*.py")]
    wrong = []
    for page in pages():
        if page in ("CHANGELOG.md", "docs/experiments.md"):  # they tell of what was
            continue
        named = re.findall(rf"`((?:{folders})/[\w./-]+\w)`", prose(page))
        wrong += [f"{page}: {name}" for name in named if not (ROOT / name).exists()]
        named = re.findall(r"`([\w/]+\.py)`", prose(page))
        wrong += [f"{page}: {n}" for n in named if not any(path.match(n) for path in sources)]
    assert wrong == []


# --- messages ---------------------------------------------------------------------------------


@cache
def templates() -> tuple[str, ...]:
    """Every text in our sources, with a NUL where a value is put in."""
    found = set()
    sources = [*(ROOT / "src").rglob("*.py"), *(ROOT / "scripts").glob("*.py")]
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add(_template(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
            elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
                found.add(_template(node))
    return tuple(found)


def _template(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(_template(part) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _template(node.left) + _template(node.right)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return "\0"


def can_be_said(message: str) -> bool:
    """Whether a message, with … for what differs, fits a text in the sources."""
    pieces = [re.escape(piece.strip(" ")) for piece in message.split("…")]
    pattern = re.compile(".*".join(pieces), re.DOTALL)
    return any(pattern.search(template) for template in templates())


MESSAGES = re.findall(r"^\| `(.+?)` \|", text("docs/troubleshooting.md"), re.MULTILINE)


def test_messages_in_troubleshooting_can_be_said() -> None:
    assert [message for message in MESSAGES if not can_be_said(message)] == []


def test_a_message_that_nobody_says_is_noticed() -> None:
    assert len(MESSAGES) > 40
    assert can_be_said("…: no face found; use a picture in which one face looks at the camera")
    assert not can_be_said("…: no face has been seen")
    assert not can_be_said("…: the eyes are … pixels apart and … are too few")


# --- docstrings -------------------------------------------------------------------------------


def test_public_arguments_are_explained() -> None:
    for call in (
        *(stillspeak.Animator, stillspeak.StreamSession, stillspeak.Animator.animate),
        *(stillspeak.load_image, stillspeak.write_video),
    ):
        about = inspect.getdoc(call)
        # Options are explained where they are stated.
        for argument in set(inspect.signature(call).parameters) - {"self", *OPTIONS}:
            said = re.search(rf"\b{argument}(, \w+)*: ", about)  # maybe beside others
            assert said, f"{call}: {argument} is not explained"


# --- the readme -------------------------------------------------------------------------------


def test_the_system_packages_are_those_of_the_check_and_of_ci() -> None:
    (command,) = [c for c in commands("README.md") if "apt-get install" in c.text]
    packages = set(command.words[command.words.index("install") + 1 :]) - {"--yes"}
    assert packages
    for package in packages:
        assert package in text_of("scripts/check_system.py")
        assert package in text_of(".ci/run")


def test_the_columns_of_a_job_table_are_the_ones_read() -> None:
    assert f"`{','.join(batch.COLUMNS)}`" in text("README.md")
    assert f"`{','.join(batch.OPTIONAL)}`" in text("README.md")


# --- the scanner itself -----------------------------------------------------------------------


def test_pages_and_commands_are_found() -> None:
    assert {"README.md", "docs/index.md", "docs/streaming.md", "examples/README.md"} <= set(pages())
    lines = {command.text for command in all_commands()}
    assert "stillspeak animate photo.jpg speech.wav -o video.mp4" in lines
    assert any(line.startswith("torchrun ") and "--data CACHE" in line for line in lines)
    assert len(PYTHON) >= 5
    assert sum(len(links(page)) for page in pages()) > 60
