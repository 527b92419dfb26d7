"""Where uploads and videos are kept until their time is up.

One folder for each run of the server, readable by its user alone, holds a folder for each item.
Nothing that a visitor sends is ever part of a path. What a killed server left, the next removes.
"""

from __future__ import annotations

import math
import os
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeVar

from stillspeak.errors import ConfigError
from stillspeak.media.source import reason
from stillspeak.system.atomic import partial_folder
from stillspeak.web.errors import ApiError
from stillspeak.web.settings import ServeSettings


class StorageFullError(ApiError):
    """There is no room for another upload or video at the moment."""

    def __init__(self, message: str) -> None:
        super().__init__(503, "full", message, retry_after=5)


class GoneError(ApiError):
    """Something is not there, or not any more."""

    def __init__(self, what: str) -> None:
        message = f"this {what} is not there (any more); upload or make it again"
        super().__init__(404, "not_found", message)


@dataclass(eq=False)
class Item:
    """Something kept for a while. Its id cannot be guessed; those who know it may use the item."""

    what: ClassVar[str] = "file"
    id: str
    folder: Path
    expires: float = math.inf
    """When it is removed, in seconds of ``time.monotonic``."""
    size: int = 0
    """Bytes that it takes."""
    dropped: bool = False
    """Whether it was removed, though a job may still need it."""

    @property
    def needs(self) -> tuple[Item, ...]:
        """Items that stay as long as this one needs them."""
        return ()

    @property
    def expires_in(self) -> int:
        """Seconds until it is removed."""
        return math.ceil(max(self.expires - time.monotonic(), 0.0))


Kept = TypeVar("Kept", bound=Item)


class Storage:
    """The items of one server. Safe from several threads."""

    def __init__(self, settings: ServeSettings) -> None:
        self._settings = settings
        self._root = settings.folder or Path(tempfile.gettempdir())
        self.folder: Path | None = None
        self._items: dict[str, Item] = {}
        self._reserved: dict[str, int] = {}
        self._lock = threading.Lock()
        self._stack = ExitStack()

    def open(self) -> None:
        """Make the folder, if there is none yet, and remove what killed servers left beside it."""
        if self.folder is not None:
            return
        try:
            self._root.stat()
            outer = self._stack.enter_context(partial_folder(self._root / "stillspeak"))
            self.folder = Path(tempfile.mkdtemp(dir=outer))
        except OSError as problem:
            raise ConfigError(
                f"{self._root}: cannot keep uploads there ({reason(problem)}); name another folder"
            ) from problem

    def close(self) -> None:
        """Remove everything."""
        with self._lock:
            self._items.clear()
            self._reserved.clear()
            self.folder = None
        self._stack.close()

    @contextmanager
    def new_folder(self, size: int = 0) -> Iterator[tuple[str, Path]]:
        """A new id with its empty folder, which is removed at the end unless :meth:`add` came.

        ``size`` is how many bytes may be written into it.
        """
        limits = self._settings
        with self._lock:
            if self.folder is None:
                raise StorageFullError("the server is stopping; try again later")
            count = len(self._items) + len(self._reserved)
            used = sum(item.size for item in self._items.values()) + sum(self._reserved.values())
            if count >= limits.max_items or used + size > limits.max_stored_bytes:
                message = "the server holds as many files as it may; try again in a few minutes"
                raise StorageFullError(message)
            name = secrets.token_urlsafe(18)
            self._reserved[name] = size
            folder = self.folder / name
        try:
            folder.mkdir(mode=0o700)
            yield name, folder
        finally:
            with self._lock:
                self._reserved.pop(name, None)
                kept = name in self._items
            if not kept:
                shutil.rmtree(folder, ignore_errors=True)

    def add(self, item: Kept) -> Kept:
        """Keep an item from now on; its size is measured."""
        self.renew(item)
        with self._lock:
            self._reserved.pop(item.id, None)
            if self.folder is None:
                raise StorageFullError("the server is stopping; try again later")
            self._items[item.id] = item
        return item

    def get(self, kind: type[Kept], name: str) -> Kept:
        """The item of this id and kind; GoneError if there is none (any more)."""
        with self._lock:
            item = self._items.get(name)
            if not isinstance(item, kind) or item.dropped or item in self._gone():
                raise GoneError(kind.what)
            return item

    def _gone(self) -> set[Item]:
        """Items that nothing needs and whose time is up, or that were removed."""
        now, items = time.monotonic(), self._items.values()
        over = {item for item in items if item.dropped or item.expires <= now}
        return over.difference(*(item.needs for item in items))

    def renew(self, item: Item) -> None:
        """Count an item's time from now, and measure its size."""
        size = 0
        with suppress(OSError):  # its folder may be gone
            size = sum(e.stat(follow_symlinks=False).st_size for e in os.scandir(item.folder))
        item.size = size
        item.expires = time.monotonic() + self._settings.keep_seconds

    def remove(self, item: Item) -> None:
        """Remove an item now, or as soon as no job needs it."""
        item.dropped = True
        self.sweep()

    def sweep(self) -> None:
        """Remove the items whose time is up, or that were removed while a job needed them."""
        with self._lock:
            gone = [self._items.pop(item.id) for item in self._gone()]
        for item in gone:
            shutil.rmtree(item.folder, ignore_errors=True)

    def __len__(self) -> int:
        with self._lock:
            return len(self._items)

    @property
    def bytes(self) -> int:
        """Bytes of all items, as last measured."""
        with self._lock:
            return sum(item.size for item in self._items.values())
