"""What the API takes and answers. ``docs/web.md`` describes it; fields stay as they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, create_model

from stillspeak.options import OPTIONS, AnimateOptions

if TYPE_CHECKING:
    from stillspeak.rendering.check import StillWarning

SLOWEST, FASTEST = 80, 300
"""Words a minute that can be asked for."""

State = Literal["waiting", "running", "done", "failed", "cancelled"]

Model = TypeVar("Model", bound=BaseModel)

_FROM_ITEMS = ConfigDict(from_attributes=True)


class WarningOut(BaseModel):
    """Something about a face that makes its video worse."""

    code: str = Field(description="stays as it is, for programs")
    message: str


def warnings_out(warnings: Iterable[StillWarning]) -> list[WarningOut]:
    return [WarningOut(code=one.code, message=one.message) for one in warnings]


class FaceOut(BaseModel):
    """A face; places are shares of the picture's width and height."""

    index: int
    box: tuple[float, float, float, float] = Field(description="left, top, width, height")
    crop: list[tuple[float, float]] = Field(description="corners of what the model sees")
    eye_distance: float = Field(description="pixels between the eyes")
    yaw: float = Field(description="degrees; positive: the nose points to the picture's right")
    problem: str | None = Field(description="why it cannot be animated, if so")
    warnings: list[WarningOut]
    crop_url: str


class PictureOut(BaseModel):
    model_config = _FROM_ITEMS

    id: str
    name: str
    width: int
    height: int
    faces: list[FaceOut]
    preview_url: str
    original_url: str
    expires_in: float = Field(description="seconds until it is removed")


class SoundOut(BaseModel):
    model_config = _FROM_ITEMS

    id: str
    name: str
    seconds: float
    peaks: list[float] = Field(description="its outline, the loudest part being 1")
    text: str | None
    audio_url: str
    original_url: str
    expires_in: float


class VideoOut(BaseModel):
    url: str
    frames: int
    fps: float
    width: int
    height: int
    seconds: float
    took: float = Field(description="seconds of work")
    bytes: int


class JobOut(BaseModel):
    model_config = _FROM_ITEMS

    id: str
    state: State
    stage: str = Field(description="the state, or loading, looking or drawing while it runs")
    position: int = Field(description="jobs before this one")
    done: int = Field(description="frames drawn")
    total: int = Field(description="frames to draw; 0 while that is not known")
    error: str | None
    warnings: list[WarningOut] = Field(description="about the face, once it was looked at")
    video: VideoOut | None
    command: str = Field(description="command lines that make the same video")
    expires_in: float


class SpeechIn(BaseModel):
    model_config = ConfigDict(extra="forbid")

    text: str
    voice: str = Field("en-gb", max_length=40)
    speed: int = Field(160, ge=SLOWEST, le=FASTEST, description="words a minute")


class OptionsIn(BaseModel):
    """A request with options of ``animate``; :func:`with_options` gives it their fields."""

    model_config = ConfigDict(allow_inf_nan=False)

    @property
    def options(self) -> AnimateOptions:
        return AnimateOptions(**{name: getattr(self, name) for name in OPTIONS})


def with_options(base: type[Model]) -> type[Model]:
    """The model with a field for each of :data:`~stillspeak.options.OPTIONS`."""
    fields: dict[str, Any] = {name: (option.annotation, option) for name, option in OPTIONS.items()}
    return create_model(base.__name__, __base__=base, **fields)


@with_options
class JobIn(OptionsIn):
    model_config = ConfigDict(extra="forbid")

    picture: str = Field(max_length=100, description="id of a picture")
    sound: str = Field(max_length=100, description="id of a sound")
    others: dict[int, str | None] = Field(
        default_factory=dict,
        max_length=16,
        description="other faces that move, by number: id of a sound, or null for one that listens",
    )
    model: str | None = Field(None, max_length=200, description="the first one if left out")
