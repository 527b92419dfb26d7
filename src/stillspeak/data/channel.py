"""What may happen to a voice on its way: rooms, noise, music, telephones, codecs.

Every function keeps the sound's length and its place in time, so that features of the clean sound
remain the right ones for the changed one.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from stillspeak.constants import SAMPLE_RATE
from stillspeak.errors import ConfigError
from stillspeak.system.configuration import Share, configuration

Sound = npt.NDArray[np.float32]

MU = 255.0
"""Of the telephone's companding, ITU-T G.711."""

CODECS = (("libopus", "ogg", 48_000), ("libmp3lame", "mp3", 16_000), ("g722", "wav", 16_000))
"""Encoders that voices go through, with a container and the rate that they take."""


_Decibel = Annotated[float, Field(ge=-100, le=100)]


@configuration("channel")
class ChannelConfig:
    """Shares of examples that each change befalls, and the range of levels."""

    clean: Share = 0.15
    """Left as they are but for their level."""
    equaliser: Share = 0.5
    room: Share = 0.35
    noise: Share = 0.45
    babble: Share = 0.1
    """Other voices far behind."""
    music: Share = 0.15
    telephone: Share = 0.15
    codec: Share = 0.1
    gain_db: tuple[_Decibel, _Decibel] = (-40.0, 12.0)
    """Relative to speech of RMS 0.05; what exceeds full scale is clipped."""
    noise_db: tuple[_Decibel, _Decibel] = (3.0, 40.0)
    """Speech over noise, voices or music."""

    def __post_init__(self) -> None:
        for name in ("gain_db", "noise_db"):
            low, high = getattr(self, name)
            if low > high:
                raise ConfigError(f"channel.{name} must be two numbers, the lower one first")


def through_channel(
    sound: Sound,
    config: ChannelConfig,
    random: np.random.Generator,
    other: Callable[[], Sound] | None = None,
) -> Sound:
    """A voice (S,) float32 at 16 kHz as it may arrive, (S,) in [-1, 1]; ``other`` gives another
    voice of S samples, for babble."""
    sound = level(sound, 0.05)
    if random.random() >= config.clean:
        if random.random() < config.equaliser:
            sound = equalised(sound, random)
        if random.random() < config.room:
            sound = in_room(sound, random)
        if random.random() < config.noise:
            sound = mixed(sound, noise(len(sound), random), _decibel(config.noise_db, random))
        if other is not None and random.random() < config.babble:
            voices = np.sum([other() for _ in range(random.integers(2, 6))], axis=0)
            sound = mixed(sound, voices.astype(np.float32), _decibel(config.noise_db, random) + 3)
        if random.random() < config.music:
            sound = mixed(sound, music(len(sound), random), _decibel(config.noise_db, random))
    # Rooms and noises come before the microphone, its gain and what follows after it.
    sound = sound * np.float32(10 ** (_decibel(config.gain_db, random) / 20))
    sound = sound.clip(-1, 1)
    if random.random() < config.telephone:
        sound = telephone(sound)
    elif random.random() < config.codec:
        sound = coded(sound, random)
    if random.random() < 0.5:  # most of the world has 16 bits
        sound = (np.rint(sound * 32767) / 32767).astype(np.float32)
    return sound.astype(np.float32)


def level(sound: Sound, rms: float) -> Sound:
    """Scale to a root mean square; silence stays."""
    now = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64))))
    return (sound * np.float32(rms / now)) if now > 1e-7 else sound


def mixed(sound: Sound, other: Sound, ratio_db: float) -> Sound:
    """Add another sound so that the first one's power is ``ratio_db`` above it."""
    power = float(np.mean(np.square(sound, dtype=np.float64)))
    loud = float(np.sqrt(power * 10 ** (-ratio_db / 10)))
    return sound + level(other, loud)


def equalised(sound: Sound, random: np.random.Generator, strength_db: float = 6.0) -> Sound:
    """A smooth random frequency response."""
    spectrum = np.fft.rfft(sound)
    octave = np.log2(np.maximum(np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE), 60.0) / 60.0)
    knots = np.linspace(0, octave[-1], 7)
    decibel = np.interp(octave, knots, random.normal(0, strength_db, len(knots)))
    out: Sound = np.fft.irfft(spectrum * 10 ** (decibel / 20), len(sound)).astype(np.float32)
    return out


def in_room(sound: Sound, random: np.random.Generator) -> Sound:
    """A few early reflections and a tail of noise that dies away."""
    length = SAMPLE_RATE // 2
    time = np.arange(length) / SAMPLE_RATE
    decay = random.uniform(0.1, 0.7) / 6.9  # seconds to a thousandth
    tail = random.standard_normal(length) * np.exp(-time / decay)
    tail[: SAMPLE_RATE // 80] = 0
    for _ in range(random.integers(2, 7)):
        tail[random.integers(16, SAMPLE_RATE // 40)] += random.normal(0, 2)
    tail *= 10 ** (random.uniform(-16, 2) / 20) / max(float(np.sqrt(np.sum(tail**2))), 1e-9)
    tail[0] = 1.0
    size = len(sound) + length
    wet = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(tail, size), size)
    return wet[: len(sound)].astype(np.float32)


def noise(length: int, random: np.random.Generator) -> Sound:
    """Noise with a random slope of its spectrum, sometimes with a mains hum or in gusts."""
    spectrum = np.fft.rfft(random.standard_normal(length))
    hertz = np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20.0)
    out = np.fft.irfft(spectrum * hertz ** -random.uniform(0, 1.2), length)
    out /= max(float(out.std()), 1e-9)
    time = np.arange(length) / SAMPLE_RATE
    if random.random() < 0.2:
        mains = random.choice([50.0, 60.0])
        for partial in range(1, 6):
            phase = random.uniform(0, 2 * np.pi)
            out += random.uniform(0, 1) * np.sin(2 * np.pi * mains * partial * time + phase)
    if random.random() < 0.3:
        knots = random.uniform(0, 1, max(int(length / SAMPLE_RATE * random.uniform(1, 8)), 2))
        out *= np.interp(time, np.linspace(0, time[-1], len(knots)), knots)
    return out.astype(np.float32)


def music(length: int, random: np.random.Generator) -> Sound:
    """Chords of decaying harmonic tones over a beat, at a random tempo and key."""
    out = np.zeros(length, np.float64)
    beat = SAMPLE_RATE * 60 / random.uniform(60, 160) / random.choice([1, 2])
    root = random.uniform(36, 60)
    brightness, decay = random.uniform(0.6, 1.8), random.uniform(1, 6)
    at = -random.uniform(0, beat)
    while at < length:
        tones = random.choice([0, 2, 4, 5, 7, 9, 11, 12], random.integers(1, 5)) + root
        first, duration = max(int(at), 0), int(min(beat * 2, SAMPLE_RATE))
        time = np.arange(min(duration, length - first)) / SAMPLE_RATE
        shape = np.minimum(time * 100, 1) * np.exp(-decay * time)
        for tone in tones:
            hertz = 440 * 2 ** ((tone + random.choice([0, 12]) - 69) / 12)
            for partial in range(1, 7):
                if partial * hertz < SAMPLE_RATE / 2:
                    wave = np.sin(2 * np.pi * partial * hertz * time)
                    out[first : first + len(time)] += shape * wave * partial**-brightness
        if random.random() < 0.5:
            hit = random.standard_normal(len(time)) * np.exp(-40 * time)
            out[first : first + len(time)] += hit * random.uniform(0, 2)
        at += beat
    return out.astype(np.float32)


def telephone(sound: Sound) -> Sound:
    """The narrow band of 300 to 3,400 Hz at 8 kHz with eight bits, G.711's mu-law."""
    spectrum = np.fft.rfft(sound)
    hertz = np.fft.rfftfreq(len(sound), 1 / SAMPLE_RATE)
    edge = np.clip((hertz - 200) / 100, 0, 1) * np.clip((3700 - hertz) / 300, 0, 1)
    narrow = np.fft.irfft(spectrum * edge, len(sound)).clip(-1, 1)
    # The samples between those of 8 kHz carry nothing new: companding all of them is the same.
    small = np.sign(narrow) * np.log1p(MU * np.abs(narrow)) / np.log1p(MU)
    steps = np.rint(small * 127) / 127
    out: Sound = (np.sign(steps) * np.expm1(np.abs(steps) * np.log1p(MU)) / MU).astype(np.float32)
    return out


def coded(sound: Sound, random: np.random.Generator) -> Sound:
    """There and back through a speech or music codec at a low rate."""
    import av

    name, container, rate = CODECS[random.integers(len(CODECS))]
    buffer = io.BytesIO()
    samples = (sound * 32767).astype(np.int16)[None]
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(name, rate=rate, layout="mono")
        assert isinstance(stream, av.AudioStream)
        if name != "g722":
            stream.bit_rate = int(random.choice([12_000, 16_000, 24_000, 32_000]))
        frame = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for packet in stream.encode(frame):
            output.mux(packet)
        output.mux(list(stream.encode(None)))
    buffer.seek(0)
    resampler = av.AudioResampler("flt", "mono", SAMPLE_RATE)
    with av.open(buffer, "r") as source:
        parts = [
            one.to_ndarray()[0]
            for decoded in source.decode(audio=0)
            for one in resampler.resample(decoded)
        ]
    heard = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return _in_place(heard.astype(np.float32), sound)


def _in_place(heard: Sound, sound: Sound) -> Sound:
    """Undo a codec's delay, found by correlation within 100 ms; the length is restored."""
    reach = SAMPLE_RATE // 10
    size = 1 << (len(sound) + len(heard) + reach).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(sound, size)), size)
    shift = int(np.argmax(np.r_[likeness[-reach:], likeness[: reach + 1]])) - reach
    heard = heard[shift:] if shift > 0 else np.concatenate((np.zeros(-shift, np.float32), heard))
    out = np.zeros_like(sound)
    out[: len(heard)] = heard[: len(sound)]
    return out


def _decibel(limits: tuple[float, float], random: np.random.Generator) -> float:
    return float(random.uniform(*limits))
