"""Stages of one work in threads of their own, a bounded number of steps apart."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def read_ahead(items: Iterable[T], depth: int) -> Generator[T]:
    """The same items, made in another thread up to ``depth`` before they are asked for.

    What ``items`` raises is raised in its place. Close the iterator to end the thread early.
    """
    ready: queue.Queue[tuple[str, T | BaseException | None]] = queue.Queue(depth)
    ended = threading.Event()

    def put(kind: str, what: T | BaseException | None) -> bool:
        while not ended.is_set():
            try:
                ready.put((kind, what), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def make() -> None:
        try:
            for item in items:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as problem:
            put("error", problem)
        finally:
            if isinstance(items, Iterator) and hasattr(items, "close"):
                items.close()

    thread = threading.Thread(target=make, name="stillspeak-ahead", daemon=True)
    thread.start()
    try:
        while True:
            kind, what = ready.get()
            if kind == "end":
                return
            if kind == "error":
                assert isinstance(what, BaseException)
                raise what
            yield what  # type: ignore[misc]
            del what
    finally:
        ended.set()
        thread.join()


class WorkBehind:
    """Does one thing after another in another thread, up to ``depth`` steps behind the caller.

    A context manager. What a step raises, a later :meth:`do` or the end of the block raises; the
    steps after it are left undone, as they are where the block itself raises.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._waiting: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, "stillspeak-behind")

    def __enter__(self) -> WorkBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            while kind is None and self._waiting:
                self._waiting.popleft().result()
        finally:
            self._thread.shutdown(cancel_futures=True)

    def do(self, step: Callable[[], None]) -> None:
        """Let the thread do this next."""
        while len(self._waiting) >= self._depth or (self._waiting and self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(step))
