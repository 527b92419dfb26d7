"""Answers to results: who counts, and the numbers of each kind of study.

The result is plain JSON, the same for the same answers; reports only write it out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from stillspeak.study.config import fingerprint
from stillspeak.study.kinds import Result, Study
from stillspeak.study.records import Answer, Answers


def analyse(study: Study, data: Answers) -> Result:
    """The results of a study as JSON values: ``main`` over the visitors that count, ``everybody``
    the same over all, excluded ones included.
    """
    config, materials, kind = study.config, study.materials, study.kind
    finished = {v.session for v in data.visitors if v.finished is not None}
    who, kept = _who(study, data, finished)
    mine = [a for a in data.answers if a.session in kept]
    everybody = config.analysis.incomplete == "include"
    others = [a for a in data.answers if everybody or a.session in finished]
    return {
        "kind": config.kind,
        "title": config.texts.title,
        "level": config.analysis.level,
        "systems": list(materials.systems),
        "items": len(materials.of("main")),
        "who": who,
        "timing": _timing(mine),
        "main": kind.analyse(study, mine) if mine else None,
        "everybody": kind.analyse(study, others) if who["excluded_catch"] and others else None,
        "exposure": _exposure(study, data.answers),
    }


def _who(study: Study, data: Answers, finished: set[str]) -> tuple[Result, set[str]]:
    analysis, question = study.config.analysis, study.config.questions[0].id
    now = fingerprint(study.config)
    caught: dict[str, list[bool]] = defaultdict(list)  # whether each catch trial was missed
    for answer in data.answers:
        if answer.trial.role == "catch":
            passed = study.kind.passed(answer.trial, answer.values[question])
            caught[answer.session].append(not passed)
    careless = {s for s, missed in caught.items() if sum(missed) > analysis.max_wrong_catches}
    answered = {v.session for v in data.visitors if v.answers}
    kept = answered - careless
    if analysis.incomplete == "exclude":
        kept &= finished
    return {
        "begun": len(data.visitors),
        "answered": len(answered),
        "finished": len(finished),
        "unfinished": len(answered - finished),
        "incomplete": analysis.incomplete,
        "deleted": data.deleted,
        "simulated": sum(v.simulated for v in data.visitors),
        "answers": len(data.answers),
        "catch_trials": sum(map(len, caught.values())),
        "catch_wrong": sum(map(sum, caught.values())),
        "max_wrong_catches": analysis.max_wrong_catches,
        "excluded_catch": len(careless & answered),
        "counted": len(kept),
        "other_settings": sum(v.configuration != now for v in data.visitors),
    }, kept


def _timing(answers: Sequence[Answer]) -> Result:
    main = [a for a in answers if a.trial.role == "main"]
    if not main:
        return {"n": 0}
    low, middle, high = np.quantile([a.response_ms / 1000 for a in main], (0.25, 0.5, 0.75))
    return {
        "n": len(main),
        "median_s": round(float(middle), 3),
        "quartiles_s": [round(float(low), 3), round(float(high), 3)],
        "mean_plays": round(float(np.mean([a.plays for a in main])), 3),
    }


def _exposure(study: Study, answers: Iterable[Answer]) -> Result:
    """How even the balance is: answers for each main video or pair of videos."""
    main = [a.trial for a in answers if a.trial.role == "main"]
    counts: Counter[Any] = Counter(frozenset((trial.first, trial.second)) for trial in main)
    numbers = [counts[frozenset(cell)] for cell in study.kind.cells(study.materials)]
    return {"cells": len(numbers), "least": min(numbers), "most": max(numbers), "n": len(main)}
