"""Videos to read, and measures of what was written."""

from fractions import Fraction

import av
import numpy as np

KINDS = ["a.mp4", "a.webm", "a.gif", "folder"]
MOVIES = ["a.mp4", "a.webm"]


def flat(value, height=32, width=32):
    return np.full((height, width, 3), value, np.uint8)


def numbered(path, times, *, base=Fraction(1, 1000), sound=(), rotation=0, size=(32, 32)):
    """A lossless video whose frame k is flat grey k at ``times[k]`` s, with (time, wave)s."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("ffv1", rate=25)
        picture.height, picture.width = size
        picture.pix_fmt = "bgr0"
        picture.codec_context.time_base = base
        if rotation:
            picture.set_display_rotation(rotation)
        if sound:
            voice = container.add_stream("pcm_s16le", rate=16_000)
            voice.codec_context.layout = "mono"
            voice.codec_context.time_base = Fraction(1, 16_000)
        packets = []
        for value, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(flat(value % 256, *size), format="rgb24")
            frame = frame.reformat(format="bgr0")
            frame.pts, frame.time_base = round(Fraction(time) / base), base
            packets += picture.encode(frame)
        packets += picture.encode(None)
        for time, wave in sound:
            whole = np.rint(wave * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(whole, "s16", "mono")
            frame.sample_rate = 16_000
            frame.pts, frame.time_base = round(time * 16_000), Fraction(1, 16_000)
            packets += voice.encode(frame)
        container.mux(packets)
    return path


def values(frames):
    return [int(frame[0, 0, 0]) for frame in frames]


def moving(count, height=64, width=48):
    """Smooth frames in motion, (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width] / 8
    for k in range(count):
        waves = [np.sin(x + k / 6), np.cos(y - k / 9), np.sin(x + y + k / 12)]
        yield (np.stack(waves, axis=2) * 80 + 128).astype(np.uint8)


def speech(seconds, rate=16_000, seed=0):
    """(S,) float32 noise with the loudness of syllables: its correlation has one peak."""
    rng = np.random.default_rng(seed)
    size = round(seconds * rate)
    if not size:
        return np.zeros(0, np.float32)
    noise = np.convolve(rng.standard_normal(size), np.ones(6) / 6, "same")
    loud = np.repeat(rng.random(size // 400 + 1), 400)[:size]
    return (noise * loud * 0.4).astype(np.float32)


def lag_of(got, want):
    """Samples by which ``got`` is later than ``want``."""
    n = 2 * max(got.size, want.size)
    product = np.fft.irfft(np.fft.rfft(got, n) * np.fft.rfft(want, n).conj(), n)
    best = int(np.argmax(product))
    return best - n if best > n // 2 else best


def psnr(got, want):
    return 10 * np.log10(255**2 / np.mean((got.astype(float) - want) ** 2))


def listing(folder):
    return sorted(entry.name for entry in folder.iterdir())
