"""An animation: what ``animate`` gives back, with frames made when they are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.media.marks.marking import MarkChoices, Marks
from stillspeak.media.marks.origin import Origin
from stillspeak.media.video_writer import write_video
from stillspeak.rendering.check import StillWarning
from stillspeak.synthesis import Synthesizer

COMMENT = "Synthetic talking-face video, made with stillspeak"
"""What the plain metadata of a video says."""


@dataclass(frozen=True, eq=False)
class Animation:
    """A talking face: frames (H, W, 3) uint8 RGB at :attr:`fps`, with its sound.

    Iterating generates the frames, chunk by chunk, each time anew and each time the same. They
    are the generator's own: marks that say that they are synthetic come in when they are written.
    """

    synthesizer: Synthesizer
    """Makes the frames; the animation itself only uses copies of it."""
    audio: npt.NDArray[np.float32]
    """The speech, (S,) float32 in [-1, 1] at :attr:`sample_rate`."""
    origin: Origin = field(default_factory=Origin)
    """What the frames are made from, as content credentials name it."""

    @property
    def fps(self) -> int:
        """Frames a second."""
        return self.synthesizer.engine.config.fps

    @property
    def sample_rate(self) -> int:
        """Audio samples a second."""
        return self.synthesizer.engine.config.sample_rate

    @property
    def height(self) -> int:
        """Height of a frame in pixels."""
        return self.synthesizer.renderer.height

    @property
    def width(self) -> int:
        """Width of a frame in pixels."""
        return self.synthesizer.renderer.width

    @property
    def warnings(self) -> tuple[StillWarning, ...]:
        """What about the still makes its video worse; none for a good one."""
        return self.synthesizer.warnings

    def __len__(self) -> int:
        return len(self.audio) // self.synthesizer.engine.config.hop

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        return self.synthesizer.restarted().speak(self.audio)

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
                certificate; see :func:`stillspeak.media.marks.signing.find_signer`.

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
