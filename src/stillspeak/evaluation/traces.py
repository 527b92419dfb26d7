"""A clip's curves over time, for reports: lips, eyelids and brows of both sides.

``traces/SPEAKER/NAME.json`` holds ``clip``, ``fps``, ``seconds``, ``words`` as [start s, end s,
word], ``silent`` (T booleans), and under ``generated`` and ``real`` the lists ``opening``,
``closure`` and ``brow`` of T numbers: what metrics make means of. Four decimals; null where no
face was found.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.constants import VIDEO_FPS
from stillspeak.data.layouts.grid import PAUSES
from stillspeak.evaluation.clip import EvaluationClip, ObservedFrames

DIGITS = 4


def trace(name: str, clip: EvaluationClip) -> dict[str, Any]:
    """The curves of one clip as JSON values."""
    return {
        "clip": name,
        "fps": VIDEO_FPS,
        "seconds": round(clip.seconds, DIGITS),
        "words": [[round(a, DIGITS), round(b, DIGITS), word] for a, b, word in clip.words],
        "silent": [bool(quiet) for quiet in clip.silence.frames],
        "generated": _curves(clip.generated),
        "real": _curves(clip.real),
    }


def is_trace(file: Path) -> bool:
    """A file holds a whole trace."""
    try:
        return "real" in json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def read_traces(folder: Path, clips: set[str]) -> dict[str, dict[str, Any]]:
    """Traces of these clips, sorted by clip, their words without pauses.

    Raises:
        OSError, ValueError, TypeError, KeyError, AttributeError: one is damaged.
    """
    found = {}
    for path in sorted(folder.glob("*/*.json")):
        trace = json.loads(path.read_text("utf-8"))
        if trace["clip"] not in clips:
            continue
        for side in ("generated", "real"):
            for name in ("opening", "closure", "brow"):
                if len(trace[side][name]) == 0:
                    raise ValueError(f"{path.name}: an empty curve")
                curve(trace[side][name])
        trace["words"] = spoken([(float(a), float(b), str(w)) for a, b, w in trace["words"]])
        trace["fps"], trace["seconds"] = float(trace["fps"]), float(trace["seconds"])
        found[str(trace["clip"])] = trace
    return dict(sorted(found.items()))


def curve(values: Sequence[float | None]) -> npt.NDArray[np.float64]:
    """A trace's list as numbers, NaN where no face was found."""
    return np.array([np.nan if v is None else v for v in values], np.float64)


def spoken(words: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Words without the pauses that GRID's timings name as well, ``sil`` and ``sp``."""
    return [word for word in words if word[2] not in PAUSES]


def _curves(side: ObservedFrames) -> dict[str, list[float | None]]:
    curves = {"opening": side.opening, "closure": side.eye_closure, "brow": side.brow}
    # Adding zero makes 0.0 of -0.0.
    return {
        name: [None if v != v else round(float(v), DIGITS) + 0.0 for v in values]
        for name, values in curves.items()
    }
