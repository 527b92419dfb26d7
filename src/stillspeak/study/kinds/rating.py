"""Ratings from 1 to 5: mean opinion scores."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from stillspeak.reporting.numbers import fixed
from stillspeak.study import plots
from stillspeak.study import statistics as st
from stillspeak.study.answers import Choice
from stillspeak.study.config import Question
from stillspeak.study.kinds import Rater, Result, Study, StudyKind
from stillspeak.study.materials import Video
from stillspeak.study.records import Answer, Trial, Truth
from stillspeak.study.section import ALPHA, ReportBuilder, number_span

GRADES = (1, 2, 3, 4, 5)

Scores = dict[str, dict[str, list[int]]]
"""System -> rater -> grades."""


class Rating(StudyKind):
    name = "mos"
    summary = "Ratings from 1 to 5 (absolute category rating)"
    title = "How good are these videos?"
    intro = "You will see short videos of people who speak. Rate each from 1 to 5."
    questions = {  # noqa: RUF012
        "quality": "How good is this video, all in all?",
        "sync": "How well do the lips fit the sound?",
        "realism": "How real does the person look?",
    }
    labels = ("Bad", "Poor", "Fair", "Good", "Excellent")  # ITU-T P.800's
    method = (
        (
            "Mean opinion score",
            "Mean over all ratings of the five grades of ITU-T P.800. Student’s interval is "
            "that of the visitors’ own means.",
        ),
        ALPHA,
    )

    def catch_trial(self, study: Study, video: Video, chance: random.Random) -> Trial:
        return Trial("catch", video.id, expected="2")

    def passed(self, trial: Trial, value: Any) -> bool:
        return int(value) <= int(trial.expected)

    def form(self, study: Study, question: Question) -> Choice:
        labels = [f"{k} {label}" for k, label in zip(GRADES, question.labels, strict=True)]
        return Choice(GRADES, labels)

    def untruth(self, study: Study, truth: Truth) -> str:
        systems = len(study.materials.systems)
        if len(truth.means) != systems or not all(1 <= m <= 5 for m in truth.means):
            return f"--means: {systems} systems need one each, from 1 to 5"
        return ""

    def simulate(self, rater: Rater, trial: Trial) -> int:
        chance, study = rater.chance, rater.study
        if rater.careless:
            return chance.randint(1, 5)
        if trial.role == "catch":
            return 1
        # Rounded at random, so that nothing but the bounds moves the mean.
        system = study.materials.systems.index(study.video_of[trial.first].system)
        value = rater.truth.means[system] + rater.lift + chance.gauss(0, 0.5)
        floor = int(value // 1)
        return min(5, max(1, floor + (chance.random() < value - floor)))

    def analyse(self, study: Study, answers: Sequence[Answer]) -> Result:
        questions = []
        level = study.config.analysis.level
        for question in study.config.questions:
            by: Scores = {s: defaultdict(list) for s in study.materials.systems}
            items: dict[tuple[str, str], list[int]] = defaultdict(list)
            grades, first, again = [], {}, []
            asked = [a for a in answers if question.id in a.values]
            for a in asked:
                if a.trial.role == "main":
                    video, grade = study.video_of[a.trial.first], int(a.values[question.id])
                    by[video.system][a.session].append(grade)
                    items[video.system, video.item].append(grade)
                    grades.append((video.id, grade))
                    first[a.session, a.trial.first] = grade
            for a in asked:
                key = a.session, a.trial.first
                if a.trial.role == "repeat" and key in first:
                    again.append(abs(int(a.values[question.id]) - first[key]))
            questions.append(
                {
                    "id": question.id,
                    "text": question.text,
                    "labels": list(question.labels),
                    "systems": [_system(system, r, level) for system, r in by.items()],
                    "differences": [
                        _difference(a, b, by, level)
                        for a, b in combinations(study.materials.systems, 2)
                    ],
                    "alpha": st.krippendorff_alpha(grades, interval=True),
                    "repeats": {
                        "n": len(again),
                        "same": sum(d == 0 for d in again),
                        "mean_difference": _mean(again),
                    },
                    "items": [
                        {"system": s, "item": i, "n": len(v), "mean": _mean(v)}
                        for (s, i), v in sorted(items.items())
                    ],
                }
            )
        return {"questions": questions}

    def report(self, study: Study, results: Result, report: ReportBuilder) -> None:
        level = report.level
        for question in results["main"]["questions"]:
            systems = question["systems"]
            n = sum(s["n"] for s in systems)
            means = "; ".join(
                f"{s['system']} {fixed(s['mean'])} ({number_span(s['clustered'])}, n = {s['n']})"
                for s in systems
            )
            report.headline.append(
                f"{question['id']}: {means}. Means with {level} intervals over visitors."
            )
            section = report.section(f"Ratings: {question['id']}")
            section.add("text", f"Asked: {question['text']}")
            section.table(
                "Mean opinion scores",
                ["system", "mean", "n", "visitors", f"{level} over visitors",
                 f"{level} of Student’s t", "sd", *map(str, GRADES)],
                [
                    [
                        s["system"], fixed(s["mean"]), str(s["n"]), str(s["raters"]),
                        number_span(s["clustered"]), number_span(s["t"]), fixed(s["sd"]),
                        *map(str, s["counts"]),
                    ]
                    for s in systems
                ],
            )  # fmt: skip
            section.figure(
                plots.intervals(
                    [plots.Row(s["system"], s["mean"], s["clustered"]) for s in systems if s["n"]],
                    "mean rating",
                    limits=(0.9, 5.1),
                ),
                f"Mean ratings, question {question['id']}",
                f"Means with {level} intervals over visitors; n = {n} ratings.",
            )
            section.figure(
                plots.grades([(s["system"], s["counts"]) for s in systems], question["labels"]),
                f"Grades given, question {question['id']}",
                f"How often each grade was given; n = {n} ratings.",
            )
            if question["differences"]:
                section.table(
                    "Differences between systems, within visitors who rated both",
                    ["pair", "difference", "visitors", "ratings", f"{level} over visitors",
                     f"{level} of Student’s t"],
                    [
                        [
                            f"{d['a']} minus {d['b']}", fixed(d["mean"]), str(d["raters"]),
                            str(d["n"]), number_span(d["clustered"]), number_span(d["t"]),
                        ]
                        for d in question["differences"]
                    ],
                )  # fmt: skip
            again = question["repeats"]
            section.add(
                "text",
                f"Videos that came again got the same grade {again['same']} of {again['n']} times, "
                f"{fixed(again['mean_difference'])} grades apart on average. Krippendorff’s alpha "
                f"(interval): {fixed(question['alpha'])}.",
            )
            section.table(
                "Item by item",
                ["system", "item", "mean", "n"],
                [
                    [i["system"], i["item"], fixed(i["mean"]), str(i["n"])]
                    for i in question["items"]
                ],
                fold=True,
            )

    def overview(self, main: Result) -> list[tuple[str, ...]]:
        return [
            (f"{q['id']}: {s['system']}", fixed(s["mean"]), str(s["n"]),
             number_span(s["clustered"]))
            for q in main["questions"]
            for s in q["systems"]
        ]  # fmt: skip


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _system(system: str, raters: dict[str, list[int]], level: float) -> Result:
    scores = [s for group in raters.values() for s in group]
    groups = [(sum(g), len(g)) for g in raters.values()]
    return {
        "system": system,
        "n": len(scores),
        "raters": len(raters),
        "mean": _mean(scores),
        "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
        "clustered": st.mean_interval(groups, level),
        "t": st.t_interval([float(np.mean(g)) for g in raters.values()], level),
        "counts": [scores.count(k) for k in GRADES],
    }


def _difference(a: str, b: str, by: Scores, level: float) -> Result:
    """Within raters who saw both systems."""
    both = sorted(set(by[a]) & set(by[b]))
    paired = [float(np.mean(by[a][r]) - np.mean(by[b][r])) for r in both]
    return {
        "a": a,
        "b": b,
        "raters": len(both),
        "n": sum(len(by[a][r]) + len(by[b][r]) for r in both),
        "mean": _mean(paired),
        "clustered": st.mean_interval([(d, 1) for d in paired], level),
        "t": st.t_interval(paired, level),
    }


KIND = Rating()
