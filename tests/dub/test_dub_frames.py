"""Which frames are shown, when, and how many of them are held; samples from all over a video."""

import weakref
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stillspeak.dub import frames as module
from stillspeak.dub.frames import BURST, fitted, sampled_bursts
from stillspeak.errors import VideoError
from stillspeak.media.video_editor import TimedFrame, scan_video
from support.film import KINDS, counting, film, number
from support.videos import numbered


def order(path: Path, seconds: float, fit: str) -> tuple[list[int], list[float]]:
    scan = scan_video(path)
    found = list(fitted(path, scan, seconds, fit))
    return [number(one.rgb()) for one in found], [round(one.time - scan.start, 4) for one in found]


@pytest.fixture(scope="module", params=["mp4", "mkv", "flv", "mpg"])
def counted(request, tmp_path_factory) -> Path:
    """90 frames with key frames 40 apart; MPEG streams cannot be entered in the middle."""
    path = tmp_path_factory.mktemp("films") / f"a.{request.param}"
    assert request.param in KINDS
    return film(path, counting(90), Fraction(25), [], 3.6)


@pytest.mark.parametrize("held", [10**9, 8 * 48 * 64 * 2])
def test_a_loop_goes_back_and_forth_without_a_jump(counted, monkeypatch, held):
    monkeypatch.setattr(module, "HELD", held)
    numbers, times = order(counted, 9.5, "loop")
    there = [*range(90), *range(88, -1, -1), *range(1, 60)]
    assert numbers == there[: len(numbers)]
    assert times == pytest.approx([k / 25 for k in range(len(times))], abs=2e-3)
    # The last one is shown until the sound ends, or a hair's breadth less.
    assert abs(times[-1] + 0.04 - 9.5) <= 0.0215


def test_the_last_frame_freezes(counted):
    numbers, times = order(counted, 5.0, "freeze")
    assert numbers == [*range(90), *[89] * 35]
    assert times == pytest.approx([k / 25 for k in range(125)], abs=2e-3)


@pytest.mark.parametrize("fit", ["loop", "freeze"])
def test_for_the_rest_of_a_packet_no_frame_is_added(counted, fit):
    assert len(order(counted, 3.615, fit)[0]) == 90


@pytest.mark.parametrize("fit", ["loop", "freeze"])
def test_a_video_longer_than_its_sound_is_shown_whole(counted, fit):
    assert order(counted, 1.0, fit)[0] == list(range(90))


def test_trim_ends_with_the_shorter(counted):
    assert order(counted, 1.0, "trim")[0] == list(range(25))
    assert order(counted, 1.01, "trim")[0] == list(range(25))
    assert order(counted, 1.03, "trim")[0] == list(range(26))
    assert order(counted, 60.0, "trim")[0] == list(range(90))


def test_variable_rates_are_mirrored(tmp_path):
    times = [0, 0.04, 0.1, 0.3, 0.34]
    path = numbered(tmp_path / "a.mkv", times)
    scan = scan_video(path)
    found = list(fitted(path, scan, 0.75, "loop"))
    assert [int(one.rgb()[0, 0, 0]) for one in found] == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1]
    mirrored = [*times, 0.38, 0.58, 0.64, 0.68, 0.72]
    assert [round(one.time, 3) for one in found] == mirrored


def test_a_single_frame_stands(tmp_path):
    path = numbered(tmp_path / "a.mkv", [0])
    found = list(fitted(path, scan_video(path), 0.2, "loop"))
    assert [round(one.time, 3) for one in found] == [0, 0.04, 0.08, 0.12, 0.16]


def test_few_frames_are_held(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mp4", counting(160), Fraction(25), [], 6.4)
    monkeypatch.setattr(module, "HELD", 12 * 48 * 64 * 2)
    alive: list[weakref.ref[TimedFrame]] = []
    most = 0
    for frame in fitted(path, scan_video(path), 14.0, "loop"):
        alive = [ref for ref in alive if ref() is not None] + [weakref.ref(frame)]
        most = max(most, len(alive))
    assert most <= 20


def test_what_would_be_decoded_over_and_over_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HELD", 1)
    monkeypatch.setattr(module, "_WASTED", 2)
    path = film(tmp_path / "a.mpg", counting(60), Fraction(25), [], 2.4)
    with pytest.raises(VideoError, match=r"a\.mpg: cannot be shown backward.*fit freeze or trim"):
        list(fitted(path, scan_video(path), 4.0, "loop"))
    assert len(list(fitted(path, scan_video(path), 4.0, "freeze"))) == 100
    path = film(tmp_path / "a.mp4", counting(60), Fraction(25), [], 2.4)
    with pytest.raises(VideoError, match="its key frames are 40 frames apart"):
        list(fitted(path, scan_video(path), 4.0, "loop"))


# --- samples ------------------------------------------------------------------------------------


def bursts(path: Path) -> list[list[int]]:
    return [[number(one) for one in burst] for burst in sampled_bursts(path, scan_video(path))]


def test_of_a_short_video_all_frames_are_samples(counted):
    found = bursts(counted)
    assert [k for burst in found for k in burst] == list(range(90))
    assert {len(burst) for burst in found[:-1]} == {BURST}


def test_of_a_longer_one_bursts_from_all_over(counted, monkeypatch):
    monkeypatch.setattr(module, "BURSTS", 3)
    assert [burst[0] for burst in bursts(counted)] == [0, 30, 60]
    for burst in bursts(counted):
        assert burst == list(range(burst[0], burst[0] + BURST))


def test_a_long_one_is_entered_at_key_frames(tmp_path, monkeypatch):
    # Twelve seconds with a key frame every 1.6.
    path = film(tmp_path / "a.mp4", counting(300), Fraction(25), [], 12.0)
    monkeypatch.setattr(module, "IN_A_ROW", 100)
    monkeypatch.setattr(module, "BURSTS", 4)
    decoded = []
    real = module.to_rgb
    monkeypatch.setattr(module, "to_rgb", lambda frame: decoded.append(1) or real(frame))
    found = bursts(path)
    assert len(found) == 4 and found[0][0] < 40 and found[-1][0] > 200
    assert all(burst == list(range(burst[0], burst[0] + BURST)) for burst in found)
    assert len(decoded) == 4 * BURST


def test_where_it_cannot_be_entered_they_are_of_its_beginning(tmp_path, monkeypatch):
    path = film(tmp_path / "a.mpg", counting(300), Fraction(25), [], 12.0)
    monkeypatch.setattr(module, "IN_A_ROW", 100)
    monkeypatch.setattr(module, "BURSTS", 4)
    found = bursts(path)
    assert found[0][0] == 0 and found[-1][-1] == 99 and len(found) == 5


def test_samples_are_upright(tmp_path):
    path = numbered(tmp_path / "a.mkv", [0, 0.04], rotation=90, size=(32, 48))
    (burst,) = sampled_bursts(path, scan_video(path))
    assert [frame.shape for frame in burst] == [(48, 32, 3)] * 2
    assert np.array_equal(np.unique(burst[1]), [1])


def test_a_clock_that_jumps_is_refused(tmp_path):
    path = numbered(tmp_path / "a.mkv", [0, 0.04, 4000])
    with pytest.raises(VideoError, match=r"a\.mkv: its time stamps jump by 4000 s at 0\.0 s"):
        list(fitted(path, scan_video(path), 1.0, "loop"))
