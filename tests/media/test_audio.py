"""load_audio reads every sound to the same scale and length; frame_windows shares memory."""

import errno
import io
import math
import os
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stillspeak.errors import AudioError
from stillspeak.media import audio as audio_module
from stillspeak.media import source as source_module
from stillspeak.media.audio import HEADROOM, file_chunks, load_audio, load_track, mixed

RATE = 16_000


def tone(seconds=0.5, rate=RATE, hz=440.0, peak=0.5):
    """(S,) float64 sine."""
    return peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)


def wav_bytes(samples, rate):
    """A RIFF file around (S,) or (S, C) samples of an integer or float dtype."""
    samples = samples[:, None] if samples.ndim == 1 else samples
    channels, width = samples.shape[1], samples.dtype.itemsize
    tag = 3 if samples.dtype.kind == "f" else 1
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * width, channels * width,
                       8 * width)  # fmt: skip
    data = samples.tobytes()
    body = b"WAVEfmt " + struct.pack("<I", len(form)) + form
    body += b"data" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


def encode(path, pieces, rate, *, codec, sample_format, layout="mono", picture=False):
    """Write (first sample's number, array as FFmpeg wants it) pieces with PyAV."""
    with av.open(str(path), "w") as container:
        if picture:
            shown = container.add_stream("mpeg4", rate=25)
            shown.width, shown.height, shown.pix_fmt = 32, 32, "yuv420p"
        stream = container.add_stream(codec, rate=rate)
        stream.codec_context.layout = layout
        stream.codec_context.format = sample_format
        stream.codec_context.time_base = Fraction(1, rate)
        if picture:
            for _ in range(12):
                container.mux(shown.encode(av.VideoFrame(32, 32, "yuv420p")))
            container.mux(shown.encode(None))
        for pts, array in pieces:
            frame = av.AudioFrame.from_ndarray(array, sample_format, layout)
            frame.sample_rate = rate
            frame.pts, frame.time_base = pts, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def as_ints(wave, dtype):
    """A float wave on an integer format's full scale."""
    info = np.iinfo(dtype)
    half = 2.0 ** (info.bits - 1)
    offset = half if info.kind == "u" else 0.0
    return np.clip(np.rint(wave * half + offset), info.min, info.max).astype(dtype)


def lag_of(got, want):
    """Samples by which ``got`` is later than ``want``, by cross-correlation."""
    n = 2 * max(got.size, want.size)
    product = np.fft.irfft(np.fft.rfft(got, n) * np.fft.rfft(want, n).conj(), n)
    best = int(np.argmax(product))
    return best - n if best > n // 2 else best


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


# --- scale -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [
        (np.uint8, 1 / 128),
        (np.int16, 1 / 32768),
        (np.int32, 1e-6),
        (np.float32, 1e-6),
        (np.float64, 1e-6),
    ],
)
@pytest.mark.parametrize("as_array", [False, True])
def test_every_sample_format_has_its_real_scale(dtype, tolerance, as_array):
    wave = tone()
    samples = wave.astype(dtype) if np.dtype(dtype).kind == "f" else as_ints(wave, dtype)
    got = load_audio((samples, RATE) if as_array else wav_bytes(samples, RATE))
    assert got.dtype == np.float32
    assert got.shape == wave.shape
    assert np.abs(got - wave).max() <= tolerance


@pytest.mark.parametrize("channels", [1, 2])
def test_64_bit_integers(channels):
    wave = tone()
    samples = np.stack([as_ints(wave, np.int64)] * channels, axis=1)
    assert np.abs(load_audio(wav_bytes(samples, RATE)) - wave).max() < 1e-6
    assert np.abs(load_audio((samples, RATE)) - wave).max() < 1e-6


def test_8_bit_and_16_bit_integers_in_arrays():
    wave = tone()
    assert np.abs(load_audio((as_ints(wave, np.int8), RATE)) - wave).max() <= 1 / 128
    assert np.abs(load_audio((as_ints(wave, np.uint16), RATE)) - wave).max() <= 1 / 32768


def test_planar_samples_are_not_interleaved(tmp_path):
    left, right = as_ints(tone(), np.int16), as_ints(tone(hz=700, peak=0.25), np.int16)
    file = encode(
        tmp_path / "a.m4a",
        [(n, np.stack([left, right])[:, n : n + 4096]) for n in range(0, 8000, 4096)],
        RATE,
        codec="alac",
        sample_format="s16p",
        layout="stereo",
    )
    want = (left.astype(float) + right) / 2 / 32768
    got = load_audio(file)
    assert np.abs(got[: want.size] - want).max() < 1e-4
    assert got.size == want.size


def test_quiet_int16_is_not_made_louder():
    quiet = np.array([1, -1] * 400, np.int16)
    assert np.abs(load_audio((quiet, RATE))).max() == pytest.approx(1 / 32768)
    assert np.abs(load_audio(wav_bytes(quiet, RATE))).max() == pytest.approx(1 / 32768)


@pytest.mark.parametrize("as_array", [False, True])
def test_float_peak_of_one_stays_and_small_overs_are_clipped(as_array):
    wave = np.float32([0.0, 1.0, -1.0, 0.25, 1.2, -1.3])
    got = load_audio((wave, RATE) if as_array else wav_bytes(wave, RATE))
    assert got.tolist() == [0.0, 1.0, -1.0, 0.25, 1.0, -1.0]


@pytest.mark.parametrize("peak", [3.0, 20_000.0])
@pytest.mark.parametrize("as_array", [False, True])
def test_floats_on_an_integer_scale_are_refused(peak, as_array):
    wave = np.rint(tone(peak=peak)).astype(np.float32)
    with pytest.raises(AudioError, match=r"divide them by the full range") as caught:
        load_audio((wave, RATE) if as_array else wav_bytes(wave, RATE), name="loud.wav")
    assert str(caught.value).startswith("loud.wav: ")


def test_a_loud_float_wave_that_is_no_integer_is_clipped():
    wave = tone(peak=2.0).astype(np.float32)
    assert np.array_equal(load_audio((wave, RATE)), np.clip(wave, -1, 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("as_array", [False, True])
def test_nan_and_infinity_are_refused(bad, as_array):
    wave = tone().astype(np.float32)
    wave[123] = bad
    with pytest.raises(AudioError, match="NaN or infinite"):
        load_audio((wave, RATE) if as_array else wav_bytes(wave, RATE))


# --- channels --------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_channels_are_averaged_and_the_length_stays(channels):
    waves = np.stack([tone(hz=200 * (c + 1), peak=0.3) for c in range(channels)], axis=1)
    want = waves.mean(axis=1)
    samples = as_ints(waves, np.int16)
    for source in (wav_bytes(samples, RATE), (samples, RATE), (samples.T, RATE)):
        got = load_audio(source)
        assert got.shape == want.shape
        assert np.abs(got - want).max() < 1e-4


def test_a_square_array_has_its_channels_second():
    square = np.float32([[0.2, 0.4], [0.6, 0.8]])
    assert np.allclose(load_audio((square, RATE)), [0.3, 0.7])


# --- rates -----------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("as_array", [False, True])
def test_any_rate_keeps_time_and_level(rate, as_array):
    samples = as_ints(tone(rate=rate), np.int16)
    got = load_audio((samples, rate) if as_array else wav_bytes(samples, rate))
    want = tone()
    assert got.size == pytest.approx(want.size, abs=1)
    middle = slice(500, -500)
    size = min(got.size, want.size)
    assert np.abs(got[:size] - want[:size])[middle].max() < 2e-3


def test_another_sample_rate_can_be_asked_for():
    assert load_audio((tone().astype(np.float32), RATE), sample_rate=48_000).size == 24_000
    with pytest.raises(ValueError, match=r"\(samples, rate\)"):
        load_audio((tone(), RATE, 1))
    with pytest.raises(ValueError, match="sample_rate"):
        load_audio((tone(), RATE), sample_rate=0)


def test_chunks_make_no_seams():
    wave = tone(25.0, rate=44_100).astype(np.float32)  # three chunks of an array
    assert np.abs(load_audio((wave, 44_100)) - tone(25.0))[500:-500].max() < 1e-3


def test_a_rate_that_changes_inside_a_file_keeps_the_length(tmp_path):
    parts = []
    for rate in (44_100, 22_050):
        samples = as_ints(tone(1.0, rate=rate), np.int16)
        file = encode(
            tmp_path / f"{rate}.mp3",
            [(0, samples[None])],
            rate,
            codec="libmp3lame",
            sample_format="s16p",
        )
        parts.append(file.read_bytes())
    single = [load_audio(part) for part in parts]
    both = load_audio(b"".join(parts))
    # The joined stream keeps the encoder padding that single files declare.
    assert both.size == pytest.approx(sum(s.size for s in single), abs=0.2 * RATE)


# --- containers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "codec", "sample_format"),
    [
        ("flac", "flac", "s16"),
        ("m4a", "aac", "fltp"),
        ("ogg", "libopus", "flt"),
        ("mp3", "libmp3lame", "fltp"),
        ("mkv", "aac", "fltp"),
    ],
)
def test_compressed_sound_is_neither_late_nor_early(tmp_path, suffix, codec, sample_format):
    rng = np.random.default_rng(0)
    wave = rng.standard_normal(48_000) * 0.1 * np.repeat(rng.random(48), 1000)
    wave = np.convolve(wave, np.ones(12) / 12, "same").astype(np.float32)
    samples = as_ints(wave, np.int16) if sample_format == "s16" else wave
    step = 960 if codec == "libopus" else 1152 if codec == "libmp3lame" else 1024
    pieces = [(n, samples[None, n : n + step]) for n in range(0, samples.size, step)]
    file = encode(
        tmp_path / f"a.{suffix}", pieces, 48_000, codec=codec, sample_format=sample_format
    )
    got = load_audio(file, sample_rate=48_000)
    assert abs(lag_of(got, wave)) <= 48
    # MP4 and MKV do not say how far the last AAC frame is filled.
    assert 48_000 - 48 <= got.size <= 48_000 + 1024 + 48
    assert np.corrcoef(got[:48_000], wave)[0, 1] > 0.8


def test_the_sound_track_of_a_video(tmp_path):
    samples = as_ints(tone(), np.int16)
    pieces = [(n, samples[None, n : n + 1152]) for n in range(0, samples.size, 1152)]
    file = encode(
        tmp_path / "a.avi", pieces, RATE, codec="pcm_s16le", sample_format="s16", picture=True
    )
    assert np.abs(load_audio(file) - tone()).max() < 1e-4


def test_bytes_give_the_same_as_the_path(tmp_path):
    data = wav_bytes(as_ints(tone(), np.int16), RATE)
    (tmp_path / "a.wav").write_bytes(data)
    want = load_audio(data)
    assert np.array_equal(load_audio(tmp_path / "a.wav"), want)
    assert np.array_equal(load_audio(str(tmp_path / "a.wav")), want)


def test_a_hole_in_the_timestamps_is_filled_with_silence(tmp_path):
    samples = as_ints(tone(), np.int16)[None]
    file = encode(
        tmp_path / "a.nut",
        [(0, samples[:, :4000]), (12_000, samples[:, 4000:])],
        RATE,
        codec="pcm_s16le",
        sample_format="s16",
    )
    got = load_audio(file)
    assert got.size == 16_000
    assert not got[4000:12_000].any()
    assert np.abs(got[12_000:] - tone()[4000:]).max() < 1e-4


def test_silence_that_a_file_leaves_out_comes_by_the_second(tmp_path):
    samples = as_ints(tone(), np.int16)[None]
    pieces = [(0, samples[:, :4000]), (44_000, samples[:, 4000:])]
    encode(tmp_path / "a.nut", pieces, RATE, codec="pcm_s16le", sample_format="s16")
    chunks = list(file_chunks(tmp_path / "a.nut", name="a.nut"))
    hole = [(c.samples.shape[1], c.start) for c in chunks if not c.samples.any()]
    assert hole == [(16_000, 0.25), (16_000, 1.25), (8_000, 2.25)]


def test_the_time_of_the_first_sample_is_reported(tmp_path):
    samples = as_ints(tone(), np.int16)[None]
    file = encode(
        tmp_path / "a.nut", [(8000, samples)], RATE, codec="pcm_s16le", sample_format="s16"
    )
    wave, start = load_track(file)
    assert wave.size == 8000
    assert start == pytest.approx(0.5, abs=1e-3)


def test_a_damaged_packet_does_not_lose_the_rest(tmp_path):
    samples = as_ints(tone(2.0, rate=44_100), np.int16)[None]
    file = encode(tmp_path / "a.mp3", [(0, samples)], 44_100, codec="libmp3lame",
                  sample_format="s16p")  # fmt: skip
    data = bytearray(file.read_bytes())
    third = len(data) // 3
    data[third : third + 600] = b"\xff\xfb" * 300
    assert load_audio(bytes(data)).size == pytest.approx(2 * RATE, abs=0.3 * RATE)


def test_a_container_that_breaks_off_keeps_what_came_before(monkeypatch):
    class Breaking:
        def __init__(self, container, good):
            self.container, self.streams, self.good = container, container.streams, good

        def demux(self, stream):
            for index, packet in enumerate(self.container.demux(stream)):
                if index == self.good:
                    raise av.error.InvalidDataError(av.error.tag_to_code(b"INDA"), "broken")
                yield packet

    real = audio_module._decoded
    data = wav_bytes(as_ints(tone(5.0), np.int16), RATE)
    good = 3
    monkeypatch.setattr(audio_module, "_decoded", lambda c, name: real(Breaking(c, good), name))
    part = load_audio(data)
    assert 0 < part.size < 5 * RATE
    assert np.abs(part - tone(5.0)[: part.size]).max() < 1e-4
    good = 0
    with pytest.raises(AudioError, match=r"cannot be decoded \(broken\)"):
        load_audio(data)


def test_a_cut_file_keeps_what_came_before():
    data = wav_bytes(as_ints(tone(1.0), np.int16), RATE)
    assert load_audio(data[: len(data) // 2]).size == pytest.approx(8000, abs=64)


def test_a_track_of_an_unknown_codec(tmp_path):
    samples = as_ints(tone(), np.int16)[None]
    file = encode(tmp_path / "a.mov", [(0, samples)], RATE, codec="pcm_s16le", sample_format="s16")
    data = file.read_bytes()
    assert data.count(b"sowt") == 1
    with pytest.raises(AudioError, match=r"^a\.mov: the sound track cannot be decoded") as caught:
        load_audio(data.replace(b"sowt", b"zzzz"), name="a.mov")
    assert "\n" not in str(caught.value)


def test_titles_in_old_alphabets_do_not_matter():
    data = wav_bytes(as_ints(tone(), np.int16), RATE)
    info = b"INFOINAM" + struct.pack("<I", 6) + b"Andr\xe9\0"
    data += b"LIST" + struct.pack("<I", len(info)) + info
    assert load_audio(data).size == 8000


def test_a_codec_that_overshoots_is_clipped(tmp_path):
    wave = tone(peak=20.0).astype(np.float32)
    pieces = [(n, wave[None, n : n + 1024]) for n in range(0, wave.size, 1024)]
    file = encode(tmp_path / "a.m4a", pieces, RATE, codec="aac", sample_format="fltp")
    got = load_audio(file)
    assert np.abs(got).max() == 1.0
    assert got.size == pytest.approx(wave.size, abs=1024)


def test_frames_without_timestamps_follow_each_other(monkeypatch):
    def frames(container, name):
        for pts in (0, None, 2000, None):
            frame = av.AudioFrame.from_ndarray(np.full((1, 1000), 8192, np.int16), "s16", "mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, pts, Fraction(1, RATE)
            yield frame

    monkeypatch.setattr(audio_module, "_decoded", frames)
    got = load_audio(wav_bytes(as_ints(tone(), np.int16), RATE))
    assert got.tolist() == [0.25] * 4000


@pytest.mark.parametrize("good_bytes", [0, 600, 400_000])
def test_a_disk_that_fails_is_told_and_shortens_nothing(monkeypatch, tmp_path, good_bytes):
    class Failing(io.BytesIO):
        def read(self, size=-1):
            if good_bytes == 0 or self.tell() > good_bytes:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return super().read(min(size, 4096))

    (tmp_path / "a.wav").write_bytes(wav_bytes(np.zeros(400_000, np.int16), RATE))
    data = (tmp_path / "a.wav").read_bytes()
    monkeypatch.setattr(Path, "open", lambda self, mode: Failing(data))
    with pytest.raises(AudioError, match=r"a\.wav: cannot be read \(input/output error\)"):
        load_audio(tmp_path / "a.wav")


# --- what is not an error, and what is ---------------------------------------------------


def test_silence_and_a_short_clip_are_accepted():
    assert not load_audio((np.zeros(1000, np.int16), RATE)).any()
    assert load_audio(wav_bytes(as_ints(tone(0.05), np.int16), RATE)).size == 800
    assert load_audio((np.float32([0.5]), 96_000)).size == 1


def test_missing_file(tmp_path):
    with pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        load_audio(tmp_path / "gone.wav")


def test_a_folder(tmp_path):
    with pytest.raises(AudioError, match="a folder, not a sound"):
        load_audio(tmp_path)


def test_a_path_below_a_file(tmp_path):
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(AudioError, match="cannot be opened"):
        load_audio(tmp_path / "a" / "b.wav")


def test_empty_file_and_bytes(tmp_path):
    (tmp_path / "a.wav").touch()
    with pytest.raises(AudioError, match=r"a\.wav: the file is empty"):
        load_audio(tmp_path / "a.wav")
    with pytest.raises(AudioError, match=r"^<bytes>: the file is empty"):
        load_audio(b"")
    with pytest.raises(AudioError, match=r"^upload: the file is empty"):
        load_audio(b"", name="upload")


@pytest.mark.parametrize(
    "content",
    [b"hello, this is no sound\n" * 50, "\ufeffSprache\r\n".encode(), "text\n".encode("utf-16")],
)
def test_text_named_wav(tmp_path, content):
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(AudioError, match=r"a\.wav: not a sound .*starts like text") as caught:
        load_audio(tmp_path / "a.wav")
    assert "\n" not in str(caught.value)


def test_text_cut_inside_a_character_is_still_text():
    text = ("a" + "é" * 400).encode()[: source_module.HEAD_BYTES]
    assert source_module.looks_like_text(text)
    assert not source_module.looks_like_text(b"plain \xff\xfe then not")
    assert not source_module.looks_like_text(b"\xff\xfe\x00\xd8\x00\xd8")  # no UTF-16


def test_a_speech_file_with_a_text_header_is_no_text():
    samples = as_ints(tone(), np.int16)
    header = (
        f"NIST_1A\n   1024\nchannel_count -i 1\nsample_rate -i {RATE}\n"
        f"sample_n_bytes -i 2\nsample_byte_format -s2 01\nsample_coding -s3 pcm\n"
        f"sample_count -i {samples.size}\nend_head\n"
    )
    got = load_audio(header.encode().ljust(1024) + samples.tobytes())
    assert np.abs(got - tone()).max() < 1e-4


def test_bytes_that_are_nothing():
    noise = np.random.default_rng(1).integers(128, 255, 4000, dtype=np.uint8).tobytes()
    with pytest.raises(AudioError, match=r"^<bytes>: not a sound") as caught:
        load_audio(b"\x00\x01" + noise)
    assert "\n" not in str(caught.value)


def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("secret.wav").write_bytes(wav_bytes(as_ints(tone(), np.int16), RATE))
    # The zero byte hides the playlist from the check for text.
    playlist = b"ffconcat version 1.0\n#\0\nfile secret.wav\n"
    with av.open(io.BytesIO(playlist)) as container:
        assert container.format.name == "concat"  # left to itself, FFmpeg opens the other file
    with pytest.raises(AudioError, match="not a sound"):
        load_audio(playlist)


def test_a_video_without_sound(tmp_path):
    file = tmp_path / "a.avi"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    with pytest.raises(AudioError, match=r"a\.avi: has no sound track"):
        load_audio(file)


def test_no_samples():
    with pytest.raises(AudioError, match=r"holds no sound samples"):
        load_audio(wav_bytes(np.zeros(0, np.int16), RATE))
    for shape in (0, (0, 2), (100, 0)):
        with pytest.raises(AudioError, match=r"^<array>: holds no sound samples"):
            load_audio((np.zeros(shape, np.float32), RATE))


@pytest.mark.parametrize("as_array", [False, True])
def test_too_long(as_array):
    samples = np.zeros(RATE + 1, np.int16)
    source = (samples, RATE) if as_array else wav_bytes(samples, RATE)
    with pytest.raises(AudioError, match=r"longer than 1 s"):
        load_audio(source, max_seconds=1)
    assert load_audio(source, max_seconds=1.01).size == RATE + 1


@pytest.mark.parametrize("rate", [0, -16_000, math.nan, 0.5])
def test_rates_that_cannot_be(rate):
    with pytest.raises(AudioError, match="sample rate"):
        load_audio((tone(), rate))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 2, 2)), "shape"),
        (np.float32(0.5), "shape"),
        (np.zeros(100, complex), "complex"),
        (np.zeros(100, bool), "bool"),
        (np.array(["a"]), "integers or floats"),
    ],
)
def test_arrays_that_are_no_sound(array, message):
    with pytest.raises(AudioError, match=message):
        load_audio((array, RATE))


def test_the_callers_array_is_left_alone():
    wave = np.float32([1.4, -1.4, 0.0, 0.3])
    got = load_audio((wave, RATE))
    got[:] = 0
    assert wave.tolist() == pytest.approx([1.4, -1.4, 0.0, 0.3])


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc")
def test_files_are_closed_on_every_path(tmp_path):
    good, bad, silent = tmp_path / "a.wav", tmp_path / "b.wav", tmp_path / "c.wav"
    good.write_bytes(wav_bytes(as_ints(tone(), np.int16), RATE))
    bad.write_bytes(b"text")
    silent.write_bytes(wav_bytes(np.float32([np.nan] * 9), RATE))
    load_audio(good)
    before = open_files()
    for _ in range(3):
        load_audio(good)
        for file in (bad, silent):
            with pytest.raises(AudioError):
                load_audio(file)
        with pytest.raises(AudioError):
            load_audio(good, max_seconds=0.01)
    assert open_files() == before


def test_importing_loads_no_decoder():
    code = (
        "import sys, stillspeak.media.audio, stillspeak.media.image, stillspeak.media.video\n"
        "print([m for m in ('av', 'PIL', 'soxr', 'cv2', 'torch') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


# --- mixing -------------------------------------------------------------------------------------


def test_sounds_are_added_without_clipping():
    quiet, longer = np.full(3, 0.25, np.float32), np.full(5, 0.5, np.float32)
    assert mixed([quiet, longer]).tolist() == [0.75, 0.75, 0.75, 0.5, 0.5]
    loud = mixed([tone(peak=0.9).astype(np.float32), tone(0.25, peak=-0.8).astype(np.float32)])
    assert np.abs(loud).max() <= HEADROOM
    loud = mixed([tone(peak=0.9).astype(np.float32), tone(0.25, peak=0.8).astype(np.float32)])
    assert np.abs(loud).max() == pytest.approx(HEADROOM)
    # One factor for all: nothing is bent.
    ratio = loud[4001:] / tone(peak=0.9)[4001:]
    assert ratio[np.abs(tone()[4001:]) > 0.1] == pytest.approx(HEADROOM / 1.7, rel=1e-3)
    assert mixed([np.zeros(0, np.float32), quiet]).tolist() == quiet.tolist()
