"""Following a face: what is planted comes out, steady, in time, and not across cuts."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

import cv2
import numpy as np
import pytest

from stillspeak.data.layouts.grid import grid_root
from stillspeak.errors import NoFaceError
from stillspeak.face.landmarks import Face, MediaPipeDetector
from stillspeak.face.mouth import (
    CHIN,
    INNER_BOTTOM,
    INNER_LIPS,
    INNER_TOP,
    OUTER_LIPS,
    POSE_POINTS,
    lip_opening,
)
from stillspeak.face.scenes import Changes
from stillspeak.face.speaker import choose_speaker
from stillspeak.face.steady import RIGID, eye_distance
from stillspeak.face.tracker import FaceTracker, TrackedFace, following
from stillspeak.media.video import read_clip

AT = (320.0, 180.0)
LOWER = {*OUTER_LIPS[1:10], *INNER_LIPS[1:10], CHIN}
"""The lower lip and the chin, which open a mouth."""

SCENE = np.random.default_rng(0).integers(40, 216, (9, 16, 3), dtype=np.uint8)
OTHER_SCENE = np.random.default_rng(1).integers(40, 216, (9, 16, 3), dtype=np.uint8)


def scene(blocks: np.ndarray = SCENE, seed: int = 0) -> np.ndarray:
    """(360, 640, 3) uint8 blocks of colour and the camera's noise."""
    picture = cv2.resize(blocks, (640, 360), interpolation=cv2.INTER_NEAREST).astype(np.int16)
    noise = np.random.default_rng(seed).integers(-3, 4, picture.shape)
    return (picture + noise).clip(0, 255).astype(np.uint8)


def shape() -> np.ndarray:
    """(478, 2) about the middle between the eyes, which are 60 pixels apart."""
    points = np.random.default_rng(2).uniform((-80, -60), (80, 130), (478, 2))
    eyes = {33: (-45, 0), 133: (-15, 0), 362: (15, 0), 263: (45, 0)}
    mouth = {INNER_TOP: (0, 70), INNER_BOTTOM: (0, 70), 2: (0, 45), CHIN: (0, 130)}
    for index, place in (eyes | mouth).items():
        points[index] = place
    points[[i for i in POSE_POINTS if i not in mouth], 1] = 70
    return points


def planted(
    at: tuple[float, float] = AT,
    *,
    opening: float = 0.0,
    scale: float = 1.0,
    yaw: float = 0.0,
    person: int = 0,
) -> Face:
    """A face with the middle between its eyes somewhere; its pitch tells who it is."""
    points = shape()
    points[[i for i in POSE_POINTS if i in LOWER], 1] += opening
    return Face((scale * points + at).astype(np.float32), {}, yaw, float(person), 0.0)


def shaken(face: Face, rng: np.random.Generator, head: float, points: float) -> Face:
    """Noise in pixels: of the whole face, and of each point."""
    noise = rng.normal(0, head, 2) + rng.normal(0, points, (478, 2))
    return replace(face, points=face.points + noise.astype(np.float32))


def draw(image: np.ndarray, face: Face) -> None:
    """Paint features of their own over a person's face."""
    blocks = np.random.default_rng(10 + int(face.pitch)).integers(60, 200, (9, 8, 3), np.uint8)
    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    features = cv2.resize(blocks, (x1 - x0, y1 - y0), interpolation=cv2.INTER_CUBIC)
    image[y0:y1, x0:x1] = features[: image.shape[0] - y0, : image.shape[1] - x0]


class Planted:
    """A detector that finds what was planted in the picture whose number its first pixel tells."""

    version = "planted"

    def __init__(self, faces: Sequence[list[Face]]) -> None:
        self._faces = faces

    def detect(self, image: np.ndarray) -> list[Face]:
        return sorted(self._faces[int(image[0, 0, 0])], key=lambda face: -face.area)

    def close(self) -> None: ...


def track(
    faces: Sequence[list[Face]], scenes: Sequence[np.ndarray] | None = None, **options
) -> tuple[list[TrackedFace | None], FaceTracker]:
    """What is tracked in as many pictures, of one scene by default."""

    def picture(k: int) -> np.ndarray:
        image = scene(SCENE if scenes is None else scenes[k], seed=k)
        for face in faces[k]:
            draw(image, face)
        image[0, 0] = k
        return image

    tracker = FaceTracker(Planted(faces), **options)
    got = list(tracker.track(range(len(faces)), picture))
    assert [k for k, _ in got] == list(range(len(faces)))
    return [face for _, face in got], tracker


def points_of(tracked: Sequence[TrackedFace | None]) -> np.ndarray:
    return np.array([face.points for face in tracked if face is not None])


def tremble(points: np.ndarray) -> float:
    """Root mean square of the second differences (T, ...), in pixels."""
    return float(np.sqrt((np.diff(points, 2, axis=0) ** 2).mean()))


@pytest.mark.parametrize(("ahead", "most"), [(3, 0.45), (0, 0.8)])
def test_a_still_face_is_still(ahead: int, most: float) -> None:
    rng = np.random.default_rng(3)
    noisy = [[shaken(planted(), rng, 0.25, 0.15)] for _ in range(60)]
    tracked, _ = track(noisy, ahead=ahead)
    before = np.array([face.points for (face,) in noisy])
    after = points_of(tracked)
    assert after.shape == (60, 478, 2) and after.dtype == np.float32
    assert tremble(after[5:-5]) < most * tremble(before[5:-5])
    assert np.abs(after[5:-5].mean(axis=0) - planted().points).max() < 0.2


@pytest.mark.parametrize("ahead", [3, 0])
def test_lips_are_neither_late_nor_smaller_while_the_head_moves(ahead: int) -> None:
    rng = np.random.default_rng(4)
    k = np.arange(100)
    opening = 6 + 6 * np.sin(k * 2 * np.pi / 6)  # four syllables a second
    ways = 30 * np.sin(k / 12)
    faces = [
        [shaken(planted((AT[0] + x, AT[1]), opening=o), rng, 0.2, 0.1)]
        for x, o in zip(ways, opening, strict=True)
    ]
    tracked, tracker = track(faces, ahead=ahead)
    assert not tracker.missing
    points = points_of(tracked)
    seen = lip_opening(points)
    lags = [np.corrcoef(opening[5:-5], np.roll(seen, -lag)[5:-5])[0, 1] for lag in (-1, 0, 1)]
    assert lags[1] > 0.99
    # As far below on either side: not even a part of a frame late.
    assert abs(lags[0] - lags[2]) < 0.05
    assert seen.std() == pytest.approx(opening.std(), rel=0.05)
    middles = points[:, list(RIGID), 0].mean(axis=1) - planted().points[list(RIGID), 0].mean()
    assert np.abs(middles - ways)[4:-4].max() < 1.0


def test_a_short_loss_is_bridged_and_a_long_one_is_not() -> None:
    faces = [[planted((AT[0] + k, AT[1]))] for k in range(40)]
    for k in (10, 11, *range(20, 30)):
        faces[k] = []
    tracked, tracker = track(faces, ahead=3)
    lost = [k for k, face in enumerate(tracked) if face is None]
    assert lost == list(range(20, 30))
    assert tracker.missing == {"none": 10}
    want = np.array([planted((AT[0] + k, AT[1])).points for k in (10, 11)])
    assert np.abs(points_of(tracked[10:12]) - want).max() < 0.5
    sure = [0.0 if face is None else face.sure for face in tracked]
    assert sure[10] == sure[11] == 0.5 and sure[5] == 1
    assert 1 == sure[16] > sure[17] > sure[18] > sure[19] > 0
    assert 0 < sure[30] < sure[31] < sure[32] < sure[33] == 1


def test_without_look_ahead_nothing_is_guessed_and_nothing_held_back() -> None:
    faces = [[planted()] for _ in range(10)]
    faces[5] = []
    tracked, _ = track(faces, ahead=0)
    assert [face is None for face in tracked] == [k == 5 for k in range(10)]
    asked: list[int] = []

    def picture(k: int) -> np.ndarray:
        asked.append(k)
        return scene(seed=k)

    still = Planted([[planted()]] * 256)
    tracking = FaceTracker(still, ahead=0).track(range(10), picture)
    for k in range(10):
        assert next(tracking)[0] == k
        assert asked == list(range(k + 1))
    held = FaceTracker(still, ahead=3).track(range(10), picture)
    asked.clear()
    next(held)
    assert asked == [0, 1, 2, 3]


def test_a_face_does_not_leap_over_a_gap() -> None:
    faces = [[planted()] for _ in range(8)] + [[]] + [[planted((AT[0] + 90, AT[1]))]] * 8
    tracked, _ = track(faces, ahead=3)
    assert [k for k, face in enumerate(tracked) if face is None] == [8]


def test_nothing_is_smoothed_across_a_cut() -> None:
    rng = np.random.default_rng(5)
    places = [AT] * 12 + [(200.0, 150.0)] * 12
    faces = [[shaken(planted(at), rng, 0.2, 0.1)] for at in places]
    scenes = [SCENE] * 12 + [OTHER_SCENE] * 12
    tracked, _ = track(faces, scenes, ahead=3)
    assert [k for k, face in enumerate(tracked) if face is not None and face.cut] == [12]
    for face, at in zip(tracked, places, strict=True):
        assert face is not None and face.sure == 1
        assert np.abs(face.points - planted(at).points).max() < 1.5


@pytest.mark.parametrize("first", [0, 1])
def test_after_a_cut_the_person_is_found_again(first: int) -> None:
    """Neither by size nor by place: the two have changed seats, and the camera is elsewhere."""
    before = [planted((180, 150), person=first), planted((460, 150), scale=0.9, person=2)]
    after = [planted((180, 180), person=2), planted((460, 180), scale=0.8, person=first)]
    tracked, tracker = track([before] * 20 + [after] * 10, [SCENE] * 20 + [OTHER_SCENE] * 10)
    middles = points_of(tracked)[:, [33, 263]].mean(axis=1)
    assert not tracker.missing
    assert np.abs(middles[:20] - (180, 150)).max() < 1
    assert np.abs(middles[20:] - (460, 180)).max() < 1


def test_somebody_else_alone_in_a_new_scene_is_left_alone() -> None:
    faces = [[planted(person=0)]] * 12 + [[planted((300, 170), person=1)]] * 12
    tracked, tracker = track(faces, [SCENE] * 12 + [OTHER_SCENE] * 12)
    assert [face is None for face in tracked] == [False] * 12 + [True] * 12
    assert tracker.missing == {"other": 12}


def test_a_jump_within_a_scene_is_a_cut_as_well() -> None:
    """The camera stays, a piece of the film is missing: the head is suddenly elsewhere."""
    faces = [[planted()]] * 10 + [[planted((AT[0] + 50, AT[1]))]] * 10
    moved = SCENE.copy()
    moved[3:7, 5:9] = 255 - moved[3:7, 5:9]
    tracked, _ = track(faces, [SCENE] * 10 + [moved] * 10, ahead=3)
    assert [k for k, face in enumerate(tracked) if face is not None and face.cut] == [10]
    assert np.abs(points_of(tracked)[9] - planted().points).max() < 0.1


@pytest.mark.parametrize(("face", "want"), [(None, 0.0), (0, 0.0), (1, 180.0)])
def test_which_of_two_people_is_followed(face: int | None, want: float) -> None:
    pairs = []
    for k in range(20):
        # The smaller one comes nearer and is the larger one in the end: people stay who they are.
        near = planted((140.0 + 180, 120), scale=0.8 + 0.03 * k)
        pairs.append([planted((140.0, 120)), near])
    tracked, _ = track(pairs, face=face, ahead=3)
    middles = points_of(tracked)[:, [33, 263], 0].mean(axis=1)
    assert np.abs(middles - 140 - want).max() < 1
    assert {one.person for one in tracked if one is not None} == {face or 0}


def test_a_face_that_is_not_there_is_not_replaced_by_another() -> None:
    tracked, tracker = track([[planted()]] * 5, face=1)
    assert tracked == [None] * 5 and tracker.missing == {"none": 5}


@pytest.mark.parametrize(
    ("bad", "reason"), [(planted(scale=0.2), "small"), (planted(yaw=50.0), "turned")]
)
def test_a_face_of_no_use_is_counted(bad: Face, reason: str) -> None:
    tracked, tracker = track([[bad]] * 6)
    assert tracked == [None] * 6 and tracker.missing == {reason: 6}


def test_a_turning_face_is_less_and_less_sure() -> None:
    tracked, tracker = track([[planted(yaw=float(k))] for k in range(30, 50)])
    sure = [0.0 if face is None else face.sure for face in tracked]
    assert sure[0] == 1 and sure[10] < 0.6
    assert sure == sorted(sure, reverse=True)
    assert tracker.missing == {"turned": 5}


def test_the_memory_does_not_grow() -> None:
    alive: set[int] = set()

    class Held:
        def __init__(self, k: int) -> None:
            self.k = k
            alive.add(k)

        def __del__(self) -> None:
            alive.discard(self.k)

    most = 0
    tracker = FaceTracker(Planted([[planted()]] * 256), ahead=3)
    for _ in tracker.track(map(Held, range(100)), lambda one: scene(seed=one.k % 4)):
        most = max(most, len(alive))
    assert 4 <= most <= 10


def test_light_is_no_cut_and_a_scene_is() -> None:
    changes = Changes()
    lights = [1.0, 1.0, 0.4, 1.0, 0.7]
    found = [
        changes.sudden((scene(seed=k) * light).astype(np.uint8)) for k, light in enumerate(lights)
    ]
    assert max(found) < 0.12
    assert changes.sudden(scene(OTHER_SCENE)) > 0.4


def moved_portrait(portrait: np.ndarray, x: float, y: float, scale: float = 1.0) -> np.ndarray:
    """(480, 640, 3) uint8: the portrait's upper part elsewhere."""
    matrix = np.array([[scale, 0, x], [0, scale, y]])
    flags = {"flags": cv2.INTER_CUBIC, "borderMode": cv2.BORDER_REPLICATE}
    return cv2.warpAffine(portrait[:300], matrix, (640, 480), **flags)


def test_a_real_face_is_followed_where_it_goes(
    detector: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face
) -> None:
    places = [(100 + 3.3 * k, 100 + 20 * np.sin(k / 4)) for k in range(24)]
    pictures = [moved_portrait(portrait, x, y) for x, y in places]
    tracker = FaceTracker(detector)
    tracked = [face for _, face in tracker.track(pictures, lambda one: one)]
    assert not tracker.missing and not any(face.cut for face in tracked if face)
    rigid = points_of(tracked)[:, list(RIGID)]
    back = rigid - np.array(places)[:, None]
    unit = eye_distance(portrait_face.points)
    assert (
        np.abs(back.mean(axis=(0, 1)) - portrait_face.points[list(RIGID)].mean(axis=0)).max()
        < 0.05 * unit
    )
    assert back.mean(axis=1).std(axis=0).max() < 0.01 * unit


def test_a_real_face_is_found_again(detector: MediaPipeDetector, portrait: np.ndarray) -> None:
    with following(detector) as follower:  # it is kept for the next one
        assert follower is not None
    here, there = moved_portrait(portrait, 100, 100), moved_portrait(portrait, 220, 150, 0.8)
    nobody = np.full_like(here, 90)
    tracker = FaceTracker(detector)
    pictures = [here] * 4 + [nobody] * 8 + [there] * 4
    tracked = [face for _, face in tracker.track(pictures, lambda one: one)]
    assert [face is None for face in tracked] == [4 <= k < 12 for k in range(16)]
    assert tracked[12] is not None and tracked[12].cut
    assert tracker.missing == {"none": 8}
    with following(detector) as again:
        assert again is follower


def film(faces: Sequence[list[Face]]) -> list[np.ndarray]:
    """Pictures with planted faces drawn in them, for :class:`Planted`."""
    pictures = [scene(seed=k) for k in range(len(faces))]
    for k, (picture, seen) in enumerate(zip(pictures, faces, strict=True)):
        for face in seen:
            draw(picture, face)
        picture[0, 0] = k
    return pictures


def couple(k: int, talks: int) -> list[Face]:
    """Two people, the first with the larger face, one of whom talks; both look about."""
    rng = np.random.default_rng(k)
    opening = [8 + 8 * np.sin(2.0 * k) if person == talks else 0.0 for person in (0, 1)]
    places = [(170 + 2 * np.sin(k / 3), 140), (480 + 2 * np.cos(k / 3), 140)]
    return [
        shaken(planted(at, opening=wide, scale=size, person=person), rng, 0.2, 0.1)
        for person, (at, wide, size) in enumerate(zip(places, opening, (1.0, 0.8), strict=True))
    ]


class Looked:
    """Counts the frames of one person."""

    def __init__(self) -> None:
        self.frames = 0

    def add(self, picture: np.ndarray, points: np.ndarray) -> None:
        assert points.shape == (478, 2)
        self.frames += 1


@pytest.mark.parametrize("talks", [0, 1])
def test_the_speaker_is_the_one_whose_lips_move(talks: int) -> None:
    faces = [couple(k, talks) for k in range(24)]
    faces[12:18] = [[]] * 6
    pictures = film(faces)
    speaker = choose_speaker([pictures[k : k + 6] for k in range(0, 24, 6)], Planted(faces), Looked)
    assert speaker.people == 2 and speaker.moved > 0.5 and speaker.collected.frames == 18
    assert [[p is None for p in burst] for burst in speaker.bursts] == [
        [lost] * 6 for lost in (False, False, True, False)
    ]
    found = speaker.bursts[3][2]
    assert found is not None and np.array_equal(found, faces[20][talks].points)
    tracker = FaceTracker(Planted(faces), who=speaker.who)
    tracked = [face for _, face in tracker.track(pictures[:6], lambda one: one)]
    assert np.abs(points_of(tracked)[3] - faces[3][talks].points).max() < 2


def test_a_named_speaker_need_not_move() -> None:
    faces = [couple(k, 0) for k in range(12)]
    bursts = [film(faces)[:6]]
    silent = choose_speaker(bursts, Planted(faces), Looked, face=1)
    assert silent.moved < 0.01
    with pytest.raises(NoFaceError, match="no face number 2, 2 faces were found"):
        choose_speaker(bursts, Planted(faces), Looked, face=2)


def test_a_video_without_a_face_has_no_speaker() -> None:
    with pytest.raises(NoFaceError, match=r"a\.mp4: no usable face found in any of 1 places"):
        choose_speaker([film([[]] * 3)], Planted([[]] * 3), Looked, name="a.mp4")


@pytest.mark.skipif(grid_root() is None, reason="needs GRID clips: STILLSPEAK_GRID")
@pytest.mark.parametrize("talks", [0, 1])
def test_of_two_real_people_the_one_who_speaks_is_found(
    detector: MediaPipeDetector, talks: int
) -> None:
    root = grid_root()
    assert root is not None
    clips = []
    for person, speaker in enumerate(("s2", "s15")):
        path = next(p for p in sorted((root / speaker).iterdir()) if p.suffix in (".mp4", ".mpg"))
        frames = list(islice(read_clip(path)[0], 42))
        clips.append(frames if person == talks else [frames[0]] * 42)
    pictures = [np.hstack(pair) for pair in zip(*clips, strict=True)]
    speaker = choose_speaker([pictures[18:24], pictures[32:38]], detector, Looked)
    assert speaker.people == 2
    for burst in speaker.bursts:
        middles = [points[:, 0].mean() for points in burst if points is not None]
        assert len(middles) == 6 and all((x > 360) == talks for x in middles)
