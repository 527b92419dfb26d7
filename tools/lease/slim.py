"""A checkpoint at about half its size, for when it has to travel in parcels.

=====================  ==========================  =============================================
what                   becomes                     what it costs
=====================  ==========================  =============================================
weights                the same                    nothing
average of weights     bfloat16 distance from      an error of 0.4 % of that distance
                       the weights
first moments (Adam)   left out, zero on return    some steps of smaller moves until they are
                                                   back: 1 / (1 - beta1), ten at 0.9
second moments (Adam)  bfloat16                    a learning rate off by 0.2 % at most
=====================  ==========================  =============================================

So a run that goes on from a slim state is no longer equal bit for bit to a straight one; its
``history`` says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stillspeak.errors import CheckpointError
from stillspeak.training.checkpoint import State

_MARK = "slim"
_DISTANCE = "average_distance"


def slim(state: Mapping[str, Any]) -> State:
    """The smaller form of a whole state, as ``load_checkpoint`` gives it.

    Raises:
        CheckpointError: the state is slim already.
    """
    if _MARK in state:
        raise CheckpointError("this state is slim already")
    result: State = _without_moments(state)
    base = state["objective"]
    average = dict(result["average"])
    distance = {}
    for name, value in state["average"].items():
        weight = base.get(f"generator.{name}")
        if weight is not None and weight.shape == value.shape and value.dtype == torch.float32:
            distance[name] = (value - weight).to(torch.bfloat16)
            del average[name]
    return result | {"average": average, _DISTANCE: distance, _MARK: 1}


def is_slim(state: Mapping[str, Any]) -> bool:
    """Whether :func:`slim` made this state."""
    return _MARK in state


def restore(state: Mapping[str, Any]) -> State:
    """A whole state that a trainer resumes from, with a note in its history.

    Raises:
        CheckpointError: not a slim state.
    """
    if _MARK not in state:
        raise CheckpointError("this state is not slim")
    result: State = _with_moments(state)
    distance = result.pop(_DISTANCE)
    del result[_MARK]
    base = state["objective"]
    back = {name: base[f"generator.{name}"] + value.float() for name, value in distance.items()}
    note = "slim state: Adam's first moments began again at zero, its second ones were rounded"
    chapter = {"from_step": state["step"], "command": None, "note": note}
    return result | {
        "average": {**result["average"], **back},
        "history": [*state["history"], chapter],
    }


def _without_moments(value: Any) -> Any:
    if isinstance(value, Mapping):
        if _is_adams(value):
            rest = {k: v for k, v in value.items() if k not in ("exp_avg", "exp_avg_sq")}
            return rest | {"exp_avg_sq_bfloat16": value["exp_avg_sq"].to(torch.bfloat16)}
        return {key: _without_moments(item) for key, item in value.items()}
    return value


def _with_moments(value: Any) -> Any:
    if isinstance(value, Mapping):
        if "exp_avg_sq_bfloat16" in value:
            rest = {k: v for k, v in value.items() if k != "exp_avg_sq_bfloat16"}
            second = value["exp_avg_sq_bfloat16"].float()
            return rest | {"exp_avg": torch.zeros_like(second), "exp_avg_sq": second}
        return {key: _with_moments(item) for key, item in value.items()}
    return value


def _is_adams(value: Mapping[Any, Any]) -> bool:
    second = value.get("exp_avg_sq")
    return isinstance(value.get("exp_avg"), Tensor) and isinstance(second, Tensor)
