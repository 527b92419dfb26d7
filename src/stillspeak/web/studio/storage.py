"""Where uploads and videos lie until their time is up.

One folder for each run of the server, readable by its user alone, with one folder for each thing in
it. Names of things are random and come from here; nothing that a visitor sends is ever part of a
path. A lock on a file in the folder says that its server lives: folders without one are what a
killed server left, and the next start removes them.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, TypeVar

from stillspeak.errors import ConfigError, StillspeakError
from stillspeak.media.source import reason

PREFIX = "stillspeak-serve-"
_LOCK = "lock"
# A folder without a lock file is being made, unless it has been so for long.
_NEWBORN_SECONDS = 60.0


class FullError(StillspeakError):
    """There is no room for another upload or video at the moment."""


@dataclass(eq=False)
class Item:
    """Something kept for a while. Who knows its id may use it; nobody can guess one."""

    id: str
    folder: Path
    expires: float
    """When it is removed, in seconds of ``time.monotonic``."""
    size: int = 0
    """Bytes that it takes, or may still take."""
    users: int = field(default=0, compare=False)
    """Jobs that need it: while there are any, it stays."""
    dropped: bool = field(default=False, compare=False)
    """Whether it was removed, though a job may still need it."""


Kept = TypeVar("Kept", bound=Item)


class Store:
    """The items of one server. Safe from several threads.

    Args:
        root: where to make the folder; the system's temporary folder if None.
        keep_seconds: how long an item is kept.
        max_items: items at the same time.
        max_bytes: bytes of all items together.
    """

    def __init__(
        self, root: Path | None, *, keep_seconds: float, max_items: int, max_bytes: int
    ) -> None:
        self.root = Path(tempfile.gettempdir()) if root is None else root
        self.keep_seconds = keep_seconds
        self.max_items = max_items
        self.max_bytes = max_bytes
        self.folder: Path | None = None
        self._items: dict[str, Item] = {}
        self._reserved: dict[str, int] = {}
        self._lock = threading.Lock()
        self._lock_file: BinaryIO | None = None

    def open(self) -> None:
        """Make the folder, if there is none yet, and remove what dead servers left beside it.

        Raises:
            ConfigError: the folder cannot be made.
        """
        if self.folder is not None:
            return
        try:
            folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=self.root))
            partial = folder / f"{_LOCK}.partial"
            self._lock_file = partial.open("wb")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            partial.rename(folder / _LOCK)  # locked from the moment it can be seen
        except OSError as problem:
            raise ConfigError(
                f"{self.root}: cannot keep uploads there ({reason(problem)}); name another folder"
            ) from problem
        self.folder = folder
        for other in self.root.glob(f"{PREFIX}*"):
            if other != folder and _is_left_over(other):
                shutil.rmtree(other, ignore_errors=True)

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            self._items.clear()
            self._reserved.clear()
            folder, self.folder = self.folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def new_folder(self, size: int = 0) -> tuple[str, Path]:
        """A new id with its empty folder; :meth:`add` or :meth:`drop_folder` comes next.

        Args:
            size: bytes that may be written into it.

        Raises:
            FullError: no room.
        """
        with self._lock:
            if self.folder is None:
                raise FullError("the server is stopping; try again later")
            count = len(self._items) + len(self._reserved)
            used = sum(item.size for item in self._items.values()) + sum(self._reserved.values())
            if count >= self.max_items or used + size > self.max_bytes:
                raise FullError(
                    "the server holds as many files as it may; try again in a few minutes"
                )
            name = secrets.token_urlsafe(18)
            self._reserved[name] = size
            folder = self.folder / name
        try:
            folder.mkdir(mode=0o700)
        except BaseException:
            self.drop_folder(name, folder)
            raise
        return name, folder

    def drop_folder(self, name: str, folder: Path) -> None:
        """Give back what :meth:`new_folder` gave."""
        with self._lock:
            self._reserved.pop(name, None)
        shutil.rmtree(folder, ignore_errors=True)

    def add(self, item: Kept) -> Kept:
        """Keep an item from now on; its size is measured."""
        item.size = folder_size(item.folder)
        with self._lock:
            self._reserved.pop(item.id, None)
            if self.folder is None:
                raise FullError("the server is stopping; try again later")
            self._items[item.id] = item
        return item

    def get(self, kind: type[Kept], name: str) -> Kept | None:
        """The item of this id and kind, or None where there is none, or none any more."""
        with self._lock:
            item = self._items.get(name)
            if not isinstance(item, kind) or item.dropped:
                return None
            return item if item.users or item.expires > time.monotonic() else None

    def use(self, *items: Item) -> None:
        """Keep items until :meth:`release`."""
        with self._lock:
            for item in items:
                item.users += 1

    def release(self, *items: Item) -> None:
        """Undo :meth:`use`."""
        with self._lock:
            for item in items:
                item.users -= 1
        self.sweep()

    def renew(self, item: Item) -> None:
        """Count an item's time from now, and measure its size again."""
        item.size = folder_size(item.folder)
        item.expires = self.expiry()

    def remove(self, item: Item) -> None:
        """Remove an item now, or as soon as no job needs it."""
        with self._lock:
            item.dropped = True
        self.sweep()

    def sweep(self) -> None:
        """Remove the items whose time is up, or that were removed while a job needed them."""
        now = time.monotonic()
        with self._lock:
            gone = [
                item
                for item in self._items.values()
                if (item.dropped or item.expires <= now) and not item.users
            ]
            for item in gone:
                del self._items[item.id]
        for item in gone:
            shutil.rmtree(item.folder, ignore_errors=True)

    def expiry(self) -> float:
        """When something that is made now is removed."""
        return time.monotonic() + self.keep_seconds

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)

    @property
    def bytes(self) -> int:
        """Bytes of all items, as last measured."""
        with self._lock:
            return sum(item.size for item in self._items.values())


def folder_size(folder: Path) -> int:
    """Bytes of the files in a folder; 0 if it is gone."""
    total = 0
    with suppress(OSError):
        for entry in os.scandir(folder):
            total += entry.stat(follow_symlinks=False).st_size
    return total


def _is_left_over(folder: Path) -> bool:
    """Whether a folder is ours and its server is dead."""
    try:
        status = folder.lstat()
        if folder.is_symlink() or not folder.is_dir() or status.st_uid != os.getuid():
            return False
        lock = folder / _LOCK
        if not lock.exists():
            return time.time() - status.st_mtime > _NEWBORN_SECONDS
        with lock.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # locked, or gone meanwhile
        return False
    return True
