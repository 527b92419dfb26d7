"""The steps of a generator as modules that PyTorch's ONNX exporter writes: one frame a call,
every state an input and an output of fixed shape."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillspeak import __version__
from stillspeak.face.mouth import POSE_POINTS
from stillspeak.models.encoders import SpeechContextEncoder
from stillspeak.models.engine import EngineStill, InferenceEngine
from stillspeak.models.generator import Generator
from stillspeak.models.speech import (
    BANDS,
    FALL,
    FLOOR,
    LEVEL_FRAMES,
    OVERLAP,
    QUIETEST,
    RANGE,
    SPECTRUM,
    STEP,
    USUAL,
    AttentionLayer,
    LayerState,
)

HEAR = "hear.onnx"
"""The one graph of a generator that predicts poses."""

STILL_GRAPH, STEP_GRAPH = "still.onnx", "step.onnx"
"""The two graphs of any other: one for the reference image, one for each frame."""

OPSET = 17
"""Of the ONNX standard: ONNX Runtime 1.12 or newer."""

_NEVER = -1e4
"""Added to the attention for what must not be seen. Finite: a token that may see nothing, in the
warm-up, gives numbers all the same."""

Shape = tuple[int, ...]


class GraphStep(nn.Module):
    """A module with named inputs and outputs of fixed shapes.

    Its ``forward`` takes the tensors of :attr:`inputs` in order, then those of :attr:`states`, and
    returns those of :attr:`outputs`, then the next states.
    """

    inputs: dict[str, Shape]
    outputs: tuple[str, ...]
    states: dict[str, Shape]

    def write(self, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the graph, checked, with metadata in it."""
        import onnx

        shapes = {**self.inputs, **self.states}
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter by tracing is called old, but it needs no package besides onnx and still
            # writes this opset. What it says about shapes cannot happen where they are fixed.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self.eval(),
                tuple(torch.zeros(shape) for shape in shapes.values()),
                str(path),
                dynamo=False,
                opset_version=OPSET,
                input_names=list(shapes),
                output_names=[*self.outputs, *(f"next_{name}" for name in self.states)],
            )
        model = onnx.load(path)
        model.producer_name, model.producer_version = "stillspeak", __version__
        onnx.helper.set_model_props(model, dict(metadata))
        onnx.checker.check_model(model, full_check=True)
        path.write_bytes(model.SerializeToString())


def graphs_of(generator: Generator) -> dict[str, GraphStep]:
    """The graphs of a generator in evaluation mode by their files' names."""
    generator = copy.deepcopy(generator).cpu().requires_grad_(False)
    if generator.predicts_poses:
        return {HEAR: PoseStep(generator)}
    engine = InferenceEngine(generator, packed=False)
    return {STILL_GRAPH: StillStep(engine), STEP_GRAPH: FrameStep(engine)}


def warm_up_of(generator: Generator) -> int:
    """Windows that go before the first frame's. That one alone holds 2 delay + 1 tokens, and each
    call takes two."""
    return generator.config.speech.delay + 1


class StillStep(GraphStep):
    """The aligned crop (1, 3, H, W) to what all of its frames share."""

    def __init__(self, engine: InferenceEngine) -> None:
        super().__init__()
        config = engine.config
        self._engine = engine
        self.inputs = {"still": (1, 3, config.height, config.width)}
        self.outputs, self.states = tuple(_still_maps(engine)), {}

    def forward(self, still: Tensor) -> tuple[Tensor, ...]:
        """See :class:`GraphStep`."""
        assert self._engine.unet is not None
        made = self._engine.unet.prepare(self._engine.generator.prepare_still(still))
        return made.root[None], *made.adds


class FrameStep(GraphStep):
    """The audio window and the noise of one frame to the frame."""

    outputs = ("frame",)

    def __init__(self, engine: InferenceEngine) -> None:
        super().__init__()
        config = engine.config
        self._engine, self._maps = engine, _still_maps(engine)
        self.inputs, self.states = {**self._maps, "window": (1, config.window)}, {}
        if config.context_layers:
            self.states["context_state"] = (config.context_layers, 1, config.context_dim)
        if config.noise_dim:
            self.inputs["noise"] = (1, config.noise_dim)
            self.states["noise_state"] = (1, 1, config.noise_dim)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """See :class:`GraphStep`."""
        engine = self._engine
        given = dict(zip((*self.inputs, *self.states), tensors, strict=True))
        none = torch.zeros(1, 0)
        encoded, context_state = engine.audio(
            given["window"][None], given.get("context_state", none)
        )
        coded, noise_state = engine.generator.noise_generator(
            given.get("noise", none)[None], given.get("noise_state", none)
        )
        root, *adds = (given[name] for name in self._maps)
        assert engine.unet is not None
        latent = torch.cat((encoded[0], coded[0]), 1)
        frame = engine.unet(EngineStill(root[0], adds), latent)
        after = {"context_state": context_state, "noise_state": noise_state}
        return frame, *(cast(Tensor, after[name]) for name in self.states)


def _still_maps(engine: InferenceEngine) -> dict[str, Shape]:
    """Names and shapes of what the reference image's graph hands to the frame's."""
    config = engine.config
    height, width = config.coarse_size
    channels = config.identity_channels[::-1]
    maps: dict[str, Shape] = {"root": (1, channels[0] * height * width)}
    for level, count in enumerate(channels[:-1]):
        maps[f"skip_{level}"] = (1, count, height << level, width << level)
    return maps


class PoseStep(GraphStep):
    """What is new in the audio window to the mouth's pose.

    The encoder's own states grow at the start. Here they have their full size at once, and
    ``heard_state``, calls so far, says what of them is there.
    """

    outputs = ("pose",)

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        encoder, self._config = generator.context_encoder, generator.config
        assert isinstance(encoder, SpeechContextEncoder)
        self._encoder, self._warm_up = encoder, warm_up_of(generator)
        config, pose, self._new = encoder.speech.config, encoder.pose.config, encoder.hop // STEP
        self.inputs = {"window": (1, generator.config.window)}
        self.states = {
            "heard_state": (1,),
            "spectra_state": (1, BANDS, OVERLAP),
            "energy_state": (1, LEVEL_FRAMES - 1),
            "level_state": (1,),
        }
        self._near: list[Tensor] = []
        for place, ahead in enumerate(config.ahead):
            reach = config.behind + ahead
            seen = (1, config.heads, reach, config.width // config.heads)
            self.states |= {f"keys_{place}_state": seen, f"values_{place}_state": seen}
            if ahead:
                self.states[f"waiting_{place}_state"] = (1, ahead, config.width)
            layer = encoder.speech.layers[place]
            assert isinstance(layer, AttentionLayer)
            self._near.append(layer.biases(reach + 2, 2).detach())
        self.states["gru_state"] = (pose.layers, 1, pose.hidden)
        # The exporter knows no Fourier transform of this kind: a convolution gives the real and
        # the imaginary parts.
        turns = torch.arange(SPECTRUM // 2 + 1)[:, None] * torch.arange(SPECTRUM) % SPECTRUM
        angles = turns.double() * (2 * math.pi / SPECTRUM)
        log_mel = encoder.speech.spectra
        waves = torch.cat((angles.cos(), angles.sin())) * log_mel.window
        self._waves = waves.float()[:, None]
        self._filters = log_mel.filters.repeat(1, 2)

    def forward(self, window: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
        """See :class:`GraphStep`."""
        given = dict(zip(self.states, states, strict=True))
        heard, speech = given["heard_state"], self._encoder.speech
        after = {}
        shown, after["energy_state"], after["level_state"] = self._spectra(
            window, heard, given["energy_state"], given["level_state"]
        )
        mel = torch.cat((given["spectra_state"], shown), 2)
        after["spectra_state"] = mel[:, :, -OVERLAP:]
        before, waiting = [], 0
        for place, (ahead, near) in enumerate(zip(speech.config.ahead, self._near, strict=True)):
            keys, values = given[f"keys_{place}_state"], given[f"values_{place}_state"]
            none = keys.new_zeros(1, 0, speech.config.width)
            before.append(LayerState(keys, values, given.get(f"waiting_{place}_state", none)))
            # The newest key is token 2 calls - 2 - waiting of the clip; there is none before
            # token 0.
            first = speech.config.behind + ahead + 3 + waiting - 2 * heard
            absent = torch.arange(near.shape[2]) < first
            biases = near + torch.where(absent, _NEVER, 0.0)
            setattr(speech.layers[place], "biases", lambda *_, given=biases: given)  # noqa: B010
            waiting += ahead
        features, layers = speech.encode(mel, tuple(before))
        for place, layer in enumerate(layers):
            after[f"keys_{place}_state"], after[f"values_{place}_state"] = layer.keys, layer.values
            after[f"waiting_{place}_state"] = layer.waiting
        begun = (heard >= self._warm_up).float()
        coefficients, gru_state = self._encoder.pose(features, given["gru_state"])
        pose = self._encoder.pose.shapes(coefficients * begun)
        after["gru_state"] = gru_state * begun
        # From as many calls on, all is there.
        most = speech.config.behind + speech.config.delay + 3
        after["heard_state"] = (heard + 1).clamp(max=float(most))
        return pose.view(1, len(POSE_POINTS), 2), *(after[name] for name in self.states)

    def _spectra(
        self, window: Tensor, heard: Tensor, energy: Tensor, level: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised spectra (1, BANDS, n) of a frame, and the new energy and level, the latter
        relative to the quietest one; see :class:`~stillspeak.models.speech.LogMel`."""
        sound = self._encoder.sound(window[None], first=False)
        power = self._filters @ F.conv1d(sound[:, None], self._waves, stride=STEP).square()
        # How many spectra the clip has had, with each of these.
        count = heard * self._new + (torch.arange(self._new) - 2.0)
        energy = torch.cat((energy, torch.where(count > 0, power.mean(1), 0.0)), 1)
        summed = F.avg_pool1d(energy[None], LEVEL_FRAMES, 1)[0] * LEVEL_FRAMES
        smooth = (summed / count.clamp(1, LEVEL_FRAMES)).clamp_min(10.0**QUIETEST).log10()
        levels = []
        for risen in torch.split(smooth[0] - QUIETEST, 1):
            level = torch.maximum(risen, level - FALL)
            levels.append(level)
        shown = (power + FLOOR).log10() - torch.cat(levels) - QUIETEST
        shown = (shown.clamp_min(-RANGE) + USUAL + 4) / 4
        return shown, energy[:, -(LEVEL_FRAMES - 1) :], level
