"""Do sound and picture belong together, and by how much are they apart? (AV offset, confidence)

Measured as with SyncNet: windows of five frames and of the same 0.2 s of sound become vectors,
the sound is shifted by -10 to 10 frames, and the distances are averaged over the clip. The
network is ours (``models/syncnet.py``) and has only ever seen real clips.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.errors import VideoError, WeightsError
from stillspeak.evaluation.measures.image_quality import PIECE, pieces
from stillspeak.models.syncnet import (
    FRAME_SAMPLES,
    GREY,
    MAX_SHIFT,
    SYNC_FORMAT,
    WINDOW_FRAMES,
    SyncNet,
    SyncNetConfig,
    golden_sync,
    moving_parts,
    shift_distances,
    sync_grid,
)
from stillspeak.weights import file_sha256, load_network, scorers

MIN_FRAMES = WINDOW_FRAMES + 2 * MAX_SHIFT
"""Frames (1 s) below which the mean over a clip's windows is too much of a guess."""

SHIFTS = tuple(range(-MAX_SHIFT, MAX_SHIFT + 1))
"""The shifts that are compared, in frames, in the order of the distances."""


class SyncScore(NamedTuple):
    """offset: frames of 40 ms in -10..10 by which the sound comes later than the picture that it
    belongs to. confidence: median minus minimum of the distances, about 0 where nothing belongs
    together. distances: (21,) float32 in [0, 2], by shift from -10 to 10.
    """

    offset: int
    confidence: float
    distances: npt.NDArray[np.float32]


def score_distances(distances: npt.NDArray[np.float32]) -> SyncScore:
    """Offset and confidence of mean distances (21,); of equal minima that nearest to 0 counts."""
    nearest = min(range(len(SHIFTS)), key=lambda i: (float(distances[i]), abs(SHIFTS[i])))
    confidence = float(np.median(distances)) - float(distances[nearest])
    return SyncScore(SHIFTS[nearest], confidence, distances)


class SyncScorer:
    """Finds the shift between sound and aligned crops, with a network in evaluation mode."""

    def __init__(self, network: SyncNet, sha256: str) -> None:
        self._network = network
        self._grid = sync_grid()
        self.version = f"{SYNC_FORMAT} {sha256}"
        """Everything that decides the numbers: part of cache keys."""

    def measure(self, frames: npt.NDArray[np.uint8], audio: npt.NDArray[np.float32]) -> SyncScore:
        """Offset and confidence of a clip.

        Args:
            frames: (T, H, W, 3) uint8 aligned crops of 4 : 3, 25 a second.
            audio: (S,) float32 in [-1, 1] at 16 kHz, beginning with the first frame. The longer
                of the two is cut.

        Raises:
            VideoError: picture or sound is shorter than one second.
        """
        count = min(len(frames), len(audio) // FRAME_SAMPLES)
        if count < MIN_FRAMES:
            raise VideoError(
                f"{count} frames with sound are too short for an audio-visual offset; "
                f"{MIN_FRAMES} are needed"
            )
        sound = torch.from_numpy(np.ascontiguousarray(audio[: count * FRAME_SAMPLES], np.float32))
        with torch.inference_mode():
            seen = self._see(moving_parts(self._mouths(frames[:count])))
            heard = self._network.hear(sound[None])
            distances = shift_distances(seen, heard)[0].numpy()
        return score_distances(distances)

    def _see(self, mouths: Tensor) -> Tensor:
        """As the network's, piece by piece: windows that begin in one end in the next."""
        starts = range(0, mouths.shape[1] - WINDOW_FRAMES + 1, PIECE)
        some = (mouths[:, t : t + PIECE + WINDOW_FRAMES - 1] for t in starts)
        return torch.cat([self._network.see(piece) for piece in some], dim=1)

    def _mouths(self, frames: npt.NDArray[np.uint8]) -> Tensor:
        """(1, T, 32, 40) float32 in [0, 1]."""
        size = torch.tensor([96, 128], dtype=torch.float32)
        at = ((self._grid + 0.5) * (2 / size) - 1)[None]
        parts = []
        for (some,) in pieces(frames):
            grey = np.rint(some @ np.array(GREY, np.float32)).astype(np.uint8)
            flat = torch.from_numpy(grey).float().div_(255)[None]
            parts.append(F.grid_sample(flat, at, "bilinear", "border", align_corners=False))
        return torch.cat(parts, dim=1)


def load_sync_scorer(file: str | Path | None = None) -> SyncScorer:
    """The released sync network, or another one trained with ``configs/sync.toml``.

    Raises:
        WeightsError: no such file, or no sync network in it.
    """
    if file is None and "sync" not in scorers():
        raise WeightsError("no sync network is released with this version; name a file")
    path = scorers()["sync"].path if file is None else Path(file)
    network, _ = load_network(
        path,
        format_name=SYNC_FORMAT,
        build=lambda config: SyncNet(SyncNetConfig(**config)),
        golden=golden_sync,
    )
    return SyncScorer(network, file_sha256(path))
