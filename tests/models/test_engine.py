"""The inference engine answers as the generator does, frame by frame and in portions."""

import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

from stillspeak.face.align import crop_face, face_transform
from stillspeak.media.audio import frame_windows, load_audio
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.engine import POSE_TOLERANCE, TOLERANCE, InferenceEngine, packing_works
from stillspeak.models.generator import Generator
from stillspeak.models.pixels import to_model
from stillspeak.weights import DEFAULT_MODEL, load_model
from support.animate import lively, portrait, portrait_face

SMALL: dict[str, Any] = {
    "identity_channels": (8, 8, 12, 12, 16),
    "audio_channels": (4, 4, 8, 8, 12, 16),
    "audio_dim": 16,
    "context_dim": 16,
}
KINDS: dict[str, dict[str, Any]] = {
    "unet": {**SMALL, "decoder": "unet"},
    "static baseline": {
        **SMALL,
        "decoder": "unet",
        "context_layers": 0,
        "context_dim": 16,
        "noise_dim": 0,
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
            made, ours = engine.step(ready, windows, noise, ours)
            true, theirs = generator.step(context, windows, noise, theirs)
            assert made.frames.shape == true.frames.shape
            most = max(most, float((made.frames - true.frames).abs().max()) * LEVELS)
    return most


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_the_generator_s(kind: str, packed: bool) -> None:
    generator = grown(kind)
    engine = InferenceEngine(generator, packed=packed)
    assert worst(generator, engine, [1, 1, 3, 1, 16, 2]) < TOLERANCE[torch.float32]


@pytest.mark.parametrize("kind", ["unet", "static baseline"])
def test_portions_do_not_matter(kind: str) -> None:
    generator = grown(kind)
    engine = InferenceEngine(generator)
    alone = worst(generator, engine, [1] * 8)
    assert alone < TOLERANCE[torch.float32] and worst(generator, engine, [8]) < 0.05


def test_weights_are_those_of_the_moment() -> None:
    generator = grown("unet")
    engine = InferenceEngine(generator)
    before = worst(generator, engine, [2])
    with torch.no_grad():
        for parameter in generator.decoder.parameters():
            parameter.mul_(1.5)
    assert before < TOLERANCE[torch.float32] < worst(generator, engine, [2])


@pytest.mark.skipif(
    not packing_works(torch.bfloat16), reason="this processor does not multiply bfloat16"
)
@pytest.mark.parametrize("kind", ["unet", "static baseline"])
def test_bfloat16_is_close(kind: str) -> None:
    generator = grown(kind)
    engine = InferenceEngine(generator, dtype=torch.bfloat16)
    # Random weights are rougher than trained ones, whose bound is TOLERANCE.
    assert 0 < worst(generator, engine, [1, 4]) < 8 * TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_released_model_stays_within_its_tolerance(dtype: torch.dtype) -> None:
    if not packing_works(dtype):
        pytest.skip("this processor does not multiply it")
    generator = load_model("temporal")
    engine = InferenceEngine(generator, dtype=dtype)
    face = to_model(crop_face(portrait(), face_transform(portrait_face().points), 128, 96)[None])
    assert 0 < worst(generator, engine, [1, 4, 1], face) < TOLERANCE[dtype]


# --- poses --------------------------------------------------------------------------------------


@torch.inference_mode()
def poses(runs: Generator | InferenceEngine, portions: list[int]) -> torch.Tensor:
    """(1, T, 41, 2) of the bundled sentence's beginning, some frames at a time."""
    config = runs.config
    path = Path(str(files("stillspeak"))) / "resources" / "speech.flac"
    sound = load_audio(path, sample_rate=config.sample_rate)[: sum(portions) * config.hop]
    windows = torch.tensor(frame_windows(sound, config.window, config.hop))[None]
    still = runs.prepare_still(torch.zeros(1, 3, config.height, config.width))
    state, at, given = runs.initial_state(), 0, []
    for frames in portions:
        noise = torch.zeros(1, frames, 0)
        decoded, state = runs.step(still, windows[:, at : at + frames], noise, state)  # type: ignore[arg-type]
        assert decoded.pose is not None and decoded.pose.shape[1] == frames
        given.append(decoded.pose)
        at += frames
    return torch.cat(given, 1)


def test_poses_in_eight_bits_stay_within_their_tolerance() -> None:
    generator = load_model(DEFAULT_MODEL)
    engine = InferenceEngine(generator)
    true, made = poses(generator, [75]), poses(engine, [75])
    assert true.abs().max() > 0.05  # somebody speaks
    assert (made - true).abs().max() < POSE_TOLERANCE
    assert (made - true).abs().mean() < POSE_TOLERANCE / 10


def test_poses_are_the_same_whatever_their_number() -> None:
    engine = InferenceEngine(lively("layers"))
    whole = poses(engine, [12])
    assert torch.equal(poses(engine, [1] * 12), whole)
    assert torch.equal(poses(engine, [5, 1, 6]), whole)


@torch.inference_mode()
def test_features_are_handed_out_and_change_no_pose() -> None:
    generator = lively("layers")
    engine, config = InferenceEngine(generator), generator.config
    windows = 0.1 * torch.randn(1, 5, config.window, generator=torch.Generator().manual_seed(2))
    noise, still = torch.zeros(1, 5, 0), torch.zeros(1, 3, config.height, config.width)
    for runs, encoder in ((generator, generator.context_encoder), (engine, engine.audio)):
        decoded, _ = runs.step(runs.prepare_still(still), windows, noise, runs.initial_state())
        alone, _ = encoder(windows, runs.initial_state().context)  # as before there were any
        assert decoded.pose is not None and decoded.features is not None
        assert torch.equal(decoded.pose.flatten(2), alone)
        assert decoded.features.shape == (1, 2 * 5, config.speech.width)
        assert runs.speech is generator.speech is not None
    state, parts = engine.initial_state(), []
    for at in range(5):
        one, state = engine.step(None, windows[:, at : at + 1], noise[:, :1], state)
        parts.append(one.features)
    whole, _ = engine.step(None, windows, noise, engine.initial_state())
    assert torch.equal(torch.cat(parts, 1), whole.features)
    painter = lively("unet")
    random = torch.Generator().manual_seed(2)
    made, _ = painter.step(
        painter.prepare_still(torch.zeros(1, 3, 128, 96)),
        torch.randn(1, 5, painter.config.window, generator=random),
        painter.draw_noise(1, 5, random),
        painter.initial_state(),
    )
    assert made.features is None and painter.speech is None and made.frames.shape[1] == 5


def test_poses_without_eight_bits_are_the_generators() -> None:
    generator = lively("layers")
    engine = InferenceEngine(generator, packed=False)
    torch.testing.assert_close(poses(engine, [9, 3]), poses(generator, [12]), atol=1e-5, rtol=0)


def test_making_eight_bits_warns_nobody_and_leaves_the_generator_alone() -> None:
    generator = lively("layers")
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        InferenceEngine(generator)
    after = generator.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
