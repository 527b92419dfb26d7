"""What a corpus consists of: clips, who speaks in them, and which split each speaker is in."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stillspeak.errors import DataError
from stillspeak.system.configuration import read_json

Split = Literal["train", "validation", "test"]
"""What a clip may be used for."""

SPLITS: tuple[Split, ...] = get_args(Split)

SPLIT_FILE = "split.json"
"""In a corpus's folder: lists of speakers under train, validation and test."""


@dataclass(frozen=True)
class Clip:
    """One recording of one speaker, or a stretch of one.

    Attributes:
        speaker: unique in the corpus.
        stem: the file name without its suffix.
        path: the video file.
        split: what the clip may be used for.
        text: what is said, lower case, or None if unknown.
        alignment: file of word times, or None.
        name: unique among the speaker's clips, by default the stem; two encodings of one
            recording get their suffix added.
        start: seconds from the video's first frame at which the clip begins, a multiple of
            a frame's duration; None is the whole file.
        end: likewise, where it ends; given if and only if ``start`` is.
        emotion: the mood that is acted, or None if unknown.
        level: how strongly it is acted, or None if unknown.
        alone: refuse the clip if it shows a second face.
    """

    speaker: str
    stem: str
    path: Path
    split: Split
    text: str | None = None
    alignment: Path | None = None
    name: str = ""
    start: float | None = None
    end: float | None = None
    emotion: str | None = None
    level: str | None = None
    alone: bool = False

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.stem)
        assert (self.start is None) == (self.end is None)

    @property
    def seconds(self) -> float | None:
        """Its length in seconds, or None for a whole file, which was not looked into."""
        return None if self.start is None or self.end is None else self.end - self.start

    @property
    def place(self) -> str:
        """What messages call it: the file and, for a stretch of one, the time span."""
        if self.start is None:
            return str(self.path)
        return f"{self.path}, {self.start:.2f} to {self.end:.2f} s"


@dataclass(frozen=True)
class Rejected:
    """A file, or a stretch of one, that could not be used, and why in one line."""

    path: Path
    reason: str


def check_clips(clips: Iterable[Clip]) -> None:
    """Refuse a list in which a speaker is in two splits or two clips share a name.

    Raises:
        DataError: naming the speaker or the two files.
    """
    split_of: dict[str, Split] = {}
    place_of: dict[tuple[str, str], str] = {}
    for clip in clips:
        if split_of.setdefault(clip.speaker, clip.split) != clip.split:
            raise DataError(
                f"speaker {clip.speaker} is in both {split_of[clip.speaker]} and {clip.split};"
                " splits must not share a speaker"
            )
        other = place_of.setdefault((clip.speaker, clip.name), clip.place)
        if other != clip.place:
            raise DataError(f"{clip.place} and {other} have the same name; give one another name")


def read_split(root: Path, default: Mapping[Split, Sequence[str]]) -> dict[str, Split]:
    """The split of each speaker, from the corpus's ``split.json`` or, without that file, the
    lists given.

    Raises:
        DataError: if it cannot be read or names a speaker twice.
    """
    path = root / SPLIT_FILE
    if not path.is_file():
        return _turned(default)
    try:
        spec = read_json(path.read_bytes())
        lists = {split: _names(spec[split]) for split in SPLITS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: expected lists of speakers under train, validation and test"
            f" ({type(error).__name__}: {error})"
        ) from error
    try:
        return _turned(lists)
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


def _names(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise TypeError("not a list of names")
    return value


def _turned(lists: Mapping[Split, Sequence[str]]) -> dict[str, Split]:
    """Lists of speakers turned round; ``ValueError`` if a speaker is in two of them."""
    split_of: dict[str, Split] = {}
    for split, names in lists.items():
        for name in names:
            if split_of.setdefault(name, split) != split:
                raise ValueError(f"speaker {name} is in both {split_of[name]} and {split}")
    return split_of


def split_of_speaker(root: Path, split_of: Mapping[str, Split], speaker: str) -> Split:
    """Look up one speaker; ``DataError`` if it is in none of the splits."""
    try:
        return split_of[speaker]
    except KeyError:
        raise DataError(
            f"{root}: speaker {speaker} is in none of the splits; add it to {SPLIT_FILE}"
        ) from None


def corpus_root(root: str | Path, holds: str) -> Path:
    """A corpus's folder; ``DataError`` if it is not there. ``holds`` says what it should hold."""
    if not Path(root).is_dir():
        raise DataError(f"{root}: no such folder; give the folder that holds {holds}")
    return Path(root)


def checked(root: Path, clips: list[Clip], example: str) -> list[Clip]:
    """A corpus's clips, once they are known to be usable.

    Raises:
        DataError: if there are none (``example`` says how one is named), a speaker is in two
            splits, or two clips share a name.
    """
    if not clips:
        raise DataError(f"{root}: no clips found; {example}")
    check_clips(clips)
    return clips


def plain_text(sentence: str) -> str | None:
    """A sentence as lower-case words with nothing but blanks between, or None without words."""
    return " ".join(re.findall(r"[a-z]+(?:'[a-z]+)*", sentence.lower().replace("’", "'"))) or None
