"""Cut-outs: a picture's transparency moves with the head and arrives where the output keeps it."""

import io

import av
import cv2
import numpy as np
import PIL.Image
import pytest

from stillspeak.animate import Animator
from stillspeak.batch import BatchJob, run_jobs
from stillspeak.media.image import load_cutout, load_image
from stillspeak.media.marks.inspection import inspect_file
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.video import iter_frames
from stillspeak.media.video_writer import write_video
from stillspeak.rendering.cutout import cut_out
from stillspeak.stream import StreamSession
from support.animate import (
    RATE,
    lively,
    portrait,
    portrait_face,
    speech,
    use_shared_detector,
    write_wav,
)

CHECKER = (255, 0, 255)


@pytest.fixture(autouse=True)
def _detector(monkeypatch):
    use_shared_detector(monkeypatch)


@pytest.fixture(scope="module")
def animator():
    return Animator(lively("layers"))


def cutout(soft: int = 3) -> np.ndarray:
    """(256, 256, 4): the portrait's head and shoulders, cut out with a soft edge."""
    mask = np.zeros((256, 256), np.uint8)
    x, y = portrait_face().points[:, :2].mean(axis=0)
    cv2.ellipse(mask, (int(x), int(y) - 10), (72, 100), 0, 0, 360, 255, -1)
    cv2.rectangle(mask, (int(x) - 80, int(y) + 70), (int(x) + 80, 256), 255, -1)
    mask = cv2.GaussianBlur(mask, (0, 0), soft)
    return np.dstack((portrait(), mask))


def on(frame: np.ndarray, ground) -> np.ndarray:
    """(H, W, 3) float: an RGBA frame on a colour."""
    alpha = frame[..., 3:] / 255
    return frame[..., :3] * alpha + np.array(ground, float) * (1 - alpha)


def planes(path, decoder: str) -> list[np.ndarray]:
    """RGBA frames (H, W, 4) of a file, by a decoder that knows transparency."""
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        context = av.CodecContext.create(decoder, "r")
        context.extradata = stream.codec_context.extradata
        frames = []
        for packet in file.demux(stream):
            frames += context.decode(packet if packet.size else None)
        return [frame.reformat(format="rgba").to_ndarray() for frame in frames]


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tiff", "palette.png", "grey.png"])
def test_transparency_is_read_from_every_kind_of_file(tmp_path, name):
    given = PIL.Image.fromarray(cutout())
    if name == "palette.png":
        given = given.quantize(200)
    if name == "grey.png":
        given = given.convert("LA")
    options = {"lossless": True} if name == "a.webp" else {}
    given.save(tmp_path / name, **options)
    loaded = load_cutout(tmp_path / name)
    assert loaded.shape == (256, 256, 4)
    assert np.abs(loaded[..., 3].astype(int) - cutout()[..., 3]).mean() < 3
    # The colours are those of the picture on white, as load_image gives them.
    assert np.array_equal(loaded[..., :3], load_image(tmp_path / name))


def test_opaque_pictures_have_no_fourth_channel():
    solid = np.dstack((portrait(), np.full((256, 256), 255, np.uint8)))
    assert load_cutout(solid).shape == load_cutout(portrait()).shape == (256, 256, 3)
    turned = PIL.Image.fromarray(cutout())
    exif = turned.getexif()
    exif[0x0112] = 6
    file = io.BytesIO()
    turned.save(file, "PNG", exif=exif)
    assert np.array_equal(load_cutout(file.getvalue())[..., 3], np.rot90(cutout()[..., 3], -1))


def test_the_white_is_taken_out_again():
    given = cutout()
    shown = cut_out(load_cutout(given).copy())
    assert np.array_equal(shown[..., 3], given[..., 3])
    sure = given[..., 3] > 60
    assert np.abs(shown[..., :3].astype(int) - given[..., :3])[sure].max() <= 3
    for ground in ((0, 0, 0), CHECKER, (255, 255, 255)):
        assert np.abs(on(shown, ground) - on(given, ground)).max() <= 16
        assert np.abs(on(shown, ground) - on(given, ground)).mean() < 0.2
    # Beside the edge there is no white that an encoder could mix in.
    near = cv2.dilate((given[..., 3] > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    outside = near & (given[..., 3] == 0)
    edge = (given[..., 3] > 0) & (given[..., 3] < 128)
    apart = shown[outside][:, :3].mean(axis=0) - given[edge][:, :3].mean(axis=0)
    assert np.abs(apart).max() < 20


# --- moving --------------------------------------------------------------------------------------


def test_frames_are_the_opaque_ones_and_the_transparency_moves_along(animator):
    sound = (speech(1.0), RATE)
    made = animator.animate(cutout(), sound, head_motion=3.0)
    assert made.transparent
    frames = made.frames
    assert frames.shape == (25, 256, 256, 4)
    white = animator.animate(load_image(cutout()), sound, head_motion=3.0)
    assert not white.transparent and white.frames.shape[-1] == 3
    given = cutout()[..., 3].astype(int)
    for frame, plain in zip(frames, white, strict=True):
        # What is seen on white is what the picture on white would have shown.
        assert np.abs(on(frame, (255, 255, 255)) - plain).max() <= 16
        assert np.abs(on(frame, (255, 255, 255)) - plain).mean() < 0.1
    moved = np.abs(frames[..., 3].astype(int) - given)
    assert moved[-1].max() > 40


def test_the_edge_shows_no_fringe(animator):
    """A head of one colour stays of one colour on any ground, however it moves."""
    frames = animator.animate(cutout(), (speech(0.8), RATE), head_motion=3.0).frames
    rest = cut_out(load_cutout(cutout()).copy())
    edge = (rest[..., 3] > 20) & (rest[..., 3] < 235)
    usual = rest[edge][:, :3].mean(axis=0)
    for frame in frames[::5]:
        edge = (frame[..., 3] > 20) & (frame[..., 3] < 235)
        assert np.abs(frame[edge][:, :3].mean(axis=0) - usual).max() < 12


def test_two_faces_of_a_cutout(animator):
    both = np.concatenate([cutout(), cutout()], axis=1)
    made = animator.animate(both, (speech(0.4), RATE), face=0, others={1: None})
    assert made.frames.shape == (10, 256, 512, 4)


def test_crops_and_streams_are_opaque(animator):
    crop = animator.animate(cutout(), (speech(0.2), RATE), crop=True)
    assert crop.frames.shape[-1] == 3
    (frame,) = StreamSession(cutout(), animator=animator).idle(1)
    assert frame.picture.shape == (256, 256, 3)


# --- writing -------------------------------------------------------------------------------------


def sheet(count: int = 6) -> list[np.ndarray]:
    """RGBA frames whose edge moves."""
    return [np.roll(cut_out(load_cutout(cutout()).copy()), 4 * k, axis=1) for k in range(count)]


@pytest.mark.parametrize(
    ("name", "decoder", "form"),
    [("a.webm", "libvpx-vp9", "yuva420p"), ("a.mov", "prores", "yuva444p10le")],
)
def test_movies_keep_transparency(tmp_path, name, decoder, form):
    given = sheet()
    write_video(tmp_path / name, given, audio=speech(0.24), crf=10)
    with av.open(str(tmp_path / name)) as file:
        stream = file.streams.video[0]
        if name == "a.mov":
            assert stream.codec_context.format.name.startswith("yuva444p")
            assert stream.codec_context.codec_tag == "ap4h"
        else:
            assert stream.metadata.get("alpha_mode", stream.metadata.get("ALPHA_MODE")) == "1"
        assert file.streams.audio
    got = planes(tmp_path / name, decoder)
    assert len(got) == len(given)
    for frame, want in zip(got, given, strict=True):
        assert np.abs(frame[..., 3].astype(int) - want[..., 3]).mean() < 1.5
        assert np.abs(on(frame, CHECKER) - on(want, CHECKER)).mean() < 4
    # Players that know no transparency show the colours.
    assert len(list(iter_frames(tmp_path / name))) == len(given)


def test_a_folder_keeps_every_pixel(tmp_path):
    given = sheet(2)
    write_video(tmp_path / "frames", given)
    for k, want in enumerate(given):
        with PIL.Image.open(tmp_path / "frames" / f"{k:06d}.png") as picture:
            assert picture.mode == "RGBA"
            assert np.array_equal(np.asarray(picture), want)


def test_a_gif_shows_pixels_or_not(tmp_path):
    given = sheet(4)
    write_video(tmp_path / "a.gif", given)
    with PIL.Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 4
        for k, want in enumerate(given):
            gif.seek(k)
            frame = np.asarray(gif.convert("RGBA"))
            clear = np.abs(want[..., 3].astype(int) - 128) > 8
            assert np.array_equal((frame[..., 3] > 0)[clear], (want[..., 3] > 128)[clear])
            seen = want[..., 3] > 250
            assert np.abs(frame[..., :3].astype(int) - want[..., :3])[seen].mean() < 12


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.m4v"])
def test_other_formats_lay_frames_on_white(tmp_path, name):
    given = sheet(3)
    write_video(tmp_path / name, given, crf=4)
    for frame, want in zip(iter_frames(tmp_path / name), given, strict=True):
        assert np.abs(frame - on(want, (255, 255, 255))).mean() < 2


def test_a_movie_that_is_opaque_stays_as_it_was(tmp_path):
    write_video(tmp_path / "a.mov", [portrait()] * 2)
    with av.open(str(tmp_path / "a.mov")) as file:
        assert file.streams.video[0].codec_context.name == "h264"


def test_what_is_lost_is_said(tmp_path, animator):
    made = animator.animate(cutout(), (speech(0.2), RATE))
    for name in ("a.mp4", "a.mkv", "a.m4v"):
        (warning,) = made.lost_in(tmp_path / name)
        assert warning.code == "transparency_lost"
        assert ".webm, .mov, .gif and a folder of PNG files" in warning.message
    for name in ("a.webm", "a.mov", "a.gif", "frames"):
        assert made.lost_in(tmp_path / name) == ()
    PIL.Image.fromarray(cutout()).save(tmp_path / "a.png")
    write_wav(tmp_path / "s.wav", speech(0.2))
    job = BatchJob(2, tmp_path / "a.png", tmp_path / "s.wav", tmp_path / "b.mp4")
    (result,) = run_jobs(animator, [job])
    assert "transparency_lost" in [warning.code for warning in result.warnings]


# --- marks ---------------------------------------------------------------------------------------


def test_marks_are_in_the_colours_and_can_be_read(tmp_path):
    given = sheet(4)
    marks = Marks(credentials=False)
    marking = Marking(marks, "")
    for frame in given:
        marked = marking.frame(frame)
        assert np.array_equal(marked[..., 3], frame[..., 3])
        assert (marked[..., :3] != frame[..., :3]).any()
    write_video(tmp_path / "frames", given, marks=marks)
    assert inspect_file(tmp_path / "frames").watermark.identifier == marks.origin.identifier


def test_a_label_is_seen_where_the_picture_is_not():
    clear = np.zeros((256, 256, 4), np.uint8)
    label = Marks(watermark=False, credentials=False, label="AI-generated")
    labelled = Marking(label, "").frame(clear)
    plate = labelled[200:, :128, 3]
    assert plate.max() == 255 and labelled[:128, :, 3].max() == 0
    solid = np.dstack((portrait(), np.full((256, 256), 255, np.uint8)))
    for_opaque = Marking(label, "")
    plain = for_opaque.frame(portrait())
    assert np.abs(for_opaque.frame(solid)[..., :3].astype(int) - plain).max() <= 1
