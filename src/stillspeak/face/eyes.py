"""Eyes and brows in the 478-point mesh: which points they are, and how high the brows stand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

LEFT_EYELIDS = (33, 7, 163, 144, 145, 153, 154, 155, 133, 173, 157, 158, 159, 160, 161, 246)
RIGHT_EYELIDS = (263, 249, 390, 373, 374, 380, 381, 382, 362, 398, 384, 385, 386, 387, 388, 466)
"""The rims of the eyelids, image left and image right."""

LEFT_UPPER_LID = (33, 246, 161, 160, 159, 158, 157, 173, 133)
LEFT_LOWER_LID = (33, 7, 163, 144, 145, 153, 154, 155, 133)
RIGHT_UPPER_LID = (263, 466, 388, 387, 386, 385, 384, 398, 362)
RIGHT_LOWER_LID = (263, 249, 390, 373, 374, 380, 381, 382, 362)
"""The same rims apart, corners included."""

EYELIDS = LEFT_EYELIDS + RIGHT_EYELIDS

LEFT_BROW = (70, 63, 105, 66, 107, 46, 53, 52, 65, 55)
RIGHT_BROW = (300, 293, 334, 296, 336, 276, 283, 282, 295, 285)
"""Points of the eyebrows in the 478-point mesh, as seen in the picture."""

EYE_CORNERS = (33, 263)
"""The outer eye corners, image left and image right."""


def brow_heights(points: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Height of the eyebrows above the line through the outer eye corners, up positive: (T, 2), the
    brow at the picture's left first, from (T, 478, 2) landmarks and in their unit.
    """
    p = np.asarray(points, np.float64)
    left, right = p[:, EYE_CORNERS[0]], p[:, EYE_CORNERS[1]]
    along = right - left
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    heights = []
    for brow in (LEFT_BROW, RIGHT_BROW):
        offset = p[:, list(brow)].mean(axis=1) - left
        # y runs down, so up is the negative of the cross product.
        heights.append(along[:, 1] * offset[:, 0] - along[:, 0] * offset[:, 1])
    return np.stack(heights, axis=-1)


Outline = npt.NDArray[np.float64]


def eye_outlines(
    points: npt.NDArray[np.floating],
) -> tuple[tuple[Outline, Outline, Outline], tuple[Outline, Outline, Outline]]:
    """Of each eye, image left first, the upper lid's rim, the lower one's, and the brow: (K, 2)
    float64 each, from (478, 2) landmarks and in their unit.
    """
    p = np.asarray(points, np.float64)
    return (
        (p[list(LEFT_UPPER_LID)], p[list(LEFT_LOWER_LID)], p[list(LEFT_BROW)]),
        (p[list(RIGHT_UPPER_LID)], p[list(RIGHT_LOWER_LID)], p[list(RIGHT_BROW)]),
    )
