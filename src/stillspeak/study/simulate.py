"""Raters whose truth is known, through the same plans and the same store as people.

They prove a study before anybody is asked: that it ends, that it is balanced, and that its
report finds what was put in. Their sessions are marked, and reports say so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from stillspeak.errors import ConfigError
from stillspeak.study.config import StudyConfig
from stillspeak.study.materials import FAKE, REAL, Materials, Video, normalise
from stillspeak.study.plan import FIRST, SECOND, Trial
from stillspeak.study.store import Store


@dataclass(frozen=True)
class Truth:
    """What simulated raters go by.

    Attributes:
        share: pairs of two systems: how often the first is preferred; Turing test: how often
            the answer is right; lip reading: how often a word is right. Over all raters.
        strengths: pairs: Bradley-Terry's, one a system, in place of ``share``.
        means: ratings: one a system, 1 to 5.
        spread: how much raters differ: a rater's own share comes from a beta distribution
            around the truth with variance ``share * (1 - share) * spread``.
        careless: share of raters who answer at random, catch trials too.
        leave: share of raters who leave half-way.
    """

    share: float = 0.8
    strengths: tuple[float, ...] = ()
    means: tuple[float, ...] = ()
    spread: float = 0.05
    careless: float = 0.0
    leave: float = 0.0


def check_truth(config: StudyConfig, materials: Materials, truth: Truth) -> None:
    """Raises:
    ConfigError: which value cannot be meant.
    """
    for name in ("share", "spread", "careless", "leave"):
        value = getattr(truth, name)
        if not 0 <= value <= 1 or (name in ("share", "spread") and not 0 < value < 1):
            raise ConfigError(f"--{name} {value}: not between 0 and 1")
    systems = len(materials.systems)
    if truth.strengths and len(truth.strengths) != systems:
        raise ConfigError(f"--strengths: {len(truth.strengths)} for {systems} systems")
    if config.kind == "preference" and systems > 2 and not truth.strengths:
        raise ConfigError(f"--strengths: {systems} systems need one each")
    if config.kind == "mos" and (
        len(truth.means) != systems or not all(1 <= m <= 5 for m in truth.means)
    ):
        raise ConfigError(f"--means: {systems} systems need one each, from 1 to 5")


def simulate(
    config: StudyConfig,
    materials: Materials,
    store: Store,
    *,
    raters: int,
    truth: Truth,
    seed: int = 0,
) -> int:
    """Let raters go through the study, one after the other.

    Returns:
        The number of answers stored.

    Raises:
        ConfigError: the truth does not fit the study.
        StudyError: the database refuses.
    """
    check_truth(config, materials, truth)
    chance = random.Random(f"raters {seed}")
    video_of = materials.by_id()
    careless = _some(raters, truth.careless, chance)
    leaving = _some(raters, truth.leave, chance)
    stored = 0
    for rater in range(raters):
        code = store.code_for(f"{chance.getrandbits(128):032x}")
        session = store.start(code, config, simulated=True)
        person = _Person(config, materials, truth, rater in careless, chance)
        trials = store.trials(session.id)
        stop = len(trials) // 2 if rater in leaving else len(trials)
        rows = []
        for planned in trials[:stop]:
            values = {
                question.id: person.answer(planned.trial, video_of) for question in config.questions
            }
            rows.append((planned, values, round(1000 * chance.lognormvariate(1.2, 0.4))))
        store.record(session.id, rows, finished=stop == len(trials))
        stored += len(rows)
    return stored


def _some(raters: int, share: float, chance: random.Random) -> set[int]:
    return set(chance.sample(range(raters), round(share * raters)))


class _Person:
    """One simulated rater with a share of their own."""

    def __init__(
        self,
        config: StudyConfig,
        materials: Materials,
        truth: Truth,
        careless: bool,
        chance: random.Random,
    ) -> None:
        self._config = config
        self._materials = materials
        self._truth = truth
        self._careless = careless
        self._chance = chance
        strength = 1 / truth.spread - 1
        self._share = chance.betavariate(truth.share * strength, (1 - truth.share) * strength)
        self._lift = chance.gauss(0, 0.3)  # of ratings

    def answer(self, trial: Trial, video_of: dict[str, Video]) -> Any:
        kind = self._config.kind
        first = video_of[trial.first]
        if kind == "preference":
            return self._pair(trial, first, video_of[trial.second])
        if kind == "turing":
            return self._real_or_fake(trial)
        if kind == "mos":
            return self._rating(trial, first)
        return self._read(trial, first)

    def _pair(self, trial: Trial, first: Video, second: Video) -> str:
        if self._careless:
            return self._chance.choice((FIRST, SECOND))
        if trial.expected:
            return trial.expected
        systems = self._materials.systems
        if self._truth.strengths:
            import math

            table = dict(zip(systems, self._truth.strengths, strict=True))
            p = 1 / (1 + math.exp(table[second.system] - table[first.system]))
        else:
            p = self._share if first.system == systems[0] else 1 - self._share
        return FIRST if self._chance.random() < p else SECOND

    def _real_or_fake(self, trial: Trial) -> str:
        if self._careless:
            return self._chance.choice((REAL, FAKE))
        if trial.role == "catch" or self._chance.random() < self._share:
            return trial.expected
        return FAKE if trial.expected == REAL else REAL

    def _rating(self, trial: Trial, video: Video) -> int:
        if self._careless:
            return self._chance.randint(1, 5)
        if trial.role == "catch":
            return 1
        # Rounded at random, so that nothing but the bounds moves the mean.
        table = dict(zip(self._materials.systems, self._truth.means, strict=True))
        value = table[video.system] + self._lift + self._chance.gauss(0, 0.5)
        floor = int(value // 1)
        return min(5, max(1, floor + (self._chance.random() < value - floor)))

    def _read(self, trial: Trial, video: Video) -> Any:
        words: Sequence[str] = trial.expected.split() if trial.expected else video.words
        everything = sorted({w for v in self._materials.videos for w in v.words})
        read = []
        for place, word in enumerate(words):
            lists = self._materials.choices
            others = [w for w in (lists[place] if lists else everything) if w != word]
            hit = not self._careless and (trial.expected or self._chance.random() < self._share)
            read.append(word if hit or not others else self._chance.choice(others))
        if self._config.trials.entry == "type":
            return " ".join(normalise(" ".join(read)))
        return read
