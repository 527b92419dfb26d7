"""The generator: whole clips, chunks, causality, noise, and the names in its state."""

from collections.abc import Callable

import pytest
import torch

from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator

Make = Callable[..., GeneratorConfig]
Lively = Callable[[GeneratorConfig], Generator]
Inputs = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]

FRAMES = 7


@pytest.fixture(scope="module", params=["unet"])
def generator(request: pytest.FixtureRequest, tiny: Make, lively: Lively) -> Generator:
    return lively(tiny(request.param))


@torch.no_grad()
def in_chunks(
    generator: Generator, inputs: tuple[torch.Tensor, ...], size: int, *, forget: bool = False
) -> torch.Tensor:
    """The frames of a clip, made ``size`` at a time."""
    still, windows, noise = inputs
    context = generator.prepare_still(still)
    state = generator.initial_state(len(still))
    frames = []
    for start in range(0, windows.shape[1], size):
        part = slice(start, start + size)
        decoded, state = generator.step(context, windows[:, part], noise[:, part], state)
        frames.append(decoded.frames)
        if forget:
            state = generator.initial_state(len(still))
    return torch.cat(frames, 1)


@pytest.mark.parametrize("size", [1, 2, 3, FRAMES])
@torch.no_grad()
def test_a_clip_in_chunks_is_the_whole_clip(
    generator: Generator, inputs: Inputs, size: int
) -> None:
    given = inputs(generator.config, 2, FRAMES)
    whole = generator(*given)
    assert whole.shape == (2, FRAMES, 3, 128, 96)
    assert whole.abs().max() <= 1
    torch.testing.assert_close(in_chunks(generator, given, size), whole, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_state_is_what_makes_chunks_equal(generator: Generator, inputs: Inputs) -> None:
    given = inputs(generator.config, 1, FRAMES)
    forgetful = in_chunks(generator, given, 2, forget=True)
    assert (forgetful - generator(*given)).abs().max() > 1e-3


@torch.no_grad()
def test_later_sound_does_not_change_earlier_frames(generator: Generator, inputs: Inputs) -> None:
    still, windows, noise = inputs(generator.config, 1, FRAMES)
    before = generator(still, windows, noise)
    changed = windows.clone()
    # Its own draws: whatever ran before must not decide how far a tiny network is moved.
    random = torch.Generator().manual_seed(1)
    changed[:, 4:] = 0.3 * torch.randn(changed[:, 4:].shape, generator=random)
    after = generator(still, changed, noise)
    torch.testing.assert_close(after[:, :4], before[:, :4], atol=1e-6, rtol=0)
    difference = (after[:, 4:] - before[:, 4:]).abs().amax((0, 2, 3, 4))
    assert (difference > 1e-4).all()


@torch.no_grad()
def test_everything_that_goes_in_matters(generator: Generator, inputs: Inputs) -> None:
    given = list(inputs(generator.config, 1, 3))
    others = inputs(generator.config, 1, 3, seed=9)
    frames = generator(*given)
    for index, other in enumerate(others):
        changed = [*given[:index], other, *given[index + 1 :]]
        assert (generator(*changed) - frames).abs().max() > 1e-4, index


@torch.no_grad()
def test_clips_of_a_batch_do_not_see_each_other(generator: Generator, inputs: Inputs) -> None:
    still, windows, noise = inputs(generator.config, 3, 2)
    batch = generator(still, windows, noise)
    alone = generator(still[1:2], windows[1:2], noise[1:2])
    torch.testing.assert_close(batch[1:2], alone, atol=1e-5, rtol=0)


@torch.no_grad()
def test_a_seed_decides_the_frames(generator: Generator, inputs: Inputs) -> None:
    still, windows, _ = inputs(generator.config, 1, 3)

    def frames(seed: int) -> torch.Tensor:
        noise = generator.draw_noise(1, 3, torch.Generator().manual_seed(seed))
        return generator(still, windows, noise)

    assert torch.equal(frames(5), frames(5))
    assert (frames(5) - frames(6)).abs().max() > 1e-4


def test_noise_has_the_configured_deviation(tiny: Make) -> None:
    generator = Generator(tiny())
    noise = generator.draw_noise(4, 500, torch.Generator().manual_seed(0))
    assert noise.shape == (4, 500, 3)
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(0.33, rel=0.05)
    silent = Generator(tiny(noise_std=0.0))
    assert not silent.draw_noise(1, 5, torch.Generator()).any()


def test_noise_drawn_in_chunks_is_the_whole_noise(tiny: Make) -> None:
    generator = Generator(tiny())
    whole = generator.draw_noise(2, 40, torch.Generator().manual_seed(3))
    random = torch.Generator().manual_seed(3)
    parts = [generator.draw_noise(2, n, random) for n in (1, 7, 16, 16)]
    assert torch.equal(torch.cat(parts, 1), whole)
    assert not torch.equal(whole[:, 0], whole[:, 1])


@torch.no_grad()
def test_windows_of_200_ms_and_other_sizes(tiny: Make, inputs: Inputs) -> None:
    config = tiny(
        window_seconds=0.2,
        height=64,
        width=48,
        identity_channels=(4, 5, 6, 7),
    )
    assert config.window == 3200
    assert Generator(config).eval()(*inputs(config, 1, 2)).shape == (1, 2, 3, 64, 48)


def test_gradients_reach_every_parameter(generator: Generator, inputs: Inputs) -> None:
    generator.zero_grad()
    generator(*inputs(generator.config, 1, 3)).square().mean().backward()
    # Without a chain from frame to frame the GRUs' recurrent weights would have none.
    missing = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def norm_names(prefix: str) -> list[str]:
    parts = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    return [f"{prefix}.{part}" for part in parts]


def test_the_names_in_a_state_dict(tiny: Make) -> None:
    """Released weights and checkpoints hang on these names: a change needs a new format."""
    common = ["identity_encoder.head.weight", "identity_encoder.head.bias"]
    for level in range(5):
        common += [f"identity_encoder.layers.{level}.0.weight"]
        common += norm_names(f"identity_encoder.layers.{level}.1")
    audio = "context_encoder.frame_encoder.layers"
    for level in range(6):
        common += [f"{audio}.{3 * level}.weight", *norm_names(f"{audio}.{3 * level + 1}")]
    common += [f"{audio}.18.weight", f"{audio}.18.bias"]
    for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        common += [f"context_encoder.gru.{part}_l{layer}" for layer in range(2)]
        common += [f"noise_generator.gru.{part}_l0"]
    common += ["decoder.root.0.weight", *norm_names("decoder.root.1")]
    common += ["decoder.head.weight", "decoder.head.bias"]
    for level in range(4):
        common += [f"decoder.fuse.{level}.conv.weight"]
        common += norm_names(f"decoder.fuse.{level}.norm")
        common += [f"decoder.up.{level}.0.weight", *norm_names(f"decoder.up.{level}.1")]
    assert sorted(Generator(tiny()).state_dict()) == sorted(common)
