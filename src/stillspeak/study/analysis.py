"""Answers to results: who counts, and the numbers of each kind of study.

The result is plain JSON, the same for the same answers; reports only write it out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from stillspeak.study import statistics as st
from stillspeak.study.config import StudyConfig, fingerprint
from stillspeak.study.judge import matched, passed
from stillspeak.study.materials import FAKE, REAL, Materials, Video, normalise
from stillspeak.study.plan import FIRST
from stillspeak.study.store import Answer, Store, Visitor

Result = dict[str, Any]


@dataclass(frozen=True)
class Answers:
    """All that a study's database holds, as read at one time."""

    visitors: tuple[Visitor, ...]
    answers: tuple[Answer, ...]
    deleted: int


def read_answers(store: Store) -> Answers:
    """Everything that reports and exports need."""
    return Answers(tuple(store.visitors()), tuple(store.answers()), store.deleted())


def analyse(config: StudyConfig, materials: Materials, data: Answers) -> Result:
    """The results of a study.

    Returns:
        JSON values: ``who`` (visitors, exclusions), ``timing``, and ``main`` over the visitors
        that count, with ``everybody`` the same over all, excluded ones included.
    """
    who, kept = _who(config, data)
    mine = [a for a in data.answers if a.session in kept]
    begun = who["begun"]
    others = [
        a
        for a in data.answers
        if config.analysis.incomplete == "include" or a.session in who["finished_ids"]
    ]
    who = {k: v for k, v in who.items() if not k.endswith("_ids")}
    kind = {
        "preference": _preference,
        "turing": _turing,
        "mos": _ratings,
        "intelligibility": _words,
    }[config.kind]
    return {
        "kind": config.kind,
        "title": config.texts.title,
        "level": config.analysis.level,
        "systems": list(materials.systems),
        "items": len(materials.of("main")),
        "who": who,
        "timing": _timing(mine),
        "main": kind(config, materials, mine) if mine else None,
        "everybody": kind(config, materials, others)
        if begun and who["excluded_catch"] and others
        else None,
        "exposure": _exposure(materials, data.answers),
    }


def _who(config: StudyConfig, data: Answers) -> tuple[Result, set[str]]:
    by_session: dict[str, list[Answer]] = defaultdict(list)
    for answer in data.answers:
        by_session[answer.session].append(answer)
    failed: dict[str, int] = {}
    caught = wrong = 0
    for session, answers in by_session.items():
        catches = [a for a in answers if a.trial.role == "catch"]
        missed = sum(not passed(config, a.trial, a.values) for a in catches)
        caught += len(catches)
        wrong += missed
        failed[session] = missed
    careless = {s for s, n in failed.items() if n > config.analysis.max_wrong_catches}
    finished = {v.session for v in data.visitors if v.finished is not None}
    answered = {v.session for v in data.visitors if v.answers}
    kept = answered - careless
    if config.analysis.incomplete == "exclude":
        kept &= finished
    now = fingerprint(config)
    who: Result = {
        "begun": len(data.visitors),
        "answered": len(answered),
        "finished": len(finished),
        "finished_ids": finished,
        "unfinished": len(answered - finished),
        "incomplete": config.analysis.incomplete,
        "deleted": data.deleted,
        "simulated": sum(v.simulated for v in data.visitors),
        "answers": len(data.answers),
        "catch_trials": caught,
        "catch_wrong": wrong,
        "max_wrong_catches": config.analysis.max_wrong_catches,
        "excluded_catch": len(careless & answered),
        "counted": len(kept),
        "other_settings": sum(v.configuration != now for v in data.visitors),
    }
    return who, kept


def _timing(answers: Sequence[Answer]) -> Result:
    main = [a for a in answers if a.trial.role == "main"]
    if not main:
        return {"n": 0}
    seconds = np.array([a.response_ms / 1000 for a in main])
    plays = np.array([a.plays for a in main])
    low, middle, high = np.quantile(seconds, (0.25, 0.5, 0.75))
    return {
        "n": len(main),
        "median_s": round(float(middle), 3),
        "quartiles_s": [round(float(low), 3), round(float(high), 3)],
        "mean_plays": round(float(plays.mean()), 3),
    }


def _exposure(materials: Materials, answers: Iterable[Answer]) -> Result:
    """How even the balance came out: answers a main video or pair of videos."""
    main = [a for a in answers if a.trial.role == "main"]
    counts = Counter(tuple(sorted((a.trial.first, a.trial.second))) for a in main)
    table = materials.of("main")
    if materials.kind == "preference":
        every = [
            tuple(sorted((s[a].id, s[b].id))) for s in table.values() for a, b in combinations(s, 2)
        ]
    else:
        every = [tuple(sorted((v.id, ""))) for s in table.values() for v in s.values()]
    numbers = [counts.get(key, 0) for key in every]
    return {"cells": len(numbers), "least": min(numbers), "most": max(numbers), "n": len(main)}


# ------------------------------------------------------------------ pairs


def _share(
    groups: Sequence[tuple[int, int]], level: float, *, chance: float | None = 0.5
) -> Result:
    """A share with its exact and its clustered interval, from (successes, n) of each person."""
    k, n = sum(g[0] for g in groups), sum(g[1] for g in groups)
    result: Result = {
        "k": k,
        "n": n,
        "raters": sum(1 for g in groups if g[1]),
        "share": k / n if n else None,
        "exact": list(st.clopper_pearson(k, n, level)) if n else None,
        "clustered": _listed(st.bootstrap_share([g for g in groups if g[1]], level=level)),
    }
    if chance is not None:
        result["p"] = st.binomial_test(k, n, chance)
    return result


def _listed(interval: st.Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _preference(config: StudyConfig, materials: Materials, answers: Sequence[Answer]) -> Result:
    video_of = materials.by_id()
    level = config.analysis.level
    systems = materials.systems
    result: Result = {"questions": []}
    main = [a for a in answers if a.trial.role == "main"]
    raters = list(dict.fromkeys(a.session for a in main))  # by arrival: the same each time
    for question in config.questions:
        asked = [a for a in main if question.id in a.values]
        rows = [_chosen(a, question.id, video_of) for a in asked]
        pairs = []
        for a, b in combinations(systems, 2):
            met = [r for r in rows if {r[1], r[2]} == {a, b}]
            groups = _by_rater(raters, [(r[0], r[1] == a) for r in met])
            share = _share(groups, level)
            ahead = sum(1 for k, n in groups if 2 * k > n)
            behind = sum(1 for k, n in groups if 2 * k < n)
            items: dict[str, list[int]] = defaultdict(lambda: [0, 0])
            for row in met:
                items[row[3]][0] += row[1] == a
                items[row[3]][1] += 1
            pairs.append(
                {
                    "a": a,
                    "b": b,
                    **share,
                    "raters_for_a": ahead,
                    "raters_for_b": behind,
                    "sign_p": st.binomial_test(ahead, ahead + behind),
                    "by_rater": [
                        {"rater": r, "k": g[0], "n": g[1]}
                        for r, g in zip(raters, groups, strict=True)
                        if g[1]
                    ],
                    "items": [
                        {
                            "item": item,
                            "k": k,
                            "n": n,
                            "exact": list(st.clopper_pearson(k, n, level)),
                        }
                        for item, (k, n) in sorted(items.items())
                    ],
                }
            )
        corrected = st.holm([pair["p"] for pair in pairs])
        for pair, p in zip(pairs, corrected, strict=True):
            pair["p_holm"] = p
        things: dict[Any, list[float | str]] = defaultdict(list)
        for _, winner, loser, item in rows:
            things[item, frozenset((winner, loser))].append(winner)
        agreement = st.majority_agreement(
            [(r, (item, frozenset((w, ll))), w) for r, w, ll, item in rows]
        )
        result["questions"].append(
            {
                "id": question.id,
                "text": question.text,
                "pairs": pairs,
                "first_side": _share(
                    _by_rater(raters, [(x.session, x.values[question.id] == FIRST) for x in asked]),
                    level,
                ),
                "alpha": st.krippendorff_alpha(things),
                "majority": _agreement(agreement),
                "repeats": _repeated(answers, question.id, video_of, level),
                "bradley_terry": _strengths(systems, rows, raters, level),
            }
        )
    return result


def _by_rater(raters: Sequence[str], rows: Iterable[tuple[str, bool]]) -> list[tuple[int, int]]:
    """(successes, n) of each rater."""
    counts = {rater: [0, 0] for rater in raters}
    for rater, success in rows:
        counts[rater][0] += success
        counts[rater][1] += 1
    return [(k, n) for k, n in counts.values()]


def _chosen(answer: Answer, question: str, video_of: dict[str, Video]) -> tuple[str, str, str, str]:
    """Rater, the preferred system, the other one, the item."""
    first, second = video_of[answer.trial.first], video_of[answer.trial.second]
    winner, loser = (first, second) if answer.values[question] == FIRST else (second, first)
    return answer.session, winner.system, loser.system, first.item


def _agreement(by_rater: dict[str, tuple[int, int]]) -> Result:
    agreed = sum(a for a, _ in by_rater.values())
    judged = sum(n for _, n in by_rater.values())
    return {
        "k": agreed,
        "n": judged,
        "share": agreed / judged if judged else None,
        "by_rater": [{"rater": r, "k": a, "n": n} for r, (a, n) in sorted(by_rater.items()) if n],
    }


def _repeated(
    answers: Sequence[Answer], question: str, video_of: dict[str, Video], level: float
) -> Result:
    """Repeated pairs that were answered for the same video both times."""
    first = {
        (a.session, frozenset((a.trial.first, a.trial.second))): _winner(a, question)
        for a in answers
        if a.trial.role == "main" and question in a.values
    }
    by_rater: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for a in answers:
        key = a.session, frozenset((a.trial.first, a.trial.second))
        if a.trial.role == "repeat" and question in a.values and key in first:
            by_rater[a.session][0] += _winner(a, question) == first[key]
            by_rater[a.session][1] += 1
    groups = [(k, n) for k, n in by_rater.values()]
    return _share(groups, level) | {
        "by_rater": [{"rater": r, "k": k, "n": n} for r, (k, n) in sorted(by_rater.items())]
    }


def _winner(answer: Answer, question: str) -> str:
    chosen = answer.values[question] == FIRST
    return answer.trial.first if chosen else answer.trial.second


def _strengths(
    systems: Sequence[str],
    rows: Sequence[tuple[str, str, str, str]],
    raters: Sequence[str],
    level: float,
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
    intervals = st.bradley_terry_intervals(list(tables.values()), level=level)
    return {
        "systems": [
            {
                "system": system,
                "strength": fit.strengths[i],
                "clustered": _listed(intervals[i]) if intervals else None,
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


# ------------------------------------------------------------------ real or fake


def _turing(config: StudyConfig, materials: Materials, answers: Sequence[Answer]) -> Result:
    level = config.analysis.level
    question = config.questions[0].id
    video_of = materials.by_id()
    main = [a for a in answers if a.trial.role == "main" and question in a.values]
    by_rater: dict[str, list[Answer]] = defaultdict(list)
    for answer in main:
        by_rater[answer.session].append(answer)

    def right(a: Answer) -> bool:
        return bool(a.values[question] == a.trial.expected)

    def cells(group: Sequence[Answer]) -> tuple[int, int, int, int]:
        fake = [a for a in group if a.trial.expected == FAKE]
        real = [a for a in group if a.trial.expected == REAL]
        return (
            sum(a.values[question] == FAKE for a in fake),
            len(fake),
            sum(a.values[question] == FAKE for a in real),
            len(real),
        )

    groups = [(sum(map(right, g)), len(g)) for g in by_rater.values()]
    table = [cells(group) for group in by_rater.values()]

    def pooled(rows: Sequence[tuple[int, int, int, int]]) -> st.Detection:
        a, b, c, d = (sum(column) for column in zip(*rows, strict=True))
        return st.detection(a, b, c, d)

    whole = pooled(table) if table else st.detection(0, 0, 0, 0)
    items: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for answer in main:
        items[answer.trial.first][0] += right(answer)
        items[answer.trial.first][1] += 1
    finished = [g for g in groups if g[1] == config.trials.count]
    histogram = Counter(k for k, _ in finished)
    resamples = 1000
    return {
        "accuracy": _share(groups, level),
        "sampling": config.trials.sampling,
        "real": _share([(r[3] - r[2], r[3]) for r in table], level),
        "fake": _share([(r[0], r[1]) for r in table], level),
        "detection": {
            "hits": whole.hits,
            "fakes": whole.fakes,
            "false_alarms": whole.false_alarms,
            "reals": whole.reals,
            "n": whole.fakes + whole.reals,
            "raters": len(table),
            "d_prime": whole.d_prime,
            "d_prime_clustered": _listed(
                st.bootstrap(
                    table, lambda rows: pooled(rows).d_prime, level=level, resamples=resamples
                )
            ),
            "criterion": whole.criterion,
            "criterion_clustered": _listed(
                st.bootstrap(
                    table, lambda rows: pooled(rows).criterion, level=level, resamples=resamples
                )
            ),
        },
        "histogram": {
            "of": config.trials.count,
            "visitors": [histogram.get(k, 0) for k in range(config.trials.count + 1)],
            "n": len(finished),
            "left_out": len(groups) - len(finished),
        },
        "by_rater": [
            {"rater": r, "k": g[0], "n": g[1]}
            for r, g in sorted(zip(by_rater, groups, strict=True))
        ],
        "items": sorted(
            (
                {
                    "item": video_of[v].item,
                    "truth": video_of[v].system,
                    "k": k,
                    "n": n,
                    "share": k / n,
                    "exact": list(st.clopper_pearson(k, n, level)),
                }
                for v, (k, n) in items.items()
            ),
            key=lambda row: (row["share"], row["item"], row["truth"]),
        ),
    }


# ------------------------------------------------------------------ ratings


def _ratings(config: StudyConfig, materials: Materials, answers: Sequence[Answer]) -> Result:
    level = config.analysis.level
    video_of = materials.by_id()
    result: Result = {"questions": []}
    for question in config.questions:
        by: dict[str, dict[str, list[int]]] = {s: defaultdict(list) for s in materials.systems}
        cells: dict[tuple[str, str], list[int]] = defaultdict(list)
        things: dict[Any, list[float | str]] = defaultdict(list)
        asked = [x for x in answers if question.id in x.values]
        for answer in asked:
            if answer.trial.role != "main":
                continue
            video = video_of[answer.trial.first]
            score = int(answer.values[question.id])
            by[video.system][answer.session].append(score)
            cells[video.system, video.item].append(score)
            things[video.id].append(score)
        systems = []
        for system, raters in by.items():
            scores = [s for group in raters.values() for s in group]
            systems.append(
                {
                    "system": system,
                    "n": len(scores),
                    "raters": len(raters),
                    "mean": float(np.mean(scores)) if scores else None,
                    "sd": float(np.std(scores, ddof=1)) if len(scores) > 1 else None,
                    "clustered": _listed(
                        st.bootstrap_share([(sum(g), len(g)) for g in raters.values()], level=level)
                    ),
                    "t": _listed(
                        st.t_interval([float(np.mean(g)) for g in raters.values()], level)
                    ),
                    "counts": [scores.count(k) for k in range(1, 6)],
                }
            )
        differences = []
        for a, b in combinations(materials.systems, 2):
            both = sorted(set(by[a]) & set(by[b]))
            paired = [float(np.mean(by[a][r]) - np.mean(by[b][r])) for r in both]
            differences.append(
                {
                    "a": a,
                    "b": b,
                    "raters": len(both),
                    "n": sum(len(by[a][r]) + len(by[b][r]) for r in both),
                    "mean": float(np.mean(paired)) if paired else None,
                    "clustered": _listed(st.bootstrap_share([(d, 1) for d in paired], level=level)),
                    "t": _listed(st.t_interval(paired, level)),
                }
            )
        first = {
            (x.session, x.trial.first): int(x.values[question.id])
            for x in asked
            if x.trial.role == "main"
        }
        again = [
            abs(int(x.values[question.id]) - first[x.session, x.trial.first])
            for x in asked
            if x.trial.role == "repeat" and (x.session, x.trial.first) in first
        ]
        result["questions"].append(
            {
                "id": question.id,
                "text": question.text,
                "labels": list(question.labels),
                "systems": systems,
                "differences": differences,
                "alpha": st.krippendorff_alpha(things, interval=True),
                "repeats": {
                    "n": len(again),
                    "same": sum(d == 0 for d in again),
                    "mean_difference": float(np.mean(again)) if again else None,
                },
                "items": [
                    {"system": s, "item": i, "n": len(v), "mean": float(np.mean(v))}
                    for (s, i), v in sorted(cells.items())
                ],
            }
        )
    return result


# ------------------------------------------------------------------ lip reading


def _words(config: StudyConfig, materials: Materials, answers: Sequence[Answer]) -> Result:
    level = config.analysis.level
    question = config.questions[0]
    video_of = materials.by_id()
    main = [a for a in answers if a.trial.role == "main" and question.id in a.values]
    rows = []  # rater, system, place, said, read
    sentences: dict[str, dict[str, list[int]]] = {s: {} for s in materials.systems}
    items: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for a in main:
        video = video_of[a.trial.first]
        given = a.values[question.id]
        read = normalise(given) if isinstance(given, str) else list(given)
        pairs = matched(video.words, read)
        for place, (said, got) in enumerate(pairs):
            rows.append((a.session, video.system, place, said, got))
        whole = sentences[video.system].setdefault(a.session, [0, 0])
        whole[0] += all(said == got for said, got in pairs) and len(read) == len(video.words)
        whole[1] += 1
        items[video.id][0] += sum(said == got for said, got in pairs)
        items[video.id][1] += len(pairs)
    raters = list(dict.fromkeys(r[0] for r in rows))
    places = max((r[2] for r in rows), default=-1) + 1
    labels = [
        question.labels[i] if i < len(question.labels) else f"Word {i + 1}" for i in range(places)
    ]
    chances = (
        [1 / len(place) for place in materials.choices]
        if materials.choices and config.trials.entry == "pick"
        else []
    )

    def shares(chosen: Sequence[tuple[str, str, int, str, str]]) -> Result:
        counts: dict[str, list[int]] = {rater: [0, 0] for rater in raters}
        for rater, _, _, said, got in chosen:
            counts[rater][0] += said == got
            counts[rater][1] += 1
        return _share([(k, n) for k, n in counts.values() if n], level, chance=None)

    systems = []
    for system in materials.systems:
        mine = [r for r in rows if r[1] == system]
        systems.append(
            {
                "system": system,
                **shares(mine),
                "sentences": _share(
                    [(k, n) for k, n in sentences[system].values()], level, chance=None
                ),
                "places": [
                    {"place": labels[i], **shares([r for r in mine if r[2] == i])}
                    for i in range(places)
                ],
            }
        )
    confusions = []
    for i in range(places):
        counts = Counter((r[3], r[4]) for r in rows if r[2] == i)
        shown = Counter(r[3] for r in rows if r[2] == i)
        confusions.append(
            {
                "place": labels[i],
                "n": sum(counts.values()),
                "wrong": [
                    {"said": s, "read": g or "(nothing)", "k": k, "n": shown[s]}
                    for (s, g), k in sorted(counts.items(), key=lambda x: (-x[1], x[0]))
                    if s != g
                ][:12],
                "words": sorted({w for pair in counts for w in pair if w}),
                "table": [{"said": s, "read": g, "k": k} for (s, g), k in sorted(counts.items())],
            }
        )
    return {
        "entry": config.trials.entry,
        "all": shares(rows),
        "chance": sum(chances) / len(chances) if chances else None,
        "place_chances": [
            {"place": labels[i] if i < places else "", "chance": c} for i, c in enumerate(chances)
        ],
        "systems": systems,
        "confusions": confusions,
        "items": sorted(
            (
                {
                    "item": video_of[v].item,
                    "system": video_of[v].system,
                    "k": k,
                    "n": n,
                    "share": k / n,
                }
                for v, (k, n) in items.items()
            ),
            key=lambda row: (row["share"], row["item"]),
        ),
    }
