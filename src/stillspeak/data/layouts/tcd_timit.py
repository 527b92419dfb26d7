"""TCD-TIMIT (Harte, Gillen 2015): TIMIT sentences, filmed at 1080p and 30 frames a second."""

import re
from pathlib import Path

from stillspeak.data.clips import (
    Clip,
    Split,
    checked,
    corpus_root,
    plain_text,
    read_split,
    split_of_speaker,
)
from stillspeak.errors import DataError

# Three volunteers are left out by the literature.
EXCLUDED = ("27M", "35M", "53M")

# The corpus recommends 70 % of the other 56 volunteers for training and these 17 for testing.
# It has no validation speakers: as in the literature some of the test speakers serve as such,
# here every third one in the order of their numbers.
_HELD_OUT = "13F 15F 21M 23M 24M 25M 28M 29M 30F 31F 34M 36F 37F 43F 47M 51F 54M"
_TRAIN = (
    "01M 02M 03F 04M 05F 06M 07F 08F 09F 10M 11F 12M 14M 16M 17F 18M 19M 20M 22M 26M"
    " 32F 33F 38F 39M 40F 41M 42M 44F 45F 46F 48M 49F 50F 52M 55F 56M 57M 58F 59F"
)
_SPEAKERS: dict[Split, tuple[str, ...]] = {
    "train": tuple(_TRAIN.split()),
    "validation": tuple(_HELD_OUT.split()[2::3]),
    "test": tuple(name for i, name in enumerate(_HELD_OUT.split()) if i % 3 != 2),
}

# As the archives unpack: the second one for those who unpacked each in its speaker's folder.
_CAMERA = ("Clips/straightcam", "straightcam")


def find_tcd_timit(root: str | Path) -> list[Clip]:
    """Clips of TCD-TIMIT's frontal camera.

    Layout: ``volunteers/01M/Clips/straightcam/sa1.mp4``, what is said in ``sa1.txt`` beside
    it if that is there (in either case of letters). The volunteers 27M, 35M and 53M and the
    three lipspeakers (``lipspeakers/Lipspkr1/...``), who articulate exceptionally clearly, are
    left out unless ``split.json`` names them.

    ``root`` is the folder that holds ``volunteers``, or that folder itself. Clips are sorted by
    speaker and name.

    Raises:
        DataError: if there are no clips, or the split misses a speaker or names one twice.
    """
    root = corpus_root(root, "volunteers")
    split_of = read_split(root, _SPEAKERS)
    clips: list[Clip] = []
    for folder in _speaker_folders(root):
        camera = next((folder / c for c in _CAMERA if (folder / c).is_dir()), None)
        if camera is None:
            continue
        optional = folder.name in EXCLUDED or not folder.name[0].isdigit()
        if optional and folder.name not in split_of:
            continue
        files = sorted(camera.iterdir())
        texts = {p.stem.lower(): p for p in files if p.suffix.lower() == ".txt"}
        for video in (p for p in files if p.suffix.lower() == ".mp4"):
            clips.append(
                Clip(
                    speaker=folder.name,
                    stem=video.stem,
                    path=video,
                    split=split_of_speaker(root, split_of, folder.name),
                    text=_read_text(texts.get(video.stem.lower())),
                )
            )
    example = "volunteers/01M/Clips/straightcam/sa1.mp4"
    return checked(root, clips, f"TCD-TIMIT clips are looked for as {example}")


def _speaker_folders(root: Path) -> list[Path]:
    """Folders of volunteers and lipspeakers, in this order, each sorted."""
    volunteers = root / "volunteers" if (root / "volunteers").is_dir() else root
    folders = []
    for parent, names in ((volunteers, r"\d\d[FM]"), (root / "lipspeakers", r"Lipspkr\d")):
        if parent.is_dir():
            found = (p for p in parent.iterdir() if p.is_dir() and re.fullmatch(names, p.name))
            folders += sorted(found)
    return folders


def _read_text(path: Path | None) -> str | None:
    """What a TIMIT text file says: two sample numbers, which are no words, and the sentence."""
    if path is None:
        return None
    try:
        return plain_text(path.read_text("utf8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the sentence cannot be read ({error})") from error
