"""Whisper's encoder as it was published, to learn from: the whole sound at once, layer by layer.

Radford et al. 2022, "Robust Speech Recognition via Large-Scale Weak Supervision". Weights are read
from a CTranslate2 file, which is plain arrays with names; nothing in it is executed.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillspeak.errors import WeightsError
from stillspeak.models.speech import (
    BANDS,
    SPECTRUM,
    STEP,
    AttentionLayer,
    LogMel,
    SpeechEncoder,
    SpeechEncoderConfig,
)

PLACES = 1500
"""Positions that Whisper knows: 30 s."""

_VERSION = 6
_TYPES = {0: np.float32, 1: np.int8, 2: np.int16, 3: np.int32, 4: np.float16}
_MOST = 4096
"""Tensors in a file, at most: a damaged one may name any number."""


def read_ctranslate2(path: Path) -> dict[str, Tensor]:
    """The float tensors of a CTranslate2 model file by name, float32.

    Raises:
        WeightsError: no such file, another format, or damaged.
    """
    try:
        return _tensors(memoryview(path.read_bytes()))
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read ({error})") from error
    except (struct.error, ValueError, UnicodeDecodeError) as error:
        raise WeightsError(
            f"{path}: not a CTranslate2 model of version {_VERSION}, or damaged; fetch it again"
        ) from error


def _tensors(data: memoryview) -> dict[str, Tensor]:
    place = 0

    def number(code: str) -> int:
        nonlocal place
        (value,) = struct.unpack_from(f"<{code}", data, place)
        place += struct.calcsize(f"<{code}")
        return int(value)

    def text() -> str:
        nonlocal place
        length = number("H")
        place += length
        return bytes(data[place - length : place - 1]).decode()

    if number("I") != _VERSION:
        raise ValueError("another version")
    text()  # what the model is
    number("I")  # and its revision
    tensors: dict[str, Tensor] = {}
    count = number("I")
    if count > _MOST:
        raise ValueError("too many tensors")
    for _ in range(count):
        name = text()
        shape = [number("I") for _ in range(number("B"))]
        kind, size = _TYPES.get(number("B")), number("I")
        if kind in (np.float32, np.float16):
            values = np.frombuffer(data, kind, size // np.dtype(kind).itemsize, place)
            tensors[name] = torch.from_numpy(values.astype(np.float32).reshape(shape))
        place += size
        if place > len(data):
            raise ValueError("cut short")
    return tensors


class WhisperEncoder(nn.Module):
    """Stem and the first ``depth`` layers with unbounded attention, of :func:`read_ctranslate2`'s
    weights. WeightsError: they are not those of a Whisper encoder."""

    places: Tensor

    def __init__(self, weights: Mapping[str, Tensor], depth: int, heads: int = 8) -> None:
        super().__init__()
        places = _tensor(weights, "position_encodings/encodings")
        width = places.shape[1]
        config = SpeechEncoderConfig(width=width, heads=heads, ahead=(0,) * depth)
        self.body = encoder_of_whisper(weights, config)
        self.spectra = LogMel()
        self.register_buffer("places", places - self.body.place.detach())
        self.requires_grad_(False)

    def log_mel(self, sound: Tensor) -> Tensor:
        """(B, S) float32 -> (B, BANDS, S / 160) as Whisper has them: centred spectra, the range
        of eight powers of ten below the sound's loudest band."""
        padded = F.pad(sound[:, None], (SPECTRUM // 2, SPECTRUM // 2), "reflect")[:, 0]
        power = self.spectra.power(padded)[..., : sound.shape[1] // STEP]
        level = power.clamp_min(1e-10).log10()
        return (torch.maximum(level, level.amax((1, 2), keepdim=True) - 8) + 4) / 4

    def forward(self, sound: Tensor) -> list[Tensor]:
        """(B, S) at 16 kHz -> each layer's output (B, S / 320, width), before the last norm."""
        body = self.body
        assert isinstance(body.conv1, nn.Conv1d) and isinstance(body.conv2, nn.Conv1d)
        x = F.gelu(F.conv1d(self.log_mel(sound), body.conv1.weight, body.conv1.bias, padding=1))
        x = F.gelu(F.conv1d(x, body.conv2.weight, body.conv2.bias, stride=2, padding=1))
        x = x.transpose(1, 2) + body.place + self.places[: x.shape[2]]
        outputs = [x]
        for layer in body.layers:
            assert isinstance(layer, AttentionLayer)
            x = _unbounded(layer, x)
            outputs.append(x)
        return outputs


def _unbounded(layer: AttentionLayer, x: Tensor) -> Tensor:
    batch, count, width = x.shape
    parts = layer.project(layer.norm(x)).view(batch, count, 3, layer.heads, -1)
    seen = F.scaled_dot_product_attention(*parts.permute(2, 0, 3, 1, 4))
    x = x + layer.join(seen.transpose(1, 2).reshape(batch, count, width))
    out: Tensor = x + layer.contract(F.gelu(layer.expand(layer.second_norm(x))))
    return out


def encoder_of_whisper(weights: Mapping[str, Tensor], config: SpeechEncoderConfig) -> SpeechEncoder:
    """A speech encoder with Whisper's stem and first layers, and the mean of its positions.

    Raises:
        WeightsError: the tensors are not those of a Whisper encoder of this width.
    """
    encoder = SpeechEncoder(config)
    convs = [(conv, part) for conv in ("conv1", "conv2") for part in ("weight", "bias")]
    named = {f"{conv}.{part}": f"{conv}/{part}" for conv, part in convs}
    parts = {
        "norm": ("self_attention/layer_norm", ("gamma", "beta")),
        "project": ("self_attention/linear_0", ("weight", "bias")),
        "join": ("self_attention/linear_1", ("weight", "bias")),
        "second_norm": ("ffn/layer_norm", ("gamma", "beta")),
        "expand": ("ffn/linear_0", ("weight", "bias")),
        "contract": ("ffn/linear_1", ("weight", "bias")),
    }
    for index in range(len(config.ahead)):
        for ours, (theirs, (weight, bias)) in parts.items():
            named[f"layers.{index}.{ours}.weight"] = f"layer_{index}/{theirs}/{weight}"
            named[f"layers.{index}.{ours}.bias"] = f"layer_{index}/{theirs}/{bias}"
    state = encoder.state_dict()
    state |= {ours: _tensor(weights, theirs) for ours, theirs in named.items()}
    state["place"] = _tensor(weights, "position_encodings/encodings")[:PLACES].mean(0)
    try:
        encoder.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(
            f"the weights are not those of a Whisper encoder {config.width} wide on {BANDS} bands"
        ) from error
    return encoder


def _tensor(weights: Mapping[str, Tensor], name: str) -> Tensor:
    try:
        return weights[f"encoder/{name}"]
    except KeyError:
        raise WeightsError(f"the weights hold no encoder/{name}: not a Whisper encoder") from None
