"""``study.toml``: what a study says, shows and asks."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from stillspeak.errors import ConfigError
from stillspeak.system.configuration import FORBID_UNKNOWN, build, read_toml, to_table

Kind = Literal["preference", "turing", "mos", "intelligibility"]
KINDS: tuple[Kind, ...] = get_args(Kind)

FILE = "study.toml"

PAPER_VIDEOS = 30
"""Videos of each method that the paper's survey shows a person."""
PAPER_TURING = 10
"""Videos that the paper's Turing test shows a person."""
MOST_TRIALS = 60
"""More are never proposed: people tire."""


@dataclass(frozen=True)
class Texts:
    """What the page says. ``intro``, ``consent`` and ``thanks`` are limited Markdown: paragraphs,
    emphasis, lists and links; HTML in them is shown as text.
    """

    __pydantic_config__ = FORBID_UNKNOWN
    title: str = "A short study of videos"
    intro: str = ""
    consent: str = ""
    agree: str = "I have read this, I am at least 18 years old, and I agree to take part."
    thanks: str = "Thank you. Your answers are stored."
    language: str = "en"


@dataclass(frozen=True)
class Trials:
    """How many, and of which sort.

    Attributes:
        count: trials that count, for each visitor.
        training: trials before them, on videos that nobody is asked about otherwise.
        feedback: after a training trial say what was right, where something is.
        catch: trials with an obviously bad video among them; who misses one was not looking.
        repeats: trials asked a second time, sides exchanged; they measure consistency only.
        sampling: Turing test: ``random`` tosses a coin for every trial, ``equal`` shows as many
            real videos as fake ones.
        entry: lip reading: ``pick`` words from lists or ``type`` them.
    """

    __pydantic_config__ = FORBID_UNKNOWN
    count: int = PAPER_VIDEOS
    training: int = 0
    feedback: bool = True
    catch: int = 0
    repeats: int = 0
    sampling: Literal["random", "equal"] = "random"
    entry: Literal["pick", "type"] = "pick"


@dataclass(frozen=True)
class Playback:
    """How videos are shown.

    Attributes:
        must_watch: answers are taken only after every video was played to its end.
        max_plays: how often a trial may be played; 0: as often as the visitor likes.
        together: pairs play in step, with the sound of one of them; otherwise one after the
            other, each with its own sound.
        sound: with sound, where the videos have any.
    """

    __pydantic_config__ = FORBID_UNKNOWN
    must_watch: bool = True
    max_plays: int = 0
    together: bool = True
    sound: bool = True


@dataclass(frozen=True)
class Balance:
    """Trials of visitors who went away count as shown only for so long, in minutes."""

    __pydantic_config__ = FORBID_UNKNOWN
    abandoned_after: int = 60


@dataclass(frozen=True)
class Limits:
    """Bounds on use; 0: none.

    Attributes:
        visitors: sessions in all.
        starts_per_hour: sessions begun from one address.
        requests_per_minute: requests from one address, videos included.
    """

    __pydantic_config__ = FORBID_UNKNOWN
    visitors: int = 0
    starts_per_hour: int = 60
    requests_per_minute: int = 1200


@dataclass(frozen=True)
class Analysis:
    """How answers are counted.

    Attributes:
        max_wrong_catches: a visitor with more wrong catch trials is left out.
        incomplete: ``include`` or ``exclude`` the answers of visitors who did not finish.
        level: of the intervals.
    """

    __pydantic_config__ = FORBID_UNKNOWN
    max_wrong_catches: int = 0
    incomplete: Literal["include", "exclude"] = "include"
    level: float = 0.95


@dataclass(frozen=True)
class Question:
    """One question of every trial.

    Attributes:
        id: its name in exports.
        text: plain text.
        labels: of the choices: two for pairs and the Turing test, five anchors from 1 to 5 for
            ratings, the names of the words' places for lip reading; empty: the usual ones.
    """

    __pydantic_config__ = FORBID_UNKNOWN
    id: str
    text: str
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class StudyConfig:
    """A study's settings. ``seed`` decides order and sides, together with what is balanced."""

    __pydantic_config__ = FORBID_UNKNOWN
    kind: Kind
    seed: int = 0
    texts: Texts = field(default_factory=Texts)
    trials: Trials = field(default_factory=Trials)
    playback: Playback = field(default_factory=Playback)
    balance: Balance = field(default_factory=Balance)
    limits: Limits = field(default_factory=Limits)
    analysis: Analysis = field(default_factory=Analysis)
    questions: tuple[Question, ...] = ()


QUESTIONS: dict[Kind, dict[str, str]] = {
    "preference": {
        "natural": "Which of the two videos looks more natural?",
        "sync": "In which of the two do the lips fit the sound better?",
        "realism": "In which of the two does the person look more real?",
    },
    "turing": {"real": "Is this video real or fake?"},
    "mos": {
        "quality": "How good is this video, all in all?",
        "sync": "How well do the lips fit the sound?",
        "realism": "How real does the person look?",
    },
    "intelligibility": {"words": "Which words does the person say? There is no sound."},
}
"""What each kind may ask; the first is asked unless others are chosen."""

LABELS: dict[Kind, tuple[str, ...]] = {
    "preference": ("Video 1", "Video 2"),
    "turing": ("Real", "Fake"),
    "mos": ("Bad", "Poor", "Fair", "Good", "Excellent"),
    "intelligibility": (),
}
"""Usual labels; those of ratings are ITU-T P.800's five grades."""

GRID_PLACES = ("Command", "Colour", "Preposition", "Letter", "Digit", "Adverb")

_TITLES: dict[Kind, str] = {
    "preference": "Which video looks more natural?",
    "turing": "Real or fake?",
    "mos": "How good are these videos?",
    "intelligibility": "Can you read lips?",
}
_INTROS: dict[Kind, str] = {
    "preference": (
        "You will see pairs of short videos of people who speak. Both say the same. Choose the "
        "one that looks **more natural**; there is no right or wrong answer."
    ),
    "turing": (
        "You will see {count} short videos of people who speak. Some are **real** recordings, "
        "others were **made by a computer**. Say of each which it is; at the end you see how "
        "many you got right."
    ),
    "mos": "You will see short videos of people who speak. Rate each from 1 to 5.",
    "intelligibility": (
        "You will see short videos of people who speak, **without sound**. Say which words you "
        "read from their lips; guess where you are not sure."
    ),
}
_CONSENT = (
    "Taking part is voluntary, and you can stop at any time by closing the page.\n\n"
    "We store your answers, how long they took and how often you played a video, under a random "
    "code. We store no name, no address and nothing about your device. While you take part one "
    "cookie holds the code; it goes when you close the browser. You can delete your answers "
    "during the study, at its end, or later with your code.\n\n"
    "*Whoever runs this study: put your name, your institution, a contact and the purpose here.*"
)
PLACEHOLDER = "Whoever runs this study: put your name"
"""Stands in the proposed consent until somebody fills it in."""
_SURROUND = "Please use headphones or loudspeakers, and a screen that shows the videos well."

_ID = re.compile(r"[a-z][a-z0-9_]{0,31}")


def load_config(folder: str | Path) -> StudyConfig:
    """Read and check a study's ``study.toml``.

    Raises:
        ConfigError: the file is missing or not TOML, a key is unknown, or a value is wrong.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise ConfigError(f"{folder}: holds no {FILE}; make a study with: stillspeak study init")
    config = build(StudyConfig, read_toml(path), name=str(path))
    return check_config(config, name=str(path))


def check_config(config: StudyConfig, *, name: str = FILE) -> StudyConfig:
    """The same configuration with its questions completed, once every value makes sense.

    Raises:
        ConfigError: which key of ``name`` is wrong, and why.
    """
    for key, value, least, most in (
        ("trials.count", config.trials.count, 1, 1000),
        ("trials.training", config.trials.training, 0, 100),
        ("trials.catch", config.trials.catch, 0, 100),
        ("trials.repeats", config.trials.repeats, 0, config.trials.count),
        ("playback.max_plays", config.playback.max_plays, 0, 1000),
        ("balance.abandoned_after", config.balance.abandoned_after, 1, 10**6),
        ("limits.visitors", config.limits.visitors, 0, 10**9),
        ("limits.starts_per_hour", config.limits.starts_per_hour, 0, 10**9),
        ("limits.requests_per_minute", config.limits.requests_per_minute, 0, 10**9),
        ("analysis.max_wrong_catches", config.analysis.max_wrong_catches, 0, 1000),
    ):
        if not least <= value <= most:
            raise ConfigError(f"{name}: {key}: {value} is not between {least} and {most}")
    if not 0.5 <= config.analysis.level < 1:
        raise ConfigError(f"{name}: analysis.level: {config.analysis.level} is not in [0.5, 1)")
    if not config.texts.title.strip():
        raise ConfigError(f"{name}: texts.title: is empty")
    if not re.fullmatch(r"[A-Za-z]{2,3}(-[A-Za-z0-9]{1,8})*", config.texts.language):
        raise ConfigError(f"{name}: texts.language: {config.texts.language!r} is no language tag")
    if not config.texts.agree.strip():
        raise ConfigError(f"{name}: texts.agree: is empty; visitors must be asked for consent")
    if config.kind == "intelligibility" and config.trials.repeats:
        raise ConfigError(f"{name}: trials.repeats: words are remembered; set it to 0")
    questions = config.questions or tuple(
        Question(key, text) for key, text in list(QUESTIONS[config.kind].items())[:1]
    )
    if config.kind in ("turing", "intelligibility") and len(questions) > 1:
        raise ConfigError(f"{name}: questions: a study of this kind asks one question")
    seen: set[str] = set()
    for number, question in enumerate(questions):
        where = f"{name}: questions.{number}"
        if not _ID.fullmatch(question.id):
            raise ConfigError(
                f"{where}.id: {question.id!r} is not a lower-case word of letters, digits and _"
            )
        if question.id in seen:
            raise ConfigError(f"{where}.id: {question.id!r} is there twice")
        seen.add(question.id)
        if not question.text.strip():
            raise ConfigError(f"{where}.text: is empty")
        usual = LABELS[config.kind]
        if question.labels and usual and len(question.labels) != len(usual):
            raise ConfigError(
                f"{where}.labels: {len(question.labels)} given, {len(usual)} are needed"
            )
    return _with_questions(config, questions)


def _with_questions(config: StudyConfig, questions: Sequence[Question]) -> StudyConfig:
    from dataclasses import replace

    usual = LABELS[config.kind]
    complete = tuple(q if q.labels else replace(q, labels=usual) for q in questions)
    return replace(config, questions=complete)


def default_config(
    kind: Kind,
    *,
    items: int,
    systems: int,
    catches: int,
    questions: Sequence[str] = (),
    seed: int = 0,
    grid: bool = False,
    pick: bool = True,
) -> StudyConfig:
    """The settings that ``study init`` proposes.

    Args:
        kind: of the study.
        items: different names of videos (pairs: that every system has).
        systems: how many there are.
        catches: catch videos that there are.
        questions: ids out of :data:`QUESTIONS`; empty: the first.
        seed: of order and sides.
        grid: lip reading: the words are GRID's six.
        pick: lip reading: there are lists to pick from.

    Raises:
        ConfigError: an unknown question.
    """
    known = QUESTIONS[kind]
    for key in questions:
        if key not in known:
            raise ConfigError(f"question {key!r}: not one of {', '.join(known)}")
    asked = tuple(
        Question(key, known[key], GRID_PLACES if grid else LABELS[kind])
        for key in (questions or list(known)[:1])
    )
    spare = items - PAPER_VIDEOS
    training = 0
    if kind == "turing":
        count = min(PAPER_TURING, items)
        catch = repeats = 0
    else:
        training = min(2, max(0, spare))
        rest = items - training
        cells = {
            "preference": rest * systems * (systems - 1) // 2,
            "mos": rest * systems,
            "intelligibility": rest,
        }[kind]
        proposed = PAPER_VIDEOS * systems // 2 if kind == "preference" else PAPER_VIDEOS
        count = min(proposed, MOST_TRIALS, cells)
        catch = min(2, catches) if kind != "intelligibility" else min(1, count)
        repeats = 0 if kind == "intelligibility" else min(3, count // 5)
    intro = _INTROS[kind].format(count=count)
    if kind != "intelligibility":
        intro += "\n\n" + _SURROUND
    return check_config(
        StudyConfig(
            kind=kind,
            seed=seed,
            texts=Texts(title=_TITLES[kind], intro=intro, consent=_CONSENT),
            trials=Trials(
                count=count,
                training=training,
                catch=catch,
                repeats=repeats,
                entry="pick" if pick else "type",
            ),
            questions=asked,
        )
    )


_NOTES = {
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
    """A configuration as the text of a ``study.toml``, with a remark for each key."""
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
    if isinstance(value, str):
        if "\n" in value:
            body = value.replace("\\", "\\\\").replace('"""', '""\\"')
            return f'"""\n{body}"""'
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return "[" + ", ".join(_value(item) for item in value) + "]"
    return str(value)


def fingerprint(config: StudyConfig) -> str:
    """Sixteen hexadecimal digits that change with whatever a visitor could notice."""
    import hashlib

    table = to_table(config)
    for key in ("analysis", "limits"):
        table.pop(key)
    return hashlib.sha256(json.dumps(table, sort_keys=True).encode()).hexdigest()[:16]
