"""The pose predictor: two tokens a frame onto a linear basis, from frame to frame; and poses that a
generator gives instead of frames."""

from collections.abc import Callable

import pytest
import torch

from stillspeak.errors import ConfigError
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from stillspeak.models.pose import PoseConfig, PosePredictor
from stillspeak.models.speech import SpeechEncoderConfig

CONFIG = PoseConfig(hidden=8, basis=4)


@pytest.fixture(scope="module")
def predictor() -> PosePredictor:
    torch.manual_seed(0)
    predictor = PosePredictor(CONFIG, 6).eval().requires_grad_(False)
    predictor.basis.normal_()
    predictor.mean.normal_()
    predictor.deviation.uniform_(0.5, 2)
    return predictor


def test_two_tokens_make_a_frame(predictor: PosePredictor) -> None:
    coefficients, state = predictor(torch.randn(2, 10, 6), predictor.initial_state(2))
    assert coefficients.shape == (2, 5, 4) and state.shape == (1, 2, 8)
    assert predictor.shapes(coefficients).shape == (2, 5, 41, 2)


def test_frames_go_on_from_the_state(predictor: PosePredictor) -> None:
    features = torch.randn(1, 24, 6)
    whole, last = predictor(features, predictor.initial_state())
    state, parts = predictor.initial_state(), []
    for part in features.split([2, 10, 12], 1):
        given, state = predictor(part, state)
        parts.append(given)
    torch.testing.assert_close(torch.cat(parts, 1), whole)
    torch.testing.assert_close(state, last)
    # And do not see what comes.
    known, _ = predictor(features[:, :10], predictor.initial_state())
    torch.testing.assert_close(known, whole[:, :5])


def test_features_are_seen_in_their_deviations(predictor: PosePredictor) -> None:
    plain = PosePredictor(CONFIG, 6).eval()
    plain.load_state_dict(
        predictor.state_dict() | {"mean": torch.zeros(6), "deviation": torch.ones(6)}
    )
    features = torch.randn(1, 8, 6)
    seen = features * predictor.deviation + predictor.mean
    torch.testing.assert_close(
        predictor(seen, predictor.initial_state())[0],
        plain(features, plain.initial_state())[0].detach(),
        atol=1e-5,
        rtol=0,
    )


def test_shapes_lie_in_the_basis(predictor: PosePredictor) -> None:
    unit = torch.eye(4)[None]
    shapes = predictor.shapes(unit)[0]
    assert torch.equal(shapes, predictor.basis.view(4, 41, 2))
    mixed = predictor.shapes(torch.tensor([[[1.0, 0.0, -2.0, 0.0]]]))[0, 0]
    torch.testing.assert_close(mixed, shapes[0] - 2 * shapes[2])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"hidden": 0}, "pose.hidden"),
        ({"layers": 17}, "pose.layers"),
        ({"basis": 83}, "pose.basis: must be at most 82"),
        ({"dropout": 1.0}, "pose.dropout"),
    ],
)
def test_sizes_that_cannot_be(values: dict[str, float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PoseConfig(**values)  # type: ignore[arg-type]


# --- a generator of poses -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def config(tiny: Callable[..., GeneratorConfig]) -> GeneratorConfig:
    speech = SpeechEncoderConfig(width=8, heads=2, behind=5, ahead=(1, 1))
    return tiny("layers", audio_input="speech", noise_dim=0, speech=speech, pose=CONFIG)


def test_the_default_window_looks_152_ms_beyond_the_frame() -> None:
    config = GeneratorConfig(decoder="layers", audio_input="speech", noise_dim=0)
    assert config.window == 5520
    assert (config.window - config.hop) / 2 == 2440  # 152.5 ms


def test_a_generator_gives_poses_and_no_frames(config: GeneratorConfig) -> None:
    torch.manual_seed(1)
    generator = Generator(config).eval()
    assert not list(generator.identity_encoder.parameters())
    assert not list(generator.decoder.parameters())
    generator.context_encoder.pose.basis.normal_()
    still, noise = torch.zeros(1, 3, 128, 96), torch.zeros(1, 3, 0)
    windows = 0.1 * torch.randn(1, 3, config.window)
    state = generator.initial_state()
    decoded, _ = generator.step(generator.prepare_still(still), windows, noise, state)
    assert decoded.pose is not None and decoded.pose.shape == (1, 3, 41, 2)
    assert decoded.pose.shape[1] == 3
    with pytest.raises(ConfigError, match="gives the mouth's pose and makes no frames"):
        _ = decoded.frames
    with pytest.raises(ConfigError, match="gives the mouth's pose and makes no frames"):
        generator(still, windows, noise)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"audio_input": "waveform"}, "go together"),
        ({"decoder": "unet"}, "go together"),
        ({"noise_dim": 3}, "needs generator.noise_dim = 0"),
        ({"fps": 50}, "needs 16 kHz and 25 frames a second"),
        ({"sample_rate": 48_000}, "needs 16 kHz and 25 frames a second"),
    ],
)
def test_what_does_not_go_together(values: dict[str, object], message: str) -> None:
    usual = {"decoder": "layers", "audio_input": "speech", "noise_dim": 0}
    with pytest.raises(ConfigError, match=message):
        GeneratorConfig(**(usual | values))  # type: ignore[arg-type]
