"""A prepared cache: one safetensors file per clip, which training reads by memory map.

``CACHE/SPEAKER/NAME.safetensors`` holds:

==============  =====================  ====================================================
``frames``      uint8 (T, H, W, 3)     aligned crops at 25 fps, RGB
``audio``       float32 (S,)           mono in [-1, 1] at 16 kHz, S = 640 T exactly
``landmarks``   float32 (T, 478, 2)    not smoothed, in pixels of the same frame's crop
``blendshapes``  float16 (T, 52)       in [0, 1], names in the header
``head_pose``   float32 (T, 3)         yaw, pitch, roll in degrees, as in ``face.Face``
``mouth``       uint8 (T, 144, 144, 3)  optional: ``models.regions.LOWER_BOX`` at double scale
==============  =====================  ====================================================

The header's metadata holds JSON strings: speaker, stem, name, split, text, words, source,
blendshapes (their names), interpolated (frames without a detection), format and ``key``, the
hash over everything that the file depends on. A file with the right key is never made again.
Where they are known it holds emotion and level too, and for a stretch of a longer video its
span: the seconds from the video's first frame at which it begins and ends. With ``mouth`` comes
mouth_scale, its pixels per pixel of a 128 x 96 crop. One cache may hold clips with and without.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import PositiveInt

from stillspeak.data.clips import Split
from stillspeak.errors import ConfigError, DataError
from stillspeak.face.landmarks import LANDMARKS
from stillspeak.system.atomic import whole_file
from stillspeak.system.configuration import build, configuration, read_json

FORMAT = 1
"""Version of the cached files; raise it whenever the code would write something else."""

MANIFEST = "manifest.jsonl"

_TENSORS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "frames": ("U8", (None, None, 3)),
    "audio": ("F32", ()),
    "landmarks": ("F32", (None, 2)),
    "blendshapes": ("F16", (None,)),
    "head_pose": ("F32", (3,)),
    "mouth": ("U8", (None, None, 3)),
}
# Sound lies in [-1, 1]; landmarks may lie outside of the crop, but not miles away.
_LOUDEST, _FARTHEST = 1.001, 1e5


@configuration("clip")
class CachedClip:
    """One line of the manifest; ``file`` is absolute once loaded."""

    file: Path
    speaker: str
    stem: str
    name: str
    split: Split
    frames: PositiveInt
    key: str
    text: str | None
    emotion: str | None = None
    level: str | None = None


def load_manifest(cache_dir: str | Path) -> list[CachedClip]:
    """The clips of a cache, in the order in which they were prepared.

    Raises:
        DataError: if there is no manifest or it is damaged.
    """
    path = Path(cache_dir).absolute() / MANIFEST
    try:
        # JSON escapes every other line break that splitlines() knows.
        lines = path.read_bytes().split(b"\n")
    except OSError:
        raise DataError(
            f"{path}: no prepared clips here; run: stillspeak prepare CORPUS {cache_dir}"
        ) from None
    clips = []
    for number, line in enumerate(lines, 1):
        if not line and number == len(lines):
            break
        where = f"{path}, line {number}"
        try:
            row = read_json(line)
            if not isinstance(row, dict) or not isinstance(row.get("file"), str):
                raise ValueError("names no file")
            clips.append(cached_clip(row, path.parent / row["file"], name=where))
        except ValueError as error:
            raise DataError(f"{where}: damaged ({error}); run stillspeak prepare again") from error
    return clips


def cached_clip(row: Mapping[str, Any], file: Path, *, name: str) -> CachedClip:
    """A line of a manifest, which messages call ``name``, checked.

    Raises:
        DataError: a key that is missing or unknown, or a value that cannot be.
    """
    try:
        return build(CachedClip, {**row, "file": file}, name=name)
    except ConfigError as error:
        why = str(error).removeprefix(f"{name}: ")
        raise DataError(f"{name}: damaged ({why}); run stillspeak prepare again") from error


class CachedClipReader:
    """A prepared clip, memory-mapped: only what is asked for is read. A context manager."""

    def __init__(self, path: str | Path, *, frames: int | None = None) -> None:
        from safetensors import SafetensorError, safe_open

        self.path = Path(path)
        try:
            handle: Any = safe_open(str(path), framework="numpy")
            self._handle = handle
            self._names = frozenset(handle.keys())
            self._check(frames)
        except (OSError, ValueError, SafetensorError) as error:
            raise DataError(
                f"{path}: the prepared clip cannot be read ({error}); run stillspeak prepare again"
            ) from error

    def _check(self, frames: int | None) -> None:
        """Check the tensors against the module's table; ``ValueError`` says which is wrong."""
        lengths = set() if frames is None else {frames}
        for name in sorted(self._names & _TENSORS.keys()):
            tensor = self._handle.get_slice(name)
            shape, (kind, rest) = tensor.get_shape(), _TENSORS[name]
            fits = len(shape) == 1 + len(rest) and all(
                wanted in (None, size) for wanted, size in zip(rest, shape[1:], strict=True)
            )
            if tensor.get_dtype() != kind or not fits:
                raise ValueError(f"{name} is {tensor.get_dtype()} {shape}")
            if name != "audio":
                lengths.add(shape[0])
        if len(lengths) > 1:
            raise ValueError(f"frames in its parts and in the manifest: {sorted(lengths)}")

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """The header: speaker, split, text, words, blendshape names, key and more."""
        header: dict[str, str] = self._handle.metadata() or {}
        try:
            return {name: read_json(value) for name, value in header.items()}
        except ValueError as error:
            raise DataError(f"{self.path}: the header is damaged ({error})") from error

    @property
    def n_frames(self) -> int:
        return int(self.get_slice("frames").get_shape()[0])

    def has(self, name: str) -> bool:
        """Whether there is a tensor of this name: not every clip has ``mouth``."""
        return name in self._names

    def get_tensor(self, name: str) -> npt.NDArray[Any]:
        """A whole tensor, see the module's table."""
        self._need(name)
        return np.asarray(self._handle.get_tensor(name))

    def get_slice(self, name: str) -> Any:
        """A view that reads what it is indexed with: ``get_slice("frames")[3:8]``."""
        self._need(name)
        return self._handle.get_slice(name)

    def _need(self, name: str) -> None:
        if name not in self._names:
            raise DataError(
                f"{self.path}: the prepared clip holds no {name}; run stillspeak prepare again"
            )

    def __enter__(self) -> CachedClipReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._handle = None  # gives the map back


def open_clip(clip: CachedClip | str | Path) -> CachedClipReader:
    """Open a prepared clip for reading.

    Raises:
        DataError: if the file is missing, damaged or another one than the manifest says.
    """
    if isinstance(clip, CachedClip):
        return CachedClipReader(clip.file, frames=clip.frames)
    return CachedClipReader(clip)


def sound_and_landmarks(
    tensors: CachedClipReader,
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Sound (S,) and landmarks (T, 478, 2) of a prepared clip.

    Raises:
        DataError: one is missing, or holds what neither sound nor a place in a crop can be: a
            single NaN would spoil every weight that is trained.
    """
    audio, landmarks = tensors.get_tensor("audio"), tensors.get_tensor("landmarks")
    for name, values, most in (("audio", audio, _LOUDEST), ("landmarks", landmarks, _FARTHEST)):
        if values.size and not float(np.abs(values).max()) <= most:
            raise DataError(
                f"{tensors.path}: {name} holds NaN or values beyond {most:g}; "
                "run stillspeak prepare again"
            )
    if landmarks.shape[1] != LANDMARKS:
        raise DataError(
            f"{tensors.path}: {landmarks.shape[1]} landmarks a frame, {LANDMARKS} are needed; "
            "run stillspeak prepare again"
        )
    return audio, landmarks


def write_tensors(
    path: Path, tensors: dict[str, npt.NDArray[Any]], metadata: dict[str, str]
) -> None:
    """Write a safetensors file so that its name never stands for half a file."""
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as partial:
        # save_file would make a file that only its owner can read.
        partial.write_bytes(save(tensors, metadata=metadata))
