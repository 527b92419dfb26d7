"""A tiny Whisper encoder with random weights, and files of CTranslate2's format."""

import struct
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from stillspeak.models.speech import BANDS


def whisper_weights(width: int = 16, depth: int = 2) -> dict[str, Tensor]:
    """Random tensors with the names and shapes of a Whisper encoder."""
    torch.manual_seed(4)
    shapes: dict[str, tuple[int, ...]] = {
        "conv1/weight": (width, BANDS, 3),
        "conv1/bias": (width,),
        "conv2/weight": (width, width, 3),
        "conv2/bias": (width,),
        "position_encodings/encodings": (1500, width),
    }
    for layer in range(depth):
        name = f"layer_{layer}"
        for norm in ("self_attention/layer_norm", "ffn/layer_norm"):
            shapes |= {f"{name}/{norm}/{part}": (width,) for part in ("gamma", "beta")}
        for linear, (out, into) in {
            "self_attention/linear_0": (3 * width, width),
            "self_attention/linear_1": (width, width),
            "ffn/linear_0": (4 * width, width),
            "ffn/linear_1": (width, 4 * width),
        }.items():
            shapes |= {f"{name}/{linear}/weight": (out, into), f"{name}/{linear}/bias": (out,)}
    return {
        f"encoder/{name}": torch.randn(shape) * (shape[-1] ** -0.5 if len(shape) > 1 else 0.5)
        for name, shape in shapes.items()
    }


def ctranslate2(tensors: Mapping[str, np.ndarray], version: int = 6) -> bytes:
    """A model file of these arrays."""

    def text(value: str) -> bytes:
        return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"

    kinds = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
    parts = [struct.pack("<I", version), text("WhisperSpec"), struct.pack("<II", 3, len(tensors))]
    for name, values in tensors.items():
        data = values.tobytes()
        parts += [text(name), struct.pack("<B", values.ndim)]
        parts += [struct.pack("<I", size) for size in values.shape]
        parts += [struct.pack("<BI", kinds[str(values.dtype)], len(data)), data]
    return b"".join(parts)
