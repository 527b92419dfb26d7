"""Makes sounds during which a mouth rests, for pose_data.rest.

    python scripts/make_rest.py OUT [--count 120] [--seed 0]

Breath, blows, strokes on a microphone, engines, tones, noise and music: 16 kHz WAV files of 6 to
10 s and index.jsonl. A file depends on its number and the seed alone.
"""

from __future__ import annotations

import argparse
import json
import sys
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE
from stillspeak.data.channel import in_room, level, music, noise
from stillspeak.system.atomic import whole_file

Sound = npt.NDArray[np.float32]
Array = npt.NDArray[np.float64]
Random = np.random.Generator


def shaped(length: int, hertz: Sequence[float], decibel: npt.ArrayLike, random: Random) -> Array:
    """Noise of RMS 1 under a smooth spectrum, given at some frequencies."""
    octaves = np.log2(np.maximum(np.fft.rfftfreq(length, 1 / SAMPLE_RATE), 20))
    gain = 10 ** (np.interp(octaves, np.log2(hertz), np.asarray(decibel)) / 20)
    out = np.fft.irfft(np.fft.rfft(random.standard_normal(length)) * gain, length)
    return out / max(float(np.sqrt(np.mean(out**2))), 1e-9)


def put(into: Array, piece: Array, start: float) -> None:
    """Add a piece at a time in seconds, cut where it does not fit."""
    place = into[int(start * SAMPLE_RATE) :][: len(piece)]
    place += piece[: len(place)]


def curve(length: int, hertz: float, random: Random) -> Array:
    """A random curve, about -1 to 1, that turns some times a second."""
    knots = int(length / SAMPLE_RATE * hertz) + 3
    places = np.linspace(0, knots - 1, length)
    return np.interp(places, np.arange(knots), random.standard_normal(knots))


def ringing(length: int, low: float, high: float, decay: float, random: Random) -> Array:
    """A body that is struck: some sines that die away, and a snap."""
    time = np.arange(length) / SAMPLE_RATE
    modes = np.exp(random.uniform(np.log(low), np.log(high), (8, 1)))
    decays = decay * random.uniform(0.5, 1.5, (8, 1))
    body = (
        random.uniform(0.2, 1, (8, 1)) * np.exp(-time / decays) * np.sin(2 * np.pi * modes * time)
    )
    return body.sum(0) + 1.5 * random.standard_normal(length) * np.exp(-time / 0.003)


def breath(length: int, random: Random) -> Array:
    """In and out: noise without a voice and its formants."""
    out = np.zeros(length)
    at = random.uniform(0.2, 1)
    while at < length / SAMPLE_RATE:
        for inward in (True, False):
            size = int(random.uniform(0.3, 0.8 if inward else 1.5) * SAMPLE_RATE)
            decibel = np.array([-30, -14, -4, 0, -8, -20]) + random.normal(0, 3, 6)
            if not inward:
                decibel += [0, 4, 3, -2, -4, -5]
            top = random.uniform(0.3, 0.75) if inward else random.uniform(0.1, 0.35)
            rise = np.interp(np.linspace(0, 1, size), (0, top, 1), (0, 1, 0))
            shape = np.sin(np.pi / 2 * rise) ** random.uniform(1, 2.5)
            air = shaped(size, (60, 250, 700, 1800, 4000, 8000), decibel, random)
            put(out, air * shape * random.uniform(0.4, 1), at)
            at += size / SAMPLE_RATE + random.uniform(0.05, 0.5)
        at += random.uniform(0.2, 2)
    return out


def blows(length: int, random: Random) -> Array:
    """Knocks, steps, dishes or keys."""
    low, high, decay, shortest, longest = (
        (90, 500, 0.04, 0.14, 1.5),
        (60, 250, 0.03, 0.2, 0.45),
        (900, 6000, 0.15, 0.4, 2.5),
        (1200, 5000, 0.004, 0.08, 0.4),
    )[random.integers(4)]
    out = np.zeros(length)
    at = random.uniform(0.1, 1)
    while at < length / SAMPLE_RATE:
        hit = ringing(SAMPLE_RATE // 2, low, high, decay, random)
        put(out, random.uniform(0.3, 1) * hit, at)
        at += random.uniform(shortest, longest)
    return in_room(out.astype(np.float32), random).astype(np.float64)


def strokes(length: int, random: Random) -> Array:
    """A microphone that is touched, paper, cloth, wind: uneven strokes of noise."""
    decibel = ((-30, -20, 0, 5, 5), (12, 6, -12, -25, -40))[random.integers(2)]
    out = np.zeros(length)
    at = random.uniform(0, 0.5)
    while at < length / SAMPLE_RATE:
        size = int(random.uniform(0.05, 0.7) * SAMPLE_RATE)
        crackle = np.abs(curve(size, random.uniform(30, 150), random)) ** 1.5
        piece = shaped(size, (30, 120, 600, 2500, 8000), decibel, random)
        put(out, piece * crackle * np.hanning(size) * random.uniform(0.3, 1), at)
        at += size / SAMPLE_RATE * random.uniform(0.5, 1.2) + random.exponential(0.3)
    return out


def engine(length: int, random: Random) -> Array:
    """A fan, a computer, a car: the tone of what turns, in noise that swells."""
    decibel = np.array([0, 2, -2, -8, -18, -30]) + random.normal(0, 3, 6)
    air = shaped(length, (40, 120, 400, 1200, 4000, 8000), decibel, random)
    turning = random.uniform(30, 400) * (
        1 + random.choice((0.005, 0.05)) * curve(length, 0.5, random)
    )
    turn = 2 * np.pi * np.cumsum(turning) / SAMPLE_RATE
    tone = sum(random.uniform(0, 1) / k * np.sin(k * turn) for k in range(1, 9))
    swell = np.exp(random.uniform(0, 1) * curve(length, 0.3, random))
    return swell * (air + random.uniform(0.05, 1) * tone)


def tones(length: int, random: Random) -> Array:
    """Held notes, a sweep, or the pulses of a telephone or an alarm."""
    time = np.arange(length) / SAMPLE_RATE
    kind = random.integers(3)
    pitch = np.exp(random.uniform(np.log(80), np.log(1500)))
    if kind == 0:
        notes = random.choice((0, 2, 4, 5, 7, 9, 11, 12), 64)
        hertz = pitch / 2 * 2 ** (notes[(time / random.uniform(0.2, 1)).astype(int) % 64] / 12)
    elif kind == 1:
        hertz = pitch * random.uniform(2, 20) ** np.interp(
            time, (0, time[-1]), random.permutation(2)
        )
    else:
        hertz = np.full(length, pitch)
    turn = (
        2
        * np.pi
        * np.cumsum(hertz * (1 + random.choice((0, 0.004)) * np.sin(35 * time)))
        / SAMPLE_RATE
    )
    dark = random.uniform(0.8, 3)
    out = sum(np.sin(k * turn) * (k * hertz < 7500) / k**dark for k in range(1, 17))
    if kind == 2:
        period = random.choice((0.3, 0.6, 1, 3))
        out = (out + np.sin(2 * np.pi * random.uniform(400, 1500) * time)) * (
            time % period < period / 2
        )
    return out


KINDS: dict[str, tuple[int, Callable[[int, Random], npt.NDArray[np.floating]]]] = {
    "breath": (4, breath),
    "blows": (4, blows),
    "strokes": (2, strokes),
    "engine": (3, engine),
    "tones": (6, tones),
    "noise": (3, noise),
    "music": (5, music),
    "silence": (1, lambda length, random: np.full(length, random.choice((0, 0.01)))),
}
"""Share and maker of each kind."""


def make(number: int, seed: int = 0) -> tuple[str, Sound]:
    """Kind and sound (S,) of a number. Kinds take turns: the first files hold nearly all."""
    random = np.random.default_rng((seed, number))
    turns = sorted((i / share, kind) for kind, (share, _) in KINDS.items() for i in range(share))
    kind = turns[number % len(turns)][1]
    length = int(random.uniform(6, 10) * SAMPLE_RATE)
    sound = np.asarray(KINDS[kind][1](length, random), np.float32)
    if kind != "silence":
        sound = level(sound, 10 ** (random.uniform(-50 if kind == "breath" else -38, -14) / 20))
    return kind, sound / max(1.0, float(np.abs(sound).max()))


def main(arguments: Sequence[str]) -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rows = []
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        for number in range(options.count):
            kind, sound = make(number, options.seed)
            path = options.out / f"{number:03d}_{kind}.wav"
            with whole_file(path) as partial, wave.open(str(partial), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(SAMPLE_RATE)
                file.writeframes(np.rint(sound * 32767).astype("<i2").tobytes())
            seconds = round(len(sound) / SAMPLE_RATE, 2)
            rows.append(json.dumps({"file": path.name, "kind": kind, "seconds": seconds}) + "\n")
        with whole_file(options.out / "index.jsonl") as partial:
            partial.write_text("".join(rows), "utf-8")
    except OSError as error:
        print(f"make_rest: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
