"""How a head and brows move with speech: a recurrent generator with noise, and its discriminator.

The paper's generator has a GRU for its noise and one for context (section 2.1.2); here one network
hears prosody and noise, and what comes out are positions with a meaning, which geometry follows.
"""

from __future__ import annotations

import math
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn

from stillspeak.system.configuration import configuration

MOTION_FORMAT = "stillspeak-motion-1"
"""What a motion generator's weights file says it is."""

CHANNELS = ("turn", "nod", "tilt", "brows", "lids")
"""What moves, in this order: the head in degrees, the brows' height in distances between the eyes,
and how far the eyes are closed beside blinks."""

HEARD = 7
"""Numbers a frame that the network hears, see ``motion.prosody``."""

LIMIT = 3.0
"""Positions, in deviations, that are never passed."""

SMOOTHING = 0.55
"""Of each of two filters in a row that the positions pass: muscles have inertia, and a camera's
jitter is not to be learned."""

BLINK_INPUTS = 4
"""Numbers a frame that tell when to blink, see :func:`blink_inputs`."""

Doubles = npt.NDArray[np.float64]
_Width = Annotated[int, Field(strict=True, ge=1, le=1024)]


@configuration("motion")
class MotionConfig:
    """Sizes of a :class:`MotionGenerator`."""

    hidden: _Width = 48
    noise: _Width = 8
    """Numbers that are drawn anew for every frame."""
    slow_noise: _Width = 4
    """Numbers that change slowly."""
    slow_seconds: Annotated[float, Field(gt=0, le=60)] = 1.5
    """After so long little is left of a slow number."""

    @property
    def drawn(self) -> int:
        """Normal random numbers a frame."""
        return self.noise + self.slow_noise

    @property
    def memory(self) -> float:
        """What is left of a slow number a frame later."""
        return math.exp(-1 / (25 * self.slow_seconds))


class MotionGenerator(nn.Module):
    """Positions from prosody and noise, 25 frames a second, and when to blink.

    Attributes:
        scale: (5,) of one deviation of each of :data:`CHANNELS`, in its unit, as people in GRID
            move while they speak a sentence.
        posture: (3,) deviation of where the head stands from one sentence to another, degrees.
        mean, deviation: (HEARD,) of what is heard.
        blink: its odds in a frame in which somebody speaks, once eyes have been open for a while,
            log; ``blink_mean`` is the probability on the average.
    """

    scale: Tensor
    posture: Tensor
    blink_mean: Tensor
    mean: Tensor
    deviation: Tensor
    taps: Tensor

    def __init__(self, config: MotionConfig) -> None:
        super().__init__()
        self.config = config
        self.gru = nn.GRU(HEARD + config.drawn, config.hidden, batch_first=True)
        self.head = nn.Linear(config.hidden, len(CHANNELS))
        self.blink = nn.Linear(BLINK_INPUTS, 1)
        self.register_buffer("scale", torch.ones(len(CHANNELS)))
        self.register_buffer("posture", torch.ones(3))
        self.register_buffer("blink_mean", torch.tensor(0.02))
        self.register_buffer("mean", torch.zeros(HEARD))
        self.register_buffer("deviation", torch.ones(HEARD))
        with torch.device("cpu"):
            self.register_buffer("taps", _taps(), persistent=False)

    def forward(self, heard: Tensor, normal: Tensor) -> Tensor:
        """Positions from rest on.

        Args:
            heard: (B, T, HEARD).
            normal: (B, T, ``config.drawn``) normal random numbers; the last of them become slow.

        Returns:
            (B, T, 5) in deviations, each within :data:`LIMIT`.
        """
        config = self.config
        fast, slow = normal[..., : config.noise], self.slow(normal[..., config.noise :])
        inputs = torch.cat(((heard - self.mean) / self.deviation, fast, slow), 2)
        position = LIMIT * torch.tanh(self.head(self.gru(inputs)[0]) / LIMIT)
        # The response of two filters in a row, which begin at rest.
        weight = self.taps.expand(position.shape[2], 1, -1)
        padded = nn.functional.pad(position.transpose(1, 2), (self.taps.shape[-1] - 1, 0))
        moved: Tensor = nn.functional.conv1d(padded, weight, groups=position.shape[2])
        return moved.transpose(1, 2)

    def slow(self, drawn: Tensor) -> Tensor:
        """Slow numbers of deviation 1 (B, T, n) from normal ones, from 0 on."""
        memory = self.config.memory
        lag = torch.arange(drawn.shape[1], device=drawn.device)
        lag = lag[:, None] - lag
        share = torch.where(lag >= 0, memory ** lag.clamp_min(0), 0.0)
        return math.sqrt(1 - memory**2) * torch.einsum("ts,bsn->btn", share, drawn)


def _taps() -> Tensor:
    """(1, n) the response of two filters in a row, the latest last, to what is left of it."""
    count = 1 + math.ceil(16 / -math.log(SMOOTHING))
    lag = torch.arange(count)
    response = (1 - SMOOTHING) ** 2 * (lag + 1) * SMOOTHING**lag
    return (response / response.sum()).flip(0)[None]


class MotionDiscriminator(nn.Module):
    """Are these movements real, and do they go with their sound? (paper, section 2.2.2)

    Encodings of motion and sound, of two frames at a time, run in pairs through a two-layer GRU; a
    classifier judges its last output.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.motion = nn.Sequential(nn.Linear(6 * len(CHANNELS), width), nn.LeakyReLU(0.2))
        self.sound = nn.Sequential(nn.Linear(2 * HEARD, width), nn.LeakyReLU(0.2))
        self.gru = nn.GRU(2 * width, width, 2, batch_first=True)
        self.classifier = nn.Sequential(
            nn.Linear(width, width), nn.LeakyReLU(0.2), nn.Linear(width, 1)
        )

    def forward(self, positions: Tensor, heard: Tensor) -> Tensor:
        """Positions (B, T, 5) in deviations and what is heard (B, T, HEARD), normalised -> (B,),
        high for real ones. Where a sequence stands as a whole is not judged."""
        centred = positions - positions.mean(1, keepdim=True)
        speed = positions[:, 1:] - positions[:, :-1]
        speed = nn.functional.pad(speed, (0, 0, 1, 0))
        change = nn.functional.pad(speed[:, 1:] - speed[:, :-1], (0, 0, 1, 0))
        seen = self.motion(_in_twos(torch.cat((centred, 6 * speed, 20 * change), 2)))
        out, _ = self.gru(torch.cat((seen, self.sound(_in_twos(heard))), 2))
        verdict: Tensor = self.classifier(out[:, -1])[:, 0]
        return verdict


def _in_twos(x: Tensor) -> Tensor:
    """(B, T, n) -> (B, T // 2, 2 n)."""
    return x[:, : x.shape[1] // 2 * 2].reshape(len(x), -1, 2 * x.shape[2])


def blink_inputs(phrase: Doubles, loudness: Doubles, since: Doubles) -> Doubles:
    """What tells of a frame in which somebody speaks whether to blink: (T, BLINK_INPUTS).

    Args:
        phrase, loudness: (T,) as in ``motion.prosody``.
        since: (T,) seconds since the last blink began.
    """
    return np.column_stack((phrase, phrase**2, loudness, np.exp(-since / 2)))


def golden_motion(network: MotionGenerator) -> Tensor:
    """What a network gives for fixed waves in place of sound and noise: a vector."""
    time = torch.arange(40) / 25
    clock = time.double().numpy()
    place = torch.arange(HEARD)
    heard = 0.5 + 0.5 * torch.sin(5 * time[:, None] + place)
    drawn = torch.sin(7 * time[:, None] + 2 * torch.arange(network.config.drawn))
    moved = network(heard[None], drawn[None])[0, ::3].flatten()
    told = torch.from_numpy(blink_inputs(clock, clock, clock)).float()
    hazard = network.blink(told)[::8, 0]
    return torch.cat((moved, hazard / 5)) / LIMIT
