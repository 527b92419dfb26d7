"""load_image turns every kind of picture into the same upright RGB, and refuses the rest."""

import io
import struct
import threading
import warnings
import wave
import zlib

import av
import numpy as np
import PIL.Image
import pytest
import tifffile

from stillspeak.errors import AudioError, ImageError, VideoGivenError
from stillspeak.media.audio import load_audio
from stillspeak.media.image import load_image

RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREYS = COLOURS[:, :, 0]


def saved(picture, kind="PNG", **options):
    """Bytes of a PIL picture or an array in a file format."""
    if isinstance(picture, np.ndarray):
        picture = PIL.Image.fromarray(picture)
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def png(width, height, depth, colour, rows):
    """A PNG written by hand, for the kinds that PIL does not write."""

    def chunk(tag, data):
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    packed = zlib.compress(b"".join(b"\0" + row for row in rows))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def smooth(height=64, width=48):
    """(H, W, 3) uint8 that survives lossy compression."""
    y, x = np.mgrid[:height, :width]
    return np.stack([2 * x + 40, 2 * y + 60, 200 - x - y], axis=2).astype(np.uint8)


# --- formats ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_formats_give_the_very_pixels(tmp_path, kind, options):
    data = saved(COLOURS, kind, **options)
    (tmp_path / "a").write_bytes(data)
    for source in (data, tmp_path / "a", str(tmp_path / "a")):
        got = load_image(source)
        assert got.dtype == np.uint8
        assert got.flags.c_contiguous
        assert got.flags.writeable
        assert np.array_equal(got, COLOURS)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"quality": 95}),
    ],
)
def test_lossy_formats_come_close(kind, options):
    got = load_image(saved(smooth(), kind, **options)).astype(int)
    assert np.abs(got - smooth()).max() <= 12


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_the_first_frame_of_an_animation(kind):
    first, second = np.full((8, 8, 3), 40, np.uint8), np.full((8, 8, 3), 220, np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(
        PIL.Image.fromarray(first),
        kind,
        save_all=True,
        append_images=[PIL.Image.fromarray(second)],
        **options,
    )
    assert np.array_equal(load_image(data), first)


def test_the_suffix_does_not_matter(tmp_path):
    (tmp_path / "a.jpg").write_bytes(saved(COLOURS))
    assert np.array_equal(load_image(tmp_path / "a.jpg"), COLOURS)


# --- orientation -----------------------------------------------------------------------

# EXIF 2.3, tag 0x0112: which side of the scene the stored row 0 and column 0 are.
STORED_FROM_UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],  # row 0 top, column 0 right
    3: lambda a: a[::-1, ::-1],  # bottom, right
    4: lambda a: a[::-1],  # bottom, left
    5: lambda a: a.transpose(1, 0, 2),  # left, top
    6: lambda a: a.transpose(1, 0, 2)[::-1],  # right, top
    7: lambda a: a.transpose(1, 0, 2)[::-1, ::-1],  # right, bottom
    8: lambda a: a.transpose(1, 0, 2)[:, ::-1],  # left, bottom
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_every_camera_orientation_is_undone(orientation, kind):
    upright = smooth(64, 48)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    options = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98}}.get(kind, {})
    stored = np.ascontiguousarray(STORED_FROM_UPRIGHT[orientation](upright))
    got = load_image(saved(stored, kind, exif=exif, **options))
    assert got.shape == upright.shape
    assert got.flags.c_contiguous
    assert np.abs(got.astype(int) - upright).max() <= (12 if kind == "JPEG" else 0)


@pytest.mark.parametrize("exif", [b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense"])
def test_damaged_metadata_costs_only_the_orientation(exif):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        got = load_image(saved(smooth(), "JPEG", quality=95, exif=exif))
    assert got.shape == smooth().shape


def test_metadata_that_cannot_be_read_at_all(monkeypatch):
    def getexif(self):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(PIL.Image.Image, "getexif", getexif)
    assert np.array_equal(load_image(PIL.Image.fromarray(COLOURS)), COLOURS)


def test_an_orientation_that_does_not_exist_is_ignored():
    exif = PIL.Image.Exif()
    exif[0x0112] = 9
    assert np.array_equal(load_image(saved(COLOURS, exif=exif)), COLOURS)


# --- pixel types -----------------------------------------------------------------------


def test_grey_and_black_and_white():
    assert np.array_equal(load_image(saved(GREYS)), np.dstack([GREYS] * 3))
    bits = PIL.Image.fromarray(GREYS > 128)
    want = np.where(GREYS > 128, 255, 0).astype(np.uint8)
    assert np.array_equal(load_image(saved(bits)), np.dstack([want] * 3))


def test_palette():
    picture = PIL.Image.fromarray(COLOURS).quantize(256)
    want = np.asarray(picture.convert("RGB"))
    assert np.abs(want.astype(int) - COLOURS).max() < 40
    assert np.array_equal(load_image(saved(picture)), want)


def test_alpha_is_laid_on_white():
    rgba = np.zeros((1, 3, 4), np.uint8)
    rgba[0, :, 0] = 200
    rgba[0, :, 3] = (255, 0, 51)
    want = [[[200, 0, 0], [255, 255, 255], [244, 204, 204]]]
    assert load_image(saved(rgba)).tolist() == want
    assert load_image(rgba).tolist() == want
    assert load_image(PIL.Image.fromarray(rgba)).tolist() == want


def test_grey_with_alpha_and_premultiplied_alpha():
    picture = PIL.Image.new("LA", (1, 1), (100, 51))
    assert load_image(saved(picture)).tolist() == [[[224, 224, 224]]]
    for mode in ("RGBa", "La"):
        source = picture if mode == "La" else picture.convert("RGBA")
        got = load_image(source.convert(mode)).astype(int)
        assert np.abs(got - 224).max() <= 1


def test_transparent_colours_of_palette_grey_and_rgb():
    palette = PIL.Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    assert load_image(saved(palette, transparency=0)).tolist() == [[[255] * 3, [40, 50, 60]]]
    grey = PIL.Image.fromarray(np.uint8([[7, 9]]))
    assert load_image(saved(grey, transparency=7)).tolist() == [[[255] * 3, [9] * 3]]
    rgb = PIL.Image.fromarray(np.uint8([[[1, 2, 3], [4, 5, 6]]]))
    assert load_image(saved(rgb, transparency=(4, 5, 6))).tolist() == [[[1, 2, 3], [255] * 3]]


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    picture = PIL.Image.fromarray(smooth()).convert("CMYK")
    options = {"quality": 95} if kind == "JPEG" else {}
    got = load_image(saved(picture, kind, **options)).astype(int)
    assert np.abs(got - smooth()).max() <= 12


def test_16_bit_grey_is_scaled_not_clipped():
    deep = np.uint16([[0, 1, 128, 129, 257, 300, 32768, 65000, 65535]])
    want = np.rint(deep / 257).astype(np.uint8)
    assert want.max() == 255
    assert set(want[0].tolist()) == {0, 1, 128, 253, 255}
    row = deep[0].astype(">u2").tobytes()
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, deep)
    big_endian = io.BytesIO()
    tifffile.imwrite(big_endian, deep, byteorder=">")
    for source in (
        png(9, 1, 16, 0, [row]),
        tiff.getvalue(),
        big_endian.getvalue(),
        PIL.Image.fromarray(deep),
        PIL.Image.fromarray(deep.astype(np.int32)),
        deep,
    ):
        got = load_image(source)
        assert got.shape == (1, 9, 3)
        assert np.array_equal(got[:, :, 1], want)


def test_16_bit_rgb_png_keeps_its_range():
    deep = np.uint16([[[0, 30_000, 65_535], [65_535, 257 * 77, 500]]])
    rows = [deep[0].astype(">u2").tobytes()]
    got = load_image(png(2, 1, 16, 2, rows)).astype(int)
    assert np.abs(got - deep / 257).max() <= 1


def test_float_pictures():
    values = np.float32([[0.0, 0.5, 1.0]])
    assert load_image(PIL.Image.fromarray(values))[0, :, 0].tolist() == [0, 128, 255]
    tiff = io.BytesIO()
    tifffile.imwrite(tiff, values)
    assert load_image(tiff.getvalue())[0, :, 2].tolist() == [0, 128, 255]


@pytest.mark.parametrize(
    "array",
    [np.float32([[0, 255]]), np.int32([[0, 70_000]]), np.int32([[-1, 5]]), np.float32([[np.nan]])],
)
def test_pixels_of_unknown_range_are_refused(array):
    with pytest.raises(ImageError, match="beyond 16 bits or outside"):
        load_image(PIL.Image.fromarray(array))


def test_a_pil_picture_is_left_alone():
    picture = PIL.Image.open(io.BytesIO(saved(COLOURS)))
    assert np.array_equal(load_image(picture), COLOURS)
    assert np.array_equal(np.asarray(picture), COLOURS)


# --- arrays ----------------------------------------------------------------------------


def test_arrays_of_every_shape_and_type():
    grey = np.dstack([GREYS] * 3)
    opaque = np.dstack([COLOURS, np.full((5, 7, 1), 255, np.uint8)])
    assert np.array_equal(load_image(GREYS), grey)
    assert np.array_equal(load_image(GREYS[:, :, None]), grey)
    assert np.array_equal(load_image(COLOURS), COLOURS)
    assert np.array_equal(load_image(opaque), COLOURS)
    assert np.array_equal(load_image(COLOURS.astype(np.uint16) * 257), COLOURS)
    for dtype in (np.float16, np.float32, np.float64):
        assert np.array_equal(load_image(COLOURS.astype(dtype) / dtype(255)), COLOURS)


def test_the_result_is_not_the_callers_array():
    mine = COLOURS.copy()
    got = load_image(mine)
    got[:] = 0
    assert np.array_equal(mine, COLOURS)
    view = load_image(COLOURS[::-1, ::2])
    assert view.flags.c_contiguous
    assert np.array_equal(view, COLOURS[::-1, ::2])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((4,), np.uint8), r"shape \(4,\)"),
        (np.zeros((4, 4, 2), np.uint8), r"shape \(4, 4, 2\)"),
        (np.zeros((3, 4, 4), np.uint8)[:, :, :2], "shape"),
        (np.zeros((1, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "no pixels"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.zeros((4, 4), bool), "bool"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), np.inf), "NaN or infinite"),
        (np.full((4, 4), 255.0), r"not \[0, 1\]"),
        (np.full((4, 4), -1.0), r"not \[0, 1\]"),
    ],
)
def test_arrays_that_are_no_picture(array, message):
    with pytest.raises(ImageError, match=message) as caught:
        load_image(array)
    assert str(caught.value).startswith("<ndarray>: ")
    assert "\n" not in str(caught.value)


# --- files that cannot be read -----------------------------------------------------------


def test_missing_folder_and_empty(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.png: no such file"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(ImageError, match="a folder, not a picture"):
        load_image(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(ImageError, match=r"a\.jpg: the file is empty"):
        load_image(tmp_path / "a.jpg")


def test_text_named_jpg(tmp_path):
    (tmp_path / "photo.jpg").write_text("this is not a picture\n" * 9)
    with pytest.raises(ImageError) as caught:
        load_image(tmp_path / "photo.jpg")
    assert str(caught.value) == (
        f"{tmp_path}/photo.jpg: not a picture stillspeak can read (the file starts like text); "
        "give a JPEG, PNG, WebP, BMP or TIFF"
    )


@pytest.mark.parametrize(
    "data", [b"\0\1\2\3" * 99, b"RIFF\x10\0\0\0WAVEfmt ", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"]
)
def test_files_of_other_kinds(data):
    with pytest.raises(ImageError, match=r"^up\.jpg: not a picture .* give a JPEG"):
        load_image(data, name="up.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.95])
def test_truncated_files(kind, keep):
    noise = RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = saved(noise, kind)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ImageError, match=r"^a\.x: the picture is damaged or cut") as caught:
            load_image(data[: int(len(data) * keep)], name="a.x")
    assert "\n" not in str(caught.value)


def test_a_jpeg_without_its_end_mark():
    with pytest.raises(ImageError, match="damaged or cut short"):
        load_image(saved(smooth(), "JPEG")[:-2])


# --- too many pixels ---------------------------------------------------------------------


def test_the_limit_is_on_the_product():
    assert load_image(COLOURS, max_pixels=35).shape == (5, 7, 3)
    for source in (COLOURS, saved(COLOURS), PIL.Image.fromarray(COLOURS)):
        with pytest.raises(ImageError, match=r"7x5 is 0\.0 megapixels, the limit is 3\.4e-05"):
            load_image(source, max_pixels=34)


def test_a_bomb_is_refused_by_its_header():
    # The pixels are not there at all: whoever decodes finds a damaged file instead.
    bomb = png(60_000, 60_000, 8, 2, [])
    before = PIL.Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match=r"60000x60000 is 3600\.0 megapixels, the limit is 64"):
            load_image(bomb)
        with pytest.raises(ImageError, match="damaged"):
            load_image(png(300, 300, 8, 2, []))
    assert before == PIL.Image.MAX_IMAGE_PIXELS


def test_pils_own_limit_is_neither_used_nor_changed(monkeypatch):
    # Another library may have set it for itself, in this or another thread.
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(load_image(saved(COLOURS)), COLOURS)
    assert PIL.Image.MAX_IMAGE_PIXELS == 4


def test_limits_of_several_threads_do_not_mix():
    data = saved(COLOURS)
    wrong = []

    def work(limit):
        for _ in range(50):
            try:
                load_image(data, max_pixels=limit)
                passed = True
            except ImageError:
                passed = False
            if passed != (limit >= 35):
                wrong.append(limit)

    threads = [threading.Thread(target=work, args=(limit,)) for limit in (34, 35, 10, 1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


# --- videos and sounds where a picture is wanted -------------------------------------------------


@pytest.mark.parametrize("name", ["a.mp4", "a.webm", "a.mkv", "a.mov", "a.avi", "a.ts", "a.flv"])
def test_a_video_points_to_the_command_for_videos(tmp_path, name):
    file = tmp_path / name
    codec = "libvpx" if name == "a.webm" else "mpeg2video" if name == "a.ts" else "mpeg4"
    with av.open(str(file), "w") as container:
        stream = container.add_stream("flv" if name == "a.flv" else codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for value in range(10):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 20 * value, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for given in (file, file.read_bytes()):
        with pytest.raises(VideoGivenError) as caught:
            load_image(given, name="clip")
        assert str(caught.value) == (
            "clip: a video, not a picture; for new speech in it: stillspeak dub VIDEO SPEECH -o OUT"
        )


def test_animated_pictures_are_pictures(tmp_path):
    frames = [PIL.Image.fromarray(np.full((32, 32, 3), v, np.uint8)) for v in (40, 200)]
    for name in ("a.gif", "a.webp", "a.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        assert np.abs(load_image(tmp_path / name).astype(int) - 40).max() <= 4


def test_a_sound_and_a_picture_that_changed_places_are_told(tmp_path):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(bytes(32_000))
    with pytest.raises(ImageError, match=r"a\.wav: a sound, not a picture; the picture comes bef"):
        load_image(tmp_path / "a.wav")
    for name in ("a.png", "a.jpg", "a.webp", "a.gif", "a.bmp", "a.tiff"):
        PIL.Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / name)
        with pytest.raises(AudioError, match="a picture, not a sound; the picture comes before"):
            load_audio(tmp_path / name)
