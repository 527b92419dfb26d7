"""Identity, context and noise encoders (paper, sections 2.1.1 to 2.1.3)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stillspeak.models.config import GeneratorConfig
from stillspeak.models.layers import conv_down, spectrum_layers, waveform_layers


class IdentityEncoding(NamedTuple):
    """What the still gives: the code z_id (B, identity_dim) in [-1, 1] and the post-ReLU maps."""

    code: Tensor
    maps: tuple[Tensor, ...]


class IdentityEncoder(nn.Module):
    """Six-layer CNN from the still to z_id (paper, section 2.1.1)."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = (3, *config.identity_channels)
        self.layers = nn.ModuleList(conv_down(a, b) for a, b in pairwise(widths))
        self.head = nn.Conv2d(widths[-1], config.identity_dim, config.coarse_size)

    def forward(self, still: Tensor) -> IdentityEncoding:
        """(B, 3, H, W) float in [-1, 1] -> code and maps, fine to coarse."""
        maps = []
        x = still
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return IdentityEncoding(torch.tanh(self.head(x)).flatten(1), tuple(maps))


class AudioFrameEncoder(nn.Module):
    """1-D convolutions over one audio window, down to one vector (paper, section 2.1.2).

    They read the waveform, as in the paper, or its log-mel spectra.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = config.audio_channels
        if config.audio_input == "mel":
            first = spectrum_layers(config.sample_rate, config.mel_bands, widths)
        else:
            first = waveform_layers(config.sample_rate, widths)
        self.layers = nn.Sequential(
            *first,
            nn.Conv1d(widths[-1], config.audio_dim, config.audio_steps[-1]),
            nn.Tanh(),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """(B, T, N) float in [-1, 1] -> (B, T, audio_dim) in [-1, 1]."""
        clips = windows.shape[0]
        encoded: Tensor = self.layers(windows.flatten(0, 1).unsqueeze(1)).squeeze(-1)
        return torch.unflatten(encoded, 0, (clips, -1))


class ContextEncoder(nn.Module):
    """Audio-frame encodings through a GRU: z_c (paper, section 2.1.2).

    Without GRU layers it is the static baseline's (section 3.3): an encoding a window, and a
    state of no layers that nothing depends on.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.frame_encoder = AudioFrameEncoder(config)
        self.gru: nn.GRU | None = None
        if config.context_layers:
            self.gru = nn.GRU(
                config.audio_dim, config.context_dim, config.context_layers, batch_first=True
            )
        self.dropout = nn.Dropout(config.audio_dropout)

    def forward(self, windows: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, N), state (layers, B, context_dim) -> z_c (B, T, context_dim), new state."""
        encoded = self.dropout(self.frame_encoder(windows))
        if self.gru is None:
            return encoded, state
        encoded, new_state = self.gru(encoded, state)
        return encoded, new_state


class NoiseGenerator(nn.Module):
    """Gaussian noise through a one-layer GRU: z_n (paper, section 2.1.3).

    With ``noise_dim = 0`` it has no weights and gives an encoding of no elements.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.gru: nn.GRU | None = None
        if config.noise_dim:
            self.gru = nn.GRU(config.noise_dim, config.noise_dim, 1, batch_first=True)

    def forward(self, noise: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, noise_dim), state (1, B, noise_dim) -> z_n in [-1, 1], new state.

        A GRU's output is a convex mix of tanh values and its zero start, so it is bounded
        by 1 without a further squashing.
        """
        if self.gru is None:
            return noise, state
        encoded, new_state = self.gru(noise, state)
        return encoded, new_state
