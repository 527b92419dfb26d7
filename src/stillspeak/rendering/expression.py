"""When a face blinks, moves its brows and looks aside: what speech does not say.

The paper leaves it to its noise generator and an adversary (section 2.1.2). Here the noise drives
curves with a meaning, which geometry follows.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stillspeak.constants import BLINK_PEAK, BROW_PIXELS

BLINK_RATE = 0.4
"""Blinks a second (people who speak: 0.3 to 0.5)."""

BLINK_PAUSE = 0.9
"""Seconds between the starts of two blinks at least."""

BLINK_PROFILE = (0.12, 0.63, 1.0, 0.83, 0.41, 0.19, 0.13, 0.09)
"""A blink at 25 frames a second, from its first frame: median of 300 blinks of GRID's training
speakers around their peak, over that peak. Closing takes two frames, opening four."""

BROW_DEVIATION = 0.38
"""Pixels: median over clips of the brows' standard deviation, which fades as e^(-t / 0.25 s)."""

BROW_MEMORY = 0.85
"""Correlation of the brows' height from one frame to the next, over the same clips."""


GAZE_DEGREES = (1.0, 0.4)
"""Standard deviation of a glance, across and down."""

GAZE_MOST = 2.0
"""Degrees beyond which no glance goes, at strength 1."""

GAZE_HOLD = (0.5, 3.0)
"""Seconds between two saccades: least and most. Most are nearer to the least."""

GAZE_AWAY = 0.4
"""Probability that a saccade from the camera leads to somewhere else; the others only seem none.
From elsewhere two in three lead back."""

SACCADE_SECONDS = 0.035
"""How long a saccade takes."""

CURVES = 4
"""Numbers a frame, see :meth:`ExpressionProcess.draw`."""


class ExpressionProcess:
    """Draws the curves frame by frame; how many are asked for at a time does not matter.

    ``blink`` multiplies :data:`BLINK_RATE`, ``strength`` the movements of brows and gaze.
    """

    def __init__(
        self, seed: int, *, fps: float = 25.0, blink: float = 1.0, strength: float = 1.0
    ) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._fps, self._blink, self._strength = fps, blink, strength
        self._since = math.inf  # seconds since the last blink began
        self._peak = self._brow = 0.0
        self._gaze = _Gaze(seed, fps)

    def draw(self, frames: int) -> Tensor:
        """The next frames' expression, relative to the still's.

        Returns:
            (1, T, 4) float32: how much further the eyes are closed (``constants.EXPRESSION_DIM``),
            how much higher the brows are (units of ``constants.BROW_PIXELS``), and how far the
            gaze is turned to the right and down, in degrees.
        """
        # A first frame like the still: the curves start at rest.
        rows = []
        for _ in range(frames):
            across, down = self._gaze.next()
            rows.append((*self._next(), self._strength * across, self._strength * down))
        return torch.tensor(rows, dtype=torch.float32).view(1, frames, CURVES)

    def _next(self) -> tuple[float, float]:
        # As many draws in every frame, whatever happens in it.
        chance, size = torch.rand(2, generator=self._random).tolist()
        step = float(torch.randn(1, generator=self._random))
        closed = self._closure()
        self._since += 1 / self._fps
        if self._since >= BLINK_PAUSE and chance < self._hazard():
            self._since = 0.0
            self._peak = BLINK_PEAK[0] + size * (BLINK_PEAK[1] - BLINK_PEAK[0])
        brow = self._brow
        memory = BROW_MEMORY ** (25 / self._fps)
        self._brow = memory * brow + math.sqrt(1 - memory**2) * BROW_DEVIATION * step
        return closed, self._strength * brow / BROW_PIXELS

    def _hazard(self) -> float:
        """Probability of a blink in a frame once the pause is over."""
        if self._blink <= 0:
            return 0.0
        mean = 1 / (BLINK_RATE * self._blink)
        return 1 / (self._fps * max(mean - BLINK_PAUSE, 1 / self._fps))

    def _closure(self) -> float:
        place = self._since * 25  # the profile is at 25 frames a second
        if place >= len(BLINK_PROFILE):
            return 0.0
        first = int(place)
        second = BLINK_PROFILE[first + 1] if first + 1 < len(BLINK_PROFILE) else 0.0
        share = place - first
        return self._peak * ((1 - share) * BLINK_PROFILE[first] + share * second)


class _Gaze:
    """Small saccades about the camera, in degrees to the right and down."""

    def __init__(self, seed: int, fps: float) -> None:
        # Another stream than the blinks', which stay when the gaze is none.
        self._random = torch.Generator().manual_seed((seed + 0x6A2E) % 2**63)
        self._fps = fps
        self._from = self._to = (0.0, 0.0)
        self._since, self._hold = SACCADE_SECONDS, self._duration()

    def next(self) -> tuple[float, float]:
        share = min(self._since / SACCADE_SECONDS, 1.0)
        here = tuple(a + share * (b - a) for a, b in zip(self._from, self._to, strict=True))
        self._since += 1 / self._fps
        if self._since >= self._hold:
            # A frame in the middle of a saccade, if any, comes next.
            self._since -= self._hold
            self._from, self._to = self._to, self._aim()
            self._hold = self._duration()
        return here[0], here[1]

    def _duration(self) -> float:
        least, most = GAZE_HOLD
        chance = float(torch.rand(1, generator=self._random))
        return min(least - 0.7 * math.log(1 - chance), most)

    def _aim(self) -> tuple[float, float]:
        away = GAZE_AWAY if self._to == (0.0, 0.0) else 1 / 3
        across, down = torch.randn(2, generator=self._random).tolist()
        if float(torch.rand(1, generator=self._random)) >= away:
            return 0.0, 0.0
        across, down = across * GAZE_DEGREES[0], down * GAZE_DEGREES[1]
        size = min(1.0, GAZE_MOST / max(math.hypot(across, down), 1e-9))
        return across * size, down * size


HEAD_DEGREES = 1.2
"""Standard deviation of the head's tilt at strength 1."""

HEAD_PIXELS = 0.9
"""Standard deviation of its shift in each direction, in pixels of the 128 x 96 crop."""

HEAD_SECONDS = 1.2
"""Seconds after which little of a position is left."""


class HeadProcess:
    """Small, slow movements of the head: a damped random walk that no corner can be seen in."""

    def __init__(self, seed: int, *, fps: float = 25.0, strength: float = 1.0) -> None:
        # Another stream than the blinks' with the same seed.
        self._random = torch.Generator().manual_seed((seed + 0x5EAD) % 2**63)
        self._memory = math.exp(-1 / (fps * HEAD_SECONDS / 2))
        self._size = strength * torch.tensor([HEAD_DEGREES, HEAD_PIXELS, HEAD_PIXELS])
        # Two filters in a row make the speed continuous; this gives them deviation 1.
        a = self._memory
        self._scale = math.sqrt((1 - a**2) ** 3 / ((1 - a) ** 4 * (1 + a**2)))
        self._drive = self._place = torch.zeros(3)

    def draw(self, frames: int) -> Tensor:
        """The next frames' tilt in degrees and shift (x, y) in pixels of the crop: (T, 3)."""
        rows = [self._next() for _ in range(frames)]
        return torch.stack(rows) if rows else torch.zeros(0, 3)

    def _next(self) -> Tensor:
        here = self._place * self._size
        memory = self._memory
        step = torch.randn(3, generator=self._random)
        self._drive = memory * self._drive + (1 - memory) * step
        self._place = memory * self._place + (1 - memory) * self._drive * self._scale
        return here
