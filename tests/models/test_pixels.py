"""Between bytes and what the networks see."""

import numpy as np
import torch

from stillspeak.models.pixels import from_model, to_model


def test_every_byte_comes_back() -> None:
    pictures = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    seen = to_model(pictures)
    assert seen.shape == (1, 3, 16, 16)
    assert seen.dtype == torch.float32
    assert seen.min() == -1
    assert seen.max() == 1
    assert np.array_equal(from_model(seen), pictures)


def test_channels_keep_their_order() -> None:
    picture = np.zeros((1, 2, 2, 3), np.uint8)
    picture[..., 0] = 255
    assert to_model(picture)[0, :, 0, 0].tolist() == [1, -1, -1]


def test_values_out_of_range_are_cut_and_the_input_is_left_alone() -> None:
    frames = torch.tensor([-2.0, 0.0, 2.0]).view(1, 3, 1, 1)
    bytes_ = from_model(frames)
    assert bytes_.flatten().tolist() == [0, 128, 255]
    assert bytes_.flags.c_contiguous
    assert frames.flatten().tolist() == [-2, 0, 2]
