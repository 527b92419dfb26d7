"""A face that speaks: everything that one frame hands on to the next, in one place.

How many windows a :class:`Synthesizer` gets at a time does not matter.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.errors import ConfigError
from stillspeak.media.audio import Waveform, frame_windows
from stillspeak.models.decoders import Decoded
from stillspeak.models.engine import Engine
from stillspeak.models.generator import GeneratorState
from stillspeak.motion.frames import FaceMotion
from stillspeak.motion.listener import MoodListener, check_encoder
from stillspeak.motion.mood_track import MoodTrack
from stillspeak.motion.moods import AUTO, Mood, MoodPlan
from stillspeak.motion.process import MotionProcess
from stillspeak.options import AnimateOptions
from stillspeak.rendering.check import StillWarning
from stillspeak.rendering.cutout import cut_out
from stillspeak.rendering.frame_rate import FrameRateConverter
from stillspeak.rendering.portrait import Portrait
from stillspeak.rendering.raster import Picture, Points
from stillspeak.rendering.renderer import FaceRenderer

CHUNK = 16
"""Frames generated at a time; memory grows with it and not with the sound's length."""


class Recurrence:
    """What an engine (in evaluation mode) has heard so far: its state, and that of its noise."""

    def __init__(self, engine: Engine[Any], seed: int) -> None:
        self._engine = engine
        self._random = torch.Generator().manual_seed(seed)
        self.state = engine.initial_state()
        """After the latest step; callers put the new state here."""

    def inputs(self, windows: npt.NDArray[np.float32]) -> tuple[Tensor, Tensor, GeneratorState]:
        """Windows (T, N) in [-1, 1] as a step takes them: (1, T, N), their noise, the state."""
        noise = self._engine.draw_noise(1, len(windows), self._random)
        return torch.tensor(windows)[None].to(noise.device), noise, self.state


class Performer:
    """What a face does with the audio windows that it hears: its mouth, and what moves beside it.

    Args:
        engine, options: in evaluation mode, and how to move.
        prepared: what the engine made of a reference image; a model that predicts poses needs none.
        moments: seed of when it blinks and moves brows and head; by default the options'.

    Raises:
        ConfigError: the mood is to be heard, and moods cannot be heard with this model; a frame
            rate, and the model paints frames.
    """

    def __init__(
        self,
        engine: Engine[Any],
        options: AnimateOptions,
        *,
        prepared: Any = None,
        moments: int | None = None,
    ) -> None:
        self.engine, self.options = engine, options
        own = engine.config.fps
        self.fps = options.frame_rate(own)
        """Frames a second that :meth:`compute` gives."""
        if self.fps != own and engine.config.decoder != "layers":
            raise ConfigError(
                f"fps: this model paints {own} frames a second and no others; leave fps out, or "
                "use a model that draws into the picture"
            )
        self._prepared = prepared
        self._moments = options.seed if moments is None else moments
        self._plan = MoodPlan.parse(options.mood, options.face or 0)
        self.reset()

    def reset(self, *, motion: bool = True) -> None:
        """As before the first window; without ``motion``, head, eyes and mood go on."""
        options, config = self.options, self.engine.config
        self._heard = Recurrence(self.engine, options.seed)
        self._converter = None
        if self.fps != config.fps:
            self._converter = FrameRateConverter(config.fps, self.fps)
        if not motion:
            return
        self._mood = MoodTrack(self._plan, fps=config.fps)
        self._listener = MoodListener(self.engine.speech) if self._mood.hears else None
        self._motion = MotionProcess(
            self._moments,
            config,
            blink=options.blink,
            expression=options.expression,
            head_motion=options.head_motion,
        )

    def set_mood(self, mood: Mood) -> None:
        """Be in this mood from the next frame on, and after a reset too.

        Raises:
            ConfigError: see :meth:`check_mood`.
        """
        self.check_mood(mood)
        if mood.name == AUTO and self._listener is None:
            self._listener = MoodListener(self.engine.speech)
        self._plan = MoodPlan(((0.0, mood),))
        self._mood.set(mood)

    def check_mood(self, mood: Mood) -> None:
        """Raise ConfigError where a mood is to be heard and cannot be with this model."""
        if mood.name == AUTO:
            check_encoder(self.engine.speech)

    def restarted(self) -> Self:
        """Another one of the same face, before the first window."""
        other = copy.copy(self)
        other.reset()
        return other

    @torch.inference_mode()
    def decode(self, windows: npt.NDArray[np.float32]) -> Decoded:
        """What the engine decodes from the next windows, (T, N) float32 in [-1, 1]."""
        inputs = self._heard.inputs(windows)
        decoded, self._heard.state = self.engine.step(self._prepared, *inputs)
        return decoded

    @torch.inference_mode()
    def compute(self, windows: npt.NDArray[np.float32]) -> tuple[Decoded, FaceMotion]:
        """What the engine decodes from the next windows, and what moves the face beside it; at
        another frame rate than the model's, as many frames as are ready."""
        decoded, motion = self.decode(windows), self._motion.draw(windows)
        heard = None
        if self._listener is not None and decoded.features is not None:
            heard = self._listener.hear(decoded.features)
        motion.units[:] += self._mood.draw(len(windows), heard)
        if self._converter is None:
            return decoded, motion
        assert decoded.pose is not None
        poses, motion = self._converter.feed(decoded.pose[0].double().cpu().numpy(), motion)
        return Decoded(pose=torch.from_numpy(poses)[None]), motion

    def finish(self) -> Iterator[tuple[Decoded, FaceMotion]]:
        """What :meth:`compute` held back of the frames whose own sound was heard."""
        if self._converter is not None:
            poses, motion = self._converter.finish()
            yield Decoded(pose=torch.from_numpy(poses)[None]), motion

    def perform(self, sound: Iterable[Waveform]) -> Iterator[tuple[Decoded, FaceMotion]]:
        """What :meth:`compute` gives for the next frames, up to :data:`CHUNK` at a time, of a sound
        in pieces (S,) float32 in [-1, 1] at the engine's rate; memory holds one piece."""
        config = self.engine.config
        before = (config.window - config.hop) // 2
        after = config.window - config.hop - before
        step, beyond = CHUNK * config.hop, config.window - config.hop
        waiting = np.zeros(before, np.float32)
        for piece in chain(sound, [None]):
            last = piece is None
            more = np.zeros(after, np.float32) if piece is None else piece
            waiting = np.concatenate((waiting, more))
            while len(waiting) >= (config.window if last else step + beyond):
                heard = waiting[: step + beyond]
                windows = np.lib.stride_tricks.sliding_window_view(heard, config.window)
                yield self.compute(windows[:: config.hop])
                waiting = waiting[step:]
        yield from self.finish()


class Synthesizer(Performer):
    """Turns audio windows into frames of one face.

    Args:
        engine, portrait, options: in evaluation mode, the face it prepared, and how to show it.
        moments: see :class:`Performer`, as for what it raises.
    """

    def __init__(
        self,
        engine: Engine[Any],
        portrait: Portrait,
        options: AnimateOptions,
        *,
        moments: int | None = None,
    ) -> None:
        self.portrait = portrait
        self.renderer = FaceRenderer(portrait, crop=options.crop, size=options.size)
        super().__init__(engine, options, prepared=portrait.prepared, moments=moments)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a frame in pixels."""
        return self.renderer.height, self.renderer.width

    @property
    def warnings(self) -> tuple[StillWarning, ...]:
        """What about the still makes its video worse."""
        found = self.portrait.warnings
        eyes = self.renderer.eyes if self.options.blink else None
        if eyes is not None and eyes.blink < 1:
            much = f"are drawn to {eyes.blink:.0%}" if eyes.blink > 0.005 else "are left out"
            why = eyes.notes[0]
            found = (*found, StillWarning("blink_reduced", f"blinks {much}: {why}"))
        return found

    @torch.inference_mode()
    def step(self, windows: npt.NDArray[np.float32]) -> Iterator[Picture]:
        """The next frames, (H, W, 3) uint8 each, of windows (T, N) float32 in [-1, 1].

        They are drawn one by one as they are taken.
        """
        return self.renderer.render(*self.compute(windows))

    def speak(self, audio: Waveform) -> Iterator[Picture]:
        """The next frames of a sound (S,) float32 in [-1, 1] at the engine's rate."""
        config = self.engine.config
        windows = frame_windows(audio, config.window, config.hop)
        for start in range(0, len(windows), CHUNK):
            yield from self.step(windows[start : start + CHUNK])
        yield from self.rest()

    def rest(self) -> Iterator[Picture]:
        """Frames that :meth:`step` held back, where the frame rate is not the model's."""
        for held in self.finish():
            yield from self.renderer.render(*held)


@torch.inference_mode()
def speak_together(faces: Sequence[Synthesizer], sounds: Sequence[Waveform]) -> Iterator[Picture]:
    """The next frames of several faces in one picture, each with a sound (S,) of its own.

    They end with the longest sound. A face whose sound is over, or is none, lives on in silence.
    Only models with ``decoder = "layers"`` can share a picture.
    """
    config, renderers = faces[0].engine.config, [face.renderer for face in faces]
    longest = max(map(len, sounds))
    heard = [
        frame_windows(np.pad(sound, (0, longest - len(sound))), config.window, config.hop)
        for sound in sounds
    ]

    def performed(
        face: Synthesizer, windows: npt.NDArray[np.float32]
    ) -> Iterator[tuple[Decoded, FaceMotion]]:
        for start in range(0, len(windows), CHUNK):
            yield face.compute(windows[start : start + CHUNK])
        yield from face.finish()

    for together in zip(*map(performed, faces, heard), strict=True):
        poses, motions = [], [motion for _, motion in together]
        for decoded, _ in together:
            assert decoded.pose is not None
            poses.append(decoded.pose[0].double().cpu().numpy())
        for index in range(len(poses[0])):
            now = [motion.at(index) for motion in motions]
            yield _draw_together(renderers, [pose[index] for pose in poses], now)


def _draw_together(
    renderers: Sequence[FaceRenderer], poses: Sequence[Points], motions: Sequence[FaceMotion]
) -> Picture:
    """One frame: all faces are drawn before any moves, so that each moves what it has."""
    canvas: Picture | None = None
    for one, pose, motion in zip(renderers, poses, motions, strict=True):
        canvas = one.draw(pose, canvas)
        one.look(motion, canvas)
    assert canvas is not None
    canvas = renderers[0].see_through(canvas)
    changed = [box for one in renderers for box in one.drawn]
    for one, motion in zip(renderers, motions, strict=True):
        one.move(motion, canvas, tuple(changed))
        changed.append(one.reach)
    return canvas if canvas.shape[2] == 3 else cut_out(canvas)
