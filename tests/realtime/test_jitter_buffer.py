"""Sound that comes as it likes: what waits, what is dropped, and what is caught up with."""

import numpy as np
import pytest

from stillspeak.errors import AudioError, ConfigError
from stillspeak.realtime.jitter_buffer import LIVE_MAX_BUFFER, JitterBuffer
from support.clock import FPS, HOP, RATE, levels


def test_more_than_the_bound_is_dropped():
    buffer = JitterBuffer(RATE, FPS, max_buffer=1.0)
    buffer.push(levels(20), RATE)
    buffer.push(levels(20), RATE)
    assert buffer.seconds == 1.0 and buffer.counts.dropped == 15 * HOP


def test_live_sound_stays_within_its_bound_and_loses_the_oldest():
    buffer = JitterBuffer(RATE, FPS, live=True)
    for begin in range(50):  # 2 s that nobody takes
        buffer.push(levels(1, begin), RATE)
        assert buffer.seconds <= LIVE_MAX_BUFFER
    newest = [buffer.take().sound for _ in range(2)]
    assert buffer.counts.dropped > RATE
    assert (
        buffer.counts.dropped + buffer.counts.skipped + round(RATE * buffer.seconds) + 2 * HOP
        == buffer.counts.taken
    )
    assert any(np.isclose(newest[0][0], levels(1, k)[0]) for k in range(36, 50))


def test_a_delay_of_live_sound_is_made_up_in_pauses_and_a_little_faster_in_speech():
    buffer = JitterBuffer(RATE, FPS, live=True)
    buffer.push(np.concatenate((levels(3), np.zeros(6 * HOP, np.float32), levels(3, 3))), RATE)
    played = [buffer.take() for _ in range(4)]
    assert sum(np.abs(block.sound).max() < 0.01 for block in played) <= 1
    assert buffer.counts.skipped >= 5 * HOP

    time = np.arange(12 * HOP) / RATE
    tone = np.sin(2 * np.pi * 200 * time).astype(np.float32)
    buffer = JitterBuffer(RATE, FPS, live=True, max_buffer=1.0)
    buffer.push(tone, RATE)
    first = buffer.take().sound
    crossings = np.count_nonzero(np.diff(np.signbit(first)))
    assert 16 <= crossings <= 17  # 200 Hz, at most 4 % more
    before = buffer.seconds
    for _ in range(4):
        buffer.push(tone[:HOP], RATE)
        buffer.take()
    assert before - 4 * 0.0017 <= buffer.seconds < before


def test_the_end_of_a_sound_does_not_wait_for_more():
    buffer = JitterBuffer(RATE, FPS)
    buffer.push(levels(1)[:100], RATE)
    assert buffer.take().heard == 0  # it has just come: more may follow
    block = buffer.take()
    assert block.heard == 100 and not block.ended and not block.sound[100:].any()
    buffer.push(levels(1)[:100], RATE)
    buffer.end()
    buffer.push(levels(2), RATE)
    block = buffer.take()
    assert block.heard == 100 and block.ended
    assert buffer.take().heard == HOP  # the next utterance begins with a frame of its own


def test_only_what_is_missing_inside_an_utterance_counts_as_filled():
    buffer = JitterBuffer(RATE, FPS)
    buffer.take()
    assert buffer.counts.filled == 0  # nobody speaks yet
    buffer.push(levels(1)[:100], RATE)
    buffer.take()
    buffer.take()
    assert buffer.counts.filled == HOP - 100
    buffer.clear()
    buffer.take()
    assert buffer.counts.filled == HOP - 100


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_keeps_pitch_and_length(rate, channels):
    time = np.arange(rate) / rate
    tone = np.rint(12_000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    buffer = JitterBuffer(48_000, FPS)
    for begin in range(0, rate, 777):
        buffer.push(np.repeat(tone[begin : begin + 777, None], channels, 1), rate)
    buffer.end()
    sound = np.concatenate([buffer.take().sound for _ in range(25)])
    assert abs(buffer.counts.taken - 48_000) <= 100
    spectrum = np.abs(np.fft.rfft(sound))
    assert np.argmax(spectrum) == 440
    assert 0.3 < np.abs(sound).max() < 0.4


def test_the_rate_may_change_on_the_way():
    buffer = JitterBuffer(RATE, FPS)
    for rate in (48_000, 8_000, 16_000, 44_100):
        time = np.arange(rate // 2) / rate
        buffer.push(np.sin(2 * np.pi * 100 * time).astype(np.float32), rate)
    buffer.end()
    assert abs(buffer.counts.taken - 2 * RATE) < 120
    sound = np.concatenate([buffer.take().sound for _ in range(50)])
    assert np.abs(np.diff(sound)).max() < 0.2  # no clicks


def test_damaged_samples_are_zeroed_and_counted_and_impossible_ones_refused():
    buffer = JitterBuffer(RATE, FPS)
    damaged = levels(1)
    damaged[[3, 5, 7]] = np.nan, np.inf, -np.inf
    buffer.push(damaged, RATE)
    sound = buffer.take().sound
    assert buffer.counts.mended == 3 and np.isfinite(sound).all()
    assert not sound[[3, 5, 7]].any() and sound[4] == damaged[4]
    for samples in (np.full(99, 20_000.0), np.zeros(9, np.int64), np.zeros((2, 3, 4))):
        with pytest.raises(AudioError):
            buffer.push(samples, RATE)
    for rate in (0, -1, 44_100.5, float("nan")):
        with pytest.raises(AudioError, match="rate"):
            buffer.push(levels(1), rate)
    assert buffer.empty


@pytest.mark.parametrize(
    ("rate", "max_buffer", "message"),
    [(16_001, None, "multiple"), (0, None, "multiple"), (16_000, 0.05, "too short")],
)
def test_buffers_that_cannot_be(rate, max_buffer, message):
    with pytest.raises(ConfigError, match=message):
        JitterBuffer(rate, FPS, live=True, max_buffer=max_buffer)
