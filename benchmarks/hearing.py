"""What the default model's ears cost and withstand: time a frame, level, telephone, rest.

    python benchmarks/hearing.py [--models layers temporal] [--minutes 2] [--speech FILE ...]

Times a frame's audio step of each model on one thread, in turns, and the first model's at the end
of a long sound beside its beginning. Then the first model, which has to say poses, hears every
recording again 30 dB softer, 12 dB louder and clipped, and through a telephone (8 kHz, mu-law), and
its lip opening is correlated with that of the first time. Last it hears what is no speech, alone
and after speech, and its opening's mean and deviation are told, in distances between the eyes.

The sound is the bundled sentence unless recordings are named. Prints one JSON object; nothing here
asserts a number.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.channel import level, music, noise, telephone
from stillspeak.face.mouth import opening_of
from stillspeak.media.audio import frame_windows, load_audio
from stillspeak.models.engine import InferenceEngine
from stillspeak.system.runtime import torch_threads
from stillspeak.weights import load_model
from streaming import machine

Sound = npt.NDArray[np.float32]

SENTENCE = Path(str(files("stillspeak"))) / "resources" / "speech.flac"

WARM = 100
"""Frames that are not timed: until the caches are full."""


class Ear:
    """A model's audio step, a frame at a time."""

    def __init__(self, name: str) -> None:
        self._engine = InferenceEngine(load_model(name))
        config = self._engine.config
        self._still = self._engine.prepare_still(torch.zeros(1, 3, config.height, config.width))
        self._noise = torch.zeros(1, 1, config.noise_dim)
        self.restart()

    def restart(self) -> None:
        """As before any sound."""
        self._state = self._engine.initial_state()

    def windows(self, sound: Sound) -> Sound:
        """(T, N) of a sound."""
        config = self._engine.config
        return np.array(frame_windows(sound, config.window, config.hop))

    @torch.inference_mode()
    def step(self, window: Sound) -> float:
        """Hear one frame's window (N,): seconds that the audio encoder took."""
        tensor = torch.from_numpy(window)[None, None]
        begin = time.perf_counter()
        _, context = self._engine.audio(tensor, self._state.context)
        taken = time.perf_counter() - begin
        self._state = self._state._replace(context=context)
        return taken

    @torch.inference_mode()
    def openings(self, sound: Sound) -> npt.NDArray[np.float32]:
        """The lip opening in every frame of a sound, from a fresh start."""
        state, out = self._engine.initial_state(), []
        for window in self.windows(sound):
            tensor = torch.from_numpy(window)[None, None]
            decoded, state = self._engine.step(self._still, tensor, self._noise, state)
            assert decoded.pose is not None
            out.append(float(opening_of(decoded.pose[0, 0])))
        return np.array(out, np.float32)


def timed(ears: dict[str, Ear], sound: Sound, frames: int) -> dict[str, dict[str, float]]:
    """Milliseconds a frame of each, in turns."""
    taken: dict[str, list[float]] = {name: [] for name in ears}
    windows = {name: ear.windows(sound) for name, ear in ears.items()}
    for frame in range(WARM + frames):
        for name, ear in ears.items():
            heard = windows[name]
            seconds = ear.step(heard[frame % len(heard)])
            if frame >= WARM:
                taken[name].append(1000 * seconds)
    return {
        name: {"median_ms": float(np.median(one)), "p99_ms": float(np.quantile(one, 0.99))}
        for name, one in taken.items()
    }


def flat(ear: Ear, sound: Sound, minutes: float) -> dict[str, float]:
    """Median milliseconds of the first and the last tenth of a long sound."""
    ear.restart()
    windows = ear.windows(sound)
    count = max(round(60 * minutes * VIDEO_FPS), 40)
    taken = [1000 * ear.step(windows[frame % len(windows)]) for frame in range(WARM + count)]
    tenth, taken = count // 10, taken[WARM:]
    return {
        "minutes": minutes,
        "first_ms": float(np.median(taken[:tenth])),
        "last_ms": float(np.median(taken[-tenth:])),
    }


CHANGES: dict[str, Callable[[Sound], Sound]] = {
    "30 dB softer": lambda s: s * np.float32(10**-1.5),
    "30 dB softer, 16 bit": lambda s: (
        np.rint(s * 32767 * 10**-1.5).astype(np.float32) / np.float32(32767)
    ),
    "12 dB louder, clipped": lambda s: (s * np.float32(10**0.6)).clip(-1, 1),
    "telephone": telephone,
}


def withstood(ear: Ear, sounds: list[Sound]) -> dict[str, float]:
    """Median correlation of the opening with that of the unchanged sound."""
    usual = [ear.openings(sound) for sound in sounds]
    return {
        name: float(
            np.median(
                [
                    np.corrcoef(ear.openings(change(sound)), before)[0, 1]
                    for sound, before in zip(sounds, usual, strict=True)
                ]
            )
        )
        for name, change in CHANGES.items()
    }


def at_rest(ear: Ear, speech: Sound, seconds: float = 6.0) -> dict[str, dict[str, float]]:
    """Mean and deviation of the opening where nobody speaks, alone and after speech."""
    random, length = np.random.default_rng(1), round(seconds * SAMPLE_RATE)
    nothing = {
        "digital silence": np.zeros(length, np.float32),
        "room, -60 dB": level(noise(length, random), 1e-3),
        "noise as loud as speech": level(noise(length, random), 0.05),
        "music": level(music(length, random), 0.05),
    }
    rows = {}
    for name, sound in nothing.items():
        alone = ear.openings(sound)
        after = ear.openings(np.concatenate([level(speech, 0.05), sound]))[-len(alone) + 15 :]
        rows[name] = {
            "mean": float(alone.mean()),
            "deviation": float(alone.std()),
            "mean_after_speech": float(after.mean()),
            "deviation_after_speech": float(after.std()),
        }
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--models", nargs="+", default=["layers", "temporal"])
    parser.add_argument("--frames", type=int, default=1000, help="timed frames of each model")
    parser.add_argument("--minutes", type=float, default=2.0, help="length of the long sound")
    parser.add_argument("--speech", type=Path, nargs="*", default=[SENTENCE])
    arguments = parser.parse_args()
    sounds = [load_audio(path, sample_rate=SAMPLE_RATE) for path in arguments.speech]
    with torch_threads(1):
        ears = {name: Ear(name) for name in arguments.models}
        first = ears[arguments.models[0]]
        told = {
            "machine": machine(),
            "step": timed(ears, sounds[0], arguments.frames),
            "long": flat(first, sounds[0], arguments.minutes),
            "correlation": withstood(first, sounds),
            "rest": at_rest(first, sounds[0]),
        }
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
