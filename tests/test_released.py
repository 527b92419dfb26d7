"""Every released model loads by name, says how it was made, and makes a picture speak."""

import numpy as np
import pytest
from skimage.data import astronaut

import stillspeak
from stillspeak.weights import catalogue, read_info

pytestmark = pytest.mark.e2e

NAMES = sorted(set(catalogue()) - {"default"})


def test_the_papers_two_systems_are_released() -> None:
    assert {"temporal", "baseline", "layers"} <= set(NAMES)
    baseline = read_info(catalogue()["baseline"].path)["config"]
    assert baseline["context_layers"] == baseline["noise_dim"] == 0
    temporal = read_info(catalogue()["temporal"].path)["config"]
    assert temporal["context_layers"] == 2


@pytest.mark.parametrize("name", NAMES)
def test_a_released_model_says_how_it_was_made(name: str) -> None:
    path = catalogue()[name].path
    assert path.stat().st_size <= 40 * 2**20
    info = read_info(path)["info"]
    assert info["history"][0]["command"].startswith("stillspeak train --config configs/")
    assert info["steps"] > 0
    assert "CC BY 4.0" in info["data"]
    assert not {"s2", "s4", "s15"} & set(info["speakers"])
    assert info["scores"]


@pytest.mark.parametrize("name", NAMES)
def test_a_released_model_animates(name: str) -> None:
    time = np.arange(16_000) / 16_000
    wave = (0.3 * np.sin(2 * np.pi * 180 * time) * np.sin(2 * np.pi * 3 * time)).astype(np.float32)
    animation = stillspeak.animate(astronaut(), (wave, 16_000), model=name, seed=1)
    frames = animation.frames
    assert frames.shape == (25, 512, 512, 3)
    assert (frames != frames[0]).any(axis=(1, 2, 3)).sum() > 10
    # Nothing but the face moves.
    assert (frames[:, :, :60] == astronaut()[:, :60]).all()
