"""The audio-visual offset: its sign, its confidence, weights files, and real clips."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from stillspeak.data.cache import load_manifest, open_clip
from stillspeak.data.corpora import find_grid, grid_root
from stillspeak.data.prepare import prepare
from stillspeak.errors import VideoError, WeightsError
from stillspeak.evaluation.measures.sync import SyncScorer, load_sync_scorer, score_distances
from stillspeak.models.syncnet import SYNC_FORMAT, SyncNet, SyncNetConfig, golden_sync
from stillspeak.weights import file_sha256, read_info, resolve_model, save_network, scorers

SMALL = SyncNetConfig(bands=16, picture_channels=(2, 3, 4, 4), sound_channels=(6, 6), dim=8)


def save_small(path: Path, seed: int = 0) -> SyncNet:
    torch.manual_seed(seed)
    network = SyncNet(SMALL)
    save_network(
        network,
        path,
        {"how": "by a test"},
        format_name=SYNC_FORMAT,
        config=asdict(SMALL),
        rounded=SyncNet(SMALL),
        golden=golden_sync,
    )
    return network


def clip(count: int = 30) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (count, 128, 96, 3), dtype=np.uint8)
    return frames, (0.1 * random.standard_normal(count * 640)).astype(np.float32)


def test_offset_is_the_nearest_shift_and_confidence_median_minus_minimum() -> None:
    distances = np.linspace(1.0, 1.2, 21, dtype=np.float32)
    distances[13] = 0.5
    score = score_distances(distances)
    assert score.offset == 3  # index 10 is no shift
    assert score.confidence == pytest.approx(float(np.median(distances)) - 0.5)
    assert score.distances is distances


def test_without_any_difference_nothing_is_claimed() -> None:
    score = score_distances(np.ones(21, np.float32))
    assert score.offset == 0 and score.confidence == 0


class Reads:
    """Instead of SyncNet: what is in the pictures' brightness is in the sound's loudness."""

    def see(self, mouths: torch.Tensor) -> torch.Tensor:
        return self._vectors((mouths.mean((2, 3)) > 0).float().unfold(1, 5, 1))

    def hear(self, audio: torch.Tensor) -> torch.Tensor:
        loud = audio.view(1, -1, 640).abs().mean(-1)
        return self._vectors((loud > 0.1).float().unfold(1, 5, 1))

    def _vectors(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(2 * windows - 1, dim=-1)


@pytest.mark.parametrize("late", [-10, -3, 0, 1, 7])
def test_late_sound_is_positive(late: int) -> None:
    on = np.random.default_rng(3).random(80) < 0.5
    frames = np.where(on[10:70, None, None, None], 200, 20).astype(np.uint8)
    frames = np.broadcast_to(frames, (60, 128, 96, 3))
    audio = np.repeat(on[10 - late : 70 - late], 640).astype(np.float32) * 0.5
    score = SyncScorer(Reads(), "none").measure(frames, audio)  # type: ignore[arg-type]
    assert score.offset == late
    assert score.distances[10 + late] < 0.01 and score.confidence > 0.5


def test_what_is_too_short_is_refused(tmp_path: Path) -> None:
    save_small(tmp_path / "one.safetensors")
    scorer = load_sync_scorer(tmp_path / "one.safetensors")
    frames, audio = clip(25)
    assert np.isfinite(scorer.measure(frames, audio).distances).all()
    for few, short in ((frames[:24], audio), (frames, audio[:-1]), (frames[:0], audio)):
        with pytest.raises(VideoError, match=r"too short .* 25 are needed"):
            scorer.measure(few, short)


def test_a_weights_file_is_read_back_and_decides_the_version(tmp_path: Path) -> None:
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    save_small(one)
    save_small(other, seed=1)
    first, again = load_sync_scorer(one), load_sync_scorer(one)
    assert first.version == again.version != load_sync_scorer(other).version
    a, b = first.measure(*clip()), again.measure(*clip())
    assert a.offset == b.offset and (a.distances == b.distances).all()
    assert a.distances.shape == (21,)


def test_frames_of_twice_the_size_show_the_same_mouth(tmp_path: Path) -> None:
    save_small(tmp_path / "one.safetensors")
    scorer = load_sync_scorer(tmp_path / "one.safetensors")
    small = np.repeat(np.repeat(clip()[0][:, ::8, ::8], 8, 1), 8, 2)
    large = np.repeat(np.repeat(small, 2, 1), 2, 2)
    assert float((scorer._mouths(small) - scorer._mouths(large)).abs().mean()) < 0.02


def test_other_files_are_no_sync_network(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="not stillspeak sync weights"):
        load_sync_scorer(resolve_model("default")[0])
    with pytest.raises(WeightsError, match="no such weights file"):
        load_sync_scorer(tmp_path / "none.safetensors")
    (tmp_path / "junk.safetensors").write_bytes(b"junk")
    with pytest.raises(WeightsError, match="junk"):
        load_sync_scorer(tmp_path / "junk.safetensors")


# --- the released network ---------------------------------------------------------------


def test_the_released_network_says_how_it_was_made() -> None:
    released = scorers()["sync"]
    assert released.path.stat().st_size <= 3 * 2**20
    assert file_sha256(released.path) == released.sha256
    info = read_info(released.path)["info"]
    assert info["history"][0]["command"].startswith("stillspeak train --config configs/sync.toml")
    assert info["steps"] > 0 and "CC BY 4.0" in info["data"]
    assert not {"s2", "s4", "s15"} & set(info["speakers"])
    assert info["scores"]["test"]["within_1"] >= 0.95


@pytest.fixture(scope="module")
def real_clips(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    root = grid_root()
    if root is None:
        pytest.skip("no GRID clips: set STILLSPEAK_GRID")
    chosen = [c for c in find_grid(root) if c.speaker == "s2"][:3]
    assert chosen and {c.split for c in chosen} == {"test"}
    folder = tmp_path_factory.mktemp("grid")
    prepare(chosen, folder, workers=1)
    clips = []
    for one in load_manifest(folder):
        with open_clip(one) as tensors:
            clips.append((tensors.get_tensor("frames"), tensors.get_tensor("audio")))
    yield clips


@pytest.mark.grid
@pytest.mark.e2e
def test_real_clips_are_in_sync_and_shifts_are_found(
    real_clips: list[tuple[np.ndarray, np.ndarray]],
) -> None:
    scorer = load_sync_scorer()
    for index, (frames, audio) in enumerate(real_clips):
        score = scorer.measure(frames, audio)
        assert abs(score.offset) <= 1
        for late in (3, 5):
            silence = np.zeros(late * 640, np.float32)
            after = np.concatenate((silence, audio[: -late * 640]))
            before = np.concatenate((audio[late * 640 :], silence))
            assert abs(scorer.measure(frames, after).offset - score.offset - late) <= 1
            assert abs(scorer.measure(frames, before).offset - score.offset + late) <= 1
        still = np.repeat(frames[:1], len(frames), 0)
        assert scorer.measure(still, audio).confidence < score.confidence / 2
        other = real_clips[index - 1][1]
        assert scorer.measure(frames, other).confidence < score.confidence
