"""A face that speaks while the sound comes in, a pause in which it lives on, an interruption.

    python examples/streaming.py [PHOTO SPEECH] [OUTPUT]

The sound comes from a file here, in chunks of 20 ms as from a microphone; what would be shown on a
screen is written to a video, so that it can be looked at.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib.resources import as_file, files
from typing import Any

import numpy as np

import stillspeak

RATE = 16_000
CHUNK = RATE // 50
PAUSE_SECONDS = 1


def main(arguments: list[str]) -> int:
    """Stream and return the exit code."""
    *inputs, output = arguments or ["stream.mp4"]
    if len(inputs) not in (0, 2) or output.startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    with as_file(files("stillspeak") / "resources" / "speech.flac") as sentence:
        sound = stillspeak.load_audio(inputs[1] if inputs else sentence, sample_rate=RATE)
    session = stillspeak.StreamSession(inputs[0] if inputs else portrait(), sample_rate=RATE)
    pictures = list(conversation(session, sound))

    # What was heard and shown, in step: the utterance, a pause, and its first half again.
    pause = np.zeros(PAUSE_SECONDS * RATE, np.float32)
    heard = np.concatenate((sound, pause, sound[: len(sound) // 2]))
    stillspeak.write_video(output, pictures, audio=heard, sample_rate=RATE, overwrite=True)
    latency = session.latency
    wait = latency.algorithmic + latency.resampling
    print(f"{output}: {len(pictures)} frames; a frame waits for {1000 * wait:.0f} ms of sound")
    return 0


def conversation(session: stillspeak.StreamSession, sound: Any) -> Iterator[Any]:
    """The pictures (H, W, 3) uint8 of an utterance, a pause, and an utterance that is cut off."""
    for chunk in chunks(sound):
        yield from (frame.picture for frame in session.push(chunk))
    yield from (frame.picture for frame in session.flush())
    # Nobody speaks: the mouth rests, eyes and brows go on.
    yield from (frame.picture for frame in session.idle(PAUSE_SECONDS * session.fps))
    for chunk in chunks(sound[: len(sound) // 2]):
        yield from (frame.picture for frame in session.push(chunk))
    session.reset()  # interrupted: what was pending is never shown


def chunks(sound: Any) -> Iterator[Any]:
    """Pieces of 20 ms, as int16: what microphones and calls deliver."""
    samples = np.rint(np.asarray(sound) * 32767).astype(np.int16)
    for start in range(0, len(samples), CHUNK):
        yield samples[start : start + CHUNK]


def portrait() -> Any:
    """(512, 512, 3) uint8: Eileen Collins, photographed by NASA, public domain."""
    from skimage.data import astronaut

    return astronaut()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
