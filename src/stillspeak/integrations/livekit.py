"""A talking face for LiveKit Agents: the video generator of an avatar runner.

    face = TalkingFace(stillspeak.StreamSession("photo.jpg", size=512))
    runner = AvatarRunner(room, audio_recv=receiver, video_gen=face, options=face.options)

The runner pushes the agent's speech and takes pictures and sound back, in step and in real time.
While nobody speaks there are pictures and no sound.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from concurrent.futures import Executor

import numpy as np

from stillspeak.errors import MissingDependencyError
from stillspeak.realtime.session import RealtimeSession, even, pcm16
from stillspeak.stream import StreamSession

try:
    from livekit import rtc
    from livekit.agents.voice.avatar import AudioSegmentEnd, AvatarOptions, VideoGenerator
except ImportError as error:
    raise MissingDependencyError(
        f"the LiveKit integration needs {error.name}: pip install 'stillspeak[livekit]'"
    ) from error

SAMPLE_RATE = 24_000
"""Samples a second of the sound that comes back: what most voices have."""


class TalkingFace(VideoGenerator):
    """Turns an agent's speech into pictures and sound in step.

    Args:
        session: the face; nothing else may use it meanwhile, and it stays yours. Any sample rate
            but the model's, 16 kHz, adds a frame or more of delay.
        sample_rate: of the sound that comes back, a multiple of the session's frame rate. What is
            pushed may have any.
        hold: seconds of speech that may wait; :meth:`push_audio` waits while there is more.
        executor: computes; the event loop's by default.

    Raises:
        ConfigError: a sample rate that is no multiple of the frame rate.
    """

    def __init__(
        self,
        session: StreamSession,
        *,
        sample_rate: int = SAMPLE_RATE,
        hold: float | None = None,
        executor: Executor | None = None,
    ) -> None:
        self.talk = RealtimeSession(
            session, rate=sample_rate, live=False, max_buffer=hold, executor=executor
        )
        """The clock and the queues behind it; ``talk.stats()`` says how they are."""
        self._session = session
        self._sample_rate = sample_rate

    @property
    def options(self) -> AvatarOptions:
        """What the runner has to know: size, rates and channels of what comes back."""
        return AvatarOptions(
            video_width=self._session.width // 2 * 2,
            video_height=self._session.height // 2 * 2,
            video_fps=float(self._session.fps),
            audio_sample_rate=self._sample_rate,
            audio_channels=1,
        )

    async def push_audio(self, frame: rtc.AudioFrame | AudioSegmentEnd) -> None:
        """Hear a piece of speech, or that an utterance ended.

        Waits while too much is waiting already; :meth:`clear_buffer` drops a piece that waits.
        """
        if isinstance(frame, AudioSegmentEnd):
            self.talk.end()
            return
        samples = np.frombuffer(frame.data, np.int16).reshape(-1, frame.num_channels)
        await self.talk.feed(samples, frame.sample_rate)

    def clear_buffer(self) -> None:
        """Interrupt: drop all speech that was not played, and close the mouth."""
        self.talk.interrupt()

    async def __aiter__(
        self,
    ) -> AsyncIterator[rtc.VideoFrame | rtc.AudioFrame | AudioSegmentEnd]:
        """Pictures, the sound that belongs to them, and the ends of utterances, in real time."""
        async for frame in self.talk:
            if frame.picture is not None:
                picture = even(frame.picture)
                rows, columns = picture.shape[:2]
                yield rtc.VideoFrame(columns, rows, rtc.VideoBufferType.RGB24, picture.tobytes())
            if frame.heard:
                sound = pcm16(frame.sound[: frame.heard])
                yield rtc.AudioFrame(sound.tobytes(), self._sample_rate, 1, len(sound))
            if frame.ended:
                yield AudioSegmentEnd()

    async def aclose(self) -> None:
        """Stop; the iteration ends and nothing is left running."""
        await self.talk.close()
