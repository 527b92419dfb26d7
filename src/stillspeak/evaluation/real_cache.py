"""What tools found in the real frames of a clip, kept for the next system.

The folder holds one file a clip and tool, ``SPEAKER/NAME.TOOL.safetensors`` (landmarks,
embedding) or ``.json`` (sync, lipreader), and in each the key of all that it depends on: the
clip's key, its number of frames, the tool and its version. A file with another key is replaced.
A folder that cannot be read or written is no error: things are computed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.evaluation.tools import Tool
from stillspeak.face.landmarks import LANDMARKS, Face
from stillspeak.system.atomic import whole_file

FORMAT = 1
"""Version of the files and of how tools are shown the frames."""

Arrays = dict[str, npt.NDArray[Any]]


class RealCache:
    """What is kept of one clip's real frames (``SPEAKER/NAME``); ``key`` stands for everything that
    they and the sound depend on. Without a folder nothing is kept.
    """

    def __init__(
        self,
        folder: Path | None = None,
        clip: str = "",
        key: str = "",
        versions: Mapping[Tool, str] = MappingProxyType({}),
    ) -> None:
        self._stem = None if folder is None else folder / clip
        self._key = key
        self._versions = versions

    def faces(self) -> list[Face | None] | None:
        """The faces (T) as they were found, None where there was none; None if not kept."""
        kept = self._read_arrays("landmarks")
        if kept is None:
            return None
        arrays, names = kept
        rows = zip(*(arrays[name] for name in ("found", "points", "shapes", "pose")), strict=True)
        return [
            Face(points, dict(zip(names, shapes.tolist(), strict=True)), *pose.tolist())
            if found
            else None
            for found, points, shapes, pose in rows
        ]

    def keep_faces(self, faces: Sequence[Face | None]) -> None:
        """Keep faces (T)."""
        names = next((list(face.blendshapes) for face in faces if face is not None), [])
        if any(face is not None and list(face.blendshapes) != names for face in faces):
            return  # not what a detector does
        arrays: Arrays = {
            "found": np.array([face is not None for face in faces]),
            "points": np.zeros((len(faces), LANDMARKS, 2), np.float32),
            "shapes": np.zeros((len(faces), len(names))),
            "pose": np.zeros((len(faces), 3)),
        }
        for t, face in enumerate(faces):
            if face is not None:
                arrays["points"][t] = face.points
                arrays["shapes"][t] = list(face.blendshapes.values())
                arrays["pose"][t] = face.yaw, face.pitch, face.roll
        self._write_arrays("landmarks", arrays, names)

    def embeddings(self) -> npt.NDArray[np.float64] | None:
        """Vectors (T, D), None if not kept."""
        kept = self._read_arrays("embedding")
        return None if kept is None else kept[0]["vectors"]

    def keep_embeddings(self, vectors: npt.NDArray[np.float64]) -> None:
        """Keep vectors (T, D)."""
        self._write_arrays("embedding", {"vectors": np.ascontiguousarray(vectors)}, [])

    def value(self, tool: Tool) -> Any:
        """A JSON value, None if not kept."""
        path = self._file(tool, "json")
        try:
            kept = {} if path is None else json.loads(path.read_text("utf-8"))
            return kept["value"] if kept["key"] == self._hash(tool) else None
        except (OSError, ValueError, TypeError, KeyError):
            return None

    def keep_value(self, tool: Tool, value: Any) -> None:
        """Keep a JSON value."""
        if (path := self._file(tool, "json")) is not None:
            text = json.dumps({"key": self._hash(tool), "value": value}) + "\n"
            _write(path, text.encode())

    def _file(self, tool: Tool, suffix: str) -> Path | None:
        return self._stem and self._stem.with_name(f"{self._stem.name}.{tool}.{suffix}")

    def _hash(self, tool: Tool) -> str:
        inputs = [FORMAT, self._key, tool, self._versions[tool]]
        return hashlib.sha256(json.dumps(inputs).encode()).hexdigest()

    def _read_arrays(self, tool: Tool) -> tuple[Arrays, list[str]] | None:
        from safetensors import SafetensorError, safe_open

        if (path := self._file(tool, "safetensors")) is None:
            return None
        file: Any
        try:
            with safe_open(str(path), framework="numpy") as file:
                about = file.metadata() or {}
                if about.get("key") != self._hash(tool):
                    return None
                arrays = {name: np.array(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
                return arrays, json.loads(about["names"])
        except (OSError, SafetensorError, ValueError, KeyError):
            return None

    def _write_arrays(self, tool: Tool, arrays: Arrays, names: list[str]) -> None:
        from safetensors.numpy import save

        if (path := self._file(tool, "safetensors")) is not None:
            about = {"key": self._hash(tool), "names": json.dumps(names)}
            _write(path, save(arrays, metadata=about))


def _write(path: Path, data: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_bytes(data)
    except OSError:
        return  # a full disk or a read-only folder: the next system computes it again
