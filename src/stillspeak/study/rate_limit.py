"""Bounds on what one address may ask for; addresses live in memory only, as keyed hashes."""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable

_MOST = 100_000
"""Addresses remembered; the ones seen longest ago go first."""


class Rate:
    """At most ``limit`` events in ``seconds`` for each address, in a moving window of two halves;
    a limit of 0 allows any number.
    """

    def __init__(
        self, limit: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._seconds = seconds
        self._clock = clock
        self._key = secrets.token_bytes(16)
        self._lock = threading.Lock()
        self._counts: dict[bytes, tuple[int, float, float]] = {}

    def allow(self, address: str) -> bool:
        """Count an event; False if it is one too many."""
        if not self._limit:
            return True
        name = hashlib.blake2b(address.encode(), key=self._key, digest_size=12).digest()
        now = self._clock()
        window = int(now // self._seconds)
        share = 1 - (now / self._seconds - window)  # of the window before that still counts
        with self._lock:
            there, before, count = self._counts.pop(name, (window, 0.0, 0.0))
            if there != window:
                before, count = (count if there == window - 1 else 0.0), 0.0
            allowed = before * share + count < self._limit
            if allowed:
                count += 1
            self._counts[name] = window, before, count
            if len(self._counts) > _MOST:
                del self._counts[next(iter(self._counts))]
        return allowed
