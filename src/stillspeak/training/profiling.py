"""Counting what code does while it runs: floating-point operations and memory for gradients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_FUSED_RECURRENT = {"_cudnn_rnn": 1, "_cudnn_rnn_backward": 2}
"""Passes of kernels that PyTorch has no formula for; elsewhere a GRU is of counted products."""


def _recurrent(passes: int, steps: Tensor, weights: Sequence[Tensor]) -> int:
    matrices = sum(weight.numel() for weight in weights if weight.dim() == 2)
    return passes * 2 * matrices * steps.shape[0] * steps.shape[1]


class FlopCounter(TorchDispatchMode):
    """Counts the floating-point operations of all convolutions and matrix products inside.

    The formulas are those of ``torch.utils.flop_counter``, two operations a multiplication with
    its addition, and ours for cuDNN's GRU. Its ``FlopCounterMode`` cannot be used: it follows
    modules by hooks that refuse the gradient within a gradient of R1. What is done element by
    element (normalisation, activations, ``grid_sample``, optimisers) is not counted.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        packet = func.overloadpacket
        formula = flop_registry.get(packet)
        if formula is not None:
            self.flops += int(formula(*args, **kwargs, out_val=result))
        elif packet.__name__ in _FUSED_RECURRENT:
            self.flops += _recurrent(_FUSED_RECURRENT[packet.__name__], *args[:2])
        return result


class _Held:
    """A tensor that autograd keeps; tells when it is let go."""

    __slots__ = ("_release", "tensor")

    def __init__(self, tensor: Tensor, release: Callable[[Tensor], None]) -> None:
        self.tensor = tensor
        self._release = release

    def __del__(self) -> None:
        self._release(self.tensor)


class SavedActivations:
    """Follows the bytes that autograd keeps for backward passes: each storage once. Known tensors,
    such as parameters, are there anyway and not counted."""

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        self.live = 0
        self.peak = 0
        self._known = {tensor.untyped_storage().data_ptr() for tensor in known}
        self._uses: dict[int, int] = {}
        # Backward passes run, and let go, in threads of their own on a GPU; a collection of
        # garbage may let go in the middle of anything.
        self._lock = threading.RLock()
        self._hooks = saved_tensors_hooks(self._pack, self._unpack)

    def __enter__(self) -> SavedActivations:
        self._hooks.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._hooks.__exit__(*error)

    def _pack(self, tensor: Tensor) -> _Held | Tensor:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place in self._known or not place:
            return tensor
        with self._lock:
            uses = self._uses.get(place, 0)
            if not uses:
                self.live += storage.nbytes()
                self.peak = max(self.peak, self.live)
            self._uses[place] = uses + 1
        return _Held(tensor, self._release)

    @staticmethod
    def _unpack(saved: _Held | Tensor) -> Tensor:
        return saved.tensor if isinstance(saved, _Held) else saved

    def _release(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        with self._lock:
            uses = self._uses.pop(storage.data_ptr()) - 1
            if uses:
                self._uses[storage.data_ptr()] = uses
            else:
                self.live -= storage.nbytes()


def nbytes(value: Any) -> int:
    """Bytes of all tensors in nested mappings, lists and tuples."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Mapping):
        return sum(nbytes(item) for item in value.values())
    if isinstance(value, list | tuple):
        return sum(nbytes(item) for item in value)
    return 0


def synchronize(device: torch.device) -> None:
    """Wait until a device has done all that it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
