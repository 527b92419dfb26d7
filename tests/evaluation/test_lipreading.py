"""The lip reader: reading, its weights files, the public ones, and what is refused."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from stillspeak.data.cache import load_manifest, open_clip
from stillspeak.data.corpora import find_grid, grid_root
from stillspeak.data.prepare import prepare
from stillspeak.errors import VideoError, WeightsError
from stillspeak.evaluation.measures.lipreading import LipReader, load_lip_reader, word_error_rate
from stillspeak.models.lipnet import (
    LIPNET_FORMAT,
    LipNet,
    LipNetConfig,
    golden_reading,
    mouth_grid,
    sample_mouths,
    spell,
)
from stillspeak.weights import file_sha256, read_info, save_network, scorers

SMALL = LipNetConfig(colours=1, channels=(2, 3, 4), state=4)
PLACES = [["bin", "lay"], ["blue", "red"]]


def frames(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 128, 96, 3), dtype=np.uint8)


def save_small(path: Path, config: LipNetConfig = SMALL) -> LipNet:
    torch.manual_seed(0)
    network = LipNet(config)
    save_network(
        network,
        path,
        {"how": "by a test"},
        format_name=LIPNET_FORMAT,
        config={"network": asdict(config), "places": PLACES},
        rounded=LipNet(config),
        golden=golden_reading,
    )
    return network


class Writes(torch.nn.Module):
    """Instead of LipNet: sees a sentence in the frames' red level, a letter a frame."""

    config = LipNetConfig()

    def forward(self, mouths: torch.Tensor) -> torch.Tensor:
        letters = (mouths[:, 0].mean((2, 3)) * 255).round().long()
        return torch.nn.functional.one_hot(letters, 28).float().mul(20).log_softmax(-1)


def test_frames_go_through_network_and_vocabulary() -> None:
    video = np.zeros((9, 128, 96, 3), np.uint8)
    video[:, :, :, 0] = np.array([0, *spell("lay red"), 0])[:, None, None]
    reader = LipReader(Writes(), PLACES, "none")  # type: ignore[arg-type]
    assert reader.read(video) == "lay red"


def test_blue_comes_first_for_networks_that_want_it() -> None:
    video = np.zeros((9, 128, 96, 3), np.uint8)
    video[:, :, :, 2] = np.array([0, *spell("lay red"), 0])[:, None, None]
    reader = LipReader(Writes(), PLACES, "none", bgr=True)  # type: ignore[arg-type]
    assert reader.read(video) == "lay red"


def test_a_weights_file_is_read_back_and_decides_the_version(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_small(one)
    save_small(other, LipNetConfig(colours=3, channels=(2, 3, 4), state=4))
    reader = load_lip_reader(one)
    assert set(reader.read(frames()).split()) <= {"bin", "lay", "blue", "red"}
    assert reader.read(frames()) == load_lip_reader(one).read(frames())
    assert reader.version != load_lip_reader(other).version


def test_frames_of_twice_the_size_show_the_same_mouth() -> None:
    small = np.repeat(np.repeat(frames()[:, ::8, ::8], 8, 1), 8, 2)
    large = np.repeat(np.repeat(small, 2, 1), 2, 2)
    one, other = (sample_mouths(some, mouth_grid()) for some in (small, large))
    assert one.shape == other.shape == (1, 3, 8, 50, 100)
    assert float((one - other).abs().mean()) < 0.02


def test_no_frames_are_refused(tmp_path: Path) -> None:
    save_small(tmp_path / "one.safetensors")
    with pytest.raises(VideoError, match="without frames"):
        load_lip_reader(tmp_path / "one.safetensors").read(frames(0))


@pytest.mark.parametrize("wrapped", [False, True])
def test_the_public_weights_load(tmp_path: Path, wrapped: bool) -> None:
    torch.manual_seed(1)
    network = LipNet(LipNetConfig())
    state = {f"module.{k}" if wrapped else k: v for k, v in network.state_dict().items()}
    torch.save({"state_dict": state} if wrapped else state, tmp_path / "public.pt")
    reader = load_lip_reader(tmp_path / "public.pt")
    for name, value in reader._network.state_dict().items():
        assert torch.equal(value, network.state_dict()[name])
    assert reader.read(frames(4)) == reader.read(frames(4))


def test_the_public_weights_in_torchs_old_format_load(tmp_path: Path) -> None:
    network = LipNet(LipNetConfig())
    path = tmp_path / "public.pt"
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    assert isinstance(load_lip_reader(path), LipReader)


class Calls:
    """A pickle that would call something when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("called"),))


def test_a_pickle_that_calls_something_is_refused_and_not_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"conv1.weight": Calls()}, "evil.pt")
    with pytest.raises(WeightsError, match=r"evil\.pt: not a file of tensors alone"):
        load_lip_reader("evil.pt")
    assert not Path("called").exists()


def test_other_tensors_are_refused(tmp_path: Path) -> None:
    state = LipNet(LipNetConfig()).state_dict()
    state["gru1.weight_ih_l0"] = torch.zeros(768, 3072)  # the port's other crop
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(WeightsError, match="1 of LipNet's 24 tensors"):
        load_lip_reader(tmp_path / "other.pt")
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(WeightsError, match="24 of LipNet's 24 tensors"):
        load_lip_reader(tmp_path / "list.pt")


@pytest.mark.parametrize("name", ["junk.pt", "junk.safetensors"])
def test_junk_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(WeightsError, match="junk"):
        load_lip_reader(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"none\.pt: no such lip reader"):
        load_lip_reader(tmp_path / "none.pt")


def test_other_weights_are_no_lip_reader(tmp_path: Path) -> None:
    from stillspeak.weights import resolve_model

    with pytest.raises(WeightsError, match="not stillspeak lipnet weights"):
        load_lip_reader(resolve_model("default")[0])


def test_word_error_rate() -> None:
    assert word_error_rate("bin blue at f two now", "bin blue by f two now") == pytest.approx(1 / 6)
    with pytest.raises(ValueError, match="needs words"):
        word_error_rate("", "bin")


# --- the released network ---------------------------------------------------------------


def test_the_released_reader_says_how_it_was_made() -> None:
    released = scorers()["lipnet"]
    assert released.path.stat().st_size <= 40 * 2**20
    assert file_sha256(released.path) == released.sha256
    info = read_info(released.path)["info"]
    assert info["history"][0]["command"].startswith("stillspeak train --config configs/lipnet.toml")
    assert info["steps"] > 0 and "CC BY 4.0" in info["data"]
    assert not {"s2", "s4", "s15"} & set(info["speakers"])
    assert 0 < info["scores"]["test_speakers_s2_s4_s15_53_clips"] < 1


@pytest.mark.grid
@pytest.mark.e2e
def test_a_known_speakers_other_sentences_are_read_and_a_still_is_not(tmp_path: Path) -> None:
    root = grid_root()
    if root is None:
        pytest.skip("no GRID clips: set STILLSPEAK_GRID")
    held_out = read_info(scorers()["lipnet"].path)["info"]["held_out"]
    chosen = [c for c in find_grid(root) if c.speaker == "s1" and c.name in held_out][:3]
    assert len(chosen) == 3
    prepare(chosen, tmp_path, workers=1)
    reader = load_lip_reader()
    real, still = [], []
    for clip in load_manifest(tmp_path):
        with open_clip(clip) as tensors:
            pictures = tensors.get_tensor("frames")
        assert clip.text is not None
        real.append(word_error_rate(clip.text, reader.read(pictures)))
        repeated = np.repeat(pictures[:1], len(pictures), axis=0)
        still.append(word_error_rate(clip.text, reader.read(repeated)))
    assert np.mean(real) < 0.4
    assert np.mean(still) > 0.6
