"""Who may import whom, and what ``import stillspeak`` does not do."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "stillspeak"

BASE = {"errors", "constants", "system"}
VERSION = "__version__"
"""Credentials, reports and the help of commands name it."""

RULE: dict[str, set[str]] = {
    "errors": set(),
    "constants": set(),
    "system": {"errors"},
    "options": {"errors", "system", "motion"},
    "media": BASE | {VERSION},
    "face": BASE,
    "models": {"errors", "constants", "system.configuration"},
    "weights": BASE | {"models"},
    "motion": BASE | {"media", "models", "weights"},
    "rendering": BASE | {"media", "face", "models", "motion", "weights"},
    "synthesis": BASE | {"media", "models", "motion", "options", "rendering"},
    "animate": BASE
    | {"media", "face", "models", "motion", "options", "weights", "rendering", "synthesis"},
    "stream": BASE | {"media", "models", "motion", "options", "weights", "rendering", "animate"},
    "poses": BASE
    | {"media", "face", "models", "motion", "options", "weights", "rendering", "synthesis"}
    | {"animate"},
    "batch": BASE | {"media", "options", "rendering", "animate"},
    "data": BASE
    | {"media", "face"}
    | {f"models.{name}" for name in ("config", "layers", "pixels", "regions")},
    "training": BASE
    | {"media", "face", "models", "motion", "weights", "rendering", "data", VERSION},
    "reporting": BASE | {VERSION},
    "evaluation": BASE
    | {"media", "face", "models", "motion", "options", "weights", "rendering", "synthesis", "data"}
    | {"reporting", VERSION},
    "dub": BASE
    | {"media", "face", "models", "motion", "options", "weights", "rendering", "synthesis"}
    | {"animate", "stream"},
    "conceal": BASE
    | {"media", "face", "models", "motion", "options", "weights", "rendering", "synthesis", "dub"},
    "export": BASE | {"media", "face", "models", "weights", VERSION},
    "realtime": BASE | {"media", "motion", "animate", "stream"},
    "integrations": BASE | {"realtime", "stream"},
    "web": BASE
    | {"media", "face", "motion", "options", "weights", "rendering", "animate", "stream"}
    | {"realtime", "dub", VERSION},
    "study": BASE | {"media", "data", "reporting", "web"},
    "__main__": {"cli"},
}
"""What each unit may import of this package beside itself; ``cli`` may import all but the last."""

RULE["cli"] = {VERSION, *RULE} - {"__main__"}

MODELS_NEED = {"torch", "numpy", "pydantic"}
"""All that the networks import from elsewhere, apart from the standard library."""


def imported(source: str) -> Iterator[str]:
    """Every module that a source imports, anywhere in it; names as ``module.name`` too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports hide where a name comes from"
            assert node.module is not None
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def breaches(unit: str, source: str) -> list[str]:
    """Imports of a unit's source that the rule forbids."""
    found = []
    for name in imported(source):
        top, _, inside = name.partition(".")
        if top == "stillspeak":
            allowed = any(f"{inside}.".startswith(f"{one}.") for one in {unit, *RULE[unit]})
        else:
            allowed = unit != "models" or top in MODELS_NEED | set(sys.stdlib_module_names)
        if not allowed:
            found.append(name)
    return found


def test_imports_go_down() -> None:
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        unit = path.relative_to(PACKAGE).with_suffix("").parts[0]
        if unit != "__init__":
            found[str(path)] = breaches(unit, path.read_text("utf-8"))
    assert {path: names for path, names in found.items() if names} == {}
    assert {unit for unit in RULE if not list(PACKAGE.glob(f"{unit}*"))} == set()


@pytest.mark.parametrize(
    ("unit", "source", "count"),
    [
        ("errors", "from stillspeak.media.audio import load_audio", 1),
        ("face", "import stillspeak.media.image", 1),
        ("face", "def f():\n    from stillspeak.models.config import GeneratorConfig", 1),
        ("media", "from stillspeak import face", 1),
        ("models", "import einops", 1),
        ("models", "from stillspeak.system.runtime import choose_device", 1),
        ("models", "import torch.nn.functional as F\nimport math", 0),
        ("data", "from stillspeak.models.generator import Generator", 1),
        ("data", "from stillspeak.models import layers", 0),
        ("training", "from stillspeak.animate import animate", 1),
        ("animate", "from stillspeak.web.app import create_app", 1),
        ("study", "from stillspeak.cli.common import Quiet", 1),
        ("cli", "import stillspeak.evaluation.measures.lips", 0),
        ("cli", "import stillspeak.__main__", 1),
    ],
)
def test_the_rule_notices(unit: str, source: str, count: int) -> None:
    assert len(breaches(unit, source)) == count


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_importing_stillspeak_loads_nothing_heavy() -> None:
    heavy = (
        "{'torch', 'mediapipe', 'av', 'cv2', 'soxr', 'PIL', 'pydantic', 'typer', 'rich', "
        "'fastapi', 'uvicorn'}"
    )
    loaded = run_python(f"import sys, stillspeak; print(sorted({heavy} & set(sys.modules)))")
    assert loaded == "[]"


def test_the_web_application_is_there_before_anything_heavy() -> None:
    heavy = "{'torch', 'mediapipe', 'av', 'cv2', 'soxr', 'PIL'}"
    code = f"import sys, stillspeak.web.server; print(sorted({heavy} & set(sys.modules)))"
    assert run_python(code) == "[]"


def test_the_function_dub_stays_where_its_package_is_imported() -> None:
    code = (
        "import stillspeak.dub.video, stillspeak; from stillspeak.dub.video import dub; "
        "print(stillspeak.dub is dub, callable(stillspeak.dub))"
    )
    assert run_python(code) == "True True"


def test_the_function_animate_stays_where_the_module_of_its_name_is_imported() -> None:
    code = "import stillspeak; stillspeak.Animation; print(type(stillspeak.animate).__name__)"
    assert run_python(code) == "function"
