"""What the sound says of a mouth: displacements from the mouth at rest, one pose a model frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.media.audio import Waveform
from stillspeak.models.generator import Generator
from stillspeak.motion.frames import FaceMotion
from stillspeak.motion.process import MotionProcess
from stillspeak.synthesis import CHUNK, Recurrence

Poses = npt.NDArray[np.float64]

_ON_THE_GRID = 0.06
"""Frames by which a place may miss a model frame and still be it: time stamps in milliseconds."""


def model_place(seconds: float, fps: float, generator: Generator) -> float:
    """A video frame's place in model frames, the middles of both being brought together."""
    return (seconds + 0.5 / fps) * generator.config.fps - 0.5


class HeardPoses:
    """Mouth poses of a sound, in order, with a bounded memory; after its end there is silence.

    Args:
        generator: in evaluation mode, with decoder = "layers".
        sound: pieces (S,) float32 in [-1, 1] at the generator's rate; sample 0 is at place 0.
        motion: draws how eyes and brows move with it; None: they rest.
    """

    def __init__(
        self,
        generator: Generator,
        sound: Iterable[Waveform],
        motion: MotionProcess | None = None,
    ) -> None:
        config = generator.config
        self._generator = generator
        self._sound: Iterator[Waveform] = iter(sound)
        self._heard = Recurrence(generator, 0)
        self._waiting: Waveform = np.zeros((config.window - config.hop) // 2, np.float32)
        self._motion = motion
        self._kept: deque[tuple[Poses, Tensor]] = deque()
        self._first = 0

    def at(self, places: npt.NDArray[np.float64]) -> Poses:
        """Poses (T, 41, 2), see :mod:`stillspeak.face.mouth`, at places (T,) in model frames, none
        before what :meth:`forget` was given; mixed between two frames."""
        return np.stack([self._mixed(max(float(place), 0.0)) for place in places])

    def curves(self, places: npt.NDArray[np.float64]) -> Tensor:
        """Eyes and skin, see ``FaceMotion.within_face``, at the frames nearest to places."""
        return torch.stack([self._frame(max(round(place), 0))[1] for place in places.tolist()])

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
            return self._frame(nearest)[0]
        first = int(np.floor(place))
        a, b = self._frame(first)[0], self._frame(first + 1)[0]
        return a + (place - first) * (b - a)

    def _frame(self, index: int) -> tuple[Poses, Tensor]:
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
        windows = windows[:: config.hop]
        poses, _, self._heard.state = self._generator.encode(*self._heard.inputs(windows))
        self._waiting = heard[CHUNK * config.hop :].copy()
        moved = FaceMotion.rest(CHUNK) if self._motion is None else self._motion.draw(windows)
        curves = torch.from_numpy(moved.within_face())
        shapes = poses[0].double().cpu().numpy().reshape(CHUNK, -1, 2)
        self._kept.extend(zip(shapes, curves, strict=True))
