"""Beam search with a vocabulary finds what an exhaustive search by CTC's likelihood finds."""

import itertools

import jiwer
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stillspeak.models.ctc import Vocabulary, beam_search
from stillspeak.models.lipnet import CLASSES, spell, word_errors

WORDS = ["a", "at", "tea", "toot"]


def likelihood(log_probabilities: torch.Tensor, text: str) -> float:
    label = torch.tensor(spell(text))[None]
    frames, letters = torch.tensor([len(log_probabilities)]), torch.tensor([label.shape[1]])
    return -float(F.ctc_loss(log_probabilities[:, None], label, frames, letters, reduction="sum"))


@pytest.mark.parametrize("seed", range(12))
def test_it_is_the_likeliest_of_all_sentences(seed: int) -> None:
    torch.manual_seed(seed)
    # Peaks large enough that letters compete, flat enough that many sentences do.
    output = (2.5 * torch.randn(9, CLASSES)).log_softmax(-1)
    sentences = [" ".join(words) for n in (1, 2, 3) for words in itertools.product(WORDS, repeat=n)]
    possible = [s for s in sentences if len(s) <= 9]
    best = max(possible, key=lambda text: likelihood(output, text))
    assert beam_search(output.numpy(), Vocabulary(WORDS), width=2000) == best


def test_places_say_which_word_may_come_where() -> None:
    torch.manual_seed(0)
    output = (2.5 * torch.randn(12, CLASSES)).log_softmax(-1)
    places = [["bin", "lay"], ["at", "by"], ["a"]]
    prefixes = [p[:n] for p in itertools.product(*places) for n in (1, 2, 3)]
    best = max({" ".join(p) for p in prefixes}, key=lambda text: likelihood(output, text))
    assert beam_search(output.numpy(), Vocabulary(places), width=500) == best


def test_what_is_written_plainly_is_read() -> None:
    text = "bin blue at f two now"
    path = [label for letter in spell(text) for label in (letter, letter, 0)]
    words = ["bin", "blue", "at", "f", "two", "now", "three", "by"]
    assert beam_search(certain(path), Vocabulary(words)) == text


def certain(path: list[int]) -> np.ndarray:
    output = np.full((len(path), CLASSES), -20.0)
    output[np.arange(len(path)), path] = 0
    return output


def test_doubled_letters_need_a_blank_between() -> None:
    known = Vocabulary(["thre", "three"])
    assert beam_search(certain([*spell("thre"), *spell("e")]), known) == "thre"
    assert beam_search(certain([*spell("thre"), 0, *spell("e")]), known) == "three"


def test_blanks_alone_are_no_words() -> None:
    output = np.full((5, CLASSES), -30.0)
    output[:, 0] = 0
    assert beam_search(output[:0], Vocabulary(WORDS)) == ""
    assert beam_search(output, Vocabulary(["toot"]), width=1) == ""


@pytest.mark.parametrize(
    ("truth", "read", "errors"),
    [
        ("bin blue at f two now", "bin blue at f two now", 0),
        ("bin blue at f two now", "bin red at f now", 2),
        ("bin blue", "", 2),
        ("bin", "lay bin blue", 2),
        ("", "", 0),
    ],
)
def test_word_errors_by_hand(truth: str, read: str, errors: int) -> None:
    assert word_errors(truth, read) == (errors, len(truth.split()))


def test_word_errors_are_those_of_jiwer() -> None:

    random = np.random.default_rng(0)
    words = ["bin", "lay", "red", "blue", "at"]
    for _ in range(100):
        truth = " ".join(random.choice(words, random.integers(1, 8)))
        read = " ".join(random.choice(words, random.integers(1, 8)))
        errors, count = word_errors(truth, read)
        assert errors / count == pytest.approx(jiwer.wer(truth, read))
