"""A mood's action units, frame by frame: how one mood becomes another."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from stillspeak.motion.frames import UNITS, Floats, unit
from stillspeak.motion.moods import AUTO, LOOKS, MOODS, Mood, MoodPlan

SPEED = 8.0
"""How fast a mood comes and goes, 1/s: half of the way after 0.21 s, 90 % after 0.49 s and 98 %
after 0.73 s."""


def looks() -> npt.NDArray[np.float64]:
    """:data:`LOOKS` as a matrix: (len(MOODS), len(UNITS))."""
    table = np.zeros((len(MOODS), len(UNITS)))
    for row, mood in zip(table, MOODS, strict=True):
        for name, value in LOOKS[mood].items():
            row[unit(name)] = value
    return table


class MoodTrack:
    """The action units of a mood, frame by frame; how many are asked for at a time is the same.

    The first frame is neutral, as the reference image is. From there each mood is approached
    without a jump in value or speed, and never overshot: a critically damped spring of rate
    :data:`SPEED` follows what is asked for.
    """

    def __init__(self, plan: MoodPlan, *, fps: float) -> None:
        self._fps = fps
        self._changes = list(plan.changes)
        self._mood = Mood()
        self._frame = 0
        self._decay = math.exp(-SPEED / fps)
        self._place = np.zeros(len(MOODS))
        self._speed = np.zeros(len(MOODS))
        self._looks = looks()

    @property
    def hears(self) -> bool:
        """Whether any mood from now on is the one that is heard."""
        return AUTO in {self._mood.name, *(mood.name for _, mood in self._changes)}

    def set(self, mood: Mood) -> None:
        """Be in this mood from the next frame on, whatever the plan was."""
        self._mood, self._changes = mood, []

    def draw(self, frames: int, heard: npt.NDArray[np.floating] | None = None) -> Floats:
        """The next frames' action units: (T, len(UNITS)) float32, from 0 on.

        Args:
            frames: T.
            heard: (T, len(MOODS)) in [0, 1], how strongly each mood is heard; None: none is.
        """
        rows = np.zeros((frames, len(UNITS)), np.float32)
        for index in range(frames):
            while self._changes and self._changes[0][0] * self._fps <= self._frame + 1e-6:
                self._mood = self._changes.pop(0)[1]
            rows[index] = self._place @ self._looks
            self._follow(self._wanted(None if heard is None else heard[index]))
            self._frame += 1
        return rows

    def _wanted(self, heard: npt.NDArray[np.floating] | None) -> npt.NDArray[np.float64]:
        """What is asked for in this frame: (len(MOODS),)."""
        wanted = np.zeros(len(MOODS))
        if self._mood.name != AUTO:
            wanted[MOODS.index(self._mood.name)] = self._mood.strength
        elif heard is not None:
            wanted[:] = self._mood.strength * np.clip(heard, 0.0, 1.0)
        return wanted

    def _follow(self, wanted: npt.NDArray[np.float64]) -> None:
        """One frame of the spring, solved exactly."""
        time, away = 1 / self._fps, self._place - wanted
        push = self._speed + SPEED * away
        self._place = wanted + self._decay * (away + time * push)
        self._speed = self._decay * (self._speed - SPEED * time * push)
