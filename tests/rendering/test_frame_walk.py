"""The walk of a frame: through which files of the package its pixels pass."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import stillspeak
from stillspeak.options import AnimateOptions
from stillspeak.rendering.portrait import Portrait
from stillspeak.stream import StreamSession
from stillspeak.synthesis import Synthesizer
from support.animate import lively, portrait, portrait_face, speech, use_shared_detector

ROOT = Path(stillspeak.__file__).parent
LIVELY = {"seed": 1, "blink": 3.0, "expression": 3.0, "head_motion": 1.0}
MOST = 7
"""Files at most."""


def is_frame(value: Any) -> bool:
    """Whether it is an image, or has one in it: (..., H, W, 3) uint8 or floats."""
    if isinstance(value, tuple | list):
        return any(map(is_frame, value))
    value = getattr(value, "picture", value)  # a stream's frame has its time with it
    if not isinstance(value, np.ndarray) or value.ndim < 3 or value.shape[-1] != 3:
        return False
    return value.dtype == np.uint8 or np.issubdtype(value.dtype, np.floating)


@contextmanager
def walk() -> Iterator[set[str]]:
    """The files whose functions are given frames or give them back meanwhile."""
    found: set[str] = set()

    def look(frame: FrameType, event: str, value: Any) -> None:
        file = Path(frame.f_code.co_filename)
        if event not in ("call", "return") or not file.is_relative_to(ROOT):
            return
        names = frame.f_code.co_varnames[: frame.f_code.co_argcount]
        arguments = [frame.f_locals.get(name) for name in names] if event == "call" else [value]
        if is_frame(arguments):
            found.add(str(file.relative_to(ROOT)))

    sys.setprofile(look)
    try:
        yield found
    finally:
        sys.setprofile(None)


def photo() -> np.ndarray:
    """Large enough that the refiner sees fewer pixels than there are."""
    return portrait().repeat(2, axis=0).repeat(2, axis=1)


def offline(decoder: str) -> Callable[[], Any]:
    generator = lively(decoder)
    face = Portrait.of(photo(), 2 * portrait_face().points + np.float32(0.5), generator)
    frames = Synthesizer(generator, face, AnimateOptions(**LIVELY)).speak(speech(4.0))
    return lambda: next(frames)


def stream(decoder: str) -> Callable[[], Any]:
    session = StreamSession(photo(), model=lively(decoder), **LIVELY)
    sound = iter(np.split(speech(4.0), 100))
    return lambda: session.push(next(sound))


@pytest.mark.parametrize("decoder", ["layers", "unet"])
def test_a_frame_passes_few_files_and_the_same_ones_offline_and_live(
    decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_shared_detector(monkeypatch)
    walks = []
    for way in (offline, stream):
        step = way(decoder)
        for _ in range(20):  # what is made once a clip is made by now
            step()
        with walk() as files:
            for _ in range(60):  # it speaks, blinks and looks about
                step()
        walks.append(files)
    for files, last in zip(walks, ("synthesis.py", "stream.py"), strict=True):
        assert len(files) <= MOST, sorted(files)
        files.remove(last)  # where it is handed out
    assert walks[0] == walks[1]
    assert {"rendering/renderer.py", "rendering/eyes.py"} <= walks[0]
