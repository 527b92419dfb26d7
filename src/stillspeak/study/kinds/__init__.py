"""The kinds of study: each is one module in this folder, found when it is there.

It subclasses :class:`StudyKind`, which says what visitors are asked and shown and what the report
says of their answers, and holds one instance, ``KIND``. All else is the same for all kinds.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, ClassVar

from stillspeak.errors import ConfigError
from stillspeak.study.answers import Form
from stillspeak.study.config import FILE, Question, StudyConfig, Texts, Trials, read_config
from stillspeak.study.materials import Materials, Video, contradiction, load_materials
from stillspeak.study.records import Answer, Trial, Truth
from stillspeak.study.section import ReportBuilder
from stillspeak.study.trials import Cell, Shown, single_videos, take_turns

Result = dict[str, Any]

PAPER_VIDEOS = 30
"""Videos of each method that the paper's survey shows a person."""
MAX_TRIALS = 60
"""More are never proposed: people tire."""

PLACEHOLDER = "put your name, your institution"
"""Stands in the proposed consent until it is filled in."""
_CONSENT = (
    "Taking part is voluntary, and you can stop at any time by closing the page.\n\n"
    "We store your answers, how long they took and how often you played a video, under a random "
    "code. We store no name, no address and nothing about your device. While you take part one "
    "cookie holds the code; it goes when you close the browser. You can delete your answers "
    "during the study, at its end, or later with your code.\n\n"
    f"*If you run this study: {PLACEHOLDER}, a contact and the purpose here.*"
)
_SURROUND = "Please use headphones or loudspeakers, and a screen that shows the videos well."


@dataclass(frozen=True)
class Study:
    """A study's folder with its settings and its videos."""

    folder: Path
    config: StudyConfig
    materials: Materials

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """Read a study's folder.

        Raises:
            StudyError: no study, a damaged file, or a missing video.
            ConfigError: study.toml is wrong.
        """
        materials = load_materials(folder)
        study = cls(Path(folder), load_config(folder), materials)
        if study.config.kind != materials.kind:
            raise ConfigError(
                f"{FILE}: kind: {study.config.kind}, but the videos are for {materials.kind}"
            )
        if not study.kind.consistent(materials):
            raise contradiction(folder)
        return study

    @cached_property
    def kind(self) -> StudyKind:
        return find_kind(self.config.kind)

    @cached_property
    def video_of(self) -> dict[str, Video]:
        """Videos by id."""
        return {video.id: video for video in self.materials.videos}

    @cached_property
    def forms(self) -> dict[str, Form]:
        """The form of each question by its id."""
        return {q.id: self.kind.form(self, q) for q in self.config.questions}

    def checked(self, given: object) -> dict[str, Any]:
        """The answers of one trial by question; raises ValueError if they cannot be given."""
        if not isinstance(given, Mapping) or set(given) != set(self.forms):
            raise ValueError("every question needs its answer")
        return {key: form.check(given[key]) for key, form in self.forms.items()}


@dataclass(frozen=True)
class Rater:
    """A simulated visitor with a share and a leniency of their own."""

    study: Study
    truth: Truth
    careless: bool
    chance: random.Random
    share: float
    lift: float


class StudyKind(ABC):
    """One kind of study. Class attributes say what it is; methods do what differs.

    Attributes:
        name: in study.toml and on the command line.
        summary: for the report's first line.
        title, intro: what the page says; ``{count}`` in them is the number of trials.
        questions: id -> text of what may be asked; the first is asked by default.
        labels: the usual labels of the answers.
        folders: how many folders of videos it takes, at least and at most, and which.
        sides: names of its systems, where they are not the researcher's choice.
        paired: systems' videos of the same name are shown side by side.
        spoken: the words of every video are known.
        bad_videos: catch trials show obviously bad videos.
        remembered: visitors remember the answers, so that no trial comes twice.
        unit: what the report calls what one trial shows.
        method: names and texts of what else the report's method says.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    title: ClassVar[str]
    intro: ClassVar[str]
    questions: ClassVar[Mapping[str, str]]
    labels: ClassVar[tuple[str, ...]] = ()
    one_question: ClassVar[bool] = False
    folders: ClassVar[tuple[int, int, str]] = (1, 50, "a folder of videos or more")
    sides: ClassVar[tuple[str, ...]] = ()
    paired: ClassVar[bool] = False
    silent: ClassVar[bool] = False
    spoken: ClassVar[bool] = False
    bad_videos: ClassVar[bool] = True
    remembered: ClassVar[bool] = False
    unit: ClassVar[str] = "video"
    method: ClassVar[Sequence[tuple[str, str]]] = ()

    def propose(self, items: int, systems: int, catches: int) -> Trials:
        """The numbers of trials that ``study init`` proposes."""
        training = min(2, max(0, items - PAPER_VIDEOS))
        there = (items - training) * self.trials_per_item(systems)
        count = min(self.usual_count(systems), MAX_TRIALS, there)
        return Trials(count, training, catch=min(2, catches), repeats=min(3, count // 5))

    def usual_count(self, systems: int) -> int:
        return PAPER_VIDEOS

    def trials_per_item(self, systems: int) -> int:
        """How many trials one visitor can have of an item that so many systems show."""
        return systems

    def misfit(self, study: Study) -> str:
        """Which setting does not fit the videos, and why; "" where all do."""
        return ""

    def consistent(self, materials: Materials) -> bool:
        """Whether stored videos can be those of such a study."""
        return not self.sides or materials.systems == self.sides

    def cells(self, materials: Materials) -> list[Cell]:
        """All that a trial may show."""
        return [(v.id, "") for s in materials.of("main").values() for v in s.values()]

    def main_trials(self, study: Study, shown: Shown, chance: random.Random) -> list[Trial]:
        """The trials of one visitor that count, in any order."""
        materials, count = study.materials, study.config.trials.count
        groups = {system: single_videos(materials, system) for system in materials.systems}
        picked = take_turns(materials, groups, count, shown, chance, items_first=True)
        return [Trial("main", *cell) for _, cell in picked]

    def training_trials(self, study: Study, chance: random.Random) -> list[Trial]:
        """Trials for practice, on videos of the role ``training``."""
        table = study.materials.of("training")
        items = list(table)
        chance.shuffle(items)
        trials: list[Trial] = []
        for item in self.training_order(items, table)[: study.config.trials.training]:
            videos = list(table[item].values())
            chance.shuffle(videos)
            trials.append(self.training_trial(len(trials), videos))
        return trials

    def training_order(
        self, items: list[str], table: Mapping[str, Mapping[str, Video]]
    ) -> list[str]:
        return items

    def training_trial(self, number: int, videos: Sequence[Video]) -> Trial:
        """The trial for practice on the videos of one item."""
        return Trial("training", videos[0].id)

    def catch_trials(
        self, study: Study, main: Sequence[Trial], chance: random.Random
    ) -> list[Trial]:
        """Trials whose right answer an attentive visitor knows, on obviously bad videos."""
        bad = [v for systems in study.materials.of("catch").values() for v in systems.values()]
        chosen = chance.sample(bad, study.config.trials.catch)
        return [self.catch_trial(study, video, chance) for video in chosen]

    def catch_trial(self, study: Study, video: Video, chance: random.Random) -> Trial:
        raise NotImplementedError

    @abstractmethod
    def form(self, study: Study, question: Question) -> Form:
        """How a question is answered."""

    def captions(self, study: Study) -> Sequence[str]:
        """Of two videos side by side."""
        return ("Video 1", "Video 2")

    def instead(self, study: Study, trial: Trial) -> str:
        """What the visitor is asked to answer whatever the video shows; "" for no such thing."""
        return ""

    def feedback(self, study: Study, trial: Trial, value: Any) -> str:
        """What is said after a training trial; "" where nothing is right or wrong."""
        return ""

    def score(self, study: Study, answers: Sequence[Answer]) -> dict[str, int] | None:
        """What the visitor is told at the end: ``right`` answers ``of`` so many."""
        return None

    def passed(self, trial: Trial, value: Any) -> bool:
        """Whether the answer to a catch trial is an attentive visitor's."""
        return bool(value == trial.expected)

    def export(self, study: Study, trial: Trial, value: Any) -> Result:
        """What an exported row says of an answer: ``chosen``, ``truth`` and ``correct``."""
        return {}

    @abstractmethod
    def analyse(self, study: Study, answers: Sequence[Answer]) -> Result:
        """The numbers of these answers, as JSON values; the same for the same answers."""

    @abstractmethod
    def report(self, study: Study, results: Result, report: ReportBuilder) -> None:
        """Add the headline and the sections of ``results["main"]`` to a report."""

    @abstractmethod
    def overview(self, main: Result) -> list[tuple[str, ...]]:
        """Rows of name, value, n and interval: the main numbers in short."""

    def balance(self, study: Study) -> str:
        """How trials are drawn, for the report's method."""
        return "Systems take turns; videos shown least so far come first."

    def untruth(self, study: Study, truth: Truth) -> str:
        """Which option of ``study simulate`` does not fit, and why; "" where all do."""
        return ""

    @abstractmethod
    def simulate(self, rater: Rater, trial: Trial) -> Any:
        """A simulated rater's answer to one question."""


def kinds() -> dict[str, StudyKind]:
    """All kinds by name: every module of this folder has one."""
    found = [import_module(f"{__name__}.{m.name}").KIND for m in iter_modules(__path__)]
    return {kind.name: kind for kind in found}


def find_kind(name: str) -> StudyKind:
    """The kind of a name; raises ConfigError if there is none."""
    known = kinds()
    if name not in known:
        raise ConfigError(f"{FILE}: kind: {name!r} is not one of {', '.join(sorted(known))}")
    return known[name]


def load_config(folder: str | Path) -> StudyConfig:
    """Read and check a study's ``study.toml``; raises ConfigError as :func:`read_config` does."""
    return check_config(read_config(folder), name=str(Path(folder) / FILE))


def check_config(config: StudyConfig, *, name: str = FILE) -> StudyConfig:
    """The same configuration with its questions completed.

    Raises:
        ConfigError: values do not fit together; says which key of ``name`` is wrong, and why.
    """
    kind = find_kind(config.kind)
    questions = config.questions or [Question(*next(iter(kind.questions.items())))]
    usual = kind.labels
    complete = tuple(q if q.labels else replace(q, labels=usual) for q in questions)
    ids = [q.id for q in complete]
    problems: dict[str, object] = {
        "texts.title: is empty": not config.texts.title.strip(),
        "texts.agree: is empty; visitors must be asked for consent": not config.texts.agree.strip(),
        "trials.repeats: more than trials.count": config.trials.repeats > config.trials.count,
        "trials.repeats: visitors would remember the answer; set it to 0": (
            config.trials.repeats and kind.remembered
        ),
        "questions: a study of this kind asks one question": kind.one_question and len(ids) > 1,
    }
    for number, question in enumerate(complete):
        where = f"questions.{number}"
        problems[f"{where}.id: {question.id!r} is there twice"] = question.id in ids[:number]
        problems[f"{where}.text: is empty"] = not question.text.strip()
        given = len(question.labels)
        wrong = usual and given != len(usual)
        problems[f"{where}.labels: {given} given, {len(usual)} are needed"] = wrong
    for problem in (text for text, there in problems.items() if there):
        raise ConfigError(f"{name}: {problem}")
    return replace(config, questions=complete)


def default_config(
    kind: StudyKind,
    trials: Trials,
    *,
    questions: Sequence[str] = (),
    labels: Sequence[str] = (),
    seed: int = 0,
) -> StudyConfig:
    """The settings that ``study init`` proposes: questions by their ids, the kind's first one if
    none is given; labels of their answers, the kind's likewise.

    Raises:
        ConfigError: an unknown question.
    """
    for key in questions:
        if key not in kind.questions:
            raise ConfigError(f"question {key!r}: not one of {', '.join(kind.questions)}")
    asked = questions or list(kind.questions)[:1]
    intro = kind.intro.format(count=trials.count)
    if not kind.silent:
        intro += "\n\n" + _SURROUND
    return check_config(
        StudyConfig(
            kind=kind.name,
            seed=seed,
            texts=Texts(title=kind.title, intro=intro, consent=_CONSENT),
            trials=trials,
            questions=tuple(Question(k, kind.questions[k], tuple(labels)) for k in asked),
        )
    )
