"""Contact sheets: rows of pictures to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]

MARGIN = 6
"""White pixels around a labelled sheet and above its labels."""


def contact_sheet(rows: Sequence[Sequence[Picture]], *, gap: int = 2) -> Picture:
    """Lay pictures out in rows on white.

    Args:
        rows: pictures (H, W, 3) uint8, all of one size; rows may differ in length.
        gap: pixels between neighbours.

    Returns:
        (H', W', 3) uint8.
    """
    height, width, _ = rows[0][0].shape
    columns = max(len(row) for row in rows)
    sheet = np.full(
        (len(rows) * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8
    )
    for r, row in enumerate(rows):
        for c, picture in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            sheet[top : top + height, left : left + width] = picture
    return sheet


def labelled_sheet(
    rows: Sequence[tuple[str, Sequence[Picture]]],
    columns: Sequence[str] = (),
    *,
    size: int = 20,
    gap: int = 4,
) -> Picture:
    """Rows of pictures under their labels and under common column headings.

    Args:
        rows: label and pictures (H, W, 3) uint8 of each. All pictures are equally wide; those of
            one row are equally high.
        columns: a heading for each column, of one line or several.
        size: of the letters in pixels.
        gap: pixels between neighbours.

    Returns:
        (H', W', 3) uint8.
    """
    width = rows[0][1][0].shape[1] + gap
    lefts = [column * width for column in range(len(columns))]
    full = width * max(len(pictures) for _, pictures in rows) - gap
    bands = [_text_band(columns, lefts, full, size)] if columns else []
    for label, pictures in rows:
        row = contact_sheet([pictures], gap=gap)
        bands += [
            _text_band([label], [0], full, size),
            np.pad(row, ((0, 0), (0, full - row.shape[1]), (0, 0)), constant_values=255),
        ]
    return np.pad(
        np.concatenate(bands), ((0, MARGIN), (MARGIN, MARGIN), (0, 0)), constant_values=255
    )


def scale_to_width(picture: Picture, width: int) -> Picture:
    """Resize a picture (H, W, 3) uint8 to ``width`` columns, its shape kept."""
    from PIL import Image

    height = max(round(picture.shape[0] * width / picture.shape[1]), 1)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


def _text_band(texts: Sequence[str], lefts: Sequence[int], width: int, size: int) -> Picture:
    """A white stripe with texts at the given columns, as high as the one of most lines."""
    from PIL import Image, ImageDraw, ImageFont

    line = round(1.3 * size)
    height = MARGIN + line * max(text.count("\n") + 1 for text in texts)
    band = Image.new("RGB", (width, height), "white")
    draw, font = ImageDraw.Draw(band), ImageFont.load_default(size)
    for text, left in zip(texts, lefts, strict=True):
        for number, words in enumerate(text.split("\n")):
            draw.text((left, MARGIN + number * line), words, "black", font)
    return np.asarray(band)
