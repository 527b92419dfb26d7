"""Device and precision: what is chosen, why, and what is refused."""

import pytest
import torch

from stillspeak.errors import ConfigError
from stillspeak.system.runtime import (
    Precision,
    choose_device,
    choose_precision,
    cpu_has_bfloat16,
)

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))


def machine(
    monkeypatch: pytest.MonkeyPatch, *, cuda: bool = False, mps: bool = False, bf16: bool = False
) -> None:
    """Pretend to be a machine with these parts."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    flags = {"avx512_bf16": bf16, "amx_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: flags, raising=False)


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(False, False, CPU), (True, False, CUDA), (False, True, MPS), (True, True, CUDA)],
)
def test_auto_takes_the_best_device(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: torch.device
) -> None:
    machine(monkeypatch, cuda=cuda, mps=mps)
    assert choose_device() == expected
    assert choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    machine(monkeypatch)
    with pytest.raises(ConfigError, match=f"'{name}' is not available.*--device cpu"):
        choose_device(name)


def test_an_unknown_device() -> None:
    with pytest.raises(ConfigError, match="'tpu' is not known; give auto, cpu, cuda or mps"):
        choose_device("tpu")


@pytest.mark.parametrize(
    ("device", "bf16", "expected", "because"),
    [
        (CPU, True, "bf16-mixed", "the CPU has bfloat16"),
        (CPU, False, "32-true", "no bfloat16 in hardware on cpu"),
        (CUDA, True, "bf16-mixed", "the GPU multiplies bfloat16"),
        (CUDA, False, "16-mixed", "loss scaling"),
        (MPS, True, "32-true", "no bfloat16 in hardware on mps"),
    ],
)
def test_auto_precision(
    monkeypatch: pytest.MonkeyPatch, device: torch.device, bf16: bool, expected: str, because: str
) -> None:
    machine(monkeypatch, bf16=bf16)
    precision = choose_precision("auto", device)
    assert precision.name == expected
    assert because in precision.reason


@pytest.mark.parametrize("name", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_precision_asked_for_is_given(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    machine(monkeypatch)
    assert choose_precision(name, CPU) == Precision(name, "asked for")  # type: ignore[arg-type]


def test_an_unknown_precision() -> None:
    with pytest.raises(ConfigError, match="'64-true' is not known"):
        choose_precision("64-true", CPU)


def test_either_instruction_set_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True}, raising=False)
    assert cpu_has_bfloat16()
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    assert not cpu_has_bfloat16()
