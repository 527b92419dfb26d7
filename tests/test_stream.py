"""Live sound, chunk by chunk: the frames of the whole clip, no later and no earlier than told."""

import re
import tracemalloc
from collections.abc import Iterable
from functools import cache
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import stillspeak
from stillspeak.animate import Animator
from stillspeak.errors import AudioError, ConfigError, ImageError, NoFaceError, StillspeakError
from stillspeak.media.audio import ChunkResampler, load_audio, mono_chunk
from stillspeak.models.generator import Generator
from stillspeak.stream import TIMED_STEPS, Frame, StreamSession
from support.animate import (
    RATE,
    config,
    lively,
    masked_portrait,
    portrait,
    save_lively,
    shared_detector,
    speech,
    use_shared_detector,
)

HOP, LOOK_AHEAD = 640, 960
"""Samples at 16 kHz in a frame, and beyond it in the half of its window."""

DECODERS = ("unet", "layers")


def look_ahead(decoder: str) -> int:
    """Of the layers, two tokens and what one needs around it: 320 (1 + 2) + 520 - 640 samples."""
    return 840 if decoder == "layers" else LOOK_AHEAD


@cache
def animator(decoder: str = "unet") -> Animator:
    return Animator(lively(decoder), detector=shared_detector())


def session(decoder: str = "unet", **options) -> StreamSession:
    """A session of the bare crop, which is drawn fastest."""
    return StreamSession(portrait(), animator=animator(decoder), **({"crop": True} | options))


@cache
def offline(decoder: str = "unet", seconds: float = 0.9, rate: int = RATE, **options) -> np.ndarray:
    """What animate makes of the first seconds of sound(rate): (T, H, W, 3) uint8."""
    heard = sound(rate)[: round(seconds * rate)]
    made = animator(decoder).animate(portrait(), (heard, rate), **({"crop": True} | options))
    return made.frames


@cache
def sound(rate: int = RATE) -> np.ndarray:
    """(S,) float32, 3 s at any rate."""
    time = np.arange(3 * RATE) / RATE
    return np.interp(np.arange(3 * rate) / rate, time, speech(3)).astype(np.float32)


def cut(samples: np.ndarray, size: int) -> list[np.ndarray]:
    return [samples[begin : begin + size] for begin in range(0, len(samples), size)]


def push_all(live: StreamSession, chunks: Iterable[np.ndarray]) -> list[Frame]:
    return [frame for chunk in chunks for frame in live.push(chunk)]


def pictures(frames: list[Frame]) -> np.ndarray:
    return np.stack([frame.picture for frame in frames])


def same(a: list[Frame], b: list[Frame]) -> bool:
    return len(a) == len(b) and all(
        np.array_equal(x.picture, y.picture) for x, y in zip(a, b, strict=True)
    )


def assert_offline(frames: list[Frame], whole: np.ndarray, *, exact: bool = False) -> None:
    """Within 2 levels: offline computes 16 frames at once and rounds otherwise in the last bit. A
    mouth in layers is heard frame by frame, and exactly the same."""
    assert len(frames) == len(whole)
    if exact:
        assert np.array_equal(pictures(frames), whole)
    difference = np.abs(pictures(frames).astype(int) - whole)
    assert difference.max() <= 2
    assert (difference > 0).mean() < 1e-3


# --- the offline result -------------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("size", [160, 333, 640, 16_000])
def test_frames_are_those_of_the_whole_clip(decoder, size):
    live = session(decoder)
    heard = sound()[: round(0.9 * RATE)]
    frames = push_all(live, cut(heard, size))
    assert len(frames) == 21  # the last one would look some 60 ms beyond the sound
    frames += live.flush()
    assert_offline(frames, offline(decoder), exact=decoder == "layers")
    assert np.ptp(pictures(frames), axis=0).max() > 20  # something moves


def test_one_sample_at_a_time_gives_the_same_frames():
    heard = sound()[: round(0.3 * RATE)]
    live = session()
    frames = push_all(live, cut(heard, 1)) + live.flush()
    assert_offline(frames, offline(seconds=0.3))


@pytest.mark.parametrize("decoder", DECODERS)
def test_how_the_sound_is_cut_changes_no_bit(decoder):
    heard = sound()[: round(0.5 * RATE)]
    results = []
    for size in (333, len(heard)):
        live = session(decoder)
        results.append(push_all(live, cut(heard, size)) + live.flush())
    assert same(*results)


@pytest.mark.parametrize("decoder", DECODERS)
def test_whole_pictures_and_all_movements_are_those_of_the_whole_clip(decoder):
    options = {"crop": False, "size": 200, "head_motion": 1.5, "blink": 3.0, "seed": 5}
    live = session(decoder, **options)
    frames = push_all(live, cut(sound()[: round(0.5 * RATE)], 333)) + live.flush()
    assert frames[0].picture.shape == (200, 200, 3) == (live.height, live.width, 3)
    assert_offline(frames, offline(decoder, 0.5, **options), exact=decoder == "layers")


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 16_001])
def test_other_rates_are_resampled_as_whole_clips_are(rate):
    live = session(sample_rate=rate)
    heard = sound(rate)[: round(0.9 * rate)]
    frames = push_all(live, cut(heard, 333)) + live.flush()
    assert_offline(frames, offline(rate=rate, seconds=0.9))


@pytest.mark.parametrize("rate", [8000, 44_100, 16_001])
@pytest.mark.parametrize("size", [1, 160, 7777])
def test_the_resampler_says_what_load_audio_says(rate, size):
    heard = 1.2 * sound(rate)[:rate]
    resampler = ChunkResampler(rate, RATE)
    whole = load_audio((heard, rate))
    for _ in range(2):  # it can be used again after its end
        parts = [resampler.feed(part) for part in cut(heard, size)]
        assert np.array_equal(np.concatenate([*parts, resampler.finish()]), whole)


def test_the_last_hop_counts_where_the_sound_ends_inside_it():
    live = session()
    heard = sound()[: 10 * HOP + 500]
    frames = live.push(heard) + live.flush()
    whole = animator().animate(portrait(), (heard, RATE), crop=True).frames
    assert_offline(frames, whole)
    silent = heard.copy()
    silent[10 * HOP :] = 0
    other = session()
    assert not same(other.push(silent) + other.flush(), frames)


def test_another_seed_makes_other_frames():
    heard = sound()[: 6 * HOP]
    assert not same(session().push(heard), session(seed=1).push(heard))


# --- causality and latency ----------------------------------------------------------------------


@pytest.mark.parametrize("decoder", DECODERS)
def test_a_frame_comes_with_the_last_sample_of_its_window(decoder):
    live, beyond = session(decoder), look_ahead(decoder)
    assert live.latency.algorithmic == pytest.approx((HOP + beyond) / RATE)
    assert live.latency.resampling == 0
    heard = sound()
    assert live.push(heard[: HOP + beyond - 1]) == []
    assert [frame.index for frame in live.push(heard[HOP + beyond - 1 :][:1])] == [0]
    assert live.push(heard[HOP + beyond :][: HOP - 1]) == []
    assert [frame.index for frame in live.push(heard[2 * HOP + beyond - 1 :][:1])] == [1]


@pytest.mark.parametrize("decoder", DECODERS)
def test_later_sound_changes_no_earlier_frame(decoder):
    beyond = look_ahead(decoder)
    heard = sound()[: 12 * HOP + beyond]
    frames = session(decoder).push(heard)
    for known in (1, 5):
        changed = heard.copy()
        changed[known * HOP + beyond :] = np.random.default_rng(0).uniform(
            -1, 1, len(heard) - known * HOP - beyond
        )
        others = session(decoder).push(changed)
        assert same(others[:known], frames[:known])
        # The look-ahead is no shorter than told either.
        assert not same(others[known : known + 1], frames[known : known + 1])


@pytest.mark.parametrize("rate", [8000, 16_001, 44_100, 48_000])
def test_resampled_frames_come_within_the_stated_latency_and_depend_on_nothing_later(rate):
    live = session(sample_rate=rate)
    bound = live.latency.algorithmic + live.latency.resampling
    assert 0 < live.latency.resampling < 0.13
    heard, pushed, frames = sound(rate)[:rate], 0, []
    for chunk in cut(heard, 50):
        pushed += len(chunk)
        new = live.push(chunk)
        frames += new
        for frame in new:
            # As late as told: what was pushed does not go on for longer than the latency.
            assert (pushed - len(chunk)) / rate - frame.seconds <= bound
        if pushed / rate >= bound:
            assert len(frames) >= int((pushed / rate - bound) * 25 + 1e-6)
    known = 10
    changed = heard.copy()
    changed[int((known / 25 - 1 / 25 + bound) * rate) + 1 :] = 0.9
    others = session(sample_rate=rate).push(changed)
    assert same(others[:known], frames[:known])
    assert not same(others, frames[: len(others)])


def test_the_measured_latency_is_of_the_latest_steps():
    live = session()
    assert live.latency.median is None
    assert live.latency.percentile_99 is None
    live.push(sound()[: 8 * HOP])
    measured = live.latency
    assert 0 < measured.median <= measured.percentile_99 < 10
    with pytest.raises(AttributeError):
        measured.median = 0.0
    live._times.extend([2.0] * TIMED_STEPS)
    assert live.latency.median == 2.0
    assert len(live._times) == TIMED_STEPS


# --- time stamps --------------------------------------------------------------------------------


def test_time_stamps_count_samples_of_the_input():
    live = session(sample_rate=48_000)
    frames = push_all(live, cut(sound(48_000)[:24_000], 480)) + live.flush()
    assert [frame.index for frame in frames] == list(range(12))
    assert [frame.sample for frame in frames] == [1920 * index for index in range(12)]
    assert frames[5].seconds == 0.2
    assert isinstance(frames[5].sample, int)
    with pytest.raises(AttributeError):
        frames[5].index = 3


@pytest.mark.parametrize("rate", [RATE, 44_100, 16_001, 11_025])
def test_time_stamps_are_exact_after_hours(rate):
    """The counters jump to where hours would have brought them."""
    live = session(sample_rate=rate)
    first = live.push(sound(rate)[: rate // 2])
    hours = 1000 * 3600
    live._made += hours * 25
    live._given += hours * 25
    live._heard += hours * rate
    later = live.push(sound(rate)[: rate // 2]) + live.flush()
    assert [frame.index for frame in later] == list(
        range(hours * 25 + len(first), hours * 25 + len(first) + len(later))
    )
    for frame in later:
        assert frame.sample == frame.index * rate // 25
        assert frame.seconds == frame.index / 25
    assert len(first) + len(later) == 25 * 2 * (rate // 2) // rate
    assert live.position == hours * rate + 2 * (rate // 2)
    # And the sound stays where its time stamps say, however often an end of it was rounded.
    for _ in range(20):
        live.push(sound(rate)[:701])
        live.flush()
    held = live._made * HOP - live._left + len(live._sound)
    assert abs(held - live._heard * RATE / rate) <= 1


# --- flush, idle, reset -------------------------------------------------------------------------


def test_flush_ends_the_utterance_and_the_session_goes_on():
    live = session()
    heard = sound()[: 6 * HOP + 200]
    frames = live.push(heard)
    ends = live.flush()
    assert (len(frames), len(ends)) == (4, 2)
    assert live.flush() == []
    # 200 samples begin the next frame.
    more = live.push(sound()[: 2 * HOP - 200 + LOOK_AHEAD])
    assert [frame.index for frame in more] == [6, 7]
    assert [frame.sample for frame in more] == [6 * HOP, 7 * HOP]
    assert live.position == 8 * HOP + LOOK_AHEAD


def test_nothing_pushed_is_nothing_flushed():
    assert session().flush() == []


def test_idle_frames_are_those_of_silence():
    silence = np.zeros(10 * HOP, np.float32)
    live = session()
    idle = live.idle(4) + live.idle(6)
    assert [frame.index for frame in idle] == list(range(10))
    other = session()
    assert same(idle, other.push(silence) + other.flush())
    assert live.position == other.position == 10 * HOP
    assert live.idle(0) == []


def test_idle_faces_blink():
    live = session(blink=3.0, expression=0.0)
    faces = pictures(live.idle(40)).astype(int)
    still = pictures(session(blink=0.0, expression=0.0).idle(40))
    eyes = np.abs(faces - still)[:, 40:62]
    assert np.median(eyes.max(axis=(1, 2, 3))) <= 1  # open most of the time
    assert eyes.max() > 40


def test_speech_goes_on_after_idle_frames_at_a_frames_beginning():
    live = session()
    live.idle(5)
    heard = sound()[: 4 * HOP]
    frames = live.push(heard) + live.flush()
    other = session()
    silence = np.zeros(5 * HOP, np.float32)
    expected = other.push(np.concatenate((silence, heard))) + other.flush()
    assert [frame.index for frame in frames] == [5, 6, 7, 8]
    # Idle frames heard silence where the speech began, as they had to.
    assert len(expected) == 9
    assert np.array_equal(live._sound[:LOOK_AHEAD], other._sound[:LOOK_AHEAD])


def test_idle_shows_what_is_pending_first():
    live = session()
    heard = sound()[: 6 * HOP + 200]
    shown = live.push(heard)
    rest = live.idle(5)  # two whole frames, the begun one, two of silence
    assert [frame.index for frame in rest] == [4, 5, 6, 7, 8]
    padded = np.concatenate((heard, np.zeros(3 * HOP - 200, np.float32)))
    other = session()
    assert same(shown + rest, other.push(padded) + other.flush())
    assert live.position == 9 * HOP
    # Fewer idle frames than pending ones leave the others where they are.
    live = session()
    frames = live.push(heard) + live.idle(1)
    assert live.position == len(heard)
    frames += live.flush()
    other = session()
    assert same(frames, other.push(heard) + other.flush())


@pytest.mark.parametrize("frames", [-1, 1.5, True, "2", None])
def test_idle_frames_are_counted_in_whole_numbers(frames):
    with pytest.raises(ConfigError, match="idle frames cannot be made; give a whole number"):
        session().idle(frames)


@pytest.mark.parametrize(("decoder", "rate"), [("layers", RATE), ("unet", RATE), ("unet", 16_001)])
def test_reset_is_a_new_session_whose_time_goes_on(decoder, rate):
    options = {"sample_rate": rate, "head_motion": 1.0, "blink": 3.0}
    live = session(decoder, **options)
    fresh = session(decoder, **options)
    before = live.push(sound(rate)[: rate // 2])
    live.reset()
    assert live.position == -(-len(before) * rate // 25)
    heard = sound(rate)[rate:][: rate // 2]

    def follow(one: StreamSession) -> list[Frame]:
        return [
            *one.push(heard),
            *one.flush(),
            *one.idle(3),
            *one.push(heard),
            *one.flush(),
        ]

    frames = follow(live)
    assert same(frames, follow(fresh))
    assert [frame.index for frame in frames] == [len(before) + i for i in range(len(frames))]
    assert all(frame.sample == frame.index * rate // 25 for frame in frames)
    live.reset()
    live.reset()
    assert live.idle(1)[0].index == frames[-1].index + 1


def test_a_mood_plan_is_followed_as_offline_and_begins_anew_with_a_reset():
    options = {"mood": "happy:2,sad@0.4", "head_motion": 0.0, "blink": 0.0, "expression": 0.0}
    live = session("layers", **options)
    for _ in range(2):
        heard = sound()[: round(0.9 * RATE)]
        frames = [*live.push(heard[:7000]), *live.push(heard[7000:]), *live.flush()]
        assert_offline(frames, offline("layers", **options), exact=True)
        live.reset()


def test_a_mood_set_comes_smoothly_and_survives_a_reset():
    rest = {"blink": 0.0, "expression": 0.0, "head_motion": 0.0}
    live, plain = session("layers", **rest), session("layers", **rest)
    away = []
    for number in range(60):
        if number == 20:
            live.set_mood("happy:2")
        if number == 45:
            live.reset(motion=False)
            plain.reset(motion=False)
        (frame,), (other,) = live.idle(1), plain.idle(1)
        away.append(np.abs(frame.picture.astype(int) - other.picture).mean())
    assert max(away[:21]) == 0 < away[21]
    assert (np.diff(away[20:30]) > 0).all() and away[22] < away[44] / 3  # by and by
    assert np.abs(np.diff(away[44:47])).max() < 0.1 * away[44]
    live.reset()
    fresh = session("layers", **rest, mood="happy:2")
    assert same(live.idle(20), fresh.idle(20))
    with pytest.raises(ConfigError, match="'happy:3': strength: must be at most 2"):
        live.set_mood("happy:3")
    with pytest.raises(ConfigError, match="has no speech encoder to hear moods with"):
        session("unet", **rest).set_mood("auto")


def test_head_eyes_and_mood_may_go_on_through_a_reset():
    rest = {"blink": 0.0, "expression": 0.0, "head_motion": 3.0}
    live, fresh = session("layers", **rest), session("layers", **rest)
    before = live.idle(40)
    live.reset(motion=False)
    after = live.idle(2)
    assert [frame.index for frame in after] == [40, 41]
    step = np.abs(after[0].picture.astype(int) - before[-1].picture).mean()
    away = np.abs(after[0].picture.astype(int) - fresh.idle(1)[0].picture).mean()
    assert step < away / 2


# --- what may be pushed -------------------------------------------------------------------------


def test_integers_are_floats_over_their_full_range():
    whole = np.rint(32_767 * sound()[: 6 * HOP])
    frames = session().push(whole.astype(np.int16))
    assert len(frames) == 4
    assert same(session().push((whole / 32_768).astype(np.float32)), frames)
    assert same(session().push(whole / 32_768), frames)
    assert same(session().push(whole.astype(">i2")), frames)
    assert same(session().push((whole * 65_536).astype(np.int32)), frames)


def test_channels_are_averaged():
    heard = sound()[: 4 * HOP]
    frames = session().push(heard)
    assert len(frames) == 2
    assert same(session().push(heard[:, None]), frames)
    stereo = np.stack((1.5 * heard, 0.5 * heard), axis=1)
    live = session()
    assert same(push_all(live, cut(stereo, 1)), frames)
    assert_offline(
        frames, animator().animate(portrait(), (np.tile(heard, 3), RATE), crop=True).frames[:2]
    )


@pytest.mark.parametrize(
    "nothing", [np.zeros(0, np.int16), np.zeros(0), np.zeros((0, 2), np.float32), []]
)
def test_no_samples_give_no_frames(nothing):
    live = session()
    assert live.push(nothing) == []
    assert live.position == 0


NAN = np.array([0.1, np.nan, 0.2], np.float32)

BAD = {
    "NaN or infinite": [NAN, np.array([0.1, -np.inf]), np.array([[0.1, np.nan]])],
    "give int16, int32, uint8 or floats": [
        np.zeros(5, bool),
        np.zeros(5, complex),
        np.zeros(5, np.int64),
        np.array(["a", "b"]),
        np.array([object()]),
    ],
    "the samples have shape": [
        np.float32(0.5),
        np.zeros((2, 160), np.float32),
        np.zeros((5, 0), np.float32),
        np.zeros((5, 1, 1), np.float32),
        None,
        "text",
    ],
    "are no array": [[[0.1], [0.1, 0.2]]],
    "float samples reach 3000": [np.array([0.0, 3000.0, -12.0], np.float32)],
}


@pytest.mark.parametrize(
    ("message", "samples"), [(text, one) for text, many in BAD.items() for one in many]
)
@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_a_bad_chunk_is_refused_in_one_line_and_leaves_no_trace(message, samples, rate):
    heard = sound(rate)[: rate // 5]
    live = session(sample_rate=rate)
    frames = live.push(heard[:5000])
    with pytest.raises(AudioError, match=message) as caught:
        live.push(samples)
    assert str(caught.value).startswith("<chunk>: ")
    assert "\n" not in str(caught.value)
    frames += live.push(heard[5000:]) + live.flush()
    other = session(sample_rate=rate)
    assert same(frames, other.push(heard) + other.flush())


def test_a_bad_sample_at_the_end_of_a_long_chunk_is_found_before_anything_is_heard():
    live = session()
    long = sound().copy()
    long[-1] = np.nan
    with pytest.raises(AudioError):
        live.push(long)
    assert live.position == 0
    assert live.idle(1)[0].index == 0


@pytest.mark.parametrize(
    "rate", [0, -16_000, 44_100.5, float("nan"), float("inf"), 10**400, "16000", None]
)
def test_a_rate_that_cannot_be_is_refused(rate):
    with pytest.raises(StillspeakError, match=r"the sample rate is .*; give a positive whole"):
        session(sample_rate=rate)
    if rate is not None:
        live = session()
        with pytest.raises(StillspeakError, match=r"the sample rate is .*; give a positive whole"):
            live.push(sound()[:100], rate)
        assert len(live.push(sound()[: HOP + LOOK_AHEAD])) == 1


def test_a_rate_with_a_chunk_has_to_be_the_sessions():
    live = session()
    assert len(live.push(sound()[: HOP + LOOK_AHEAD], RATE)) == 1
    with pytest.raises(AudioError, match="the sample rate is 48000, but the session's is 16000"):
        live.push(sound()[:HOP], sample_rate=48_000)
    assert len(live.push(sound()[:HOP], np.int64(RATE))) == 1
    assert len(live.push(sound()[:HOP], np.array(RATE))) == 1
    with pytest.raises(AudioError, match="give at most 1000000 Hz"):
        session(sample_rate=10_000_000)


def test_wrong_choices_are_refused():
    with pytest.raises(ConfigError, match="fps: must be at most 240, not 300"):
        session(fps=300)
    with pytest.raises(ConfigError, match="blink: must be at most 3, not 4"):
        session(blink=4)
    with pytest.raises(ConfigError, match="seed: must be at least 0, not -1"):
        session(seed=-1)
    with pytest.raises(ConfigError, match="size: must be at least 64, not 5"):
        session(size=5)
    with pytest.raises(ImageError):
        StreamSession("/nowhere.png", animator=animator())
    with pytest.raises(NoFaceError):
        StreamSession(np.zeros((200, 200, 3), np.uint8), animator=animator())


def test_another_models_frame_rate():
    generator = Generator(config(fps=20)).eval()
    live = StreamSession(portrait(), model=generator, crop=True, animator=None)
    frames = live.idle(3)
    assert [frame.sample for frame in frames] == [0, 800, 1600]
    assert live.latency.algorithmic == pytest.approx(0.05 + 0.055)


# --- what is loaded, built and kept -------------------------------------------------------------


def test_the_model_is_loaded_once_and_the_detector_given_back(monkeypatch, tmp_path):
    use_shared_detector(monkeypatch)
    module = import_module("stillspeak.animate")
    loads = []
    load = module.load_model
    monkeypatch.setattr(module, "load_model", lambda name: loads.append(name) or load(name))
    weights = save_lively(tmp_path / "tiny.safetensors")
    closed = shared_detector().closed
    live = stillspeak.StreamSession(portrait(), model=weights, crop=True, device="cpu")
    assert shared_detector().closed == closed + 1
    frames = push_all(live, cut(sound()[: 6 * HOP], 640)) + live.flush() + live.idle(2)
    live.reset()
    assert loads == [weights]
    again = Animator(weights, detector=shared_detector())  # weights are stored as half floats
    other = StreamSession(portrait(), animator=again, crop=True)
    assert same(frames[:6], other.push(sound()[: 6 * HOP]) + other.flush())


def test_a_given_animator_is_used_and_left_open(monkeypatch):
    own = animator()
    closed = shared_detector().closed
    made = []
    monkeypatch.setattr(Generator, "__init__", lambda *_: made.append(1))
    live = StreamSession(portrait(), animator=own, crop=True)
    assert live._face.engine is own.engine
    live.push(sound()[: 4 * HOP])
    assert made == []
    assert shared_detector().closed == closed


def test_two_sessions_share_an_animator_without_meeting():
    heard, other_sound = sound()[: 6 * HOP], sound()[RATE:][: 6 * HOP]
    one, two = session(), session(seed=3)
    frames = []
    for a, b in zip(cut(heard, 640), cut(other_sound, 640), strict=True):
        frames += one.push(a)
        two.push(b)
    assert same(frames, session().push(heard))


def test_frames_and_sound_are_nobody_elses():
    live = session()
    chunk = sound()[: HOP + LOOK_AHEAD].copy()
    first = live.push(chunk[: 2000 - 401])
    assert first == []
    chunk[:] = 0  # what was pushed may be written over
    (frame,) = live.push(sound()[HOP + LOOK_AHEAD - 1 :][:1])
    expected = session().push(sound()[: HOP + LOOK_AHEAD])
    assert same([frame], expected)
    frame.picture[:] = 0
    heard = sound()[HOP + LOOK_AHEAD :][:HOP]
    other = session()
    other.push(sound()[: HOP + LOOK_AHEAD])
    assert same(live.push(heard), other.push(heard))


def held(live: StreamSession) -> int:
    """Bytes of the arrays that a session keeps for sound, and those that views keep alive."""
    kept = live._sound
    while isinstance(kept.base, np.ndarray):
        kept = kept.base
    return kept.nbytes


def simulate(seconds: int, rate: int) -> None:
    """Speech, pauses, interruptions; neither buffers nor traced memory may grow."""
    live = session(sample_rate=rate)
    samples = sound(rate)
    chunks = cut(samples[:rate], rate // 50)
    most, frames = 0, 0
    mark = 0
    for second in range(seconds):
        for chunk in chunks:
            frames += len(live.push(chunk))
            most = max(most, held(live))
        if second % 5 == 3:
            frames += len(live.flush()) + len(live.idle(4))
        if second % 11 == 7:
            live.reset()
        if second == 5:  # everything that is made once is there
            mark, _ = tracemalloc.get_traced_memory()
            tracemalloc.reset_peak()
    now, peak = tracemalloc.get_traced_memory()
    assert frames > 20 * seconds
    assert most <= 4 * (2560 + HOP + RATE // 4)  # a window, a frame, the resampler's block
    assert len(live._times) <= TIMED_STEPS
    assert now - mark < 100_000
    assert peak - mark < 10_000_000  # what one step needs


@pytest.mark.parametrize("rate", [RATE, 48_000])
def test_memory_does_not_grow_with_the_length(rate):
    tracemalloc.start()
    try:
        simulate(14, rate)
    finally:
        tracemalloc.stop()


@pytest.mark.long
@pytest.mark.timeout(4 * 3600)
def test_memory_does_not_grow_over_an_hour():
    tracemalloc.start()
    try:
        simulate(3600, 48_000)
    finally:
        tracemalloc.stop()


def test_a_long_chunk_is_heard_in_pieces(monkeypatch):
    live = session()
    sizes = []
    step = live._step
    monkeypatch.setattr(live, "_step", lambda: sizes.append(held(live)) or step())
    assert len(live.push(sound())) == 73
    assert max(sizes) <= 4 * (RATE + 2560)
    assert held(live) <= 4 * (2560 + HOP)
    assert mono_chunk(sound(), name="x").dtype == np.float32


def test_the_documents_example_runs():
    text = (Path(__file__).parents[1] / "docs/streaming.md").read_text("utf-8")
    block, *_ = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    shown = []

    def opened(image: str, **options) -> StreamSession:
        assert image == "photo.jpg"
        return session(**options)

    names = {
        "sound": cut(sound(48_000)[:24_000], 960),
        "show": lambda picture, sample: shown.append(sample),
    }
    block = block.replace("import stillspeak\n", "")
    exec(block, names | {"stillspeak": SimpleNamespace(StreamSession=opened)})  # noqa: S102
    assert shown == [1920 * index for index in range(12 + 25)]


def test_a_covered_mouth_is_told():
    assert session().warnings == ()
    live = StreamSession(masked_portrait(), animator=animator(), crop=True)
    assert [warning.code for warning in live.warnings] == ["mouth_covered"]
