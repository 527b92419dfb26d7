"""A camera's face with the lips of another sound, without any network."""

import asyncio
import time

import numpy as np
import pytest

import stillspeak
from stillspeak.animate import Animator
from stillspeak.dub import live
from stillspeak.dub.live import KEPT, CameraFace, LiveDub, MouthLearner, fitted
from stillspeak.errors import ConfigError, InputError
from stillspeak.face.landmarks import Face
from stillspeak.face.mouth import opening_of
from stillspeak.motion.moods import Mood
from stillspeak.realtime.session import RealtimeSession
from support.animate import lively, portrait, portrait_face, speech

RATE, BLOCK = 16_000, 640


class Portrait:
    """A camera before which the portrait sways to and fro, and the detector that knows where."""

    version = "portrait"

    def __init__(self) -> None:
        self.there = True

    @staticmethod
    def picture(index: int) -> np.ndarray:
        return np.roll(portrait(), round(3 * np.sin(index / 4)), axis=1)

    def detect(self, image: np.ndarray) -> list[Face]:
        if not self.there:
            return []
        rolled = [np.roll(portrait(), shift, axis=1) for shift in range(-3, 4)]
        (shift,) = [k - 3 for k, one in enumerate(rolled) if np.array_equal(one, image)]
        face = portrait_face()
        points = face.points + np.float32((shift, 0))
        return [Face(points, face.blendshapes, face.yaw, face.pitch, face.roll)]

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def animator():
    return Animator(lively("layers"))


@pytest.fixture
def camera():
    return Portrait()


@pytest.fixture
def dub(animator, camera):
    made = LiveDub(animator=animator, detector=camera)
    yield made
    made.close()


@pytest.fixture(scope="module")
def mouth():
    """The portrait's mouth, as it is learned."""
    points = portrait_face().points
    return live._learned([live._sample(portrait(), points)])


@pytest.fixture
def known(dub, mouth):
    """A session that knows the mouth already, and learns no more."""
    dub.camera._learner._now = mouth
    dub.camera._learner._due = [10**9]
    return dub


def test_the_mouth_is_learned_while_the_camera_runs(dub, camera):
    for index in range(400):
        dub.look(camera.picture(index))
        (frame,) = dub.idle(1)
        if dub.counts.drawn:
            break
        assert np.array_equal(frame.picture, camera.picture(index))
        time.sleep(0.01)
    assert dub.counts.learned == 1
    assert dub.counts.seen > (live.LEARNED[0] - 1) * live.EVERY


def test_the_cameras_face_gets_the_mouth_of_the_sound(known, camera):
    dub = known
    assert np.ptp(dub.idle(1)[0].picture) == 0  # grey before the first picture
    sound, drawn = speech(1.2), []
    for index in range(30):
        dub.look(camera.picture(index))
        drawn += [
            (index, frame.picture) for frame in dub.push(sound[index * BLOCK : (index + 1) * BLOCK])
        ]
    face = portrait_face()
    x, y = face.points[[13, 14]].mean(0).round().astype(int).tolist()
    changes = []
    for index, picture in drawn:
        apart = np.abs(picture.astype(int) - camera.picture(index)).sum(2)
        assert picture.shape == portrait().shape
        away = np.ones(apart.shape, bool)
        low, high = face.points.min(0).astype(int), face.points.max(0).astype(int)
        away[low[1] - 20 : high[1] + 40, low[0] - 20 : high[0] + 20] = False
        assert not apart[away].any()  # nothing but the face
        changes.append(apart[y - 10 : y + 10, x - 20 : x + 20].mean())
    assert len(changes) == 28 and max(changes) > 5
    assert (dub.counts.drawn, dub.counts.no_face) == (28, 1)


def test_pictures_that_come_too_fast_are_left_out_and_not_even_made(dub, camera):
    made = []

    def make(index: int) -> np.ndarray:
        made.append(index)
        return camera.picture(index)

    for index in range(50):
        dub.look(lambda index=index: make(index))
    dub.idle(1)
    assert made == [49]
    assert (dub.counts.seen, dub.counts.left_out) == (50, 49)
    assert np.array_equal(dub.idle(1)[0].picture, camera.picture(49))  # the last one stays
    assert made == [49]


def test_a_face_that_is_gone_is_left_alone_and_found_again(known, camera):
    dub = known
    camera.there = False
    for index in range(3):
        dub.look(camera.picture(index))
        (frame,) = dub.idle(1)
        assert np.array_equal(frame.picture, camera.picture(index))
    assert dub.counts.no_face == 3 and dub.counts.drawn == 0
    camera.there = True
    for index in range(12):
        dub.look(camera.picture(index))
        dub.idle(1)
    assert dub.counts.drawn > 0


def test_something_before_the_mouth_stays_in_front(known, camera, monkeypatch):
    dub = known
    monkeypatch.setattr(live.MouthCover, "before", lambda *_: True)
    pictures = []
    for index in range(6):
        dub.look(camera.picture(index))
        pictures.append(dub.idle(1)[0].picture)
    assert np.array_equal(pictures[-1], camera.picture(5))
    assert dub.counts.covered == 6


class StubMouth:
    """Draws how far the lips are apart as a grey level over the whole picture."""

    def draw(self, picture, points, pose, share):
        level = np.clip(2000 * opening_of(pose) + 50, 0, 255)
        return np.full_like(picture, level), (0, 0, 1, 1)


class StubCover:
    def before(self, picture, points):
        return False


def test_click_and_flash_are_in_step(animator, camera, monkeypatch):
    """A sound's frame and the picture that shows its mouth come out together, and the picture is
    the camera's newest: the clock of ``RealtimeSession`` holds for a camera too."""
    from support.clock import Clock, talk_with

    stub = live.LearnedMouth(StubMouth(), StubCover())
    monkeypatch.setattr(MouthLearner, "latest", lambda *_: stub)
    monkeypatch.setattr(MouthLearner, "see", lambda *_: None)
    sound = np.zeros(3 * RATE, np.float32)
    sound[RATE : RATE + 4 * BLOCK] = speech(0.16)
    dub = LiveDub(animator=animator, detector=camera)
    reference = LiveDub(animator=animator, detector=camera)
    reference.look(camera.picture(0))
    levels = [int(f.picture[0, 0, 0]) for f in reference.push(sound)]
    reference.close()

    clock = Clock()
    talk = talk_with(clock, dub, rate=RATE, live=False)

    async def work() -> list[tuple[float, int | None]]:
        out = []
        talk.push(sound, RATE)
        talk.finish()
        async for frame in talk:
            dub.look(camera.picture(frame.index))
            level = None if frame.picture is None else int(frame.picture[0, 0, 0])
            out.append((float(np.abs(frame.sound).max()), level))
        await talk.close()
        return out

    frames = asyncio.run(work())
    dub.close()
    clicks = [index for index, (loud, _) in enumerate(frames) if loud > 0.01]
    assert clicks[0] == 25
    shown = [level for _, level in frames]
    compared = [
        (seen, level)
        for seen, level in zip(shown[2:], levels[2:], strict=False)
        if seen is not None
    ]
    assert len(compared) > 60
    assert all(abs(seen - level) <= 1 for seen, level in compared)
    quiet = levels[20]
    first = next(k for k, level in enumerate(levels) if k > 20 and abs(level - quiet) > 2)
    assert abs(first - clicks[0]) <= 2


def test_a_scene_that_changes_is_learned_anew():
    learner = MouthLearner()
    face = portrait_face()
    for _ in range(3 * live.EVERY):
        learner.see(portrait(), face.points)
    while learner.latest(0.0) is None:
        time.sleep(0.01)
    assert learner.times == 1
    learner.forget()
    assert learner.latest(0.0) is None
    learner.close()


def test_what_is_kept_to_learn_from_is_bounded_and_holds_the_extremes(monkeypatch):
    monkeypatch.setattr(live, "_learned", lambda samples: None)
    learner = MouthLearner()
    face = portrait_face()
    chance = np.random.default_rng(0)
    gaps = []
    for _ in range(300):
        points = face.points.copy()
        points[14, 1] += chance.uniform(0, 20)
        gaps.append(live.lip_opening(points))
        learner._passed = 0
        learner.see(portrait(), points)
    kept = learner._samples
    assert len(kept) == KEPT
    assert all(one.picture.size < portrait().size for one in kept)
    found = sorted(one.gap for one in kept)
    height = np.ptp(face.points[:, 1])
    assert found[0] == pytest.approx(min(gaps) / height, rel=0.05)
    assert found[-1] == pytest.approx(max(gaps) / height, rel=0.05)
    learner.close()


def test_a_mouth_learned_anew_takes_over_when_the_lips_meet(monkeypatch):
    first, second = object(), object()
    learner = MouthLearner()
    learner._next = first
    assert learner.latest(0.5) is first  # there was none before
    learner._next = second
    assert learner.latest(0.5) is first
    assert learner.latest(0.0) is second
    learner.close()


def test_a_call_changes_the_size_of_its_pictures(known, camera):
    dub = known
    small = np.zeros((120, 160, 3), np.uint8)
    camera.there = False
    dub.look(small)
    assert dub.idle(1)[0].picture.shape == small.shape
    assert (dub.height, dub.width) == (120, 160)
    large = fitted(np.zeros((1200, 3840, 3), np.uint8))
    assert large.shape == (600, 1920, 3)


def test_a_reset_forgets_the_sound_and_not_the_face(known, camera):
    dub = known
    for index in range(3):
        dub.look(camera.picture(index))
        dub.idle(1)
    drawn = dub.counts.drawn
    dub.reset(motion=False)
    dub.look(camera.picture(0))
    dub.idle(1)
    assert dub.counts.drawn == drawn + 1


def test_mistakes_have_a_line(dub, animator):
    with pytest.raises(ConfigError, match="has its own mood"):
        dub.set_mood("happy")
    with pytest.raises(ConfigError, match="has its own mood"):
        dub.camera.check_mood(Mood())
    with pytest.raises(ConfigError, match="cannot move lips"):
        LiveDub(model=lively("unet"))
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 4), np.uint8)):
        dub.look(wrong)
        with pytest.raises(InputError, match="<camera>"):
            dub.idle(1)


def test_it_is_a_session_as_any_other():
    assert issubclass(LiveDub, stillspeak.StreamSession)
    assert stillspeak.LiveDub is LiveDub
    assert RealtimeSession is not None and CameraFace.warnings == ()
