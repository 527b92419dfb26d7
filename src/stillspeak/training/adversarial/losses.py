"""Adversarial losses on logits.

Logits are positive for "real". Every function takes tensors of any shape and gives the mean.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from stillspeak.training.config import LossForm


def real_loss(logits: Tensor, form: LossForm) -> Tensor:
    """A discriminator's loss on real data.

    ``log`` and ``minimax``: -log D (paper, equation 1); ``hinge``: max(0, 1 - logit);
    ``least_squares``: (logit - 1)^2.
    """
    logits = logits.float()
    if form in ("log", "minimax"):
        return F.softplus(-logits).mean()
    if form == "hinge":
        return F.relu(1 - logits).mean()
    return (logits - 1).square().mean()


def fake_loss(logits: Tensor, form: LossForm) -> Tensor:
    """A discriminator's loss on data that is generated or out of sync.

    ``log`` and ``minimax``: -log(1 - D); ``hinge``: max(0, 1 + logit);
    ``least_squares``: logit^2.
    """
    logits = logits.float()
    if form in ("log", "minimax"):
        return F.softplus(logits).mean()
    if form == "hinge":
        return F.relu(1 + logits).mean()
    return logits.square().mean()


def generator_loss(logits: Tensor, form: LossForm) -> Tensor:
    """The generator's loss for a discriminator's logits on its data.

    ``log``: -log D; ``minimax``: log(1 - D), as equation 1 of the paper is printed;
    ``hinge``: -logit; ``least_squares``: (logit - 1)^2.
    """
    logits = logits.float()
    if form == "minimax":
        return -F.softplus(logits).mean()
    if form == "hinge":
        return -logits.mean()
    return real_loss(logits, form)


def accuracy(real: Tensor, fake: Tensor) -> Tensor:
    """Share of right decisions, real and fake counting half each."""
    return ((real > 0).float().mean() + (fake <= 0).float().mean()) / 2


def gradient_penalty(logits: Tensor, frames: Tensor) -> Tensor:
    """R1: mean over logits of the squared norm of d logit / d frames, on real data. No two logits
    look at the same frames."""
    (gradient,) = torch.autograd.grad(logits.sum(), frames, create_graph=True)
    return gradient.float().square().sum() / logits.numel()


def shifted_starts(
    starts: Tensor, low: int, high: int, least: int, random: torch.Generator
) -> Tensor:
    """For each stretch of sound another one, that is out of sync for certain.

    For starts (B,) int64 gives starts in [low, high], at least ``least`` (1 or more) away, all
    such places being equally likely.

    Raises:
        ValueError: there is no such place for one of them, or ``least`` is below 1.
    """
    if least < 1:
        raise ValueError("a shift by nothing is no shift")
    places = torch.arange(low, high + 1)
    allowed = (places[None] - starts.cpu()[:, None]).abs() >= least
    if not allowed.any(dim=1).all():
        raise ValueError(f"no place in {low} to {high} is {least} away from every start")
    chosen = torch.multinomial(allowed.double(), 1, generator=random).squeeze(1)
    return places[chosen].to(starts.device)
