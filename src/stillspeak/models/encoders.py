"""Identity, context and noise encoders (paper, sections 2.1.1 to 2.1.3)."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stillspeak.models.config import GeneratorConfig
from stillspeak.models.layers import conv_down, waveform_layers
from stillspeak.models.pose import PosePredictor
from stillspeak.models.speech import SPECTRUM, STEP, SpeechEncoder, SpeechState


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
    """1-D convolutions over one audio window, down to one vector (paper, section 2.1.2)."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        widths = config.audio_channels
        self.layers = nn.Sequential(
            *waveform_layers(config.sample_rate, widths),
            nn.Conv1d(widths[-1], config.audio_dim, config.audio_steps[-1]),
            nn.Tanh(),
        )

    def forward(self, windows: Tensor) -> Tensor:
        """(B, T, N) float in [-1, 1] -> (B, T, audio_dim) in [-1, 1]."""
        clips = windows.shape[0]
        encoded: Tensor = self.layers(windows.flatten(0, 1).unsqueeze(1)).squeeze(-1)
        return torch.unflatten(encoded, 0, (clips, -1))


class ContextState(NamedTuple):
    """What the speech encoder and the pose predictor hand on to the next frame."""

    speech: SpeechState
    pose: Tensor


class SpeechContextEncoder(nn.Module):
    """Sound to the mouth's pose, its z_c. Of each window but a clip's first only what is new is
    heard; the rest lies in the state."""

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.hop = config.hop
        self.speech = SpeechEncoder(config.speech)
        self.pose = PosePredictor(config.pose, config.speech.width)

    def initial_state(self, clips: int = 1) -> ContextState:
        """The state before any sound."""
        return ContextState(self.speech.initial_state(clips), self.pose.initial_state(clips))

    def sound(self, windows: Tensor, *, first: bool) -> Tensor:
        """What is new in windows (B, T, N), with the overlap that the encoder wants: (B, S)."""
        begin = windows[:, 0] if first else windows[:, 0, -(self.hop + SPECTRUM - STEP) :]
        return torch.cat((begin, windows[:, 1:, -self.hop :].flatten(1)), 1)

    def forward(self, windows: Tensor, state: ContextState) -> tuple[Tensor, ContextState]:
        """(B, T, N) in [-1, 1] -> poses (B, T, 82) in distances between the eyes, new state."""
        poses, _, state = self.listen(windows, state)
        return poses, state

    def listen(self, windows: Tensor, state: ContextState) -> tuple[Tensor, Tensor, ContextState]:
        """As :meth:`forward`, with the speech encoder's features of the frames' tokens, two each,
        (B, 2 T, D), in between."""
        first = not state.speech.spectra.shape[2]
        features, speech = self.speech(self.sound(windows, first=first), state.speech)
        # The first window yields tokens before its frame as well.
        features = features[:, -2 * windows.shape[1] :]
        coefficients, pose = self.pose(features, state.pose)
        return self.pose.shapes(coefficients).flatten(2), features, ContextState(speech, pose)


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
        self._shape = (config.context_layers, config.context_dim)

    def initial_state(self, clips: int = 1) -> Tensor:
        """The state before any sound, (layers, B, context_dim): zeros."""
        layers, size = self._shape
        return next(self.parameters()).new_zeros(layers, clips, size)

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
        """(B, T, noise_dim), state (1, B, noise_dim) -> z_n in [-1, 1], new state."""
        if self.gru is None:
            return noise, state
        encoded, new_state = self.gru(noise, state)
        return encoded, new_state
