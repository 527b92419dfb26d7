"""Is it still the same person? Distances between face embeddings (ACD).

The paper embeds with OpenFace and prints 1.02e-4, a scale that cannot be recovered; so each
distance comes with its ratio to the real video's own, as the paper's can be read too (1.38 for
its model, 1.45 for its baseline).
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from stillspeak.errors import ConfigError, MissingDependencyError
from stillspeak.face.align import Transform, crop_face, similarity_transform

Embeddings = npt.NDArray[np.float64]

DistanceName = Literal["l2", "squared", "cosine"]

# dlib cuts its networks' input out of the picture by five landmarks (get_face_chip, padding
# 0.25). For the canonical positions of the aligned crop that is an upright square: its side and
# middle in pixels of the 128 x 96 crop, computed once with dlib 20.0.1.
_DLIB_SIDE = 100.24
_DLIB_CENTRE = (49.97, 62.49)
_DLIB_SIZE = 150

# Eyes' middles and mouth corners: in the aligned crop, and on the 112 x 112 picture that
# ArcFace-like networks are trained with.
_CROP_POINTS = np.array([(30.92, 43.70), (65.43, 42.57), (36.4, 87.6), (63.5, 87.1)])
_ARCFACE_POINTS = np.array(
    [(38.2946, 51.6963), (73.5318, 51.5014), (41.5493, 92.3655), (70.7299, 92.2041)]
)
_ARCFACE_SIZE = 112


class Embedder(Protocol):
    """Turns faces into vectors that are near for one person and far for two."""

    version: str
    """Everything that decides the vectors, in a few words: part of cache keys."""

    def embed(self, crops: Sequence[npt.NDArray[np.uint8]]) -> Embeddings:
        """Aligned crops, each (H, W, 3) uint8, to vectors (T, D) float64."""
        ...


class DlibEmbedder:
    """dlib's 128-dimensional face descriptor (``dlib_face_recognition_resnet_model_v1``)."""

    def __init__(self) -> None:
        try:
            dlib: Any = import_module("dlib")
            models: Any = import_module("face_recognition_models")
        except ImportError as error:
            raise MissingDependencyError(
                f"face embeddings need dlib and its model ({error}); install them with: "
                "pip install 'stillspeak[eval]'"
            ) from error
        self._network = dlib.face_recognition_model_v1(models.face_recognition_model_location())
        self.version = f"dlib {dlib.__version__}, resnet v1, chip {_DLIB_SIDE} {_DLIB_CENTRE}"

    def embed(self, crops: Sequence[npt.NDArray[np.uint8]]) -> Embeddings:
        """Aligned crops, each (H, W, 3) uint8, to (T, 128) float64."""
        chips = (crop_face(crop, dlib_chip(crop), _DLIB_SIZE, _DLIB_SIZE) for crop in crops)
        vectors = [np.array(self._network.compute_face_descriptor(chip)) for chip in chips]
        return np.stack(vectors) if vectors else np.zeros((0, 128))


class OnnxEmbedder:
    """Any face embedder in an ONNX file with one picture in and one vector out.

    Input (B, 3, N, N), N fixed or 112: RGB, (x - 127.5) / 127.5, eyes and mouth at ArcFace's
    places. Output (B, D).
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise ConfigError(f"{path}: no such embedder; give an ONNX file")
        try:
            runtime: Any = import_module("onnxruntime")
        except ImportError as error:
            raise MissingDependencyError(
                f"{path}: ONNX embedders need onnxruntime; install it with: pip install onnxruntime"
            ) from error
        from stillspeak.weights import file_sha256  # brings torch along

        options = runtime.SessionOptions()
        # Clips run in parallel; and with one thread the sums have one order.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime's own classes derive from nothing narrower
            raise ConfigError(
                f"{path}: cannot be used as an embedder ({str(error).splitlines()[0]})"
            ) from error
        (source, *more) = self._session.get_inputs()
        shape = list(source.shape)
        if more or len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3]:
            raise ConfigError(f"{path}: takes {shape}, an embedder takes (B, 3, N, N) pictures")
        self._input = source.name
        self._size = shape[2] if isinstance(shape[2], int) else _ARCFACE_SIZE
        self.version = f"onnx {file_sha256(path)}, onnxruntime {metadata.version('onnxruntime')}"

    def embed(self, crops: Sequence[npt.NDArray[np.uint8]]) -> Embeddings:
        """Aligned crops, each (H, W, 3) uint8, to (T, D) float64."""
        vectors = []
        places = (_ARCFACE_POINTS + 0.5) * (self._size / _ARCFACE_SIZE) - 0.5
        for crop in crops:
            points = (_CROP_POINTS + 0.5) * (crop.shape[1] / 96) - 0.5
            chip = crop_face(crop, similarity_transform(points, places), self._size, self._size)
            picture = (chip.astype(np.float32).transpose(2, 0, 1) - 127.5) / 127.5
            (vector, *_) = self._session.run(None, {self._input: picture[None]})
            vectors.append(np.asarray(vector, np.float64).ravel())
        return np.stack(vectors)


def load_embedder(file: Path | None = None) -> Embedder:
    """dlib's embedder, or the one in an ONNX file.

    Raises:
        MissingDependencyError: dlib or onnxruntime is not installed.
        ConfigError: no such file, not ONNX, or other inputs.
    """
    return DlibEmbedder() if file is None else OnnxEmbedder(file)


def distances(still: npt.NDArray[np.float64], frames: Embeddings, kind: DistanceName) -> Embeddings:
    """Distances between the still's vector (D,) and each frame's (T, D): (T,), Euclidean, its
    square, or one minus the cosine.
    """
    if kind == "cosine":
        norms = np.linalg.norm(frames, axis=1) * np.linalg.norm(still)
        # Rounding takes the cosine of equal vectors a little above one.
        cosine: Embeddings = np.maximum(1 - frames @ still / norms, 0)
        return cosine
    squared: Embeddings = np.square(frames - still).sum(axis=1)
    return squared if kind == "squared" else np.sqrt(squared)


def dlib_chip(crop: npt.NDArray[np.uint8]) -> Transform:
    """The transform (2, 3) from an aligned crop (H, W, 3) to dlib's 150 x 150 input."""
    scale = crop.shape[1] / 96
    step = _DLIB_SIZE / (_DLIB_SIDE * scale)
    middle = (np.array(_DLIB_CENTRE) + 0.5) * scale - 0.5
    return np.column_stack([step * np.eye(2), (_DLIB_SIZE - 1) / 2 - step * middle])
