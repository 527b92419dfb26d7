"""stillspeak: one face image and one speech clip become a talking-face video.

    import stillspeak

    stillspeak.animate("photo.jpg", "speech.wav").save("video.mp4")

The names below are the public interface. They are loaded when first used: importing this
package reads no file, starts nothing and changes no global setting.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from stillspeak.errors import StillspeakError

if TYPE_CHECKING:
    from stillspeak.animate import Animation, Animator, animate
    from stillspeak.dub.live import LiveDub
    from stillspeak.dub.video import dub
    from stillspeak.face.landmarks import Face, LandmarkDetector, MediaPipeDetector
    from stillspeak.media.audio import load_audio
    from stillspeak.media.image import load_image
    from stillspeak.media.video_writer import write_video
    from stillspeak.models.config import GeneratorConfig
    from stillspeak.models.generator import Generator
    from stillspeak.poses import PoseTrack, hear_poses
    from stillspeak.stream import StreamSession
    from stillspeak.weights import load_model, save_model

__version__ = "0.8.0"

__all__ = [
    "Animation",
    "Animator",
    "Face",
    "Generator",
    "GeneratorConfig",
    "LandmarkDetector",
    "LiveDub",
    "MediaPipeDetector",
    "PoseTrack",
    "StillspeakError",
    "StreamSession",
    "animate",
    "dub",
    "hear_poses",
    "load_audio",
    "load_image",
    "load_model",
    "save_model",
    "write_video",
]

_HOMES = {
    "Animation": "animate",
    "Animator": "animate",
    "animate": "animate",
    "dub": "dub.video",
    "Face": "face.landmarks",
    "LandmarkDetector": "face.landmarks",
    "MediaPipeDetector": "face.landmarks",
    "Generator": "models.generator",
    "GeneratorConfig": "models.config",
    "LiveDub": "dub.live",
    "PoseTrack": "poses",
    "hear_poses": "poses",
    "StreamSession": "stream",
    "load_audio": "media.audio",
    "load_image": "media.image",
    "load_model": "weights",
    "save_model": "weights",
    "write_video": "media.video_writer",
}


if not TYPE_CHECKING:  # a type checker would take any name for one of ours

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'stillspeak' has no attribute {name!r}")
        value = getattr(import_module(f"stillspeak.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps :func:`animate` and :func:`dub` in their places.

    The first import of the module of that name makes Python store the module here, and
    ``stillspeak.animate(...)`` would be a call of a module.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
