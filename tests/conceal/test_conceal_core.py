"""Gaps in arrays of frames: where they join, what they depend on, what they cost."""

import inspect
import weakref
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from stillspeak.animate import Animator
from stillspeak.conceal import concealer as core
from stillspeak.conceal import gap as bridge
from stillspeak.conceal.concealer import Concealer, GapStats, InputFrame
from stillspeak.conceal.gap import Anchor, AnchorRenderer, fading
from stillspeak.dub.heard import HeardPoses, model_place
from stillspeak.errors import ConfigError, NoFaceError, VideoError
from stillspeak.face.landmarks import Face
from stillspeak.face.mouth import INNER_LIPS, opening_of
from stillspeak.media.audio import frame_windows
from stillspeak.rendering.appearance import Appearance
from stillspeak.rendering.mesh import LOWER, UPPER
from stillspeak.rendering.video_mouth import VideoMouth
from stillspeak.weights import DEFAULT_MODEL, catalogue, read_info
from support.animate import RATE, lively, portrait, portrait_face, shared_detector, speech
from support.conceal import FPS, concealer, lost_places, sound, talker, talking

STILL = {"blink": 0.0, "expression": 0.0}


def jump(first: np.ndarray, second: np.ndarray) -> float:
    """Mean difference of neighbours, in levels."""
    return float(np.abs(first.astype(int) - second).mean())


# --- how the ends fade --------------------------------------------------------------------------


def test_in_a_short_gap_the_ends_fade_linearly():
    since = np.array([0.04, 0.08, 0.12])
    first, second = fading(since, 0.16 - since, memory=10.0)
    assert first == pytest.approx([0.75, 0.5, 0.25], abs=1e-3)
    assert second == pytest.approx([0.25, 0.5, 0.75], abs=1e-3)


def test_in_a_long_gap_they_fade_exponentially():
    since = np.array([0.0, 0.5, 5.0, 9.5, 10.0])
    first, second = fading(since, 10 - since, memory=0.5)
    assert first == pytest.approx([1, np.exp(-1), 0, 0, 0], abs=1e-4)
    assert second == pytest.approx([0, 0, 0, np.exp(-1), 1], abs=1e-4)
    alone, none = fading(since, None, memory=0.5)
    assert alone == pytest.approx(np.exp(-2 * since))
    assert none.tolist() == [0] * 5
    assert [x.tolist() for x in fading(since, 10 - since, memory=0)] == [[0] * 5] * 2


# --- the sound ----------------------------------------------------------------------------------


def test_poses_are_those_of_the_whole_clip_however_the_sound_comes():
    generator, audio = talker(), sound(2.0)
    config = generator.config
    windows = torch.from_numpy(frame_windows(audio, config.window, config.hop).copy())[None]
    noise = generator.draw_noise(1, 50, torch.Generator().manual_seed(0))
    encoded, _, _ = generator.encode(windows, noise, generator.initial_state())
    whole = encoded[0].double().numpy().reshape(50, 41, 2)
    for size in (333, 10 * RATE):
        heard = HeardPoses(generator, (audio[at : at + size] for at in range(0, len(audio), size)))
        first = heard.at(np.arange(10.0))
        heard.forget(20)
        np.testing.assert_allclose(first, whole[:10], atol=1e-5)
        np.testing.assert_allclose(heard.at(np.arange(20.0, 46.0)), whole[20:46], atol=1e-5)


def test_between_two_frames_poses_are_mixed_and_rounding_is_none():
    heard = HeardPoses(talker(), [sound(1.0)])
    a, b = heard.at(np.array([3.0])), heard.at(np.array([4.0]))
    np.testing.assert_allclose(heard.at(np.array([3.25])), 0.75 * a + 0.25 * b)
    assert np.array_equal(heard.at(np.array([3.02])), a)


def test_little_is_kept_and_the_sound_goes_on_in_silence():
    heard = HeardPoses(talker(), (speech(0.5) for _ in range(3)))
    for place in range(0, 400, 5):
        heard.forget(place)
        heard.at(np.array([float(place)]))
        assert len(heard._kept) <= 40
    with pytest.raises(ValueError, match="forgotten"):
        heard.at(np.array([10.0]))


def test_frames_of_other_rates_are_matched_by_their_middles():
    generator = talker()
    assert model_place(2.0, 25, generator) == pytest.approx(50)
    assert model_place(0.0, 50, generator) == pytest.approx(-0.25)
    assert model_place(1 / 50, 50, generator) == pytest.approx(0.25)


# --- the mouth ----------------------------------------------------------------------------------


def opened_face(opening: float) -> np.ndarray:
    """The portrait's landmarks with its inner lips so many pixels apart."""
    points = portrait_face().points.copy()
    lips = list(INNER_LIPS)
    points[[lips[k] for k in LOWER]] = points[[lips[k] for k in UPPER]]
    points[[lips[k] for k in LOWER[1:-1]], 1] += opening
    return points


def anchored(opening: float, mouth: VideoMouth) -> AnchorRenderer:
    return AnchorRenderer(Anchor(portrait(), opened_face(opening), 0.0), mouth, talker())


def test_poses_meet_what_was_seen_at_both_ends_and_are_what_is_heard_between():
    mouth = VideoMouth(Appearance.gather([(portrait(), opened_face(k)) for k in (0.0, 14.0)]))
    heard = HeardPoses(talker(), [sound(1.0)])
    shut, wide = anchored(0.0, mouth), anchored(14.0, mouth)
    assert np.abs(shut.seen).max() < 0.1 < opening_of(wide.seen)
    said = heard.at(np.arange(3.0))
    assert np.array_equal(shut.joined(said, np.ones(3)), said)  # nothing was heard of it yet
    shut.compare(heard)
    made = shut.joined(said, np.array([1.0, 0.0, 0.0]))
    np.testing.assert_allclose(made[0], shut.seen)
    assert np.array_equal(made[1:], said[1:])
    picture, again = (next(wide.render(wide.seen[None], None, np.array([t]))) for t in (0.0, 9.0))
    assert np.array_equal(picture, portrait())
    assert jump(again, portrait()) < 0.5


# --- gaps ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def filled() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A clip of 50 frames, what of it is lost, and the result."""
    clip = talking(50)
    lost = lost_places(50, (8, 9), (14, 19), (26, 44))
    blank = clip.copy()
    blank[lost] = 0
    return clip, lost, concealer().conceal(blank, lost, sound(2.1))


def test_good_frames_stay_bit_for_bit(filled):
    clip, lost, made = filled
    assert made.shape == clip.shape and made.dtype == np.uint8
    assert np.array_equal(made[~lost], clip[~lost])
    assert not any(np.array_equal(a, b) for a, b in zip(made[lost], clip[lost], strict=True))


def test_no_seam_jumps_more_than_real_neighbours(filled):
    clip, _, made = filled
    real = max(jump(clip[k], clip[k + 1]) for k in range(49))
    steps = [jump(made[k], made[k + 1]) for k in range(49)]
    assert max(steps) < 1.25 * real
    held = clip.copy()
    held[26:44] = clip[25]
    assert max(steps) < 0.8 * jump(held[43], held[44])  # what a held frame does there


def test_the_filled_frames_are_nearer_than_a_held_one(filled):
    clip, lost, made = filled
    places = np.flatnonzero(lost)
    held = [clip[max(np.flatnonzero(~lost[:k]))] for k in places]
    ours = np.mean([jump(made[k], clip[k]) for k in places])
    theirs = np.mean([jump(a, clip[k]) for a, k in zip(held, places, strict=True)])
    assert ours < 0.8 * theirs


def test_the_same_sound_gives_the_same_frames(filled):
    clip, lost, made = filled
    again = concealer().conceal(clip, lost, sound(2.1))  # what stands in lost places is not seen
    assert np.array_equal(again, made)


@pytest.mark.e2e
def test_the_seed_decides_when_it_blinks():
    clip, lost = talking(80), lost_places(80, (5, 75))
    one, other = (
        concealer().conceal(clip, lost, sound(3.3), seed=seed, blink=3) for seed in (0, 1)
    )
    changed = (np.abs(one.astype(int) - other).max(axis=3) > 8).any(axis=(0, 2))
    rows = np.flatnonzero(changed)
    eyes = portrait_face().points[[33, 133, 362, 263], 1]
    assert len(rows) and abs(rows.mean() - eyes.mean()) < 20
    assert np.array_equal(one[~lost], clip[~lost])


def test_lips_follow_the_sound(filled):
    clip, lost, made = filled
    other = concealer().conceal(clip, lost, speech(2.1, seed=2))
    changed = (np.abs(other[26:44].astype(int) - made[26:44]).max(axis=3) > 2).any(axis=0)
    assert changed[100:200, 80:180].sum() > 100
    assert not changed[:60].any()  # and nothing but the face does


def test_a_frame_or_two_are_filled_by_the_pictures_alone():
    clip, lost = talking(24), lost_places(24, (5, 6), (9, 11), (15, 18))
    made = concealer().conceal(clip, lost, sound(1.0))
    other = concealer().conceal(clip, lost, speech(1.0, seed=3))
    changed = [k for k in range(24) if not np.array_equal(made[k], other[k])]
    assert changed == [15, 16, 17]
    for k in (5, 9, 10):
        near = clip[k - 1] if k < 10 else clip[11]
        assert jump(made[k], clip[k]) < jump(near, clip[k])
    # A telephone does not know how long a gap will be.
    online = [
        concealer().conceal(clip, lost, audio, online=True)[5]
        for audio in (sound(1.0), speech(1.0, seed=3))
    ]
    assert not np.array_equal(*online)


@pytest.mark.parametrize("fps", [12.5, 30.0])
def test_other_frame_rates(fps):
    clip = talking(20)
    made = concealer().conceal(clip, lost_places(20, (5, 12)), sound(2.0), fps=fps)
    assert made.shape == clip.shape
    assert jump(made[8], made[9]) > 0


# --- the whole video from its first frame -------------------------------------------------------


@pytest.mark.parametrize("strengths", [STILL, {}])
def test_all_but_the_first_frame_lost_is_an_animation(strengths):
    clip = np.repeat(portrait()[None], 40, axis=0)
    lost = lost_places(40, (1, 40))
    made = concealer().conceal(clip, lost, sound(1.6), memory=0.0, **strengths)
    same = {"device": "cpu", "precision": "float32", "detector": shared_detector()}
    with Animator(talker(), **same) as animator:
        speech = sound(1.6), RATE
        animation = animator.animate(portrait(), speech, head_motion=0.0, **strengths).frames
    # Eyes and brows rest beside a good frame, and the first ones take on what the drawing missed.
    far = [jump(made[k], animation[k]) for k in range(22, 40)]
    moved = [jump(animation[k], portrait()) for k in range(22, 40)]
    assert np.mean(far) < 0.3 * np.mean(moved)


def test_with_a_memory_it_becomes_one():
    clip = np.repeat(portrait()[None], 75, axis=0)
    made = concealer().conceal(clip, lost_places(75, (1, 75)), sound(3.0), memory=0.2, **STILL)
    with Animator(talker(), device="cpu", detector=shared_detector()) as animator:
        speech = sound(3.0), RATE
        animation = animator.animate(portrait(), speech, head_motion=0.0, **STILL).frames
    distance = [jump(a, b) for a, b in zip(made, animation, strict=True)]
    moved = [jump(picture, portrait()) for picture in animation]
    assert np.mean(distance[40:]) < 0.3 * np.mean(moved[40:])


def test_lost_at_the_beginning_and_at_the_end():
    clip = talking(24)
    lost = lost_places(24, (0, 6), (18, 24))
    made = concealer().conceal(clip, lost, sound(1.0))
    real = max(jump(clip[k], clip[k + 1]) for k in range(23))
    assert np.array_equal(made[~lost], clip[~lost])
    assert max(jump(made[k], made[k + 1]) for k in range(23)) < 1.25 * real


# --- as a telephone must ------------------------------------------------------------------------


def test_online_frames_depend_on_the_past_alone():
    clip, lost = talking(30), lost_places(30, (8, 20))
    made = concealer().conceal(clip, lost, sound(1.3), online=True)
    other = clip.copy()
    other[20:] = 255 - other[20:]
    later = sound(1.3).copy()
    ahead = (talker().config.window - talker().config.hop) // 2
    later[20 * 640 + ahead :] = 0
    again = concealer().conceal(other, lost, later, online=True)
    assert np.array_equal(again[:20], made[:20])
    offline = concealer().conceal(clip, lost, sound(1.3))
    assert not np.array_equal(offline[8:20], made[8:20])


def test_online_the_motion_comes_up_over_three_frames(monkeypatch):
    clip, lost = talking(24), lost_places(24, (10, 18))
    soft = concealer().conceal(clip, lost, sound(1.0), online=True)
    monkeypatch.setattr(bridge, "RISE", 1e-3)
    hard = concealer().conceal(clip, lost, sound(1.0), online=True)
    for place in (10, 11):
        assert jump(soft[place], clip[9]) < jump(hard[place], clip[9])
    assert np.array_equal(soft[12:], hard[12:])


def test_online_frames_come_at_once():
    clip, asked = talking(14), []

    def given() -> Iterator[InputFrame]:
        for k in range(14):
            asked.append(k)
            yield InputFrame(float(k), None if 5 <= k < 10 else clip[k])

    for k, _ in enumerate(concealer().fill(given(), [sound(0.7)], online=True)):
        assert asked[-1] == k


def test_a_return_may_be_eased():
    clip, lost = talking(40), lost_places(40, (10, 30))
    stats = GapStats()
    hard = concealer().conceal(clip, lost, sound(1.7), online=True)
    soft = concealer().conceal(clip, lost, sound(1.7), online=True, ease=4, stats=stats)
    assert stats.eased == 4
    assert np.array_equal(soft[:30], hard[:30])
    assert np.array_equal(soft[34:], clip[34:])
    assert jump(soft[29], soft[30]) < 0.6 * jump(hard[29], hard[30])
    assert [jump(soft[k], clip[k]) > 0 for k in range(30, 34)] == [True] * 4


# --- faces --------------------------------------------------------------------------------------


class Blinking:
    """The shared detector; a picture whose first pixel is white has its eyes shut."""

    version = "blinking"

    def detect(self, image: np.ndarray) -> list[Face]:
        shut = 0.9 if image[0, 0].min() == 255 else 0.05
        return [
            Face(f.points, {"eyeBlinkLeft": shut, "eyeBlinkRight": shut}, f.yaw, f.pitch, f.roll)
            for f in shared_detector().detect(image)
        ]

    def close(self) -> None:
        pass


def test_eyes_that_were_shut_before_a_gap_open_in_it():
    clip, lost = talking(30).copy(), lost_places(30, (10, 30))
    (face,) = shared_detector().detect(clip[9])
    eye = face.points[[33, 133]].mean(axis=0).round().astype(int)
    spot = (slice(eye[1] - 2, eye[1] + 3), slice(eye[0] - 2, eye[0] + 3))
    clip[9][spot] = 250
    clip[9, 0, 0] = 255
    with Concealer(talker(), device="cpu", detector=Blinking()) as blinking:
        made = blinking.conceal(clip, lost, sound(1.3), online=True, **STILL)
    plain = concealer().conceal(clip, lost, sound(1.3), online=True, **STILL)
    assert plain[25][spot].mean() > 200
    assert made[10][spot].mean() > 200
    assert abs(made[25][spot].mean() - clip[8][spot].mean()) < 40


def test_without_a_face_gaps_are_mixed_and_counted():
    clip = talking(30).copy()
    clip[:12] = np.random.default_rng(0).integers(90, 110, (256, 256, 3), np.uint8)
    stats = GapStats()
    made = concealer().conceal(clip, lost_places(30, (4, 8), (20, 24)), sound(1.3), stats=stats)
    assert (stats.gaps, stats.without_face, stats.generated) == (2, 1, 8)
    assert jump(made[5], clip[5]) < 1


def test_no_face_beside_any_gap_is_an_error():
    grey = np.full((12, 128, 128, 3), 120, np.uint8)
    with pytest.raises(NoFaceError, match=r"no usable face beside any of its 1 gaps \(no face"):
        concealer().conceal(grey, lost_places(12, (4, 8)), sound(0.6))


def test_a_cut_within_a_gap_stays_a_cut():
    clip = talking(24).copy()
    clip[12:] = 255 - clip[12:]
    stats = GapStats()
    made = concealer().conceal(clip, lost_places(24, (8, 16)), sound(1.0), stats=stats)
    assert stats.cuts == 1
    assert jump(made[11], clip[7]) < 0.2 * jump(made[11], made[12])


# --- memory and mistakes ------------------------------------------------------------------------


def test_memory_does_not_grow_with_the_video_or_a_gap(monkeypatch):
    monkeypatch.setattr(core, "LONG", 1.2)
    monkeypatch.setattr(core, "TAIL", 0.6)
    clip = talking(20)
    alive: list[weakref.ref] = []
    most = 0

    def given() -> Iterator[InputFrame]:
        nonlocal most
        for k in range(200):
            lost = 40 <= k < 120 or 160 <= k < 165
            picture = None if lost else clip[k % 20].copy()
            if picture is not None:
                alive.append(weakref.ref(picture))
            most = max(most, sum(ref() is not None for ref in alive))
            yield InputFrame(float(k), picture)

    def pieces() -> Iterator[np.ndarray]:
        for _ in range(200):
            yield speech(0.04)

    assert sum(1 for _ in concealer().fill(given(), pieces(), **STILL)) == 200
    assert most <= core.RECENT + 6


def test_a_long_gap_has_no_seam_where_its_parts_meet(monkeypatch):
    clip, lost = talking(50), lost_places(50, (5, 45))
    whole = concealer().conceal(clip, lost, sound(2.1), **STILL)
    monkeypatch.setattr(core, "LONG", 0.6)
    monkeypatch.setattr(core, "TAIL", 0.4)
    made = concealer().conceal(clip, lost, sound(2.1), **STILL)
    assert not np.array_equal(made, whole)
    real = max(jump(clip[k], clip[k + 1]) for k in range(49))
    assert max(jump(made[k], made[k + 1]) for k in range(49)) < 1.5 * real


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lost": np.zeros(9, bool)}, "one bool for each of 10 frames"),
        ({"lost": np.zeros(10, int)}, "one bool"),
        ({"fps": 0}, "positive"),
        ({"seed": -1}, "seed: must be at least 0, not -1"),
        ({"blink": 4}, "blink: must be at most 3, not 4"),
        ({"ease": 3}, "ease goes with online"),
        ({"ease": 26, "online": True}, "conceal.ease: must be at most 25, not 26"),
    ],
)
def test_mistakes(changes, said):
    call = {"frames": talking(10), "lost": lost_places(10, (3, 5)), "audio": sound(0.5)} | changes
    with pytest.raises(ConfigError, match=said):
        concealer().conceal(**call)


def test_one_good_frame_is_needed():
    with pytest.raises(VideoError, match="every frame is lost"):
        concealer().conceal(talking(10), np.ones(10, bool), sound(0.5))


def test_nothing_lost_changes_nothing():
    clip = talking(10)
    assert np.array_equal(concealer().conceal(clip, np.zeros(10, bool), sound(0.5)), clip)
    assert talker().config.fps == FPS


# --- the model ----------------------------------------------------------------------------------


def test_by_default_it_uses_the_default_model():
    assert inspect.signature(Concealer).parameters["model"].default == DEFAULT_MODEL
    assert read_info(catalogue()[DEFAULT_MODEL].path)["config"]["decoder"] == "layers"


def test_a_model_that_makes_whole_frames_is_refused():
    with pytest.raises(ConfigError, match="this generator: makes whole frames") as error:
        Concealer(lively("unet"), device="cpu")
    assert "\n" not in str(error.value) and "'default'" in str(error.value)
