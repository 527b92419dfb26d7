"""What a face does with a sound, without a picture: for games, 3-D characters and other tools.

import stillspeak

stillspeak.hear_poses("speech.wav").save("poses.jsonl")
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import numpy.typing as npt

from stillspeak.animate import Animator, SpeechSource, check_speech
from stillspeak.errors import ConfigError, OutputError
from stillspeak.face.mouth import POSE_POINTS
from stillspeak.media.audio import Waveform, load_audio, read_track
from stillspeak.media.source import reason, source_name
from stillspeak.media.video_writer import check_file
from stillspeak.models.generator import Generator
from stillspeak.motion.frames import FaceMotion
from stillspeak.motion.shapes import (
    BLENDSHAPES,
    VISEMES,
    Viseme,
    VisemeReader,
    blendshapes,
    moving,
)
from stillspeak.options import AnimateOptions, OptionKeywords, takes_options
from stillspeak.rendering.frame_rate import FrameRateConverter, Poses
from stillspeak.synthesis import Performer
from stillspeak.system.atomic import whole_file
from stillspeak.weights import DEFAULT_MODEL

FORMAT, VERSION = "stillspeak-poses", 1

UNITS = {
    "time": "seconds",
    "pose": "displacement from the mouth at rest, lips closed: x to the picture's right and y "
    "down, in distances between the eyes' middles",
    "blendshapes": "0 to 1",
    "head": "degrees: turn to the picture's right, nod with the chin down, tilt clockwise",
    "gaze": "degrees to the picture's right and down",
}
"""What the numbers of a frame's line are."""


class PoseFrame(NamedTuple):
    """One moment of a face. Arrays are float32."""

    time: float
    """Seconds since the sound began."""
    pose: npt.NDArray[np.float32]
    """(41, 2) the mouth, see :mod:`stillspeak.face.mouth`."""
    blendshapes: npt.NDArray[np.float32]
    """(52,) in [0, 1], in the order of :data:`stillspeak.motion.shapes.BLENDSHAPES`."""
    head: npt.NDArray[np.float32]
    """(3,) degrees, see :class:`~stillspeak.motion.frames.FaceMotion`."""
    gaze: npt.NDArray[np.float32]
    """(2,) degrees."""


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """Frames and visemes of a sound, in the order in which they are known.

    Iterating hears the sound, each time anew and each time the same. A viseme comes when it has
    ended. Memory does not grow with the sound's length.
    """

    performer: Performer
    """Hears; the track itself only uses copies of it."""
    sound: Callable[[], Iterable[Waveform]]
    """Opens the sound: pieces (S,) float32 in [-1, 1] at the model's rate."""
    rate: Fraction
    """Exact frames a second."""
    model: tuple[str, str | None] = ("", None)
    """Name and SHA-256 of the weights."""

    def __iter__(self) -> Iterator[PoseFrame | Viseme]:
        own = self.performer.engine.config.fps
        converter = None if self.rate == own else FrameRateConverter(own, self.rate)
        reader, made = VisemeReader(own), 0
        ended: deque[Viseme] = deque()
        for decoded, motion in self.performer.restarted().perform(self.sound()):
            assert decoded.pose is not None
            poses = decoded.pose[0].double().cpu().numpy()
            ended.extend(viseme for pose in poses for viseme in reader.feed(pose))
            if converter is not None:
                poses, motion = converter.feed(poses, motion)
            yield from self._frames(made, poses, motion, ended)
            made += len(poses)
        ended.extend(reader.finish())
        if converter is not None:
            yield from self._frames(made, *converter.finish(), ended)
        yield from ended

    def _frames(
        self, made: int, poses: Poses, motion: FaceMotion, ended: deque[Viseme]
    ) -> Iterator[PoseFrame | Viseme]:
        """Frames after the first ``made``, each after the visemes that ended before it."""
        shapes, small = blendshapes(poses, motion), poses.astype(np.float32)
        rows = zip(small, shapes, motion.head, motion.gaze, strict=True)
        for index, row in enumerate(rows, start=made):
            time = float(index / self.rate)
            while ended and ended[0].end <= time:
                yield ended.popleft()
            yield PoseFrame(time, *row)

    @property
    def fps(self) -> float:
        """Frames a second; a whole number is an int."""
        return self.rate.numerator if self.rate.denominator == 1 else float(self.rate)

    @property
    def header(self) -> dict[str, Any]:
        """The first line of the file."""
        name, sha256 = self.model
        options = self.performer.options
        return {
            "format": FORMAT,
            "version": VERSION,
            "fps": self.fps,
            "model": {"name": name, "sha256": sha256},
            "options": options.record("seed", "blink", "expression", "head_motion", "mood"),
            "units": UNITS,
            "points": list(POSE_POINTS),
            "blendshapes": list(BLENDSHAPES),
            "always_0": [one for one in BLENDSHAPES if one not in moving()],
            "visemes": VISEMES,
        }

    def lines(self) -> Iterator[str]:
        """The file's lines, JSON each, without their ends."""
        yield json.dumps(self.header)
        for one in self:
            yield json.dumps(_plain(one), separators=(",", ":"))

    def save(self, path: str | Path, *, overwrite: bool = False) -> int:
        """Write a file of JSON lines: a header, then frames and visemes.

        Returns:
            Frames written.

        Raises:
            OutputExistsError: ``path`` exists and ``overwrite`` is False.
            OutputError: it cannot be written.
            AudioError: the sound turns out too short, silent or damaged. There is no file then.
        """
        target, frames = check_file(path, overwrite=overwrite), 0
        try:
            with whole_file(target) as partial, partial.open("w", encoding="utf-8") as file:
                for line in self.lines():
                    file.write(line + "\n")
                    frames += line.startswith('{"time"')
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({reason(error)})") from error
        return frames


@takes_options
def hear_poses(
    speech: SpeechSource,
    options: AnimateOptions | None = None,
    *,
    model: str | Path | Generator = DEFAULT_MODEL,
    device: str = "auto",
    animator: Animator | None = None,
    name: str | None = None,
    **keywords: Unpack[OptionKeywords],
) -> PoseTrack:
    """Hear what a face does with a speech; no picture is needed.

    Args:
        speech: path, bytes, or ``(samples, rate)``. A file is read piece by piece.
        options: all options in one value; those of pictures mean nothing here. Frames of another
            rate than the model's lie between two of its frames.
        model, device: as for :class:`~stillspeak.animate.Animator`.
        animator: a loaded model to use in place of them.
        name: what messages call the sound.
        **keywords: single fields of :class:`~stillspeak.options.AnimateOptions`, such as ``mood``.

    Returns:
        What the face does, heard when it is asked for.

    Raises:
        AudioError: the sound cannot be read, or is too short or silent; of a file that is found
            while it is heard.
        WeightsError: the weights cannot be used.
        ConfigError: an option out of range; a model that paints frames and has no poses.
    """
    options = replace(options or AnimateOptions(), **keywords)
    animator = animator or Animator(model, device=device)
    generator = animator.generator
    if not generator.predicts_poses:
        raise ConfigError(
            f"this model paints frames and has no poses; use one that has, such as {DEFAULT_MODEL}"
        )
    rate, label = generator.config.sample_rate, source_name(speech, name)
    if isinstance(speech, str | Path):
        path = speech

        def sound() -> Iterator[Waveform]:
            return _audible((piece for piece, _ in read_track(path, sample_rate=rate)), rate, label)
    else:
        whole = load_audio(speech, sample_rate=rate, name=name)
        check_speech(whole, rate, label)

        def sound() -> Iterator[Waveform]:
            return iter([whole])

    performer = Performer(animator.engine, replace(options, fps=None))
    exact = options.frame_rate(generator.config.fps)
    return PoseTrack(performer, sound, exact, animator.model_identity)


def _audible(pieces: Iterable[Waveform], rate: int, name: str) -> Iterator[Waveform]:
    """The pieces of a sound, at whose end :func:`check_speech` would be content with it."""
    length, peak = 0, 0.0
    for piece in pieces:
        length += len(piece)
        peak = max(peak, float(np.abs(piece).max(initial=0)))
        yield piece
    check_speech(np.full(min(length, rate), peak, np.float32), rate, name)


def _plain(one: PoseFrame | Viseme) -> dict[str, Any]:
    """The content of a line."""
    if isinstance(one, Viseme):
        return {"viseme": one.name, "start": round(one.start, 5), "end": round(one.end, 5)}
    return {
        "time": round(one.time, 5),
        "pose": _rounded(one.pose, 4),
        "blendshapes": _rounded(one.blendshapes, 3),
        "head": _rounded(one.head, 2),
        "gaze": _rounded(one.gaze, 2),
    }


def _rounded(values: npt.NDArray[np.float32], digits: int) -> list[Any]:
    rounded: list[Any] = np.round(values.astype(np.float64), digits).tolist()
    return rounded
