"""A pipeline of Pipecat with a face that is computed on this machine's CPU.

Needs ``pip install 'stillspeak[pipecat]'``. It goes without any service: the voice here is a sound
file, and what the pipeline would show goes into an MP4. Put your transport, recognition, language
model and voice in their places.

    python examples/pipecat_avatar.py photo.jpg speech.wav film.mp4
"""

import argparse
import asyncio
from pathlib import Path

import numpy as np
from pipecat.frames.frames import (
    EndFrame,
    Frame,
    OutputImageRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

import stillspeak
from stillspeak.integrations.pipecat import TalkingFaceProcessor
from stillspeak.media.video_recorder import Recorder

RATE = 24_000


class Film(FrameProcessor):
    """Stands in for ``transport.output()``: pictures and sound go into a file."""

    def __init__(self, path: Path, fps: int) -> None:
        super().__init__()
        self._film = Recorder(path, fps=fps, rate=RATE)
        self._block = RATE // fps
        self._picture: np.ndarray | None = None

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, OutputImageRawFrame):
            columns, rows = frame.size
            self._picture = np.frombuffer(frame.image, np.uint8).reshape(rows, columns, 3)
        elif isinstance(frame, TTSAudioRawFrame):
            sound = np.frombuffer(frame.audio, np.int16).astype(np.float32) / 32768
            # The last sound of an utterance may be shorter than a picture.
            self._film.add(self._picture, np.pad(sound, (0, self._block - len(sound))))
        elif isinstance(frame, EndFrame):
            self._film.close()
        await self.push_frame(frame, direction)


def voice(path: str) -> list[Frame]:
    """Stands in for a voice: what it pushes for one utterance."""
    sound = stillspeak.load_audio(path, sample_rate=RATE)
    whole = np.clip(np.rint(sound * 32767), -32768, 32767).astype(np.int16)
    frames: list[Frame] = [TTSStartedFrame()]
    for begin in range(0, len(whole), RATE // 50):
        frames.append(TTSAudioRawFrame(whole[begin : begin + RATE // 50].tobytes(), RATE, 1))
    return [*frames, TTSStoppedFrame()]


async def run(session: stillspeak.StreamSession, speech: str, film: Path) -> None:
    face = TalkingFaceProcessor(session)
    # Pipeline([transport.input(), stt, llm, tts, face, transport.output()]) in an agent
    worker = PipelineWorker(
        Pipeline([face, Film(film, session.fps)]),
        params=PipelineParams(audio_out_sample_rate=RATE),
        enable_rtvi=False,
    )
    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await worker.queue_frames([*voice(speech), EndFrame()])
    await runner.run()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("photo")
    arguments.add_argument("speech")
    arguments.add_argument("film", type=Path)
    given = arguments.parse_args()
    session = stillspeak.StreamSession(given.photo, size=512)
    asyncio.run(run(session, given.speech, given.film))
