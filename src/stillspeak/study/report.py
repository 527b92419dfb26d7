"""The report of a study: one page, the same as Markdown, plots, and the numbers as JSON.

The folder of a report::

    index.html    one page that needs nothing else: no script, no request, plots inside
    report.md     the same as Markdown
    report.json   every number
    figures/      the plots of report.md
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillspeak.reporting.numbers import DASH
from stillspeak.reporting.page import Figures, Picture, check_target, write_page
from stillspeak.reporting.plots import SERIES, Plot, colour_of
from stillspeak.study import plots
from stillspeak.study import statistics as st
from stillspeak.study.analysis import Result, analyse, read_answers
from stillspeak.study.config import StudyConfig, load_config
from stillspeak.study.materials import load_materials
from stillspeak.study.store import Store, default_database

_MANY = 40
"""Rows of a plot that still have names."""


@dataclass
class _Block:
    """One piece of a section: heading, headline, text, figure, table or definitions."""

    kind: str
    text: str = ""
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    fold: bool = False
    picture: Picture | None = None


@dataclass
class _Section:
    title: str
    blocks: list[_Block] = field(default_factory=list)

    def add(self, kind: str, text: str) -> None:
        self.blocks.append(_Block(kind, text))

    def table(
        self, text: str, head: Sequence[str], rows: Iterable[Sequence[str]], *, fold: bool = False
    ) -> None:
        self.blocks.append(_Block("table", text, head, list(rows), fold))

    def figure(self, figures: Figures, plot: Plot, alt: str, text: str) -> None:
        self.blocks.append(_Block("figure", text, picture=figures.plot(plot, alt)))


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
    materials = load_materials(folder)
    config = load_config(folder)
    store = Store(database or default_database(folder), materials, create=False)
    try:
        data = read_answers(store)
    finally:
        store.close()
    results = analyse(config, materials, data)
    figures = Figures()
    context, headline = _context(config, results, figures)
    numbers = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    page, markdown = write_page(
        target,
        context,
        figures,
        templates=("stillspeak.study", "templates"),
        files={"report.json": numbers},
    )
    return StudyReport(page, markdown, target / "report.json", results, tuple(headline))


# ------------------------------------------------------------------ words for numbers


def percent(value: float | None) -> str:
    return DASH if value is None else f"{100 * value:.1f} %"


def number(value: float | None, digits: int = 2) -> str:
    if value is None:
        return DASH
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else f"{0:.{digits}f}"


def span(pair: Sequence[float] | None, *, share: bool = True, digits: int = 2) -> str:
    if pair is None:
        return DASH
    low, high = pair
    if share:
        return f"{100 * low:.1f} to {100 * high:.1f} %"
    return f"{number(low, digits)} to {number(high, digits)}"


def p_value(value: float | None) -> str:
    if value is None:
        return DASH
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _of(k: int, n: int) -> str:
    return f"{k} of {n}"


def _level(results: Result) -> str:
    return f"{100 * results['level']:g} %"


# ------------------------------------------------------------------ the report


def _context(
    config: StudyConfig, results: Result, figures: Figures
) -> tuple[dict[str, Any], list[str]]:
    who = results["who"]
    notes: list[str] = []
    if who["simulated"]:
        notes.append(
            f"{who['simulated']} of {who['begun']} visitors were simulated by stillspeak study "
            "simulate: these numbers say nothing about the videos."
        )
    if who["other_settings"]:
        notes.append(
            f"The settings were changed while the study ran: {who['other_settings']} visitors "
            "saw others than those in study.toml now."
        )
    if who["counted"] < 10:
        notes.append(
            f"{who['counted']} visitors count: intervals that draw visitors are too narrow "
            "with fewer than about ten."
        )
    sections: list[_Section] = []
    headline: list[str] = []
    if results["main"] is None:
        first = _Section("Result")
        first.add("headline", "No answers that count yet.")
        sections.append(first)
    else:
        make = {
            "preference": _pairs,
            "turing": _turing,
            "mos": _ratings,
            "intelligibility": _words,
        }[config.kind]
        parts, headline = make(results, figures)
        first = _Section("Result")
        for line in headline:
            first.add("headline", line)
        sections += [first, *parts]
    sections.append(_visitors(config, results))
    sections.append(_methods(config, results))
    lead = (
        f"{_KINDS[config.kind]}. {who['counted']} visitors count, of {who['begun']} who began; "
        f"{who['answers']} answers stored, practice and catch trials among them."
    )
    return {"title": config.texts.title, "lead": lead, "notes": notes, "sections": sections}, (
        headline
    )


_KINDS = {
    "preference": "A preference survey: of two videos side by side, which one",
    "turing": "An online Turing test: real or fake",
    "mos": "Ratings from 1 to 5 (absolute category rating)",
    "intelligibility": "Lip reading of silent clips",
}


def _pairs(results: Result, figures: Figures) -> tuple[list[_Section], list[str]]:
    level = _level(results)
    sections, headline = [], []
    for question in results["main"]["questions"]:
        pairs = question["pairs"]
        for pair in pairs:
            if pair["n"]:
                headline.append(
                    f"{question['id']}: {pair['a']} was preferred to {pair['b']} in "
                    f"{percent(pair['share'])} of {pair['n']} choices by {pair['raters']} "
                    f"visitors ({level} interval {span(pair['clustered'])} over visitors, "
                    f"{span(pair['exact'])} exact binomial; p {_equals(pair['p'])})."
                )
        section = _Section(f"Preference: {question['id']}")
        section.add("text", f"Asked: {question['text']}")
        section.table(
            "Pairs of systems: how often the first was preferred",
            [
                "pair", "share", "n", f"{level} exact", f"{level} over visitors", "p (exact)",
                "p (Holm)", "visitors mostly for first", "for second", "p (sign)",
            ],
            [
                [
                    f"{p['a']} over {p['b']}",
                    percent(p["share"]),
                    _of(p["k"], p["n"]),
                    span(p["exact"]),
                    span(p["clustered"]),
                    p_value(p["p"]),
                    p_value(p["p_holm"]),
                    str(p["raters_for_a"]),
                    str(p["raters_for_b"]),
                    p_value(p["sign_p"]),
                ]
                for p in pairs
            ],
        )  # fmt: skip
        section.figure(
            figures,
            plots.intervals(
                [
                    plots.Row(
                        f"{p['a']} over {p['b']}",
                        p["share"],
                        p["clustered"] or p["exact"],
                        colour=colour_of(i),
                    )
                    for i, p in enumerate(pairs)
                    if p["n"]
                ],
                "share preferred",
                reference=0.5,
                limits=(0, 1),
            ),
            f"Shares preferred by pair of systems, question {question['id']}",
            f"Share of choices for the first system with its {level} interval over visitors; "
            f"dashed: no preference. n = {sum(p['n'] for p in pairs)}.",
        )
        for p in pairs:
            if not p["n"]:
                continue
            name = f"{p['a']} over {p['b']}"
            rows = sorted(p["by_rater"], key=lambda r: r["k"] / r["n"])
            section.figure(
                figures,
                plots.intervals(
                    [plots.Row(r["rater"], r["k"] / r["n"]) for r in rows],
                    f"share preferring {p['a']}",
                    reference=0.5,
                    limits=(-0.03, 1.03),
                    names=len(rows) <= _MANY and len(rows) < 12,
                ),
                f"Each visitor's share, {name}",
                f"{name}, visitor by visitor: n = {len(rows)} visitors, {p['n']} choices.",
            )
            section.table(
                f"{name}: item by item",
                ["item", "share", "n", f"{level} exact"],
                [
                    [i["item"], percent(i["k"] / i["n"]), _of(i["k"], i["n"]), span(i["exact"])]
                    for i in p["items"]
                ],
                fold=True,
            )
        sections.append(section)
        _strengths(question, section, figures, level)
        sections.append(_consistency(question, level))
    return sections, headline


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _strengths(question: Result, section: _Section, figures: Figures, level: str) -> None:
    fit = question["bradley_terry"]
    if fit is None:
        return
    section.add("heading", "Bradley-Terry scale")
    if "missing" in fit:
        section.add("text", f"Not fitted: {fit['missing']}.")
        return
    rows = sorted(fit["systems"], key=lambda r: -r["strength"])
    section.table(
        "Strengths (natural logarithm, adding up to 0)",
        ["system", "strength", f"{level} over visitors", "preferred", "P(beats an average one)"],
        [
            [
                r["system"],
                number(r["strength"]),
                span(r["clustered"], share=False),
                _of(r["wins"], r["n"]),
                percent(_logistic(r["strength"])),
            ]
            for r in rows
        ],
    )
    section.figure(
        figures,
        plots.intervals(
            [plots.Row(r["system"], r["strength"], r["clustered"]) for r in rows],
            "strength",
            reference=0,
        ),
        f"Bradley-Terry strengths, question {question['id']}",
        f"Strengths with {level} intervals over {fit['raters']} visitors; n = {fit['n']} choices.",
    )
    text = (
        f"Fit: deviance {number(fit['deviance'])} on {fit['freedom']} degrees of freedom, "
        f"p {_equals(fit['p']) if fit['p'] is not None else DASH} (small: preferences do not lie "
        "on one scale; the p-value takes answers as independent)."
    )
    if fit["prior"]:
        text += (
            " One group of systems never lost to the rest, so that half a win was added to both "
            "sides of every pair."
        )
    section.add("text", text)


def _logistic(x: float) -> float:
    import math

    return 1 / (1 + math.exp(-x))


def _consistency(question: Result, level: str) -> _Section:
    section = _Section(f"Consistency: {question['id']}")
    repeats, majority, side = question["repeats"], question["majority"], question["first_side"]
    section.table(
        "How steady the answers are",
        ["measure", "share", "n", f"{level} exact", f"{level} over visitors"],
        [
            [
                "same video chosen when a pair came again, sides exchanged",
                percent(repeats["share"]),
                _of(repeats["k"], repeats["n"]),
                span(repeats["exact"]),
                span(repeats["clustered"]),
            ],
            [
                "as most of the other visitors chose",
                percent(majority["share"]),
                _of(majority["k"], majority["n"]),
                DASH,
                DASH,
            ],
            [
                "left or upper video chosen",
                percent(side["share"]),
                _of(side["k"], side["n"]),
                span(side["exact"]),
                span(side["clustered"]),
            ],
        ],
    )
    section.add(
        "text",
        f"Krippendorff’s alpha over items: {number(question['alpha'])} (1: all agree, 0: as by "
        "chance). Where one system is always preferred, agreement is high and alpha is low: it "
        "measures whether visitors agree on which items differ.",
    )
    agreed = {r["rater"]: r for r in majority["by_rater"]}
    again = {r["rater"]: r for r in repeats.get("by_rater", [])}
    section.table(
        "Visitor by visitor",
        ["visitor", "as the majority", "repeats alike"],
        [
            [rater, *(_of(t[rater]["k"], t[rater]["n"]) if rater in t else DASH
                      for t in (agreed, again))]
            for rater in sorted(agreed | again)
        ],
        fold=True,
    )  # fmt: skip
    return section


def _turing(results: Result, figures: Figures) -> tuple[list[_Section], list[str]]:
    level = _level(results)
    main = results["main"]
    accuracy, d = main["accuracy"], main["detection"]
    headline = [
        f"Visitors labelled {percent(accuracy['share'])} of {accuracy['n']} videos correctly "
        f"({accuracy['raters']} visitors; {level} interval {span(accuracy['clustered'])} over "
        f"visitors, {span(accuracy['exact'])} exact binomial; chance is 50 %, "
        f"p {_equals(accuracy['p'])}).",
        f"Sensitivity d′ = {number(d['d_prime'])} "
        f"({span(d['d_prime_clustered'], share=False)}), criterion c = {number(d['criterion'])} "
        f"({span(d['criterion_clustered'], share=False)}), n = {d['n']}.",
    ]
    section = _Section("Real or fake")
    section.table(
        "Correct answers",
        ["videos", "share", "n", f"{level} exact", f"{level} over visitors"],
        [
            [name, percent(r["share"]), _of(r["k"], r["n"]), span(r["exact"]),
             span(r["clustered"])]
            for name, r in (("all", accuracy), ("real ones called real", main["real"]),
                            ("fake ones called fake", main["fake"]))
        ],
    )  # fmt: skip
    section.add(
        "text",
        "In the paper’s test (Vougioukas, Petridis and Pantic 2018), 316 visitors labelled "
        "63 % of 10 videos each correctly, with its own videos.",
    )
    section.add(
        "text",
        f"Hits (fake called fake) {_of(d['hits'], d['fakes'])}, false alarms (real called fake) "
        f"{_of(d['false_alarms'], d['reals'])}. d′ is 0 when real and fake cannot be told apart; "
        "c above 0 means that “real” is said more readily. Both over all answers pooled, with the "
        "log-linear correction; intervals over visitors.",
    )
    histogram = main["histogram"]
    of, n = histogram["of"], histogram["n"]
    section.figure(
        figures,
        plots.histogram(histogram["visitors"], _by_chance(of, n), f"correct, of {of}"),
        "Histogram of visitors’ scores",
        f"Scores of the {n} visitors who labelled all {of} videos"
        + (f" ({histogram['left_out']} others left out)." if histogram["left_out"] else "."),
    )
    section.table(
        "Scores",
        ["correct", "visitors", "by guessing alone"],
        [
            [str(k), str(c), number(e, 1)]
            for k, (c, e) in enumerate(zip(histogram["visitors"], _by_chance(of, n), strict=True))
        ],
        fold=True,
    )
    items = main["items"]
    difficulty = _Section("Item difficulty")
    shown = items if len(items) <= _MANY else items[: _MANY // 2] + items[-_MANY // 2 :]
    difficulty.figure(
        figures,
        plots.intervals(
            [
                plots.Row(
                    f"{i['item']} ({i['truth']})",
                    i["share"],
                    i["exact"],
                    colour=SERIES[0] if i["truth"] == "real" else SERIES[1],
                )
                for i in shown
            ],
            "share labelled correctly",
            reference=0.5,
            limits=(-0.02, 1.02),
        ),
        "Share of correct labels, video by video",
        f"Hardest first, {level} exact intervals; n = {sum(i['n'] for i in items)} answers on "
        f"{len(items)} videos" + ("." if shown is items else f", {len(shown)} of them shown."),
    )
    difficulty.table(
        "Video by video",
        ["item", "truth", "correct", "n", f"{level} exact"],
        [
            [i["item"], i["truth"], percent(i["share"]), _of(i["k"], i["n"]), span(i["exact"])]
            for i in items
        ],
        fold=True,
    )
    return [section, difficulty], headline


def _by_chance(of: int, n: int) -> list[float]:
    from math import comb

    return [n * comb(of, k) / 2**of for k in range(of + 1)]


def _ratings(results: Result, figures: Figures) -> tuple[list[_Section], list[str]]:
    level = _level(results)
    sections, headline = [], []
    for question in results["main"]["questions"]:
        systems = question["systems"]
        headline.append(
            f"{question['id']}: "
            + "; ".join(
                f"{s['system']} {number(s['mean'])} "
                f"({span(s['clustered'], share=False)}, n = {s['n']})"
                for s in systems
            )
            + f". Means with {level} intervals over visitors."
        )
        section = _Section(f"Ratings: {question['id']}")
        section.add("text", f"Asked: {question['text']}")
        section.table(
            "Mean opinion scores",
            ["system", "mean", "n", "visitors", f"{level} over visitors",
             f"{level} of Student’s t", "sd", *map(str, range(1, 6))],
            [
                [
                    s["system"], number(s["mean"]), str(s["n"]), str(s["raters"]),
                    span(s["clustered"], share=False), span(s["t"], share=False),
                    number(s["sd"]), *map(str, s["counts"]),
                ]
                for s in systems
            ],
        )  # fmt: skip
        section.figure(
            figures,
            plots.intervals(
                [plots.Row(s["system"], s["mean"], s["clustered"]) for s in systems if s["n"]],
                "mean rating",
                limits=(0.9, 5.1),
            ),
            f"Mean ratings, question {question['id']}",
            f"Means with {level} intervals over visitors; "
            f"n = {sum(s['n'] for s in systems)} ratings.",
        )
        section.figure(
            figures,
            plots.grades([(s["system"], s["counts"]) for s in systems], question["labels"]),
            f"Grades given, question {question['id']}",
            f"How often each grade was given; n = {sum(s['n'] for s in systems)} ratings.",
        )
        if question["differences"]:
            section.table(
                "Differences between systems, within visitors who rated both",
                ["pair", "difference", "visitors", "ratings", f"{level} over visitors",
                 f"{level} of Student’s t"],
                [
                    [
                        f"{d['a']} minus {d['b']}", number(d["mean"]), str(d["raters"]),
                        str(d["n"]), span(d["clustered"], share=False),
                        span(d["t"], share=False),
                    ]
                    for d in question["differences"]
                ],
            )  # fmt: skip
        again = question["repeats"]
        section.add(
            "text",
            f"Videos that came again got the same grade {_of(again['same'], again['n'])} times, "
            f"{number(again['mean_difference'])} grades apart on average. Krippendorff’s alpha "
            f"(interval): {number(question['alpha'])}.",
        )
        section.table(
            "Item by item",
            ["system", "item", "mean", "n"],
            [[i["system"], i["item"], number(i["mean"]), str(i["n"])] for i in question["items"]],
            fold=True,
        )
        sections.append(section)
    return sections, headline


def _words(results: Result, figures: Figures) -> tuple[list[_Section], list[str]]:
    level = _level(results)
    main = results["main"]
    headline = []
    for s in main["systems"]:
        chance = "" if main["chance"] is None else f"; chance is {percent(main['chance'])}"
        headline.append(
            f"{s['system']}: {percent(s['share'])} of {s['n']} words were read correctly by "
            f"{s['raters']} visitors ({level} interval {span(s['clustered'])} over visitors, "
            f"{span(s['exact'])} exact binomial{chance}); whole sentences "
            f"{_of(s['sentences']['k'], s['sentences']['n'])}."
        )
    section = _Section("Words read")
    chances = {c["place"]: c["chance"] for c in main["place_chances"]}
    rows, points = [], []
    for number_, s in enumerate(main["systems"]):
        rows.append(
            [s["system"], "all", percent(s["share"]), _of(s["k"], s["n"]), span(s["exact"]),
             span(s["clustered"]), percent(main["chance"])]
        )  # fmt: skip
        for p in s["places"]:
            if not p["n"]:
                continue
            rows.append(
                [s["system"], p["place"], percent(p["share"]), _of(p["k"], p["n"]),
                 span(p["exact"]), span(p["clustered"]), percent(chances.get(p["place"]))]
            )  # fmt: skip
            points.append(
                plots.Row(
                    p["place"] if len(main["systems"]) == 1 else f"{s['system']}: {p['place']}",
                    p["share"],
                    p["clustered"] or p["exact"],
                    colour=colour_of(number_),
                )
            )
    section.table(
        "Words read correctly, place by place",
        ["system", "word", "share", "n", f"{level} exact", f"{level} over visitors", "chance"],
        rows,
    )
    if points:
        section.figure(
            figures,
            plots.intervals(points, "share of words read correctly", limits=(0, 1)),
            "Share of words read correctly by place in the sentence",
            f"Shares with {level} intervals over visitors; n = {main['all']['n']} words.",
        )
    confusions = _Section("Confusions")
    for place in main["confusions"]:
        confusions.add("heading", f"{place['place']} (n = {place['n']})")
        words = place["words"]
        if 2 <= len(words) <= 26:
            confusions.figure(
                figures,
                plots.confusion(words, _shares(words, place["table"])),
                f"What was read for what was said: {place['place']}",
                f"Share of answers in each row; n = {place['n']}.",
            )
        confusions.table(
            f"Commonest mistakes: {place['place']}",
            ["said", "read", "times", "of"],
            [[w["said"], w["read"], str(w["k"]), str(w["n"])] for w in place["wrong"]],
            fold=True,
        )
    items = _Section("Item difficulty")
    items.table(
        "Clip by clip, hardest first",
        ["clip", "system", "words correct", "n"],
        [[i["item"], i["system"], percent(i["share"]), _of(i["k"], i["n"])] for i in main["items"]],
        fold=True,
    )
    return [section, confusions, items], headline


def _shares(words: Sequence[str], table: Iterable[Mapping[str, Any]]) -> list[list[float]]:
    place = {word: i for i, word in enumerate(words)}
    counts = [[0.0] * len(words) for _ in words]
    totals = [0.0] * len(words)
    for row in table:
        totals[place[row["said"]]] += row["k"]
        if row["read"] in place:
            counts[place[row["said"]]][place[row["read"]]] += row["k"]
    return [[c / t if t else 0.0 for c in row] for row, t in zip(counts, totals, strict=True)]


def _visitors(config: StudyConfig, results: Result) -> _Section:
    who, timing, exposure = results["who"], results["timing"], results["exposure"]
    section = _Section("Who counts")
    section.table(
        "Visitors",
        ["who", "visitors"],
        [
            ["began", str(who["begun"])],
            ["answered at least once", str(who["answered"])],
            ["finished", str(who["finished"])],
            ["left before the end, with answers", str(who["unfinished"])],
            ["deleted their answers (not among those who began)", str(who["deleted"])],
            ["left out for catch trials", str(who["excluded_catch"])],
            ["count in this report", str(who["counted"])],
        ],
    )
    rule = (
        "Answers of visitors who left before the end are included: what they saw was drawn by "
        "chance."
        if who["incomplete"] == "include"
        else "Answers of visitors who left before the end are left out."
    )
    section.add(
        "text",
        f"Catch trials: {_of(who['catch_wrong'], who['catch_trials'])} were answered wrongly; "
        f"visitors with more than {who['max_wrong_catches']} wrong are left out. {rule} Practice, "
        "catch and repeated trials never count towards the result.",
    )
    _without_exclusions(results, section)
    if timing["n"]:
        low, high = timing["quartiles_s"]
        section.add(
            "text",
            f"Response times, from when the videos could be played: median "
            f"{timing['median_s']:.1f} s, half of them between {low:.1f} and {high:.1f} s; "
            f"{timing['mean_plays']:.2f} playbacks a trial (n = {timing['n']}).",
        )
    what = "pair of videos" if config.kind == "preference" else "video"
    section.add(
        "text",
        f"Balance: each {what} was answered {exposure['least']} to {exposure['most']} times "
        f"({exposure['cells']} of them, n = {exposure['n']}, everybody included).",
    )
    return section


def _without_exclusions(results: Result, section: _Section) -> None:
    """The main numbers with and without those who failed catch trials."""
    everybody = results["everybody"]
    if everybody is None or results["main"] is None:
        return
    rows = []
    for label, part in (("excluded left out", results["main"]), ("everybody", everybody)):
        if results["kind"] == "preference":
            shares = [
                (f"{q['id']}: {p['a']} over {p['b']}", p)
                for q in part["questions"]
                for p in q["pairs"]
            ]
        elif results["kind"] == "turing":
            shares = [("correct", part["accuracy"])]
        elif results["kind"] == "intelligibility":
            shares = [(s["system"], s) for s in part["systems"]]
        else:
            rows += [
                [label, f"{q['id']}: {s['system']}", number(s["mean"]), str(s["n"]),
                 span(s["clustered"], share=False)]
                for q in part["questions"] for s in q["systems"]
            ]  # fmt: skip
            continue
        rows += [
            [label, name, percent(s["share"]), _of(s["k"], s["n"]), span(s["clustered"])]
            for name, s in shares
        ]
    section.table(
        "With and without those who failed catch trials",
        ["who", "what", "value", "n", f"{_level(results)} over visitors"],
        rows,
    )


def _methods(config: StudyConfig, results: Result) -> _Section:
    section = _Section("Method")
    trials = config.trials
    shown = (
        f"{trials.count} trials that count for each visitor, {trials.training} for practice, "
        f"{trials.catch} catch trials, {trials.repeats} repeated ones. "
    )
    if config.kind == "preference":
        shown += (
            "Every pair of systems comes as often as the others, the first of them on the left in "
            "half of its trials; items and sides shown least so far come first, chance decides "
            "the rest. "
        )
    elif config.kind == "turing":
        shown += (
            "Sampling: "
            + (
                "a fair coin decides for every trial whether it is real or fake"
                if trials.sampling == "random"
                else "as many real as fake videos"
            )
            + "; the video is the least shown of its kind, and nobody sees the real and the fake "
            "video of one name. "
        )
    else:
        shown += "Systems take turns; videos shown least so far come first. "
    rows = [
        ("Trials", shown),
        (
            "Exact interval and test",
            "Clopper and Pearson (1934) by quantiles of the beta distribution; two-sided binomial "
            "test against one half. Both take answers as independent, which those of one visitor "
            "are not: read the interval over visitors.",
        ),
        (
            "Interval over visitors",
            f"Percentile bootstrap: visitors are drawn with replacement with all their answers, "
            f"{st.RESAMPLES} times (500 for Bradley-Terry, 1,000 for d′ and c).",
        ),
    ]
    if config.kind == "preference":
        rows += [
            (
                "p (sign)",
                "Binomial test over visitors: those who mostly chose the first system against "
                "those who mostly chose the second.",
            ),
            ("p (Holm)", "Corrected for the number of pairs of systems (Holm 1979)."),
            (
                "Bradley-Terry scale",
                "P(i over j) = 1 / (1 + exp(s_j − s_i)), maximum likelihood by the MM algorithm "
                "of Hunter (2004). With two systems it says what the share says.",
            ),
        ]
    if config.kind == "turing":
        rows.append(
            (
                "d′ and c",
                "d′ = z(H) − z(F), c = −(z(H) + z(F)) / 2 with H = (hits + 0.5) / (fakes + 1) and "
                "F = (false alarms + 0.5) / (reals + 1), after Hautus (1995).",
            )
        )
    if config.kind == "mos":
        rows.append(
            (
                "Mean opinion score",
                "Mean over all ratings of the five grades of ITU-T P.800. Student’s interval is "
                "that of the visitors’ own means.",
            )
        )
    if config.kind == "intelligibility":
        rows.append(
            (
                "Words",
                "Compared place by place where as many were given as said, else aligned with the "
                "fewest changes; case and punctuation do not count; “cannot tell” counts as "
                "wrong.",
            )
        )
    if config.kind in ("preference", "mos"):
        rows.append(("Krippendorff’s alpha", "1 − observed / expected disagreement (2011)."))
    section.blocks.append(_Block("definitions", rows=rows))
    return section
