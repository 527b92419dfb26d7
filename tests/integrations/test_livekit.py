"""The face in LiveKit's real avatar runner, in process; only the room is a stand-in."""

import asyncio
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stillspeak.errors import AudioError, ConfigError
from stillspeak.stream import StreamSession
from support.animate import portrait, speech
from support.clock import Clock, talk_with
from support.live import animator, until

pytest.importorskip("livekit.agents", reason="the livekit extra is not installed")

from livekit import rtc
from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarRunner, QueueAudioOutput

from stillspeak.integrations.livekit import SAMPLE_RATE, TalkingFace


def face(**options: Any) -> TalkingFace:
    return TalkingFace(StreamSession(portrait(), animator=animator(), crop=True), **options)


def pieces(sound: np.ndarray, rate: int, milliseconds: int = 10) -> list[rtc.AudioFrame]:
    """A voice's speech as it comes: int16 in small frames."""
    whole = np.rint(sound * 32767).astype(np.int16)
    size = rate * milliseconds // 1000
    return [
        rtc.AudioFrame(part.tobytes(), rate, 1, len(part))
        for part in (whole[begin : begin + size] for begin in range(0, len(whole), size))
    ]


def samples(frames: list[Any]) -> np.ndarray:
    found = [np.frombuffer(f.data, np.int16) for f in frames if isinstance(f, rtc.AudioFrame)]
    return np.concatenate(found) if found else np.zeros(0, np.int16)


def on_clock(**options: Any) -> TalkingFace:
    """A face with time that never runs short."""
    source = face(sample_rate=16_000, **options)
    source.talk = talk_with(Clock(), source._session, rate=16_000, live=False, **options)
    return source


async def take(source: TalkingFace, until_end: bool = True, count: int = 0) -> list[Any]:
    taken = []
    async for frame in source:
        taken.append(frame)
        if (until_end and isinstance(frame, AudioSegmentEnd)) or len(taken) == count:
            break
    return taken


def test_speech_comes_back_whole_with_a_picture_for_every_beat():
    async def work() -> list[Any]:
        source = on_clock()
        for piece in pieces(speech(1.0), 16_000):
            await source.push_audio(piece)
        await source.push_audio(AudioSegmentEnd())
        taken = await take(source)
        await source.aclose()
        return taken

    taken = asyncio.run(work())
    heard = np.rint(speech(1.0) * 32767).astype(int)
    assert np.abs(samples(taken).astype(int) - heard).max() <= 1
    kinds = [type(frame).__name__ for frame in taken]
    assert kinds.count("AudioSegmentEnd") == 1 and kinds[-1] == "AudioSegmentEnd"
    assert kinds.count("AudioFrame") == 25
    assert kinds[:-1] == ["VideoFrame", "AudioFrame"] * 25
    sounds = [f for f in taken if isinstance(f, rtc.AudioFrame)]
    assert {f.samples_per_channel for f in sounds} == {640}
    pictures = [f for f in taken if isinstance(f, rtc.VideoFrame)]
    assert {(f.width, f.height, f.type) for f in pictures} == {(96, 128, rtc.VideoBufferType.RGB24)}
    assert np.ptp([np.frombuffer(f.data, np.uint8) for f in pictures], axis=0).max() > 20


def test_pictures_are_those_of_the_sound_beside_them():
    """In step to the beat: the returned pictures are animate's for the returned sound."""

    async def work() -> list[Any]:
        source = on_clock()
        for piece in pieces(speech(1.0), 16_000):
            await source.push_audio(piece)
        await source.push_audio(AudioSegmentEnd())
        taken = await take(source)
        await source.aclose()
        return taken

    taken = asyncio.run(work())
    whole = animator().animate(portrait(), (speech(1.0), 16_000), crop=True).frames
    pictures = [
        np.frombuffer(frame.data, np.uint8).reshape(128, 96, 3).astype(int)
        for frame in taken
        if isinstance(frame, rtc.VideoFrame)
    ]
    for picture, expected in zip(pictures[:23], whole, strict=False):
        assert np.abs(picture - expected).max() <= 2
    assert len(pictures) == 25


def test_while_nobody_speaks_there_are_pictures_and_no_sound():
    async def work() -> list[Any]:
        source = face()
        taken = await take(source, count=10)
        await source.aclose()
        return taken

    taken = asyncio.run(work())
    assert all(isinstance(frame, rtc.VideoFrame) for frame in taken)


def test_clear_buffer_stops_speech_and_another_utterance_follows():
    async def work() -> tuple[list[Any], list[Any]]:
        source = face(hold=1.0)
        pushing = asyncio.create_task(push(source))
        first: list[Any] = []
        second: list[Any] = []
        cleared = False
        async for frame in source:
            (second if cleared else first).append(frame)
            if not cleared and sum(isinstance(f, rtc.AudioFrame) for f in first) == 5:
                cleared = True
                source.clear_buffer()
                await pushing
                for piece in pieces(speech(0.2, seed=1), 16_000):
                    await source.push_audio(piece)
                await source.push_audio(AudioSegmentEnd())
            if isinstance(frame, AudioSegmentEnd):
                break
        await source.aclose()
        return first, second

    async def push(source: TalkingFace) -> None:
        await source.push_audio(pieces(speech(1.0), 16_000, 900)[0])
        await source.push_audio(pieces(speech(1.0), 16_000, 900)[0])  # waits, and is dropped

    first, second = asyncio.run(work())
    assert sum(isinstance(f, rtc.AudioFrame) for f in first) == 5
    assert abs(len(samples(second)) - 0.2 * SAMPLE_RATE) <= 50  # nothing of the first is left
    assert isinstance(second[-1], AudioSegmentEnd)


class Room:
    """What the runner needs of a room that is connected."""

    def __init__(self) -> None:
        self.published: list[Any] = []
        self.local_participant = self

    def on(self, *_: Any) -> None: ...

    def off(self, *_: Any) -> None: ...

    def isconnected(self) -> bool:
        return True

    async def publish_track(self, track: Any, options: Any) -> Any:
        self.published.append(track.name)

        async def wait_for_subscription() -> None: ...

        return SimpleNamespace(wait_for_subscription=wait_for_subscription)


def test_in_the_real_runner():
    """Speech through the runner's queue, its synchroniser and sources; an end, an interruption."""

    async def work() -> None:
        source = face()
        room = Room()
        output = QueueAudioOutput(sample_rate=SAMPLE_RATE)
        done: list[Any] = []
        output.on("playback_finished", done.append)
        runner = AvatarRunner(room, audio_recv=output, video_gen=source, options=source.options)
        seen: list[Any] = []
        push = runner.av_sync.push

        async def watched(frame: Any, timestamp: Any = None) -> None:
            seen.append(frame)
            await push(frame, timestamp)

        runner.av_sync.push = watched
        await runner.start()
        await until(lambda: seen, "the first picture")  # idle, before anybody speaks
        assert room.published == ["avatar_audio", "avatar_video"]
        for piece in pieces(speech(0.6), 16_000, 20):
            await output.capture_frame(
                rtc.AudioFrame(piece.data, 16_000, 1, piece.samples_per_channel)
            )
        output.flush()
        await until(lambda: done, "the end of playing")
        assert not done[0].interrupted
        assert abs(done[0].playback_position - 0.6) < 0.01
        assert abs(len(samples(seen)) - 0.6 * SAMPLE_RATE) <= 50

        for piece in pieces(speech(3.0), 16_000, 20):
            await output.capture_frame(piece)
        sounds = len([f for f in seen if isinstance(f, rtc.AudioFrame)])
        await until(
            lambda: len([f for f in seen if isinstance(f, rtc.AudioFrame)]) > sounds + 5,
            "some of the second utterance",
        )
        output.clear_buffer()
        await until(lambda: len(done) == 2, "the interruption")
        assert done[1].interrupted and 0.1 < done[1].playback_position < 2.5
        heard = len(samples(seen))
        pictures = len(seen)
        await until(lambda: len(seen) > pictures + 5, "pictures after the interruption")
        assert len(samples(seen)) - heard <= 2 * SAMPLE_RATE // 25  # what was on its way
        await runner.aclose()
        await source.aclose()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        assert not [t for t in others if "stillspeak" in repr(t)]

    asyncio.run(work())


def test_mistakes():
    async def work() -> None:
        with pytest.raises(ConfigError, match="multiple"):
            face(sample_rate=24_001)
        source = face()
        with pytest.raises(AudioError, match="rate"):
            await source.push_audio(SimpleNamespace(data=b"\0\0", num_channels=1, sample_rate=0))
        await source.aclose()
        assert [frame async for frame in source] == []

    asyncio.run(work())
