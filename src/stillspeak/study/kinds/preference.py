"""Preference: of two videos side by side, which one?"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from stillspeak.reporting.numbers import DASH, fixed
from stillspeak.reporting.plots import colour_of
from stillspeak.study import plots
from stillspeak.study import statistics as st
from stillspeak.study.answers import Choice
from stillspeak.study.config import Question
from stillspeak.study.kinds import PAPER_VIDEOS, Rater, Result, Study, StudyKind
from stillspeak.study.materials import Materials, Video
from stillspeak.study.records import FIRST, SECOND, Answer, Trial, Truth
from stillspeak.study.section import (
    ALPHA,
    ReportBuilder,
    Section,
    number_span,
    of,
    p_equals,
    p_value,
    percent,
    share_head,
    share_overview,
    share_row,
    span,
)
from stillspeak.study.trials import Cell, Shown, take_turns

Chosen = tuple[str, str, str, str]
"""Rater, the preferred system, the other one, the item."""


class Preference(StudyKind):
    name = "preference"
    summary = "A preference survey: of two videos side by side, which one"
    title = "Which video looks more natural?"
    intro = (
        "You will see pairs of short videos of people who speak. Both say the same. Choose the "
        "one that looks **more natural**; there is no right or wrong answer."
    )
    questions = {  # noqa: RUF012
        "natural": "Which of the two videos looks more natural?",
        "sync": "In which of the two do the lips fit the sound better?",
        "realism": "In which of the two does the person look more real?",
    }
    labels = ("Video 1", "Video 2")
    folders = (2, 12, "two folders of videos or more")
    paired = True
    unit = "pair of videos"
    method = (
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
        ALPHA,
    )

    def usual_count(self, systems: int) -> int:
        return PAPER_VIDEOS * systems // 2

    def trials_per_item(self, systems: int) -> int:
        return systems * (systems - 1) // 2

    def consistent(self, materials: Materials) -> bool:
        shown = Counter(video.item for video in materials.videos if video.role != "catch")
        bad = {video.item for video in materials.videos if video.role == "catch"}
        return bad <= set(shown) and all(count > 1 for count in shown.values())

    def cells(self, materials: Materials) -> list[Cell]:
        return [cell for cells in _by_pair(materials).values() for cell in cells]

    def main_trials(self, study: Study, shown: Shown, chance: random.Random) -> list[Trial]:
        """Pairs of systems as equal in number as can be, items shown least, sides by halves."""
        cells = _by_pair(study.materials)
        total = {
            cell: shown.get(cell, 0) + shown.get(cell[::-1], 0)
            for group in cells.values()
            for cell in group
        }
        picked = defaultdict(list)
        count = study.config.trials.count
        turns = take_turns(study.materials, cells, count, total, chance, items_first=False)
        for pair, cell in turns:
            picked[pair].append(cell)
        return _sides(picked.values(), shown, chance)

    def training_trial(self, number: int, videos: Sequence[Video]) -> Trial:
        return Trial("training", videos[0].id, videos[1].id)

    def catch_trial(self, study: Study, video: Video, chance: random.Random) -> Trial:
        everything = study.materials.of("main") | study.materials.of("training")
        good = chance.choice(list(everything[video.item].values()))
        if chance.random() < 0.5:
            return Trial("catch", video.id, good.id, expected=SECOND)
        return Trial("catch", good.id, video.id, expected=FIRST)

    def form(self, study: Study, question: Question) -> Choice:
        return Choice((FIRST, SECOND), question.labels)

    def captions(self, study: Study) -> Sequence[str]:
        return study.config.questions[0].labels

    def export(self, study: Study, trial: Trial, value: Any) -> Result:
        return {"chosen": study.video_of[_winner(trial, value)].system}

    def untruth(self, study: Study, truth: Truth) -> str:
        systems = len(study.materials.systems)
        lacking = systems > 2 and not truth.strengths
        return f"--strengths: {systems} systems need one each" if lacking else ""

    def simulate(self, rater: Rater, trial: Trial) -> str:
        if rater.careless:
            return rater.chance.choice((FIRST, SECOND))
        if trial.expected:
            return trial.expected
        systems = rater.study.materials.systems
        first, second = (systems.index(rater.study.video_of[v].system) for v in trial.videos)
        if strengths := rater.truth.strengths:
            p = _logistic(strengths[first] - strengths[second])
        else:
            p = rater.share if first == 0 else 1 - rater.share
        return FIRST if rater.chance.random() < p else SECOND

    def analyse(self, study: Study, answers: Sequence[Answer]) -> Result:
        questions = []
        level = study.config.analysis.level
        main = [a for a in answers if a.trial.role == "main"]
        raters = list(dict.fromkeys(a.session for a in main))  # by arrival: the same each time
        for question in study.config.questions:
            asked = [a for a in main if question.id in a.values]
            rows = [_chosen(study, a, question.id) for a in asked]
            pairs = [
                _pair(a, b, [r for r in rows if {r[1], r[2]} == {a, b}], raters, level)
                for a, b in combinations(study.materials.systems, 2)
            ]
            for pair, p in zip(pairs, st.holm([pair["p"] for pair in pairs]), strict=True):
                pair["p_holm"] = p
            votes = [(r, (item, frozenset((w, ll))), w) for r, w, ll, item in rows]
            first = ((a.session, a.values[question.id] == FIRST) for a in asked)
            questions.append(
                {
                    "id": question.id,
                    "text": question.text,
                    "pairs": pairs,
                    "first_side": st.share(st.tally(first, raters).values(), level),
                    "alpha": st.krippendorff_alpha(vote[1:] for vote in votes),
                    "majority": _agreement(votes),
                    "repeats": _repeated(answers, question.id, level),
                    "bradley_terry": _strengths(study.materials.systems, rows, raters, level),
                }
            )
        return {"questions": questions}

    def report(self, study: Study, results: Result, report: ReportBuilder) -> None:
        level = report.level
        for question in results["main"]["questions"]:
            pairs = [pair for pair in question["pairs"] if pair["n"]]
            report.headline += [
                f"{question['id']}: {pair['a']} was preferred to {pair['b']} in "
                f"{percent(pair['share'])} of {pair['n']} choices by {pair['raters']} "
                f"visitors ({level} interval {span(pair['clustered'])} over visitors, "
                f"{span(pair['exact'])} exact binomial; p {p_equals(pair['p'])})."
                for pair in pairs
            ]
            section = report.section(f"Preference: {question['id']}")
            section.add("text", f"Asked: {question['text']}")
            _pairs_section(section, question, level)
            for pair in pairs:
                _one_pair(section, pair, level)
            if question["bradley_terry"] is not None:
                _scale(section, question, level)
            _consistency(report.section(f"Consistency: {question['id']}"), question, level)

    def overview(self, main: Result) -> list[tuple[str, ...]]:
        return [
            share_overview(f"{q['id']}: {_over(p)}", p)
            for q in main["questions"]
            for p in q["pairs"]
        ]

    def balance(self, study: Study) -> str:
        return (
            "Every pair of systems comes as often as the others, the first of them on the left in "
            "half of its trials; items and sides shown least so far come first, chance decides "
            "the rest."
        )


def _by_pair(materials: Materials) -> dict[tuple[str, str], list[Cell]]:
    """The pairs of videos for each pair of systems."""
    cells = defaultdict(list)
    for videos in materials.of("main").values():
        for a, b in combinations([s for s in materials.systems if s in videos], 2):
            cells[a, b].append((videos[a].id, videos[b].id))
    return cells


def _sides(picked: Any, shown: Shown, chance: random.Random) -> list[Trial]:
    """The first system of a pair stands on the left in half of its trials: where it did least."""
    trials: list[Trial] = []
    odd = 0
    for cells in picked:
        lean = {cell: shown.get(cell, 0) - shown.get(cell[::-1], 0) for cell in cells}
        chance.shuffle(cells)
        cells.sort(key=lambda cell: lean[cell])
        half = len(cells) // 2
        if len(cells) % 2:
            middle = lean[cells[half]]
            more = odd < 0 or (odd == 0 and (middle < 0 or (middle == 0 and chance.random() < 0.5)))
            half += more
            odd += 1 if more else -1
        trials += [Trial("main", *cell) for cell in cells[:half]]
        trials += [Trial("main", cell[1], cell[0]) for cell in cells[half:]]
    return trials


def _winner(trial: Trial, value: str) -> str:
    return trial.first if value == FIRST else trial.second


def _chosen(study: Study, answer: Answer, question: str) -> Chosen:
    first, second = (study.video_of[v] for v in answer.trial.videos)
    winner, loser = (first, second) if answer.values[question] == FIRST else (second, first)
    return answer.session, winner.system, loser.system, first.item


def _pair(a: str, b: str, met: Sequence[Chosen], raters: Sequence[str], level: float) -> Result:
    """How often the first of two systems was preferred."""
    by_rater = st.tally(((r[0], r[1] == a) for r in met), raters)
    items = st.tally((r[3], r[1] == a) for r in met)
    ahead = sum(1 for k, n in by_rater.values() if 2 * k > n)
    behind = sum(1 for k, n in by_rater.values() if 2 * k < n)
    return {
        "a": a,
        "b": b,
        **st.share(by_rater.values(), level),
        "raters_for_a": ahead,
        "raters_for_b": behind,
        "sign_p": st.binomial_test(ahead, ahead + behind),
        "by_rater": st.counted("rater", by_rater),
        "items": [
            item | {"exact": st.clopper_pearson(item["k"], item["n"], level)}
            for item in st.counted("item", dict(sorted(items.items())))
        ],
    }


def _agreement(votes: Sequence[tuple[str, Any, str]]) -> Result:
    by_rater = st.majority_agreement(votes)
    agreed = sum(k for k, _ in by_rater.values())
    judged = sum(n for _, n in by_rater.values())
    return {
        "k": agreed,
        "n": judged,
        "share": agreed / judged if judged else None,
        "by_rater": st.counted("rater", dict(sorted(by_rater.items()))),
    }


def _repeated(answers: Sequence[Answer], question: str, level: float) -> Result:
    """Repeated pairs that were answered for the same video both times."""
    asked = [
        (a.trial.role, (a.session, frozenset(a.trial.videos)), _winner(a.trial, a.values[question]))
        for a in answers
        if question in a.values
    ]
    first = {key: winner for role, key, winner in asked if role == "main"}
    by_rater = st.tally(
        (key[0], winner == first[key])
        for role, key, winner in asked
        if role == "repeat" and key in first
    )
    listed = st.counted("rater", dict(sorted(by_rater.items())))
    return st.share(by_rater.values(), level) | {"by_rater": listed}


def _strengths(
    systems: Sequence[str], rows: Sequence[Chosen], raters: Sequence[str], level: float
) -> Result | None:
    """Bradley-Terry for three systems or more; for two it says what the share says."""
    if len(systems) < 3:
        return None
    place = {system: i for i, system in enumerate(systems)}
    tables = {rater: np.zeros((len(systems), len(systems))) for rater in raters}
    for rater, winner, loser, _ in rows:
        tables[rater][place[winner], place[loser]] += 1
    total = np.sum(list(tables.values()), axis=0)
    try:
        fit = st.bradley_terry(total)
    except ValueError as error:
        return {"missing": str(error)}
    intervals = st.bootstrap(list(tables.values()), _drawn_strengths, level=level, resamples=500)
    return {
        "systems": [
            {
                "system": system,
                "strength": fit.strengths[i],
                "clustered": intervals[i] if intervals else None,
                "wins": int(total[i].sum()),
                "n": int(total[i].sum() + total[:, i].sum()),
            }
            for i, system in enumerate(systems)
        ],
        "prior": fit.prior,
        "deviance": fit.deviance,
        "freedom": fit.freedom,
        "p": fit.p if fit.freedom > 0 else None,
        "raters": len(raters),
        "n": len(rows),
    }


def _drawn_strengths(wins: st.Floats) -> Sequence[float]:
    """NaN where drawn visitors leave a system out of all comparisons."""
    try:
        return st.bradley_terry(wins).strengths
    except ValueError:
        return [math.nan] * len(wins)


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _over(pair: Result) -> str:
    return f"{pair['a']} over {pair['b']}"


def _pairs_section(section: Section, question: Result, level: str) -> None:
    pairs = question["pairs"]
    section.table(
        "Pairs of systems: how often the first was preferred",
        ["pair", *share_head(level), "p (exact)", "p (Holm)", "visitors mostly for first",
         "for second", "p (sign)"],
        [
            [_over(p), *share_row(p), p_value(p["p"]), p_value(p["p_holm"]),
             str(p["raters_for_a"]), str(p["raters_for_b"]), p_value(p["sign_p"])]
            for p in pairs
        ],
    )  # fmt: skip
    section.figure(
        plots.intervals(
            [
                plots.Row(_over(p), p["share"], p["clustered"] or p["exact"], colour_of(i))
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


def _one_pair(section: Section, pair: Result, level: str) -> None:
    name = _over(pair)
    rows = sorted(pair["by_rater"], key=lambda r: r["k"] / r["n"])
    section.figure(
        plots.intervals(
            [plots.Row(r["rater"], r["k"] / r["n"]) for r in rows],
            f"share preferring {pair['a']}",
            reference=0.5,
            limits=(-0.03, 1.03),
            names=len(rows) < 12,
        ),
        f"Each visitor's share, {name}",
        f"{name}, visitor by visitor: n = {len(rows)} visitors, {pair['n']} choices.",
    )
    section.table(
        f"{name}: item by item",
        ["item", "share", "n", f"{level} exact"],
        [[i["item"], percent(i["k"] / i["n"]), of(i), span(i["exact"])] for i in pair["items"]],
        fold=True,
    )


def _scale(section: Section, question: Result, level: str) -> None:
    fit = question["bradley_terry"]
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
                fixed(r["strength"]),
                number_span(r["clustered"]),
                f"{r['wins']} of {r['n']}",
                percent(_logistic(r["strength"])),
            ]
            for r in rows
        ],
    )
    section.figure(
        plots.intervals(
            [plots.Row(r["system"], r["strength"], r["clustered"]) for r in rows],
            "strength",
            reference=0,
        ),
        f"Bradley-Terry strengths, question {question['id']}",
        f"Strengths with {level} intervals over {fit['raters']} visitors; n = {fit['n']} choices.",
    )
    added = (
        " One group of systems never lost to the rest, so that half a win was added to both sides "
        "of every pair."
    )
    section.add(
        "text",
        f"Fit: deviance {fixed(fit['deviance'])} on {fit['freedom']} degrees of freedom, "
        f"p {p_equals(fit['p'])} (small: preferences do not lie on one scale; the p-value takes "
        f"answers as independent).{added if fit['prior'] else ''}",
    )


def _consistency(section: Section, question: Result, level: str) -> None:
    repeats, majority, side = question["repeats"], question["majority"], question["first_side"]
    section.table(
        "How steady the answers are",
        ["measure", *share_head(level)],
        [
            ["same video chosen when a pair came again, sides exchanged", *share_row(repeats)],
            [
                "as most of the other visitors chose",
                percent(majority["share"]), of(majority), DASH, DASH,
            ],
            ["left or upper video chosen", *share_row(side)],
        ],
    )  # fmt: skip
    section.add(
        "text",
        f"Krippendorff’s alpha over items: {fixed(question['alpha'])} (1: all agree, 0: as by "
        "chance). Where one system is always preferred, agreement is high and alpha is low: it "
        "measures whether visitors agree on which items differ.",
    )
    tables = [{r["rater"]: of(r) for r in share["by_rater"]} for share in (majority, repeats)]
    section.table(
        "Visitor by visitor",
        ["visitor", "as the majority", "repeats alike"],
        [[rater, *(t.get(rater, DASH) for t in tables)] for rater in sorted(set().union(*tables))],
        fold=True,
    )


KIND = Preference()
