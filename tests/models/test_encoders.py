"""Encoders: every layer's shape against the table of the reference model."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from stillspeak.models.config import GeneratorConfig
from stillspeak.models.encoders import (
    AudioFrameEncoder,
    ContextEncoder,
    IdentityEncoder,
    NoiseGenerator,
)


def layer_shapes(layers: nn.Module, kind: type, run: Callable[[], object]) -> list[tuple[int, ...]]:
    """The shapes that the layers of one kind give while ``run`` runs."""
    shapes: list[tuple[int, ...]] = []

    def note(_module: nn.Module, _inputs: object, output: Tensor) -> None:
        shapes.append(tuple(output.shape[1:]))

    hooks = [m.register_forward_hook(note) for m in layers.modules() if isinstance(m, kind)]
    run()
    for hook in hooks:
        hook.remove()
    return shapes


def test_identity_encoder_at_full_width() -> None:
    encoder = IdentityEncoder(GeneratorConfig()).eval()
    still = torch.rand(1, 3, 128, 96) * 2 - 1
    shapes = layer_shapes(encoder, nn.Conv2d, lambda: encoder(still))
    assert shapes == [
        (64, 64, 48),
        (128, 32, 24),
        (256, 16, 12),
        (512, 8, 6),
        (1024, 4, 3),
        (50, 1, 1),
    ]
    code, maps = encoder(still)
    assert code.shape == (1, 50)
    assert code.abs().max() <= 1
    assert [tuple(m.shape[1:]) for m in maps] == shapes[:-1]
    assert all(m.min() >= 0 for m in maps)  # after the ReLU


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_audio_frame_encoder_at_full_width(rate: int) -> None:
    config = GeneratorConfig(sample_rate=rate)
    encoder = AudioFrameEncoder(config).eval()
    windows = torch.randn(1, 2, config.window)
    shapes = layer_shapes(encoder, nn.Conv1d, lambda: encoder(windows))
    channels = [16, 32, 64, 128, 256, 512, 256]
    assert shapes == list(zip(channels, [160, 80, 40, 20, 10, 5, 1], strict=True))
    encoded = encoder(windows)
    assert encoded.shape == (1, 2, 256)
    assert encoded.abs().max() <= 1


def test_windows_of_200_ms() -> None:
    encoder = AudioFrameEncoder(GeneratorConfig(window_seconds=0.2)).eval()
    windows = torch.randn(1, 1, 3200)
    shapes = layer_shapes(encoder, nn.Conv1d, lambda: encoder(windows))
    assert [steps for _, steps in shapes] == [200, 100, 50, 25, 12, 6, 1]


def test_audio_frames_do_not_see_each_other() -> None:
    torch.manual_seed(0)
    encoder = AudioFrameEncoder(GeneratorConfig()).eval()
    windows = torch.randn(2, 3, 2560)
    encoded = encoder(windows)
    one = encoder(windows[1:, 2:])
    torch.testing.assert_close(encoded[1:, 2:], one, atol=1e-6, rtol=1e-5)
    assert not torch.allclose(encoded[0, 0], encoded[0, 1], atol=1e-4)


def test_context_encoder_hands_on_two_layers_of_state() -> None:
    encoder = ContextEncoder(GeneratorConfig()).eval()
    encoded, state = encoder(torch.randn(2, 3, 2560), torch.zeros(2, 2, 256))
    assert encoded.shape == (2, 3, 256)
    assert state.shape == (2, 2, 256)
    assert torch.equal(state[-1], encoded[:, -1])


def test_noise_generator_is_one_small_bounded_gru() -> None:
    noise = NoiseGenerator(GeneratorConfig())
    encoded, state = noise(100 * torch.randn(2, 50, 10), torch.zeros(1, 2, 10))
    assert encoded.shape == (2, 50, 10)
    assert state.shape == (1, 2, 10)
    assert encoded.abs().max() <= 1
    assert encoded.std() > 0.1
    assert noise.gru.num_layers == 1
