"""A model that predicts how mouths move, and a face detector, kept loaded for many videos."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self

from stillspeak.errors import ConfigError
from stillspeak.face.landmarks import LandmarkDetector, MediaPipeDetector
from stillspeak.models.generator import Generator
from stillspeak.system.runtime import choose_device
from stillspeak.weights import DEFAULT_MODEL, load_model


class MouthModel:
    """The model and the detector of what draws mouths into videos.

    Args:
        model: a released model's name, a weights file, or a generator; one with decoder =
            "layers", which predicts how the mouth moves.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        detector: finds the face; MediaPipe's by default, loaded when first needed.

    Raises:
        WeightsError: the weights cannot be used.
        ConfigError: the device is not there, or the model makes whole frames.
    """

    _does: ClassVar[str]
    """What the command is called."""

    def __init__(
        self,
        model: str | Path | Generator = DEFAULT_MODEL,
        *,
        device: str = "auto",
        detector: LandmarkDetector | None = None,
    ) -> None:
        loaded = model if isinstance(model, Generator) else load_model(model)
        if loaded.config.decoder != "layers":
            name = "this generator" if isinstance(model, Generator) else model
            raise ConfigError(
                f"{name}: makes whole frames (decoder = {loaded.config.decoder!r}), and "
                f"{self._does} needs a model that predicts how the mouth moves; "
                f"use {DEFAULT_MODEL!r}"
            )
        self.generator = loaded.to(choose_device(device)).eval()
        self.model = None if isinstance(model, Generator) else model
        """What credentials name."""
        self._detector = detector

    @property
    def detector(self) -> LandmarkDetector:
        """The face detector, loaded when first asked for."""
        if self._detector is None:
            self._detector = MediaPipeDetector()
        return self._detector

    def close(self) -> None:
        """Release the detector."""
        if self._detector is not None:
            self._detector.close()
            self._detector = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
