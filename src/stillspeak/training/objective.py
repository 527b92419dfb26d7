"""What the generator is trained to do in one step, apart from how it is optimised."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillspeak.data.dataset import AudioBatch, Batch
from stillspeak.face.mouth import MOUTH_PAIRS
from stillspeak.models.generator import Generator
from stillspeak.training.config import RunConfig
from stillspeak.training.losses import gradient_l1, mouth_crop, region_weights, weighted_l1
from stillspeak.training.perceptual import PerceptualDistance


class ObjectiveResult(NamedTuple):
    """The loss to minimise, its terms by name, and the frames that were made, if any.

    frames: (B, K, 3, H, W) in [-1, 1]; discriminators look at them.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    frames: Tensor | None


def chosen_rows(values: Tensor, places: Tensor) -> Tensor:
    """Of each example (B, T, ...) the values at its places (B, K): (B, K, ...)."""
    return values[torch.arange(len(places), device=places.device).unsqueeze(1), places]


class GeneratorObjective(nn.Module):
    """The generator with its reconstruction loss. One ``forward`` does all that a step needs, so
    that a distributed wrapper around this module sees every parameter's use."""

    region: Tensor

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        self.config = config.objective
        self.generator = Generator(config.generator)
        # Serves the audio encoder's training only; released weights leave it out.
        self.mouth_head = nn.Linear(config.generator.context_dim, len(MOUTH_PAIRS))
        objective = config.objective
        region = region_weights(
            config.generator.height,
            config.generator.width,
            **{name: getattr(objective, name) for name in ("upper", "lower", "mouth", "eyes")},
        )
        self.register_buffer("region", region, persistent=False)
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
        config = self.config
        decoded = self.generator.decode(
            self.generator.prepare_still(batch.still),
            chosen_rows(context, batch.positions),
            chosen_rows(noise_encoding, batch.positions),
        )
        frames = decoded.frames.float()
        terms = {"l1": weighted_l1(frames, batch.frames, self.region), "mouth_shape": mouth}
        weights = {"l1": config.l1, "mouth_shape": config.mouth_shape}
        if config.gradient:
            terms["gradient"] = gradient_l1(frames, batch.frames, self.region)
            weights["gradient"] = config.gradient
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(
                mouth_crop(frames).flatten(0, 1), mouth_crop(batch.frames).flatten(0, 1)
            )
            weights["perceptual"] = config.perceptual
        loss = torch.stack([terms[name] * weight for name, weight in weights.items()]).sum()
        return ObjectiveResult(loss, terms, frames)
