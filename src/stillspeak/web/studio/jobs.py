"""Videos in the making: a bounded queue and one thread that makes them, one after another."""

from __future__ import annotations

import logging
import shlex
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stillspeak.errors import StillspeakError
from stillspeak.media.marks.marking import MarkChoices
from stillspeak.options import AnimateOptions
from stillspeak.web.names import file_argument
from stillspeak.web.studio.model_cache import ModelShelf
from stillspeak.web.studio.storage import Item, Store
from stillspeak.web.studio.uploads import PictureItem, SoundItem

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from stillspeak.rendering.check import StillWarning

State = Literal["waiting", "running", "done", "failed", "cancelled"]

VIDEO = "video.mp4"

_log = logging.getLogger("stillspeak.web")


class BusyError(StillspeakError):
    """The queue is full.

    Attributes:
        mine: whether it is the visitor's own jobs that fill it.
    """

    def __init__(self, message: str, *, mine: bool) -> None:
        super().__init__(message)
        self.mine = mine


@dataclass(frozen=True)
class Made:
    """A finished video."""

    frames: int
    fps: int
    width: int
    height: int
    seconds: float
    """Length of the video."""
    took: float
    """Seconds from the start of the work to its end."""
    bytes: int


@dataclass(eq=False, kw_only=True)
class Job(Item):
    """A video that waits, is made, or was made."""

    picture: PictureItem
    sound: SoundItem
    model: str
    options: AnimateOptions
    command: str
    client: str
    state: State = "waiting"
    stage: str = "waiting"
    """loading (the model), looking (at the picture and the sound), drawing (frames)."""
    done: int = 0
    """Frames drawn."""
    total: int = 0
    """Frames to draw, once it is known."""
    error: str | None = None
    warnings: tuple[StillWarning, ...] = ()
    made: Made | None = None
    stop: bool = False
    """Set to end it as soon as possible."""

    @property
    def video(self) -> Path:
        return self.folder / VIDEO

    @property
    def over(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


class _StopError(Exception):
    """A job is to end now."""


class JobQueue:
    """Runs jobs in one thread. Methods are for any thread.

    Args:
        store: keeps the items.
        shelf: has the models.
        length: jobs that wait.
        per_client: jobs of one client that wait or run.
        job_seconds: time after which a running job is stopped.
        choices: the marks of every video.
    """

    def __init__(
        self,
        store: Store,
        shelf: ModelShelf,
        *,
        length: int,
        per_client: int,
        job_seconds: float,
        choices: MarkChoices,
    ) -> None:
        self._store = store
        self._shelf = shelf
        self._length = length
        self._per_client = per_client
        self._job_seconds = job_seconds
        self._choices = choices
        self._waiting: deque[Job] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._pace = 0.0

    def start(self) -> None:
        """Begin to work."""
        self._thread = threading.Thread(target=self._work, name="stillspeak-jobs", daemon=True)
        self._thread.start()

    def close(self, timeout: float = 10.0) -> None:
        """Drop what waits, stop what runs, and wait for it."""
        with self._changed:
            self._stopping = True
            for job in self._waiting:
                self._end(job, "cancelled")
            self._waiting.clear()
            if self._running is not None:
                self._running.stop = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join(timeout)

    def check(self, client: str) -> None:
        """Refuse a client while the queue is full.

        Raises:
            BusyError: it is.
        """
        with self._changed:
            self._check(client)

    def _check(self, client: str) -> None:
        jobs = [*self._waiting, *([self._running] if self._running else [])]
        if sum(job.client == client for job in jobs) >= self._per_client:
            raise BusyError(
                f"{self._per_client} of your videos are in the making; wait for one or cancel it",
                mine=True,
            )
        if len(self._waiting) >= self._length:
            raise BusyError(
                f"{self._length} videos are waiting already; try again in a minute", mine=False
            )

    def submit(self, job: Job) -> None:
        """Put a job, which :class:`Store` has, at the end of the queue.

        Raises:
            BusyError: the queue is full.
        """
        with self._changed:
            self._check(job.client)
            self._store.use(job, job.picture, job.sound)
            self._waiting.append(job)
            self._changed.notify_all()

    def cancel(self, job: Job) -> None:
        """End a job and drop its video; nothing happens to one that is over."""
        with self._changed:
            if job in self._waiting:
                self._waiting.remove(job)
                self._end(job, "cancelled")
            elif job is self._running:
                job.stop = True

    def position(self, job: Job) -> int:
        """Jobs before this one; 0 once it runs."""
        with self._changed:
            if job not in self._waiting:
                return 0
            return self._waiting.index(job) + (self._running is not None)

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> bool:
        return self._running is not None

    @property
    def alive(self) -> bool:
        """Whether the thread works."""
        return self._thread is not None and self._thread.is_alive()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._stopping:
                    self._changed.wait()
                if self._stopping:
                    return
                job = self._running = self._waiting.popleft()
                job.state = "running"
            state: State = "failed"
            try:
                self._make(job)
                state = "done"
            except _StopError:
                state = "cancelled"
            except StillspeakError as error:
                # Messages name files as the visitor does; a path can only be one of ours.
                job.error = str(error).replace(f"{job.folder}/", "")
            except Exception:
                _log.exception("a job failed")
                job.error = "something went wrong inside the server; its log says what"
            with self._changed:
                self._running = None
                self._end(job, state)

    def _end(self, job: Job, state: State) -> None:
        job.state = job.stage = state
        if state != "done":
            job.video.unlink(missing_ok=True)
        self._store.renew(job)
        self._store.release(job, job.picture, job.sound)

    def _make(self, job: Job) -> None:
        from stillspeak.media.video import write_video

        began = time.monotonic()

        def go_on() -> None:
            if job.stop:
                raise _StopError
            if time.monotonic() - began > self._job_seconds:
                raise StillspeakError(
                    f"the video took longer than {self._job_seconds:g} s to make; "
                    "give a shorter sound or a smaller size"
                )

        def counted(
            frames: Iterable[npt.NDArray[np.uint8]],
        ) -> Iterator[npt.NDArray[np.uint8]]:
            for frame in frames:
                go_on()
                yield frame
                job.done += 1

        job.stage = "loading"
        animator = self._shelf.animator(job.model)
        go_on()
        job.stage = "looking"
        animation = animator.animate(
            job.picture.source,
            job.sound.source,
            job.options,
            image_name=job.picture.name,
            audio_name=job.sound.name,
        )
        job.warnings = animation.warnings
        go_on()
        job.total = len(animation)
        job.stage = "drawing"
        settings = animation.video_settings
        settings["marks"] = self._choices.applied(settings["marks"])
        frames = write_video(job.video, counted(animation), **settings)
        job.made = Made(
            frames=frames,
            fps=animation.fps,
            width=animation.width,
            height=animation.height,
            seconds=frames / animation.fps,
            took=time.monotonic() - began,
            bytes=job.video.stat().st_size,
        )


def command_lines(
    picture: PictureItem,
    sound: SoundItem,
    options: AnimateOptions,
    model: str | None,
    choices: MarkChoices,
) -> str:
    """What does the same in a shell, beside the two files.

    Args:
        picture, sound: what is animated, by the names of their files.
        options: how.
        model: what ``--model`` calls the model; None if it is the one that ``animate`` takes by
            default.
        choices: the marks; a certificate is the operator's and is left out.
    """
    lines = []
    if sound.spoken is not None:
        spoken = sound.spoken
        lines.append(
            f"espeak-ng -v {spoken.voice} -s {spoken.speed} -w {file_argument(sound.name)} "
            f"-- {shlex.quote(spoken.text)}"
        )
    words = ["stillspeak animate", file_argument(picture.name), file_argument(sound.name)]
    if model is not None:
        words += ["--model", file_argument(model)]
    for name, value in options.changed().items():
        words.append(f"--{name.replace('_', '-')}")
        if value is not True:
            words.append(f"{value:g}" if float(f"{value:g}") == value else repr(value))
    if not choices.mark:
        words.append("--no-mark")
    if choices.label is not None:
        words += ["--label-text", shlex.quote(choices.label)]
    words += ["-o", "video.mp4"]
    lines.append(" ".join(words))
    return "\n".join(lines)
