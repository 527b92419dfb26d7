"""Other frame rates than the model's: poses are interpolated, frames are drawn from them."""

from fractions import Fraction

import av
import numpy as np
import pytest

from stillspeak.animate import Animator
from stillspeak.errors import ConfigError
from stillspeak.face.mouth import POSE_POINTS
from stillspeak.media.video import iter_frames
from stillspeak.motion.frames import FaceMotion
from stillspeak.options import AnimateOptions
from stillspeak.rendering.frame_rate import FrameRateConverter
from stillspeak.stream import StreamSession
from support.animate import RATE, lively, portrait, speech, use_shared_detector

RATES = (24, 29.97, 30, 50, 60)
_TOP, _BOTTOM = ([POSE_POINTS.index(one) for one in row] for row in ((13, 82, 312), (14, 87, 317)))


@pytest.fixture(autouse=True)
def _detector(monkeypatch):
    use_shared_detector(monkeypatch)


@pytest.fixture(scope="module")
def animator():
    return Animator(lively("layers"))


def mouths(openings) -> np.ndarray:
    """Poses (T, 41, 2) whose lips are so far apart."""
    poses = np.zeros((len(openings), len(POSE_POINTS), 2))
    poses[:, _BOTTOM, 1] = np.asarray(openings)[:, None]
    return poses


def opening(poses) -> np.ndarray:
    return (poses[:, _BOTTOM, 1] - poses[:, _TOP, 1]).mean(axis=1)


def talking(frames: int) -> tuple[np.ndarray, FaceMotion]:
    """A mouth that opens and closes for one frame now and then, and eyes that blink."""
    chance = np.random.default_rng(3)
    openings = 0.1 + 0.05 * np.sin(np.arange(frames) / 3)
    openings[chance.choice(np.arange(2, frames - 2, 4), frames // 10, replace=False)] = 0.0
    motion = FaceMotion.rest(frames)
    motion.closure[5::23] = 0.5
    motion.head[:, 0] = np.linspace(-2, 2, frames)
    return mouths(openings), motion


def converted(rate, poses, motion, pieces) -> tuple[np.ndarray, FaceMotion]:
    converter = FrameRateConverter(25, AnimateOptions(fps=rate).frame_rate(25))
    made, start = [], 0
    for size in pieces:
        part = slice(start, start + size)
        made.append(converter.feed(poses[part], FaceMotion(*(one[part] for one in motion))))
        start += size
    made.append(converter.finish())
    parts = zip(*(motion for _, motion in made), strict=True)
    return np.concatenate([p for p, _ in made]), FaceMotion(*map(np.concatenate, parts))


@pytest.mark.parametrize("rate", RATES)
def test_how_many_come_at_a_time_changes_nothing(rate):
    poses, motion = talking(100)
    whole = converted(rate, poses, motion, [100])
    for pieces in ([1] * 100, [16] * 6 + [4], [37, 63]):
        got = converted(rate, poses, motion, pieces)
        assert np.array_equal(got[0], whole[0])
        assert all(np.array_equal(*pair) for pair in zip(got[1], whole[1], strict=True))
    exact = AnimateOptions(fps=rate).frame_rate(25)
    assert len(whole[0]) == int(Fraction(100, 25) * exact)


@pytest.mark.parametrize("rate", RATES)
def test_frames_lie_where_their_time_is(rate):
    motion = FaceMotion.rest(50)
    motion.head[:, 0] = np.arange(50)
    _, got = converted(rate, mouths(np.arange(50.0)), motion, [50])
    exact = AnimateOptions(fps=rate).frame_rate(25)
    middles = (np.arange(len(got.head)) + 0.5) * float(25 / exact) - 0.5
    assert got.head[:, 0] == pytest.approx(np.clip(middles, 0, 49), abs=1e-4)


@pytest.mark.parametrize("rate", RATES)
def test_no_closure_of_lips_and_lids_is_lost(rate):
    poses, motion = talking(250)
    got, moved = converted(rate, poses, motion, [16] * 15 + [10])
    given = opening(poses)
    closed = np.flatnonzero(given == 0)
    step = 25 / float(AnimateOptions(fps=rate).frame_rate(25))
    places = (np.arange(len(got)) + 0.5) * step - 0.5
    shown = opening(got)
    for frame in closed:
        near = np.abs(places - frame) <= step / 2 + 1e-6
        assert shown[near].min() == 0.0, frame
    blinks = np.flatnonzero(motion.closure)
    for frame in blinks[(blinks > 0) & (blinks < 249)]:
        assert moved.closure[np.abs(places - frame) <= step / 2 + 1e-6].max() == 0.5
    assert shown.min() >= given.min() and shown.max() <= given.max() + 1e-12


@pytest.mark.parametrize("rate", [24, 30, 60])
def test_a_video_has_the_rate_and_its_sound(tmp_path, animator, rate):
    made = animator.animate(portrait(), (speech(1.0), RATE), fps=rate)
    assert (made.fps, len(made)) == (rate, rate)
    assert made.save(tmp_path / "a.mp4") == rate
    with av.open(str(tmp_path / "a.mp4")) as file:
        picture, sound = file.streams.video[0], file.streams.audio[0]
        assert picture.average_rate == rate
        assert float(picture.duration * picture.time_base) == pytest.approx(1.0, abs=0.001)
        assert float(sound.duration * sound.time_base) == pytest.approx(1.0, abs=0.025)
    assert len(list(iter_frames(tmp_path / "a.mp4"))) == rate


def test_rates_of_american_television_are_exact(tmp_path, animator):
    made = animator.animate(portrait(), (speech(0.4), RATE), fps=29.97)
    assert made.fps == pytest.approx(29.97, abs=0.001)
    assert made.save(tmp_path / "a.mov") == len(made) == 11
    with av.open(str(tmp_path / "a.mov")) as file:
        assert file.streams.video[0].average_rate == Fraction(30_000, 1001)


def test_the_models_own_rate_changes_nothing(animator):
    plain = animator.animate(portrait(), (speech(0.4), RATE))
    same = animator.animate(portrait(), (speech(0.4), RATE), fps=25)
    assert np.array_equal(plain.frames, same.frames)


def test_frames_between_are_drawn_and_not_blended(animator):
    """At 50 a second the head moves half as far from frame to frame, at the same sharpness."""
    slow = animator.animate(portrait(), (speech(1.2), RATE)).frames.astype(int)
    fast = animator.animate(portrait(), (speech(1.2), RATE), fps=50).frames.astype(int)
    assert len(fast) == 2 * len(slow)
    steps = [np.abs(np.diff(one[len(one) // 2 :], axis=0)).mean() for one in (slow, fast)]
    assert steps[1] < 0.75 * steps[0]
    sharp = [np.abs(np.diff(one[len(one) // 2 :], axis=2)).mean() for one in (slow, fast)]
    assert sharp[1] == pytest.approx(sharp[0], rel=0.01)


@pytest.mark.parametrize("rate", [24, 30, 50, 60])
def test_streaming_equals_offline(animator, rate):
    sound = speech(1.0)
    made = animator.animate(portrait(), (sound, RATE), fps=rate)
    live = StreamSession(portrait(), animator=animator, fps=rate)
    frames = [one for begin in range(0, RATE, 700) for one in live.push(sound[begin : begin + 700])]
    frames += live.flush()
    assert [one.index for one in frames] == list(range(rate))
    assert [one.sample for one in frames] == [k * RATE // rate for k in range(rate)]
    for got, want in zip(frames, made, strict=True):
        assert np.abs(got.picture.astype(int) - want).max() <= 2


@pytest.mark.parametrize("rate", [30, 60])
def test_pauses_go_on_at_the_rate(animator, rate):
    live = StreamSession(portrait(), animator=animator, fps=rate)
    count = sum(len(live.idle(1)) for _ in range(rate // 2))
    assert count == rate // 2
    assert live.position == pytest.approx(RATE // 2, abs=RATE // 25)
    after = live.push(speech(0.5)) + live.flush()
    assert after[0].index == rate // 2
    assert count + len(after) == pytest.approx(rate, abs=2)
    live.reset()
    assert live.idle(1)[0].index == count + len(after)


@pytest.mark.parametrize("rate", [30, 60])
def test_the_latency_is_what_a_frame_waits_for(animator, rate):
    live, sound = StreamSession(portrait(), animator=animator, fps=rate), speech(0.8)
    waits = []
    for end in range(32, len(sound) + 1, 32):
        waits += [end - one.sample for one in live.push(sound[end - 32 : end])]
    assert len(waits) > rate // 2
    longest = live.latency.algorithmic * RATE
    assert max(waits) <= longest + 33
    assert max(waits) > longest - 0.01 * RATE


def test_models_that_paint_frames_have_one_rate_alone():
    with pytest.raises(ConfigError, match="fps: this model paints 25 frames a second and no oth"):
        Animator(lively()).animate(portrait(), (speech(0.4), RATE), fps=30)
    with pytest.raises(ConfigError, match="fps: must be at least 1, not 0"):
        AnimateOptions(fps=0)


def test_two_faces_share_a_rate(animator):
    both = np.concatenate([portrait(), portrait()], axis=1)
    made = animator.animate(
        both, (speech(0.4), RATE), fps=50, face=0, others={1: (speech(0.6), RATE)}
    )
    assert len(made) == len(list(made)) == 30
