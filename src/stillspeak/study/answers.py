"""Forms of questions: what the page draws, and which answers it may send back.

The page draws every form from its data alone (:meth:`Form.page`), so that a new kind of study
needs no code in the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

MAX_TEXT = 300
"""Characters of a typed answer."""


class Form(Protocol):
    """How one question is answered."""

    def page(self) -> dict[str, Any]:
        """What the page needs to draw it; ``form`` says which one it is."""

    def check(self, value: object) -> Any:
        """The answer as it is stored.

        Raises:
            ValueError: it cannot be given.
        """


@dataclass(frozen=True)
class Choice:
    """One of a few values, each with its label; keys 1, 2, ... choose them."""

    values: Sequence[str | int]
    labels: Sequence[str]

    def page(self) -> dict[str, Any]:
        return {"form": "choice", "values": list(self.values), "labels": list(self.labels)}

    def check(self, value: object) -> Any:
        if not any(type(value) is type(known) and value == known for known in self.values):
            raise ValueError("that is no possible answer")
        return value


@dataclass(frozen=True)
class Lists:
    """A word from each of several lists; "" where the visitor cannot tell."""

    lists: Sequence[Sequence[str]]
    labels: Sequence[str]

    def page(self) -> dict[str, Any]:
        lists = [list(words) for words in self.lists]
        return {"form": "lists", "lists": lists, "labels": list(self.labels)}

    def check(self, value: object) -> Any:
        if not isinstance(value, list) or len(value) != len(self.lists):
            raise ValueError("that is no possible answer")
        for word, known in zip(value, self.lists, strict=True):
            if word != "" and word not in known:
                raise ValueError("a word is not in its list")
        return value


@dataclass(frozen=True)
class Typed:
    """A line of text; ``label`` is read to those who do not see the field."""

    label: str

    def page(self) -> dict[str, Any]:
        return {"form": "text", "label": self.label, "most": MAX_TEXT}

    def check(self, value: object) -> Any:
        if not isinstance(value, str) or len(value) > MAX_TEXT or "\0" in value:
            raise ValueError("that is no possible answer")
        return value.strip()


_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_DIGITS = {str(digit): word for digit, word in enumerate(_NUMBERS)}


def normalise(text: str) -> list[str]:
    """Words of a sentence in lower case, without punctuation, single digits spelt out."""
    words = re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", text.lower())
    return [_DIGITS.get(word, word.replace("’", "'")) for word in words]


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
