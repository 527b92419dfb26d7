"""Device, precision, threads and seeds: chosen in one place, with the reason given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, NamedTuple, cast, get_args

from stillspeak.errors import ConfigError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["auto", "cpu", "cuda", "mps"]


def choose_device(name: str = "auto") -> torch.device:
    """The device to run on; ``auto`` prefers CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: an unknown device, or one that this machine lacks.
    """
    import torch

    if name not in get_args(DeviceName):
        raise ConfigError(f"device {name!r} is not known; give auto, cpu, cuda or mps")
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((device for device, there in available.items() if there), "cpu")
    elif not available.get(name, True):
        raise ConfigError(f"device {name!r} is not available on this machine; use --device cpu")
    return torch.device(name)


PrecisionName = Literal["32-true", "bf16-mixed", "16-mixed"]


class Precision(NamedTuple):
    """A Fabric precision string and why it was chosen."""

    name: PrecisionName
    reason: str


def cpu_has_bfloat16() -> bool:
    """Whether the CPU multiplies bfloat16 in hardware (AVX-512 BF16 or AMX)."""
    import torch

    flags = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(flags.get("avx512_bf16") or flags.get("amx_bf16"))


def choose_precision(name: str, device: torch.device) -> Precision:
    """Resolve ``auto`` to the fastest precision that trains stably on a device.

    Raises:
        ConfigError: an unknown precision.
    """
    import torch

    if name in get_args(PrecisionName):
        return Precision(cast("PrecisionName", name), "asked for")
    if name != "auto":
        known = ", ".join(get_args(PrecisionName))
        raise ConfigError(f"precision {name!r} is not known; give auto, {known}")
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision("bf16-mixed", "the GPU multiplies bfloat16 in hardware")
        return Precision("16-mixed", "the GPU has no bfloat16; float16 with loss scaling")
    if device.type == "cpu" and cpu_has_bfloat16():
        return Precision("bf16-mixed", "the CPU has bfloat16 instructions")
    return Precision("32-true", f"no bfloat16 in hardware on {device.type}")


DecoderPrecision = Literal["auto", "float32", "bfloat16"]


def choose_decoder_type(name: str, device: torch.device) -> torch.dtype:
    """Resolve ``auto`` to the faster type of the frame decoder when frames are made one by one:
    bfloat16 on a CPU that multiplies it in hardware, else float32.

    Raises:
        ConfigError: an unknown precision.
    """
    import torch

    if name not in get_args(DecoderPrecision):
        raise ConfigError(f"precision {name!r} is not known; give auto, float32 or bfloat16")
    if name == "auto":
        name = "bfloat16" if device.type == "cpu" and cpu_has_bfloat16() else "float32"
    return torch.bfloat16 if name == "bfloat16" else torch.float32


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Compute in so many threads inside, for the thread that asks; None: as many as outside."""
    import torch

    before = torch.get_num_threads()
    if count is None or count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
