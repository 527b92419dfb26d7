"""`training.channels_last`: another order in memory, the same training."""

from pathlib import Path

import pytest
import torch

from stillspeak.training.run import RunOptions, assemble

SMOKE = Path(__file__).parents[2] / "configs" / "smoke.toml"
OVERRIDES = (
    *("training.audio_steps=0", "training.precision='32-true'", "adversarial.start=0"),
    *("adversarial.frame=0.01", "adversarial.sequence=0.0", "adversarial.sync=0.0"),
    "adversarial.r1=0.5",
)


@pytest.mark.e2e
def test_channels_last_changes_the_order_in_memory_alone(
    speaking_cache: Path, tmp_path: Path
) -> None:
    losses = {}
    for order in (True, False):
        overrides = (*OVERRIDES, f"training.channels_last={str(order).lower()}")
        run = assemble(
            RunOptions(SMOKE, speaking_cache, tmp_path, overrides=overrides, device="cpu")
        )
        weights = [
            parameter
            for player in (run.task.generator, *run.task.discriminators)
            for name, parameter in player.module.named_parameters()
            if parameter.dim() == 4 and 1 not in parameter.shape
        ]
        assert len(weights) > 10
        for weight in weights:
            assert weight.is_contiguous(memory_format=torch.channels_last) == order
        losses[order] = [run.task.train_step([run.task.data.batch(i)])["loss"] for i in range(3)]
    assert losses[True] == pytest.approx(losses[False], rel=1e-3)
