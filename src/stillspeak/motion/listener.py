"""Hears the mood of who speaks, frame by frame, in the speech encoder's features.

It is calm: nothing shows before a second of speech, an emotion must be clearly the most probable
one, it comes within about a second, fades more slowly, and is gone after a pause. Boredom looks
neutral; surprise is not in what it was taught with and is never heard.
"""

from __future__ import annotations

import math
from functools import cache, lru_cache
from importlib import resources
from pathlib import Path
from typing import NamedTuple
from weakref import WeakSet

import numpy as np
import numpy.typing as npt
from torch import Tensor

from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import ConfigError
from stillspeak.models.mood import (
    EMOTIONS,
    MOOD_FORMAT,
    MoodClassifier,
    MoodConfig,
    golden_mood,
)
from stillspeak.models.speech import SPEECH_RATE, TOKEN, SpeechEncoder
from stillspeak.motion.frames import Floats
from stillspeak.motion.moods import MOODS, MoodName

_Wide = npt.NDArray[np.float64]

VISIBLE = 0.1
"""Intensity below which nobody sees a mood."""

SHOWN: dict[str, MoodName] = {
    "happiness": "happy",
    "sadness": "sad",
    "anger": "angry",
    "fear": "fearful",
    "disgust": "disgusted",
}
"""Which mood an emotion looks like; the others look neutral."""
_HEARD = [EMOTIONS.index(name) for name in SHOWN]
_PLACES = [MOODS.index(name) for name in SHOWN.values()]

_SECOND = SPEECH_RATE // TOKEN  # tokens
_ENOUGH = 1.0 * _SECOND  # of speech before anything is believed
_PAUSE = 0.8 * _SECOND  # without speech, after which a mood fades
_FORGETS = 4.0 * _SECOND  # without speech, in which what was heard loses most of its weight
_COMES, _GOES = 0.4, 1.2  # seconds to two thirds
_RESOURCE = "resources/mood.safetensors"


def load_mood(path: Path) -> MoodClassifier:
    """Read a mood classifier's weights file.

    Raises:
        WeightsError: as for :func:`stillspeak.weights.load_network`.
    """
    from stillspeak.weights import load_network

    return load_network(
        path,
        format_name=MOOD_FORMAT,
        build=lambda table: MoodClassifier(MoodConfig(**table)),
        golden=golden_mood,
    )[0]


class _Ear(NamedTuple):
    """A classifier as arrays in double precision."""

    config: MoodConfig
    speaks: _Wide
    speaks_bias: float
    emotion: _Wide
    emotion_bias: _Wide


@lru_cache(maxsize=2)
def _ear(network: MoodClassifier) -> _Ear:
    speaks, emotion = (
        (layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy())
        for layer in (network.speaks, network.emotion)
    )
    return _Ear(network.config, speaks[0][0], float(speaks[1][0]), *emotion)


@cache
def released_mood() -> MoodClassifier:
    """The classifier that comes with the package, read once."""
    with resources.as_file(resources.files("stillspeak").joinpath(_RESOURCE)) as path:
        return load_mood(path)


_known: WeakSet[SpeechEncoder] = WeakSet()


def check_encoder(encoder: SpeechEncoder | None) -> None:
    """Whether moods can be heard in the features of a model's speech encoder; once for each.

    Raises:
        ConfigError: it has none, or another one than the released classifier was taught with.
    """
    if encoder is None:
        raise ConfigError(
            "mood auto: this model has no speech encoder to hear moods with; use the default "
            "model, or name a mood"
        )
    if encoder in _known:
        return
    if not released_mood().hears(encoder):
        raise ConfigError(
            "mood auto: moods are heard with the default model's speech encoder, and this model "
            "has another one; use the default model, or name a mood"
        )
    _known.add(encoder)


class VoicePool:
    """Mean and deviation of the features of speech, older ones being forgotten.

    Token by token, so that how many come at a time does not matter.
    """

    def __init__(self, network: MoodClassifier) -> None:
        self._ear = _ear(network)
        config = network.config
        self._most = config.memory * _SECOND
        self.heard = 0.0
        """Tokens of speech that count, at most those of ``memory``."""
        self.pause = 0.0
        """Tokens since somebody spoke."""
        self._mean = np.zeros(config.width)
        self._square = np.zeros(config.width)

    def add(self, token: Floats) -> float:
        """Hear one token's features (D,): the probability that somebody speaks."""
        x = token.astype(np.float64)
        odds = float(self._ear.speaks @ x) + self._ear.speaks_bias
        speech = 1 / (1 + math.exp(-min(max(odds, -50.0), 50.0)))
        self.pause = 0.0 if speech > 0.5 else self.pause + 1
        kept = 1 - speech / self._most - (1 - speech) / _FORGETS
        self.heard = self.heard * kept + speech
        share = speech / max(self.heard, 1e-9)
        # An exponentially weighted mean and variance (West 1979).
        off = x - self._mean
        self._mean += share * off
        self._square = (1 - share) * (self._square + share * off * off)
        return speech

    def statistics(self) -> _Wide:
        """(2 D,) mean and deviation."""
        return np.concatenate((self._mean, np.sqrt(self._square)))


class MoodListener:
    """How strongly each mood is heard, from the features of a stream of speech.

    Args:
        encoder: the speech encoder that the features come from.
        network: a classifier; by default the released one.

    Raises:
        ConfigError: the released classifier was not taught with that encoder.
    """

    def __init__(
        self, encoder: SpeechEncoder | None = None, network: MoodClassifier | None = None
    ) -> None:
        if network is None:
            check_encoder(encoder)
            network = released_mood()
        self._ear, self._pool = _ear(network), VoicePool(network)
        self._shown: int | None = None
        self._intensities = np.zeros(len(_HEARD))

    def hear(self, features: Tensor | Floats) -> Floats:
        """Features (1, 2 T, D) of the next T frames to the intensities of MOODS, (T, 7) float32;
        they are at least 0 and their sum is 1."""
        if isinstance(features, Tensor):
            features = features.detach().float().cpu().numpy()
        tokens = features[0]
        out = np.zeros((len(tokens) // 2, len(MOODS)), np.float32)
        for row, first, second in zip(out, tokens[::2], tokens[1::2], strict=True):
            self._pool.add(first)
            self._pool.add(second)
            self._decide()
            row[_PLACES] = self._intensities
            row[0] = max(1 - self._intensities.sum(), 0)
        return out

    def probabilities(self) -> _Wide:
        """(7,) of EMOTIONS, by what was heard so far."""
        logits = self._ear.emotion @ self._pool.statistics() + self._ear.emotion_bias
        odds = np.exp(logits - logits.max())
        return np.asarray(odds / odds.sum())

    def _decide(self) -> None:
        """One frame on: which emotion shows, and how far it has come."""
        config, wanted = self._ear.config, np.zeros(len(_HEARD))
        if self._pool.heard < _ENOUGH or self._pool.pause > _PAUSE:
            self._shown = None
        else:
            heard = self.probabilities()[_HEARD]
            best = int(heard.argmax())
            if heard[best] > config.sure:
                self._shown = best
            elif self._shown is not None and heard[self._shown] < config.doubtful:
                self._shown = None
            if self._shown is not None:
                certainty = (heard[self._shown] - config.doubtful) / (1 - config.doubtful)
                wanted[self._shown] = max(certainty, 0.0)
        seconds = np.where(wanted > self._intensities, _COMES, _GOES)
        self._intensities += (wanted - self._intensities) * (1 - np.exp(-1 / VIDEO_FPS / seconds))
        self._intensities[(self._intensities < 1e-3) & (wanted == 0)] = 0
        self._intensities /= max(self._intensities.sum(), 1.0)
