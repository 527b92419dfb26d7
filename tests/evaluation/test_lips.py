"""Lip openings are found in small crops, and compared as their definitions say."""

import math

import numpy as np
import pytest

from stillspeak.errors import VideoError
from stillspeak.evaluation.measures.lips import (
    find_in_crop,
    lagged_agreement,
    lip_agreement,
    lip_landmark_distance,
    mismatched_agreement,
    quiet_frames,
    silent_frames,
    track_lips,
)
from stillspeak.face.align import crop_face, face_transform, transform_points
from stillspeak.face.landmarks import Face
from stillspeak.face.mouth import INNER_BOTTOM, INNER_TOP, LIPS, lip_opening
from support.animate import portrait, portrait_face, shared_detector


def crop() -> np.ndarray:
    return crop_face(portrait(), face_transform(portrait_face().points), 128, 96)


class Fixed:
    """A detector that finds the mouth's two points where told, or nothing."""

    version = "fixed"

    def __init__(self, *points):
        self.points = list(points)
        self.seen = []

    def detect(self, image):
        self.seen.append(image)
        found = self.points.pop(0)
        if found is None:
            return []
        points = np.zeros((478, 2), np.float32)
        points[INNER_TOP], points[INNER_BOTTOM] = found
        return [Face(points, {"jawOpen": 0.5}, 1.0, 2.0, 3.0)]

    def close(self):
        pass


def test_points_are_in_pixels_of_the_crop():
    face = find_in_crop(crop(), shared_detector())
    transform = face_transform(portrait_face().points)
    wanted = transform_points(portrait_face().points, transform)
    assert face.points.dtype == np.float32
    assert np.abs(face.points - wanted).mean() < 1
    opening = float(lip_opening(wanted))
    assert float(lip_opening(face.points)) == pytest.approx(opening, abs=1)


def test_the_enlarged_picture_is_undone_exactly():
    # 128 lines and a border of 32: pixel (x, y) of the crop is the middle of 3x3 shown ones.
    shown = [(3 * (50 + 32) + 1, 3 * (80 + 32) + 1), (3 * (50 + 32) + 1, 3 * (90 + 32) + 1)]
    detector = Fixed(shown)
    face = find_in_crop(crop(), detector)
    assert face.points[INNER_TOP] == pytest.approx([50, 80], abs=1e-3)
    assert face.points[INNER_BOTTOM] == pytest.approx([50, 90], abs=1e-3)
    assert (face.blendshapes, face.yaw, face.pitch, face.roll) == ({"jawOpen": 0.5}, 1, 2, 3)
    (picture,) = detector.seen
    assert picture.shape == (3 * (128 + 64), 3 * (96 + 64), 3)
    assert (picture[0, 0] == 128).all()
    middle = picture[3 * 32 + 1 : 3 * 160 : 3, 3 * 32 + 1 : 3 * 128 : 3]
    assert np.abs(middle.astype(int) - crop()).max() <= 1


def test_openings_are_nan_where_no_face_is_found():
    lips = [(0, 0), (0, 12)]
    openings = track_lips([crop()] * 3, Fixed(lips, None, [(0, 0), (9, 12)]))
    assert openings.dtype == np.float64
    assert openings == pytest.approx([4, math.nan, 5], nan_ok=True)
    assert track_lips([], Fixed()).shape == (0,)


def test_a_wall_has_no_lips():
    assert find_in_crop(np.full((128, 96, 3), 90, np.uint8), shared_detector()) is None


# --- comparing ----------------------------------------------------------------------------------


def test_agreement_by_hand():
    real = np.array([1.0, 2.0, 3.0, 4.0])
    assert lip_agreement(real, real) == pytest.approx((1, 1))
    assert lip_agreement(10 - 2 * real, real) == pytest.approx((-1, 2))
    # Deviations -1.5, -0.5, 0.5, 1.5 against -1.5, 0.5, -0.5, 1.5: products sum to 4 of 5.
    other = np.array([1.0, 3.0, 2.0, 4.0])
    assert lip_agreement(other, real).correlation == pytest.approx(4 / 5)


def test_only_frames_found_in_both_count():
    nan = math.nan
    real = np.array([1.0, 2.0, 3.0, 4.0, nan, 9.0])
    made = np.array([2.0, 4.0, 6.0, 8.0, -9.0, nan])
    assert lip_agreement(made, real) == pytest.approx((1, 2))


def test_lips_that_do_not_move_agree_with_nothing():
    real = np.array([1.0, 2.0, 3.0])
    assert lip_agreement(np.ones(3), real) == (0.0, 0.0)
    still = lip_agreement(real, np.ones(3))
    assert still.correlation == 0
    assert still.amplitude > 1000


@pytest.mark.parametrize(
    ("made", "real"),
    [
        ([1, math.nan, math.nan], [1, 2, 3]),
        ([1, math.nan, 3, math.nan], [math.nan, 2, math.nan, 4]),
        ([], []),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_cannot_be_compared_is_refused(made, real):
    with pytest.raises(VideoError, match="fewer than half"):
        lip_agreement(np.array(made, float), np.array(real, float))


def test_the_best_lag_and_its_sign():
    real = np.random.default_rng(0).normal(size=40)
    assert lagged_agreement(real, real) == (pytest.approx(1), 0)
    # Two frames late, and three frames early.
    assert lagged_agreement(np.roll(real, 2), real) == (pytest.approx(1), 2)
    assert lagged_agreement(np.roll(real, -3), real) == (pytest.approx(1), -3)
    # Four are beyond the limit.
    assert lagged_agreement(np.roll(real, 4), real).correlation < 0.6


def test_of_equally_good_lags_the_smallest_counts():
    assert lagged_agreement(np.ones(20), np.arange(20.0)) == (0, 0)
    wave = np.tile([0.0, 1.0], 10)
    assert lagged_agreement(wave, wave) == (pytest.approx(1), 0)
    assert lagged_agreement(wave, 1 - wave) == (pytest.approx(1), -1)


def test_lags_leave_out_frames_that_the_other_lacks():
    made = np.array([5.0, 1.0, 2.0, 4.0, 3.0, 7.0])
    real = np.array([1.0, 2.0, 4.0, 3.0, 7.0, 6.0])
    assert lagged_agreement(made, real) == (pytest.approx(1), 1)
    for lost in ([math.nan] * 6, []):
        with pytest.raises(VideoError, match="fewer than half"):
            lagged_agreement(np.array(lost), np.array(lost))


def test_mismatched_is_the_mean_over_the_others_that_can_be_compared():
    made = np.array([1.0, 2.0, 3.0, 4.0])
    others = [
        np.array([1.0, 3.0, 2.0, 4.0, 9.0, 9.0]),  # 4 / 5, cut to four frames
        np.array([3.0, 2.0, 1.0]),  # -1
        np.full(4, math.nan),
    ]
    value, count = mismatched_agreement(lip_agreement, made, others)
    assert (value, count) == (pytest.approx((0.8 - 1) / 2), 2)
    value, count = mismatched_agreement(lip_agreement, made, [])
    assert math.isnan(value)
    assert count == 0


# --- silence ------------------------------------------------------------------------------------


def test_silent_frames_by_hand():
    words = [(0.0, 0.1, "sil"), (0.1, 0.2, "bin"), (0.2, 0.24, "sp"), (0.24, 0.28, "blue")]
    # At 25 frames a second: frames of 40 ms, "bin" touches frames 2 to 4, "blue" frame 6.
    expected = [True, True, False, False, False, True, False, True, True]
    assert silent_frames(words, 9, 25).tolist() == expected


def test_words_outside_the_clip_and_none_at_all():
    assert silent_frames([(-0.1, -0.02, "a"), (0.5, 9.0, "b")], 5, 10).all()
    assert silent_frames([(-0.1, 0.1, "a"), (0.4, 9.0, "b")], 5, 10).tolist() == [
        False, True, True, True, False
    ]  # fmt: skip
    assert silent_frames([], 3, 25).all()
    assert silent_frames([], 0, 25).shape == (0,)


def test_words_that_end_with_a_frame_leave_the_next_one_silent():
    for frame in range(1, 75):
        silent = silent_frames([((frame - 1) / 25, frame / 25, "word")], 76, 25)
        assert np.flatnonzero(~silent).tolist() == [frame - 1]


def test_landmark_distance_by_hand():
    real = np.zeros((4, 478, 2))
    real[:, list(LIPS)] = np.random.default_rng(0).uniform(30, 60, (40, 2))
    assert lip_landmark_distance(real, real) == 0
    # A mouth in another place has the same shape; one corner pulled out has not.
    assert lip_landmark_distance(real + np.array([5, -3]), real) == pytest.approx(0)
    made = real.copy()
    made[:, LIPS[0], 0] += 4
    # The middle moves by 4 / 40, and with it the 39 other points.
    assert lip_landmark_distance(made, real) == pytest.approx((3.9 + 39 * 0.1) / 40)
    made[1] = math.nan
    assert lip_landmark_distance(made, real) == pytest.approx((3.9 + 39 * 0.1) / 40)
    made[2:] = math.nan
    with pytest.raises(VideoError, match="fewer than half"):
        lip_landmark_distance(made, real)


def test_quiet_frames_are_those_far_below_the_loud_ones():
    level = np.repeat([0.5, 0.5, 0.5, 0.1, 0.02, 0.5, 0.0], 640).astype(np.float32)
    assert quiet_frames(level, 7).tolist() == [False, False, False, False, True, False, True]
    # Loudness as such says nothing.
    assert quiet_frames(level / 100, 7).tolist() == quiet_frames(level, 7).tolist()
    assert quiet_frames(np.zeros(2 * 640, np.float32), 2).all()
    assert not quiet_frames(np.full(3 * 640, 0.1, np.float32), 3).any()
    assert quiet_frames(level[:640], 3).tolist() == [False, True, True]
    assert quiet_frames(level, 0).shape == (0,)
