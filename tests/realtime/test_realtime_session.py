"""The clock and the queues of a live face, on a clock of the test's own."""

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stillspeak.animate import Animator
from stillspeak.errors import ConfigError
from stillspeak.motion.moods import Mood
from stillspeak.realtime.session import (
    MAX_FREEZE,
    MAX_PENDING,
    STALL_SECONDS,
    AVFrame,
    RealtimeSession,
    even,
    pcm16,
)
from stillspeak.stream import StreamSession
from support.animate import lively, portrait, shared_detector, speech
from support.clock import FPS, HOP, RATE, Clock, levels, talk_with

DELAY = 3
"""Frames: two that the face looks ahead, one for computing."""

START = [("idle", 1), "reset"]
"""What a face is asked before the clock starts."""


class Level:
    """A face whose picture is as bright as its sound is loud, seen two blocks late."""

    sample_rate, fps = RATE, FPS
    latency = SimpleNamespace(algorithmic=0.12, resampling=0.0, median=None, percentile_99=None)

    def __init__(self) -> None:
        self.blocks: list[np.ndarray] = []
        self.made = 0
        self.calls: list[Any] = []

    def picture(self, level: float) -> Any:
        self.made += 1
        return SimpleNamespace(picture=np.full((2, 2, 3), round(200 * level), np.uint8))

    def push(self, samples: np.ndarray) -> list[Any]:
        assert samples.shape == (HOP,)
        self.blocks.append(samples)
        if len(self.blocks) < 3:
            return []
        return [self.picture(float(np.abs(self.blocks.pop(0)).mean()))]

    def idle(self, frames: int) -> list[Any]:
        self.calls.append(("idle", frames))
        return [self.picture(0.0) for _ in range(frames)]

    def reset(self, motion: bool = True) -> None:
        self.calls.append("reset" if motion else "hush")
        self.blocks.clear()

    def set_mood(self, mood: Mood) -> None:
        self.calls.append((mood, self.made))

    read_mood = staticmethod(Mood.parse)


def talk(clock: Clock, face: Any = None, **options: Any) -> RealtimeSession:
    return talk_with(clock, face or Level(), **({"rate": RATE, "live": False} | options))


async def take(
    source: RealtimeSession, count: int | None = None, each: Any = None
) -> list[AVFrame]:
    frames = []
    async with source:
        async for frame in source:
            frames.append(frame)
            if each is not None:
                await each(frame)
            if len(frames) == count:
                break
        source._executor.clock.drain()
    return frames


def run(work: Any) -> Any:
    async def whole() -> Any:
        before = asyncio.all_tasks()
        result = await work
        assert asyncio.all_tasks() == before, "a task was left running"
        return result

    return asyncio.run(whole())


def level(frame: AVFrame) -> int:
    return round(200 * float(np.abs(frame.sound).mean()))


# --- in step ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [16_000, 24_000, 44_100, 48_000])
def test_a_picture_comes_with_its_own_sound(rate):
    """Whatever the rate of playing: the level of each picture is that of the sound beside it."""
    clock = Clock()
    source = talk(clock, rate=rate)
    source.push(levels(40), RATE)
    source.finish()
    frames = run(take(source))
    assert [frame.index for frame in frames] == list(range(len(frames)))
    assert len(frames) in (41, 42)  # what the resampler held makes one more
    for frame in frames[1:39]:
        # At another rate samples at the seams mix with the neighbours'.
        assert abs(int(frame.picture[0, 0, 0]) - level(frame)) <= (0 if rate == RATE else 6)
    assert all(len(frame.sound) == rate // FPS for frame in frames)


def test_frames_come_when_they_are_due_and_never_drift():
    clock = Clock()
    random = np.random.default_rng(0)
    clock.late = lambda: float(random.uniform(0, 0.03))
    source = talk(clock)
    at: list[float] = []

    async def note(frame: AVFrame) -> None:
        at.append(clock.now - source.due(frame.index))

    run(take(source, 3000, note))
    assert source.start == 100.0
    assert min(at) >= -1e-9 and max(at) <= 0.031  # two minutes later no more than at the start
    assert np.mean(at[-500:]) < 0.02


def test_the_face_sees_what_the_offline_path_sees():
    """A whole way: the pictures are those of animate for the same sound."""
    animator = Animator(lively(), detector=shared_detector())
    heard = speech(0.8)
    whole = animator.animate(portrait(), (heard, RATE), crop=True).frames
    clock = Clock()
    source = talk(clock, StreamSession(portrait(), animator=animator, crop=True))
    assert source.delay == DELAY
    source.push(heard, RATE)
    source.finish()
    frames = run(take(source))
    assert len(frames) == 21  # 20 with sound, and one of silence
    for frame, expected in zip(frames[:18], whole, strict=False):
        assert np.abs(frame.picture.astype(int) - expected).max() <= 1
    assert np.array_equal(np.concatenate([frame.sound for frame in frames[:20]]), heard)


# --- sound that comes as it likes ---------------------------------------------------------------


def test_a_burst_waits_and_is_played_in_order():
    clock = Clock()
    source = talk(clock)
    sound = levels(250)
    source.push(sound, RATE)
    source.finish()
    frames = run(take(source))
    assert np.array_equal(np.concatenate([b.sound for b in frames])[: len(sound)], sound)
    assert source.buffer.counts.dropped == 0
    assert [b.index for b in frames if b.ended] == [249]


def test_more_than_the_bound_is_waited_for_with_feed():
    clock = Clock()
    source = talk(clock, max_buffer=1.0)
    fed: list[bool] = []

    async def speak() -> None:
        for begin in range(0, 100, 10):
            fed.append(await source.feed(levels(10, begin), RATE))
            assert source.buffer.seconds <= 1.0
        source.finish()

    async def both() -> list[AVFrame]:
        speaker = asyncio.create_task(speak())
        frames = await take(source)
        await speaker
        return frames

    frames = run(both())
    assert fed == [True] * 10
    assert np.array_equal(np.concatenate([b.sound for b in frames])[: 100 * HOP], levels(100))


def test_a_gap_is_silence_and_the_clock_goes_on():
    clock = Clock()
    source = talk(clock, live=True)
    sent = 0

    async def each(frame: AVFrame) -> None:
        nonlocal sent
        if not 10 <= frame.index < 20:
            source.push(levels(1, sent), RATE)
            sent += 1

    frames = run(take(source, 40, each))
    assert [b.index for b in frames] == list(range(40))
    quiet = [b.index for b in frames if b.heard == 0 and b.index > 8]
    assert 9 <= len(quiet) <= 12 and quiet == list(range(quiet[0], quiet[-1] + 1))
    for frame in frames:
        if frame.picture is not None:
            assert abs(int(frame.picture[0, 0, 0]) - level(frame)) <= 1
    assert [b.speaking for b in frames][quiet[0] + 8] is False


# --- who is slow --------------------------------------------------------------------------------


def test_a_slow_consumer_loses_pictures_and_no_sound():
    clock = Clock()
    source = talk(clock)
    sound = levels(200)
    source.push(sound, RATE)
    source.finish()

    async def each(frame: AVFrame) -> None:
        # As an encoder would: a picture takes longer than a frame, sound next to nothing.
        await clock.sleep(0.055 if frame.picture is not None else 0.001)

    frames = run(take(source, None, each))
    assert np.array_equal(np.concatenate([b.sound for b in frames])[: len(sound)], sound)
    shown = [frame.index for frame in frames if frame.picture is not None]
    assert 0.3 * len(frames) < len(shown) < 0.9 * len(frames)
    assert max(np.diff(shown)) <= MAX_FREEZE + 1
    assert source.pictures.dropped == len(frames) - len(shown)
    assert source.pictures.stalls == 0


def test_slow_computing_leaves_out_pictures_and_never_holds_up_the_sound():
    clock = Clock(step=0.07)
    source = talk(clock)
    sound = levels(200)
    source.push(sound, RATE)
    source.finish()
    at: list[float] = []

    async def each(frame: AVFrame) -> None:
        at.append(clock.now - source.due(frame.index))
        assert len(source._tasks) <= MAX_PENDING + 1

    frames = run(take(source, None, each))
    assert max(at) < 1e-6
    assert np.array_equal(np.concatenate([b.sound for b in frames])[: len(sound)], sound)
    shown = sum(frame.picture is not None for frame in frames)
    assert 80 < shown < 150  # 0.04 / 0.07 of 200 can be made
    assert clock.most_jobs == 1


def test_after_a_stall_the_clock_goes_on_from_there():
    clock = Clock()
    source = talk(clock)
    source.push(levels(100), RATE)
    source.finish()
    at: list[float] = []

    async def each(frame: AVFrame) -> None:
        at.append(clock.now)
        if frame.index == 50:
            clock.now += 60.0  # the laptop was closed

    frames = run(take(source, None, each))
    assert source.pictures.stalls == 1
    steps = np.diff(at)
    assert np.count_nonzero(steps < 0.01) <= STALL_SECONDS * FPS  # no minute in a second
    assert np.array_equal(np.concatenate([b.sound for b in frames])[: 100 * HOP], levels(100))


# --- interruption and end -----------------------------------------------------------------------


def test_an_interruption_drops_what_was_not_played_and_closes_the_mouth():
    clock = Clock()
    face = Level()
    source = talk(clock, face)
    source.push(levels(200), RATE)

    async def each(frame: AVFrame) -> None:
        if frame.index == 20:
            source.interrupt()
        if frame.index == 40:
            source.push(levels(10, 3), RATE)
            source.end()

    frames = run(take(source, 60, each))
    assert all(level(b) > 0 for b in frames[:21])
    assert not any(b.sound.any() or b.heard or b.speaking for b in frames[21:41])
    assert all(b.picture is None or not b.picture.any() for b in frames[21:41])
    assert sum(b.picture is None for b in frames[21:60]) <= DELAY
    assert face.calls == [*START, "hush", ("idle", DELAY)]
    again = [b for b in frames[41:] if b.heard]
    assert np.array_equal(np.concatenate([b.sound for b in again]), levels(10, 3))
    assert all(b.picture is None or int(b.picture[0, 0, 0]) == level(b) for b in again)


def test_a_mood_is_set_between_two_steps():
    clock = Clock()
    face = Level()
    source = talk(clock, face)
    source.push(levels(40), RATE)

    async def each(frame: AVFrame) -> None:
        if frame.index == 20:
            source.set_mood("happy:0.5")
            with pytest.raises(ConfigError, match="'hapy': name: must be 'neutral'"):
                source.set_mood("hapy")

    run(take(source, 30, each))
    (asked,) = face.calls[len(START) :]
    assert asked[0] == Mood("happy", 0.5)
    assert 20 < asked[1] < 27  # pictures made before it


def test_an_interruption_discards_what_is_being_computed():
    clock = Clock(step=0.055)
    source = talk(clock)
    source.push(levels(100), RATE)
    interrupted = 0

    async def each(frame: AVFrame) -> None:
        nonlocal interrupted
        if not interrupted and frame.index >= 10 and clock.jobs:
            interrupted = frame.index
            source.interrupt()

    frames = run(take(source, 40, each))
    assert interrupted
    after = [b for b in frames if b.index > interrupted and b.picture is not None]
    assert after and not any(b.picture.any() for b in after)


def test_an_interruption_frees_whoever_waits_for_room():
    clock = Clock()
    source = talk(clock, max_buffer=1.0)

    async def both() -> bool:
        source.push(levels(25), RATE)
        waiting = asyncio.create_task(source.feed(levels(10), RATE))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not waiting.done()
        source.interrupt()
        taken = await waiting
        await source.close()
        return taken

    assert run(both()) is False
    assert source.buffer.empty


def test_closing_frees_whoever_waits_for_room():
    clock = Clock()
    source = talk(clock, max_buffer=1.0)

    async def both() -> bool:
        source.push(levels(25), RATE)
        waiting = asyncio.create_task(source.feed(levels(10), RATE))
        await asyncio.sleep(0)
        await source.close()
        return await waiting

    assert run(both()) is False


def test_what_the_face_raises_comes_out_of_the_frames():
    class Broken(Level):
        def push(self, samples: np.ndarray) -> list[Any]:
            if len(self.blocks) == 2:
                raise RuntimeError("torn")
            return super().push(samples)

    source = talk(Clock(), Broken())
    with pytest.raises(RuntimeError, match="torn"):
        run(take(source, 100))


def test_closing_waits_for_the_thread_and_keeps_nothing():
    """With real threads: no step is left running on a face that is gone."""

    async def work() -> None:
        face = Level()
        running = 0

        class Slow(Level):
            def push(self, samples: np.ndarray) -> list[Any]:
                nonlocal running
                running += 1
                import time

                time.sleep(0.05)
                running -= 1
                return []

        face = Slow()
        async with RealtimeSession(face, rate=RATE) as source:
            async for frame in source:
                assert frame.index == 0
                break
        assert running == 0

    run(work())
    gc.collect()


def test_frames_are_taken_once():
    async def twice() -> None:
        source = talk(Clock())
        await take(source, 1)
        async for _ in source:
            raise AssertionError

    source = talk(Clock())

    async def again() -> None:
        async with source:
            async for _ in source:
                with pytest.raises(RuntimeError, match="once"):
                    await anext(source.__aiter__())
                return

    run(again())


def test_statistics_are_json():
    import json

    source = talk(
        Clock(),
        StreamSession(
            portrait(), animator=Animator(lively(), detector=shared_detector()), crop=True
        ),
    )
    source.push(speech(0.5), RATE)
    source.finish()
    frames = run(take(source))
    stats = json.loads(json.dumps(source.stats()))
    assert stats["pictures"]["shown"] + stats["pictures"]["dropped"] == len(frames)
    assert stats["sound"]["taken"] == 8000
    assert stats["step_median_seconds"] > 0


def test_small_parts():
    assert pcm16(np.array([-2, -1, 0, 0.5, 1], np.float32)).tolist() == [
        -32768, -32768, 0, 16384, 32767,
    ]  # fmt: skip
    assert even(np.zeros((5, 7, 3), np.uint8)).shape == (4, 6, 3)
    assert even(np.zeros((4, 6, 3), np.uint8)).flags.c_contiguous
