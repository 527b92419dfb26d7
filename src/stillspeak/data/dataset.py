"""Training examples from a prepared cache.

An example is a pure function of (seed, step, number in the step): nothing about the sampler
has to be saved for a resumed run to see the same examples as a straight one, a crashed loader
cannot leave it half-way through an epoch, and any number of processes share a step's examples
without speaking to each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.data.augment import augment_audio, augment_frames, draw_factor, other_voice
from stillspeak.data.cache import CachedClip, open_clip, sound_and_landmarks
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.sampling import DrawPlan, Stretch
from stillspeak.errors import DataError
from stillspeak.face.mouth import MIRRORED_PAIRS, mouth_distances
from stillspeak.media.audio import frame_windows
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.pixels import to_model


class Batch(NamedTuple):
    """Examples for one step of training. K decoded frames of T audio windows.

    windows: (B, T, N) float32 in [-1, 1].
    mouth: (B, T, 7) float32, mouth distances minus the clip's mean, over its deviation.
    still: (B, 3, H, W) float32 in [-1, 1].
    frames: (B, K, 3, H, W) float32 in [-1, 1].
    positions: (B, K) int64, which of the T windows each frame belongs to.
    """

    windows: Tensor
    mouth: Tensor
    still: Tensor
    frames: Tensor
    positions: Tensor


class AudioBatch(NamedTuple):
    """Examples for the audio warm start: fields as in :class:`Batch`."""

    windows: Tensor
    mouth: Tensor


class Track(NamedTuple):
    """A clip in memory: audio (S,), mouth (T, 7) and, where asked for, frames (T, H, W, 3)."""

    audio: npt.NDArray[np.float32]
    mouth: npt.NDArray[np.float32]
    frames: npt.NDArray[np.uint8] | None = None


class Examples(ABC):
    """Draws batches from the clips of a prepared cache.

    Args:
        clips: of the training split.
        data, augment: how examples are drawn and changed.
        generator: sizes and rates.
        seed: with the step and the example's number, decides each example.
        device: where a :class:`~stillspeak.data.device_dataset.DeviceDataset` makes the batches.

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
        device: torch.device | None = None,
    ) -> None:
        self._data, self._augment, self._generator = data, augment, generator
        self._seed, self._device = seed, device or torch.device("cpu")
        self._plan = DrawPlan(clips, data, augment)
        self._hold()

    def __len__(self) -> int:
        return len(self._plan.clips)

    @property
    def speakers(self) -> dict[str, int]:
        """Clips of each speaker."""
        return self._plan.heard.speakers

    @abstractmethod
    def _hold(self) -> None:
        """Read what is held in memory."""

    @abstractmethod
    def batch(self, step: int, part: int = 0) -> Batch:
        """The examples of a step, counted from 0.

        They are numbered through all its parts (processes and accumulated batches), and each is
        a function of its own number: n processes with a batch each see what one process with n
        times the batch sees.
        """

    @abstractmethod
    def audio_batch(self, step: int, part: int = 0) -> AudioBatch:
        """The examples of a step of the audio warm start: no pictures are read."""

    def _randoms(self, purpose: int, step: int, part: int, size: int) -> list[np.random.Generator]:
        numbers = range(part * size, (part + 1) * size)
        return [np.random.default_rng((self._seed, purpose, step, n)) for n in numbers]

    def _load(self, clip: CachedClip, *, frames: bool = False) -> Track:
        """A clip's sound and mouth; with ``frames`` its frames as well, if it has any."""
        generator = self._generator
        with open_clip(clip) as tensors:
            audio, landmarks = sound_and_landmarks(tensors)
            if len(audio) != clip.frames * generator.hop:
                raise DataError(
                    f"{clip.file}: holds {len(audio) / clip.frames:g} samples a frame, but the "
                    f"generator wants {generator.hop} (generator.sample_rate, generator.fps)"
                )
            track = Track(audio, mouth_shape(landmarks))
            if frames and not tensors.has("frames"):
                return track
            height, width = tensors.get_slice("frames").get_shape()[1:3]
            if (height, width) != (generator.height, generator.width):
                raise DataError(
                    f"{clip.file}: prepared as {height}x{width}, but the generator wants "
                    f"{generator.height}x{generator.width}; prepare the corpus at that size"
                )
            return track._replace(frames=tensors.get_tensor("frames")) if frames else track


class TrainingData(Examples):
    """Frames stay on disk, where the file system's cache serves them; the sound and the mouth
    shapes are held in memory."""

    def _hold(self) -> None:
        self._tracks = [self._load(clip) for clip in self._plan.clips]

    def batch(self, step: int, part: int = 0) -> Batch:
        examples = [self._example(r) for r in self._randoms(1, step, part, self._data.batch)]
        return Batch(*map(torch.cat, zip(*examples, strict=True)))

    def _example(self, random: np.random.Generator) -> Batch:
        """One example, as a batch of one."""
        plan, count = self._plan, self._data.window_frames
        stretch = plan.stretch(plan.seen, count, random)
        windows, mouth = self._speech(stretch, count, random)
        shown = plan.shown(stretch.clip, random)
        clip = plan.clips[stretch.clip]
        sources = np.clip(np.rint(stretch.times(count)), 0, clip.frames - 1).astype(np.int64)
        pictures = np.concatenate(
            (
                read_frames(plan.clips[shown.still_clip], np.array([shown.still_frame])),
                read_frames(clip, sources[shown.positions]),
            )
        )
        if shown.mirrored:
            pictures = np.ascontiguousarray(pictures[:, :, ::-1])
            mouth = mouth[:, MIRRORED_PAIRS]
        frames = augment_frames(to_model(pictures)[None], self._augment, random)
        return Batch(
            windows=torch.from_numpy(windows)[None],
            mouth=torch.from_numpy(mouth)[None],
            still=frames[:, 0],
            frames=frames[:, 1:],
            positions=torch.from_numpy(shown.positions)[None],
        )

    def audio_batch(self, step: int, part: int = 0) -> AudioBatch:
        plan = self._plan
        examples = []
        for random in self._randoms(2, step, part, self._data.audio_batch):
            stretch = plan.stretch(plan.heard, plan.audio_frames, random)
            examples.append(self._speech(stretch, plan.audio_frames, random))
        return AudioBatch(
            *(torch.from_numpy(np.stack(column)) for column in zip(*examples, strict=True))
        )

    def _speech(
        self, stretch: Stretch, frames: int, random: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Audio windows (T, N) and mouth (T, 7) of a stretch."""
        generator, track = self._generator, self._tracks[stretch.clip]
        times, moments = stretch.times(frames), np.arange(len(track.mouth))
        mouth = np.stack([np.interp(times, moments, column) for column in track.mouth.T], axis=-1)

        # The windows' margins beyond the stretch hold the clip's real sound, as when used.
        margin = (generator.window - generator.hop) // 2
        count = frames * generator.hop + 2 * margin
        where = stretch.first * generator.hop + stretch.speed * (np.arange(count) - margin)
        sound = np.interp(where, np.arange(len(track.audio)), track.audio, left=0, right=0)
        audio = sound.astype(np.float32)
        if self._augment.pitch and random.random() >= 0.5:
            factor = draw_factor(self._augment.pitch, random)
            audio = other_voice(audio, factor, generator.sample_rate)
        audio = augment_audio(audio, generator.sample_rate, self._augment, random)
        windows = np.lib.stride_tricks.sliding_window_view(audio, generator.window)
        return windows[:: generator.hop].copy(), mouth.astype(np.float32)


def mouth_shape(landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mouth distances minus their mean, over their deviation: (T, 478, 2) -> (T, 7) float32."""
    mouth = mouth_distances(landmarks)
    deviation = np.maximum(mouth.std(axis=0), 0.25)  # a still mouth must not become noise
    shape: npt.NDArray[np.float32] = (mouth - mouth.mean(axis=0)) / deviation
    return shape


def read_frames(clip: CachedClip, indices: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Some frames of a prepared clip: (K, H, W, 3) uint8."""
    with open_clip(clip) as tensors:
        frames = tensors.get_slice("frames")
        return np.concatenate([frames[int(i) : int(i) + 1] for i in indices])


class ClipExample(NamedTuple):
    """A whole prepared clip, as validation wants it.

    windows (1, T, N); still (1, 3, H, W), the clip's first frame; frames (1, K, 3, H, W);
    positions (1, K).
    """

    windows: Tensor
    still: Tensor
    frames: Tensor
    positions: Tensor


def whole_clip(clip: CachedClip, generator: GeneratorConfig, *, every: int = 1) -> ClipExample:
    """A clip with its first frame as the still; of its frames every ``every``-th."""
    positions = np.arange(0, clip.frames, every)
    with open_clip(clip) as tensors:
        audio, _ = sound_and_landmarks(tensors)
    return ClipExample(
        torch.from_numpy(frame_windows(audio, generator.window, generator.hop).copy())[None],
        to_model(read_frames(clip, np.array([0]))),
        to_model(read_frames(clip, positions))[None],
        torch.from_numpy(positions)[None],
    )
