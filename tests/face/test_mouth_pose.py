"""The mouth's pose: lips and chin in the face's own frame, relative to lips that meet."""

import numpy as np
import pytest

from stillspeak.face.mouth import (
    CHIN,
    INNER_BOTTOM,
    INNER_TOP,
    POSE_POINTS,
    mirrored_points,
    mouth_shapes,
    opening_of,
    rest_shape,
    width_of,
)
from stillspeak.rendering.mesh import face_model
from support.faces import face_points

OPENING = 2 + 8 * (0.5 + 0.5 * np.sin(0.6 * np.arange(30)))


def turned(points: np.ndarray, roll: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    """The same face elsewhere in a picture."""
    turn = np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    return scale * points @ turn.T + shift


def test_a_pose_has_the_lips_and_the_chin() -> None:
    assert len(POSE_POINTS) == 41 and POSE_POINTS[-1] == CHIN
    assert len(set(POSE_POINTS)) == 41
    shapes = mouth_shapes(face_points(OPENING))
    assert shapes.shape == (30, 41, 2) and shapes.dtype == np.float32


@pytest.mark.parametrize(
    ("roll", "scale", "shift"),
    [(0.0, 1.0, (40.0, -9.0)), (0.4, 3.7, (500.0, 20.0)), (-1.2, 0.5, (0, 0))],
)
def test_roll_size_and_place_of_the_head_have_no_part_in_it(
    roll: float, scale: float, shift: tuple[float, float]
) -> None:
    points = face_points(OPENING)
    shapes = mouth_shapes(turned(points, roll, scale, shift))
    np.testing.assert_allclose(shapes, mouth_shapes(points), atol=1e-5)


def test_a_head_that_moves_while_it_speaks() -> None:
    """Landmarks are steadied over seven frames, so a head that drifts evenly is followed."""
    points = face_points(OPENING)
    drift = np.linspace(0, 30, 30)[:, None, None] * np.array([1.0, 0.3])
    inner = slice(4, -4)
    np.testing.assert_allclose(
        mouth_shapes(points + drift)[inner], mouth_shapes(points)[inner], atol=1e-4
    )


def test_the_opening_is_the_inner_lips() -> None:
    points = face_points(OPENING)
    gap = points[:, INNER_BOTTOM, 1] - points[:, INNER_TOP, 1]
    made = opening_of(mouth_shapes(points))
    assert np.corrcoef(gap, made)[0, 1] > 0.999
    assert made.min() > 0


def test_the_rest_is_where_the_lips_are_closest() -> None:
    shapes = mouth_shapes(face_points(OPENING))
    rest = rest_shape(shapes)
    gap = opening_of(shapes)
    closest = np.sort(gap)[:3].mean()
    assert rest.shape == (41, 2)
    assert opening_of(rest) == pytest.approx(closest, abs=1e-6)
    poses = shapes - rest
    assert -0.01 < opening_of(poses).min() < 0.001 < opening_of(poses).max()


def test_mirrored_points_stand_where_the_mirror_shows_them() -> None:
    mirror = mirrored_points()
    assert sorted(mirror) == list(range(41))
    assert np.array_equal(mirror[mirror], np.arange(41))  # twice is nothing
    # The mean of many people's faces is nearly symmetric.
    # The canonical eyes that the frame comes from are not quite level.
    shape = mouth_shapes(100 * face_model().template[None, :, :2])[0]
    roll = np.arctan2(*shape[40])
    assert abs(roll) < np.radians(2)
    shape = turned(shape, roll, 1.0, (0.0, 0.0))
    flipped = shape[mirror] * np.array([-1, 1])
    assert np.abs(flipped - shape).max() < 0.02
    order = np.argsort(shape[:20, 0])
    assert mirror[order[0]] == order[-1]  # corners change places
    assert opening_of(flipped) == pytest.approx(opening_of(shape), abs=1e-6)
    assert width_of(flipped) == pytest.approx(width_of(shape), abs=0.02) and width_of(shape) > 0.5
