"""How an edited video is written, and what is said of it: for ``dub`` and ``conceal``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, TypedDict

from stillspeak.media.marks.marking import MarkChoices, Marks
from stillspeak.media.marks.origin import Origin, Source, describe_video
from stillspeak.weights import identify_model

Progress = Callable[[int], None] | None
"""Called with the number of frames written so far."""


class OutputKeywords(TypedDict, total=False):
    """The fields of :class:`OutputOptions` as keywords."""

    crf: int
    overwrite: bool
    mark: bool
    certificate: str | Path | None
    key: str | Path | None


@dataclass(frozen=True)
class OutputOptions:
    """How an edited video is written."""

    crf: int = 12
    """Picture quality on H.264's scale, 0 being lossless."""
    overwrite: bool = False
    """Replace an existing file."""
    mark: bool = True
    """Leave content credentials that say that parts are generated, where the format has a place
    for them (MP4, MOV)."""
    certificate: str | Path | None = None
    """PEM file of a certificate chain to sign with, as for ``Animation.save``."""
    key: str | Path | None = None
    """PEM file of its private key."""

    @classmethod
    def out_of(cls, keywords: dict[str, Any]) -> OutputOptions:
        """Taken out of keywords that are for other options as well."""
        return cls(
            **{one.name: keywords.pop(one.name) for one in fields(cls) if one.name in keywords}
        )

    def marks(
        self,
        video: str | Path,
        model: str | Path | None,
        settings: Mapping[str, Any],
        speech: Source | None = None,
    ) -> Marks | None:
        """What credentials tell of an edited video; None: nothing.

        Pixels get no watermark, for it would be in every part of the picture and most of that is
        the camera's.

        Args:
            video: that is edited.
            model: whose work the new parts are, by its name or file; None where it has neither.
            settings: what else decides the frames, as JSON values.
            speech: the new sound, if there is one.
        """
        if not self.mark:
            return None
        origin = Origin(
            *identify_model(model),
            speech=speech,
            edited=describe_video(video),
            settings=settings,
        )
        choices = MarkChoices(self.mark, None, self.certificate, self.key)
        return replace(choices.applied(Marks(origin)), watermark=False)


@dataclass(frozen=True)
class EditedVideo:
    """A video that was written again.

    frames: written in all; ``generated`` of them made, or with a part that is made.
    """

    output: str
    frames: int
    fps: float
    width: int
    height: int
    generated: int

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)
