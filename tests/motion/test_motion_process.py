"""Head, brows, blinks and gaze: alive, bounded, and the same whatever chunks they are drawn in."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from stillspeak.evaluation.measures.accents import accents
from stillspeak.evaluation.measures.expression import find_blinks
from stillspeak.evaluation.measures.head import with_accents
from stillspeak.media.audio import frame_windows
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.motion import MotionConfig, MotionGenerator
from stillspeak.motion.frames import UNITS, FaceMotion, unit
from stillspeak.motion.process import (
    BLINK_PAUSE,
    EASE_SECONDS,
    FARTHEST,
    GAZE_HOLD,
    GAZE_MOST,
    MotionProcess,
    bundled_motion,
    motion_weights,
)
from stillspeak.motion.process import _Moves as Moves

CONFIG = GeneratorConfig()
BROWS = [unit("inner_brow_raiser"), unit("outer_brow_raiser"), unit("brow_lowerer")]


def sentences(seconds: int, seed: int = 0) -> np.ndarray:
    """Windows of syllables that rise and fall, in phrases of some seconds with pauses between."""
    random = np.random.default_rng(seed)
    time = np.arange(seconds * 16_000) / 16_000
    spoken = np.interp(time, np.arange(seconds + 1), random.random(seconds + 1)) > 0.3
    rhythm = np.clip(np.sin(2 * np.pi * 4 * time + np.sin(time)), 0, 1)
    pitch = 130 + 30 * np.interp(time, np.arange(seconds + 1), random.standard_normal(seconds + 1))
    phase = 2 * np.pi * np.cumsum(pitch) / 16_000
    voice = sum(np.sin(k * phase) / k for k in range(1, 6))
    return frame_windows((0.15 * spoken * rhythm * voice).astype(np.float32), CONFIG.window, 640)


def process(seed: int = 0, **strength: float) -> MotionProcess:
    return MotionProcess(seed, CONFIG, **strength)


def joined(parts: list[FaceMotion]) -> FaceMotion:
    return FaceMotion(*(np.concatenate(part) for part in zip(*parts, strict=True)))


@pytest.fixture(scope="module")
def speech() -> FaceMotion:
    return process().draw(sentences(300))


@pytest.fixture(scope="module")
def idle() -> FaceMotion:
    return process().idle(7_500)


def test_chunks_do_not_matter() -> None:
    windows = sentences(20)
    whole, parts = process(3).draw(windows), process(3)
    ends = [0, 1, 8, 8, 100, 117, 500]
    pieces = joined([parts.draw(windows[a:b]) for a, b in pairwise(ends)])
    for one, other in zip(whole, pieces, strict=True):
        assert one.dtype == np.float32 and one.flags.c_contiguous
        assert np.array_equal(one, other)
    assert whole.units.shape == (500, len(UNITS))
    assert not np.array_equal(whole.head, process(4).draw(windows).head)


def test_it_starts_like_the_photo_and_eases_in(speech: FaceMotion) -> None:
    for part in process(5).draw(sentences(1)).at(0):
        assert not part.any()
    early = np.abs(speech.head[: round(0.2 * EASE_SECONDS * 25)])
    assert early.max() < 0.3


def test_what_is_not_wanted_rests() -> None:
    windows = sentences(8)
    for part in process(1, blink=0, expression=0, head_motion=0).draw(windows):
        assert not part.any()
    whole, head = process(1).draw(windows), process(1, blink=0, expression=0).draw(windows)
    assert np.array_equal(whole.head, head.head)
    assert not head.closure.any() and not head.gaze.any() and not head.units.any()
    eyes = process(1, head_motion=0).draw(windows)
    assert not eyes.head.any()
    assert np.array_equal(eyes.gaze, whole.gaze) and np.array_equal(eyes.units, whole.units)
    assert np.array_equal(eyes.closure, whole.closure)
    double = process(1, head_motion=2, expression=0.5).draw(windows)
    np.testing.assert_allclose(double.head, 2 * whole.head, rtol=1e-5)
    np.testing.assert_allclose(double.gaze, whole.gaze / 2, rtol=1e-5)
    np.testing.assert_allclose(double.units, whole.units / 2, rtol=1e-4, atol=1e-7)


def test_any_window_shows_the_same_sound() -> None:
    """U-Nets and the speech encoder see windows of different sizes: only the middle is heard."""
    wide = GeneratorConfig(decoder="layers", audio_input="speech", noise_dim=0)
    sound = sentences(4)[:, (CONFIG.window - 640) // 2 :][:, :640].reshape(-1)
    a = process(2).draw(frame_windows(sound, CONFIG.window, 640))
    b = MotionProcess(2, wide).draw(frame_windows(sound, wide.window, 640))
    for one, other in zip(a, b, strict=True):
        assert np.array_equal(one, other)


def test_other_rates_take_as_long() -> None:
    fast = MotionProcess(1, GeneratorConfig(fps=50, sample_rate=16_000, window_seconds=0.16))
    twice, once = fast.idle(2000), process(1).idle(1000)
    np.testing.assert_allclose(twice.head[::2], once.head, atol=1e-6)
    between = (twice.head[0:-2:2] + twice.head[2::2]) / 2
    np.testing.assert_allclose(twice.head[1:-1:2], between, atol=1e-5)


def test_arrays_move_as_the_network_does() -> None:
    torch.manual_seed(0)
    network = MotionGenerator(MotionConfig(hidden=8, noise=3, slow_noise=2)).eval()
    heard = torch.rand(1, 60, 7)
    drawn = torch.randn(1, 60, network.config.drawn)
    wanted = network(heard, drawn)[0].detach().numpy()
    moves = Moves(0, motion_weights(network))
    made = [
        moves._network(tuple(h), d)
        for h, d in zip(heard[0].tolist(), drawn[0].numpy(), strict=True)
    ]
    np.testing.assert_allclose(np.array(made), wanted, rtol=1e-4, atol=1e-5)


def test_the_head_neither_drifts_nor_jerks_nor_leaves_its_range(
    speech: FaceMotion, idle: FaceMotion
) -> None:
    for motion in (speech, idle):
        head = motion.head.astype(np.float64)
        assert (np.abs(head) < FARTHEST).all()
        assert (head.std(0) > 0.3).all()
        quarters = head.reshape(4, -1, 3)
        assert (np.abs(quarters.mean(1)) < 1.5).all()
        assert (quarters.std(1) < 2.5 * quarters.std(1).mean(0)).all()
        assert np.abs(np.diff(head, axis=0)).max() < 2.5  # 60 degrees a second: a quick nod


def test_nobody_speaks_and_it_lives_on_more_quietly(speech: FaceMotion, idle: FaceMotion) -> None:
    speeds = [np.abs(np.diff(m.head, axis=0)).mean(0) for m in (speech, idle)]
    assert (speeds[1] < 0.8 * speeds[0]).all() and (speeds[1] > 0.02 * 1 / 25).all()
    for motion in (speech, idle):
        assert (motion.units[:, BROWS] >= 0).all()
        assert motion.units[:, BROWS].max() < 1


def test_accents_nod_and_raise_brows() -> None:
    hop = (CONFIG.window - 640) // 2
    sounds = [sentences(40, seed) for seed in range(3)]
    voices = [accents(sound[:, hop : hop + 640].ravel(), len(sound)) for sound in sounds]
    moved = [process(seed).draw(sound) for seed, sound in enumerate(sounds)]
    brows = [m.units[:, BROWS[0]] - m.units[:, BROWS[2]] for m in moved]
    for curves in ([m.head[:, 1] for m in moved], brows):
        table = [[with_accents(c.astype(np.float64), v) for v in voices] for c in curves]
        own = np.mean(np.diag(table))
        others = (np.sum(table) - 3 * own) / 6
        assert own > 0.05 and own > others + 0.05


def test_who_goes_on_talking_or_begins_amid_talk_moves_more() -> None:
    time = np.arange(16_000 * 12) / 16_000
    buzz = sum(np.sin(2 * np.pi * 140 * k * time) / k for k in range(1, 6))
    voice = (0.1 * (1.2 + np.sin(2 * np.pi * 4 * time)) * buzz).astype(np.float32)
    quiet = np.zeros(16_000, np.float32)

    def moved(sound: np.ndarray, first: int, last: int) -> float:
        windows = frame_windows(sound, CONFIG.window, 640)
        sizes = [process(seed).draw(windows).head[first:last].std(0) for seed in range(8)]
        return float(np.linalg.norm(np.mean(sizes, 0)))

    sentence = np.concatenate([quiet, voice])
    early, late = moved(sentence, 25, 75), moved(sentence, 225, 275)
    assert late > 1.5 * early
    assert moved(voice, 25, 75) > 1.5 * early


def test_blinks_come_at_a_human_rate_and_apart(speech: FaceMotion, idle: FaceMotion) -> None:
    rates = []
    for motion in (speech, idle):
        blinks = find_blinks(motion.closure.astype(np.float64))
        rates.append(len(blinks) / (len(motion.closure) / 25))
        starts = np.array([first for first, _ in blinks])
        assert np.diff(starts).min() >= BLINK_PAUSE * 25 - 2
    assert 0.3 < rates[0] < 0.5 and 0.2 < rates[1] < 0.4
    more = find_blinks(process(blink=2).idle(15_000).closure.astype(np.float64))
    assert 1.6 * rates[1] < len(more) / 600 < 2.4 * rates[1]


def test_the_gaze_jumps_rests_and_mostly_comes_back(speech: FaceMotion) -> None:
    gaze = speech.gaze.astype(np.float64)
    size = np.hypot(*gaze.T)
    assert size.max() <= GAZE_MOST + 1e-6
    assert 0.15 < (size > 0).mean() < 0.5  # the rest of the time at the camera
    # A move is done within two frames, then the eyes rest.
    moves = np.flatnonzero(np.abs(np.diff(gaze, axis=0)).max(axis=1) > 0)
    starts = moves[np.diff(moves, prepend=-9) > 2]
    assert len(moves) <= 2 * len(starts)
    assert np.diff(starts).min() >= GAZE_HOLD[0] * 25 - 2


def test_weights_are_loaded_once() -> None:
    assert bundled_motion() is bundled_motion()


@pytest.mark.e2e
@pytest.mark.parametrize("spoken", [True, False])
def test_an_hour_has_neither_drift_nor_a_loop(spoken: bool) -> None:
    living, windows = process(7), sentences(60)
    parts = [living.draw(windows) if spoken else living.idle(1500) for _ in range(60)]
    hour = joined(parts)
    head = hour.head.astype(np.float64)
    assert (np.abs(head) < FARTHEST).all()
    minutes = head.reshape(60, 1500, 3)
    # Where it stands in the first half hour and in the second, and how far it goes.
    apart = np.abs(minutes[:30].mean((0, 1)) - minutes[30:].mean((0, 1)))
    assert (apart < 0.6 * head.std(0)).all()
    sizes = minutes.std(1).reshape(2, 30, 3).mean(1)
    assert (np.abs(np.log(sizes[1] / sizes[0])) < 0.25).all()
    # The sound repeats every minute; what is seen does not, at that or any other distance.
    for axis in range(3):
        quick = np.diff(head[:, axis])
        power = np.abs(np.fft.rfft(quick - quick.mean(), 2 * len(quick))) ** 2
        alike = np.fft.irfft(power)[: len(quick) // 2]
        alike /= alike[0]
        assert np.abs(alike[250:]).max() < (0.5 if spoken else 0.1)
    starts = np.array([first for first, _ in find_blinks(hour.closure.astype(np.float64))])
    rate = len(starts) / 3600
    assert 0.33 < rate < 0.47 if spoken else 0.24 < rate < 0.32
    between = np.diff(starts) / 25
    assert between.std() > 0.5 * between.mean()
