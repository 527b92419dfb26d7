"""A face that speaks: its state is all in one place, whatever runs it."""

import numpy as np
import pytest

from stillspeak.errors import ConfigError
from stillspeak.media.audio import frame_windows
from stillspeak.models.engine import Engine, InferenceEngine
from stillspeak.motion.listener import MoodListener
from stillspeak.motion.mood_track import MoodTrack
from stillspeak.motion.moods import MOODS, Mood
from stillspeak.options import AnimateOptions
from stillspeak.rendering.portrait import Portrait
from stillspeak.synthesis import Recurrence, Synthesizer
from stillspeak.weights import load_model
from support.animate import lively, portrait, portrait_face, speech

OPTIONS = AnimateOptions(crop=True, seed=3, blink=3.0, expression=2.0, head_motion=1.0)


def face(engine: Engine, options: AnimateOptions = OPTIONS, **more: int) -> Synthesizer:
    made = Portrait.of(portrait(), portrait_face().points, engine)
    return Synthesizer(engine, made, options, **more)


def frames(speaker: Synthesizer, seconds: float = 0.8) -> np.ndarray:
    return np.stack(list(speaker.speak(speech(seconds)))).astype(int)


def test_a_generator_and_its_inference_engine_draw_the_same():
    generator = lively()
    assert np.abs(frames(face(generator)) - frames(face(InferenceEngine(generator)))).max() <= 1


def test_it_goes_on_where_it_stopped_until_it_is_reset():
    speaker = face(lively())
    first, second = frames(speaker), frames(speaker)
    assert not np.array_equal(first, second)
    speaker.reset()
    assert np.array_equal(frames(speaker), first)


def test_a_restarted_one_leaves_the_first_alone():
    speaker = face(lively())
    before = frames(speaker)
    other = speaker.restarted()
    assert np.array_equal(frames(other), before)
    assert other.renderer is speaker.renderer
    assert not np.array_equal(frames(speaker), before)  # it went on from its own state


def test_moments_move_eyes_and_head_alone():
    still = AnimateOptions(crop=True, seed=3, blink=0.0, expression=0.0, head_motion=0.0)
    assert np.array_equal(frames(face(lively(), still)), frames(face(lively(), still, moments=9)))
    assert not np.array_equal(frames(face(lively())), frames(face(lively(), moments=9)))


def test_a_crop_without_a_known_face_keeps_its_eyes_still():
    engine = lively()
    crop = Portrait.of(portrait(), portrait_face().points, engine).crop
    made = [
        frames(Synthesizer(engine, Portrait.of_crop(crop, None, engine), options))
        for options in (OPTIONS, AnimateOptions(crop=True, seed=3, head_motion=1.0, blink=0.0))
    ]
    assert np.array_equal(*made)


@pytest.mark.parametrize("portions", [[5], [1, 4], [2, 2, 1]])
def test_noise_does_not_depend_on_portions(portions):
    engine = lively()
    windows = np.zeros((5, engine.config.window), np.float32)
    (_, whole, _) = Recurrence(engine, 4).inputs(windows)
    heard, drawn, start = Recurrence(engine, 4), [], 0
    for count in portions:
        drawn.append(heard.inputs(windows[start : start + count])[1])
        start += count
    assert np.array_equal(np.concatenate(drawn, 1), whole)


def test_blinks_that_cannot_be_drawn_are_warned_of():
    from stillspeak.face.eyes import LEFT_EYELIDS, RIGHT_EYELIDS

    points = portrait_face().points.copy()
    for lids in (LEFT_EYELIDS, RIGHT_EYELIDS):
        rim = points[list(lids)]
        rim[:, 1] = rim[:, 1].mean() + 0.02 * (rim[:, 1] - rim[:, 1].mean())
        points[list(lids)] = rim
    shut = Portrait.of(portrait(), points, lively("layers"))
    blinking, staring = (
        Synthesizer(lively("layers"), shut, AnimateOptions(blink=blink)) for blink in (1.0, 0.0)
    )
    found = {warning.code: warning.message for warning in blinking.warnings}
    assert "eyes shut" in found["blink_reduced"] and "left out" in found["blink_reduced"]
    assert "blink_reduced" not in {warning.code for warning in staring.warnings}
    assert "blink_reduced" not in {warning.code for warning in face(lively("layers")).warnings}


def test_the_mood_is_heard_in_what_the_engine_hears(monkeypatch):
    engine = InferenceEngine(load_model())
    speaker = face(engine, AnimateOptions(crop=True, mood="neutral,auto@1"))
    windows = frame_windows(speech(0.4), engine.config.window, engine.config.hop)
    given, happy = [], np.eye(len(MOODS), dtype=np.float32)[[MOODS.index("happy")] * 10]
    monkeypatch.setattr(MoodListener, "hear", lambda _, features: given.append(features) or happy)
    drawn = []
    monkeypatch.setattr(MoodTrack, "draw", lambda _, frames, heard: drawn.append(heard) or 0)
    speaker.step(windows)
    assert given[0].shape == (1, 20, engine.config.speech.width)
    assert drawn[0] is happy
    asked_for = face(engine, AnimateOptions(crop=True, mood="happy"))
    asked_for.step(windows)
    assert drawn[1] is None and len(given) == 1  # nobody listens unless asked to
    asked_for.set_mood(Mood("auto"))
    asked_for.step(windows)
    assert drawn[2] is happy and given[1].shape == given[0].shape


def test_a_mood_that_cannot_be_heard_is_refused():
    with pytest.raises(ConfigError, match="has no speech encoder to hear moods with"):
        face(lively(), AnimateOptions(mood="auto"))
    speaker = face(lively())
    with pytest.raises(ConfigError, match="has no speech encoder to hear moods with"):
        speaker.set_mood(Mood("auto"))
    with pytest.raises(ConfigError, match="this model has another one"):
        face(lively("layers"), AnimateOptions(mood="auto"))
