"""Stretches of frames."""

import numpy as np
import numpy.typing as npt


def runs(where: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First frame, and the one after the last, of each run of true values (T,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(int)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
