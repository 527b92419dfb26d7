"""``stillspeak.dub`` from file to file: what changes, and all that does not."""

import hashlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

import stillspeak
from stillspeak.dub import video as module
from stillspeak.errors import AudioError, ConfigError, OutputError, VideoError
from stillspeak.media.marks.inspection import inspect_file
from support.animate import write_wav
from support.dub import BOX, Painter, coloured, encode, samples, shown, sound
from support.film import clicks
from support.videos import listing

FPS = 25
LOUD = np.full(16_000, 0.5, np.float32)  # a second
X0, Y0, X1, Y1 = BOX


def dub(video, speech, output, painter=None, **options):
    return stillspeak.dub(video, speech, output, dubber=painter or Painter(), crf=0, **options)


def inside(planes: list[np.ndarray], box=BOX) -> list[np.ndarray]:
    """The samples that pixels of a box have a part in, plane by plane."""
    height, width = planes[0].shape
    marked = []
    for plane in planes:
        down, across = round(height / plane.shape[0]), round(width / plane.shape[1])
        mask = np.zeros(plane.shape, bool)
        x0, y0, x1, y1 = box
        mask[y0 // down : -(-y1 // down), x0 // across : -(-x1 // across)] = True
        marked.append(mask)
    return marked


def check_pixels(source: Path, output: Path, box=BOX) -> None:
    before, after = samples(source), samples(output)
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        for a, b, mask in zip(old, new, inside(old, box), strict=True):
            assert np.array_equal(a[~mask], b[~mask])
        x0, y0, x1, y1 = box
        painted = new[0][y0 + 1 : y1 - 1, x0 + 1 : x1 - 1]
        assert painted.min() >= 234 or painted.max() <= 17
        down, across = (new[0].shape[axis] // new[1].shape[axis] for axis in (0, 1))
        colour = new[1][y0 // down + 1 : y1 // down - 1, x0 // across + 1 : x1 // across - 1]
        assert np.ptp(colour) <= 1


# --- the picture --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["yuv420p", "yuvj420p", "yuv422p", "yuv444p"])
def test_beside_the_mouth_every_sample_is_the_source_s(tmp_path, kind):
    source = encode(tmp_path / "in.mp4", coloured(12), kind=kind)
    done = dub(source, (LOUD[:7680], 16_000), tmp_path / "out.mp4")
    assert (done.frames, done.generated, done.without_face) == (12, 12, 0)
    assert (done.width, done.height, done.fps) == (64, 48, 25.0)
    check_pixels(source, tmp_path / "out.mp4")


def test_frames_without_a_face_stay_as_they_are(tmp_path):
    source = encode(tmp_path / "in.mp4", coloured(12))
    painter = Painter(faceless=[0, 5, 11])
    done = dub(source, (LOUD[:7680], 16_000), tmp_path / "out.mp4", painter)
    assert (done.generated, done.without_face, done.reasons) == (9, 3, {"no face": 3})
    assert "9 of 12 frames" in done.summary() and "3 no face" in done.summary()
    before, after = samples(source), samples(tmp_path / "out.mp4")
    for number in (0, 5, 11):
        assert all(map(np.array_equal, before[number], after[number]))
    assert painter.bursts == [6, 6]


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64)])
def test_odd_sizes_get_a_last_row_or_column_twice(tmp_path, size):
    source = tmp_path / "in.mkv"
    encode(source, coloured(6, *size), kind="yuv420p", codec="ffv1", options={})
    done = dub(source, (LOUD[:3840], 16_000), tmp_path / "out.mp4")
    assert (done.height, done.width) == size
    height, width = size
    before, after = samples(source), samples(tmp_path / "out.mp4")
    for old, new in zip(before, after, strict=True):
        assert new[0].shape == (48, 64)
        mask = inside(old)
        for a, b, where in zip(old, new, mask, strict=True):
            cut = b[: a.shape[0], : a.shape[1]]
            assert np.array_equal(a[~where], cut[~where])
        assert np.array_equal(new[0][height - 1], new[0][47])
        assert np.array_equal(new[0][:, width - 1], new[0][:, 63])


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv"])
@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_video_stays_turned_and_is_drawn_upright(tmp_path, rotation, suffix):
    source = encode(tmp_path / f"in.{suffix}", coloured(6), rotation=rotation)
    output = tmp_path / f"out.{suffix}"
    done = dub(source, (LOUD[:3840], 16_000), output)
    assert (done.width, done.height) == ((48, 64) if rotation % 180 else (64, 48))
    with av.open(str(output)) as container:
        assert next(container.decode(video=0)).rotation in (rotation, rotation - 360)
    width, height = done.width, done.height
    lies = {
        180: (width - X1, height - Y1, width - X0, height - Y0),
        90: (height - Y1, X0, height - Y0, X1),
        -90: (Y0, width - X1, Y1, width - X0),
    }[rotation]
    check_pixels(source, output, lies)


def test_rate_clock_colours_and_shape_of_pixels_are_kept(tmp_path):
    times = [0, 0.04, 0.1, 0.3, 0.34, 0.46]
    tags = {"colorspace": 1, "color_primaries": 1, "color_trc": 1, "color_range": 1}
    source = encode(
        *(tmp_path / "in.mp4", coloured(6), times),
        tags=tags,
        aspect=Fraction(4, 3),
        base=Fraction(1, 90_000),
    )
    dub(source, (LOUD[:7000], 16_000), tmp_path / "out.mp4")
    assert shown(tmp_path / "out.mp4") == pytest.approx(times, abs=2e-5)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        frame = next(container.decode(stream))
        assert {tag: getattr(frame, tag) for tag in tags} == tags
        assert stream.sample_aspect_ratio == Fraction(4, 3)
    check_pixels(source, tmp_path / "out.mp4")


@pytest.mark.parametrize("fps", [1, Fraction(24000, 1001), 240])
def test_frames_ask_for_the_sound_of_their_own_time(tmp_path, fps):
    source = encode(tmp_path / "in.mp4", coloured(6), fps=fps)
    painter = Painter()
    done = dub(source, (LOUD[:160], 16_000), tmp_path / "out.mp4", painter)
    assert done.fps == pytest.approx(float(fps), rel=1e-4)
    wanted = [(k + 0.5) / float(fps) * 25 - 0.5 for k in range(6)]
    assert painter.places == pytest.approx(wanted, abs=2e-3)
    assert shown(tmp_path / "out.mp4") == shown(source)


def test_ten_bits_become_eight_and_it_is_said(tmp_path):
    source = tmp_path / "in.mkv"
    encode(source, coloured(4), kind="yuv420p10le")
    done = dub(source, (LOUD[:2560], 16_000), tmp_path / "out.mp4")
    assert done.notes == ("8 bits a colour instead of yuv420p10le",)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].codec_context.pix_fmt == "yuv420p"


@pytest.mark.e2e  # a mapping takes seconds to set up
def test_high_dynamic_range_becomes_standard_range_and_it_is_said(tmp_path):
    # A grey ramp in HLG: 75 % of the signal is what was white before.
    ramp = np.repeat(np.linspace(0, 255, 64).astype(np.uint8)[None, :, None], 48, 0)
    tags = {"color_trc": 18, "color_primaries": 9, "colorspace": 9, "color_range": 1}
    source = encode(
        tmp_path / "hlg.mp4",
        [np.repeat(ramp, 3, 2)] * 4,
        kind="yuv420p10le",
        tags=tags,
        rotation=90,
    )
    done = dub(source, (LOUD[:2560], 16_000), tmp_path / "out.mp4")
    assert done.notes == ("standard dynamic range (BT.709) instead of high (HLG)",)
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.color_trc, frame.color_primaries, frame.colorspace) == (1, 1, 1)
        assert (frame.format.name, frame.rotation) == ("yuv420p", 90)
    line = samples(tmp_path / "out.mp4")[0][0][2].astype(int)
    assert (np.diff(line) >= -1).all()
    assert line[0] <= 20 and 150 < line[47] < 200 < line[63] <= 237


def test_another_codec_and_container(tmp_path):
    source = encode(tmp_path / "in.mp4", coloured(6))
    done = dub(source, (LOUD[:3840], 16_000), tmp_path / "out.webm")
    assert done.generated == 6
    with av.open(str(tmp_path / "out.webm")) as container:
        assert container.streams.video[0].codec_context.name in ("vp9", "libvpx-vp9")
        assert container.streams.audio[0].codec_context.name in ("opus", "libopus")


# --- the sound ----------------------------------------------------------------------------------


def onset(wave: np.ndarray, rate: int) -> float:
    loud = np.abs(wave).max(axis=0)
    return float(np.argmax(loud > 0.3 * loud.max())) / rate


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "webm"])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_click_is_heard_with_the_frame_that_it_changes(tmp_path, suffix, rate):
    source = encode(tmp_path / "in.mp4", coloured(40))
    wave = clicks(rate, [0.601], 1.6)
    dub(source, write_wav(tmp_path / "a.wav", wave, rate), tmp_path / f"out.{suffix}")
    heard, own = sound(tmp_path / f"out.{suffix}")
    times = shown(tmp_path / f"out.{suffix}")
    lit = [planes[0][Y0 + 8, X0 + 8] > 128 for planes in samples(tmp_path / f"out.{suffix}")]
    assert lit.index(True) == 15 and sum(lit) == 1
    assert times[15] == pytest.approx(0.6, abs=1e-3)
    assert onset(heard, own) == pytest.approx(0.601, abs=2e-3)


def test_the_sound_keeps_its_rate_and_channels_and_ends_with_the_picture(tmp_path):
    source = encode(tmp_path / "in.mp4", coloured(25))
    both = np.stack([clicks(44_100, [0.2], 0.5), clicks(44_100, [0.3], 0.5)])
    dub(source, (both, 44_100), tmp_path / "out.mp4")
    wave, rate = sound(tmp_path / "out.mp4")
    assert rate == 44_100 and wave.shape[0] == 2
    assert [onset(one[None], rate) for one in wave] == pytest.approx([0.2, 0.3], abs=2e-3)
    with av.open(str(tmp_path / "out.mp4")) as container:
        track = container.streams.audio[0]
        assert float(track.duration * track.time_base) == pytest.approx(1.0, abs=1e-4)


@pytest.mark.parametrize(("fit", "frames"), [("loop", 40), ("freeze", 40), ("trim", 12)])
def test_longer_speech(tmp_path, fit, frames):
    source = encode(tmp_path / "in.mp4", coloured(12))
    speech = (np.tile(LOUD, 2)[: round(1.59 * 16_000)], 16_000)
    done = dub(source, speech, tmp_path / "out.mp4", fit=fit)
    assert (done.frames, done.seconds) == (frames, frames / FPS)
    assert shown(tmp_path / "out.mp4") == [round(k / FPS, 6) for k in range(frames)]
    with av.open(str(tmp_path / "out.mp4")) as container:
        track = container.streams.audio[0]
        assert float(track.duration * track.time_base) == pytest.approx(frames / FPS, abs=1e-4)
    before, after = samples(source), samples(tmp_path / "out.mp4")
    turns = [*range(12), *range(10, -1, -1), *range(1, 12), *range(10, 0, -1)]
    order = {"loop": turns, "freeze": [*range(12), *[11] * 28], "trim": turns}[fit]
    for place, planes in zip(order, after, strict=False):
        mask = inside(planes)[0]
        assert np.array_equal(planes[0][~mask], before[place][0][~mask])


def test_under_a_frame_that_stands_the_sound_goes_on(tmp_path):
    source = encode(tmp_path / "in.mp4", coloured(3), [0, 25, 25.04], base=Fraction(1, 1000))
    done = dub(source, (clicks(16_000, [24.0], 24.5), 16_000), tmp_path / "out.mp4")
    assert done.frames == 3 and shown(tmp_path / "out.mp4") == [0, 25, 25.04]
    assert onset(*sound(tmp_path / "out.mp4")) == pytest.approx(24.0, abs=2e-3)


def test_speech_of_a_video_keeps_its_place_beside_the_picture(tmp_path):
    talking = tmp_path / "talking.mkv"
    with av.open(str(talking), "w") as container:
        picture = container.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream("pcm_s16le", rate=16_000, layout="mono")
        for k, array in enumerate(coloured(20)):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        wave = (clicks(16_000, [0.1], 0.4) * 32767).astype(np.int16)[None]
        chunk = av.AudioFrame.from_ndarray(wave, "s16", "mono")
        chunk.sample_rate, chunk.pts, chunk.time_base = 16_000, 4800, Fraction(1, 16_000)
        container.mux(track.encode(chunk))
    source = encode(tmp_path / "in.mp4", coloured(20))
    dub(source, talking, tmp_path / "out.mp4")
    assert onset(*sound(tmp_path / "out.mp4")) == pytest.approx(0.4, abs=2e-3)


def test_the_old_sound_may_go_on_under_the_speech(tmp_path):
    source = encode(tmp_path / "silent.mp4", coloured(25))
    old = (0.5 * clicks(16_000, [0.5], 1.0), 16_000)
    dub(source, old, tmp_path / "old.mp4")
    new = (clicks(16_000, [0.2], 0.4), 16_000)
    peaks = {}
    for level in (0.0, 0.5, 1.0):
        output = tmp_path / f"{level}.mp4"
        dub(tmp_path / "old.mp4", new, output, keep_background_sound=level)
        wave, rate = sound(output)
        at = {t: np.abs(wave[0][round((t - 0.05) * rate) : round((t + 0.05) * rate)]).max()
              for t in (0.2, 0.5)}  # fmt: skip
        peaks[level] = at[0.5] / at[0.2]
    assert peaks[0.0] < 0.02
    assert peaks[0.5] == pytest.approx(0.25, rel=0.2)
    assert peaks[1.0] == pytest.approx(0.5, rel=0.2)
    with pytest.raises(AudioError, match=r"silent\.mp4: has no sound track"):
        dub(source, new, tmp_path / "no.mp4", keep_background_sound=1.0)


# --- what else a video holds --------------------------------------------------------------------


@pytest.fixture
def rich(tmp_path) -> Path:
    """A video with two sound tracks, subtitles, a chapter and a title."""
    path = tmp_path / "rich.mkv"
    (tmp_path / "a.srt").write_text(
        "1\n00:00:00,200 --> 00:00:00,700\nhello\n\n2\n00:00:01,100 --> 00:00:01,400\nworld\n"
    )
    with av.open(str(path), "w") as container, av.open(str(tmp_path / "a.srt")) as texts:
        picture = container.add_stream("libx264", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        tracks = [container.add_stream("aac", rate=48_000, layout="mono") for _ in range(2)]
        tracks[0].metadata["language"] = "eng"
        tracks[1].metadata.update({"language": "deu", "title": "Commentary"})
        lines = container.add_stream_from_template(texts.streams[0])
        lines.metadata["language"] = "fra"
        container.metadata["title"] = "A film"
        container.set_chapters(
            [{"id": 1, "start": 0, "end": 20, "time_base": Fraction(1, 25),
              "metadata": {"title": "One"}}]
        )  # fmt: skip
        for k, array in enumerate(coloured(50)):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24")
            frame.pts, frame.time_base = k, Fraction(1, 25)
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
        for number, track in enumerate(tracks):
            wave = clicks(48_000, [0.3 + 0.4 * number], 2.0)
            for at in range(0, 96_000, 1024):
                chunk = av.AudioFrame.from_ndarray(wave[None, at : at + 1024], "fltp", "mono")
                chunk.sample_rate, chunk.pts, chunk.time_base = 48_000, at, Fraction(1, 48_000)
                container.mux(track.encode(chunk))
            container.mux(track.encode(None))
        for packet in texts.demux():
            if packet.dts is not None:
                packet.stream = lines
                container.mux(packet)
    return path


def test_further_tracks_chapters_and_titles_are_kept(rich, tmp_path):
    done = dub(rich, (LOUD, 16_000), tmp_path / "out.mkv")
    assert done.notes == ()
    with av.open(str(tmp_path / "out.mkv")) as container:
        speech, comments = container.streams.audio
        assert comments.metadata["title"] == "Commentary"
        assert comments.metadata["language"] == "deu"
        assert "language" not in speech.metadata
        (texts,) = container.streams.subtitles
        assert texts.metadata["language"] == "fra"
        packets = [p for p in container.demux(texts) if p.size]
        assert [(bytes(p), p.pts) for p in packets] == [(b"hello", 200), (b"world", 1100)]
        assert container.metadata["title"] == "A film"
        assert "Partly synthetic" in container.metadata["COMMENT"]
        assert [one["metadata"]["title"] for one in container.chapters()] == ["One"]
    assert onset(*sound(tmp_path / "out.mkv", 1)) == pytest.approx(0.7, abs=2e-3)
    assert onset(*sound(tmp_path / "out.mkv", 0)) == pytest.approx(0.0, abs=2e-3)


def test_what_a_container_cannot_hold_is_left_out_and_said(rich, tmp_path):
    done = dub(rich, (LOUD, 16_000), tmp_path / "out.webm")
    assert done.notes == ("its aac track is left out", "its srt track is left out")
    with av.open(str(tmp_path / "out.webm")) as container:
        assert [one.type for one in container.streams] == ["video", "audio"]


def test_tracks_that_are_copied_end_with_a_trimmed_picture(rich, tmp_path):
    dub(rich, (LOUD[:8000], 16_000), tmp_path / "out.mkv", fit="trim")
    with av.open(str(tmp_path / "out.mkv")) as container:
        last = {}
        for packet in container.demux():
            if packet.size:
                last[packet.stream.index] = float(packet.pts * packet.time_base)
    assert len(last) == 4 and max(last.values()) < 0.53


@pytest.mark.parametrize("suffix", ["mp4", "m4v", "mov"])
def test_it_says_that_it_was_dubbed_and_with_what(tmp_path, suffix):
    source = encode(tmp_path / "in.mp4", coloured(8, 96, 128))
    output = tmp_path / f"out.{suffix}"
    speech = write_wav(tmp_path / "a.wav", LOUD[:5120])
    dub(source, speech, output)
    found = inspect_file(output)
    assert found.verdict == "intact"
    assert found.credentials.actions == ("c2pa.opened", "c2pa.edited")
    hashes = [one["sha256"] for one in found.credentials.ingredients]
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in (source, speech)]
    assert sorted(hashes) == sorted(digests)
    assert not found.watermark.present
    dub(source, speech, tmp_path / "bare.mp4", mark=False)
    assert inspect_file(tmp_path / "bare.mp4").verdict == "unmarked"


# --- mistakes -----------------------------------------------------------------------------------


def test_more_than_4k_is_refused(tmp_path):
    frames = [np.zeros((2400, 4400, 3), np.uint8)]
    big = encode(tmp_path / "big.mp4", frames, options={"preset": "ultrafast"})
    with pytest.raises(VideoError, match=r"big\.mp4: 4400x2400 is more than 4K"):
        dub(big, (LOUD, 16_000), tmp_path / "out.mp4")
    assert listing(tmp_path) == ["big.mp4"]


class Broken(Painter):
    def draw(self, frames, sound, appearance, *, stats=None):
        for number, one in enumerate(super().draw(frames, sound, appearance, stats=stats)):
            if number == 9:
                raise RuntimeError("out of paint")
            yield one


def test_what_fails_in_the_middle_leaves_nothing(tmp_path):
    source = encode(tmp_path / "in.mp4", coloured(60))
    with pytest.raises(RuntimeError, match="out of paint"):
        dub(source, (LOUD, 16_000), tmp_path / "out.mp4", Broken())
    data = source.read_bytes()
    cut = tmp_path / "cut.mkv"
    encode(cut, coloured(60))
    whole = cut.read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    kept = tmp_path / "kept.mp4"
    kept.write_bytes(b"of value")
    with pytest.raises(OutputError):
        dub(source, (LOUD, 16_000), kept)
    assert source.read_bytes() == data and kept.read_bytes() == b"of value"
    assert listing(tmp_path) == ["cut.mkv", "in.mp4", "kept.mp4"]


def test_options_are_checked_before_anything_is_read(tmp_path):
    for wrong in ({"fit": "stretch"}, {"keep_background_sound": 1.5}, {"face": -1}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            stillspeak.dub("nowhere.mp4", "nowhere.wav", tmp_path / "out.mp4", **wrong)


def test_progress_tells_of_both_stages(tmp_path):
    source = encode(tmp_path / "in.mp4", coloured(12))
    told = []
    dub(source, (LOUD, 16_000), tmp_path / "out.mp4", progress=lambda *now: told.append(now))
    assert told[0][0] == "looking" and told[-1] == ("dubbing", 25, 25)
    assert [done for stage, done, _ in told if stage == "dubbing"] == list(range(1, 26))
    assert module.PRESET
