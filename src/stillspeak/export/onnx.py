"""A generator as ONNX graphs, for programs without PyTorch.

A generator that predicts poses becomes ``hear.onnx``: one frame's sound to the mouth's pose. Any
other becomes ``still.onnx``, which runs once for a reference image, and ``step.onnx``, which makes
one frame. Every state is an input and an output.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stillspeak import __version__
from stillspeak.constants import FRAME_HEIGHT
from stillspeak.errors import ConfigError, MissingDependencyError, OutputError
from stillspeak.export.graphs import HEAR, STEP_GRAPH, STILL_GRAPH, graphs_of, warm_up_of
from stillspeak.face.align import crop_face, face_transform
from stillspeak.face.landmarks import MediaPipeDetector, check_face, choose_face
from stillspeak.face.mouth import POSE_POINTS
from stillspeak.media.audio import frame_windows
from stillspeak.media.image import load_image
from stillspeak.media.source import source_name
from stillspeak.media.video_writer import check_file, output_errors
from stillspeak.models.generator import Generator
from stillspeak.models.pixels import to_model
from stillspeak.system.atomic import partial_folder
from stillspeak.weights import file_sha256, load_model, read_info, resolve_model

FACE = "face.npz"
"""One face's inputs of ``still.onnx``, where they are asked for."""

FORMAT = "stillspeak-onnx-1"

TOLERANCE = 0.05
"""Largest difference of a frame from PyTorch's in float32, in levels of 255."""

POSE_TOLERANCE = 1e-4
"""Largest difference of a pose from PyTorch's in float32, in distances between the eyes."""

CHECKED = 100
"""Steps over which an export is compared before it is put in its place: four seconds."""

Arrays = dict[str, npt.NDArray[np.float32]]
Progress = Callable[[int, int], None] | None


@dataclass(frozen=True)
class OnnxExport:
    """What :func:`export_onnx` wrote."""

    still: Path | None
    """The graph that runs once for a reference image; None: :attr:`step` predicts poses."""
    step: Path
    """The graph that makes a frame or predicts its pose."""
    difference: float | None
    """Largest difference of a frame from PyTorch's over :data:`CHECKED` steps, in levels of 255, or
    of a pose in distances between the eyes; None: not compared."""
    metadata: dict[str, str]
    """What the files say about themselves."""
    face: Path | None = None
    """Inputs of :attr:`still` for the image that was given, as NumPy's npz."""


def export_onnx(
    model: str | Path | Generator,
    folder: str | Path,
    *,
    image: str | Path | bytes | npt.NDArray[Any] | None = None,
    face: int | None = None,
    overwrite: bool = False,
    check: bool = True,
    progress: Progress = None,
) -> OnnxExport:
    """Write a generator as ``hear.onnx``, or ``still.onnx`` and ``step.onnx``, into a folder.

    ``docs/streaming.md`` lists their inputs and outputs.

    Args:
        model: a released model's name, a weights file, or a generator.
        folder: created if it is not there; the folder around it must exist.
        image: an image with a face, whose inputs of ``still.onnx`` are written as ``face.npz``.
        face: which face, 0 being the largest; None takes the largest.
        overwrite: replace existing files.
        check: run all in ONNX Runtime, a frame at a time, beside PyTorch, and write nothing if a
            pixel is off by more than :data:`TOLERANCE`, or a pose by :data:`POSE_TOLERANCE`.
        progress: called with the steps compared and their number.

    Raises:
        WeightsError: the weights cannot be used.
        ConfigError: an image for a generator whose graph takes none.
        ImageError: the image cannot be read.
        FaceError: no usable face in it.
        OutputExistsError: one of the files exists already.
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
    target, poses = Path(folder), generator.predicts_poses
    names = [HEAR] if poses else [STILL_GRAPH, STEP_GRAPH]
    if image is not None:
        if poses:
            raise ConfigError(f"{HEAR} predicts poses and takes no image; leave the image out")
        names.append(FACE)
    _check_target(target, names, overwrite=overwrite)
    was_training = generator.training
    generator.eval()
    try:
        metadata = _metadata(generator, about)
        with output_errors(str(folder)), partial_folder(target) as partial:
            if image is not None:
                arrays: dict[str, Any] = {**face_inputs(image, generator, face=face)}
                np.savez(partial / FACE, **arrays)
            for name, graph in graphs_of(generator).items():
                graph.write(partial / name, {**metadata, "part": name.removesuffix(".onnx")})
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
    finally:
        generator.train(was_training)
    still, step = (None, HEAR) if poses else (target / STILL_GRAPH, STEP_GRAPH)
    shown = None if image is None else target / FACE
    return OnnxExport(still, target / step, difference, metadata, shown)


def face_inputs(
    image: str | Path | bytes | npt.NDArray[Any], generator: Generator, *, face: int | None = None
) -> Arrays:
    """What ``still.onnx`` takes for a face in an image: ``still`` (1, 3, H, W), the aligned crop,
    float32 in [-1, 1]. ImageError, FaceError: as for :func:`export_onnx`."""
    name, config = source_name(image), generator.config
    picture = load_image(image, name=name)
    with closing(MediaPipeDetector(any_way_up=True)) as detector:
        found = choose_face(detector.detect(picture), face, name=name)
    check_face(found, name=name)
    to_crop = face_transform(found.points, scale=config.height / FRAME_HEIGHT)
    still = crop_face(picture, to_crop, config.height, config.width)
    return {"still": to_model(still[None]).numpy()}


def open_onnx(path: Path, *, threads: int = 1) -> Any:
    """An ONNX Runtime session on the CPU; MissingDependencyError: it is not installed."""
    _need("onnxruntime")
    import onnxruntime

    onnxruntime.disable_telemetry_events()  # its builds for Windows send some
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors alone
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class OnnxStep:
    """A graph in ONNX Runtime with what it takes and its states, which begin as zeros; ``given``
    are inputs that stay, such as what ``still.onnx`` gave."""

    def __init__(self, path: Path, given: Arrays | None = None) -> None:
        self._session = open_onnx(path)
        self._outputs = [port.name for port in self._session.get_outputs()]
        shapes = {port.name: port.shape for port in self._session.get_inputs()}
        self.feed: Arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        """Inputs of the next call, by name."""
        self.feed |= given or {}

    def __call__(self, **inputs: npt.NDArray[np.float32]) -> Arrays:
        """One frame's outputs by name, with these inputs."""
        self.feed |= inputs
        made = dict(zip(self._outputs, self._session.run(None, self.feed), strict=True))
        self.feed |= {n.removeprefix("next_"): made[n] for n in made if n.startswith("next_")}
        return made


def run_still(path: Path, still: npt.NDArray[np.float32]) -> Arrays:
    """What ``still.onnx`` gives for an aligned crop (1, 3, H, W) in [-1, 1], by name."""
    return OnnxStep(path)(still=still)


def compare_onnx(
    generator: Generator, folder: Path, *, steps: int, seed: int = 0, progress: Progress = None
) -> float:
    """Run an export in a folder and its generator, in evaluation mode, side by side.

    Returns:
        The largest difference of a frame's colour in levels of 255; states count in the same
        units, 127.5 to 1. Of a pose, in distances between the eyes.
    """
    compare = _compare_poses if generator.predicts_poses else _compare_frames
    random = torch.Generator().manual_seed(seed)
    worst = 0.0
    with torch.inference_mode():
        for step, pairs in enumerate(compare(generator, folder, steps, random), 1):
            for got, wanted in pairs:
                off = float(np.abs(got - wanted.cpu().numpy()).max())
                worst = max(worst, off if math.isfinite(off) else math.inf)
            if progress is not None:
                progress(step, steps)
    return worst if generator.predicts_poses else 127.5 * worst


Pairs = Iterator[list[tuple[npt.NDArray[np.float32], Tensor]]]
"""What ONNX Runtime gave and what PyTorch did, for each step."""


def _compare_frames(
    generator: Generator, folder: Path, steps: int, random: torch.Generator
) -> Pairs:
    config, device = generator.config, generator.device
    still = torch.rand(1, 3, 8, 6, generator=random) * 2 - 1
    size = (config.height, config.width)
    still = nn.functional.interpolate(still, size, mode="bicubic").clamp(-1, 1)
    graph = OnnxStep(folder / STEP_GRAPH, run_still(folder / STILL_GRAPH, still.numpy()))
    context, state = generator.prepare_still(still.to(device)), generator.initial_state()
    for step in range(steps):
        # Quiet and loud stretches, so that the audio encoder's states move.
        loud = 0.02 + 0.5 * (step // 8 % 2)
        window = loud * (torch.rand(1, 1, config.window, generator=random) * 2 - 1)
        noise = generator.draw_noise(1, 1, random)
        decoded, state = generator.step(context, window.to(device), noise, state)
        given = {"window": window[0].numpy()}
        if config.noise_dim:
            given["noise"] = noise[0].cpu().numpy()
        made = graph(**given)
        assert isinstance(state.context, Tensor)
        wanted = {"frame": decoded.frames[:, 0], "next_noise_state": state.noise}
        wanted["next_context_state"] = state.context
        yield [(made[name], value) for name, value in wanted.items() if name in made]


def _compare_poses(
    generator: Generator, folder: Path, steps: int, random: torch.Generator
) -> Pairs:
    config, warm_up = generator.config, warm_up_of(generator)
    # Loud, silent and quiet stretches. It begins loud, before the first window, where the graph
    # must not hear it.
    samples = torch.arange((warm_up + steps) * config.hop)
    loud = torch.tensor([0.5, 0.0, 0.02])[samples // (10 * config.hop) % 3]
    sound = loud * (torch.rand(len(samples), generator=random) * 2 - 1)
    windows = frame_windows(sound.numpy(), config.window, config.hop)
    graph, state = OnnxStep(folder / HEAR), generator.initial_state()
    none = generator.draw_noise(1, 1, random)
    for step, window in enumerate(windows, -warm_up):
        made = graph(window=window[None])
        if step >= 0:
            heard = torch.tensor(window)[None, None].to(generator.device)
            pose, _, state = generator.encode(heard, none, state)
            yield [(made["pose"], pose.view(1, -1, 2))]


# --- files ------------------------------------------------------------------------------------


def _check_target(target: Path, names: Sequence[str], *, overwrite: bool) -> None:
    if target.is_dir():
        for name in names:
            check_file(target / name, overwrite=overwrite)
    elif target.exists():
        raise OutputError(f"{target}: is a file; name a folder for the ONNX files")
    else:
        check_file(target, overwrite=False)


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
    if generator.predicts_poses:
        told |= {
            "warm_up": str(warm_up_of(generator)),
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
