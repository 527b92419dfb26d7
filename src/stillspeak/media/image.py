"""A face picture in: any file, bytes, PIL picture or array becomes (H, W, 3) uint8 RGB, upright."""

from __future__ import annotations

import functools
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import numpy.typing as npt

from stillspeak.errors import ImageError, VideoGivenError
from stillspeak.media.source import (
    Wanted,
    film_or_sound,
    media_type,
    open_source,
    reason,
    source_name,
)

if TYPE_CHECKING:
    import PIL.Image
    import PIL.ImageFile

Picture = npt.NDArray[np.uint8]

IMAGE_FORMATS = "a JPEG, PNG, WebP, BMP or TIFF"
_WANTED = Wanted("a picture", IMAGE_FORMATS, ImageError)
MAX_PIXELS = 64_000_000

# Names of PIL's decoders; in small letters they are media types.
_DECODERS = {
    f"image/{name.lower()}": name for name in ("Jpeg", "Png", "WebP", "Bmp", "Tiff", "Gif")
}
# Cut-out portraits are made for a page, and a page is white; it is also what browsers and
# printers put behind them, so the user sees here what they have seen before.
_BACKGROUND = 255


def load_image(
    source: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
    *,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> Picture:
    """Read a picture as (H, W, 3) uint8 RGB in [0, 255], contiguous, upright and owned.

    The camera's rotation (EXIF) is applied, transparency is laid on white, 16-bit values
    are divided by 257 (never clipped), and of an animation the first frame is taken.
    Colour profiles are not applied.

    Args:
        source: a path or the bytes of a JPEG, PNG, WebP, BMP, TIFF or GIF; a PIL picture;
            or an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), uint8, uint16 or float
            in [0, 1], with RGB or RGBA channels.
        max_pixels: H * W accepted; checked on the header, before anything is decoded.
        name: what messages call the source; the path, or e.g. ``<bytes>``, by default.

    Raises:
        ImageError: missing, empty or text file; not a picture; truncated or damaged; too
            many pixels; an array of the wrong shape, type or range. A video is a VideoGivenError.
    """
    picture = load_cutout(source, max_pixels=max_pixels, name=name)
    return picture if picture.shape[2] == 3 else np.ascontiguousarray(picture[..., :3])


def load_cutout(
    source: str | Path | bytes | PIL.Image.Image | npt.NDArray[Any],
    *,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
) -> Picture:
    """As :func:`load_image`; of a picture with transparency (H, W, 4): the picture on white, and
    how much of each pixel is seen."""
    import PIL.Image

    label = source_name(source, name)
    if isinstance(source, np.ndarray):
        return _from_array(source, max_pixels, label)
    if isinstance(source, PIL.Image.Image):
        return _from_pil(source, max_pixels, label)
    with open_source(source, label, _WANTED) as file, _open_picture(file, label) as picture:
        return _from_pil(picture, max_pixels, label)


def _open_picture(file: BinaryIO, name: str) -> PIL.ImageFile.ImageFile:
    """Parse a picture's header; pixels are not decoded yet.

    The decoder is chosen here, not by ``PIL.Image.open``: that would warn about large pictures
    under a limit global to the process, and admit dozens of formats that no face picture has.
    """
    kind = media_type(file.read(16))
    file.seek(0)
    if kind not in _DECODERS:
        given = film_or_sound(file)
        if given == "video":
            raise VideoGivenError(
                f"{name}: a video, not a picture; for new speech in it: "
                "stillspeak dub VIDEO SPEECH -o OUT"
            )
        if given == "sound":
            raise ImageError(f"{name}: a sound, not a picture; the picture comes before the sound")
        raise ImageError(f"{name}: not a picture stillspeak can read; give {IMAGE_FORMATS}")
    if kind == "image/tiff":
        _quiet_tiff()
    plugin = import_module(f"PIL.{_DECODERS[kind]}ImagePlugin")
    decoder: type[PIL.ImageFile.ImageFile] = getattr(plugin, f"{_DECODERS[kind]}ImageFile")
    try:
        return decoder(file)
    except MemoryError:
        raise
    except Exception as problem:  # damaged files make the decoders raise any class there is
        raise _damaged(name, problem) from problem


@functools.cache
def _quiet_tiff() -> None:
    """Stop libtiff from printing what it finds wrong; PIL, which it is part of, has no switch."""
    import ctypes

    with suppress(OSError, AttributeError):  # another build of PIL, which then prints
        library = ctypes.CDLL(import_module("PIL._imaging").__file__)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)


def _from_pil(picture: PIL.Image.Image, max_pixels: int, name: str) -> Picture:
    """A PIL picture of any mode, decoded or not, as of :func:`load_cutout`."""
    _check_size(picture.height, picture.width, max_pixels, name)
    try:
        picture.load()
        array = _unpack(picture)
    except MemoryError:  # which says nothing about the picture
        raise
    except Exception as problem:  # as above: any class
        raise _damaged(name, problem) from problem
    if array is None:
        raise ImageError(
            f"{name}: pixels of {picture.mode} type are beyond 16 bits or outside [0, 1]; "
            "save it with 8 or 16 bits a channel"
        )
    # What PIL hands out is read-only and PIL's own.
    return np.require(_upright(on_white(array), picture), np.uint8, ["C", "W"])


def _unpack(picture: PIL.Image.Image) -> Picture | None:
    """Pixels as uint8 (H, W), (H, W, 3) or (H, W, 4); None where the range is not known."""
    if picture.mode.startswith("I"):
        # "I;16" and its byte orders; PIL also opens some 16-bit files as 32-bit "I".
        wide = np.asarray(picture)
        if wide.min() < 0 or wide.max() > 65535:
            return None
        return _eight_bits(wide)
    if picture.mode == "F":
        floats = np.asarray(picture)
        return _eight_bits(floats) if _is_unit(floats) else None
    if "transparency" in picture.info or picture.mode in ("LA", "La", "PA", "RGBa"):
        if picture.mode == "La":
            picture = picture.convert("LA")
        picture = picture.convert("RGBA")
    elif picture.mode not in ("RGB", "RGBA"):
        picture = picture.convert("RGB")
    return np.asarray(picture)


def _from_array(array: npt.NDArray[Any], max_pixels: int, name: str) -> Picture:
    """An array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) as of :func:`load_cutout`."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise ImageError(
            f"{name}: the array has shape {array.shape}; give (H, W), (H, W, 1), (H, W, 3) or "
            "(H, W, 4)"
        )
    if array.size == 0:
        raise ImageError(f"{name}: the array has shape {array.shape}: no pixels; give a picture")
    _check_size(array.shape[0], array.shape[1], max_pixels, name)
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise ImageError(f"{name}: the array holds NaN or infinite values; repair it")
        if not _is_unit(array):
            raise ImageError(
                f"{name}: the float array spans [{array.min():g}, {array.max():g}], not [0, 1]; "
                "scale it, or give uint8"
            )
    elif array.dtype not in (np.uint8, np.uint16):
        raise ImageError(
            f"{name}: the array is {array.dtype}; give uint8, uint16 or float in [0, 1]"
        )
    return on_white(_eight_bits(array))


def _is_unit(array: npt.NDArray[Any]) -> bool:
    """True where all floats lie in [0, 1], but for rounding; NaN does not."""
    return bool(array.min() >= -1e-3 and array.max() <= 1.0 + 1e-3)


def _eight_bits(array: npt.NDArray[Any]) -> Picture:
    """uint8, 16-bit integers or floats in [0, 1] as a new uint8 array of the same shape."""
    if array.dtype == np.uint8:
        return array.copy()
    if array.dtype.kind == "f":
        return np.asarray(np.rint(np.clip(array, 0.0, 1.0) * 255.0).astype(np.uint8))
    # 65535 = 257 * 255: dividing by 257 and rounding takes white to white.
    return np.asarray(((array.astype(np.uint32) + 128) // 257).astype(np.uint8))


def on_white(array: Picture) -> Picture:
    """Grey, RGB or RGBA uint8 as RGB (H, W, 3), or with transparency as (H, W, 4): laid on white,
    and how much is seen."""
    if array.ndim == 2 or array.shape[2] == 1:
        return np.repeat(array.reshape(*array.shape[:2], 1), 3, axis=2)
    if array.shape[2] == 3:
        return array
    rgb, alpha = array[:, :, :3], array[:, :, 3:].astype(np.uint16)
    # At most 255 * 255 + 127, which 16 bits hold.
    mixed = rgb * alpha + _BACKGROUND * (255 - alpha)
    opaque = ((mixed + 127) // 255).astype(np.uint8)
    return opaque if alpha.min() == 255 else np.dstack((opaque, array[:, :, 3]))


def _upright(array: Picture, picture: PIL.Image.Image) -> Picture:
    """Undo the EXIF orientation, 1 to 8, of a picture on its (H, W, C) pixels."""
    try:
        orientation = picture.getexif().get(0x0112, 1)
    except Exception:  # damaged metadata says nothing about the pixels, which are fine
        return array
    if orientation in (5, 6, 7, 8):
        array = array.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _check_size(height: int, width: int, max_pixels: int, name: str) -> None:
    if height * width > max_pixels:
        raise ImageError(
            f"{name}: {width}x{height} is {height * width / 1e6:.1f} megapixels, the limit is "
            f"{max_pixels / 1e6:g}; make the picture smaller"
        )


def _damaged(name: str, problem: Exception) -> ImageError:
    return ImageError(
        f"{name}: the picture is damaged or cut short ({reason(problem)}); "
        "export or download it again"
    )
