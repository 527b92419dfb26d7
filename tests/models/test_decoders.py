"""Decoders: maps and cost."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from stillspeak.models.layers import SkipFusion

CONFIGS = Path(__file__).parents[2] / "configs"


def meta_generator(config: GeneratorConfig) -> tuple[Generator, tuple[torch.Tensor, ...]]:
    """A generator and its inputs (1 clip, 2 frames) without memory: shapes and costs only."""
    with torch.device("meta"):
        generator = Generator(config).eval()
        return generator, (
            torch.empty(1, 3, config.height, config.width),
            torch.empty(1, 2, config.window),
            torch.empty(1, 2, config.noise_dim),
        )


def test_u_net_at_full_width() -> None:
    generator, inputs = meta_generator(GeneratorConfig())
    shapes: dict[str, tuple[int, ...]] = {}

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            shapes[name] = tuple(output.shape)

        return hook

    decoder = generator.decoder
    for name, module in decoder.named_modules():
        if name.count(".") == 1 and name.split(".")[0] in ("fuse", "up"):
            module.register_forward_hook(note(name))
    decoder.root.register_forward_hook(note("root"))
    decoder.head.register_forward_hook(note("head"))
    frames = generator(*inputs)

    assert frames.shape == (1, 2, 3, 128, 96)
    assert shapes == {
        "root": (2, 1024, 4, 3),
        "fuse.0": (2, 1024, 4, 3),
        "up.0": (2, 512, 8, 6),
        "fuse.1": (2, 512, 8, 6),
        "up.1": (2, 256, 16, 12),
        "fuse.2": (2, 256, 16, 12),
        "up.2": (2, 128, 32, 24),
        "fuse.3": (2, 128, 32, 24),
        "up.3": (2, 64, 64, 48),
        "head": (2, 3, 128, 96),
    }
    assert generator.config.latent_dim == decoder.root[0].in_channels == 316
    kernels = [
        (decoder.root[0].kernel_size, decoder.root[0].stride),
        *[(f.conv.kernel_size, f.conv.stride) for f in decoder.fuse],
        *[(u[0].kernel_size, u[0].stride) for u in decoder.up],
        (decoder.head.kernel_size, decoder.head.stride),
    ]
    assert kernels == [
        ((4, 3), (1, 1)),
        *[((3, 3), (1, 1))] * 4,
        *[((4, 4), (2, 2))] * 4,
        ((4, 4), (2, 2)),
    ]


def test_u_net_s_skips_are_the_identity_maps_but_the_finest() -> None:
    generator, (still, _, _) = meta_generator(GeneratorConfig())
    assert [f.skip_channels for f in generator.decoder.fuse] == [1024, 512, 256, 128]
    context = generator.prepare_still(still)
    sizes = [(1024, 4, 3), (512, 8, 6), (256, 16, 12), (128, 32, 24)]
    assert [tuple(s.shape[1:]) for s in context.skips] == sizes


def test_full_width_parameters() -> None:
    generator, _ = meta_generator(GeneratorConfig())
    assert sum(p.numel() for p in generator.parameters()) == 54_012_585


def frame_cost(config: GeneratorConfig) -> tuple[float, float]:
    """GFLOP of one frame's decoding, and of what a clip shares."""
    generator, (still, windows, noise) = meta_generator(config)
    with FlopCounterMode(display=False) as shared:
        context = generator.prepare_still(still)
    encoded = generator.encode(windows, noise, generator.initial_state())
    with FlopCounterMode(display=False) as frames:
        generator.decode(context, encoded[0], encoded[1])
    return frames.get_total_flops() / 2e9, shared.get_total_flops() / 1e9


def test_full_width_cost() -> None:
    a_frame, shared = frame_cost(GeneratorConfig())
    assert a_frame == pytest.approx(1.74, abs=0.02)
    # The reference's 2.6 GFLOP a frame hold the skips' halves, which are shared here.
    encoder = 2 * 3 * 64 * 16 * 64 * 48 / 1e9 + 4 * 0.2013 + 2 * 1024 * 12 * 50 / 1e9
    assert a_frame + shared - encoder == pytest.approx(2.6, abs=0.1)


def test_skips_are_projected_once_a_clip(
    tiny: Callable[..., GeneratorConfig],
    inputs: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    projections: list[int] = []
    project = SkipFusion.project

    def counted(self: SkipFusion, skip: torch.Tensor) -> torch.Tensor:
        projections.append(skip.shape[0])
        return project(self, skip)

    monkeypatch.setattr(SkipFusion, "project", counted)
    encoded: list[int] = []
    generator = Generator(tiny()).eval()
    generator.identity_encoder.register_forward_hook(
        lambda _m, args, _o: encoded.append(args[0].shape[0])
    )
    generator(*inputs(generator.config, 2, 5))
    # Twice for the two clips of the batch, not ten times for their ten frames.
    assert encoded == [2]
    assert projections == [2] * 4

    still, windows, noise = inputs(generator.config, 1, 4)
    context = generator.prepare_still(still)
    state = generator.initial_state()
    encoded.clear()
    projections.clear()
    for t in range(4):
        _, state = generator.step(context, windows[:, t : t + 1], noise[:, t : t + 1], state)
    assert encoded == projections == []
