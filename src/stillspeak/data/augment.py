"""Random changes of training examples: other faces, other light, other voices.

Pictures change alike in still and target, so that what the generator has to explain stays
speech and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE
from stillspeak.data.config import AugmentConfig
from stillspeak.models.layers import identity_grid


def augment_frames(frames: Tensor, config: AugmentConfig, random: np.random.Generator) -> Tensor:
    """Geometry and light of frames (B, F, 3, H, W) float32 in [-1, 1], one draw an example: its
    F frames change alike."""
    examples, count, _, height, width = frames.shape
    device = frames.device
    offsets = _offsets(examples, height, width, config, random, device)
    grid = identity_grid(height, width, device=device) + offsets.permute(0, 2, 3, 1)
    flat = frames.flatten(1, 2)  # the frames of an example share the grid: treat as channels
    moved = F.grid_sample(flat, grid, "bilinear", "border", align_corners=False)

    def draw(low: float, high: float, *shape: int) -> Tensor:
        drawn = random.uniform(low, high, (examples, *shape)).astype(np.float32)
        return torch.from_numpy(drawn).to(device)

    gamma = torch.exp2(draw(-config.gamma, config.gamma, 1, 1, 1, 1))
    gain = 1 + draw(-config.gain, config.gain, 1, 1, 1, 1)
    tint = 1 + draw(-config.colour, config.colour, 1, 3, 1, 1)

    unit = torch.unflatten(moved, 1, (count, 3)).add(1).mul_(0.5).clamp_(0, 1)
    return unit.pow_(gamma).mul_(gain * tint).clamp_(0, 1).mul_(2).sub_(1)


def changed_grid(grid: Tensor, config: AugmentConfig, random: np.random.Generator) -> Tensor:
    """Where a part of a 128 x 96 crop is taken from, with geometry changed as
    :func:`augment_frames` does it; (h, w, 2) float32, x and y in the crop."""
    offsets = _offsets(1, FRAME_HEIGHT, FRAME_WIDTH, config, random, torch.device("cpu"))
    size = torch.tensor([FRAME_WIDTH, FRAME_HEIGHT], dtype=torch.float32)
    at = ((grid + 0.5) * (2 / size) - 1)[None]
    moved = F.grid_sample(offsets, at, "bilinear", "border", align_corners=False)
    grid = grid + moved[0].permute(1, 2, 0) * (size / 2)
    if random.random() < config.mirror:
        grid = torch.stack((FRAME_WIDTH - 1 - grid[..., 0], grid[..., 1]), -1)
    return grid


def _offsets(
    examples: int,
    height: int,
    width: int,
    config: AugmentConfig,
    random: np.random.Generator,
    device: torch.device,
) -> Tensor:
    """Where each output pixel is taken from, as offsets in [-1, 1] units: (B, 2, H, W)."""
    angle = np.deg2rad(random.uniform(-config.rotate, config.rotate, examples))
    scale = np.exp(random.uniform(-1, 1, examples) * np.log1p(config.scale))
    shift = random.uniform(-config.shift, config.shift, (2, examples))

    def column(values: npt.NDArray[np.float64]) -> Tensor:
        return torch.from_numpy(values).to(device)[:, None, None]

    ys = torch.arange(height, dtype=torch.float64, device=device)[:, None] - (height - 1) / 2
    xs = torch.arange(width, dtype=torch.float64, device=device) - (width - 1) / 2
    cos, sin = column(np.cos(angle) * scale), column(np.sin(angle) * scale)
    offset_x = cos * xs - sin * ys - xs + column(shift[0])
    offset_y = sin * xs + cos * ys - ys + column(shift[1])
    offset = torch.stack((offset_x, offset_y), dim=1).float()
    if config.warp:
        # A handful of control points a side keeps the warp smooth: another face, not jelly.
        knots = random.normal(0, config.warp, (examples, 2, 5, 4)).astype(np.float32)
        control = torch.from_numpy(knots).to(device)
        offset += F.interpolate(control, (height, width), mode="bicubic", align_corners=True)
    return offset.mul_(offset.new_tensor([2 / width, 2 / height]).view(1, 2, 1, 1))


def draw_factor(strength: float, random: np.random.Generator) -> float:
    """A factor of speed or pitch between 1 / (1 + strength) and 1 + strength."""
    return float(np.exp(random.uniform(-1, 1) * np.log1p(strength)))


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


def augment_waveforms(
    audio: Tensor,
    sample_rate: int,
    config: AugmentConfig,
    random: np.random.Generator,
    noise: torch.Generator,
) -> Tensor:
    """:func:`augment_audio` of many stretches (B, S) at once, on their device, with voices and
    rooms; ``noise`` is on that device too."""
    count, length = audio.shape
    device = audio.device

    def column(values: npt.NDArray[np.generic]) -> Tensor:
        return torch.from_numpy(np.asarray(values, np.float32)).to(device)[:, None]

    def chosen(probability: float) -> Tensor:
        return column(random.random(count) < probability)

    if config.pitch:
        factor = np.exp(random.uniform(-1, 1, count) * np.log1p(config.pitch))
        factor[random.random(count) < 0.5] = 1.0
        audio = shift_spectrum(audio, column(factor), sample_rate)
    hertz = torch.fft.rfftfreq(length, 1 / sample_rate, device=device)
    spectrum = torch.fft.rfft(audio)
    if config.audio_eq_db:
        octaves = np.log2(sample_rate / 2 / 60.0)
        places = torch.log2(hertz.clamp_min(60.0) / 60.0) * (6 / octaves)
        below = places.floor().clamp(0, 5)
        decibel = column(random.normal(0, config.audio_eq_db, (count, 7)))[:, 0]
        low = below.long()
        spectrum = spectrum * 10 ** (
            torch.lerp(decibel[:, low], decibel[:, low + 1], (places - below)) / 20
        )
    if config.audio_reverb:
        # A direct sound and a tail of noise that dies away, a hundredth of a second late.
        tail = sample_rate // 2
        time = torch.arange(tail, device=device) / sample_rate
        decay = column(random.uniform(0.1, 0.5, count)) / 6.9  # seconds to a thousandth
        echo = torch.randn(count, tail, generator=noise, device=device) * torch.exp(-time / decay)
        echo[:, : sample_rate // 100] = 0
        echo = echo / echo.square().sum(dim=1, keepdim=True).sqrt()
        level = 10 ** (column(random.uniform(-18, 0, count)) / 20) * chosen(config.audio_reverb)
        wet = torch.fft.irfft(
            torch.fft.rfft(torch.fft.irfft(spectrum, length), length + tail)
            * torch.fft.rfft(echo * level, length + tail),
            length + tail,
        )
        audio = torch.fft.irfft(spectrum, length) + wet[:, :length]
    elif config.audio_eq_db:
        audio = torch.fft.irfft(spectrum, length)
    if config.audio_noise:
        ratio = column(config.audio_noise_db + random.uniform(0, 30, count))
        hiss = torch.randn(count, length, generator=noise, device=device)
        hum = torch.cumsum(hiss, dim=1)  # rooms hum more than they hiss
        hum = hum - F.avg_pool1d(hum[:, None], 401, 1, 200, count_include_pad=False)[:, 0]
        sound = torch.lerp(hiss, hum, chosen(0.5))
        power = audio.square().mean(dim=1, keepdim=True)
        scale = power * 10 ** (-ratio / 10) / sound.square().mean(dim=1, keepdim=True)
        audio = audio + sound * scale.clamp_min(1e-30).sqrt() * chosen(config.audio_noise)
    if config.audio_mask:
        longest = min(0.15 * sample_rate, length)
        extent = column(random.uniform(0.2, 1, count) * longest)
        first = column(random.uniform(0, length, count)) - extent / 2
        place = torch.arange(length, device=device)
        hidden = ((place >= first) & (place < first + extent)).float() * chosen(config.audio_mask)
        audio = audio * (1 - hidden)
    gain = 10 ** (column(random.uniform(-config.audio_gain_db, config.audio_gain_db, count)) / 20)
    return (audio * gain).clamp(-1, 1)


def shift_spectrum(audio: Tensor, factor: Tensor, sample_rate: int) -> Tensor:
    """Pitch and formants times a factor (B, 1) at the same pace, roughly: spectra of 32 ms are
    stretched. (B, S) float32 -> (B, S); a factor of 1 changes nothing."""
    size = 1 << (sample_rate * 32 // 1000 - 1).bit_length()
    window = torch.hann_window(size, device=audio.device)
    spectra = torch.stft(audio, size, size // 4, window=window, return_complex=True)
    bins = spectra.shape[1]
    places = torch.arange(bins, device=audio.device) / factor
    below = places.floor().clamp_max(bins - 2)
    share = (places - below).clamp(0, 1)[:, :, None]
    low = below.long()[:, :, None].expand(-1, -1, spectra.shape[2])
    moved = spectra.gather(1, low) * (1 - share) + spectra.gather(1, low + 1) * share
    moved = moved * (places <= bins - 1)[:, :, None]
    # Overlapping pieces no longer agree in phase: their level falls, and is restored.
    shifted = torch.istft(moved, size, size // 4, window=window, length=audio.shape[1])
    loss = audio.square().mean(dim=1, keepdim=True) / shifted.square().mean(
        dim=1, keepdim=True
    ).clamp_min(1e-20)
    return torch.where(factor == 1, audio, shifted * loss.clamp_max(100).sqrt())


def time_stretch(
    audio: npt.NDArray[np.float32], factor: float, sample_rate: int
) -> npt.NDArray[np.float32]:
    """Make sound ``factor`` times as long and keep its pitch, by overlap-add of similar pieces
    (WSOLA). (S,) float32 -> (round(S * factor),)."""
    return time_warp(audio, lambda at: at / factor, round(len(audio) * factor), sample_rate)


def time_warp(
    audio: npt.NDArray[np.float32],
    place: Callable[[float], float],
    wanted: int,
    sample_rate: int,
) -> npt.NDArray[np.float32]:
    """:func:`time_stretch` at a pace that may change: (S,) -> (wanted,) float32.

    ``place`` gives the sample of ``audio`` for a sample of the result; it rises from 0 or more.
    """
    hop = sample_rate // 80  # pieces of 25 ms, half of each shared with the next
    length, reach = 2 * hop, hop // 2
    pieces = wanted // hop + 2
    margin = length + reach
    padded = np.pad(audio, (margin, margin + length + hop))
    fade = np.hanning(length + 1)[:length].astype(np.float32)
    out = np.zeros((pieces + 1) * hop, np.float32)
    previous = 0
    for piece in range(pieces):
        ideal = min(round(margin + place(piece * hop)) - hop, len(padded) - length - reach)
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


def other_voice(
    audio: npt.NDArray[np.float32], factor: float, sample_rate: int = SAMPLE_RATE
) -> npt.NDArray[np.float32]:
    """Pitch and formants times a factor at the same pace, (S,) float32 -> (S,)."""
    # Played faster it is higher and shorter; stretched back it is only higher.
    count = round(len(audio) / factor)
    played = np.interp(factor * np.arange(count), np.arange(len(audio)), audio)
    stretched = time_stretch(played.astype(np.float32), len(audio) / count, sample_rate)
    fitted = np.zeros_like(audio)
    fitted[: len(stretched)] = stretched[: len(audio)]
    return fitted
