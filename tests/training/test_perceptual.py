"""The perceptual distance, with random weights in the shape of VGG-16's."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stillspeak.errors import ConfigError
from stillspeak.training.checkpoint import latest_checkpoint, load_checkpoint
from stillspeak.training.config import ObjectiveConfig, RunConfig
from stillspeak.training.loop import TrainingLoop
from stillspeak.training.perceptual import PerceptualDistance

# torchvision's VGG-16: place among its features, channels in and out.
LAYERS = {0: (3, 64), 2: (64, 64), 5: (64, 128), 7: (128, 128), 10: (128, 256)}
LAYERS |= {12: (256, 256), 14: (256, 256)}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random = torch.Generator().manual_seed(0)
    state = {"classifier.0.weight": torch.zeros(2, 2)}  # the whole file of a user has more
    for place, (a, b) in LAYERS.items():
        deviation = (2 / (9 * a)) ** 0.5
        state[f"features.{place}.weight"] = deviation * torch.randn(b, a, 3, 3, generator=random)
        state[f"features.{place}.bias"] = 0.05 * torch.randn(b, generator=random)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.safetensors"
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def distance(weights: Path) -> PerceptualDistance:
    return PerceptualDistance(weights)


def pictures(seed: int = 0) -> torch.Tensor:
    return torch.rand(2, 3, 40, 52, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_identical_frames_are_no_distance_apart(distance: PerceptualDistance) -> None:
    assert distance(pictures(), pictures()).item() == 0


def test_the_further_the_larger_and_both_ways_alike(distance: PerceptualDistance) -> None:
    real, other = pictures(), pictures(1)
    distances = [distance(torch.lerp(real, other, share), real).item() for share in (0.1, 0.4, 1.0)]
    assert 0 < distances[0] < distances[1] < distances[2]
    assert distance(real, other).item() == pytest.approx(distances[2], rel=1e-4)


def test_a_gradient_for_generated_frames_alone(distance: PerceptualDistance) -> None:
    generated, real = pictures(1).requires_grad_(), pictures().requires_grad_()
    value = distance(generated, real)
    value.backward()
    assert generated.grad is not None
    assert generated.grad.isfinite().all()
    assert (generated.grad.abs().amax((1, 2, 3)) > 0).all()
    assert real.grad is None
    # A small step against it brings the frames nearer.
    with torch.no_grad():
        nearer = generated - 0.02 * generated.grad / generated.grad.abs().max()
        assert distance(nearer, real) < value


def test_black_frames_have_no_endless_slope(distance: PerceptualDistance) -> None:
    generated = torch.full((1, 3, 40, 52), -1.0, requires_grad=True)
    distance(generated, generated.detach()).backward()
    assert generated.grad is not None
    assert generated.grad.isfinite().all()


def test_colours_are_vggs(distance: PerceptualDistance) -> None:
    """Grey levels of [0, 1] minus ImageNet's mean, over its deviation."""
    red = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1)
    moved = (red - distance.mean) / distance.deviation
    expected = [(1 - 0.485) / 0.229, (0 - 0.456) / 0.224, (0.5 - 0.406) / 0.225]
    assert moved.flatten().tolist() == pytest.approx(expected, rel=1e-5)


def test_the_layers_are_those_of_vgg(distance: PerceptualDistance, weights: Path) -> None:
    """Against the network written out, up to relu3_3, and what the distance is made of."""
    state = load_file(weights)
    places: dict[str, list[int]] = {"relu1_2": [0, 2], "relu2_2": [5, 7], "relu3_3": [10, 12, 14]}

    def features(frames: torch.Tensor) -> list[torch.Tensor]:
        mean, deviation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
        x = (frames + 1) / 2
        x = (x - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(deviation).view(1, 3, 1, 1)
        found = []
        for block, layers in enumerate(places.values()):
            if block:
                x = torch.nn.functional.max_pool2d(x, 2)
            for place in layers:
                x = torch.nn.functional.conv2d(
                    x, state[f"features.{place}.weight"], state[f"features.{place}.bias"], padding=1
                ).relu()
            # As long as its number of channels says, so that layers count alike.
            found.append(torch.nn.functional.normalize(x, dim=1) * x.shape[1] ** 0.5)
        return found

    one, other = pictures(), pictures(1)
    terms = [(a - b).abs().mean() for a, b in zip(features(one), features(other), strict=True)]
    assert distance(one, other).item() == pytest.approx(sum(terms).item() / 3, rel=1e-4)


def test_no_checkpoint_and_no_optimiser_holds_it(
    weights: Path, game: Callable[..., RunConfig], make: Callable[..., TrainingLoop], tmp_path: Path
) -> None:
    assert PerceptualDistance(weights).state_dict() == {}
    assert not list(PerceptualDistance(weights).parameters())
    objective = {"perceptual": 0.5, "perceptual_weights": str(weights)}
    trainer = make(
        game(objective=objective, adversarial={"frame": 0.0, "sequence": 0.0, "sync": 0.0})
    )
    values = trainer.task.train_step([trainer.task.data.batch(0)])
    assert values["perceptual"] > 0
    by_hand = sum(
        getattr(trainer.task.config.objective, name) * values[name]
        for name in ("l1", "gradient", "mouth_shape", "perceptual")
    )
    assert values["loss"] == pytest.approx(by_hand, rel=1e-4)
    trainer.save()
    path = latest_checkpoint(tmp_path / "run")
    assert path is not None
    assert not [name for name in load_checkpoint(path)["objective"] if "perceptual" in name]
    make(trainer.task.config).resume()


# --------------------------------------------------------------------------------------- wrong


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        PerceptualDistance(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def test_a_file_that_is_not_there_or_is_something_else(tmp_path: Path) -> None:
    assert "objective.perceptual_weights" in refusal(tmp_path / "none.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("no tensors")
    assert "objective.perceptual_weights" in refusal(text)
    assert "objective.perceptual_weights" in refusal(tmp_path)


@pytest.mark.parametrize("name", ["features.0.weight", "features.7.bias", "features.14.weight"])
def test_a_tensor_that_is_missing_or_of_another_shape(
    name: str, weights: Path, tmp_path: Path
) -> None:
    state = load_file(weights)
    path = tmp_path / "other.safetensors"
    save_file({n: t for n, t in state.items() if n != name}, path)
    assert f"holds no {name} as VGG-16 has it" in refusal(path)
    save_file(state | {name: state[name][:-1].contiguous()}, path)
    assert f"holds no {name} as VGG-16 has it" in refusal(path)


def test_a_weight_without_a_file() -> None:
    with pytest.raises(ConfigError, match=r"needs objective\.perceptual_weights"):
        ObjectiveConfig(perceptual=0.1)
