"""Training examples made on the accelerator, from a cache that lies in its memory.

A loader on the CPU makes a few dozen examples a second and core; an accelerator trains on a
thousand. So a small corpus goes to the device as a whole, once, and examples are drawn and
changed there, a whole batch at a time. A clip of three seconds takes 8 MB with its pictures
and 0.2 MB without.

A batch is a function of (seed, step, part), as in :mod:`stillspeak.data.dataset`, but another one
than there; on another kind of device its noise differs.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.data.augment import augment_frames, augment_waveforms
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.dataset import (
    AudioBatch,
    Batch,
    Examples,
    Prefetcher,
    balanced,
    mouth_shape,
)
from stillspeak.data.prepare import CachedClip, open_clip, sound_and_landmarks
from stillspeak.errors import DataError
from stillspeak.face.mouth import MIRRORED_PAIRS
from stillspeak.models.config import GeneratorConfig


class _Clip(NamedTuple):
    """What is read of a clip; pictures are None for a clip that has none."""

    audio: npt.NDArray[np.float32]  # (S,)
    mouth: npt.NDArray[np.float32]  # (T, 7)
    frames: npt.NDArray[np.uint8] | None  # (T, H, W, 3)


class _Draw(NamedTuple):
    """Which stretch of which clip each example of a batch is: (B,) each."""

    clips: npt.NDArray[np.int64]
    first: npt.NDArray[np.float64]  # in frames
    speed: npt.NDArray[np.float64]


class ResidentData:
    """Draws batches from clips that are held in a device's memory.

    Clips without pictures serve the audio warm start alone.

    Args:
        clips: of the training split.
        data, augment: how examples are drawn and changed.
        generator: sizes and rates.
        seed: with the step and the part, decides each batch.
        device: where the clips go and the batches are made.

    Raises:
        DataError: no clip, clips too short for the windows asked for, or prepared at other
            sizes or rates than the generator's.
    """

    def __init__(
        self,
        clips: Sequence[CachedClip],
        data: DataConfig,
        augment: AugmentConfig,
        generator: GeneratorConfig,
        *,
        seed: int,
        device: torch.device,
    ) -> None:
        self._clips = [clip for clip in clips if clip.frames >= data.window_frames]
        if not self._clips:
            raise DataError(
                f"the prepared data holds no training clip of {data.window_frames} frames or "
                "more; prepare longer clips or lower data.window_frames"
            )
        self._data = data
        self._augment = augment
        self._generator = generator
        self._seed = seed
        self._device = device

        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            read = list(pool.map(self._read, self._clips))
        self._lengths = np.array([clip.frames for clip in self._clips])
        # Where each clip begins, in frames: of all clips, and of those with pictures.
        self._begins = np.concatenate(([0], np.cumsum(self._lengths)[:-1]))
        pictured = np.array([clip.frames is not None for clip in read])
        shown = np.where(pictured, self._lengths, 0)
        self._shown_from = np.cumsum(shown) - shown
        self._audio = self._put([clip.audio for clip in read])
        self._mouth = self._put([clip.mouth for clip in read])
        self._frames = self._put([clip.frames for clip in read if clip.frames is not None])
        self._audio_frames = int(min(data.audio_window_frames, self._lengths.min()))

        self._by_speaker: dict[str, list[int]] = defaultdict(list)
        self._pictured: dict[str, list[int]] = defaultdict(list)
        for index, clip in enumerate(self._clips):
            self._by_speaker[clip.speaker].append(index)
            if pictured[index]:
                self._pictured[clip.speaker].append(index)
        balance = data.audio_speaker_balance
        self._audio_weights = self._weights(
            self._by_speaker, data.speaker_balance if balance is None else balance
        )
        self._weights_pictured = self._weights(self._pictured, data.speaker_balance)

    def __len__(self) -> int:
        return len(self._clips)

    @property
    def speakers(self) -> dict[str, int]:
        """Clips of each speaker."""
        return {speaker: len(self._by_speaker[speaker]) for speaker in sorted(self._by_speaker)}

    def batch(self, step: int, part: int = 0) -> Batch:
        """The examples of a step, on the device. Arguments as ``TrainingData.batch``'s.

        Raises:
            DataError: no clip has pictures.
        """
        config = self._data
        if not self._pictured:
            raise DataError("no clip of the prepared data has pictures, only sound")
        random = np.random.default_rng((self._seed, 1, step, part))
        draw = self._draw(random, config.batch, config.window_frames, pictured=True)
        windows, mouth, sources = self._speech(draw, config.window_frames, random, (step, part))
        positions = np.stack([self._positions(random) for _ in range(config.batch)])
        shown = np.take_along_axis(sources, positions, axis=1)
        others, moments = self._stills(draw.clips, random)
        own = self._shown_from[draw.clips][:, None] + shown
        stills = (self._shown_from[others] + moments)[:, None]
        places = self._index(np.concatenate((stills, own), axis=1))
        frames = self._pictures(self._frames, places)

        mirrored = random.random(config.batch) < self._augment.mirror
        flip = torch.from_numpy(mirrored).to(self._device)
        frames = torch.where(flip.view(-1, 1, 1, 1, 1), frames.flip(-1), frames)
        mouth = torch.where(flip.view(-1, 1, 1), mouth[..., MIRRORED_PAIRS], mouth)

        frames = augment_frames(frames, self._augment, random)
        return Batch(
            windows=windows,
            mouth=mouth,
            still=frames[:, 0],
            frames=frames[:, 1:],
            positions=self._index(positions),
        )

    def audio_batch(self, step: int, part: int = 0) -> AudioBatch:
        """The examples of a step of the audio warm start, on the device."""
        size = self._data.audio_batch
        random = np.random.default_rng((self._seed, 2, step, part))
        draw = self._draw(random, size, self._audio_frames, pictured=False)
        windows, mouth, _ = self._speech(draw, self._audio_frames, random, (step, part))
        return AudioBatch(windows, mouth)

    # --- drawing ------------------------------------------------------------------------

    def _draw(
        self, random: np.random.Generator, size: int, frames: int, *, pictured: bool
    ) -> _Draw:
        own = self._pictured if pictured else self._by_speaker
        weights = self._weights_pictured if pictured else self._audio_weights
        names = sorted(own)
        speakers = random.choice(len(names), size, p=weights)
        clips = np.array([int(random.choice(own[names[speaker]])) for speaker in speakers])
        lengths = self._lengths[clips]
        speed = np.ones(size)
        if self._augment.speed:
            drawn = np.exp(random.uniform(-1, 1, size) * np.log1p(self._augment.speed))
            speed = np.where(random.random(size) < 0.7, drawn, 1.0)
        speed = np.minimum(speed, (lengths - 1) / max(frames - 1, 1))
        first = random.uniform(0, np.maximum(lengths - 1 - (frames - 1) * speed, 0))
        return _Draw(clips, np.where(speed == 1.0, np.round(first), first), speed)

    def _positions(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        config = self._data
        count = config.window_frames - config.lead_frames
        if config.consecutive:
            first = int(random.integers(count - config.decoded_frames + 1))
            return config.lead_frames + first + np.arange(config.decoded_frames)
        chosen = np.sort(random.choice(count, config.decoded_frames, replace=False))
        positions: npt.NDArray[np.int64] = config.lead_frames + chosen
        return positions

    def _stills(
        self, clips: npt.NDArray[np.int64], random: np.random.Generator
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """The clip that each still comes from, and its frame."""
        others = clips.copy()
        for place in np.flatnonzero(random.random(len(clips)) < self._data.other_clip):
            others[place] = random.choice(self._pictured[self._clips[clips[place]].speaker])
        moments = random.integers(self._lengths[others])
        return others, np.where(random.random(len(clips)) < self._data.first_frame, 0, moments)

    # --- sound and mouth ----------------------------------------------------------------

    def _speech(
        self, draw: _Draw, frames: int, random: np.random.Generator, where: tuple[int, int]
    ) -> tuple[Tensor, Tensor, npt.NDArray[np.int64]]:
        """Audio windows (B, T, N), mouth (B, T, 7), both on the device, and source frames (B, T);
        as ``TrainingData`` makes them."""
        generator = self._generator
        lengths = self._lengths[draw.clips][:, None]
        times = draw.first[:, None] + draw.speed[:, None] * np.arange(frames)
        times = np.clip(times, 0, lengths - 1)
        sources = np.rint(times).astype(np.int64)
        below = np.floor(times).astype(np.int64)
        begins = self._begins[draw.clips][:, None]
        share = torch.from_numpy((times - below).astype(np.float32)).to(self._device)
        mouth = torch.lerp(
            self._mouth[self._index(begins + below)],
            self._mouth[self._index(begins + np.minimum(below + 1, lengths - 1))],
            share.unsqueeze(-1),
        )

        # The windows' margins beyond the stretch hold the clip's real sound, as when used.
        margin = (generator.window - generator.hop) // 2
        count = frames * generator.hop + 2 * margin
        first, speed, start, samples = (
            torch.from_numpy(np.asarray(values, np.float64)).to(self._device)[:, None]
            for values in (
                draw.first * generator.hop,
                draw.speed,
                self._begins[draw.clips] * generator.hop,
                self._lengths[draw.clips] * generator.hop,
            )
        )
        steps = torch.arange(count, dtype=torch.float64, device=self._device) - margin
        at = first + speed * steps
        inside = (at >= 0) & (at <= samples - 1)
        at = torch.minimum(at.clamp_min(0), samples - 1)
        floor = at.floor()
        after = torch.minimum(floor + 1, samples - 1)
        audio = torch.lerp(
            self._audio[(start + floor).long()],
            self._audio[(start + after).long()],
            (at - floor).float(),
        )
        seed = np.random.SeedSequence((self._seed, 5, *where)).generate_state(1)[0]
        noise = torch.Generator(self._device).manual_seed(int(seed))
        audio = augment_waveforms(
            audio * inside, generator.sample_rate, self._augment, random, noise
        )
        return audio.unfold(1, generator.window, generator.hop).contiguous(), mouth, sources

    # --- memory -------------------------------------------------------------------------

    def _read(self, clip: CachedClip) -> _Clip:
        generator = self._generator
        with open_clip(clip) as tensors:
            audio, landmarks = sound_and_landmarks(tensors)
            if len(audio) != clip.frames * generator.hop:
                raise DataError(
                    f"{clip.file}: holds {len(audio) / clip.frames:g} samples a frame, but the "
                    f"generator wants {generator.hop} (generator.sample_rate, generator.fps)"
                )
            mouth = mouth_shape(landmarks)
            if not tensors.has("frames"):
                return _Clip(audio, mouth, None)
            frames = tensors.get_tensor("frames")
            if frames.shape[1:3] != (generator.height, generator.width):
                height, width = frames.shape[1:3]
                raise DataError(
                    f"{clip.file}: prepared as {height}x{width}, but the generator wants "
                    f"{generator.height}x{generator.width}; prepare the corpus at that size"
                )
        return _Clip(audio, mouth, frames)

    def _put(self, parts: Sequence[npt.NDArray[np.generic]]) -> Tensor:
        """Arrays one after the other, on the device; pictures with their channels first."""
        if not parts:
            return torch.empty(0, device=self._device)
        tensors = [torch.from_numpy(part).to(self._device) for part in parts]
        if tensors[0].ndim == 4:
            tensors = [tensor.permute(0, 3, 1, 2).contiguous() for tensor in tensors]
        return torch.cat(tensors)

    def _pictures(self, pictures: Tensor, places: Tensor) -> Tensor:
        """Pictures (B, F, 3, h, w) in [-1, 1]."""
        return pictures[places].float().div_(127.5).sub_(1)

    def _index(self, values: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self._device)

    @staticmethod
    def _weights(by_speaker: dict[str, list[int]], balance: float) -> npt.NDArray[np.float64]:
        counts = np.array([len(by_speaker[speaker]) for speaker in sorted(by_speaker)], float)
        return balanced(counts, balance) if len(counts) else counts


class Direct:
    """Batches one after the other, made when they are asked for. For data on the accelerator,
    which a thread beside the training would only hold up. Arguments as ``Prefetcher``'s."""

    def __init__(
        self, data: Examples, steps: range, *, audio_steps: int, parts: Sequence[int] = (0,)
    ) -> None:
        self._data = data
        self._steps = steps
        self._audio_steps = audio_steps
        self._parts = parts

    def __iter__(self) -> Iterator[Batch | AudioBatch]:
        for step in self._steps:
            for part in self._parts:
                if step < self._audio_steps:
                    yield self._data.audio_batch(step, part)
                else:
                    yield self._data.batch(step, part)

    def close(self) -> None:
        """Nothing to stop."""


def open_loader(
    data: Examples, steps: range, *, audio_steps: int, parts: Sequence[int] = (0,)
) -> Prefetcher | Direct:
    """What gives the batches of some steps in order; close it in the end."""
    kind = Direct if isinstance(data, ResidentData) else Prefetcher
    return kind(data, steps, audio_steps=audio_steps, parts=parts)
