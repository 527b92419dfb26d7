"""The generator's objective: its terms, their sum, and what it decodes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stillspeak.data.cache import load_manifest
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.dataset import AudioBatch, Batch, TrainingData
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from stillspeak.training.config import ObjectiveConfig, RunConfig
from stillspeak.training.losses import weighted_l1
from stillspeak.training.objective import GeneratorObjective

Tiny = Callable[..., GeneratorConfig]
DATA = DataConfig(batch=2, window_frames=8, decoded_frames=2, lead_frames=2, audio_batch=3)


@pytest.fixture(scope="module")
def data(speaking_cache: Path, tiny: Tiny) -> TrainingData:
    clips = [c for c in load_manifest(speaking_cache) if c.split == "train"]
    return TrainingData(clips, DATA, AugmentConfig(), tiny(), seed=0)


@pytest.fixture(scope="module")
def batch(data: TrainingData) -> Batch:
    return data.batch(0)


def objective(config: GeneratorConfig, **weights: float) -> GeneratorObjective:
    torch.manual_seed(0)
    return GeneratorObjective(RunConfig(config, DATA, objective=ObjectiveConfig(**weights)))


def noise(module: GeneratorObjective, batch: Batch | AudioBatch) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return module.generator.draw_noise(*batch.windows.shape[:2], random)


def test_the_loss_is_the_weighted_sum_of_its_terms(tiny: Tiny, batch: Batch) -> None:
    module = objective(tiny())
    result = module(batch, noise(module, batch))
    assert set(result.terms) == {"l1", "mouth_shape", "gradient"}
    weights = module.config
    total = sum(getattr(weights, name) * term for name, term in result.terms.items())
    torch.testing.assert_close(result.loss, total)
    assert all(term > 0 for term in result.terms.values())
    assert result.frames is not None
    assert result.frames.shape == batch.frames.shape
    region = module.region
    torch.testing.assert_close(result.terms["l1"], weighted_l1(result.frames, batch.frames, region))


def test_terms_can_be_turned_off(tiny: Tiny, batch: Batch) -> None:
    module = objective(tiny(), gradient=0.0)
    assert set(module(batch, noise(module, batch)).terms) == {"l1", "mouth_shape"}


@torch.no_grad()
def test_it_decodes_the_asked_positions_of_the_whole_clip(
    tiny: Tiny, lively: Callable[[GeneratorConfig], Generator], batch: Batch
) -> None:
    module = objective(tiny()).eval()
    module.generator = lively(tiny())
    drawn = noise(module, batch)
    frames = module(batch, drawn).frames
    whole = module.generator(batch.still, batch.windows, drawn)
    rows = torch.arange(2).unsqueeze(1)
    torch.testing.assert_close(frames, whole[rows, batch.positions], atol=1e-5, rtol=0)
    assert (frames - whole[rows, batch.positions - 1]).abs().max() > 1e-3


def test_the_audio_warm_start_trains_the_audio_alone(tiny: Tiny, data: TrainingData) -> None:
    module = objective(tiny())
    batch = data.audio_batch(0)
    result = module(batch, noise(module, batch))
    assert result.frames is None
    assert set(result.terms) == {"mouth_shape"}
    result.loss.backward()
    audio = {id(p) for p in module.audio_parameters()}
    trained = {id(p) for p in module.parameters() if p.grad is not None}
    assert trained == audio
    names = {n.split(".")[0] for n, p in module.named_parameters() if id(p) in audio}
    assert names == {"generator", "mouth_head"}


@torch.no_grad()
def test_the_mouth_term_is_a_regression_from_the_encoding(tiny: Tiny, batch: Batch) -> None:
    module = objective(tiny()).eval()
    drawn = noise(module, batch)
    state = module.generator.initial_state(2)
    context, _, _ = module.generator.encode(batch.windows, drawn, state)
    expected = F.smooth_l1_loss(module.mouth_head(context), batch.mouth)
    torch.testing.assert_close(module(batch, drawn).terms["mouth_shape"], expected)


def test_released_weights_hold_the_generator_only(tiny: Tiny) -> None:
    names = set(objective(tiny()).state_dict())
    assert {n for n in names if not n.startswith("generator.")} == {
        "mouth_head.weight",
        "mouth_head.bias",
    }


def test_its_configuration_decides_the_regions(tiny: Tiny) -> None:
    small = replace(tiny(), height=64, width=96)
    module = GeneratorObjective(
        RunConfig(small, DATA, objective=ObjectiveConfig(upper=0, lower=1, mouth=1))
    )
    assert module.region.shape == (1, 1, 1, 64, 96)
    assert module.region.sum() == 32 * 96
