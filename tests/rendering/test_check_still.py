"""What is refused and what is warned of, on a public-domain portrait with things drawn into it."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from stillspeak.errors import FaceTooSmallError, FaceTurnedError, MouthOutsideError
from stillspeak.face.landmarks import Face, MediaPipeDetector
from stillspeak.rendering.check import check_still, covered_score


def codes(picture: np.ndarray, face: Face) -> list[str]:
    return [warning.code for warning in check_still(picture, face)]


def seen_again(detector: MediaPipeDetector, picture: np.ndarray) -> Face:
    """The face as it is found in a changed picture: that is what a user's run has."""
    return detector.detect(picture)[0]


@pytest.fixture(scope="module")
def close(portrait: np.ndarray, portrait_face: Face) -> np.ndarray:
    """The face, its eyes 80 pixels apart."""
    factor = 80 / portrait_face.eye_distance
    return cv2.resize(portrait[:300, 84:324], None, fx=factor, fy=factor)


@pytest.fixture(scope="module")
def face(detector: MediaPipeDetector, close: np.ndarray) -> Face:
    return seen_again(detector, close)


def mask(picture: np.ndarray, face: Face, colour: tuple[int, int, int]) -> np.ndarray:
    ring = (197, 454, 323, 361, 288, 397, 365, 152, 136, 172, 58, 132, 93, 234)
    drawn = picture.copy()
    cv2.fillPoly(drawn, [face.points[list(ring)].astype(np.int32)], colour, cv2.LINE_AA)
    return drawn


def microphone(picture: np.ndarray, face: Face) -> np.ndarray:
    drawn, (x, y) = picture.copy(), face.points[14].astype(int)
    cv2.line(drawn, (x, y), (x - 60, y + 200), (20, 20, 22), 32, cv2.LINE_AA)
    cv2.circle(drawn, (x, y), 38, (40, 40, 42), -1, cv2.LINE_AA)
    return drawn


def bare_skin(picture: np.ndarray, face: Face) -> np.ndarray:
    (x, y), drawn = face.points[13].astype(int), picture.copy()
    cheek = picture[tuple(face.points[205].astype(int)[::-1])]
    cv2.ellipse(drawn, (x, y), (60, 40), 0, 0, 360, cheek.tolist(), -1, cv2.LINE_AA)
    return cv2.GaussianBlur(drawn, (0, 0), 1)


@pytest.mark.parametrize("look", ["as it is", "grey", "dim", "warm", "mirrored"])
def test_a_good_still_has_no_warnings(
    detector: MediaPipeDetector, close: np.ndarray, face: Face, look: str
):
    picture = {
        "as it is": close,
        "grey": np.repeat(cv2.cvtColor(close, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2),
        "dim": (0.35 * close).astype(np.uint8),
        "warm": (close * (1.0, 0.85, 0.6)).astype(np.uint8),
        "mirrored": np.ascontiguousarray(close[:, ::-1]),
    }[look]
    assert codes(picture, seen_again(detector, picture)) == []


@pytest.mark.parametrize(
    "drawn",
    [
        lambda p, f: mask(p, f, (150, 190, 215)),
        lambda p, f: mask(p, f, (235, 235, 235)),
        lambda p, f: mask(p, f, (20, 20, 22)),
        microphone,
        bare_skin,
    ],
)
def test_a_covered_mouth_is_warned_of(
    detector: MediaPipeDetector, close: np.ndarray, face: Face, drawn
):
    picture = drawn(close, face)
    (warning,) = check_still(picture, seen_again(detector, picture))
    assert warning.code == "mouth_covered"
    assert "covered" in warning.message and "\n" not in warning.message


def test_a_covered_forehead_is_not(close: np.ndarray, face: Face):
    picture = close.copy()
    top = int(face.points[9, 1])
    picture[:top] = (40, 60, 140)
    assert codes(picture, face) == []


def test_the_score_does_not_depend_on_the_size(close: np.ndarray, face: Face):
    small = cv2.resize(close, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    points = (face.points + 0.5) * 0.6 - 0.5
    assert covered_score(small, points) == pytest.approx(covered_score(close, face.points), abs=1.5)


@pytest.mark.parametrize("through", ["the mouth", "the nose"])
def test_a_mouth_cut_off_is_refused(
    detector: MediaPipeDetector, close: np.ndarray, face: Face, through: str
):
    row = int(face.points[13 if through == "the mouth" else 2, 1])
    picture = np.ascontiguousarray(close[:row])
    with pytest.raises(MouthOutsideError, match=r"^me\.png: the mouth is cut off .*; use a pic"):
        check_still(picture, seen_again(detector, picture), name="me.png")


def test_a_chin_cut_off_is_warned_of(detector: MediaPipeDetector, close: np.ndarray, face: Face):
    picture = np.ascontiguousarray(close[: int(face.points[17, 1] + 10)])
    assert codes(picture, seen_again(detector, picture)) == ["chin_outside"]


def test_small_blurred_and_turned_faces_are_warned_of(close: np.ndarray, face: Face):
    small = replace(face, points=face.points * 0.3)
    shrunk = cv2.resize(close, None, fx=0.3, fy=0.3, interpolation=cv2.INTER_AREA)
    assert codes(shrunk, small) == ["face_small"]
    assert "picture_blurred" in codes(cv2.GaussianBlur(close, (0, 0), 7), face)
    (turned,) = check_still(close, replace(face, yaw=-42.0))
    assert turned.code == "face_turned" and "42 degrees" in turned.message


def test_a_mouth_wide_open_is_warned_of(close: np.ndarray, face: Face):
    points = face.points.copy()
    points[14, 1] = points[13, 1] + 0.4 * face.eye_distance
    assert codes(close, replace(face, points=points)) == ["mouth_wide_open"]


def test_what_cannot_speak_is_refused(close: np.ndarray, face: Face):
    with pytest.raises(FaceTurnedError, match="turned 70 degrees"):
        check_still(close, replace(face, yaw=70.0))
    with pytest.raises(FaceTooSmallError):
        check_still(close, replace(face, points=face.points * 0.1))
