"""The discriminators: frame and sequence (paper, section 2.2), and beyond the paper, sync.

Logits are positive for what is taken for real. Kernels, widths and normalisation were never
published; ours are strided 4 x 4 convolutions with LeakyReLU(0.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from stillspeak.errors import ConfigError
from stillspeak.models.config import (
    FrameDiscriminatorConfig,
    GeneratorConfig,
    Norm,
    Region,
    SequenceDiscriminatorConfig,
    SyncDiscriminatorConfig,
    sync_frames,
)
from stillspeak.models.layers import waveform_layers
from stillspeak.models.regions import crop_region, region_box

_Config = FrameDiscriminatorConfig | SequenceDiscriminatorConfig | SyncDiscriminatorConfig

SLOPE = 0.2
"""Of the LeakyReLU: a discriminator that is right about everything still has a gradient."""


class FrameDiscriminator(nn.Module):
    """Six-layer CNN: is a frame of this person real? (paper, section 2.2.1)

    The still is the condition, concatenated channel-wise to the frame.
    """

    def __init__(self, config: FrameDiscriminatorConfig, generator: GeneratorConfig) -> None:
        super().__init__()
        self.region: Region = config.region
        self.layers, size = _strided_layers("frame", 6, config, generator)
        self.head = _normed(nn.Conv2d(config.channels[-1], 1, size), config.norm)[0]

    def forward(self, still: Tensor, frame: Tensor) -> Tensor:
        """Still and frame, each (B, 3, H, W) in [-1, 1] -> logits (B,)."""
        return self.judge(still, frame)[0]

    def judge(self, still: Tensor, frame: Tensor) -> tuple[Tensor, list[Tensor]]:
        """As :meth:`forward`, and the maps (B, C, h, w) after each activation, fine to coarse."""
        x = crop_region(torch.cat((still, frame), dim=1), self.region)
        maps = []
        for layer in self.layers:
            x = layer(x)
            if isinstance(layer, nn.LeakyReLU):
                maps.append(x)
        return self.head(x).flatten(), maps


class SequenceDiscriminator(nn.Module):
    """Is a clip real, and does it go with its sound? (paper, section 2.2.2)

    A CNN encodes each frame and an audio encoder each frame's window; the pair of encodings
    runs through a two-layer GRU, and a two-layer classifier judges its last output.
    """

    def __init__(self, config: SequenceDiscriminatorConfig, generator: GeneratorConfig) -> None:
        super().__init__()
        self.region = config.region
        self.layers, size = _strided_layers("sequence", 3, config, generator)
        self.image_head, self.audio = _heads(config, generator, size, generator.window)
        self.gru = nn.GRU(
            config.image_dim + config.audio_dim, config.state_dim, 2, batch_first=True
        )
        self.classifier = nn.Sequential(
            nn.Linear(config.state_dim, config.state_dim),
            nn.LeakyReLU(SLOPE),
            nn.Linear(config.state_dim, 1),
        )

    def forward(self, frames: Tensor, windows: Tensor, lengths: Tensor | None = None) -> Tensor:
        """Judge clips of one or several lengths.

        Args:
            frames: (B, T, 3, H, W) in [-1, 1].
            windows: (B, T, N) in [-1, 1], each frame's audio window.
            lengths: (B,) int64 in 1..T, how many frames of each clip count; the rest is
                padding that nothing depends on, but for the audio encoder's batch statistics
                in training. None: all.

        Returns:
            Logits (B,).
        """
        clips = frames.shape[0]
        seen = crop_region(frames, self.region).flatten(0, 1)
        image = torch.unflatten(self.image_head(self.layers(seen)).flatten(1), 0, (clips, -1))
        heard = torch.unflatten(self.audio(windows.flatten(0, 1)), 0, (clips, -1))
        states, _ = self.gru(torch.cat((image, heard.to(image)), dim=-1))
        # The GRU runs forwards only, so the state at the last frame has seen no padding.
        if lengths is None:
            last = states[:, -1]
        else:
            last = states[torch.arange(clips, device=states.device), lengths - 1]
        logits: Tensor = self.classifier(last)
        return logits.squeeze(-1)


class SyncDiscriminator(nn.Module):
    """Do 0.2 s of the lower face belong to 0.2 s of sound?

    Not in the paper. The frames are stacked channel-wise, so that their differences are the
    first thing it sees.
    """

    def __init__(self, config: SyncDiscriminatorConfig, generator: GeneratorConfig) -> None:
        super().__init__()
        self.region = config.region
        self.frames = sync_frames(generator)
        self.layers, size = _strided_layers("sync", 3 * self.frames, config, generator)
        samples = self.frames * generator.hop
        self.image_head, self.audio = _heads(config, generator, size, samples)
        self.classifier = nn.Sequential(
            nn.LeakyReLU(SLOPE),
            nn.Linear(config.image_dim + config.audio_dim, config.image_dim),
            nn.LeakyReLU(SLOPE),
            nn.Linear(config.image_dim, 1),
        )

    def forward(self, frames: Tensor, sound: Tensor) -> Tensor:
        """Frames (B, F, 3, H, W) and waveform (B, F * hop), both in [-1, 1] -> logits (B,)."""
        seen = crop_region(frames, self.region).flatten(1, 2)
        image = self.image_head(self.layers(seen)).flatten(1)
        logits: Tensor = self.classifier(torch.cat((image, self.audio(sound).to(image)), dim=-1))
        return logits.squeeze(-1)


class _WaveformEncoder(nn.Module):
    """As the generator's audio-frame encoder, but linear at the end. (B, S) -> (B, dim)."""

    def __init__(self, widths: Sequence[int], dim: int, sample_rate: int, samples: int) -> None:
        super().__init__()
        steps = samples * 1000 // sample_rate >> len(widths) - 1
        self.layers = nn.Sequential(
            *waveform_layers(sample_rate, widths), nn.Conv1d(widths[-1], dim, steps)
        )

    def forward(self, sound: Tensor) -> Tensor:
        encoded: Tensor = self.layers(sound.unsqueeze(1))
        return encoded.flatten(1)


def _heads(
    config: SequenceDiscriminatorConfig | SyncDiscriminatorConfig,
    generator: GeneratorConfig,
    size: tuple[int, int],
    samples: int,
) -> tuple[nn.Module, _WaveformEncoder]:
    """What ends the picture's encoder, and the encoder of so many samples of sound."""
    image = nn.Conv2d(config.channels[-1], config.image_dim, size)
    return _normed(image, config.norm)[0], _WaveformEncoder(
        config.audio_channels, config.audio_dim, generator.sample_rate, samples
    )


def _strided_layers(
    name: str, in_channels: int, config: _Config, generator: GeneratorConfig
) -> tuple[nn.Sequential, tuple[int, int]]:
    """Convolutions that halve a picture of the region's size, and the size that they leave."""
    top, bottom, left, right = region_box(config.region, generator.height, generator.width)
    height, width = bottom - top, right - left
    count = len(config.channels)
    size = (height >> count, width >> count)
    if not min(size):
        raise ConfigError(
            f"{name}_discriminator.channels: {count} layers leave nothing of the {height}x{width} "
            f"pixels of the region {config.region!r}; name fewer"
        )
    layers: list[nn.Module] = []
    for index, (a, b) in enumerate(pairwise((in_channels, *config.channels))):
        # The first layer's statistics are the picture's colours: not to be taken away.
        norm = config.norm if index or config.norm == "spectral" else "none"
        layers += _normed(nn.Conv2d(a, b, 4, 2, 1), norm)
        layers.append(nn.LeakyReLU(SLOPE))
    return nn.Sequential(*layers), size


def _normed(conv: nn.Conv2d, norm: Norm) -> list[nn.Module]:
    if norm == "spectral":
        return [nn.utils.parametrizations.spectral_norm(conv)]
    if norm == "batch" and conv.stride != (1, 1):
        return [conv, nn.BatchNorm2d(conv.out_channels)]
    return [conv]
