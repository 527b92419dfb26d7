"""How near generated frames are to the real ones, and how sharp they are.

Frames are (T, H, W, 3) uint8 RGB; grey is 0.2125 R + 0.7154 G + 0.0721 B, in [0, 255].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH

Frames = npt.NDArray[np.uint8]

GREY = np.array([0.2125, 0.7154, 0.0721])

MOUTH_BOX = (72, 112, 24, 76)
"""Rows and columns of the mouth in a 128 x 96 crop, the ends exclusive: the region that
training looks at as well (``models/regions.py``)."""

SPECTRUM_SHARE = 1000
"""FDBM counts coefficients above the largest one divided by this."""

PIECE = 250
"""Frames that are processed together, so that memory does not grow with a video's length."""


def grey(frames: Frames) -> npt.NDArray[np.float64]:
    """(..., H, W, 3) uint8 -> (..., H, W) float64 in [0, 255]."""
    levels: npt.NDArray[np.float64] = frames.astype(np.float64) @ GREY
    return levels


def pieces(*videos: Frames, overlap: int = 0) -> Iterator[tuple[Frames, ...]]:
    """The same :data:`PIECE` frames of each video (T, ...), and ``overlap`` of the next ones."""
    for start in range(0, max(len(videos[0]) - overlap, 1), PIECE):
        yield tuple(video[start : start + PIECE + overlap] for video in videos)


def psnr(generated: Frames, real: Frames) -> float:
    """Peak signal-to-noise ratio in dB over the whole grey video; infinite for equal videos."""
    total = sum(float(_squares(a, b).sum()) for a, b in pieces(generated, real))
    error = total / generated[..., 0].size
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def psnr_frames(generated: Frames, real: Frames) -> float:
    """The same frame by frame, then the mean over frames that differ: a system that shows the still
    as its first frame has one without any error. Infinite if no frame differs.
    """
    errors = np.concatenate([_squares(a, b).mean(axis=(1, 2)) for a, b in pieces(generated, real)])
    errors = errors[errors > 0]
    return float(np.mean(10 * np.log10(255**2 / errors))) if len(errors) else float("inf")


def mouth(frames: Frames) -> Frames:
    """The mouth's part (:data:`MOUTH_BOX`) of aligned crops (T, H, W, 3)."""
    rows, columns = frames.shape[1] / FRAME_HEIGHT, frames.shape[2] / FRAME_WIDTH
    top, bottom, left, right = MOUTH_BOX
    return frames[
        :, int(top * rows) : int(bottom * rows), int(left * columns) : int(right * columns)
    ]


def ssim(generated: Frames, real: Frames, *, gaussian: bool = False) -> float:
    """Structural similarity, mean over grey frames: scikit-image's, with its uniform window of
    7 x 7 pixels and the sample covariance; or as Wang et al. 2004 had it, with a Gaussian window.
    """
    from skimage.metrics import structural_similarity

    settings: dict[str, Any] = {"data_range": 255.0}
    if gaussian:
        settings |= {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    compare: Any = partial(structural_similarity, **settings)
    pairs = zip(generated, real, strict=True)
    return float(np.mean([compare(grey(a), grey(b)) for a, b in pairs]))


def fdbm(frames: Frames) -> float:
    """Frequency domain blurriness (De and Masilamani 2013): the share in [0, 1] of a grey frame's
    Fourier coefficients that are larger than a thousandth of the largest one, mean over frames.
    """

    def count(some: Frames) -> float:
        spectrum = np.abs(np.fft.fft2(grey(some)))
        limit = spectrum.max(axis=(-2, -1), keepdims=True) / SPECTRUM_SHARE
        return float(np.sum(spectrum > limit))

    return _mean(count, frames)


def sharpness(frames: Frames) -> float:
    """Mean magnitude of the grey level's gradient, in levels a pixel; to compare within a clip."""

    def steepness(some: Frames) -> float:
        down, across = np.gradient(grey(some), axis=(-2, -1))
        return float(np.sum(np.hypot(down, across)))

    return _mean(steepness, frames)


def _squares(generated: Frames, real: Frames) -> npt.NDArray[np.float64]:
    """Squared errors (T, H, W) of grey frames."""
    return np.square(grey(generated) - grey(real))


def _mean(total: Callable[[Frames], float], frames: Frames) -> float:
    """A mean over all pixels, from the sums over pieces."""
    return sum(total(some) for (some,) in pieces(frames)) / frames[..., 0].size
