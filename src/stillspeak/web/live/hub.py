"""All live sessions of a server, and the threads that compute them."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from stillspeak.dub.live import LiveDub
from stillspeak.errors import ConfigError, StillspeakError
from stillspeak.options import AnimateOptions
from stillspeak.realtime.session import RealtimeSession
from stillspeak.web.errors import ApiError
from stillspeak.web.live.session import LiveSession
from stillspeak.web.live.tracks import RATE
from stillspeak.web.settings import ServeSettings

if TYPE_CHECKING:
    from stillspeak.animate import Animator
    from stillspeak.stream import StreamSession


class LiveHub:
    """The sessions of a server; ``animator`` gives a loaded model and detector, in a thread."""

    def __init__(self, settings: ServeSettings, animator: Callable[[], Animator]) -> None:
        self.settings, self._animator = settings, animator
        self.sessions: dict[str, LiveSession] = {}
        """Those that have an answer, by their id."""
        self._waiting = 0
        self._lock = threading.Lock()  # one detector, which is not for several threads
        self._pool = ThreadPoolExecutor(min(os.cpu_count() or 1, 4), thread_name_prefix="live")
        self._closed = False

    @property
    def busy(self) -> int:
        """Sessions there are, those being set up included."""
        return len(self.sessions) + self._waiting

    async def open(
        self, sdp: str, image: bytes | None, options: AnimateOptions, *, camera: bool = False
    ) -> LiveSession:
        """A new session for the offer ``sdp``; no reference image means the bundled portrait, and
        with ``camera`` it is the peer's own picture that speaks.

        Raises:
            ApiError: there are too many, or the offer or the image cannot be used.
        """
        self._refuse_if_closed()
        limit = self.settings.live_sessions
        if self.busy >= limit:
            message = f"all {limit} live sessions are taken; try again later"
            raise ApiError(503, "full", message, retry_after=10, limit=limit)
        self._waiting += 1
        session: LiveSession | None = None
        try:
            loop = asyncio.get_running_loop()
            make = self._camera if camera else partial(self._face, image, options)
            face = await loop.run_in_executor(self._pool, make)
            talk = RealtimeSession(face, rate=RATE, executor=self._pool)
            session = LiveSession(talk, self.settings, lambda s: self.sessions.pop(s.id, None))
            session.warnings = face.warnings
            session.camera = face if isinstance(face, LiveDub) else None
            session.sdp = await session.answer(sdp)
            self._refuse_if_closed()
            self.sessions[session.id] = session
            return session
        except BaseException as error:
            if session is not None:
                await asyncio.shield(session.close("not set up"))
            if isinstance(error, StillspeakError):
                raise ApiError(422, "input", str(error)) from error
            raise
        finally:
            self._waiting -= 1

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise ApiError(503, "closing", "the server is shutting down", retry_after=10)

    def _face(self, image: bytes | None, options: AnimateOptions) -> StreamSession:
        """In a thread: a session's face."""
        from stillspeak.media.image import load_image
        from stillspeak.stream import StreamSession

        if image is None:
            from skimage.data import astronaut

            picture = np.asarray(astronaut())  # type: ignore[no-untyped-call]
        else:
            picture = load_image(image, name="the picture")
        with self._lock:
            if self._closed:
                raise ConfigError("the server is shutting down")
            largest = self.settings.live_size
            if options.size is None and not options.crop and len(picture) > largest:
                options = replace(options, size=largest)
            return StreamSession(picture, options, animator=self._animator())

    def _camera(self) -> LiveDub:
        """In a thread: a session's face that its peer's camera shows."""
        with self._lock:
            if self._closed:
                raise ConfigError("the server is shutting down")
            return LiveDub(animator=self._animator())

    async def close(self) -> None:
        """End every session and free the threads."""
        self._closed = True
        sessions = list(self.sessions.values())
        await asyncio.gather(*(s.close("the server is shutting down") for s in sessions))
        self._pool.shutdown(wait=False, cancel_futures=True)
