"""What each discriminator is shown, what it learns from it, and what it tells the generator.

An adversary holds one discriminator and knows no optimizer. Its ``forward`` is the whole of a
discriminator's step, so that a distributed wrapper around it sees every parameter's use;
:meth:`Adversary.generator_terms` is the generator's side.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from stillspeak.data.dataset import Batch
from stillspeak.models.config import sync_frames
from stillspeak.models.discriminators import (
    FrameDiscriminator,
    SequenceDiscriminator,
    SyncDiscriminator,
)
from stillspeak.training.adversarial.losses import (
    accuracy,
    fake_loss,
    generator_loss,
    gradient_penalty,
    real_loss,
    shifted_starts,
)
from stillspeak.training.config import RunConfig
from stillspeak.training.objective import chosen_rows

Draw = tuple[Tensor, ...]
"""Which frames or stretches of a batch are looked at; the same ones for real and generated."""


class DiscriminatorOutput(NamedTuple):
    """A discriminator's loss and numbers worth logging: ``accuracy`` in [0, 1] and terms."""

    loss: Tensor
    terms: dict[str, Tensor]


class Adversary(nn.Module):
    """One discriminator. Subclasses say what it looks at; under ``name`` the configuration has
    its sizes, its learning rate, and its weight in the generator's loss."""

    name = ""
    kind: type[nn.Module]

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        sizes = getattr(config, f"{self.name}_discriminator")
        self.network = self.kind(sizes, config.generator)
        self.learning_rate: float = getattr(config.adversarial, f"{self.name}_learning_rate")
        self._settings = config.adversarial

    def draw(self, batch: Batch, random: torch.Generator) -> Draw:
        """Choose what is looked at in a batch."""
        raise NotImplementedError

    def look(self, batch: Batch, frames: Tensor, draw: Draw) -> tuple[Tensor, ...]:
        """The discriminator's inputs, from real or generated frames (B, K, 3, H, W)."""
        raise NotImplementedError

    def mismatched_negatives(self, batch: Batch, draw: Draw) -> list[tuple[Tensor, ...]]:
        """Real inputs that do not belong together and count as false."""
        return []

    def generator_terms(self, batch: Batch, frames: Tensor, draw: Draw) -> dict[str, Tensor]:
        """Terms of the generator's loss, by name, before weights."""
        logits = self.network(*self.look(batch, frames, draw))
        return {self.name: generator_loss(logits, self._settings.form)}

    def forward(
        self, batch: Batch, generated: Tensor, draw: Draw, penalise: bool = False
    ) -> DiscriminatorOutput:
        """The discriminator's loss for real examples and generated frames (B, K, 3, H, W) in
        [-1, 1], which are detached; with R1 if it is asked for here and configured."""
        form = self._settings.form
        # Real ones first: a discriminator that starts with fakes learns to reject everything.
        real = self.network(*self.look(batch, batch.frames, draw))
        fake = self.network(*self.look(batch, generated, draw))
        negatives = [self.network(*inputs) for inputs in self.mismatched_negatives(batch, draw)]
        false = [fake_loss(logits, form) for logits in (fake, *negatives)]
        loss = real_loss(real, form) + torch.stack(false).mean()
        right = accuracy(real, torch.cat((fake, *negatives)))
        terms = {"loss": loss.detach(), "accuracy": right}
        if penalise and self._settings.r1:
            penalty = self._penalty(batch, draw)
            terms["r1"] = penalty.detach()
            loss = loss + self._settings.r1 * self._settings.r1_every * penalty
        return DiscriminatorOutput(loss, terms)

    def _penalty(self, batch: Batch, draw: Draw) -> Tensor:
        device = batch.frames.device.type
        frames = batch.frames.detach().clone().requires_grad_()
        # In float32, and without cuDNN, whose GRU has no second derivative.
        with torch.autocast(device, enabled=False), torch.backends.cudnn.flags(enabled=False):
            logits = self.network(*self.look(batch, frames, draw))
            return gradient_penalty(logits, frames)


class FrameAdversary(Adversary):
    """Sees frames drawn uniformly from each clip, with the still as condition."""

    name = "frame"
    kind = FrameDiscriminator

    def draw(self, batch: Batch, random: torch.Generator) -> Draw:
        """Places (B, M) of the frames among the K decoded ones, no frame twice."""
        clips, count = batch.positions.shape
        wanted = min(self._settings.frames or count, count)
        order = torch.rand(clips, count, generator=random).argsort(dim=1)[:, :wanted]
        return (order.to(batch.frames.device),)

    def look(self, batch: Batch, frames: Tensor, draw: Draw) -> tuple[Tensor, ...]:
        """Stills and frames, each (B * M, 3, H, W)."""
        (places,) = draw
        still = batch.still.unsqueeze(1).expand(-1, places.shape[1], -1, -1, -1)
        return still.flatten(0, 1), chosen_rows(frames, places).flatten(0, 1)

    def generator_terms(self, batch: Batch, frames: Tensor, draw: Draw) -> dict[str, Tensor]:
        """See :class:`Adversary`; with feature matching, if the configuration asks for it."""
        if not self._settings.feature_matching:
            return super().generator_terms(batch, frames, draw)
        assert isinstance(self.network, FrameDiscriminator)
        logits, maps = self.network.judge(*self.look(batch, frames, draw))
        with torch.no_grad():
            _, truth = self.network.judge(*self.look(batch, batch.frames, draw))
        pairs = zip(maps, truth, strict=True)
        matching = torch.stack([(a.float() - b.float()).abs().mean() for a, b in pairs]).mean()
        loss = generator_loss(logits, self._settings.form)
        return {self.name: loss, "feature_matching": matching}


class SequenceAdversary(Adversary):
    """Sees whole clips with their sound."""

    name = "sequence"
    kind = SequenceDiscriminator

    def draw(self, batch: Batch, random: torch.Generator) -> Draw:
        """Lengths (B,) of the clips in frames."""
        clips, count = batch.positions.shape
        least = self._settings.sequence_min or count
        lengths = torch.randint(least, count + 1, (clips,), generator=random)
        return (lengths.to(batch.frames.device),)

    def look(self, batch: Batch, frames: Tensor, draw: Draw) -> tuple[Tensor, ...]:
        """Frames (B, K, 3, H, W), their audio windows (B, K, N) and lengths (B,)."""
        return frames, chosen_rows(batch.windows, batch.positions), draw[0]


class SyncAdversary(Adversary):
    """Sees 0.2 s of the face with 0.2 s of sound: in sync, shifted, or generated."""

    name = "sync"
    kind = SyncDiscriminator

    def __init__(self, config: RunConfig) -> None:
        super().__init__(config)
        self._frames = sync_frames(config.generator)
        self._hop = config.generator.hop

    def draw(self, batch: Batch, random: torch.Generator) -> Draw:
        """Per clip where the face's stretch begins among the decoded frames, where its sound
        begins among the windows, and where the wrong sound begins; each (B,)."""
        clips, count = batch.positions.shape
        start = torch.randint(0, count - self._frames + 1, (clips,), generator=random)
        start = start.to(batch.frames.device)
        sound = batch.positions[torch.arange(clips, device=start.device), start]
        last = batch.windows.shape[1] - self._frames
        wrong = shifted_starts(sound, 0, last, self._settings.sync_min_shift, random)
        return start, sound, wrong

    def look(self, batch: Batch, frames: Tensor, draw: Draw) -> tuple[Tensor, ...]:
        """Frames (B, F, 3, H, W) and their sound (B, F * hop)."""
        start, sound, _ = draw
        return chosen_rows(frames, self._places(start)), self._sound(batch, sound)

    def mismatched_negatives(self, batch: Batch, draw: Draw) -> list[tuple[Tensor, ...]]:
        """The real face with the sound of another moment."""
        face, _ = self.look(batch, batch.frames, draw)
        return [(face, self._sound(batch, draw[2]))]

    def _sound(self, batch: Batch, starts: Tensor) -> Tensor:
        """The waveform of F frames from each start on."""
        # The middle hop of each window is its own frame's sound, so they join without overlap.
        margin = (batch.windows.shape[-1] - self._hop) // 2
        own = batch.windows[..., margin : margin + self._hop]
        return chosen_rows(own, self._places(starts)).flatten(1)

    def _places(self, starts: Tensor) -> Tensor:
        return starts.unsqueeze(1) + torch.arange(self._frames, device=starts.device)


def make_adversaries(config: RunConfig) -> list[Adversary]:
    """The adversaries whose weight in the configuration is not zero."""
    kinds = (FrameAdversary, SequenceAdversary, SyncAdversary)
    return [kind(config) for kind in kinds if getattr(config.adversarial, kind.name)]
