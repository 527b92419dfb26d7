"""Starting a run: what Fabric is told."""

import pytest
import torch
from torch import nn

from stillspeak.system.runtime import Precision
from stillspeak.training.distributed import launch_fabric


class Probe(nn.Module):
    """Notes what it is given and what a matrix product makes of it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.seen: list[torch.dtype] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.layer(x)
        self.seen += [x.dtype, y.dtype]
        return y


@pytest.mark.parametrize(
    ("name", "inside"), [("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)]
)
def test_inputs_stay_float32_and_products_round(name: str, inside: torch.dtype) -> None:
    fabric = launch_fabric(torch.device("cpu"), Precision(name, "asked for"))  # type: ignore[arg-type]
    probe = Probe()
    module, _ = fabric.setup(probe, torch.optim.SGD(probe.parameters(), 0.1))
    module(torch.full((2, 4), 100.3))
    assert probe.seen == [torch.float32, inside]
