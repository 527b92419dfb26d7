"""Which videos a visitor sees: fair counts over visitors, chance within them.

What counts towards balance are the trials of those before (see ``Store.start``). Whatever was
shown least is shown next; among equals the seed and the visitor's number decide.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from stillspeak.errors import ConfigError
from stillspeak.study.config import StudyConfig
from stillspeak.study.materials import FAKE, REAL, Materials, Video

TrialRole = Literal["training", "main", "catch", "repeat"]

FIRST, SECOND = "first", "second"
"""Answers to a pair: the left or upper video, and the other."""

Shown = Mapping[tuple[str, str], int]
"""How often two videos stood side by side, in this order; ("id", "") for a single video."""


@dataclass(frozen=True)
class Trial:
    """One trial: the ids of the videos from left to right, ``second`` empty where there is one.

    ``expected``: the answer that a visitor who looks gives; empty where there is none.
    """

    role: TrialRole
    first: str
    second: str = ""
    expected: str = ""


def check_plan(config: StudyConfig, materials: Materials) -> None:
    """See that the videos suffice for what the settings ask.

    Raises:
        ConfigError: which key asks for too much, and what there is.
    """
    if config.kind != materials.kind:
        raise ConfigError(
            f"study.toml: kind: {config.kind}, but the videos are for {materials.kind}"
        )
    main, trials = materials.of("main"), config.trials
    cells = {
        "preference": sum(len(s) * (len(s) - 1) // 2 for s in main.values()),
        "mos": sum(len(s) for s in main.values()),
        "turing": len(main),
        "intelligibility": len(main),
    }[config.kind]
    if trials.count > cells:
        raise ConfigError(f"study.toml: trials.count: {trials.count}, but there are only {cells}")
    if config.kind == "turing":
        for side in (REAL, FAKE):
            there = sum(1 for s in main.values() if side in s)
            if there * 2 < trials.count and trials.sampling == "equal":
                raise ConfigError(
                    f"study.toml: trials.count: {trials.count} by halves, but there are only "
                    f"{there} {side} videos"
                )
    kept = len(materials.of("training"))
    if trials.training > kept:
        raise ConfigError(
            f"study.toml: trials.training: {trials.training}, but {kept} videos were kept for "
            "training when the study was made"
        )
    bad = len(materials.of("catch"))
    if config.kind != "intelligibility" and trials.catch > bad:
        raise ConfigError(f"study.toml: trials.catch: {trials.catch}, but there are only {bad}")
    if config.kind == "intelligibility":
        if trials.entry == "pick" and not materials.choices:
            raise ConfigError(
                "study.toml: trials.entry: the words differ in number or never vary, so there "
                'are no lists to pick from; use "type"'
            )
        if trials.catch > trials.count:
            raise ConfigError("study.toml: trials.catch: more than trials.count")
        if (
            trials.entry == "pick"
            and config.questions[0].labels
            and (len(config.questions[0].labels) != len(materials.choices))
        ):
            raise ConfigError(
                f"study.toml: questions.0.labels: {len(config.questions[0].labels)} given, "
                f"{len(materials.choices)} words are picked"
            )


def plan_session(
    config: StudyConfig, materials: Materials, shown: Shown, number: int
) -> list[Trial]:
    """The trials of one visitor, in order.

    Args:
        config, materials: as :func:`check_plan` accepted them.
        shown: how often what was shown to others.
        number: of the visitor; with the seed it decides what balance leaves open.
    """
    chance = random.Random(f"{config.seed} {number}")
    make = {
        "preference": _pairs,
        "turing": _turing,
        "mos": _ratings,
        "intelligibility": _words,
    }[config.kind]
    main = make(config, materials, shown, chance)
    chance.shuffle(main)
    main = _apart(main, materials, chance)
    repeated = _repeats(main, config.trials.repeats, chance)
    body = _mixed(main, repeated, _catch_trials(config, materials, main, chance), chance)
    return _training(config, materials, chance) + body


def _least(
    shown: Shown, chance: random.Random, keys: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Keys, those shown least first, equals in random order."""
    keys = list(keys)
    chance.shuffle(keys)
    return sorted(keys, key=lambda key: shown.get(key, 0))


# ------------------------------------------------------------------ what counts


def _pairs(
    config: StudyConfig, materials: Materials, shown: Shown, chance: random.Random
) -> list[Trial]:
    """Pairs of systems as equal in number as can be, items shown least, sides by halves."""
    table = materials.of("main")
    cells: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    total: Counter[tuple[str, str]] = Counter()
    for systems in table.values():
        for a, b in combinations(materials.systems, 2):
            if a in systems and b in systems:
                key = systems[a].id, systems[b].id
                cells[a, b].append(key)
                total[key] = shown.get(key, 0) + shown.get(key[::-1], 0)
    queues = {pair: _least(total, chance, keys) for pair, keys in cells.items()}
    item_of = {video.id: video.item for video in materials.videos}
    order = list(queues)
    chance.shuffle(order)
    # Pairs of systems that were shown least come first, where the count cannot be divided.
    order.sort(key=lambda pair: sum(total[key] for key in cells[pair]) / len(cells[pair]))
    seen: Counter[str] = Counter()
    picked: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    left = config.trials.count
    while left:
        for pair in order:
            if not left or not queues[pair]:
                continue
            # Among the least shown, an item that this visitor has seen least.
            queue = queues[pair]
            least = total[queue[0]]
            alike = [key for key in queue if total[key] == least]
            key = min(alike, key=lambda k: seen[item_of[k[0]]])
            queue.remove(key)
            picked[pair].append(key)
            seen[item_of[key[0]]] += 1
            left -= 1
    trials: list[Trial] = []
    odd = 0
    for keys in picked.values():
        # The first system stands on the left in half of its trials: where it did so least.
        lean = {key: shown.get(key, 0) - shown.get(key[::-1], 0) for key in keys}
        chance.shuffle(keys)
        keys.sort(key=lambda key: lean[key])
        half = len(keys) // 2
        if len(keys) % 2:
            middle = lean[keys[half]]
            if odd < 0 or (odd == 0 and (middle < 0 or (middle == 0 and chance.random() < 0.5))):
                half += 1
                odd += 1
            else:
                odd -= 1
        trials += [Trial("main", *key) for key in keys[:half]]
        trials += [Trial("main", key[1], key[0]) for key in keys[half:]]
    return trials


def _turing(
    config: StudyConfig, materials: Materials, shown: Shown, chance: random.Random
) -> list[Trial]:
    """Real or fake by a coin or by halves; never the real and the fake video of one name."""
    count = config.trials.count
    if config.trials.sampling == "equal":
        odd = [chance.choice((REAL, FAKE))] if count % 2 else []
        sides = [REAL, FAKE] * (count // 2) + odd
        chance.shuffle(sides)
    else:
        sides = [chance.choice((REAL, FAKE)) for _ in range(count)]
    table = materials.of("main")
    queues = {
        side: [
            key[0]
            for key in _least(
                shown, chance, [(s[side].id, "") for s in table.values() if side in s]
            )
        ]
        for side in (REAL, FAKE)
    }
    item_of = {video.id: video.item for video in materials.videos}
    used: set[str] = set()
    trials = []
    for side in sides:
        for name in (side, FAKE if side == REAL else REAL):  # a side may run out
            free = [video for video in queues[name] if item_of[video] not in used]
            if free:
                used.add(item_of[free[0]])
                trials.append(Trial("main", free[0], expected=name))
                break
    return trials


def _ratings(
    config: StudyConfig, materials: Materials, shown: Shown, chance: random.Random
) -> list[Trial]:
    """Systems in turn, the least rated first; an item comes back only when all were seen."""
    table = materials.of("main")
    queues = {
        system: [
            key[0]
            for key in _least(
                shown, chance, [(s[system].id, "") for s in table.values() if system in s]
            )
        ]
        for system in materials.systems
    }
    video_of = materials.by_id()
    seen: Counter[str] = Counter()
    order = [system for system in materials.systems if queues[system]]
    chance.shuffle(order)
    order.sort(key=lambda s: sum(shown.get((v, ""), 0) for v in queues[s]) / max(1, len(queues[s])))
    trials: list[Trial] = []
    while len(trials) < config.trials.count:
        for system in order:
            queue = queues[system]
            if not queue or len(trials) == config.trials.count:
                continue
            video = min(
                queue, key=lambda v: (seen[video_of[v].item], shown.get((v, ""), 0))
            )  # min keeps the queue's random order among equals
            queue.remove(video)
            seen[video_of[video].item] += 1
            trials.append(Trial("main", video))
    return trials


def _words(
    config: StudyConfig, materials: Materials, shown: Shown, chance: random.Random
) -> list[Trial]:
    """No item twice, as words are remembered; systems in turn."""
    return _ratings(config, materials, shown, chance)


# ------------------------------------------------------------------ what does not


def _training(config: StudyConfig, materials: Materials, chance: random.Random) -> list[Trial]:
    table = materials.of("training")
    items = list(table)
    chance.shuffle(items)
    if config.kind == "turing":  # both sides are shown, where both were kept
        items.sort(key=lambda item: REAL not in table[item])
        real = [item for item in items if REAL in table[item]]
        fake = [item for item in items if item not in real]
        mixed = [i for pair in zip(real, fake, strict=False) for i in pair]
        items = list(dict.fromkeys(mixed + items))
    trials = []
    for number, item in enumerate(items[: config.trials.training]):
        videos = list(table[item].values())
        chance.shuffle(videos)
        if config.kind == "preference":
            trials.append(Trial("training", videos[0].id, videos[1].id))
        elif config.kind == "turing":
            side = (REAL, FAKE)[number % 2]
            video = table[item].get(side, videos[0])
            trials.append(Trial("training", video.id, expected=video.system))
        else:
            trials.append(Trial("training", videos[0].id))
    return trials


def _repeats(main: Sequence[Trial], count: int, chance: random.Random) -> list[Trial]:
    chosen = chance.sample(list(main[: max(count, len(main) * 2 // 3)]), count)
    return [
        Trial("repeat", t.second or t.first, t.first if t.second else "", t.expected)
        for t in chosen
    ]


def _catch_trials(
    config: StudyConfig, materials: Materials, main: Sequence[Trial], chance: random.Random
) -> list[Trial]:
    count = config.trials.catch
    if config.kind == "intelligibility":
        # A clip like the others, with words to be given whatever is seen.
        said = [materials.by_id()[t.first] for t in chance.sample(list(main), count)]
        return [
            Trial("catch", v.id, expected=" ".join(_other_words(v, materials, chance)))
            for v in said
        ]
    bad = [v for systems in materials.of("catch").values() for v in systems.values()]
    chosen = chance.sample(bad, count)
    if config.kind == "turing":
        return [Trial("catch", v.id, expected=FAKE) for v in chosen]
    if config.kind == "mos":
        return [Trial("catch", v.id, expected="2") for v in chosen]
    trials = []
    everything = materials.of("main") | materials.of("training")
    for video in chosen:
        good = chance.choice(list(everything[video.item].values()))
        if chance.random() < 0.5:
            trials.append(Trial("catch", video.id, good.id, expected=SECOND))
        else:
            trials.append(Trial("catch", good.id, video.id, expected=FIRST))
    return trials


def _other_words(video: Video, materials: Materials, chance: random.Random) -> Sequence[str]:
    if materials.choices:
        return [chance.choice(place) for place in materials.choices]
    others = sorted({v.words for v in materials.videos if v.words != video.words})
    return chance.choice(others) if others else video.words


# ------------------------------------------------------------------ order


def _apart(trials: list[Trial], materials: Materials, chance: random.Random) -> list[Trial]:
    """Trials of one item not next to each other, where that can be."""
    item_of = {video.id: video.item for video in materials.videos}
    waiting, ordered = list(trials), []
    counts = Counter(item_of[t.first] for t in waiting)
    last = ""
    while waiting:
        free = [t for t in waiting if item_of[t.first] != last] or waiting
        most = max(counts[item_of[t.first]] for t in free)
        # Whoever has many trials left is served first only when it must be.
        urgent = most * 2 > len(waiting)
        trial = next(t for t in free if not urgent or counts[item_of[t.first]] == most)
        waiting.remove(trial)
        last = item_of[trial.first]
        counts[last] -= 1
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
        videos = {trial.first, trial.second}
        first = next(i for i, t in enumerate(body) if {t.first, t.second} == videos)
        least = min(len(body), max(len(main) * 2 // 3, first + 2))
        body.insert(chance.randint(least, len(body)), trial)
    for trial in catches:
        body.insert(chance.randint(min(1, len(body)), len(body)), trial)
    return body
