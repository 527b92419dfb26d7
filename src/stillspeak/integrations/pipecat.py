"""A talking face for Pipecat: a processor between the voice and the transport's output.

    face = TalkingFaceProcessor(stillspeak.StreamSession("photo.jpg", size=512))
    pipeline = Pipeline([transport.input(), stt, llm, tts, face, transport.output()])

Speech goes in, pictures and the same speech come out, in step and in real time. What comes between
pieces of speech stays between them. An interruption drops what was not played.
"""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import Executor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from stillspeak.errors import MissingDependencyError, StillspeakError
from stillspeak.realtime.session import RealtimeSession, even, pcm16
from stillspeak.stream import StreamSession

try:
    from pipecat.frames.frames import (
        CancelFrame,
        EndFrame,
        Frame,
        InterruptionFrame,
        OutputImageRawFrame,
        StartFrame,
        SystemFrame,
        TTSAudioRawFrame,
        TTSStoppedFrame,
    )
    from pipecat.processors.frame_processor import (
        FrameDirection,
        FrameProcessor,
        FrameProcessorSetup,
    )
except ImportError as error:
    raise MissingDependencyError(
        f"the Pipecat integration needs {error.name}: pip install 'stillspeak[pipecat]'"
    ) from error


class _Voice(NamedTuple):
    """What is carried over to the speech that comes out."""

    context_id: str | None
    destination: str | None


class TalkingFaceProcessor(FrameProcessor):
    """Turns the voice's speech into pictures and sound in step.

    Args:
        session: the face; nothing else may use it meanwhile, and it stays yours. Any sample rate
            but the model's, 16 kHz, adds a frame or more of delay.
        sample_rate: of the sound that goes out; by default the pipeline's.
        hold: seconds of speech that may wait; more is waited for.
        sync_with_audio: let the transport show each picture when the sound before it was sent.
        executor: computes; the event loop's by default.
    """

    def __init__(
        self,
        session: StreamSession,
        *,
        sample_rate: int | None = None,
        hold: float | None = None,
        sync_with_audio: bool = True,
        executor: Executor | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self._new_session = partial(
            RealtimeSession, session, live=False, max_buffer=hold, executor=executor
        )
        self._rate, self._sync_with_audio = sample_rate, sync_with_audio
        self.talk: RealtimeSession | None = None
        """The clock and the queues behind it, once the pipeline has started."""
        self._playing: asyncio.Task[None] | None = None
        # What waits for the sound before it: how many samples that is, and what.
        self._marks: deque[tuple[int, Frame | _Voice]] = deque()
        self._taken = self._said = 0
        self._last = self._voice = _Voice(None, None)
        self._quiet = asyncio.Event()
        self._quiet.set()

    async def setup(self, setup: FrameProcessorSetup) -> None:
        """Called by the pipeline: takes its sample rate."""
        await super().setup(setup)
        if self._rate is None:
            self._rate = setup.audio_out_sample_rate

    async def cleanup(self) -> None:
        """Called by the pipeline: nothing is left running."""
        await super().cleanup()
        await self._stop()

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        """Called by the pipeline for each frame."""
        await super().process_frame(frame, direction)
        downstream = direction is FrameDirection.DOWNSTREAM
        if isinstance(frame, InterruptionFrame):
            await self._interrupt()
        elif isinstance(frame, CancelFrame):
            await self._stop()
        elif not isinstance(frame, SystemFrame) and downstream and self.talk is not None:
            if isinstance(frame, TTSAudioRawFrame):
                await self._hear(frame)
                return
            if isinstance(frame, EndFrame | TTSStoppedFrame):
                self._end_utterance()
            if isinstance(frame, EndFrame):
                if self._playing is not None and not self._playing.done():
                    await self._quiet.wait()
                await self._stop()
            elif self._marks or self._said < self._taken:
                self._marks.append((self._taken, frame))
                return
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._start()

    def _start(self) -> None:
        if self._playing is None:
            assert self._rate is not None
            self.talk = self._new_session(rate=self._rate)
            self._playing = self.create_task(self._play(self.talk))

    async def _stop(self) -> None:
        playing, self._playing = self._playing, None
        if playing is not None:
            await self.cancel_task(playing)
        if self.talk is not None:
            await self.talk.close()
        self._quiet.set()

    async def _hear(self, frame: TTSAudioRawFrame) -> None:
        assert self.talk is not None
        voice = _Voice(frame.context_id, frame.transport_destination)
        if voice != self._last:
            self._marks.append((self._taken, voice))
            self._last = voice
        samples = np.frombuffer(frame.audio, np.int16).reshape(-1, frame.num_channels)
        try:
            await self.talk.feed(samples, frame.sample_rate)
        except StillspeakError as error:
            await self.push_error(error_msg=str(error), exception=error)
        self._count()

    def _end_utterance(self) -> None:
        assert self.talk is not None
        if self._said < self._taken or self.talk.buffer.seconds:
            self.talk.end()
            self._count()

    def _count(self) -> None:
        assert self.talk is not None
        self._taken = self.talk.buffer.counts.taken
        if self._said < self._taken:
            self._quiet.clear()

    async def _interrupt(self) -> None:
        if self.talk is None:
            return
        self.talk.interrupt()
        self._said = self._taken = self.talk.buffer.counts.taken
        self._quiet.set()
        marks, self._marks = list(self._marks), deque()
        for _, mark in marks:
            if isinstance(mark, _Voice):
                self._voice = mark
            elif not mark.interruptible:
                await self.push_frame(mark)

    async def _play(self, talk: RealtimeSession) -> None:
        try:
            async for frame in talk:
                await self._release()
                if frame.picture is not None:
                    picture = even(frame.picture)
                    rows, columns = picture.shape[:2]
                    image = OutputImageRawFrame(picture.tobytes(), (columns, rows), "RGB")
                    image.sync_with_audio = self._sync_with_audio
                    image.transport_destination = self._voice.destination
                    await self.push_frame(image)
                if frame.heard:
                    await self._say(talk, frame.sound[: frame.heard])
                await self._release()
        except Exception as error:
            await self.push_error(error_msg=f"the talking face stopped: {error}", exception=error)
        finally:
            self._quiet.set()

    async def _say(self, talk: RealtimeSession, sound: Any) -> None:
        """Push the sound of a frame, in pieces where something belongs between them."""
        begin = 0
        while begin < len(sound):
            await self._release()
            size = len(sound) - begin
            if self._marks:
                size = min(size, max(self._marks[0][0] - self._said, 1))
            piece = pcm16(sound[begin : begin + size])
            audio = TTSAudioRawFrame(piece.tobytes(), talk.buffer.rate, 1)
            audio.context_id = self._voice.context_id
            audio.transport_destination = self._voice.destination
            begin += size
            # Counted first: an interruption that comes meanwhile sets it to all there was.
            self._said += size
            await self.push_frame(audio)

    async def _release(self) -> None:
        """Push what waited for sound that has gone out by now."""
        while self._marks and self._marks[0][0] <= self._said:
            _, mark = self._marks.popleft()
            if isinstance(mark, _Voice):
                self._voice = mark
            else:
                await self.push_frame(mark)
        if self._said >= self._taken and not self._marks:
            self._quiet.set()
