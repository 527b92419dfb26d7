"""Decoders: maps, cost, and the warp's geometry."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stillspeak.configuration import build, read_toml
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import Motion, WarpDecoder, compose, resize, warp
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


def warp_config() -> GeneratorConfig:
    return build(GeneratorConfig, read_toml(CONFIGS / "warp.toml")["generator"], name="warp.toml")


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


def test_the_warp_decoder_costs_a_quarter_gflop_a_frame_at_most() -> None:
    a_frame, _ = frame_cost(warp_config())
    assert 0.1 < a_frame <= 0.25


def test_the_warp_decoder_works_at_half_resolution() -> None:
    generator, (still, windows, noise) = meta_generator(warp_config())
    context = generator.prepare_still(still)
    assert [tuple(s.shape[1:]) for s in context.skips] == [
        (224, 4, 3),
        (144, 8, 6),
        (88, 16, 12),
        (52, 32, 24),
        (24, 64, 48),
    ]
    encoded = generator.encode(windows, noise, generator.initial_state())
    decoded = generator.decode(context, encoded[0], encoded[1])
    assert decoded.motion is not None
    assert decoded.motion.flow.shape == (1, 2, 2, 64, 48)
    assert decoded.motion.mask.shape == (1, 2, 1, 64, 48)
    assert decoded.motion.colour.shape == (1, 2, 3, 64, 48)
    assert decoded.frames.shape == (1, 2, 3, 128, 96)


def test_an_untrained_warp_decoder_returns_the_still(
    tiny: Callable[..., GeneratorConfig], inputs: Callable[..., Any]
) -> None:
    generator = Generator(tiny("warp")).eval()
    still, windows, noise = inputs(generator.config, 2, 3)
    decoded, _ = generator.step(
        generator.prepare_still(still), windows, noise, generator.initial_state(2)
    )
    motion = decoded.motion
    assert motion is not None
    assert torch.equal(motion.flow, torch.zeros(2, 3, 2, 64, 48))
    trust = torch.sigmoid(torch.tensor(WarpDecoder.MASK_BIAS))
    assert torch.equal(motion.mask, trust.expand_as(motion.mask))
    expected = (1 - trust) * still[:, None] + trust * resize(motion.colour, (128, 96))
    torch.testing.assert_close(decoded.frames, expected, atol=1e-5, rtol=0)


def shift_flow(right: float, down: float, size: tuple[int, int], scale: int = 1) -> torch.Tensor:
    """A constant flow (1, 1, 2, h, w) in [-1, 1] units for a shift in pixels of ``size``."""
    height, width = size
    flow = torch.tensor([2 * right / width, 2 * down / height])
    return flow.view(1, 1, 2, 1, 1).expand(1, 1, 2, height // scale, width // scale)


@pytest.mark.parametrize("scale", [1, 2])
def test_a_known_flow_moves_the_picture_by_whole_pixels(scale: int) -> None:
    still = torch.rand(1, 3, 128, 96) * 2 - 1
    moved = warp(still, shift_flow(3, -2, (128, 96), scale))
    assert moved.shape == (1, 1, 3, 128, 96)
    # Where the flow points is where the pixel comes from.
    torch.testing.assert_close(moved[0, 0, :, 2:, :-3], still[0, :, :-2, 3:], atol=1e-4, rtol=0)
    # Beyond the border its own colour goes on.
    torch.testing.assert_close(
        moved[0, 0, :, 2:, -3:], still[0, :, :-2, -1:].expand(3, 126, 3), atol=1e-4, rtol=0
    )


def test_each_frame_and_each_clip_has_its_own_flow() -> None:
    still = torch.rand(2, 3, 8, 6)
    flow = torch.zeros(2, 2, 2, 8, 6)
    flow[1, 0, 0] = 2 * 1 / 6
    moved = warp(still, flow)
    for clip, frame in ((0, 0), (0, 1), (1, 1)):
        torch.testing.assert_close(moved[clip, frame], still[clip], atol=1e-5, rtol=0)
    torch.testing.assert_close(moved[1, 0, :, :, :-1], still[1, :, :, 1:], atol=1e-5, rtol=0)


def test_compose_mixes_by_the_mask() -> None:
    still = torch.full((1, 3, 8, 6), -0.5)
    mask = torch.zeros(1, 1, 1, 8, 6)
    mask[..., 3:] = 0.25
    motion = Motion(torch.zeros(1, 1, 2, 8, 6), mask, torch.full((1, 1, 3, 8, 6), 0.7))
    frames = compose(still, motion)
    torch.testing.assert_close(frames[..., :3], torch.full((1, 1, 3, 8, 3), -0.5))
    torch.testing.assert_close(frames[..., 3:], torch.full((1, 1, 3, 8, 3), -0.5 * 0.75 + 0.7 / 4))


def test_resizing_keeps_pixel_centres() -> None:
    """A ramp over the picture is the same ramp at twice the resolution, up to its ends."""
    coarse = ((torch.arange(6.0) + 0.5) * 2).expand(1, 1, 1, 4, 6)
    fine = resize(coarse, (8, 12))[0, 0, 0]
    torch.testing.assert_close(fine[:, 1:-1], (torch.arange(1.0, 11) + 0.5).expand(8, 10))
    torch.testing.assert_close(fine[:, 0], torch.full((8,), 1.0))  # half a coarse pixel in
    assert resize(coarse, (4, 6)) is coarse


def test_compose_at_four_times_the_resolution() -> None:
    random = torch.Generator().manual_seed(0)
    sharp = torch.rand(1, 3, 512, 384, generator=random) * 2 - 1
    motion = Motion(
        shift_flow(2, 1, (128, 96), 2), torch.zeros(1, 1, 1, 64, 48), torch.ones(1, 1, 3, 64, 48)
    )
    frames = compose(sharp, motion)
    assert frames.shape == (1, 1, 3, 512, 384)
    # Two pixels of the crop are eight of the picture, and every one of them is the still's own.
    torch.testing.assert_close(frames[0, 0, :, :-4, :-8], sharp[0, :, 4:, 8:], atol=2e-4, rtol=0)


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
    for decoder, levels in (("unet", 4), ("warp", 5)):
        projections.clear()
        encoded: list[int] = []
        generator = Generator(tiny(decoder)).eval()
        generator.identity_encoder.register_forward_hook(
            lambda _m, args, _o, seen=encoded: seen.append(args[0].shape[0])
        )
        generator(*inputs(generator.config, 2, 5))
        # Twice for the two clips of the batch, not ten times for their ten frames.
        assert encoded == [2]
        assert projections == [2] * levels

        still, windows, noise = inputs(generator.config, 1, 4)
        context = generator.prepare_still(still)
        state = generator.initial_state()
        encoded.clear()
        projections.clear()
        for t in range(4):
            _, state = generator.step(context, windows[:, t : t + 1], noise[:, t : t + 1], state)
        assert encoded == projections == []
