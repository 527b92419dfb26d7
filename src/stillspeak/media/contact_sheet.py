"""Contact sheets: rows of pictures to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Picture = npt.NDArray[np.uint8]


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
