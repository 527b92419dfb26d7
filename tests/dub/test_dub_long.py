"""Memory does not grow with the length of the video or of the sound."""

import json
import os
import subprocess
import sys
import wave
from pathlib import Path

import pytest

from support.dub import coloured, encode

pytestmark = pytest.mark.long

PROGRAM = """
import json, resource, sys
from stillspeak import dub
from support.dub import BOX, Painter

class Steady(Painter):
    def draw(self, frames, sound, appearance, *, stats=None):
        for frame in frames:
            next(sound, None)
            picture = frame.picture.copy()
            picture[10:20, 10:20] = 255
            yield frame, picture, BOX

video, speech, output = sys.argv[1:]
done = dub(video, speech, output, dubber=Steady(), overwrite=True)
print(json.dumps([done.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]))
"""


def memory(video: Path, seconds: int) -> tuple[int, int]:
    """Frames written, and most KiB held. An MP4's index would be in memory until its end."""
    speech, output = video.with_name("speech.wav"), video.with_name("out.mkv")
    with wave.open(str(speech), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", "NONE"))
        for _ in range(seconds):
            file.writeframes(bytes(32_000))
    path = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(video), str(speech), str(output)],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
    )
    frames, most = json.loads(done.stdout.splitlines()[-1])
    return frames, most


def test_an_hour_takes_as_much_memory_as_a_minute(tmp_path: Path) -> None:
    """The long one goes backward through 12 minutes, and then on."""
    frames = coloured(300, 96, 128)
    short = encode(tmp_path / "short.mp4", frames * 5)
    long = encode(tmp_path / "long.mp4", frames * 60)
    few, least = memory(short, 90)
    many, most = memory(long, 3600)
    assert (few, many) == (2250, 90_000)
    assert most - least < 50 * 1024
    sys.stdout.write(
        f"\n{few} frames: {least / 1024:.0f} MiB; {many} frames: {most / 1024:.0f} MiB\n"
    )
