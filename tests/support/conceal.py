"""A speaking, drifting head as a clip, and videos with holes in their time stamps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np

from stillspeak.conceal.concealer import Concealer
from stillspeak.models.generator import Generator
from stillspeak.options import AnimateOptions
from stillspeak.rendering.portrait import Portrait
from stillspeak.synthesis import Synthesizer
from support.animate import RATE, lively, portrait, portrait_face, shared_detector, speech

FPS = 25


def talker() -> Generator:
    """A small generator whose mouth opens, widens and goes crooked with the sound."""
    return lively("layers")


def concealer() -> Concealer:
    return Concealer(talker(), device="cpu", detector=shared_detector())


@cache
def sound(seconds: float) -> np.ndarray:
    samples = speech(seconds)
    samples.flags.writeable = False
    return samples


@cache
def talking(count: int) -> np.ndarray:
    """(count, 256, 256, 3) uint8: the portrait speaks by the small model, its head drifts, and
    there is a camera's grain."""
    import cv2

    face = Portrait.of(portrait(), portrait_face().points, talker())
    options = AnimateOptions(seed=5, blink=0.0, expression=0.0)
    animation = Synthesizer(talker(), face, options).speak(sound(count / FPS + 0.1))
    random = np.random.default_rng(3)
    frames = []
    for k, frame in zip(range(count), animation, strict=False):
        shift = np.array([[1, 0, 2.5 * np.sin(k / 9)], [0, 1, 1.5 * np.cos(k / 13)]])
        moved = cv2.warpAffine(frame, shift, (256, 256), borderMode=cv2.BORDER_REPLICATE)
        grain = random.normal(0, 1.5, moved.shape)
        frames.append(np.clip(moved + grain, 0, 255).astype(np.uint8))
    clip = np.stack(frames)
    clip.flags.writeable = False
    return clip


def lost_places(count: int, *runs: tuple[int, int]) -> np.ndarray:
    """(count,) bool, true from the first up to the second number of each run."""
    lost = np.zeros(count, bool)
    for start, stop in runs:
        lost[start:stop] = True
    return lost


def write_timed(
    path: Path,
    frames: Sequence[np.ndarray],
    places: Iterable[int],
    audio: np.ndarray | None,
    *,
    fps: int = FPS,
    first: float = 0.0,
    crf: int = 10,
) -> Path:
    """A video whose frames are shown at whole multiples of 1 / fps after ``first`` seconds."""
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps, options={"crf": str(crf)})
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        picture.codec_context.time_base = Fraction(1, 1000 * fps)
        packets = []
        track = None
        if audio is not None:
            track = container.add_stream("aac", rate=RATE, layout="mono")
        for place, array in zip(places, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts = 1000 * place + round(1000 * fps * first)
            frame.time_base = Fraction(1, 1000 * fps)
            packets += picture.encode(frame)
        packets += picture.encode(None)
        if track is not None and audio is not None:
            for at in range(0, len(audio), 1024):
                part = np.ascontiguousarray(audio[None, at : at + 1024], np.float32)
                chunk = av.AudioFrame.from_ndarray(part, "fltp", "mono")
                chunk.sample_rate, chunk.pts = RATE, at
                chunk.time_base = Fraction(1, RATE)
                packets += track.encode(chunk)
            packets += track.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def sound_packets(path: Path) -> list[tuple[bytes, float]]:
    """The sound's packets and their times after the first picture's."""
    with av.open(str(path)) as container:
        begin = next(container.decode(video=0)).time
    with av.open(str(path)) as container:
        return [
            (bytes(packet), round(float(packet.pts * packet.time_base) - begin, 3))
            for packet in container.demux(audio=0)
            if packet.size
        ]


def planes(path: Path) -> list[np.ndarray]:
    """Every frame as decoded, without a way through RGB."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="yuv420p") for frame in container.decode(video=0)]


def times(path: Path) -> list[float]:
    """When each frame is shown, after the first one, to the millisecond."""
    with av.open(str(path)) as container:
        shown = [frame.time for frame in container.decode(video=0)]
    return [round(time - shown[0], 3) for time in shown]
