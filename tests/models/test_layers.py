"""Layers: halves of a convolution, and coordinates."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from stillspeak.models.layers import SkipFusion, add_per_clip, conv_down, conv_up, identity_grid


@pytest.mark.parametrize("training", [True, False])
def test_skip_fusion_is_a_convolution_over_the_concatenation(training: bool) -> None:
    torch.manual_seed(0)
    clips, frames = 2, 3
    fusion = SkipFusion(5, 7)
    fusion.norm.running_mean.normal_()
    fusion.norm.running_var.uniform_(0.5, 2)
    fusion.train(training)
    plain = nn.ConvTranspose2d(12, 5, 3, 1, 1, bias=False)
    plain.load_state_dict(fusion.conv.state_dict())
    norm = nn.BatchNorm2d(5)
    norm.load_state_dict(fusion.norm.state_dict())
    norm.train(training)
    x = torch.randn(clips * frames, 5, 8, 6)
    skip = torch.randn(clips, 7, 8, 6)

    fused = fusion(x, fusion.project(skip))

    repeated = skip.repeat_interleave(frames, 0)
    expected = F.relu(norm(plain(torch.cat((repeated, x), 1))))
    torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-5)
    assert fused.std() > 0.1


def test_add_per_clip_gives_each_clip_its_own_map() -> None:
    x = torch.zeros(6, 1, 2, 2)
    per_clip = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 1, 2, 2)
    assert add_per_clip(x, per_clip)[:, 0, 0, 0].tolist() == [1, 1, 1, 2, 2, 2]


def test_down_and_up_halve_and_double_without_bias() -> None:
    x = torch.randn(1, 3, 8, 6)
    assert conv_down(3, 4)(x).shape == (1, 4, 4, 3)
    assert conv_up(3, 4)(x).shape == (1, 4, 16, 12)
    assert conv_down(3, 4)[0].bias is None
    assert conv_up(3, 4)[0].bias is None


def test_identity_grid_samples_a_picture_as_it_is() -> None:
    picture = torch.rand(1, 2, 7, 5)
    grid = identity_grid(7, 5)[None]
    same = F.grid_sample(picture, grid, align_corners=False)
    torch.testing.assert_close(same, picture, atol=1e-5, rtol=0)
    assert grid.shape == (1, 7, 5, 2)
    # Pixel centres, x before y: the first is half a pixel from the edge.
    assert grid[0, 0, 0].tolist() == pytest.approx([-1 + 1 / 5, -1 + 1 / 7])
