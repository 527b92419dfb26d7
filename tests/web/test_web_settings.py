"""What an operator may decide."""

import re
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stillspeak.cli.app import app
from stillspeak.errors import ConfigError
from stillspeak.system.configuration import build, fields_of, range_of, to_table
from stillspeak.web.settings import ServeSettings

RANGES = {
    name: range_of(about)
    for name, about in fields_of(ServeSettings).items()
    if range_of(about) != (None, None)
}


def test_only_this_machine_reaches_the_default():
    assert ServeSettings().host == "127.0.0.1"


@pytest.mark.parametrize("name", sorted(RANGES))
@pytest.mark.parametrize("wrong", ["below", "above", "nan"])
def test_numbers_out_of_range_are_refused(name: str, wrong: str):
    low, high = RANGES[name]
    value = {"below": low - 1, "above": high + 1, "nan": float("nan")}[wrong]
    with pytest.raises(ConfigError, match=rf"serve\.{name}: must be"):
        ServeSettings(**{name: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"host": ""}, "host"),
        ({"host": "a b"}, "host"),
        ({"allow_hosts": ("http://x.org",)}, "allow_hosts"),
        ({"allow_hosts": ("*",)}, "allow_hosts"),
        ({"device": "tpu"}, "device"),
        ({"models": ("a", "a")}, "models"),
        ({"models": ("",)}, "models"),
        ({"max_stored_bytes": 2**20}, "max_stored_bytes"),
        ({"stun": "http://example"}, "stun"),
        ({"turn": "stun:example"}, "turn"),
        ({"certificate": Path("chain.pem")}, "go together"),
        ({"certificate": Path("a"), "key": Path("b"), "mark": False}, "mark = false"),
    ],
)
def test_wrong_values_are_refused(change: dict, said: str):
    with pytest.raises(ConfigError, match=said):
        ServeSettings(**change)


def test_a_toml_table_becomes_settings():
    settings = build(
        ServeSettings, {"models": ["temporal"], "folder": "/x", "keep_seconds": 60}, name="t"
    )
    assert settings.models == ("temporal",)
    assert settings.folder == Path("/x")
    with pytest.raises(ConfigError, match="keep_second"):
        build(ServeSettings, {"keep_second": 60}, name="t")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "no-such-model"], "no-such-model"),
        (["--host", "203.0.113.7"], "cannot listen on 203.0.113.7"),
        (["--allow-host", "*"], "allow_hosts"),
        (["--label-text", "two\nlines"], "one line"),
        (["--certificate", "no.pem", "--key", "no.key"], "no.pem: cannot be read"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(arguments: list[str], said: str):
    outcome = CliRunner().invoke(app, ["serve", "--port", "0", *arguments])
    assert outcome.exit_code == 1
    assert said in str(outcome.exception)
    assert "\n" not in str(outcome.exception)


def test_the_command_refuses_a_folder_that_is_not_there(tmp_path: Path):
    config = tmp_path / "serve.toml"
    config.write_text(f'folder = "{tmp_path}/nowhere"\nport = 0\n')
    outcome = CliRunner().invoke(app, ["serve", "--config", str(config)])
    assert isinstance(outcome.exception, ConfigError)
    assert "cannot keep uploads there" in str(outcome.exception)


DOCS = (Path(__file__).parents[2] / "docs/web.md").read_text("utf-8")


def test_the_documented_defaults_are_the_defaults():
    (block,) = re.findall(r"```toml\n(.*?)```", DOCS, re.DOTALL)
    documented = tomllib.loads(block)
    actual = to_table(ServeSettings())
    unset = ("folder", "label", "certificate", "key", "stun", "turn", "turn_user", "turn_password")
    for name in unset:
        assert actual.pop(name) is None and f"# {name} = " in block
    assert documented == actual


def test_the_documented_routes_are_there(make_app):
    routes = {
        (method.upper(), re.sub(r"\{\w+\}", "ID", path))
        for path, methods in make_app().openapi()["paths"].items()
        for method in methods
    }
    named = re.findall(r"`(GET|POST|DELETE) (/api/[a-zA-Z/]+)", DOCS)
    assert len(named) > 10
    assert set(named) <= routes
