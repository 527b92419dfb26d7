"""A clock of the tests' own for what is live: nothing in them depends on the machine's speed."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np

from stillspeak.realtime.session import RealtimeSession

RATE, FPS, HOP = 16_000, 25, 640


def levels(count: int, begin: int = 0) -> np.ndarray:
    """(count * 640,) float32: each frame's samples at a level of its own."""
    steps = 0.1 + 0.8 * ((np.arange(begin, begin + count) * 7) % 50) / 50
    return np.repeat(steps, HOP).astype(np.float32)


class Clock:
    """Time that passes only in ``sleep``, and threads that take as long as they are told to."""

    def __init__(self, step: float = 0.0) -> None:
        self.now = 100.0
        self.step = step
        """Seconds that the thread takes for a job."""
        self.late: Callable[[], float] = lambda: 0.0
        """How much longer than asked for the next sleep is."""
        self.jobs: list[tuple[float, Future[Any], Callable[[], Any]]] = []
        self.most_jobs = 0
        self.started = False
        clock = self

        class Threads(Executor):
            busy_until = 0.0

            @property
            def clock(self) -> Clock:
                return clock

            def submit(self, work: Any, /, *args: Any, **more: Any) -> Future[Any]:
                future: Future[Any] = Future()
                # The first job comes before the clock is started.
                self.busy_until = max(self.busy_until, clock.now) + clock.step * clock.started
                clock.started = True
                clock.jobs.append((self.busy_until, future, lambda: work(*args, **more)))
                clock.most_jobs = max(clock.most_jobs, len(clock.jobs))
                clock.work()
                return future

        self.threads = Threads()

    def work(self) -> None:
        """Finish the jobs whose time has come."""
        while self.jobs and self.jobs[0][0] <= self.now:
            _, future, work = self.jobs.pop(0)
            try:
                future.set_result(work())
            except Exception as error:
                future.set_exception(error)

    def drain(self) -> None:
        """Time goes on until the threads are done: whoever closes waits for them."""
        self.now += 1.0
        self.step = 0.0
        self.work()

    async def sleep(self, seconds: float) -> None:
        until = self.now + seconds + self.late()
        while True:
            self.work()
            for _ in range(6):  # whoever waits for a job goes on, and gives the next one
                await asyncio.sleep(0)
            if not self.jobs or self.jobs[0][0] > until:
                break
            self.now = max(self.now, self.jobs[0][0])
        self.now = until


def talk_with(clock: Clock, face: Any, **options: Any) -> RealtimeSession:
    """A talk on that clock."""
    return RealtimeSession(
        face, executor=clock.threads, clock=lambda: clock.now, sleep=clock.sleep, **options
    )
