"""A mouth drawn into the frames of a video, and what the video tells of it."""

import numpy as np
import pytest

from stillspeak.errors import NoFaceError
from stillspeak.face.mouth import LIPS, POSE_POINTS, lip_opening
from stillspeak.rendering.appearance import Appearance
from stillspeak.rendering.head import rotation
from stillspeak.rendering.mesh import face_frame, face_model
from stillspeak.rendering.mouth import MouthLayers
from stillspeak.rendering.video_mouth import VideoMouth
from support.mouths import drawing, opened

REST = np.zeros((41, 2))
Frame = tuple[np.ndarray, np.ndarray]


def speaking(pose: np.ndarray, scale: float = 60.0) -> Frame:
    """A drawn face in a pose, and its landmarks."""
    picture, points = drawing(scale)
    frame = face_frame(points)
    moved = points.copy()
    jacobians = frame.jacobians[list(POSE_POINTS)]
    moved[list(POSE_POINTS)] += np.einsum("kij,kj->ki", jacobians, pose)
    return MouthLayers(picture, points, None).draw(pose), moved


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    """A face that opens its mouth and shuts it."""
    return [speaking(opened(gap)) for gap in (0.0, 0.1, 0.25, 0.12, 0.0)]


@pytest.fixture(scope="module")
def mouth(frames: list[Frame]) -> VideoMouth:
    return VideoMouth(Appearance.gather(frames))


def around_lips(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    x0, y0 = points[list(LIPS)].min(axis=0).astype(int) - 5
    x1, y1 = points[list(LIPS)].max(axis=0).astype(int) + 5
    return picture[y0:y1, x0:x1].astype(int)


def test_rest_is_learned_from_the_frames_in_which_the_mouth_is_shut(frames: list[Frame]) -> None:
    own = Appearance.gather(frames)
    shut = face_frame(frames[0][1]).points[list(POSE_POINTS)]
    assert np.abs(own.rest - shut).max() < 0.01
    assert len(own.closed) == 1


def test_closed_lips_are_kept_of_every_way_a_head_turns(frames: list[Frame]) -> None:
    turned = face_model().template @ rotation(np.array([25.0, 0, 0])).T
    own = Appearance.gather([*frames, (frames[0][0], 200 + 60 * turned[:, :2])])
    assert len(own.closed) == 2


def test_an_open_mouth_is_shut(mouth: VideoMouth, frames: list[Frame]) -> None:
    (shut, points), (wide, moved) = frames[0], frames[2]
    out, _ = mouth.draw(wide, moved, REST)
    before = np.abs(around_lips(wide, points) - around_lips(shut, points)).mean()
    after = np.abs(around_lips(out, points) - around_lips(shut, points)).mean()
    assert after < 0.35 * before


def test_a_mouth_that_says_what_it_said_stays_as_it_is(
    mouth: VideoMouth, frames: list[Frame]
) -> None:
    wide, moved = frames[2]
    same = mouth.draw(wide, moved, opened(0.25) / mouth.appearance.scale)[0]
    shut = mouth.draw(wide, moved, REST)[0]
    kept, lost = (
        np.abs(around_lips(one, moved) - around_lips(wide, moved)).mean() for one in (same, shut)
    )
    assert kept < 0.4 * lost


def test_only_a_box_changes_and_the_frame_is_not_drawn_into(
    mouth: VideoMouth, frames: list[Frame]
) -> None:
    picture, points = frames[1]
    before = picture.copy()
    out, (x0, y0, x1, y1) = mouth.draw(picture, points, opened(0.3))
    assert (picture == before).all()
    changed = (out != picture).any(axis=2)
    assert changed[y0:y1, x0:x1].any()
    changed[y0:y1, x0:x1] = False
    assert not changed.any()


def test_a_share_of_nothing_leaves_the_frame(mouth: VideoMouth, frames: list[Frame]) -> None:
    picture, points = frames[2]
    assert (mouth.draw(picture, points, REST, share=0.0)[0] == picture).all()
    half = mouth.draw(picture, points, REST, share=0.5)[0].astype(int)
    whole = mouth.draw(picture, points, REST)[0].astype(int)
    assert np.abs(half - (picture.astype(int) + whole) / 2).max() <= 1


def test_what_is_borrowed_goes_with_the_frames_light(
    mouth: VideoMouth, frames: list[Frame]
) -> None:
    picture, points = frames[0]
    dark = (picture * 0.6).astype(np.uint8)
    wide = opened(0.3)
    lit, dim = (
        around_lips(mouth.draw(one, points, wide)[0], points).mean() for one in (picture, dark)
    )
    assert dim / lit == pytest.approx(0.6, abs=0.04)


def test_a_larger_face_is_drawn_alike(mouth: VideoMouth) -> None:
    small, large = (
        mouth.draw(*speaking(opened(0.0), scale), opened(0.2))[0] for scale in (60.0, 90.0)
    )
    seen = [small[200 - 20 : 200 + 40, 170:230].mean(), large[200 - 30 : 200 + 60, 155:245].mean()]
    assert seen[0] == pytest.approx(seen[1], rel=0.05)


def test_the_opening_drawn_is_the_one_asked_for(mouth: VideoMouth, frames: list[Frame]) -> None:
    """Whatever the frame's own mouth does, the dark between the lips is as high."""
    pose = opened(0.2)
    dark = []
    for picture, points in frames:
        out, _ = mouth.draw(picture, points, pose)
        x = round(float(points[[13, 14], 0].mean()))
        column = out[150:300, x].astype(int).sum(axis=1)
        dark.append(int((column < 0.75 * np.median(column)).sum()))
    assert max(dark) - min(dark) <= 0.35 * max(dark), dark


def test_who_speaks_widely_goes_on_speaking_widely(frames: list[Frame]) -> None:
    calm = [speaking(opened(gap)) for gap in (0.0, 0.08, 0.1)]
    lively = [speaking(opened(gap)) for gap in (0.0, 0.25, 0.3)]
    silent = [speaking(opened(gap)) for gap in (0.0, 0.01, 0.0)]
    scales = [Appearance.gather(one).scale for one in (calm, silent, lively)]
    assert scales[0] < 0.9 * scales[1] and scales[2] > 1.15 * scales[1]


def test_nobody_has_no_appearance() -> None:
    with pytest.raises(NoFaceError):
        Appearance.gather([])


def test_landmarks_with_an_open_mouth_alone_still_give_a_rest(frames: list[Frame]) -> None:
    own = Appearance.gather([frames[2]])
    shut = np.zeros((478, 2))
    shut[list(POSE_POINTS)] = own.rest
    assert lip_opening(shut[None])[0] < 0.02
