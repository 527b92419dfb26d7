"""SIGTERM and Ctrl-C end a run after the step in hand instead of in the middle of it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_signals(stop: Callable[[str], None]) -> Iterator[None]:
    """Within the block, SIGTERM and SIGINT call ``stop`` with a reason in words.

    Only a process's first thread can listen to signals; in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, _frame: object) -> None:
        stop(f"{signal.Signals(number).name} was received")

    old = {s: signal.signal(s, handle) for s in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
