"""How the batches of a run's steps come to the loop: made ahead in a thread, or when asked for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import TypeVar

from stillspeak.data.dataset import AudioBatch, Batch, Examples
from stillspeak.data.device_dataset import DeviceDataset

T = TypeVar("T")


class Prefetcher:
    """Makes batches ahead in one thread, with a bounded queue.

    Iterate over it once; leave with :meth:`close`. An exception in the thread is raised at
    the batch where it happened.

    Args:
        data: makes the batches.
        steps: which steps, in order.
        audio_steps: the steps before this one are of the audio warm start.
        parts: which parts of each step this process sees, one batch each.
        depth: batches made ahead.
    """

    def __init__(
        self,
        data: Examples,
        steps: range,
        *,
        audio_steps: int,
        parts: Sequence[int] = (0,),
        depth: int = 2,
    ) -> None:
        self._queue: Queue[Batch | AudioBatch | BaseException | None] = Queue(depth)
        self._stop = Event()

        def work() -> None:
            try:
                for step in steps:
                    make = data.audio_batch if step < audio_steps else data.batch
                    for part in parts:
                        self._put(make(step, part))
                        if self._stop.is_set():
                            return
                self._put(None)
            except BaseException as error:  # handed to the consumer, who raises it
                self._put(error)

        self._thread = Thread(target=work, name="stillspeak-prefetch", daemon=True)
        self._thread.start()

    def _put(self, item: Batch | AudioBatch | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return
            except Full:
                continue

    def __iter__(self) -> Iterator[Batch | AudioBatch]:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the thread and drop what it made."""
        self._stop.set()
        while True:
            try:
                self._queue.get_nowait()
            except Empty:
                break
        self._thread.join()


class SyncLoader:
    """Makes each batch when it is asked for. For data on the accelerator, which a second thread
    would only delay. Arguments as :class:`Prefetcher`'s."""

    def __init__(
        self, data: Examples, steps: range, *, audio_steps: int, parts: Sequence[int] = (0,)
    ) -> None:
        self._data = data
        self._steps = steps
        self._audio_steps = audio_steps
        self._parts = parts

    def __iter__(self) -> Iterator[Batch | AudioBatch]:
        for step in self._steps:
            for part in self._parts:
                if step < self._audio_steps:
                    yield self._data.audio_batch(step, part)
                else:
                    yield self._data.batch(step, part)

    def close(self) -> None:
        """Nothing to stop."""


def open_loader(
    data: Examples, steps: range, *, audio_steps: int, parts: Sequence[int] = (0,)
) -> Prefetcher | SyncLoader:
    """What gives the batches of some steps in order; close it in the end."""
    kind = SyncLoader if isinstance(data, DeviceDataset) else Prefetcher
    return kind(data, steps, audio_steps=audio_steps, parts=parts)


def grouped(batches: Iterable[T], size: int) -> Iterator[list[T]]:
    """Batches in lists of ``size``; an unfinished list at the end is dropped."""
    group: list[T] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
