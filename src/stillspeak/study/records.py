"""Plain values: what is planned, what a database holds, and what simulated raters go by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

TrialRole = Literal["training", "main", "catch", "repeat"]

FIRST, SECOND = "first", "second"
"""Answers to a pair: the left or upper video, and the other."""


@dataclass(frozen=True)
class Trial:
    """One trial: the ids of the videos from left to right, ``second`` empty where there is one.

    ``expected``: the answer that an attentive visitor gives; empty where there is none.
    """

    role: TrialRole
    first: str
    second: str = ""
    expected: str = ""

    @property
    def videos(self) -> tuple[str, ...]:
        return (self.first, self.second) if self.second else (self.first,)


@dataclass(frozen=True)
class StoredTrial:
    """One trial of a session, with what was done so far. Times are UTC seconds."""

    id: int
    position: int
    trial: Trial
    plays: int
    watched: int
    first_played: float | None
    answered: bool


@dataclass(frozen=True)
class Answer:
    """One answer with all that belongs to it, for reports and exports.

    Attributes:
        session: the visitor's pseudonym.
        position: of the trial, from 1.
        trial: what was shown.
        values: question id -> answer.
        response_ms: from the page's clock, since the trial could first be played.
        plays, watched: playbacks started, and finished.
        answered: UTC seconds.
        simulated: by ``study simulate``.
    """

    session: str
    position: int
    trial: Trial
    values: Mapping[str, Any]
    response_ms: int
    plays: int
    watched: int
    answered: float
    simulated: bool


@dataclass(frozen=True)
class Visitor:
    """A session as reports see it. ``trials``: planned ones, ``answers``: given ones."""

    session: str
    started: float
    finished: float | None
    trials: int
    answers: int
    configuration: str
    simulated: bool


@dataclass(frozen=True)
class Answers:
    """Everything in a study's database, read at one time. ``deleted``: visitors who deleted
    their answers.
    """

    visitors: tuple[Visitor, ...]
    answers: tuple[Answer, ...]
    deleted: int


@dataclass(frozen=True)
class Truth:
    """What simulated raters go by.

    Attributes:
        share: pairs of two systems: how often the first is preferred; Turing test: how often
            the answer is right; lip reading: how often a word is right. Over all raters.
        strengths: pairs: Bradley-Terry strengths, one for each system, in place of ``share``.
        means: ratings: one for each system, 1 to 5.
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


def iso(seconds: float | None) -> str:
    """UTC seconds as text, to the second."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
