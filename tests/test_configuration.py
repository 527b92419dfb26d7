"""TOML configurations: inherited, overridden, checked."""

from dataclasses import FrozenInstanceError, field
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from stillspeak.errors import ConfigError
from stillspeak.system.configuration import (
    build,
    configuration,
    merge,
    parse_overrides,
    read_toml,
    to_table,
)
from stillspeak.training.auxiliary.kinds import auxiliary_config, auxiliary_kind
from stillspeak.training.config import RunConfig, run_config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("*.toml"))


@configuration("inner")
class Inner:
    width: int = 3
    names: tuple[str, ...] = ("a",)


@configuration("outer")
class Outer:
    rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    inner: Inner = field(default_factory=Inner)

    def __post_init__(self) -> None:
        if self.inner.width == 13:
            raise ConfigError("outer: thirteen is unlucky")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def test_a_chain_of_extends(tmp_path: Path) -> None:
    write(tmp_path, "base.toml", "[a]\nx = 1\ny = 1\nlist = [1, 2]\n[b]\nz = 1\n")
    write(tmp_path, "middle.toml", 'extends = "base.toml"\n[a]\ny = 2\nlist = [3]\n')
    last = write(tmp_path, "deep/last.toml", 'extends = "../middle.toml"\n[a]\nnew = 3\n')
    assert read_toml(last) == {"a": {"x": 1, "y": 2, "list": [3], "new": 3}, "b": {"z": 1}}


def test_a_file_that_extends_itself(tmp_path: Path) -> None:
    own = write(tmp_path, "own.toml", 'extends = "own.toml"\n')
    with pytest.raises(ConfigError, match=r"own\.toml: extends itself"):
        read_toml(own)
    write(tmp_path, "one.toml", 'extends = "two.toml"\n')
    two = write(tmp_path, "two.toml", 'extends = "one.toml"\n')
    with pytest.raises(ConfigError, match=r"two\.toml: extends itself through one\.toml"):
        read_toml(two)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = \n", "not valid TOML"),
        ("extends = 3\n", "extends must name one TOML file"),
        ('extends = "nowhere.toml"\n', r"nowhere\.toml: cannot be read"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read_toml(write(tmp_path, "bad.toml", text))


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "bytes.toml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="not valid TOML"):
        read_toml(path)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "missing.toml")


def test_merging_changes_neither_side() -> None:
    base, difference = {"a": {"x": 1}, "b": 2}, {"a": {"y": 2}, "b": {"c": 3}}
    assert merge(base, difference) == {"a": {"x": 1, "y": 2}, "b": {"c": 3}}
    assert base == {"a": {"x": 1}, "b": 2}
    assert difference == {"a": {"y": 2}, "b": {"c": 3}}


def test_overrides_are_toml_values_or_bare_words() -> None:
    table = parse_overrides(
        ["a.x=4", "a.y=0.5", "a.on=true", "a.list=[1, 2]", "a.word=adam", 'b="3"', "c.d.e=x=y"]
    )
    assert table == {
        "a": {"x": 4, "y": 0.5, "on": True, "list": [1, 2], "word": "adam"},
        "b": "3",
        "c": {"d": {"e": "x=y"}},
    }
    assert parse_overrides(["a.x=1", "a.x=2"]) == {"a": {"x": 2}}


@pytest.mark.parametrize("item", ["a.x", "=3", "a.=3", ".x=3", ""])
def test_overrides_of_another_form(item: str) -> None:
    with pytest.raises(ConfigError, match=r"section\.key=value"):
        parse_overrides([item])


def test_defaults_then_file_then_command_line(tmp_path: Path) -> None:
    path = write(tmp_path, "c.toml", "[inner]\nwidth = 5\n")
    assert build(Outer, {}, name="x") == Outer(0.5, Inner(3))
    assert build(Outer, read_toml(path), name="x") == Outer(0.5, Inner(5))
    table = merge(read_toml(path), parse_overrides(["inner.width=7"]))
    assert build(Outer, table, name="x") == Outer(0.5, Inner(7))


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"inner": {"widht": 4}}, "inner.widht: no such setting"),
        ({"inner": {"width": "wide"}}, "inner.width: must be a whole number, not 'wide'"),
        ({"inner": {"width": 2.5}}, "inner.width: must be a whole number, not 2.5"),
        ({"inner": {"names": "abc"}}, "inner.names: must be a list, not 'abc'"),
        ({"rate": [1]}, "rate: must be a number"),
        ({"rate": 0}, "rate: must be greater than 0, not 0"),
        ({"rate": 1.5}, "rate: must be at most 1, not 1.5"),
        ({"rate": float("nan")}, "rate: must be a finite number, not nan"),
        ({"inner": 4}, "inner: must be a table of keys and values, not 4"),
        ({"extra": {}}, "extra: no such setting"),
    ],
)
def test_wrong_keys_and_values_are_refused_by_name(table: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build(Outer, table, name="my.toml")
    assert str(caught.value) == f"my.toml: {says}"


def test_a_configuration_checks_itself_however_it_is_made() -> None:
    with pytest.raises(ConfigError, match=r"^outer\.rate: must be at most 1, not 2$"):
        Outer(rate=2)
    unlucky = {"inner": {"width": 13}}
    for make in (lambda: Outer(0.5, Inner(13)), lambda: build(Outer, unlucky, name="x")):
        with pytest.raises(ConfigError, match="outer: thirteen is unlucky"):
            make()
    with pytest.raises(TypeError, match="Outer: rat: no such setting"):
        Outer(rat=1)  # type: ignore[call-arg]
    with pytest.raises(FrozenInstanceError):
        Outer().rate = 1  # type: ignore[misc]


def test_a_table_is_the_inverse_of_building() -> None:
    config = Outer(0.25, Inner(9, ("b", "c")))
    assert to_table(config) == {"rate": 0.25, "inner": {"width": 9, "names": ["b", "c"]}}
    assert build(Outer, to_table(config), name="x") == config
    run = RunConfig()
    assert run_config(to_table(run), name="x") == run


def test_a_component_s_own_rule_speaks_through() -> None:
    with pytest.raises(ConfigError, match=r"training\.learning_rate: must be greater than 0"):
        run_config({"training": {"learning_rate": 0}}, name="x")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_file_in_configs(path: Path) -> None:
    table = read_toml(path)
    build_config = auxiliary_config if auxiliary_kind(table) else run_config
    config = build_config(table, name=path.name)
    for section, values in table.items():
        for key, value in values.items():
            built = getattr(getattr(config, section), key)
            assert built == (tuple(value) if isinstance(value, list) else value)


def test_there_are_configurations() -> None:
    assert {"slim.toml", "smoke.toml"} <= {path.name for path in CONFIGS}
