"""An agent of LiveKit with a face that is computed on this machine's CPU.

Needs ``pip install 'stillspeak[livekit]'`` and a LiveKit server: LIVEKIT_URL, LIVEKIT_API_KEY and
LIVEKIT_API_SECRET name it. The agent here says what is typed into the room's chat, so that nothing
but the voice is missing: put your own speech service where ``speak`` makes a tone.

    python examples/livekit_avatar.py photo.jpg --room lobby
"""

import argparse
import asyncio
import os

import numpy as np
from livekit import api, rtc
from livekit.agents.voice.avatar import AvatarRunner, QueueAudioOutput

import stillspeak
from stillspeak.integrations.livekit import SAMPLE_RATE, TalkingFace


def avatar(room: rtc.Room, photo: str) -> tuple[AvatarRunner, QueueAudioOutput, TalkingFace]:
    """A runner that publishes the face in a room, and the output that its voice goes into.

    In an agent session of LiveKit Agents the output is ``session.output.audio``.
    """
    face = TalkingFace(stillspeak.StreamSession(photo, size=512))
    output = QueueAudioOutput(sample_rate=SAMPLE_RATE)
    runner = AvatarRunner(room, audio_recv=output, video_gen=face, options=face.options)
    return runner, output, face


async def speak(output: QueueAudioOutput, text: str) -> None:
    """Stands in for a voice: a syllable of a tone for each letter."""
    time = np.arange(SAMPLE_RATE * max(len(text), 1) // 12) / SAMPLE_RATE
    syllables = 0.5 - 0.5 * np.cos(2 * np.pi * 6 * time)
    sound = np.rint(8000 * syllables * np.sin(2 * np.pi * 180 * time)).astype(np.int16)
    for begin in range(0, len(sound), SAMPLE_RATE // 50):
        piece = sound[begin : begin + SAMPLE_RATE // 50]
        await output.capture_frame(rtc.AudioFrame(piece.tobytes(), SAMPLE_RATE, 1, len(piece)))
    output.flush()


async def main(photo: str, name: str) -> None:
    token = (
        api.AccessToken()
        .with_identity("stillspeak")
        .with_grants(api.VideoGrants(room_join=True, room=name))
        .to_jwt()
    )
    room = rtc.Room()
    runner, output, face = avatar(room, photo)
    said: asyncio.Queue[str] = asyncio.Queue()

    def typed(reader: rtc.TextStreamReader, _: str) -> None:
        async def read() -> None:
            output.clear_buffer()  # typing interrupts
            await said.put(await reader.read_all())

        task = asyncio.create_task(read())
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    tasks: set[asyncio.Task[None]] = set()
    room.register_text_stream_handler("lk.chat", typed)
    await room.connect(os.environ["LIVEKIT_URL"], token)
    await runner.start()
    try:
        while True:
            await speak(output, await said.get())
    finally:
        await runner.aclose()
        await face.aclose()
        await room.disconnect()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("photo")
    arguments.add_argument("--room", default="lobby")
    given = arguments.parse_args()
    asyncio.run(main(given.photo, given.room))
