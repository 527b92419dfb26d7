"""The models of a server: which there are, and the few that are loaded."""

from __future__ import annotations

import hashlib
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stillspeak.errors import ConfigError
from stillspeak.web.settings import ServeSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from stillspeak.animate import Animator
    from stillspeak.face.landmarks import Face, LandmarkDetector

_REMEMBERED = 16  # pictures


@dataclass(frozen=True)
class Model:
    """A model that visitors may choose."""

    name: str
    """What visitors call it."""
    source: str
    """What ``stillspeak animate --model`` calls it."""
    summary: str


class RememberingDetector:
    """A detector that remembers the faces of the last pictures: each is shown, then animated.

    None loads MediaPipe's detector when it is first needed.
    """

    def __init__(self, detector: LandmarkDetector | None = None) -> None:
        self._detector = detector
        self._known: OrderedDict[bytes, tuple[float, list[Face]]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def version(self) -> str:
        return self.load().version

    def detect(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Faces of an (H, W, 3) uint8 RGB picture, the largest first; empty if none."""
        key = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return list(self._known[key][1])
        faces = self.load().detect(image)
        with self._lock:
            self._known[key] = time.monotonic(), faces
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return list(faces)

    def forget(self, seconds: float) -> None:
        """Drop what has been known for longer than this."""
        with self._lock:
            for key, (since, _) in list(self._known.items()):
                if time.monotonic() - since > seconds:
                    del self._known[key]

    def close(self) -> None:
        with self._lock:
            self._known.clear()
            detector, self._detector = self._detector, None
        if detector is not None:
            detector.close()

    def load(self) -> LandmarkDetector:
        """The detector, loaded by now."""
        with self._lock:
            if self._detector is None:
                from stillspeak.face.landmarks import MediaPipeDetector

                self._detector = MediaPipeDetector(any_way_up=True)
            return self._detector


class ModelCache:
    """Loaded models, the most recently used ones. Safe from several threads."""

    def __init__(self, settings: ServeSettings, detector: LandmarkDetector | None = None) -> None:
        self._settings = settings
        self.detector = RememberingDetector(detector)
        self._offered: dict[str, Model] | None = None
        self._loaded: OrderedDict[str, Animator] = OrderedDict()
        self._lock = threading.Lock()

    def offered(self) -> dict[str, Model]:
        """The models that can be chosen, by name; the first is the default.

        WeightsError or ConfigError: one is not there, two have the same name, or there is none.
        """
        if self._offered is None:
            self._offered = _offered(self._settings.models)
        return self._offered

    def animator(self, name: str | None = None) -> Animator:
        """One of :meth:`offered`, the first by default, loaded; it must not be closed.

        Raises:
            ConfigError: no such model, or the device is not there.
            WeightsError: its weights cannot be used.
        """
        from stillspeak.animate import Animator

        # Under the lock, so that two who want the same model do not both load it.
        with self._lock:
            models = self.offered()
            name = next(iter(models)) if name is None else name
            if name not in models:
                raise ConfigError(f"there is no model {name!r}; choose from {', '.join(models)}")
            if name not in self._loaded:
                while len(self._loaded) >= self._settings.models_in_memory:
                    self._loaded.popitem(last=False)
                self._loaded[name] = Animator(
                    models[name].source, device=self._settings.device, detector=self.detector
                )
            self._loaded.move_to_end(name)
            return self._loaded[name]

    @property
    def loaded(self) -> list[str]:
        """Names of the loaded models, the one that goes first in front."""
        return list(self._loaded)

    def close(self) -> None:
        """Release the models and the detector."""
        with self._lock:
            self._loaded.clear()
        self.detector.close()


def _offered(asked: tuple[str, ...]) -> dict[str, Model]:
    from stillspeak.weights import DEFAULT_MODEL, catalogue, resolve_model

    known = catalogue()
    default = known[DEFAULT_MODEL].name
    if not asked:
        present = [m.name for m in known.values() if m.path.is_file()]
        asked = tuple(sorted(set(present), key=lambda name: (name != default, name)))
    models: dict[str, Model] = {}
    for source in asked:
        resolve_model(source)
        if source in known:
            model = Model(known[source].name, known[source].name, known[source].summary)
        else:
            model = Model(Path(source).stem, source, "a weights file of this server")
        if model.name in models:
            raise ConfigError(f"serve: two models are called {model.name}; rename a file")
        models[model.name] = model
    if not models:
        raise ConfigError("serve: there are no weights on this machine; name a file with --model")
    return models
