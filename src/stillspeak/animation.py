"""An animation: what ``animate`` gives back, with frames made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from stillspeak.media.audio import frame_windows
from stillspeak.media.marking import MarkChoices
from stillspeak.media.provenance import Marks, Origin
from stillspeak.media.video import write_video
from stillspeak.models.decoders import Decoded, StillContext
from stillspeak.models.expression import ExpressionProcess, HeadProcess
from stillspeak.models.frozen import FrozenGenerator
from stillspeak.models.generator import Generator
from stillspeak.options import AnimateOptions
from stillspeak.rendering.renderer import FaceRenderer

CHUNK = 16
"""Frames generated at a time; memory grows with it and not with the sound's length."""


COMMENT = "Synthetic talking-face video, made with stillspeak"
"""What the plain metadata of a video says."""


def decoded_chunks(
    generator: Generator | FrozenGenerator,
    still: StillContext,
    audio: npt.NDArray[np.float32],
    seed: int,
) -> Iterator[Decoded]:
    """What a generator makes of a still and a sound, :data:`CHUNK` frames at a time.

    A decoder that has eyes and brows as inputs is told that they stay as in the still: they are
    moved afterwards, see :mod:`stillspeak.models.gesture`.

    Args:
        generator: in evaluation mode, or frozen, which is faster.
        still: from :meth:`Generator.prepare_still`.
        audio: (S,) float32 in [-1, 1] at the generator's rate.
        seed: of its noise.
    """
    windows = frame_windows(audio, generator.config.window, generator.config.hop)
    random = torch.Generator().manual_seed(seed)
    state = generator.initial_state()
    frozen = generator.prepare(still) if isinstance(generator, FrozenGenerator) else None
    for start in range(0, len(windows), CHUNK):
        chunk = torch.tensor(windows[start : start + CHUNK]).unsqueeze(0)
        noise = generator.draw_noise(1, chunk.shape[1], random)
        chunk = chunk.to(noise.device)
        if isinstance(generator, FrozenGenerator):
            assert frozen is not None
            decoded, state = generator.step(frozen, chunk, noise, state)
        else:
            decoded, state = generator.step(still, chunk, noise, state)
        yield decoded


@dataclass(frozen=True, eq=False)
class Animation:
    """A talking face: frames (H, W, 3) uint8 RGB at :attr:`fps`, with its sound.

    Iterating generates the frames, chunk by chunk, each time anew and each time the same. They
    are the generator's own: marks that say that they are synthetic come in when they are written.
    """

    generator: Generator
    renderer: FaceRenderer
    audio: npt.NDArray[np.float32]
    """The speech, (S,) float32 in [-1, 1] at :attr:`sample_rate`."""
    options: AnimateOptions = field(default_factory=AnimateOptions)
    """How the face is shown and moved."""
    origin: Origin = field(default_factory=Origin)
    """What the frames are made from, as content credentials name it."""
    frozen: FrozenGenerator | None = None
    """The same generator made ready to run; None: the generator itself runs."""

    @property
    def fps(self) -> int:
        """Frames a second."""
        return self.generator.config.fps

    @property
    def sample_rate(self) -> int:
        """Audio samples a second."""
        return self.generator.config.sample_rate

    @property
    def height(self) -> int:
        """Height of a frame in pixels."""
        return self.renderer.height

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return self.renderer.width

    def __len__(self) -> int:
        return len(self.audio) // self.generator.config.hop

    @torch.inference_mode()
    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        options = self.options
        expression = ExpressionProcess(
            options.seed, fps=self.fps, blink=options.blink, strength=options.expression
        )
        head = HeadProcess(options.seed, fps=self.fps, strength=options.head_motion)
        generator = self.frozen or self.generator
        still = self.renderer.portrait.prepared
        for decoded in decoded_chunks(generator, still, self.audio, options.seed):
            frames = decoded.length
            poses = head.draw(frames) if options.head_motion else None
            yield from self.renderer.render(decoded, poses, expression.draw(frames)[0])

    @property
    def frames(self) -> npt.NDArray[np.uint8]:
        """All frames at once: (T, H, W, 3) uint8."""
        return np.stack(list(self))

    def save(
        self,
        path: str | Path,
        *,
        overwrite: bool = False,
        mark: bool = True,
        label: str | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
    ) -> int:
        """Write the video; the suffix decides the format (mp4, webm, gif, none: PNG folder).

        Args:
            path: where to write.
            overwrite: replace what is there.
            mark: leave an imperceptible watermark and, except in webm, content credentials that
                say that the video is synthetic. Without them nothing but a comment says so: then
                whoever shows the video has to.
            label: a visible text in the corner.
            certificate, key: PEM files to sign with instead of the installation's own
                certificate; see :func:`stillspeak.media.provenance.find_signer`.

        Returns:
            Frames written.

        Raises:
            OutputExistsError: ``path`` exists and ``overwrite`` is False.
            OutputError: it cannot be written.
            ConfigError: the label or the certificate cannot be used.
        """
        settings = self.video_settings
        choices = MarkChoices(mark, label, certificate, key)
        settings["marks"] = choices.applied(settings["marks"])
        return write_video(path, self, overwrite=overwrite, **settings)

    @property
    def video_settings(self) -> dict[str, Any]:
        """What ``write_video`` needs besides the frames; with marks."""
        return {
            "fps": self.fps,
            "audio": self.audio,
            "sample_rate": self.sample_rate,
            "metadata": {"comment": COMMENT},
            "marks": Marks(self.origin),
        }
