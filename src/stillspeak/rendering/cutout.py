"""Frames of a cut-out: a picture with transparency.

Everything is drawn on the picture as it is on white, and the transparency goes along as a fourth
channel. That is linear in both, so pixels of the two can be mixed and moved together. Only what is
shown at last has the colours without the white.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from stillspeak.rendering.raster import Picture

WHITE = 255
_FAINT = 24  # transparency, of 255, below which a colour is taken from those around
_BEYOND = 240  # colour of what is never seen; white has no room for a watermark
_CELL, _CELLS = 4, 5  # side of a cell in pixels, and cells across that "around" means


def cut_out(frame: Picture) -> Picture:
    """A frame (H, W, 4) uint8 whose colours lie on white, in place as RGBA whose colours are its
    own. Where nothing is seen they go on a little, so that none of the white comes in when an
    encoder or a player mixes pixels."""
    colour, alpha = frame[..., :3], frame[..., 3]
    faint = alpha < _FAINT
    around = _around(frame)
    soft = (alpha >= _FAINT) & (alpha < WHITE)
    own = _own(colour[soft], alpha[soft])
    colour[:] = np.where(faint[..., None], around, colour)
    colour[soft] = own
    return frame


def _around(frame: Picture) -> Picture:
    """(H, W, 3) the mean colour of what is seen around each pixel."""
    rows, columns = frame.shape[:2]
    size = max(columns // _CELL, 1), max(rows // _CELL, 1)
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    cells = cv2.blur(small, (_CELLS, _CELLS), borderType=cv2.BORDER_REPLICATE)
    colour = np.where(cells[..., 3:] > 2, _own(cells[..., :3], cells[..., 3]), _BEYOND)
    return np.asarray(cv2.resize(colour.astype(np.uint8), (columns, rows)), np.uint8)


def _own(colour: npt.NDArray[Any], alpha: npt.NDArray[Any]) -> Picture:
    """Colours (..., 3) without the white behind them, with alpha (...) of 0 to 255."""
    seen = np.maximum(alpha[..., None].astype(np.float32), 1) / WHITE
    own = WHITE + (colour.astype(np.float32) - WHITE) / seen
    return np.asarray(np.clip(np.rint(own), 0, WHITE), np.uint8)
