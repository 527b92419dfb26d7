"""Which videos a visitor sees: fair counts over visitors, chance within them.

Earlier visitors' trials count towards balance (see ``AnswerStore.start``). Whatever was shown
least is shown next; among equals the seed and the visitor's number decide.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from stillspeak.errors import ConfigError
from stillspeak.study.kinds import Study
from stillspeak.study.records import Trial
from stillspeak.study.trials import Shown


def check_plan(study: Study) -> None:
    """Check that the videos suffice for what the settings ask.

    Raises:
        ConfigError: which key asks for too much, and what there is.
    """
    trials, kind = study.config.trials, study.kind
    there = sum(kind.trials_per_item(len(s)) for s in study.materials.of("main").values())
    if trials.count > there:
        raise ConfigError(f"study.toml: trials.count: {trials.count}, but there are only {there}")
    kept = len(study.materials.of("training"))
    if trials.training > kept:
        raise ConfigError(
            f"study.toml: trials.training: {trials.training}, but {kept} videos were kept for "
            "training when the study was made"
        )
    bad = len(study.materials.of("catch"))
    if kind.bad_videos and trials.catch > bad:
        raise ConfigError(f"study.toml: trials.catch: {trials.catch}, but there are only {bad}")
    misfit = kind.misfit(study)
    if misfit:
        raise ConfigError(f"study.toml: {misfit}")


def plan_session(study: Study, shown: Shown, number: int) -> list[Trial]:
    """The trials of one visitor, in order.

    Args:
        study: as :func:`check_plan` accepted it.
        shown: how often each video or pair was shown to others.
        number: of the visitor; with the seed it decides what balance leaves open.
    """
    config, kind = study.config, study.kind
    chance = random.Random(f"{config.seed} {number}")
    main = kind.main_trials(study, shown, chance)
    chance.shuffle(main)
    main = _apart(main, study)
    repeats = config.trials.repeats
    again = chance.sample(main[: max(repeats, len(main) * 2 // 3)], repeats)
    repeated = [
        Trial("repeat", t.second or t.first, t.first if t.second else "", t.expected) for t in again
    ]
    body = _mixed(main, repeated, kind.catch_trials(study, main, chance), chance)
    return kind.training_trials(study, chance) + body


def _apart(trials: list[Trial], study: Study) -> list[Trial]:
    """Trials of one item not next to each other, where possible."""
    item_of = {video.id: video.item for video in study.materials.videos}
    waiting, ordered = list(trials), []
    last = ""
    while waiting:
        counts = Counter(item_of[t.first] for t in waiting)
        free = [t for t in waiting if item_of[t.first] != last] or waiting
        most = max(counts[item_of[t.first]] for t in free)
        # An item with many trials left goes first only when it must.
        urgent = most * 2 > len(waiting)
        trial = next(t for t in free if not urgent or counts[item_of[t.first]] == most)
        waiting.remove(trial)
        last = item_of[trial.first]
        ordered.append(trial)
    return ordered


def _mixed(
    main: Sequence[Trial],
    repeats: Sequence[Trial],
    catches: Sequence[Trial],
    chance: random.Random,
) -> list[Trial]:
    """Repeats in the last third, well after their first time; catch trials anywhere but first."""
    body = list(main)
    for trial in repeats:
        first = next(i for i, t in enumerate(body) if set(t.videos) == set(trial.videos))
        least = min(len(body), max(len(main) * 2 // 3, first + 2))
        body.insert(chance.randint(least, len(body)), trial)
    for trial in catches:
        body.insert(chance.randint(min(1, len(body)), len(body)), trial)
    return body
