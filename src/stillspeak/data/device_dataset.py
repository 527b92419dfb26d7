"""Training examples made on the accelerator, from a cache that lies in its memory.

A loader on the CPU makes a few dozen examples a second and core; an accelerator trains on a
thousand. So a small corpus goes to the device as a whole, once, and examples are drawn and
changed there, a whole batch at a time. A clip of three seconds takes 8 MB with its pictures
and 0.2 MB without.

Examples follow the same plan as in :mod:`stillspeak.data.dataset`; changes of light and sound are
drawn a batch at a time, and on another kind of device the noise differs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.data.augment import augment_frames, augment_waveforms
from stillspeak.data.dataset import AudioBatch, Batch, Examples
from stillspeak.data.sampling import Stretch
from stillspeak.errors import DataError
from stillspeak.face.mouth import MIRRORED_PAIRS


class DeviceDataset(Examples):
    """Draws batches from clips that are held in a device's memory.

    Clips without pictures serve the audio warm start alone.
    """

    def _hold(self) -> None:
        own = self._plan.clips
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            tracks = list(pool.map(lambda clip: self._load(clip, frames=True), own))
        self._lengths = np.array([clip.frames for clip in own])
        # Where each clip begins, in frames: of all clips, and of those with pictures.
        self._begins = np.cumsum(self._lengths) - self._lengths
        pictured = np.array([track.frames is not None for track in tracks])
        shown = np.where(pictured, self._lengths, 0)
        self._shown_from = np.cumsum(shown) - shown
        self._plan.leave_unseen(np.flatnonzero(~pictured).tolist())
        self._audio = self._put([track.audio for track in tracks])
        self._mouth = self._put([track.mouth for track in tracks])
        self._frames = self._put([t.frames for t in tracks if t.frames is not None])

    def batch(self, step: int, part: int = 0) -> Batch:
        """See :meth:`Examples.batch`; an error too where no clip has pictures."""
        plan, count = self._plan, self._data.window_frames
        if not plan.seen.groups:
            raise DataError("no clip of the prepared data has pictures, only sound")
        randoms = self._randoms(1, step, part, self._data.batch)
        stretches = [plan.stretch(plan.seen, count, random) for random in randoms]
        shown = [plan.shown(s.clip, r) for s, r in zip(stretches, randoms, strict=True)]
        random = np.random.default_rng((self._seed, 6, step, part))
        windows, mouth, sources = self._speech(stretches, count, random, (step, part))
        positions = np.stack([one.positions for one in shown])
        own = self._shown_from[[s.clip for s in stretches]][:, None]
        own = own + np.take_along_axis(sources, positions, axis=1)
        stills = [self._shown_from[one.still_clip] + one.still_frame for one in shown]
        places = self._index(np.concatenate((np.array(stills)[:, None], own), axis=1))
        frames = self._frames[places].float().div_(127.5).sub_(1)
        flip = torch.tensor([one.mirrored for one in shown], device=self._device)
        frames = torch.where(flip.view(-1, 1, 1, 1, 1), frames.flip(-1), frames)
        mouth = torch.where(flip.view(-1, 1, 1), mouth[..., MIRRORED_PAIRS], mouth)
        frames = augment_frames(frames, self._augment, random)
        return Batch(windows, mouth, frames[:, 0], frames[:, 1:], self._index(positions))

    def audio_batch(self, step: int, part: int = 0) -> AudioBatch:
        plan = self._plan
        randoms = self._randoms(2, step, part, self._data.audio_batch)
        stretches = [plan.stretch(plan.heard, plan.audio_frames, random) for random in randoms]
        random = np.random.default_rng((self._seed, 7, step, part))
        return AudioBatch(*self._speech(stretches, plan.audio_frames, random, (step, part))[:2])

    def _speech(
        self,
        stretches: Sequence[Stretch],
        frames: int,
        random: np.random.Generator,
        where: tuple[int, int],
    ) -> tuple[Tensor, Tensor, npt.NDArray[np.int64]]:
        """Audio windows (B, T, N), mouth (B, T, 7), both on the device, and source frames (B, T);
        as ``TrainingData`` makes them."""
        generator = self._generator
        clips = np.array([stretch.clip for stretch in stretches])
        lengths = self._lengths[clips][:, None]
        times = np.clip(np.stack([s.times(frames) for s in stretches]), 0, lengths - 1)
        sources = np.rint(times).astype(np.int64)
        below = np.floor(times).astype(np.int64)
        begins = self._begins[clips][:, None]
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
                np.array([s.first for s in stretches]) * generator.hop,
                [s.speed for s in stretches],
                self._begins[clips] * generator.hop,
                self._lengths[clips] * generator.hop,
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

    def _put(self, parts: Sequence[npt.NDArray[np.generic]]) -> Tensor:
        """Arrays one after the other, on the device; pictures with their channels first."""
        if not parts:
            return torch.empty(0, device=self._device)
        tensors = [torch.from_numpy(part).to(self._device) for part in parts]
        if tensors[0].ndim == 4:
            tensors = [tensor.permute(0, 3, 1, 2).contiguous() for tensor in tensors]
        return torch.cat(tensors)

    def _index(self, values: npt.NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(values).to(self._device)
