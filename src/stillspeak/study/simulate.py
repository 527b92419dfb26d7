"""Raters whose truth is known, to test a study before people take part: that it ends, that it is
balanced, and that its report finds what was put in. Their sessions are marked.
"""

from __future__ import annotations

import random

from stillspeak.errors import ConfigError
from stillspeak.study.kinds import Rater, Study
from stillspeak.study.records import Truth
from stillspeak.study.store import AnswerStore


def check_truth(study: Study, truth: Truth) -> None:
    """Raise a ConfigError for a value that cannot be meant."""
    systems = len(study.materials.systems)
    if truth.strengths and len(truth.strengths) != systems:
        raise ConfigError(f"--strengths: {len(truth.strengths)} for {systems} systems")
    if untruth := study.kind.untruth(study, truth):
        raise ConfigError(untruth)


def simulate(study: Study, store: AnswerStore, *, raters: int, truth: Truth, seed: int = 0) -> int:
    """Let raters go through the study, one after the other; the number of answers stored.

    Raises:
        ConfigError: the truth does not fit the study.
        StudyError: the database refuses.
    """
    check_truth(study, truth)
    chance = random.Random(f"raters {seed}")
    careless, leaving = (
        set(chance.sample(range(raters), round(share * raters)))
        for share in (truth.careless, truth.leave)
    )
    stored = 0
    for number in range(raters):
        code = store.code_for(f"{chance.getrandbits(128):032x}")
        session = store.start(code, simulated=True)
        strength = 1 / truth.spread - 1
        share = chance.betavariate(truth.share * strength, (1 - truth.share) * strength)
        lift = chance.gauss(0, 0.3)
        rater = Rater(study, truth, number in careless, chance, share, lift)
        trials = store.trials(session)
        stop = len(trials) // 2 if number in leaving else len(trials)
        rows = []
        for planned in trials[:stop]:
            asked = (question.id for question in study.config.questions)
            values = {key: study.kind.simulate(rater, planned.trial) for key in asked}
            rows.append((planned, values, round(1000 * chance.lognormvariate(1.2, 0.4))))
        store.record(session, rows, finished=stop == len(trials))
        stored += len(rows)
    return stored
