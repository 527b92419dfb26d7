"""Whether a file carries stillspeak's marks, and whether they are intact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from stillspeak.errors import InputError, VideoError
from stillspeak.media.image import load_cutout
from stillspeak.media.marks.credentials import Credentials, read_credentials
from stillspeak.media.marks.watermark import Frame, Reading, read_watermark
from stillspeak.media.source import Wanted, media_type, open_source, reason
from stillspeak.media.video import iter_frames

Verdict = Literal["intact", "untrusted", "re-encoded", "unmarked", "tampered"]

LIMIT = 1500
"""Frames in which a watermark is looked for, at most: a minute."""
_PICTURES = ("image/png", "image/jpeg", "image/bmp", "image/tiff", "image/webp")


@dataclass(frozen=True)
class Inspection:
    """What a file carries."""

    path: Path
    verdict: Verdict
    """``intact``: the credentials hold. ``untrusted``: they hold, but their signature does not
    lead to the root that was asked for. ``re-encoded``: a watermark and no credentials.
    ``tampered``: credentials that do not hold, or that name another watermark than the pixels
    bear. ``unmarked``: neither."""
    summary: str
    """The verdict in a sentence."""
    credentials: Credentials | None
    watermark: Reading


def inspect_file(path: str | Path, *, trust: str | None = None) -> Inspection:
    """Look for content credentials and a watermark.

    Args:
        path: a video, a picture, or a folder of PNG frames.
        trust: PEM text of root certificates; the signature has to lead to one of them.

    Raises:
        InputError: no such file, or neither a video nor a picture. A file with credentials that
            can be read is judged even where its picture cannot.
        ConfigError: ``trust`` holds no certificates.
    """
    path = Path(path)
    if path.is_dir():
        return _inspect_folder(path, trust)
    # Refuses what is missing, a folder, empty or text, in the words of all other inputs.
    wanted = Wanted("a video or picture", "either", InputError)
    with open_source(path, str(path), wanted) as file:
        head = file.read(16)
    try:
        credentials = read_credentials(path, trust=trust)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({reason(error)})") from error
    try:
        watermark = read_watermark(_frames(path, head), limit=LIMIT)
    except InputError:
        if credentials is None:
            raise
        watermark = Reading(False, None, 0.0, 0)  # damaged after it was signed
    return _judge(path, credentials, watermark, trust is not None)


def _frames(path: Path, head: bytes) -> Iterator[Frame]:
    if media_type(head) in _PICTURES:
        yield _colours(path)
        return
    count = 0
    try:
        for frame in iter_frames(path):
            count += 1
            yield frame
    except VideoError:
        if not count:  # what could be seen of a damaged video is looked at
            raise


def _colours(path: Path) -> Frame:
    """A picture's colours, those of transparent parts too: the watermark is in all of them."""
    import PIL.Image

    picture = load_cutout(path)
    if picture.shape[2] == 3:
        return picture
    with PIL.Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def _inspect_folder(path: Path, trust: str | None) -> Inspection:
    """Frames of a folder: the worst of their credentials, the watermark of all together."""
    files = sorted(path.glob("*.png"))
    if not files:
        raise InputError(f"{path}: a folder without PNG frames; give a video, picture or frames")
    found = [read_credentials(file, trust=trust) for file in files]
    watermark = read_watermark((_colours(file) for file in files[:LIMIT]), limit=LIMIT)
    signed = [one for one in found if one is not None]
    credentials = min(signed, key=lambda one: (one.intact, one.trusted)) if signed else None
    if signed and len(signed) < len(files):
        missing = f"{len(files) - len(signed)} of {len(files)} frames have no credentials"
        credentials = Credentials(False, problems=(missing,))
    return _judge(path, credentials, watermark, trust is not None)


def _judge(
    path: Path, credentials: Credentials | None, watermark: Reading, asked: bool
) -> Inspection:
    verdict: Verdict
    if credentials is None and watermark.present:
        verdict = "re-encoded"
        summary = (
            "stillspeak's watermark alone: encoded again, stripped of its credentials, or of a "
            "format without a place for them, such as WebM"
        )
    elif credentials is None:
        verdict, summary = "unmarked", "neither credentials nor stillspeak's watermark were found"
    elif not credentials.intact:
        verdict, summary = "tampered", "changed after it was signed: its credentials do not fit it"
    elif None not in (named := {credentials.watermark, watermark.identifier}) and len(named) == 2:
        verdict, summary = "tampered", "its credentials name another watermark than its pixels bear"
    elif asked and not credentials.trusted:
        verdict = "untrusted"
        summary = "unchanged since it was signed, but not by anyone whom the given root vouches for"
    else:
        verdict, summary = "intact", "unchanged since it was signed"
    return Inspection(path, verdict, summary, credentials, watermark)
