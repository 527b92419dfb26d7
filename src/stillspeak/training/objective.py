"""What the generator is trained to do in one step, apart from how it is optimised."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillspeak.data.dataset import AudioBatch, Batch
from stillspeak.face.eyes import EYELIDS
from stillspeak.face.mouth import LIPS, MOUTH_PAIRS
from stillspeak.models.decoders import Motion, compose_mouth, resize, warp
from stillspeak.models.generator import Generator
from stillspeak.models.regions import crop_box, mouth_in_lower
from stillspeak.training.config import RunConfig
from stillspeak.training.losses import (
    amplitude_loss,
    flow_smoothness,
    forward_points,
    gradient_l1,
    landmark_loss,
    mouth_crop,
    newly_open,
    point_distances,
    region_weights,
    weighted_l1,
)
from stillspeak.training.perceptual import PerceptualDistance

LANDMARKS = 478

_LIP_POINTS = [13, 14, 0, 17]
_LIP_PAIRS = ((0, 1), (2, 3))
"""Inner and outer opening, as places in :data:`_LIP_POINTS`."""


class ObjectiveResult(NamedTuple):
    """The loss to minimise, its terms by name, and the frames that were made, if any.

    frames: (B, K, 3, H, W) in [-1, 1]; discriminators look at them.
    mouths: (B, K, 3, h, w) the mouth's box at twice the resolution, if the generator has a mouth
        branch and the batch knows the real ones.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    frames: Tensor | None
    mouths: Tensor | None = None


def fine_mouths(batch: Batch, size: tuple[int, int]) -> Tensor:
    """The real frames' mouths at twice the resolution of a crop of that size, (B, K, 3, h, w)."""
    return crop_box(batch.frame_mouths, mouth_in_lower(*size))


class GeneratorObjective(nn.Module):
    """The generator with its reconstruction loss, as one module.

    One ``forward`` does all that a step needs, so that a distributed wrapper around this
    module sees every parameter's use.
    """

    landmark_weights: Tensor
    region: Tensor

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config.objective
        self.generator = Generator(config.generator)
        # Serves the audio encoder's training only; released weights leave it out.
        self.mouth_head = nn.Linear(config.generator.context_dim, len(MOUTH_PAIRS))
        sizes = (config.generator.height, config.generator.width)
        objective = config.objective
        self.register_buffer(
            "region",
            region_weights(
                *sizes,
                upper=objective.upper,
                lower=objective.lower,
                mouth=objective.mouth,
                eyes=objective.eyes,
            ),
            persistent=False,
        )
        weights = torch.ones(LANDMARKS)
        weights[list(LIPS)] = objective.lip_landmarks
        weights[list(EYELIDS)] = objective.eyelid_landmarks
        self.register_buffer("landmark_weights", weights, persistent=False)
        self.perceptual: PerceptualDistance | None = None
        if objective.perceptual:
            self.perceptual = PerceptualDistance(Path(objective.perceptual_weights))

    def audio_parameters(self) -> list[nn.Parameter]:
        """What the audio warm start trains."""
        return [*self.generator.context_encoder.parameters(), *self.mouth_head.parameters()]

    def forward(self, batch: Batch | AudioBatch, noise: Tensor) -> ObjectiveResult:
        """The loss of a batch; noise (B, T, noise_dim) as the generator draws it."""
        state = self.generator.initial_state(batch.windows.shape[0])
        context, noise_encoding, _ = self.generator.encode(batch.windows, noise, state)
        mouth = F.smooth_l1_loss(self.mouth_head(context).float(), batch.mouth)
        if isinstance(batch, AudioBatch):
            return ObjectiveResult(mouth, {"mouth_shape": mouth}, None)
        return self._frames(batch, context, noise_encoding, mouth)

    def _frames(
        self, batch: Batch, context: Tensor, noise: Tensor, mouth: Tensor
    ) -> ObjectiveResult:
        config = self.config
        rows = torch.arange(len(batch.positions), device=context.device).unsqueeze(1)
        known = bool(batch.still_mouth.numel())  # finely
        still = self.generator.prepare_still(batch.still, batch.still_mouth if known else None)
        decoded = self.generator.decode(
            still,
            context[rows, batch.positions],
            noise[rows, batch.positions],
            batch.expression,
        )
        frames = decoded.frames.float()
        terms = {
            "l1": weighted_l1(frames, batch.frames, self.region),
            "mouth_shape": mouth,
        }
        weights = {"l1": config.l1, "mouth_shape": config.mouth_shape}
        if config.gradient:
            terms["gradient"] = gradient_l1(frames, batch.frames, self.region)
            weights["gradient"] = config.gradient
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(
                mouth_crop(frames).flatten(0, 1), mouth_crop(batch.frames).flatten(0, 1)
            )
            weights["perceptual"] = config.perceptual
        mouths = None
        if decoded.motion is not None:
            motion = decoded.motion
            size = (frames.shape[-2], frames.shape[-1])
            if motion.mouth is not None:
                if known:
                    mouths = compose_mouth(batch.still_mouth, motion.mouth, size)
                    truth = fine_mouths(batch, size)
                    alike = torch.ones((), device=mouths.device)
                    terms["fine"] = (mouths - truth).abs().mean() + config.gradient * gradient_l1(
                        mouths, truth, alike.expand(1, 1, 1, *mouths.shape[-2:])
                    )
                    weights["fine"] = config.fine
                motion = Motion(*motion.maps(size))
            moved = warp(batch.still, motion.flow)
            mask = resize(motion.mask, size)
            hidden = newly_open(batch.frame_points, batch.still_points, size)
            region = self.region
            if config.interior:
                terms["interior"] = ((1 - mask) * hidden).sum() / hidden.sum().clamp_min(1)
                weights["interior"] = config.interior
                # Lips stretched over an open mouth are closer to it than skin is: comparing
                # the warped still there would teach just that.
                region = region * (1 - hidden)
            terms["warped"] = weighted_l1(moved, batch.frames, region)
            terms["painted"] = weighted_l1(resize(motion.colour, size), batch.frames, self.region)
            terms["smooth"] = flow_smoothness(motion.flow)
            terms["mask"] = (mask * (1 - hidden)).mean()
            weights |= {
                "warped": config.warped,
                "painted": config.painted,
                "smooth": config.smooth,
                "mask": config.mask,
            }
            if config.landmarks:
                terms["landmarks"] = landmark_loss(
                    motion.flow,
                    batch.frame_points,
                    batch.still_points,
                    self.landmark_weights,
                    size,
                )
                weights["landmarks"] = config.landmarks
            if config.amplitude:
                lips = forward_points(motion, batch.still_points[:, _LIP_POINTS], size, rounds=3)
                terms["amplitude"] = amplitude_loss(
                    point_distances(lips, _LIP_PAIRS),
                    point_distances(batch.frame_points[:, :, _LIP_POINTS], _LIP_PAIRS),
                )
                weights["amplitude"] = config.amplitude
        loss = torch.stack([terms[name] * weight for name, weight in weights.items()]).sum()
        return ObjectiveResult(loss, terms, frames, mouths)
