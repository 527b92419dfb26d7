"""Hears the mood of a voice: two linear layers on the speech encoder's features.

One says of each token whether somebody speaks. The other knows the emotion from the mean and the
deviation of the features while somebody does. Taught on acted German and on read English;
``MODEL_CARD.md`` says how well it hears.
"""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from stillspeak.models.speech import SpeechEncoder, golden_speech
from stillspeak.system.configuration import Share, configuration

MOOD_FORMAT = "stillspeak-mood-1"

EMOTIONS = ("neutral", "happiness", "sadness", "anger", "fear", "disgust", "boredom")
"""What it tells apart: the seven of EMO-DB (Burkhardt et al. 2005)."""

_FINGERPRINT = 64  # features of golden_speech
_ALIKE = 0.05  # half precision and another processor change a hundredth of that


@configuration("mood")
class MoodConfig:
    """Sizes of a :class:`MoodClassifier`, and when what it hears is believed."""

    width: Annotated[int, Field(strict=True, ge=1, le=4096)] = 512
    """Features of a token."""
    memory: Annotated[float, Field(ge=0.1, le=60)] = 3.0
    """Seconds of speech over which what was heard is forgotten."""
    sure: Share = 0.8
    """Probability above which an emotion begins to show."""
    doubtful: Share = 0.5
    """Probability below which it fades."""


class MoodClassifier(nn.Module):
    """Speech or not, and which emotion, from features of width D."""

    encoder: Tensor

    def __init__(self, config: MoodConfig) -> None:
        super().__init__()
        self.config = config
        self.speaks = nn.Linear(config.width, 1)
        """Log odds that somebody speaks, of a token's features (..., D)."""
        self.emotion = nn.Linear(2 * config.width, len(EMOTIONS))
        """Logits, already as flat as calibration wants them, of mean and deviation (..., 2 D)."""
        self.register_buffer("encoder", torch.zeros(min(config.width, _FINGERPRINT)))

    def hears(self, encoder: SpeechEncoder) -> bool:
        """Whether features of that encoder are what it was taught with."""
        if encoder.config.width != self.config.width:
            return False
        apart = (golden_speech(encoder).cpu() - self.encoder).abs().max()
        return float(apart) < _ALIKE * (1 + float(self.encoder.abs().max()))


@torch.no_grad()
def golden_mood(network: MoodClassifier) -> Tensor:
    """What a classifier answers to waves, and the encoder that it belongs to: a vector."""
    waves = torch.sin(torch.arange(2 * network.config.width) * (math.pi / 7))
    speaks = network.speaks(waves[: network.config.width])
    emotion = network.emotion(waves).log_softmax(0)
    return torch.cat((torch.tanh(speaks / 10), emotion / 10, network.encoder / 10))
