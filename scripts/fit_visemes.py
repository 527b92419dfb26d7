"""Fits resources/visemes.safetensors: which viseme the lips show, from three poses in a row.

    python scripts/fit_visemes.py CACHE OUT --report REPORT

CACHE holds prepared GRID clips (``stillspeak prepare``) with the times of their words. Where in a
word each sound lies is found in the speech encoder's features, not in the lips: a linear classifier
of sounds and the best path through each sentence, in turn. Then a linear classifier tells from the
poses that the model hears which class of sounds it is. Test speakers only measure it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from fit_blendshapes import DATA, PER_SPEAKER
from safetensors.numpy import save_file

from stillspeak.data.cache import CachedClipReader, load_manifest
from stillspeak.models.engine import InferenceEngine
from stillspeak.motion.shapes import CONTEXT, VISEMES
from stillspeak.options import AnimateOptions
from stillspeak.synthesis import Performer
from stillspeak.weights import load_model

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

OCULUS = {
    "sil": "sil",
    "PP": "P B M",
    "FF": "F V",
    "TH": "TH DH",
    "DD": "T D",
    "kk": "K G",
    "CH": "CH JH",
    "SS": "S Z",
    "nn": "N L",
    "RR": "R",
    "aa": "AA AH AE AY AW",
    "E": "EH EY",
    "ih": "IH IY Y",
    "oh": "AO OW",
    "ou": "UW W",
}
"""The 15 visemes of Oculus, and which sounds of GRID's words they are."""
SOUNDS = [sound for sounds in OCULUS.values() for sound in sounds.split()]

WORDS = """
bin B IH N, lay L EY, place P L EY S, set S EH T, blue B L UW, green G R IY N, red R EH D,
white W AY T, at AE T, by B AY, in IH N, with W IH DH, a EY, b B IY, c S IY, d D IY, e IY, f EH F,
g JH IY, h EY CH, i AY, j JH EY, k K EY, l EH L, m EH M, n EH N, o OW, p P IY, q K Y UW, r AA R,
s EH S, t T IY, u Y UW, v V IY, x EH K S, y W AY, z Z EH D, zero Z IH R OW, one W AH N, two T UW,
three TH R IY, four F AO R, five F AY V, six S IH K S, seven S EH V AH N, eight EY T, nine N AY N,
again AH G EH N, now N AW, please P L IY Z, soon S UW N, sil sil, sp sil
"""
SPOKEN = {word: sounds for word, *sounds in map(str.split, WORDS.split(","))}

TOKENS = 50  # a second
SLACK = 4  # tokens by which a word may lie elsewhere than the corpus says
ROUNDS = 4


class Clip(NamedTuple):
    """A sentence: its words, features (2 T, D) and poses (T, 82)."""

    who: str
    words: list[tuple[float, float, str]]
    features: Floats
    poses: Floats


def main(arguments: list[str]) -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--report", type=Path, required=True)
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    engine = InferenceEngine(load_model().eval())
    train, test = (heard(options.cache, split, engine) for split in ("train", "test"))
    times = aligned(train, test)
    kinds = {one: place for place, group in enumerate(VISEMES.values()) for one in group}
    classes = np.array(
        [kinds[name] for name, sounds in OCULUS.items() for _ in sounds.split()], np.int64
    )
    poses = [windows(clip.poses) for clip in (*train, *test)]
    sounds = [found[::2] for found in times]
    n = len(train)
    rare = np.bincount(classes[np.concatenate(sounds[:n])])
    weight = [
        1 / np.sqrt(rare[classes[found]] * frames_of(train, clip.who))
        for found, clip in zip(sounds, train, strict=False)
    ]
    layer = taught(
        np.concatenate(poses[:n]) / 0.05,
        classes[np.concatenate(sounds[:n])],
        np.concatenate(weight),
        decay=1.0,
    )
    info = {
        "command": "python scripts/fit_visemes.py CACHE OUT --report REPORT",
        "data": DATA,
        "names": list(VISEMES),
    }
    tensors = {
        "weight": (layer.weight.detach().numpy() / 0.05).astype(np.float16),
        "bias": layer.bias.detach().numpy().astype(np.float16),
    }
    save_file(tensors, options.out, {"info": json.dumps(info)})
    seen, said = np.concatenate(poses[n:]), np.concatenate(sounds[n:])
    best = (seen @ tensors["weight"].T.astype(np.float32) + tensors["bias"]).argmax(1)
    report = measured(classes[said], best, list(VISEMES), test)
    # How far the lips tell all fifteen apart, by a classifier of the same kind.
    every = np.array([k for k, s in enumerate(OCULUS.values()) for _ in s.split()], np.int64)
    fine = taught(
        np.concatenate(poses[:n]) / 0.05,
        every[np.concatenate(sounds[:n])],
        np.concatenate(weight),
        decay=1.0,
    )
    with torch.no_grad():
        found = fine(torch.from_numpy(seen / 0.05)).argmax(1).numpy()
    report["oculus"] = measured(every[said], found, list(OCULUS), test)
    options.report.write_text(json.dumps(report, indent=1), "utf-8")
    for part in (report, report["oculus"]):
        print(round(part["accuracy"], 3), {k: round(v, 2) for k, v in part["recall"].items()})
    return 0


def heard(cache: Path, split: str, engine: InferenceEngine) -> list[Clip]:
    """A split's clips with the times of their words, at most ``PER_SPEAKER`` of a person."""
    clips: list[Clip] = []
    for row in load_manifest(cache):
        if row.split != split or frames_of(clips, row.speaker, clips_only=True) >= PER_SPEAKER:
            continue
        with CachedClipReader(row.file) as file:
            words, sound = file.metadata.get("words"), file.get_tensor("audio")
        if not words:
            continue
        steps = [decoded for decoded, _ in Performer(engine, AnimateOptions()).perform([sound])]
        poses = np.concatenate([step.pose[0].numpy() for step in steps])
        features = np.concatenate([step.features[0].numpy() for step in steps])
        clips.append(Clip(row.speaker, words, features, poses.reshape(len(poses), -1)))
    return clips


def frames_of(clips: Sequence[Clip], who: str, *, clips_only: bool = False) -> int:
    """How many frames, or clips, there are of a person."""
    return sum(1 if clips_only else len(clip.poses) for clip in clips if clip.who == who)


def aligned(train: list[Clip], test: list[Clip]) -> list[Ints]:
    """The sound (2 T,) of each token of all clips, by its place in :data:`SOUNDS`; what it sounds
    like is learned from ``train`` alone."""
    everything = [*train, *test]
    raw = np.concatenate([clip.features for clip in train])
    mean, deviation = raw.mean(0), raw.std(0) + 1e-3
    features = [(clip.features - mean) / deviation for clip in everything]
    found = [even(clip) for clip in everything]
    for _ in range(ROUNDS):
        labels = np.concatenate(found[: len(train)])
        layer = taught(np.concatenate(features[: len(train)]), labels, None, decay=0.3, epochs=12)
        usual = torch.from_numpy(np.log(np.bincount(labels, minlength=len(SOUNDS)) + 1.0))
        with torch.no_grad():
            odds = [layer(torch.from_numpy(x)).log_softmax(1) - usual / 2 for x in features]
        found = [path(clip, one.numpy()) for clip, one in zip(everything, odds, strict=True)]
    return found


def spans(clip: Clip) -> list[tuple[int, int, Ints]]:
    """First and last token of each word, and its sounds."""
    return [
        (
            round(begin * TOKENS),
            round(end * TOKENS),
            np.array([SOUNDS.index(s) for s in SPOKEN[word]]),
        )
        for begin, end, word in clip.words
    ]


def even(clip: Clip) -> Ints:
    """Each word divided evenly."""
    out = np.zeros(len(clip.features), np.int64)
    for begin, end, sounds in spans(clip):
        parts = np.array_split(np.arange(begin, min(end, len(out))), len(sounds))
        for sound, part in zip(sounds, parts, strict=True):
            out[part] = sound
    return out


def path(clip: Clip, odds: npt.NDArray[np.float64]) -> Ints:
    """The likeliest times of a sentence's sounds, in order, each word about where it is said to
    be (Viterbi)."""
    states = [(s, a - SLACK, b + SLACK) for a, b, sounds in spans(clip) for s in sounds]
    time = np.arange(len(odds))
    score = np.stack(
        [np.where((time >= a) & (time < b), odds[:, s], -30.0) for s, a, b in states], 1
    )
    total = np.full(len(states), -1e9)
    total[0] = score[0, 0]
    moved = np.zeros(score.shape, bool)
    for t in range(1, len(score)):
        before = np.concatenate(([-1e9], total[:-1]))
        moved[t] = before > total
        total = np.maximum(before, total) + score[t]
    place, out = len(states) - 1, np.zeros(len(score), np.int64)
    for t in range(len(score) - 1, -1, -1):
        out[t] = states[place][0]
        place -= int(moved[t, place])
    return out


def windows(poses: Floats) -> Floats:
    """(T, 82) -> (T, (2 CONTEXT + 1) * 82), as :class:`~stillspeak.motion.shapes.VisemeReader`."""
    near = np.arange(len(poses))[:, None] + np.arange(-CONTEXT, CONTEXT + 1)
    return poses[near.clip(0, len(poses) - 1)].reshape(len(poses), -1)


def taught(
    x: Floats, labels: Ints, weight: Floats | None, *, decay: float, epochs: int = 25
) -> torch.nn.Linear:
    """A linear classifier."""
    inputs, wanted = torch.from_numpy(x), torch.from_numpy(labels)
    counts = np.ones(len(x)) if weight is None else weight / weight.mean()
    share = torch.from_numpy(counts).float()
    layer = torch.nn.Linear(x.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.AdamW(layer.parameters(), 2e-3, weight_decay=decay)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(256):
            each = F.cross_entropy(layer(inputs[rows]), wanted[rows], reduction="none")
            optimizer.zero_grad()
            (each * share[rows]).mean().backward()
            optimizer.step()
    return layer


def measured(wanted: Ints, found: Ints, names: list[str], clips: list[Clip]) -> dict[str, object]:
    """How often each class is found, and what it is taken for, in shares of frames."""
    table = np.zeros((len(names), len(names)))
    np.add.at(table, (wanted, found), 1)
    rows = table / np.maximum(table.sum(1, keepdims=True), 1)
    precision = table.diagonal() / np.maximum(table.sum(0), 1)
    return {
        "people": len({clip.who for clip in clips}),
        "frames": int(table.sum()),
        "accuracy": float(table.trace() / table.sum()),
        "recall": dict(zip(names, rows.diagonal().tolist(), strict=True)),
        "precision": dict(zip(names, precision.tolist(), strict=True)),
        "confusion": dict(zip(names, rows.round(3).tolist(), strict=True)),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
