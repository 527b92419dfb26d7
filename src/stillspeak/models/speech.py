"""A pretrained speech encoder: the stem and first layers of Whisper, made to stream.

Whisper's encoder (Radford et al. 2022) reads 30 s at once. Here each layer's attention is bounded
on both sides, positions are relative, and the level is a running peak: sound may go on without end.
What that costs is won back by self-distillation.

One token is 20 ms. Token j stands for the time 20 j ms and needs the sound until 32.5 ms later.
"""

from __future__ import annotations

import math
from functools import cached_property
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stillspeak.errors import ConfigError
from stillspeak.system.configuration import configuration

SPEECH_RATE = 16_000
"""Samples a second that the encoder hears."""

STEP = 160
"""Samples from one spectrum to the next: 10 ms."""

SPECTRUM = 400
"""Samples in one spectrum: 25 ms."""

TOKEN = 2 * STEP
"""Samples a token."""

REACH = 2 * STEP + SPECTRUM // 2
"""Samples that a token needs on either side of its time: two convolutions of three spectra, the
second with a stride of two, and half a spectrum."""

BANDS = 80
"""Mel bands, those of Whisper."""

LEVEL_FRAMES = 8
"""Spectra over which the level is averaged: a click is not loud speech."""

FLOOR = 1e-13
"""Power of a band below which all is silence."""

QUIETEST = -7.5
"""Level below which nothing counts as speech, log10 of the mean power of the bands: 30 dB below
speech that is 40 dB softer than usual."""

USUAL = -0.9
"""Level that is made of any other one, log10: what speech of RMS 0.05 has at its loudest."""

OVERLAP = 3
"""Spectra before the new ones that the first new token needs: two convolutions of three."""

RANGE = 6.0
"""What is heard below the level, in powers of ten."""

FALL = 0.002
"""Powers of ten by which the running level falls a spectrum: 2 dB a second."""


@configuration("speech")
class SpeechEncoderConfig:
    """Sizes of a :class:`SpeechEncoder`; the defaults are those of Whisper-base's first layers."""

    width: Annotated[int, Field(strict=True, ge=1, le=4096)] = 512
    heads: Annotated[int, Field(strict=True, ge=1, le=4096)] = 8
    behind: Annotated[int, Field(strict=True, ge=1, le=1500)] = 75
    """Tokens back that a layer attends to: 1.5 s."""
    ahead: Annotated[
        tuple[Annotated[int, Field(strict=True, ge=0, le=100)], ...],
        Field(min_length=1, max_length=16),
    ] = (3, 2, 2)
    """Tokens ahead that each layer attends to. They add up."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError("speech.width must be a multiple of speech.heads")

    @cached_property
    def delay(self) -> int:
        """Tokens by which the last layer's output lags behind the stem's."""
        return sum(self.ahead)


class LayerState(NamedTuple):
    """What one layer keeps: keys and values (B, heads, n, d) of the tokens that are still looked
    back at, and inputs (B, m, width) of those whose future has not come yet."""

    keys: Tensor
    values: Tensor
    waiting: Tensor


class SpeechState(NamedTuple):
    """Everything that one call hands on to the next.

    spectra: (B, BANDS, OVERLAP) the last normalised spectra; none before the first.
    energy: (B, LEVEL_FRAMES - 1) mean power of the last spectra; none before the first.
    level: (B,) log10 of the running level.
    layers: one a layer.
    """

    spectra: Tensor
    energy: Tensor
    level: Tensor
    layers: tuple[LayerState, ...]


class SpeechEncoder(nn.Module):
    """Features of speech, 50 a second, from the waveform."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.spectra = LogMel()
        self.conv1: nn.Module = nn.Conv1d(BANDS, width, 3)
        self.conv2: nn.Module = nn.Conv1d(width, width, 3, 2)
        self.place = nn.Parameter(torch.zeros(width))
        """In place of positions, the same for all."""
        self.layers = nn.ModuleList(
            AttentionLayer(width, config.heads, config.behind, ahead) for ahead in config.ahead
        )

    def initial_state(self, clips: int = 1) -> SpeechState:
        """The state before any sound: nothing was heard, the level is the quietest there is."""
        like, config = self.place, self.config
        none = like.new_zeros(clips, config.heads, 0, config.width // config.heads)
        layer = LayerState(none, none, like.new_zeros(clips, 0, config.width))
        return SpeechState(
            like.new_zeros(clips, BANDS, 0),
            like.new_zeros(clips, 0),
            like.new_full((clips,), QUIETEST),
            (layer,) * len(config.ahead),
        )

    def forward(self, sound: Tensor, state: SpeechState) -> tuple[Tensor, SpeechState]:
        """The features that the sound so far allows for.

        Args:
            sound: (B, S) float32 in [-1, 1] at 16 kHz. In the first call S = 320 n + 720, the
                first token standing for sample :data:`REACH`; in each later one 320 n + 240, the
                last 240 of the samples before and those that are new.
            state: of the call before.

        Returns:
            (B, m, width) and the new state. The first call gives :attr:`SpeechEncoderConfig.delay`
            tokens less than n, each later one n.
        """
        mel, energy, level = self.spectra(sound, state.energy, state.level)
        mel = torch.cat((state.spectra, mel), 2)
        x, layers = self.encode(mel, state.layers)
        return x, SpeechState(mel[:, :, -OVERLAP:], energy, level, layers)

    def encode(
        self, mel: Tensor, layers: tuple[LayerState, ...]
    ) -> tuple[Tensor, tuple[LayerState, ...]]:
        """Normalised spectra (B, BANDS, 2 n + 3) to features (B, n, width), with their state."""
        x = F.gelu(self.conv1(mel))
        x = F.gelu(self.conv2(x)).transpose(1, 2) + self.place
        after = []
        for layer, state in zip(self.layers, layers, strict=True):
            x, new = layer(x, state)
            after.append(new)
        return x, tuple(after)


class LogMel(nn.Module):
    """Whisper's log-mel spectra, relative not to the clip's loudest band but to a level that a
    stream can know: the mean power of :data:`LEVEL_FRAMES` spectra, which falls slowly."""

    window: Tensor
    filters: Tensor

    def __init__(self) -> None:
        super().__init__()
        # On the meta device, where a network is built first, these would load torch's compiler.
        with torch.device("cpu"):
            self.register_buffer("window", torch.hann_window(SPECTRUM), persistent=False)
            self.register_buffer("filters", mel_filters(), persistent=False)

    def power(self, sound: Tensor) -> Tensor:
        """(B, S) -> (B, BANDS, T): power of the bands of spectra that lie wholly in the sound."""
        # Powers span many decades: bfloat16 would be too coarse.
        with torch.autocast(sound.device.type, enabled=False):
            pieces = sound.float().unfold(-1, SPECTRUM, STEP) * self.window
            power = torch.view_as_real(torch.fft.rfft(pieces)).square().sum(-1)
            return self.filters @ power.transpose(1, 2)

    def forward(
        self, sound: Tensor, energy: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, S) and the state -> spectra (B, BANDS, T), about -1 to 1.5, and the new state."""
        power = self.power(sound)
        heard = torch.cat((energy, power.mean(1)), 1)
        smooth = _smooth(heard)[:, energy.shape[1] :]
        levels, last = follow(smooth.clamp_min(10.0**QUIETEST).log10(), level)
        shown = (power + FLOOR).log10() - levels[:, None]
        mel = (shown.clamp_min(-RANGE) + USUAL + 4) / 4
        return mel, heard[:, -(LEVEL_FRAMES - 1) :], last


def _smooth(energy: Tensor) -> Tensor:
    """Mean over the last LEVEL_FRAMES of (B, T), at the beginning over those that there are."""
    total = F.pad(energy.double().cumsum(1), (1, 0))
    count = energy.shape[1]
    index = torch.arange(1, count + 1, device=energy.device)
    first = (index - LEVEL_FRAMES).clamp_min(0)
    return ((total[:, 1:] - total[:, first]) / (index - first)).to(energy.dtype)


def follow(energy: Tensor, level: Tensor) -> tuple[Tensor, Tensor]:
    """Levels (B, T), and the last one (B,), of energies (B, T) log10: they rise at once and fall by
    :data:`FALL` a spectrum; ``level`` (B,) is the one before."""
    fall = FALL * torch.arange(1, energy.shape[1] + 1, device=energy.device)
    # max over the past of energy - fall * distance, as a running maximum.
    risen = torch.cummax(energy + fall, 1).values
    levels = torch.maximum(risen, level[:, None]) - fall
    return levels, levels[:, -1]


class AttentionLayer(nn.Module):
    """A transformer layer of width D whose attention is bounded to so many tokens behind and ahead,
    pre-norm as Whisper's."""

    def __init__(self, width: int, heads: int, behind: int, ahead: int) -> None:
        super().__init__()
        self.heads, self.behind, self.ahead = heads, behind, ahead
        self.norm = nn.LayerNorm(width)
        self.project = Projection(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.distance = nn.Parameter(torch.zeros(heads, behind + 1 + ahead))
        """What is added to the attention, from the farthest back to the farthest ahead."""
        self.second_norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, state: LayerState) -> tuple[Tensor, LayerState]:
        """New inputs (B, n, D) -> outputs (B, m, D) of the tokens whose future is there now."""
        batch, _, width = x.shape
        key, value = self.project.keys_and_values(self.norm(x)).chunk(2, -1)
        keys = torch.cat((state.keys, self._apart(key)), 2)
        values = torch.cat((state.values, self._apart(value)), 2)
        x = torch.cat((state.waiting, x), 1)
        ready = max(x.shape[1] - self.ahead, 0)
        reach = self.behind + self.ahead
        kept = LayerState(keys[:, :, -reach:], values[:, :, -reach:], x[:, ready:])
        x = x[:, :ready]
        if not ready:
            return x, kept
        query = self._apart(self.project.queries(self.norm(x)))
        bias = self.biases(keys.shape[2], ready).to(query.dtype)
        seen = F.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
        x = x + self.join(seen.transpose(1, 2).reshape(batch, ready, width))
        x = x + self.contract(F.gelu(self.expand(self.second_norm(x))))
        return x, kept

    def biases(self, count: int, ready: int) -> Tensor:
        """What is added to the attention of ``ready`` tokens to the last ``count``:
        (heads, ready, count)."""
        device, reach = self.distance.device, self.behind + self.ahead
        place = torch.arange(count - self.ahead - ready, count - self.ahead, device=device)
        step = torch.arange(count, device=device) - place[:, None]
        near = (step >= -self.behind) & (step <= self.ahead)
        bias = self.distance[:, (step + self.behind).clamp(0, reach)]
        return bias.masked_fill(~near, -torch.inf)

    def _apart(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, heads, n, d)."""
        # No -1: of a portion too small for its future a layer is given no tokens at all.
        return torch.unflatten(x, 2, (self.heads, x.shape[2] // self.heads)).transpose(1, 2)


class Projection(nn.Linear):
    """Queries, keys and values (3 D) of inputs (D). Keys and values are wanted when a token comes,
    its query only when its future is there."""

    def queries(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, D)."""
        width = self.in_features
        return F.linear(x, self.weight[:width], self.bias[:width])

    def keys_and_values(self, x: Tensor) -> Tensor:
        """(B, n, D) -> (B, n, 2 D)."""
        width = self.in_features
        return F.linear(x, self.weight[width:], self.bias[width:])


def mel_filters() -> Tensor:
    """Slaney's mel filters with unit area, (BANDS, SPECTRUM / 2 + 1), 0 to 8 kHz, as Whisper has
    them: linear below 1 kHz, logarithmic above."""
    corner, linear, octave = 1000.0, 15.0, math.log(6.4) / 27

    def hertz(mel: Tensor) -> Tensor:
        straight = mel * corner / linear
        return torch.where(mel < linear, straight, corner * torch.exp(octave * (mel - linear)))

    top = linear + math.log(SPECTRUM * 20 / corner) / octave
    edges = hertz(torch.linspace(0, top, BANDS + 2, dtype=torch.float64))
    bins = torch.arange(SPECTRUM // 2 + 1, dtype=torch.float64) * SPEECH_RATE / SPECTRUM
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangle = torch.minimum((bins - low) / (middle - low), (high - bins) / (high - middle))
    return (triangle.clamp_min(0) * 2 / (high - low)).float()


SPEECH_FORMAT = "stillspeak-speech-1"
"""What a speech encoder's weights file says it is."""


@torch.no_grad()
def golden_speech(encoder: SpeechEncoder) -> Tensor:
    """What an encoder gives for a fixed sound of sines: some features of its last token."""
    time = torch.arange(TOKEN * 40 + 720) / SPEECH_RATE
    sound = 0.3 * torch.sin(2 * math.pi * (140 * time + 900 * time**2))[None]
    features, _ = encoder(sound, encoder.initial_state())
    last: Tensor = features[0, -1, :64]
    return last
