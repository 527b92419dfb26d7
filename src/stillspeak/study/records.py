"""Plain values: what is planned, what a database holds, and what options say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from stillspeak.system.configuration import configuration

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


@configuration()
class VideoOptions:
    """How ``study init`` takes videos."""

    words: Annotated[
        Path | None,
        Field(
            description="Lip reading: CSV with the columns file and words, unless files have GRID "
            "names."
        ),
    ] = None
    catch: Annotated[
        Path | None,
        Field(
            description="Folder of obviously bad videos, named as the others; by default some are "
            "frozen and coarsened."
        ),
    ] = None
    link: Annotated[bool, Field(description="Hard links instead of copies, metadata and all.")] = (
        False
    )
    convert: Annotated[bool, Field(description="Convert what browsers do not play to MP4.")] = False
    skip_unpaired: Annotated[bool, Field(description="Leave out names that some folders lack.")] = (
        False
    )
    length_tolerance: Annotated[
        float, Field(ge=0, description="Seconds by which lengths in a pair may differ.")
    ] = 0.5


@configuration()
class RaterOptions:
    """How simulated raters answer."""

    share: Annotated[
        float,
        Field(
            gt=0,
            lt=1,
            description="Pairs: how often the first system is preferred; Turing test: how often "
            "the answer is right; lip reading: how often a word is. Over all raters.",
        ),
    ] = 0.8
    spread: Annotated[
        float, Field(gt=0, lt=1, description="How much raters differ, from 0 to 1.")
    ] = 0.05
    """A rater's own share comes from a beta distribution around ``share`` with variance
    ``share * (1 - share) * spread``."""
    careless: Annotated[
        float, Field(ge=0, le=1, description="Share who answer at random, catch trials too.")
    ] = 0.0
    leave: Annotated[float, Field(ge=0, le=1, description="Share who leave half-way.")] = 0.0


@configuration()
class Truth(RaterOptions):
    """What simulated raters go by.

    Attributes:
        strengths: pairs: Bradley-Terry strengths, one for each system, in place of ``share``.
        means: ratings: one for each system, 1 to 5.
    """

    strengths: tuple[float, ...] = ()
    means: tuple[float, ...] = ()


def iso(seconds: float | None) -> str:
    """UTC seconds as text, to the second."""
    if seconds is None:
        return ""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
