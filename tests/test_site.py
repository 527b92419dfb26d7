"""The site: it builds without a warning, and its made pages have every name and command."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import typer

import stillspeak
from stillspeak.cli import app as cli
from support.docs import ROOT

pytest.importorskip("mkdocs", reason="the docs extra is not installed")


@pytest.fixture(scope="module")
def hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts/reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.e2e
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    api = (tmp_path / "api.html").read_text("utf-8")
    for name in stillspeak.__all__:
        assert re.search(rf'id="stillspeak\.[\w.]*{name}"', api), name
    assert "<code>Animator</code>" in api and ":class:" not in api
    commands = (tmp_path / "commands.html").read_text("utf-8")
    for name in typer.main.get_command(cli.app).commands:
        assert f'id="stillspeak-{name}' in commands, name


@pytest.mark.parametrize(
    ("source", "link", "adjusted"),
    [
        ("docs/a.md", "[b](b.md#c)", "[b](b.md#c)"),
        ("docs/a.md", "[card](../MODEL_CARD.md#use)", "[card](model-card.md#use)"),
        ("docs/gallery/README.md", "[card](../../MODEL_CARD.md)", "[card](../model-card.md)"),
        ("MODEL_CARD.md", "![it](docs/images/demo.gif)", "![it](images/demo.gif)"),
        ("docs/a.md", "[the code](../src/stillspeak/stream.py)", "the code"),
        ("docs/a.md", "[there](https://example.org/a.md) [here](#c)", None),
    ],
)
def test_links_are_adjusted_to_the_site(
    hook: ModuleType, source: str, link: str, adjusted: str | None
) -> None:
    target = hook.OUTSIDE.get(source, source.removeprefix("docs/"))
    assert hook.site_links(link, source, target) == (link if adjusted is None else adjusted)
