"""SyncNet: do 0.2 s of a mouth belong to 0.2 s of sound? (after Chung and Zisserman 2016)

Two streams, for pictures and for sound, give vectors that are near where both belong together. It
measures a clip's AV offset and is not the sync discriminator.

B clips, F frames, T windows of five frames (T = F - 4), S samples, H x W pixels, D features.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.models.config import Width
from stillspeak.models.layers import normed, region_grid
from stillspeak.system.configuration import configuration

SYNC_FORMAT = "stillspeak-sync-1"
"""Of weights files of sync networks."""

WINDOW_FRAMES = 5
"""Frames in a window: 0.2 s."""

MAX_SHIFT = 10
"""Shifts of -10..10 frames between sound and picture are compared."""

FRAME_SAMPLES = SAMPLE_RATE // VIDEO_FPS

GREY = (0.299, 0.587, 0.114)
"""Red, green and blue in a grey picture."""

SYNC_HEIGHT, SYNC_WIDTH = 32, 40
"""Pixels of the mouth that the network sees."""

SYNC_CENTRE = (50.0, 93.0)
"""Middle (x, y) of that region in pixels of the 128 x 96 aligned crop: lips and chin."""

SYNC_EXTENT = (60.0, 48.0)
"""Width and height of the region in pixels of the crop."""

_HOP = FRAME_SAMPLES // 4
_SPECTRUM = 2 * _HOP  # 20 ms; 19 of them, 10 ms apart, are exactly the five frames' 0.2 s
_FFT = 512


@configuration("sync")
class SyncNetConfig:
    """Sizes of :class:`SyncNet`."""

    bands: Annotated[int, Field(strict=True, ge=8, le=80)] = 40
    """Mel bands of the sound, from 60 Hz to 7600 Hz."""
    picture_channels: tuple[Width, Width, Width, Width] = (24, 48, 96, 128)
    sound_channels: tuple[Width, Width] = (96, 128)
    dim: Width = 128
    """Features D of a window."""


class SyncNet(nn.Module):
    """Features of five-frame windows of pictures, and of sound, on the unit sphere.

    Both streams run over whole clips: the windows are one frame apart and share what they can.
    """

    def __init__(self, config: SyncNetConfig) -> None:
        super().__init__()
        self.config = config
        one, *_, last = config.picture_channels
        layers = normed(nn.Conv2d(WINDOW_FRAMES, one, 5, 2, 2, bias=False))
        for a, b in pairwise(config.picture_channels):
            layers += normed(nn.Conv2d(a, b, 3, 2, 1, bias=False))
        layers += [
            nn.Flatten(),
            nn.Linear(last * (SYNC_HEIGHT // 16) * -(-SYNC_WIDTH // 16), config.dim),
        ]
        self.picture = nn.Sequential(*layers)
        near, far = config.sound_channels
        # 19 spectra are one window, the next begins four later: 3 + 2 * 2 + 4 * 3 = 19.
        self.sound = nn.Sequential(
            *normed(nn.Conv1d(config.bands, near, 3, 2, bias=False)),
            *normed(nn.Conv1d(near, far, 3, 2, bias=False)),
            *normed(nn.Conv1d(far, far, 4, bias=False)),
            nn.Conv1d(far, config.dim, 1),
        )
        self.register_buffer("window", torch.hann_window(_SPECTRUM), persistent=False)
        self.register_buffer("filters", mel_filters(config.bands), persistent=False)

    def see(self, mouths: Tensor) -> Tensor:
        """Mouths (B, F, 32, 40) float32 as :func:`moving_parts` gives them, F >= 5 -> features
        (B, F - 4, D) of length 1; window t begins at frame t."""
        windows = mouths.unfold(1, WINDOW_FRAMES, 1).permute(0, 1, 4, 2, 3)
        features: Tensor = self.picture(windows.flatten(0, 1)).float()
        return F.normalize(torch.unflatten(features, 0, windows.shape[:2]), dim=-1)

    def hear(self, audio: Tensor) -> Tensor:
        """Audio (B, S) float32 in [-1, 1], S >= 3200 a multiple of 640 -> features
        (B, S / 640 - 4, D) of length 1; window t begins at sample 640 t."""
        features: Tensor = self.sound(self.spectra(audio)).float()
        return F.normalize(features.transpose(1, 2), dim=-1)

    def spectra(self, audio: Tensor) -> Tensor:
        """Log mel spectra with mean 0 in each band: (B, S) -> (B, bands, S / 160 - 1).

        Loudness does not matter: the floor lies 40 dB below the clip's mean power.
        """
        assert isinstance(self.window, Tensor) and isinstance(self.filters, Tensor)
        pieces = audio.float().unfold(-1, _SPECTRUM, _HOP) * self.window
        power = torch.fft.rfft(pieces, _FFT).abs().square()  # (B, T', 257)
        with torch.autocast(audio.device.type, enabled=False):  # 8 bits do not hold the floor
            mel = power @ self.filters
        floor = 1e-4 * mel.mean(dim=(1, 2), keepdim=True) + 1e-8
        log: Tensor = (mel + floor).log()
        return 0.4 * (log - log.mean(dim=1, keepdim=True)).transpose(1, 2)


def shift_distances(seen: Tensor, heard: Tensor) -> Tensor:
    """How well pictures (B, T, D) fit sound (B, U, D), features of length 1, that comes later.

    Returns:
        (B, 21): at index ``10 + k`` the mean over all t of the Euclidean distance between
        ``seen[t]`` and ``heard[t + k]``, in [0, 2].
    """
    distances = pair_distances(seen, heard)
    shifts = range(-MAX_SHIFT, MAX_SHIFT + 1)
    return torch.stack([distances.diagonal(k, 1, 2).mean(-1) for k in shifts], dim=-1)


def pair_distances(seen: Tensor, heard: Tensor) -> Tensor:
    """Euclidean distances of all pairs of features of length 1: (B, T, D), (B, U, D) ->
    (B, T, U)."""
    squares: Tensor = 2 - 2 * seen @ heard.transpose(1, 2)
    return squares.clamp_min(1e-6).sqrt()


def moving_parts(grey: Tensor) -> Tensor:
    """Grey mouths (B, F, H, W), each clip minus its mean picture, over its contrast: what stays
    tells nothing of sound, and light does not matter."""
    contrast = grey.std(dim=(1, 2, 3), keepdim=True, correction=0)
    return 2 * (grey - grey.mean(dim=1, keepdim=True)) / (contrast + 0.01)


def sync_grid() -> Tensor:
    """Where in the 128 x 96 crop the region's pixels lie, x and y: (32, 40, 2)."""
    return region_grid(SYNC_CENTRE, SYNC_EXTENT, SYNC_HEIGHT, SYNC_WIDTH)


def mel_filters(bands: int, low: float = 60.0, high: float = 7600.0) -> Tensor:
    """Triangles, equally wide on the mel scale, each with sum 1: (257, bands) float32."""

    def mel(hertz: float) -> float:
        return 2595 * math.log10(1 + hertz / 700)

    corners = torch.linspace(mel(low), mel(high), bands + 2, dtype=torch.float64)
    corners = 700 * (10 ** (corners / 2595) - 1)
    hertz = torch.linspace(0, SAMPLE_RATE / 2, _FFT // 2 + 1, dtype=torch.float64)[:, None]
    rise = (hertz - corners[:-2]) / (corners[1:-1] - corners[:-2])
    fall = (corners[2:] - hertz) / (corners[2:] - corners[1:-1])
    filters = torch.minimum(rise, fall).clamp_min(0)
    return (filters / filters.sum(0).clamp_min(1e-9)).float()


def golden_sync(network: SyncNet) -> Tensor:
    """What the network gives for a fixed synthetic clip of six frames: (4 * D,)."""
    frames = torch.arange(6).view(1, 6, 1, 1)
    ys = torch.linspace(-1, 1, SYNC_HEIGHT).view(1, 1, -1, 1)
    xs = torch.linspace(-1, 1, SYNC_WIDTH).view(1, 1, 1, -1)
    grey = 0.5 + 0.3 * torch.sin(3 * xs + 4 * ys * (1 + frames / 6))
    time = torch.arange(6 * FRAME_SAMPLES) / SAMPLE_RATE
    wave = 0.3 * torch.sin(2 * math.pi * (140 * time + 2000 * time**2))[None]
    return torch.cat((network.see(moving_parts(grey)).flatten(), network.hear(wave).flatten()))
