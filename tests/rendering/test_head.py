"""A head that moves in depth, and skin that action units displace."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from stillspeak.face.landmarks import Face, MediaPipeDetector
from stillspeak.motion.frames import UNITS, unit
from stillspeak.motion.mood_track import looks
from stillspeak.motion.moods import MOODS, MOST, MoodName
from stillspeak.rendering.head import FaceMover, rotation, unit_fields
from stillspeak.rendering.mesh import face_frame

STILL = np.zeros(len(UNITS))
REST = np.zeros(3)
WHOLE = [(0, 0, 512, 512)]
NOSE, CHIN, LEFT_EAR, RIGHT_EAR = 1, 152, 234, 454


def units(**intensities: float) -> np.ndarray:
    values = STILL.copy()
    for name, intensity in intensities.items():
        values[unit(name)] = intensity
    return values


def ramp(axis: int, size: tuple[int, int] = (512, 512)) -> np.ndarray:
    """A picture whose colour says where a pixel is along x (0) or y (1), a level every 2 pixels."""
    place = np.arange(size[1 - axis]) / 2
    line = np.repeat(place.astype(np.uint8)[..., None], 3, axis=-1)
    return np.ascontiguousarray(
        np.broadcast_to(line[None] if axis == 0 else line[:, None], (*size, 3))
    )


def moved_from(mover: FaceMover, head: np.ndarray, places: np.ndarray) -> np.ndarray:
    """(K, 2) by how much what is seen at places (K, 2) was moved, to about a pixel."""
    x, y = np.rint(places).astype(int).T
    found = []
    for axis in (0, 1):
        before = ramp(axis)
        after = mover.draw(head, STILL, before.copy(), WHOLE)
        found.append(2 * (before[y, x, 0].astype(float) - after[y, x, 0]))
    return np.stack(found, axis=-1)


@pytest.fixture(scope="module")
def mover(portrait: np.ndarray, portrait_face: Face) -> FaceMover:
    return FaceMover(portrait, portrait_face.points)


def test_at_rest_the_photo_is_unchanged(portrait: np.ndarray, mover: FaceMover) -> None:
    frame = portrait.copy()
    assert mover.draw(REST, STILL, frame) is frame
    np.testing.assert_array_equal(frame, portrait)


def test_rotations_go_the_ways_they_are_named_after() -> None:
    front = np.array([0.0, 0.0, -1.0])  # what is nearest to the viewer
    assert (rotation(np.array([8.0, 0, 0])) @ front)[0] > 0.1  # turned to the right
    assert (rotation(np.array([0, 8.0, 0])) @ front)[1] > 0.1  # the chin goes down
    assert (rotation(np.array([0, 0, 8.0])) @ (1, 0, 0))[1] > 0.1  # clockwise
    both = rotation(np.array([5.0, -4.0, 3.0]))
    np.testing.assert_allclose(both @ both.T, np.eye(3), atol=1e-12)


def test_what_is_nearer_moves_further(portrait_face: Face, mover: FaceMover) -> None:
    points, scale = portrait_face.points, face_frame(portrait_face.points).scale
    outline = points[LEFT_EAR] - (0.15 * scale, 0)
    turned = moved_from(mover, np.array([8.0, 0, 0]), np.stack([points[NOSE], outline]))
    assert turned[0, 0] > 0.12 * scale and abs(turned[0, 1]) < 0.05 * scale
    assert abs(turned[1, 0]) < 0.3 * turned[0, 0]
    nodded = moved_from(mover, np.array([0, 8.0, 0]), points[[NOSE]])
    assert nodded[0, 1] > 0.12 * scale
    tilted = moved_from(mover, np.array([0, 0, 8.0]), points[[LEFT_EAR, RIGHT_EAR]])
    assert tilted[0, 1] < -0.08 * scale and tilted[1, 1] > 0.08 * scale


def test_shoulders_and_surroundings_stay(portrait_face: Face) -> None:
    """In a picture large enough nothing moves far from the head."""
    points = portrait_face.points + np.float32((300, 200))
    scale = face_frame(points).scale
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1100, 3), np.uint8)
    mover = FaceMover(noise, points)
    frame = mover.draw(np.array([8.0, 8.0, 8.0]), STILL, noise.copy())
    still = (frame == noise).all(axis=2)
    chin = points[CHIN]
    assert still[round(chin[1] + 2.3 * scale) :].all()
    assert still[:, : round(points[LEFT_EAR, 0] - 2 * scale)].all()
    assert not still[round(points[NOSE, 1]), round(points[NOSE, 0])]


@pytest.mark.parametrize(
    "head", [(8, 0, 0), (-8, 0, 0), (0, 8, 0), (0, -8, 0), (0, 0, 8), (0, 0, -8), (6, -6, 6)]
)
def test_nothing_tears_or_folds(mover: FaceMover, head: tuple[float, ...]) -> None:
    """Neighbours stay neighbours, and in their order."""
    across, down = (mover.draw(np.array(head, float), STILL, ramp(axis), WHOLE) for axis in (0, 1))
    for picture, axis in ((across, 1), (down, 0)):
        steps = np.diff(picture[..., 0].astype(int), axis=axis)
        assert steps.min() >= 0
        assert steps.max() <= 2


@pytest.mark.parametrize("mood", MOODS[1:])
def test_no_mood_folds_the_skin_however_strong(mover: FaceMover, mood: MoodName) -> None:
    strongest = MOST * looks()[MOODS.index(mood)]
    across, down = (mover.draw(REST, strongest, ramp(axis), WHOLE) for axis in (0, 1))
    for picture, axis in ((across, 1), (down, 0)):
        assert np.diff(picture[..., 0].astype(int), axis=axis).min() >= 0


def test_a_detector_sees_the_head_turn(
    portrait: np.ndarray, mover: FaceMover, detector: MediaPipeDetector
) -> None:
    yaw = [
        detector.detect(mover.draw(np.array([turn, 0.0, 0.0]), STILL, portrait.copy()))[0].yaw
        for turn in (-8.0, 0.0, 8.0)
    ]
    steps = np.abs(np.diff(yaw))
    assert (np.sign(np.diff(yaw)) == np.sign(yaw[2] - yaw[0])).all()
    assert (steps > 4).all() and (steps < 14).all()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_face_may_lie_on_its_side(
    portrait: np.ndarray, portrait_face: Face, mover: FaceMover, turns: int
) -> None:
    picture, points = portrait, portrait_face.points
    for _ in range(turns):
        points = np.column_stack([points[:, 1], picture.shape[1] - 1 - points[:, 0]])
        picture = np.rot90(picture)
    head, skin = np.array([5.0, 4.0, 3.0]), units(lip_corner_puller=0.5)
    lying = FaceMover(picture, points).draw(head, skin, picture.copy())
    upright = mover.draw(head, skin, portrait.copy()).astype(int)
    assert np.quantile(np.abs(np.rot90(lying, -turns).astype(int) - upright), 0.99) <= 12


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
def test_nothing_is_fetched_across_the_photo_s_edge(portrait_face: Face, side: str) -> None:
    """A ramp stays one without flat places, whatever the edge cuts off: no repeated pixels."""
    points = portrait_face.points
    low, high = points.min(axis=0), points.max(axis=0)
    shift = {"left": (-low[0], 0), "right": (511 - high[0], 0)}
    shift |= {"top": (0, -low[1]), "bottom": (0, 511 - high[1])}
    mover = FaceMover(np.zeros((512, 512, 3), np.uint8), points + np.float32(shift[side]))
    axis = 0 if side in ("left", "right") else 1
    for sign in (-1, 1):
        head = sign * np.array([6.0, 6.0, 6.0])
        moved = mover.draw(head, STILL, ramp(axis), WHOLE)[..., 0].astype(int)
        edge = np.moveaxis(moved, 1 - axis, 0)[0 if side in ("left", "top") else -1]
        assert (edge == (0 if side in ("left", "top") else 255)).all()
        assert np.diff(moved, axis=1 - axis).min() >= 0


def test_another_face_in_the_picture_stays(portrait: np.ndarray, portrait_face: Face) -> None:
    """Its landmarks, a head's width away, do not move."""
    points = portrait_face.points
    other = points + np.float32((2.6 * face_frame(points).scale, 0))
    mover = FaceMover(portrait, points, others=[other])
    frame = mover.draw(np.array([6.0, 6.0, 6.0]), STILL, portrait.copy())
    x, y = np.rint(other).astype(int).clip(0, 511).T
    np.testing.assert_array_equal(frame[y, x], portrait[y, x])
    x, y = np.rint(points[NOSE]).astype(int)
    assert (frame[y - 5 : y + 5, x - 5 : x + 5] != portrait[y - 5 : y + 5, x - 5 : x + 5]).any()


def test_units_move_what_they_are_named_after(
    portrait: np.ndarray, portrait_face: Face, mover: FaceMover, detector: MediaPipeDetector
) -> None:
    scale = face_frame(portrait_face.points).scale
    still = detector.detect(portrait.copy())[0].points

    def shift(name: str, points: list[int]) -> np.ndarray:
        frame = mover.draw(REST, units(**{name: 1.0}), portrait.copy())
        found = detector.detect(frame)[0].points
        steady = [33, 133, 362, 263] if "lid" not in name else [1, 4, 195]
        moved = found[points] - still[points] - (found[steady] - still[steady]).mean(axis=0)
        return np.asarray(moved.mean(axis=0) / scale)

    assert shift("inner_brow_raiser", [107, 336])[1] < -0.03
    assert shift("outer_brow_raiser", [105, 334])[1] < -0.03
    assert shift("brow_lowerer", [55, 285])[1] > 0.02
    assert shift("lip_corner_depressor", [61, 291])[1] > 0.02
    assert shift("lip_corner_puller", [61, 291])[1] < -0.01


@pytest.mark.parametrize("name", UNITS)
def test_lips_that_met_stay_together(name: str) -> None:
    """Both inner lips move alike, so a mouth that is closed for a sound is so in every mood."""
    field = unit_fields()[unit(name)]
    upper, lower = [78, 191, 80, 13, 310, 308], [78, 95, 88, 14, 318, 308]
    np.testing.assert_allclose(field[upper[1:-1]], field[lower[1:-1]], atol=2e-3)


def test_units_are_bounded_and_symmetrical() -> None:
    fields = unit_fields()
    assert np.abs(fields).max() < 0.2
    for left, right in ((61, 291), (105, 334), (159, 386), (234, 454)):
        np.testing.assert_allclose(fields[:, left] * (-1, 1), fields[:, right], atol=0.02)


def test_skin_behind_spectacles_moves_less(portrait: np.ndarray, portrait_face: Face) -> None:
    raised = units(inner_brow_raiser=1.0, outer_brow_raiser=1.0)
    changes = []
    for spectacles in (False, True):
        mover = FaceMover(portrait, portrait_face.points, spectacles=spectacles)
        frame = mover.draw(REST, raised, portrait.copy())
        changes.append(np.abs(frame.astype(int) - portrait).mean())
    assert 0 < changes[1] < 0.6 * changes[0]


def test_only_the_needed_region_is_computed(
    portrait_face: Face, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Brows alone look up no more than the pixels around them."""
    mover = FaceMover(np.zeros((512, 512, 3), np.uint8), portrait_face.points)
    looked_up: list[int] = []
    remap = cv2.remap
    monkeypatch.setattr(
        cv2,
        "remap",
        lambda *args, **more: looked_up.append(args[1].size // 2) or remap(*args, **more),
    )
    mover.draw(REST, units(inner_brow_raiser=0.5), np.zeros((512, 512, 3), np.uint8))
    scale = face_frame(portrait_face.points).scale
    assert looked_up[-1] < (3.5 * scale) * (2 * scale)
