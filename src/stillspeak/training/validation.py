"""How well a generator does on speakers it never saw, quickly enough to ask often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.data.cache import CachedClip, open_clip
from stillspeak.data.dataset import whole_clip
from stillspeak.face.mouth import mouth_distances
from stillspeak.media.audio import frame_windows
from stillspeak.models.generator import Generator
from stillspeak.models.pixels import from_model
from stillspeak.models.regions import crop_region
from stillspeak.training.losses import mouth_crop, psnr, weighted_l1

Picture = npt.NDArray[np.uint8]


class Validation(NamedTuple):
    """Scores, and per clip a still, some real frames and the generated ones."""

    metrics: dict[str, float]
    pictures: list[tuple[Picture, list[Picture], list[Picture]]]


@torch.no_grad()
def validate(
    generator: torch.nn.Module,
    clips: Sequence[CachedClip],
    *,
    device: torch.device,
    region: Tensor | None = None,
    shown: int = 5,
    max_pictures: int = 6,
) -> Validation:
    """Generate each clip from its first frame and its sound, and score every other frame.

    Args:
        generator: in evaluation mode.
        clips: of speakers outside the training split.
        device: where the generator is.
        region: weights (1, 1, 1, H, W) of ``reconstruction``; None weighs all alike.
        shown: frames a clip on the contact sheet.
        max_pictures: clips on the contact sheet.

    Returns:
        Means over clips: ``l1`` and ``psnr`` of the frame, ``reconstruction``, the L1 with the
        region's weights, ``mouth_psnr``, the same of the repeated still as
        ``still_mouth_psnr``, and ``eyes_psnr``.
    """
    assert isinstance(generator, Generator)
    sums: dict[str, list[float]] = {}
    pictures: list[tuple[Picture, list[Picture], list[Picture]]] = []
    weights = torch.ones((), device=device) if region is None else region
    for clip in clips:
        example = whole_clip(clip, generator.config, every=2)
        random = torch.Generator().manual_seed(0)
        noise = generator.draw_noise(1, example.windows.shape[1], random)
        context, noise_encoding, _ = generator.encode(
            example.windows.to(device), noise, generator.initial_state(1)
        )
        positions = example.positions[0].to(device)
        still = example.still.to(device)
        decoded = generator.decode(
            generator.prepare_still(still), context[:, positions], noise_encoding[:, positions]
        )
        real = example.frames.to(device)
        frames = decoded.frames.float()
        repeated = still.unsqueeze(1).expand_as(real)
        scores = {
            "l1": (frames - real).abs().mean(),
            "reconstruction": weighted_l1(frames, real, weights),
            "psnr": psnr(frames, real),
            "mouth_psnr": psnr(mouth_crop(frames), mouth_crop(real)),
            "eyes_psnr": psnr(crop_region(frames, "eyes"), crop_region(real, "eyes")),
            "still_mouth_psnr": psnr(mouth_crop(repeated), mouth_crop(real)),
        }
        for name, value in scores.items():
            sums.setdefault(name, []).append(float(torch.nan_to_num(value)))
        if len(pictures) < max_pictures:
            last = frames.shape[1] - 1
            chosen = torch.linspace(2, last - 1, shown).long().clamp_(0, last)
            sides = (list(from_model(side[0, chosen])) for side in (real, frames))
            pictures.append((from_model(still)[0], *sides))
    return Validation({name: float(np.mean(v)) for name, v in sums.items()}, pictures)


@torch.no_grad()
def validate_listening(
    generator: Generator, head: torch.nn.Module, clips: Sequence[CachedClip]
) -> dict[str, float]:
    """What an audio encoder has understood: how well the mouth can be told from what it says.

    ``head`` leads from the context encoding to the mouth's distances, as the warm start trains it.

    Returns:
        ``listening_r`` and ``listening_median``, mean and median over clips of the correlation of
        the inner lips' distance with the real one, and ``mouth_r``, the mean over all distances.
    """
    device = next(generator.parameters()).device
    inner, every = [], []
    for clip in clips:
        with open_clip(clip) as tensors:
            audio, points = tensors.get_tensor("audio"), tensors.get_tensor("landmarks")
        config = generator.config
        windows = torch.from_numpy(frame_windows(audio, config.window, config.hop).copy())
        state = generator.initial_state(1).context
        context, _ = generator.context_encoder(windows[None].to(device), state)
        told = head(context)[0].cpu().numpy()
        truth = mouth_distances(points)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = [np.corrcoef(told[:, i], truth[:, i])[0, 1] for i in range(truth.shape[1])]
        found = np.nan_to_num(found)
        inner.append(found[0])
        every.append(found.mean())
    return {
        "listening_r": float(np.mean(inner)),
        "listening_median": float(np.median(inner)),
        "mouth_r": float(np.mean(every)),
    }


@torch.no_grad()
def show_beside(
    generator: torch.nn.Module, clip: CachedClip
) -> tuple[list[Picture], npt.NDArray[np.float32]]:
    """A clip's real frames with the generated ones to their right, T of (H, 2 W, 3) uint8, and its
    sound (S,)."""
    assert isinstance(generator, Generator)
    device = next(generator.parameters()).device
    example = whole_clip(clip, generator.config)
    noise = generator.draw_noise(1, clip.frames, torch.Generator().manual_seed(0))
    frames = generator(example.still.to(device), example.windows.to(device), noise)
    pictures = np.concatenate((from_model(example.frames[0]), from_model(frames[0])), axis=2)
    margin = (generator.config.window - generator.config.hop) // 2
    own = example.windows[0, :, margin : margin + generator.config.hop]
    return list(pictures), own.flatten().numpy()
