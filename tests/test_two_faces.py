"""Several faces of one picture that move at the same time, each with a speech of its own."""

from functools import cache

import cv2
import numpy as np
import pytest

import stillspeak
from stillspeak.animate import Animation, Animator
from stillspeak.errors import AudioError, ConfigError, NoFaceError
from stillspeak.media.audio import HEADROOM
from support.animate import RATE, lively, masked_portrait, portrait, shared_detector, speech

STILL = {"blink": 0.0, "expression": 0.0, "head_motion": 0.0}


@cache
def couple(second=portrait) -> np.ndarray:
    """(256, 460, 3) uint8: face 0 on the left, face 1, which is smaller, on the right."""
    small = cv2.resize(second()[:, ::-1], (204, 204), interpolation=cv2.INTER_AREA)
    picture = np.concatenate((portrait(), np.full((256, 204, 3), 110, np.uint8)), axis=1)
    picture[52:, 256:] = small
    return picture


@cache
def animator(decoder: str = "layers") -> Animator:
    return Animator(lively(decoder), precision="float32", detector=shared_detector())


def animated(others, seconds: float = 1.0, **options) -> Animation:
    sound = (speech(seconds), RATE)
    return animator().animate(couple(), sound, others=others, **(STILL | options))


def halves(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return frames[:, :, :256], frames[:, :, 256:]


def alone(face: int, sound: np.ndarray, **options) -> np.ndarray:
    """The half of a face that speaks alone."""
    made = animator().animate(couple(), (sound, RATE), face=face, **(STILL | options)).frames
    return halves(made)[face]


def test_each_face_says_its_own_speech():
    second = speech(0.6, seed=1)
    made = animated({1: (second, RATE)})
    frames = made.frames
    assert frames.shape == (25, 256, 460, 3) and len(made) == 25
    left, right = halves(frames)
    assert np.array_equal(left, alone(0, speech(1.0)))
    # Its speech over, the other face is as silent as one that hears silence.
    padded = np.pad(second, (0, len(made.audio) - len(second)))
    assert np.array_equal(right, alone(1, padded))
    assert np.ptp(right[:15].astype(int), axis=0).max() > 40
    assert np.array_equal(frames, made.frames)


def test_the_first_face_named_says_the_main_speech():
    first, second = halves(animated({0: None}, face=1).frames)
    assert np.array_equal(second, alone(1, speech(1.0)))
    assert np.abs(first[4:].astype(int) - couple()[:, :256]).mean() < 1


def test_a_face_that_listens_lives_in_silence():
    _, lively_one = halves(animated({1: None}, 4.0, blink=3.0, head_motion=1.0).frames)
    steps = np.abs(np.diff(lively_one.astype(int), axis=0)).mean((1, 2, 3))
    assert np.ptp(lively_one.astype(int), axis=0).max() > 40
    assert (steps[3:] > 0).mean() > 0.9


def test_heads_move_as_each_alone_would():
    options = {"blink": 1.0, "expression": 1.0, "head_motion": 2.0, "mood": "sad"}
    made = animated({1: (speech(0.6, seed=1), RATE)}, **options)
    frames = made.frames
    for index, (face, sound) in enumerate(made.speakers):
        padded = np.pad(sound, (0, len(made.audio) - len(sound)))
        single = np.stack(list(face.restarted().speak(padded)))
        near, far = (np.s_[:, :, :220], np.s_[:, :, 290:])[:: 1 - 2 * index]
        assert np.array_equal(frames[near], single[near])
        assert np.ptp(single[near].astype(int), axis=0).max() > 40
        assert not np.array_equal(frames[far], single[far])


def test_faces_do_not_blink_together():
    sound = np.zeros(8 * RATE, np.float32)
    sound[:RATE] = speech(1.0)
    made = animator().animate(couple(), (sound, RATE), others={1: None}, **STILL | {"blink": 3.0})
    eyes = made.frames[25:, 60:150].astype(int)
    left, right = (np.abs(half - half[0]).mean((1, 2, 3)) > 0.2 for half in halves(eyes))
    assert left.any() and right.any()
    assert (left & ~right).any() and (right & ~left).any()


def test_moods_are_for_all_or_for_one():
    plain = halves(animated({1: None}).frames)
    both = halves(animated({1: None}, mood="happy:2").frames)
    one = halves(animated({1: None}, mood="1=happy:2").frames)
    assert all(not np.array_equal(a, b) for a, b in zip(plain, both, strict=True))
    assert np.array_equal(one[0], plain[0])
    assert np.array_equal(one[1], both[1])


def test_the_sound_is_all_speeches_and_never_clips():
    loud = 2.4 * speech(0.6, seed=1)
    made = animated({1: (loud, RATE)})
    assert len(made.audio) == RATE
    assert np.abs(made.audio).max() == pytest.approx(HEADROOM)
    assert np.corrcoef(made.audio[len(loud) :], speech(1.0)[len(loud) :])[0, 1] > 0.9999
    quiet = animated({1: (0.5 * speech(0.6, seed=1), RATE)})
    assert np.allclose(quiet.audio[len(loud) :], speech(1.0)[len(loud) :])
    longer = animated({1: (speech(1.4), RATE)})
    assert len(longer) == len(longer.frames) == 35


def test_credentials_name_every_speech(tmp_path):
    from stillspeak.media.marks.inspection import inspect_file

    made = animated({1: (speech(0.6, seed=1), RATE)})
    made.save(tmp_path / "two.mp4")
    found = inspect_file(tmp_path / "two.mp4")
    assert found.verdict == "intact"
    titles = [one["title"] for one in found.credentials.ingredients]
    assert titles == ["the still", "the speech", "the speech of face 1"]
    assert made.origin.settings["faces"] == [0, 1]


def test_warnings_name_the_face():
    made = animator().animate(couple(masked_portrait), (speech(0.4), RATE), others={1: None})
    covered = [one.message for one in made.warnings if one.code == "mouth_covered"]
    assert len(covered) == 1 and covered[0].startswith("face 1: ")


@pytest.mark.parametrize(
    ("others", "options", "error", "message"),
    [
        ({2: None}, {}, NoFaceError, "no face number 2, 2 faces were found; choose from 0"),
        ({0: None}, {}, ConfigError, "face 0 is named twice"),
        ({1: None}, {"face": 1}, ConfigError, "face 1 is named twice"),
        ({1: None}, {"crop": True}, ConfigError, "a crop shows one face; leave out crop"),
        ({1: (np.zeros(RATE, np.float32), RATE)}, {}, AudioError, "holds only silence"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(others, options, error, message):
    with pytest.raises(error, match=message) as caught:
        animated(others, **options)
    assert "\n" not in str(caught.value)


def test_a_model_that_paints_takes_one_face():
    with pytest.raises(ConfigError, match="this model paints one face; for several use one that"):
        animator("unet").animate(couple(), (speech(1), RATE), others={1: None})


def test_the_function_takes_others_too():
    made = stillspeak.animate(
        couple(), (speech(0.4), RATE), model=lively("layers"), others={1: None}, **STILL
    )
    assert len(made.speakers) == 2
