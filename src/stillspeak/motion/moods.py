"""Moods: what they do to a face, and how they are asked for.

A mood is a set of action units, the combinations that the EMFACS dictionary lists for it (Friesen
and Ekman, EMFACS-7, 1983; Ekman, Friesen and Hager, FACS Investigator's Guide, 2002). How far each
goes at strength 1 is ours.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from stillspeak.errors import ConfigError
from stillspeak.system.configuration import configuration

MoodName = Literal["neutral", "happy", "sad", "angry", "surprised", "fearful", "disgusted"]

MOODS: tuple[MoodName, ...] = get_args(MoodName)
"""The columns of what is heard, in this order."""

AUTO: Literal["auto"] = "auto"
"""The mood that is heard in the speech."""

MOST = 2.0
"""The largest strength."""

LOOKS: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"cheek_raiser": 1.0, "lip_corner_puller": 1.25},
    "sad": {
        "inner_brow_raiser": 1.0,
        "brow_lowerer": 0.4,
        "lip_corner_depressor": 0.9,
        "chin_raiser": 0.4,
    },
    "angry": {
        "brow_lowerer": 1.0,
        "upper_lid_raiser": 0.3,
        "lid_tightener": 0.9,
        "lip_tightener": 0.7,
    },
    "surprised": {
        "inner_brow_raiser": 1.0,
        "outer_brow_raiser": 1.0,
        "upper_lid_raiser": 0.9,
        "jaw_drop": 0.4,
    },
    "fearful": {
        "inner_brow_raiser": 1.0,
        "outer_brow_raiser": 0.5,
        "brow_lowerer": 0.5,
        "upper_lid_raiser": 0.9,
        "lip_stretcher": 0.8,
        "jaw_drop": 0.2,
    },
    "disgusted": {
        "nose_wrinkler": 1.0,
        "upper_lip_raiser": 0.9,
        "lip_corner_depressor": 0.5,
        "chin_raiser": 0.4,
    },
}
"""Action units of each mood at strength 1."""


@configuration()
class Mood:
    """A mood and how strongly it shows."""

    name: Literal[MoodName, "auto"] = "neutral"
    """``auto`` is what is heard in the speech."""
    strength: Annotated[float, Field(ge=0, le=MOST)] = 1.0
    """1: as clearly as people show it; of ``auto``, a factor on what is heard."""

    @classmethod
    def parse(cls, text: str) -> Mood:
        """From ``name`` or ``name:strength``, such as ``happy:0.5``.

        Raises:
            ConfigError: there is no such mood, or the strength is none.
        """
        name, colon, given = (part.strip() for part in text.partition(":"))
        values: dict[str, Any] = {"name": name, "strength": given if colon else 1.0}
        try:
            return cls(**values)
        except ConfigError as error:
            raise ConfigError(f"{text.strip()!r}: {error}") from error


@dataclass(frozen=True)
class MoodPlan:
    """Which mood a face is in from when on."""

    changes: tuple[tuple[float, Mood], ...] = ((0.0, Mood()),)
    """Seconds, rising from 0 on, and the mood from then on."""

    @classmethod
    def parse(cls, text: str, face: int = 0) -> MoodPlan:
        """The plan of one face, such as ``happy:0.5``, or ``happy,sad@2.5,1=angry``.

        Parts are separated by commas or, where a comma means something else, semicolons. A part
        is a mood as :meth:`Mood.parse` reads it, then ``@`` and the second from which it holds;
        without, from the beginning. ``N=`` before it gives it to face ``N`` alone, for whom the
        parts without a number then do not hold.

        Raises:
            ConfigError: which part is wrong, and why.
        """
        plans: dict[int | None, list[tuple[float, Mood]]] = {}
        for part in re.split("[,;]", text):
            whose, mood, start = _parts(part)
            plan = plans.setdefault(whose, [])
            if plan and start <= plan[-1][0]:
                raise ConfigError(
                    f"{part.strip()!r}: begins no later than the mood before it; give a time, "
                    f"such as {mood.name}@{math.floor(plan[-1][0]) + 1}"
                )
            plan.append((start, mood))
        changes = plans.get(face, plans.get(None, []))
        if not changes or changes[0][0] > 0:
            changes.insert(0, (0.0, Mood()))
        return cls(tuple(changes))


def _parts(part: str) -> tuple[int | None, Mood, float]:
    """Which face a part of a plan is for, its mood, and from which second on it holds."""
    whose, equals, rest = part.partition("=")
    if equals and not whose.strip().isdecimal():
        raise ConfigError(f"{part.strip()!r}: no number of a face before =")
    text, at, seconds = (rest if equals else part).partition("@")
    mood = Mood.parse(text)
    if at and not re.fullmatch(r"\d{1,9}(\.\d*)?|\.\d+", seconds.strip()):
        raise ConfigError(f"{part.strip()!r}: give seconds after @, such as {mood.name}@2.5")
    return int(whose) if equals else None, mood, float(seconds) if at else 0.0
