"""Forms of questions: what the page draws, and which answers it may send back.

The page draws a form from its data alone, so that a new kind of study needs no code in the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
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
        if any(w != "" and w not in known for w, known in zip(value, self.lists, strict=True)):
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
_DIGITS = dict(zip("0123456789", _NUMBERS, strict=True))


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
    i, j = len(said), len(read)
    cost = [[row + column for column in range(j + 1)] for row in range(i + 1)]
    for (a, word), (b, other) in product(enumerate(said), enumerate(read)):
        substitution = cost[a][b] + (word != other)
        cost[a + 1][b + 1] = min(substitution, cost[a][b + 1] + 1, cost[a + 1][b] + 1)
    pairs: list[tuple[str, str]] = []
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
