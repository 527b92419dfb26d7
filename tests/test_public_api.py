"""What ``import stillspeak`` offers, and what loading it and its command line costs."""

import json
import subprocess
import sys

import pytest

import stillspeak

PUBLIC = {
    "Animation", "Animator", "Face", "Generator", "GeneratorConfig", "LandmarkDetector", "LiveDub",
    "MediaPipeDetector", "PoseTrack", "StillspeakError", "StreamSession", "animate", "dub",
    "hear_poses", "load_audio", "load_image", "load_model", "save_model", "write_video",
}  # fmt: skip

HEAVY = ("torch", "mediapipe", "av", "cv2", "PIL", "pydantic", "typer", "numpy", "matplotlib")


def test_the_public_names():
    assert set(stillspeak.__all__) == PUBLIC
    assert list(stillspeak.__all__) == sorted(stillspeak.__all__)
    assert set(dir(stillspeak)) >= PUBLIC


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_a_public_name_is_there_and_explains_itself(name):
    value = getattr(stillspeak, name)
    assert value.__name__ == name
    assert value.__module__.startswith("stillspeak.")
    assert value.__doc__


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match="module 'stillspeak' has no attribute 'animated'"):
        stillspeak.animated  # noqa: B018
    with pytest.raises(ImportError):
        from stillspeak import nothing  # noqa: F401


def report(code: str) -> dict:
    """The last line that a fresh Python prints, as JSON."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_costs_nothing_and_animate_stays_a_function():
    got = report(
        "import json, sys\n"
        "import stillspeak\n"
        f"loaded = [name for name in {HEAVY} if name in sys.modules]\n"
        "from stillspeak.animate import Animator\n"
        "import stillspeak.batch\n"
        "print(json.dumps({'loaded': loaded, 'kind': type(stillspeak.animate).__name__,\n"
        "    'same': stillspeak.animate is sys.modules['stillspeak.animate'].animate,\n"
        "    'whole': stillspeak.Animator is Animator,\n"
        "    'later': [n for n in ('mediapipe', 'typer', 'lightning_fabric',\n"
        "        'tensorboard', 'matplotlib', 'scipy', 'skimage') if n in sys.modules]}))\n"
    )
    assert got == {"loaded": [], "kind": "function", "same": True, "whole": True, "later": []}


def test_help_and_version_load_neither_torch_nor_mediapipe():
    got = report(
        "import json, sys\n"
        "from stillspeak.cli.app import main\n"
        "codes = []\n"
        "for arguments in (['--version'], ['--help'], ['animate', '--help'], ['animate', 'x']):\n"
        "    sys.argv = ['stillspeak', *arguments]\n"
        "    stderr, sys.stderr = sys.stderr, sys.stdout\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit as stop:\n"
        "        codes.append(stop.code)\n"
        "    sys.stderr = stderr\n"
        "heavy = [n for n in ('torch', 'mediapipe', 'av', 'cv2', 'numpy') if n in sys.modules]\n"
        "print(json.dumps({'codes': codes, 'heavy': heavy}))\n"
    )
    assert got == {"codes": [0, 0, 0, 2], "heavy": []}
