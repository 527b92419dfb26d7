"""Small inputs for the tests of the main path: a face, some sound, generators of few channels.

Plain functions, so that test files import what they use; what costs time is made once.
"""

import wave
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillspeak.face.align import crop_face, face_transform
from stillspeak.face.landmarks import Face, MediaPipeDetector
from stillspeak.media.audio import frame_windows
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.encoders import SpeechContextEncoder
from stillspeak.models.generator import Generator
from stillspeak.models.pixels import to_model
from stillspeak.models.pose import PoseConfig
from stillspeak.models.speech import SpeechEncoderConfig
from stillspeak.weights import save_model

RATE = 16_000


@cache
def portrait() -> np.ndarray:
    """(256, 256, 3) uint8: the head of Eileen Collins, NASA, public domain."""
    from skimage.data import astronaut

    picture = np.ascontiguousarray(astronaut()[:256, 96:352])
    picture.flags.writeable = False
    return picture


def masked_portrait() -> np.ndarray:
    """(256, 256, 3) uint8: the same head behind a surgical mask."""
    import cv2

    ring = (197, 454, 323, 361, 288, 397, 365, 152, 136, 172, 58, 132, 93, 234)
    picture = portrait().copy()
    place = portrait_face().points[list(ring)].astype(np.int32)
    cv2.fillPoly(picture, [place], (150, 190, 215), cv2.LINE_AA)
    return picture


class SharedDetector:
    """The one detector of the session; closing it only counts."""

    def __init__(self) -> None:
        self._detector = MediaPipeDetector()
        self.closed = 0

    @property
    def version(self) -> str:
        return self._detector.version

    def detect(self, image: np.ndarray) -> list[Face]:
        return self._detector.detect(image)

    def close(self) -> None:
        self.closed += 1


@cache
def shared_detector() -> SharedDetector:
    return SharedDetector()


@cache
def portrait_face() -> Face:
    (face,) = shared_detector().detect(portrait())
    return face


def use_shared_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every Animator look with the session's detector instead of loading its own."""
    from importlib import import_module

    monkeypatch.setattr(
        import_module("stillspeak.animate"), "MediaPipeDetector", lambda **_: shared_detector()
    )


def speech(seconds: float, seed: int = 0) -> np.ndarray:
    """(S,) float32 at 16 kHz: syllables of a gliding tone with some breath."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    syllables = 0.5 + 0.5 * np.sin(2 * np.pi * (4 + seed) * time)
    tone = np.sin(2 * np.pi * (140 + 30 * seed + 60 * time) * time)
    return (0.4 * syllables * (tone + 0.1 * random.standard_normal(time.size))).astype(np.float32)


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """A 16-bit WAV file of (S,) floats in [-1, 1]."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(np.asarray(samples) * 32767).astype("<i2").tobytes())
    return path


def write_picture(path: Path, picture: np.ndarray) -> Path:
    import PIL.Image

    PIL.Image.fromarray(picture).save(path)
    return path


def config(decoder: str = "unet", **changes: Any) -> GeneratorConfig:
    values: dict[str, Any] = {
        "decoder": decoder,
        "identity_channels": (4, 4, 4, 4, 4),
        "audio_channels": (4, 4, 4, 4, 4, 4),
        "audio_dim": 8,
        "context_dim": 8,
        "identity_dim": 4,
        "noise_dim": 3,
    }
    if decoder == "layers":
        values |= {
            "audio_input": "speech",
            "noise_dim": 0,
            "speech": SpeechEncoderConfig(width=16, heads=2, behind=10, ahead=(1, 1)),
            "pose": PoseConfig(hidden=8, basis=3, dropout=0.0),
        }
    return GeneratorConfig(**(values | changes))


@cache
def lively(decoder: str = "unet") -> Generator:
    """A generator whose frames depend visibly on the sound, the noise and the still."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        generator = Generator(config(decoder))
        if isinstance(generator.context_encoder, SpeechContextEncoder):
            return listening(generator, generator.context_encoder)
        with torch.no_grad():
            for parameter in generator.parameters():
                if parameter.dim() == 1:
                    parameter.add_(0.1 * torch.randn_like(parameter))
            # The batch norms see this very face: what varies then is sound and noise alone, and
            # they bring that to full size.
            transform = face_transform(portrait_face().points)
            still = to_model(crop_face(portrait(), transform, 128, 96)[None])
            windows = frame_windows(speech(1), generator.config.window, generator.config.hop)
            for layer in generator.modules():
                if isinstance(layer, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
                    layer.momentum = None  # the mean of all, without the start's 0 and 1
                    layer.reset_running_stats()
            random = torch.Generator().manual_seed(1)
            for _ in range(3):
                noise = generator.draw_noise(1, len(windows), random)
                generator(still, torch.tensor(windows)[None], noise)
    return generator.eval().requires_grad_(False)


@torch.no_grad()
def listening(generator: Generator, encoder: SpeechContextEncoder) -> Generator:
    """With poses that open the mouth, widen it and make it crooked, as the sound goes on."""
    windows = frame_windows(speech(1), generator.config.window, generator.config.hop)
    sound = encoder.sound(torch.tensor(windows)[None], first=True)
    for layer in encoder.speech.layers:
        layer.distance.normal_(0, 0.5)
    features, _ = encoder.speech(sound, encoder.speech.initial_state())
    pose, places = encoder.pose, torch.arange(20)
    pose.mean.copy_(features.mean((0, 1)))
    pose.deviation.copy_(features.std((0, 1)))
    below = torch.sin(torch.pi * places / 10).clamp_min(0)
    across = -torch.cos(torch.pi * places / 10)
    open_wide_crooked = torch.zeros(3, 41, 2)
    open_wide_crooked[0, :, 1] = 0.08 * torch.cat((below, below, torch.ones(1)))
    open_wide_crooked[1, :40, 0] = 0.03 * across.repeat(2)
    open_wide_crooked[2].normal_(0, 0.002)
    pose.basis.copy_(open_wide_crooked.flatten(1))
    pose.leave.weight.normal_(0, 0.5)
    pose.leave.bias.copy_(torch.tensor([0.8, 0.0, 0.0]))
    return generator.eval().requires_grad_(False)


def save_lively(path: Path, decoder: str = "unet") -> Path:
    save_model(lively(decoder), path, {"made": "for tests"})
    return path


def listing(*folders: Path) -> Sequence[tuple[str, int, int]]:
    """Everything below folders with its size and time, hidden files included."""
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            status = path.lstat()
            found.append((str(path), status.st_size, status.st_mtime_ns))
    return found
