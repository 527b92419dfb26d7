"""Options that all evaluations have in common."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

from pydantic import Field

from stillspeak.evaluation.tools import ToolFiles
from stillspeak.system.configuration import configuration

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done and how many there are."""


@configuration("evaluation")
class EvaluationOptions:
    """The keywords that all entry points of :mod:`~stillspeak.evaluation.evaluate` take.

    Attributes:
        speakers: only these.
        clips: at most so many, drawn from the speakers in turn.
        metrics: by name; None takes all whose packages and weights are there.
        embedder: ONNX file for the identity metrics instead of dlib's network.
        lip_reader, sync: weights files instead of the released ones.
        real_cache: folder that keeps what is found in the real frames for the next system.
            Numbers do not depend on it, and nothing fails where it cannot be written.
        workers: processes; 0 works in this one. Numbers do not depend on it.
        overwrite: replace results of another system.
        command: what to note as the command that made the results.
        progress: called after each clip.
    """

    speakers: tuple[str, ...] | None = None
    clips: Annotated[int, Field(ge=1)] | None = None
    metrics: tuple[str, ...] | None = None
    embedder: Path | None = None
    lip_reader: Path | None = None
    sync: Path | None = None
    real_cache: Path | None = None
    workers: Annotated[int, Field(ge=0)] = 2
    overwrite: bool = False
    command: str | None = None
    progress: Progress | None = None

    @property
    def files(self) -> ToolFiles:
        """The named files of tools, in a form that worker processes find."""
        given = {"embedding": self.embedder, "sync": self.sync, "lipreader": self.lip_reader}
        return {tool: file.absolute() for tool, file in given.items() if file is not None}  # type: ignore[misc]
