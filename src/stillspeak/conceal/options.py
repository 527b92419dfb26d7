"""How the frames of gaps are made, and how the face in them moves."""

from __future__ import annotations

from typing import Annotated, TypedDict

from pydantic import Field

from stillspeak.errors import ConfigError
from stillspeak.options import OPTIONS, AnimateOptions
from stillspeak.system.configuration import configuration

MEMORY = 0.4
"""Seconds in which the difference between the model and the camera loses all but 1/e."""


class MotionKeywords(TypedDict, total=False):
    """The fields of :class:`MotionOptions` as keywords."""

    seed: int
    face: int | None
    blink: float
    expression: float


class GapKeywords(MotionKeywords, total=False):
    """The fields of :class:`GapOptions` as keywords."""

    online: bool
    memory: float
    ease: int


@configuration("conceal")
class MotionOptions:
    """How a generated face moves."""

    seed: Annotated[int, OPTIONS["seed"]] = AnimateOptions.seed
    """Decides when it blinks and moves its brows."""
    face: Annotated[int | None, OPTIONS["face"]] = AnimateOptions.face
    """Which face speaks, 0 being the largest of the first frame looked at."""
    blink: Annotated[float, OPTIONS["blink"]] = AnimateOptions.blink
    """Times as many blinks as people make, in gaps long enough for one; 0: none."""
    expression: Annotated[float, OPTIONS["expression"]] = AnimateOptions.expression
    """Size of the movements of brows and gaze there, 1 being people's."""

    @property
    def motion(self) -> AnimateOptions:
        """The same as options of ``animate``."""
        return AnimateOptions(
            face=self.face,
            seed=self.seed,
            blink=self.blink,
            expression=self.expression,
            head_motion=0.0,  # the head is where the video has it
        )


@configuration("conceal")
class GapOptions(MotionOptions):
    """How the frames of gaps are made."""

    online: Annotated[bool, Field(description="Each frame from the past alone, as in a call.")] = (
        False
    )
    """Make each lost frame from the past alone, at once, as a telephone must."""
    memory: Annotated[float, Field(ge=0)] = MEMORY
    """Seconds in which the difference between sound and camera fades, see
    :func:`~stillspeak.conceal.gap.fading`; 0: at once."""
    ease: Annotated[
        int,
        Field(
            ge=0, le=25, description="With --online: good frames over which the picture returns."
        ),
    ] = 0
    """With ``online``, good frames after a gap over which the picture passes from the generated
    one to the real one."""

    def __post_init__(self) -> None:
        if self.ease and not self.online:
            raise ConfigError(
                "ease goes with online: otherwise gaps already end at the real picture"
            )
