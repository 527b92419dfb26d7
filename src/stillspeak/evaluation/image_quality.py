"""How near generated frames are to the real ones, and how sharp they are.

Frames are (T, H, W, 3) uint8 RGB; grey is 0.2125 R + 0.7154 G + 0.0721 B, in [0, 255].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from stillspeak.errors import VideoError

Frames = npt.NDArray[np.uint8]

GREY = np.array([0.2125, 0.7154, 0.0721])


def grey(frames: Frames) -> npt.NDArray[np.float64]:
    """(..., H, W, 3) uint8 -> (..., H, W) float64 in [0, 255]."""
    levels: npt.NDArray[np.float64] = frames.astype(np.float64) @ GREY
    return levels


def psnr(generated: Frames, real: Frames) -> float:
    """Peak signal-to-noise ratio in dB of grey frames, from the error over the whole video.

    Infinite for equal videos.

    Raises:
        VideoError: other numbers or sizes of frames.
    """
    _check(generated, real)
    error = float(np.mean(np.square(grey(generated) - grey(real))))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(generated: Frames, real: Frames) -> float:
    """Structural similarity of grey frames, mean over frames.

    scikit-image's, with its uniform window of 7 x 7 pixels.

    Raises:
        VideoError: other numbers or sizes of frames.
    """
    from skimage.metrics import structural_similarity

    _check(generated, real)
    pairs = zip(grey(generated), grey(real), strict=True)
    values = [structural_similarity(a, b, data_range=255.0) for a, b in pairs]  # type: ignore[no-untyped-call]
    return float(np.mean(values))


def sharpness(frames: Frames) -> float:
    """Mean magnitude of the grey level's gradient, in levels a pixel: edges, not contrast alone.

    Only relative to other frames of the same clip does it say something.
    """
    down, across = np.gradient(grey(frames), axis=(-2, -1))
    return float(np.mean(np.hypot(down, across)))


def _check(generated: Frames, real: Frames) -> None:
    if generated.shape != real.shape:
        raise VideoError(
            f"videos of {generated.shape[0]} frames {generated.shape[1:3]} and {real.shape[0]} "
            f"frames {real.shape[1:3]} cannot be compared"
        )
