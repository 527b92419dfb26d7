"""What the lip reader learns: real mouths and the words that were said, whole sentences.

CTC says which words come in which order and leaves open when. Word timings say when, so a second
head names the word of each frame while training (it is not released): with few speakers CTC alone
stays for long at sentences that need no picture.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, VIDEO_FPS
from stillspeak.data.augment import changed_grid, draw_factor
from stillspeak.data.cache import CachedClip, open_clip
from stillspeak.data.config import AugmentConfig
from stillspeak.data.layouts.grid import GRID_WORDS, PAUSES
from stillspeak.data.sampling import SpeakerSampler
from stillspeak.errors import ConfigError, DataError
from stillspeak.models.ctc import Vocabulary, beam_search
from stillspeak.models.lipnet import (
    ALPHABET,
    BLANK,
    LIPNET_FORMAT,
    LipNet,
    LipNetConfig,
    golden_reading,
    mouth_grid,
    sample_mouths,
    spell,
    standardise,
    word_errors,
)
from stillspeak.system.configuration import BelowOne, Share, configuration
from stillspeak.training.auxiliary.task import hold_out
from stillspeak.weights import save_network

KEPT_BOX = (62, 114, 8, 92)
"""Rows and columns of the crop that are kept in memory: the mouth, with room for shifts."""

Places = list[list[str]]
"""Known words by their place in the sentence; one list for all places where there is no rule."""


@configuration("lipnet_data")
class LipReadingDataConfig:
    """How the lip reader's examples are drawn and changed."""

    batch: PositiveInt = 8
    """Sentences B in a batch."""
    speaker_balance: Share = 0.4
    """0 draws every clip alike, 1 every speaker alike."""
    margin: tuple[NonNegativeFloat, NonNegativeFloat] = (0.04, 0.4)
    """Seconds of silence kept before the first and after the last word, drawn from here."""
    speed: BelowOne = 0.2
    """Largest relative change of speed."""
    drop: Share = 0.03
    """Share of frames that are replaced by the one before, as if they were lost."""
    held_out: NonNegativeInt = 40
    """Clips of the speaker with the most that are not trained on, but read at validation."""
    words: NonNegativeFloat = 1.0
    """Weight of naming each frame's word, beside CTC; falls to zero along with the rate."""

    def __post_init__(self) -> None:
        if self.margin[0] > self.margin[1]:
            raise ConfigError("lipnet_data.margin must be two times, the shorter one first")


class SpokenClip(NamedTuple):
    """A clip in memory: frames (T, h, w, C) uint8 around the mouth, words as (start s, end s,
    word) without silence."""

    clip: CachedClip
    frames: npt.NDArray[np.uint8]
    words: list[tuple[float, float, str]]


class Reader(nn.Module):
    """The lip reader with the head that names words while it is trained."""

    def __init__(self, config: LipNetConfig, words: int) -> None:
        super().__init__()
        self.lipnet = LipNet(config)
        self.words = nn.Linear(2 * config.state, 1 + words)

    def forward(self, mouths: Tensor) -> tuple[Tensor, Tensor]:
        """Mouths (B, C, T, 50, 100) to log-probabilities of characters (B, T, 28) and scores
        of words (B, T, 1 + words), 0 being silence."""
        states = self.lipnet.features(mouths)
        return self.lipnet.FC(states).float().log_softmax(-1), self.words(states).float()


class LipReadingObjective:
    """See :class:`~stillspeak.training.auxiliary.task.AuxiliaryObjective`. Clips without word
    timings are left out.

    Raises:
        DataError: no clip has word timings.
    """

    name = "lip reader"
    score = "wer"
    higher_is_better = False

    def __init__(
        self,
        config: LipNetConfig,
        data: LipReadingDataConfig,
        augment: AugmentConfig,
        training: Sequence[CachedClip],
        validation: Sequence[CachedClip],
        *,
        seed: int,
        steps: int,
    ) -> None:
        self._config, self._data, self._augment, self._seed = config, data, augment, seed
        self._steps = steps
        spoken = _load_spoken(training, config.colours)
        if not spoken:
            raise DataError("no training clip has word timings; prepare some with alignments")
        self._held_out, self._clips = hold_out(spoken, data.held_out, lambda s: s.clip)
        self._validation = _load_spoken(validation, config.colours)
        self.places = known_places({word for clip in spoken for *_, word in clip.words})
        self._vocabulary = Vocabulary(self.places[0] if len(self.places) == 1 else self.places)
        self._words = sorted({word for place in self.places for word in place})
        speakers = ((index, clip.clip.speaker) for index, clip in enumerate(self._clips))
        self._sampler = SpeakerSampler(speakers, data.speaker_balance)
        self.speakers = self._sampler.speakers
        self._grid = mouth_grid()
        torch.manual_seed(seed)
        self.network: nn.Module = Reader(config, len(self._words))

    # --- examples -----------------------------------------------------------------------

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Mouths (B, C, T, 50, 100) float32, labels (B, L) int64 padded with 0, their lengths
        (B,), words by frame (B, T) int64."""
        random = np.random.default_rng((self._seed, 5, step))
        drawn = [self._clips[self._sampler.draw(random)] for _ in range(self._data.batch)]
        spans = [self._span(clip, random) for clip in drawn]
        length = max(count for _, _, count in spans)
        mouths, labels, words = [], [], []
        for clip, (first, speed, _) in zip(drawn, spans, strict=True):
            times = first + speed * np.arange(length)
            lost = random.random(length) < self._data.drop
            lost[0] = False
            times = times[np.maximum.accumulate(np.where(lost, 0, np.arange(length)))]
            frames = np.clip(np.rint(times), 0, len(clip.frames) - 1).astype(np.int64)
            mouths.append(self._mouths(clip, frames, random))
            labels.append(torch.tensor(spell(sentence(clip.words))))
            words.append(torch.from_numpy(self._frame_words(clip, times)))
        lengths = torch.tensor([len(label) for label in labels])
        padded = nn.utils.rnn.pad_sequence(labels, batch_first=True)
        return torch.cat(mouths), padded, lengths, torch.stack(words)

    def _span(self, clip: SpokenClip, random: np.random.Generator) -> tuple[float, float, int]:
        """First frame, frames a step, and how many steps: the words with some silence."""
        speed = draw_factor(self._data.speed, random)
        before, after = random.uniform(*self._data.margin, 2)
        first = max((clip.words[0][0] - before) * VIDEO_FPS, 0.0)
        last = min((clip.words[-1][1] + after) * VIDEO_FPS, len(clip.frames) - 1.0)
        return first, speed, max(int((last - first) / speed) + 1, 2)

    def _mouths(
        self, clip: SpokenClip, frames: npt.NDArray[np.int64], random: np.random.Generator
    ) -> Tensor:
        """Changed mouths of some frames: (1, C, T, 50, 100)."""
        grid = changed_grid(self._grid, self._augment, random)
        light = 2 ** random.uniform(-self._augment.gamma, self._augment.gamma)
        gain = 1 + random.uniform(-self._augment.gain, self._augment.gain)
        picture = sample_mouths(clip.frames[frames], grid, KEPT_BOX)
        picture = (picture.pow(light) * gain).clamp(0, 1)
        return standardise(picture) if self._config.colours == 1 else picture

    def _frame_words(
        self, clip: SpokenClip, times: npt.NDArray[np.floating]
    ) -> npt.NDArray[np.int64]:
        seconds = (times + 0.5) / VIDEO_FPS
        labels = np.zeros(len(times), np.int64)
        for start, end, word in clip.words:
            labels[(seconds >= start) & (seconds < end)] = 1 + self._words.index(word)
        return labels

    # --- learning -----------------------------------------------------------------------

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], step: int
    ) -> Mapping[str, Tensor]:
        mouths, labels, lengths, words = batch
        characters, named = network(mouths)
        frames = torch.full_like(lengths, characters.shape[1])
        ctc = F.ctc_loss(
            characters.transpose(0, 1), labels, frames, lengths, BLANK, zero_infinity=True
        )
        word = F.cross_entropy(named.flatten(0, 1), words.flatten())
        weight = self._data.words * max(1 - step / self._steps, 0.0)
        right = (named.argmax(-1) == words)[words > 0].float().mean()
        return {"loss": ctc + weight * word, "ctc": ctc, "word": word, "word_accuracy": right}

    def validate(self, network: nn.Module) -> Mapping[str, float]:
        """``wer`` and ``ctc`` on other speakers, ``wer_held_out`` on a trained speaker's other
        sentences; word error rates in [0, 1] over all words."""
        assert isinstance(network, Reader)
        scores: dict[str, float] = {}
        for suffix, clips in (("", self._validation), ("_held_out", self._held_out)):
            if clips:
                wer, ctc = self._read(network.lipnet, clips)
                scores |= {f"wer{suffix}": wer, f"ctc{suffix}": ctc}
        return scores

    def _read(self, network: LipNet, clips: Sequence[SpokenClip]) -> tuple[float, float]:
        device = next(network.parameters()).device
        wrong = count = 0
        losses = []
        for clip in clips:
            mouths = sample_mouths(clip.frames, self._grid, KEPT_BOX)
            if self._config.colours == 1:
                mouths = standardise(mouths)
            output = network(mouths.to(device)).cpu()
            truth = sentence(clip.words)
            read = beam_search(output[0].numpy(), self._vocabulary, width=20)
            errors, words = word_errors(truth, read)
            wrong, count = wrong + errors, count + words
            label = torch.tensor(spell(truth))[None]
            frames, letters = torch.tensor([output.shape[1]]), torch.tensor([label.shape[1]])
            losses.append(F.ctc_loss(output.transpose(0, 1), label, frames, letters, BLANK))
        return wrong / count, float(torch.stack(losses).mean())

    def export(self, network: nn.Module, path: Path, info: Mapping[str, Any]) -> None:
        assert isinstance(network, Reader)
        save_network(
            network.lipnet,
            path,
            {**info, "speakers": self.speakers, "held_out": [c.clip.name for c in self._held_out]},
            format_name=LIPNET_FORMAT,
            config={"network": asdict(self._config), "places": self.places},
            rounded=LipNet(self._config),
            golden=golden_reading,
        )


def sentence(words: Sequence[tuple[float, float, str]]) -> str:
    return " ".join(word for *_, word in words)


def known_places(words: set[str]) -> Places:
    """GRID's words by place, if there are no others; else all words, in any place."""
    grid = [sorted(place.values()) for place in GRID_WORDS]
    if words <= {word for place in grid for word in place}:
        return grid
    return [sorted(words)]


def _load_spoken(clips: Sequence[CachedClip], colours: int) -> list[SpokenClip]:
    loaded = (_load(clip, colours) for clip in clips)
    return [clip for clip in loaded if clip is not None]


def _load(clip: CachedClip, colours: int) -> SpokenClip | None:
    """A clip's mouths and words; None without word timings."""
    with open_clip(clip) as tensors:
        words = [
            (float(start), float(end), str(word).lower())
            for start, end, word in tensors.metadata.get("words") or []
            if word not in PAUSES
        ]
        if not words or not set(sentence(words)) <= set(ALPHABET):
            return None
        frames = tensors.get_tensor("frames")
    if frames.shape[1:3] != (FRAME_HEIGHT, FRAME_WIDTH):
        raise DataError(f"{clip.file}: the lip reader wants crops of 128 x 96; prepare again")
    top, bottom, left, right = KEPT_BOX
    part = frames[:, top:bottom, left:right]
    if colours == 1:
        part = np.rint(part @ np.array([0.2125, 0.7154, 0.0721])).astype(np.uint8)[..., None]
    return SpokenClip(clip, np.ascontiguousarray(part), words)
