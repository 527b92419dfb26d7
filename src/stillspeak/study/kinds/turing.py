"""Turing test: is this video real or fake?"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

from stillspeak.reporting.numbers import fixed
from stillspeak.reporting.plots import colour_of
from stillspeak.study import plots
from stillspeak.study import statistics as st
from stillspeak.study.answers import Choice
from stillspeak.study.config import Question, Trials
from stillspeak.study.kinds import Rater, Result, Study, StudyKind
from stillspeak.study.materials import Video
from stillspeak.study.records import Answer, Trial
from stillspeak.study.section import (
    ReportBuilder,
    number_span,
    of,
    p_equals,
    percent,
    share_head,
    share_overview,
    share_row,
    span,
)
from stillspeak.study.trials import Shown, least_shown, single_videos

REAL, FAKE = "real", "fake"
PAPER_COUNT = 10
"""Videos that the paper's Turing test shows a person."""
_MAX_ROWS = 40
"""Videos that the plot of difficulty shows."""


class Turing(StudyKind):
    name = "turing"
    summary = "An online Turing test: real or fake"
    title = "Real or fake?"
    intro = (
        "You will see {count} short videos of people who speak. Some are **real** recordings, "
        "others were **made by a computer**. Say of each which it is; at the end you see how "
        "many you got right."
    )
    questions = {"real": "Is this video real or fake?"}  # noqa: RUF012
    labels = ("Real", "Fake")
    one_question = True
    folders = (2, 2, "two folders: the real videos, then the fake ones")
    sides = (REAL, FAKE)
    method = (
        (
            "d′ and c",
            "d′ = z(H) − z(F), c = −(z(H) + z(F)) / 2 with H = (hits + 0.5) / (fakes + 1) and "
            "F = (false alarms + 0.5) / (reals + 1), after Hautus (1995).",
        ),
    )

    def propose(self, items: int, systems: int, catches: int) -> Trials:
        return Trials(min(PAPER_COUNT, items))

    def trials_per_item(self, systems: int) -> int:
        return 1

    def misfit(self, study: Study) -> str:
        trials = study.config.trials
        for side in self.sides:
            there = len(single_videos(study.materials, side))
            if there * 2 < trials.count and trials.sampling == "equal":
                few = f"there are only {there} {side} videos"
                return f"trials.count: {trials.count} by halves, but {few}"
        return ""

    def main_trials(self, study: Study, shown: Shown, chance: random.Random) -> list[Trial]:
        """Real or fake by a coin or by halves; never the real and the fake video of one name."""
        count = study.config.trials.count
        if study.config.trials.sampling == "equal":
            odd = [chance.choice(self.sides)] if count % 2 else []
            sides = [*self.sides] * (count // 2) + odd
            chance.shuffle(sides)
        else:
            sides = [chance.choice(self.sides) for _ in range(count)]
        queues = {
            side: [v for v, _ in least_shown(shown, chance, single_videos(study.materials, side))]
            for side in self.sides
        }
        used: set[str] = set()
        trials = []
        for side in sides:
            for name in (side, _other(side)):  # a side may run out
                free = [v for v in queues[name] if study.video_of[v].item not in used]
                if free:
                    used.add(study.video_of[free[0]].item)
                    trials.append(Trial("main", free[0], expected=name))
                    break
        return trials

    def training_order(
        self, items: list[str], table: Mapping[str, Mapping[str, Video]]
    ) -> list[str]:
        """Both sides in turn, where both were kept."""
        real = [item for item in items if REAL in table[item]]
        fake = [item for item in items if REAL not in table[item]]
        mixed = [i for pair in zip(real, fake, strict=False) for i in pair]
        return list(dict.fromkeys(mixed + real + fake))

    def training_trial(self, number: int, videos: Sequence[Video]) -> Trial:
        side = self.sides[number % 2]
        video = next((v for v in videos if v.system == side), videos[0])
        return Trial("training", video.id, expected=video.system)

    def catch_trial(self, study: Study, video: Video, chance: random.Random) -> Trial:
        return Trial("catch", video.id, expected=FAKE)

    def form(self, study: Study, question: Question) -> Choice:
        return Choice(self.sides, question.labels)

    def feedback(self, study: Study, trial: Trial, value: Any) -> str:
        labels = dict(zip(self.sides, study.config.questions[0].labels, strict=True))
        said = "Right" if value == trial.expected else "Not quite"
        return f"{said}: this one is “{labels[trial.expected]}”."

    def score(self, study: Study, answers: Sequence[Answer]) -> dict[str, int]:
        question = study.config.questions[0].id
        mine = [a for a in answers if a.trial.role == "main"]
        right = sum(a.values[question] == a.trial.expected for a in mine)
        return {"right": right, "of": len(mine)}

    def export(self, study: Study, trial: Trial, value: Any) -> Result:
        return {"truth": trial.expected, "correct": int(value == trial.expected)}

    def simulate(self, rater: Rater, trial: Trial) -> str:
        if rater.careless:
            return rater.chance.choice(self.sides)
        if trial.role == "catch" or rater.chance.random() < rater.share:
            return trial.expected
        return _other(trial.expected)

    def analyse(self, study: Study, answers: Sequence[Answer]) -> Result:
        level, count = study.config.analysis.level, study.config.trials.count
        question = study.config.questions[0].id
        main = [a for a in answers if a.trial.role == "main" and question in a.values]
        right = [(a, a.values[question] == a.trial.expected) for a in main]
        by_rater = st.tally((a.session, ok) for a, ok in right)
        items = st.tally((a.trial.first, ok) for a, ok in right)
        scores = Counter(k for k, n in by_rater.values() if n == count)
        table = _detection_table(main, question)
        return {
            "accuracy": st.share(by_rater.values(), level),
            "sampling": study.config.trials.sampling,
            "real": st.share([(r[3] - r[2], r[3]) for r in table], level),
            "fake": st.share([(r[0], r[1]) for r in table], level),
            "detection": _detection(table, level),
            "histogram": {
                "of": count,
                "visitors": [scores[k] for k in range(count + 1)],
                "n": scores.total(),
                "left_out": len(by_rater) - scores.total(),
            },
            "by_rater": st.counted("rater", dict(sorted(by_rater.items()))),
            "items": sorted(
                (
                    {
                        "item": study.video_of[v].item,
                        "truth": study.video_of[v].system,
                        "k": k,
                        "n": n,
                        "share": k / n,
                        "exact": st.clopper_pearson(k, n, level),
                    }
                    for v, (k, n) in items.items()
                ),
                key=lambda row: (row["share"], row["item"], row["truth"]),
            ),
        }

    def report(self, study: Study, results: Result, report: ReportBuilder) -> None:
        level, main = report.level, results["main"]
        accuracy, d = main["accuracy"], main["detection"]
        report.headline += [
            f"Visitors labelled {percent(accuracy['share'])} of {accuracy['n']} videos correctly "
            f"({accuracy['raters']} visitors; {level} interval {span(accuracy['clustered'])} over "
            f"visitors, {span(accuracy['exact'])} exact binomial; chance is 50 %, "
            f"p {p_equals(accuracy['p'])}).",
            f"Sensitivity d′ = {fixed(d['d_prime'])} ({number_span(d['d_prime_clustered'])}), "
            f"criterion c = {fixed(d['criterion'])} ({number_span(d['criterion_clustered'])}), "
            f"n = {d['n']}.",
        ]
        section = report.section("Real or fake")
        section.table(
            "Correct answers",
            ["videos", *share_head(level)],
            [
                ["all", *share_row(accuracy)],
                ["real ones called real", *share_row(main["real"])],
                ["fake ones called fake", *share_row(main["fake"])],
            ],
        )
        section.add(
            "text",
            "In the paper’s test (Vougioukas, Petridis and Pantic 2018), 316 visitors labelled "
            "63 % of 10 videos each correctly, with its own videos.",
        )
        section.add(
            "text",
            f"Hits (fake called fake) {d['hits']} of {d['fakes']}, false alarms (real called fake) "
            f"{d['false_alarms']} of {d['reals']}. d′ is 0 when real and fake cannot be told "
            "apart; c above 0 means that “real” is said more readily. Both over all answers "
            "pooled, with the log-linear correction; intervals over visitors.",
        )
        histogram = main["histogram"]
        count, n = histogram["of"], histogram["n"]
        guessing = [n * comb(count, k) / 2**count for k in range(count + 1)]
        section.figure(
            plots.histogram(histogram["visitors"], guessing, f"correct, of {count}"),
            "Histogram of visitors’ scores",
            f"Scores of the {n} visitors who labelled all {count} videos"
            + (f" ({histogram['left_out']} others left out)." if histogram["left_out"] else "."),
        )
        section.table(
            "Scores",
            ["correct", "visitors", "by guessing alone"],
            [
                [str(k), str(c), fixed(e, 1)]
                for k, (c, e) in enumerate(zip(histogram["visitors"], guessing, strict=True))
            ],
            fold=True,
        )
        _difficulty(report, main["items"])

    def overview(self, main: Result) -> list[tuple[str, ...]]:
        return [share_overview("correct", main["accuracy"])]

    def balance(self, study: Study) -> str:
        by = {
            "random": "a fair coin decides for every trial whether it is real or fake",
            "equal": "as many real as fake videos",
        }
        return (
            f"Sampling: {by[study.config.trials.sampling]}; the video is the least shown of its "
            "kind, and nobody sees the real and the fake video of one name."
        )


def _other(side: str) -> str:
    return FAKE if side == REAL else REAL


def _detection_table(answers: Sequence[Answer], question: str) -> list[tuple[int, int, int, int]]:
    """Of each visitor: fakes called fake, fakes, reals called fake, reals."""
    called = st.tally(((a.session, a.trial.expected), a.values[question] == FAKE) for a in answers)
    raters = dict.fromkeys(a.session for a in answers)
    return [
        (*called.get((rater, FAKE), (0, 0)), *called.get((rater, REAL), (0, 0))) for rater in raters
    ]


def _detection(table: Sequence[tuple[int, int, int, int]], level: float) -> Result:
    """Sensitivity and criterion over all visitors' answers together."""
    hits, fakes, alarms, reals = map(sum, zip(*(table or [(0, 0, 0, 0)]), strict=True))
    d_prime, criterion = st.detection(hits, fakes, alarms, reals)
    intervals = st.bootstrap(table, lambda sums: st.detection(*sums), level=level, resamples=1000)
    return {
        "hits": hits,
        "fakes": fakes,
        "false_alarms": alarms,
        "reals": reals,
        "n": fakes + reals,
        "raters": len(table),
        "d_prime": d_prime,
        "d_prime_clustered": intervals[0] if intervals else None,
        "criterion": criterion,
        "criterion_clustered": intervals[1] if intervals else None,
    }


def _difficulty(report: ReportBuilder, items: Sequence[Result]) -> None:
    section = report.section("Item difficulty")
    half = _MAX_ROWS // 2
    shown = items if len(items) <= _MAX_ROWS else [*items[:half], *items[-half:]]
    section.figure(
        plots.intervals(
            [
                plots.Row(
                    f"{i['item']} ({i['truth']})",
                    i["share"],
                    i["exact"],
                    colour_of(i["truth"] == FAKE),
                )
                for i in shown
            ],
            "share labelled correctly",
            reference=0.5,
            limits=(-0.02, 1.02),
        ),
        "Share of correct labels, video by video",
        f"Hardest first, {report.level} exact intervals; n = {sum(i['n'] for i in items)} answers "
        f"on {len(items)} videos" + ("." if shown is items else f", {len(shown)} of them shown."),
    )
    section.table(
        "Video by video",
        ["item", "truth", "correct", "n", f"{report.level} exact"],
        [[i["item"], i["truth"], percent(i["share"]), of(i), span(i["exact"])] for i in items],
        fold=True,
    )


KIND = Turing()
