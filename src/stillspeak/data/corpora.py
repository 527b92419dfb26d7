"""Audiovisual corpora on disk: which clips there are, who speaks, what is said, which split.

A layout is a function that turns a corpus's root folder into a list of :class:`Clip`;
``LAYOUTS`` names them. Splits are disjoint by speaker, always.
"""

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from stillspeak.errors import DataError

Split = Literal["train", "validation", "test"]
"""What a clip may be used for."""

SPLITS: tuple[Split, ...] = get_args(Split)

VIDEO_SUFFIXES = (".mp4", ".mpg")

# The literature's 50/20/30 % split of GRID by speaker (s21 has no video).
_GRID_SPEAKERS: dict[Split, tuple[int, ...]] = {
    "train": (1, 3, 5, 6, 7, 8, 10, 12, 14, 16, 17, 22, 24, 26, 28, 32),
    "validation": (9, 20, 23, 27, 29, 30, 34),
    "test": (2, 4, 11, 13, 15, 18, 19, 25, 31, 33),
}

# A GRID sentence is spelled by its file stem, one character a word.
_GRID_WORDS: tuple[dict[str, str], ...] = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},  # there is no w
    dict(
        zip(
            "z123456789",
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
            strict=True,
        )
    ),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
_GRID_ALIGN_RATE = 25_000  # ticks a second in GRID's alignment files


@dataclass(frozen=True)
class Clip:
    """One recording of one speaker.

    Attributes:
        speaker: the speaker's name, unique in the corpus.
        stem: the file name without its suffix.
        path: the video file.
        split: what the clip may be used for.
        text: what is said, lower case, or None if unknown.
        alignment: file of word times, or None.
        name: unique among the speaker's clips, by default the stem; two encodings of one
            recording get their suffix added.
    """

    speaker: str
    stem: str
    path: Path
    split: Split
    text: str | None = None
    alignment: Path | None = None
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.stem)


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

    Args:
        root: the corpus's folder.

    Returns:
        Clips sorted by speaker number and name.

    Raises:
        DataError: if there are no clips, or the split misses a speaker or names one twice.
    """
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds GRID's s1, s2, ...")
    speakers = sorted(
        (p for p in root.iterdir() if p.is_dir() and re.fullmatch(r"s\d+", p.name)),
        key=lambda p: int(p.name[1:]),
    )
    split_of = _grid_split(root)
    clips: list[Clip] = []
    for folder in speakers:
        videos = sorted(p for p in folder.iterdir() if p.suffix.lower() in VIDEO_SUFFIXES)
        if not videos:
            continue
        if folder.name not in split_of:
            raise DataError(
                f"{root}: speaker {folder.name} is in none of the splits; add it to split.json"
            )
        times = Counter(p.stem for p in videos)
        for video in videos:
            alignment = root / "alignments" / folder.name / f"{video.stem}.align"
            clips.append(
                Clip(
                    speaker=folder.name,
                    stem=video.stem,
                    path=video,
                    split=split_of[folder.name],
                    text=grid_text(video.stem),
                    alignment=alignment if alignment.is_file() else None,
                    name=video.stem if times[video.stem] == 1 else video.name.replace(".", "-"),
                )
            )
    if not clips:
        raise DataError(f"{root}: no clips found; GRID clips are looked for as s1/bbaf2n.mp4")
    check_clips(clips)
    return clips


LAYOUTS: dict[str, Callable[[str | Path], list[Clip]]] = {"grid": find_grid}
"""Corpus layouts by name."""


def grid_root() -> Path | None:
    """Where GRID lies: ``STILLSPEAK_GRID``, else ``../shared/grid`` if it is there.

    The relative place is looked for from the working folder and from the repository's root.

    Returns:
        The folder, or None if there is none.

    Raises:
        DataError: if ``STILLSPEAK_GRID`` is set to something that is no folder.
    """
    named = os.environ.get("STILLSPEAK_GRID")
    if named:
        if not Path(named).is_dir():
            raise DataError(f"STILLSPEAK_GRID={named}: no such folder")
        return Path(named)
    for base in (Path.cwd(), Path(__file__).resolve().parents[3]):
        candidate = base.parent / "shared" / "grid"
        if candidate.is_dir():
            return candidate
    return None


def grid_text(stem: str) -> str | None:
    """The six words that a GRID file stem spells: ``bbaf2n`` is "bin blue at f two now".

    Returns:
        The sentence, or None if the stem spells none.
    """
    if len(stem) != len(_GRID_WORDS):
        return None
    words = [table.get(letter) for table, letter in zip(_GRID_WORDS, stem.lower(), strict=True)]
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
        except ValueError:
            raise DataError(
                f"{path}, line {number}: expected 'start end word', found {line.strip()!r}"
            ) from None
        words.append(Word(start, end, word))
    return words


def check_clips(clips: Iterable[Clip]) -> None:
    """Refuse a list in which a speaker is in two splits or two clips share a name.

    Raises:
        DataError: naming the speaker or the two files.
    """
    split_of: dict[str, Split] = {}
    path_of: dict[tuple[str, str], Path] = {}
    for clip in clips:
        if split_of.setdefault(clip.speaker, clip.split) != clip.split:
            raise DataError(
                f"speaker {clip.speaker} is in both {split_of[clip.speaker]} and {clip.split};"
                " splits must not share a speaker"
            )
        other = path_of.setdefault((clip.speaker, clip.name), clip.path)
        if other != clip.path:
            raise DataError(f"{clip.path} and {other} have the same name; give one another name")


def _grid_split(root: Path) -> dict[str, Split]:
    """Split by speaker name, from split.json or the literature."""
    path = root / "split.json"
    lists: dict[Split, list[str]]
    if path.is_file():
        try:
            spec = json.loads(path.read_text("utf8"))
            lists = {split: [str(name) for name in spec[split]] for split in SPLITS}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: expected lists of speakers under train, validation and test"
                f" ({type(error).__name__}: {error})"
            ) from error
    else:
        lists = {split: [f"s{n}" for n in _GRID_SPEAKERS[split]] for split in SPLITS}
    split_of: dict[str, Split] = {}
    for split, names in lists.items():
        for name in names:
            if split_of.setdefault(name, split) != split:
                raise DataError(f"{path}: speaker {name} is in both {split_of[name]} and {split}")
    return split_of
