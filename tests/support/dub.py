"""A stand-in for what draws new mouths, and videos that say how they were made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np

from stillspeak.dub.dubber import DubFrame, DubStats
from stillspeak.rendering.raster import Box, Picture

RATE = 16_000
BOX = (14, 10, 31, 27)
"""Where a painter draws, with odd edges."""


class Painter:
    """Takes the place of a ``Dubber``: paints a box white while there is sound, else black.

    Every frame whose number is in ``faceless`` stays as it is.
    """

    def __init__(self, box: Box = BOX, faceless: Sequence[int] = ()) -> None:
        self.generator = SimpleNamespace(config=SimpleNamespace(fps=25, sample_rate=RATE))
        self.model = None
        self.bursts: list[int] = []
        self.places: list[float] = []
        self._box, self._faceless = box, faceless

    def appearance(
        self, samples: Iterable[Sequence[Picture]], *, face: int | None = None, name: str = ""
    ) -> str:
        self.bursts = [len(burst) for burst in samples]
        return "looked"

    def draw(
        self,
        frames: Iterable[DubFrame],
        sound: Iterable[np.ndarray],
        appearance: Any,
        *,
        stats: DubStats | None = None,
    ) -> Iterator[tuple[DubFrame, Picture | None, Box]]:
        assert appearance == "looked"
        wave = np.concatenate(list(sound))
        x0, y0, x1, y1 = self._box
        for number, frame in enumerate(frames):
            self.places.append(frame.place)
            if number in self._faceless:
                stats.reasons["no face"] = stats.reasons.get("no face", 0) + 1
                yield frame, None, (0, 0, 0, 0)
                continue
            # What sounds while a frame of the model is shown.
            begin = round((frame.place - 0.5) * RATE / 25) + RATE // 50
            loud = np.abs(wave[max(begin, 0) : begin + RATE // 25]).max(initial=0) > 0.1
            picture = frame.picture.copy()
            picture[y0:y1, x0:x1] = 255 if loud else 0
            stats.drawn += 1
            yield frame, picture, self._box


def coloured(count: int, height: int = 48, width: int = 64) -> list[np.ndarray]:
    """Smooth colourful frames, each another one."""
    y, x = np.mgrid[:height, :width] / 9
    frames = []
    for k in range(count):
        waves = [np.sin(x + k / 5), np.cos(y - k / 7), np.sin(x - y + k / 3)]
        frames.append((np.stack(waves, axis=2) * 70 + 128).astype(np.uint8))
    return frames


def encode(
    path: Path,
    frames: Sequence[np.ndarray],
    times: Sequence[Fraction | float] | None = None,
    *,
    fps: int | Fraction = 25,
    kind: str = "yuv420p",
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    rotation: int = 0,
    tags: dict[str, int] | None = None,
    aspect: Fraction | None = None,
    base: Fraction | None = None,
) -> Path:
    """A video without sound. Frames (H, W, 3) RGB are as they lie, not upright."""
    base = base or 1 / Fraction(fps)
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        picture = container.add_stream(codec, rate=fps, options=options or {"crf": "4"})
        picture.width, picture.height, picture.pix_fmt = width, height, kind
        picture.codec_context.time_base = base
        for tag, value in (tags or {}).items():
            setattr(picture.codec_context, tag, value)
        if aspect:
            picture.codec_context.sample_aspect_ratio = aspect
        if rotation:
            picture.set_display_rotation(rotation)
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, format="rgb24").reformat(
                format=kind, dst_colorspace=(tags or {}).get("colorspace")
            )
            for tag in ("color_trc", "color_primaries"):
                if tags and tag in tags:
                    setattr(frame, tag, tags[tag])
            time = number / Fraction(fps) if times is None else Fraction(times[number])
            frame.pts, frame.time_base = round(time / base), base
            container.mux(picture.encode(frame))
        container.mux(picture.encode(None))
    return path


def shown(path: Path) -> list[float]:
    """When frames are shown, in seconds on the container's clock."""
    with av.open(str(path)) as container:
        return [round(float(frame.pts * frame.time_base), 6) for frame in container.decode(video=0)]


def samples(path: Path) -> list[list[np.ndarray]]:
    """The planes of every frame as decoded, without their padding."""
    found = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            planes = []
            for plane in frame.planes:
                wide = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
                planes.append(wide[: plane.height, : plane.width].copy())
            found.append(planes)
    return found


def sound(path: Path, stream: int = 0) -> tuple[np.ndarray, int]:
    """A sound track as decoded, (C, S), and its rate; begins at the container's time 0."""
    pieces = []
    with av.open(str(path)) as container:
        track = container.streams.audio[stream]
        for frame in container.decode(track):
            if not pieces:
                lead = round(float(frame.pts * frame.time_base) * frame.sample_rate)
                pieces.append(np.zeros((len(frame.layout.channels), max(lead, 0)), np.float32))
            array = frame.to_ndarray()
            channels = len(frame.layout.channels)
            if not frame.format.is_planar:
                array = array.reshape(-1, channels).T
            if array.dtype.kind == "i":
                array = array / float(2 ** (8 * array.dtype.itemsize - 1))
            pieces.append(array.astype(np.float32))
        rate = track.rate
    return np.concatenate(pieces, axis=1), rate
