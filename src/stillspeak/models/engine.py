"""The engine protocol, and an inference engine for one frame at a time.

The inference engine folds batch norms into the weights and prepacks these once. In float32 only the
order of the sums changes. In bfloat16 the decoder reads half as many bytes, which is what one frame
at a time waits for; audio and states stay in float32. ``docs/experiments.md``, section 19, has the
measurements.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import Literal, NamedTuple, Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import Decoded, StillContext, UNetDecoder
from stillspeak.models.encoders import ContextEncoder, ContextState, SpeechContextEncoder
from stillspeak.models.generator import Generator, GeneratorState
from stillspeak.models.layers import SkipFusion
from stillspeak.models.speech import AttentionLayer, SpeechEncoder

TOLERANCE = {torch.float32: 0.05, torch.bfloat16: 2.0}
"""Largest difference of a frame from the generator's own, in levels of 255. Measured on the
released weights: 0.003 and 0.9, the mean over all pixels in bfloat16 being 0.08."""

POSE_TOLERANCE = 0.02
"""Largest difference of a mouth's pose from the generator's own where the speech encoder is in
eight bits, in distances between the eyes. Measured on the released weights over 7 s of speech:
0.009, the mean over all points being 0.0004."""

Size = tuple[int, int]

Still = TypeVar("Still")


class Engine(Protocol[Still]):
    """What runs a generator: the :class:`~stillspeak.models.generator.Generator` itself, in
    evaluation mode, or an :class:`InferenceEngine`. It has no state that a step changes."""

    @property
    def config(self) -> GeneratorConfig: ...

    @property
    def device(self) -> torch.device: ...

    @property
    def speech(self) -> SpeechEncoder | None: ...

    def prepare_still(self, still: Tensor) -> Still: ...

    def initial_state(self, clips: int = 1) -> GeneratorState: ...

    def draw_noise(self, clips: int, frames: int, generator: torch.Generator) -> Tensor: ...

    def step(
        self, still: Still, windows: Tensor, noise: Tensor, state: GeneratorState
    ) -> tuple[Decoded, GeneratorState]: ...


@dataclass
class EngineStill:
    """What all frames of a reference image share, for the U-Net."""

    root: Tensor  # the root's bias with the identity code's part in it, (h * w * C,)
    adds: list[Tensor]  # for each layer with a skip, what is added before its ReLU: (1, C, H, W)
    _repeated: tuple[int, list[Tensor]] = field(default=(0, []), repr=False)

    def added(self, frames: int) -> list[Tensor]:
        """:attr:`adds` for that many frames at a time, (T, C, H, W) each."""
        if frames == 1:
            return self.adds
        if self._repeated[0] != frames:  # the same number comes again and again
            repeated = [_channels_last(add.repeat(frames, 1, 1, 1)) for add in self.adds]
            self._repeated = (frames, repeated)
        return self._repeated[1]


class InferenceEngine:
    """A snapshot of a generator in evaluation mode, folded and prepacked, for one clip (B = 1).

    It has no state of its own that a step changes, so any number of sessions may share one, each
    with its own :class:`~stillspeak.models.generator.GeneratorState`. On a processor without oneDNN
    and on other devices the same folded weights go through torch's ordinary convolutions.

    Args:
        generator: its parameters are read once; later changes of them are not seen.
        dtype: of the decoder, float32 or bfloat16.
        packed: False: ordinary convolutions everywhere.
    """

    def __init__(
        self,
        generator: Generator,
        *,
        dtype: torch.dtype = torch.float32,
        packed: bool = True,
    ) -> None:
        self.generator, self.dtype = generator, dtype
        self.config: GeneratorConfig = generator.config
        self.device = generator.device
        self.packed = packed and self.device.type == "cpu" and packing_works(dtype)
        """Whether weights lie in the processor's own order."""
        encoder, decoder = generator.context_encoder, generator.decoder
        with torch.no_grad():
            self.audio: _PackedSpeech | _FoldedWaveform
            """Windows (1, T, N) and the state to z_c (1, T, context_dim) and the new state."""
            if isinstance(encoder, SpeechContextEncoder):
                self.audio = _PackedSpeech(encoder, packed=self.packed)
            else:
                assert isinstance(encoder, ContextEncoder)
                self.audio = _FoldedWaveform(encoder, self.config, packed=self.packed)
            self.unet: _FoldedUNet | None = None
            """What paints frames; None: the encoding is the mouth's pose."""
            if isinstance(decoder, UNetDecoder):
                self.unet = _FoldedUNet(decoder, self.config, dtype, packed=self.packed)

    @property
    def speech(self) -> SpeechEncoder | None:
        """See :attr:`Generator.speech`."""
        return self.generator.speech

    def initial_state(self, clips: int = 1) -> GeneratorState:
        """The state before the first window: zeros."""
        return self.generator.initial_state(clips)

    def draw_noise(self, clips: int, frames: int, generator: torch.Generator) -> Tensor:
        """See :meth:`Generator.draw_noise`."""
        return self.generator.draw_noise(clips, frames, generator)

    @torch.inference_mode()
    def prepare_still(self, still: Tensor) -> EngineStill | None:
        """What depends on the reference image (1, 3, H, W) alone; None: nothing does."""
        if self.unet is None:
            return None
        return self.unet.prepare(self.generator.prepare_still(still))

    @torch.inference_mode()
    def step(
        self, still: EngineStill | None, windows: Tensor, noise: Tensor, state: GeneratorState
    ) -> tuple[Decoded, GeneratorState]:
        """The next T frames or poses and the new state, as :meth:`Generator.step` makes them, from
        windows (1, T, N) float32 in [-1, 1] and noise (1, T, noise_dim)."""
        context_state, noise_state = state
        if isinstance(self.audio, _PackedSpeech):
            poses, features, context_state = self.audio.listen(windows, context_state)
            pose = torch.unflatten(poses, 2, (-1, 2))
            return Decoded(pose=pose, features=features), GeneratorState(context_state, noise_state)
        assert still is not None and self.unet is not None
        encoded, context_state = self.audio(windows, context_state)
        coded, noise_state = self.generator.noise_generator(noise, noise_state)
        frames = self.unet(still, torch.cat((encoded[0], coded[0]), 1))
        return Decoded(frames[None]), GeneratorState(context_state, noise_state)


class _FoldedWaveform:
    """The paper's audio encoder: convolutions of each window, and the context GRU."""

    def __init__(self, encoder: ContextEncoder, config: GeneratorConfig, *, packed: bool) -> None:
        self._gru = encoder.gru
        self._layers: list[FoldedConv] = []
        layers = list(encoder.frame_encoder.layers)
        width = config.window
        for place, layer in enumerate(layers):
            if not isinstance(layer, nn.Conv1d):
                continue
            weight, bias, norm = layer.weight, layer.bias, layers[place + 1]
            relu = isinstance(norm, nn.BatchNorm1d)
            if relu:
                weight, bias = _folded(weight, norm)
            kernel, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
            geometry = ConvGeometry((1, stride), (0, padding))
            self._layers.append(
                FoldedConv(
                    *(weight[:, :, None], bias, (1, width), geometry), relu=relu, packed=packed
                )
            )
            width = (width + 2 * padding - kernel) // stride + 1

    def __call__(
        self, windows: Tensor, state: Tensor | ContextState
    ) -> tuple[Tensor, Tensor | ContextState]:
        """See :attr:`InferenceEngine.audio`. A window is an image of one line."""
        x = windows[0][:, None].unsqueeze(2)
        for layer in self._layers:
            x = layer(x)
        encoded = torch.tanh(x).flatten(1)[None]
        if self._gru is None:
            return encoded, state
        return self._gru(encoded, state)  # type: ignore[no-any-return]


class _PackedSpeech:
    """The speech encoder and the pose predictor.

    On a CPU its matrices are in eight bits: a frame at a time, it waits for nothing but their
    bytes. Inputs are rounded for all tokens of a call together, so frames are always encoded one
    by one, and a stream's are those of a whole clip.
    """

    def __init__(self, encoder: SpeechContextEncoder, *, packed: bool) -> None:
        self._one_by_one = packed and "fbgemm" in torch.backends.quantized.supported_engines
        if self._one_by_one:
            encoder = copy.deepcopy(encoder)
            for layer in encoder.speech.layers:
                assert isinstance(layer, AttentionLayer)
                setattr(layer, "project", _EightBitProjection(layer.project))  # noqa: B010
                for name in ("join", "expand", "contract"):
                    linear = getattr(layer, name)
                    setattr(layer, name, _EightBit(linear.weight, linear.bias))
                setattr(layer, "biases", lru_cache(maxsize=8)(layer.biases))  # noqa: B010
            first, second = encoder.speech.conv1, encoder.speech.conv2
            assert isinstance(first, nn.Conv1d) and isinstance(second, nn.Conv1d)
            encoder.speech.conv1 = _Unfolded(first)
            encoder.speech.conv2 = _Unfolded(second, eight_bits=True)
        self._encoder = encoder.eval()

    def __call__(
        self, windows: Tensor, state: Tensor | ContextState
    ) -> tuple[Tensor, Tensor | ContextState]:
        """See :attr:`InferenceEngine.audio`."""
        poses, _, state = self.listen(windows, state)
        return poses, state

    def listen(
        self, windows: Tensor, state: Tensor | ContextState
    ) -> tuple[Tensor, Tensor, ContextState]:
        """See :meth:`~stillspeak.models.encoders.SpeechContextEncoder.listen`."""
        assert isinstance(state, ContextState)
        if not self._one_by_one:
            return self._encoder.listen(windows, state)
        poses, features = [], []
        for window in torch.split(windows, 1, 1):
            pose, heard, state = self._encoder.listen(window, state)
            poses.append(pose)
            features.append(heard)
        return torch.cat(poses, 1), torch.cat(features, 1), state


class _EightBit(nn.Module):
    """A linear layer whose weights are eight bits, a scale for each output."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        weight = weight.detach().float()
        scale = weight.abs().amax(1).clamp_min(1e-8).double() / 127
        zero = torch.zeros(len(scale), dtype=torch.long)
        with warnings.catch_warnings():
            # These types are to go from torch some day; what multiplies here is not.
            warnings.filterwarnings("ignore", "torch.quantize_per", UserWarning)
            rounded = torch.quantize_per_channel(weight.contiguous(), scale, zero, 0, torch.qint8)
        bias = bias.detach().float().contiguous()
        self._packed = torch.ops.quantized.linear_prepack(rounded, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        # Seven bits of the inputs: with eight, sums of two products overflow without AVX-512.
        y: Tensor = torch.ops.quantized.linear_dynamic(x, self._packed, True)
        return y


class _EightBitProjection(nn.Module):
    """See :class:`~stillspeak.models.speech.Projection`."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        width = linear.in_features
        self.queries = _EightBit(linear.weight[:width], linear.bias[:width])
        self.keys_and_values = _EightBit(linear.weight[width:], linear.bias[width:])


class _Unfolded(nn.Module):
    """A 1-D convolution of three as a product of matrices: what comes in is short."""

    def __init__(self, conv: nn.Conv1d, *, eight_bits: bool = False) -> None:
        super().__init__()
        assert conv.kernel_size == (3,) and conv.bias is not None
        self._stride = conv.stride[0]
        weight, bias = conv.weight.detach().flatten(1), conv.bias.detach()
        linear = (
            _EightBit(weight, bias) if eight_bits else partial(F.linear, weight=weight, bias=bias)
        )
        self._linear: Callable[[Tensor], Tensor] = linear

    def forward(self, x: Tensor) -> Tensor:
        """(B, in, (n - 1) * stride + 3) -> (B, out, n)."""
        pieces = x.unfold(2, 3, self._stride).permute(0, 2, 1, 3).flatten(2)
        return self._linear(pieces).transpose(1, 2)


class ConvGeometry(NamedTuple):
    """As for ``nn.Conv2d`` and ``nn.ConvTranspose2d``, of kernel 3 and of kernel 4."""

    stride: Size = (1, 1)
    padding: Size = (1, 1)
    transposed: bool = False


SAME_SIZE, DOUBLING = ConvGeometry(), ConvGeometry((2, 2), transposed=True)


class FoldedConv:
    """A convolution with bias and ReLU as one step, its weights in the processor's order.

    Args:
        weight: (out, in, h, w); (in, out, h, w) where transposed.
        bias: (out,), or None.
        size: rows and columns that will go in, which the order may depend on.
        geometry: stride and padding.
        dtype: of weights, input and output.
        relu: whether one follows.
        packed: False: torch's ordinary convolution.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        size: Size,
        geometry: ConvGeometry = SAME_SIZE,
        *,
        dtype: torch.dtype = torch.float32,
        relu: bool = True,
        packed: bool = True,
    ) -> None:
        stride, padding, transposed = geometry
        weight = weight.detach().to(dtype).contiguous()
        self._bias = None if bias is None else bias.detach().to(dtype)
        self._stride, self._padding = list(stride), list(padding)
        self._transposed, self._relu, self._packed = transposed, relu, packed
        self._attribute: Literal["relu", "none"] = "relu" if relu else "none"
        # As both kinds of operators take them; between, a transposed one takes output padding.
        first = [self._padding, [0, 0]] if transposed else [self._padding]
        self._geometry = [*first, self._stride, [1, 1], 1]
        if packed:
            ops, kind = torch.ops.mkldnn, "_transpose" if transposed else ""
            shape = [1, weight.shape[0 if transposed else 1], *size]
            reorder = getattr(ops, f"_reorder_convolution{kind}_weight")
            weight = reorder(weight, *self._geometry, shape)
        self._weight = weight

    def __call__(self, x: Tensor, add: Tensor | None = None) -> Tensor:
        """(T, in, H, W), and what is added before the ReLU, (T, out, H', W'); not if transposed."""
        if not self._packed:
            return self._ordinary(x, add)
        ops, x = torch.ops.mkldnn, _channels_last(x)
        given = (self._weight, self._bias, *self._geometry)
        y: Tensor
        if self._transposed:
            y = ops._convolution_transpose_pointwise(x, *given, self._attribute, [], None)
        elif add is None:
            y = ops._convolution_pointwise(x, *given, self._attribute, [], None)
        else:
            then = self._attribute if self._relu else None
            y = ops._convolution_pointwise.binary(x, add, *given, "add", 1.0, then, [], None)
        return y

    def _ordinary(self, x: Tensor, add: Tensor | None) -> Tensor:
        convolve = F.conv_transpose2d if self._transposed else F.conv2d
        y: Tensor = convolve(x, self._weight, self._bias, self._stride, self._padding)
        if add is not None:
            y = y + add
        return F.relu_(y) if self._relu else y


class _FoldedUp:
    """A transposed convolution with kernel 4, stride 2, padding 1 to few channels.

    Each of the four pixels that a pixel becomes is a convolution of 2 x 2; one convolution to four
    times the channels makes them all, in less than half the time for 3 or 6 channels.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor, size: Size, dtype: torch.dtype, *, packed: bool
    ) -> None:
        # Along each axis, output 2i + a is made of inputs i - 1 + a and i + a.
        taps = ([3, 1], [2, 0])
        four = torch.cat(
            [weight[:, :, rows][:, :, :, columns] for rows in taps for columns in taps], 1
        )
        self._conv = FoldedConv(
            *(four.transpose(0, 1), bias.repeat(4), size), dtype=dtype, relu=False, packed=packed
        )

    def __call__(self, x: Tensor) -> Tensor:
        """(T, in, H, W) -> (T, out, 2 H, 2 W)."""
        height, width = x.shape[2:]
        phases = [
            four[:, :, down : down + height, across : across + width]
            for four, (down, across) in zip(self._conv(x).chunk(4, 1), _PHASES, strict=True)
        ]
        return F.pixel_shuffle(torch.stack(phases, 2).flatten(1, 2), 2)


_PHASES = ((0, 0), (0, 1), (1, 0), (1, 1))


class _FoldedUNet:
    """The U-Net: a root, levels of skip fusion and doubling, and a head."""

    def __init__(
        self, decoder: UNetDecoder, config: GeneratorConfig, dtype: torch.dtype, *, packed: bool
    ) -> None:
        self._dtype, self._coarse = dtype, config.coarse_size
        conv = decoder.root[0]
        assert isinstance(conv, nn.ConvTranspose2d)
        root, self._root_bias = _folded(conv.weight, decoder.root[1], axis=1)
        # As a matrix whose rows are the coarsest map, channels last.
        root = root.permute(2, 3, 1, 0).flatten(0, 2)
        code = config.context_dim + config.noise_dim
        self._root_code = root[:, code:].contiguous()
        self._root = root[:, :code].to(dtype).contiguous()
        self._norms: list[tuple[Tensor, Tensor]] = []
        self._levels: list[tuple[FoldedConv, FoldedConv]] = []
        size = config.coarse_size
        for fuse, up in zip(decoder.fuse, decoder.up, strict=True):
            assert isinstance(fuse, SkipFusion) and isinstance(up, nn.Sequential)
            assert isinstance(up[0], nn.ConvTranspose2d)
            self._norms.append(affine(fuse.norm))
            # A transposed convolution of stride 1 is one with the kernel turned round.
            weight = fuse.conv.weight[fuse.skip_channels :].flip(2, 3).transpose(0, 1)
            weight, _ = _folded(weight, fuse.norm)
            fusion = FoldedConv(weight, None, size, dtype=dtype, packed=packed)
            weight, bias = _folded(up[0].weight, up[1], axis=1)
            doubling = FoldedConv(weight, bias, size, DOUBLING, dtype=dtype, packed=packed)
            self._levels.append((fusion, doubling))
            size = (2 * size[0], 2 * size[1])
        assert decoder.head.bias is not None
        self._head = _FoldedUp(decoder.head.weight, decoder.head.bias, size, dtype, packed=packed)

    def prepare(self, context: StillContext) -> EngineStill:
        """What all frames of a reference image share."""
        adds = [
            skip * scale[:, None, None] + bias[:, None, None]
            for skip, (scale, bias) in zip(context.skips, self._norms, strict=True)
        ]
        bias = self._root_bias.repeat(self._coarse[0] * self._coarse[1])
        root = F.linear(context.code, self._root_code, bias)[0]
        adds = [_channels_last(part.to(self._dtype)) for part in adds]
        return EngineStill(root.to(self._dtype), adds)

    def __call__(self, still: EngineStill, latent: Tensor) -> Tensor:
        """Latents (T, D) -> frames (T, 3, H, W) float32 in [-1, 1]."""
        x = F.relu_(F.linear(latent.to(self._dtype), self._root, still.root))
        x = x.view(len(latent), *self._coarse, -1).permute(0, 3, 1, 2)
        for (fuse, up), add in zip(self._levels, still.added(len(latent)), strict=True):
            x = up(fuse(x, add))
        return torch.tanh_(self._head(x).float())


@cache
@torch.inference_mode()
def packing_works(dtype: torch.dtype = torch.float32) -> bool:
    """Whether torch has the operators for weights in the processor's order, and they compute: they
    are made for its compiler and not promised to stay."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    shapes = ((1, 8, 4, 6), (1, 8, 4, 6), (8, 8, 3, 3), (8, 8, 4, 4), (8,))
    random = torch.Generator().manual_seed(0)
    x, add, weight, wide, bias = (torch.randn(shape, generator=random) for shape in shapes)
    try:
        for packed in (True, False):
            kind = dtype if packed else torch.float32
            plain = FoldedConv(weight, bias, (4, 6), dtype=kind, packed=packed)
            up = FoldedConv(*(wide, bias, (4, 6), DOUBLING), dtype=kind, relu=False, packed=packed)
            seen = x.to(kind)
            answers = [plain(seen), plain(seen, _channels_last(add.to(kind))), up(seen)]
            if packed:
                found = answers
    except (RuntimeError, AttributeError, TypeError):
        return False
    # Of sums that reach 50.
    near = 1e-3 if dtype == torch.float32 else 0.5
    return all(torch.allclose(a.float(), b, atol=near) for a, b in zip(found, answers, strict=True))


def affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A batch norm in evaluation mode as scale and bias, (C,) each."""
    assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
    assert norm.running_var is not None and norm.running_mean is not None
    # In double precision: the mean over the deviation is a difference of large numbers at times.
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = norm.bias.double() - norm.running_mean.double() * scale
    return scale.float(), bias.float()


def _folded(weight: Tensor, norm: nn.Module, axis: int = 0) -> tuple[Tensor, Tensor]:
    """A convolution's weight and bias with the batch norm behind it in them."""
    scale, bias = affine(norm)
    return weight * scale.view([-1 if place == axis else 1 for place in range(weight.dim())]), bias


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
