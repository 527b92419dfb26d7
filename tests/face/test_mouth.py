"""Which points are lips, and what the distances between them are."""

import numpy as np
import pytest

from stillspeak.face.landmarks import Face, MediaPipeDetector
from stillspeak.face.mouth import (
    INNER_LIPS,
    LIPS,
    MIRRORED_PAIRS,
    MOUTH_PAIRS,
    OUTER_LIPS,
    lip_opening,
    mouth_distances,
)


def test_lips_are_forty_points_without_repetition() -> None:
    assert len(OUTER_LIPS) == len(INNER_LIPS) == 20
    assert len(set(LIPS)) == 40
    assert all(0 <= point < 478 for point in LIPS)


def test_lips_run_round_in_order(portrait_face: Face) -> None:
    points = np.asarray(portrait_face.points)
    for ring in (OUTER_LIPS, INNER_LIPS):
        x, y = points[list(ring)].T
        step = np.hypot(np.diff(x, append=x[0]), np.diff(y, append=y[0]))
        assert step.max() < 4 * np.median(step)  # no jump across the mouth
    outer = np.ptp(points[list(OUTER_LIPS)], axis=0)
    inner = np.ptp(points[list(INNER_LIPS)], axis=0)
    assert (inner < outer).all()


def test_distances() -> None:
    points = np.zeros((2, 478, 2))
    for index, (first, second) in enumerate(MOUTH_PAIRS):
        points[0, first] = (5, 5)
        points[0, second] = (5 + 3 * (index + 1), 5 + 4 * (index + 1))
    distances = mouth_distances(points)
    assert distances.dtype == np.float32
    assert distances.shape == (2, 7)
    assert distances[0].tolist() == [5, 10, 15, 20, 25, 30, 35]
    assert not distances[1].any()
    assert lip_opening(points).tolist() == [5, 0]
    assert lip_opening(points[0]).shape == ()


def test_opening_is_the_first_distance(portrait_face: Face) -> None:
    points = np.asarray(portrait_face.points)
    assert lip_opening(points) == mouth_distances(points)[0] > 0


def test_pairs_change_places_in_a_mirrored_picture(
    detector: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face
) -> None:
    (mirrored,) = detector.detect(np.ascontiguousarray(portrait[:, ::-1]))
    back = np.asarray(mirrored.points) * (-1, 1) + (portrait.shape[1] - 1, 0)
    points = np.asarray(portrait_face.points)
    for index, pair in enumerate(MOUTH_PAIRS):
        places = points[list(pair)]
        other = back[list(MOUTH_PAIRS[MIRRORED_PAIRS[index]])]
        near = min(np.abs(places - other).max(), np.abs(places - other[::-1]).max())
        assert near < 3, pair
    # Not so without the exchange: the pairs are far enough apart to tell.
    assert np.abs(points[82] - back[82]).max() > 5


def test_mirroring_twice_is_nothing() -> None:
    assert [MIRRORED_PAIRS[i] for i in MIRRORED_PAIRS] == list(range(7))


@pytest.mark.parametrize("shape", [(478, 2), (3, 478, 2), (2, 3, 478, 2)])
def test_any_number_of_frames(shape: tuple[int, ...]) -> None:
    assert mouth_distances(np.ones(shape)).shape == (*shape[:-2], 7)
