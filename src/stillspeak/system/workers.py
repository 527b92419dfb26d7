"""Many jobs in a few processes, of which one may die without taking the others along."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")


def _start_in_worker(start: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    """First call in a worker: it ends with its parent, however that ends, and then starts."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def follow() -> None:
            parent.join()
            os._exit(1)  # its result has no taker any more

        threading.Thread(target=follow, name="parent", daemon=True).start()
    start(*arguments)


@dataclass
class WorkerPool(Generic[Task, Result]):
    """Runs a function over jobs in processes that were started with a common initialiser.

    Args:
        work: the function; at the top of a module, as are the others.
        start: first call in each process.
        arguments: of ``start``.
        workers: processes, at least one.
        died: the result of a job whose process died over it.
    """

    work: Callable[[Task], Result]
    start: Callable[..., None]
    arguments: tuple[Any, ...]
    workers: int
    died: Callable[[Task], Result]
    _executor: ProcessPoolExecutor | None = field(default=None, init=False)

    def results(self, jobs: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Index and result of every job, as they get ready; few are in flight at a time."""
        waiting = list(range(len(jobs)))[::-1]
        running: dict[Future[Result], int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self.workers:
                    try:
                        running[self._submit(jobs[waiting[-1]])] = waiting[-1]
                    except BrokenProcessPool:
                        break  # one of those in flight did it, as is seen below
                    waiting.pop()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                if not any(isinstance(f.exception(), BrokenProcessPool) for f in done):
                    for future in done:
                        yield running.pop(future), future.result()
                    continue
                # Which job killed its process is found out by running those in flight again,
                # one at a time.
                self._close()
                suspects, running = sorted(running.values()), {}
                for index in suspects:
                    try:
                        yield index, self._submit(jobs[index]).result()
                    except BrokenProcessPool:
                        self._close()
                        yield index, self.died(jobs[index])
        finally:
            self._close()

    def _submit(self, job: Task) -> Future[Result]:
        if self._executor is None:
            self._executor = ProcessPoolExecutor(
                self.workers,
                # Forking a process that runs MediaPipe's or torch's threads can hang.
                mp_context=multiprocessing.get_context("spawn"),
                initializer=_start_in_worker,
                initargs=(self.start, self.arguments),
            )
        return self._executor.submit(self.work, job)

    def _close(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(cancel_futures=True)
            self._executor = None
