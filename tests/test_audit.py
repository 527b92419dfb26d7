"""Dependencies: declared, used, pinned, and under licences that somebody looked at."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
EXTRAS = ("torch", "fastapi", "sqlalchemy", "onnx", "livekit.agents", "lightning_fabric", "dlib")


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def everything() -> None:
    for name in EXTRAS:
        pytest.importorskip(name.split(".")[0], reason=f"{name} is not installed here")


@pytest.mark.e2e
@pytest.mark.usefixtures("everything")
def test_nothing_is_wrong(audit: ModuleType) -> None:
    assert audit.problems() == []


@pytest.mark.e2e
@pytest.mark.usefixtures("everything")
def test_what_is_wrong_is_found(audit: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = audit.declared()
    pins = {**audit.constraints(), "numpy": "1.0", "nobody-wants-this": "1.0"}
    del pins["av"]
    monkeypatch.setattr(audit, "constraints", lambda: pins)
    groups["core"] = [r for r in groups["core"] if r.name != "safetensors"]
    groups["core"].append(Requirement("colorama"))
    groups["dev"].append(Requirement("tomlkit"))
    monkeypatch.setattr(audit, "LOOKED_AT", {})
    found = "\n".join(audit.problems(groups))
    for line in (
        r"^av [\d.]+: not in constraints\.txt$",
        r"^numpy: [\d.]+ is installed, 1\.0 is pinned$",
        r"^nobody-wants-this: pinned in constraints\.txt, but nothing asks for it$",
        r"^src/stillspeak/[\w/]+\.py: imports safetensors, which no extra declares$",
        r"^colorama: declared, but src does not import it$",
        r"^tomlkit: declared for development, but nothing imports it$",
        r"^cpbd-py312: Other/Proprietary License: find out what it allows$",
    ):
        assert re.search(line, found, re.MULTILINE), line


@pytest.mark.parametrize(
    ("licence", "kind"),
    [
        ("MIT", "free"),
        ("BSD License", "free"),
        ("Apache-2.0 AND MIT", "free"),
        ("Python Software Foundation License", "free"),
        ("LGPL-3.0-only", "weak copyleft"),
        ("MPL-2.0 AND MIT", "weak copyleft"),
        ("GPL-2.0-only OR MIT", "free"),
        ("GPL-3.0-or-later", "unknown"),
        ("AGPL-3.0", "unknown"),
        ("GNU General Public License v3 (GPLv3)", "unknown"),
        ("GNU Lesser General Public License v3", "weak copyleft"),
        ("Apache-2.0 AND LicenseRef-Ours", "unknown"),
        ("Other/Proprietary License", "unknown"),
        ("", "unknown"),
    ],
)
def test_licences_are_told_apart(audit: ModuleType, licence: str, kind: str) -> None:
    assert audit.judge(licence) == kind


@pytest.mark.usefixtures("everything")
def test_the_table_names_every_declared_package(audit: ModuleType) -> None:
    rows = dict(re.findall(r"^\| \**([\w.-]+?)\** \| (\d[^ |]*) \|", audit.table(), re.MULTILINE))
    pinned = audit.constraints()
    assert rows == {name: pinned[name] for name in rows}
    named = {r.name.lower() for rs in audit.declared().values() for r in rs}
    _, missing = audit.installed(audit.declared())
    assert {name.replace("_", "-") for name in named} - missing <= set(rows)
