"""The tools as modules, and fixtures of the package's own tests."""

import importlib.util
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "tools" / "lease"), str(ROOT / "tests")]

_spec = importlib.util.spec_from_file_location("package_conftest", ROOT / "tests" / "conftest.py")
assert _spec is not None
assert _spec.loader is not None
_package = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_package)

_one_thread = _package._one_thread
write_clip = _package.write_clip
speaking_cache = _package.speaking_cache
