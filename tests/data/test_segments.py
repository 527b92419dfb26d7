"""Where videos are cut: with made probabilities by hand, and with the real detectors."""

import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data import segments
from stillspeak.data.segments import (
    SegmentRules,
    Speech,
    VoiceActivity,
    cut_clips,
    find_scene_cuts,
    find_segments,
    find_speech,
    shots,
    versions,
    voiced,
)
from stillspeak.errors import AudioError, ConfigError, DataError, MissingDependencyError
from stillspeak.media.video_writer import write_video
from support.film import SIZE, talk

RULES = SegmentRules()


@pytest.fixture(scope="module")
def voice() -> VoiceActivity:
    return VoiceActivity()


def made(*spans: tuple[float, float], low: tuple[float, ...] = (), step: float = 0.032) -> Speech:
    """Speech at these spans, with windows of little voice at these times inside it."""
    probability = np.zeros(round(60 / step), np.float32)
    for a, b in spans:
        probability[round(a / step) : round(b / step)] = 0.9
    for time in low:
        at = round(time / step)
        probability[at - 1 : at + 2] = 0.4
    return Speech(spans, probability, 0.0, step)


def seconds(clips: list[tuple[int, int]]) -> list[tuple[float, float]]:
    return [(a / VIDEO_FPS, b / VIDEO_FPS) for a, b in clips]


@pytest.mark.parametrize(("low", "high"), [(0.5, 8), (2, 4.9), (2, 61), (float("nan"), 8)])
def test_limits_that_cannot_be_kept(low: float, high: float) -> None:
    with pytest.raises(ConfigError, match="clips of"):
        SegmentRules(low, high)


def test_runs_of_voice() -> None:
    values = np.array([0, 0.4, 0.6, 0.4, 0.36, 0.2, 0.9, 0.9, 0, 0, 0, 0.7, 0, 0, 0, 0.6])
    # Windows of a tenth of a second: one silent window is no pause, two and more are.
    assert voiced(values.astype(np.float32), 0.1) == [(2, 8), (11, 12), (15, 16)]
    assert voiced(values.astype(np.float32), 0.05) == [(2, 16)]
    assert voiced(np.zeros(4, np.float32), 0.1) == []


def test_clips_are_cut_at_pauses_and_keep_a_margin() -> None:
    clips = cut_clips(made((1, 4), (6, 9), (9.3, 11)), [(0, 1000)], RULES)
    assert seconds(clips) == [(0.72, 4.28), (5.72, 11.28)]


def test_a_pause_is_shared() -> None:
    first, second = cut_clips(made((0, 5), (5.2, 10)), [(0, 1000)], RULES)
    assert first == (0, 128)
    assert second == (128, 257)


def test_what_is_too_short_is_left_aside() -> None:
    assert cut_clips(made((3, 4.2), (8, 9)), [(0, 1000)], RULES) == []
    # Two short ones near each other make one clip.
    assert seconds(cut_clips(made((3, 4.2), (5, 6)), [(0, 1000)], RULES)) == [(2.72, 6.28)]


def test_long_speech_is_cut_where_there_is_least_voice() -> None:
    clips = cut_clips(made((1, 13.5), low=(6.4, 9.6)), [(0, 1000)], RULES)
    edges = sorted({edge for clip in seconds(clips) for edge in clip})
    assert edges == pytest.approx([0.72, 6.4, 13.76], abs=0.06)
    assert all(a[1] <= b[0] for a, b in pairwise(clips))
    # Without any, still no clip is outside of the limits and nothing is lost.
    clips = cut_clips(made((1, 40)), [(0, 1500)], RULES)
    assert all(50 <= b - a <= 200 for a, b in clips)
    assert sum(b - a for a, b in clips) > 38 * VIDEO_FPS


def test_no_clip_crosses_a_scene_cut() -> None:
    assert shots([], 300) == [(0, 300)]
    assert shots([100, 101, 103, 200], 300) == [(0, 99), (104, 199), (201, 300)]
    speech = made((1, 7))
    assert cut_clips(speech, shots([100], 300), RULES) == [(18, 99), (101, 182)]
    assert cut_clips(speech, shots([40, 150], 300), RULES) == [(41, 149)]


def test_clips_stay_inside_the_picture() -> None:
    assert cut_clips(made((0, 7)), [(0, 120)], RULES) == [(0, 120)]
    late = Speech([(-0.1, 3.0)], np.full(97, 0.9, np.float32), -0.1, 0.032)
    assert cut_clips(late, [(0, 60)], RULES) == [(0, 60)]


# ------------------------------------------------------------------ the real detectors


def test_voice_comes_in_pieces(voice: VoiceActivity) -> None:
    wave = np.random.default_rng(0).uniform(-0.1, 0.1, 5000).astype(np.float32)
    whole = voice.probabilities([wave])
    assert whole.shape == (10,)
    assert whole.dtype == np.float32
    parts = voice.probabilities(np.array_split(wave, 7))
    np.testing.assert_allclose(parts, whole, atol=1e-6)
    assert voice.probabilities([]).shape == (0,)


def test_silero_leaves_the_threads_alone() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        voice = VoiceActivity()
        assert torch.get_num_threads() == 2
        voice.probabilities([np.zeros(1024, np.float32)])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_speech_and_pauses_are_found(tmp_path: Path, voice: VoiceActivity) -> None:
    """Three utterances of about three seconds, two seconds of silence between them."""
    file = talk(tmp_path / "a.mp4", utterances=3)
    clips = seconds(find_segments(file, voice=voice))
    assert len(clips) == 3
    for n, (begin, end) in enumerate(clips):
        assert begin == pytest.approx(1 + 5 * n, abs=0.35)
        assert end == pytest.approx(4 + 5 * n, abs=0.5)
    speech = find_speech(file, voice)
    assert speech.start == pytest.approx(0, abs=0.03)


def test_scene_cuts_are_found(tmp_path: Path, voice: VoiceActivity) -> None:
    file = talk(tmp_path / "a.mp4", utterances=3, cuts=(50, 175))
    assert find_scene_cuts(file) == ([50, 175], 400)
    clips = find_segments(file, voice=voice)
    assert len(clips) == 3
    for cut in (50, 175):
        assert not any(first < cut < stop for first, stop in clips)


def test_a_video_with_nothing_to_use(tmp_path: Path, voice: VoiceActivity) -> None:
    silent = talk(tmp_path / "silent.mp4", utterances=0)
    with pytest.raises(DataError, match=r"silent\.mp4: no speech was found in its sound"):
        find_segments(silent, voice=voice)
    hectic = talk(tmp_path / "hectic.mp4", utterances=1, cuts=tuple(range(20, 150, 20)))
    with pytest.raises(DataError, match=r"hectic\.mp4: no speech of at least 2 s between"):
        find_segments(hectic, voice=voice)
    mute = tmp_path / "mute.mp4"
    write_video(mute, (np.zeros((*SIZE, 3), np.uint8) for _ in range(50)))
    with pytest.raises(AudioError, match=r"mute\.mp4: has no sound track"):
        find_segments(mute, voice=voice)


def test_a_clock_that_is_set_back_is_refused(
    tmp_path: Path, voice: VoiceActivity, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = talk(tmp_path / "a.mp4", utterances=1)
    monkeypatch.setattr(segments, "clock_set_back", lambda path: 2.5)
    with pytest.raises(DataError, match=r"a\.mp4: its clock is set back after 2.5 s"):
        find_segments(file, voice=voice)


@pytest.mark.parametrize("package", ["silero_vad", "scenedetect"])
def test_a_missing_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    file = talk(tmp_path / "a.mp4", utterances=1)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'stillspeak\[corpora\]'") as got:
        find_segments(file)
    assert "\n" not in str(got.value)


def test_the_versions_are_known() -> None:
    assert set(versions()) == {"segments", "fps", "silero-vad", "scenedetect"}


def test_a_long_sound_is_not_held(voice: VoiceActivity) -> None:
    """Pieces are asked for one by one, and each can be freed before the next one comes."""
    alive = 0
    most = 0

    class Piece(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def pieces():  # type: ignore[no-untyped-def]
        nonlocal alive, most
        for _ in range(20):
            alive += 1
            most = max(most, alive)
            yield np.zeros(SAMPLE_RATE // 10, np.float32).view(Piece)

    assert voice.probabilities(pieces()).shape == (63,)
    assert most <= 3
