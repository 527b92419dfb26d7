"""Files and folders that are there whole or not at all, and folders that one process fills.

What is being written stands in ``.stillspeak.RANDOM.partial`` beside its place, with a lock that
ends with its process: the next process that writes there removes a partial folder whose lock is
free. A lock's file stays: removing it can let two in. On file systems without locks no leftovers
are removed and no process is refused.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from stillspeak.errors import StillspeakError

LOCK = ".lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class LockedError(Exception):
    """Another process, or another thread, holds the lock."""


def lock_file(path: Path, *, wait: bool = False) -> BaseFileLock | None:
    """Hold a lock until its ``release()`` or the end of the process; None: no locks here.

    Args:
        path: the lock's file, which is made and stays; never one that holds anything.
        wait: until the lock is free.

    Raises:
        LockedError: it is held, and ``wait`` is False.
        OSError: the file cannot be opened.
    """
    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=wait)
    except Timeout:
        raise LockedError from None
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return None
        raise
    return lock


@contextmanager
def whole_file(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """A file to write to, which becomes ``path`` if nothing goes wrong and is gone otherwise.

    A reader of ``path`` meanwhile finds the old file or the new one, and of several writers one
    wins. The folder exists. The writer must not replace the file it is given. ``mode`` is its
    permissions, less the process's mask.

    Raises:
        OSError: the disk refuses.
    """
    with _hidden_folder(path.parent) as beside:
        partial = beside / path.name
        os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield partial
        partial.replace(path)


@contextmanager
def partial_folder(place: Path) -> Iterator[Path]:
    """A hidden folder beside ``place`` whose content can be moved there; the rest is removed.

    Raises:
        OSError: the disk refuses.
    """
    parent = place.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    with _hidden_folder(parent) as beside:
        yield beside


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
    """Have a folder to yourself. What killed processes left directly in it is removed.

    Args:
        folder: it exists.
        busy: raised if another process, or another thread, has it; None waits until it is free.
    """
    try:
        lock = lock_file(folder / LOCK, wait=busy is None)
    except LockedError:
        assert busy is not None
        raise busy from None
    except OSError:  # it cannot be written to, as those who write there will say
        lock = None
    try:
        sweep(folder)
        yield
    finally:
        if lock is not None:
            lock.release()


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written directly in a folder."""
    for partial in folder.glob(".stillspeak.?*.partial"):
        if partial.is_symlink():
            continue
        with suppress(OSError, LockedError):  # its writer lives, or it is gone meanwhile
            lock = lock_file(partial / LOCK)
            if lock is not None:
                shutil.rmtree(partial, ignore_errors=True)
                lock.release()


@contextmanager
def _hidden_folder(parent: Path) -> Iterator[Path]:
    """A new folder that is locked, and is removed at the end."""
    sweep(parent)
    while True:
        # Under one name whatever is written: names may be as long as a file system allows.
        partial = parent / f".stillspeak.{secrets.token_hex(4)}.partial"
        partial.mkdir()
        try:
            lock = lock_file(partial / LOCK)
            break
        except (LockedError, FileNotFoundError, FileExistsError):
            # A sweeper took it for a leftover, in the moment before it was locked. The last of the
            # three comes from making sure that the folder is there just as it goes.
            continue
        except BaseException:  # an interrupt, or not one more file can be opened
            shutil.rmtree(partial, ignore_errors=True)
            raise
    try:
        yield partial
    finally:
        if lock is not None:
            lock.release()
        shutil.rmtree(partial, ignore_errors=True)
