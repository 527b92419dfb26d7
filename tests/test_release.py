"""What a release is made of besides code: versions that agree, recipes that fit the code."""

import importlib.util
import json
import re
import shlex
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from itertools import chain
from pathlib import Path
from types import ModuleType

import pytest
import typer

from stillspeak import __version__
from stillspeak.cli import app as cli

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
COMMANDS = typer.main.get_command(cli.app).commands


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


# --- versions ---------------------------------------------------------------------------------


def test_the_version_is_one_number_everywhere() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    # A heading with "(unreleased)" is of the version after this one.
    newest = re.search(r"^## (\d+\.\d+\.\d+)(?:,|$)", text("CHANGELOG.md"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == __version__
    assert f"\nversion: {__version__}\n" in text("CITATION.cff")
    assert "version" in PROJECT["dynamic"]


def test_the_changelogs_versions_fall() -> None:
    found = re.findall(r"^## (\d+)\.(\d+)\.(\d+)", text("CHANGELOG.md"), re.MULTILINE)
    numbers = [tuple(map(int, version)) for version in found]
    assert numbers == sorted(numbers, reverse=True)
    assert len(set(numbers)) == len(numbers)


def test_the_command_line_says_its_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stillspeak", "--version"], capture_output=True, text=True
    )
    assert done.stdout == f"stillspeak {__version__}\n"


def test_the_citation_names_the_paper_and_the_licence() -> None:
    citation = text("CITATION.cff")
    assert citation.startswith("cff-version: 1.2.0\n")
    assert f"license: {PROJECT['license']}" in citation
    for words in ("End-to-End Speech-Driven Facial Animation", "Vougioukas", "GRID"):
        assert words in citation
    assert "\t" not in citation


def test_security_says_how_to_report_and_what_counts() -> None:
    headings = re.findall(r"^## (.+)$", text("SECURITY.md"), re.MULTILINE)
    assert {"Reporting", "In scope", "Out of scope", "Supported versions"} <= set(headings)


def test_every_constraint_is_pinned_once_and_covers_what_is_needed() -> None:
    lines = [line for line in text("constraints.txt").splitlines() if not line.startswith("#")]
    names = [re.fullmatch(r"([\w.-]+)==[\w.]+(\+\w+)?", line)[1].lower() for line in lines]
    names = [re.sub(r"[-_.]+", "-", name) for name in names]
    assert len(set(names)) == len(names)
    # Of the extras those that the Makefile installs: the others do not go together with them.
    extras, *_ = re.findall(r"--editable '\.\[([\w,]+)\]'", text("Makefile"))
    wanted = [PROJECT["optional-dependencies"][name] for name in extras.split(",")]
    needed = [*PROJECT["dependencies"], *chain(*wanted)]
    asked = {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", line)[0].lower()) for line in needed}
    assert asked <= set(names)


# --- the container ----------------------------------------------------------------------------


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined, comments left out."""
    lines = [line for line in text("Dockerfile").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.split(None, 1) for line in joined.splitlines() if line.strip()]
    return [(word, rest) for word, rest in pairs]


def ignored(path: str) -> bool:
    """Whether .dockerignore keeps a path out: the last pattern that fits decides."""
    out = False
    for pattern in text(".dockerignore").splitlines():
        if not pattern or pattern.startswith("#"):
            continue
        bare = pattern.removeprefix("!")
        parts = Path(path).parts
        prefixes = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        fits = any(fnmatch(prefix, bare.removeprefix("**/")) for prefix in prefixes)
        if bare.startswith("**/"):
            fits = fits or any(fnmatch(part, bare.removeprefix("**/")) for part in parts)
        if fits:
            out = not pattern.startswith("!")
    return out


def test_what_the_container_copies_is_there_and_not_ignored() -> None:
    copied = []
    for word, rest in instructions():
        if word == "COPY" and "--from=" not in rest:
            *sources, _ = shlex.split(rest)
            copied += sources
    assert {"constraints.txt", "pyproject.toml", "README.md", "LICENSE", "./src"} <= {
        *copied,
        *(f"./{name}" for name in copied),
    }
    for source in copied:
        assert (ROOT / source).exists()
        assert not ignored(source.removeprefix("./"))
    assert not ignored("src/stillspeak/resources/weights/layers.safetensors")
    for path in (
        ".git/config",
        "cache/grid",
        "weights/temporal.safetensors",
        "runs/x",
        ".venv/bin",
    ):
        assert ignored(path)
    assert ignored("src/stillspeak/__pycache__/cli.pyc")


def test_the_package_can_be_built_from_what_is_copied() -> None:
    """Hatchling reads the readme, the licence and the version's file."""
    for name in (PROJECT["readme"], *PROJECT["license-files"], "src/stillspeak/__init__.py"):
        assert not ignored(name)


def test_the_container_serves_as_nobody_in_particular() -> None:
    steps = instructions()
    words = [word for word, _ in steps]
    assert words.count("FROM") == 2
    last = [rest for word, rest in steps if word == "USER"]
    assert last == ["stillspeak"]
    assert words.index("USER") < words.index("ENTRYPOINT")
    assert words[words.index("USER") :].count("RUN") == 0
    program, name, *options = json.loads(dict(steps)["ENTRYPOINT"])
    assert program == "stillspeak"
    known = {word for parameter in COMMANDS[name].params for word in parameter.opts}
    assert {word for word in options if word.startswith("-")} <= known
    assert options[options.index("--port") + 1] == dict(steps)["EXPOSE"]


def test_the_container_has_the_libraries_of_the_readme() -> None:
    (line,) = [rest for word, rest in instructions() if word == "RUN" and "apt-get" in rest]
    (asked,) = re.findall(r"apt-get install ([^&]+)", line)
    packages = {word for word in asked.split() if not word.startswith("-")}
    (named,) = re.findall(r"apt-get install --yes (lib[^\n]+)", text("README.md"))
    assert packages == set(named.split()) - {"python3-venv"}


def test_the_container_keeps_no_secret_and_installs_what_serve_needs() -> None:
    recipe = text("Dockerfile")
    assert not re.search(r"(?i)(token|password|secret)", recipe)
    arguments = [rest for word, rest in instructions() if word == "ARG"]
    assert arguments == ["TORCH_INDEX="]
    assert "'.[serve]'" in recipe
    assert recipe.count("--constraint constraints.txt") == 2
    (python,) = set(re.findall(r"FROM python:(\d\.\d+)-slim", recipe))
    assert f"Programming Language :: Python :: {python}" in PROJECT["classifiers"]


def test_the_containers_health_is_asked_where_it_is_told() -> None:
    pytest.importorskip("fastapi")
    from stillspeak.web import app

    path = re.search(r"http://127\.0\.0\.1:8000(/[\w/]+)", text("Dockerfile"))
    assert path is not None
    last = path[1].rsplit("/", 1)[1]
    folder = Path(app.__file__).parent
    assert any(f'/{last}"' in source.read_text("utf-8") for source in folder.rglob("*.py"))


# --- versions of Python -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def noxfile() -> ModuleType:
    pytest.importorskip("nox")
    spec = importlib.util.spec_from_file_location("noxfile", ROOT / "noxfile.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_nox_runs_what_is_supported(noxfile: ModuleType) -> None:
    named = {c.rsplit(" ", 1)[1] for c in PROJECT["classifiers"] if "Python :: 3." in c}
    assert set(noxfile.PYTHONS) == named
    assert noxfile.PYTHONS[0] == re.search(r">=(3\.\d+)", PROJECT["requires-python"])[1]
    extras = set(re.search(r"\[(.+)\]", noxfile.EXTRAS)[1].split(","))
    assert extras <= set(PROJECT["optional-dependencies"])
    assert {"dev", "train", "serve"} <= extras


@pytest.mark.e2e
def test_nox_lists_its_sessions() -> None:
    pytest.importorskip("nox")
    done = subprocess.run(
        [sys.executable, "-m", "nox", "-l", "-f", str(ROOT / "noxfile.py")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    sessions = set(re.findall(r"^[*-] ([\w.-]+)", done.stdout, re.MULTILINE))
    assert {
        "tests-3.11",
        "tests-3.12",
        "tests-3.13",
        "lint",
        "wheel-3.11",
        "docs",
        "audit",
    } <= sessions


class Recorder:
    """Stands in for a nox session and writes down what it is asked to do."""

    def __init__(self) -> None:
        self.posargs = ["-x"]
        self.lines: list[list[str]] = []

    def install(self, *words: str) -> None:
        self.lines.append(["pip", "install", *words])

    def run(self, *words: str, env: dict[str, str] | None = None) -> None:
        self.lines.append(list(words))


def test_nox_sessions_ask_for_things_that_exist(noxfile: ModuleType) -> None:
    for name in ("tests", "lint", "wheel", "docs", "audit"):
        session = Recorder()
        getattr(noxfile, name).func(session)
        assert any(line[:2] == ["pip", "install"] for line in session.lines)
        for line in session.lines:
            for word in line:
                if word.endswith((".py", ".txt")):
                    assert (ROOT / word).is_file(), name


def test_continuous_integration_runs_both_tiers() -> None:
    ci = text(".ci/run").splitlines()
    assert [line for line in ci if line.startswith("make ")] == ["make test", "make test-e2e"]
    recipes = dict(re.findall(r"^(test[\w-]*):.*\n\t(.+)$", text("Makefile"), re.MULTILINE))
    assert "-m 'not e2e and not long'" in recipes["test"]
    assert "-m 'e2e and not long'" in recipes["test-e2e"]
