"""Poses drawn by Animator: whole pictures and crops, with and without a face, beside blinks."""

import numpy as np
import pytest

from stillspeak.animate import Animator
from stillspeak.evaluation.systems import CropAnimator
from stillspeak.face.align import crop_face, face_transform
from stillspeak.options import AnimateOptions
from stillspeak.rendering.portrait import Portrait
from stillspeak.synthesis import Synthesizer
from support.animate import RATE, lively, portrait, portrait_face, shared_detector, speech

REST = {"blink": 0.0, "expression": 0.0, "head_motion": 0.0}


@pytest.fixture(scope="module")
def animator() -> Animator:
    return Animator(lively("layers"), detector=shared_detector())


def frames(animator: Animator, **options: object) -> np.ndarray:
    """(T, H, W, 3) of 0.8 s of sound."""
    return animator.animate(portrait(), (speech(0.8), RATE), **options).frames  # type: ignore[arg-type]


def test_the_mouth_moves_and_nothing_else_does(animator: Animator) -> None:
    made = frames(animator, **REST)
    assert made.shape == (20, 256, 256, 3) and made.dtype == np.uint8
    moved = np.ptp(made.astype(int), axis=0).max(-1) > 0
    lips = portrait_face().points[[0, 17, 61, 291]]
    around = np.zeros_like(moved)
    wide = float(lips[3, 0] - lips[2, 0])
    left, top = (lips.min(0) - wide).astype(int)
    right, bottom = (lips.max(0) + 1.5 * wide).astype(int)
    around[max(top, 0) : bottom, max(left, 0) : right] = True
    assert moved.sum() > 200
    assert not moved[~around].any()
    assert (made[0][~around] == portrait()[~around]).all()


def test_a_crop_shows_the_same_mouth(animator: Animator) -> None:
    made = frames(animator, crop=True, **REST)
    assert made.shape == (20, 128, 96, 3)
    assert np.ptp(made.astype(int), axis=0)[70:110].max() > 20
    assert frames(animator, crop=True, size=256, **REST).shape == (20, 256, 192, 3)


def test_eyes_and_head_move_as_with_every_model(animator: Animator) -> None:
    usual = frames(animator, **REST)
    blinking = frames(animator, blink=3.0, expression=1.0, seed=5, head_motion=0.0)
    eyes = np.ptp(blinking.astype(int), axis=0).max(-1)[80:125] > 20
    assert eyes.any() and not (np.ptp(usual.astype(int), axis=0).max(-1)[80:125] > 20).any()
    moving = frames(animator, **REST | {"head_motion": 2.0})
    assert np.abs(moving.astype(int) - usual).max() > 20


def test_a_crop_without_a_face_keeps_its_mouth_still() -> None:
    crop = np.random.default_rng(0).integers(90, 110, (128, 96, 3), np.uint8)
    options = AnimateOptions(head_motion=0.0)
    made = CropAnimator(lively("layers"), shared_detector(), options).animate(crop, speech(0.4))
    assert made.shape == (10, 128, 96, 3)
    assert (made == crop).all()


def test_a_crop_with_a_face_speaks() -> None:
    crop = crop_face(portrait(), face_transform(portrait_face().points), 128, 96)
    found = shared_detector().detect(crop)[0].points
    engine = lively("layers")
    face = Portrait.of_crop(crop, found, engine)
    speaking = Synthesizer(engine, face, AnimateOptions(crop=True, **REST))
    made = np.stack(list(speaking.speak(speech(0.4))))
    assert np.ptp(made.astype(int), axis=0).max() > 20
