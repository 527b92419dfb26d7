"""Files that are there whole or not at all, and folders that one process fills at a time.

A file is written under a hidden name beside its place, ``.NAME.RANDOM.partial``, and renamed when
it is whole. Meanwhile its process holds a lock on it, which the system takes back when the process
ends, however it ends: a partial file without a lock is what a killed process left, and the next
one that writes there removes it. A claimed folder has a file ``.lock`` that is held likewise. It
stays there, empty: removing the file of a lock can let two in.

On Windows, and on file systems without locks, files are written as carefully, but nobody's are
removed and nobody is refused.
"""

from __future__ import annotations

import glob
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stillspeak.errors import StillspeakError

if sys.platform != "win32":
    import fcntl

LOCK = ".lock"
_RANDOM_BYTES = 4
_RANDOM = "[0-9a-f]" * (2 * _RANDOM_BYTES)


@contextmanager
def whole_file(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """A name to write to, which becomes ``path`` if nothing goes wrong and is gone otherwise.

    Whoever reads ``path`` meanwhile finds the old file or the new one, and of several writers
    one wins. The writer must not replace the file it is given.

    Args:
        path: the file; its folder exists.
        mode: permissions, less the process's mask.

    Raises:
        OSError: the disk refuses.
    """
    sweep(path.parent, path.name)
    partial, handle = _new_partial(path, mode)
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
        if handle is not None:
            os.close(handle)


@contextmanager
def partial_folder(place: Path) -> Iterator[Path]:
    """A hidden folder beside ``place`` whose content can be moved there; the rest is removed.

    Raises:
        OSError: the disk refuses.
    """
    # Under one name whatever the place's is: names may be as long as a file system allows.
    hidden = place.absolute().with_name("stillspeak")
    sweep(hidden.parent, hidden.name)
    while True:
        partial = _partial_name(hidden)
        partial.mkdir(parents=True)
        try:
            handle = _open_locked(partial, os.O_RDONLY)
            break
        except (_TakenError, FileNotFoundError):
            continue
        except OSError:  # not one more file can be opened
            partial.rmdir()
            raise
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if handle is not None:
            os.close(handle)


@contextmanager
def whole_folder(place: Path) -> Iterator[Path]:
    """A folder to fill, which takes the place of whatever folder is there if nothing goes wrong.

    Raises:
        OSError: the disk refuses.
    """
    place = place.absolute()
    with partial_folder(place) as beside:
        fresh, before = beside / "fresh", beside / "before"
        fresh.mkdir()
        yield fresh
        if place.exists():
            place.rename(before)
        try:
            fresh.rename(place)
        except OSError:
            if before.exists():
                before.rename(place)
            raise


@contextmanager
def claim(folder: Path, busy: StillspeakError | None) -> Iterator[None]:
    """Have a folder for oneself. What killed processes left directly in it is removed.

    Args:
        folder: it exists.
        busy: raised if another process, or another thread, has it; None waits until it is free.
    """
    try:
        handle = _open_locked(folder / LOCK, os.O_RDWR | os.O_CREAT, wait=busy is None)
    except _TakenError:
        assert busy is not None
        raise busy from None
    except OSError:  # it cannot be written to, as whoever writes there will say
        handle = None
    try:
        sweep(folder)
        yield
    finally:
        if handle is not None:
            os.close(handle)


def sweep(folder: Path, name: str | None = None) -> None:
    """Remove partial files and folders whose process is dead.

    Args:
        folder: where; not below it.
        name: only those of this file; of any file if None.
    """
    stem = "*" if name is None else glob.escape(name)
    for partial in folder.glob(f".{stem}.{_RANDOM}.partial"):
        # Locked by its living writer, or gone meanwhile.
        with suppress(OSError, _TakenError):
            is_folder = partial.is_dir()
            handle = _open_locked(partial, os.O_RDONLY if is_folder else os.O_RDWR)
            if handle is None:
                continue
            try:
                if is_folder:
                    shutil.rmtree(partial, ignore_errors=True)
                else:
                    partial.unlink()
            finally:
                os.close(handle)


class _TakenError(Exception):
    """Somebody else holds the lock."""


def _partial_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(_RANDOM_BYTES)}.partial")


def _new_partial(path: Path, mode: int) -> tuple[Path, int | None]:
    while True:
        partial = _partial_name(path)
        try:
            handle = _open_locked(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode)
        except _TakenError:
            continue  # a sweeper took it for a leftover, in the moment before it was locked
        return partial, handle


def _open_locked(path: Path, flags: int, mode: int = 0o666, *, wait: bool = False) -> int | None:
    """A handle that holds the lock of a file or folder; None where there are no locks.

    Raises:
        _TakenError: another has it, or removed the file before it was locked.
        OSError: it cannot be opened.
    """
    if sys.platform == "win32":
        if flags & os.O_CREAT:
            os.close(os.open(path, flags, mode))
        return None
    handle = os.open(path, flags, mode)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        if os.fstat(handle).st_nlink == 0:
            raise _TakenError
    except BlockingIOError:
        os.close(handle)
        raise _TakenError from None
    except _TakenError:
        os.close(handle)
        raise
    except OSError:  # this file system has none
        os.close(handle)
        return None
    return handle
