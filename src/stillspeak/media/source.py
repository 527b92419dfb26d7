"""Open the files that you give, and say in one line why one cannot be opened."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stillspeak.errors import InputError

if TYPE_CHECKING:
    import av

# How much of a file's beginning decides whether it is text.
HEAD_BYTES = 512

# Containers in which every packet has its own time stamp, so that it is the same after a jump;
# in MPEG streams most are worked out from the packets before. Names as FFmpeg gives them.
_JUMPABLE = frozenset({"mp4", "mov", "matroska", "webm", "avi", "flv"})

# Pictures in a container of videos, by the brand in it; and pictures, by FFmpeg's name.
_STILL_BRANDS = frozenset({b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1"})
_STILLS = frozenset({"image2", "gif", "apng"})

# A text header in front of binary data: NIST SPHERE speech files and raw YUV video.
_BINARY_WITH_TEXT_HEADER = (b"NIST_1A", b"YUV4MPEG2")
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")

_MAGIC = {
    b"\x89PNG\r\n\x1a\n": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"GIF87a": "image/gif",
    b"GIF89a": "image/gif",
    b"II*\0": "image/tiff",
    b"MM\0*": "image/tiff",
    b"II+\0": "image/tiff",
    b"MM\0+": "image/tiff",
    b"BM": "image/bmp",
}
_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/wav", b"AVI ": "video/avi"}


def media_type(head: bytes) -> str | None:
    """Media type by a file's first 16 bytes: pictures, and what may hold credentials."""
    if kind := next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None):
        return kind
    if head[4:8] == b"ftyp":
        return "video/quicktime" if head[8:12] == b"qt  " else "video/mp4"
    return _RIFF.get(head[8:12]) if head[:4] == b"RIFF" else None


def source_name(source: object, name: str | None = None) -> str:
    """What messages call ``source``: ``name`` if given, else the path, else its kind."""
    if name is not None:
        return name
    if isinstance(source, str | Path):
        return str(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return "<bytes>"
    return f"<{type(source).__name__}>"


def looks_like_text(head: bytes) -> bool:
    """True where the first bytes of a file read as text (UTF-8, or UTF-16 with its mark)."""
    if not head or head.startswith(_BINARY_WITH_TEXT_HEADER):
        return False
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        # An MPEG audio frame may begin with the same two bytes: only clean UTF-16 counts.
        try:
            decoded = head[: len(head) // 2 * 2].decode("utf-16")
        except UnicodeDecodeError:
            return False
        return all(ord(c) >= 32 or ord(c) in _TEXT_CONTROLS for c in decoded) and decoded.isascii()
    if any(byte < 32 and byte not in _TEXT_CONTROLS for byte in head):
        return False
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The cut at HEAD_BYTES may go through a character; anything earlier is not text.
        return len(head) == HEAD_BYTES and error.start >= HEAD_BYTES - 3
    return True


@dataclass(frozen=True)
class Wanted:
    """What a file should be, e.g. ``"a picture"``, and the error where it is not."""

    what: str
    formats: str
    """What to give instead, e.g. ``"a JPEG or PNG"``."""
    error: type[InputError]


@contextmanager
def open_source(source: str | Path | bytes, name: str, wanted: Wanted) -> Iterator[BinaryIO]:
    """Open a path or bytes for reading, refusing what cannot be media at all.

    The open file rather than its name goes to the decoders, so that a name such as
    ``concat:a|b`` or ``http://...`` is never taken for a protocol.

    Args:
        source: path of a file, or the file's content.
        name: what messages call it.

    Raises:
        InputError: of the class wanted: missing, a folder, not readable, empty or text.
    """
    error, formats = wanted.error, wanted.formats
    if isinstance(source, str | Path):
        try:
            if Path(source).is_dir():
                raise error(f"{name}: a folder, not {wanted.what}; give {formats}")
            file: BinaryIO = Path(source).open("rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            raise error(f"{name}: no such file; check the path") from None
        except (OSError, ValueError) as problem:
            raise error(f"{name}: cannot be opened ({reason(problem)})") from problem
    else:
        file = io.BytesIO(source)
    with file:
        try:
            head = file.read(HEAD_BYTES)
            file.seek(0)
        except OSError as problem:
            raise error(f"{name}: cannot be read ({reason(problem)})") from problem
        if not head:
            raise error(f"{name}: the file is empty; give {formats}")
        if looks_like_text(head):
            raise error(
                f"{name}: not {wanted.what} stillspeak can read (the file starts like text); "
                f"give {formats}"
            )
        yield file


@contextmanager
def open_container(
    source: str | Path | bytes, name: str, wanted: Wanted
) -> Iterator[av.container.InputContainer]:
    """Open a sound or video file with FFmpeg. Arguments as in :func:`open_source`.

    Raises:
        InputError: what :func:`open_source` raises, or no file that FFmpeg reads.
    """
    import av

    with open_source(source, name, wanted) as file:
        try:
            # No protocol is allowed, so that a playlist cannot make FFmpeg open other files.
            # Old files name their titles in any alphabet, which is no reason to refuse them.
            options = {"protocol_whitelist": "none"}
            container = av.open(file, mode="r", options=options, metadata_errors="replace")
        except (av.FFmpegError, ValueError) as problem:
            raise wanted.error(
                f"{name}: not {wanted.what} stillspeak can read ({reason(problem)}); "
                f"give {wanted.formats}"
            ) from problem
        except OSError as problem:
            raise wanted.error(f"{name}: cannot be read ({reason(problem)})") from problem
        with container:
            yield container


def film_or_sound(file: BinaryIO) -> str | None:
    """``video`` or ``sound``, whichever an open file is for FFmpeg; None: neither."""
    import av

    file.seek(0)
    if file.read(12)[8:] in _STILL_BRANDS:
        return None
    file.seek(0)
    try:
        with av.open(file, mode="r", options={"protocol_whitelist": "none"}) as container:
            if holds_still(container):
                return None
            cover = av.stream.Disposition.attached_pic
            films = [s for s in container.streams.video if not s.disposition & cover]
            return "video" if films else "sound" if container.streams.audio else None
    except (av.FFmpegError, ValueError, OSError):
        return None


def holds_still(container: av.container.InputContainer) -> bool:
    """Whether what FFmpeg opened is a picture."""
    return container.format.name.endswith("_pipe") or container.format.name in _STILLS


def can_jump(container: av.container.InputContainer) -> bool:
    """Whether times in this container are the same after a jump as without one."""
    return not _JUMPABLE.isdisjoint(container.format.name.split(","))


def reason(problem: BaseException) -> str:
    """One line that says why an operation failed, without the file's name in it."""
    number = getattr(problem, "errno", None)
    if isinstance(number, int) and number in errno.errorcode:
        return os.strerror(number).lower()
    text = str(getattr(problem, "strerror", None) or problem) or type(problem).__name__
    return " ".join(text.split())
