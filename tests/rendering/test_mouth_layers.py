"""A mouth in any pose, drawn into a photo."""

import numpy as np
import pytest

from stillspeak.face.landmarks import Face, MediaPipeDetector
from stillspeak.face.mouth import LIPS, POSE_POINTS, lip_opening
from stillspeak.rendering.light import Light, still_light
from stillspeak.rendering.mesh import AROUND, face_frame, rest_pose
from stillspeak.rendering.mouth import MouthLayers
from support.mouths import drawing, opened

REST = np.zeros((len(POSE_POINTS), 2), np.float32)


@pytest.fixture(scope="module")
def layers(portrait: np.ndarray, portrait_face: Face) -> MouthLayers:
    return MouthLayers(portrait, portrait_face.points)


def test_at_rest_a_smile_is_closed(
    layers: MouthLayers, detector: MediaPipeDetector, portrait: np.ndarray
) -> None:
    assert layers.open == 1
    (face,) = detector.detect(layers.draw(REST))
    height = np.linalg.norm(face.points[10] - face.points[152])
    assert lip_opening(face.points) / height <= 0.012


def test_the_lips_open_as_far_as_they_are_told(
    layers: MouthLayers, detector: MediaPipeDetector, portrait_face: Face
) -> None:
    frame = face_frame(portrait_face.points)
    unit = frame.scale * rest_pose(frame.points).scale
    seen = []
    for lower in (0.05, 0.12, 0.2):
        (face,) = detector.detect(layers.draw(opened(lower, 0.02)))
        seen.append(lip_opening(face.points) / unit)
        # The detector, too, takes the shade on the lips' inner rim for a gap.
        assert lower <= seen[-1] <= lower + 0.12
    assert seen[0] + 0.04 < seen[1] < seen[2] - 0.04


@pytest.mark.parametrize("turn", [0, 25, -90, 180])
def test_a_closed_still_at_rest_is_the_photo(turn: float) -> None:
    picture, points = drawing(turn=turn)
    layers = MouthLayers(picture, points)
    assert layers.open == 0
    changed = np.abs(layers.draw(REST).astype(int) - picture).max(axis=2)
    # Only where the two lips meet, and there by an edge's smoothing.
    assert (changed > 0).sum() < 0.004 * changed.size
    assert changed.max() <= 40


@pytest.mark.parametrize("turn", [0, 25, -90, 180])
def test_a_hole_opens_between_the_lips(turn: float) -> None:
    picture, points = drawing(turn=turn)
    frame = face_frame(points)
    out = MouthLayers(picture, points).draw(opened(0.25)).astype(int)
    mouth = points[13] + frame.jacobians[13] @ (0.0, 0.12)
    x, y = np.rint(mouth).astype(int)
    around = out[y - 2 : y + 3, x - 2 : x + 3].mean(axis=(0, 1))
    assert around.sum() < 0.75 * picture[y, x].astype(int).sum()
    # Lips are there below it, the chin has come down.
    x, y = np.rint(points[14] + frame.jacobians[14] @ (0.0, 0.3)).astype(int)
    assert out[y, x, 0] > 120


def test_outside_its_box_nothing_changes(layers: MouthLayers, portrait: np.ndarray) -> None:
    out = layers.draw(opened(0.25, 0.05))
    x0, y0, x1, y1 = layers.box
    inside = np.zeros(portrait.shape[:2], bool)
    inside[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(out[~inside], portrait[~inside])
    # Nor at the box's own border.
    for edge in (np.s_[y0, x0:x1], np.s_[y1 - 1, x0:x1], np.s_[y0:y1, x0], np.s_[y0:y1, x1 - 1]):
        np.testing.assert_array_equal(out[edge], portrait[edge])


def test_eyes_and_background_stay(
    layers: MouthLayers, portrait: np.ndarray, portrait_face: Face
) -> None:
    out = layers.draw(opened(0.25, 0.05))
    points = portrait_face.points
    for index in (33, 133, 159, 145, 263, 362, 4, 10):
        x, y = np.rint(points[index]).astype(int)
        box = np.s_[y - 3 : y + 4, x - 3 : x + 4]
        change = np.abs(out[box].astype(int) - portrait[box])
        assert change.mean() < 3, index
    beside = int(points[:, 0].max()) + 8
    np.testing.assert_array_equal(out[:, beside:], portrait[:, beside:])


def test_a_frame_depends_on_its_pose_alone(
    layers: MouthLayers, portrait: np.ndarray, portrait_face: Face
) -> None:
    wide, little = opened(0.25, 0.03), opened(0.04)
    first = layers.draw(little)
    frame = layers.draw(wide)
    again = layers.draw(little, frame)
    assert again is frame
    np.testing.assert_array_equal(again, first)
    other = MouthLayers(portrait, portrait_face.points)
    np.testing.assert_array_equal(other.draw(little), first)


def test_small_movements_make_small_changes(layers: MouthLayers) -> None:
    before = layers.draw(opened(0.1)).astype(int)
    after = layers.draw(opened(0.101)).astype(int)
    x0, y0, x1, y1 = layers.box
    assert np.abs(after - before)[y0:y1, x0:x1].mean() < 0.5


@pytest.mark.parametrize("corner", [(0, 0), (120, 130)], ids=["over the edge", "cut"])
def test_a_face_at_the_picture_s_edge(corner: tuple[int, int]) -> None:
    picture, points = drawing()
    x, y = corner
    part = np.ascontiguousarray(picture[y : y + 170, x : x + 150])
    layers = MouthLayers(part, points - corner)
    out = layers.draw(opened(0.25, 0.05))
    assert out.shape == part.shape


@pytest.mark.parametrize("scale", [16.0, 30.0, 110.0])
def test_any_size(scale: float) -> None:
    picture, points = drawing(scale)
    out = MouthLayers(picture, points).draw(opened(0.2))
    assert not np.array_equal(out, picture)


def test_lips_that_would_cross_stay_closed() -> None:
    picture, points = drawing()
    layers = MouthLayers(picture, points)
    pressed = layers.draw(opened(-0.03, -0.03))
    x, y = np.rint(points[13]).astype(int)
    assert np.abs(pressed[y - 8 : y + 8, x - 8 : x + 8].astype(int)).max() < 200


def measured(picture: np.ndarray, face: Face) -> Light:
    points = face.points.astype(float)
    box = tuple(int(v) for v in (points[:, 0].min(), points[:, 1].min(), *points.max(axis=0)))
    return still_light(picture, points, face_frame(points).scale, box)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "gains", [(0.9, 0.7, 0.5), (0.4, 0.4, 0.4), (0.6, 0.7, 0.8)], ids=["warm", "dim", "cold"]
)
def test_teeth_take_the_light_of_the_photo(
    portrait: np.ndarray, portrait_face: Face, gains: tuple[float, float, float]
) -> None:
    lit = np.rint(portrait * np.array(gains)).astype(np.uint8)
    before, after = measured(portrait, portrait_face), measured(lit, portrait_face)
    np.testing.assert_allclose(after.teeth / before.teeth, gains, rtol=0.1)


def test_grey_photos_have_grey_teeth(portrait: np.ndarray, portrait_face: Face) -> None:
    grey = portrait.mean(axis=2, keepdims=True).repeat(3, axis=2).astype(np.uint8)
    light = measured(grey, portrait_face)
    assert light.colourful == 0
    for colour in (light.teeth, light.paint(0.66, 0.38, 0.37)):
        assert np.ptp(colour) < 1


def test_blur_and_noise_are_noticed(portrait: np.ndarray, portrait_face: Face) -> None:
    import cv2

    soft = cv2.GaussianBlur(portrait, (0, 0), 2.5)
    grain = np.random.default_rng(0).normal(0, 8, portrait.shape)
    rough = np.clip(portrait + grain, 0, 255).astype(np.uint8)
    plain, blurred, noisy = (measured(p, portrait_face) for p in (portrait, soft, rough))
    assert plain.blur < 1.5
    assert blurred.blur == pytest.approx(2.5, abs=0.7)
    assert noisy.noise > plain.noise + 2


def test_lips_that_nearly_touch_do() -> None:
    picture, points = drawing()
    layers = MouthLayers(picture, points, None)
    shown = []
    for lower in (0.0, 0.004, 0.03, 0.08):
        layers.draw(opened(lower))
        assert layers.last is not None
        shown.append(float(layers.last.share.sum()))
    assert shown[0] == shown[1] == 0 < shown[2] < 0.32 * shown[3]


def test_skin_under_the_lip_goes_with_it(layers: MouthLayers, portrait_face: Face) -> None:
    # A jaw that the lip leaves behind must not draw out what lies between them.
    sheets = layers._sheets
    moved = sheets.targets(opened(0.2, chin=0.0)) - sheets.targets(REST)
    lip = moved[LIPS.index(17)] @ sheets.down
    under = moved[20 + AROUND.index(18)] @ sheets.down
    assert 0.6 * lip < under < lip


def test_a_lip_is_not_stretched_beyond_its_pixels(portrait_face: Face) -> None:
    frame = face_frame(portrait_face.points)
    lips = frame.points[list(LIPS)]
    at_rest = lips + rest_pose(frame.points).lips
    thick, swollen = (np.linalg.norm(s[:20] - s[20:], axis=1) for s in (lips, at_rest))
    assert (swollen[1:10] <= 1.75 * thick[1:10] + 0.01).all()
