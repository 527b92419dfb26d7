"""What a talking face can be asked for. Each option, its range and its default are stated here.

The command line, tables of jobs, the web pages and the Python interface take all of them from
:class:`AnimateOptions`.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict
from fractions import Fraction
from typing import Annotated, Any, TypedDict, TypeVar

from pydantic import Field

from stillspeak.errors import ConfigError
from stillspeak.motion.moods import MoodPlan
from stillspeak.system.configuration import configuration, fields_of

Speeches = dict[int, str | None]
"""The file that each other face of a picture than the first one says; None: it listens."""

MAX_SEED = 2**63 - 1
"""Largest seed: what every random number generator takes."""


class OptionKeywords(TypedDict, total=False):
    """The fields of :class:`AnimateOptions` as keywords."""

    face: int | None
    crop: bool
    size: int | None
    fps: float | None
    seed: int
    blink: float
    expression: float
    head_motion: float
    mood: str


@configuration()
class AnimateOptions:
    """How a face is shown and moved.

    Raises:
        ConfigError: a value out of range.
    """

    face: Annotated[int | None, Field(ge=0, description="Which face, 0 being the largest.")] = None
    """None takes the largest."""
    crop: Annotated[bool, Field(description="The bare aligned face, 128 x 96 pixels.")] = False
    """Instead of the whole picture."""
    size: Annotated[
        int | None, Field(ge=64, le=4096, description="Height of the video in pixels.")
    ] = None
    """By default the picture's own, at most 1,920 on the longer side, and 128 for the crop. The
    crop's is rounded to a multiple of 4, so that its shape stays."""
    fps: Annotated[
        float | None,
        Field(ge=1, le=240, description="Frames a second, such as 24, 29.97, 30, 50 or 60."),
    ] = None
    """None: the model's own, 25 for released ones. For others movement is interpolated, and then
    drawn."""
    seed: Annotated[
        int, Field(ge=0, le=MAX_SEED, description="Decides what the sound does not.")
    ] = 0
    """The same seed gives the same video."""
    blink: Annotated[float, Field(ge=0, le=3, description="Blinks; 0 none, 1 as people do.")] = 1.0
    """Times as many blinks as people make."""
    expression: Annotated[float, Field(ge=0, le=3, description="Movement of brows and gaze.")] = 1.0
    """1 is people's."""
    head_motion: Annotated[float, Field(ge=0, le=3, description="Movement of the head.")] = 1.0
    """1 is people's; 0: it rests."""
    mood: Annotated[
        str,
        Field(
            max_length=1000,
            description="auto hears it; neutral, happy, sad, angry, surprised, fearful, disgusted; "
            "happy:0.5 is half as strong, happy,sad@2.5 is sad from 2.5 s on.",
        ),
    ] = "neutral"
    """See :meth:`MoodPlan.parse`. A video begins with the picture's own face, and has the mood
    within half a second."""

    def __post_init__(self) -> None:
        try:
            MoodPlan.parse(self.mood)
        except ConfigError as error:
            raise ConfigError(f"mood: {error}") from error

    def frame_rate(self, own: int) -> Fraction:
        """Exact frames a second, ``own`` being the model's; 29.97 is 30,000 in 1,001 s."""
        if self.fps is None:
            return Fraction(own)
        ntsc = Fraction(round(self.fps * 1.001) * 1000, 1001)
        exact = Fraction(self.fps).limit_denominator(1000)
        return ntsc if exact.denominator > 1 and abs(ntsc - exact) < Fraction(1, 200) else exact

    def record(self, *names: str) -> dict[str, Any]:
        """Options, all unless named, as content credentials state them."""
        given = {**asdict(self), "face": self.face or 0}
        return {name: given[name] for name in names or given}

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        given = {**asdict(self), "face": self.face or None}
        return {name: value for name, value in given.items() if value != OPTIONS[name].default}


OPTIONS = fields_of(AnimateOptions)
"""All options by name: default, range and what users are told about them."""


def read_faces(faces: str | None, speech_for: Iterable[str]) -> tuple[int | None, Speeches]:
    """Which faces of a picture move, and what the others say than the first one.

    Args:
        faces: their numbers, separated by commas or semicolons; the first one says the speech.
        speech_for: ``N=FILE`` for others of them; without, they listen.

    Returns:
        The first face, and the file of each other one, None for those that listen.

    Raises:
        ConfigError: a number or a file is missing, a face comes twice or is not among ``faces``.
    """
    numbers = re.split("[,;]", faces) if faces else []
    for number in numbers:
        if not re.fullmatch(r"\s*\d{1,4}\s*", number):
            raise ConfigError(f"face must be a whole number, not {number!r}")
    first, *more = (int(number) for number in numbers) if numbers else (None,)
    others: dict[int, str | None] = {}
    for face in more:
        if face == first or face in others:
            raise ConfigError(f"face {face} is named twice")
        others[face] = None
    for given in speech_for:
        number, _, file = (part.strip() for part in given.partition("="))
        if not (number.isdecimal() and file):
            raise ConfigError(f"speech-for takes the form N=FILE, not {given!r}")
        if int(number) not in others:
            raise ConfigError(
                f"speech-for {given!r}: face {number} is not among the others that move; name the "
                f"one that says the main speech first, as in --face 0,1"
            )
        if others[int(number)] is not None:
            raise ConfigError(f"speech-for {given!r}: face {number} has a speech already")
        others[int(number)] = file
    return first, others


Function = TypeVar("Function", bound=Callable[..., Any])


def takes_options(function: Function) -> Function:
    """Let ``help()`` list the options of a function that takes them as ``**keywords``."""
    signature = inspect.signature(function)
    *named, _ = signature.parameters.values()
    kind = inspect.Parameter.KEYWORD_ONLY
    options = [
        inspect.Parameter(name, kind, default=one.default, annotation=one.annotation)
        for name, one in OPTIONS.items()
    ]
    function.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
    return function
