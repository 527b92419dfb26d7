"""LipNet's shapes, and what it may and may not depend on."""

import pytest
import torch

from stillspeak.errors import ConfigError
from stillspeak.models.lipnet import (
    MOUTH_CENTRE,
    MOUTH_EXTENT,
    LipNet,
    LipNetConfig,
    mouth_grid,
    normalise,
    spell,
    standardise,
)


def test_the_published_network_has_the_published_sizes() -> None:
    network = LipNet(LipNetConfig())
    assert tuple(network.gru1.weight_ih_l0.shape) == (3 * 256, 96 * 3 * 6)
    assert tuple(network.FC.weight.shape) == (28, 512)
    with torch.no_grad():
        output = network.eval()(torch.rand(2, 3, 5, 50, 100))
    assert output.shape == (2, 5, 28)
    assert torch.allclose(output.exp().sum(-1), torch.ones(2, 5), atol=1e-5)


def test_light_and_contrast_of_a_clip_do_not_matter_in_grey() -> None:
    torch.manual_seed(0)
    clip = torch.rand(1, 3, 4, 50, 100) * 0.5 + 0.2
    brighter = clip * 0.8 + 0.1
    one, other = normalise(clip, 1), normalise(brighter, 1)
    assert one.shape == (1, 1, 4, 50, 100)
    assert torch.allclose(one, other, atol=0.05)
    assert float(one.mean()) == pytest.approx(0, abs=1e-5)
    assert float(one.std()) == pytest.approx(1, abs=0.02)
    assert torch.equal(normalise(clip, 3), clip)


def test_a_clip_of_one_grey_level_is_zero() -> None:
    assert torch.equal(standardise(torch.full((1, 1, 2, 4, 4), 0.5)), torch.zeros(1, 1, 2, 4, 4))


def test_the_grid_is_centred_on_the_mouth() -> None:
    grid = mouth_grid()
    assert grid.shape == (50, 100, 2)
    assert torch.allclose(grid.mean((0, 1)), torch.tensor(MOUTH_CENTRE))
    steps = grid[1, 1] - grid[0, 0]
    assert torch.allclose(steps, torch.tensor([MOUTH_EXTENT[0] / 100, MOUTH_EXTENT[1] / 50]))


def test_unknown_letters_cannot_be_spelled() -> None:
    with pytest.raises(ValueError, match="substring not found"):
        spell("é")


@pytest.mark.parametrize(
    "changes",
    [{"colours": 2}, {"channels": (32, 64)}, {"state": 0}, {"dropout": 1.0}],
)
def test_nonsense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"lipnet\."):
        LipNetConfig(**changes)  # type: ignore[arg-type]
