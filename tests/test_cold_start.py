"""What a first video does not wait for."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.e2e

CODE = """
import sys

import pytest
from stillspeak.animate import Animator
from stillspeak.rendering.refine import released_refiner
animator = Animator()
animator.detector, animator.engine, released_refiner()
print(sorted({"torch._dynamo", "sympy", "matplotlib"} & set(sys.modules)))
import matplotlib.pyplot
from mediapipe.tasks.python.vision import drawing_utils
assert drawing_utils.plt.figure is matplotlib.pyplot.figure
"""


def test_model_and_detector_load_neither_compiler_nor_plots():
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[]\n"
