import math

import numpy as np
import pytest

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.face.align import (
    canonical_face,
    crop_face,
    face_transform,
    invert_transform,
    similarity_transform,
    smooth_landmarks,
    transform_points,
)

IDENTITY = np.eye(2, 3)


def similarity(angle: float, scale: float, x: float, y: float) -> np.ndarray:
    c, s = scale * math.cos(angle), scale * math.sin(angle)
    return np.array([[c, -s, x], [s, c, y]])


def mesh(transform: np.ndarray) -> np.ndarray:
    """(478, 2) landmarks whose stable points go to the canonical ones under ``transform``."""
    points = np.zeros((478, 2))
    face = canonical_face()
    points[list(face.indices)] = transform_points(face.points, invert_transform(transform))
    return points


def smooth_picture(height: int, width: int) -> np.ndarray:
    """(H, W, 3) uint8 without fine detail: each channel a slow wave."""
    y, x = np.mgrid[:height, :width].astype(float)
    waves = [np.sin(x / 17 + c) * np.cos(y / 23 - c) for c in range(3)]
    return np.rint(127.5 + 100 * np.stack(waves, axis=2)).astype(np.uint8)


def test_the_canonical_face_is_the_reference_models() -> None:
    face = canonical_face()
    assert face.indices == (2, 33, 133, 362, 263)
    assert (face.height, face.width) == (FRAME_HEIGHT, FRAME_WIDTH) == (128, 96)
    np.testing.assert_allclose(
        face.points,
        [(49.22, 71.64), (24.04, 43.32), (37.80, 44.08), (58.64, 43.17), (72.21, 41.97)],
    )
    with pytest.raises(ValueError, match="read-only"):
        face.points[0, 0] = 0


@pytest.mark.parametrize("angle", [0.0, 0.3, -2.0, math.pi])
@pytest.mark.parametrize("scale", [0.05, 1.0, 7.0])
def test_a_known_similarity_is_recovered(angle: float, scale: float) -> None:
    rng = np.random.default_rng(0)
    source = rng.normal(scale=50, size=(5, 2)) + 300
    transform = similarity(angle, scale, 12.5, -40)
    found = similarity_transform(source, transform_points(source, transform))
    np.testing.assert_allclose(found, transform, atol=1e-9)


def test_the_similarity_is_the_least_squares_one() -> None:
    rng = np.random.default_rng(1)
    source = rng.normal(size=(5, 2)) * 30
    target = transform_points(source, similarity(0.4, 1.3, 5, 6)) + rng.normal(size=(5, 2))

    def cost(transform: np.ndarray) -> float:
        return float(((transform_points(source, transform) - target) ** 2).sum())

    found = similarity_transform(source, target)
    a, b = found[0, 0], found[1, 0]
    for change in np.eye(4) * 1e-4:
        for sign in (1, -1):
            da, db, dx, dy = sign * change
            near = np.array([[a + da, -b - db, 0], [b + db, a + da, 0]])
            near[:, 2] = found[:, 2] + (dx, dy)
            assert cost(near) > cost(found)


def test_a_mirrored_target_gives_no_reflection() -> None:
    source = np.array([[0, 0], [10, 0], [10, 5], [0, 5], [3, 1]], dtype=float)
    found = similarity_transform(source, source * (-1, 1))
    assert np.linalg.det(found[:, :2]) >= 0


@pytest.mark.parametrize("source", [np.ones((5, 2)), np.full((5, 2), np.nan)])
def test_points_without_extent_are_refused(source: np.ndarray) -> None:
    with pytest.raises(ValueError, match="coincide or are not finite"):
        similarity_transform(source, np.zeros((5, 2)))


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(5, 2\) and \(4, 2\)"):
        similarity_transform(np.zeros((5, 2)), np.zeros((4, 2)))


def test_the_inverse_is_exact() -> None:
    rng = np.random.default_rng(2)
    points = rng.uniform(-1000, 3000, (100, 2))
    for angle, scale in [(0.1, 0.03), (3.0, 1.0), (-1.0, 20.0)]:
        transform = similarity(angle, scale, 400, -900)
        there = transform_points(points, transform)
        back = transform_points(there, invert_transform(transform))
        np.testing.assert_allclose(back, points, rtol=0, atol=1e-9)
    with pytest.raises(ValueError, match="no inverse"):
        invert_transform(np.zeros((2, 3)))


def test_points_keep_their_dtype_and_leading_axes() -> None:
    points = np.ones((4, 478, 2), dtype=np.float32)
    moved = transform_points(points, similarity(0, 2, 1, 1))
    assert moved.dtype == np.float32
    np.testing.assert_array_equal(moved, np.full((4, 478, 2), 3, dtype=np.float32))


def test_the_face_transform_takes_the_stable_points_home() -> None:
    truth = similarity(0.2, 0.6, -30, 14)
    points = mesh(truth)
    np.testing.assert_allclose(face_transform(points), truth, atol=1e-9)
    with pytest.raises(ValueError, match="scale"):
        face_transform(points, scale=0)


def test_a_scaled_crop_shows_the_same_region() -> None:
    points = mesh(similarity(-0.1, 0.5, 3, 8))
    once, four = face_transform(points), face_transform(points, scale=4)
    # The crop's edges (half a pixel outside the outer centres) come from the same photo points.
    for edge, large in [((-0.5, -0.5), (-0.5, -0.5)), ((95.5, 127.5), (383.5, 511.5))]:
        np.testing.assert_allclose(
            transform_points(np.array(edge), invert_transform(once)),
            transform_points(np.array(large), invert_transform(four)),
            atol=1e-9,
        )


def test_a_scaled_crop_averages_to_the_plain_one() -> None:
    picture = smooth_picture(300, 300)
    points = mesh(similarity(0.1, 0.7, -20, -30))
    small = crop_face(picture, face_transform(points), 128, 96)
    large = crop_face(picture, face_transform(points, scale=4), 512, 384)
    mean = large.reshape(128, 4, 96, 4, 3).mean(axis=(1, 3))
    assert np.abs(mean - small).mean() < 0.6
    assert np.abs(mean - small).max() < 3


def test_a_whole_pixel_shift_copies_the_pixels() -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (200, 150, 3), dtype=np.uint8)
    crop = crop_face(picture, similarity(0, 1, -10, -20), 128, 96)
    np.testing.assert_array_equal(crop, picture[20:148, 10:106])
    assert crop.flags.c_contiguous


@pytest.mark.parametrize("scale", [0.23, 0.5, 0.9, 1.0, 2.7])
@pytest.mark.parametrize("angle", [0.0, 0.5])
def test_a_crop_of_a_smooth_picture_has_the_right_values(scale: float, angle: float) -> None:
    """Each crop pixel holds the picture's value at the place that the transform names."""
    height, width = 1000, 900
    y, x = np.mgrid[:height, :width].astype(float)
    picture = np.stack([x / 4, y / 4, (x + y) / 8], axis=2)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    transform = similarity(angle, scale, 0, 0)
    transform[:, 2] = np.array([47.5, 63.5]) - transform[:, :2] @ centre
    crop = crop_face(np.rint(picture).astype(np.uint8), transform, 128, 96).astype(float)
    v, u = np.mgrid[:128, :96].astype(float)
    source = transform_points(np.stack([u, v], axis=2), invert_transform(transform))
    expected = np.stack([source[..., 0], source[..., 1], source.sum(axis=2) / 2], axis=2) / 4
    inside = (source > 2).all(axis=2) & (source < (width - 3, height - 3)).all(axis=2)
    assert inside.mean() > 0.5
    assert np.abs(crop - expected)[inside].max() < 1.1
    assert abs((crop - expected)[inside].mean()) < 0.1  # no half-pixel shift hides in here


@pytest.mark.parametrize("scale", [0.04, 0.11, 0.3, 0.6])
def test_shrinking_does_not_alias(scale: float) -> None:
    """A one-pixel checkerboard is grey from afar."""
    size = round(128 / scale) + 40
    y, x = np.mgrid[:size, :size]
    board = np.repeat((((x + y) % 2) * 255).astype(np.uint8)[..., None], 3, axis=2)
    crop = crop_face(board, similarity(0, scale, 0, 0), 128, 96).astype(float)
    assert np.abs(crop[4:-4, 4:-4] - 127.5).max() < 0.3 * 255
    assert crop[4:-4, 4:-4].std() < 30


def test_the_edge_is_repeated_where_the_crop_runs_over_it() -> None:
    picture = smooth_picture(100, 80)
    crop = crop_face(picture, similarity(0, 1, 30, 40), 128, 96)
    np.testing.assert_array_equal(crop[:40, :30], np.broadcast_to(picture[0, 0], (40, 30, 3)))
    np.testing.assert_array_equal(crop[40:, :30], np.repeat(picture[:88, :1], 30, axis=1))
    np.testing.assert_array_equal(crop[40:, 30:], picture[:88, :66])


def test_smoothing_keeps_the_length_and_a_constant() -> None:
    still = np.full((20, 478, 2), 7.25, dtype=np.float32)
    smooth = smooth_landmarks(still)
    assert smooth.shape == still.shape
    assert smooth.dtype == np.float32
    np.testing.assert_array_equal(smooth, still)


def test_smoothing_is_the_mean_of_the_frames_that_exist() -> None:
    rng = np.random.default_rng(4)
    points = rng.normal(size=(10, 3, 2))
    smooth = smooth_landmarks(points, window=7)
    for t in range(10):
        np.testing.assert_allclose(smooth[t], points[max(0, t - 3) : t + 4].mean(axis=0))


def test_smoothing_does_not_lag() -> None:
    ramp = np.arange(30.0)[:, None, None] * np.ones((1, 2, 2))
    np.testing.assert_allclose(smooth_landmarks(ramp)[3:-3], ramp[3:-3])


@pytest.mark.parametrize("T", [0, 1, 2])
def test_smoothing_short_clips(T: int) -> None:
    points = np.ones((T, 478, 2), dtype=np.float32)
    np.testing.assert_array_equal(smooth_landmarks(points), points)


@pytest.mark.parametrize("window", [0, -1, 4])
def test_an_even_window_is_refused(window: int) -> None:
    with pytest.raises(ValueError, match="odd"):
        smooth_landmarks(np.ones((5, 1, 2)), window)
