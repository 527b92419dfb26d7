"""The face's own frame, and how a mouth comes to rest."""

import numpy as np
import pytest

from stillspeak.face.landmarks import Face
from stillspeak.face.mouth import CHIN, LIPS, POSE_POINTS
from stillspeak.rendering.mesh import (
    AROUND,
    LOWER,
    UPPER,
    USUAL_WIDTH,
    face_frame,
    face_model,
    rest_pose,
)

INNER = np.array(LIPS[20:])


def shown(roll: float = 0, yaw: float = 0, pitch: float = 0, scale: float = 80) -> np.ndarray:
    """(478, 3) the average face as a camera sees it, in pixels."""
    r, y, p = np.radians([roll, yaw, pitch])
    turn = np.array([[np.cos(r), -np.sin(r), 0], [np.sin(r), np.cos(r), 0], [0, 0, 1]])
    side = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    nod = np.array([[1, 0, 0], [0, np.cos(p), -np.sin(p)], [0, np.sin(p), np.cos(p)]])
    return scale * face_model().template @ (turn @ side @ nod).T + (300, 200, 0)


def test_the_average_face_is_symmetric_and_a_unit_wide() -> None:
    template = face_model().template
    assert template.shape == (478, 3)
    eyes = template[[33, 133]].mean(axis=0), template[[362, 263]].mean(axis=0)
    assert np.linalg.norm(eyes[1] - eyes[0]) == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(template[61] * (-1, 1, 1), template[291], atol=1e-5)
    assert abs(template[CHIN, 0]) < 1e-5


def test_a_pose_is_the_lips_and_the_chin() -> None:
    assert POSE_POINTS[:-1] == LIPS
    assert POSE_POINTS[-1] == 152
    # Either ring, from the picture's left to its right, upper above lower.
    points = face_model().template
    for rows in (UPPER, LOWER):
        assert (np.diff(points[INNER[list(rows)], 0]) > 0).all()
    assert CHIN in AROUND


@pytest.mark.parametrize("depth", [False, True], ids=["flat", "deep"])
@pytest.mark.parametrize(
    "turn",
    [{}, {"roll": 40}, {"roll": -90}, {"roll": 180}, {"yaw": 30}, {"yaw": -35}, {"pitch": 15}],
    ids=str,
)
def test_the_own_frame_does_not_turn(turn: dict[str, float], depth: bool) -> None:
    points = shown(**turn)
    frame = face_frame(points if depth else points[:, :2])
    assert frame.scale == pytest.approx(80, rel=1e-3)
    np.testing.assert_allclose(frame.points, face_model().template[:, :2], atol=2e-3)


def test_a_movement_along_the_skin_is_seen_from_the_side() -> None:
    for yaw in (-30.0, 0.0, 30.0):
        frame = face_frame(shown(yaw=yaw))
        left, right = frame.jacobians[61] @ (1.0, 0.0), frame.jacobians[291] @ (1.0, 0.0)
        if yaw:  # the near corner moves further than the far one
            near, far = (left, right) if yaw < 0 else (right, left)
            assert abs(near[0]) > 1.2 * abs(far[0])
        else:
            assert left[0] == pytest.approx(right[0], rel=1e-3)


def test_a_closed_mouth_is_at_rest() -> None:
    own = face_model().template[:, :2].copy()
    rest = rest_pose(own)
    assert rest.open == 0
    np.testing.assert_allclose(rest.around, 0)
    np.testing.assert_allclose(rest.lips[:20], 0)
    assert np.abs(rest.lips[20:]).max() < 0.01
    width = np.linalg.norm(own[291] - own[61])
    assert rest.scale == pytest.approx(width / USUAL_WIDTH, rel=1e-6)


def test_a_smile_is_let_go_and_its_lips_meet(portrait_face: Face) -> None:
    own = face_frame(portrait_face.points).points
    rest = rest_pose(own)
    assert rest.open == 1
    lips = own[list(LIPS)] + rest.lips
    upper, lower = lips[20:][list(UPPER)], lips[20:][list(LOWER)]
    np.testing.assert_allclose(upper, lower, atol=1e-9)
    width, smiling = (np.linalg.norm(p[10] - p[0]) for p in (lips, own[list(LIPS)]))
    assert 0.8 < width < 0.98 * smiling
    # Neither lip is turned inside out.
    assert (lips[1:10, 1] > lips[21:30, 1]).all()
    assert (lips[11:20, 1] < lips[31:40, 1]).all()


def test_skin_does_not_run_away_from_a_pose_nobody_has_shown() -> None:
    follow = face_model().follow
    assert np.linalg.norm(follow, 2) < 3
    narrow = np.zeros((len(POSE_POINTS), 2))
    narrow[:, 0] = -0.3 * face_model().template[list(POSE_POINTS), 0]
    moved = np.abs((follow @ narrow.ravel()).reshape(-1, 2))
    assert moved.max() < np.abs(narrow).max()
