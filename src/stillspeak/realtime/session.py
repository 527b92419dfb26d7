"""A talking face on a clock: sound comes in at any time, frames go out when they are due.

A :class:`~stillspeak.stream.StreamSession` has no clock. :class:`RealtimeSession` gives it one:
every frame's time it hands out an :class:`AVFrame`, a sound and the picture that belongs to it, a
constant time after that sound came in. When something is late, pictures are left out first, then
pauses are skipped, and beyond a bound sound is dropped.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stillspeak.errors import ConfigError
from stillspeak.media.audio import Waveform, whole_rate
from stillspeak.realtime.jitter_buffer import QUIET, SOUND, AudioBlock, JitterBuffer, rms
from stillspeak.realtime.resample import BlockResampler

if TYPE_CHECKING:
    from stillspeak.motion.moods import Mood
    from stillspeak.stream import StreamSession

Picture = npt.NDArray[np.uint8]

SPEAKING_SECONDS = 0.3
"""How long after the last loud sound somebody still counts as speaking."""

STALL_SECONDS = 0.5
"""Lateness beyond which frames are not caught up with: the clock waits instead."""

COMPUTING_FRAMES = 1
"""Frames of delay for computing, on top of what the model looks ahead."""

MAX_PENDING = 2
"""Blocks that wait for the thread while it computes."""

MAX_FREEZE = 5
"""Pictures left out in a row, at most, for a slow consumer."""


@dataclass(frozen=True, eq=False)
class AVFrame:
    """One frame's time: its sound and, if there is one, its picture."""

    index: int
    """Frames before this one since the start; none is left out."""
    sound: Waveform
    """(rate / fps,) float32 in [-1, 1]."""
    heard: int
    """How many of the samples came in; those after them are silence."""
    ended: bool
    """An utterance ends with this frame."""
    picture: Picture | None
    """(H, W, 3) uint8 RGB, or None: the last one stays."""
    speaking: bool


@dataclass
class PictureCounts:
    """What happened to the pictures."""

    made: int = 0
    shown: int = 0
    late: int = 0
    """Shown after their sound."""
    dropped: int = 0
    """Frames without one: computing or the consumer took too long."""
    stalls: int = 0
    """Times that the clock waited, see :data:`STALL_SECONDS`."""


class RealtimeSession:
    """A face that talks live: sound in at any time, an :class:`AVFrame` every frame's time.

        async with RealtimeSession(session, rate=48_000) as talk:
            async for frame in talk:  # meanwhile: talk.push(samples, rate), talk.interrupt()
                ...  # or talk.set_mood("happy:0.5")

    The face computes in ``executor``, one step at a time, and never blocks the event loop.

    Args:
        source: the face; nothing else may use it meanwhile.
        rate: samples a second of the frames' sound; a multiple of the face's frame rate.
        live, max_buffer: as for :class:`JitterBuffer`.
        executor: computes; the event loop's by default.
        clock: seconds, monotonic.
        sleep: waits so many seconds.

    Raises:
        ConfigError: see :class:`JitterBuffer`; a face whose frame rate is no whole number.
    """

    def __init__(
        self,
        source: StreamSession,
        *,
        rate: int,
        live: bool = True,
        max_buffer: float | None = None,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._source = source
        if isinstance(source.fps, Fraction):
            raise ConfigError(
                f"fps: {float(source.fps):.5g} frames a second cannot be made live; give a whole "
                "number"
            )
        self.fps = source.fps
        self.buffer = JitterBuffer(rate, source.fps, live=live, max_buffer=max_buffer)
        latency = source.latency
        look_ahead = (latency.algorithmic + latency.resampling) * source.fps
        self.delay: int = math.ceil(look_ahead - 1e-9) - 1 + COMPUTING_FRAMES
        """Frames from taking a block to playing it: the model's look-ahead, and computing."""
        self.pictures = PictureCounts()
        self.start: float | None = None
        """When, by the clock, frame 0 was taken. Frame k is due ``delay + k`` frames later."""
        self._executor, self._clock, self._sleep = executor, clock, sleep
        self._resampler = BlockResampler(rate, source.sample_rate, source.fps)
        self._line: deque[tuple[int, AudioBlock]] = deque()
        self._ready: dict[int, Picture] = {}
        # Blocks for the thread, each with its frame's index; None is an interruption, with the
        # indexes of the frames that were not shown yet.
        self._tasks: deque[tuple[Waveform | None, list[int]]] = deque()
        self._wake, self._warm, self._room = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._mood: Mood | None = None  # for the thread, which takes it before its next step
        self._generation = 0
        self._unseen: deque[int] = deque()  # frames whose block was heard, without a picture yet
        self._worker: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._last_loud = -math.inf
        self._finishing = self._closed = False
        self._shown = -1

    def push(self, samples: npt.NDArray[Any], rate: int) -> None:
        """Hear sound now, without waiting; see :meth:`JitterBuffer.push`."""
        self.buffer.push(samples, rate)

    async def feed(self, samples: npt.NDArray[Any], rate: int) -> bool:
        """As :meth:`push`, but wait while too much is waiting already.

        Returns:
            Whether it was taken; it was not if an interruption or the end came first.
        """
        seconds = len(np.asarray(samples)) / whole_rate(rate, name=SOUND)
        generation = self._generation
        while not self.buffer.room(seconds):
            self._room.clear()
            await self._room.wait()
            if generation != self._generation or self._closed:
                return False
        self.buffer.push(samples, rate)
        return True

    def end(self) -> None:
        """An utterance ends with what was pushed last; its last frame says so."""
        self.buffer.end()

    def finish(self) -> None:
        """No sound follows: the frames end when all of it has been played."""
        self.buffer.end()
        self._finishing = True

    def set_mood(self, mood: str) -> None:
        """See :meth:`StreamSession.set_mood <stillspeak.stream.StreamSession.set_mood>`."""
        self._mood = self._source.read_mood(mood)

    def interrupt(self) -> None:
        """Drop all sound that was not played yet, and close the mouth."""
        self._generation += 1
        self.buffer.clear()
        self._room.set()
        self._ready.clear()
        silence = np.zeros(self.buffer.block, np.float32)
        self._line = deque((index, AudioBlock(silence)) for index, _ in self._line)
        self._last_loud = -math.inf
        self._tasks = deque([(None, [index for index, _ in self._line])])
        self._wake.set()

    async def __aenter__(self) -> RealtimeSession:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop and wait for the step that is being computed; nothing is left running."""
        self._closed = True
        self._wake.set()
        self._room.set()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            # Not cancelled: the thread cannot be, and must not outlive its session.
            await asyncio.shield(worker)
        self._tasks.clear()
        self._ready.clear()
        self._line.clear()
        self.buffer.clear()

    def due(self, index: float) -> float:
        """When a frame is to be played, by the clock."""
        assert self.start is not None
        return self.start + (index + self.delay) / self.fps

    async def __aiter__(self) -> AsyncIterator[AVFrame]:
        """Frames, each when it is due; until :meth:`finish`, :meth:`close` or an error.

        Raises:
            StillspeakError: what the face raised.
        """
        if self._worker is not None:
            raise RuntimeError("the frames of a session are taken once")
        self._worker = asyncio.create_task(self._work())
        await self._warm.wait()
        self.start = self._clock()
        index, last, frozen = 0, None, 0
        while not self._closed:
            lateness = self._clock() - (self.start + index / self.fps)
            if lateness > STALL_SECONDS:
                self.start += lateness
                self.pictures.stalls += 1
                lateness = 0.0
            await self._sleep(max(-lateness, 0.0))
            if self._failure is not None:
                raise self._failure
            if self._closed:
                return
            if last is None and self._finishing and self.buffer.empty:
                last = index + self.delay
            block = self.buffer.take()
            self._room.set()
            self._line.append((index, block))
            self._hear(index, block.sound)
            index += 1
            if len(self._line) <= self.delay:
                continue
            out, block = self._line.popleft()
            if rms(block.sound) >= QUIET:
                self._last_loud = out
            picture = self._newest(out)
            if lateness * self.fps > 1 and frozen < MAX_FREEZE:
                picture = None  # the consumer is slow
            if picture is None:
                frozen += 1
                self.pictures.dropped += 1
            else:
                frozen = 0
                self.pictures.shown += 1
            speaking = out - self._last_loud <= SPEAKING_SECONDS * self.fps
            yield AVFrame(out, block.sound, block.heard, block.ended, picture, speaking)
            if last is not None and index > last:
                return

    def stats(self) -> dict[str, Any]:
        """Counts and times so far, fit for JSON. Sound is counted in samples."""
        latency = self._source.latency
        return {
            "waiting_seconds": round(self.buffer.seconds, 3),
            "delay_seconds": self.delay / self.fps,
            "step_median_seconds": latency.median,
            "step_percentile_99_seconds": latency.percentile_99,
            "rate": self.buffer.rate,
            "sound": asdict(self.buffer.counts),
            "pictures": asdict(self.pictures),
        }

    def _newest(self, index: int) -> Picture | None:
        """The latest picture up to a frame; older ones are forgotten."""
        pictures = [(k, self._ready.pop(k)) for k in sorted(self._ready) if k <= index]
        if not pictures or pictures[-1][0] <= self._shown:
            return None
        self._shown, picture = pictures[-1]
        self.pictures.late += self._shown < index
        return picture

    def _hear(self, index: int, sound: Waveform) -> None:
        """Hand a block to the thread; if it is behind, the face does not hear the oldest one."""
        waiting = [place for place, (block, _) in enumerate(self._tasks) if block is not None]
        if len(waiting) >= MAX_PENDING:
            del self._tasks[waiting[0]]
        self._tasks.append((sound, [index]))
        self._wake.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            # The first step in a process takes many times as long: no frame waits for it.
            await loop.run_in_executor(self._executor, self._warm_up)
            self._warm.set()
            while not self._closed:
                if not self._tasks:
                    self._wake.clear()
                    await self._wake.wait()
                    continue
                task, generation = self._tasks.popleft(), self._generation
                made = await loop.run_in_executor(self._executor, self._compute, *task)
                if generation == self._generation:
                    self.pictures.made += len(made)
                    self._ready.update(made)
                    while len(self._ready) > 2 * self.delay + 2:
                        del self._ready[min(self._ready)]
        except BaseException as error:  # the consumer gets it, whatever it is
            self._failure = error
        finally:
            self._warm.set()

    def _warm_up(self) -> None:
        """In the thread: a step that leaves no trace."""
        self._source.idle(1)
        self._source.reset()

    def _compute(self, block: Waveform | None, indexes: list[int]) -> list[tuple[int, Picture]]:
        """In the thread: pictures by frame."""
        mood, self._mood = self._mood, None
        if mood is not None:
            self._source.set_mood(mood)
        if block is None:
            self._unseen.clear()
            self._resampler.clear()
            self._source.reset(motion=False)
            idle = self._source.idle(len(indexes))
            return [(i, frame.picture) for i, frame in zip(indexes, idle, strict=True)]
        self._unseen.extend(indexes)
        made = self._source.push(self._resampler.feed(block))
        return [(self._unseen.popleft(), frame.picture) for frame in made]


def pcm16(sound: Waveform) -> npt.NDArray[np.int16]:
    """(S,) float32 in [-1, 1] as int16, with the factor of the readers."""
    whole: npt.NDArray[np.int16] = np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)
    return whole


def even(picture: Picture) -> Picture:
    """A picture (H, W, 3) without its last row or column where that is odd, for encoders."""
    rows, columns = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    return np.ascontiguousarray(picture[:rows, :columns])
