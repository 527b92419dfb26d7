"""Which answers are possible, which are right, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from stillspeak.study.config import StudyConfig
from stillspeak.study.materials import FAKE, REAL, Materials, normalise
from stillspeak.study.plan import FIRST, SECOND, Trial

MOST_TEXT = 300
"""Characters of a typed answer."""


def checked(config: StudyConfig, materials: Materials, given: object) -> dict[str, Any]:
    """Answers of one trial by question, once each is one that can be given.

    Raises:
        ValueError: something is missing, too much, or of the wrong sort.
    """
    if not isinstance(given, Mapping) or set(given) != {q.id for q in config.questions}:
        raise ValueError("every question needs its answer")
    return {q.id: _value(config, materials, given[q.id]) for q in config.questions}


def _value(config: StudyConfig, materials: Materials, value: object) -> Any:
    if config.kind == "preference" and value in (FIRST, SECOND):
        return value
    if config.kind == "turing" and value in (REAL, FAKE):
        return value
    if config.kind == "mos" and type(value) is int and 1 <= value <= 5:
        return value
    if config.kind == "intelligibility":
        if config.trials.entry == "type":
            if isinstance(value, str) and len(value) <= MOST_TEXT and "\0" not in value:
                return value.strip()
        elif isinstance(value, list) and len(value) == len(materials.choices):
            for word, place in zip(value, materials.choices, strict=True):
                if word != "" and word not in place:
                    raise ValueError("a word is not in its list")
            return value
    raise ValueError("that is no possible answer")


def passed(config: StudyConfig, trial: Trial, values: Mapping[str, Any]) -> bool:
    """Whether a catch trial was answered as by somebody who looks."""
    value = values[config.questions[0].id]
    if config.kind == "mos":
        return int(value) <= int(trial.expected)
    if config.kind == "intelligibility":
        words = normalise(value) if isinstance(value, str) else list(value)
        right = sum(1 for a, b in matched(trial.expected.split(), words) if a == b)
        return right >= len(trial.expected.split()) - 1  # one slip is not carelessness
    return bool(value == trial.expected)


def matched(said: Sequence[str], read: Sequence[str]) -> list[tuple[str, str]]:
    """Each word said with the word read in its place, "" where it was left out.

    Equal numbers of words are compared place by place. Otherwise words are aligned with the
    fewest substitutions, omissions and insertions; words read too many are dropped.
    """
    if len(said) == len(read):
        return list(zip(said, read, strict=True))
    rows, columns = len(said), len(read)
    cost = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows + 1):
        for j in range(columns + 1):
            if i == 0 or j == 0:
                cost[i][j] = i + j
                continue
            same = said[i - 1] == read[j - 1]
            cost[i][j] = min(
                cost[i - 1][j - 1] + (not same), cost[i - 1][j] + 1, cost[i][j - 1] + 1
            )
    pairs: list[tuple[str, str]] = []
    i, j = rows, columns
    while i:
        if j and cost[i][j] == cost[i - 1][j - 1] + (said[i - 1] != read[j - 1]):
            i, j = i - 1, j - 1
            pairs.append((said[i], read[j]))
        elif cost[i][j] == cost[i - 1][j] + 1:
            i -= 1
            pairs.append((said[i], ""))
        else:
            j -= 1
    return pairs[::-1]


def feedback(
    config: StudyConfig, materials: Materials, trial: Trial, values: Mapping[str, Any]
) -> str:
    """What is said after a training trial; "" where nothing is right or wrong."""
    if config.kind == "turing":
        side = trial.expected
        labels = dict(zip((REAL, FAKE), config.questions[0].labels, strict=True))
        right = values[config.questions[0].id] == side
        return f"{'Right' if right else 'Not quite'}: this one is “{labels[side]}”."
    if config.kind == "intelligibility":
        return f"The words were: {' '.join(materials.by_id()[trial.first].words)}."
    return ""
