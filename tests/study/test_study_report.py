"""Known truths in, the same truths out; and what a report says and how it is written."""

import csv
import html.parser
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from stillspeak.data.layouts.grid import grid_text
from stillspeak.errors import ConfigError, OutputExistsError, StudyError
from stillspeak.study.analysis import analyse
from stillspeak.study.config import Question, as_toml
from stillspeak.study.export import COLUMNS, as_csv, as_json
from stillspeak.study.kinds import Study
from stillspeak.study.records import Truth
from stillspeak.study.report import StudyReport, write_report
from stillspeak.study.simulate import simulate
from stillspeak.study.store import AnswerStore
from support.study import GRID_CHOICES, GRID_NAMES, paper_study

pytest.importorskip("sqlalchemy", reason="sqlalchemy is not installed (extra: study)")

WORDS = [tuple((grid_text(name) or "").split()) for name in GRID_NAMES]


def run(study: Study, raters: int, truth: Truth, seed: int) -> int:
    with AnswerStore(study, durable=False) as store:
        return simulate(study, store, raters=raters, truth=truth, seed=seed)


@pytest.fixture(scope="module")
def survey(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyReport]:
    """The paper's survey: 30 raters, 30 pairs, a true preference of 0.8, three of them careless."""
    folder = tmp_path_factory.mktemp("survey") / "study"
    study = paper_study(folder, "preference", count=30, catch=2, repeats=3)
    truth = Truth(share=0.8, careless=0.1)
    assert run(study, 30, truth, seed=1) == 30 * 35
    return folder, write_report(folder, folder.parent / "report")


@pytest.fixture(scope="module")
def turing(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StudyReport]:
    """The paper's Turing test: 316 visitors, 10 videos each, 63 % right."""
    folder = tmp_path_factory.mktemp("turing") / "study"
    study = paper_study(folder, "turing", items=40, count=10)
    run(study, 316, Truth(share=0.63), seed=1)
    return folder, write_report(folder, folder.parent / "report")


def test_a_preference_of_four_fifths_is_found(survey: tuple[Path, StudyReport]) -> None:
    results = survey[1].results
    (pair,) = results["main"]["questions"][0]["pairs"]
    assert (pair["a"], pair["b"]) == ("ours", "theirs")
    assert pair["n"] == 30 * results["who"]["counted"]
    low, high = pair["clustered"]
    assert low < 0.8 < high
    assert 0.02 < high - low < 0.12
    assert pair["p"] < 1e-6
    assert pair["raters_for_a"] >= 25
    assert sum(i["n"] for i in pair["items"]) == sum(r["n"] for r in pair["by_rater"]) == pair["n"]
    side = results["main"]["questions"][0]["first_side"]
    assert side["clustered"][0] < 0.5 < side["clustered"][1]


def test_the_careless_are_left_out_and_counted(survey: tuple[Path, StudyReport]) -> None:
    who = survey[1].results["who"]
    assert (who["begun"], who["answered"], who["finished"]) == (30, 30, 30)
    # Three answer at random; each passes both catch trials with a chance of one quarter.
    assert 1 <= who["excluded_catch"] <= 3
    assert who["counted"] == 30 - who["excluded_catch"]
    assert who["catch_trials"] == 60
    everybody = survey[1].results["everybody"]["questions"][0]["pairs"][0]
    assert everybody["n"] == 900
    assert everybody["share"] < survey[1].results["main"]["questions"][0]["pairs"][0]["share"]
    text = survey[1].markdown.read_text("utf-8")
    assert "With and without those who failed catch trials" in text
    assert f"| left out for catch trials | {who['excluded_catch']} |" in text


def test_consistency_is_that_of_the_raters(survey: tuple[Path, StudyReport]) -> None:
    question = survey[1].results["main"]["questions"][0]
    repeats = question["repeats"]
    assert repeats["n"] == 3 * survey[1].results["who"]["counted"]
    # Independent answers of probability 0.8 are alike in 0.64 + 0.04 of repeats.
    assert 0.55 < repeats["share"] < 0.82
    assert 0.7 < question["majority"]["share"] < 0.9


def test_a_turing_test_of_63_percent_is_found(turing: tuple[Path, StudyReport]) -> None:
    main = turing[1].results["main"]
    accuracy = main["accuracy"]
    assert accuracy["n"] == 3160
    assert accuracy["clustered"][0] < 0.63 < accuracy["clustered"][1]
    assert accuracy["clustered"][1] - accuracy["clustered"][0] < 0.05
    assert accuracy["p"] < 1e-6
    # Right as often for real as for fake: H = 0.63, F = 0.37, d' = 2 z(0.63) = 0.664, c = 0.
    low, high = main["detection"]["d_prime_clustered"]
    assert low < 0.664 < high
    low, high = main["detection"]["criterion_clustered"]
    assert low < 0 < high
    histogram = main["histogram"]
    assert sum(histogram["visitors"]) == histogram["n"] == 316
    assert sum(k * c for k, c in enumerate(histogram["visitors"])) == accuracy["k"]
    assert sum(i["n"] for i in main["items"]) == 3160
    assert len(main["items"]) == 80
    shares = [i["share"] for i in main["items"]]
    assert shares == sorted(shares)
    assert "63 %" in turing[1].markdown.read_text("utf-8")  # beside the paper's


def test_the_documentation_shows_these_very_numbers(
    survey: tuple[Path, StudyReport], turing: tuple[Path, StudyReport]
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "studies.md").read_text("utf-8")
    for line in (*survey[1].headline, *turing[1].headline):
        assert f"> {line}\n" in text
    who = survey[1].results["who"]
    everybody = survey[1].results["everybody"]["questions"][0]["pairs"][0]
    assert f"Catch trials left out {who['excluded_catch']} of the 3 careless ones" in text
    assert f"everybody the share is {100 * everybody['share']:.1f} %" in text


def test_three_systems_on_one_scale(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = paper_study(folder, "preference", systems=("a", "b", "c"), items=20, count=30)
    run(study, 30, Truth(strengths=(0.8, 0.0, -0.8)), seed=3)
    results = write_report(folder, tmp_path / "report").results
    fit = results["main"]["questions"][0]["bradley_terry"]
    assert (fit["n"], fit["raters"], fit["freedom"], fit["prior"]) == (900, 30, 1, 0)
    for row, true in zip(fit["systems"], (0.8, 0.0, -0.8), strict=True):
        assert row["clustered"][0] < true < row["clustered"][1]
        assert row["n"] == 600
    assert fit["p"] > 0.01
    pairs = results["main"]["questions"][0]["pairs"]
    assert [(p["a"], p["b"], p["n"]) for p in pairs] == [
        ("a", "b", 300), ("a", "c", 300), ("b", "c", 300),
    ]  # fmt: skip
    assert all(p["p_holm"] >= p["p"] for p in pairs)


def test_mean_opinions(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = paper_study(folder, "mos", items=20, count=20, catch=1, repeats=2)
    run(study, 40, Truth(means=(3.4, 2.6)), seed=2)
    question = write_report(folder, tmp_path / "report").results["main"]["questions"][0]
    for system, mean in zip(question["systems"], (3.4, 2.6), strict=True):
        assert system["clustered"][0] < mean < system["clustered"][1]
        assert sum(system["counts"]) == system["n"] == 400
    (difference,) = question["differences"]
    assert difference["clustered"][0] < 0.8 < difference["clustered"][1]
    assert question["repeats"]["n"] == 80


def test_words_read(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = paper_study(
        folder, "intelligibility", systems=("real", "ours"), items=16, count=8, catch=1,
        words=WORDS, choices=GRID_CHOICES,
    )  # fmt: skip
    run(study, 40, Truth(share=0.6), seed=1)
    main = write_report(folder, tmp_path / "report").results["main"]
    assert main["all"]["n"] == 40 * 8 * 6
    assert main["all"]["clustered"][0] < 0.6 < main["all"]["clustered"][1]
    assert main["chance"] == pytest.approx((1 / 4 * 4 + 1 / 25 + 1 / 10) / 6)
    assert [s["n"] for s in main["systems"]] == [960, 960]
    for place in main["confusions"]:
        assert place["n"] == 320
        assert sum(row["k"] for row in place["table"]) == 320


def test_typed_words(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = paper_study(
        folder, "intelligibility", systems=("real",), items=8, count=8, words=WORDS, entry="type"
    )
    run(study, 20, Truth(share=0.9), seed=1)
    main = write_report(folder, tmp_path / "report").results["main"]
    assert main["all"]["clustered"][0] < 0.9 < main["all"]["clustered"][1]
    assert main["chance"] is None


def test_numbers_by_hand(tmp_path: Path) -> None:
    """Two raters, two pairs, every number small enough to count on fingers."""
    folder = tmp_path / "s"
    study = paper_study(
        folder, "preference", items=2, count=2, catch=0,
        questions=(Question("natural", "?"), Question("sync", "?")),
    )  # fmt: skip
    video = study.video_of
    store = AnswerStore(study)
    for number, favourite in enumerate(("ours", "theirs")):
        session = store.start(store.code_for(f"{number:032x}"))
        for planned in store.trials(session)[: 2 - number]:  # the second one leaves
            first = video[planned.trial.first].system
            values = {
                "natural": "first" if first == favourite else "second",
                "sync": "first" if first == "ours" else "second",
            }
            last = planned.position == 2
            store.answer(session, planned, values, 1000 * planned.position, last=last)
    data = store.read()
    results = analyse(study, data)
    natural, sync = results["main"]["questions"]
    assert (natural["pairs"][0]["k"], natural["pairs"][0]["n"]) == (2, 3)
    assert (natural["pairs"][0]["raters_for_a"], natural["pairs"][0]["raters_for_b"]) == (1, 1)
    assert natural["pairs"][0]["clustered"] == (0, 1)
    assert (sync["pairs"][0]["k"], sync["pairs"][0]["n"]) == (3, 3)
    assert sync["pairs"][0]["exact"][0] == pytest.approx(0.025 ** (1 / 3))
    assert results["who"]["unfinished"] == 1
    assert results["timing"] == {
        "n": 3, "median_s": 1.0, "quartiles_s": [1.0, 1.5], "mean_plays": 0.0,
    }  # fmt: skip
    assert results["exposure"] == {"cells": 2, "least": 1, "most": 2, "n": 3}
    strict = replace(study.config.analysis, incomplete="exclude")
    study = replace(study, config=replace(study.config, analysis=strict))
    assert analyse(study, data)["main"]["questions"][0]["pairs"][0]["n"] == 2
    rows = list(csv.DictReader(io.StringIO(as_csv(study, data))))
    assert len(rows) == 6
    assert {r["chosen"] for r in rows if r["question"] == "sync"} == {"ours"}
    store.close()


def test_pages_say_what_the_numbers_do(survey: tuple[Path, StudyReport]) -> None:
    _, report = survey
    numbers = json.loads(report.numbers.read_text("utf-8"))
    assert numbers == json.loads(json.dumps(report.results))
    (pair,) = numbers["main"]["questions"][0]["pairs"]
    share = f"{100 * pair['share']:.1f} %"
    page, text = report.page.read_text("utf-8"), report.markdown.read_text("utf-8")
    for written in (page, text):
        assert share in written
        assert f"{pair['k']} of {pair['n']}" in written
        assert "30 of 30 visitors were simulated" in written
        assert "nan" not in written.lower().replace("nantes", "")
    assert share in report.headline[0]
    pictures = re.findall(r"\]\(figures/(.+?)\)", text)
    assert pictures
    for name in pictures:
        assert (report.page.parent / "figures" / name).is_file()
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert "<script" not in page


class _Balance(html.parser.HTMLParser):
    VOID = frozenset({"meta", "link", "br", "img", "input", "path", "use", "rect", "hr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_page_is_whole(
    survey: tuple[Path, StudyReport], turing: tuple[Path, StudyReport]
) -> None:
    for _, report in (survey, turing):
        parser = _Balance()
        parser.feed(report.page.read_text("utf-8"))
        assert parser.wrong == []
        assert parser.open == []


def test_the_same_answers_give_the_same_report(
    survey: tuple[Path, StudyReport], tmp_path: Path
) -> None:
    folder, report = survey
    again = write_report(folder, tmp_path / "again")
    for one, other in zip(
        sorted(report.page.parent.rglob("*")), sorted(again.page.parent.rglob("*")), strict=True
    ):
        if one.is_file():
            assert one.read_bytes() == other.read_bytes(), one.name


def test_names_are_shown_not_run(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = paper_study(folder, "preference", systems=("<img src=x>", "a|b*"), items=5, count=5)
    run(study, 4, Truth(), seed=0)
    report = write_report(folder, tmp_path / "report")
    assert "<img src=x>" not in report.page.read_text("utf-8")
    assert "a\\|b\\*" in report.markdown.read_text("utf-8")


def test_no_answers_and_few(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = paper_study(folder, "turing", items=12, count=5)
    with pytest.raises(StudyError, match="holds no study's answers yet"):
        write_report(folder, tmp_path / "report")
    assert not (tmp_path / "report").exists()
    store = AnswerStore(study)
    session = store.start(store.code_for("0" * 32))
    report = write_report(folder, tmp_path / "report")
    assert report.results["main"] is None
    assert "No answers that count yet." in report.page.read_text("utf-8")
    planned = store.trials(session)[0]
    store.answer(session, planned, {"real": "real"}, 5, last=False)
    with pytest.raises(OutputExistsError):
        write_report(folder, tmp_path / "report")
    report = write_report(folder, tmp_path / "report", overwrite=True)
    assert report.results["main"]["accuracy"]["n"] == 1
    assert report.results["main"]["accuracy"]["clustered"] is None
    assert report.results["main"]["histogram"]["left_out"] == 1
    store.close()


def test_settings_changed_meanwhile_are_noted(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = paper_study(folder, "mos", items=5, count=5)
    run(study, 2, Truth(means=(3, 3)), seed=0)
    added = Question("sync", "Lips?", tuple("abcde"))
    more = replace(study.config, questions=(*study.config.questions, added))
    (folder / "study.toml").write_text(as_toml(more), "utf-8")
    report = write_report(folder, tmp_path / "report")
    assert "2 visitors saw others" in report.page.read_text("utf-8")
    later = report.results["main"]["questions"][1]["systems"]
    assert [s["n"] for s in later] == [0, 0]


def test_exports(survey: tuple[Path, StudyReport]) -> None:
    folder, _ = survey
    study = Study.load(folder)
    store = AnswerStore(study)
    data = store.read()
    store.close()
    rows = list(csv.DictReader(io.StringIO(as_csv(study, data))))
    assert tuple(rows[0]) == COLUMNS
    assert len(rows) == 30 * 35
    main = [r for r in rows if r["role"] == "main"]
    assert all(r["chosen"] in (r["first"], r["second"]) for r in main)
    table = json.loads(as_json(study, data))
    assert [str(r["chosen"]) for r in table["answers"]] == [r["chosen"] for r in rows]
    assert len(table["visitors"]) == 30
    assert table["visitors"][0]["trials"] == 35


def test_spreadsheets_run_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = paper_study(
        folder, "intelligibility", systems=("a",), items=3, count=3, words=WORDS, entry="type"
    )
    store = AnswerStore(study)
    session = store.start(store.code_for("0" * 32))
    evil = '=HYPERLINK("x")'
    for planned in store.trials(session):
        store.answer(session, planned, {"words": evil}, 5, last=False)
    rows = list(csv.DictReader(io.StringIO(as_csv(study, store.read()))))
    assert rows[0]["answer"] == "'" + evil
    store.close()


def test_a_truth_that_cannot_be(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "mos", items=5, count=5)
    for truth, message in (
        (Truth(), "--means: 2 systems need one each"),
        (Truth(means=(3, 6)), "--means"),
        (Truth(strengths=(1,), means=(3, 3)), "--strengths: 1 for 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(study, 1, truth, seed=0)
    with pytest.raises(ConfigError, match="share: must be less than 1"):
        Truth(share=1.5)


def test_who_leaves_is_counted(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    study = paper_study(folder, "preference", items=10, count=10)
    run(study, 20, Truth(leave=0.25), seed=0)
    results = write_report(folder, tmp_path / "report").results
    assert (results["who"]["finished"], results["who"]["unfinished"]) == (15, 5)
    assert results["main"]["questions"][0]["pairs"][0]["n"] == 15 * 10 + 5 * 5
