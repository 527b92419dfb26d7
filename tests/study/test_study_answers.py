"""Which answers are taken, which are right, and how read words meet said ones."""

from pathlib import Path

import pytest

from stillspeak.study.answers import matched
from stillspeak.study.config import Question
from stillspeak.study.kinds import find_kind
from stillspeak.study.rate_limit import Rate
from stillspeak.study.records import FIRST, SECOND, Trial
from stillspeak.study.texts import render
from support.study import GRID_CHOICES, paper_study

WORDS = [("bin", "blue", "at", "f", "two", "now")]


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("preference", [FIRST, SECOND], ["third", "", None, 1, True, [FIRST]]),
        ("turing", ["real", "fake"], ["Real", None, 0]),
        ("mos", [1, 5], [0, 6, 2.5, "3", True, None]),
    ],
)
def test_answers_that_can_be_given(
    tmp_path: Path, kind: str, good: list[object], bad: list[object]
) -> None:
    study = paper_study(tmp_path / "s", kind, items=5, count=5)
    name = study.config.questions[0].id
    for value in good:
        assert study.checked({name: value}) == {name: value}
    for value in bad:
        with pytest.raises(ValueError, match="possible"):
            study.checked({name: value})
    for given in (None, [], {}, {name: good[0], "more": 1}, {"other": good[0]}):
        with pytest.raises(ValueError, match="every question"):
            study.checked(given)


def test_every_question_is_asked(tmp_path: Path) -> None:
    questions = (Question("natural", "a"), Question("sync", "b"))
    study = paper_study(tmp_path / "s", "preference", items=5, count=5, questions=questions)
    both = {"natural": FIRST, "sync": SECOND}
    assert study.checked(both) == both
    with pytest.raises(ValueError, match="every question"):
        study.checked({"natural": FIRST})


def test_words_from_lists_and_typed(tmp_path: Path) -> None:
    study = paper_study(
        tmp_path / "pick", "intelligibility", items=3, count=3, words=WORDS, choices=GRID_CHOICES
    )
    picked = ["bin", "", "at", "f", "two", "now"]  # one could not be told
    assert study.checked({"words": picked}) == {"words": picked}
    for bad in (picked[:5], [*picked, "now"], ["bon", *picked[1:]], "bin blue", [1] * 6):
        with pytest.raises(ValueError, match=r"possible|list"):
            study.checked({"words": bad})
    study = paper_study(
        tmp_path / "type", "intelligibility", items=3, count=3, words=WORDS, entry="type"
    )
    assert study.checked({"words": " bin blue "}) == {"words": "bin blue"}
    for bad in ("x" * 301, "a\0b", ["bin"], 3):
        with pytest.raises(ValueError, match="possible"):
            study.checked({"words": bad})


def test_words_met() -> None:
    said = ["bin", "blue", "at", "f", "two", "now"]
    assert matched(said, ["bin", "red", "at", "f", "two", "now"])[1] == ("blue", "red")
    # One left out: the rest still meets its own.
    pairs = matched(said, ["bin", "at", "f", "two", "now"])
    assert pairs == [("bin", "bin"), ("blue", ""), *((w, w) for w in said[2:])]
    # One too many is dropped.
    assert matched(said, ["please", *said]) == [(w, w) for w in said]
    assert matched(said, []) == [(w, "") for w in said]
    assert matched(["a"], ["b", "a"]) == [("a", "a")]


@pytest.mark.parametrize(
    ("kind", "expected", "good", "bad"),
    [
        ("preference", SECOND, [SECOND], [FIRST]),
        ("mos", "2", [1, 2], [3]),
        (
            "intelligibility",
            "bin blue at f two now",
            [["bin", "blue", "at", "f", "two", "soon"], "Bin blue at F 2 now"],
            [["bin", "", "at", "f", "two", "soon"]],
        ),
    ],
)
def test_catch_trials_passed(
    kind: str, expected: str, good: list[object], bad: list[object]
) -> None:
    trial = Trial("catch", "x", "y", expected=expected)
    assert all(find_kind(kind).passed(trial, value) for value in good)
    assert not any(find_kind(kind).passed(trial, value) for value in bad)


def test_feedback(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "t", "turing", items=5, count=5)
    trial = Trial("training", "x", expected="fake")
    assert study.kind.feedback(study, trial, "fake") == "Right: this one is “Fake”."
    assert study.kind.feedback(study, trial, "real").startswith("Not quite")
    study = paper_study(tmp_path / "p", "preference", items=5, count=5)
    assert study.kind.feedback(study, Trial("training", "x", "y"), FIRST) == ""


def test_rates_let_pass_what_they_say() -> None:
    now = 0.0
    rate = Rate(3, 60, clock=lambda: now)
    assert [rate.allow("a") for _ in range(4)] == [True, True, True, False]
    assert rate.allow("b")
    now = 75.0  # three quarters of the window before still count: 2.25
    assert rate.allow("a")
    assert not rate.allow("a")
    now = 500.0
    assert [rate.allow("a") for _ in range(4)] == [True, True, True, False]
    unlimited = Rate(0, 60)
    assert all(unlimited.allow("a") for _ in range(1000))
    assert not any(key == b"a" for key in rate._counts)  # addresses are not kept as they are


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("One\n\n**two** *three*", "<p>One</p>\n<p><strong>two</strong> <em>three</em></p>\n"),
        ("- a\n- b", "<ul>\n<li>a</li>\n<li>b</li>\n</ul>\n"),
        ("<script>alert(1)</script>", "<p>&lt;script&gt;alert(1)&lt;/script&gt;</p>\n"),
        ("[x](https://a.example/?b=1&c)", '<p><a href="https://a.example/?b=1&amp;c">x</a></p>\n'),
        ("[x](javascript:alert(1))", "<p>[x](javascript:alert(1))</p>\n"),
        ("![x](https://a.example/x.png)", "!<a"),
        ("# Not a heading", "<p># Not a heading</p>\n"),
        ("&lt;b&gt;", "<p>&lt;b&gt;</p>\n"),
    ],
)
def test_limited_markdown(text: str, html: str) -> None:
    found = render(text)
    assert html in found
    assert "<img" not in found
    assert "<script" not in found
