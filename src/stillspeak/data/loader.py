"""How the batches of a run's steps come to the loop: made ahead in a thread, or when asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

from stillspeak.data.dataset import AudioBatch, Batch, Examples
from stillspeak.data.device_dataset import DeviceDataset

T = TypeVar("T")


def open_loader(
    data: Examples, steps: range, *, audio_steps: int, parts: Sequence[int] = (0,)
) -> Generator[Batch | AudioBatch, None, None]:
    """The batches of some steps in order, made ahead unless the data is on the accelerator, which
    a second thread would only delay; close it in the end.

    Args:
        data: makes the batches.
        steps: which steps, in order.
        audio_steps: the steps before this one are of the audio warm start.
        parts: which parts of each step this process sees, one batch each.
    """
    batches = (
        data.audio_batch(step, part) if step < audio_steps else data.batch(step, part)
        for step in steps
        for part in parts
    )
    return batches if isinstance(data, DeviceDataset) else prefetched(batches)


def prefetched(items: Iterator[T], depth: int = 3) -> Generator[T, None, None]:
    """Items, ``depth`` of them made ahead in one thread; an exception is raised at its item."""
    pool = ThreadPoolExecutor(1, "stillspeak-prefetch")
    try:
        ahead = deque(pool.submit(next, items, None) for _ in range(depth))
        while (item := ahead.popleft().result()) is not None:
            ahead.append(pool.submit(next, items, None))
            yield item
    finally:
        pool.shutdown(cancel_futures=True)


def grouped(batches: Iterable[T], size: int) -> Iterator[list[T]]:
    """Batches in lists of ``size``; an unfinished list at the end is dropped."""
    iterator = iter(batches)
    while len(group := list(islice(iterator, size))) == size:
        yield group
