"""The generator's objective: its terms, their sum, and what it decodes."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.dataset import AudioBatch, Batch, TrainingData
from stillspeak.data.prepare import load_manifest
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from stillspeak.training.config import ObjectiveConfig, RunConfig
from stillspeak.training.losses import newly_open, weighted_l1
from stillspeak.training.objective import GeneratorObjective

Tiny = Callable[..., GeneratorConfig]
DATA = DataConfig(batch=2, window_frames=8, decoded_frames=2, lead_frames=2, audio_batch=3)
WARP_TERMS = {"warped", "painted", "smooth", "mask"}


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


@pytest.mark.parametrize("decoder", ["unet", "warp"])
def test_the_loss_is_the_weighted_sum_of_its_terms(decoder: str, tiny: Tiny, batch: Batch) -> None:
    module = objective(tiny(decoder), landmarks=0.02, amplitude=0.03)
    result = module(batch, noise(module, batch))
    expected = {"l1", "mouth_shape", "gradient"}
    if decoder == "warp":
        expected |= WARP_TERMS | {"landmarks", "amplitude"}
    assert set(result.terms) == expected
    weights = module.config
    total = sum(getattr(weights, name) * term for name, term in result.terms.items())
    torch.testing.assert_close(result.loss, total)
    assert all(term > 0 for name, term in result.terms.items() if name != "smooth")
    assert result.frames is not None
    assert result.frames.shape == batch.frames.shape
    region = module.region
    torch.testing.assert_close(result.terms["l1"], weighted_l1(result.frames, batch.frames, region))


def test_terms_can_be_turned_off(tiny: Tiny, batch: Batch) -> None:
    module = objective(tiny("warp"), gradient=0.0, landmarks=0.0, amplitude=0.0)
    terms = module(batch, noise(module, batch)).terms
    assert set(terms) == {"l1", "mouth_shape"} | WARP_TERMS


@pytest.mark.parametrize("decoder", ["unet", "warp"])
@torch.no_grad()
def test_it_decodes_the_asked_positions_of_the_whole_clip(
    decoder: str, tiny: Tiny, lively: Callable[[GeneratorConfig], Generator], batch: Batch
) -> None:
    module = objective(tiny(decoder)).eval()
    module.generator = lively(tiny(decoder))
    drawn = noise(module, batch)
    frames = module(batch, drawn).frames
    whole = module.generator(batch.still, batch.windows, drawn)
    rows = torch.arange(2).unsqueeze(1)
    torch.testing.assert_close(frames, whole[rows, batch.positions], atol=1e-5, rtol=0)
    assert (frames - whole[rows, batch.positions - 1]).abs().max() > 1e-3


def test_a_static_warp_decoder_pays_what_the_still_costs(tiny: Tiny, batch: Batch) -> None:
    """Untrained, it does not move: its warped still is the still itself."""
    module = objective(tiny("warp"), amplitude=0.03)
    terms = module(batch, noise(module, batch)).terms
    still = batch.still.unsqueeze(1).expand_as(batch.frames)
    expected = weighted_l1(still, batch.frames, module.region)
    torch.testing.assert_close(terms["warped"], expected, atol=1e-5, rtol=0)
    assert terms["smooth"] == 0
    assert terms["amplitude"].item() == pytest.approx(1, abs=0.1)  # lips that never move
    height, width = batch.frames.shape[-2:]
    hidden = newly_open(batch.frame_points, batch.still_points, (height, width))
    outside = 1 - hidden.mean().item()
    assert 0.5 < outside < 1
    level = torch.sigmoid(torch.tensor(-2.0)).item()
    assert terms["mask"].item() == pytest.approx(outside * level, rel=1e-5)


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


def test_landmark_weights(tiny: Tiny) -> None:
    module = objective(tiny(), lip_landmarks=4.0)
    assert module.landmark_weights.sum() == 438 + 40 * 4
    assert module.landmark_weights[13] == 4
    assert module.landmark_weights[1] == 1


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
