"""Check what pip cannot install, before it starts. Standard library only, any Python 3."""

import ctypes
import os
import sys

LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGLESv2.so.2": "libgles2",
    "libGL.so.1": "libgl1",
    "libgthread-2.0.so.0": "libglib2.0-0",
}


def main():
    """Print what is missing and how to install it; exit 1 if anything is."""
    problems = []
    if not (3, 11) <= sys.version_info[:2] <= (3, 13):
        found = ".".join(str(part) for part in sys.version_info[:2])
        problems.append(
            "Python 3.11, 3.12 or 3.13 is needed, this is " + found + "; "
            "name another one: make PYTHON=python3.12 ..."
        )
    if sys.platform.startswith("linux"):
        missing = [package for library, package in LIBRARIES.items() if not loads(library)]
        if missing:
            problems.append(
                "system libraries are missing; install them: sudo apt-get install --yes "
                + " ".join(missing)
            )
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        problems.append(
            "this Python cannot make virtual environments; install python3-venv "
            "(Debian: sudo apt-get install --yes python3-venv)"
        )
    for problem in problems:
        sys.stderr.write("stillspeak: " + problem + "\n")
    return 1 if problems else 0


def loads(library):
    """Whether the dynamic linker finds a library."""
    try:
        ctypes.CDLL(library, mode=getattr(os, "RTLD_LAZY", 1))
    except OSError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main())
