"""What the speech encoder learns: to produce, from bounded and distorted sound, the features that
Whisper's encoder produces from the whole, clean one.

No labels are needed: any speech will do. Both hear the same piece; the teacher clean, at one level
and at once, the encoder through a channel (:mod:`stillspeak.data.channel`) and token by token. Of
the teacher's features the mean of each position is taken out, since the encoder knows none.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from stillspeak.data.augment import draw_factor
from stillspeak.data.channel import ChannelConfig, level, music, noise, through_channel
from stillspeak.errors import ConfigError, DataError, StillspeakError
from stillspeak.media.audio import load_audio
from stillspeak.models.speech import (
    QUIETEST,
    REACH,
    SPEECH_FORMAT,
    SPEECH_RATE,
    TOKEN,
    AttentionLayer,
    SpeechEncoder,
    SpeechEncoderConfig,
    golden_speech,
)
from stillspeak.models.whisper import WhisperEncoder, encoder_of_whisper, read_ctranslate2
from stillspeak.system.configuration import BelowOne, configuration
from stillspeak.weights import load_speech_encoder, save_network

SUFFIXES = frozenset((".ogg", ".opus", ".flac", ".wav", ".mp3"))

_TONE = 3e-4
"""RMS of the room tone that stands for silence, beside speech of .05."""


@configuration("speech_data")
class SpeechDataConfig:
    """How the speech encoder's examples are drawn."""

    teacher: str = ""
    """A CTranslate2 file of Whisper's weights."""
    start: str = ""
    """A speech encoder's weights file to go on from; none: Whisper's own layers."""
    batch: PositiveInt = 8
    """Pieces B in a batch."""
    seconds: Annotated[float, Field(ge=1, le=25)] = 4.0
    """Length of a piece."""
    speed: BelowOne = 0.15
    """Pace and pitch vary by up to this share, for teacher and encoder alike."""
    nothing: BelowOne = 0.08
    """Share of pieces without any speech: noise or music, whose features are those of a quiet
    room."""
    wrong_level: BelowOne = 0.3
    """Share of pieces before which something up to 20 dB louder was heard."""
    held_out: Annotated[int, Field(ge=2)] = 20
    """One speaker in so many is not learned from."""


class Recordings:
    """Speech of many people in memory, as 16 bit samples at 16 kHz.

    The first folder below the root is a corpus where folders of speakers are in it; each corpus is
    drawn by the root of its length, then each of its speakers alike.

    Args:
        root: a folder of sound files, ``SPEAKER/FILE`` or ``CORPUS/SPEAKER/FILE``.
        held_out: one speaker in so many, by the hash of the name, is kept apart.

    Raises:
        DataError: no such folder, no sound in it, or none that can be read.
    """

    def __init__(self, root: Path, held_out: int) -> None:
        files = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"{root}: holds no recordings; give the folder that holds the speech")
        self.training: dict[str, list[list[npt.NDArray[np.int16]]]] = {}
        self.apart: list[npt.NDArray[np.int16]] = []
        speakers: dict[tuple[str, str], list[npt.NDArray[np.int16]]] = defaultdict(list)
        self.left_out: list[str] = []
        for path in files:
            parts = path.relative_to(root).parts
            corpus = parts[0] if len(parts) > 2 else ""
            try:
                sound = load_audio(path, sample_rate=SPEECH_RATE)
            except StillspeakError as error:
                self.left_out.append(str(error))
                continue
            speaker = parts[-2] if len(parts) > 1 else path.stem
            speakers[corpus, speaker].append(np.rint(sound * 32767).astype(np.int16))
        for (corpus, speaker), sounds in speakers.items():
            if int(hashlib.sha256(f"{corpus}/{speaker}".encode()).hexdigest(), 16) % held_out:
                self.training.setdefault(corpus, []).append(sounds)
            else:
                self.apart += sounds
        if not self.training:
            raise DataError(f"{root}: no recording can be read; the first: {self.left_out[:1]}")
        self._corpora = list(self.training.values())
        seconds = [
            sum(len(s) for one in group for s in one) / SPEECH_RATE for group in self._corpora
        ]
        self.seconds = sum(seconds)
        self._weights = np.sqrt(seconds) / np.sqrt(seconds).sum()

    @property
    def speakers(self) -> int:
        return sum(len(group) for group in self._corpora)

    def draw(self, length: int, random: np.random.Generator) -> npt.NDArray[np.float32]:
        """A stretch of one voice, (length,) float32; short recordings follow on one another with
        pauses between."""
        group = self._corpora[random.choice(len(self._corpora), p=self._weights)]
        voice = group[random.integers(len(group))]
        pieces: list[npt.NDArray[np.float32]] = []
        filled = 0
        while filled < length:
            sound = np.asarray(voice[random.integers(len(voice))] / np.float32(32767), np.float32)
            if not pieces and len(sound) > length:
                first = random.integers(len(sound) - length + 1)
                sound = sound[first : first + length]
            elif pieces or random.random() < 0.5:
                pause = np.zeros(int(random.uniform(0.05, 1.2) * SPEECH_RATE), np.float32)
                sound = np.concatenate((pause, level(sound, 0.05)))
            pieces.append(sound)
            filled += len(sound)
        return np.concatenate(pieces)[:length]


class DistillationObjective:
    """See :class:`~stillspeak.training.auxiliary.task.AuxiliaryObjective`.

    Raises:
        ConfigError: no teacher is named.
        DataError, WeightsError: recordings or weights cannot be read.
    """

    name = "speech encoder"
    score = "loss"
    higher_is_better = False

    def __init__(
        self,
        config: SpeechEncoderConfig,
        data: SpeechDataConfig,
        channel: ChannelConfig,
        root: Path,
        *,
        seed: int,
    ) -> None:
        if not data.teacher:
            raise ConfigError(
                "speech_data.teacher names no file; give Whisper's weights in CTranslate2's format"
            )
        self._config, self._data, self._channel, self._seed = config, data, channel, seed
        weights = read_ctranslate2(Path(data.teacher))
        self._teacher = WhisperEncoder(weights, len(config.ahead), config.heads).eval()
        self._recordings = Recordings(root, data.held_out)
        self._tokens = round(data.seconds * SPEECH_RATE) // TOKEN
        network = encoder_of_whisper(weights, config)
        self._usual, self._spread = self._statistics()
        if data.start:
            _take_over(network, load_speech_encoder(Path(data.start))[0])
        else:
            set_distances(network, self._teacher, self._clean_sounds(np.random.default_rng(seed)))
        self.network: nn.Module = network

    # --- examples -----------------------------------------------------------------------

    @property
    def _length(self) -> int:
        """Samples of a piece: the tokens that are learned and the future that they need."""
        return TOKEN * (self._tokens + self._config.delay - 1) + 2 * REACH

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Clean and spoilt sound, (B, S) float32 each, and the level before, (B,)."""
        return self._draw(np.random.default_rng((self._seed, 8, step)), self._recordings.draw)

    def _draw(self, random: np.random.Generator, draw: Any) -> tuple[Tensor, ...]:
        length, count = self._length, self._data.batch
        clean = np.zeros((count, length), np.float32)
        spoilt = np.zeros((count, length), np.float32)
        before = np.full(count, QUIETEST, np.float32)
        for row in range(count):
            speed = draw_factor(self._data.speed, random)
            raw = draw(int(length * speed) + 2, random)
            voice = np.interp(speed * np.arange(length), np.arange(len(raw)), raw)
            tone = level(noise(length, random), _TONE)
            if random.random() < self._data.nothing or not np.any(voice):
                make = music if random.random() < 0.4 else noise
                loud = 0.05 * 10 ** (random.uniform(-50, 6) / 20)
                clean[row], spoilt[row] = tone, level(make(length, random), loud).clip(-1, 1)
                continue
            clean[row] = level(voice.astype(np.float32), 0.05) + tone
            # Not through the teacher's level: what is soft within a recording stays so.
            spoilt[row] = through_channel(
                clean[row], self._channel, random, lambda: self._recordings.draw(length, random)
            )
            if random.random() < self._data.wrong_level:
                energy = float(np.mean(np.square(spoilt[row], dtype=np.float64)))
                before[row] = np.log10(max(energy, 1e-12)) + 1.7 + random.uniform(-2, 2)
        return tuple(torch.from_numpy(part) for part in (clean, spoilt, before))

    def _clean_sounds(self, random: np.random.Generator, batches: int = 3) -> Tensor:
        return torch.cat([self._draw(random, self._recordings.draw)[0] for _ in range(batches)])

    @torch.no_grad()
    def _statistics(self) -> tuple[Tensor, Tensor]:
        """Mean of the teacher's features for each position, and their deviation around it."""
        random = np.random.default_rng((self._seed, 9))
        features = torch.cat([self._features(self._clean_sounds(random, 1)) for _ in range(20)])
        usual = features.mean(0)
        # A mean over so few pieces is rough, and what depends on the position smooth.
        kernel = torch.ones(1, 1, 9) / 9
        smooth = F.conv1d(F.pad(usual.T[:, None], (4, 4), "replicate"), kernel)[:, 0].T
        smooth[:4] = usual[:4]
        return smooth - smooth.mean(0), features.sub(smooth).std((0, 1)).clamp_min(1e-3)

    @torch.no_grad()
    def _features(self, clean: Tensor) -> Tensor:
        """(B, S) -> (B, tokens, width): the teacher's, in the encoder's time."""
        features: Tensor = self._teacher(clean[:, REACH - TOKEN :])[-1]
        return features[:, 1 : 1 + self._tokens].float()

    # --- learning -----------------------------------------------------------------------

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], step: int
    ) -> Mapping[str, Tensor]:
        """``loss``: mean squared distance to the teacher's features, each in its deviations."""
        assert isinstance(network, SpeechEncoder)
        clean, spoilt, before = batch
        if self._usual.device != clean.device:
            self._teacher.to(clean.device)
            self._usual, self._spread = (t.to(clean.device) for t in (self._usual, self._spread))
        wanted = (self._features(clean) - self._usual) / self._spread
        state = network.initial_state(len(spoilt))._replace(level=before)
        given, _ = network(spoilt, state)
        error = (given.float() / self._spread - wanted).square().mean(2)
        # The first half second has heard too little to say as much.
        weight = torch.linspace(0.2, 1, 25, device=error.device).clamp(0, 1)
        weight = F.pad(weight, (0, error.shape[1] - 25), value=1.0)
        return {"loss": (error * weight).sum() / weight.sum() / len(error)}

    def validate(self, network: nn.Module) -> Mapping[str, float]:
        """``loss`` on speakers that are not learned from, through the channel, and ``clean``."""
        assert isinstance(network, SpeechEncoder)
        apart = self._recordings.apart or [
            s for group in self._recordings.training.values() for one in group[:2] for s in one
        ]

        def draw(length: int, random: np.random.Generator) -> npt.NDArray[np.float32]:
            joined = np.concatenate([apart[i] for i in random.permutation(len(apart))[:40]])
            repeated = np.resize(joined, max(length, len(joined)))
            first = random.integers(len(repeated) - length + 1)
            piece = repeated[first : first + length]
            return np.asarray(piece / np.float32(32767), np.float32)

        sums: dict[str, list[float]] = defaultdict(list)
        device = next(network.parameters()).device
        for index in range(6):
            clean, spoilt, before = (
                t.to(device) for t in self._draw(np.random.default_rng((7, index)), draw)
            )
            quietest = torch.full_like(before, QUIETEST)
            for name, heard, known in (("loss", spoilt, before), ("clean", clean, quietest)):
                sums[name].append(float(self.loss(network, (clean, heard, known), 0)["loss"]))
        return {name: float(np.mean(values)) for name, values in sums.items()}

    def export(self, network: nn.Module, path: Path, info: Mapping[str, Any]) -> None:
        assert isinstance(network, SpeechEncoder)
        extra = {"speakers": self._recordings.speakers, "hours": self._recordings.seconds / 3600}
        save_network(
            network,
            path,
            {**info, **extra},
            format_name=SPEECH_FORMAT,
            config=asdict(self._config),
            rounded=SpeechEncoder(self._config),
            golden=golden_speech,
        )


def _take_over(network: SpeechEncoder, other: SpeechEncoder) -> None:
    """Weights of another encoder, whose looks ahead may be longer or shorter."""
    own, theirs = network.state_dict(), other.state_dict()
    for name, value in own.items():
        given = theirs.get(name)
        if given is not None and given.shape == value.shape:
            value.copy_(given)
    for mine, known in zip(network.layers, other.layers, strict=False):
        assert isinstance(mine, AttentionLayer) and isinstance(known, AttentionLayer)
        back = min(mine.behind, known.behind)
        width = back + 1 + min(mine.ahead, known.ahead)
        start, first = mine.behind - back, known.behind - back
        mine.distance.data[:, start : start + width] = known.distance[:, first : first + width]


@torch.no_grad()
def set_distances(network: SpeechEncoder, teacher: WhisperEncoder, sound: Tensor) -> None:
    """Start each layer's biases from what the teacher's positions do to its attention on average,
    in clean speech (B, S); the network has the teacher's weights, but no positions."""
    hidden = teacher(sound)
    for layer, x in zip(network.layers, hidden, strict=False):
        assert isinstance(layer, AttentionLayer)
        count = x.shape[1]
        logits = []
        for y in (x, x - teacher.places[:count]):
            parts = layer.project(layer.norm(y)).view(len(y), count, 3, layer.heads, -1)
            query, key = parts[:, :, 0].transpose(1, 2), parts[:, :, 1].transpose(1, 2)
            logits.append((query @ key.transpose(2, 3)).mean(0) / query.shape[-1] ** 0.5)
        change = logits[0] - logits[1]
        for place in range(-layer.behind, layer.ahead + 1):
            if abs(place) < count - 1:  # from row t to column t + place
                layer.distance[:, layer.behind + place] = change.diagonal(place, 1, 2).mean(1)
        layer.distance.sub_(layer.distance.mean(1, keepdim=True))
