"""CREMA-D (Cao et al. 2014): 91 actors, twelve sentences, six emotions, four levels."""

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

SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
EMOTIONS = {
    "ANG": "anger",
    "DIS": "disgust",
    "FEA": "fear",
    "HAP": "happy",
    "NEU": "neutral",
    "SAD": "sad",
}
# One file of the corpus, 1040_ITH_SAD_X, has a single X.
LEVELS = {
    "LO": "low",
    "MD": "medium",
    "HI": "high",
    "XX": "unspecified",
    "X": "unspecified",
}

# The corpus has no official split. Here the last digit of the actor's number decides, so that
# it can be said in a sentence: 0 and 5 test (18 actors), 8 validation (9), the others train (64).
_DIGITS: dict[Split, str] = {"train": "1234679", "validation": "8", "test": "05"}
_SPEAKERS = {
    split: [str(actor) for actor in range(1001, 1092) if str(actor)[-1] in digits]
    for split, digits in _DIGITS.items()
}

_FOLDER = "VideoFlash"
_SUFFIXES = (".flv", ".mp4")


def find_crema_d(root: str | Path) -> list[Clip]:
    """Clips of CREMA-D with their acted emotion and level.

    Layout: ``VideoFlash/1001_DFA_ANG_XX.flv``, actor, sentence, emotion and level; ``.mp4``
    is taken as well. Other names are no clips of this corpus. The actor's last digit decides
    the split, or ``split.json`` with the actors' numbers.

    ``root`` is the folder that holds ``VideoFlash``, or that folder itself. Clips are sorted by
    actor and name.

    Raises:
        DataError: if there are no clips, or the split misses a speaker or names one twice.
    """
    root = corpus_root(root, _FOLDER)
    split_of = read_split(root, _SPEAKERS)
    folder = root / _FOLDER if (root / _FOLDER).is_dir() else root
    files = [p for p in folder.iterdir() if p.suffix.lower() in _SUFFIXES]
    files.sort(key=lambda p: _SUFFIXES.index(p.suffix.lower()), reverse=True)
    clips = []
    # Where a clip is there twice, the corpus's own encoding is taken.
    for stem, video in sorted({p.stem: p for p in files}.items()):
        spelled = re.fullmatch(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})", stem)
        if spelled is None:
            continue
        actor, sentence, emotion, level = spelled.groups()
        clips.append(
            Clip(
                speaker=actor,
                stem=stem,
                path=video,
                split=split_of_speaker(root, split_of, actor),
                text=plain_text(SENTENCES.get(sentence, "")),
                emotion=EMOTIONS.get(emotion),
                level=LEVELS.get(level),
            )
        )
    return checked(root, clips, f"CREMA-D clips are looked for as {_FOLDER}/1001_DFA_ANG_XX.flv")
