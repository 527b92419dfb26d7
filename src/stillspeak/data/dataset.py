"""Training examples from a prepared cache.

An example is a pure function of (seed, step, number in the step): nothing about the sampler
has to be saved for a resumed run to see the same examples as a straight one, a crashed loader
cannot leave it half-way through an epoch, and any number of processes share a step's examples
without speaking to each other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.data.augment import augment_audio, augment_frames, time_stretch
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.prepare import (
    CachedClip,
    open_clip,
    sound_and_landmarks,
)
from stillspeak.errors import DataError
from stillspeak.face.mouth import MIRRORED_PAIRS, mouth_distances
from stillspeak.media.audio import frame_windows
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.pixels import to_model

T = TypeVar("T")


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


@dataclass(frozen=True)
class _Track:
    """What of a clip is kept in memory: its sound and its mouth, about 200 kB for 3 s."""

    clip: CachedClip
    audio: npt.NDArray[np.float32]  # (S,)
    mouth: npt.NDArray[np.float32]  # (T, 7)


class Examples(Protocol):
    """Where a run's batches come from: :class:`TrainingData`, or the same on an accelerator."""

    def __len__(self) -> int:
        """Clips."""

    @property
    def speakers(self) -> dict[str, int]:
        """Clips of each speaker."""

    def batch(self, step: int, part: int = 0) -> Batch:
        """The examples of a step."""

    def audio_batch(self, step: int, part: int = 0) -> AudioBatch:
        """The examples of a step of the audio warm start."""


class TrainingData:
    """Draws batches from the clips of a prepared cache.

    Frames stay on disk, where the file system's cache serves them; the sound and the mouth
    shapes are held in memory as 16-bit numbers' worth of float32.

    Args:
        clips: of the training split.
        data, augment: how examples are drawn and changed.
        generator: sizes and rates.
        seed: with the step and the example's number, decides each example.

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
    ) -> None:
        longest = max((clip.frames for clip in clips), default=0)
        if longest < data.window_frames:
            raise DataError(
                f"the prepared data holds no training clip of {data.window_frames} frames or "
                "more; prepare longer clips or lower data.window_frames"
            )
        self._data = data
        self._augment = augment
        self._generator = generator
        self._seed = seed
        self._tracks = [_load_track(c, generator) for c in clips if c.frames >= data.window_frames]
        # A batch has one length, so the shortest clip limits it.
        self._audio_frames = min(
            data.audio_window_frames, min(track.clip.frames for track in self._tracks)
        )
        self._by_speaker: dict[str, list[int]] = defaultdict(list)
        for index, track in enumerate(self._tracks):
            self._by_speaker[track.clip.speaker].append(index)
        self._speakers = sorted(self._by_speaker)
        counts = np.array([len(self._by_speaker[s]) for s in self._speakers], float)
        self._speaker_weights = balanced(counts, data.speaker_balance)
        balance = data.audio_speaker_balance
        self._audio_speaker_weights = (
            self._speaker_weights if balance is None else balanced(counts, balance)
        )

    def __len__(self) -> int:
        return len(self._tracks)

    @property
    def speakers(self) -> dict[str, int]:
        """Clips of each speaker."""
        return {s: len(self._by_speaker[s]) for s in self._speakers}

    def batch(self, step: int, part: int = 0) -> Batch:
        """The examples of a step.

        A step's examples are numbered through all its parts (processes and accumulated
        batches), and each is a function of its own number: n processes with a batch each see
        what one process with n times the batch sees.

        Args:
            step: counted from 0.
            part: which ``data.batch`` examples of the step.
        """
        size = self._data.batch
        return Batch(
            *map(
                torch.cat,
                zip(*(self._example(step, part * size + i) for i in range(size)), strict=True),
            )
        )

    def _example(self, step: int, number: int) -> Batch:
        """One example, as a batch of one."""
        config = self._data
        random = np.random.default_rng((self._seed, 1, step, number))
        track = self._draw(random, self._speaker_weights)
        windows, mouth, sources = self._speech(track, config.window_frames, random)
        positions = self._positions(random)
        shown = self._pictures(track, sources[positions], random)
        if random.random() < self._augment.mirror:
            shown = np.ascontiguousarray(shown[:, :, ::-1])
            mouth = mouth[:, MIRRORED_PAIRS]
        frames = torch.from_numpy(shown).permute(0, 3, 1, 2).contiguous().float()
        frames = frames.div_(127.5).sub_(1).unsqueeze(0)
        frames = augment_frames(frames, self._augment, random)
        return Batch(
            windows=torch.from_numpy(windows)[None],
            mouth=torch.from_numpy(mouth)[None],
            still=frames[:, 0],
            frames=frames[:, 1:],
            positions=torch.from_numpy(positions)[None],
        )

    def _positions(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Which of an example's windows are decoded: K of T, in order."""
        config = self._data
        count = config.window_frames - config.lead_frames
        if config.consecutive:
            first = int(random.integers(count - config.decoded_frames + 1))
            chosen = first + np.arange(config.decoded_frames)
        else:
            chosen = np.sort(random.choice(count, config.decoded_frames, replace=False))
        positions: npt.NDArray[np.int64] = config.lead_frames + chosen
        return positions

    def audio_batch(self, step: int, part: int = 0) -> AudioBatch:
        """The examples of a step of the audio warm start: no pictures are read."""
        size = self._data.audio_batch
        windows, mouths = [], []
        for number in range(part * size, (part + 1) * size):
            random = np.random.default_rng((self._seed, 2, step, number))
            track = self._draw(random, self._audio_speaker_weights)
            audio, mouth, _ = self._speech(track, self._audio_frames, random)
            windows.append(audio)
            mouths.append(mouth)
        return AudioBatch(torch.from_numpy(np.stack(windows)), torch.from_numpy(np.stack(mouths)))

    def _draw(
        self, random: np.random.Generator, speaker_weights: npt.NDArray[np.float64]
    ) -> _Track:
        speaker = self._speakers[random.choice(len(self._speakers), p=speaker_weights)]
        return self._tracks[int(random.choice(self._by_speaker[speaker]))]

    def _speech(
        self, track: _Track, frames: int, random: np.random.Generator
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """Audio windows (T, N), mouth (T, 7) and source frames (T,) of a random stretch.

        A change of speed by the factor a reads a T long stretch for T frames: voice pitch,
        formants and articulation rate change together, and the frames follow.
        """
        generator = self._generator
        speed = 1.0
        if self._augment.speed and random.random() < 0.7:
            speed = float(np.exp(random.uniform(-1, 1) * np.log1p(self._augment.speed)))
        speed = min(speed, (track.clip.frames - 1) / max(frames - 1, 1))
        last = max(track.clip.frames - 1 - (frames - 1) * speed, 0)
        first = random.uniform(0, last)
        if speed == 1.0:
            first = float(round(first))
        times = first + speed * np.arange(frames)
        sources = np.clip(np.rint(times), 0, track.clip.frames - 1).astype(np.int64)
        mouth = np.stack(
            [np.interp(times, np.arange(track.clip.frames), column) for column in track.mouth.T],
            axis=-1,
        ).astype(np.float32)

        # The windows' margins beyond the stretch hold the clip's real sound, as when used.
        margin = (generator.window - generator.hop) // 2
        count = frames * generator.hop + 2 * margin
        where = first * generator.hop + speed * (np.arange(count) - margin)
        audio = np.interp(where, np.arange(len(track.audio)), track.audio, left=0, right=0)
        audio = self._voice(audio.astype(np.float32), random)
        audio = augment_audio(audio, generator.sample_rate, self._augment, random)
        windows = np.lib.stride_tricks.sliding_window_view(audio, generator.window)
        return windows[:: generator.hop].copy(), mouth, sources

    def _voice(
        self, audio: npt.NDArray[np.float32], random: np.random.Generator
    ) -> npt.NDArray[np.float32]:
        """Another pitch and other formants at the same pace, half of the time. (S,) -> (S,)."""
        if not self._augment.pitch or random.random() < 0.5:
            return audio
        factor = float(np.exp(random.uniform(-1, 1) * np.log1p(self._augment.pitch)))
        # Played faster it is higher and shorter; stretched back it is only higher.
        count = round(len(audio) / factor)
        played = np.interp(factor * np.arange(count), np.arange(len(audio)), audio)
        stretched = time_stretch(
            played.astype(np.float32), len(audio) / count, self._generator.sample_rate
        )
        return stretched[: len(audio)]

    def _pictures(
        self, track: _Track, sources: npt.NDArray[np.int64], random: np.random.Generator
    ) -> npt.NDArray[np.uint8]:
        """The still and the frames at ``sources``: (1+K, H, W, 3)."""
        other = track
        if random.random() < self._data.other_clip:
            other = self._tracks[random.choice(self._by_speaker[track.clip.speaker])]
        moment = 0
        if random.random() >= self._data.first_frame:
            moment = int(random.integers(other.clip.frames))
        still = read_frames(other.clip, np.array([moment]))
        return np.concatenate((still, read_frames(track.clip, sources)))


def balanced(counts: npt.NDArray[np.float64], balance: float) -> npt.NDArray[np.float64]:
    """How often each speaker is drawn, from how many clips each has; see DataConfig."""
    weights = counts ** (1 - balance)
    shares: npt.NDArray[np.float64] = weights / weights.sum()
    return shares


def _load_track(clip: CachedClip, generator: GeneratorConfig) -> _Track:
    with open_clip(clip) as tensors:
        audio, landmarks = sound_and_landmarks(tensors)
        height, width = tensors.get_slice("frames").get_shape()[1:3]
        if (height, width) != (generator.height, generator.width):
            raise DataError(
                f"{clip.file}: prepared as {height}x{width}, but the generator wants "
                f"{generator.height}x{generator.width}; prepare the corpus at that size"
            )
        if len(audio) != clip.frames * generator.hop:
            raise DataError(
                f"{clip.file}: holds {len(audio) / clip.frames:g} samples a frame, but the "
                f"generator wants {generator.hop} (generator.sample_rate, generator.fps)"
            )
    return _Track(clip, audio, mouth_shape(landmarks))


def mouth_shape(landmarks: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Mouth distances of a clip minus their mean, over their deviation.

    (T, 478, 2) pixels -> (T, 7) float32.
    """
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

    clip: CachedClip
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
        clip,
        torch.from_numpy(frame_windows(audio, generator.window, generator.hop).copy())[None],
        to_model(read_frames(clip, np.array([0]))),
        to_model(read_frames(clip, positions))[None],
        torch.from_numpy(positions)[None],
    )


class Prefetcher:
    """Makes batches ahead in one thread, with a bounded queue.

    Iterate over it once; leave with :meth:`close`. An exception in the thread is raised at
    the batch where it happened.

    Args:
        data: makes the batches.
        steps: which steps, in order.
        audio_steps: the steps before this one are of the audio warm start.
        parts: which parts of each step this process sees, one batch each.
        depth: batches made ahead.
    """

    def __init__(
        self,
        data: Examples,
        steps: range,
        *,
        audio_steps: int,
        parts: Sequence[int] = (0,),
        depth: int = 2,
    ) -> None:
        self._queue: Queue[Batch | AudioBatch | BaseException | None] = Queue(depth)
        self._stop = Event()

        def work() -> None:
            try:
                for step in steps:
                    make = data.audio_batch if step < audio_steps else data.batch
                    for part in parts:
                        self._put(make(step, part))
                        if self._stop.is_set():
                            return
                self._put(None)
            except BaseException as error:  # handed to the consumer, who raises it
                self._put(error)

        self._thread = Thread(target=work, name="stillspeak-prefetch", daemon=True)
        self._thread.start()

    def _put(self, item: Batch | AudioBatch | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.2)
                return
            except Full:
                continue

    def __iter__(self) -> Iterator[Batch | AudioBatch]:
        while True:
            item = self._queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        """Stop the thread and drop what it made."""
        self._stop.set()
        while True:
            try:
                self._queue.get_nowait()
            except Empty:
                break
        self._thread.join()


def grouped(batches: Iterable[T], size: int) -> Iterator[list[T]]:
    """Batches in lists of ``size``; an unfinished list at the end is dropped."""
    group: list[T] = []
    for batch in batches:
        group.append(batch)
        if len(group) == size:
            yield group
            group = []
