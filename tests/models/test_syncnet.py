"""The sync network's windows, distances and what must not matter to it."""

import math

import pytest
import torch

from stillspeak.errors import ConfigError
from stillspeak.models.syncnet import (
    SYNC_CENTRE,
    SyncNet,
    SyncNetConfig,
    mel_filters,
    moving_parts,
    shift_distances,
    sync_grid,
)

SMALL = SyncNetConfig(bands=16, picture_channels=(2, 3, 4, 4), sound_channels=(6, 6), dim=8)


def network() -> SyncNet:
    torch.manual_seed(0)
    return SyncNet(SMALL).eval().requires_grad_(False)


def test_every_window_of_five_frames_has_its_sound() -> None:
    seen = network().see(torch.randn(2, 9, 32, 40))
    heard = network().hear(torch.randn(2, 9 * 640) * 0.1)
    assert seen.shape == heard.shape == (2, 5, 8)
    assert torch.allclose(seen.norm(dim=-1), torch.ones(2, 5), atol=1e-5)
    assert torch.allclose(heard.norm(dim=-1), torch.ones(2, 5), atol=1e-5)


def test_a_window_of_pictures_is_its_five_frames() -> None:
    mouths = torch.randn(1, 12, 32, 40)
    other = mouths.clone()
    other[:, 7] += 1
    changed = (network().see(mouths) - network().see(other)).abs().amax(-1)[0] > 1e-6
    assert changed.tolist() == [3 <= t <= 7 for t in range(8)]


def test_a_window_of_sound_is_its_3200_samples() -> None:
    sound = network().sound
    spectra = torch.randn(1, 16, 47)  # of 12 frames
    other = spectra.clone()
    other[:, :, 4 * 6] += 1  # of samples 3840..4159: the beginning of frame 6
    changed = (sound(spectra) - sound(other)).abs().amax(1)[0] > 1e-6
    assert changed.tolist() == [2 <= t <= 6 for t in range(8)]


def test_loudness_does_not_matter() -> None:
    wave = torch.randn(1, 6400) * 0.1
    one, other = network().spectra(wave), network().spectra(3 * wave)
    assert one.shape == (1, 16, 39)
    assert torch.allclose(one, other, atol=1e-2)
    assert torch.allclose(one.mean(-1), torch.zeros(1, 16), atol=1e-5)


def test_silence_and_stills_are_finite() -> None:
    still = moving_parts(torch.full((1, 6, 32, 40), 0.3))
    assert still.abs().max() < 1e-4
    assert network().see(still).isfinite().all()
    assert network().hear(torch.zeros(1, 3840)).isfinite().all()


def test_light_does_not_matter_and_what_stays_is_gone() -> None:
    clip = torch.rand(1, 6, 32, 40)
    assert torch.allclose(moving_parts(clip), moving_parts(clip * 0.7 + 0.1), atol=0.2)
    assert torch.allclose(moving_parts(clip).mean(1), torch.zeros(1, 32, 40), atol=1e-5)


@pytest.mark.parametrize("late", [-7, 0, 4])
def test_distances_are_least_where_sound_comes_late_by_as_much(late: int) -> None:
    torch.manual_seed(1)
    features = torch.nn.functional.normalize(torch.randn(1, 60, 8), dim=-1)
    distances = shift_distances(features, features.roll(late, 1))
    assert distances.shape == (1, 21)
    assert int(distances.argmin()) - 10 == late


def test_distances_are_euclidean() -> None:
    one = torch.zeros(1, 30, 2)
    one[..., 0] = 1
    angle = math.pi / 3
    other = torch.tensor([math.cos(angle), math.sin(angle)]).expand(1, 30, 2)
    assert torch.allclose(shift_distances(one, other), torch.ones(1, 21), atol=1e-4)


def test_mel_bands_cover_speech() -> None:
    filters = mel_filters(40)
    assert filters.shape == (257, 40)
    assert torch.allclose(filters.sum(0), torch.ones(40), atol=1e-5)
    assert (filters.argmax(0).diff() >= 0).all()


def test_the_grid_is_centred_below_the_lips() -> None:
    assert torch.allclose(sync_grid().mean((0, 1)), torch.tensor(SYNC_CENTRE))


@pytest.mark.parametrize(
    "changes",
    [{"bands": 4}, {"picture_channels": (1, 2)}, {"sound_channels": (0, 4)}, {"dim": 0}],
)
def test_nonsense_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=r"sync\."):
        SyncNetConfig(**changes)  # type: ignore[arg-type]
