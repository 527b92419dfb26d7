"""The warp decoder's mouth branch: its grid, its border, and what is drawn from it."""

import pytest
import torch

from stillspeak.errors import ConfigError
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import (
    Maps,
    Motion,
    MouthBranch,
    compose,
    compose_mouth,
    enlarged_lower,
    resize,
)
from stillspeak.models.generator import Generator
from stillspeak.models.regions import LOWER_BOX, MOUTH_BOX, crop_box, mouth_in_lower, scale_box
from stillspeak.rendering.head import move_head
from stillspeak.training.measure import FlopCounter

SMALL = GeneratorConfig(
    decoder="warp",
    identity_channels=(4, 6, 8, 8, 8),
    warp_channels=(4, 4, 6, 6, 8),
    mouth_channels=(6, 4),
    audio_channels=(4, 4, 4, 8, 8, 8),
    audio_dim=16,
    context_dim=16,
)


@pytest.fixture
def generator() -> Generator:
    """A small one whose branch says something."""
    torch.manual_seed(0)
    generator = Generator(SMALL).eval()
    branch = generator.decoder.mouth
    assert isinstance(branch, MouthBranch)
    torch.nn.init.normal_(branch.head.weight, std=0.2)
    return generator


def decoded_by(generator: Generator, still: torch.Tensor, frames: int = 3):
    config = generator.config
    with torch.no_grad():
        context = torch.randn(len(still), frames, config.context_dim)
        noise = torch.randn(len(still), frames, config.noise_dim)
        return generator.decode(generator.prepare_still(still), context, noise)


def test_an_untrained_branch_changes_nothing() -> None:
    torch.manual_seed(1)
    generator = Generator(SMALL).eval()
    motion = decoded_by(generator, torch.rand(2, 3, 128, 96) * 2 - 1).motion
    assert motion is not None and motion.mouth is not None
    alone = Motion(motion.flow, motion.mask, motion.colour)
    for joined, coarse in zip(motion.maps((256, 192)), alone.maps((256, 192)), strict=True):
        # Squashed after it was spread instead of before: hardly another number.
        torch.testing.assert_close(joined, coarse, atol=0.05, rtol=0)
    torch.testing.assert_close(motion.maps((256, 192)).flow, alone.maps((256, 192)).flow)


def test_the_branch_counts_in_its_box_alone_and_fades_to_its_border(generator: Generator) -> None:
    motion = decoded_by(generator, torch.rand(1, 3, 128, 96) * 2 - 1).motion
    assert motion is not None and motion.mouth is not None
    assert motion.mouth.flow.shape == (1, 3, 2, 80, 104)
    alone = Motion(motion.flow, motion.mask, motion.colour)
    size = (256, 192)
    top, bottom, left, right = scale_box(MOUTH_BOX, *size)
    for joined, coarse in zip(motion.maps(size), alone.maps(size), strict=True):
        change = (joined - coarse).abs()
        inside = change[..., top:bottom, left:right]
        assert inside.max() > 0.01
        assert change.sum() == pytest.approx(float(inside.sum()), rel=1e-6)
        # A sixteenth at the outermost cells, where the ramp has only begun.
        assert inside[..., 0, :].max() < 0.1 * inside.max()
        assert inside[..., :, -1].max() < 0.1 * inside.max()


@pytest.mark.parametrize("size", [(128, 96), (384, 288), (132, 99), (300, 225)])
def test_maps_of_any_size_agree(generator: Generator, size: tuple[int, int]) -> None:
    motion = decoded_by(generator, torch.rand(1, 3, 128, 96) * 2 - 1).motion
    assert motion is not None
    flat = motion.flat()
    assert flat.mouth is None and flat.flow.shape[-2:] == (256, 192)
    for ours, spread in zip(motion.maps(size), flat[:3], strict=True):
        assert ours.shape[-2:] == size
        difference = (ours - resize(spread, size)).abs()
        # Only next to the box's border may one way of resizing differ from the other.
        assert float(difference.mean()) < 0.02 * float(ours.abs().mean())


def test_the_maps_given_out_are_no_view_of_the_motion(generator: Generator) -> None:
    motion = decoded_by(generator, torch.rand(1, 3, 128, 96) * 2 - 1).motion
    assert motion is not None
    before = motion.flow.clone()
    motion.maps((64, 48)).flow.zero_()
    assert torch.equal(motion.flow, before)


def test_the_mouth_alone_is_what_the_whole_frame_shows(generator: Generator) -> None:
    torch.manual_seed(2)
    coarse = torch.rand(2, 3, 16, 12) * 2 - 1  # smooth: no detail that two ways may see apart
    large = torch.nn.functional.interpolate(coarse, (256, 192), mode="bicubic").clamp(-1, 1)
    motion = decoded_by(generator, torch.nn.functional.avg_pool2d(large, 2)).motion
    assert motion is not None and motion.mouth is not None
    small_flow = motion.mouth.flow.clamp(-0.02, 0.02)  # that leads out of no box
    maps = Maps(small_flow, motion.mouth.mask, motion.mouth.colour)
    motion = motion._replace(mouth=maps)
    whole = crop_box(compose(large, motion), scale_box(MOUTH_BOX, 256, 192))
    alone = compose_mouth(crop_box(large, scale_box(LOWER_BOX, 256, 192)), maps, (128, 96))
    torch.testing.assert_close(alone, whole, atol=1e-4, rtol=0)


def test_the_region_of_a_still_that_is_not_known_finely_is_enlarged() -> None:
    still = torch.linspace(-0.9, 0.9, 128).view(1, 1, 128, 1).expand(1, 3, 128, 96)
    lower = enlarged_lower(still)
    assert lower.shape == (1, 3, 144, 144)
    top, bottom, _, _ = mouth_in_lower(128, 96)
    pooled = torch.nn.functional.avg_pool2d(lower, 2)
    torch.testing.assert_close(
        pooled[0, 0, top // 2 : bottom // 2, 30], still[0, 0, 72:112, 30], atol=1e-3, rtol=0
    )


def test_frames_of_a_motion_are_chosen_with_their_mouths(generator: Generator) -> None:
    motion = decoded_by(generator, torch.rand(1, 3, 128, 96) * 2 - 1, frames=4).motion
    assert motion is not None and motion.mouth is not None
    second = motion.frames(slice(1, 2))
    assert second.mouth is not None
    assert torch.equal(second.flow, motion.flow[:, 1:2])
    assert torch.equal(second.mouth.colour, motion.mouth.colour[:, 1:2])


def test_a_head_that_sways_takes_its_mouth_along(generator: Generator) -> None:
    still = torch.rand(1, 3, 128, 96) * 2 - 1
    motion = decoded_by(generator, still).motion
    assert motion is not None
    resting = move_head(motion, torch.zeros(3, 3))
    assert resting.mouth is None
    torch.testing.assert_close(compose(still, resting), compose(still, motion), atol=0.02, rtol=0)


def test_the_still_known_finely_makes_a_difference(generator: Generator) -> None:
    still = torch.rand(1, 3, 128, 96) * 2 - 1
    with torch.no_grad():
        without = generator.prepare_still(still)
        lower = torch.rand(1, 3, 144, 144) * 2 - 1
        known = generator.prepare_still(still, lower)
    assert torch.equal(known.skips[0], without.skips[0])
    assert not torch.equal(known.mouth[0], without.mouth[0])


def test_the_released_widths_stay_within_a_quarter_of_a_gigaflop() -> None:
    """The widths of configs/alive.toml; what a clip pays once is not counted."""
    config = GeneratorConfig(
        decoder="warp",
        window_seconds=0.2,
        identity_channels=(32, 64, 128, 192, 256),
        warp_channels=(16, 52, 88, 144, 224),
        mouth_channels=(32, 20),
        expression_dim=2,
    )
    generator = Generator(config).eval()
    with torch.no_grad():
        still = generator.prepare_still(torch.zeros(1, 3, 128, 96))
        windows, noise = torch.zeros(1, 4, config.window), torch.zeros(1, 4, config.noise_dim)
        with FlopCounter() as counter:
            generator.step(still, windows, noise, generator.initial_state())
    assert counter.flops / 4 <= 0.25e9


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"decoder": "unet"}, "decoder"),
        ({"mouth_channels": (8,)}, "mouth_channels"),
        ({"mouth_channels": (8, 0)}, "mouth_channels"),
        ({"width": 160}, "48"),
    ],
)
def test_a_branch_that_cannot_be_is_refused(change: dict[str, object], named: str) -> None:
    options: dict[str, object] = {"decoder": "warp", "mouth_channels": (8, 4)}
    with pytest.raises(ConfigError, match=named):
        GeneratorConfig(**(options | change))  # type: ignore[arg-type]
