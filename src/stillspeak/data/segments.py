"""Where a long video can be cut into clips: at pauses of the voice, never across a scene cut.

Sound and picture are read as streams, so memory does not grow with the video's length. Times
are seconds from the first frame; clips are counted in frames of the system's rate.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.errors import ConfigError, DataError, MissingDependencyError
from stillspeak.media.audio import Waveform, read_track
from stillspeak.media.video import clock_set_back, iter_frames, sound_lead

VERSION = 1
"""Of the rules in this file; raise it whenever they would cut elsewhere."""

Span = tuple[float, float]
Frames = tuple[int, int]

# The voice begins above the first probability and ends below the second.
_VOICE_ON, _VOICE_OFF = 0.5, 0.35
# Seconds: a shorter gap is no pause, a shorter sound is no speech, and a longer silence
# inside a clip would teach little.
_PAUSE = 0.2
_SHORTEST = 0.1
_LONGEST_SILENCE = 1.0
# Seconds of the pauses that a clip keeps on either side: lips move before the sound.
_MARGIN = 0.25
# Probabilities of voice that differ by no more are taken for the same.
_EQUAL = 0.05
# Frames beside a scene cut that may be a blend of both scenes.
_BLEND = 1
# Scene cuts are looked for in pictures of about this width.
_SMALL = 240


@dataclass(frozen=True)
class SegmentRules:
    """How long clips may be, in seconds.

    Raises:
        ConfigError: unless 1 <= ``min_seconds`` and 2.5 ``min_seconds`` <= ``max_seconds``
            <= 60; with less room, long speech could not be cut into clips that are allowed.
    """

    min_seconds: float = 2.0
    max_seconds: float = 8.0

    def __post_init__(self) -> None:
        if not self.min_seconds >= 1.0:
            raise ConfigError(f"clips of {self.min_seconds:g} s are too short; at least 1 s")
        if not 2.5 * self.min_seconds <= self.max_seconds <= 60.0:
            raise ConfigError(
                f"clips of {self.min_seconds:g} to {self.max_seconds:g} s: the upper limit must"
                f" be {2.5 * self.min_seconds:g} (2.5 times the lower) to 60 s"
            )


@dataclass(frozen=True)
class Speech:
    """Where a video's sound holds a voice.

    Attributes:
        spans: begin and end in seconds from the first frame, in order, with pauses between.
        probability: (W,) float32 in [0, 1], of voice in each window.
        start: seconds from the first frame to the first window.
        step: seconds from one window to the next.
    """

    spans: Sequence[Span]
    probability: npt.NDArray[np.float32]
    start: float
    step: float

    def quietest(self, begin: float, end: float) -> float:
        """The time between two others at which there is least voice around."""
        first = max(ceil((begin - self.start) / self.step), 0)
        stop = max(floor((end - self.start) / self.step), first + 1)
        if first >= len(self.probability):
            return end
        # One low window between two high ones is a stop consonant.
        padded = np.pad(self.probability[first:stop], 1, mode="edge")
        near = (padded[:-2] + padded[1:-1] + padded[2:]) / 3
        # Of equals the last, which makes the fewest clips.
        at = int(np.flatnonzero(near <= near.min() + _EQUAL)[-1])
        time = self.start + (first + at + 0.5) * self.step
        return min(max(time, begin), end)


class VoiceActivity:
    """Silero's voice-activity detection, whose weights are inside its package.

    Raises:
        MissingDependencyError: if it is not installed.
    """

    WINDOW = 512
    """Samples at 16 kHz that each probability is for."""

    def __init__(self) -> None:
        # Importing Silero sets the threads of the whole process, for good.
        with _one_thread():
            try:
                import silero_vad
            except ImportError as error:
                raise _missing("silero-vad", error) from error
        self._model: Any = silero_vad.load_silero_vad()

    def probabilities(self, pieces: Iterable[Waveform]) -> npt.NDArray[np.float32]:
        """Of voice, (W,) float32, in each window of a sound that comes in pieces (S,) at 16 kHz;
        zeros fill up the last window."""
        import torch

        self._model.reset_states()
        with _one_thread(), torch.inference_mode():
            windows = map(torch.from_numpy, _windows(pieces, self.WINDOW))
            found = [float(self._model(window, SAMPLE_RATE)) for window in windows]
        return np.array(found, dtype=np.float32)


def versions() -> dict[str, str]:
    """What the cuts depend on besides the video and the rules.

    Raises:
        MissingDependencyError: if one of the packages is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    found = {"segments": str(VERSION), "fps": str(VIDEO_FPS)}
    for package in ("silero-vad", "scenedetect"):
        try:
            found[package] = version(package)
        except PackageNotFoundError as error:
            raise _missing(package, error) from error
    return found


def find_segments(
    path: str | Path, rules: SegmentRules | None = None, voice: VoiceActivity | None = None
) -> list[Frames]:
    """Cut a video into clips of speech.

    Returns:
        First frame and the one after the last, for each clip, at 25 frames a second from the
        video's first frame; in order, none over another, at least one.

    Raises:
        AudioError: it has no sound, or it cannot be read.
        VideoError: the picture cannot be read.
        DataError: there is nothing to use in it; the message says why.
        MissingDependencyError: a package is not installed.
    """
    rules = rules or SegmentRules()
    set_back = clock_set_back(path)
    if set_back is not None:
        raise DataError(
            f"{path}: its clock is set back after {set_back:.1f} s, as where files were joined;"
            " re-encode it"
        )
    speech = find_speech(path, voice or VoiceActivity())
    if not speech.spans:
        raise DataError(f"{path}: no speech was found in its sound")
    cuts, total = find_scene_cuts(path)
    clips = cut_clips(speech, shots(cuts, total), rules)
    if not clips:
        raise DataError(
            f"{path}: no speech of at least {rules.min_seconds:g} s between pauses and scene cuts"
        )
    return clips


def find_speech(path: str | Path, voice: VoiceActivity) -> Speech:
    """Where a video's sound holds a voice. Raises as :func:`find_segments`."""
    sound_start = 0.0

    def pieces() -> Iterator[Waveform]:
        nonlocal sound_start
        for piece, start in read_track(path, sample_rate=SAMPLE_RATE):
            sound_start = start
            yield piece

    probability = voice.probabilities(pieces())
    start = sound_lead(path, sound_start)
    step = voice.WINDOW / SAMPLE_RATE
    spans = [(start + a * step, start + b * step) for a, b in voiced(probability, step)]
    return Speech(spans, probability, start, step)


def voiced(probability: npt.NDArray[np.float32], step: float) -> list[tuple[int, int]]:
    """Runs of windows (W,) of ``step`` seconds with voice, pauses between them: the first window
    and the one after the last of each."""
    runs: list[tuple[int, int]] = []
    begin: int | None = None
    for at, value in enumerate([*probability.tolist(), 0.0]):
        if begin is None:
            begin = at if value >= _VOICE_ON else None
        elif value < _VOICE_OFF:
            if runs and (begin - runs[-1][1]) * step < _PAUSE:
                begin = runs.pop()[0]
            runs.append((begin, at))
            begin = None
    return [(a, b) for a, b in runs if (b - a) * step >= _SHORTEST]


def find_scene_cuts(path: str | Path) -> tuple[list[int], int]:
    """Frames with which a new scene begins, and how many frames there are.

    Raises:
        VideoError: the picture cannot be read.
        MissingDependencyError: PySceneDetect is not installed.
    """
    import cv2

    try:
        from scenedetect import ContentDetector, FrameTimecode
    except ImportError as error:
        raise _missing("scenedetect", error) from error
    detector = ContentDetector(min_scene_len=0)
    cuts: list[int] = []
    total = 0
    for frame in iter_frames(path, fps=VIDEO_FPS):
        every = max(frame.shape[1] // _SMALL, 1)
        small = frame[::every, ::every]
        picture = cv2.cvtColor(np.ascontiguousarray(small), cv2.COLOR_RGB2BGR)
        if detector.process_frame(FrameTimecode(total, float(VIDEO_FPS)), picture):
            cuts.append(total)
        total += 1
    return cuts, total


def shots(cuts: Sequence[int], total: int) -> list[Frames]:
    """What lies between scene cuts: first frame and the one after the last, blends left out."""
    found = []
    for begin, end in pairwise([0, *cuts, total]):
        first = begin + _BLEND if begin else 0
        stop = end - _BLEND if end < total else total
        if first < stop:
            found.append((first, stop))
    return found


def cut_clips(speech: Speech, shots: Iterable[Frames], rules: SegmentRules) -> list[Frames]:
    """Clips of the allowed length, each inside one shot, cut at pauses.

    Speech that goes on for longer than a clip may is cut where there is least voice. Shorter
    utterances are joined as long as the clip stays within the limit and the silence between
    them short; what is then still too short is left aside.
    """
    clips: list[Frames] = []
    for first, stop in shots:
        groups = list(_groups(speech, first / VIDEO_FPS, stop / VIDEO_FPS, rules))
        begins = [a for a, _ in groups]
        ends = [b for _, b in groups]
        for i, (a, b) in enumerate(groups):
            # A pause is shared by the clips on both sides of it.
            left = 0.5 * (ends[i - 1] + a) if i else 0.0
            right = 0.5 * (b + begins[i + 1]) if i + 1 < len(groups) else b + _MARGIN
            begin = max(floor(max(a - _MARGIN, left) * VIDEO_FPS), first)
            if clips:
                begin = max(begin, clips[-1][1])
            end = min(ceil(min(b + _MARGIN, right) * VIDEO_FPS), stop)
            end = min(end, begin + floor(rules.max_seconds * VIDEO_FPS))
            if end - begin >= ceil(rules.min_seconds * VIDEO_FPS):
                clips.append((begin, end))
    return clips


def _groups(speech: Speech, begin: float, end: float, rules: SegmentRules) -> Iterator[Span]:
    """Speech between two times, in stretches that fit into a clip with its margins."""
    limit = rules.max_seconds - 2 * _MARGIN
    group: Span | None = None
    for a, b in _parts(speech, begin, end, rules.min_seconds, limit):
        if group is not None and b - group[0] <= limit and a - group[1] <= _LONGEST_SILENCE:
            group = (group[0], b)
            continue
        if group is not None:
            yield group
        group = (a, b)
    if group is not None:
        yield group


def _parts(
    speech: Speech, begin: float, end: float, shortest: float, longest: float
) -> Iterator[Span]:
    """Utterances between two times, none longer than allowed."""
    for a, b in speech.spans:
        a, b = max(a, begin), min(b, end)
        while b - a > longest:
            cut = speech.quietest(a + shortest, min(a + longest, b - shortest))
            yield a, cut
            a = cut
        if b - a >= _SHORTEST:
            yield a, b


def _windows(pieces: Iterable[Waveform], size: int) -> Iterator[Waveform]:
    """Cut a sound that comes in pieces into windows (size,), the last filled up with zeros."""
    rest = np.zeros(0, dtype=np.float32)
    for piece in pieces:
        joined = np.concatenate([rest, piece])
        whole = joined.shape[0] // size * size
        yield from joined[:whole].reshape(-1, size)
        rest = joined[whole:]
    if rest.size:
        yield np.concatenate([rest, np.zeros(size - rest.size, np.float32)])


@contextmanager
def _one_thread() -> Iterator[None]:
    """PyTorch on one thread: so small a network takes many times as long on two."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _missing(package: str, error: ImportError) -> MissingDependencyError:
    return MissingDependencyError(
        f"cutting videos into clips needs {package} ({error}); install the corpora extra:"
        " pip install 'stillspeak[corpora]'"
    )
