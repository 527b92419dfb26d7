"""LipNet: what is said, from the mouth alone (Assael et al. 2016; the paper, section 3.2).

Used to measure how well generated lips can be read.
"""

from __future__ import annotations

from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.models.layers import region_grid
from stillspeak.system.configuration import BelowOne, configuration

ALPHABET = " abcdefghijklmnopqrstuvwxyz"
"""What can be read. Class 0 is CTC's blank, class 1 + i is character i."""

CLASSES = len(ALPHABET) + 1
BLANK = 0

LIPNET_FORMAT = "stillspeak-lipnet-1"
"""Of weights files of lip readers."""

_Width = Annotated[int, Field(strict=True, ge=1, le=1024)]
"""Of any layer, far above what is used: a file's configuration must not take all memory."""

MOUTH_HEIGHT, MOUTH_WIDTH = 50, 100
"""Pixels of the mouth that the network sees (LipNet, section 4)."""

MOUTH_CENTRE = (50.0, 88.0)
"""Middle (x, y) of that region in pixels of the 128 x 96 aligned crop: between the corners of
the mouth, a little lower, so that the lower lip stays inside when the jaw drops."""

MOUTH_EXTENT = (63.0, 31.5)
"""Width and height of the region in pixels of the crop. LipNet's recipe takes 160 x 80 pixels of
a face aligned to 256 x 256; by the eye corners and the nose base these are as many here."""


@configuration("lipnet")
class LipNetConfig:
    """Sizes of :class:`LipNet`. The defaults are the published network's."""

    colours: Literal[1, 3] = 3
    """3: RGB in [0, 1], as published; 1: grey, each clip with mean 0 and deviation 1, which
    says less of skin and light."""
    channels: tuple[_Width, _Width, _Width] = (32, 64, 96)
    state: _Width = 256
    """Units of a GRU in each direction."""
    dropout: BelowOne = 0.5
    """After the convolutions (whole channels) and the GRUs."""
    norm: bool = False
    """Batch normalisation after each convolution. The published network has none and learns from
    28,000 clips in days; with it a few hundred clips and an hour go further."""


class LipNet(nn.Module):
    """Three spatio-temporal convolutions, two bidirectional GRUs, a character a frame."""

    def __init__(self, config: LipNetConfig) -> None:
        super().__init__()
        self.config = config
        one, two, three = config.channels
        # Names and order of parameters are the published PyTorch port's, so that its weights fit.
        self.conv1 = nn.Conv3d(config.colours, one, (3, 5, 5), (1, 2, 2), (1, 2, 2))
        self.conv2 = nn.Conv3d(one, two, (3, 5, 5), (1, 1, 1), (1, 2, 2))
        self.conv3 = nn.Conv3d(two, three, (3, 3, 3), (1, 1, 1), (1, 1, 1))
        kind = nn.BatchNorm3d if config.norm else nn.Identity
        self.norm1, self.norm2, self.norm3 = kind(one), kind(two), kind(three)
        self.pool = nn.MaxPool3d((1, 2, 2))
        features = three * (MOUTH_HEIGHT // 16) * (MOUTH_WIDTH // 16)
        self.gru1 = nn.GRU(features, config.state, bidirectional=True)
        self.gru2 = nn.GRU(2 * config.state, config.state, bidirectional=True)
        self.FC = nn.Linear(2 * config.state, CLASSES)
        self.drop_maps = nn.Dropout3d(config.dropout)
        self.drop = nn.Dropout(config.dropout)
        self._initialise()

    def _initialise(self) -> None:
        for convolution in (self.conv1, self.conv2, self.conv3):
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            assert convolution.bias is not None
            nn.init.zeros_(convolution.bias)
        for gru in (self.gru1, self.gru2):
            for name, parameter in gru.named_parameters():
                if name.startswith("weight_hh"):
                    for gate in parameter.data.chunk(3):
                        nn.init.orthogonal_(gate)
                elif name.startswith("bias"):
                    nn.init.zeros_(parameter)

    def features(self, mouths: Tensor) -> Tensor:
        """What the GRUs make of a clip: (B, C, T, 50, 100) -> (B, T, 2 * state)."""
        maps, convolutions = mouths, (self.conv1, self.conv2, self.conv3)
        for convolution, norm in zip(
            convolutions, (self.norm1, self.norm2, self.norm3), strict=True
        ):
            maps = self.pool(self.drop_maps(norm(convolution(maps)).relu()))
        sequence = maps.permute(2, 0, 1, 3, 4).flatten(2)
        sequence = self.drop(self.gru1(sequence)[0])
        states: Tensor = self.drop(self.gru2(sequence)[0]).transpose(0, 1)
        return states

    def forward(self, mouths: Tensor) -> Tensor:
        """Mouths (B, C, T, 50, 100), as :func:`normalise` gives them -> log-probabilities of blank
        and characters (B, T, 28) float32."""
        logits: Tensor = self.FC(self.features(mouths))
        return logits.float().log_softmax(-1)


def sample_mouths(
    frames: npt.NDArray[np.uint8],
    grid: Tensor,
    box: tuple[int, int, int, int] = (0, FRAME_HEIGHT, 0, FRAME_WIDTH),
) -> Tensor:
    """Mouths out of frames.

    Args:
        frames: (T, h, w, C) uint8: the box of the aligned crop, at any resolution.
        grid: (50, 100, 2), x and y in pixels of the 128 x 96 crop; see :func:`mouth_grid`.
        box: first and last row and column (exclusive) of the crop that the frames show.

    Returns:
        (1, C, T, 50, 100) float32 in [0, 1].
    """
    top, bottom, left, right = box
    size = torch.tensor([right - left, bottom - top], dtype=torch.float32)
    at = (grid - torch.tensor([left, top]) + 0.5) * (2 / size) - 1
    # All frames share the grid: as channels of one picture they are sampled at once.
    flat = torch.from_numpy(np.ascontiguousarray(frames.transpose(3, 0, 1, 2))).float().div_(255)
    flat = flat.flatten(0, 1)[None]
    sampled = F.grid_sample(flat, at[None], "bilinear", "border", align_corners=False)
    return torch.unflatten(sampled, 1, (frames.shape[3], frames.shape[0]))


def normalise(mouths: Tensor, colours: int) -> Tensor:
    """RGB mouths (B, 3, T, H, W) in [0, 1] as the network wants them: (B, colours, T, H, W)."""
    if colours == 3:
        return mouths
    weights = mouths.new_tensor([0.2125, 0.7154, 0.0721]).view(1, 3, 1, 1, 1)
    return standardise((mouths * weights).sum(1, keepdim=True))


def standardise(grey: Tensor) -> Tensor:
    """Grey mouths (B, 1, T, H, W), each clip with mean 0 and deviation 1."""
    mean = grey.mean(dim=(1, 2, 3, 4), keepdim=True)
    deviation = grey.std(dim=(1, 2, 3, 4), keepdim=True, correction=0)
    return (grey - mean) / (deviation + 1e-3)


def spell(sentence: str) -> list[int]:
    """A sentence as classes; characters outside of the alphabet are an error (ValueError)."""
    return [1 + ALPHABET.index(character) for character in sentence]


def mouth_grid() -> Tensor:
    """Where in the 128 x 96 crop the region's pixels lie, for ``grid_sample``: (50, 100, 2)."""
    return region_grid(MOUTH_CENTRE, MOUTH_EXTENT, MOUTH_HEIGHT, MOUTH_WIDTH)


def word_errors(truth: str, read: str) -> tuple[int, int]:
    """Words inserted, left out or replaced (Levenshtein), and how many words there truly are."""
    said, heard = truth.split(), read.split()
    row = list(range(len(heard) + 1))
    for i, word in enumerate(said, start=1):
        last, row[0] = row[0], i
        for j, other in enumerate(heard, start=1):
            here = min(row[j] + 1, row[j - 1] + 1, last + (word != other))
            last, row[j] = row[j], here
    return row[-1], len(said)


def golden_reading(network: LipNet) -> Tensor:
    """What the network gives for a fixed synthetic clip of six frames: (6 * 28,)."""
    frames = torch.arange(6).view(1, 1, 6, 1, 1) / 6
    ys = torch.linspace(-1, 1, MOUTH_HEIGHT).view(1, 1, 1, -1, 1)
    xs = torch.linspace(-1, 1, MOUTH_WIDTH).view(1, 1, 1, 1, -1)
    colour = torch.arange(3).view(1, 3, 1, 1, 1)
    clip = 0.5 + 0.5 * torch.sin(3 * xs + (4 + colour) * ys * (1 + frames))
    reading: Tensor = network(normalise(clip, network.config.colours)).exp()
    return reading.flatten()
