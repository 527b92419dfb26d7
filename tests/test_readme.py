"""The README keeps its word: its commands, options, files and Python exist."""

import ast
import re
import shlex
from pathlib import Path

import pytest
import typer

import stillspeak
from stillspeak.cli import app as cli

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text("utf-8")

FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCES = [(match[1], match[2]) for match in FENCE.finditer(TEXT)]
PROSE = FENCE.sub("", TEXT)
SHELL = [
    line.split("  #")[0].strip().removeprefix("$ ")
    for language, block in FENCES
    if language in ("", "sh", "bash", "shell", "console")
    for line in block.replace("\\\n", " ").splitlines()
    if line.strip() and not line.strip().startswith("#")
]
PYTHON = [block for language, block in FENCES if language in ("python", "py")]
COMMANDS = typer.main.get_command(cli.app).commands


def options(name: str) -> set[str]:
    """Every spelling of a command's options, and those that all commands have.

    A group of commands has those of all that are in it.
    """
    spellings = {"--help", "-h"}
    command = COMMANDS[name]
    for one in (command, *getattr(command, "commands", {}).values()):
        for parameter in one.params:
            spellings |= {*parameter.opts, *parameter.secondary_opts}
    return spellings


def test_there_is_something_to_check():
    assert len(SHELL) >= 4
    assert len(PYTHON) >= 1
    assert any(line.startswith("make ") for line in SHELL)
    assert any(line.startswith("stillspeak animate ") for line in SHELL)


@pytest.mark.parametrize("line", [line for line in SHELL if re.search(r"\bmake\b", line)])
def test_make_targets_exist(line):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    words = shlex.split(line)
    asked = [word for word in words[words.index("make") + 1 :] if "=" not in word]
    assert asked
    assert set(asked) <= targets


@pytest.mark.parametrize("line", [line for line in SHELL if line.startswith("stillspeak ")])
def test_commands_and_their_options_exist(line):
    _, name, *words = shlex.split(line)
    assert name in COMMANDS
    group = getattr(COMMANDS[name], "commands", None)
    if group is not None:
        assert words.pop(0) in group
    given = {word.split("=")[0] for word in words if word.startswith("-") and word != "-"}
    assert given <= options(name)


def test_options_named_in_prose_exist():
    known = set().union(*map(options, COMMANDS)) | {"--version"}
    named = {
        word.split("=")[0]
        for code in re.findall(r"`([^`\n]+)`", PROSE)
        for word in code.split()
        if re.match(r"--?[a-z]", word)
    }
    assert named >= {"--crop", "--jobs"}
    assert named <= known


@pytest.mark.parametrize("block", PYTHON)
def test_python_parses_and_uses_public_names(block):
    tree = ast.parse(block)
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "stillspeak"
    }
    used |= {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "stillspeak"
        for alias in node.names
    }
    assert used <= set(stillspeak.__all__)


def named_files() -> list[str]:
    """Targets of links, and paths into the repository's own folders wherever they stand."""
    links = re.findall(r"\]\(([^)#\s]+)", TEXT)
    local = {link for link in links if not re.match(r"[a-z]+:", link)}
    folders = "configs|docs|examples|benchmarks|scripts|src|tests"
    return sorted(local | set(re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*\w", TEXT)))


@pytest.mark.parametrize("name", named_files())
def test_files_exist(name):
    assert (ROOT / name).exists()


def test_the_system_packages_are_those_of_the_check_and_of_ci():
    (line,) = [line for line in SHELL if "apt-get install" in line]
    packages = set(shlex.split(line.split("install", 1)[1])) - {"--yes", "-y"}
    check = (ROOT / "scripts/check_system.py").read_text("utf-8")
    ci = (ROOT / ".ci/run").read_text("utf-8")
    for package in packages:
        assert package in check
        assert package in ci


def test_the_columns_of_a_job_table_are_the_ones_read():
    from stillspeak.batch import COLUMNS, OPTIONS

    assert f"`{','.join(COLUMNS)}`" in TEXT
    assert f"`{','.join(OPTIONS)}`" in TEXT
