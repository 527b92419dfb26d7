"""Lightning Fabric: device, precision and processes of a run."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import torch

from stillspeak.errors import MissingDependencyError
from stillspeak.system.runtime import Precision

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def launch_fabric(device: torch.device, precision: Precision) -> Fabric:
    """Fabric on one device, or one a process under torchrun, with batches left in float32.

    Fabric's mixed precision rounds every float that enters a module to 16 bits: landmarks in
    pixels would lose a quarter of a pixel. Autocast alone chooses which operations may round.

    Raises:
        MissingDependencyError: the ``train`` extra is not installed.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins import MixedPrecision
        from lightning_fabric.strategies.ddp import DDPStrategy
    except ImportError as error:
        raise MissingDependencyError(
            "training needs the 'train' extra: pip install 'stillspeak[train]'"
        ) from error

    class Autocast(MixedPrecision):
        def convert_input(self, data: Any) -> Any:
            return data

        def optimizer_step(self, optimizer: Any, **kwargs: Any) -> Any:
            # Fabric renews the loss scale after every optimiser's step, but there are several
            # and they share one: the trainer renews it once, when all have moved.
            if self.scaler is None:
                return optimizer.step(**kwargs)
            return self.scaler.step(optimizer, **kwargs)

    options: dict[str, Any] = {"accelerator": device.type, "devices": 1}
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world > 1:
        # torchrun has started the processes and says through the environment who is who. The
        # audio warm start leaves the decoder out, hence unused parameters.
        local = int(os.environ.get("LOCAL_WORLD_SIZE", world))
        options |= {
            "devices": local,
            "num_nodes": world // local,
            "strategy": DDPStrategy(find_unused_parameters=True),
        }
    if precision.name == "32-true":
        fabric = Fabric(precision="32-true", **options)
    else:
        scaler = torch.amp.GradScaler(device.type) if precision.name == "16-mixed" else None
        fabric = Fabric(plugins=[Autocast(precision.name, device.type, scaler)], **options)
    fabric.launch()
    return fabric


def shutdown_process_group() -> None:
    """Take this process out of the group that torchrun started; nothing where it is alone.

    Left to the interpreter's exit, the group's threads may outlive what they work on, and the
    process aborts after all its work is done.
    """
    from torch import distributed

    if not (distributed.is_available() and distributed.is_initialized()):
        return
    # Gloo's threads let go of the last gradients after everybody has got them, and for that they
    # need Python's lock, which the thread that destroys the group holds while it waits for them.
    distributed.barrier()
    time.sleep(0.5)
    distributed.destroy_process_group()
