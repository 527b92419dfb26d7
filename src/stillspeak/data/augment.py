"""Random changes of training examples: other faces, other light, other voices.

Pictures change alike in still and target, so that what the generator has to explain stays
speech and nothing else.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.data.config import AugmentConfig
from stillspeak.models.layers import identity_grid
from stillspeak.models.regions import LOWER_BOX


def augment_frames(
    frames: Tensor,
    points: Tensor,
    config: AugmentConfig,
    random: np.random.Generator,
    mouths: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Geometry and light, one draw an example.

    Args:
        frames: (B, F, 3, H, W) float32 in [-1, 1]; the F frames of an example change alike.
        points: (B, F, 478, 2) float32 landmarks in pixels.
        config: strengths.
        random: the source of all draws.
        mouths: (B, F, 3, h, w) float32 in [-1, 1]: :data:`~stillspeak.models.regions.LOWER_BOX`
            of the frames at a larger scale. They change as the frames do; no draw depends on
            whether they are given.

    Returns:
        Frames, landmarks and mouths, changed, of the same shapes; without mouths a tensor of
        the shape (B, F, 0, 0, 0).
    """
    examples, count, _, height, width = frames.shape
    offsets = torch.from_numpy(draw_offsets(examples, height, width, config, random))
    grid = identity_grid(height, width) + offsets.permute(0, 2, 3, 1)
    flat = frames.flatten(1, 2)  # the frames of an example share the grid: treat as channels
    moved = F.grid_sample(flat, grid, "bilinear", "border", align_corners=False)
    moved_points = _move_points(points, offsets, height, width)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        return torch.from_numpy(random.uniform(low, high, (examples, *shape)).astype(np.float32))

    gamma = torch.exp2(draw(-config.gamma, config.gamma, 1, 1, 1, 1))
    gain = 1 + draw(-config.gain, config.gain, 1, 1, 1, 1)
    tint = 1 + draw(-config.colour, config.colour, 1, 3, 1, 1)
    light = gain * tint

    def lit(pictures: Tensor) -> Tensor:
        unit = torch.unflatten(pictures, 1, (count, 3)).add(1).mul_(0.5).clamp_(0, 1)
        return unit.pow_(gamma).mul_(light).clamp_(0, 1).mul_(2).sub_(1)

    if mouths is None:
        return lit(moved), moved_points, frames.new_empty((examples, count, 0, 0, 0))
    moved_mouths = F.grid_sample(
        mouths.flatten(1, 2),
        _mouth_grid(offsets, mouths.shape[-2], mouths.shape[-1]),
        "bilinear",
        "border",
        align_corners=False,
    )
    return lit(moved), moved_points, lit(moved_mouths)


def _mouth_grid(offsets: Tensor, height: int, width: int) -> Tensor:
    """Where the pixels of a larger mouth are taken from, so that it moves as its frame does.

    Args:
        offsets: (B, 2, H, W) of the whole frame, in its [-1, 1] units.
        height, width: of the picture of ``LOWER_BOX``, at the same scale of the frame.

    Returns:
        (B, height, width, 2) float32 for ``grid_sample``, in the mouth picture's [-1, 1] units.
    """
    # The box as fractions of the frame, whatever its size.
    top, bottom, left, right = (
        edge / size for edge, size in zip(LOWER_BOX, (128, 128, 96, 96), strict=True)
    )
    rows, columns = round(height / (bottom - top)), round(width / (right - left))
    fine = F.interpolate(offsets, (rows, columns), mode="bilinear", align_corners=False)
    grid = identity_grid(rows, columns) + fine.permute(0, 2, 3, 1)
    first, start = round(top * rows), round(left * columns)
    grid = grid[:, first : first + height, start : start + width]
    # From -1 and 1 at the frame's edges to -1 and 1 at the box's.
    middle = torch.tensor([left + right - 1, top + bottom - 1])
    extent = torch.tensor([right - left, bottom - top])
    return (grid - middle) / extent


def draw_offsets(
    examples: int, height: int, width: int, config: AugmentConfig, random: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Where each output pixel is taken from, as offsets in [-1, 1] units: (B, 2, H, W)."""
    angle = np.deg2rad(random.uniform(-config.rotate, config.rotate, examples))
    scale = np.exp(random.uniform(-1, 1, examples) * np.log1p(config.scale))
    shift = random.uniform(-config.shift, config.shift, (2, examples))
    ys, xs = np.mgrid[:height, :width].astype(np.float64)
    xs, ys = xs - (width - 1) / 2, ys - (height - 1) / 2
    cos = (np.cos(angle) * scale)[:, None, None]
    sin = (np.sin(angle) * scale)[:, None, None]
    offset_x = cos * xs - sin * ys - xs + shift[0][:, None, None]
    offset_y = sin * xs + cos * ys - ys + shift[1][:, None, None]
    offset = torch.from_numpy(np.stack((offset_x, offset_y), axis=1)).float()
    if config.warp:
        # A handful of control points a side keeps the warp smooth: another face, not jelly.
        knots = random.normal(0, config.warp, (examples, 2, 5, 4)).astype(np.float32)
        offset += F.interpolate(
            torch.from_numpy(knots), (height, width), mode="bicubic", align_corners=True
        )
    offset *= torch.tensor([2 / width, 2 / height]).view(1, 2, 1, 1)
    result: npt.NDArray[np.float32] = offset.numpy()
    return result


def _move_points(points: Tensor, offsets: Tensor, height: int, width: int) -> Tensor:
    """Landmarks under the warp: the fixed point of p + offset(p) = q, in pixels."""
    size = torch.tensor([width, height], dtype=torch.float32)
    target = (points.flatten(1, 2) + 0.5) * (2 / size) - 1  # (B, F*478, 2)
    moved = target
    for _ in range(4):  # contracts by about 0.1 a round for warps of a few pixels
        at = F.grid_sample(offsets, moved.unsqueeze(1), "bilinear", "border", align_corners=False)
        moved = target - at.squeeze(2).transpose(1, 2)
    return ((moved + 1) * (size / 2) - 0.5).view_as(points)


def augment_audio(
    audio: npt.NDArray[np.float32],
    sample_rate: int,
    config: AugmentConfig,
    random: np.random.Generator,
) -> npt.NDArray[np.float32]:
    """Loudness, a smooth equaliser and noise. (S,) float32 -> (S,) float32 in [-1, 1]."""
    if config.audio_eq_db:
        spectrum = np.fft.rfft(audio)
        hertz = np.fft.rfftfreq(len(audio), 1 / sample_rate)
        octave = np.log2(np.maximum(hertz, 60.0) / 60.0)
        knots = np.linspace(0, np.log2(sample_rate / 2 / 60.0), 7)
        decibel = np.interp(octave, knots, random.normal(0, config.audio_eq_db, len(knots)))
        audio = np.fft.irfft(spectrum * 10 ** (decibel / 20), len(audio)).astype(np.float32)
    power = float(np.mean(np.square(audio)))
    if config.audio_noise and power > 0 and random.random() < config.audio_noise:
        ratio = config.audio_noise_db + random.uniform(0, 30)
        noise = random.standard_normal(len(audio)).astype(np.float32)
        if random.random() < 0.5:  # rooms hum more than they hiss
            noise = np.cumsum(noise, dtype=np.float32)
            noise -= np.convolve(noise, np.ones(400, np.float32) / 400, "same")
        noise *= np.sqrt(power * 10 ** (-ratio / 10) / max(float(np.mean(noise**2)), 1e-12))
        audio = audio + noise
    gain = 10 ** (random.uniform(-config.audio_gain_db, config.audio_gain_db) / 20)
    changed: npt.NDArray[np.float32] = np.clip(audio * gain, -1, 1).astype(np.float32)
    return changed


def time_stretch(
    audio: npt.NDArray[np.float32], factor: float, sample_rate: int
) -> npt.NDArray[np.float32]:
    """Make sound longer or shorter and keep its pitch, by overlap-add of similar pieces (WSOLA).

    Args:
        audio: (S,) float32.
        factor: length of the result relative to ``audio``.
        sample_rate: samples a second.

    Returns:
        (round(S * factor),) float32.
    """
    hop = sample_rate // 80  # pieces of 25 ms, half of each shared with the next
    length, reach = 2 * hop, hop // 2
    wanted = round(len(audio) * factor)
    pieces = wanted // hop + 2
    margin = length + reach
    padded = np.pad(audio, (margin, margin + length + hop))
    fade = np.hanning(length + 1)[:length].astype(np.float32)
    out = np.zeros((pieces + 1) * hop, np.float32)
    previous = 0
    for piece in range(pieces):
        ideal = min(round(margin + piece * hop / factor) - hop, len(padded) - length - reach)
        start = ideal  # the first piece is centred on the first sample
        if piece:
            # Of all pieces near the ideal place take the one that goes on like the last one.
            natural = padded[previous + hop : previous + hop + length]
            low = max(ideal - reach, 0)
            near = padded[low : ideal + reach + length]
            likeness = np.correlate(near, natural, "valid")
            power = np.cumsum(np.pad(near**2, (1, 0)))
            likeness /= np.sqrt(power[length:] - power[:-length] + 1e-6)
            start = low + int(np.argmax(likeness))
        out[piece * hop : piece * hop + length] += fade * padded[start : start + length]
        previous = min(start, len(padded) - length - hop)
    return out[hop : hop + wanted]
