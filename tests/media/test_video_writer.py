"""Videos out: what is in the file, whole or not at all."""

import errno
import os
import resource
import weakref
from pathlib import Path

import av
import numpy as np
import PIL.Image
import pytest

from stillspeak.errors import OutputError, OutputExistsError, VideoError
from stillspeak.media import encoder, video_writer
from stillspeak.media.audio import load_audio
from stillspeak.media.video import VideoInfo, iter_frames, probe_video, read_clip
from stillspeak.media.video_writer import check_output, write_video
from support.videos import (
    KINDS,
    MOVIES,
    flat,
    lag_of,
    listing,
    moving,
    psnr,
    speech,
    values,
)

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
    real = Path.write_bytes

    def write(self, data):
        if "000003" in self.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", write)
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
    refuses(tmp_path / "a.avi", r"suffix \.avi .* give .* or \.gif, or a name without")
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
