"""How a video gets its new speech."""

from __future__ import annotations

from typing import Annotated, Literal, TypedDict

from pydantic import Field

from stillspeak.options import OPTIONS
from stillspeak.system.configuration import configuration

Fit = Literal["loop", "freeze", "trim"]


class DubOptionKeywords(TypedDict, total=False):
    """The fields of :class:`DubOptions` as keywords."""

    face: int | None
    fit: Fit
    keep_background_sound: float


@configuration("dub")
class DubOptions:
    """How a video gets its new speech."""

    face: Annotated[
        int | None,
        Field(ge=0, description=f"{OPTIONS['face'].description} By default whose lips move."),
    ] = None
    """Which face speaks, 0 being the largest; None: the one whose lips move most."""
    fit: Annotated[
        Fit,
        Field(
            description="For speech longer than the video: loop it back and forth, or freeze its "
            "last frame. With both a longer video is kept whole. trim cuts to the shorter."
        ),
    ] = "loop"
    """What is shown where the sound and the picture differ in length, see
    :func:`~stillspeak.dub.frames.fitted`."""
    keep_background_sound: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Mix the old sound under the speech, 1 as loud as it was. The old voice "
            "is in it: best given a video without one.",
        ),
    ] = 0.0
    """How loud the video's own sound goes on under the speech. Voices are not taken out of it."""
