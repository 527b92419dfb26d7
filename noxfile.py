"""The same checks under every supported Python that is installed here.

    nox -l                    # what there is
    nox -s tests-3.12         # the tests under one of them
    nox -s wheel              # the package alone: builds it and tests what was built
    nox --no-error-on-missing-interpreters

``make test`` and ``make lint`` do the same with one Python and without nox.
"""

from __future__ import annotations

import re
from pathlib import Path

import nox

PYTHONS = ("3.11", "3.12", "3.13")
MAKEFILE = Path(__file__).with_name("Makefile").read_text("utf-8")
EXTRAS = re.findall(r"--editable '(\.\[[\w,]+\])'", MAKEFILE)[0]
"""What the Makefile installs."""

nox.options.sessions = ["lint", "tests"]
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True


def install(session: nox.Session) -> None:
    """Everything, at the versions of the constraints. They were resolved under 3.11."""
    session.install("--constraint", "constraints.txt", "--editable", EXTRAS)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Both tiers of tests; arguments after -- go to pytest."""
    session.run("python", "scripts/check_system.py")
    install(session)
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS[0])
def lint(session: nox.Session) -> None:
    """Style, format and types."""
    install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")


@nox.session(python=PYTHONS)
def wheel(session: nox.Session) -> None:
    """The package that is built: contents, types, and that it animates with nothing else."""
    install(session)
    session.run("pytest", "tests/test_wheel.py", *session.posargs)


@nox.session(python=PYTHONS[0])
def docs(session: nox.Session) -> None:
    """Draws the figures anew and builds the site."""
    install(session)
    session.run("python", "scripts/figures.py")
    session.run("mkdocs", "build", "--strict", env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session(python=PYTHONS[0])
def audit(session: nox.Session) -> None:
    """Versions, licences, declarations; with -- --online known weaknesses, from the network."""
    install(session)
    if "--online" in session.posargs:
        session.install("pip-audit")
    session.run("python", "scripts/audit.py", *session.posargs)
