"""Videos in: frames and their times, sizes and rates, and the sound on the same clock."""

import errno
import gc
import io
import os
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from stillspeak.errors import AudioError, VideoError
from stillspeak.media import video
from stillspeak.media.video import VideoInfo, iter_frames, probe_video, read_clip
from stillspeak.media.video_writer import write_video
from support.videos import (
    flat,
    lag_of,
    moving,
    numbered,
    psnr,
    speech,
    values,
)

# --- probe_video -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["mkv", "nut", "avi"])
@pytest.mark.parametrize("sound", [False, True])
def test_probe(tmp_path, suffix, sound):
    base = Fraction(1, 25) if suffix == "avi" else Fraction(1, 1000)
    file = numbered(
        tmp_path / f"a.{suffix}",
        [k * Fraction(1, 25) for k in range(50)],
        base=base,
        sound=[(0, speech(1))] if sound else [],
        size=(48, 34),
    )
    info = probe_video(file)
    assert (info.width, info.height, info.has_audio) == (34, 48, sound)
    assert info.fps == pytest.approx(25, rel=1e-3)
    assert info.duration == pytest.approx(2.0, abs=0.002)


def test_probe_of_a_stream_without_an_index(tmp_path):
    file = tmp_path / "a.mpg"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg1video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.bit_rate = 2_000_000
        for frame in moving(50, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    info = probe_video(file)
    assert info == VideoInfo(64, 48, 25.0, pytest.approx(2.0, abs=0.001), False)
    frames = list(iter_frames(file, fps=25))
    assert len(frames) == 50
    assert min(psnr(got, want) for got, want in zip(frames, moving(50, 48, 64), strict=True)) > 25


# --- iter_frames -----------------------------------------------------------------------


@pytest.mark.parametrize("width", [30, 32, 97])
def test_frames_are_contiguous_rgb_of_any_width(tmp_path, width):
    file = numbered(tmp_path / "a.mkv", [0, 0.04], size=(18, width))
    frames = list(iter_frames(file))
    assert values(frames) == [0, 1]
    for frame in frames:
        assert frame.shape == (18, width, 3)
        assert frame.dtype == np.uint8
        assert frame.flags.c_contiguous


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_in_the_container_is_applied(tmp_path, rotation):
    upright = np.stack([np.arange(32 * 64).reshape(32, 64) % 251] * 3, axis=2).astype(np.uint8)
    stored = np.ascontiguousarray(np.rot90(upright, -rotation // 90))
    file = tmp_path / "a.mov"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.height, stream.width = stored.shape[:2]
        stream.pix_fmt = "rgb24"
        # As players see it: counter-clockwise by so much makes it upright.
        stream.set_display_rotation(rotation)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(stored, format="rgb24")))
        container.mux(stream.encode(None))
    (frame,) = iter_frames(file)
    assert np.array_equal(frame, upright)
    info = probe_video(file)
    assert (info.width, info.height) == (64, 32)


def test_half_the_rate_takes_every_second_frame(tmp_path):
    file = numbered(tmp_path / "a.mkv", [k * 0.02 for k in range(60)])
    assert values(iter_frames(file, fps=25)) == list(range(0, 60, 2))


def test_twice_the_rate_shows_every_frame_twice(tmp_path):
    file = numbered(tmp_path / "a.mkv", [k * 0.04 for k in range(20)])
    frames = list(iter_frames(file, fps=50))
    assert values(frames) == [k for k in range(20) for _ in range(2)]
    frames[0][:] = 99
    assert values(frames)[:2] == [99, 0]  # the two are not one array


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30_000, 1001), Fraction(24_000, 1001)])
def test_other_rates_do_not_drift(tmp_path, rate):
    count = 250
    file = numbered(tmp_path / "a.mkv", [k / rate for k in range(count)])
    got = values(iter_frames(file, fps=25))
    assert len(got) == round(count / rate * 25)
    late = [value / rate - Fraction(k, 25) for k, value in enumerate(got)]
    assert max(abs(x) for x in late[:-1]) <= 0.5 / rate + Fraction(2, 1000)


def test_timestamps_rounded_to_milliseconds_lose_no_frame(tmp_path):
    rng = np.random.default_rng(0)
    times = [k * 0.04 + (rng.uniform(-0.002, 0.002) if k else 0) for k in range(100)]
    file = numbered(tmp_path / "a.mkv", times)
    assert values(iter_frames(file, fps=25)) == list(range(100))


def test_a_long_frame_is_held_until_the_next_is_due(tmp_path):
    file = numbered(tmp_path / "a.nut", [0, 0.04, 1.0, 1.04])
    got = values(iter_frames(file, fps=25))
    assert got[:25] == [0] + [1] * 24
    assert got[25:27] == [2, 3]


def test_time_is_counted_from_the_first_frame(tmp_path):
    file = numbered(tmp_path / "a.nut", [0.5 + k * 0.04 for k in range(30)])
    assert values(iter_frames(file, fps=25)) == list(range(30))
    assert probe_video(file).duration == pytest.approx(1.2, abs=0.002)


def test_a_clock_that_is_set_back_loses_no_frame(tmp_path):
    file = tmp_path / "a.mpg"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg1video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for frame in moving(30, 48, 64):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    file.write_bytes(file.read_bytes() * 2)  # two recordings end to end
    frames = list(iter_frames(file, fps=25))
    assert len(frames) == 60
    assert np.array_equal(frames[5], frames[35])


def test_frames_are_decoded_as_they_are_asked_for(tmp_path):
    file = numbered(tmp_path / "a.mkv", [k * 0.04 for k in range(50)])
    before = open_files()
    frames = iter_frames(file, fps=25)
    assert int(next(frames)[0, 0, 0]) == 0
    assert open_files() == before + 1
    frames.close()
    gc.collect()
    assert open_files() == before


def test_a_rate_that_is_not_positive():
    with pytest.raises(ValueError, match="fps"):
        next(iter_frames("a.mp4", fps=0))


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


READERS = [probe_video, lambda path: next(iter_frames(path)), read_clip]


@pytest.mark.parametrize("read", READERS)
def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch, read):
    monkeypatch.chdir(tmp_path)
    numbered(tmp_path / "secret.mkv", [0, 0.04], sound=[(0, speech(0.1))])
    # The zero byte hides the playlist from the check for text.
    Path("list.mp4").write_bytes(b"ffconcat version 1.0\n#\0\nfile secret.mkv\n")
    with av.open("list.mp4") as container:
        assert container.format.name == "concat"  # left to itself, FFmpeg opens the other file
    with pytest.raises(VideoError, match="not a video"):
        read("list.mp4")


@pytest.mark.parametrize("read", READERS)
def test_files_that_are_no_video(tmp_path, read):
    cases = {"gone.mp4": "no such file", "empty.mp4": "empty", "text.mp4": "starts like text"}
    cases |= {"noise.mp4": "not a video", "sound.wav": "no picture track"}
    cases |= {"photo.png": "a still picture", "photo.jpg": "a still picture"}
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("words " * 99)
    (tmp_path / "noise.mp4").write_bytes(b"\0\1" + bytes(range(128, 256)) * 9)
    write_video(tmp_path / "frames", [flat(3)], audio=speech(0.1))
    (tmp_path / "frames" / "audio.wav").rename(tmp_path / "sound.wav")
    for name in ("photo.png", "photo.jpg"):
        PIL.Image.fromarray(flat(9)).save(tmp_path / name)
    before = open_files()
    for name, message in cases.items():
        with pytest.raises(VideoError, match=message) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
        assert "\n" not in str(caught.value)
    with pytest.raises(VideoError, match="a folder, not a video"):
        read(tmp_path)
    gc.collect()
    assert open_files() == before


def test_a_cover_picture_is_no_video(tmp_path):
    cover = io.BytesIO()
    PIL.Image.fromarray(flat(5)).save(cover, "PNG")
    body = b"\0image/png\0\x03\0" + cover.getvalue()
    frame = b"APIC" + struct.pack(">I", len(body)) + b"\0\0" + body
    size = bytes((len(frame) >> shift) & 127 for shift in (21, 14, 7, 0))
    sound = tmp_path / "plain.mp3"
    with av.open(str(sound), "w") as container:
        stream = container.add_stream("libmp3lame", rate=16_000)
        stream.codec_context.layout = "mono"
        whole = np.rint(speech(0.5) * 32767).astype(np.int16)[None]
        voice = av.AudioFrame.from_ndarray(whole, "s16p", "mono")
        voice.sample_rate, voice.pts, voice.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(stream.encode(voice))
        container.mux(stream.encode(None))
    file = tmp_path / "song.mp3"
    file.write_bytes(b"ID3\x03\0\0" + size + frame + sound.read_bytes())
    with av.open(str(file)) as container:
        assert len(container.streams.video) == 1
    with pytest.raises(VideoError, match=r"song\.mp3: has no picture track"):
        probe_video(file)


def test_a_damaged_frame_is_an_error_not_a_short_video(tmp_path):
    file = tmp_path / "a.mov"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "rgb24"
        for frame in moving(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    data = bytearray(file.read_bytes())
    fifth = -1
    for _ in range(6):
        fifth = data.index(b"\x89PNG", fifth + 1)
    data[fifth : fifth + 400] = b"\xee" * 400
    file.write_bytes(data)
    frames = iter_frames(file)
    with pytest.raises(VideoError, match=r"a\.mov: the video is damaged"):
        list(frames)


@pytest.mark.parametrize(
    "read",
    [
        probe_video,
        read_clip,
        lambda f: list(iter_frames(f)),
        lambda f: list(iter_frames(f, fps=25)),
    ],
)
def test_a_video_without_frames(tmp_path, read):
    file = tmp_path / "a.avi"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "yuv420p"
        container.start_encoding()
    with pytest.raises(VideoError, match=r"a\.avi: holds no video frames"):
        read(file)


@pytest.mark.parametrize("read", [lambda f: list(iter_frames(f)), video._measure])
@pytest.mark.parametrize("where", [(600, 10**9), (150_000, 160_000)])
def test_a_disk_that_fails(tmp_path, monkeypatch, read, where):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if where[0] <= self.tell() < where[1]:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(min(size, 4096))

    file = tmp_path / "a.mov"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "rgb24"
        for k in range(40):
            noise = np.random.default_rng(k).integers(0, 255, (64, 48, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode(None))
    data = file.read_bytes()
    assert len(data) > 200_000
    monkeypatch.setattr(Path, "open", lambda self, mode: Failing(data))
    with pytest.raises(VideoError, match=r"a\.mov: cannot be read \(input/output error\)"):
        read(file)


def test_a_file_without_its_end(tmp_path):
    file = tmp_path / "a.mov"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "yuv420p"
        for frame in moving(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert probe_video(file).width == 48
    file.write_bytes(file.read_bytes()[:-300])
    with pytest.raises(VideoError, match="not a video stillspeak can read"):
        probe_video(file)


# --- read_clip -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("picture_start", "sound_start"), [(0, 0), (0.5, 0.5), (0.5, 0.3), (0.2, 0.44), (0, 0.1)]
)
def test_sound_and_picture_share_their_zero(tmp_path, picture_start, sound_start):
    wave = speech(2)
    file = numbered(
        tmp_path / "a.nut",
        [picture_start + k * 0.04 for k in range(50)],
        sound=[(sound_start, wave)],
    )
    frames, audio = read_clip(file)
    assert values(frames) == list(range(50))
    shift = round((sound_start - picture_start) * 16_000)
    assert audio.dtype == np.float32
    assert audio.size == pytest.approx(wave.size + shift, abs=16)
    if shift > 0:
        assert not audio[: shift - 16].any()
    assert abs(lag_of(audio, wave) - shift) <= 16


def test_titles_in_old_alphabets_do_not_matter(tmp_path):
    file = tmp_path / "a.mp4"
    write_video(file, moving(3), audio=speech(0.12), metadata={"title": "Andr#"})
    data = file.read_bytes()
    assert data.count(b"Andr#") == 1
    file.write_bytes(data.replace(b"Andr#", b"Andr\xe9"))
    assert probe_video(file).fps == 25
    assert len(list(read_clip(file)[0])) == 3


def test_a_clip_at_other_rates(tmp_path):
    times = [k * 0.04 for k in range(25)]
    file = numbered(tmp_path / "a.mkv", times, sound=[(0, speech(1))])
    frames, audio = read_clip(file, fps=50, sample_rate=8000)
    assert len(list(frames)) == 50
    assert audio.size == 8000


def test_a_clip_without_sound(tmp_path):
    file = numbered(tmp_path / "a.mkv", [0, 0.04])
    with pytest.raises(AudioError, match="has no sound track"):
        read_clip(file)
