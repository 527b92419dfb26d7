"""Validation scores against generators whose scores are known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stillspeak.data.cache import CachedClip, load_manifest
from stillspeak.data.dataset import whole_clip
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import Decoded, StillContext
from stillspeak.models.generator import Generator
from stillspeak.training.losses import mouth_crop, psnr
from stillspeak.training.validation import validate

CPU = torch.device("cpu")
Tiny = Callable[..., GeneratorConfig]


class Given(Generator):
    """A generator that answers with what it is given."""

    def __init__(self, config: GeneratorConfig, answers: list[Decoded]) -> None:
        super().__init__(config)
        self.answers = answers
        self.eval()

    def decode(self, still: StillContext, context: torch.Tensor, noise: torch.Tensor) -> Decoded:
        answer = self.answers.pop(0)
        assert context.shape[1] == answer.frames.shape[1]
        return answer


@pytest.fixture(scope="module")
def clips(speaking_cache: Path) -> list[CachedClip]:
    return load_manifest(speaking_cache)[2:]


def test_perfect_and_spoilt_frames(clips: list[CachedClip], tiny: Tiny) -> None:
    examples = [whole_clip(c, tiny(), every=2) for c in clips]
    spoilt = examples[1].frames.clone()
    spoilt[..., 0:10, :] += 0.2  # far from the mouth
    answers = [Decoded(examples[0].frames), Decoded(spoilt)]
    result = validate(Given(tiny(), answers), clips, device=CPU)
    best = 10 * np.log10(4e12)
    share = 10 / 128
    assert result.metrics["l1"] == pytest.approx(0.2 * share / 2, rel=1e-3)
    expected = (best + 10 * np.log10(4 / (0.04 * share))) / 2
    assert result.metrics["psnr"] == pytest.approx(expected, rel=1e-3)
    assert result.metrics["mouth_psnr"] == pytest.approx(best, rel=1e-3)
    still = np.mean(
        [
            float(psnr(mouth_crop(e.still[:, None].expand_as(e.frames)), mouth_crop(e.frames)))
            for e in examples
        ]
    )
    assert result.metrics["still_mouth_psnr"] == pytest.approx(still, rel=1e-4)
    assert still < 40


def test_pictures_to_look_at(clips: list[CachedClip], tiny: Tiny) -> None:
    examples = [whole_clip(c, tiny(), every=2) for c in clips]
    answers = [Decoded(e.frames) for e in examples]
    result = validate(Given(tiny(), answers), clips, device=CPU, shown=4, max_pictures=1)
    ((still, real, made),) = result.pictures
    assert still.shape == (128, 96, 3)
    assert len(real) == len(made) == 4
    assert all(np.array_equal(a, b) for a, b in zip(real, made, strict=True))
    assert not np.array_equal(real[0], real[-1])


@pytest.mark.filterwarnings("ignore:.*degrees of freedom.*")  # one frame has no deviation
@pytest.mark.parametrize("frames", [1, 2, 3, 6])
def test_clips_of_a_few_frames(
    frames: int, tmp_path: Path, write_clip: Callable[..., CachedClip], tiny: Tiny
) -> None:
    clip = write_clip(tmp_path, frames=frames)
    result = validate(Generator(tiny()).eval(), [clip], device=CPU)
    assert len(result.pictures[0][1]) == 5
    assert all(np.isfinite(value) for value in result.metrics.values())
