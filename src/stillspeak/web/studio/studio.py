"""What one server has: its files, models, queue and threads, from start to stop."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from stillspeak.errors import StillspeakError
from stillspeak.web.settings import ServeSettings
from stillspeak.web.studio.jobs import JobQueue
from stillspeak.web.studio.model_cache import ModelShelf
from stillspeak.web.studio.storage import FullError, Store
from stillspeak.web.studio.uploads import speaker

if TYPE_CHECKING:
    from stillspeak.face.landmarks import LandmarkDetector

Result = TypeVar("Result")

_log = logging.getLogger("stillspeak.web")


class Studio:
    """Everything behind the API. :attr:`shelf` and :attr:`store` serve the live page too.

    Args:
        settings: what the operator decided.
        detector: finds faces; MediaPipe's if None, loaded when first needed.
    """

    def __init__(self, settings: ServeSettings, detector: LandmarkDetector | None = None) -> None:
        self.settings = settings
        self.shelf = ModelShelf(
            settings.models,
            device=settings.device,
            capacity=settings.models_in_memory,
            detector=detector,
        )
        self.store = Store(
            settings.folder,
            keep_seconds=settings.keep_seconds,
            max_items=settings.max_items,
            max_bytes=settings.max_stored_bytes,
        )
        self.queue = JobQueue(
            self.store,
            self.shelf,
            length=settings.queue_length,
            per_client=settings.queue_per_client,
            job_seconds=settings.job_seconds,
            choices=settings.choices,
        )
        self.can_speak = speaker() is not None
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
        self._workers = ThreadPoolExecutor(1, "stillspeak-intake")
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Begin; the model is loaded meanwhile.

        Raises:
            ConfigError: no files can be kept.
        """
        self.store.open()
        self.queue.start()
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
        self.shelf.close()
        self.store.close()

    async def work(self, task: Callable[[], Result]) -> Result:
        """Run something slow in the worker thread, after what was asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, task)

    def begin_upload(self) -> None:
        """Count an upload; :meth:`end_upload` comes after it.

        Raises:
            FullError: too many at the same time.
        """
        if self.uploads >= self.settings.max_uploads:
            raise FullError(
                f"{self.uploads} uploads are under way already; try again in a few seconds"
            )
        self.uploads += 1

    def end_upload(self) -> None:
        self.uploads -= 1

    def _preload(self) -> None:
        try:
            self.shelf.animator()
            self.shelf.detector.load()
        except StillspeakError as error:
            self.problem = str(error)
            _log.error("%s", error)
        except Exception:
            self.problem = "the model could not be loaded; the server's log says why"
            _log.exception("the model could not be loaded")
        finally:
            self.ready.set()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(min(self.settings.keep_seconds / 4, 30.0))
            await asyncio.to_thread(self.store.sweep)
            self.shelf.detector.forget(self.settings.keep_seconds)
