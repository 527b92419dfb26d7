"""Options that all evaluations have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from stillspeak.system.configuration import configuration

if TYPE_CHECKING:
    from stillspeak.evaluation.tools import ToolFiles

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done and how many there are."""


@configuration("evaluation")
class EvaluationOptions:
    """The keywords that all entry points of :mod:`~stillspeak.evaluation.evaluate` take.

    What has a description is an option of the command line too.

    Attributes:
        speakers, clips, metrics: None takes all, of the metrics those whose packages and weights
            are there.
        real_cache: numbers do not depend on it, and nothing fails where it cannot be written.
        workers: processes; 0 works in this one. Numbers do not depend on it.
        command: what to note as the command that made the results.
        progress: called after each clip.
    """

    speakers: Annotated[
        tuple[str, ...] | None, Field(description="Only these, separated by commas.")
    ] = None
    clips: Annotated[
        int | None, Field(ge=1, description="At most this many, from the speakers in turn.")
    ] = None
    metrics: Annotated[
        tuple[str, ...] | None, Field(description="Only these, separated by commas; see --list.")
    ] = None
    embedder: Annotated[
        Path | None, Field(description="ONNX face embedder for acd, instead of dlib's.")
    ] = None
    lip_reader: Annotated[
        Path | None, Field(description="Weights of a lip reader for wer, instead of ours.")
    ] = None
    sync: Annotated[
        Path | None, Field(description="Weights of a sync scorer for av_offset, instead of ours.")
    ] = None
    animate: Annotated[
        str,
        Field(
            description="Options that a model is to have: blink, expression, head_motion, mood; "
            "such as head_motion=0,mood=happy."
        ),
    ] = ""
    real_cache: Annotated[
        Path | None,
        Field(
            description="Keeps what is found in real frames for the next system, with --layout "
            "folder their aligned crops too; in --data, or in the results, by default."
        ),
    ] = None
    workers: Annotated[int, Field(ge=0)] = 2
    overwrite: Annotated[bool, Field(description="Replace results of another system.")] = False
    command: str | None = None
    progress: Progress | None = None

    @property
    def files(self) -> ToolFiles:
        """The named files of tools, in a form that worker processes find."""
        given = {"embedding": self.embedder, "sync": self.sync, "lipreader": self.lip_reader}
        return {tool: file.absolute() for tool, file in given.items() if file is not None}  # type: ignore[misc]
