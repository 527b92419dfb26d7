"""How head, brows, lids and gaze move with speech and without it, frame by frame, without end.

Head, brows and lids come from a small recurrent network that hears prosody and noise
(``models.motion``). Blinks are a point process whose hazard was learned from sound. Where nobody
speaks, what is left is breath, posture, blinks and glances.
"""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.constants import BLINK_PEAK, VIDEO_FPS
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.motion import (
    LIMIT,
    MOTION_FORMAT,
    SMOOTHING,
    MotionConfig,
    MotionGenerator,
    blink_inputs,
    golden_motion,
)
from stillspeak.motion.frames import FaceMotion, Floats, unit
from stillspeak.motion.prosody import (
    ACCENT,
    LOUDNESS,
    PAUSE,
    PHRASE,
    SLOPE,
    ProsodyTracker,
    pause_seconds,
)
from stillspeak.weights import load_network

BLINK_RATE = 0.4
"""Blinks a second while somebody speaks (people: 0.3 to 0.5)."""

IDLE_RATE = 0.28
"""Blinks a second at rest (Bentivoglio et al. 1997: 17 a minute)."""

BLINK_PAUSE = 0.9
"""Seconds between the starts of two blinks at least."""

PAUSE_BLINKS, PAUSE_SECONDS = 2.5, 0.12
"""How much likelier a blink is in pauses from so many seconds on: speakers blink there (Nakano,
Kitazawa 2010). GRID's silences say nothing of it, its speakers wait for the next sentence."""

BLINK_PROFILE = (0.12, 0.63, 1.0, 0.83, 0.41, 0.19, 0.13, 0.09)
"""A blink at 25 frames a second, from its first frame: median of 300 blinks of GRID's training
speakers around their peak, over that peak. Closing takes two frames, opening four."""

HEAD_STRENGTH = (1.9, 1.15, 1.8)
"""Times as much turn, nod and tilt as GRID's speakers show within a sentence, who sit still and
read commands: near the most that still counts as theirs. All others move more."""

LIVELY = (5.5, 5.0, 5.0)
"""By which factors the slow part of it grows in who goes on talking. People in videos that are not
GRID's move five times as far as GRID's speakers, and two and a half times as fast."""

LIVELY_SECONDS = 0.25
"""Of each of two filters in a row that leave the slow part."""

AMID, AMID_SECONDS = 0.6, 0.15
"""The share of talk that is taken to lie behind where a sound begins amid speech, and how many
seconds of nothing else tell it."""

SWING, SWING_SECONDS = 0.6, 0.8
"""Deviation of the log of the factor by which it is more at one time than at another, and the
seconds of each of two filters in a row that it passes."""

TALK_SECONDS = 4.0
"""How long talk is remembered. The head grows lively as the share of speech in it goes from a
third, which a sentence does not reach, to two thirds."""

USUAL_SECONDS = 12.0
"""Over which time the network's positions have the mean 0: one sentence is all that it has seen."""

POSTURE = 1.2
"""Times as far as GRID's speakers, from one sentence to another."""

POSTURE_SECONDS = 5.0
"""Of each of two filters in a row that posture passes."""

BREATH_HERTZ, BREATH_DEGREES = 0.25, 0.2
"""How often the breath comes, and by how much the head nods with it."""

FARTHEST = (8.0, 7.0, 5.5)
"""Degrees of turn, nod and tilt that the head never passes at strength 1."""

EASE_SECONDS = 1.0
"""How long movement takes to begin: the first frame is the photo."""

BROW_UNIT = 0.12
"""Distances between the eyes by which inner and outer brow raisers together, at 1, lift brows."""

LID_UNIT = 0.2
"""Closure by which the upper lid raiser, at 1, opens the eyes further."""

RAISE_RATE, RAISE_PAUSE = 4.0, 1.2
"""Quick raises of the brows a second where a syllable stands out as far as it can, and seconds
between two at least: most go with accents (Cavé et al. 1996). GRID's readers hardly raise them."""

RAISE = (0.1, 0.35)
"""How far such a raise goes, in action units: least and most."""

RAISE_PROFILE = (0.3, 0.75, 1.0, 1.0, 0.95, 0.8, 0.6, 0.42, 0.28, 0.17, 0.09, 0.04)
"""A raise at 25 frames a second."""

BEAT_RATE, BEAT_PAUSE = 12.0, 0.4
"""The same of small nods that stress a syllable (Hadar et al. 1983, Graf et al. 2002)."""

BEAT = (0.4, 1.4)
"""How deep such a nod is, in degrees."""

BEAT_PROFILE = (0.25, 0.7, 1.0, 1.0, 0.85, 0.6, 0.35, 0.18, 0.07)

GAZE_DEGREES = (1.0, 0.4)
"""Standard deviation of a glance, across and down."""

GAZE_MOST = 2.0
"""Degrees beyond which no glance goes, at strength 1."""

GAZE_HOLD = (0.5, 3.0)
"""Seconds between two saccades: least and most. Most are nearer to the least."""

GAZE_AWAY = (0.35, 0.55)
"""Probability that a saccade from the camera leads to somewhere else, in speech and in its pauses;
the others only seem none. From elsewhere two in three lead back."""

SACCADE_SECONDS = 0.035
"""How long a saccade takes."""

_STEP = 1 / VIDEO_FPS
_ROW = 8  # turn, nod, tilt; closure; gaze across, down; brows, lids


class MotionProcess:
    """Draws a face's motion from sound; how many frames are asked for at a time does not matter.

    Args:
        seed: the same one draws the same motion of the same sound.
        config: of the generator whose windows are heard.
        blink: times as many blinks as people make.
        expression: times as much movement of brows, lids and gaze.
        head_motion: times as much movement of the head; 0 lets it rest.
    """

    def __init__(
        self,
        seed: int,
        config: GeneratorConfig,
        *,
        blink: float = 1.0,
        expression: float = 1.0,
        head_motion: float = 1.0,
    ) -> None:
        self._fps, self._silence = config.fps, np.zeros(0, np.float32)
        self._expression, self._head_motion = expression, head_motion
        self._tracker = ProsodyTracker(config.sample_rate)
        self._network = bundled_motion()
        self._blinks = _Blinks(seed, self._network, blink) if blink else None
        self._gaze = _Gaze(seed) if expression else None
        rate = (RAISE_RATE, RAISE_PAUSE)
        self._raises = _Beats((seed, 4), rate, RAISE, RAISE_PROFILE) if expression else None
        self._moves = _Moves(seed, self._network) if expression or head_motion else None
        self._rests = not (blink or expression or head_motion)
        self._frames = self._steps = 0
        self._rows = (np.zeros(_ROW, np.float32),) * 2

    def draw(self, windows: Floats) -> FaceMotion:
        """The motion of the next frames, of windows (T, N) float32 in [-1, 1], the frame's own
        sound in their middle; N may be 0: nothing is heard."""
        if self._rests:
            return FaceMotion.rest(len(windows))
        rows = np.array([self._frame(w) for w in windows], np.float32).reshape(-1, _ROW)
        motion = FaceMotion.rest(len(rows))
        motion.head[:] = self._head_motion * rows[:, :3]
        brows, lids = self._expression * rows[:, 6] / BROW_UNIT, self._expression * rows[:, 7]
        motion.closure[:] = rows[:, 3]
        motion.gaze[:] = self._expression * rows[:, 4:6]
        for name in ("inner_brow_raiser", "outer_brow_raiser"):
            motion.units[:, unit(name)] = np.maximum(brows, 0)
        motion.units[:, unit("brow_lowerer")] = np.maximum(-brows, 0)
        # Lids that sink a little are skin that moves; drawing a blink costs more.
        motion.units[:, unit("upper_lid_raiser")] = -lids / LID_UNIT
        return motion

    def idle(self, frames: int) -> FaceMotion:
        """The motion of the next frames, while nothing is heard."""
        return self.draw(np.zeros((frames, 0), np.float32))

    def _frame(self, window: Floats) -> Floats:
        """The next frame. The networks know 25 frames a second; others are between two of them."""
        place = self._frames * VIDEO_FPS / self._fps
        self._frames += 1
        while self._steps < place + 1:
            self._rows = (self._rows[1], self._step(window))
            self._steps += 1
        behind = self._steps - 1 - place
        first, last = self._rows
        return last if behind == 0 else last + np.float32(behind) * (first - last)

    def _step(self, window: Floats) -> Floats:
        heard = self._tracker.step(window)
        row = np.zeros(_ROW, np.float32)
        if self._moves is not None:
            row[:3], row[6:] = self._moves.next(heard)
        if self._blinks is not None:
            row[3] = self._blinks.next(heard)
        if self._gaze is not None and self._raises is not None:
            row[4:6] = self._gaze.next(heard)
            row[6] += BROW_UNIT * self._raises.next(heard)
        return row


class MotionWeights(NamedTuple):
    """A motion generator's weights for one frame at a time, see :class:`MotionGenerator`."""

    config: MotionConfig
    input: Floats
    input_bias: Floats
    recurrent: Floats
    recurrent_bias: Floats
    head: Floats
    head_bias: Floats
    mean: Floats
    deviation: Floats
    scale: Floats
    posture: Floats
    blink: npt.NDArray[np.float64]
    blink_bias: float
    blink_mean: float


@lru_cache(maxsize=1)
def bundled_motion() -> MotionWeights:
    """The package's own, loaded once."""
    return load_motion(Path(str(files("stillspeak"))) / "resources" / "motion.safetensors")


def load_motion(path: Path) -> MotionWeights:
    """A motion generator's weights from a file; raises as ``weights.load_network``."""
    network, _ = load_network(
        path,
        format_name=MOTION_FORMAT,
        build=lambda table: MotionGenerator(MotionConfig(**table)),
        golden=golden_motion,
    )
    return motion_weights(network)


def motion_weights(network: MotionGenerator) -> MotionWeights:
    """A network's weights as arrays."""
    network.requires_grad_(False)
    gru, head, blink = network.gru, network.head, network.blink

    def array(tensor: Any) -> Floats:
        return np.ascontiguousarray(tensor.detach().cpu().numpy(), np.float32)

    return MotionWeights(
        config=network.config,
        input=array(gru.weight_ih_l0),
        input_bias=array(gru.bias_ih_l0),
        recurrent=array(gru.weight_hh_l0),
        recurrent_bias=array(gru.bias_hh_l0),
        head=array(head.weight),
        head_bias=array(head.bias),
        mean=array(network.mean),
        deviation=array(network.deviation),
        scale=array(network.scale),
        posture=array(network.posture),
        blink=array(blink.weight[0]).astype(np.float64),
        blink_bias=float(blink.bias[0]),
        blink_mean=float(network.blink_mean),
    )


class _Moves:
    """Head, brows and lids: the network, and what no sentence shows: posture and breath."""

    def __init__(self, seed: int, weights: MotionWeights) -> None:
        self._random = np.random.default_rng((seed, 1))
        self._w = weights
        self._hidden = np.zeros(weights.config.hidden, np.float32)
        self._slow = np.zeros(weights.config.slow_noise, np.float32)
        self._filters = np.zeros((2, 5), np.float32)
        self._posture = np.zeros((2, 3))
        self._beats = _Beats((seed, 5), (BEAT_RATE, BEAT_PAUSE), BEAT, BEAT_PROFILE)
        self._usual = np.zeros(5, np.float32)
        self._far, self._swing = np.zeros((2, 3)), np.zeros((2, 3))
        self._breath = np.zeros(2)  # phase in turns, and how fast it is, log
        self._time = self._talk = 0.0
        self._amid = True  # there was nothing but speech so far

    def next(self, heard: tuple[float, ...]) -> tuple[Floats, Floats]:
        """Head (3,) in degrees, and brows and lids (2,) in distances between the eyes and closure,
        as they are before this frame's sound has had its effect."""
        config = self._w.config
        drawn = self._random.standard_normal(config.drawn + 7)
        moved = self._w.scale * self._network(heard, drawn[7:].astype(np.float32))
        # On the whole everything stays about where the photo has it.
        moved -= self._usual
        self._usual += np.float32(_STEP / USUAL_SECONDS) * moved
        ease = np.float32(_smoothstep(self._time / EASE_SECONDS))
        lively = _smoothstep(3 * self._talk - 1) * (np.array(LIVELY) - 1)
        slow = _STEP / LIVELY_SECONDS
        self._far[0] += slow * (moved[:3] - self._far[0])
        self._far[1] += slow * (self._far[0] - self._far[1])
        # Now far, now little: nobody swings like a pendulum.
        swing = _wander(self._swing, drawn[4:7], SWING_SECONDS)
        lively = lively * np.exp(SWING * swing - SWING**2 / 2)
        speaks = heard[PHRASE] > 0
        self._talk += _STEP / TALK_SECONDS * (speaks - self._talk)
        if self._time < AMID_SECONDS:
            self._amid = self._amid and speaks
        elif self._amid:
            self._talk, self._amid = max(self._talk, AMID), False
        head = ease * np.array(HEAD_STRENGTH) * (moved[:3] + lively * self._far[1])
        head += POSTURE * self._w.posture * _wander(self._posture, drawn[:3], POSTURE_SECONDS)
        head[1] += ease * (self._breathe(drawn[3], heard) + self._beats.next(heard))
        most = np.array(FARTHEST)
        self._time += _STEP
        return most * np.tanh(head / most), ease * moved[3:]

    def _network(self, heard: tuple[float, ...], drawn: Floats) -> Floats:
        """Positions (5,) in deviations, as :meth:`MotionGenerator.forward` gives them."""
        w, config = self._w, self._w.config
        memory = config.memory
        self._slow = memory * self._slow + math.sqrt(1 - memory**2) * drawn[config.noise :]
        told = (np.array(heard, np.float32) - w.mean) / w.deviation
        given = np.concatenate((told, drawn[: config.noise], self._slow)).astype(np.float32)
        new = w.input @ given + w.input_bias
        old = w.recurrent @ self._hidden + w.recurrent_bias
        n = config.hidden
        gates = 1 / (1 + np.exp(-(new[: 2 * n] + old[: 2 * n])))
        fresh = np.tanh(new[2 * n :] + gates[:n] * old[2 * n :])
        self._hidden = fresh + gates[n:] * (self._hidden - fresh)
        place = LIMIT * np.tanh((w.head @ self._hidden + w.head_bias) / LIMIT)
        first, second = self._filters
        first = first + (1 - SMOOTHING) * (place - first)
        second = second + (1 - SMOOTHING) * (first - second)
        self._filters[:] = first, second
        return np.asarray(second)

    def _breathe(self, drawn: float, heard: tuple[float, ...]) -> float:
        phase, pace = self._breath
        self._breath[1] = 0.99 * pace + math.sqrt(1 - 0.99**2) * 0.25 * drawn
        self._breath[0] = (phase + BREATH_HERTZ * math.exp(pace) * _STEP) % 1.0
        return BREATH_DEGREES * math.sin(2 * math.pi * phase) * (0.5 + 0.5 * heard[PAUSE])


class _Blinks:
    """A point process: how likely a blink is now depends on pauses, phrases and the last blink."""

    def __init__(self, seed: int, weights: MotionWeights, blink: float) -> None:
        self._random = np.random.default_rng((seed, 2))
        self._w, self._blink = weights, blink
        self._since = len(BLINK_PROFILE) * _STEP  # seconds since the last blink began
        self._peak, self._usual = 0.0, 1.0

    def next(self, heard: tuple[float, ...]) -> float:
        """How far the eyes are closed."""
        chance, size = self._random.random(2)
        closed = self._closure()
        self._since += _STEP
        hazard = self._hazard(heard)
        if self._since >= BLINK_PAUSE and chance < hazard:
            self._since = 0.0
            self._peak = BLINK_PEAK[0] + size * (BLINK_PEAK[1] - BLINK_PEAK[0])
        return closed

    def _hazard(self, heard: tuple[float, ...]) -> float:
        """Probability of a blink in a frame once the pause is over."""
        silent = pause_seconds(heard[PAUSE])
        phrase, loudness, since = np.array([[heard[PHRASE]], [heard[LOUDNESS]], [self._since]])
        logit = (blink_inputs(phrase, loudness, since) @ self._w.blink).item() + self._w.blink_bias
        likely = 1 / (1 + math.exp(-logit)) / self._w.blink_mean
        # Sound says when to blink. How often on the whole does not depend on the way of speaking.
        # What lies beyond a speech's pauses is people at rest.
        rest = _smoothstep((silent - 1.2) / 1.2)
        spoken = likely if silent < PAUSE_SECONDS else PAUSE_BLINKS
        if self._since >= BLINK_PAUSE:
            self._usual += (1 - rest) * _STEP / 8 * (spoken - self._usual)
        spoken *= self._rate(BLINK_RATE) / self._usual
        return spoken + rest * (self._rate(IDLE_RATE) - spoken)

    def _rate(self, blinks: float) -> float:
        """Probability in a frame after the pause that makes so many blinks a second."""
        return _STEP / max(1 / (blinks * self._blink) - BLINK_PAUSE, _STEP)

    def _closure(self) -> float:
        place = round(self._since / _STEP, 3)
        if place >= len(BLINK_PROFILE):
            return 0.0
        return self._peak * BLINK_PROFILE[int(place)]


class _Beats:
    """What goes with an accent now and then: a raise of the brows, a nod."""

    def __init__(
        self,
        seed: tuple[int, int],
        rate: tuple[float, float],
        sizes: tuple[float, float],
        profile: tuple[float, ...],
    ) -> None:
        self._random = np.random.default_rng(seed)
        self._rate, self._pause = rate
        self._sizes, self._profile = sizes, profile
        self._frames = len(profile)  # since the last one began
        self._size = 0.0

    def next(self, heard: tuple[float, ...]) -> float:
        """How far it goes now."""
        chance, size = self._random.random(2)
        here = 0.0
        if self._frames < len(self._profile):
            here = self._size * self._profile[self._frames]
        self._frames += 1
        likely = self._rate * _STEP * heard[ACCENT] * (heard[SLOPE] > 0)
        if self._frames * _STEP >= self._pause and chance < likely:
            self._frames = 0
            self._size = self._sizes[0] + size * (self._sizes[1] - self._sizes[0])
        return here


class _Gaze:
    """Small saccades about the camera, in degrees to the right and down."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng((seed, 3))
        self._from = self._to = (0.0, 0.0)
        self._since, self._hold = SACCADE_SECONDS, 1.0
        self._spoke = False

    def next(self, heard: tuple[float, ...]) -> tuple[float, float]:
        away, hold = self._random.random(2)
        aim = self._random.standard_normal(2)
        share = min(self._since / SACCADE_SECONDS, 1.0)
        across, down = (a + share * (b - a) for a, b in zip(self._from, self._to, strict=True))
        self._since += _STEP
        speaks = heard[PHRASE] > 0.1
        begins, self._spoke = speaks and not self._spoke, speaks
        if begins and self._to != (0.0, 0.0) and self._since > GAZE_HOLD[0]:
            self._since = max(self._since, self._hold)  # back to whom one speaks to
            away = 1.0
        if self._since >= self._hold:
            # A frame in the middle of a saccade, if any, comes next.
            self._since = (self._since - self._hold) % _STEP
            self._from, self._to = self._to, self._aim(away, aim, speaks)
            least, most = GAZE_HOLD
            self._hold = min(least - 0.7 * math.log(1 - hold), most)
        return across, down

    def _aim(
        self, chance: float, aim: npt.NDArray[np.float64], speaks: bool
    ) -> tuple[float, float]:
        away = GAZE_AWAY[not speaks] if self._to == (0.0, 0.0) else 1 / 3
        if chance >= away:
            return 0.0, 0.0
        across, down = aim * GAZE_DEGREES
        size = min(1.0, GAZE_MOST / max(math.hypot(across, down), 1e-9))
        return float(across * size), float(down * size)


def _wander(
    state: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64], seconds: float
) -> npt.NDArray[np.float64]:
    """The next step of a smooth random walk (n,) of deviation 1 that is damped, from rest on, in a
    state (2, n) that goes on: two filters in a row make its speed continuous."""
    a = math.exp(-_STEP / seconds)
    scale = math.sqrt((1 - a**2) ** 3 / ((1 - a) ** 4 * (1 + a**2)))
    here: npt.NDArray[np.float64] = state[1].copy()
    state[0] += (1 - a) * (scale * drawn - state[0])
    state[1] += (1 - a) * (state[0] - state[1])
    return here


def _smoothstep(x: float) -> float:
    x = min(max(x, 0.0), 1.0)
    return x * x * (3 - 2 * x)
