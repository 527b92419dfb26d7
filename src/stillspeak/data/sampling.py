"""What each training example is drawn as: which clip, which stretch of it, which still.

Where examples are made does not matter to the draw: :class:`~stillspeak.data.dataset.TrainingData`
and :class:`~stillspeak.data.device_dataset.DeviceDataset` follow the same plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.data.augment import draw_factor
from stillspeak.data.cache import CachedClip
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.errors import DataError


class SpeakerSampler:
    """Draws clips, given by number and speaker: first a speaker, then one of the speaker's clips.
    A balance of 0 draws every clip alike, 1 every speaker alike."""

    def __init__(self, clips: Iterable[tuple[int, str]], balance: float) -> None:
        groups: dict[str, list[int]] = defaultdict(list)
        for index, speaker in clips:
            groups[speaker].append(index)
        self.groups = {speaker: groups[speaker] for speaker in sorted(groups)}
        """Clips of each speaker."""
        self._lists = list(self.groups.values())
        counts = np.array([len(group) for group in self._lists], float)
        weights = counts ** (1 - balance)
        self.weights: npt.NDArray[np.float64] = weights / max(weights.sum(), 1e-12)

    @property
    def speakers(self) -> dict[str, int]:
        return {speaker: len(group) for speaker, group in self.groups.items()}

    def draw_speaker(self, random: np.random.Generator) -> list[int]:
        """The clips of a speaker."""
        return self._lists[random.choice(len(self._lists), p=self.weights)]

    def draw(self, random: np.random.Generator) -> int:
        """A clip."""
        return int(random.choice(self.draw_speaker(random)))


class Stretch(NamedTuple):
    """A stretch of a clip: its number, the first frame, and source frames a frame. With the speed
    pitch, formants and articulation rate change together, and the frames follow."""

    clip: int
    first: float
    speed: float

    def times(self, frames: int) -> npt.NDArray[np.float64]:
        """Where each frame lies in the clip, in frames."""
        return np.asarray(self.first + self.speed * np.arange(frames), np.float64)


class Shown(NamedTuple):
    """Which of an example's windows are decoded (K,), the still's clip and frame, and whether
    the example is mirrored."""

    positions: npt.NDArray[np.int64]
    still_clip: int
    still_frame: int
    mirrored: bool


class DrawPlan:
    """Draws examples from the clips that are long enough, which :attr:`clips` lists.

    Raises:
        DataError: no clip is long enough for the windows asked for.
    """

    def __init__(
        self, clips: Sequence[CachedClip], data: DataConfig, augment: AugmentConfig
    ) -> None:
        self.clips = [clip for clip in clips if clip.frames >= data.window_frames]
        if not self.clips:
            raise DataError(
                f"the prepared data holds no training clip of {data.window_frames} frames or "
                "more; prepare longer clips or lower data.window_frames"
            )
        self._data, self._augment = data, augment
        # A batch has one length, so the shortest clip limits it.
        self.audio_frames = min(data.audio_window_frames, min(clip.frames for clip in self.clips))
        balance = data.audio_speaker_balance
        numbered = [(index, clip.speaker) for index, clip in enumerate(self.clips)]
        self.heard = SpeakerSampler(numbered, data.speaker_balance if balance is None else balance)
        self.seen = SpeakerSampler(numbered, data.speaker_balance)

    def leave_unseen(self, clips: Iterable[int]) -> None:
        """Draw these clips in the audio warm start alone: they have no pictures."""
        unseen = set(clips)
        numbered = ((i, clip.speaker) for i, clip in enumerate(self.clips) if i not in unseen)
        self.seen = SpeakerSampler(numbered, self._data.speaker_balance)

    def stretch(self, sampler: SpeakerSampler, frames: int, random: np.random.Generator) -> Stretch:
        clip = sampler.draw(random)
        length = self.clips[clip].frames
        changed = self._augment.speed and random.random() < 0.7
        speed = draw_factor(self._augment.speed, random) if changed else 1.0
        speed = min(speed, (length - 1) / max(frames - 1, 1))
        first = random.uniform(0, max(length - 1 - (frames - 1) * speed, 0))
        return Stretch(clip, float(round(first)) if speed == 1.0 else first, speed)

    def shown(self, clip: int, random: np.random.Generator) -> Shown:
        """What an example from a stretch of this clip shows."""
        data = self._data
        count = data.window_frames - data.lead_frames
        if data.consecutive:
            first = int(random.integers(count - data.decoded_frames + 1))
            chosen = first + np.arange(data.decoded_frames)
        else:
            chosen = np.sort(random.choice(count, data.decoded_frames, replace=False))
        other, frame = clip, 0
        if random.random() < data.other_clip:
            other = int(random.choice(self.seen.groups[self.clips[clip].speaker]))
        if random.random() >= data.first_frame:
            frame = int(random.integers(self.clips[other].frames))
        mirrored = random.random() < self._augment.mirror
        return Shown(data.lead_frames + chosen, other, frame, mirrored)
