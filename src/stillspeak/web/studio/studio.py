"""What one server has: its files, models, queue and threads, from start to stop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from stillspeak.errors import StillspeakError
from stillspeak.web.errors import log
from stillspeak.web.settings import ServeSettings
from stillspeak.web.studio.jobs import JobQueue
from stillspeak.web.studio.model_cache import ModelCache
from stillspeak.web.studio.storage import Storage, StorageFullError

if TYPE_CHECKING:
    from stillspeak.face.landmarks import LandmarkDetector

Result = TypeVar("Result")


class Studio:
    """Everything behind the API. The live page uses its :attr:`models` too."""

    def __init__(self, settings: ServeSettings, detector: LandmarkDetector | None = None) -> None:
        self.settings = settings
        self.models = ModelCache(settings, detector)
        self.storage = Storage(settings)
        self.queue = JobQueue(self.storage, self.models, settings)
        self.live = False
        """Whether there is a live page."""
        self.began = time.monotonic()
        self.problem: str | None = None
        """Why no video can be made, if that is so since the start."""
        self.ready = threading.Event()
        """Set once the first model is loaded, or failed to."""
        self.uploads = 0
        """Uploads under way."""
        # One picture or sound is decoded at a time: the largest ones take much memory.
        self._workers = ThreadPoolExecutor(1, "stillspeak-uploads")
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin; the model is loaded meanwhile."""
        self.storage.open()
        self._sweeper = asyncio.create_task(self._sweep())
        if self.settings.preload:
            self._workers.submit(self._preload)
        else:
            self.ready.set()

    async def close(self) -> None:
        """Stop what runs and remove all files."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._workers.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self.queue.close)
        # What is being decoded cannot be stopped, but it is bounded.
        await asyncio.to_thread(self._workers.shutdown, True)
        self.models.close()
        self.storage.close()

    async def work(self, task: Callable[[], Result]) -> Result:
        """Run something slow in the worker thread, after what was asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, task)

    @contextmanager
    def upload(self) -> Iterator[None]:
        """Count an upload as long as it takes; too many at the same time are refused."""
        if self.uploads >= self.settings.max_uploads:
            message = f"{self.uploads} uploads are under way already; try again in a few seconds"
            raise StorageFullError(message)
        self.uploads += 1
        try:
            yield
        finally:
            self.uploads -= 1

    def _preload(self) -> None:
        try:
            self.models.animator()
            self.models.detector.load()
        except StillspeakError as error:
            self.problem = str(error)
            log.error("%s", error)
        except Exception:
            self.problem = "the model could not be loaded; the server's log says why"
            log.exception("the model could not be loaded")
        finally:
            self.ready.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self.settings.keep_seconds / 4, 30.0))
            await asyncio.to_thread(self.storage.sweep)
            self.models.detector.forget(self.settings.keep_seconds)
