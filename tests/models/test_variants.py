"""Generators with a part more or less: the static baseline, no noise."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stillspeak.errors import ConfigError, WeightsError
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import UNetDecoder
from stillspeak.models.encoders import IdentityEncoding
from stillspeak.models.generator import Generator
from stillspeak.weights import golden_answer, load_model, read_info, save_model

Tiny = Callable[..., GeneratorConfig]
Lively = Callable[[GeneratorConfig], Generator]
Inputs = Callable[..., tuple[torch.Tensor, torch.Tensor, torch.Tensor]]

FRAMES = 5
STATIC = {"context_layers": 0, "noise_dim": 0, "context_dim": 11, "window_seconds": 0.36}
VARIANTS = {
    "static": ("unet", STATIC),
    "no-noise": ("unet", {"noise_dim": 0}),
    "no-memory": ("unet", {"context_layers": 0, "context_dim": 11}),
    "three-layers": ("unet", {"context_layers": 3}),
}


@pytest.fixture(scope="module")
def variant(tiny: Tiny, lively: Lively) -> Callable[[str], Generator]:
    made: dict[str, Generator] = {}

    def get(name: str) -> Generator:
        if name not in made:
            decoder, changes = VARIANTS[name]
            made[name] = lively(tiny(decoder, **changes))
        return made[name]

    return get


def change(frames: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Largest difference in each frame, (T,)."""
    return (frames - others).abs().amax((0, 2, 3, 4))


@torch.no_grad()
def test_a_static_frame_depends_on_its_own_window_alone(
    variant: Callable[[str], Generator], inputs: Inputs
) -> None:
    generator = variant("static")
    still, windows, noise = inputs(generator.config, 2, FRAMES)
    assert windows.shape == (2, FRAMES, 5760)
    assert noise.shape == (2, FRAMES, 0)
    frames = generator(still, windows, noise)
    for place in range(FRAMES):
        changed = windows.clone()
        changed[:, place] = -0.5 * changed[:, place].flip(-1)
        moved = change(generator(still, changed, noise), frames)
        assert moved[place] > 1e-3
        others = torch.cat((moved[:place], moved[place + 1 :]))
        assert others.max() == 0
    # The same window gives the same frame wherever it stands.
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(
        generator(still, windows[:, order], noise), frames[:, order], atol=1e-6, rtol=0
    )


@torch.no_grad()
def test_with_noise_but_without_memory_sound_does_not_stay(
    variant: Callable[[str], Generator], inputs: Inputs
) -> None:
    generator = variant("no-memory")
    still, windows, noise = inputs(generator.config, 1, FRAMES)
    frames = generator(still, windows, noise)
    heard, noisy = windows.clone(), noise.clone()
    heard[:, 1] *= -1
    noisy[:, 1] *= -3
    assert change(generator(still, heard, noise), frames)[2:].max() == 0
    assert change(generator(still, windows, noisy), frames)[2] > 1e-5  # the noise GRU remembers


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("size", [1, 2])
@torch.no_grad()
def test_steps_are_the_whole_clip(
    name: str, size: int, variant: Callable[[str], Generator], inputs: Inputs
) -> None:
    generator = variant(name)
    still, windows, noise = inputs(generator.config, 2, FRAMES)
    context, state = generator.prepare_still(still), generator.initial_state(2)
    parts = []
    for start in range(0, FRAMES, size):
        part = slice(start, start + size)
        decoded, state = generator.step(context, windows[:, part], noise[:, part], state)
        parts.append(decoded.frames)
    whole = generator(still, windows, noise)
    assert whole.shape == (2, FRAMES, 3, 128, 96)
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["static", "no-noise"])
@torch.no_grad()
def test_without_noise_no_seed_matters(
    name: str, variant: Callable[[str], Generator], inputs: Inputs
) -> None:
    generator = variant(name)
    still, windows, _ = inputs(generator.config, 1, 3)
    one, other = (
        generator(still, windows, generator.draw_noise(1, 3, torch.Generator().manual_seed(seed)))
        for seed in (1, 2)
    )
    assert torch.equal(one, other)
    context, noise, state = generator.encode(
        windows, generator.draw_noise(1, 3, torch.Generator()), generator.initial_state()
    )
    assert noise.shape == (1, 3, 0)
    assert state.noise.shape == (1, 1, 0)
    assert generator.config.latent_dim == context.shape[-1] + generator.config.identity_dim


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter(
    name: str, variant: Callable[[str], Generator], inputs: Inputs
) -> None:
    generator = variant(name)
    generator.zero_grad()
    generator(*inputs(generator.config, 1, 3)).square().mean().backward()
    missing = [n for n, p in generator.named_parameters() if p.grad is None or not p.grad.any()]
    assert missing == []


def test_parts_that_are_left_out_have_no_weights(variant: Callable[[str], Generator]) -> None:
    def parts(name: str) -> set[str]:
        kinds = ("context_encoder.gru", "noise_generator.gru", "decoder.fuse.4")
        names = list(variant(name).state_dict())
        return {kind for kind in kinds if any(n.startswith(kind) for n in names)}

    assert parts("static") == set()
    assert parts("no-noise") == {"context_encoder.gru"}
    assert parts("no-memory") == {"noise_generator.gru"}
    layers = [n for n in variant("three-layers").state_dict() if "context_encoder.gru.bias_ih" in n]
    assert len(layers) == 3


@torch.no_grad()
def test_every_map_but_the_finest_is_used(
    variant: Callable[[str], Generator], inputs: Inputs
) -> None:
    generator = variant("no-noise")
    decoder = generator.decoder
    assert isinstance(decoder, UNetDecoder)
    still, windows, noise = inputs(generator.config, 1, 2)
    identity = generator.identity_encoder(still)
    context, encoded, _ = generator.encode(windows, noise, generator.initial_state())

    def frames(maps: tuple[torch.Tensor, ...]) -> torch.Tensor:
        prepared = decoder.prepare(still, IdentityEncoding(identity.code, maps))
        return generator.decode(prepared, context, encoded).frames

    given = frames(identity.maps)
    assert identity.maps[0].shape[-2:] == (64, 48)
    for level, original in enumerate(identity.maps):
        maps = (*identity.maps[:level], original.flip(-1) + 0.3, *identity.maps[level + 1 :])
        moved = change(frames(maps), given)
        if level == 0:
            assert moved.max() == 0
        else:
            assert moved.min() > 1e-4, level


# ---------------------------------------------------------------------------- saved and loaded


@pytest.fixture(params=VARIANTS)
def saved(
    request: pytest.FixtureRequest, variant: Callable[[str], Generator], tmp_path: Path
) -> tuple[Generator, Path]:
    path = tmp_path / "model.safetensors"
    generator = variant(request.param)
    save_model(generator, path, {"steps": 3})
    return generator, path


def test_they_come_back_from_a_weights_file(saved: tuple[Generator, Path], inputs: Inputs) -> None:
    generator, path = saved
    loaded = load_model(path)  # which repeats the golden answer
    assert loaded.config == generator.config
    assert loaded.state_dict().keys() == generator.state_dict().keys()
    answer = golden_answer(loaded)
    assert len(read_info(path)["golden"]) == len(answer) > 499
    assert (answer - golden_answer(generator)).abs().max() < 0.02
    given = inputs(generator.config, 1, 3)
    with torch.no_grad():
        assert (loaded(*given) - generator(*given)).abs().max() < 0.05


@pytest.mark.parametrize(
    "name", ["context_encoder.frame_encoder.layers.18.weight", "decoder.fuse.3.conv.weight"]
)
def test_a_changed_tensor_fails_their_golden_answer(
    name: str, saved: tuple[Generator, Path]
) -> None:
    _, path = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    random = torch.Generator().manual_seed(0)
    state[name] = torch.randn(state[name].shape, generator=random).abs().half()
    save_file(state, path, metadata)
    with pytest.raises(WeightsError, match="golden answer"):
        load_model(path)


def test_the_baseline_as_configured_in_full(tiny: Tiny) -> None:
    config = GeneratorConfig(context_layers=0, noise_dim=0, window_seconds=0.36)
    assert config.window == 5760
    assert config.audio_steps == (360, 180, 90, 45, 22, 11)
    assert config.latent_dim == 306
    with pytest.raises(ConfigError, match=r"context_dim must be generator\.audio_dim"):
        tiny(context_layers=0)
    for name in ("context_layers", "noise_dim"):
        with pytest.raises(ConfigError, match=f"generator.{name}: must be at least 0"):
            tiny(**{name: -1})
