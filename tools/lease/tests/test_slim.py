"""A checkpoint at half its size: what stays equal and what is lost."""

from pathlib import Path

import pytest
import torch

from slim import is_slim, restore, slim
from stillspeak.errors import CheckpointError
from stillspeak.training.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from stillspeak.training.run import RunOptions, train

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "smoke.toml"


@pytest.fixture(scope="module")
def run(speaking_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps."""
    folder = tmp_path_factory.mktemp("slim") / "run"
    options = ("training.steps=6", "training.validate_every=100")
    train(RunOptions(CONFIG, speaking_cache, folder, overrides=options, device="cpu"))
    return folder


def test_slim_and_back(run: Path, tmp_path: Path) -> None:
    path = latest_checkpoint(run)
    assert path is not None
    whole = load_checkpoint(path)
    save_checkpoint(tmp_path / "slim.safetensors", slim(whole))
    assert (tmp_path / "slim.safetensors").stat().st_size < 0.62 * path.stat().st_size
    read = load_checkpoint(tmp_path / "slim.safetensors")
    assert is_slim(read)
    assert not is_slim(whole)
    back = restore(read)
    assert back.keys() == whole.keys()
    for name, weight in whole["objective"].items():
        assert torch.equal(back["objective"][name], weight)
    for name, value in whole["average"].items():
        distance = (value - whole["objective"][f"generator.{name}"]).abs()
        assert back["average"][name].dtype == value.dtype
        error = (back["average"][name] - value).abs()
        assert bool((error <= distance / 256 + 1e-7).all())
    for index, moments in whole["optimizer"]["state"].items():
        got = back["optimizer"]["state"][index]
        assert got["step"] == moments["step"]
        assert not got["exp_avg"].any()
        torch.testing.assert_close(got["exp_avg_sq"], moments["exp_avg_sq"], rtol=2**-8, atol=0)
        assert got["exp_avg_sq"].dtype == torch.float32
    assert "slim" in back["history"][-1]["note"]
    assert back["step"] == 6


def test_a_run_goes_on_from_it(run: Path, speaking_cache: Path, tmp_path: Path) -> None:
    path = latest_checkpoint(run)
    assert path is not None
    save_checkpoint(tmp_path / path.name, restore(slim(load_checkpoint(path))))
    reason = train(
        RunOptions(
            CONFIG,
            speaking_cache,
            tmp_path,
            resume=True,
            device="cpu",
            overrides=("training.validate_every=100",),
        )
    )
    assert reason == "all 8 steps are done"


def test_only_once(run: Path) -> None:
    path = latest_checkpoint(run)
    assert path is not None
    whole = load_checkpoint(path)
    with pytest.raises(CheckpointError, match="slim already"):
        slim(slim(whole))
    with pytest.raises(CheckpointError, match="not slim"):
        restore(whole)
