"""The report of a study: that of :mod:`stillspeak.reporting.page`, and its numbers in
``report.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stillspeak.reporting.bootstrap import RESAMPLES
from stillspeak.reporting.page import check_target, write_page
from stillspeak.study.analysis import analyse
from stillspeak.study.kinds import Result, Study
from stillspeak.study.section import Block, ReportBuilder
from stillspeak.study.store import AnswerStore


@dataclass(frozen=True)
class StudyReport:
    """What :func:`write_report` wrote, and the results behind it."""

    page: Path
    markdown: Path
    numbers: Path
    results: Result
    headline: tuple[str, ...]


def write_report(
    folder: str | Path,
    output: str | Path,
    *,
    database: str | None = None,
    overwrite: bool = False,
) -> StudyReport:
    """Analyse a study's answers and write the report.

    Args:
        folder: the study's.
        output: the report's folder.
        database: SQLAlchemy's URL; ``answers.db`` in the study's folder by default.
        overwrite: replace a report that is there.

    Raises:
        StudyError: no study, or no answers.
        ConfigError: study.toml is wrong.
        OutputExistsError, OutputError: the report cannot be written.
        MissingDependencyError: the extra ``study`` is not installed.
    """
    target = Path(output)
    check_target(target, overwrite=overwrite)
    study = Study.load(folder)
    with AnswerStore(study, database, create=False) as store:
        results = analyse(study, store.read())
    report = ReportBuilder(f"{100 * results['level']:g} %")
    page, markdown = write_page(
        target,
        _context(study, results, report),
        report.figures,
        templates=("stillspeak.study", "templates"),
        files={"report.json": json.dumps(results, indent=1, ensure_ascii=False) + "\n"},
    )
    return StudyReport(page, markdown, target / "report.json", results, tuple(report.headline))


def _context(study: Study, results: Result, report: ReportBuilder) -> dict[str, Any]:
    who = results["who"]
    notes = {
        f"{who['simulated']} of {who['begun']} visitors were simulated by stillspeak study "
        "simulate: these numbers say nothing about the videos.": who["simulated"],
        f"The settings were changed while the study ran: {who['other_settings']} visitors "
        "saw others than those in study.toml now.": who["other_settings"],
        f"{who['counted']} visitors count: intervals that draw visitors are too narrow "
        "with fewer than about ten.": who["counted"] < 10,
    }
    first = report.section("Result")
    if results["main"] is not None:
        study.kind.report(study, results, report)
    for line in report.headline or ["No answers that count yet."]:
        first.add("headline", line)
    _visitors(study, results, report)
    _method(study, report)
    lead = (
        f"{study.kind.summary}. {who['counted']} visitors count, of {who['begun']} who began; "
        f"{who['answers']} answers stored, practice and catch trials among them."
    )
    return {
        "title": study.config.texts.title,
        "lead": lead,
        "notes": [note for note, applies in notes.items() if applies],
        "sections": report.sections,
    }


def _visitors(study: Study, results: Result, report: ReportBuilder) -> None:
    who, timing, exposure = results["who"], results["timing"], results["exposure"]
    section = report.section("Who counts")
    counts = {
        "began": "begun",
        "answered at least once": "answered",
        "finished": "finished",
        "left before the end, with answers": "unfinished",
        "deleted their answers (not among those who began)": "deleted",
        "left out for catch trials": "excluded_catch",
        "count in this report": "counted",
    }
    rows = [[label, str(who[key])] for label, key in counts.items()]
    section.table("Visitors", ["who", "visitors"], rows)
    rule = (
        "included: what they saw was drawn by chance."
        if who["incomplete"] == "include"
        else "left out."
    )
    section.add(
        "text",
        f"Catch trials: {who['catch_wrong']} of {who['catch_trials']} were answered wrongly; "
        f"visitors with more than {who['max_wrong_catches']} wrong are left out. Answers of "
        f"visitors who left before the end are {rule} Practice, catch and repeated trials never "
        "count towards the result.",
    )
    if results["everybody"] is not None and results["main"] is not None:
        parts = {"excluded left out": results["main"], "everybody": results["everybody"]}
        section.table(
            "With and without those who failed catch trials",
            ["who", "what", "value", "n", f"{report.level} over visitors"],
            [[who, *row] for who, main in parts.items() for row in study.kind.overview(main)],
        )
    if timing["n"]:
        low, high = timing["quartiles_s"]
        section.add(
            "text",
            f"Response times, from when the videos could be played: median "
            f"{timing['median_s']:.1f} s, half of them between {low:.1f} and {high:.1f} s; "
            f"{timing['mean_plays']:.2f} playbacks a trial (n = {timing['n']}).",
        )
    section.add(
        "text",
        f"Balance: each {study.kind.unit} was answered {exposure['least']} to {exposure['most']} "
        f"times ({exposure['cells']} of them, n = {exposure['n']}, everybody included).",
    )


def _method(study: Study, report: ReportBuilder) -> None:
    trials = study.config.trials
    rows = [
        (
            "Trials",
            f"{trials.count} trials that count for each visitor, {trials.training} for practice, "
            f"{trials.catch} catch trials, {trials.repeats} repeated ones. "
            f"{study.kind.balance(study)} ",
        ),
        (
            "Exact interval and test",
            "Clopper and Pearson (1934) by quantiles of the beta distribution; two-sided binomial "
            "test against one half. Both take answers as independent, which those of one visitor "
            "are not: read the interval over visitors.",
        ),
        (
            "Interval over visitors",
            f"Percentile bootstrap: visitors are drawn with replacement with all their answers, "
            f"{RESAMPLES} times (500 for Bradley-Terry, 1,000 for d′ and c).",
        ),
        *study.kind.method,
    ]
    report.section("Method").blocks.append(Block("definitions", rows=rows))
