"""Small films whose frames and sounds say when they are due."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

import stillspeak
from stillspeak.constants import SAMPLE_RATE
from stillspeak.media.audio import load_audio
from stillspeak.media.video_writer import write_video

SPEECH = Path(stillspeak.__file__).parent / "resources" / "speech.flac"

SIZE = (48, 64)
KINDS = {  # suffix: picture codec, sound codec, its rate
    "mp4": ("libx264", "aac", 48_000),
    "mkv": ("libx264", "libopus", 48_000),
    "flv": ("flv", "libmp3lame", 44_100),
    "avi": ("mpeg4", "libmp3lame", 44_100),
    "mpg": ("mpeg1video", "mp2", 44_100),
}


def counting(count: int) -> Iterator[np.ndarray]:
    """Frames (48, 64, 3) uint8 that spell their number in twelve black and white blocks."""
    for k in range(count):
        frame = np.zeros((*SIZE, 3), np.uint8)
        for bit in range(12):
            row, column = divmod(bit, 4)
            if k >> bit & 1:
                frame[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 255
        yield frame


def number(frame: np.ndarray) -> int:
    blocks = frame[..., 1].reshape(3, 16, 4, 16).mean(axis=(1, 3)).ravel()
    return sum(1 << bit for bit, value in enumerate(blocks) if value > 128)


def clicks(rate: int, times: list[float], seconds: float) -> np.ndarray:
    """(S,) float32, silent but for 5 ms of a 1 kHz tone at each time."""
    wave = np.zeros(round(seconds * rate), np.float32)
    burst = 0.8 * np.sin(2 * np.pi * 1000 * np.arange(round(0.005 * rate)) / rate)
    for time in times:
        at = round(time * rate)
        wave[at : at + len(burst)] = burst[: len(wave) - at]
    return wave


def film(
    path: Path,
    frames: Iterable[np.ndarray],
    rate: Fraction,
    times: list[float],
    seconds: float,
) -> Path:
    """A video with sound in the codecs that are usual for its suffix."""
    picture_codec, sound_codec, sound_rate = KINDS[path.suffix[1:]]
    with av.open(str(path), "w") as container:
        picture = container.add_stream(picture_codec, rate=rate)
        picture.width, picture.height, picture.pix_fmt = SIZE[1], SIZE[0], "yuv420p"
        picture.codec_context.gop_size = 40
        picture.bit_rate = 2_000_000
        sound = container.add_stream(sound_codec, rate=sound_rate, layout="mono")
        packets = []
        for k, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = k, 1 / rate
            packets += picture.encode(frame)
        packets += picture.encode(None)
        wave = (clicks(sound_rate, times, seconds)[None] * 32767).astype(np.int16)
        for at in range(0, wave.shape[1], 1024):
            part = np.ascontiguousarray(wave[:, at : at + 1024])
            chunk = av.AudioFrame.from_ndarray(part, "s16", "mono")
            chunk.sample_rate, chunk.pts = sound_rate, at
            chunk.time_base = Fraction(1, sound_rate)
            packets += sound.encode(chunk)
        packets += sound.encode(None)
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            container.mux(packet)
    return path


def peak(wave: np.ndarray) -> float:
    """Seconds at which the strongest click of a wave at 16 kHz begins."""
    loud = np.abs(wave)
    return float(np.argmax(loud > 0.3 * loud.max())) / SAMPLE_RATE


def flashes(rate: Fraction, times: list[float], seconds: float) -> Iterator[np.ndarray]:
    """Dark frames (48, 64, 3) uint8, white for a tenth of a second from each time on."""
    for k in range(round(seconds * rate)):
        lit = any(time - 0.5 / rate <= k / rate < time + 0.1 - 0.5 / rate for time in times)
        yield np.full((*SIZE, 3), 255 if lit else 16, np.uint8)


def talk(
    path: Path, *, utterances: int, cuts: Iterable[int] = (), seconds: float | None = None
) -> Path:
    """A film at 25 frames a second in which somebody speaks for three seconds in every five.

    The first second is silent, and so is the last one; a single frame number in ``cuts``
    begins another scene.
    """
    speech = load_audio(SPEECH)[round(2.05 * SAMPLE_RATE) : round(5.05 * SAMPLE_RATE)]
    length = 1.0 + 5.0 * max(utterances, 1) if seconds is None else seconds
    wave = np.zeros(round(length * SAMPLE_RATE), np.float32)
    for n in range(utterances):
        at = round((1 + 5 * n) * SAMPLE_RATE)
        wave[at : at + len(speech)] = speech[: len(wave) - at]
    write_video(path, _scenes(round(length * 25), set(cuts)), audio=wave)
    return path


def _scenes(count: int, cuts: set[int]) -> Iterator[np.ndarray]:
    """Still frames (48, 64, 3) uint8 of two scenes in turn, a little noise in each."""
    rng = np.random.default_rng(0)
    scene = 0
    for k in range(count):
        scene ^= k in cuts
        frame = np.full((*SIZE, 3), (40, 60, 160), np.int16)
        if scene:
            frame[:] = (200, 150, 60)
            frame[10:30, 20:50] = (20, 90, 20)
        yield (frame + rng.integers(-4, 5, frame.shape)).clip(0, 255).astype(np.uint8)
