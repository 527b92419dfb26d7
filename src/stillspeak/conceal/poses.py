"""What the sound says of the mouth: one pose a model frame, in a bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.models.generator import Generator
from stillspeak.synthesis import CHUNK, Recurrence

Waveform = npt.NDArray[np.float32]
Poses = npt.NDArray[np.float64]

_ON_THE_GRID = 0.06
"""Frames by which a place may miss a model frame and still be it: time stamps in milliseconds."""


class HeardPoses:
    """Mouth poses of a sound, in order, with a bounded memory.

    The recurrent state hears the sound from its beginning, whichever frames are asked for.
    Behind the sound's end there is silence.

    Args:
        generator: in evaluation mode, with decoder = "layers".
        sound: pieces (S,) float32 in [-1, 1] at the generator's rate; sample 0 is at place 0.
    """

    def __init__(self, generator: Generator, sound: Iterable[Waveform]) -> None:
        config = generator.config
        self._generator = generator
        self._sound: Iterator[Waveform] = iter(sound)
        self._heard = Recurrence(generator, 0)
        self._waiting: Waveform = np.zeros((config.window - config.hop) // 2, np.float32)
        self._kept: deque[Poses] = deque()
        self._first = 0

    def at(self, places: npt.NDArray[np.float64]) -> Poses:
        """Poses at places, in model frames from the sound's beginning on.

        Between two frames they are mixed, for videos with another rate than the model's.

        Args:
            places: (T,), none before what :meth:`forget` was given.

        Returns:
            (T, 41, 2) displacements from the mouth at rest, see :mod:`stillspeak.face.pose`.
        """
        return np.stack([self._mixed(max(float(place), 0.0)) for place in places])

    def forget(self, place: float) -> None:
        """Nothing before this place will be asked for any more."""
        first = max(int(np.floor(place)) - 1, 0)
        while self._first + len(self._kept) < first:
            self._first += len(self._kept)
            self._kept.clear()
            self._hear()
        while self._first < first:
            self._kept.popleft()
            self._first += 1

    def _mixed(self, place: float) -> Poses:
        nearest = round(place)
        if abs(place - nearest) <= _ON_THE_GRID:
            return self._frame(nearest)
        first = int(np.floor(place))
        a, b = self._frame(first), self._frame(first + 1)
        return a + (place - first) * (b - a)

    def _frame(self, index: int) -> Poses:
        if index < self._first:
            raise ValueError(f"frame {index} was forgotten, the first one kept is {self._first}")
        while index >= self._first + len(self._kept):
            self._hear()
        return self._kept[index - self._first]

    @torch.inference_mode()
    def _hear(self) -> None:
        """Hear the next :data:`CHUNK` frames, as many at a time as ``animate`` does."""
        config = self._generator.config
        needed = (CHUNK - 1) * config.hop + config.window
        pieces, length = [self._waiting], len(self._waiting)
        while length < needed:
            piece = next(self._sound, None)
            if piece is None:
                piece = np.zeros(needed - length, np.float32)
            pieces.append(piece)
            length += len(piece)
        heard = np.concatenate(pieces)
        windows = np.lib.stride_tricks.sliding_window_view(heard[:needed], config.window)
        inputs = self._heard.inputs(windows[:: config.hop])
        poses, _, self._heard.state = self._generator.encode(*inputs)
        self._waiting = heard[CHUNK * config.hop :].copy()
        self._kept.extend(poses[0].double().cpu().numpy().reshape(CHUNK, -1, 2))
