"""CTC decoding with a vocabulary: the likeliest sentence that consists of known words.

Prefix beam search (Hannun et al. 2014) over the characters that some known word allows next.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from stillspeak.models.lipnet import ALPHABET, BLANK

_SPACE = 1 + ALPHABET.index(" ")
_NEVER = -math.inf


class Vocabulary:
    """Words, and how they may follow one another.

    Args:
        words: either known words, any number of which may follow in any order, or a list of
            such lists: the words of the first place, of the second, and so on; a sentence then
            has at most as many words as there are places.
    """

    def __init__(self, words: Sequence[str] | Sequence[Sequence[str]]) -> None:
        self._endless = all(isinstance(word, str) for word in words)
        places = [words] if self._endless else list(words)
        self._tries = [_trie([str(w) for w in place]) for place in places]
        self._next: dict[str, tuple[list[int], bool]] = {}

    def follow(self, prefix: str) -> tuple[list[int], bool]:
        """Classes that may come after a text, and whether the text may end there."""
        if prefix not in self._next:
            self._next[prefix] = self._follow(prefix)
        return self._next[prefix]

    def _follow(self, prefix: str) -> tuple[list[int], bool]:
        if not prefix:
            return [1 + ALPHABET.index(c) for c in sorted(self._tries[0][""])], False
        *before, last = prefix.split(" ")
        letters = self._tries[0 if self._endless else len(before)][last]
        whole = "" in letters
        classes = [1 + ALPHABET.index(c) for c in sorted(letters - {""})]
        if whole and (self._endless or len(before) + 1 < len(self._tries)):
            classes.append(_SPACE)
        return classes, whole


def _trie(words: Sequence[str]) -> dict[str, set[str]]:
    """Letters that may follow each beginning of a word; ``""`` stands for the word's end."""
    trie: dict[str, set[str]] = defaultdict(set)
    for word in words:
        for length in range(len(word)):
            trie[word[:length]].add(word[length])
        trie[word].add("")
    return dict(trie)


def beam_search(
    log_probabilities: npt.NDArray[np.floating], vocabulary: Vocabulary, *, width: int = 50
) -> str:
    """The likeliest sentence of known words.

    Args:
        log_probabilities: (T, 28) of blank and characters.
        vocabulary: the known words.
        width: sentences that are pursued at a time.

    Returns:
        Words with one blank between; empty if no beam reaches the end of a word.
    """
    # Of each text: log-probability of all ways to it that end with a blank, and of those that
    # end with its last character.
    beams: dict[str, tuple[float, float]] = {"": (0.0, _NEVER)}
    for frame in np.asarray(log_probabilities, np.float64).tolist():
        ways: dict[str, list[float]] = defaultdict(lambda: [_NEVER, _NEVER])
        for text, (blank, character) in beams.items():
            total = _add(blank, character)
            here = ways[text]
            here[0] = _add(here[0], total + frame[BLANK])
            last = 1 + ALPHABET.index(text[-1]) if text else None
            if last is not None:
                here[1] = _add(here[1], character + frame[last])
            for label in vocabulary.follow(text)[0]:
                # The same character twice needs a blank between.
                start = blank if label == last else total
                if start > _NEVER:
                    there = ways[text + ALPHABET[label - 1]]
                    there[1] = _add(there[1], start + frame[label])
        best = sorted(ways.items(), key=lambda item: -_add(*item[1]))[:width]
        beams = {text: (blank, character) for text, (blank, character) in best}
    for text in sorted(beams, key=lambda text: -_add(*beams[text])):
        if vocabulary.follow(text)[1]:
            return text
        # A sentence cut off in a word counts up to the word before.
    best_text = max(beams, key=lambda text: _add(*beams[text]))
    return best_text.rpartition(" ")[0]


def _add(first: float, second: float) -> float:
    """log(exp(a) + exp(b))."""
    high, low = max(first, second), min(first, second)
    return high if low == _NEVER else high + math.log1p(math.exp(low - high))
