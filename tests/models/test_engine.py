"""The inference engine answers as the generator does, frame by frame and in portions."""

from typing import Any

import pytest
import torch

from fixtures_animate import portrait, portrait_face
from stillspeak.face.align import crop_face, face_transform
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.engine import TOLERANCE, InferenceEngine, packing_works
from stillspeak.models.generator import Generator
from stillspeak.models.pixels import to_model
from stillspeak.weights import DEFAULT_MODEL, load_model

SMALL: dict[str, Any] = {
    "identity_channels": (8, 8, 12, 12, 16),
    "audio_channels": (4, 4, 8, 8, 12, 16),
    "audio_dim": 16,
    "context_dim": 16,
}
WARP: dict[str, Any] = {**SMALL, "decoder": "warp", "warp_channels": (8, 8, 12, 12, 16)}

KINDS: dict[str, dict[str, Any]] = {
    "unet": {**SMALL, "decoder": "unet"},
    "unet, finest skip": {**SMALL, "decoder": "unet", "finest_skip": True},
    "static baseline": {
        **SMALL,
        "decoder": "unet",
        "context_layers": 0,
        "context_dim": 16,
        "noise_dim": 0,
    },
    "warp": WARP,
    "warp, mouth": {**WARP, "mouth_channels": (8, 4)},
    "warp, mouth, spectra, expression": {
        **WARP,
        "mouth_channels": (8, 4),
        "audio_input": "mel",
        "audio_channels": (8, 12, 16),
        "expression_dim": 2,
        "window_seconds": 0.2,
    },
}
LEVELS = 127.5
"""Levels of 255 in one unit of a frame's scale."""


def grown(kind: str) -> Generator:
    """A generator whose norms have seen something, so that folding them is work."""
    torch.manual_seed(3)
    generator = Generator(GeneratorConfig(**KINDS[kind]))
    for module in generator.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.2)
            module.running_var.uniform_(0.5, 1.5)
    return generator.eval()


def worst(
    generator: Generator,
    engine: InferenceEngine,
    portions: list[int],
    still: torch.Tensor | None = None,
) -> float:
    """The largest difference of a pixel over a clip, in levels of 255."""
    config = generator.config
    random = torch.Generator().manual_seed(0)
    if still is None:
        still = torch.rand(1, 3, config.height, config.width, generator=random) * 2 - 1
    with torch.inference_mode():
        context = generator.prepare_still(still)
        ready = engine.prepare_still(still)
        ours, theirs = engine.initial_state(), generator.initial_state()
        most = 0.0
        for frames in portions:
            windows = torch.rand(1, frames, config.window, generator=random) * 0.4 - 0.2
            noise = torch.randn(1, frames, config.noise_dim, generator=random)
            expression = None
            if config.expression_dim:
                expression = torch.rand(1, frames, config.expression_dim, generator=random)
            made, ours = engine.step(ready, windows, noise, ours, expression)
            true, theirs = generator.step(context, windows, noise, theirs, expression)
            assert made.frames.shape == true.frames.shape
            most = max(most, float((made.frames - true.frames).abs().max()) * LEVELS)
    return most


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_the_generator_s(kind: str, packed: bool) -> None:
    generator = grown(kind)
    engine = InferenceEngine(generator, packed=packed)
    assert worst(generator, engine, [1, 1, 3, 1, 16, 2]) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("kind", ["unet", "warp, mouth, spectra, expression"])
def test_portions_do_not_matter(kind: str) -> None:
    generator = grown(kind)
    engine = InferenceEngine(generator)
    alone = worst(generator, engine, [1] * 8)
    assert alone < TOLERANCE[torch.float32] and worst(generator, engine, [8]) < 0.05


def test_weights_are_those_of_the_moment() -> None:
    generator = grown("warp")
    engine = InferenceEngine(generator)
    before = worst(generator, engine, [2])
    with torch.no_grad():
        for parameter in generator.decoder.parameters():
            parameter.mul_(1.5)
    assert before < TOLERANCE[torch.float32] < worst(generator, engine, [2])


@pytest.mark.skipif(
    not packing_works(torch.bfloat16), reason="this processor does not multiply bfloat16"
)
@pytest.mark.parametrize("kind", ["unet", "warp, mouth"])
def test_bfloat16_is_close(kind: str) -> None:
    generator = grown(kind)
    engine = InferenceEngine(generator, dtype=torch.bfloat16)
    # Random weights are rougher than trained ones, whose bound is TOLERANCE.
    assert 0 < worst(generator, engine, [1, 4]) < 8 * TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_default_model_stays_within_its_tolerance(dtype: torch.dtype) -> None:
    if not packing_works(dtype):
        pytest.skip("this processor does not multiply it")
    generator = load_model(DEFAULT_MODEL)
    engine = InferenceEngine(generator, dtype=dtype)
    face = to_model(crop_face(portrait(), face_transform(portrait_face().points), 128, 96)[None])
    assert 0 < worst(generator, engine, [1, 4, 1], face) < TOLERANCE[dtype]
