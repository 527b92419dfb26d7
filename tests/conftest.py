"""Small networks and synthetic prepared clips that all tests share."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stillspeak.data.cache import MANIFEST, CachedClip, load_manifest, write_tensors
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from support.faces import HEIGHT, WIDTH, face_pictures, face_points
from support.kill import Killer, killer

HOP = 640


@pytest.fixture(scope="session", autouse=True)
def _configuration_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Certificates are made in a folder of the tests, never in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STILLSPEAK_CONFIG", str(tmp_path_factory.mktemp("config")))
        for name in ("CERTIFICATE", "KEY", "KEY_PASSWORD", "TIMESTAMP_URL"):
            patch.delenv(f"STILLSPEAK_{name}", raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """The networks here are so small that a second thread only gets in the way."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def kill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    """Runs commands that are killed, or several at once."""
    with killer(tmp_path_factory.mktemp("kill")) as one:
        yield one


@pytest.fixture(scope="session")
def tiny() -> Callable[..., GeneratorConfig]:
    """Makes a configuration of a generator that runs in milliseconds."""

    def make(decoder: str = "unet", **changes: Any) -> GeneratorConfig:
        values: dict[str, Any] = {
            "decoder": decoder,
            "identity_channels": (4, 5, 6, 7, 8),
            "audio_channels": (4, 4, 5, 6, 7, 8),
            "audio_dim": 11,
            "context_dim": 12,
            "identity_dim": 6,
            "noise_dim": 3,
        }
        return GeneratorConfig(**(values | changes))

    return make


@pytest.fixture(scope="session")
def lively() -> Callable[[GeneratorConfig], Generator]:
    """Makes a generator whose every part makes a difference to the frames, in eval mode.

    A fresh network's batch norms know nothing of their inputs, and the signal dies on its way.
    """

    def make(config: GeneratorConfig) -> Generator:
        random = torch.Generator().manual_seed(1)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            generator = Generator(config)
            with torch.no_grad():
                for parameter in generator.parameters():
                    if parameter.dim() == 1:
                        parameter.add_(0.1 * torch.randn_like(parameter))
                for _ in range(30):
                    generator(
                        torch.randn(2, 3, config.height, config.width, generator=random),
                        0.2 * torch.randn(2, 3, config.window, generator=random),
                        generator.draw_noise(2, 3, random),
                    )
        return generator.eval()

    return make


@pytest.fixture(scope="session")
def inputs() -> Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Makes a still (B, 3, H, W), windows (B, T, N) and noise (B, T, noise_dim)."""

    def make(
        config: GeneratorConfig, clips: int, frames: int, seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        random = torch.Generator().manual_seed(seed)
        coarse = torch.rand(clips, 3, 8, 6, generator=random) * 2 - 1  # smooth, as faces are
        return (
            F.interpolate(coarse, (config.height, config.width), mode="bilinear"),
            0.3 * torch.randn(clips, frames, config.window, generator=random),
            torch.randn(clips, frames, config.noise_dim, generator=random),
        )

    return make


@pytest.fixture(scope="session")
def write_clip() -> Callable[..., CachedClip]:
    """Writes one prepared clip. All but its place can be left to defaults."""

    def write(
        folder: Path,
        speaker: str = "a",
        name: str = "one",
        *,
        frames: int = 24,
        split: str = "train",
        audio: np.ndarray | None = None,
        pictures: np.ndarray | None = None,
        opening: np.ndarray | None = None,
        landmarks: np.ndarray | None = None,
        mouths: np.ndarray | None = None,
        head: np.ndarray | None = None,
        shapes: dict[str, np.ndarray] | None = None,
    ) -> CachedClip:
        if audio is None:
            audio = np.zeros(frames * HOP, np.float32)
        if opening is None:
            opening = np.full(frames, 4.0)
        if landmarks is None:
            landmarks = face_points(opening)
        if pictures is None:
            pictures = np.full((frames, HEIGHT, WIDTH, 3), 128, np.uint8)
        file = folder / speaker / f"{name}.safetensors"
        tensors = {
            "frames": pictures,
            "audio": audio.astype(np.float32),
            "landmarks": landmarks.astype(np.float32),
            "blendshapes": np.zeros((frames, 52), np.float16),
            "head_pose": (np.zeros((frames, 3)) if head is None else head).astype(np.float32),
        }
        about = {"key": json.dumps("k"), "speaker": json.dumps(speaker)}
        if shapes is not None:
            tensors["blendshapes"] = np.stack(list(shapes.values()), 1).astype(np.float16)
            about["blendshapes"] = json.dumps(list(shapes))
        if mouths is not None:
            tensors["mouth"] = mouths
        write_tensors(file, tensors, about)
        row = {
            "file": f"{speaker}/{name}.safetensors",
            "speaker": speaker,
            "stem": name,
            "name": name,
            "split": split,
            "frames": frames,
            "key": "k",
            "text": None,
        }
        with (folder / MANIFEST).open("a", encoding="utf-8") as manifest:
            manifest.write(json.dumps(row) + "\n")
        (clip,) = [c for c in load_manifest(folder) if c.file == file]
        return clip

    return write


@pytest.fixture(scope="session")
def speaking_cache(
    tmp_path_factory: pytest.TempPathFactory, write_clip: Callable[..., CachedClip]
) -> Path:
    """A cache of small clips that speak: the louder the tone, the wider the mouth.

    Training speakers a (2 clips) and b, validation speaker v.
    """
    folder = tmp_path_factory.mktemp("cache")
    for seed, (speaker, name, split) in enumerate(
        [
            ("a", "one", "train"),
            ("a", "two", "train"),
            ("b", "one", "train"),
            ("v", "one", "validation"),
        ]
    ):
        frames = 20 + 2 * seed
        loudness = 0.5 + 0.5 * np.sin(0.7 * np.arange(frames) + seed)
        time = np.arange(frames * HOP) / 16_000
        envelope = np.interp(np.arange(frames * HOP) / HOP - 0.5, np.arange(frames), loudness)
        opening = 2 + 8 * loudness
        write_clip(
            folder,
            speaker,
            name,
            frames=frames,
            split=split,
            audio=0.5 * envelope * np.sin(2 * np.pi * 300 * time),
            pictures=face_pictures(opening, ord(speaker)),
            opening=opening,
        )
    return folder
