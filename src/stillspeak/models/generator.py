"""The generator: one still and audio windows in, frames out (paper, section 2.1)."""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from stillspeak.models.config import GeneratorConfig
from stillspeak.models.decoders import Decoded, StillContext, UNetDecoder
from stillspeak.models.encoders import (
    ContextEncoder,
    ContextState,
    IdentityEncoder,
    NoiseGenerator,
    SpeechContextEncoder,
)
from stillspeak.models.speech import SpeechEncoder


class GeneratorState(NamedTuple):
    """Everything that one video frame hands on to the next.

    context: the audio encoder's: (layers, B, context_dim) of the paper's context GRU, or a
        :class:`~stillspeak.models.encoders.ContextState`.
    noise: (1, B, noise_dim), the noise GRU's state.
    """

    context: Tensor | ContextState
    noise: Tensor


class Generator(nn.Module):
    """Identity encoder, context encoder and noise generator, joined into a frame decoder.

    The same module runs a whole clip (:meth:`forward`) or a few windows at a time
    (:meth:`prepare_still` once, then :meth:`step` with the state of the step before).
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self.predicts_poses = config.decoder == "layers"
        """Whether the encoding of the sound is the mouth's pose, which :mod:`stillspeak.rendering`
        draws in layers into the photo: nothing is learned from the still."""
        self.identity_encoder = nn.Module() if self.predicts_poses else IdentityEncoder(config)
        self.context_encoder: SpeechContextEncoder | ContextEncoder = (
            SpeechContextEncoder(config)
            if config.audio_input == "speech"
            else ContextEncoder(config)
        )
        self.noise_generator = NoiseGenerator(config)
        self.decoder = nn.Module() if self.predicts_poses else UNetDecoder(config)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    @property
    def speech(self) -> SpeechEncoder | None:
        """What :attr:`Decoded.features` come from, if they do."""
        encoder = self.context_encoder
        return encoder.speech if isinstance(encoder, SpeechContextEncoder) else None

    def initial_state(self, clips: int = 1) -> GeneratorState:
        """The state before the first window: nothing was heard."""
        noise = next(self.parameters()).new_zeros(1, clips, self.config.noise_dim)
        return GeneratorState(self.context_encoder.initial_state(clips), noise)

    def draw_noise(self, clips: int, frames: int, generator: torch.Generator) -> Tensor:
        """n_t ~ N(0, noise_std^2), (B, T, noise_dim), the same on every device for a seed."""
        # One draw a frame: torch fills a long tensor in another order than a short one, and
        # the noise of a frame must not depend on how many frames are asked for at once.
        size = self.config.noise_dim
        noise = [torch.randn(clips, size, generator=generator) for _ in range(frames)]
        return torch.stack(noise, 1).mul_(self.config.noise_std).to(self.device)

    def prepare_still(self, still: Tensor) -> StillContext:
        """What depends on the still (B, 3, H, W) in [-1, 1] alone, computed once a clip."""
        if self.predicts_poses:
            return StillContext(still, still.new_zeros(len(still), 0), ())
        return cast(UNetDecoder, self.decoder).prepare(still, self.identity_encoder(still))

    def encode(
        self, windows: Tensor, noise: Tensor, state: GeneratorState
    ) -> tuple[Tensor, Tensor, GeneratorState]:
        """Audio windows and noise to encodings.

        Args:
            windows: (B, T, N) float in [-1, 1].
            noise: (B, T, noise_dim), from :meth:`draw_noise`.
            state: of the step before.

        Returns:
            z_c (B, T, context_dim), z_n (B, T, noise_dim) and the new state.
        """
        context, context_state = self.context_encoder(windows, state.context)
        noise_encoding, noise_state = self.noise_generator(noise, state.noise)
        return context, noise_encoding, GeneratorState(context_state, noise_state)

    def decode(self, still: StillContext, context: Tensor, noise: Tensor) -> Decoded:
        """Encodings z_c (B, T, D) and z_n (B, T, noise_dim) to frames (B, T, 3, H, W), or to poses
        (B, T, 41, 2)."""
        if self.predicts_poses:
            return Decoded(pose=torch.unflatten(context, 2, (-1, 2)))
        code = still.code.unsqueeze(1).expand(-1, context.shape[1], -1)
        latent = torch.cat((context, noise.to(context), code.to(context)), -1)
        decoded: Decoded = self.decoder(still, latent)
        return decoded

    def step(
        self, still: StillContext, windows: Tensor, noise: Tensor, state: GeneratorState
    ) -> tuple[Decoded, GeneratorState]:
        """The next T frames, with the state handed on. Shapes as in :meth:`encode` and
        :meth:`decode`."""
        if isinstance(self.context_encoder, SpeechContextEncoder):
            poses, features, heard = self.context_encoder.listen(
                windows, cast(ContextState, state.context)
            )
            pose = torch.unflatten(poses, 2, (-1, 2))
            return Decoded(pose=pose, features=features), state._replace(context=heard)
        context, noise_encoding, new_state = self.encode(windows, noise, state)
        return self.decode(still, context, noise_encoding), new_state

    def forward(self, still: Tensor, windows: Tensor, noise: Tensor) -> Tensor:
        """A whole clip.

        Args:
            still: (B, 3, H, W) float in [-1, 1].
            windows: (B, T, N) float in [-1, 1].
            noise: (B, T, noise_dim).

        Returns:
            Frames (B, T, 3, H, W) in [-1, 1].

        Raises:
            ConfigError: its decoder is ``layers`` and gives poses; use :meth:`step`.
        """
        state = self.initial_state(still.shape[0])
        decoded, _ = self.step(self.prepare_still(still), windows, noise, state)
        return decoded.frames
