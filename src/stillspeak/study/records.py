"""Plain values: what is planned, what a database holds, and what options say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

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
    """One answer with all that belongs to it. ``session`` is the visitor's pseudonym, ``position``
    counts from 1, ``values`` go by question; ``response_ms`` is from the page's clock, since the
    trial could first be played.
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
    """A study's database, read at one time. ``deleted``: visitors who deleted their answers."""

    visitors: tuple[Visitor, ...]
    answers: tuple[Answer, ...]
    deleted: int


@configuration()
class VideoOptions:
    """How ``study init`` takes videos."""

    words: Path | None = Field(
        default=None,
        description="Lip reading: CSV with the columns file and words, unless files have GRID "
        "names.",
    )
    catch: Path | None = Field(
        default=None,
        description="Folder of obviously bad videos, named as the others; by default some are "
        "frozen and coarsened.",
    )
    link: bool = Field(default=False, description="Hard links instead of copies, metadata and all.")
    convert: bool = Field(default=False, description="Convert what browsers do not play to MP4.")
    skip_unpaired: bool = Field(
        default=False, description="Leave out names that some folders lack."
    )
    length_tolerance: float = Field(
        default=0.5, ge=0, description="Seconds by which lengths in a pair may differ."
    )


@configuration()
class RaterOptions:
    """How simulated raters answer."""

    share: float = Field(
        default=0.8,
        gt=0,
        lt=1,
        description="Pairs: how often the first system is preferred; Turing test: how often "
        "the answer is right; lip reading: how often a word is. Over all raters.",
    )
    spread: float = Field(
        default=0.05, gt=0, lt=1, description="How much raters differ, from 0 to 1."
    )
    """A rater's own share comes from a beta distribution around ``share`` with variance
    ``share * (1 - share) * spread``."""
    careless: float = Field(
        default=0.0, ge=0, le=1, description="Share who answer at random, catch trials too."
    )
    leave: float = Field(default=0.0, ge=0, le=1, description="Share who leave half-way.")


@configuration()
class Truth(RaterOptions):
    """What simulated raters go by: for pairs Bradley-Terry ``strengths`` in place of ``share``,
    for ratings ``means`` from 1 to 5, one for each system.
    """

    strengths: tuple[float, ...] = ()
    means: tuple[float, ...] = ()


def iso(seconds: float | None) -> str:
    """UTC seconds as text, to the second."""
    return "" if seconds is None else f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%SZ}"
