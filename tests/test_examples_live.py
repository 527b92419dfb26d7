"""The examples for LiveKit and Pipecat, as far as they go without a server."""

import asyncio
import importlib.util
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

import stillspeak
from stillspeak.media.video import read_clip
from support.animate import portrait, save_lively, speech, write_picture, write_wav
from support.live import animator, until

pytestmark = pytest.mark.e2e

EXAMPLES = Path(__file__).parents[1] / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(find_spec("livekit") is None, reason="the livekit extra is not installed")
def test_the_livekit_example_speaks_into_a_room(tmp_path, monkeypatch):
    module = example("livekit_avatar")
    published: list[str] = []

    class Room:
        """A room without a server."""

        local_participant = property(lambda self: self)

        def on(self, *_: Any) -> None: ...

        off = on

        def isconnected(self) -> bool:
            return True

        async def publish_track(self, track: Any, options: Any) -> Any:
            published.append(track.name)

            async def wait_for_subscription() -> None: ...

            return SimpleNamespace(wait_for_subscription=wait_for_subscription)

    model = str(save_lively(tmp_path / "small.safetensors"))
    session = stillspeak.StreamSession
    monkeypatch.setattr(
        stillspeak, "StreamSession", lambda photo, size: session(photo, model=model, crop=True)
    )
    photo = str(write_picture(tmp_path / "photo.png", portrait()))

    async def work() -> None:
        runner, output, face = module.avatar(Room(), photo)
        done: list[Any] = []
        output.on("playback_finished", done.append)
        await runner.start()
        await module.speak(output, "hello")
        await until(lambda: done, "the end of playing")
        assert abs(done[0].playback_position - 5 / 12) < 0.01
        await runner.aclose()
        await face.aclose()

    asyncio.run(work())
    assert published == ["avatar_audio", "avatar_video"]


@pytest.mark.skipif(find_spec("pipecat") is None, reason="pipecat is not there; make test-pipecat")
def test_the_pipecat_example_makes_a_film(tmp_path):
    module = example("pipecat_avatar")
    heard = str(write_wav(tmp_path / "speech.wav", speech(1.0)))
    film = tmp_path / "film.mp4"
    session = stillspeak.StreamSession(portrait(), animator=animator(), crop=True)
    asyncio.run(module.run(session, heard, film))
    frames, sound = read_clip(film)
    assert len(list(frames)) in (25, 26)
    assert np.abs(sound).max() > 0.2
