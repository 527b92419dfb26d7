"""Lip reading: which words does the person in a silent video say?"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from stillspeak.reporting.plots import colour_of
from stillspeak.study import plots
from stillspeak.study import statistics as st
from stillspeak.study.answers import Form, Lists, Typed, matched, normalise
from stillspeak.study.config import Question, Trials
from stillspeak.study.kinds import Rater, Result, Study, StudyKind
from stillspeak.study.materials import Video
from stillspeak.study.records import Answer, Trial
from stillspeak.study.section import (
    ReportBuilder,
    of,
    percent,
    share_head,
    share_overview,
    share_row,
    span,
)


class _Word(NamedTuple):
    """One word that was said, and what a visitor read."""

    rater: str
    system: str
    place: int
    said: str
    read: str

    @property
    def right(self) -> bool:
        return self.said == self.read


class Intelligibility(StudyKind):
    name = "intelligibility"
    summary = "Lip reading of silent clips"
    title = "Can you read lips?"
    intro = (
        "You will see short videos of people who speak, **without sound**. Say which words you "
        "read from their lips; guess where you are not sure."
    )
    questions = {"words": "Which words does the person say? There is no sound."}  # noqa: RUF012
    one_question = True
    silent = True
    spoken = True
    bad_videos = False
    remembered = True
    method = (
        (
            "Words",
            "Compared place by place where as many were given as said, else aligned with the "
            "fewest changes; case and punctuation do not count; “cannot tell” counts as "
            "wrong.",
        ),
    )

    def propose(self, items: int, systems: int, catches: int) -> Trials:
        proposed = super().propose(items, systems, catches)
        return replace(proposed, catch=min(1, proposed.count), repeats=0)

    def trials_per_item(self, systems: int) -> int:
        return 1

    def misfit(self, study: Study) -> str:
        trials, choices = study.config.trials, study.materials.choices
        if trials.entry == "pick" and not choices:
            return (
                "trials.entry: the words differ in number or never vary, so there are no lists "
                'to pick from; use "type"'
            )
        if trials.catch > trials.count:
            return "trials.catch: more than trials.count"
        labels = len(study.config.questions[0].labels)
        if trials.entry == "pick" and labels not in (0, len(choices)):
            return f"questions.0.labels: {labels} given, {len(choices)} words are picked"
        return ""

    def catch_trials(
        self, study: Study, main: Sequence[Trial], chance: random.Random
    ) -> list[Trial]:
        """Clips like the others, with words to be given whatever is seen."""
        chosen = chance.sample(list(main), study.config.trials.catch)
        return [
            Trial("catch", t.first, expected=" ".join(_other_words(study, t.first, chance)))
            for t in chosen
        ]

    def form(self, study: Study, question: Question) -> Form:
        if study.config.trials.entry == "type":
            return Typed("The words that you read from the lips")
        return Lists(study.materials.choices, _labels(question, len(study.materials.choices)))

    def instead(self, study: Study, trial: Trial) -> str:
        return trial.expected

    def passed(self, trial: Trial, value: Any) -> bool:
        said = trial.expected.split()
        right = sum(a == b for a, b in matched(said, _read(value)))
        return right >= len(said) - 1  # one slip is not carelessness

    def feedback(self, study: Study, trial: Trial, value: Any) -> str:
        return f"The words were: {' '.join(study.video_of[trial.first].words)}."

    def export(self, study: Study, trial: Trial, value: Any) -> Result:
        truth = trial.expected or " ".join(study.video_of[trial.first].words)
        pairs = matched(truth.split(), _read(value))
        return {"truth": truth, "correct": round(sum(a == b for a, b in pairs) / len(pairs), 4)}

    def simulate(self, rater: Rater, trial: Trial) -> Any:
        materials, chance = rater.study.materials, rater.chance
        words = trial.expected.split() or rater.study.video_of[trial.first].words
        everything = sorted({w for v in materials.videos for w in v.words})
        read = []
        for place, word in enumerate(words):
            known = materials.choices[place] if materials.choices else everything
            others = [w for w in known if w != word]
            hit = not rater.careless and (trial.expected or chance.random() < rater.share)
            read.append(word if hit or not others else chance.choice(others))
        if rater.study.config.trials.entry == "type":
            return " ".join(normalise(" ".join(read)))
        return read

    def analyse(self, study: Study, answers: Sequence[Answer]) -> Result:
        level, choices = study.config.analysis.level, study.materials.choices
        question = study.config.questions[0]
        rows: list[_Word] = []
        sentences: list[tuple[str, str, bool]] = []
        items: dict[str, list[bool]] = {}
        for a in answers:
            if a.trial.role != "main" or question.id not in a.values:
                continue
            video, read = study.video_of[a.trial.first], _read(a.values[question.id])
            words = [
                _Word(a.session, video.system, place, said, got)
                for place, (said, got) in enumerate(matched(video.words, read))
            ]
            rows += words
            whole = all(w.right for w in words) and len(read) == len(video.words)
            sentences.append((video.system, a.session, whole))
            items.setdefault(video.id, []).extend(w.right for w in words)
        raters = list(dict.fromkeys(row.rater for row in rows))
        places = max((row.place for row in rows), default=-1) + 1
        labels = _labels(question, places)
        picked = study.config.trials.entry == "pick"
        chances = [1 / len(place) for place in choices] if picked else []

        def shares(chosen: Iterable[tuple[str, bool]], keys: Sequence[str] = ()) -> Result:
            return st.share(st.tally(chosen, keys).values(), level, chance=None)

        def read_right(chosen: Iterable[_Word]) -> Result:
            return shares(((w.rater, w.right) for w in chosen), raters)

        return {
            "entry": study.config.trials.entry,
            "all": read_right(rows),
            "chance": sum(chances) / len(chances) if chances else None,
            "place_chances": [
                {"place": labels[i] if i < places else "", "chance": c}
                for i, c in enumerate(chances)
            ],
            "systems": [
                {
                    "system": system,
                    **read_right(w for w in rows if w.system == system),
                    "sentences": shares((r, ok) for s, r, ok in sentences if s == system),
                    "places": [
                        {
                            "place": labels[i],
                            **read_right(w for w in rows if (w.system, w.place) == (system, i)),
                        }
                        for i in range(places)
                    ],
                }
                for system in study.materials.systems
            ],
            "confusions": [
                _confusion(labels[i], [(w.said, w.read) for w in rows if w.place == i])
                for i in range(places)
            ],
            "items": sorted(
                (_item(study.video_of[v], right) for v, right in items.items()),
                key=lambda row: (row["share"], row["item"]),
            ),
        }

    def report(self, study: Study, results: Result, report: ReportBuilder) -> None:
        level, main = report.level, results["main"]
        chance = "" if main["chance"] is None else f"; chance is {percent(main['chance'])}"
        report.headline += [
            f"{s['system']}: {percent(s['share'])} of {s['n']} words were read correctly by "
            f"{s['raters']} visitors ({level} interval {span(s['clustered'])} over visitors, "
            f"{span(s['exact'])} exact binomial{chance}); whole sentences {of(s['sentences'])}."
            for s in main["systems"]
        ]
        section = report.section("Words read")
        chances = {c["place"]: c["chance"] for c in main["place_chances"]}
        rows, points = [], []
        for i, s in enumerate(main["systems"]):
            rows.append([s["system"], "all", *share_row(s), percent(main["chance"])])
            for p in s["places"]:
                if p["n"]:
                    place = p["place"]
                    rows.append([s["system"], place, *share_row(p), percent(chances.get(place))])
                    name = place if len(main["systems"]) == 1 else f"{s['system']}: {place}"
                    interval = p["clustered"] or p["exact"]
                    points.append(plots.Row(name, p["share"], interval, colour_of(i)))
        section.table(
            "Words read correctly, place by place",
            ["system", "word", *share_head(level), "chance"],
            rows,
        )
        if points:
            section.figure(
                plots.intervals(points, "share of words read correctly", limits=(0, 1)),
                "Share of words read correctly by place in the sentence",
                f"Shares with {level} intervals over visitors; n = {main['all']['n']} words.",
            )
        section = report.section("Confusions")
        for confused in main["confusions"]:
            place, words = confused["place"], confused["words"]
            section.add("heading", f"{place} (n = {confused['n']})")
            if 2 <= len(words) <= 26:
                section.figure(
                    plots.confusion(words, _shares(words, confused["table"])),
                    f"What was read for what was said: {place}",
                    f"Share of answers in each row; n = {confused['n']}.",
                )
            section.table(
                f"Commonest mistakes: {place}",
                ["said", "read", "times", "of"],
                [[w["said"], w["read"], str(w["k"]), str(w["n"])] for w in confused["wrong"]],
                fold=True,
            )
        report.section("Item difficulty").table(
            "Clip by clip, hardest first",
            ["clip", "system", "words correct", "n"],
            [[i["item"], i["system"], percent(i["share"]), of(i)] for i in main["items"]],
            fold=True,
        )

    def overview(self, main: Result) -> list[tuple[str, ...]]:
        return [share_overview(s["system"], s) for s in main["systems"]]


def _labels(question: Question, places: int) -> list[str]:
    given = list(question.labels[:places])
    return given + [f"Word {i + 1}" for i in range(len(given), places)]


def _read(value: Any) -> list[str]:
    return normalise(value) if isinstance(value, str) else list(value)


def _other_words(study: Study, video: str, chance: random.Random) -> Sequence[str]:
    if study.materials.choices:
        return [chance.choice(place) for place in study.materials.choices]
    said = study.video_of[video].words
    others = sorted({v.words for v in study.materials.videos if v.words != said})
    return chance.choice(others) if others else said


def _item(video: Video, right: Sequence[bool]) -> Result:
    k, n = sum(right), len(right)
    return {"item": video.item, "system": video.system, "k": k, "n": n, "share": k / n}


def _confusion(place: str, pairs: Sequence[tuple[str, str]]) -> Result:
    """What was read for what was said at one place of the sentence."""
    counts, shown = Counter(pairs), Counter(said for said, _ in pairs)
    wrong = [(s, g, k) for (s, g), k in counts.items() if s != g]
    return {
        "place": place,
        "n": len(pairs),
        "wrong": [
            {"said": s, "read": g or "(nothing)", "k": k, "n": shown[s]}
            for s, g, k in sorted(wrong, key=lambda w: (-w[2], w[:2]))[:12]
        ],
        "words": sorted({w for pair in counts for w in pair if w}),
        "table": [{"said": s, "read": g, "k": k} for (s, g), k in sorted(counts.items())],
    }


def _shares(words: Sequence[str], table: Iterable[Mapping[str, Any]]) -> list[list[float]]:
    """Of each word said (rows), how often each word was read (columns)."""
    counts = {(row["said"], row["read"]): row["k"] for row in table}
    totals = {s: sum(k for (said, _), k in counts.items() if said == s) for s in words}
    return [[counts.get((s, r), 0) / max(1, totals[s]) for r in words] for s in words]


KIND = Intelligibility()
