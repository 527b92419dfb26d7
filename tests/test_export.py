"""The ONNX graphs answer as PyTorch does, step by step, and say what they are."""

import json
import re
import runpy
import subprocess
import sys
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from typer.testing import CliRunner

from stillspeak.cli.app import app, main
from stillspeak.errors import (
    ConfigError,
    MissingDependencyError,
    NoFaceError,
    OutputError,
    OutputExistsError,
    WeightsError,
)
from stillspeak.export import onnx as module
from stillspeak.export.graphs import HEAR, STEP_GRAPH, STILL_GRAPH, GraphStep
from stillspeak.export.onnx import (
    FACE,
    POSE_TOLERANCE,
    TOLERANCE,
    OnnxStep,
    compare_onnx,
    export_onnx,
    face_inputs,
    open_onnx,
    run_still,
)
from stillspeak.face.mouth import POSE_POINTS
from stillspeak.media.audio import frame_windows, load_audio
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from stillspeak.models.pose import PoseConfig
from stillspeak.models.speech import SpeechEncoderConfig
from stillspeak.stream import StreamSession
from stillspeak.weights import (
    DEFAULT_MODEL,
    file_sha256,
    load_model,
    read_info,
    resolve_model,
    save_model,
)
from support.animate import (
    lively,
    portrait,
    save_lively,
    speech,
    use_shared_detector,
    write_picture,
    write_wav,
)

SMALL: dict[str, Any] = {
    "identity_channels": (8, 8, 12, 12, 16),
    "audio_channels": (4, 4, 8, 8, 12, 16),
    "audio_dim": 16,
    "context_dim": 16,
}
LAYERS: dict[str, Any] = {"decoder": "layers", "audio_input": "speech", "noise_dim": 0}
EXAMPLE = Path(__file__).parents[1] / "examples" / "onnx_mouth.py"
KINDS: dict[str, dict[str, Any]] = {
    "temporal": {**SMALL, "decoder": "unet"},
    "baseline": {**SMALL, "decoder": "unet", "context_layers": 0, "noise_dim": 0},
    "one layer": {**SMALL, "decoder": "unet", "context_layers": 1},
    "larger": {**SMALL, "decoder": "unet", "height": 192, "width": 144}
    | {"identity_channels": (8,) * 4},
}
SPEAKING = {
    "layers": (SpeechEncoderConfig(32, 4, 75, (3, 2, 2)), PoseConfig(16, 1, 4)),
    "near": (SpeechEncoderConfig(24, 2, 1, (0, 1)), PoseConfig(8, 2, 3)),
    "far ahead": (SpeechEncoderConfig(24, 3, 2, (5, 0, 9)), PoseConfig(8, 1, 3)),
}
"""Encoders that look far back, hardly anywhere, and farther ahead than back."""


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
        if name == "decoder.head":
            torch.nn.init.normal_(module_.weight, std=0.1)
            torch.nn.init.normal_(module_.bias, std=0.3)
    return generator.eval()


def speaking(kind: str) -> Generator:
    """A generator whose poses depend on every part of it."""
    torch.manual_seed(6)
    encoder, pose = SPEAKING[kind]
    generator = Generator(GeneratorConfig(**LAYERS, speech=encoder, pose=pose))
    for name, value in generator.state_dict().items():
        if "norm" in name or name.endswith(("mean", "deviation")):
            value.add_(torch.rand_like(value))
        elif name.endswith("distance"):
            value.normal_()
        elif value.dim() > 1:
            value.normal_(std=value[0].numel() ** -0.5)
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
    assert "still" not in ports


@pytest.mark.parametrize("kind", SPEAKING)
def test_poses_are_pytorch_s_from_the_first_on(kind: str, tmp_path: Path) -> None:
    generator = speaking(kind)
    made = export_onnx(generator, tmp_path / "model", check=False)
    assert (made.still, made.step.name, made.face) == (None, HEAR, None)
    assert compare_onnx(generator, tmp_path / "model", steps=120) < POSE_TOLERANCE
    config, delay = generator.config, generator.config.speech.delay
    shapes = {port.name: port.shape for port in open_onnx(made.step).get_inputs()}
    assert shapes["window"] == [1, config.window]
    assert made_int(made, "warm_up") == delay + 1
    outputs = {port.name: port.shape for port in open_onnx(made.step).get_outputs()}
    assert outputs.pop("pose") == [1, 41, 2]
    assert outputs == {f"next_{name}": shape for name, shape in shapes.items() if name != "window"}


PARTS = {
    "speech.conv2": 1,
    "speech.layers.0.distance": 30,
    "speech.layers.2.norm": 1,
    "pose.gru": 3,
    "pose.direct": 1,
}


@pytest.mark.parametrize("part", PARTS)
def test_the_comparison_notices_what_a_pose_is_made_of(part: str, tmp_path: Path) -> None:
    generator = speaking("layers")
    export_onnx(generator, tmp_path, check=False)
    assert compare_onnx(generator, tmp_path, steps=PARTS[part]) < POSE_TOLERANCE
    for name, value in generator.context_encoder.state_dict().items():
        if name.startswith(part):
            value.mul_(1.1)
    assert compare_onnx(generator, tmp_path, steps=PARTS[part]) > POSE_TOLERANCE


@pytest.mark.parametrize("part", ["context_encoder", "noise_generator", "identity_encoder"])
def test_the_comparison_notices(part: str, tmp_path: Path) -> None:
    """Each part of a generator shows in what is compared."""
    generator = grown("temporal")
    export_onnx(generator, tmp_path, check=False)
    with torch.no_grad():
        for parameter in getattr(generator, part).parameters():
            parameter.mul_(1.1)
    assert compare_onnx(generator, tmp_path, steps=5) > TOLERANCE


ABOUT = {
    DEFAULT_MODEL: (POSE_TOLERANCE, "hear", (16_000, 25, 5520, 640, 2440), 0.1525),
    "temporal": (TOLERANCE, "step", (16_000, 25, 2560, 640, 960), 0.06),
}


@pytest.mark.e2e
@pytest.mark.parametrize("name", ABOUT)
def test_released_models(name: str, tmp_path: Path) -> None:
    tolerance, part, sizes, ahead = ABOUT[name]
    made = export_onnx(name, tmp_path / "model")
    assert made.difference is not None
    assert 0 < made.difference < tolerance
    path, _ = resolve_model(name)
    assert compare_onnx(load_model(path), tmp_path / "model", steps=30, seed=7) < tolerance
    model = onnx.load(made.step)
    about = {entry.key: entry.value for entry in model.metadata_props}
    assert about["weights_sha256"] == file_sha256(path)
    info = read_info(path)["info"]
    assert [about.get(key) for key in ("name", "licence")] == [
        info.get("name"),
        info.get("licence"),
    ]
    assert (about["format"], about["part"]) == ("stillspeak-onnx-1", part)
    assert json.loads(about["config"]) == json.loads(json.dumps(asdict(load_model(path).config)))
    keys = ("sample_rate", "fps", "window", "hop", "before")
    assert tuple(int(about[key]) for key in keys) == sizes
    assert float(about["look_ahead_seconds"]) == ahead
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert model.ir_version == 8


@pytest.mark.e2e
def test_the_example_says_the_default_model_s_poses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A whole sentence, beside the generator that hears it at once."""
    made = export_onnx(DEFAULT_MODEL, tmp_path / "model", check=False)
    assert json.loads(made.metadata["pose_points"]) == list(POSE_POINTS)
    sentence = Path(str(files("stillspeak"))) / "resources" / "speech.flac"
    wav = write_wav(tmp_path / "speech.wav", load_audio(sentence, sample_rate=16_000))

    def run_example(*arguments: Any) -> int:
        monkeypatch.setattr(sys, "argv", ["onnx_mouth.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(EXAMPLE), run_name="__main__")
        return int(stop.value.code)

    assert run_example(made.step, wav, tmp_path / "poses.npy") == 0
    said = r".*: (\d+) poses; the mouth opens widest at [\d.]+ s, to \d+ % of the distance .*\n"
    told = re.fullmatch(said, capsys.readouterr().out)
    poses = np.load(tmp_path / "poses.npy")
    assert told is not None
    assert int(told[1]) == len(poses) > 100
    generator = load_model(DEFAULT_MODEL)
    config = generator.config
    windows = frame_windows(load_audio(wav, sample_rate=16_000), config.window, config.hop)
    with torch.inference_mode():
        none = torch.zeros(1, len(windows), 0)
        heard = torch.tensor(windows)[None]
        wanted, _, _ = generator.encode(heard, none, generator.initial_state())
    assert np.abs(poses - wanted[0].view(-1, 41, 2).numpy()).max() < POSE_TOLERANCE
    assert np.abs(poses).max() > 0.1

    assert run_example(made.step, write_wav(tmp_path / "cd.wav", speech(0.1), 44_100), "no") == 1
    assert "not 16-bit mono at 16000 Hz" in capsys.readouterr().err
    assert run_example() == 2


def test_poses_see_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"hear\.onnx predicts poses and takes no image"):
        export_onnx(speaking("near"), tmp_path / "model", image=portrait())
    assert list(tmp_path.iterdir()) == []


def test_a_generator_in_training_stays_so(tmp_path: Path) -> None:
    generator = grown("temporal").train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    export_onnx(generator, tmp_path / "model")
    assert generator.training
    for name, value in generator.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_face_s_inputs_give_the_session_s_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the picture to the frames, beside a session."""
    monkeypatch.setattr(module, "MediaPipeDetector", lambda **_: _Shared())
    use_shared_detector(monkeypatch)
    generator = lively()
    made = export_onnx(generator, tmp_path / "model", image=portrait(), check=False)
    with np.load(made.face) as file:
        face = dict(file)
    assert {name: value.shape for name, value in face.items()} == {"still": (1, 3, 128, 96)}
    sound = speech(0.6)
    plain = {"precision": "float32", "blink": 0, "expression": 0, "head_motion": 0}
    expected = StreamSession(portrait(), model=generator, crop=True, **plain).push(sound)
    step = OnnxStep(made.step, run_still(made.still, **face))
    random = torch.Generator().manual_seed(0)
    heard = np.concatenate((np.zeros(made_int(made, "before"), np.float32), sound))
    for place, shown in enumerate(expected):
        begin = place * made_int(made, "hop")
        window = heard[None, begin : begin + made_int(made, "window")]
        got = step(window=window, noise=generator.draw_noise(1, 1, random)[0].numpy())
        frame = np.rint((got["frame"][0].transpose(1, 2, 0) + 1) * 127.5)
        assert np.abs(frame - shown.picture).max() <= 1
    assert place > 10


class _Shared:
    def detect(self, image: np.ndarray) -> Any:
        from support.animate import shared_detector

        return shared_detector().detect(image)

    def close(self) -> None:
        pass


def made_int(made: Any, key: str) -> int:
    return int(made.metadata[key])


def test_a_picture_without_a_face_has_no_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MediaPipeDetector", lambda **_: _Shared())
    with pytest.raises(NoFaceError):
        face_inputs(np.zeros((200, 200, 3), np.uint8), grown("temporal"))


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
    for name in (STILL_GRAPH, STEP_GRAPH):
        (target / name).write_bytes(b"old")
    with pytest.raises(OutputExistsError, match=r"still\.onnx: exists already"):
        export_onnx(lively(), target)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(GraphStep, "write", full)
    with pytest.raises(OutputError, match="the disk is full"):
        export_onnx(lively(), target, overwrite=True)
    monkeypatch.undo()
    left = {path.name: path.read_bytes() for path in target.iterdir()}
    assert left == {STILL_GRAPH: b"old", STEP_GRAPH: b"old"}
    export_onnx(lively(), target, overwrite=True, check=False)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    onnx.checker.check_model(onnx.load(target / STEP_GRAPH))


def test_targets_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: is a file; name a folder"):
        export_onnx(lively(), tmp_path / "file")
    with pytest.raises(OutputError, match="does not exist; create it"):
        export_onnx(lively(), tmp_path / "none" / "model")
    (tmp_path / "odd" / STEP_GRAPH).mkdir(parents=True)
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


@pytest.mark.e2e
def test_importing_it_loads_no_onnx() -> None:
    code = "import sys, stillspeak.export.onnx; print({'onnx', 'onnxruntime'} & set(sys.modules))"
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
    assert [Path(name).name for name in told.files] == [STILL_GRAPH, STEP_GRAPH, FACE]
    assert all(Path(name).is_file() for name in told.files)
    assert 0 <= told.difference_levels < told.tolerance_levels == TOLERANCE
    assert told.metadata["weights"] == "small.safetensors"
    done = run("--onnx", small, tmp_path / "model", "--overwrite")
    assert done.exit_code == 0
    assert "differ from PyTorch's by at most" in done.stdout
    assert run("--onnx", small, tmp_path / "quiet", "--no-check", "--quiet").stdout == ""


def test_the_command_with_a_model_of_poses(tmp_path: Path) -> None:
    weights = tmp_path / "near.safetensors"
    save_model(speaking("near"), weights, {"made": "for tests"})
    done = run("--onnx", weights, tmp_path / "model", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["files"] == [str(tmp_path / "model" / HEAR)]
    assert told["difference_eye_distances"] < told["tolerance_eye_distances"] == POSE_TOLERANCE
    done = run("--onnx", weights, tmp_path / "model", "--overwrite")
    assert "differ from PyTorch's by at most" in done.stdout
    assert "of the distance between the eyes" in done.stdout
    assert run("--onnx", weights, tmp_path / "other", "--photo", "photo.jpg").exit_code == 1


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
