"""A stretch of a video is what the whole video has there, picture and sound on one clock."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.errors import AudioError, VideoError
from stillspeak.media import video
from stillspeak.media.audio import load_audio, load_stretch, load_track, read_track
from stillspeak.media.video import clock_set_back, iter_frames, read_clip, sound_lead
from support.film import KINDS, counting, film, number, peak

SECONDS = 12
HOP = SAMPLE_RATE // VIDEO_FPS


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30_000, 1001), Fraction(25)])
def test_a_stretch_is_what_the_whole_has_there(tmp_path: Path, kind: str, rate: Fraction) -> None:
    times = [0.5 + k for k in range(SECONDS)]
    file = film(tmp_path / f"a.{kind}", counting(int(SECONDS * rate)), rate, times, float(SECONDS))
    frames, sound = read_clip(file)
    whole = [number(frame) for frame in frames]
    for start, end in [(0.0, 2.0), (2.4, 4.0), (6.2, 7.6), (10.0, 11.0)]:
        first, stop = round(start * 25), round(end * 25)
        part, wave = read_clip(file, start=start, end=end)
        assert [number(frame) for frame in part] == whole[first:stop]
        assert wave.shape == ((stop - first) * HOP,)
        assert wave.dtype == np.float32
        there = sound[first * HOP : stop * HOP]
        assert peak(wave) == pytest.approx(peak(there), abs=0.004)
    rest = list(iter_frames(file, fps=25, start=9.0))
    assert [number(frame) for frame in rest] == whole[225:]


def test_a_jump_spares_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = film(tmp_path / "a.mp4", counting(300), Fraction(25), [], 12.0)
    decoded = []
    to_seconds = video.frame_time
    monkeypatch.setattr(video, "frame_time", lambda f: decoded.append(f.pts) or to_seconds(f))
    assert len(list(iter_frames(file, fps=25, start=10.0, end=10.4))) == 10
    assert len(decoded) < 100


def test_a_file_that_cannot_be_entered_is_read_from_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = film(tmp_path / "a.mp4", counting(300), Fraction(25), [9.5], 12.0)
    monkeypatch.setattr(video, "enter", lambda *_: None)
    frames = [number(frame) for frame in iter_frames(file, fps=25, start=9.0, end=10.0)]
    assert frames == list(range(225, 250))


def test_a_stretch_outside_of_the_sound_is_silent(tmp_path: Path) -> None:
    file = film(tmp_path / "a.mp4", counting(300), Fraction(25), [0.5, 5.5], 6.0)
    _, wave = read_clip(file, start=5.0, end=8.0)
    assert wave.shape == (3 * SAMPLE_RATE,)
    assert peak(wave) == pytest.approx(0.5, abs=0.002)
    assert not wave[round(1.2 * SAMPLE_RATE) :].any()
    _, wave = read_clip(file, start=9.0, end=10.0)
    assert not wave.any()


def test_a_stretch_that_cannot_be(tmp_path: Path) -> None:
    file = film(tmp_path / "a.mp4", counting(50), Fraction(25), [], 2.0)
    with pytest.raises(VideoError, match=r"a\.mp4: ends before 7 s"):
        list(iter_frames(file, fps=25, start=7.0, end=8.0))
    with pytest.raises(ValueError, match="give fps"):
        next(iter_frames(file, start=1.0))
    with pytest.raises(ValueError, match="need 0 <= start < end"):
        next(iter_frames(file, fps=25, start=1.0, end=1.0))
    with pytest.raises(ValueError, match="holds nothing"):
        load_stretch(file, 2.0, 1.0)


def test_sound_piece_by_piece_is_the_whole_sound(tmp_path: Path) -> None:
    file = film(tmp_path / "a.mp4", counting(100), Fraction(25), [0.5, 2.5], 4.0)
    pieces = list(read_track(file))
    assert len(pieces) > 20
    np.testing.assert_allclose(
        np.concatenate([wave for wave, _ in pieces]), load_audio(file), atol=1e-6
    )
    assert pieces[-1][1] == load_track(file)[1]
    assert abs(sound_lead(file, pieces[-1][1])) < 0.03
    with pytest.raises(AudioError):
        next(read_track(tmp_path / "nothing.mp4"))


def test_a_clock_that_is_set_back_is_noticed(tmp_path: Path) -> None:
    file = film(tmp_path / "a.mpg", counting(100), Fraction(25), [], 4.0)
    assert clock_set_back(file) is None
    file.write_bytes(file.read_bytes() * 2)
    where = clock_set_back(file)
    assert where is not None
    assert 3 < where < 6
