"""The sound of an output: as it was given, with its own rate and channels, block by block."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.errors import AudioError
from stillspeak.media.audio import (
    HEADROOM,
    Chunk,
    ChunkResampler,
    Waveform,
    array_chunks,
    file_chunks,
    whole_rate,
)
from stillspeak.media.source import source_name

LAYOUTS = {"mono": 1, "stereo": 2, "5.1": 6}
"""Channels of the layouts that outputs have, by FFmpeg's names, from narrow to wide."""

_BLOCK = 16_384
_SIDE = 0.5**0.5
# What a loudspeaker's sound adds to left and right: ITU-R BS.775, without the subwoofer.
_TO_STEREO = {
    **dict.fromkeys(("FL", "FLC", "DL"), (1.0, 0.0)),
    **dict.fromkeys(("FR", "FRC", "DR"), (0.0, 1.0)),
    **dict.fromkeys(("BL", "SL"), (_SIDE, 0.0)),
    **dict.fromkeys(("BR", "SR"), (0.0, _SIDE)),
    "FC": (_SIDE, _SIDE),
    "LFE": (0.0, 0.0),
}
_ELSEWHERE = (0.5, 0.5)


@dataclass(frozen=True, eq=False)
class SoundSource:
    """A sound that can be read any number of times; memory holds one block of it."""

    rate: int
    """Samples a second."""
    layout: str
    """One of :data:`LAYOUTS`."""
    read: Callable[[], Iterator[Waveform]]
    """Begins anew: blocks (C, S) float32 in [-1, 1], S from 0 on. Raises AudioError."""
    file: str | Path | bytes | None = None
    """The sound file that holds just this; None: no file does. Its packets may be copied."""
    start: float = 0.0
    """The time of sample 0 on the file's clock in seconds."""

    @property
    def channels(self) -> int:
        """C."""
        return LAYOUTS[self.layout]

    def at(self, rate: int, layout: str | None = None) -> SoundSource:
        """The same sound at another rate, and in another layout if one is named."""
        layout = layout or self.layout
        if (rate, layout) == (self.rate, self.layout):
            return self
        matrix = _matrix(self.channels, (), layout)

        def read() -> Iterator[Waveform]:
            resampler = ChunkResampler(self.rate, rate, LAYOUTS[layout])
            for block in self.read():
                if block.size:
                    yield resampler.feed(matrix @ block)
            yield resampler.finish()

        return replace(self, rate=rate, layout=layout, read=read, file=None)

    def louder(self, factor: float) -> SoundSource:
        """The same sound times a factor."""

        def read() -> Iterator[Waveform]:
            return (np.clip(np.float32(factor) * block, -1.0, 1.0) for block in self.read())

        return replace(self, read=read, file=None)


class SoundFeed:
    """Hands out a sound in pieces of any length; after its end there is silence."""

    def __init__(self, track: SoundSource) -> None:
        self._blocks = track.read()
        self._ready: Waveform = np.zeros((track.channels, 0), np.float32)
        self._over = False

    def take(self, samples: int, *, pad: bool = True) -> Waveform:
        """The next samples, (C, samples) float32, or fewer at the end without ``pad``."""
        pieces, length = [self._ready], self._ready.shape[1]
        while length < samples and not self._over:
            block = next(self._blocks, None)
            if block is None:
                self._over = True
            else:
                pieces.append(block)
                length += block.shape[1]
        joined = np.concatenate(pieces, axis=1) if len(pieces) > 1 else pieces[0]
        self._ready = joined[:, samples:]
        taken = joined[:, :samples]
        return np.pad(taken, ((0, 0), (0, samples - taken.shape[1]))) if pad else taken


def sound_of(
    source: str | Path | bytes | tuple[npt.NDArray[Any], int], *, name: str | None = None
) -> SoundSource:
    """The sound of a source, as of :func:`~stillspeak.media.audio.load_audio`, with its rate and
    channels.

    Mono, stereo and 5.1 stay. Of other loudspeakers stereo is made, and of channels that nothing
    is known of, mono. What is read is what ``load_audio`` hears: its sample 0 is sample 0 here.

    Raises:
        AudioError: as ``load_audio``; reading raises it too.
    """
    label = source_name(source, "<array>" if name is None and isinstance(source, tuple) else name)

    def chunks() -> Generator[Chunk, None, None]:
        if isinstance(source, tuple):
            yield from array_chunks(*source, name=label)
        else:
            yield from file_chunks(source, name=label)

    with closing(chunks()) as beginning:
        first = next(beginning, None)
    if first is None:
        raise AudioError(f"{label}: holds no sound samples; give a sound that is not empty")
    rate, layout = whole_rate(first.rate, name=label), _layout(len(first.samples), first.channels)

    def read() -> Iterator[Waveform]:
        kind = lambda chunk: (chunk.rate, len(chunk.samples), chunk.channels)  # noqa: E731
        for (own, channels, names), same in groupby(chunks(), key=kind):
            matrix = _matrix(channels, names, layout)
            resampler = ChunkResampler(own, rate, LAYOUTS[layout])
            for chunk in same:
                yield resampler.feed(matrix @ chunk.samples)
            yield resampler.finish()

    file = None if isinstance(source, tuple) else source
    return SoundSource(rate, layout, read, file, first.start or 0.0)


def sound_of_array(samples: npt.NDArray[np.floating], rate: int) -> SoundSource:
    """Samples (S,) or (S, C) in [-1, 1] as a source of sound; S may be 0."""
    planes = np.atleast_2d(samples.T)
    layout = _layout(len(planes), ())
    matrix = _matrix(len(planes), (), layout)

    def read() -> Iterator[Waveform]:
        for begin in range(0, planes.shape[1], _BLOCK):
            block = planes[:, begin : begin + _BLOCK].astype(np.float32)
            yield np.clip(matrix @ block, -1.0, 1.0)

    return SoundSource(rate, layout, read)


def mixed_sounds(tracks: Sequence[SoundSource]) -> SoundSource:
    """Sounds at once, at the highest of their rates and in the widest of their layouts.

    As :func:`~stillspeak.media.audio.mixed`: as long as the longest, all of it softer by one factor
    where the sum would be too loud.
    """
    rate = max(track.rate for track in tracks)
    layout = max((track.layout for track in tracks), key=list(LAYOUTS).index)
    alike = [track.at(rate, layout) for track in tracks]

    def added() -> Iterator[Waveform]:
        feeds = [SoundFeed(track) for track in alike]
        while True:
            pieces = [feed.take(_BLOCK, pad=False) for feed in feeds]
            mix = np.zeros((LAYOUTS[layout], max(p.shape[1] for p in pieces)), np.float32)
            for piece in pieces:
                mix[:, : piece.shape[1]] += piece
            if not mix.size:
                return
            yield mix

    @cache
    def factor() -> np.float32:
        loudest = max((float(np.abs(block).max()) for block in added()), default=0.0)
        return np.float32(min(1.0, HEADROOM / loudest) if loudest else 1.0)

    def read() -> Iterator[Waveform]:
        return (factor() * block for block in added())

    return SoundSource(rate, layout, read)


def _layout(channels: int, names: tuple[str, ...]) -> str:
    """The layout of an output for so many channels of loudspeakers with these names."""
    for layout, count in LAYOUTS.items():
        # Without names six channels are in the order that every format has them in.
        if channels == count and (channels < 6 or not names or "LFE" in names):
            return layout
    return "stereo" if names and set(names) & set(_TO_STEREO) else "mono"


@cache
def _matrix(channels: int, names: tuple[str, ...], layout: str) -> Waveform:
    """(C', C): which channels of a layout are made of which of the source's."""
    wanted = LAYOUTS[layout]
    if channels == wanted:
        return np.eye(wanted, dtype=np.float32)
    if wanted == 1:
        return np.full((1, channels), 1 / channels, np.float32)
    matrix = np.zeros((wanted, channels), np.float32)
    if wanted == 6 and channels <= 2:
        places = (2,) if channels == 1 else (0, 1)  # the middle, or left and right
        matrix[places, range(channels)] = 1
        return matrix
    if channels == 1:
        return matrix + 1
    if not names and channels == 6:
        names = ("FL", "FR", "FC", "LFE", "BL", "BR")
    named = names or ("?",) * channels
    matrix[:2] = np.transpose([_TO_STEREO.get(name, _ELSEWHERE) for name in named])
    return matrix / max(float(matrix.sum(axis=1).max()), 1.0)
