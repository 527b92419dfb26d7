"""Closures of the lips are found where a hand would mark them."""

import numpy as np
import pytest

from stillspeak.data.layouts.grid import GRID_WORDS
from stillspeak.evaluation.measures.closures import (
    Levels,
    at_times,
    bilabial_times,
    closing_levels,
    compare_closures,
    real_closures,
)

LEVELS = Levels(closed=0.01, open=0.02)
SHUT, HALF, WIDE = 0.0, 0.015, 0.05


def curve(marks: str) -> np.ndarray:
    """``_`` closed, ``-`` neither, ``^`` open, ``?`` no face."""
    return np.array([{"_": SHUT, "-": HALF, "^": WIDE, "?": np.nan}[mark] for mark in marks])


def speech(marks: str, pauses: str = "") -> np.ndarray:
    """Which frames are silent: ``.`` in the second text."""
    return np.array([mark == "." for mark in pauses.ljust(len(marks))])


def test_levels_are_between_the_closed_and_the_open_mouth() -> None:
    # Quantiles of 0, 0.001, ..., 0.1: 0.002 and 0.095.
    levels = closing_levels(np.linspace(0, 0.1, 101))
    assert levels == pytest.approx((0.002 + 0.15 * 0.093, 0.002 + 0.3 * 0.093))
    # A mouth that opens little: five thousandths at least.
    levels = closing_levels(np.linspace(0, 0.02, 101))
    assert levels == pytest.approx((0.0004 + 0.005, 0.0004 + 0.3 * 0.0186))
    assert closing_levels(np.array([np.nan, *np.linspace(0, 0.1, 101)])) == pytest.approx(
        closing_levels(np.linspace(0, 0.1, 101))
    )


def test_a_mouth_that_never_closes_or_never_moves_has_no_levels() -> None:
    assert closing_levels(np.linspace(0.03, 0.1, 50)) is None
    assert closing_levels(np.linspace(0, 0.015, 50)) is None
    assert closing_levels(np.full(9, np.nan)) is None
    assert closing_levels(np.zeros(0)) is None


def test_words_close_the_lips_where_b_p_and_m_are_spoken() -> None:
    words = {word for place in GRID_WORDS for word in place.values()}
    begins = {word for word in words if bilabial_times([(1.0, 2.0, word)]) == [1.0]}
    ends = {word for word in words if bilabial_times([(1.0, 2.0, word)]) == [2.0]}
    assert begins == {"bin", "blue", "by", "b", "p", "place", "please"}
    assert ends == {"m"}
    assert all(bilabial_times([(1.0, 2.0, w)]) == [] for w in words - begins - ends)


@pytest.mark.parametrize(
    ("word", "times"),
    [
        ("map", [1, 2]),
        ("Time", [2]),
        ("me", [1]),
        ("phone", []),
        ("psalm", [2]),
        ("stop", [2]),
        ("sp", []),
        ("sil", []),
        ("", []),
    ],
)
def test_other_words(word: str, times: list[float]) -> None:
    assert bilabial_times([(1.0, 2.0, word)]) == times


def test_a_closure_is_short_and_lies_between_open_frames() -> None:
    found = real_closures(curve("^^__^^-_-^^"), LEVELS, speech("^" * 11))
    assert found == [(2, 4), (7, 8)]
    # Nine frames are a pause; the clip's edges and a mouth half open are no speech.
    for marks in ("^_________^", "__^^^", "^^^__", "^__-------^", "--_--"):
        assert real_closures(curve(marks), LEVELS, speech(marks)) == [], marks
    assert real_closures(curve("^________^"), LEVELS, speech("^" * 10)) == [(1, 9)]
    # Where no face was found nobody knows.
    assert real_closures(curve("^?__^"), LEVELS, speech("^" * 5)) == [(2, 4)]
    assert real_closures(curve("^^_?"), LEVELS, speech("^" * 4)) == []


def test_a_closure_in_silence_is_none() -> None:
    marks = "^^^__^^^"
    assert real_closures(curve(marks), LEVELS, speech(marks, " ......")) == []
    # The sound of a b stops, and goes on.
    assert real_closures(curve(marks), LEVELS, speech(marks, "  ....")) == [(3, 5)]


def test_closures_belong_to_a_word_within_three_frames() -> None:
    closures = [(2, 4), (20, 22)]
    assert at_times(closures, [0.24], 25) == [(2, 4)]  # frame 6, the last is 3
    assert at_times(closures, [0.26], 25) == []
    assert at_times(closures, [0.68], 25) == [(20, 22)]  # frame 17
    assert at_times([(3, 5)], [0.0], 25) == [(3, 5)]


def test_found_missed_and_chance_by_hand() -> None:
    made = "^^^^_^^^^^^^^^^^^^^^^^^^^^^^_^"
    real = "^^^^^_^^^^^^^^^_^^^^^^^^^^^^^^"
    closures = [(5, 6), (15, 16)]
    result = compare_closures(curve(made), curve(real), closures, LEVELS, speech(made))
    # The closed frame 4 is near 5; around 15 the mouth is open. Stretches of five frames that
    # have none of 3 to 7 and 13 to 17 begin at 8 and from 18 to 25; those from 24 on hold frame 28.
    assert (result.real, result.found) == (2, 1)
    assert result.chance == pytest.approx(2 / 9)


def test_a_mouth_that_stays_shut_finds_all_by_chance() -> None:
    shut, real = curve("_" * 30), curve("^" * 10 + "__" + "^" * 18)
    assert compare_closures(shut, real, [(10, 12)], LEVELS, speech("_" * 30)) == (1, 1, 1.0)


def test_chance_looks_at_speech_alone() -> None:
    real = "^^^_^^^^^^_________^^^^^^^"
    made = "^^^^^^^^^^_________^^^^^^_"
    sound = speech(real, "                   ...... ")
    # Stretches of five from 6 on: a pause from 10 to 18, then silence, which the last one ends.
    result = compare_closures(curve(made), curve(real), [(3, 4)], LEVELS, sound)
    assert result == (1, 0, 1 / 1)
    sound = speech(real, "                   .......")
    assert np.isnan(compare_closures(curve(made), curve(real), [(3, 4)], LEVELS, sound).chance)
    assert np.isnan(compare_closures(curve(made), curve(real), [], LEVELS, speech(real)).chance)
