"""CPBD: worked out by hand, and against the package that ports the authors' reference."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from stillspeak.errors import VideoError
from stillspeak.evaluation.measures.cpbd import cpbd, edge_widths


def pictures() -> dict[str, np.ndarray]:
    from skimage import data

    grey = np.array([0.2125, 0.7154, 0.0721])
    return {
        "camera": data.camera()[100:300, 150:380].astype(float),
        "coins": data.coins()[:170, :200].astype(float),
        "astronaut": data.astronaut()[:256, 96:352] @ grey,
    }


def bars(width: int) -> np.ndarray:
    """(1, 128, 96): bright bars on dark, whose edges climb over so many pixels."""
    profile = np.zeros(96)
    # Steepest at one pixel, so that thinning leaves one.
    order = np.arange(width)
    steps = 1 + np.minimum(order, order[::-1]) + 0.1 * order
    ramp = (200 * np.cumsum(steps) / steps.sum())[:-1]
    for start in (8, 56):
        profile[start : start + 24] = 200
        profile[start - len(ramp) : start] = ramp
        profile[start + 24 : start + 24 + len(ramp)] = ramp[::-1]
    return np.repeat(profile[None], 128, axis=0)[None]


def test_constant_frames_have_no_edges() -> None:
    assert cpbd(np.full((2, 128, 96), 77.0)).tolist() == [0, 0]


@pytest.mark.parametrize("width", [2, 3, 4, 5])
def test_the_width_of_an_edge_is_measured(width: int) -> None:
    widths = edge_widths(bars(width))
    assert set(np.unique(widths[widths > 0])) == {width}


def test_blur_is_noticed_from_the_just_noticeable_width_on() -> None:
    # High contrast: three pixels are just not noticed, four are.
    assert cpbd(bars(3)).tolist() == [1]
    assert cpbd(bars(4)).tolist() == [0]
    # Contrast of 50 and less: five and six.
    assert cpbd(bars(5) / 4).tolist() == [1]
    assert cpbd(bars(6) / 4).tolist() == [0]


def test_more_blur_is_less_sharp() -> None:
    picture = pictures()["camera"]
    values = [
        cpbd(gaussian_filter(picture, s)[None])[0] if s else cpbd(picture[None])[0]
        for s in (0, 1, 2)
    ]
    assert values[0] > values[1] > values[2]


def test_frames_are_looked_at_one_by_one() -> None:
    frames = np.stack([p[:128, :128] for p in pictures().values()])
    assert cpbd(frames).tolist() == [cpbd(frame[None])[0] for frame in frames]


def test_a_frame_without_a_whole_block_is_refused() -> None:
    with pytest.raises(VideoError, match="64 x 64"):
        cpbd(np.zeros((1, 128, 63)))


@pytest.mark.parametrize("name", ["camera", "coins", "astronaut"])
@pytest.mark.parametrize("blur", [0, 1, 2])
def test_agrees_with_the_reference(name: str, blur: float) -> None:
    reference = pytest.importorskip("cpbd", reason="cpbd-py312 (dev extra) is not installed")
    picture = pictures()[name]
    picture = gaussian_filter(picture, blur) if blur else picture
    assert cpbd(picture[None])[0] == pytest.approx(reference.compute(picture), abs=5e-4)
