"""A visible label in the corner of a video, such as "AI-generated"."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stillspeak.errors import ConfigError

if TYPE_CHECKING:
    import PIL.ImageFont

DEFAULT_TEXT = "AI-generated"
MAX_CHARACTERS = 80
_SMALLEST = 9
"""Font size in pixels below which letters run together."""
_SHARE = 0.034
"""Font size as a share of the frame's shorter side, where there is room."""
_OPACITY = 0.62
_DARK, _LIGHT = 18.0, 245.0


def check_label(text: str) -> str:
    """The text of a label, trimmed.

    Raises:
        ConfigError: empty, longer than :data:`MAX_CHARACTERS`, of several lines, or with
            characters that the font lacks: it has Latin, Greek and Cyrillic ones.
    """
    text = text.strip()
    if not text or len(text) > MAX_CHARACTERS:
        raise ConfigError(f"the label has {len(text)} characters; give 1 to {MAX_CHARACTERS}")
    if not text.isprintable():
        raise ConfigError("the label must be one line of printable characters")
    font = _font(24, text)
    missing = _shape(font, "\U0010fffd")
    for character in text:
        if not character.isspace() and _shape(font, character) == missing:
            raise ConfigError(
                f"the label's {character!r} is not in the font; Latin, Greek and Cyrillic are"
            )
    return text


class Label:
    """A label for frames of one size: light letters on a dark, rounded, see-through plate.

    Args:
        text: see :func:`check_label`.
        height, width: of the frames, in pixels.

    Raises:
        ConfigError: the text is no good, or the frames are too small for it.
    """

    def __init__(self, text: str, height: int, width: int) -> None:
        import PIL.Image
        import PIL.ImageDraw

        text = check_label(text)
        size = max(round(_SHARE * min(height, width)), 11)
        while True:
            font = _font(size, text)
            left, _, right, _ = font.getbbox(text)
            ascent, descent = font.getmetrics()
            beside, above = round(0.55 * size), round(0.28 * size)
            plate_width = round(right - left) + 2 * beside
            plate_height = ascent + descent + 2 * above
            margin = max(round(0.6 * size), 2)
            if plate_width + 2 * margin <= width and plate_height + 2 * margin <= height // 2:
                break
            size -= 1
            if size < _SMALLEST:
                raise ConfigError(
                    f"the label {text!r} does not fit frames of {width}x{height} pixels; give a "
                    "shorter one or a larger size"
                )
        # Drawn at four times the size, so that the plate's corners are smooth.
        large = PIL.Image.new("L", (4 * plate_width, 4 * plate_height), 0)
        PIL.ImageDraw.Draw(large).rounded_rectangle(
            (0, 0, 4 * plate_width - 1, 4 * plate_height - 1), radius=1.4 * size, fill=255
        )
        plate = large.resize((plate_width, plate_height), PIL.Image.Resampling.BOX)
        letters = PIL.Image.new("L", (plate_width, plate_height), 0)
        PIL.ImageDraw.Draw(letters).text((beside - left, above), text, font=font, fill=255)
        cover = _OPACITY * np.asarray(plate, np.float32)[..., None] / 255
        ink = np.asarray(letters, np.float32)[..., None] / 255
        self._keep = (1 - cover) * (1 - ink)
        self._add = _DARK * cover * (1 - ink) + _LIGHT * ink
        rows = slice(height - margin - plate_height, height - margin)
        self._box = rows, slice(margin, margin + plate_width)

    def draw(self, frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """A copy of a frame (H, W, 3) uint8, or RGBA, with the label at the bottom left."""
        labelled = frame.copy()
        part = labelled[self._box].astype(np.float32)
        colour, seen = part[..., :3], part[..., 3:] / 255
        if seen.size:  # the label is seen where the picture is not
            whole = seen * self._keep + 1 - self._keep
            ink = (colour * seen * self._keep + self._add) / np.maximum(whole, 1e-3)
            mixed = np.where(self._keep < 1, np.dstack((ink, 255 * whole)), part)
        else:
            mixed = colour * self._keep + self._add
        labelled[self._box] = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)
        return labelled


def _font(size: int, text: str) -> PIL.ImageFont.FreeTypeFont:
    import PIL.ImageFont

    # Both fonts are always there, so that a label is the same on every machine. Pillow's own is
    # the better one for small letters and has ASCII alone.
    if not text.isascii():
        found = find_spec("matplotlib")
        if found is not None and found.origin is not None:
            path = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
            if path.is_file():
                return PIL.ImageFont.truetype(str(path), size)
    font = PIL.ImageFont.load_default(size)
    if not isinstance(font, PIL.ImageFont.FreeTypeFont):
        raise ConfigError("labels need a Pillow with FreeType; install Pillow from its wheel")
    return font


def _shape(font: PIL.ImageFont.FreeTypeFont, character: str) -> bytes:
    mask = font.getmask(character)
    return bytes(mask) + bytes(str(mask.size), "ascii")
