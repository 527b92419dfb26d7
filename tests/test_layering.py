"""Who may import whom, and what ``import stillspeak`` does not do."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "stillspeak"

BOTTOM = {"errors", "constants", "system"}
"""Units that stand on nothing but each other."""

LOWER: dict[str, set[str]] = {
    **dict.fromkeys(BOTTOM, BOTTOM),
    # Credentials name the version.
    "media": BOTTOM | {"media", "__version__"},
    "face": BOTTOM | {"face"},
    "models": {"errors", "constants", "system.configuration", "models"},
    "options": {"system"},
    "weights": BOTTOM | {"models"},
    "data": BOTTOM
    | {
        "media",
        "face",
        "data",
        "models.config",
        "models.layers",
        "models.pixels",
        "models.regions",
    },
    "training": BOTTOM | {"media", "face", "models", "weights", "data", "rendering", "training"},
    "rendering": BOTTOM | {"media", "face", "models", "weights", "rendering"},
    "synthesis": BOTTOM | {"media", "models", "options", "rendering"},
    "realtime": BOTTOM | {"media", "animate", "stream", "realtime"},
    # Reports name the version.
    "reporting": BOTTOM | {"reporting", "__version__"},
}
"""What each of these units may import of this package."""

UPPER = ({"animate", "stream"}, {"(all others)"}, {"cli"}, {"__main__"})
"""These may import any unit below and of their own tier, never one of a tier above."""

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


def tier(unit: str) -> int:
    if unit in LOWER:
        return -1
    return next((i for i, units in enumerate(UPPER) if unit in units), 1)


def breaches(unit: str, source: str) -> list[str]:
    """Imports of a unit's source that the rule forbids."""
    found = []
    for name in imported(source):
        top, _, inside = name.partition(".")
        if top != "stillspeak":
            if unit == "models" and top not in MODELS_NEED | set(sys.stdlib_module_names):
                found.append(name)
            continue
        target = inside.split(".")[0]
        if not (PACKAGE / target).is_dir() and not (PACKAGE / f"{target}.py").is_file():
            target = "(the package)"  # such as __version__
            if unit not in LOWER or unit == "training":
                continue
        if unit in LOWER:
            allowed = any(f"{inside}.".startswith(f"{one}.") for one in LOWER[unit])
        else:
            allowed = tier(target) <= tier(unit)
        if not allowed:
            found.append(name)
    return found


def units() -> list[tuple[str, Path]]:
    files = sorted(PACKAGE.rglob("*.py"))
    return [(path.relative_to(PACKAGE).with_suffix("").parts[0], path) for path in files]


@pytest.mark.parametrize(
    ("unit", "path"),
    [pytest.param(u, p, id=str(p.relative_to(PACKAGE))) for u, p in units() if u != "__init__"],
)
def test_imports_go_down(unit: str, path: Path) -> None:
    assert breaches(unit, path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("errors", "from stillspeak.media.audio import load_audio"),
        ("face", "import stillspeak.media.image"),
        ("face", "def f():\n    from stillspeak.models.config import GeneratorConfig"),
        ("media", "from stillspeak import face"),
        ("models", "import einops"),
        ("models", "from stillspeak.system.runtime import choose_device"),
        ("models", "from stillspeak.rendering.expression import ExpressionProcess"),
        ("rendering", "from stillspeak.synthesis import Synthesizer"),
        ("synthesis", "from stillspeak.face.align import face_transform"),
        ("weights", "from stillspeak.data.dataset import Batch"),
        ("data", "from stillspeak.models.generator import Generator"),
        ("data", "from stillspeak.rendering.portrait import Portrait"),
        ("data", "from stillspeak.training.config import RunConfig"),
        ("training", "from stillspeak.cli.app import main"),
        ("training", "from stillspeak.animate import animate"),
        ("animate", "from stillspeak.evaluation.measures.lips import anything"),
        ("stream", "from stillspeak.cli.app import main"),
        ("realtime", "from stillspeak.web.app import create_app"),
        ("evaluation", "from stillspeak.cli.app import main"),
        ("reporting", "from stillspeak.evaluation.summary import bootstrap"),
        ("web", "from stillspeak.cli.common import Quiet"),
        ("study", "from stillspeak.cli.common import Quiet"),
        ("animate", "from stillspeak.study.app import create_app"),
        ("animate", "from stillspeak.web.app import create_app"),
        ("cli", "import stillspeak.__main__"),
    ],
)
def test_the_rule_notices(unit: str, source: str) -> None:
    assert len(breaches(unit, source)) == 1


@pytest.mark.parametrize(
    ("unit", "source"),
    [
        ("data", "from stillspeak.models.config import GeneratorConfig"),
        ("data", "from stillspeak.models import layers"),
        ("models", "import torch.nn.functional as F\nimport math"),
        ("training", "from stillspeak import __version__"),
        ("evaluation", "from stillspeak.animate import animate"),
        ("web", "from stillspeak.animate import Animator"),
        ("study", "from stillspeak.reporting.plots import Plot"),
        ("cli", "import stillspeak.evaluation.measures.lips"),
    ],
)
def test_the_rule_lets_pass(unit: str, source: str) -> None:
    assert breaches(unit, source) == []


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


def test_the_function_animate_stays_where_the_module_of_its_name_is_imported() -> None:
    code = "import stillspeak; stillspeak.Animation; print(type(stillspeak.animate).__name__)"
    assert run_python(code) == "function"
