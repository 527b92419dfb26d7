"""Distances between faces, by hand, and dlib's network on a face and its changes."""

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stillspeak.errors import ConfigError, MissingDependencyError
from stillspeak.evaluation.measures.identity import (
    DlibEmbedder,
    distances,
    dlib_chip,
    load_embedder,
)
from stillspeak.face.align import canonical_face, crop_face, face_transform, transform_points
from support.animate import portrait, portrait_face


def crop() -> np.ndarray:
    return crop_face(portrait(), face_transform(portrait_face().points), 128, 96)


def test_distances_by_hand() -> None:
    still, frames = np.array([3.0, 4.0]), np.array([[3.0, 4.0], [0.0, 0.0001], [6.0, 8.0], [-4, 3]])
    assert distances(still, frames, "squared")[[0, 2, 3]].tolist() == [0, 25, 50]
    assert distances(still, frames, "l2")[[0, 2]].tolist() == [0, 5]
    assert distances(still, frames, "cosine") == pytest.approx([0, 1 - 0.8, 0, 1])
    assert (distances(still, frames, "cosine") >= 0).all()


def test_the_chip_has_the_eyes_where_dlib_puts_them() -> None:
    # Inner and outer corners on one level, a face's middle in the middle, larger than the crop.
    points = transform_points(canonical_face().points, dlib_chip(np.zeros((128, 96, 3), np.uint8)))
    places = dict(zip(canonical_face().indices, points, strict=True))
    assert places[2][0] == pytest.approx(73.4, abs=0.5)
    assert np.ptp([places[i][1] for i in (33, 133, 362, 263)]) < 4
    double = dlib_chip(np.zeros((256, 192, 3), np.uint8))
    large = transform_points((canonical_face().points + 0.5) * 2 - 0.5, double)
    assert large == pytest.approx(points, abs=1e-9)


def test_dlib_knows_a_face_again() -> None:
    pytest.importorskip("dlib", reason="the eval extra is not installed")
    pytest.importorskip("face_recognition_models", reason="the eval extra is not installed")
    embedder = DlibEmbedder()
    picture = crop()
    changed = np.clip(picture * 0.8 + 10, 0, 255).astype(np.uint8)
    noise = np.random.default_rng(0).integers(0, 256, picture.shape, dtype=np.uint8)
    still, same, light, other = embedder.embed([picture, picture, changed, noise])
    assert (still == same).all()
    assert len(still) == 128
    assert distances(still, light[None], "l2")[0] < 0.35
    assert distances(still, other[None], "l2")[0] > 0.6
    assert "dlib" in embedder.version


def test_without_dlib_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    with pytest.raises(MissingDependencyError, match=r"stillspeak\[eval\]"):
        load_embedder()


class Session:
    """An onnxruntime session that averages colours."""

    shape: tuple[Any, ...] = ("batch", 3, 56, 56)

    def __init__(self, path: str, options: Any, providers: list[str]) -> None:
        assert options.intra_op_num_threads == 1
        if Path(path).read_bytes() != b"network":
            raise RuntimeError("not a protobuf\nat all")

    def get_inputs(self) -> list[Any]:
        return [types.SimpleNamespace(name="picture", shape=self.shape)]

    def run(self, outputs: None, feed: dict[str, np.ndarray]) -> list[np.ndarray]:
        (picture,) = feed["picture"]
        assert picture.shape == (3, 56, 56)
        assert picture.dtype == np.float32
        assert -1 <= picture.min() <= picture.max() <= 1
        return [picture.mean(axis=(1, 2))[None]]


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("onnxruntime")
    module.SessionOptions = types.SimpleNamespace  # type: ignore[attr-defined]
    module.InferenceSession = Session  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime", module)
    monkeypatch.setattr(
        "stillspeak.evaluation.measures.identity.metadata.version", lambda name: "1.0"
    )
    return module


def test_any_onnx_network_can_be_named(runtime: types.ModuleType, tmp_path: Path) -> None:
    file = tmp_path / "face.onnx"
    file.write_bytes(b"network")
    embedder = load_embedder(file)
    red = np.zeros((128, 96, 3), np.uint8)
    red[..., 0] = 255
    assert embedder.embed([red, red]) == pytest.approx(np.array([[1, -1, -1]] * 2))
    assert embedder.version.startswith("onnx ")
    other = tmp_path / "other.onnx"
    other.write_bytes(b"text")
    with pytest.raises(ConfigError, match=r"other.onnx: cannot be used .*not a protobuf\)$"):
        load_embedder(other)


def test_onnx_networks_that_do_not_fit(
    runtime: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "face.onnx"
    file.write_bytes(b"network")
    monkeypatch.setattr(Session, "shape", (1, 56, 56, 3))
    with pytest.raises(ConfigError, match="pictures"):
        load_embedder(file)
    with pytest.raises(ConfigError, match="no such embedder"):
        load_embedder(tmp_path / "none.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingDependencyError, match="pip install onnxruntime"):
        load_embedder(file)
