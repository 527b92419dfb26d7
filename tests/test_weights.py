"""Weights files: what is saved comes back, and whatever is wrong is told in one line."""

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

import stillspeak.weights as weights_module
from stillspeak.errors import OutputError, WeightsError
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from stillspeak.weights import (
    ReleasedModel,
    catalogue,
    file_sha256,
    golden_answer,
    load_model,
    read_info,
    save_model,
)


@pytest.fixture(autouse=True)
def no_released_models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights_module, "catalogue", dict)


@pytest.fixture(scope="module", params=["unet"])
def generator(
    request: pytest.FixtureRequest,
    tiny: Callable[..., GeneratorConfig],
    lively: Callable[[GeneratorConfig], Generator],
) -> Generator:
    return lively(tiny(request.param))


@pytest.fixture
def saved(generator: Generator, tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_model(generator, path, {"steps": 7, "data": "synthetic"})
    return path


def rewrite(
    path: Path,
    *,
    tensors: Callable[[dict[str, torch.Tensor]], object] = lambda _: None,
    header: Callable[[dict[str, str]], object] = lambda _: None,
) -> None:
    """Change a safetensors file in place."""
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors(state)
    header(metadata)
    save_file(state, path, metadata)


def read_tensor(path: Path, name: str) -> torch.Tensor:
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def read_info_text(path: Path) -> str:
    """The configuration as the header has it."""
    with safe_open(path, framework="pt") as file:
        return str(file.metadata()["config"])


def refusal(path: Path | str) -> str:
    """The message with which a file is refused."""
    with pytest.raises(WeightsError) as caught:
        load_model(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_what_is_saved_comes_back(generator: Generator, saved: Path) -> None:
    loaded = load_model(saved)
    assert loaded.config == generator.config
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    state = loaded.state_dict()
    assert state.keys() == generator.state_dict().keys()
    for name, value in generator.state_dict().items():
        rounded = value.half().float() if value.is_floating_point() else value
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], rounded), name
    difference = (golden_answer(loaded) - golden_answer(generator)).abs().max()
    assert 0 < difference < 0.02  # half precision, and no more than that


def test_the_file_is_in_half_precision_and_readable_by_all(saved: Path) -> None:
    with safe_open(saved, framework="pt") as file:
        kinds = {file.get_tensor(name).dtype for name in file.keys()}  # noqa: SIM118
    assert kinds == {torch.float16, torch.int64}
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE(saved.stat().st_mode) == 0o666 & ~mask


def test_the_header_says_how_it_was_made(generator: Generator, saved: Path) -> None:
    header = read_info(saved)
    assert header["info"] == {"steps": 7, "data": "synthetic"}
    assert header["config"]["decoder"] == generator.config.decoder
    assert header["config"]["identity_channels"] == list(generator.config.identity_channels)
    assert len(header["golden"]) == len(golden_answer(generator))


def test_saving_leaves_the_generator_alone(generator: Generator, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.train()
    save_model(generator, tmp_path / "new" / "folder" / "m.safetensors", {})
    assert generator.training
    generator.eval()
    assert all(torch.equal(before[n], v) for n, v in generator.state_dict().items())
    assert [p.name for p in (tmp_path / "new" / "folder").iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize(
    "name",
    [
        "identity_encoder.layers.2.0.weight",
        "identity_encoder.head.weight",
        "context_encoder.frame_encoder.layers.0.weight",
        "context_encoder.frame_encoder.layers.13.running_var",
        "context_encoder.gru.weight_hh_l1",
        "noise_generator.gru.weight_ih_l0",
        "decoder.root.0.weight",
        "decoder.fuse.2.conv.weight",
        "decoder.up.3.0.weight",
        "decoder.head.weight",
    ],
)
def test_one_changed_tensor_fails_the_golden_answer(saved: Path, name: str) -> None:
    load_model(saved)
    random = torch.Generator().manual_seed(0)
    other = torch.randn(read_tensor(saved, name).shape, generator=random).abs()
    rewrite(saved, tensors=lambda state: state[name].copy_(other))
    assert "golden answer" in refusal(saved)
    load_model(saved, verify=False)


def test_not_a_number_fails_the_golden_answer(saved: Path) -> None:
    rewrite(saved, tensors=lambda state: state["decoder.head.bias"].fill_(float("nan")))
    assert "golden answer" in refusal(saved)


def test_a_shortened_golden_answer_is_no_proof(saved: Path) -> None:
    rewrite(saved, header=lambda h: h.update(golden="[]"))
    assert "golden answer" in refusal(saved)


def test_a_truncated_file(saved: Path) -> None:
    saved.write_bytes(saved.read_bytes()[: saved.stat().st_size // 2])
    assert "damaged" in refusal(saved)
    with pytest.raises(WeightsError, match="damaged"):
        read_info(saved)


@pytest.mark.parametrize("content", [b"", b"These are not the weights you are looking for.\n"])
def test_a_file_of_something_else(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_bytes(content)
    assert "not a weights file or damaged" in refusal(path)


def test_another_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(3)}, path)
    assert "not stillspeak weights" in refusal(path)
    save_file({"x": torch.zeros(3)}, path, {"format": "somebody-elses"})
    assert "not stillspeak weights" in refusal(path)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda h: h.pop("golden"), "header is damaged"),
        (lambda h: h.update(config="{"), "header is damaged"),
    ],
)
def test_a_damaged_header(
    saved: Path, change: Callable[[dict[str, str]], object], says: str
) -> None:
    rewrite(saved, header=change)
    assert says in refusal(saved)


@pytest.mark.parametrize(
    "difference",
    [{"third_eye": 1}, {"decoder": "diffusion"}, {"height": "tall"}, {"sample_rate": 44_100}],
)
def test_a_configuration_of_another_version(saved: Path, difference: dict[str, Any]) -> None:
    rewrite(
        saved, header=lambda h: h.update(config=json.dumps(json.loads(h["config"]) | difference))
    )
    assert "another version" in refusal(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.pop("decoder.head.bias"),
        lambda state: state.update(extra=torch.zeros(1)),
        lambda state: state.update({"decoder.head.bias": torch.zeros(99)}),
    ],
)
def test_tensors_that_do_not_fit(
    saved: Path, change: Callable[[dict[str, torch.Tensor]], object]
) -> None:
    rewrite(saved, tensors=change)
    assert "do not fit" in refusal(saved)


def test_what_only_08_can_use_is_told_in_a_line(saved: Path) -> None:
    plain = json.loads(read_info_text(saved))
    for old, says in (
        (
            {"decoder": "warp", "warp_channels": [8]},
            "made by 0.8's warp decoder, which 0.9 removed",
        ),
        ({"expression_dim": 2}, "made with generator.expression_dim, which 0.9 removed"),
        ({"finest_skip": True}, "made with generator.finest_skip, which 0.9 removed"),
    ):
        rewrite(saved, header=lambda h, old=old: h.update(config=json.dumps(plain | old)))
        said = refusal(saved)
        assert f"{saved}: {says}; use the default model or stillspeak 0.8" in said
    for name in ("alive", "warp", "warp_gan", "fluent"):
        assert f"{name}: made by 0.8's warp decoder" in refusal(name)


def test_a_u_net_of_08_still_loads(saved: Path) -> None:
    old = {"warp_channels": [24], "mouth_channels": [], "expression_dim": 0, "mel_bands": 80}
    old |= {"expression_gain": 1.0, "finest_skip": False}
    plain = json.loads(read_info_text(saved))
    rewrite(saved, header=lambda h: h.update(config=json.dumps(plain | old)))
    assert load_model(saved).config.decoder == "unet"


def test_a_missing_file_and_an_unknown_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"small": ReleasedModel("small", tmp_path / "gone.safetensors", "0", "")}
    monkeypatch.setattr(weights_module, "catalogue", lambda: known)
    for name in (tmp_path / "nothing.safetensors", "smal", tmp_path):
        assert "released model (small)" in refusal(name)
    with pytest.raises(WeightsError, match=r"'small' are not on this machine.*gone.safetensors"):
        load_model("small")


def test_a_released_model_by_its_name(
    saved: Path, monkeypatch: pytest.MonkeyPatch, generator: Generator
) -> None:
    entry = ReleasedModel("small", saved, file_sha256(saved), "")
    monkeypatch.setattr(weights_module, "catalogue", lambda: {"small": entry})
    assert load_model("small").config == generator.config


def test_a_released_model_with_a_wrong_sha256(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = ReleasedModel("small", saved, "0" * 64, "")
    monkeypatch.setattr(weights_module, "catalogue", lambda: {"small": entry})
    with pytest.raises(WeightsError, match="damaged") as caught:
        load_model("small")
    assert str(saved) in str(caught.value)
    load_model("small", verify=False)


def test_sha256_of_a_known_text(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert file_sha256(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resources = tmp_path / "resources" / "weights"
    resources.mkdir(parents=True)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "b.safetensors").touch()
    table = {
        "default": "one",
        "models": {
            "one": {"file": "a.safetensors", "sha256": "1", "summary": "first"},
            "two": {"file": "b.safetensors", "sha256": "2", "summary": "second"},
        },
    }
    (resources / "catalogue.json").write_text(json.dumps(table))
    monkeypatch.setattr(weights_module, "files", lambda _: tmp_path)
    monkeypatch.setenv("STILLSPEAK_WEIGHTS", str(elsewhere))
    models = catalogue()
    assert sorted(models) == ["default", "one", "two"]
    assert models["default"] == models["one"]
    assert models["one"].path == resources / "a.safetensors"
    assert models["two"] == ReleasedModel("two", elsewhere / "b.safetensors", "2", "second")


def test_a_disk_that_refuses_leaves_nothing_behind(generator: Generator, tmp_path: Path) -> None:
    taken = tmp_path / "taken.safetensors"
    taken.mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(generator, taken, {})
    assert [p.name for p in tmp_path.iterdir()] == ["taken.safetensors"]
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(generator, tmp_path / "file" / "m.safetensors", {})


def test_a_failed_save_keeps_the_old_file(
    saved: Path, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = saved.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match="No space left"):
        save_model(generator, saved, {})
    assert saved.read_bytes() == before
    assert [p.name for p in saved.parent.iterdir()] == [saved.name]
