"""A generator as ONNX graphs, for programs that do not bring PyTorch along.

A generator that says poses is ``hear.onnx``: one frame's sound to the mouth's pose, which is drawn
without a network. Of any other ``still.onnx`` runs once a picture and gives what all of its frames
share, and ``step.onnx`` makes one frame. States are handed on. All are written node by node with
what a frame needs and no more: batch norms are folded into weights, shapes are fixed, and nothing
is traced. Whoever exports gets files that have answered as PyTorch does, step by step, before they
are put in their place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stillspeak import __version__
from stillspeak.constants import FRAME_HEIGHT
from stillspeak.errors import (
    ConfigError,
    MissingDependencyError,
    OutputError,
    OutputExistsError,
)
from stillspeak.face.align import crop_face, face_transform
from stillspeak.face.landmarks import MediaPipeDetector, check_face, choose_face
from stillspeak.face.pose import POSE_POINTS
from stillspeak.media.audio import frame_windows
from stillspeak.media.image import load_image
from stillspeak.media.source import source_name
from stillspeak.models.decoders import UNetDecoder
from stillspeak.models.encoders import ContextEncoder, IdentityEncoder, SpeechContextEncoder
from stillspeak.models.engine import affine
from stillspeak.models.generator import Generator
from stillspeak.models.layers import SkipFusion
from stillspeak.models.pixels import to_model
from stillspeak.models.speech import (
    BANDS,
    FALL,
    FLOOR,
    LEVEL_FRAMES,
    OVERLAP,
    QUIETEST,
    RANGE,
    SPECTRUM,
    USUAL,
    AttentionLayer,
)
from stillspeak.models.speech import STEP as SPECTRUM_STEP
from stillspeak.system.atomic import partial_folder
from stillspeak.weights import file_sha256, load_model, read_info, resolve_model

if TYPE_CHECKING:
    import onnx

HEAR = "hear.onnx"
"""The one graph of a generator that says poses."""

STILL, STEP, FACE = "still.onnx", "step.onnx", "face.npz"
"""The two graphs of any other, and one face's inputs of the first where they are asked for."""

FORMAT = "stillspeak-onnx-1"
OPSET = 17
"""Of the ONNX standard: ONNX Runtime 1.12 or newer."""

IR_VERSION = 8
"""Of the file format, the one that belongs to :data:`OPSET`."""

TOLERANCE = 0.05
"""Largest difference of a frame from PyTorch's in float32, in levels of 255."""

POSE_TOLERANCE = 1e-4
"""Largest difference of a pose from PyTorch's in float32, in distances between the eyes."""

CHECKED = 100
"""Steps over which an export is compared before it is put in its place: four seconds."""

NEVER = -1e4
"""Added to the attention for what must not be seen. Finite: a token that may see nothing, in the
warm-up, gives numbers all the same."""

Arrays = dict[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class OnnxExport:
    """What :func:`export_onnx` wrote."""

    still: Path | None
    """The graph that runs once a picture; None: :attr:`step` says poses and sees none."""
    step: Path
    """The graph that makes a frame or says its pose."""
    difference: float | None
    """Largest difference of a frame from PyTorch's over :data:`CHECKED` steps, in levels of 255, or
    of a pose in distances between the eyes; None: not compared."""
    metadata: dict[str, str]
    """What the files say about themselves."""
    face: Path | None = None
    """Inputs of :attr:`still` for the picture that was given, as NumPy's npz."""


def export_onnx(
    model: str | Path | Generator,
    folder: str | Path,
    *,
    image: str | Path | bytes | npt.NDArray[Any] | None = None,
    face: int | None = None,
    overwrite: bool = False,
    check: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> OnnxExport:
    """Write a generator as ``hear.onnx``, or ``still.onnx`` and ``step.onnx``, into a folder.

    ``docs/streaming.md`` lists their inputs and outputs.

    Args:
        model: a released model's name, a weights file, or a generator.
        folder: made if it is not there; the folder around it has to be.
        image: a picture with a face, whose inputs of ``still.onnx`` are written as ``face.npz``.
        face: which face, 0 being the largest; None takes the largest.
        overwrite: replace files that are there already.
        check: run all in ONNX Runtime, a frame at a time, beside PyTorch, and write nothing if a
            pixel is off by more than :data:`TOLERANCE`, or a pose by :data:`POSE_TOLERANCE`.
        progress: called with the steps compared and their number.

    Raises:
        WeightsError: the weights cannot be used.
        ConfigError: a picture for a generator whose graph sees none.
        ImageError: the picture cannot be read.
        FaceError: no usable face in it.
        OutputExistsError: one of the files is there already.
        OutputError: nothing can be written there, or ONNX Runtime answers otherwise than PyTorch.
        MissingDependencyError: a package of the ``onnx`` extra is not installed.
    """
    _need("onnx")
    if check:
        _need("onnxruntime")
    if isinstance(model, Generator):
        generator, about = model, {}
    else:
        path, _ = resolve_model(model)
        generator, about = load_model(path), _provenance(path)
    target, poses = Path(folder), _says_poses(generator)
    names = [HEAR] if poses else [STILL, STEP]
    if image is not None:
        if poses:
            raise ConfigError(f"{HEAR} says poses and sees no picture; leave the picture out")
        names.append(FACE)
    _check_target(target, names, overwrite=overwrite)
    was_training = generator.training
    generator.eval()
    try:
        metadata = _metadata(generator, about)
        if poses:
            graphs = {HEAR: _hear_graph(generator)}
        else:
            graphs = {STILL: _still_graph(generator), STEP: _step_graph(generator)}
        with partial_folder(target) as partial:
            if image is not None:
                arrays: dict[str, Any] = {**face_inputs(image, generator, face=face)}
                np.savez(partial / FACE, **arrays)
            for name, graph in graphs.items():
                graph.save(partial / name, {**metadata, "part": name.removesuffix(".onnx")})
            difference = None
            if check:
                difference = compare_onnx(generator, partial, steps=CHECKED, progress=progress)
                if not difference <= (POSE_TOLERANCE if poses else TOLERANCE):
                    unit = "distances between the eyes" if poses else "levels of 255"
                    raise OutputError(
                        f"{folder}: ONNX Runtime answers otherwise than PyTorch, by "
                        f"{difference:.3g} {unit}; install the versions of constraints.txt"
                    )
            _place(partial, target, names, overwrite=overwrite)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror or error})") from error
    finally:
        generator.train(was_training)
    if poses:
        return OnnxExport(None, target / HEAR, difference, metadata)
    shown = None if image is None else target / FACE
    return OnnxExport(target / STILL, target / STEP, difference, metadata, shown)


def face_inputs(
    image: str | Path | bytes | npt.NDArray[Any], generator: Generator, *, face: int | None = None
) -> Arrays:
    """What ``still.onnx`` takes for a face in a picture.

    Args:
        image: path, bytes, or array (H, W, 3) uint8.
        generator: whose graph it is.
        face: which face, 0 being the largest; None takes the largest.

    Returns:
        ``still`` (1, 3, H, W), the aligned crop, float32 in [-1, 1].

    Raises:
        ImageError: the picture cannot be read.
        FaceError: no usable face.
    """
    picture = load_image(image, name=source_name(image))
    with closing(MediaPipeDetector(any_way_up=True)) as detector:
        found = choose_face(detector.detect(picture), face, name=source_name(image))
    check_face(found, name=source_name(image))
    points, config = found.points, generator.config
    to_crop = face_transform(points, scale=config.height / FRAME_HEIGHT)
    still = crop_face(picture, to_crop, config.height, config.width)
    return {"still": to_model(still[None]).numpy()}


def open_onnx(path: Path, *, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU.

    Args:
        path: one of the files.
        threads: that it computes in.

    Raises:
        MissingDependencyError: ONNX Runtime is not installed.
    """
    _need("onnxruntime")
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # its builds for Windows send some
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def compare_onnx(
    generator: Generator,
    folder: Path,
    *,
    steps: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> float:
    """Run an export and its generator side by side, each with its own states.

    Args:
        generator: in evaluation mode.
        folder: with the files.
        steps: frames, one at a time.
        seed: of still, sound and noise.
        progress: called with the steps done and their number.

    Returns:
        The largest difference of a frame's colour in levels of 255; states count in the same
        units, 127.5 to 1. Where poses are said, that of a pose in distances between the eyes.
    """
    if _says_poses(generator):
        return _compare_poses(generator, folder, steps, seed, progress)
    config = generator.config
    random = torch.Generator().manual_seed(seed)
    device = next(generator.parameters()).device
    first, each = open_onnx(folder / STILL), open_onnx(folder / STEP)
    still = torch.rand(1, 3, 8, 6, generator=random) * 2 - 1
    still = nn.functional.interpolate(still, (config.height, config.width), mode="bicubic")
    still = still.clamp(-1, 1)
    names = [out.name for out in first.get_outputs()]
    feed: Arrays = dict(zip(names, first.run(names, {"still": still.numpy()}), strict=True))
    shapes = {port.name: port.shape for port in each.get_inputs()}
    states = [name for name in shapes if name.endswith("_state")]
    feed |= {name: np.zeros(shapes[name], np.float32) for name in states}
    outputs = [out.name for out in each.get_outputs()]
    worst = 0.0
    with torch.inference_mode():
        context = generator.prepare_still(still.to(device))
        state = generator.initial_state()
        for step in range(steps):
            # Quiet and loud stretches, so that the listener's states move.
            loud = 0.02 + 0.5 * (step // 8 % 2)
            window = loud * (torch.rand(1, 1, config.window, generator=random) * 2 - 1)
            noise = generator.draw_noise(1, 1, random)
            feed["window"] = window[0].numpy()
            if config.noise_dim:
                feed["noise"] = noise[0].cpu().numpy()
            decoded, state = generator.step(context, window.to(device), noise, state)
            wanted = {"frame": decoded.frames[:, 0]}
            for name, after in zip(("context_state", "noise_state"), state, strict=True):
                if name in states:
                    assert isinstance(after, Tensor)
                    wanted[f"next_{name}"] = after
            got = dict(zip(outputs, each.run(outputs, feed), strict=True))
            feed |= {name: got[f"next_{name}"] for name in states}
            for name, value in wanted.items():
                off = np.abs(got[name] - value.cpu().numpy()).max()
                if not np.isfinite(off):
                    return float("inf")
                worst = max(worst, 127.5 * float(off))
            if progress is not None:
                progress(step + 1, steps)
    return worst


def _compare_poses(
    generator: Generator,
    folder: Path,
    steps: int,
    seed: int,
    progress: Callable[[int, int], None] | None,
) -> float:
    config = generator.config
    random = torch.Generator().manual_seed(seed)
    warm_up = _warm_up(generator)
    # Loud, silent and quiet stretches. It begins loud, before the first window, where the graph
    # must not hear it.
    samples = torch.arange((warm_up + steps) * config.hop)
    loud = torch.tensor([0.5, 0.0, 0.02])[samples // (10 * config.hop) % 3]
    sound = loud * (torch.rand(len(samples), generator=random) * 2 - 1)
    windows = frame_windows(sound.numpy(), config.window, config.hop)
    each = open_onnx(folder / HEAR)
    outputs = [out.name for out in each.get_outputs()]
    feed = {port.name: np.zeros(port.shape, np.float32) for port in each.get_inputs()}
    worst = 0.0
    with torch.inference_mode():
        state = generator.initial_state()
        none = generator.draw_noise(1, 1, random)
        for step, window in enumerate(windows, -warm_up):
            feed["window"] = window[None]
            got = dict(zip(outputs, each.run(outputs, feed), strict=True))
            feed |= {name: got[f"next_{name}"] for name in feed if name != "window"}
            if step < 0:
                continue
            heard = torch.tensor(window)[None, None].to(generator.device)
            pose, _, state = generator.encode(heard, none, state)
            off = float(np.abs(got["pose"] - pose.view(1, -1, 2).cpu().numpy()).max())
            worst = max(worst, off if math.isfinite(off) else math.inf)
            if progress is not None:
                progress(step + 1, steps)
    return worst


# --- files ------------------------------------------------------------------------------------


def _check_target(target: Path, names: Sequence[str], *, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target}: is a file; name a folder for {STILL} and {STEP}")
    for name in names:
        if (target / name).is_dir():
            raise OutputError(f"{target / name}: is a folder; name another folder to write into")
        if (target / name).exists() and not overwrite:
            raise OutputExistsError(
                f"{target / name}: exists already; choose another folder, or allow it to be "
                "overwritten"
            )
    around = target.absolute().parent
    if not around.is_dir():
        raise OutputError(
            f"{target}: the folder {around} does not exist; create it or write elsewhere"
        )


def _place(partial: Path, target: Path, names: Sequence[str], *, overwrite: bool) -> None:
    """Put finished files where they belong."""
    _check_target(target, names, overwrite=overwrite)  # somebody may have come in between
    target.mkdir(exist_ok=True)
    for name in names:
        (partial / name).replace(target / name)


def _need(package: str) -> None:
    from importlib.util import find_spec

    if find_spec(package) is None:
        raise MissingDependencyError(
            f"{package} is not installed; get it with: pip install 'stillspeak[onnx]'"
        )


def _provenance(path: Path) -> dict[str, str]:
    info = read_info(path)["info"]
    about = {"weights": path.name, "weights_sha256": file_sha256(path)}
    about |= {key: str(info[key]) for key in ("name", "licence") if info.get(key)}
    return about


def _metadata(generator: Generator, about: Mapping[str, str]) -> dict[str, str]:
    """What a program needs to know, as texts: ONNX keeps no others."""
    config = generator.config
    told = {
        "format": FORMAT,
        "stillspeak": __version__,
        "config": json.dumps(asdict(config)),
        "sample_rate": str(config.sample_rate),
        "fps": str(config.fps),
        "hop": str(config.hop),
        "window": str(config.window),
        "before": str((config.window - config.hop) // 2),
        "look_ahead_seconds": repr((config.window - config.hop) / 2 / config.sample_rate),
    }
    if _says_poses(generator):
        told |= {
            "warm_up": str(_warm_up(generator)),
            "begin": "All states are zeros. The first frame's window comes after those of warm_up "
            "frames before it, whose poses are left out.",
            "pose": "Offsets x, y of points from lips that meet, in distances between the eyes; x "
            "to the picture's right, y down, both in the face's own frame.",
            "pose_points": json.dumps(POSE_POINTS),
            "tolerance_eye_distances": repr(POSE_TOLERANCE),
        }
    else:
        told |= {"noise_std": repr(config.noise_std), "tolerance_levels": repr(TOLERANCE)}
    return {**told, **about}


def _says_poses(generator: Generator) -> bool:
    return isinstance(generator.context_encoder, SpeechContextEncoder)


def _warm_up(generator: Generator) -> int:
    """Windows that go before the first frame's. That one alone holds 2 delay + 1 tokens, and each
    call takes two."""
    return generator.config.speech.delay + 1


# --- graphs -----------------------------------------------------------------------------------


class _Graph:
    """A graph while it is written. Values go by their names; shapes are fixed."""

    def __init__(self, name: str) -> None:
        from onnx import helper, numpy_helper

        self._helper, self._numpy = helper, numpy_helper
        self._name = name
        self._nodes: list[Any] = []
        self._constants: list[Any] = []
        self._inputs: list[Any] = []
        self._outputs: list[Any] = []
        self._count = 0

    def _fresh(self, kind: str) -> str:
        self._count += 1
        return f"{kind.lower()}_{self._count}"

    def input(self, name: str, *shape: int) -> str:
        """A float32 input."""
        self._inputs.append(self._helper.make_tensor_value_info(name, 1, shape))
        return name

    def output(self, value: str, name: str, *shape: int) -> None:
        """A float32 output."""
        self._nodes.append(self._helper.make_node("Identity", [value], [name]))
        self._outputs.append(self._helper.make_tensor_value_info(name, 1, shape))

    def constant(self, value: Tensor | npt.NDArray[Any] | Sequence[int] | float) -> str:
        """Tensors and single numbers in float32, sequences as int64."""
        if isinstance(value, Tensor):
            array = value.detach().float().cpu().numpy()
        elif isinstance(value, np.ndarray):
            array = value
        elif isinstance(value, float):
            array = np.array(value, np.float32)
        else:
            array = np.array(value, np.int64)
        name = self._fresh("constant")
        self._constants.append(self._numpy.from_array(np.ascontiguousarray(array), name))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        """A node; its output's name, or a list of them. An input "" is left out."""
        names = [self._fresh(kind) for _ in range(outputs)]
        self._nodes.append(self._helper.make_node(kind, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def conv(
        self,
        x: str,
        weight: Tensor,
        bias: Tensor | None,
        *,
        stride: tuple[int, ...] = (1, 1),
        padding: tuple[int, ...] = (1, 1),
        add: str | None = None,
        relu: bool = True,
    ) -> str:
        """A convolution of one axis or two, something added, and a ReLU."""
        parts = [x, self.constant(weight), *([] if bias is None else [self.constant(bias)])]
        shape: dict[str, Any] = {"kernel_shape": list(weight.shape[2:]), "strides": list(stride)}
        y = self.op("Conv", *parts, **shape, pads=[*padding, *padding])
        if add is not None:
            y = self.op("Add", y, add)
        return str(self.op("Relu", y) if relu else y)

    def double(self, x: str, weight: Tensor, bias: Tensor, *, relu: bool = True) -> str:
        """A transposed convolution of kernel 4, stride 2, padding 1 with weight (in, out, 4, 4)."""
        shape: dict[str, Any] = {"kernel_shape": [4, 4], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        y = self.op("ConvTranspose", x, self.constant(weight), self.constant(bias), **shape)
        return str(self.op("Relu", y) if relu else y)

    def gru(self, gru: nn.GRU, layer: int, x: str, state: str) -> str:
        """One layer, one step: x (1, 1, in), state (1, 1, H) -> state."""
        size = gru.hidden_size

        def ordered(name: str) -> Tensor:
            reset, update, new = getattr(gru, f"{name}_l{layer}").detach().split(size)
            return torch.cat((update, reset, new))[None]

        bias = torch.cat((ordered("bias_ih"), ordered("bias_hh")), 1)
        weights = [self.constant(ordered(name)) for name in ("weight_ih", "weight_hh")]
        # PyTorch resets the state after its product with the weights.
        _, last = self.op(
            *("GRU", x, *weights, self.constant(bias), "", state),
            outputs=2,
            hidden_size=size,
            linear_before_reset=1,
        )
        return str(last)

    def memory(self, gru: nn.GRU, x: str, name: str, begun: str | None = None) -> str:
        """All layers of a GRU, one step of x (1, 1, in), the states (layers, 1, H) being input and
        output. They stay zeros until ``begun`` is 1."""
        layers, size = gru.num_layers, gru.hidden_size
        state = self.input(name, layers, 1, size)
        before = [self.part(state, 0, number, number + 1) for number in range(layers)]
        after = []
        for number in range(layers):
            x = self.gru(gru, number, x, before[number])
            after.append(x)
        joined = self.op("Concat", *after, axis=0) if layers > 1 else after[0]
        joined = joined if begun is None else self.op("Mul", joined, begun)
        self.output(joined, f"next_{name}", layers, 1, size)
        return x

    def linear(self, x: str, weight: Tensor, bias: Tensor) -> str:
        """(..., in) with weight (out, in) -> (..., out)."""
        y = self.op("MatMul", x, self.constant(weight.t()))
        return str(self.op("Add", y, self.constant(bias)))

    def norm(self, x: str, norm: nn.LayerNorm) -> str:
        """Over the last axis."""
        parts = [self.constant(norm.weight), self.constant(norm.bias)]
        return str(self.op("LayerNormalization", x, *parts, epsilon=norm.eps))

    def gelu(self, x: str) -> str:
        """The exact one."""
        tail = self.op("Erf", self.op("Mul", x, self.constant(math.sqrt(0.5))))
        half = self.op("Mul", x, self.constant(0.5))
        return str(self.op("Mul", half, self.op("Add", tail, self.constant(1.0))))

    def log10(self, x: str) -> str:
        """The logarithm to base ten."""
        return str(self.op("Mul", self.op("Log", x), self.constant(1 / math.log(10))))

    def part(self, x: str, axis: int, begin: int, end: int) -> str:
        """Some of an axis, ``end`` excluded."""
        ends = [self.constant([place]) for place in (begin, end, axis)]
        return str(self.op("Slice", x, *ends))

    def save(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the file, checked."""
        import onnx

        helper = self._helper
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, self._constants
        )
        model: onnx.ModelProto = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            producer_name="stillspeak",
            producer_version=__version__,
        )
        model.ir_version = IR_VERSION
        helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())


def _still_maps(generator: Generator) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what the still's graph hands to the step's."""
    decoder = generator.decoder
    assert isinstance(decoder, UNetDecoder)
    height, width = generator.config.coarse_size
    norm = decoder.root[1]
    assert isinstance(norm, nn.BatchNorm2d)
    maps: dict[str, tuple[int, ...]] = {"root": (1, norm.num_features * height * width)}
    for level, fuse in enumerate(_fusions(decoder)):
        maps[f"skip_{level}"] = (*(1, fuse.norm.num_features, height << level, width << level),)
    return maps


def _fusions(decoder: UNetDecoder) -> list[SkipFusion]:
    fusions = list(decoder.fuse)
    assert all(isinstance(one, SkipFusion) for one in fusions)
    return fusions  # type: ignore[return-value]


def _still_graph(generator: Generator) -> _Graph:
    config, decoder = generator.config, generator.decoder
    assert isinstance(decoder, UNetDecoder)
    graph = _Graph("still")
    x = graph.input("still", 1, 3, config.height, config.width)
    identity = generator.identity_encoder
    assert isinstance(identity, IdentityEncoder)
    maps = []
    for layer in identity.layers:
        assert isinstance(layer, nn.Sequential) and isinstance(layer[0], nn.Conv2d)
        scale, bias = affine(layer[1])
        weight = layer[0].weight * scale[:, None, None, None]
        x = graph.conv(x, weight, bias, stride=(2, 2))
        maps.append(x)
    head = identity.head
    code = graph.conv(x, head.weight, head.bias, padding=(0, 0), relu=False)
    code = graph.op("Flatten", graph.op("Tanh", code))
    weight, bias = _root(generator)
    root = graph.op(
        *("Gemm", code, graph.constant(weight[-config.identity_dim :]), graph.constant(bias))
    )
    values = {"root": root}
    for level, (fuse, skip) in enumerate(zip(_fusions(decoder), maps[::-1], strict=False)):
        scale, bias = affine(fuse.norm)
        weight = _turned(fuse.conv.weight[: fuse.skip_channels]) * scale[:, None, None, None]
        values[f"skip_{level}"] = graph.conv(skip, weight, bias, relu=False)
    for name, shape in _still_maps(generator).items():
        graph.output(values[name], name, *shape)
    return graph


def _step_graph(generator: Generator) -> _Graph:
    config, decoder = generator.config, generator.decoder
    assert isinstance(decoder, UNetDecoder)
    graph = _Graph("step")
    for name, shape in _still_maps(generator).items():
        graph.input(name, *shape)
    parts = [_listen(graph, generator)]
    if config.noise_dim:
        assert generator.noise_generator.gru is not None
        noise = graph.input("noise", 1, config.noise_dim)
        state = graph.input("noise_state", 1, 1, config.noise_dim)
        row = graph.op("Unsqueeze", noise, graph.constant([0]))
        coded = graph.gru(generator.noise_generator.gru, 0, row, state)
        graph.output(coded, "next_noise_state", 1, 1, config.noise_dim)
        parts.append(graph.op("Squeeze", coded, graph.constant([0])))
    latent = graph.op("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
    weight, _ = _root(generator)
    x = graph.op("MatMul", latent, graph.constant(weight[: -config.identity_dim]))
    x = graph.op("Relu", graph.op("Add", x, "root"))
    x = graph.op("Reshape", x, graph.constant([1, -1, *config.coarse_size]))
    for level, (fuse, up) in enumerate(zip(_fusions(decoder), decoder.up, strict=True)):
        scale, _ = affine(fuse.norm)
        weight = _turned(fuse.conv.weight[fuse.skip_channels :]) * scale[:, None, None, None]
        x = graph.conv(x, weight, None, add=f"skip_{level}")
        assert isinstance(up, nn.Sequential) and isinstance(up[0], nn.ConvTranspose2d)
        scale, bias = affine(up[1])
        x = graph.double(x, up[0].weight * scale[None, :, None, None], bias)
    head = decoder.head
    assert head.bias is not None
    frame = graph.op("Tanh", graph.double(x, head.weight, head.bias, relu=False))
    graph.output(frame, "frame", 1, 3, config.height, config.width)
    return graph


def _listen(graph: _Graph, generator: Generator) -> str:
    """The audio window -> (1, context_dim)."""
    encoder = generator.context_encoder
    assert isinstance(encoder, ContextEncoder)
    x = graph.input("window", 1, generator.config.window)
    x = graph.op("Unsqueeze", x, graph.constant([1, 2]))  # a picture of one line
    layers = list(encoder.frame_encoder.layers)
    for place, layer in enumerate(layers):
        if not isinstance(layer, nn.Conv1d):
            continue
        weight, bias = layer.weight, layer.bias
        norm = layers[place + 1]
        relu = isinstance(norm, nn.BatchNorm1d)
        if relu:
            scale, bias = affine(norm)
            weight = weight * scale[:, None, None]
        x = graph.conv(
            *(x, weight[:, :, None], bias),
            stride=(1, layer.stride[0]),
            padding=(0, int(layer.padding[0])),
            relu=relu,
        )
    encoded = str(graph.op("Flatten", graph.op("Tanh", x)))
    if encoder.gru is None:
        return encoded
    x = graph.op("Unsqueeze", encoded, graph.constant([0]))
    x = graph.memory(encoder.gru, x, "context_state")
    return str(graph.op("Squeeze", x, graph.constant([0])))


def _hear_graph(generator: Generator) -> _Graph:
    """What is new in the audio window -> the mouth's pose.

    The encoder's own states grow at the start. Here they have their full size at once, and
    ``heard_state``, calls so far, says what of them is there.
    """
    encoder = generator.context_encoder
    assert isinstance(encoder, SpeechContextEncoder)
    speech, pose, config = encoder.speech, encoder.pose, encoder.speech.config
    graph = _Graph("hear")
    heard = graph.input("heard_state", 1)
    x = _hear_spectra(graph, generator, heard)
    for conv, stride in ((speech.conv1, 1), (speech.conv2, 2)):
        assert isinstance(conv, nn.Conv1d)
        x = graph.conv(x, conv.weight, conv.bias, stride=(stride,), padding=(0,), relu=False)
        x = graph.gelu(x)
    x = graph.op("Transpose", x, perm=[0, 2, 1])
    x = graph.op("Add", x, graph.constant(speech.place))
    twice = graph.op("Mul", heard, graph.constant(2.0))
    waiting = 0
    for place, layer in enumerate(speech.layers):
        assert isinstance(layer, AttentionLayer)
        x = _attend(graph, layer, place, x, twice, waiting)
        waiting += layer.ahead
    x = graph.op("Sub", x, graph.constant(pose.mean))
    x = graph.op("Div", x, graph.constant(pose.deviation))
    pair = graph.op("Reshape", x, graph.constant([1, 1, 2 * config.width]))
    direct = graph.linear(pair, pose.direct.weight.repeat(1, 2) / 2, pose.direct.bias)
    x = graph.op("Tanh", graph.linear(pair, pose.enter.weight, pose.enter.bias))
    begun = graph.op("GreaterOrEqual", heard, graph.constant(float(_warm_up(generator))))
    begun = graph.op("Cast", begun, to=1)
    y = graph.memory(pose.gru, x, "gru_state", begun)
    x = graph.linear(graph.op("Concat", x, y, axis=2), pose.leave.weight, pose.leave.bias)
    x = graph.op("Mul", graph.op("Add", x, direct), begun)
    x = graph.op("MatMul", x, graph.constant(pose.basis / 2))
    x = graph.op("Reshape", x, graph.constant([1, len(POSE_POINTS), 2]))
    graph.output(x, "pose", 1, len(POSE_POINTS), 2)
    # From as many calls on, all is there.
    most = graph.constant(float(config.behind + config.delay + 3))
    x = graph.op("Min", graph.op("Add", heard, graph.constant(1.0)), most)
    graph.output(x, "next_heard_state", 1)
    return graph


def _hear_spectra(graph: _Graph, generator: Generator, heard: str) -> str:
    """The audio window -> the normalised spectra that a frame's two tokens are made of, as
    :class:`~stillspeak.models.speech.LogMel` makes them."""
    config, encoder = generator.config, generator.context_encoder
    assert isinstance(encoder, SpeechContextEncoder)
    window, new = config.window, config.hop // SPECTRUM_STEP
    x = graph.input("window", 1, window)
    x = graph.part(x, 1, window - config.hop - SPECTRUM + SPECTRUM_STEP, window)
    x = graph.op("Unsqueeze", x, graph.constant([1]))
    # A convolution gives the real and the imaginary parts.
    turns = torch.arange(SPECTRUM // 2 + 1)[:, None] * torch.arange(SPECTRUM) % SPECTRUM
    angles = turns.double() * (2 * math.pi / SPECTRUM)
    log_mel = encoder.speech.spectra
    waves = torch.cat((angles.cos(), angles.sin())) * log_mel.window.cpu()
    x = graph.conv(x, waves[:, None], None, stride=(SPECTRUM_STEP,), padding=(0,), relu=False)
    filters = graph.constant(log_mel.filters.repeat(1, 2))
    power = graph.op("MatMul", filters, graph.op("Mul", x, x))
    # How many spectra the clip has had, with each of these.
    count = graph.op("Mul", heard, graph.constant(float(new)))
    count = graph.op("Add", count, graph.constant(torch.arange(new) - 2.0))
    zero, past = graph.constant(0.0), LEVEL_FRAMES - 1
    energy = graph.op("ReduceMean", power, axes=[1], keepdims=0)
    energy = graph.op("Where", graph.op("Greater", count, zero), energy, zero)
    energy = graph.op("Concat", graph.input("energy_state", 1, past), energy, axis=1)
    graph.output(graph.part(energy, 1, new, new + past), "next_energy_state", 1, past)
    ones = torch.ones(new + past, new).tril().triu(-past)
    smooth = graph.op("MatMul", energy, graph.constant(ones))
    most = graph.constant(float(LEVEL_FRAMES))
    count = graph.op("Clip", count, graph.constant(1.0), most)
    smooth = graph.op("Max", graph.op("Div", smooth, count), graph.constant(10.0**QUIETEST))
    # The state is what the level lies above the quietest one.
    fall = FALL * torch.arange(1, new + 1)
    risen = graph.op("Add", graph.log10(smooth), graph.constant(fall - QUIETEST))
    later = torch.zeros(new, new).masked_fill(torch.ones(new, new).triu(1) > 0, NEVER)
    risen = graph.op("Add", risen, graph.constant(later))
    risen = graph.op("ReduceMax", risen, axes=[1], keepdims=0)
    level = graph.op("Max", risen, graph.input("level_state", 1))
    level = graph.op("Sub", level, graph.constant(fall))
    graph.output(graph.part(level, 0, new - 1, new), "next_level_state", 1)
    shown = graph.log10(graph.op("Add", power, graph.constant(FLOOR)))
    shown = graph.op("Sub", graph.op("Sub", shown, level), graph.constant(QUIETEST))
    shown = graph.op("Max", shown, graph.constant(-RANGE))
    shown = graph.op("Add", shown, graph.constant(USUAL + 4))
    shown = graph.op("Mul", shown, graph.constant(0.25))
    x = graph.op("Concat", graph.input("spectra_state", 1, BANDS, OVERLAP), shown, axis=2)
    graph.output(graph.part(x, 2, new, new + OVERLAP), "next_spectra_state", 1, BANDS, OVERLAP)
    return str(x)


def _attend(
    graph: _Graph, layer: AttentionLayer, place: int, x: str, twice: str, waiting: int
) -> str:
    """One layer: two new tokens (1, 2, D) -> the two whose future is there by now.

    ``twice`` is two for each call so far; ``waiting`` tokens wait in the layers before.
    """
    width, heads, ahead = layer.norm.normalized_shape[0], layer.heads, layer.ahead
    reach, size = layer.behind + ahead, width // heads

    def apart(y: str) -> str:
        y = graph.op("Reshape", y, graph.constant([1, 2, heads, size]))
        return str(graph.op("Transpose", y, perm=[0, 2, 1, 3]))

    def kept(name: str, y: str, axis: int, *shape: int) -> str:
        """What a state holds, and ``y`` after it."""
        name, count = f"{name}_{place}_state", shape[axis]
        if not count:
            return y
        y = graph.op("Concat", graph.input(name, *shape), y, axis=axis)
        graph.output(graph.part(y, axis, 2, 2 + count), f"next_{name}", *shape)
        return y

    weights, biases = layer.project.weight.chunk(3), layer.project.bias.chunk(3)
    normed = graph.norm(x, layer.norm)
    key, value = (apart(graph.linear(normed, weights[i], biases[i])) for i in (1, 2))
    keys = kept("keys", key, 2, 1, heads, reach, size)
    values = kept("values", value, 2, 1, heads, reach, size)
    x = graph.part(kept("waiting", x, 1, 1, ahead, width), 1, 0, 2)
    query = graph.linear(graph.norm(x, layer.norm), weights[0], biases[0])
    query = graph.op("Mul", apart(query), graph.constant(size**-0.5))
    near = torch.full((heads, 2, reach + 2), NEVER)
    near[:, 0, :-1], near[:, 1, 1:] = layer.distance.detach(), layer.distance.detach()
    # The newest key is token 2 calls - 2 - waiting of the clip; there is none before token 0.
    until = graph.op("Sub", graph.constant(float(reach + 3 + waiting)), twice)
    absent = graph.op("Less", graph.constant(torch.arange(reach + 2)), until)
    never = graph.op("Where", absent, graph.constant(NEVER), graph.constant(0.0))
    seen = graph.op("MatMul", query, graph.op("Transpose", keys, perm=[0, 1, 3, 2]))
    seen = graph.op("Add", graph.op("Add", seen, graph.constant(near)), never)
    seen = graph.op("MatMul", graph.op("Softmax", seen, axis=-1), values)
    seen = graph.op("Transpose", seen, perm=[0, 2, 1, 3])
    seen = graph.op("Reshape", seen, graph.constant([1, 2, width]))
    x = graph.op("Add", x, graph.linear(seen, layer.join.weight, layer.join.bias))
    y = graph.linear(graph.norm(x, layer.second_norm), layer.expand.weight, layer.expand.bias)
    y = graph.linear(graph.gelu(y), layer.contract.weight, layer.contract.bias)
    return str(graph.op("Add", x, y))


def _root(generator: Generator) -> tuple[Tensor, Tensor]:
    """The decoder's first layer as a matrix (latent, C * h * w) and a bias (C * h * w,)."""
    decoder = generator.decoder
    assert isinstance(decoder, UNetDecoder)
    conv, norm = decoder.root[0], decoder.root[1]
    assert isinstance(conv, nn.ConvTranspose2d)
    scale, bias = affine(norm)
    weight = (conv.weight * scale[None, :, None, None]).flatten(1)
    cells = weight.shape[1] // len(bias)
    return weight.detach(), bias.repeat_interleave(cells).detach()


def _turned(weight: Tensor) -> Tensor:
    """A transposed convolution of stride 1 as an ordinary one: the kernel turned round."""
    return weight.flip(2, 3).transpose(0, 1)
