"""The ONNX graphs answer as PyTorch does, step by step, and say what they are."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from fixtures_animate import (
    lively,
    portrait,
    portrait_face,
    save_lively,
    speech,
    use_shared_detector,
    write_picture,
)
from stillspeak import export as module
from stillspeak.cli import app, main
from stillspeak.errors import (
    MissingDependencyError,
    NoFaceError,
    OutputError,
    OutputExistsError,
    WeightsError,
)
from stillspeak.export import (
    FACE,
    STEP,
    STILL,
    TOLERANCE,
    compare_onnx,
    export_onnx,
    face_inputs,
    open_onnx,
)
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import Decoded, Maps, Motion
from stillspeak.models.generator import Generator
from stillspeak.rendering.portrait import Portrait
from stillspeak.rendering.renderer import FaceRenderer
from stillspeak.stream import StreamSession
from stillspeak.weights import DEFAULT_MODEL, file_sha256, load_model, resolve_model

SMALL: dict[str, Any] = {
    "identity_channels": (8, 8, 12, 12, 16),
    "audio_channels": (4, 4, 8, 8, 12, 16),
    "audio_dim": 16,
    "context_dim": 16,
}
WARP: dict[str, Any] = {**SMALL, "decoder": "warp", "warp_channels": (8, 8, 12, 12, 16)}
ALIVE: dict[str, Any] = {**WARP, "mouth_channels": (8, 4), "expression_dim": 2}
KINDS: dict[str, dict[str, Any]] = {
    "temporal": {**SMALL, "decoder": "unet"},
    "finest skip": {**SMALL, "decoder": "unet", "finest_skip": True},
    "baseline": {**SMALL, "decoder": "unet", "context_layers": 0, "noise_dim": 0},
    "one layer": {**SMALL, "decoder": "unet", "context_layers": 1},
    "warp": WARP,
    "alive": {**ALIVE, "expression_gain": 4.0},
    "fluent": {
        **ALIVE,
        "audio_input": "mel",
        "audio_channels": (8, 12, 16),
        "window_seconds": 0.2,
    },
    "larger": {**ALIVE, "height": 192, "width": 144, "identity_channels": (8,) * 4}
    | {"warp_channels": (8,) * 4},
}


def grown(kind: str) -> Generator:
    """A generator of which every part shows in its frames."""
    torch.manual_seed(5)
    generator = Generator(GeneratorConfig(**KINDS[kind]))
    for name, module_ in generator.named_modules():
        if isinstance(module_, torch.nn.Conv1d | torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module_.weight)
        if isinstance(module_, torch.nn.ConvTranspose2d):
            # Four of the sixteen products of a kernel fall on each pixel.
            taps = 1 if name == "decoder.root.0" else module_.weight[0, 0].numel() // 4
            std = (2 / (module_.in_channels * taps)) ** 0.5
            torch.nn.init.normal_(module_.weight, std=std)
        if isinstance(module_, torch.nn.GRU):
            for parameter in module_.parameters():
                torch.nn.init.normal_(parameter, std=0.4)
        if isinstance(module_, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module_.weight, 0.5, 1.5)
            torch.nn.init.normal_(module_.bias, std=0.2)
            module_.running_mean.normal_(std=0.2)
            module_.running_var.uniform_(0.5, 1.5)
        if name in ("decoder.head", "decoder.mouth.head"):
            torch.nn.init.normal_(module_.weight, std=0.1)
            torch.nn.init.normal_(module_.bias, std=0.3)
    return generator.eval()


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_pytorch_s_over_many_steps(kind: str, tmp_path: Path) -> None:
    generator = grown(kind)
    made = export_onnx(generator, tmp_path / "model", check=False)
    assert made.difference is None
    assert compare_onnx(generator, tmp_path / "model", steps=100) < TOLERANCE
    ports = {port.name for port in open_onnx(made.step).get_inputs()}
    assert ("noise" in ports) == (generator.config.noise_dim > 0)
    assert ("context_state" in ports) == (generator.config.context_layers > 0)
    assert ("expression" in ports) == (generator.config.expression_dim > 0)
    assert ("still" in ports) == (generator.config.decoder == "warp")


@pytest.mark.parametrize("part", ["context_encoder", "noise_generator", "identity_encoder"])
def test_the_comparison_notices(part: str, tmp_path: Path) -> None:
    """Each part of a generator shows in what is compared."""
    generator = grown("fluent")
    export_onnx(generator, tmp_path, check=False)
    with torch.no_grad():
        for parameter in getattr(generator, part).parameters():
            parameter.mul_(1.1)
    assert compare_onnx(generator, tmp_path, steps=5) > TOLERANCE


@pytest.mark.parametrize("steps", [30])
def test_the_default_model(steps: int, tmp_path: Path) -> None:
    made = export_onnx(DEFAULT_MODEL, tmp_path / "model")
    assert made.difference is not None
    assert 0 < made.difference < TOLERANCE
    path, _ = resolve_model(DEFAULT_MODEL)
    assert compare_onnx(load_model(path), tmp_path / "model", steps=steps, seed=7) < TOLERANCE
    model = onnx.load(made.step)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["weights_sha256"] == file_sha256(path)
    assert (about["licence"], about["name"]) == ("MIT", "fluent")
    assert (about["format"], about["part"]) == ("stillspeak-onnx-1", "step")
    told = json.loads(about["config"]).items()
    config = GeneratorConfig(**{k: tuple(v) if isinstance(v, list) else v for k, v in told})
    assert config == load_model(path).config
    assert [int(about[k]) for k in ("sample_rate", "fps", "window", "hop", "before")] == [
        *(16_000, 25, 3200, 640, 1280)
    ]
    assert float(about["look_ahead_seconds"]) == 0.08
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert model.ir_version == 8


def test_a_generator_in_training_stays_so(tmp_path: Path) -> None:
    generator = grown("warp").train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    export_onnx(generator, tmp_path / "model")
    assert generator.training
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_face_s_inputs_give_the_session_s_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the picture to the frames, crop and whole photo, beside a session."""
    monkeypatch.setattr(module, "MediaPipeDetector", lambda **_: _Shared())
    use_shared_detector(monkeypatch)
    generator = lively()
    made = export_onnx(generator, tmp_path / "model", image=portrait(), check=False)
    with np.load(made.face) as file:
        face = dict(file)
    assert set(face) == {"still"}
    sound = speech(0.6)
    sessions = {
        crop: StreamSession(
            portrait(), model=generator, crop=crop, precision="float32", blink=0, expression=0
        )
        for crop in (True, False)
    }
    expected = {crop: s.push(sound) for crop, s in sessions.items()}
    first, each = open_onnx(made.still), open_onnx(made.step)
    names = [port.name for port in first.get_outputs()]
    feed = dict(zip(names, first.run(names, face), strict=True)) | face
    shapes = {port.name: port.shape for port in each.get_inputs()}
    states = [name for name in shapes if name.endswith("_state")]
    feed |= {name: np.zeros(shapes[name], np.float32) for name in states}
    outputs = [port.name for port in each.get_outputs()]
    random = torch.Generator().manual_seed(0)
    heard = np.concatenate((np.zeros(made_int(made, "before"), np.float32), sound))
    renderer = FaceRenderer(Portrait.of(portrait(), portrait_face().points, generator))
    for place, (small, large) in enumerate(zip(expected[True], expected[False], strict=True)):
        begin = place * made_int(made, "hop")
        feed["window"] = heard[None, begin : begin + made_int(made, "window")]
        feed["noise"] = generator.draw_noise(1, 1, random)[0].numpy()
        got = dict(zip(outputs, each.run(outputs, feed), strict=True))
        feed |= {name: got[f"next_{name}"] for name in states}
        frame = np.rint((got["frame"][0].transpose(1, 2, 0) + 1) * 127.5)
        assert np.abs(frame - small.picture).max() <= 1
        maps = Maps(*(torch.from_numpy(got[n])[None] for n in ("flow", "mask", "colour")))
        decoded = Decoded(None, Motion(*maps), renderer.portrait.still)
        (photo,) = renderer.render(decoded, None, torch.zeros(1, 2))
        assert np.abs(photo.astype(int) - large.picture).max() <= 1
    assert place > 10
    assert np.abs(large.picture.astype(int) - portrait()).max() > 20


class _Shared:
    def detect(self, image: np.ndarray) -> Any:
        from fixtures_animate import shared_detector

        return shared_detector().detect(image)

    def close(self) -> None:
        pass


def made_int(made: Any, key: str) -> int:
    return int(made.metadata[key])


def test_a_face_s_inputs_hold_what_a_mouth_branch_sees(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MediaPipeDetector", lambda **_: _Shared())
    face = face_inputs(portrait(), grown("fluent"))
    assert {name: value.shape for name, value in face.items()} == {
        "still": (1, 3, 128, 96),
        "lower": (1, 3, 144, 144),
    }
    for value in face.values():
        assert value.dtype == np.float32 and -1 <= value.min() < value.max() <= 1
    with pytest.raises(NoFaceError):
        face_inputs(np.zeros((200, 200, 3), np.uint8), grown("fluent"))


# --- files and mistakes -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_lively(tmp_path_factory.mktemp("export") / "small.safetensors"))


def test_nothing_is_written_that_answers_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "compare_onnx", lambda *a, **o: float("nan"))
    with pytest.raises(OutputError, match="ONNX Runtime answers otherwise than PyTorch, by nan"):
        export_onnx(lively(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "model"
    target.mkdir()
    for name in (STILL, STEP):
        (target / name).write_bytes(b"old")
    with pytest.raises(OutputExistsError, match=r"still\.onnx: exists already"):
        export_onnx(lively(), target)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module._Graph, "save", full)
    with pytest.raises(OutputError, match=r"cannot be written [(]No space left"):
        export_onnx(lively(), target, overwrite=True)
    monkeypatch.undo()
    assert {p.name: p.read_bytes() for p in target.iterdir()} == {STILL: b"old", STEP: b"old"}
    export_onnx(lively(), target, overwrite=True, check=False)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    onnx.checker.check_model(onnx.load(target / STEP))


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: is a file; name a folder"):
        export_onnx(lively(), tmp_path / "file")
    with pytest.raises(OutputError, match="does not exist; create it"):
        export_onnx(lively(), tmp_path / "none" / "model")
    (tmp_path / "odd" / STEP).mkdir(parents=True)
    with pytest.raises(OutputError, match=r"step\.onnx: is a folder"):
        export_onnx(lively(), tmp_path / "odd", overwrite=True)
    with pytest.raises(WeightsError):
        export_onnx("nobody", tmp_path / "model")


@pytest.mark.parametrize("package", ["onnx", "onnxruntime"])
def test_a_missing_package_is_named(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else real(name)
    )
    with pytest.raises(MissingDependencyError, match=rf"^{package} is not .*stillspeak\[onnx\]"):
        export_onnx(lively(), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_importing_it_loads_no_onnx() -> None:
    code = "import sys, stillspeak.export; print({'onnx', 'onnxruntime'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# --- the command ------------------------------------------------------------------------------


def run(*arguments: Any) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_the_command(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MediaPipeDetector", lambda **_: _Shared())
    photo = write_picture(tmp_path / "photo.png", portrait())
    done = run("--onnx", small, tmp_path / "model", "--photo", photo, "--json")
    assert done.exit_code == 0, done.output
    told = SimpleNamespace(**json.loads(done.stdout))
    assert [Path(name).name for name in told.files] == [STILL, STEP, FACE]
    assert all(Path(name).is_file() for name in told.files)
    assert 0 <= told.difference_levels < told.tolerance_levels == TOLERANCE
    assert told.metadata["weights"] == "small.safetensors"
    done = run("--onnx", small, tmp_path / "model", "--overwrite")
    assert done.exit_code == 0
    assert "differ from PyTorch's by at most" in done.stdout
    assert run("--onnx", small, tmp_path / "quiet", "--no-check", "--quiet").stdout == ""


def test_the_command_s_mistakes(
    small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(small, tmp_path / "model").exit_code == 2
    assert run("--onnx", small, tmp_path / "model", "--face", 0).exit_code == 2
    (tmp_path / "bad.safetensors").write_bytes(b"not weights")
    words = ["--onnx", str(tmp_path / "bad.safetensors"), str(tmp_path / "model")]
    monkeypatch.setattr(sys, "argv", ["stillspeak", "export", *words])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "bad.safetensors: not a weights file or damaged" in line
    assert not (tmp_path / "model").exists()
