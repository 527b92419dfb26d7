"""Drawing trials fairly: the least shown first, chance among equals."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TypeVar

from stillspeak.study.materials import Materials

Group = TypeVar("Group")

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
    materials: Materials,
    groups: Mapping[Group, list[Cell]],
    count: int,
    shown: Shown,
    chance: random.Random,
    *,
    items_first: bool,
) -> list[tuple[Group, Cell]]:
    """A visitor's cells: groups in turn, those shown least so far first.

    Of a group comes the cell shown least, among equals that whose item this visitor has seen
    least; with ``items_first`` it is the other way round.
    """
    queues = {group: least_shown(shown, chance, cells) for group, cells in groups.items() if cells}
    order = list(queues)
    chance.shuffle(order)
    order.sort(key=lambda g: sum(shown.get(cell, 0) for cell in queues[g]) / len(queues[g]))
    item_of = {video.id: video.item for video in materials.videos}
    seen: Counter[str] = Counter()
    picked: list[tuple[Group, Cell]] = []

    def rank(cell: Cell) -> tuple[int, int]:
        ranks = seen[item_of[cell[0]]], shown.get(cell, 0)
        return ranks if items_first else ranks[::-1]

    while len(picked) < count:
        for group in order:
            if queues[group] and len(picked) < count:
                cell = min(queues[group], key=rank)  # keeps the random order among equals
                queues[group].remove(cell)
                seen[item_of[cell[0]]] += 1
                picked.append((group, cell))
    return picked
