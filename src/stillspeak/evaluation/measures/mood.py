"""Which mood a face shows, judged from MediaPipe's blendshapes and nothing else.

The rule follows the action units that the EMFACS dictionary lists for each emotion (Friesen and
Ekman, EMFACS-7, 1983), in the blendshapes that come nearest to them. It is no trained classifier:
it knows neither faces with a label nor what our renderer draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from stillspeak.motion.moods import MOODS, MoodName

SIGNS: dict[str, dict[str, float]] = {
    "happy": {"mouthSmile": 2, "eyeSquint": 0.5},
    "sad": {"browInnerUp": 1, "browOuterUp": -0.5, "mouthFrown": 1, "mouthSmile": -1},
    "angry": {"browDown": 2, "eyeSquint": 0.5, "browInnerUp": -0.5, "mouthUpperUp": -0.5},
    "surprised": {"browInnerUp": 1, "browOuterUp": 1, "eyeWide": 1, "browDown": -0.5},
    "fearful": {"browInnerUp": 1, "eyeWide": 1, "mouthStretch": 1},
    "disgusted": {"mouthUpperUp": 1.5, "browDown": 0.5, "eyeSquint": 0.5, "mouthSmile": -0.5},
}
"""What speaks for each mood, and against it; left and right are one.

Left out are mouthPress and mouthShrugLower, which speech alone moves as far, and noseSneer and
cheekSquint, which MediaPipe's model leaves at 0 whatever a face does.
"""

SOFT = 0.01
"""Added to a score and to what it lacks to 1: below it a detector's scores say nothing."""

CLEAR = 0.5
"""Strength from which a mood is seen; by it 42 of 43 clips of GRID's training speakers, who speak
neutrally, are neutral."""

JUDGED = "judged "
"""What stands before the mood in notes."""

MOOD_DEFINITION = (
    "Strengths of six moods are weighted means of how far the log odds of MediaPipe's blendshapes, "
    f"{SOFT:g} added to each score and to what it lacks to 1, left and right being one, are above "
    "or below those of the still in three quarters of the frames: "
    + "; ".join(
        f"{mood} " + ", ".join(f"{name} {weight:g}" for name, weight in signs.items())
        for mood, signs in SIGNS.items()
    )
    + f". The mood is the strongest one, neutral below {CLEAR:g}. The note names it."
)


class Judged(NamedTuple):
    """What a face shows: the mood, how clearly, and the strengths of all six."""

    mood: MoodName
    strength: float
    strengths: dict[str, float]


def judge_mood(shapes: Sequence[Mapping[str, float]], photo: Mapping[str, float]) -> Judged:
    """The mood of blendshapes of one or more frames beside those of the face at rest.

    Speech moves the mouth and blinks close the eyes, so a blendshape counts by how far its log odds
    are from those of the photo in three quarters of the frames, be it above or below.
    """
    names = {name for signs in SIGNS.values() for name in signs}
    change = {}
    for name in names:
        low, high = np.quantile([_both_sides(frame, name) for frame in shapes], [0.25, 0.75])
        rest = _log_odds(_both_sides(photo, name))
        change[name] = max(_log_odds(low) - rest, 0.0) + min(_log_odds(high) - rest, 0.0)
    strengths = {
        mood: sum(weight * change[name] for name, weight in signs.items())
        / sum(abs(weight) for weight in signs.values())
        for mood, signs in SIGNS.items()
    }
    most = max(strengths, key=lambda mood: strengths[mood])
    mood = next(name for name in MOODS if name == (most if strengths[most] >= CLEAR else "neutral"))
    return Judged(mood, strengths[most], strengths)


def _both_sides(frame: Mapping[str, float], name: str) -> float:
    if name in frame:
        return frame[name]
    return (frame[f"{name}Left"] + frame[f"{name}Right"]) / 2


def _log_odds(score: float) -> float:
    return float(np.log((score + SOFT) / (1 - score + SOFT)))
