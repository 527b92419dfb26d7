"""Optimisers: one kernel or many, the same steps; and a saved state fits both."""

import copy

import pytest
import torch
from torch import nn

from stillspeak.training.optimization import load_optimizer


def stepped(layer: nn.Linear, optimizer: torch.optim.Optimizer, steps: int) -> torch.Tensor:
    for _ in range(steps):
        optimizer.zero_grad()
        layer(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
    return layer.weight.detach().clone()


def make(fused: bool) -> tuple[nn.Linear, torch.optim.Optimizer]:
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.weight, 0.5)
    nn.init.zeros_(layer.bias)
    groups = [{"params": list(layer.parameters()), "name": "frames"}]
    return layer, torch.optim.AdamW(groups, lr=0.1, fused=fused)


def test_a_fused_optimiser_takes_the_same_steps() -> None:
    assert torch.allclose(stepped(*make(True), 4), stepped(*make(False), 4), atol=1e-6)


@pytest.mark.parametrize("fused", [True, False])
def test_a_saved_state_goes_on_on_another_machine(fused: bool) -> None:
    layer, optimizer = make(not fused)
    stepped(layer, optimizer, 2)
    other, resumed = make(fused)
    other.load_state_dict(layer.state_dict())
    # Copied, as by a checkpoint: a loaded state is otherwise shared.
    load_optimizer(resumed, copy.deepcopy(optimizer.state_dict()), fused=fused)
    (group,) = resumed.param_groups
    assert (group["fused"], group["name"]) == (fused, "frames")
    assert optimizer.param_groups[0]["fused"] is not fused
    assert torch.allclose(stepped(other, resumed, 2), stepped(layer, optimizer, 2), atol=1e-6)
