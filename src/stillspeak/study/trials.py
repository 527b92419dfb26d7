"""Drawing trials fairly: the least shown first, chance among equals."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping

from stillspeak.study.materials import Materials
from stillspeak.study.records import Trial

Cell = tuple[str, str]
"""The ids of two videos that stand side by side, or ("id", "") for a single one."""

Shown = Mapping[Cell, int]
"""How often each cell was shown to earlier visitors, sides in this order."""


def least_shown(shown: Shown, chance: random.Random, cells: Iterable[Cell]) -> list[Cell]:
    """Cells, those shown least first, equals in random order."""
    cells = list(cells)
    chance.shuffle(cells)
    return sorted(cells, key=lambda cell: shown.get(cell, 0))


def single_videos(materials: Materials, system: str) -> list[Cell]:
    """The main videos of a system."""
    return [(s[system].id, "") for s in materials.of("main").values() if system in s]


def take_turns(
    materials: Materials, count: int, shown: Shown, chance: random.Random
) -> list[Trial]:
    """Systems in turn, the least shown first; an item comes back only when all were seen."""
    queues = {
        system: least_shown(shown, chance, single_videos(materials, system))
        for system in materials.systems
    }
    item_of = {video.id: video.item for video in materials.videos}
    seen: Counter[str] = Counter()
    order = [system for system in materials.systems if queues[system]]
    chance.shuffle(order)
    order.sort(key=lambda s: sum(shown.get(cell, 0) for cell in queues[s]) / len(queues[s]))
    trials: list[Trial] = []
    while len(trials) < count:
        for system in order:
            queue = queues[system]
            if not queue or len(trials) == count:
                continue
            # min keeps the queue's random order among equals
            cell = min(queue, key=lambda c: (seen[item_of[c[0]]], shown.get(c, 0)))
            queue.remove(cell)
            seen[item_of[cell[0]]] += 1
            trials.append(Trial("main", *cell))
    return trials
