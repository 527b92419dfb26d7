"""What a talking face can be asked for. Each option is stated here once.

Defaults, ranges and help texts of the command line, the web pages and the Python interface are
taken from :class:`AnimateOptions`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple, TypedDict, TypeVar

from stillspeak.errors import ConfigError

MAX_SEED = 2**63 - 1
"""Largest seed: what every random number generator takes."""

MIN_SIZE, MAX_SIZE = 64, 4096
"""Heights in pixels that can be asked for."""

MAX_STRENGTH = 3
"""Largest strength of blinks, brows and head motion."""


class Option(NamedTuple):
    """One option: what it takes, and what users are told about it."""

    kind: type[int] | type[float] | type[bool]
    default: float | None
    help: str
    least: int | None = None
    most: int | None = None
    unit: str = ""

    @property
    def annotation(self) -> Any:
        """The type of the values, None among them where that is the default."""
        return self.kind if self.default is not None else self.kind | None


def _option(*about: Any, **more: Any) -> Any:
    option = Option(*about, **more)
    return field(default=option.default, metadata={"option": option})


class OptionKeywords(TypedDict, total=False):
    """The fields of :class:`AnimateOptions` as keywords."""

    face: int | None
    crop: bool
    size: int | None
    seed: int
    blink: float
    expression: float
    head_motion: float


@dataclass(frozen=True)
class AnimateOptions:
    """How a face is shown and moved.

    Raises:
        ConfigError: a value out of range.
    """

    face: int | None = _option(int, None, "Which face, 0 being the largest.", least=0)
    crop: bool = _option(bool, False, "The bare aligned face, 128 x 96 pixels.")
    size: int | None = _option(
        *(int, None, "Height of the video in pixels.", MIN_SIZE, MAX_SIZE, " pixels")
    )
    seed: int = _option(int, 0, "Decides what the sound does not.", 0, MAX_SEED)
    blink: float = _option(float, 1.0, "Blinks; 0 none, 1 as people do.", 0, MAX_STRENGTH)
    expression: float = _option(float, 1.0, "Movement of brows and gaze.", 0, MAX_STRENGTH)
    head_motion: float = _option(float, 0.0, "Small movements of the head.", 0, MAX_STRENGTH)

    def __post_init__(self) -> None:
        for name, option in OPTIONS.items():
            value = getattr(self, name)
            if value is None or option.least is None or option.most is None:
                continue  # which faces there are is known once the picture has been looked at
            if not option.least <= value <= option.most:  # NaN is outside too
                shown = f"{value:g}" if option.kind is float else value
                raise ConfigError(
                    f"{name.replace('_', ' ')} {shown} is out of range; "
                    f"give {option.least} to {option.most}{option.unit}"
                )

    def record(self, *names: str) -> dict[str, Any]:
        """Options, all unless named, as content credentials state them."""
        given = {**asdict(self), "face": self.face or 0}
        return {name: given[name] for name in names or given}

    def changed(self) -> dict[str, Any]:
        """The options that differ from their defaults."""
        given = asdict(self)
        given["face"] = self.face or None  # the largest either way
        return {name: value for name, value in given.items() if value != OPTIONS[name].default}


OPTIONS: dict[str, Option] = {one.name: one.metadata["option"] for one in fields(AnimateOptions)}
"""All options by name."""

Function = TypeVar("Function", bound=Callable[..., Any])


def takes_options(function: Function) -> Function:
    """Let ``help()`` list the options of a function that takes them as ``**keywords``."""
    signature = inspect.signature(function)
    *named, _ = signature.parameters.values()
    options = [
        inspect.Parameter(
            one.name, inspect.Parameter.KEYWORD_ONLY, default=one.default, annotation=one.type
        )
        for one in fields(AnimateOptions)
    ]
    function.__signature__ = signature.replace(parameters=[*named, *options])  # type: ignore[attr-defined]
    return function
