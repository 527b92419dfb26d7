"""Moods: how they are asked for, what they are in action units, how one becomes another."""

import math

import numpy as np
import pytest

from stillspeak.errors import ConfigError
from stillspeak.motion.frames import UNITS, unit
from stillspeak.motion.mood_track import MoodTrack, looks
from stillspeak.motion.moods import AUTO, LOOKS, MOODS, MOST, Mood, MoodPlan

FPS = 25


def drawn(text: str, frames: int, heard: np.ndarray | None = None) -> np.ndarray:
    return MoodTrack(MoodPlan.parse(text), fps=FPS).draw(frames, heard)


@pytest.mark.parametrize(
    ("text", "name", "strength"),
    [
        ("happy", "happy", 1.0),
        ("happy:0.6", "happy", 0.6),
        (" sad : 2 ", "sad", 2.0),
        ("auto:.5", "auto", 0.5),
        ("neutral:0", "neutral", 0.0),
    ],
)
def test_a_mood_is_a_name_and_a_strength(text, name, strength):
    assert Mood.parse(text) == Mood(name, strength)


KNOWN = ", ".join(repr(one) for one in MOODS) + " or 'auto'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hapy", f"'hapy': name: must be {KNOWN}, not 'hapy'"),
        ("", f"'': name: must be {KNOWN}, not ''"),
        ("happy:3", "'happy:3': strength: must be at most 2, not '3'"),
        ("happy:", "'happy:': strength: must be a number, not ''"),
        ("happy:-1", "'happy:-1': strength: must be at least 0, not '-1'"),
        ("happy:nan", "'happy:nan': strength: must be a finite number, not 'nan'"),
        ("happy,sad", "'sad': begins no later than the mood before it; give a time, such as sad@1"),
        (
            "happy@2.5, sad@1",
            "'sad@1': begins no later than the mood before it; give a time, such as sad@3",
        ),
        ("happy@soon", "'happy@soon': give seconds after @, such as happy@2.5"),
        ("happy@", "'happy@': give seconds after @, such as happy@2.5"),
        ("happy,sadd@2", f"'sadd': name: must be {KNOWN}, not 'sadd'"),
        ("him=sad", "'him=sad': no number of a face before ="),
    ],
)
def test_a_wrong_part_is_named(text, message):
    with pytest.raises(ConfigError) as error:
        MoodPlan.parse(text)
    assert str(error.value) == message


def test_a_plan_gives_each_face_its_moods():
    text = "happy:0.5; sad@2.5, 1=angry@1"
    sad = ((0.0, Mood("happy", 0.5)), (2.5, Mood("sad")))
    assert MoodPlan.parse(text).changes == sad
    assert MoodPlan.parse(text, face=2).changes == sad
    assert MoodPlan.parse(text, face=1).changes == ((0.0, Mood()), (1.0, Mood("angry")))
    assert MoodPlan.parse("3=sad", face=0) == MoodPlan()


def test_looks_are_the_units_of_the_dictionary():
    table = looks()
    numbers = (1, 2, 4, 5, 6, 7, 9, 10, 12, 15, 17, 20, 23, 26)
    shown = {
        mood: {numbers[column] for column in np.flatnonzero(row)}
        for mood, row in zip(MOODS, table, strict=True)
    }
    assert shown == {
        "neutral": set(),
        "happy": {6, 12},
        "sad": {1, 4, 15, 17},
        "angry": {4, 5, 7, 23},
        "surprised": {1, 2, 5, 26},
        "fearful": {1, 2, 4, 5, 20, 26},
        "disgusted": {9, 10, 15, 17},
    }
    assert table.min() >= 0
    assert table.max() <= 1.25


def test_a_mood_comes_within_half_a_second_from_the_pictures_own_face():
    units = drawn("happy:0.5", 2 * FPS)
    corner = units[:, unit("lip_corner_puller")] / (0.5 * LOOKS["happy"]["lip_corner_puller"])
    assert units.dtype == np.float32
    assert corner[0] == 0
    assert corner[12] > 0.88
    assert corner[-1] == pytest.approx(1, abs=1e-4)
    assert np.all(np.diff(corner) > 0)
    others = [unit(name) for name in UNITS if name not in LOOKS["happy"]]
    assert not units[:, others].any()


def test_moods_change_without_a_jump_in_value_or_speed():
    units = drawn("angry:2,surprised:2@1,neutral@1.2,happy:2@1.24,sad:2@2", 4 * FPS).astype(float)
    most = MOST * looks().max()
    speed = np.abs(np.diff(units, axis=0)).max()
    bend = np.abs(np.diff(units, 2, axis=0)).max()
    rate = 8 / FPS
    # A spring at rest that is asked for all at once starts with rate ** 2, and goes rate / e fast.
    assert speed < most * rate / math.e
    assert bend < most * rate**2
    assert units.min() >= 0
    assert units.max() <= most


def test_changes_begin_at_their_frame():
    late, early = drawn("sad@0.4", 2 * FPS), drawn("sad", 2 * FPS)
    assert not late[:11].any()
    assert np.array_equal(late[10:], early[: 2 * FPS - 10])


@pytest.mark.parametrize("portions", [[1] * 60, [7, 0, 13, 40], [59, 1]])
def test_portions_do_not_matter(portions):
    heard = np.random.default_rng(1).random((60, len(MOODS)), np.float32)
    text = "auto:1.5, happy@1, auto@1.6"
    track, made, start = MoodTrack(MoodPlan.parse(text), fps=FPS), [], 0
    for count in portions:
        made.append(track.draw(count, heard[start : start + count]))
        start += count
    assert np.array_equal(np.concatenate(made), drawn(text, 60, heard))


def test_a_mood_set_holds_from_the_next_frame_on():
    track = MoodTrack(MoodPlan.parse("happy, sad@1"), fps=FPS)
    before = track.draw(20)
    track.set(Mood.parse("angry:0.5"))
    after = track.draw(2 * FPS)
    assert np.array_equal(before, drawn("happy", 20))
    step = np.abs(np.diff(np.concatenate((before, after)), axis=0)).max()
    assert step < 0.16
    wanted = 0.5 * looks()[MOODS.index("angry")]
    assert after[-1] == pytest.approx(wanted, abs=1e-3)


def test_what_is_heard_is_shown_if_it_is_asked_for():
    heard = np.zeros((3 * FPS, len(MOODS)), np.float32)
    heard[:, MOODS.index("happy")] = 0.6
    heard[:, MOODS.index("neutral")] = 0.4
    shown = drawn("auto:0.5", len(heard), heard)
    assert shown[-1] == pytest.approx(0.3 * looks()[MOODS.index("happy")], abs=1e-4)
    assert np.array_equal(drawn("sad", len(heard), heard), drawn("sad", len(heard)))
    assert not drawn("auto", len(heard)).any()


def test_a_track_says_whether_it_still_needs_to_hear():
    track = MoodTrack(MoodPlan.parse("auto, sad@0.2, happy@0.4"), fps=FPS)
    assert track.hears
    track.draw(6)
    assert not track.hears
    track.set(Mood(AUTO))
    assert track.hears
