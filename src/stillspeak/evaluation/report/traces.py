"""A clip's curves over time, for reports: lips, eyelids and brows of both sides.

``traces/SPEAKER/NAME.json`` holds ``clip``, ``fps``, ``seconds``, ``words`` as [start s, end s,
word], ``silent`` (T booleans), and under ``generated`` and ``real`` the lists ``opening``,
``closure`` and ``brow`` of T numbers: what metrics make means of. Four decimals; null where no
face was found.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stillspeak.constants import VIDEO_FPS
from stillspeak.evaluation.clip import Material

DIGITS = 4


def trace(clip: str, material: Material) -> dict[str, Any]:
    """The curves of one clip as JSON values."""
    m = material
    return {
        "clip": clip,
        "fps": VIDEO_FPS,
        "seconds": round(m.seconds, DIGITS),
        "words": [[round(a, DIGITS), round(b, DIGITS), word] for a, b, word in m.words],
        "silent": [bool(quiet) for quiet in m.silence.frames],
        "generated": {
            "opening": _numbers(m.generated_opening),
            "closure": _numbers(m.generated_closure),
            "brow": _numbers(m.generated_brow),
        },
        "real": {
            "opening": _numbers(m.real_opening),
            "closure": _numbers(m.real_closure),
            "brow": _numbers(m.real_brow),
        },
    }


def is_trace(file: Path) -> bool:
    """A file holds a whole trace."""
    try:
        return "real" in json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def _numbers(curve: Iterable[float]) -> list[float | None]:
    # Adding zero makes 0.0 of -0.0.
    return [None if value != value else round(float(value), DIGITS) + 0.0 for value in curve]
