"""The sound of an output is the one that was given: rate, channels, packets, and in step."""

import io
import tracemalloc
import wave
from fractions import Fraction

import av
import numpy as np
import pytest

from stillspeak.errors import AudioError
from stillspeak.media.audio import HEADROOM, load_audio
from stillspeak.media.sound import SoundFeed, mixed_sounds, sound_of, sound_of_array
from stillspeak.media.video_writer import write_video
from support.videos import moving

CLICKS = (0.5, 1.2)
"""Seconds at which left and right click."""
MOVIES = ("a.mp4", "a.mov", "a.mkv", "a.m4v", "a.webm")


def clicking(rate: int, seconds: float = 2.0, channels: int = 2) -> np.ndarray:
    """(S, C) float32: a soft hum, and a click in each channel at its time."""
    times = np.arange(round(seconds * rate)) / rate
    sound = 0.02 * np.sin(2 * np.pi * 200 * times)[:, None].repeat(channels, axis=1)
    for channel in range(channels):
        at = CLICKS[channel % 2]
        burst = (times >= at) & (times < at + 0.004)
        sound[burst, channel] = 0.8 * np.sin(2 * np.pi * 2000 * (times[burst] - at))
    return sound.astype(np.float32)


def encoded(file, codec: str, rate: int, layout: str, samples: np.ndarray, muxer=None):
    """A sound file of samples (S, C) in a codec."""
    with av.open(str(file), "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        container.start_encoding()
        kind = stream.codec_context.format.name
        block = stream.codec_context.frame_size or 1024
        for begin in range(0, len(samples), block):
            piece = samples[begin : begin + block]
            if kind[0] == "s":
                whole = np.dtype(f"int{kind.strip('sp')}")
                piece = np.rint(piece.astype(float) * np.iinfo(whole).max).astype(whole)
            rows = piece.T if kind.endswith("p") else piece.reshape(1, -1)
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(rows), kind, layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, begin, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


def track_of(file):
    """Codec, rate and channels of a file's sound."""
    with av.open(str(file)) as container:
        stream = container.streams.audio[0]
        return stream.codec.canonical_name, stream.rate, stream.codec_context.layout.name


def heard(file) -> tuple[np.ndarray, int, float]:
    """A movie's sound (S, C), its rate, and when it begins after the picture, in seconds."""
    with av.open(str(file)) as container:
        picture = min(f.time for f in container.decode(video=0))
    with av.open(str(file)) as container:
        frames = list(container.decode(audio=0))
    planes = []
    for frame in frames:
        samples = frame.to_ndarray()
        if samples.dtype.kind == "i":
            samples = samples / np.iinfo(samples.dtype).max
        planes.append(
            samples.reshape(-1, len(frame.layout.channels)).T if len(samples) == 1 else samples
        )
    return np.concatenate(planes, axis=1).T, frames[0].sample_rate, frames[0].time - picture


def clicks(sound: np.ndarray, rate: int, start: float) -> list[float]:
    """When each channel clicks, in seconds after the picture's begin."""
    return [start + np.flatnonzero(np.abs(c) > 0.4)[0] / rate for c in sound.T]


def packets(file):
    with av.open(str(file)) as container:
        return [bytes(p) for p in container.demux(audio=0) if p.size]


@pytest.mark.parametrize("name", MOVIES)
@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000, 96_000])
def test_a_recording_keeps_its_channels_and_its_time(tmp_path, name, rate):
    write_video(tmp_path / name, moving(50, 32, 32), audio=clicking(rate), sample_rate=rate)
    codec, got, layout = track_of(tmp_path / name)
    assert layout == "stereo"
    assert codec == ("opus" if name == "a.webm" else "aac")
    assert got == (44_100 if rate == 44_100 and codec == "aac" else 48_000)
    sound, rate, start = heard(tmp_path / name)
    assert clicks(sound, rate, start) == pytest.approx(CLICKS, abs=0.0015)
    assert start + len(sound) / rate == pytest.approx(2.0, abs=0.025)


@pytest.mark.parametrize(
    ("source", "codec", "layout", "names"),
    [
        ("a.m4a", "aac", "stereo", ("b.mp4", "b.mov", "b.m4v", "b.mkv")),
        ("a.ogg", "libopus", "stereo", ("b.webm", "b.mkv")),
        ("a.mp3", "libmp3lame", "stereo", ("b.mkv",)),
        ("a.flac", "flac", "stereo", ("b.mkv",)),
        ("a.wav", "pcm_s16le", "stereo", ("b.mov",)),
    ],
)
def test_packets_are_copied_where_the_container_takes_them(tmp_path, source, codec, layout, names):
    rate = 48_000
    file = encoded(tmp_path / source, codec, rate, layout, clicking(rate))
    for name in names:
        write_video(tmp_path / name, moving(50, 32, 32), audio=sound_of(file))
        assert track_of(tmp_path / name) == track_of(file)
        copied, given = (b"".join(packets(one)) for one in (tmp_path / name, file))
        assert given.startswith(copied) and len(copied) > 0.95 * len(given)
        sound, got, start = heard(tmp_path / name)
        assert clicks(sound, got, start) == pytest.approx(CLICKS, abs=0.003), name
        assert 2.0 - 0.001 <= start + len(sound) / got <= 2.0 + 0.06, name


def test_what_the_container_does_not_take_is_encoded_anew(tmp_path):
    file = encoded(tmp_path / "a.flac", "flac", 44_100, "stereo", clicking(44_100))
    write_video(tmp_path / "b.mp4", moving(50, 32, 32), audio=sound_of(file))
    assert track_of(tmp_path / "b.mp4") == ("aac", 44_100, "stereo")
    sound, rate, start = heard(tmp_path / "b.mp4")
    assert clicks(sound, rate, start) == pytest.approx(CLICKS, abs=0.0015)


def test_packets_with_a_hole_between_them_are_not_copied(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        container.start_encoding()
        for begin in (*range(0, 24_000, 960), *range(48_000, 72_000, 960)):
            frame = av.AudioFrame.from_ndarray(np.full((1, 960), 0.3, np.float32), "flt", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 48_000, begin, Fraction(1, 48_000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    source = sound_of(tmp_path / "a.mkv")
    write_video(tmp_path / "b.webm", moving(36, 32, 32), audio=source)
    assert packets(tmp_path / "b.webm") != packets(tmp_path / "a.mkv")[: 1440 // 20]
    sound, rate, _ = heard(tmp_path / "b.webm")
    middle = sound[round(0.6 * rate) : round(0.9 * rate)]
    assert len(sound) / rate == pytest.approx(1.44, abs=0.02) and np.abs(middle).max() < 0.05


def test_surround_stays_where_it_is_known_and_becomes_stereo_elsewhere(tmp_path):
    six = np.zeros((96_000, 6), np.float32)
    for channel in range(6):
        six[10_000 * channel : 10_000 * channel + 5_000, channel] = 0.3 * np.sin(
            np.arange(5_000) * 2 * np.pi * 60 / 48_000
        )
    for name in ("a.mp4", "a.webm"):
        write_video(tmp_path / name, moving(50, 32, 32), audio=six, sample_rate=48_000)
        assert track_of(tmp_path / name)[2] == "5.1"
        sound, _, _ = heard(tmp_path / name)
        for channel in range(6):
            here = slice(10_000 * channel + 500, 10_000 * channel + 4_500)
            assert np.abs(sound[here]).mean(axis=0).argmax() == channel
    file = encoded(tmp_path / "b.flac", "flac", 48_000, "5.0", six[:, [0, 1, 2, 4, 5]])
    wide = sound_of(file)
    assert wide.layout == "stereo"
    sound = SoundFeed(wide).take(96_000)
    # The middle is in both, behind on the left only left.
    middle, behind = np.abs(sound[:, 20_500:24_000]).max(axis=1), np.abs(sound[:, 40_500:44_000])
    assert middle[0] == pytest.approx(middle[1]) and middle[0] > 0.08
    assert behind[0].max() > 0.08 and not behind[1].any()


def test_the_sound_of_a_folder_keeps_rate_and_channels(tmp_path):
    sound = clicking(44_100)
    write_video(tmp_path / "frames", moving(25, 32, 32), audio=sound, sample_rate=44_100)
    with wave.open(str(tmp_path / "frames" / "audio.wav")) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 44_100, 44_100)
        got = np.frombuffer(file.readframes(44_100), "<i2").reshape(-1, 2) / 32768
    assert np.abs(got - sound[:44_100]).max() <= 0.5 / 32768


@pytest.mark.parametrize("form", ["array", "turned", "bytes", "path"])
def test_a_source_is_what_the_model_hears_in_its_own_channels(tmp_path, form):
    stereo = clicking(22_050)
    data = io.BytesIO()
    with wave.open(data, "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(22_050)
        file.writeframes(np.rint(stereo * 32767).astype("<i2").tobytes())
    (tmp_path / "a.wav").write_bytes(data.getvalue())
    given = {
        "array": (stereo, 22_050),
        "turned": (stereo.T, 22_050),
        "bytes": data.getvalue(),
        "path": tmp_path / "a.wav",
    }[form]
    source = sound_of(given)
    assert (source.rate, source.layout) == (22_050, "stereo")
    for _ in range(2):  # it can be read again
        blocks = np.concatenate(list(source.read()), axis=1)
        assert np.abs(blocks - stereo.T).max() < 1e-4
    assert np.abs(load_audio(given, sample_rate=22_050) - blocks.mean(axis=0)).max() < 1e-6
    halved = np.concatenate(list(source.at(11_025, "mono").read()), axis=1)
    assert halved.shape == (1, 22_050)
    assert np.abs(SoundFeed(source.louder(0.5)).take(44_100) - 0.5 * blocks).max() < 1e-6


def test_a_mix_is_as_wide_and_as_long_as_the_widest_and_the_longest():
    low, high = clicking(16_000, 1.0, channels=1), clicking(48_000, 2.0)
    mix = mixed_sounds([sound_of_array(low, 16_000), sound_of_array(high, 48_000)])
    assert (mix.rate, mix.layout) == (48_000, "stereo")
    sound = np.concatenate(list(mix.read()), axis=1)
    assert sound.shape[1] == pytest.approx(96_000, abs=2)
    loudest = np.abs(sound).max()
    assert loudest == pytest.approx(HEADROOM, abs=0.001)  # both click on the left at once
    assert np.allclose(sound, np.concatenate(list(mix.read()), axis=1))
    # Alone the second half is the second one, softer by the mix's factor.
    share = sound[:, 60_000:] / np.where(high.T[:, 60_000:96_000], high.T[:, 60_000:96_000], 1)
    assert np.ptp(share[np.abs(high.T[:, 60_000:96_000]) > 0.01]) < 0.05


def test_memory_holds_a_block_whatever_the_length(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        for _ in range(60):
            file.writeframes(bytes(4 * 48_000))
    source = sound_of(tmp_path / "a.wav")
    feed = SoundFeed(source.at(44_100))
    feed.take(44_100)
    tracemalloc.start()
    for _ in range(1500):
        feed.take(1764)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2**21


def test_a_file_that_is_gone_is_named(tmp_path):
    with pytest.raises(AudioError, match=r"a\.wav: no such file"):
        sound_of(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="call: has no sound track"):
        write_video(tmp_path / "b.mp4", moving(3))
        sound_of(tmp_path / "b.mp4", name="call")
