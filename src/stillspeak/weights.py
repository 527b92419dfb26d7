"""Released weights: found by name, checked, and proved on a golden input.

A weights file is a safetensors file in half precision. Its header holds the generator's
configuration, how it was made (command, data, steps, scores) and a *golden* answer: values
that the model gave on a fixed synthetic input. A file that loads still gives them.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from stillspeak.errors import ConfigError, OutputError, WeightsError
from stillspeak.models.config import RETIRED, GeneratorConfig
from stillspeak.models.generator import Generator
from stillspeak.models.lipnet import LIPNET_FORMAT
from stillspeak.models.mood import MOOD_FORMAT
from stillspeak.models.motion import MOTION_FORMAT
from stillspeak.models.refiner import REFINER_FORMAT
from stillspeak.models.speech import (
    SPEECH_FORMAT,
    SpeechEncoder,
    SpeechEncoderConfig,
    golden_speech,
)
from stillspeak.models.syncnet import SYNC_FORMAT
from stillspeak.system.atomic import whole_file
from stillspeak.system.configuration import read_json
from stillspeak.system.runtime import torch_threads

FORMAT = "stillspeak-generator-1"
FORMATS = (
    *(FORMAT, LIPNET_FORMAT, SYNC_FORMAT, SPEECH_FORMAT, REFINER_FORMAT),
    *(MOOD_FORMAT, MOTION_FORMAT),
)
DEFAULT_MODEL = "default"
GOLDEN_TOLERANCE = 0.02
"""Largest difference from the golden answer, on a scale of [-1, 1]: far above rounding, far below
what a wrong tensor does."""
MAX_BYTES = 4 * 2**30
"""Size of a weights file that is read: forty times the paper's generator."""
_NO_ANSWER = 1e6
_REMOVED = frozenset(("warp", "warp_gan", "alive", "fluent"))  # once released
_NO_WARP = "made by 0.8's warp decoder, which 0.9 removed; use the default model or stillspeak 0.8"
GOLDEN_PIXELS = 499
"""Values of the frames in a golden answer. A prime, so that they do not fall into one column."""


@dataclass(frozen=True)
class ReleasedModel:
    """An entry of the catalogue."""

    name: str
    path: Path
    sha256: str
    summary: str


def catalogue() -> dict[str, ReleasedModel]:
    """The released models by name; ``default`` is the one in the package.

    Others lie in the ``weights`` folder of a checkout, or in the one STILLSPEAK_WEIGHTS names.
    """
    models, default = _released("models")
    return {**models, DEFAULT_MODEL: models[default]}


def scorers() -> dict[str, ReleasedModel]:
    """The released networks that measure, by name: ``lipnet`` and ``sync``."""
    return _released("scorers")[0]


def _released(kind: str) -> tuple[dict[str, ReleasedModel], str]:
    """One kind of the catalogue's entries, and the default model's name."""
    resources = Path(str(files("stillspeak"))) / "resources" / "weights"
    places = [resources, Path(__file__).parents[2] / "weights"]
    if named := os.environ.get("STILLSPEAK_WEIGHTS"):
        places.insert(1, Path(named))
    table = json.loads((resources / "catalogue.json").read_text("utf-8"))
    models = {}
    for name, entry in table[kind].items():
        candidates = [place / entry["file"] for place in places]
        path = next((p for p in candidates if p.is_file()), candidates[0])
        models[name] = ReleasedModel(name, path, entry["sha256"], entry["summary"])
    return models, table["default"]


def resolve_model(model: str | Path) -> tuple[Path, str | None]:
    """A released model's name or a file's path to the file and its known SHA-256, if any.

    Raises:
        WeightsError: neither a known name nor a file.
    """
    known = catalogue()
    if isinstance(model, str) and model in known:
        entry = known[model]
        if not entry.path.is_file():
            raise WeightsError(
                f"the weights {model!r} are not on this machine; put {entry.path.name} into a "
                "folder and name that folder in STILLSPEAK_WEIGHTS"
            )
        return entry.path, entry.sha256
    path = Path(model)
    if not path.is_file():
        if model in _REMOVED:
            raise WeightsError(f"{model}: {_NO_WARP}")
        names = ", ".join(sorted(known))
        raise WeightsError(f"{model}: no such weights file, and no released model ({names})")
    return path, None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file as a hexadecimal string."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def identify_model(model: str | Path | None) -> tuple[str, str | None]:
    """Name and SHA-256 of a released model, ``default`` resolved, or of a weights file.

    None stands for a generator that was handed in, of which neither is known.

    Raises:
        WeightsError: neither a known name nor a file.
    """
    if model is None:
        return "a generator made in memory", None
    path, sha256 = resolve_model(model)
    name = path.stem
    if sha256 is not None:
        name = next(entry.name for entry in catalogue().values() if entry.path == path)
    return name, sha256 or file_sha256(path)


def read_info(path: Path) -> dict[str, Any]:
    """The header of a weights file of any kind: ``config``, ``info`` and ``golden``.

    Raises:
        WeightsError: not a stillspeak weights file, or damaged.
    """
    with _opened(path) as (header, _):
        return header


def load_model(
    model: str | Path = DEFAULT_MODEL, *, device: torch.device | str = "cpu", verify: bool = True
) -> Generator:
    """Load a generator, ready to run (evaluation mode, float32, no gradients).

    Args:
        model: a released model's name, or the path of a weights file.
        device: where to put it.
        verify: check the catalogue's SHA-256 and repeat the golden input (30 ms on a CPU).

    Raises:
        WeightsError: unknown name, no such file, damaged or changed file, tensors that do not
            fit the configuration inside, or another answer to the golden input.
    """
    path, sha256 = resolve_model(model)
    if verify and sha256 and file_sha256(path) != sha256:
        raise WeightsError(f"{path}: damaged (its SHA-256 is not the released one); fetch it again")
    # Short pieces of work, each of which would wait for a second core that others may be using.
    with torch_threads(1):
        generator, _ = load_network(
            path,
            format_name=FORMAT,
            build=lambda table: Generator(_config(table, path)),
            golden=golden_answer,
            verify=verify,
        )
    return generator.to(device)


def save_model(generator: Generator, path: Path, info: Mapping[str, Any]) -> None:
    """Write a generator as a weights file, through a temporary file.

    Args:
        generator: in any mode; floating-point tensors are stored as float16.
        path: the file to write.
        info: how it was made: command, data, steps, scores, licence. JSON values.

    Raises:
        OutputError: the disk refuses.
    """
    save_network(
        generator,
        path,
        info,
        format_name=FORMAT,
        config=asdict(generator.config),
        # The golden answer is that of the rounded weights, which is what will be loaded.
        rounded=Generator(generator.config),
        golden=golden_answer,
    )


N = TypeVar("N", bound=nn.Module)


def save_network(
    network: N,
    path: Path,
    info: Mapping[str, Any],
    *,
    format_name: str,
    config: Mapping[str, Any],
    rounded: N,
    golden: Callable[[N], Tensor],
) -> None:
    """Write any network as a weights file, as :func:`save_model` writes a generator.

    Args:
        network, path, info: as there.
        format_name: the kind of weights file, with its version.
        config: what the network is built from. JSON values.
        rounded: a second network of the same kind, which gets the rounded weights.
        golden: a network's answer to a fixed input, a vector.
    """
    state = {
        name: (value.half() if value.is_floating_point() else value).detach().cpu().contiguous()
        for name, value in network.state_dict().items()
    }
    rounded.load_state_dict(_widened(state))
    with torch.no_grad():
        answer = golden(rounded.eval())
    metadata = {
        "format": format_name,
        "config": json.dumps(dict(config)),
        "info": json.dumps(dict(info)),
        "golden": json.dumps([round(v, 5) for v in answer.tolist()]),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            # save_file would make a file that only its owner can read.
            partial.write_bytes(save(state, metadata))
    except (OSError, SafetensorError) as error:
        raise OutputError(f"{path}: cannot be written ({error})") from error


def load_network(
    path: Path,
    *,
    format_name: str,
    build: Callable[[Mapping[str, Any]], N],
    golden: Callable[[N], Tensor],
    verify: bool = True,
) -> tuple[N, dict[str, Any]]:
    """Load what :func:`save_network` wrote, ready to run.

    Args:
        path, format_name: the weights file, and the kind that it has to be.
        build: makes the network from the configuration inside.
        golden: as when it was saved; the answer must be the same up to GOLDEN_TOLERANCE.
        verify: compare that answer.

    Returns:
        The network (evaluation mode, float32, no gradients), and ``config`` and ``info``.

    Raises:
        WeightsError: no such file, damaged, of another kind, or another golden answer.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    with _opened(path, format_name) as (header, file):
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    try:
        # First without memory for its tensors: a few numbers could ask for any amount.
        with torch.device("meta"):
            wanted = {k: v.shape for k, v in build(header["config"]).state_dict().items()}
        given = {k: v.shape for k, v in state.items()}
        if wanted != given or any(value.is_complex() for value in state.values()):
            raise WeightsError(
                f"{path}: its tensors do not fit its own configuration; fetch it again"
            )
        network = build(header["config"])
        network.load_state_dict(_widened(state))
    except (TypeError, KeyError, AttributeError, ConfigError) as error:
        raise WeightsError(
            f"{path}: made for another version of stillspeak ({error}); update stillspeak"
        ) from error
    network.eval().requires_grad_(False)
    if verify:
        with torch.no_grad():
            _verify(golden(network), header["golden"], path)
    return network, {"config": header["config"], "info": header["info"]}


def load_speech_encoder(path: Path) -> tuple[SpeechEncoder, dict[str, Any]]:
    """Load a speech encoder of its own, as its training writes it; see :func:`load_network`."""
    return load_network(
        path,
        format_name=SPEECH_FORMAT,
        build=lambda table: SpeechEncoder(SpeechEncoderConfig(**table)),
        golden=golden_speech,
    )


@torch.no_grad()
def golden_answer(generator: Generator) -> Tensor:
    """What the generator answers to a fixed input of sines: encodings and parts of two frames.

    The encodings are there because little of a wrong encoder may reach the picture.
    """
    config = generator.config
    ys = torch.linspace(-1, 1, config.height).view(-1, 1)
    xs = torch.linspace(-1, 1, config.width).view(1, -1)
    still = torch.stack(
        [torch.sin(math.pi * (k * xs + (3 - k) * ys + 0.3 * k)) for k in (1, 2, 3)]
    )[None]
    time = torch.arange(config.hop + config.window) / config.sample_rate
    wave = 0.3 * torch.sin(2 * math.pi * (140 * time + 900 * time**2))
    windows = wave.unfold(0, config.window, config.hop)[None]
    noise = torch.linspace(-1, 1, windows.shape[1] * config.noise_dim)
    noise = noise.view(1, windows.shape[1], config.noise_dim)
    context = generator.prepare_still(still)
    speech, noise, _ = generator.encode(windows, noise, generator.initial_state())
    decoded = generator.decode(context, speech, noise)
    if decoded.pose is not None:
        # In distances between the eyes, of which a mouth moves some tenths.
        return 5 * decoded.pose.flatten()
    frames = decoded.frames
    return torch.cat(
        (
            frames.flatten()[:: frames.numel() // GOLDEN_PIXELS][:GOLDEN_PIXELS],
            speech[0, -1],
            noise[0, -1],
            context.code[0],
        )
    )


@contextmanager
def _opened(path: Path, format_name: str | None = None) -> Iterator[tuple[dict[str, Any], Any]]:
    """A weights file's header and open file; of any kind if None is given, then of any size."""
    try:
        if format_name and path.stat().st_size > MAX_BYTES:
            raise WeightsError(
                f"{path}: {path.stat().st_size / 2**30:.1f} GiB, the limit for weights is "
                f"{MAX_BYTES / 2**30:g}; this is another file"
            )
        with safe_open(path, framework="pt") as file:
            yield _header(file.metadata(), path, format_name), file
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path}: not a weights file or damaged ({str(error).splitlines()[0]}); fetch it again"
        ) from error


def _widened(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k: v.float() if v.is_floating_point() else v for k, v in state.items()}


def _verify(answer: Tensor, golden: Any, path: Path) -> None:
    numbers = isinstance(golden, list) and all(
        type(value) in (int, float) and abs(value) < _NO_ANSWER for value in golden
    )
    if not numbers or len(golden) != len(answer):
        raise WeightsError(f"{path}: its golden answer is damaged; fetch the file again")
    difference = (answer - torch.tensor(golden)).abs().max().item()
    if not difference <= GOLDEN_TOLERANCE:  # NaN is a failure too
        raise WeightsError(
            f"{path}: the model does not give its golden answer (off by {difference:.3f}); "
            "fetch the file again"
        )


def _header(
    metadata: Mapping[str, str] | None, path: Path, format_name: str | None
) -> dict[str, Any]:
    kind = (metadata or {}).get("format", "")
    if not metadata or not (kind == format_name if format_name else kind in FORMATS):
        kind = "" if format_name in (None, FORMAT) else f"{str(format_name).split('-')[1]} "
        raise WeightsError(f"{path}: a safetensors file, but not stillspeak {kind}weights")
    try:
        header = {key: read_json(metadata[key]) for key in ("config", "info", "golden")}
        if not isinstance(header["config"], dict) or not isinstance(header["info"], dict):
            raise ValueError
    except (KeyError, ValueError) as error:
        raise WeightsError(f"{path}: its header is damaged; fetch it again") from error
    return header


def _config(table: Mapping[str, Any], path: Path) -> GeneratorConfig:
    if table.get("decoder") == "warp":
        raise WeightsError(f"{path}: {_NO_WARP}")
    for name in ("expression_dim", "finest_skip"):
        if table.get(name):
            raise WeightsError(
                f"{path}: made with generator.{name}, which 0.9 removed; use the default model or "
                "stillspeak 0.8"
            )
    return GeneratorConfig(**{k: v for k, v in table.items() if k not in RETIRED})
