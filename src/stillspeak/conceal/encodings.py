"""The sound as the generator hears it: one encoding a model frame, in a bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.models.generator import Generator
from stillspeak.synthesis import CHUNK, Recurrence

Waveform = npt.NDArray[np.float32]

_ON_THE_GRID = 0.06
"""Frames by which a place may miss a model frame and still be it: time stamps in milliseconds."""


class Encodings:
    """Context and noise encodings of a sound, in order, with a bounded memory.

    The recurrent state hears the sound from its beginning, whichever frames are asked for.
    Behind the sound's end there is silence.

    Args:
        generator: in evaluation mode.
        sound: pieces (S,) float32 in [-1, 1] at the generator's rate; sample 0 is at place 0.
        seed: of the noise.
    """

    def __init__(self, generator: Generator, sound: Iterable[Waveform], seed: int) -> None:
        config = generator.config
        self._generator = generator
        self._sound: Iterator[Waveform] = iter(sound)
        self._heard = Recurrence(generator, seed)
        self._waiting: Waveform = np.zeros((config.window - config.hop) // 2, np.float32)
        self._kept: deque[tuple[Tensor, Tensor]] = deque()
        self._first = 0

    def at(self, places: npt.NDArray[np.float64]) -> tuple[Tensor, Tensor]:
        """Encodings at places, in model frames from the sound's beginning on.

        Between two frames they are mixed, for videos with another rate than the model's.

        Args:
            places: (T,), none before what :meth:`forget` was given.

        Returns:
            z_c (1, T, context_dim) and z_n (1, T, noise_dim).
        """
        pairs = [self._mixed(max(float(place), 0.0)) for place in places]
        return (
            torch.stack([context for context, _ in pairs])[None],
            torch.stack([noise for _, noise in pairs])[None],
        )

    def forget(self, place: float) -> None:
        """Nothing before this place will be asked for any more."""
        first = max(int(np.floor(place)) - 1, 0)
        while self._first + len(self._kept) < first:
            self._first += len(self._kept)
            self._kept.clear()
            self._encode()
        while self._first < first:
            self._kept.popleft()
            self._first += 1

    def _mixed(self, place: float) -> tuple[Tensor, Tensor]:
        nearest = round(place)
        if abs(place - nearest) <= _ON_THE_GRID:
            return self._frame(nearest)
        first = int(np.floor(place))
        a, b = self._frame(first), self._frame(first + 1)
        share = place - first
        return torch.lerp(a[0], b[0], share), torch.lerp(a[1], b[1], share)

    def _frame(self, index: int) -> tuple[Tensor, Tensor]:
        if index < self._first:
            raise ValueError(f"frame {index} was forgotten, the first one kept is {self._first}")
        while index >= self._first + len(self._kept):
            self._encode()
        return self._kept[index - self._first]

    @torch.inference_mode()
    def _encode(self) -> None:
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
        context, noise, self._heard.state = self._generator.encode(*inputs)
        self._waiting = heard[CHUNK * config.hop :].copy()
        self._kept.extend(zip(context[0], noise[0], strict=True))
