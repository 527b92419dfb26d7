"""The face in a real Pipecat pipeline, in process.

Pipecat does not install beside the pins of constraints.txt: ``make test-pipecat`` runs these in an
environment of their own.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest

from stillspeak.stream import StreamSession
from support.animate import portrait, speech
from support.live import animator, until

pytest.importorskip("pipecat", reason="pipecat-ai is not installed; make test-pipecat")

from pipecat.frames.frames import (
    EndFrame,
    Frame,
    InterruptionFrame,
    OutputImageRawFrame,
    TTSAudioRawFrame,
    TTSStartedFrame,
    TTSStoppedFrame,
    TTSTextFrame,
)
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from pipecat.workers.runner import WorkerRunner

from stillspeak.integrations.pipecat import TalkingFaceProcessor

RATE = 16_000


class Sink(FrameProcessor):
    """Keeps what comes out."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[Frame] = []

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if direction is FrameDirection.DOWNSTREAM:
            self.taken.append(frame)
        await self.push_frame(frame, direction)

    def of(self, kind: type) -> list[Any]:
        return [frame for frame in self.taken if isinstance(frame, kind)]

    def samples(self) -> np.ndarray:
        found = [np.frombuffer(f.audio, np.int16) for f in self.of(TTSAudioRawFrame)]
        return np.concatenate(found) if found else np.zeros(0, np.int16)


def processor(**options: Any) -> TalkingFaceProcessor:
    return TalkingFaceProcessor(
        StreamSession(portrait(), animator=animator(), crop=True), **options
    )


def run(
    face: TalkingFaceProcessor, script: Callable[[PipelineWorker, Sink], Awaitable[None]]
) -> Sink:
    """A pipeline's whole life: start, the script, and what it leads to."""

    async def work() -> Sink:
        sink = Sink()
        worker = PipelineWorker(
            Pipeline([face, sink]),
            cancel_on_idle_timeout=False,
            enable_rtvi=False,
            params=PipelineParams(audio_out_sample_rate=RATE),
        )
        started = asyncio.Event()

        @worker.event_handler("on_pipeline_started")
        async def _(*_: Any) -> None:
            started.set()

        runner = WorkerRunner(handle_sigint=False)
        await runner.add_workers(worker)
        running = asyncio.create_task(runner.run())
        await started.wait()
        await script(worker, sink)
        await asyncio.wait_for(running, 60)
        left = [t for t in asyncio.all_tasks() if "RealtimeSession" in repr(t)]
        assert not left
        return sink

    return asyncio.run(work())


def speak(sound: np.ndarray, rate: int = RATE, context: str = "one") -> list[Frame]:
    """What a voice pushes for an utterance."""
    whole = np.rint(sound * 32767).astype(np.int16)
    frames: list[Frame] = [TTSStartedFrame(context_id=context)]
    for begin in range(0, len(whole), 333):
        audio = TTSAudioRawFrame(whole[begin : begin + 333].tobytes(), rate, 1)
        audio.context_id = context
        frames.append(audio)
    return [*frames, TTSStoppedFrame(context_id=context)]


def test_speech_comes_back_whole_between_its_marks():
    async def script(worker: PipelineWorker, sink: Sink) -> None:
        await worker.queue_frames([*speak(speech(0.8)), EndFrame()])

    sink = run(processor(), script)
    heard = np.rint(speech(0.8) * 32767).astype(int)
    assert np.abs(sink.samples().astype(int) - heard).max() <= 1
    kinds = [type(frame).__name__ for frame in sink.taken]
    first, last = (
        kinds.index("TTSAudioRawFrame"),
        len(kinds) - kinds[::-1].index("TTSAudioRawFrame"),
    )
    assert kinds.index("TTSStartedFrame") < first
    assert kinds.index("TTSStoppedFrame") >= last
    assert kinds.index("EndFrame") > kinds.index("TTSStoppedFrame")
    images = sink.of(OutputImageRawFrame)
    assert len(images) >= 5
    assert {(i.size, i.format, len(i.image)) for i in images} == {((96, 128), "RGB", 96 * 128 * 3)}
    assert all(image.sync_with_audio for image in images)
    sounds = sink.of(TTSAudioRawFrame)
    assert {s.context_id for s in sounds} == {"one"} and {s.sample_rate for s in sounds} == {RATE}


def test_pictures_are_those_of_the_sound_behind_them():
    """The image before a beat's sound is animate's for it, or an older one if it is late."""

    async def script(worker: PipelineWorker, sink: Sink) -> None:
        await worker.queue_frames([*speak(speech(1.0)), EndFrame()])

    sink = run(processor(), script)
    whole = animator().animate(portrait(), (speech(1.0), RATE), crop=True).frames
    compared = 0
    said = 0
    for frame, after in zip(sink.taken, sink.taken[1:], strict=False):
        if isinstance(frame, TTSAudioRawFrame):
            said += frame.num_frames
        elif isinstance(frame, OutputImageRawFrame) and isinstance(after, TTSAudioRawFrame):
            beat = said // 640
            if not 3 <= beat < 23:
                continue
            picture = np.frombuffer(frame.image, np.uint8).reshape(128, 96, 3).astype(int)
            errors = [np.abs(picture - other).mean() for other in whole]
            assert beat - 3 <= int(np.argmin(errors)) <= beat
            compared += 1
    assert compared >= 3


def test_words_stay_between_the_sounds():
    async def script(worker: PipelineWorker, sink: Sink) -> None:
        first, second = speak(speech(0.3)), speak(speech(0.3, seed=1))
        word = TTSTextFrame("between", text_type="word")
        await worker.queue_frames([*first[:-1], word, *second[1:], EndFrame()])

    sink = run(processor(), script)
    said = 0
    for frame in sink.taken:
        if isinstance(frame, TTSAudioRawFrame):
            said += frame.num_frames
        if isinstance(frame, TTSTextFrame):
            break
    assert said == round(0.3 * RATE)


def test_an_interruption_drops_speech_and_the_next_utterance_is_whole():
    async def script(worker: PipelineWorker, sink: Sink) -> None:
        await worker.queue_frames(speak(speech(3.0)))
        await until(lambda: len(sink.samples()) > RATE // 4, "some speech")
        await worker.queue_frame(InterruptionFrame())
        await until(lambda: sink.of(InterruptionFrame), "the interruption")
        script.heard = len(sink.samples())
        images = len(sink.of(OutputImageRawFrame))
        await until(lambda: len(sink.of(OutputImageRawFrame)) > images + 5, "pictures afterwards")
        assert len(sink.samples()) - script.heard <= 2 * 640
        script.heard = len(sink.samples())
        await worker.queue_frames([*speak(speech(0.4, seed=1), context="two"), EndFrame()])

    sink = run(processor(), script)
    rest = sink.samples()[script.heard :]
    expected = np.rint(speech(0.4, seed=1) * 32767).astype(int)
    assert np.abs(rest.astype(int) - expected).max() <= 1
    after = sink.taken[sink.taken.index(sink.of(InterruptionFrame)[0]) :]
    late = [f for f in after if isinstance(f, TTSStoppedFrame)]
    assert [f.context_id for f in late] == ["two"]  # the first one's end was interrupted
    sounds = [f for f in sink.of(TTSAudioRawFrame) if f.context_id == "two"]
    assert sum(f.num_frames for f in sounds) == len(expected)


def test_speech_at_another_rate_is_resampled_to_the_pipelines():
    async def script(worker: PipelineWorker, sink: Sink) -> None:
        sound = np.interp(np.arange(24_000 // 2) / 24_000, np.arange(8000) / RATE, speech(0.5))
        await worker.queue_frames([*speak(sound, 24_000), EndFrame()])

    sink = run(processor(), script)
    assert abs(len(sink.samples()) - 8000) <= 40


def test_while_nobody_speaks_pictures_come_and_the_end_comes_at_once():
    async def script(worker: PipelineWorker, sink: Sink) -> None:
        await until(lambda: len(sink.of(OutputImageRawFrame)) >= 5, "idle pictures")
        await worker.queue_frame(EndFrame())

    sink = run(processor(sync_with_audio=False), script)
    assert len(sink.samples()) == 0
    assert not any(image.sync_with_audio for image in sink.of(OutputImageRawFrame))


def test_a_cancelled_pipeline_leaves_nothing():
    async def script(worker: PipelineWorker, sink: Sink) -> None:
        await worker.queue_frames(speak(speech(3.0)))
        await until(lambda: len(sink.samples()), "some speech")
        await worker.cancel()

    run(processor(), script)


def test_more_speech_than_fits_is_waited_for():
    async def script(worker: PipelineWorker, sink: Sink) -> None:
        await worker.queue_frames([*speak(speech(1.5)), EndFrame()])

    face = processor(hold=0.5)
    sink = run(face, script)
    assert len(sink.samples()) == round(1.5 * RATE)
    assert face.talk.buffer.counts.dropped == 0
