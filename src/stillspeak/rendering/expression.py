"""When a face blinks and moves its brows: what speech does not say.

The paper leaves both to its noise generator and an adversary (section 2.1.2). Here the noise
drives two curves with a meaning, which the decoder is trained to follow on real faces: so blinks
come at a human rate, close the eyes, and can be turned up and down.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from stillspeak.constants import BLINK_PEAK, BROW_PIXELS, EXPRESSION_DIM

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


class ExpressionProcess:
    """Draws the two curves frame by frame; how many are asked for at a time does not matter.

    Args:
        seed: decides everything.
        fps: frames a second.
        blink: times as many blinks as :data:`BLINK_RATE`; 0: none.
        strength: size of the brows' movements; 1: as people's, 0: none.
    """

    def __init__(
        self, seed: int, *, fps: float = 25.0, blink: float = 1.0, strength: float = 1.0
    ) -> None:
        self._random = torch.Generator().manual_seed(seed)
        self._fps = fps
        self._blink = blink
        self._strength = strength
        self._since = math.inf  # seconds since the last blink began
        self._peak = 0.0
        self._brow = 0.0

    def draw(self, frames: int) -> Tensor:
        """The next frames' expression: (1, T, 2) float32."""
        # A first frame like the still: the curves start at rest.
        curves = torch.tensor([self._next() for _ in range(frames)], dtype=torch.float32)
        return curves.view(1, frames, EXPRESSION_DIM)

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


HEAD_DEGREES = 1.2
"""Standard deviation of the head's tilt at strength 1."""

HEAD_PIXELS = 0.9
"""Standard deviation of its shift in each direction, in pixels of the 128 x 96 crop."""

HEAD_SECONDS = 1.2
"""Seconds after which little of a position is left."""


class HeadProcess:
    """Small, slow movements of the head: a damped random walk that no corner can be seen in.

    Args:
        seed: decides everything.
        fps: frames a second.
        strength: 1: as listed above; 0: none.
    """

    def __init__(self, seed: int, *, fps: float = 25.0, strength: float = 1.0) -> None:
        # Another stream than the blinks' with the same seed.
        self._random = torch.Generator().manual_seed((seed + 0x5EAD) % 2**63)
        self._memory = math.exp(-1 / (fps * HEAD_SECONDS / 2))
        self._size = strength * torch.tensor([HEAD_DEGREES, HEAD_PIXELS, HEAD_PIXELS])
        # Two filters in a row make the speed continuous; this gives them deviation 1.
        a = self._memory
        self._scale = math.sqrt((1 - a**2) ** 3 / ((1 - a) ** 4 * (1 + a**2)))
        self._drive = torch.zeros(3)
        self._place = torch.zeros(3)

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
