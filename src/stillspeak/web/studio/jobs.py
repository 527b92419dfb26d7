"""Jobs: a bounded queue and one thread that makes their videos, one after another."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

from stillspeak.errors import StillspeakError
from stillspeak.media.marks.marking import MarkChoices
from stillspeak.options import AnimateOptions
from stillspeak.web.errors import ApiError, log
from stillspeak.web.settings import ServeSettings
from stillspeak.web.studio.model_cache import ModelCache
from stillspeak.web.studio.schemas import State, VideoOut, WarningOut, warnings_out
from stillspeak.web.studio.storage import Item, Storage
from stillspeak.web.studio.uploads import PictureItem, SoundItem


@dataclass(eq=False, kw_only=True)
class Job(Item):
    """A video that waits, is made, or was made."""

    what = "video"
    queue: JobQueue
    picture: PictureItem
    sound: SoundItem
    others: dict[int, SoundItem | None] = field(default_factory=dict)
    """What other faces of the picture say; None: one listens."""
    model: str
    options: AnimateOptions
    command: str
    client: str
    state: State = "waiting"
    stage: str = "waiting"
    """loading (the model), looking (at the picture and the sound), drawing (frames)."""
    done: int = 0
    total: int = 0
    """Frames drawn and to draw, once that is known."""
    error: str | None = None
    warnings: list[WarningOut] = field(default_factory=list)
    result: VideoOut | None = None
    stop: bool = False
    """Set to end it as soon as possible."""

    @property
    def file(self) -> Path:
        return self.folder / "video.mp4"

    @property
    def video(self) -> VideoOut | None:
        return self.result if self.state == "done" else None

    @property
    def position(self) -> int:
        return self.queue.position(self)

    @property
    def over(self) -> bool:
        return self.state not in ("waiting", "running")

    @property
    def needs(self) -> tuple[Item, ...]:
        sounds = (self.sound, *filter(None, self.others.values()))
        return () if self.over else (self, self.picture, *sounds)


class _StopError(Exception):
    """A job is to end now."""


class JobQueue:
    """Runs jobs in one thread, one after another. Methods are for any thread."""

    def __init__(self, storage: Storage, models: ModelCache, settings: ServeSettings) -> None:
        self._storage, self._models, self._settings = storage, models, settings
        self._jobs: list[Job] = []
        """Those that are not over; the first one runs, or is about to."""
        self._lock = threading.RLock()
        self._thread = ThreadPoolExecutor(1, "stillspeak-jobs")

    def close(self) -> None:
        """Drop what waits, stop what runs, and wait for it."""
        with self._lock:
            for job in reversed(self._jobs.copy()):
                self.cancel(job)
        self._thread.shutdown()

    def check(self, client: str) -> None:
        """Refuse a client while the queue is full."""
        most, length = self._settings.queue_per_client, self._settings.queue_length
        with self._lock:
            if sum(job.client == client for job in self._jobs) >= most:
                message = f"{most} of your videos are being made; wait for one or cancel it"
                raise ApiError(429, "too_many", message, retry_after=15)
            if self.waiting >= length:
                message = f"{length} videos are waiting already; try again in a minute"
                raise ApiError(503, "busy", message, retry_after=15)

    def submit(self, job: Job) -> None:
        """Keep a job in the storage, and put it at the end of the queue."""
        with self._lock:
            self.check(job.client)
            self._storage.add(job)
            self._jobs.append(job)
            self._thread.submit(self._run, job)

    def cancel(self, job: Job) -> None:
        """End a job and drop its video; nothing happens to one that is over."""
        with self._lock:
            job.stop = True
            if job.state == "waiting":
                self._end(job, "cancelled")

    def position(self, job: Job) -> int:
        """Jobs before this one; 0 once it runs."""
        with self._lock:
            return self._jobs.index(job) if job in self._jobs else 0

    @property
    def waiting(self) -> int:
        with self._lock:
            return sum(job.state == "waiting" for job in self._jobs)

    @property
    def running(self) -> int:
        with self._lock:
            return len(self._jobs) - self.waiting

    def _run(self, job: Job) -> None:
        with self._lock:
            if job.over:
                return
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
            for sound in filter(None, job.others.values()):
                job.error = job.error.replace(str(sound.source), sound.name)
        except Exception:
            log.exception("a job failed")
            job.error = "something went wrong inside the server; its log says what"
        with self._lock:
            self._end(job, state)

    def _end(self, job: Job, state: State) -> None:
        job.state = job.stage = state
        self._jobs.remove(job)
        if state != "done":
            job.file.unlink(missing_ok=True)
        self._storage.renew(job)
        self._storage.sweep()

    def _make(self, job: Job) -> None:
        began = time.monotonic()

        def go_on() -> None:
            if job.stop:
                raise _StopError
            if time.monotonic() - began > self._settings.job_seconds:
                raise StillspeakError(
                    f"the video took longer than {self._settings.job_seconds:g} s to make; "
                    "give a shorter sound or a smaller size"
                )

        def drawn(frames: int) -> None:
            job.done = frames
            go_on()

        job.stage = "loading"
        animator = self._models.animator(job.model)
        go_on()
        job.stage = "looking"
        animation = animator.animate(
            job.picture.source,
            job.sound.source,
            job.options,
            image_name=job.picture.name,
            audio_name=job.sound.name,
            others={face: sound.source if sound else None for face, sound in job.others.items()},
        )
        job.warnings = warnings_out((*animation.warnings, *animation.lost_in(job.file)))
        go_on()
        job.total = len(animation)
        job.stage = "drawing"
        frames = animation.save(job.file, progress=drawn, **vars(self._settings.choices))
        job.result = VideoOut(
            url=f"/api/jobs/{job.id}/video",
            frames=frames,
            fps=animation.fps,
            width=animation.width,
            height=animation.height,
            seconds=frames / animation.fps,
            took=time.monotonic() - began,
            bytes=job.file.stat().st_size,
        )


def file_argument(name: str) -> str:
    """A file's name as a word of a command, never taken for an option or for stdin."""
    return f"./{name}" if name.startswith("-") else name


def command_lines(
    picture: PictureItem,
    sound: SoundItem,
    others: Mapping[int, SoundItem | None],
    options: AnimateOptions,
    model: str | None,
    choices: MarkChoices,
) -> str:
    """The command that makes the same video, run where the two files are.

    ``model`` is None if it is the default of ``animate``. The operator's certificate is left out.
    """
    lines = []
    for each in (sound, *others.values()):
        if each is None or each.spoken is None:
            continue
        spoken = each.spoken
        voice = ["-v", spoken.voice, "-s", str(spoken.speed)]
        lines.append(["espeak-ng", *voice, "-w", file_argument(each.name), "--", spoken.text])
    words = ["stillspeak", "animate", file_argument(picture.name), file_argument(sound.name)]
    if others:
        words += ["--face", ",".join(map(str, (options.face or 0, *others)))]
        for face, each in others.items():
            words += [] if each is None else ["--speech-for", f"{face}={each.name}"]
        options = replace(options, face=None)
    if model is not None:
        words += ["--model", file_argument(model)]
    for name, value in options.changed().items():
        words.append(f"--{name.replace('_', '-')}")
        if isinstance(value, str):
            words.append(value)
        elif value is not True:
            words.append(f"{value:g}" if float(f"{value:g}") == value else repr(value))
    if not choices.mark:
        words.append("--no-mark")
    if choices.label is not None:
        words += ["--label-text", choices.label]
    lines.append([*words, "-o", "video.mp4"])
    return "\n".join(map(shlex.join, lines))
