"""The GRID corpus (Cooke, Barker, Cunningham, Shao 2006)."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from stillspeak.data.clips import Clip, Split, checked, corpus_root, read_split, split_of_speaker
from stillspeak.errors import DataError

VIDEO_SUFFIXES = (".mp4", ".mpg")

# The literature's 50/20/30 % split of GRID by speaker (s21 has no video).
_GRID_SPEAKERS: dict[Split, tuple[int, ...]] = {
    "train": (1, 3, 5, 6, 7, 8, 10, 12, 14, 16, 17, 22, 24, 26, 28, 32),
    "validation": (9, 20, 23, 27, 29, 30, 34),
    "test": (2, 4, 11, 13, 15, 18, 19, 25, 31, 33),
}

_DIGITS = "zero one two three four five six seven eight nine"

GRID_WORDS: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},  # there is no w
    dict(zip("z123456789", _DIGITS.split(), strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
"""The words of each of a sentence's six places, by the character that spells them in the stem."""

PAUSES = ("sil", "sp")
"""What alignments call silence; no words."""

_GRID_ALIGN_RATE = 25_000  # ticks a second in GRID's alignment files


@dataclass(frozen=True)
class Word:
    """One word of an alignment: seconds from the first frame, and the word."""

    start: float
    end: float
    word: str


def find_grid(root: str | Path) -> list[Clip]:
    """Clips of the GRID corpus (Cooke et al. 2006).

    Layout: ``sN/STEM.mp4`` or ``.mpg``, word times in ``alignments/sN/STEM.align``, the split
    in ``split.json`` (``{"train": ["s1", ...], ...}``) or, without that file, by the speaker
    lists of the literature.

    Clips are sorted by speaker number and name.

    Raises:
        DataError: if there are no clips, or the split misses a speaker or names one twice.
    """
    root = corpus_root(root, "GRID's s1, s2, ...")
    speakers = sorted(
        (p for p in root.iterdir() if p.is_dir() and re.fullmatch(r"s\d+", p.name)),
        key=lambda p: int(p.name[1:]),
    )
    split_of = read_split(
        root, {split: [f"s{n}" for n in numbers] for split, numbers in _GRID_SPEAKERS.items()}
    )
    clips: list[Clip] = []
    for folder in speakers:
        videos = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
        if not videos:
            continue
        split = split_of_speaker(root, split_of, folder.name)
        times = Counter(p.stem for p in videos)
        for video in videos:
            alignment = root / "alignments" / folder.name / f"{video.stem}.align"
            clips.append(
                Clip(
                    speaker=folder.name,
                    stem=video.stem,
                    path=video,
                    split=split,
                    text=grid_text(video.stem),
                    alignment=alignment if alignment.is_file() else None,
                    name=video.stem if times[video.stem] == 1 else video.name.replace(".", "-"),
                )
            )
    return checked(root, clips, "GRID clips are looked for as s1/bbaf2n.mp4")


def grid_root() -> Path | None:
    """Where GRID lies: ``STILLSPEAK_GRID``, else ``../shared/grid`` beside the working folder or
    the repository's root, else None.

    Raises:
        DataError: if ``STILLSPEAK_GRID`` is set to something that is no folder.
    """
    named = os.environ.get("STILLSPEAK_GRID")
    if named:
        if not Path(named).is_dir():
            raise DataError(f"STILLSPEAK_GRID={named}: no such folder")
        return Path(named)
    for base in (Path.cwd(), Path(__file__).resolve().parents[4]):
        candidate = base.parent / "shared" / "grid"
        if candidate.is_dir():
            return candidate
    return None


def grid_text(stem: str) -> str | None:
    """The six words that a GRID file stem spells, if any: ``bbaf2n`` is "bin blue at f two now"."""
    if len(stem) != len(GRID_WORDS):
        return None
    words = [table.get(letter) for table, letter in zip(GRID_WORDS, stem.lower(), strict=True)]
    return None if None in words else " ".join(cast(list[str], words))


def read_alignment(path: str | Path) -> list[Word]:
    """Word times of a GRID ``.align`` file, silences (``sil``, ``sp``) included.

    Raises:
        DataError: if the file cannot be read or a line is not ``start end word``.
    """
    try:
        lines = Path(path).read_text("utf8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the alignment cannot be read ({error})") from error
    words = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        fields = line.split()
        try:
            start, end = (int(field) / _GRID_ALIGN_RATE for field in fields[:2])
            (word,) = fields[2:]
        except (ValueError, OverflowError):
            raise DataError(
                f"{path}, line {number}: expected 'start end word', found {line.strip()!r}"
            ) from None
        words.append(Word(start, end, word))
    return words
