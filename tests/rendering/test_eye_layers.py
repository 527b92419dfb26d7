"""Lids before the eyeball, a gaze that turns, and nothing else that moves."""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
import pytest

from stillspeak.constants import BLINK_PEAK
from stillspeak.face.align import transform_points
from stillspeak.face.eyes import (
    LEFT_LOWER_LID,
    LEFT_UPPER_LID,
    RIGHT_LOWER_LID,
    RIGHT_UPPER_LID,
)
from stillspeak.face.landmarks import Face, MediaPipeDetector
from stillspeak.rendering.eyes import EyeLayers
from stillspeak.rendering.mesh import face_frame

SHUT = BLINK_PEAK[1]


def state(closed: float = 0.0, right: float = 0.0) -> tuple[float, np.ndarray]:
    return closed, np.array([right, 0.0])


class Still(NamedTuple):
    """A portrait at four times its size, its landmarks and what draws its eyes."""

    picture: np.ndarray
    points: np.ndarray
    eyes: EyeLayers


@pytest.fixture(scope="module")
def still(portrait: np.ndarray, portrait_face: Face) -> Still:
    part = portrait[20:220, 130:320]
    large = cv2.resize(part, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    points = 4 * (portrait_face.points - (130, 20)) + 1.5
    return Still(large, points, EyeLayers(large, points))


def patch(picture: np.ndarray, place: np.ndarray, reach: int = 2) -> np.ndarray:
    x, y = np.rint(place).astype(int)
    return picture[y - reach : y + reach + 1, x - reach : x + reach + 1].astype(int)


def test_what_does_not_move_is_the_photo(still: Still) -> None:
    np.testing.assert_array_equal(still.eyes.draw(*state()), still.picture)
    assert still.eyes.blink == 1 and still.eyes.notes == ()
    out = still.eyes.draw(*state(SHUT, right=2))
    changed = np.argwhere((out != still.picture).any(axis=2))[:, ::-1]
    unit = face_frame(still.points).scale
    lids = still.points[[*LEFT_UPPER_LID, *LEFT_LOWER_LID, *RIGHT_UPPER_LID, *RIGHT_LOWER_LID]]
    away = np.linalg.norm(changed[:, None] - lids[None], axis=2).min(axis=1)
    assert away.max() < 0.3 * unit
    assert not (changed[:, 0] == round(still.points[168, 0])).any()  # nor the nose


def test_a_detector_sees_the_eyes_close(still: Still, detector: MediaPipeDetector) -> None:
    opened, half, shut = (
        detector.detect(still.eyes.draw(*state(closed)))[0] for closed in (0, 0.25, SHUT)
    )
    gaps = [np.linalg.norm(f.points[159] - f.points[145]) for f in (opened, half, shut)]
    assert gaps[2] < 0.5 * gaps[0] and gaps[2] < gaps[1] < gaps[0]
    closure = [
        (f.blendshapes["eyeBlinkLeft"] + f.blendshapes["eyeBlinkRight"]) / 2 for f in (opened, shut)
    ]
    assert closure[1] > closure[0] + 0.3


def test_the_iris_is_covered_and_not_squeezed(still: Still) -> None:
    part = still.eyes.draw(*state(0.25 * BLINK_PEAK[0]))
    radius = np.linalg.norm(still.points[469] - still.points[468])
    iris = still.points[468]
    np.testing.assert_allclose(patch(part, iris), patch(still.picture, iris), atol=2)
    above = iris - (0, 0.75 * radius)
    assert np.abs(patch(part, above) - patch(still.picture, above)).mean() > 15
    # Where the eyeball was there is skin, once the eye is shut.
    shut = still.eyes.draw(*state(SHUT))
    skin = patch(still.picture, still.points[223]).mean(axis=(0, 1))
    for place in (still.points[468], still.points[468] - (0, 0.4 * radius)):
        before = np.abs(patch(still.picture, place).mean(axis=(0, 1)) - skin).sum()
        assert np.abs(patch(shut, place).mean(axis=(0, 1)) - skin).sum() < 0.5 * before
    # And a line of lashes lower down, darker than the lid.
    column = shut[:, round(float(still.points[468, 0]))].sum(axis=1).astype(int)
    lower = round(float(still.points[145, 1]))
    middle = round(float(still.points[468, 1]))
    assert column[middle : lower + 3].min() < 0.75 * column[middle - 3]


def test_there_is_nothing_beyond_shut(still: Still) -> None:
    np.testing.assert_array_equal(
        still.eyes.draw(*state(BLINK_PEAK[0])), still.eyes.draw(*state(0.9))
    )


def test_a_frame_depends_on_its_numbers_alone(still: Still) -> None:
    first = still.eyes.draw(*state(0.2, 1.0))
    still.eyes.draw(*state(SHUT, -0.5))
    np.testing.assert_array_equal(still.eyes.draw(*state(0.2, 1.0)), first)
    frame = still.picture.copy()
    assert still.eyes.draw(*state(0.2, 1.0), frame) is frame
    np.testing.assert_array_equal(frame, first)


@pytest.mark.parametrize("degrees", [-2.0, 1.0, 2.0])
def test_the_iris_turns_and_the_lids_stay(still: Still, degrees: float) -> None:
    out = still.eyes.draw(*state(right=degrees))
    moved = 0.19 * face_frame(still.points).scale * np.radians(degrees)
    for iris in (468, 473):
        radius = np.linalg.norm(still.points[iris + 1] - still.points[iris])
        x, y = np.rint(still.points[iris]).astype(int)
        r = round(0.8 * radius)
        box = np.s_[y - r // 2 : y + r // 2 + 1, x - r : x + r + 1]
        window = cv2.createHanningWindow((2 * r + 1, 2 * (r // 2) + 1), cv2.CV_32F)
        (dx, _), _ = cv2.phaseCorrelate(
            *(p[box].mean(axis=2).astype(np.float32) for p in (still.picture, out)), window
        )
        assert dx == pytest.approx(moved, abs=0.35)
    for lid in (159, 145, 386, 374, 33, 263):
        up = still.points[lid, 1] < still.points[468, 1]
        place = still.points[lid] + (0, -6 if up else 6)
        np.testing.assert_allclose(patch(out, place, 1), patch(still.picture, place, 1), atol=3)


def with_rims(still: Still, above: float, dark: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """The picture with dark spectacles whose upper rims lie so far above the eyes, and where."""
    unit = face_frame(still.points).scale
    picture, rims = still.picture.copy(), np.zeros(still.picture.shape[:2], np.uint8)
    thick = max(round(0.05 * unit), 2)
    centres = []
    for upper, lower in ((159, 145), (386, 374)):
        eye = (still.points[upper] + still.points[lower]) / 2
        centre = np.rint(eye + np.array((0, (0.4 - above) * unit / 2))).astype(int)
        axes = (round(0.42 * unit), round((0.4 + above) * unit / 2))
        centres.append((tuple(int(v) for v in centre), axes))
    for image, colour in ((picture, (30, 25, 25)), (rims, 255)):
        for centre, axes in centres:
            fill = -1 if dark else thick
            cv2.ellipse(image, centre, axes, 0, 0, 360, colour, fill, cv2.LINE_AA)
        (left, (wide, _)), (right, _) = centres
        ends = (left[0] + wide, left[1]), (right[0] - wide, right[1])
        cv2.line(image, *ends, colour, thick, cv2.LINE_AA)
    return picture, rims > 0


@pytest.mark.parametrize("above", [0.22, 0.3])
def test_spectacles_stay_where_they_are(still: Still, above: float) -> None:
    picture, rims = with_rims(still, above)
    eyes = EyeLayers(picture, still.points)
    assert eyes.spectacles and not still.eyes.spectacles
    for closed in (0.15, 0.3, SHUT):
        out = eyes.draw(*state(closed, 2.0)).astype(int)
        # Less than half a pixel: in fact not at all.
        np.testing.assert_allclose(out[rims], picture[rims], atol=2)
    assert eyes.blink == 1
    lid = patch(out, still.points[468]).mean() - patch(picture, still.points[468]).mean()
    assert lid > 20  # the eye behind them did blink


def test_a_rim_before_the_lid_drops_the_blink(still: Still) -> None:
    picture, _ = with_rims(still, 0.1)
    eyes = EyeLayers(picture, still.points)
    assert eyes.blink == 0 and "a spectacle rim before a lid" in eyes.notes
    np.testing.assert_array_equal(eyes.draw(*state(SHUT)), picture)


def test_nothing_is_drawn_on_dark_glasses(still: Still) -> None:
    picture, _ = with_rims(still, 0.25, dark=True)
    eyes = EyeLayers(picture, still.points)
    assert eyes.blink == 0 and eyes.notes[0] == "dark glasses"
    np.testing.assert_array_equal(eyes.draw(*state(SHUT, 2.0)), picture)


def test_eyes_that_are_shut_stay_so(still: Still) -> None:
    points = still.points.copy()
    points[list(LEFT_UPPER_LID)] = points[list(LEFT_LOWER_LID)]
    eyes = EyeLayers(still.picture, points)
    # Neither does the other eye wink.
    assert eyes.blink == 0 and eyes.notes == ("eyes shut",)
    np.testing.assert_array_equal(eyes.draw(*state(SHUT)), still.picture)


def test_an_eye_at_the_picture_s_edge_does_not_blink(still: Still) -> None:
    row = round(float(still.points[159, 1])) - 3
    column = round(float(still.points[[33, 133], 0].mean()))
    for cut in ((row, 0), (0, column)):
        part = np.ascontiguousarray(still.picture[cut[0] :, cut[1] :])
        eyes = EyeLayers(part, still.points - cut[::-1])
        assert eyes.blink == 0 and eyes.notes == ("an eye at the picture's edge",)
        assert eyes.draw(*state(SHUT, 2.0)).shape == part.shape


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_may_lie_on_its_side(still: Still, turns: int) -> None:
    picture, points = still.picture, still.points
    for _ in range(turns):
        points = np.column_stack([points[:, 1], picture.shape[1] - 1 - points[:, 0]])
        picture = np.rot90(picture)
    out = EyeLayers(np.ascontiguousarray(picture), points).draw(*state(SHUT, 1.0))
    upright = still.eyes.draw(*state(SHUT, 1.0)).astype(int)
    difference = np.abs(np.rot90(out, -turns).astype(int) - upright)
    assert np.quantile(difference, 0.999) <= 6


@pytest.mark.parametrize("scale", [0.1, 0.3])
def test_faces_of_any_size(still: Still, scale: float) -> None:
    small = cv2.resize(still.picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    points = transform_points(still.points, np.array([[scale, 0, 0], [0, scale, 0]]))
    out = EyeLayers(small, points).draw(*state(SHUT))
    x, y = np.rint(points[468]).astype(int)
    assert out[y, x].sum() > small[y, x].sum() + 60
