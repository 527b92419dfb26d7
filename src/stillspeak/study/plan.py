"""Which videos a visitor sees: what was shown least to others comes next; among equals the seed and
the visitor's number decide.
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
    trials, kind, of = study.config.trials, study.kind, study.materials.of
    there = sum(kind.trials_per_item(len(systems)) for systems in of("main").values())
    kept, bad = len(of("training")), len(of("catch"))
    if trials.count > there:
        problem = f"trials.count: {trials.count}, but there are only {there}"
    elif trials.training > kept:
        problem = (
            f"trials.training: {trials.training}, but {kept} videos were kept for training when "
            "the study was made"
        )
    elif kind.bad_videos and trials.catch > bad:
        problem = f"trials.catch: {trials.catch}, but there are only {bad}"
    else:
        problem = kind.misfit(study)
    if problem:
        raise ConfigError(f"study.toml: {problem}")


def plan_session(study: Study, shown: Shown, number: int) -> list[Trial]:
    """One visitor's trials, in order; the visitor's number decides what balance leaves open."""
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
    waiting = [(study.video_of[trial.first].item, trial) for trial in trials]
    ordered: list[Trial] = []
    last = ""
    while waiting:
        counts = Counter(item for item, _ in waiting)
        free = [pair for pair in waiting if pair[0] != last] or waiting
        most = max(counts[item] for item, _ in free)
        # An item with many trials left goes first only when it must.
        urgent = most * 2 > len(waiting)
        last, trial = chosen = next(p for p in free if not urgent or counts[p[0]] == most)
        waiting.remove(chosen)
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
