"""What the sync network learns: which of a clip's sounds belong to which of its pictures.

Each window of pictures has to pick its own sound among the shifted ones of the same clip, and
the reverse (Chung, Chung and Kang 2019), so that knowing a person or a room is of no use. Only
real clips are learned from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE
from stillspeak.data.augment import augment_audio, changed_grid, draw_factor, other_voice
from stillspeak.data.cache import CachedClip, open_clip
from stillspeak.data.config import AugmentConfig
from stillspeak.data.sampling import SpeakerSampler
from stillspeak.errors import DataError
from stillspeak.models.syncnet import (
    FRAME_SAMPLES,
    GREY,
    MAX_SHIFT,
    SYNC_FORMAT,
    WINDOW_FRAMES,
    SyncNet,
    SyncNetConfig,
    golden_sync,
    moving_parts,
    shift_distances,
    sync_grid,
)
from stillspeak.system.configuration import Share, configuration
from stillspeak.training.auxiliary.task import hold_out
from stillspeak.weights import save_network

# The part of the crop that is kept in memory: the region with room for shifts and warps.
_TOP, _BOTTOM, _LEFT, _RIGHT = 58, 128, 8, 92


@configuration("sync_data")
class SyncDataConfig:
    """How the sync network's examples are drawn and changed."""

    batch: PositiveInt = 8
    """Stretches of clips B in a batch."""
    frames: Annotated[int, Field(ge=WINDOW_FRAMES + 2 * MAX_SHIFT)] = 44
    """Frames of a stretch."""
    speaker_balance: Share = 0.5
    """0 draws every clip alike, 1 every speaker alike."""
    voice: Share = 0.5
    """Share of examples with another pitch (``augment.pitch``)."""
    held_out: NonNegativeInt = 24
    """Clips of the speaker with the most that are not trained on, but measured at validation."""
    leave_out: tuple[str, ...] = ()
    """Training clips, as ``speaker/name``, that are known to be out of sync themselves."""
    clip_weight: NonNegativeFloat = 1.0
    """Weight of finding the whole stretch's shift, beside each window's own."""


class SyncClip(NamedTuple):
    """A clip in memory: grey (T, h, w) uint8 around the mouth, audio (640 T,) float32."""

    clip: CachedClip
    grey: npt.NDArray[np.uint8]
    audio: npt.NDArray[np.float32]


class Matcher(nn.Module):
    """The sync network with the sharpness of its choices, which only training needs."""

    def __init__(self, config: SyncNetConfig) -> None:
        super().__init__()
        self.sync = SyncNet(config)
        self.window_scale = nn.Parameter(torch.tensor(1.5))
        self.clip_scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, mouths: Tensor, audio: Tensor) -> tuple[Tensor, Tensor]:
        """Mouths (B, F, 32, 40) and audio (B, 640 F) to features (B, F - 4, D) of both."""
        return self.sync.see(mouths), self.sync.hear(audio)


class SyncObjective:
    """See :class:`~stillspeak.training.auxiliary.task.AuxiliaryObjective`. Training clips shorter
    than ``data.frames`` are left out.

    Raises:
        DataError: no clip is long enough, or they were prepared at another size.
    """

    name = "sync network"
    score = "loss"
    higher_is_better = False

    def __init__(
        self,
        config: SyncNetConfig,
        data: SyncDataConfig,
        augment: AugmentConfig,
        training: Sequence[CachedClip],
        validation: Sequence[CachedClip],
        *,
        seed: int,
    ) -> None:
        self._config, self._data, self._augment, self._seed = config, data, augment, seed
        long = [
            clip
            for clip in training
            if clip.frames >= data.frames and f"{clip.speaker}/{clip.name}" not in data.leave_out
        ]
        if not long:
            raise DataError(f"no training clip has {data.frames} frames; lower sync_data.frames")
        apart, rest = hold_out(long, data.held_out, lambda clip: clip)
        self._clips = [_load(clip) for clip in rest]
        self._held_out = [_load(clip) for clip in apart]
        shortest = WINDOW_FRAMES + 2 * MAX_SHIFT
        self._validation = [_load(clip) for clip in validation if clip.frames >= shortest]
        speakers = ((index, clip.speaker) for index, clip in enumerate(rest))
        self._sampler = SpeakerSampler(speakers, data.speaker_balance)
        self.speakers = self._sampler.speakers
        self._grid = sync_grid()
        torch.manual_seed(seed)
        self.network: nn.Module = Matcher(config)

    # --- examples -----------------------------------------------------------------------

    def batch(self, step: int) -> tuple[Tensor, ...]:
        """Moving parts of mouths (B, F, 32, 40) and their sound (B, 640 F), both float32."""
        random = np.random.default_rng((self._seed, 6, step))
        mouths, sounds = [], []
        for _ in range(self._data.batch):
            mouth, sound = self._example(self._clips[self._sampler.draw(random)], random)
            mouths.append(mouth)
            sounds.append(torch.from_numpy(sound))
        return torch.stack(mouths), torch.stack(sounds)

    def _example(
        self, clip: SyncClip, random: np.random.Generator
    ) -> tuple[Tensor, npt.NDArray[np.float32]]:
        count, length = self._data.frames, len(clip.grey)
        changed = self._augment.speed and random.random() < 0.5
        speed = draw_factor(self._augment.speed, random) if changed else 1.0
        speed = min(speed, (length - 1) / (count - 1))
        first = random.uniform(0, length - 1 - (count - 1) * speed)
        if speed == 1.0:
            first = float(round(first))
        frames = np.rint(first + speed * np.arange(count)).astype(np.int64)
        where = first * FRAME_SAMPLES + speed * np.arange(count * FRAME_SAMPLES)
        audio = np.interp(where, np.arange(len(clip.audio)), clip.audio).astype(np.float32)
        if self._augment.pitch and random.random() < self._data.voice:
            audio = other_voice(audio, draw_factor(self._augment.pitch, random))
        audio = augment_audio(audio, SAMPLE_RATE, self._augment, random)
        return self._mouths(clip.grey[frames], random), audio

    def _mouths(self, grey: npt.NDArray[np.uint8], random: np.random.Generator) -> Tensor:
        """Changed mouths: (F, h, w) uint8 to moving parts (F, 32, 40)."""
        augment = self._augment
        picture = _sample(grey, changed_grid(self._grid, augment, random))
        gamma = float(2 ** random.uniform(-augment.gamma, augment.gamma))
        picture = picture.clamp(0, 1).pow(gamma)
        if augment.gain:
            # Cameras hiss too, and compress.
            strength = np.float32(random.uniform(0, 0.02))
            noise = strength * random.standard_normal(picture.shape, np.float32)
            picture = picture + torch.from_numpy(noise)
        return moving_parts(picture[None])[0]

    # --- learning -----------------------------------------------------------------------

    def loss(
        self, network: nn.Module, batch: tuple[Tensor, ...], step: int
    ) -> Mapping[str, Tensor]:
        """``window``: cross-entropy of each window's choice among the shifts, both ways;
        ``clip``: of the stretch's shift by its mean distances."""
        assert isinstance(network, Matcher)
        seen, heard = network(*batch)
        # The embeddings are float32; in 8 bits their distances would come in steps of 0.004.
        with torch.autocast(seen.device.type, enabled=False):
            window, right = window_loss(seen, heard, network.window_scale.exp())
            clip = clip_loss(shift_distances(seen, heard), network.clip_scale.exp())
        return {
            "loss": window + self._data.clip_weight * clip,
            "window": window,
            "clip": clip,
            "window_accuracy": right,
        }

    def validate(self, network: nn.Module) -> Mapping[str, float]:
        """On whole clips of other speakers, and (``..._held_out``) on a trained speaker's others:
        ``loss``, the windows' cross-entropy in the median clip; ``within_1`` and ``exact``,
        shares of clips whose offset is 0 +-1 or 0; ``confidence``, its mean."""
        assert isinstance(network, Matcher)
        scores: dict[str, float] = {}
        for suffix, clips in (("", self._validation), ("_held_out", self._held_out)):
            rows = [self._measure(network, clip) for clip in clips]
            if rows:
                losses, near, exact, confidence = np.array(rows).T
                # A real clip may be out of sync itself, and must not decide what is best.
                scores |= {
                    f"loss{suffix}": float(np.median(losses)),
                    f"within_1{suffix}": float(near.mean()),
                    f"exact{suffix}": float(exact.mean()),
                    f"confidence{suffix}": float(confidence.mean()),
                }
        return scores

    def _measure(self, network: Matcher, clip: SyncClip) -> tuple[float, float, float, float]:
        device = next(network.parameters()).device
        mouths = moving_parts(_sample(clip.grey, self._grid)[None])
        audio = torch.from_numpy(clip.audio)[None]
        seen, heard = network(mouths.to(device), audio.to(device))
        loss, _ = window_loss(seen, heard, network.window_scale.exp())
        distances = shift_distances(seen, heard)[0]
        offset = int(distances.argmin()) - MAX_SHIFT
        confidence = float(distances.median() - distances.min())
        return float(loss), float(abs(offset) <= 1), float(offset == 0), confidence

    def export(self, network: nn.Module, path: Path, info: Mapping[str, Any]) -> None:
        assert isinstance(network, Matcher)
        save_network(
            network.sync,
            path,
            {**info, "speakers": self.speakers, "held_out": [c.clip.name for c in self._held_out]},
            format_name=SYNC_FORMAT,
            config=asdict(self._config),
            rounded=SyncNet(self._config),
            golden=golden_sync,
        )


def window_loss(seen: Tensor, heard: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """How well each window picks its own among those up to MAX_SHIFT away, in both directions.

    Features are (B, T, D) of length 1, their cosines scaled before the softmax. Returns the mean
    cross-entropy, and the share of windows of pictures that choose right up to +-1.
    """
    clips, count = seen.shape[:2]
    index = torch.arange(count, device=seen.device)
    far = (index[:, None] - index).abs() > MAX_SHIFT
    cosines = seen @ heard.transpose(1, 2)
    logits = (5 * scale * cosines).masked_fill(far, -1e4)
    target = index.repeat(clips)
    ways = (logits, logits.transpose(1, 2))
    loss = torch.stack([F.cross_entropy(way.flatten(0, 1), target) for way in ways]).mean()
    right = ((logits.argmax(-1) - index).abs() <= 1).float().mean()
    return loss, right


def clip_loss(distances: Tensor, scale: Tensor) -> Tensor:
    """Cross-entropy of shift 0 by the mean distances (B, 21) of all shifts."""
    target = torch.full((len(distances),), MAX_SHIFT, device=distances.device)
    return F.cross_entropy(-scale * distances, target)


def _sample(grey: npt.NDArray[np.uint8], grid: Tensor) -> Tensor:
    """Pixels of the kept part (F, h, w) at a grid in the crop: (F, 32, 40) in [0, 1]."""
    size = torch.tensor([grey.shape[2], grey.shape[1]], dtype=torch.float32)
    at = (grid - torch.tensor([_LEFT, _TOP]) + 0.5) * (2 / size) - 1
    flat = torch.from_numpy(grey).float().div_(255)[None]
    return F.grid_sample(flat, at[None], "bilinear", "border", align_corners=False)[0]


def _load(clip: CachedClip) -> SyncClip:
    with open_clip(clip) as tensors:
        frames, audio = tensors.get_tensor("frames"), tensors.get_tensor("audio")
    if frames.shape[1:3] != (FRAME_HEIGHT, FRAME_WIDTH):
        raise DataError(f"{clip.file}: the sync network wants crops of 128 x 96; prepare again")
    if len(audio) != len(frames) * FRAME_SAMPLES:
        raise DataError(f"{clip.file}: holds another sound than 16 kHz at 25 fps; prepare again")
    grey = np.rint(frames[:, _TOP:_BOTTOM, _LEFT:_RIGHT] @ np.array(GREY, np.float32))
    return SyncClip(clip, grey.astype(np.uint8), audio)
