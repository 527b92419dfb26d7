"""Blinks and eyebrows that were put there on purpose are found as they are."""

import numpy as np
import pytest

from stillspeak.evaluation.measures.expression import brow_motion, find_blinks
from stillspeak.face.eyes import EYE_CORNERS, LEFT_BROW, RIGHT_BROW, brow_heights


def test_blinks_are_counted_and_measured() -> None:
    closure = np.full(75, 0.05)
    closure[10:15] = 0.2, 0.6, 0.5, 0.3, 0.16  # five frames
    closure[40:43] = 0.2, 0.3, 0.2  # eyes narrowed, not shut
    closure[72:75] = 0.2, 0.5, 0.6  # cut off by the end
    assert find_blinks(closure) == [(10, 15), (72, 75)]


def test_what_is_no_blink() -> None:
    assert find_blinks(np.full(75, 0.04)) == []
    assert find_blinks(np.full(75, 0.7)) == []  # shut all the time
    assert find_blinks(np.full(3, np.nan)) == []
    assert find_blinks(np.zeros(0)) == []
    closure = np.full(20, 0.05)
    closure[5:9] = 0.5, np.nan, 0.5, 0.5
    assert find_blinks(closure) == [(5, 6), (7, 9)]


def face(raised: float = 0.0, angle: float = 0.0) -> np.ndarray:
    points = np.zeros((478, 2))
    points[EYE_CORNERS[0]], points[EYE_CORNERS[1]] = (24, 43), (72, 43)
    points[list(LEFT_BROW)] = (30, 33 - raised)
    points[list(RIGHT_BROW)] = (66, 33 - raised)
    cos, sin = np.cos(angle), np.sin(angle)
    return points @ np.array([[cos, sin], [-sin, cos]])


def test_brows_are_measured_across_the_line_of_the_eyes() -> None:
    assert brow_heights(face(2)[None]) == pytest.approx(np.array([[12, 12]]))
    assert brow_heights(face(2, 0.4)[None]) == pytest.approx(np.array([[12, 12]]))


def test_brow_motion_by_hand() -> None:
    moving = np.stack([face(0), face(4), face(0), face(4)])
    assert brow_motion(moving) == pytest.approx(2)
    # A head that turns in the picture's plane moves no brow.
    turning = np.stack([face(1, a) for a in (0, 0.1, 0.2)])
    assert brow_motion(turning) == pytest.approx(0, abs=1e-12)
    assert brow_motion(np.stack([face(1)] * 5)) == 0
    moving[1] = np.nan
    assert brow_motion(moving) == pytest.approx(np.std([0, 0, 4]))
    assert np.isnan(brow_motion(np.full((4, 478, 2), np.nan)))
