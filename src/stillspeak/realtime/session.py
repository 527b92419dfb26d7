"""Clock and queues of a live talking face: sound comes when it likes, beats go out on time.

A :class:`~stillspeak.stream.StreamSession` has no clock. :class:`LiveTalk` gives it one: every
40 ms (at 25 frames a second) it hands out a :class:`Beat`, the sound of one frame and the picture
that belongs to it, a constant delay after that sound came in, so that lips and sound are in step by
construction. WebRTC, LiveKit, Pipecat and ``stillspeak stream`` all stand on it.

What is late is dealt with in one order: pictures are left out first, then silence is skipped, then,
beyond a bound, sound is dropped. Everything that waits is bounded and everything that was lost is
counted, see :meth:`LiveTalk.stats`.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stillspeak.errors import ConfigError
from stillspeak.media.audio import Waveform, mono_chunk, whole_rate

Picture = npt.NDArray[np.uint8]

LIVE_HOLD = 0.5
"""Seconds of sound that may wait where somebody speaks live; more is dropped, the oldest first."""

PATIENT_HOLD = 30.0
"""Seconds of sound that may wait where it is produced faster than it is played."""

LIVE_LEAD = 0.04
"""Seconds of sound that have to wait before live sound starts, against the network's jitter."""

HASTE = 0.04
"""How much faster live sound is played while more waits than it needs: less than a semitone."""

QUIET = 10 ** (-45 / 20)
"""Root mean square below which a live block counts as a pause, in which lost time is made up."""

SPEAKING_SECONDS = 0.3
"""How long after the last sound louder than :data:`QUIET` somebody still counts as speaking."""

STALL_SECONDS = 0.5
"""A consumer or machine that is later than this is not caught up with: the clock waits for it."""

ALLOWANCE = 1
"""Beats of delay for computing, on top of what the model looks ahead."""

PENDING = 2
"""Blocks that wait for the thread while it computes; more would only be shown late."""

LONGEST_FREEZE = 5
"""Beats without a picture, at most, while pictures are left out for a slow consumer."""


@dataclass
class SoundCounts:
    """What happened to the sound that came in, in samples at the rate of playing."""

    taken: int = 0
    """Came in and fitted."""
    dropped: int = 0
    """Lost because too much was waiting."""
    skipped: int = 0
    """Left out to make up for a delay: pauses, and a little of each block, see :data:`HASTE`."""
    filled: int = 0
    """Silence put where sound had not come in time, between two of its pieces."""
    mended: int = 0
    """NaN and infinite samples, replaced by zeros."""


@dataclass(frozen=True, eq=False)
class Block:
    """The sound of one beat."""

    sound: Waveform
    """(rate / fps,) float32 in [-1, 1]."""
    heard: int = 0
    """How many of the samples, the first ones, came in; the others are silence."""
    ended: bool = False
    """An utterance ends with this block."""


@dataclass(frozen=True, eq=False)
class Beat:
    """One frame's time: its sound and, if one was made, its picture."""

    index: int
    """Beats before this one since the start; none is left out."""
    sound: Waveform
    """(rate / fps,) float32 in [-1, 1]."""
    heard: int
    """How many of the samples, the first ones, came in; the others are silence."""
    ended: bool
    """An utterance ends with this beat."""
    picture: Picture | None
    """(H, W, 3) uint8 RGB, or None: the last one stays."""
    speaking: bool
    """Whether somebody speaks."""


class Face(Protocol):
    """What :class:`LiveTalk` needs of a :class:`~stillspeak.stream.StreamSession`."""

    sample_rate: int
    fps: int

    @property
    def latency(self) -> Any: ...

    def push(self, samples: npt.NDArray[Any]) -> Sequence[Any]: ...

    def idle(self, frames: int) -> Sequence[Any]: ...

    def reset(self) -> None: ...


_END = None


class SoundQueue:
    """Sound of any rate and chunk size in, blocks of one frame's length out, whenever asked.

    Args:
        rate: samples a second of the blocks; a multiple of ``fps``.
        fps: blocks a second.
        live: somebody speaks while it is heard: the delay is kept small. Else the sound may come
            faster than it is played and waits.
        hold: seconds that may wait; by default :data:`LIVE_HOLD` or :data:`PATIENT_HOLD`.

    Raises:
        ConfigError: a rate that is no multiple of the frame rate; no time to wait.
    """

    def __init__(
        self, rate: int, fps: int, *, live: bool = False, hold: float | None = None
    ) -> None:
        if rate <= 0 or rate % fps:
            raise ConfigError(
                f"{rate} Hz is no multiple of {fps} frames a second; give 16000, 24000 or 48000"
            )
        self.rate, self.live = rate, live
        self.block = rate // fps
        """Samples in a block."""
        seconds = (LIVE_HOLD if live else PATIENT_HOLD) if hold is None else hold
        self._lead = round(LIVE_LEAD * rate) if live else 0
        self._hold = round(seconds * rate)
        if self._hold < 2 * self.block + self._lead:
            raise ConfigError(f"{seconds:g} s of sound are too little to hold; give at least 0.2")
        self.counts = SoundCounts()
        self._items: deque[Waveform | None] = deque()
        self._waiting = 0
        self._dry = True
        self._grew = False
        self._ends = 0
        self._open = False  # inside an utterance
        self._resampler: Any = None
        self._rate_in = 0

    @property
    def seconds(self) -> float:
        """Sound that waits, in seconds."""
        return self._waiting / self.rate

    @property
    def empty(self) -> bool:
        """Nothing waits, no end of an utterance either."""
        return not self._items

    def room(self, seconds: float) -> bool:
        """Whether so much more may wait; always, if nothing does."""
        return self._waiting == 0 or self._waiting + seconds * self.rate <= self._hold

    def push(self, samples: npt.NDArray[Any], rate: int) -> None:
        """Append sound; what does not fit is dropped and counted.

        Args:
            samples: (S,) or (S, C) int16, int32, uint8, or floats in [-1, 1]. NaN and infinite
                samples become zeros, so that one damaged packet does not end a conversation.
            rate: samples a second; it may change from one call to the next.

        Raises:
            AudioError: another shape or type, floats on an integer scale, an impossible rate.
        """
        rate = whole_rate(rate, name="<live sound>")
        array = np.asarray(samples)
        if array.dtype.kind == "f":
            sane = np.isfinite(array)
            if not sane.all():
                self.counts.mended += int(array.size - np.count_nonzero(sane))
                array = np.where(sane, array, 0)
        self._append(self._at_rate(mono_chunk(array, name="<live sound>"), rate))

    def silence(self, seconds: float) -> None:
        """Append a gap: sound that is known to be lost."""
        self._append(np.zeros(min(round(seconds * self.rate), self._hold), np.float32))

    def end(self) -> None:
        """An utterance ends here: its last samples do not wait for more."""
        if self._resampler is not None:
            self._append(self._rest())
        self._items.append(_END)
        self._ends += 1

    def clear(self) -> None:
        """Drop all that waits, ends included; it was interrupted."""
        self._items.clear()
        self._waiting = self._ends = 0
        self._dry, self._open, self._grew = True, False, False
        self._resampler, self._rate_in = None, 0

    def take(self) -> Block:
        """The next block; silence where there is no sound."""
        grew, self._grew = self._grew, False
        while True:
            have, ends = self._ahead()
            if ends or have >= self.block + (self._lead if self._dry else 0):
                break
            if have and not grew:
                break  # the rest of a sound whose end nobody announced
            if self._dry or not have or have < self.block:
                self._dry = True
                if self._open and not self.live:
                    self.counts.filled += self.block
                return Block(np.zeros(self.block, np.float32))
        sound, heard, ended = self._pull()
        while self.live and not ended and self._behind() and _rms(sound) < QUIET:
            self.counts.skipped += heard
            sound, heard, ended = self._pull()
        if self.live and not ended and heard == self.block and self._behind():
            sound = self._hasten(sound)
        self._dry = ended or heard < self.block
        self._open = not ended
        if self._dry and not ended:
            self.counts.filled += self.block - heard
        return Block(sound, heard, ended)

    def _hasten(self, sound: Waveform) -> Waveform:
        """A block that holds a little more sound than its length, from ``sound`` on."""
        more = round(HASTE * self.block)
        extra = np.zeros(0, np.float32)
        while len(extra) < more and self._items and (item := self._items[0]) is not None:
            size = min(len(item), more - len(extra))
            extra = np.concatenate((extra, item[:size]))
            self._items.popleft()
            if size < len(item):
                self._items.appendleft(item[size:])
        self._waiting -= len(extra)
        self.counts.skipped += len(extra)
        longer = np.concatenate((sound, extra))
        places = np.arange(self.block) * (len(longer) / self.block)
        played: Waveform = np.interp(places, np.arange(len(longer)), longer).astype(np.float32)
        return played

    def _behind(self) -> bool:
        """Whether more waits than live sound needs against jitter."""
        return self._waiting >= self._lead + 2 * self.block

    def _ahead(self) -> tuple[int, bool]:
        """Samples up to the next end, and whether there is one."""
        if not self._ends:
            return self._waiting, False
        have = 0
        for item in self._items:
            if item is None:
                return have, True
            have += len(item)
        raise AssertionError("an end was counted that is not there")

    def _pull(self) -> tuple[Waveform, int, bool]:
        """Up to a block of the queue, not beyond an end; zeros stand for the rest."""
        sound = np.zeros(self.block, np.float32)
        heard, ended = 0, False
        while self._items:
            item = self._items[0]
            if item is None:
                self._items.popleft()
                self._ends -= 1
                ended = True
                break
            if heard == self.block:
                break
            size = min(len(item), self.block - heard)
            sound[heard : heard + size] = item[:size]
            heard += size
            if size == len(item):
                self._items.popleft()
            else:
                self._items[0] = item[size:]
        self._waiting -= heard
        return sound, heard, ended

    def _append(self, sound: Waveform) -> None:
        if not len(sound):
            return
        self._grew = True
        if self.live:
            self._items.append(sound)
            self._waiting += len(sound)
            self.counts.taken += len(sound)
            if self._waiting > self._hold:
                self._drop_oldest(self._waiting - self._lead - self.block)
            return
        room = max(self._hold - self._waiting, 0)
        if self._waiting == 0:
            room = max(room, len(sound))  # one chunk of any length, as `room` says
        kept = sound[:room]
        self.counts.dropped += len(sound) - len(kept)
        self.counts.taken += len(kept)
        if len(kept):
            self._items.append(kept)
            self._waiting += len(kept)

    def _drop_oldest(self, samples: int) -> None:
        self.counts.dropped += samples
        self._waiting -= samples
        kept: list[None] = []
        while samples:
            item = self._items.popleft()
            if item is None:
                kept.append(item)
            elif len(item) > samples:
                self._items.appendleft(item[samples:])
                samples = 0
            else:
                samples -= len(item)
        self._items.extendleft(kept)

    def _at_rate(self, sound: Waveform, rate: int) -> Waveform:
        """(S,) at any rate -> (S',) at the queue's, with a delay of less than 2 ms."""
        if rate != self._rate_in:
            rest = self._rest()
            self._rate_in = rate
            self._resampler = None if rate == self.rate else _resampler(self.rate)
            if len(rest):
                self._append(rest)
        if self._resampler is None or not len(sound):
            return sound
        return _resample(self._resampler, sound, rate)

    def _rest(self) -> Waveform:
        """What the resampler still holds; it begins anew afterwards."""
        if self._resampler is None:
            return np.zeros(0, np.float32)
        rest = _resample(self._resampler, None, self._rate_in)
        self._resampler = _resampler(self.rate)
        return rest


class _BlockResampler:
    """Blocks at one rate to blocks at another, each whole, about 1 ms late.

    The face needs a block's last sample in the same beat; a resampler that holds back a few would
    cost it a whole one.
    """

    def __init__(self, rate: int, sample_rate: int, fps: int) -> None:
        self._rate, self._sample_rate = rate, sample_rate
        self._size = sample_rate // fps
        self._block = rate // fps
        self._pad = 0
        if rate != sample_rate:
            trial = _resampler(sample_rate)
            quiet = np.zeros(self._block, np.float32)
            made = sum(len(_resample(trial, quiet, rate)) for _ in range(4))
            self._pad = max(4 * self._size - made, 0) + 1
        self.clear()

    def clear(self) -> None:
        """Forget what came in."""
        self._resampler = _resampler(self._sample_rate) if self._pad else None
        self._ready = np.zeros(self._pad, np.float32)

    def feed(self, block: Waveform) -> Waveform:
        """(rate / fps,) -> (sample_rate / fps,) float32."""
        if self._resampler is None:
            return block
        ready = np.concatenate((self._ready, _resample(self._resampler, block, self._rate)))
        if len(ready) < self._size:  # does not happen with the padding above
            ready = np.concatenate((np.zeros(self._size - len(ready), np.float32), ready))
        self._ready = ready[self._size :]
        return np.clip(ready[: self._size], -1.0, 1.0)


def _resampler(rate: int) -> Any:
    """FFmpeg's resampler, whose filter is short: soxr's holds back 40 ms, a whole frame."""
    import av

    return av.AudioResampler(format="fltp", layout="mono", rate=rate)


def _resample(resampler: Any, sound: Waveform | None, rate: int) -> Waveform:
    import av

    frame = None
    if sound is not None:
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound[None]), "fltp", "mono")
        frame.sample_rate = rate
    pieces = [piece.to_ndarray()[0] for piece in resampler.resample(frame)]
    if not pieces:
        return np.zeros(0, np.float32)
    joined: Waveform = np.concatenate(pieces).astype(np.float32, copy=False)
    return joined


def _rms(sound: Waveform) -> float:
    return math.sqrt(float(np.dot(sound, sound)) / len(sound)) if len(sound) else 0.0


@dataclass
class PictureCounts:
    """What happened to the pictures."""

    made: int = 0
    shown: int = 0
    late: int = 0
    """Shown after their sound."""
    dropped: int = 0
    """Beats for which none was made or shown: computing or the consumer took too long."""
    stalls: int = 0
    """Times that the clock waited, because all stood still for longer than a catch-up is worth."""


@dataclass(eq=False)
class _Job:
    """Work for the thread: a block to hear, or an interruption with the beats that lie open."""

    index: int
    block: Waveform | None
    open_beats: list[int] = field(default_factory=list)


class LiveTalk:
    """A face that talks live: sound in at any time, a :class:`Beat` every frame's time.

        async with LiveTalk(session, rate=48_000) as talk:
            async for beat in talk:  # meanwhile: talk.push(samples, rate), talk.interrupt()
                ...

    The face computes in ``executor``, one step at a time; the event loop is never blocked by it.

    Args:
        face: the session; nobody else may use it meanwhile.
        rate: samples a second of the beats' sound; a multiple of the face's frame rate.
        live: somebody speaks while it is heard; see :class:`SoundQueue`.
        hold: seconds of sound that may wait; see :class:`SoundQueue`.
        allowance: beats of delay for computing.
        executor: computes; the event loop's by default.
        clock: seconds, monotonic.
        sleep: waits so many seconds.

    Raises:
        ConfigError: see :class:`SoundQueue`.
    """

    def __init__(
        self,
        face: Face,
        *,
        rate: int,
        live: bool = True,
        hold: float | None = None,
        allowance: int = ALLOWANCE,
        executor: Executor | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._face = face
        self.fps = face.fps
        """Beats a second."""
        self.queue = SoundQueue(rate, face.fps, live=live, hold=hold)
        """The sound that waits."""
        latency = face.latency
        self.delay: int = (
            math.ceil((latency.algorithmic + latency.resampling) * face.fps - 1e-9) - 1 + allowance
        )
        """Beats from a block's taking to its playing: the model's look-ahead, and computing."""
        self.pictures = PictureCounts()
        """What happened to the pictures."""
        self.start: float | None = None
        """When, by the clock, beat 0 was taken. Beat k is due ``delay + k`` beats later."""
        self._executor, self._clock, self._sleep = executor, clock, sleep
        self._narrow = _BlockResampler(rate, face.sample_rate, face.fps)
        self._line: deque[tuple[int, Block]] = deque()
        self._ready: dict[int, Picture] = {}
        self._jobs: deque[_Job] = deque()
        self._wake = asyncio.Event()
        self._warm = asyncio.Event()
        self._room = asyncio.Event()
        self._generation = 0
        self._heard_beats: deque[int] = deque()  # of blocks the face has heard without a frame
        self._worker: asyncio.Task[None] | None = None
        self._failure: BaseException | None = None
        self._last_loud = -math.inf
        self._finishing = self._closed = False
        self._shown = -1

    # --- sound in ---------------------------------------------------------------------------

    def push(self, samples: npt.NDArray[Any], rate: int) -> None:
        """Hear sound now, without waiting; what does not fit is dropped and counted.

        Arguments and errors as for :meth:`SoundQueue.push`.
        """
        self.queue.push(samples, rate)

    async def feed(self, samples: npt.NDArray[Any], rate: int) -> bool:
        """Hear sound, and wait while too much is waiting already.

        Returns:
            Whether it was taken; not so if it was interrupted or closed while it waited.

        Raises:
            AudioError: as for :meth:`SoundQueue.push`.
        """
        seconds = len(np.asarray(samples)) / whole_rate(rate, name="<live sound>")
        generation = self._generation
        while not self.queue.room(seconds):
            self._room.clear()
            await self._room.wait()
            if generation != self._generation or self._closed:
                return False
        self.queue.push(samples, rate)
        return True

    def end(self) -> None:
        """An utterance ends with what was pushed last; its last beat says so."""
        self.queue.end()

    def finish(self) -> None:
        """No sound follows: the beats end when all has been played."""
        self.queue.end()
        self._finishing = True

    def interrupt(self) -> None:
        """Drop all sound that was not played yet, and close the mouth."""
        self._generation += 1
        self.queue.clear()
        self._room.set()
        self._jobs.clear()
        self._ready.clear()
        quiet = np.zeros(self.queue.block, np.float32)
        self._line = deque((index, Block(quiet)) for index, _ in self._line)
        self._last_loud = -math.inf
        self._jobs.append(_Job(-1, None, [index for index, _ in self._line]))
        self._wake.set()

    # --- beats out --------------------------------------------------------------------------

    async def __aenter__(self) -> LiveTalk:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Stop; a step that is being computed is waited for. Nothing is left running."""
        self._closed = True
        self._wake.set()
        self._room.set()
        if self._worker is not None:
            worker, self._worker = self._worker, None
            # Not cancelled: the thread cannot be, and must not outlive its session.
            await asyncio.shield(worker)
        self._jobs.clear()
        self._ready.clear()
        self._line.clear()
        self.queue.clear()

    def due(self, beat: float) -> float:
        """When a beat is to be played, by the clock."""
        assert self.start is not None
        return self.start + (beat + self.delay) / self.fps

    async def __aiter__(self) -> AsyncIterator[Beat]:
        """Beats, each when it is due; until :meth:`finish`, :meth:`close` or an error.

        Raises:
            StillspeakError: what the face raised.
        """
        if self._worker is not None:
            raise RuntimeError("the beats of a talk are taken once")
        self._worker = asyncio.create_task(self._work())
        await self._warm.wait()
        self.start = self._clock()
        index, last = 0, None
        frozen = 0
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
            if last is None and self._finishing and self.queue.empty:
                last = index + self.delay
            block = self.queue.take()
            self._room.set()
            self._line.append((index, block))
            self._hear(index, block.sound)
            index += 1
            if len(self._line) <= self.delay:
                continue
            out, block = self._line.popleft()
            if _rms(block.sound) >= QUIET:
                self._last_loud = out
            picture = self._newest(out)
            slow = lateness * self.fps > 1 and frozen < LONGEST_FREEZE
            if picture is None or slow:
                picture = None
                frozen += 1
                self.pictures.dropped += 1
            else:
                frozen = 0
                self.pictures.shown += 1
            speaking = out - self._last_loud <= SPEAKING_SECONDS * self.fps
            yield Beat(out, block.sound, block.heard, block.ended, picture, speaking)
            if last is not None and index > last:
                return

    def stats(self) -> dict[str, Any]:
        """Counts and times so far, fit for JSON. Sound is counted in samples."""
        latency = self._face.latency
        return {
            "waiting_seconds": round(self.queue.seconds, 3),
            "delay_seconds": self.delay / self.fps,
            "step_median_seconds": latency.median,
            "step_percentile_99_seconds": latency.percentile_99,
            "rate": self.queue.rate,
            "sound": asdict(self.queue.counts),
            "pictures": asdict(self.pictures),
        }

    def _newest(self, beat: int) -> Picture | None:
        """The latest picture up to a beat; older ones are forgotten."""
        found = None
        for index in sorted(self._ready):
            if index > beat:
                break
            picture = self._ready.pop(index)
            if index > self._shown:
                found, self._shown = picture, index
                late = index < beat
        if found is not None and late:
            self.pictures.late += 1
        return found

    def _hear(self, index: int, sound: Waveform) -> None:
        """Hand a block to the thread. Where it is behind, blocks are left out of what the face
        hears: it would show them too late, and they are played all the same."""
        waiting = [job for job in self._jobs if job.block is not None]
        if len(waiting) >= PENDING:
            self._jobs.remove(waiting[0])
        self._jobs.append(_Job(index, sound))
        self._wake.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            # The first step in a process takes many times as long as the others: no beat waits
            # for it.
            await loop.run_in_executor(self._executor, self._begin)
        except BaseException as error:
            self._failure = error
            return
        finally:
            self._warm.set()
        while not self._closed:
            if not self._jobs:
                self._wake.clear()
                await self._wake.wait()
                continue
            job, generation = self._jobs.popleft(), self._generation
            try:
                made = await loop.run_in_executor(self._executor, self._compute, job)
            except BaseException as error:  # the consumer gets it, whatever it is
                self._failure = error
                return
            if generation == self._generation:
                self.pictures.made += len(made)
                self._ready.update(made)
                while len(self._ready) > 2 * self.delay + 2:
                    del self._ready[min(self._ready)]

    def _begin(self) -> None:
        """In the thread: a step that leaves no trace."""
        self._face.idle(1)
        self._face.reset()

    def _compute(self, job: _Job) -> list[tuple[int, Picture]]:
        """In the thread: frames by beat."""
        if job.block is None:
            self._heard_beats.clear()
            self._narrow.clear()
            self._face.reset()
            frames = self._face.idle(len(job.open_beats))
            return [(i, f.picture) for i, f in zip(job.open_beats, frames, strict=True)]
        self._heard_beats.append(job.index)
        made = self._face.push(self._narrow.feed(job.block))
        return [(self._heard_beats.popleft(), frame.picture) for frame in made]


def pcm16(sound: Waveform) -> npt.NDArray[np.int16]:
    """(S,) float32 in [-1, 1] as int16, with the factor of the readers."""
    whole: npt.NDArray[np.int16] = np.clip(np.rint(sound * 32768.0), -32768, 32767).astype(np.int16)
    return whole


def even(picture: Picture) -> Picture:
    """A picture without its last row or column where their number is odd, for video encoders.

    (H, W, 3) uint8, contiguous.
    """
    rows, columns = picture.shape[0] // 2 * 2, picture.shape[1] // 2 * 2
    return np.ascontiguousarray(picture[:rows, :columns])
