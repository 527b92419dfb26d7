"""``study.toml``: what a study says, shows and asks. Checks that depend on the kind of study are
in :mod:`stillspeak.study.kinds`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from stillspeak.errors import ConfigError
from stillspeak.system.configuration import build, configuration, read_toml, to_table

FILE = "study.toml"

Bound = Annotated[int, Field(ge=0, le=10**9)]
"""0: none."""


@configuration("texts")
class Texts:
    """What the page says; HTML in it is shown as text."""

    title: str = "A short study of videos"
    intro: str = ""
    consent: str = ""
    agree: str = "I have read this, I am at least 18 years old, and I agree to take part."
    thanks: str = "Thank you. Your answers are stored."
    language: Annotated[str, Field(pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*$")] = "en"


@configuration("trials")
class Trials:
    """How many, and of which sort."""

    count: Annotated[int, Field(ge=1, le=1000)] = 30
    training: Annotated[int, Field(ge=0, le=100)] = 0
    feedback: bool = True
    catch: Annotated[int, Field(ge=0, le=100)] = 0
    repeats: Annotated[int, Field(ge=0)] = 0
    sampling: Literal["random", "equal"] = "random"
    entry: Literal["pick", "type"] = "pick"


@configuration("playback")
class Playback:
    """How videos are shown."""

    must_watch: bool = True
    max_plays: Annotated[int, Field(ge=0, le=1000)] = 0
    together: bool = True
    sound: bool = True


@configuration("balance")
class Balance:
    """Trials of visitors who left count as shown only for so long, in minutes."""

    abandoned_after: Annotated[int, Field(ge=1, le=10**6)] = 60


@configuration("limits")
class Limits:
    """Bounds on use; 0: none."""

    visitors: Bound = 0
    starts_per_hour: Bound = 60
    requests_per_minute: Bound = 1200


@configuration("analysis")
class Analysis:
    """How answers are counted."""

    max_wrong_catches: Annotated[int, Field(ge=0, le=1000)] = 0
    incomplete: Literal["include", "exclude"] = "include"
    level: Annotated[float, Field(ge=0.5, lt=1)] = 0.95


@configuration("questions")
class Question:
    """One question of every trial; without labels it gets the usual ones."""

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
    text: str
    labels: tuple[str, ...] = ()


@configuration("study")
class StudyConfig:
    """A study's settings. ``seed`` decides order and sides, together with what is balanced."""

    kind: str
    seed: int = 0
    texts: Texts = field(default_factory=Texts)
    trials: Trials = field(default_factory=Trials)
    playback: Playback = field(default_factory=Playback)
    balance: Balance = field(default_factory=Balance)
    limits: Limits = field(default_factory=Limits)
    analysis: Analysis = field(default_factory=Analysis)
    questions: tuple[Question, ...] = ()


def read_config(folder: str | Path) -> StudyConfig:
    """Read a study's ``study.toml`` as it is written.

    Raises:
        ConfigError: the file is missing or not TOML, a key is unknown, or a value is wrong.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: holds no {FILE}; make a study with: stillspeak study init")
    return build(StudyConfig, read_toml(path), name=str(path))


_NOTES = {  # what each key means
    "texts": "intro, consent and thanks: paragraphs, *emphasis*, **strong**, lists, [links](...)",
    "count": "trials that count, for each visitor",
    "training": "before them; on videos kept for training",
    "feedback": "say after a training trial what was right",
    "catch": "trials with an obviously bad video",
    "repeats": "trials asked again, sides exchanged, to measure consistency",
    "sampling": "Turing test: a coin for every trial (random), or half and half (equal)",
    "entry": "lip reading: pick words from lists, or type them",
    "must_watch": "no answer before every video was played to its end",
    "max_plays": "0: no limit",
    "together": "pairs in step with one sound; false: one after the other, each with its own",
    "abandoned_after": "minutes after which an unfinished visitor's open trials go to others",
    "visitors": "in all; 0: no limit",
    "starts_per_hour": "from one address; 0: no limit",
    "requests_per_minute": "from one address, videos included; 0: no limit",
    "max_wrong_catches": "visitors with more are left out, and counted",
    "incomplete": "answers of visitors who did not finish: include or exclude",
}


def as_toml(config: StudyConfig) -> str:
    """A configuration as the text of a ``study.toml``, with a comment for each key."""
    table = to_table(config)
    lines = ["# A study's settings; docs/studies.md explains them. Unknown keys are refused."]
    lines += [f"kind = {_value(table.pop('kind'))}", f"seed = {table.pop('seed')}"]
    questions = table.pop("questions")
    for section, values in table.items():
        lines += ["", f"[{section}]"]
        if section in _NOTES:
            lines.append(f"# {_NOTES[section]}")
        for key, value in values.items():
            note = _NOTES.get(key, "")
            lines.append(f"{key} = {_value(value)}" + (f"  # {note}" if note else ""))
    for question in questions:
        lines += ["", "[[questions]]"]
        lines += [f"{key} = {_value(value)}" for key, value in question.items()]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        body = value.replace("\\", "\\\\").replace('"""', '""\\"')
        return f'"""\n{body}"""'
    return json.dumps(value, ensure_ascii=False)


def fingerprint(config: StudyConfig) -> str:
    """Sixteen hexadecimal digits that change with whatever a visitor could notice."""
    table = {k: v for k, v in to_table(config).items() if k not in ("analysis", "limits")}
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]
