"""The discriminators: what each looks at, what it must not look at, and its layers."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from stillspeak.errors import ConfigError
from stillspeak.models.config import (
    FrameDiscriminatorConfig,
    GeneratorConfig,
    SequenceDiscriminatorConfig,
    SyncDiscriminatorConfig,
    sync_frames,
)
from stillspeak.models.discriminators import (
    FrameDiscriminator,
    SequenceDiscriminator,
    SyncDiscriminator,
)
from stillspeak.models.regions import MOUTH_BOX

REGIONS = ("frame", "lower", "mouth")
NORMS = ("none", "batch", "spectral")
BOXES = {"frame": (0, 128, 0, 96), "lower": (64, 128, 0, 96), "mouth": MOUTH_BOX}
SIZES = GeneratorConfig()
FRAMES = 6
AUDIO = {"audio_channels": (4, 4, 5, 5, 6, 6), "audio_dim": 7, "image_dim": 8}

Inputs = tuple[torch.Tensor, ...]


def frame_network(**changes: Any) -> FrameDiscriminator:
    config = FrameDiscriminatorConfig(**{"channels": (4, 5, 6, 7, 8), **changes})
    return lively(lambda: FrameDiscriminator(config, SIZES))


def sequence_network(**changes: Any) -> SequenceDiscriminator:
    values = {"channels": (4, 5, 6, 7, 8), "state_dim": 9, **AUDIO, **changes}
    return lively(lambda: SequenceDiscriminator(SequenceDiscriminatorConfig(**values), SIZES))


def sync_network(**changes: Any) -> SyncDiscriminator:
    values = {"channels": (4, 5, 6, 7), **AUDIO, **changes}
    return lively(lambda: SyncDiscriminator(SyncDiscriminatorConfig(**values), SIZES))


def lively(build: Callable[[], Any]) -> Any:
    """In eval mode, with weights so large that its inputs reach its logit."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = build().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if parameter.dim() > 2 and "original" not in name:
                parameter.mul_(2.5)
    return network


def pictures(*shape: int, seed: int = 0) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 3, 128, 96, generator=random) * 2 - 1


def sound(*shape: int, seed: int = 0) -> torch.Tensor:
    return 0.5 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs_of(network: nn.Module, clips: int = 2, seed: int = 0) -> Inputs:
    """Inputs that fit; in all of them the pictures to be judged are named by :func:`judged`."""
    if isinstance(network, FrameDiscriminator):
        return pictures(clips, seed=seed), pictures(clips, seed=seed + 1)
    if isinstance(network, SequenceDiscriminator):
        return pictures(clips, FRAMES, seed=seed), sound(clips, FRAMES, SIZES.window, seed=seed)
    return pictures(clips, 5, seed=seed), sound(clips, 5 * SIZES.hop, seed=seed)


def judged(network: nn.Module) -> int:
    """Which input holds the pictures to be judged."""
    return 1 if isinstance(network, FrameDiscriminator) else 0


def swapped(given: Inputs, index: int, value: torch.Tensor) -> Inputs:
    return (*given[:index], value, *given[index + 1 :])


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "frame": frame_network,
    "sequence": sequence_network,
    "sync": sync_network,
}
every_network = pytest.mark.parametrize("kind", NETWORKS)


# ------------------------------------------------------------------------------- all three


@pytest.mark.parametrize(("kind", "region"), list(product(NETWORKS, REGIONS)))
@torch.no_grad()
def test_one_logit_each(kind: str, region: str) -> None:
    network = NETWORKS[kind](region=region)
    logits = network(*inputs_of(network, 3))
    assert logits.shape == (3,)
    assert logits.unique().numel() == 3
    assert network(*inputs_of(network, 1)).shape == (1,)


@pytest.mark.parametrize(("kind", "region"), list(product(NETWORKS, REGIONS)))
def test_each_sees_the_whole_of_its_region_and_nothing_else(kind: str, region: str) -> None:
    network = NETWORKS[kind](region=region)
    given = [x.requires_grad_() for x in inputs_of(network, 1)]
    network(*given).sum().backward()
    top, bottom, left, right = BOXES[region]
    looked = [given[judged(network)]]
    if kind == "frame":
        looked.append(given[0])  # the still is cropped alike
    for picture in looked:
        seen = picture.grad.abs().flatten(0, -3).amax(0) > 0  # type: ignore[union-attr]
        rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
        assert (int(rows[0]), int(rows[-1]) + 1) == (top, bottom)
        assert (int(columns[0]), int(columns[-1]) + 1) == (left, right)


@every_network
@torch.no_grad()
def test_every_input_matters(kind: str) -> None:
    network = NETWORKS[kind]()
    given, others = inputs_of(network), inputs_of(network, seed=9)
    before = network(*given)
    for index, other in enumerate(others):
        change = (network(*swapped(given, index, other)) - before).abs()
        assert (change > 1e-4).all(), index


@pytest.mark.parametrize(("kind", "norm"), list(product(NETWORKS, NORMS)))
def test_gradients_reach_every_parameter(kind: str, norm: str) -> None:
    network = NETWORKS[kind](norm=norm).train()
    logits = network(*inputs_of(network))
    (logits * torch.tensor([1.0, -0.5])).sum().backward()
    missing = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    # A bias before a batch norm is taken away with the mean.
    useless = [n for n in missing if norm == "batch" and n.endswith("bias")]
    assert missing == useless


@every_network
@torch.no_grad()
def test_in_training_mode_other_clips_frames_tell_nothing(kind: str) -> None:
    """Batch statistics would let a discriminator see how the rest of the batch was made."""
    network = NETWORKS[kind]().train()
    given = inputs_of(network)
    index = judged(network)
    changed = given[index].clone()
    changed[1] = changed[1] * 0.1 + 0.5
    first = network(*given)
    second = network(*swapped(given, index, changed))
    torch.testing.assert_close(first[0], second[0], atol=1e-6, rtol=0)
    assert (first[1] - second[1]).abs() > 1e-3


@every_network
def test_spectral_norm_bounds_every_layer_that_sees_pictures(kind: str) -> None:
    network = NETWORKS[kind](norm="spectral").train()
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    with torch.no_grad():
        for index, layer in enumerate(layers):
            layer.parametrizations.weight.original.mul_(3.0 + index)
        for _ in range(40):
            network(*inputs_of(network, 1))
    for layer in layers:
        raw = layer.parametrizations.weight.original.flatten(1)
        assert torch.linalg.matrix_norm(raw, 2) > 1.2
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
        assert norm.item() == pytest.approx(1, abs=0.03)


@every_network
def test_batch_norm_is_on_all_strided_layers_but_the_first(kind: str) -> None:
    layers = list(NETWORKS[kind](norm="batch").layers)  # type: ignore[arg-type]
    kinds = [type(layer) for layer in layers]
    strided = kinds.count(nn.Conv2d)
    assert kinds[:2] == [nn.Conv2d, nn.LeakyReLU]
    assert kinds[2:] == [nn.Conv2d, nn.BatchNorm2d, nn.LeakyReLU] * (strided - 1)
    plain = [type(m) for m in NETWORKS[kind]().modules()]
    assert nn.BatchNorm2d not in plain


@every_network
def test_a_negative_answer_still_has_a_slope(kind: str) -> None:
    slopes = [m.negative_slope for m in NETWORKS[kind]().modules() if isinstance(m, nn.LeakyReLU)]
    assert slopes
    assert set(slopes) == {0.2}


@every_network
def test_a_picture_too_small_for_the_layers_is_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{kind}_discriminator.channels.*40x52") as caught:
        NETWORKS[kind](region="mouth", channels=(4,) * 6)
    assert "\n" not in str(caught.value)
    NETWORKS[kind](region="mouth", channels=(4,) * 5)


# ----------------------------------------------------------------------------------- frame


def test_six_layers_of_the_frame_discriminator() -> None:
    """Paper, section 2.2.1, at the published width of the input: still and frame, six channels."""
    network = FrameDiscriminator(FrameDiscriminatorConfig(), SIZES)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert [(m.in_channels, m.out_channels) for m in layers] == [
        *((6, 64), (64, 128), (128, 256), (256, 512), (512, 1024)),
        (1024, 1),
    ]
    assert layers[-1].kernel_size == (4, 3)
    assert {(m.kernel_size, m.stride, m.padding) for m in layers[:-1]} == {((4, 4), (2, 2), (1, 1))}


@torch.no_grad()
def test_still_and_frame_are_not_the_same_to_it() -> None:
    network = frame_network()
    still, frame = inputs_of(network)
    assert ((network(still, frame) - network(frame, still)).abs() > 1e-4).all()


@torch.no_grad()
def test_its_maps_are_those_after_each_activation() -> None:
    network = frame_network(norm="batch")
    still, frame = inputs_of(network)
    logits, maps = network.judge(still, frame)
    assert torch.equal(logits, network(still, frame))
    assert [tuple(m.shape) for m in maps] == [
        *((2, 4, 64, 48), (2, 5, 32, 24), (2, 6, 16, 12), (2, 7, 8, 6), (2, 8, 4, 3)),
    ]
    first = network.layers[0](torch.cat((still, frame), 1))
    assert torch.equal(maps[0], torch.where(first > 0, first, 0.2 * first))
    assert torch.equal(network.head(maps[-1]).flatten(), logits)


# -------------------------------------------------------------------------------- sequence


@torch.no_grad()
def test_padding_changes_nothing_and_the_last_frame_does() -> None:
    network = sequence_network()
    frames, windows = inputs_of(network, 3)
    lengths = torch.tensor([2, FRAMES, 4])
    before = network(frames, windows, lengths)
    other_frames, other_windows = inputs_of(network, 3, seed=7)
    for row, length in enumerate(lengths.tolist()):
        padded, heard = frames.clone(), windows.clone()
        padded[row, length:] = other_frames[row, length:]
        heard[row, length:] = other_windows[row, length:]
        torch.testing.assert_close(network(padded, heard, lengths), before, atol=1e-6, rtol=0)
        # As if the padding were not there.
        alone = network(frames[row : row + 1, :length], windows[row : row + 1, :length])
        torch.testing.assert_close(alone, before[row : row + 1], atol=1e-5, rtol=0)
        for place in (0, length - 1):
            for index, other in enumerate((other_frames, other_windows)):
                changed = [frames.clone(), windows.clone()]
                changed[index][row, place] = other[row, place]
                after = network(*changed, lengths)
                assert (after - before)[row].abs() > 1e-5, (row, place, index)


@torch.no_grad()
def test_no_lengths_are_whole_lengths() -> None:
    network = sequence_network()
    frames, windows = inputs_of(network)
    whole = network(frames, windows, torch.tensor([FRAMES, FRAMES]))
    assert torch.equal(network(frames, windows), whole)


@torch.no_grad()
def test_the_order_of_frames_and_of_sounds_matters() -> None:
    network = sequence_network()
    frames, windows = inputs_of(network)
    before = network(frames, windows)
    for changed in (
        (frames.flip(1), windows),
        (frames, windows.flip(1)),
        (frames.flip(1), windows.flip(1)),
    ):
        assert ((network(*changed) - before).abs() > 1e-4).all()


def test_a_gradient_reaches_the_first_frame_and_no_padding() -> None:
    network = sequence_network()
    frames, windows = inputs_of(network)
    frames.requires_grad_()
    network(frames, windows, torch.tensor([4, FRAMES])).sum().backward()
    assert frames.grad is not None
    reached = frames.grad.abs().amax((2, 3, 4)) > 0
    assert reached.tolist() == [[True] * 4 + [False] * 2, [True] * FRAMES]


def test_two_layers_remember_and_two_layers_judge() -> None:
    network = sequence_network()
    assert network.gru.num_layers == 2
    assert not network.gru.bidirectional
    assert sum(isinstance(m, nn.Linear) for m in network.classifier) == 2


# ------------------------------------------------------------------------------------ sync


def test_a_fifth_of_a_second() -> None:
    assert sync_frames(SIZES) == sync_network().frames == 5
    assert sync_frames(GeneratorConfig(fps=50, window_seconds=0.16)) == 10


@torch.no_grad()
def test_each_of_its_frames_and_the_whole_sound_matter() -> None:
    network = sync_network()
    frames, heard = inputs_of(network, 1)
    other_frames, other_heard = inputs_of(network, 1, seed=7)
    before = network(frames, heard)
    for place in range(5):
        changed = frames.clone()
        changed[:, place] = other_frames[:, place]
        assert (network(changed, heard) - before).abs() > 1e-4
        spoken = heard.clone()
        part = slice(place * SIZES.hop, (place + 1) * SIZES.hop)
        spoken[:, part] = other_heard[:, part]
        assert (network(frames, spoken) - before).abs() > 1e-5
    assert (network(frames.flip(1), heard) - before).abs() > 1e-4


@torch.no_grad()
def test_the_default_looks_at_the_lower_half() -> None:
    network = sync_network()
    frames, heard = inputs_of(network)
    before = network(frames, heard)
    upper = frames.clone()
    upper[..., :64, :] = 0
    assert torch.equal(network(upper, heard), before)
    lower = frames.clone()
    lower[..., 64:, :] = 0
    assert ((network(lower, heard) - before).abs() > 1e-3).all()


# ----------------------------------------------------------------------------------- wrong


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (FrameDiscriminatorConfig, {"channels": ()}, "frame_discriminator.channels"),
        (FrameDiscriminatorConfig, {"channels": (4, 0)}, "frame_discriminator.channels"),
        (SequenceDiscriminatorConfig, {"channels": ()}, "sequence_discriminator.channels"),
        (
            *(SequenceDiscriminatorConfig, {"audio_channels": (4, -1)}),
            "sequence_discriminator.audio_channels",
        ),
        (SequenceDiscriminatorConfig, {"state_dim": 0}, "sequence_discriminator.state_dim"),
        (SequenceDiscriminatorConfig, {"image_dim": 0}, "sequence_discriminator.image_dim"),
        (SequenceDiscriminatorConfig, {"audio_dim": 0}, "sequence_discriminator.audio_dim"),
        (SyncDiscriminatorConfig, {"channels": (0,)}, "sync_discriminator.channels"),
        (SyncDiscriminatorConfig, {"audio_channels": ()}, "sync_discriminator.audio_channels"),
        (SyncDiscriminatorConfig, {"image_dim": 0}, "sync_discriminator.image_dim"),
        (SyncDiscriminatorConfig, {"audio_dim": -3}, "sync_discriminator.audio_dim"),
    ],
)
def test_what_no_discriminator_can_be_built_from(
    kind: type, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        kind(**changes)
