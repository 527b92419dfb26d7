"""Frames come out at the right time and the right way up; writing is whole or not at all."""

import errno
import gc
import io
import os
import resource
import struct
import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from stillspeak.errors import AudioError, OutputError, OutputExistsError, VideoError
from stillspeak.media import encoder, video, video_writer
from stillspeak.media.audio import load_audio
from stillspeak.media.video import VideoInfo, iter_frames, probe_video, read_clip
from stillspeak.media.video_writer import check_output, write_video

KINDS = ["a.mp4", "a.webm", "a.gif", "folder"]
MOVIES = ["a.mp4", "a.webm"]


def flat(value, height=32, width=32):
    return np.full((height, width, 3), value, np.uint8)


def numbered(path, times, *, base=Fraction(1, 1000), sound=(), rotation=0, size=(32, 32)):
    """A lossless video whose frame k is flat grey k at ``times[k]`` s, with (time, wave)s."""
    with av.open(str(path), "w") as container:
        picture = container.add_stream("ffv1", rate=25)
        picture.height, picture.width = size
        picture.pix_fmt = "bgr0"
        picture.codec_context.time_base = base
        if rotation:
            picture.set_display_rotation(rotation)
        if sound:
            voice = container.add_stream("pcm_s16le", rate=16_000)
            voice.codec_context.layout = "mono"
            voice.codec_context.time_base = Fraction(1, 16_000)
        packets = []
        for value, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(flat(value % 256, *size), format="rgb24")
            frame = frame.reformat(format="bgr0")
            frame.pts, frame.time_base = round(Fraction(time) / base), base
            packets += picture.encode(frame)
        packets += picture.encode(None)
        for time, wave in sound:
            whole = np.rint(wave * 32767).astype(np.int16)[None]
            frame = av.AudioFrame.from_ndarray(whole, "s16", "mono")
            frame.sample_rate = 16_000
            frame.pts, frame.time_base = round(time * 16_000), Fraction(1, 16_000)
            packets += voice.encode(frame)
        container.mux(packets)
    return path


def values(frames):
    return [int(frame[0, 0, 0]) for frame in frames]


def moving(count, height=64, width=48):
    """Smooth frames in motion, (H, W, 3) uint8."""
    y, x = np.mgrid[:height, :width] / 8
    for k in range(count):
        waves = [np.sin(x + k / 6), np.cos(y - k / 9), np.sin(x + y + k / 12)]
        yield (np.stack(waves, axis=2) * 80 + 128).astype(np.uint8)


def speech(seconds, rate=16_000, seed=0):
    """(S,) float32 noise with the loudness of syllables: its correlation has one peak."""
    rng = np.random.default_rng(seed)
    size = round(seconds * rate)
    if not size:
        return np.zeros(0, np.float32)
    noise = np.convolve(rng.standard_normal(size), np.ones(6) / 6, "same")
    loud = np.repeat(rng.random(size // 400 + 1), 400)[:size]
    return (noise * loud * 0.4).astype(np.float32)


def lag_of(got, want):
    """Samples by which ``got`` is later than ``want``."""
    n = 2 * max(got.size, want.size)
    product = np.fft.irfft(np.fft.rfft(got, n) * np.fft.rfft(want, n).conj(), n)
    best = int(np.argmax(product))
    return best - n if best > n // 2 else best


def psnr(got, want):
    return 10 * np.log10(255**2 / np.mean((got.astype(float) - want) ** 2))


def listing(folder):
    return sorted(entry.name for entry in folder.iterdir())


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


# --- write_video: what is in the file ----------------------------------------------------


@pytest.mark.parametrize("name", MOVIES)
def test_a_movie_holds_the_frames_it_was_given(tmp_path, name):
    file = tmp_path / name
    assert write_video(file, moving(60), audio=speech(2.4), crf=18) == 60
    assert probe_video(file) == VideoInfo(48, 64, 25.0, pytest.approx(2.4, abs=0.002), True)
    got = list(iter_frames(file))
    assert len(got) == 60
    for k, (frame, want) in enumerate(zip(got, moving(60), strict=True)):
        assert psnr(frame, want) > 32, k
    assert values(iter_frames(file, fps=25)) == values(got)
    assert listing(tmp_path) == [name]


@pytest.mark.parametrize("name", MOVIES)
def test_colours_are_tagged_and_true(tmp_path, name):
    colours = [(230, 30, 30), (30, 200, 40), (40, 50, 220), (224, 172, 140), (255, 255, 255)]
    frames = [np.broadcast_to(np.uint8(c), (64, 64, 3)) for c in colours for _ in range(5)]
    write_video(tmp_path / name, frames, crf=10)
    with av.open(str(tmp_path / name)) as container:
        context = container.streams.video[0].codec_context
        assert context.format.name == "yuv420p"
        tags = (context.colorspace, context.color_primaries, context.color_trc)
        assert tags == (1, 1, 1)  # BT.709
        assert context.color_range == 1
    for frame, want in zip(iter_frames(tmp_path / name), frames, strict=True):
        assert np.abs(frame.mean(axis=(0, 1)) - want[0, 0]).max() < 5


def test_codecs_and_the_index_in_front(tmp_path):
    write_video(tmp_path / "a.mp4", moving(10), audio=speech(0.4))
    write_video(tmp_path / "a.webm", moving(10), audio=speech(0.4))
    kinds = {}
    for name in MOVIES:
        with av.open(str(tmp_path / name)) as container:
            kinds[name] = [stream.codec.canonical_name for stream in container.streams]
    assert kinds == {"a.mp4": ["h264", "aac"], "a.webm": ["vp9", "opus"]}
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("name", MOVIES)
@pytest.mark.parametrize("size", [(63, 48), (64, 47), (33, 31)])
def test_odd_sizes_are_padded_with_their_edge(tmp_path, name, size):
    height, width = size
    write_video(tmp_path / name, moving(5, height, width), crf=10)
    for frame, want in zip(iter_frames(tmp_path / name), moving(5, height, width), strict=True):
        assert frame.shape == (height + height % 2, width + width % 2, 3)
        padded = np.pad(want, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        assert psnr(frame, padded) > 30


def test_crf_sets_the_quality(tmp_path):
    noise = [np.random.default_rng(k).integers(0, 255, (64, 64, 3), np.uint8) for k in range(5)]
    for name in MOVIES:
        sizes = []
        for crf in (10, 40):
            write_video(tmp_path / name, noise, crf=crf, overwrite=True)
            sizes.append((tmp_path / name).stat().st_size)
        assert sizes[0] > 2 * sizes[1]


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("a.mp4", {"title": "Talk", "comment": "synthetic"}),
        ("a.mp4", {"title": "Talk", "stillspeak_weights": "abc"}),
        ("a.webm", {"title": "Talk", "COMMENT": "synthetic"}),
    ],
)
def test_metadata_is_stored(tmp_path, name, metadata):
    write_video(tmp_path / name, moving(3), metadata=metadata)
    with av.open(str(tmp_path / name)) as container:
        assert metadata.items() <= container.metadata.items()


def test_the_rate_is_kept(tmp_path):
    for fps in (10, 30):
        write_video(tmp_path / "a.mp4", moving(fps), fps=fps, audio=speech(1), overwrite=True)
        info = probe_video(tmp_path / "a.mp4")
        assert (info.fps, info.duration) == (fps, pytest.approx(1.0, abs=0.002))
        assert load_audio(tmp_path / "a.mp4").size == pytest.approx(16_000, abs=16_000 / fps)


# --- write_video: sound ------------------------------------------------------------------


@pytest.mark.parametrize("name", MOVIES)
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_sound_is_in_step(tmp_path, name, rate):
    wave = speech(3, rate)
    write_video(tmp_path / name, moving(75, 32, 32), audio=wave, sample_rate=rate)
    frames, audio = read_clip(tmp_path / name, sample_rate=rate)
    assert abs(lag_of(audio, wave)) <= rate // 1000
    assert len(list(frames)) == 75
    size = min(audio.size, wave.size)
    assert np.corrcoef(audio[:size], wave[:size])[0, 1] > 0.9


@pytest.mark.parametrize("name", MOVIES)
@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.6, 1.603, 5.0])
def test_sound_and_picture_are_equally_long(tmp_path, name, seconds):
    wave = speech(seconds)
    write_video(tmp_path / name, moving(40, 32, 32), audio=wave)
    audio = load_audio(tmp_path / name)
    assert audio.size / 16_000 == pytest.approx(1.6, abs=1 / 25)
    if seconds == 0.3:
        assert np.abs(audio[8000:]).max() < 0.01
        assert np.abs(audio[:4000]).max() > 0.1


@pytest.mark.parametrize("seconds", [12, 0.5])
def test_the_sound_comes_with_its_picture_not_at_the_end(tmp_path, seconds):
    write_video(tmp_path / "a.mp4", moving(300, 32, 32), audio=speech(seconds))
    latest = {"video": 0.0, "audio": 0.0}
    with av.open(str(tmp_path / "a.mp4")) as container:
        packets = [p for p in container.demux() if p.pts is not None]
        for packet in sorted(packets, key=lambda p: p.pos):
            latest[packet.stream.type] = float(packet.pts * packet.time_base)
            assert abs(latest["video"] - latest["audio"]) < 1.5


def test_no_sound_makes_no_sound_track(tmp_path):
    for name in MOVIES:
        write_video(tmp_path / name, moving(3))
        assert not probe_video(tmp_path / name).has_audio


# --- write_video: gif and folder -----------------------------------------------------------


def test_gif(tmp_path):
    file = tmp_path / "a.gif"
    assert write_video(file, moving(30), audio=speech(1)) == 30
    got = list(iter_frames(file))
    assert len(got) == 30
    for frame, want in zip(got, moving(30), strict=True):
        assert psnr(frame, want) > 27  # 256 colours of its own for each frame
    assert not probe_video(file).has_audio


@pytest.mark.parametrize("fps", [7, 25, 30, 50])
def test_gif_delays_add_up(tmp_path, fps):
    write_video(tmp_path / "a.gif", [flat(k) for k in range(2 * fps)], fps=fps)
    with PIL.Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 2 * fps
        assert gif.info["loop"] == 0
        delays = []
        for k in range(gif.n_frames):
            gif.seek(k)
            delays.append(gif.info["duration"])
    assert sum(delays) == pytest.approx(2000, abs=20)
    assert max(delays) - min(delays) <= 10


def test_gif_of_too_many_frames_a_second(tmp_path):
    with pytest.raises(OutputError, match="at most 50 frames a second, not 60"):
        write_video(tmp_path / "a.gif", moving(3), fps=60)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("given", ["frames", "frames.v2/"])
def test_a_folder_of_png(tmp_path, given):
    wave = speech(0.5)
    texts = {"comment": "synthetic é"}
    path = f"{tmp_path}/{given}"
    assert write_video(path, moving(10, 33, 31), audio=wave, metadata=texts) == 10
    folder = Path(path)
    assert listing(folder) == [f"{k:06d}.png" for k in range(10)] + ["audio.wav"]
    for k, want in enumerate(moving(10, 33, 31)):
        with PIL.Image.open(folder / f"{k:06d}.png") as picture:
            assert np.array_equal(np.asarray(picture), want)
            assert picture.info["comment"] == "synthetic é"
    audio = load_audio(folder / "audio.wav")
    assert audio.size == 6400
    assert np.abs(audio - wave[:6400]).max() <= 0.5 / 32768


def test_a_folder_without_sound(tmp_path):
    write_video(tmp_path / "frames", moving(2))
    assert listing(tmp_path / "frames") == ["000000.png", "000001.png"]


def test_sound_in_a_folder_is_padded(tmp_path):
    write_video(tmp_path / "frames", moving(5), audio=np.float32([1.0, -1.0, 0.5]))
    audio = load_audio(tmp_path / "frames" / "audio.wav")
    assert audio.size == 3200
    assert audio[:3] == pytest.approx([1.0, -1.0, 0.5], abs=1e-4)
    assert not audio[3:].any()


# --- write_video: bounded memory -----------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_let_go_as_they_are_written(tmp_path, name):
    alive = weakref.WeakSet()
    most = 0
    count = 30 if name == "a.gif" else 120

    class Tracked(np.ndarray):
        __hash__ = object.__hash__

    def frames():
        nonlocal most
        for frame in moving(count, 32, 32):
            tracked = frame.view(Tracked)
            alive.add(tracked)
            most = max(most, len(alive))
            yield tracked

    assert write_video(tmp_path / name, frames(), audio=speech(4)) == count
    assert most <= 4


# --- write_video: whole or not at all --------------------------------------------------------


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, OSError, VideoError])
@pytest.mark.parametrize("after", [0, 70])
def test_a_failing_iterator_leaves_nothing(tmp_path, name, error, after):
    if name == "a.gif":
        after //= 7  # one frame is as good as another, and a palette takes its time

    def frames():
        yield from moving(after, 32, 32)
        raise error("from the frames")

    with pytest.raises(error, match="from the frames"):
        write_video(tmp_path / name, frames(), audio=speech(3))
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", KINDS)
def test_a_failure_leaves_what_was_there(tmp_path, name):
    target = tmp_path / name
    write_video(target, moving(3, 32, 32), audio=speech(1))
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}

    def frames():
        yield from moving(5, 32, 32)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(target, frames(), overwrite=True)
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before
    assert listing(tmp_path) == [name]


@pytest.mark.parametrize("name", KINDS)
def test_a_real_write_error_is_noticed_wherever_it_strikes(tmp_path, name):
    noise = [np.random.default_rng(k).integers(0, 255, (48, 48, 3), np.uint8) for k in range(12)]
    target = tmp_path / name
    write_video(target, noise, audio=speech(0.5))
    size = max(f.stat().st_size for f in [target, *target.rglob("*")] if f.is_file())
    before = {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()}
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    # An encoder may come out a few bytes smaller the second time: the last limit leaves room.
    for limit in (0, 1, size // 3, size // 2, size - size // 50):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
        try:
            with pytest.raises(OutputError, match=rf"{name}: cannot be written \(file too large"):
                write_video(target, noise, audio=speech(0.5), overwrite=True)
                pytest.fail(f"limit {limit} of {size}: {sizes(target)}")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        assert listing(tmp_path) == [name]
    assert {f: f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()} == before


def sizes(target: Path) -> list[int]:
    return [f.stat().st_size for f in [target, *target.rglob("*")] if f.is_file()]


class FullDisk:
    """A container whose disk is full after some packets."""

    def __init__(self, container, packets):
        self.container, self.packets = container, packets

    def __getattr__(self, name):
        return getattr(self.container, name)

    def mux(self, packets):
        self.packets -= len(packets)
        if self.packets < 0:
            av.error.err_check(-errno.ENOSPC)
        self.container.mux(packets)


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.gif"])
@pytest.mark.parametrize("packets", [0, 20])
def test_a_full_disk_is_told_in_one_line(tmp_path, monkeypatch, name, packets):
    real = encoder.open_output
    for module in (encoder, video_writer):
        monkeypatch.setattr(module, "open_output", lambda *given: FullDisk(real(*given), packets))
    with pytest.raises(OutputError) as caught:
        write_video(tmp_path / name, moving(100, 32, 32), audio=speech(4))
    assert str(caught.value) == (
        f"{tmp_path / name}: the disk is full; free some space or write elsewhere"
    )
    assert listing(tmp_path) == []


def test_a_full_disk_under_a_folder(tmp_path, monkeypatch):
    real = PIL.Image.Image.save

    def save(self, file, *args, **options):
        if "000003" in str(file):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(self, file, *args, **options)

    monkeypatch.setattr(PIL.Image.Image, "save", save)
    with pytest.raises(OutputError, match="folder: the disk is full"):
        write_video(tmp_path / "folder", moving(9))
    assert listing(tmp_path) == []


def test_a_missing_encoder(tmp_path, monkeypatch):
    monkeypatch.setattr(video_writer, "picture_encoder", lambda kind, crf: ("no_such_codec", {}))
    with pytest.raises(OutputError, match=r"a\.mp4: cannot be written \(.*no_such_codec"):
        write_video(tmp_path / "a.mp4", moving(3))
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", KINDS)
def test_no_frames(tmp_path, name):
    with pytest.raises(OutputError, match="no frames to write"):
        write_video(tmp_path / name, [], audio=speech(1))
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (flat(1, 30, 32), r"frame 2 has shape \(30, 32, 3\), the first one \(32, 32, 3\)"),
        (flat(1).astype(np.float32), "frame 2 is float32"),
        (flat(1)[:, :, 0], r"frame 2 is uint8 \(32, 32\)"),
        (flat(1)[:, :, :2], r"frame 2 is uint8 \(32, 32, 2\)"),
        (flat(1)[:0], r"frame 2 is uint8 \(0, 32, 3\)"),
    ],
)
def test_frames_that_do_not_fit(tmp_path, name, frame, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, [flat(0), flat(0), frame])
    assert listing(tmp_path) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": 12.5}, "fps"),
        ({"sample_rate": 0}, "sample_rate"),
        ({"crf": 52}, "crf"),
        ({"audio": np.zeros((2, 9), np.float32)}, "audio"),
        ({"audio": np.zeros(9, np.int16)}, "audio"),
        ({"audio": np.float32([np.nan])}, "NaN"),
    ],
)
def test_settings_that_cannot_be(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / "a.mp4", moving(2), **options)
    assert listing(tmp_path) == []


def test_a_target_that_appears_meanwhile_is_not_overwritten(tmp_path):
    def frames():
        yield from moving(3)
        (tmp_path / "a.mp4").write_text("mine")

    with pytest.raises(OutputExistsError):
        write_video(tmp_path / "a.mp4", frames())
    assert (tmp_path / "a.mp4").read_text() == "mine"
    assert listing(tmp_path) == ["a.mp4"]


def test_a_folder_that_cannot_be_replaced_is_put_back(tmp_path, monkeypatch):
    target = tmp_path / "frames"
    write_video(target, moving(2))
    real = Path.rename

    def rename(self, to):
        if self.suffix == ".part":
            raise OSError(errno.EIO, "broken")
        return real(self, to)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OutputError, match="frames: cannot be written"):
        write_video(target, moving(5), overwrite=True)
    assert listing(target) == ["000000.png", "000001.png"]
    assert listing(tmp_path) == ["frames"]


def test_names_with_a_colon_and_relative_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("take:1.mp4", "concat:b.webm", "UPPER.MP4", "c.gif"):
        assert write_video(name, moving(2)) == 2
        assert len(list(iter_frames(name))) == 2
    assert len(listing(tmp_path)) == 4


def test_the_files_mode_follows_the_umask(tmp_path):
    old = os.umask(0o027)
    try:
        write_video(tmp_path / "a.mp4", moving(2))
    finally:
        os.umask(old)
    assert (tmp_path / "a.mp4").stat().st_mode & 0o777 == 0o640


# --- check_output ------------------------------------------------------------------------


def refuses(path, message, error=OutputError, *, overwrite=False):
    """Both entries refuse, before a single frame is asked for."""
    for attempt in (
        lambda: check_output(path, overwrite=overwrite),
        lambda: write_video(path, iter(NotAsked()), overwrite=overwrite),
    ):
        with pytest.raises(error, match=message) as caught:
            attempt()
        assert type(caught.value) is error
        assert "\n" not in str(caught.value)


class NotAsked:
    def __iter__(self):
        return self

    def __next__(self):
        raise AssertionError("a frame was asked for")


@pytest.mark.parametrize("name", [*KINDS, "b.MP4", "new.folder/"])
def test_a_free_name_is_accepted(tmp_path, name):
    path = f"{tmp_path}/{name}"
    assert check_output(path, overwrite=False) == Path(path)
    assert listing(tmp_path) == []


@pytest.mark.parametrize("name", KINDS)
def test_an_existing_output(tmp_path, name):
    write_video(tmp_path / name, moving(2))
    refuses(tmp_path / name, f"{name}: exists already", OutputExistsError)
    assert check_output(tmp_path / name, overwrite=True) == tmp_path / name
    assert write_video(tmp_path / name, moving(1), overwrite=True) == 1
    assert listing(tmp_path) == [name]
    if name == "folder":
        assert listing(tmp_path / name) == ["000000.png"]
    else:
        assert len(list(iter_frames(tmp_path / name))) == 1


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    (tmp_path / "frames").mkdir()
    assert write_video(tmp_path / "frames", moving(2)) == 2
    assert len(listing(tmp_path / "frames")) == 2


def test_a_folder_with_other_files_is_never_overwritten(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "000000.png").touch()
    (tmp_path / "photos" / "holiday.jpg").touch()
    refuses(tmp_path / "photos", r"holds other files \(holiday\.jpg\)", overwrite=True)
    refuses(tmp_path / "photos", "exists already", OutputExistsError)
    assert listing(tmp_path / "photos") == ["000000.png", "holiday.jpg"]


def test_outputs_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "dir.mp4").mkdir()
    refuses(tmp_path / "a.avi", r"suffix \.avi .* give \.mp4, \.webm or \.gif, or a name without")
    refuses(tmp_path / "a.png", r"suffix \.png")
    refuses(tmp_path / "gone" / "a.mp4", "gone does not exist; create it")
    refuses(tmp_path / "file" / "a.mp4", "file is not a folder")
    refuses(tmp_path / "dir.mp4", "is a folder", overwrite=True)
    refuses(tmp_path / "file", "is a file", overwrite=True)
    refuses("", r"\(empty\): not a name")


def test_a_folder_without_permission(tmp_path, monkeypatch):
    asked = []

    def access(path, mode):
        asked.append((Path(path), mode & os.W_OK))
        return False

    monkeypatch.setattr(os, "access", access)
    refuses(tmp_path / "a.mp4", "no permission to write into the folder")
    assert set(asked) == {(tmp_path, os.W_OK)}


def test_frames_may_come_in_one_array(tmp_path):
    def frames():
        frame = np.zeros((64, 64, 3), np.uint8)
        for level in range(0, 250, 25):
            frame[:] = level
            yield frame

    write_video(tmp_path / "frames", frames())
    files = sorted((tmp_path / "frames").glob("*.png"))
    levels = [int(np.asarray(PIL.Image.open(file))[0, 0, 0]) for file in files]
    assert levels == list(range(0, 250, 25))
