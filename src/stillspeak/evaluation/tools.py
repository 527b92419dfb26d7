"""What metrics need beyond frames and sound: detectors and networks, loaded once a process.

To add a tool, add its name to ``Tool``, a field to ``Tools`` and a line to ``_LOADERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from stillspeak.evaluation.measures.identity import Embedder, load_embedder
from stillspeak.face.landmarks import LandmarkDetector, MediaPipeDetector

if TYPE_CHECKING:  # most metrics need no torch
    from stillspeak.evaluation.measures.lipreading import LipReader
    from stillspeak.evaluation.measures.sync import SyncScorer

Tool = Literal["landmarks", "embedding", "sync", "lipreader"]
"""What a metric may need."""

TOOLS: tuple[Tool, ...] = get_args(Tool)

ToolFiles = Mapping[Tool, Path]
"""Files to load instead of what stillspeak comes with."""


@dataclass(frozen=True)
class Tools:
    """Loaded tools by their names; None where no metric asks for one."""

    landmarks: LandmarkDetector | None = None
    embedding: Embedder | None = None
    sync: SyncScorer | None = None
    lipreader: LipReader | None = None

    def __iter__(self) -> Iterator[tuple[Tool, Any]]:
        """Name and tool of each that is loaded."""
        for one in fields(self):
            tool = getattr(self, one.name)
            if tool is not None:
                yield cast(Tool, one.name), tool

    @property
    def versions(self) -> dict[Tool, str]:
        """The versions of those that are loaded."""
        return {name: str(tool.version) for name, tool in self}

    def close(self) -> None:
        """Release what holds resources."""
        for _, tool in self:
            if hasattr(tool, "close"):
                tool.close()


def load_tools(names: Iterable[Tool], files: ToolFiles) -> Tools:
    """Load tools by name.

    Raises:
        MissingDependencyError, WeightsError, ConfigError: one cannot be loaded.
    """
    return Tools(**{name: _LOADERS[name](files.get(name)) for name in names})


def _sync(file: Path | None) -> SyncScorer:
    from stillspeak.evaluation.measures.sync import load_sync_scorer

    return load_sync_scorer(file)


def _lipreader(file: Path | None) -> LipReader:
    from stillspeak.evaluation.measures.lipreading import load_lip_reader

    return load_lip_reader(file)


_LOADERS: dict[Tool, Callable[[Path | None], Any]] = {
    "landmarks": lambda file: MediaPipeDetector(max_faces=1),
    "embedding": load_embedder,
    "sync": _sync,
    "lipreader": _lipreader,
}
