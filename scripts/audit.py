"""What stillspeak depends on: versions, licences, and whether all of it is declared and used.

    python scripts/audit.py             # problems, and exit 1 if there are any
    python scripts/audit.py --table     # every package as Markdown
    python scripts/audit.py --online    # asks pip-audit, too, which asks a public database

All but the last works without a network, from what is installed: with the Makefile's extras that is
everything but ``mic`` and ``pipecat``, which are told as not installed where they are not.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]

FREE = (
    *("0BSD", "APACHE", "BOOST", "BSD", "BSL-1.0", "CC0", "ISC", "MIT", "PSF", "PYTHON SOFTWARE"),
    *("PUBLIC DOMAIN", "UNLICENSE", "ZLIB", "LLVM-EXCEPTION"),
)
"""Words of licences that ask for little more than to be named."""

WEAK = ("LGPL", "MPL", "MOZILLA PUBLIC", "LESSER GENERAL PUBLIC")
"""Words of licences that cover their own package alone."""

LOOKED_AT = {
    "atheris": "Apache-2.0 in its licence file",
    "axe-playwright-python": "MIT in its licence file",
    "cpbd-py312": "Arizona State University's terms, in the manner of BSD with a citation; used in "
    "tests alone, to compare with",
    "livekit-local-inference": "Apache-2.0, but its turn detector is under LiveKit's model "
    "licence: with LiveKit Agents only. It comes with livekit-agents; the adapter does not use it",
}
"""Licences that neither list knows, and what a person found."""

WITHOUT_IMPORT = {
    "atheris": "scripts/fuzz.py --guided",
    "psycopg": "SQLAlchemy loads it by the database's URL",
    "tensorboard": "torch.utils.tensorboard imports it",
    "mkdocs-material": "mkdocs.yml",
    "mkdocstrings": "mkdocs.yml",
    "mypy": "make lint",
    "ruff": "make lint",
    "pytest-timeout": "an option in pyproject.toml",
    "pytest-xdist": "tests on all cores: pytest -n auto",
    "hatchling": "builds the wheel in tests/test_wheel.py",
    "build": "builds the wheel in tests/test_wheel.py",
    "nox": "noxfile.py",
}
"""Declared packages that no import of the sources names, and what they are for."""

ELSEWHERE = {"pipecat": "pipecat-ai", "sounddevice": "sounddevice", "dlib": "dlib-bin"}
"""Packages that may not be installed here, or do not say under which name they are imported."""


@dataclass
class Package:
    """One installed distribution."""

    name: str
    version: str
    licence: str
    wanted_by: set[str] = field(default_factory=set)
    """Extras that bring it, ``core`` for the package itself."""
    direct: bool = False

    @property
    def kind(self) -> str:
        """``free``, ``weak copyleft``, ``looked at`` or ``unknown``."""
        if self.name in LOOKED_AT:
            return "looked at"
        return judge(self.licence)


def judge(licence: str) -> str:
    """What a licence's name or expression amounts to; of a choice the best part counts."""
    text = licence.upper()
    if " OR " in text and " AND " not in text:
        kinds = [judge(part) for part in re.split(r"\sOR\s", text)]
        return next((k for k in ("free", "weak copyleft") if k in kinds), "unknown")
    kinds = []
    for part in re.split(r"\sAND\s|\sOR\s|\sWITH\s|[,;]", text):
        if any(word in part for word in WEAK):
            kinds.append("weak copyleft")
        elif re.search(r"\bA?GPL|GENERAL PUBLIC", part) or not any(word in part for word in FREE):
            kinds.append("unknown")
        else:
            kinds.append("free")
    return next((k for k in ("unknown", "weak copyleft") if k in kinds), "free")


def licence_of(about: metadata.PackageMetadata) -> str:
    """The licence that a distribution states, in one line; empty if it states none."""
    expression = about.get("License-Expression")
    if expression:
        return str(expression)
    classes = [
        text.rsplit(" :: ", 1)[1]
        for text in about.get_all("Classifier") or []
        if text.startswith("License :: ") and not text.endswith(("OSI Approved", "DFSG approved"))
    ]
    if classes:
        return ", ".join(classes)
    text = str(about.get("License") or "").strip()
    return text if "\n" not in text and len(text) < 80 else ""


def declared() -> dict[str, list[Requirement]]:
    """Requirements of ``pyproject.toml``, by extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    groups = {"core": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(text) for text in texts] for extra, texts in groups.items()}


def constraints() -> dict[str, str]:
    """Pinned versions, by canonical name."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version.strip() for name, version in pairs}


def installed(groups: Mapping[str, list[Requirement]]) -> tuple[dict[str, Package], set[str]]:
    """Everything that is reached from the declared requirements, and the names not installed."""
    found: dict[str, Package] = {}
    missing: set[str] = set()
    for extra, requirements in groups.items():
        waiting = [(requirement, True) for requirement in requirements]
        seen: set[tuple[str, frozenset[str]]] = set()
        while waiting:
            requirement, direct = waiting.pop()
            name = canonicalize_name(requirement.name)
            key = (name, frozenset(requirement.extras))
            if key in seen:
                continue
            seen.add(key)
            try:
                there = metadata.distribution(name)
            except metadata.PackageNotFoundError:
                missing.add(name)
                continue
            package = found.setdefault(
                name, Package(name, there.version, licence_of(there.metadata))
            )
            package.wanted_by.add(extra)
            package.direct |= direct
            for text in there.requires or []:
                more = Requirement(text)
                asked = ("", *requirement.extras)
                if more.marker is None or any(more.marker.evaluate({"extra": e}) for e in asked):
                    waiting.append((more, False))
    return found, missing


@cache
def imports(folders: tuple[str, ...]) -> dict[str, Path]:
    """Top-level names that sources import from elsewhere, each with one place."""
    found: dict[str, Path] = {}
    for path in sorted(p for folder in folders for p in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            for name in imported(node):
                found.setdefault(name.split(".")[0], path.relative_to(ROOT))
    own = {"stillspeak", *(p.stem for p in (ROOT / "tests").rglob("*.py"))}
    return {n: p for n, p in found.items() if n not in sys.stdlib_module_names and n not in own}


def imported(node: ast.AST) -> Iterator[str]:
    """Modules that a statement imports, ``importlib`` and pytest's ``importorskip`` included."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module
    elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        called = node.func.id if isinstance(node.func, ast.Name) else called
        if called in ("import_module", "importorskip") and isinstance(node.args[0].value, str):
            yield node.args[0].value


@cache
def _brought_by() -> Mapping[str, list[str]]:
    return metadata.packages_distributions()


def distributions(name: str) -> set[str]:
    """Distributions that bring a top-level name."""
    if name in ELSEWHERE:
        return {canonicalize_name(ELSEWHERE[name])}
    return {canonicalize_name(n) for n in _brought_by().get(name, [])}


def problems(groups: Mapping[str, list[Requirement]] | None = None) -> list[str]:
    """What is wrong, a line each; nothing here needs a network."""
    groups = groups or declared()
    names = {e: {canonicalize_name(r.name) for r in rs} for e, rs in groups.items()}
    packages, missing = installed(groups)
    pinned = constraints()
    found = []
    for package in sorted(packages.values(), key=lambda p: p.name):
        if package.kind == "unknown":
            stated = package.licence or "no licence"
            found.append(f"{package.name}: {stated}: find out what it allows")
        pin = pinned.get(package.name)
        if pin is None:
            found.append(f"{package.name} {package.version}: not in constraints.txt")
        elif Version(pin).public != Version(package.version).public:
            found.append(f"{package.name}: {package.version} is installed, {pin} is pinned")
    for name in sorted(set(pinned) - set(packages) - missing):
        found.append(f"{name}: pinned in constraints.txt, but nothing asks for it")
    of_users = set().union(*(n for extra, n in names.items() if extra != "dev"))
    code = imports(("src",))
    for name, path in sorted(code.items()):
        if not distributions(name) & of_users:
            found.append(f"{path}: imports {name}, which no extra declares")
    used = set().union(*map(distributions, code))
    for name in sorted(of_users - used - set(WITHOUT_IMPORT)):
        found.append(f"{name}: declared, but src does not import it")
    rest = imports(("tests", "benchmarks", "scripts", "examples"))
    used |= set().union(*map(distributions, rest))
    for name in sorted(names.get("dev", set()) - used - set(WITHOUT_IMPORT)):
        found.append(f"{name}: declared for development, but nothing imports it")
    everything = set().union(*names.values())
    for name in sorted(set(WITHOUT_IMPORT) - everything):
        found.append(f"{name}: excused in scripts/audit.py, but not declared")
    return found


def table() -> str:
    """Every package as Markdown."""
    packages, missing = installed(declared())
    ordered = sorted(packages.values(), key=lambda p: p.name)
    lines = [
        "# Dependencies",
        "",
        "What is installed with the Makefile's extras, at the versions of constraints.txt. Bold:",
        "named in pyproject.toml; the others come with those. Weak copyleft covers the package",
        "itself, not what uses it.",
        "",
        f"{len(ordered)} packages, {sum(p.direct for p in ordered)} of them named; "
        f"not installed: {', '.join(sorted(missing)) or 'none'}.",
        "",
        "| package | version | licence | kind | for |",
        "| --- | --- | --- | --- | --- |",
    ]
    for package in ordered:
        name = f"**{package.name}**" if package.direct else package.name
        licence = package.licence or "not stated"
        if package.name in LOOKED_AT:
            licence += f": {LOOKED_AT[package.name]}"
        extras = "core" if "core" in package.wanted_by else ", ".join(sorted(package.wanted_by))
        version = Version(package.version).public
        lines.append(f"| {name} | {version} | {licence} | {package.kind} | {extras} |")
    return "\n".join(lines) + "\n"


def online() -> int:
    """Let pip-audit look the pinned versions up. It is not installed with stillspeak.

    Strictly: without that, packages of which the database could tell nothing pass as sound.
    """
    command = [sys.executable, "-m", "pip_audit", "--strict", "--no-deps", "--disable-pip"]
    command += ["-r", str(ROOT / "constraints.txt")]
    return subprocess.run(command, check=False).returncode  # noqa: S603 - a fixed command


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", action="store_true", help="print every package")
    parser.add_argument("--online", action="store_true", help="ask pip-audit too")
    given = parser.parse_args()
    if given.table:
        print(table(), end="")
    found = problems()
    for line in found:
        print(line, file=sys.stderr)
    if not given.table:
        print(f"{len(found)} problems")
    code = online() if given.online else 0
    raise SystemExit(1 if found else code)


if __name__ == "__main__":
    main()
