"""What metrics need beyond frames and sound: detectors and networks, loaded once a process.

A tool more is one name in ``Tool``, one field of ``Tools`` and one line in ``_LOADERS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol, cast, get_args

import numpy as np
import numpy.typing as npt

from stillspeak.errors import MissingDependencyError
from stillspeak.evaluation.measures.identity import Embedder, load_embedder
from stillspeak.face.landmarks import LandmarkDetector, MediaPipeDetector

Tool = Literal["landmarks", "embedding", "sync", "lipreader"]
"""What a metric may need."""

TOOLS: tuple[Tool, ...] = get_args(Tool)

ToolFiles = Mapping[Tool, Path]
"""Files to load instead of what stillspeak comes with."""


class Offset(Protocol):
    """Where sound and pictures fit best: frames, and how clearly."""

    @property
    def offset(self) -> int:
        """Frames."""
        ...

    @property
    def confidence(self) -> float:
        """Median minus minimum of the distances."""
        ...


class SyncScorer(Protocol):
    """Finds the shift between sound and pictures."""

    @property
    def version(self) -> str:
        """Everything that decides the numbers: part of cache keys."""
        ...

    def measure(self, frames: npt.NDArray[np.uint8], audio: npt.NDArray[np.float32]) -> Offset:
        """Offset of aligned crops (T, H, W, 3) and sound (S,) at 16 kHz.

        Raises:
            VideoError: too short.
        """
        ...


class LipReader(Protocol):
    """Reads from the lips what is said."""

    @property
    def version(self) -> str:
        """Everything that decides what is read: part of cache keys."""
        ...

    def read(self, frames: npt.NDArray[np.uint8]) -> str:
        """The sentence of aligned crops (T, H, W, 3), in lower-case words."""
        ...


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


def _landmarks(file: Path | None) -> LandmarkDetector:
    return MediaPipeDetector(max_faces=1)


def _embedding(file: Path | None) -> Embedder:
    return load_embedder(file)


def _sync(file: Path | None) -> SyncScorer:
    module = _module("sync", "audio-visual offsets")
    return cast(SyncScorer, module.load_sync_scorer(file))


def _lipreader(file: Path | None) -> LipReader:
    module = _module("lipreading", "word error rates")
    return cast(LipReader, module.load_lip_reader(file))


def _module(name: str, what: str) -> Any:
    """A module of this package that brings its own network, loaded when it is needed."""
    try:
        return import_module(f"stillspeak.evaluation.measures.{name}")
    except ImportError as error:
        raise MissingDependencyError(f"{what} cannot be computed here ({error})") from error


_LOADERS: dict[Tool, Callable[[Path | None], Any]] = {
    "landmarks": _landmarks,
    "embedding": _embedding,
    "sync": _sync,
    "lipreader": _lipreader,
}
