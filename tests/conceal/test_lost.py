"""Lost frames as text, files and pictures say them."""

import math

import numpy as np
import pytest

from stillspeak.conceal.lost_frames import (
    Interval,
    PictureCheck,
    lost_frames,
    lost_from,
    parse_lost,
    read_lost,
)
from stillspeak.errors import InputError
from support.animate import portrait


@pytest.mark.parametrize(
    ("text", "intervals"),
    [
        ("1.0-1.4,2.2-2.6", [Interval(1.0, 1.4, False), Interval(2.2, 2.6, False)]),
        ("25-34", [Interval(25, 34, True)]),
        ("60, 3", [Interval(3, 3, True), Interval(60, 60, True)]),
        ("1s-2s; .5-0.75", [Interval(0.5, 0.75, False), Interval(1, 2, False)]),
        ("5f-6f", [Interval(5, 6, True)]),
        ("1-2s", [Interval(1, 2, False)]),
        ("70-", [Interval(70, math.inf, True)]),
        ("2.5-", [Interval(2.5, math.inf, False)]),
        ("7:9 # then all is well", [Interval(7, 9, True)]),
    ],
)
def test_text(text, intervals):
    assert parse_lost(text) == tuple(intervals)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no interval"),
        ("1.0", "one moment"),
        ("a-b", "is not an interval"),
        ("-3", "is not an interval"),
        ("1e3-1e4", "is not an interval"),
        ("9-3", "ends before it begins"),
        ("1.0-1.0", "ends before it begins"),
        ("1s-20f", "mixes"),
        ("1.5f-3f", "part of a frame"),
    ],
)
def test_text_that_is_no_interval(text, said):
    with pytest.raises(InputError, match=said) as caught:
        parse_lost(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "intervals"),
    [
        ("a.txt", "1.0-1.4\n# nothing\n25-34\n", [(1.0, 1.4, False), (25, 34, True)]),
        ("a.csv", "start,end\n1.0,1.4\n3,4\n", [(1.0, 1.4, False), (3.0, 4.0, False)]),
        ("a.csv", "First, Last\n25,34\n", [(25, 34, True)]),
        ("a.csv", "frame,why\n7,late\n9,late\n", [(7, 7, True), (9, 9, True)]),
        ("a.json", "[[1.0, 1.4], [25, 34]]", [(1.0, 1.4, False), (25, 34, True)]),
        ("a.json", "[7, 9]", [(7, 7, True), (9, 9, True)]),
        ("a.json", '{"seconds": [[1, 2]]}', [(1, 2, False)]),
    ],
)
def test_files(tmp_path, name, content, intervals):
    (tmp_path / name).write_text(content)
    assert read_lost(tmp_path / name) == tuple(Interval(*one) for one in intervals)
    assert lost_from(str(tmp_path / name)) == read_lost(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.csv", "from,to\n1,2\n", "needs the columns"),
        ("a.csv", "start,end\n1.0,soon\n", "line 2: start and end must be numbers"),
        ("a.csv", "start,end\n1.0\n", "line 2"),
        ("a.csv", "start,end\nnan,2\n", "not an interval of a video"),
        ("a.json", "{", "not JSON"),
        ("a.json", "[" * 100_000, "not"),
        ("a.json", '"all"', "not a list of intervals"),
        ("a.json", "[[1, 2, 3]]", "not a pair of numbers"),
        ("a.json", "[[true, false]]", "not a pair of numbers"),
        ("a.txt", "\n\n", "names no interval"),
        ("a.txt", "1.0-2.0\nx\n", "line 2"),
        ("a.doc", "1.0-2.0", "not a list of lost intervals"),
    ],
)
def test_files_that_are_none(tmp_path, name, content, said):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=said) as caught:
        read_lost(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        lost_from(str(tmp_path / "a.csv"))
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(InputError, match="a folder"):
        read_lost(tmp_path / "b.txt")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(InputError, match="cannot be read"):
        read_lost(tmp_path / "c.txt")


def test_seconds_take_the_frames_whose_middle_they_hold():
    lost = lost_frames(parse_lost("1.0-1.4"), 75, 25)
    assert np.flatnonzero(lost).tolist() == list(range(25, 35))
    assert np.flatnonzero(lost_frames(parse_lost("70-"), 75, 25)).tolist() == [70, 71, 72, 73, 74]


def test_frozen_and_black_pictures_are_seen():
    random = np.random.default_rng(0)

    def grainy() -> np.ndarray:
        return np.clip(portrait() + random.normal(0, 2, portrait().shape), 0, 255).astype(np.uint8)

    first, second, third = grainy(), grainy(), grainy()
    black = np.full_like(first, 16)
    frames = [first, second, second, second, black, black, third, third]
    check = PictureCheck()
    seen = [check.lost(frame) for frame in frames]
    assert seen == [False, False, True, True, True, True, False, True]


def test_a_small_change_in_one_place_is_no_repetition():
    check = PictureCheck()
    moved = portrait().copy()
    moved[100:116, 100:116] = 255 - moved[100:116, 100:116]
    assert [check.lost(portrait()), check.lost(moved)] == [False, False]
