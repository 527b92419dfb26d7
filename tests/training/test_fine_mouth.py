"""The mouth at twice the crop's resolution, in the objective and for its discriminator."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.dataset import Batch, TrainingData
from stillspeak.data.prepare import load_manifest
from stillspeak.errors import ConfigError
from stillspeak.models.config import FrameDiscriminatorConfig, GeneratorConfig
from stillspeak.models.decoders import MouthBranch
from stillspeak.training.adversary import FrameAdversary
from stillspeak.training.config import AdversarialConfig, ObjectiveConfig, RunConfig
from stillspeak.training.objective import GeneratorObjective, fine_mouths
from stillspeak.training.trainer import Trainer

Tiny = Callable[..., GeneratorConfig]
DATA = DataConfig(batch=2, window_frames=8, decoded_frames=2, lead_frames=2, mouth_pixels=True)


@pytest.fixture
def generator(tiny: Tiny) -> GeneratorConfig:
    return replace(tiny("warp"), mouth_channels=(6, 4))


@pytest.fixture
def batch(speaking_cache: Path, generator: GeneratorConfig) -> Batch:
    clips = [c for c in load_manifest(speaking_cache) if c.split == "train"]
    return TrainingData(clips, DATA, AugmentConfig(), generator, seed=0).batch(0)


def noise(module: GeneratorObjective, batch: Batch) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return module.generator.draw_noise(*batch.windows.shape[:2], random)


def test_the_fine_mouth_is_compared_and_teaches_the_branch(
    generator: GeneratorConfig, batch: Batch
) -> None:
    torch.manual_seed(0)
    config = RunConfig(generator, DATA, objective=ObjectiveConfig(l1=0, gradient=0, fine=2.0))
    module = GeneratorObjective(config)
    result = module(batch, noise(module, batch))
    assert result.mouths is not None and result.mouths.shape == (2, 2, 3, 80, 104)
    by_hand = (result.mouths - fine_mouths(batch, (128, 96))).abs().mean()
    torch.testing.assert_close(result.terms["fine"], by_hand)
    result.loss.backward()
    branch = module.generator.decoder.mouth
    assert isinstance(branch, MouthBranch)
    assert branch.head.weight.grad is not None and branch.head.weight.grad.abs().sum() > 0


def test_without_fine_pixels_a_branch_learns_from_the_crop(
    generator: GeneratorConfig, speaking_cache: Path
) -> None:
    clips = [c for c in load_manifest(speaking_cache) if c.split == "train"]
    coarse = replace(DATA, mouth_pixels=False)
    batch = TrainingData(clips, coarse, AugmentConfig(), generator, seed=0).batch(0)
    module = GeneratorObjective(RunConfig(generator, coarse))
    result = module(batch, noise(module, batch))
    assert result.mouths is None and "fine" not in result.terms
    result.loss.backward()
    assert module.generator.decoder.mouth.head.weight.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_the_discriminator_sees_fine_mouths(generator: GeneratorConfig, batch: Batch) -> None:
    torch.manual_seed(0)
    config = RunConfig(
        generator,
        DATA,
        adversarial=AdversarialConfig(frame=1.0, r1=1.0),
        frame_discriminator=FrameDiscriminatorConfig((4, 4, 4, 6), region="mouth", fine=True),
    )
    adversary = FrameAdversary(config)
    module = GeneratorObjective(config)
    made = adversary.made(module(batch, noise(module, batch)))
    draw = adversary.draw(batch, torch.Generator().manual_seed(0))
    still, shown = adversary.look(batch, made, draw)
    assert still.shape == shown.shape == (4, 3, 80, 104)
    adversary.advise(batch, made, draw)["frame"].backward()
    assert module.generator.decoder.mouth.head.weight.grad.abs().sum() > 0  # type: ignore[union-attr]
    opinion = adversary(batch, made.detach(), draw, True)
    assert opinion.terms["r1"] > 0
    # Real ones are the fine real mouths and nothing else.
    changed = batch._replace(frames=torch.zeros_like(batch.frames))
    torch.testing.assert_close(
        adversary(changed, made.detach(), draw).loss, opinion_loss(adversary, batch, made, draw)
    )


def opinion_loss(adversary: FrameAdversary, batch: Batch, made: torch.Tensor, draw: Any) -> Any:
    return adversary(batch, made.detach(), draw).loss


@pytest.mark.parametrize(
    "tables",
    [
        {"objective": ObjectiveConfig(fine=1.0)},
        {
            "adversarial": AdversarialConfig(frame=1.0),
            "frame_discriminator": FrameDiscriminatorConfig(region="mouth", fine=True),
        },
    ],
)
def test_a_fine_mouth_needs_a_branch_and_its_pixels(tables: dict[str, Any], tiny: Tiny) -> None:
    with pytest.raises(ConfigError, match="mouth_channels"):
        RunConfig(tiny("warp"), DATA, **tables)
    with pytest.raises(ConfigError, match="mouth_pixels"):
        RunConfig(
            replace(tiny("warp"), mouth_channels=(4, 4)),
            replace(DATA, mouth_pixels=False),
            **tables,
        )


def test_fine_is_of_the_mouth_alone() -> None:
    with pytest.raises(ConfigError, match="region"):
        FrameDiscriminatorConfig(fine=True)


def test_a_listener_that_stays_learns_nothing_and_keeps_its_statistics(
    make: Callable[..., Trainer], game: Callable[..., RunConfig]
) -> None:
    nothing = {"adversarial": {"frame": 0.0, "sequence": 0.0, "sync": 0.0}}
    trainer = make(game(training={"audio_steps": 2, "audio_learning_rate": 0.0}, **nothing))
    encoder = trainer._objective.generator.context_encoder
    start = {k: v.clone() for k, v in encoder.state_dict().items()}
    data = trainer._data
    for step in range(2):
        trainer.train_step([data.audio_batch(step)])
    learned = {k: v.clone() for k, v in encoder.state_dict().items()}
    assert any(not torch.equal(learned[k], start[k]) for k in start)
    decoder = {k: v.clone() for k, v in trainer._objective.generator.decoder.state_dict().items()}
    for step in range(2, 4):
        trainer.train_step([data.batch(step)])
    assert all(torch.equal(v, learned[k]) for k, v in encoder.state_dict().items())
    now = trainer._objective.generator.decoder.state_dict()
    assert any(not torch.equal(v, decoder[k]) for k, v in now.items())
