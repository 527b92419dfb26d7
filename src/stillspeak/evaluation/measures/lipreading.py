"""What can be read from the lips: LipNet's sentence, and the word error rate (paper, 3.2).

A lip reader has errors of its own: no word error rate means anything without that of the real
clips beside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stillspeak.data.layouts.grid import GRID_WORDS
from stillspeak.errors import VideoError, WeightsError
from stillspeak.models.ctc import Vocabulary, beam_search
from stillspeak.models.lipnet import (
    ALPHABET,
    LIPNET_FORMAT,
    LipNet,
    LipNetConfig,
    golden_reading,
    mouth_grid,
    normalise,
    sample_mouths,
    word_errors,
)
from stillspeak.weights import file_sha256, load_network, scorers

DECODER = "beam 50"
"""How sentences are decoded: part of the reader's version."""

_WIDTH = 50

Frames = npt.NDArray[np.uint8]


class LipReader:
    """Reads whole sentences from aligned crops.

    Args:
        network: in evaluation mode.
        places: the words that it knows by their place in the sentence; one list: any place.
        sha256: of the weights file.
        bgr: the network was trained on blue, green, red.
    """

    def __init__(
        self, network: LipNet, places: list[list[str]], sha256: str, *, bgr: bool = False
    ) -> None:
        self._network = network
        self._vocabulary = Vocabulary(places[0] if len(places) == 1 else places)
        self._bgr = bgr
        self._grid = mouth_grid()
        self.version = f"lipnet {sha256}, {DECODER}, {sum(map(len, places))} words"
        """Everything that decides what is read: part of cache keys."""

    def read(self, frames: Frames) -> str:
        """What is said in (T, H, W, 3) uint8 aligned crops of 4 : 3, 25 a second: lower-case words
        with one blank between.

        Raises:
            VideoError: no frames.
        """
        if not len(frames):
            raise VideoError("a video without frames cannot be read from")
        with torch.inference_mode():
            mouths = sample_mouths(frames[..., ::-1] if self._bgr else frames, self._grid)
            output = self._network(normalise(mouths, self._network.config.colours))[0].numpy()
        return beam_search(output, self._vocabulary, width=_WIDTH)


def load_lip_reader(file: str | Path | None = None) -> LipReader:
    """The released lip reader, another one trained here, or the public PyTorch LipNet.

    Args:
        file: a weights file of ``stillspeak train --config configs/lipnet.toml``; or the
            published weights of LipNet's PyTorch port (``.pt``: RGB crops of 100 x 50 in BGR
            order, 27 characters), of which tensors alone are read; None: the released one.

    Raises:
        WeightsError: no such file, or no lip reader in it.
    """
    if file is None and "lipnet" not in scorers():
        raise WeightsError("no lip reader is released with this version; name a file")
    path = scorers()["lipnet"].path if file is None else Path(file)
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such lip reader; give a weights file of stillspeak or of LipNet"
        )
    if path.suffix in (".pt", ".pth"):
        network = _public_network(path)
        places = [sorted(place.values()) for place in GRID_WORDS]
        return LipReader(network, places, file_sha256(path), bgr=True)
    network, about = load_network(
        path,
        format_name=LIPNET_FORMAT,
        build=lambda config: LipNet(LipNetConfig(**config["network"])),
        golden=golden_reading,
    )
    places = about["config"].get("places")
    if not isinstance(places, list) or not all(_words(place) for place in places):
        raise WeightsError(f"{path}: its lists of words are damaged; fetch it again")
    return LipReader(network, places, file_sha256(path))


def word_error_rate(truth: str, read: str) -> float:
    """Words inserted, left out or replaced over the words that were said; may exceed 1.

    Raises:
        ValueError: nothing was said.
    """
    errors, words = word_errors(truth, read)
    if not words:
        raise ValueError("a word error rate needs words")
    return errors / words


def _words(place: object) -> bool:
    """Whether the words that can be read at a place are a list of words of the alphabet."""
    return isinstance(place, list) and all(
        isinstance(word, str) and word and set(word) <= set(ALPHABET) - {" "} for word in place
    )


def _public_network(path: Path) -> LipNet:
    """The published network; ``weights_only`` refuses what is no tensor or plain container."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # there is no end to the ways in which a damaged pickle fails
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise WeightsError(
            f"{path}: not a file of tensors alone ({reason}); give LipNet's published weights"
        ) from error
    network = LipNet(LipNetConfig())
    state = state if isinstance(state, Mapping) else {}
    if isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    own = network.state_dict()
    given = {str(name).removeprefix("module."): value for name, value in state.items()}
    shapes = {name: value.shape for name, value in given.items() if isinstance(value, Tensor)}
    wrong = [name for name, value in own.items() if shapes.get(name) != value.shape]
    if wrong:
        raise WeightsError(
            f"{path}: {len(wrong)} of LipNet's {len(own)} tensors are missing or of another "
            f"shape, such as {wrong[0]}; give weights of the network for crops of 100 x 50"
        )
    network.load_state_dict({name: given[name].float() for name in own})
    return network.eval().requires_grad_(False)
