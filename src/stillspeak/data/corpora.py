"""Audiovisual corpora on disk: which clips there are, who speaks, what is said, which split.

A layout is a function that turns a corpus's root folder into a list of :class:`Clip`;
``LAYOUTS`` names them. Splits are disjoint by speaker, always.
"""

from collections.abc import Callable
from pathlib import Path

from stillspeak.data.clips import SPLITS, Clip, Rejected, Split, check_clips
from stillspeak.data.layouts.crema_d import find_crema_d
from stillspeak.data.layouts.folder import find_folder
from stillspeak.data.layouts.grid import Word, find_grid, grid_root, grid_text, read_alignment
from stillspeak.data.layouts.tcd_timit import find_tcd_timit

__all__ = [
    "LAYOUTS",
    "SPLITS",
    "Clip",
    "Rejected",
    "Split",
    "Word",
    "check_clips",
    "find_crema_d",
    "find_folder",
    "find_grid",
    "find_tcd_timit",
    "grid_root",
    "grid_text",
    "read_alignment",
]

LAYOUTS: dict[str, Callable[[str | Path], list[Clip]]] = {
    "grid": find_grid,
    "tcd-timit": find_tcd_timit,
    "crema-d": find_crema_d,
    "folder": find_folder,
}
"""Corpus layouts by name."""
