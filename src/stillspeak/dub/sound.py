"""The new sound of a video: the speech, and what goes on under it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.errors import VideoError
from stillspeak.media.audio import Waveform
from stillspeak.media.sound import SoundSource, mixed_sounds, sound_of
from stillspeak.media.video import sound_lead

Speech = str | Path | bytes | tuple[npt.NDArray[Any], int]
"""A sound or video file, its bytes, or samples and their rate, as for ``load_audio``."""

_IN_STEP = 1e-3  # seconds of lead that are none


def speech_track(speech: Speech) -> SoundSource:
    """The new speech; that of a video begins as long after its first frame as it does there.

    Raises:
        AudioError: it cannot be read, or is empty.
    """
    track = sound_of(speech)
    if isinstance(speech, str | Path):
        with suppress(VideoError):  # a sound file
            return moved(track, sound_lead(speech, track.start))
    return track


def with_background(
    speech: SoundSource, video: str | Path, zero: float, seconds: float, level: float
) -> SoundSource:
    """The speech over a video's own sound from ``zero`` seconds of its clock on, at a level from 0
    to 1, for so many seconds.

    Raises:
        AudioError: the video has no sound.
    """
    own = sound_of(video)
    own = moved(own, own.start - zero, seconds).louder(level)
    return mixed_sounds([speech, own])


def moved(track: SoundSource, lead: float, seconds: float | None = None) -> SoundSource:
    """A sound after so many seconds of silence, or without as many at its beginning if they are
    negative; with ``seconds``, of at most that length."""
    if abs(lead) < _IN_STEP and seconds is None:
        return track
    shift = round(lead * track.rate)

    def read() -> Iterator[Waveform]:
        skip, left = max(-shift, 0), None if seconds is None else round(seconds * track.rate)
        for block in chain(_silence(track, max(shift, 0)), track.read()):
            kept = block[:, skip : None if left is None else skip + left]
            skip -= min(skip, block.shape[1])
            yield kept
            if left is not None:
                left -= kept.shape[1]
                if left <= 0:
                    return

    return replace(track, read=read, file=None)


def _silence(track: SoundSource, samples: int) -> Iterator[Waveform]:
    for at in range(0, samples, track.rate):  # a second at a time
        yield np.zeros((track.channels, min(track.rate, samples - at)), np.float32)


def seconds_of(track: SoundSource) -> float:
    """How long a sound is, to the sample; it is read whole, and AudioError raised where that
    cannot be done."""
    samples: int = sum(block.shape[1] for block in track.read())
    return samples / track.rate


def heard_by_model(track: SoundSource, rate: int) -> Iterator[Waveform]:
    """Pieces (S,) float32 of a sound in mono at a rate."""
    for block in track.at(rate, "mono").read():
        yield block[0]
