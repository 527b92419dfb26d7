"""Videos of any size and rate, brought to the aligned crops that are evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, VIDEO_FPS
from stillspeak.data.cache import load_manifest
from stillspeak.data.corpora import Clip
from stillspeak.data.prepare import DetectorFactory, prepare
from stillspeak.errors import DataError, VideoError
from stillspeak.evaluation.options import Progress
from stillspeak.evaluation.systems import Recording
from stillspeak.face.landmarks import LandmarkDetector
from stillspeak.media.video import VideoInfo, iter_frames, probe_video
from stillspeak.weights import file_sha256

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg")

LENGTH_TOLERANCE = 1
"""Frames by which another system's video may be longer or shorter than the real one."""

RATE_TOLERANCE = 0.01
"""Largest relative difference of frame rates that counts as none (29.97 and 30)."""

LONGEST = 600.0
"""Seconds of a video of a folder at most."""

FIRST_FACE = 2.0
"""Seconds in which such a video has to show a face; what comes before the face is cut off."""


def find_videos(folder: Path) -> dict[Path, Path]:
    """Videos below a folder by their place in it without suffix, sorted.

    Raises:
        DataError: no such folder, or two videos whose names differ in their suffix alone.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of videos")
    found: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            place = path.relative_to(folder).with_suffix("")
            if place in found:
                raise DataError(f"{path} and {found[place].name} differ in their suffix alone")
            found[place] = path
    return found


def check_pair(video: Path, real: Path) -> None:
    """Refuse a video whose header shows that it cannot be compared.

    Raises:
        VideoError: it has no sound, or another rate or length than the real video.
    """
    made, truth = probe_video(video), probe_video(real)
    _check_sound(video, made)
    if abs(made.fps - truth.fps) > RATE_TOLERANCE * truth.fps:
        raise VideoError(
            f"{video}: shows {made.fps:g} frames a second and the real video {truth.fps:g}; "
            "convert it to the same rate"
        )
    if abs(made.duration - truth.duration) * truth.fps > LENGTH_TOLERANCE + 0.5:
        raise VideoError(
            f"{video}: lasts {made.duration:.2f} s and the real video {truth.duration:.2f} s; "
            "cut both to the same speech"
        )


def whole_video(speaker: str, name: str, video: Path) -> Clip:
    """A whole video as a clip, with the word timings that lie beside it."""
    words = video.with_suffix(".align")
    return Clip(speaker, name, video, "test", alignment=words if words.is_file() else None)


def from_first_face(clip: Clip, detector: LandmarkDetector) -> Clip:
    """A whole video of a folder, cut to begin with the first frame that shows a face.

    Raises:
        StillspeakError: it cannot be used.
    """
    path = clip.path
    info = probe_video(path)
    _check_sound(path, info)
    if info.duration > LONGEST:
        raise VideoError(
            f"{path}: lasts {info.duration / 60:.0f} minutes, {LONGEST / 60:.0f} are the limit; "
            "cut it into parts"
        )
    clip = replace(clip, alone=True)
    if _is_crop(info):
        return clip
    looked = islice(iter_frames(path, fps=VIDEO_FPS), round(FIRST_FACE * VIDEO_FPS))
    first = next((t for t, frame in enumerate(looked) if detector.detect(frame)), None)
    if first is None:
        raise VideoError(f"{path}: no face in the first {FIRST_FACE:g} s; cut it to the speaker")
    if first == 0:
        return clip
    return replace(clip, start=first / VIDEO_FPS, end=round(info.duration * VIDEO_FPS) / VIDEO_FPS)


def align(
    videos: Sequence[Clip],
    cache: Path,
    detector_factory: DetectorFactory,
    workers: int,
    progress: Progress | None,
) -> dict[str, Recording | str]:
    """Aligned crops of videos, by ``SPEAKER/NAME``; text says why there are none."""
    aligned: dict[str, Recording | str] = {}
    clips: dict[Path, Clip] = {}
    for clip in videos:
        info, words = probe_video(clip.path), clip.alignment
        if _is_crop(info):
            files = [clip.path] if words is None else [clip.path, words]
            key, frames = " ".join(map(file_sha256, files)), round(info.duration * VIDEO_FPS)
            recording = Recording(clip.path, f"crop {key}", False, words, frames)
            aligned[f"{clip.speaker}/{clip.name}"] = recording
        else:
            clips[clip.path] = clip
    if not clips:
        return aligned

    def advance(event: Any) -> None:
        if progress is not None:
            progress(f"aligning {cache.name}", event.done, event.total)

    given: dict[str, Any] = {"detector_factory": detector_factory, "workers": workers}
    outcome = prepare(list(clips.values()), cache, progress=advance, **given)
    for rejected in outcome.rejected:
        reason, clip = rejected.reason, clips[rejected.path]
        named = reason if str(rejected.path) in reason else f"{rejected.path}: {reason}"
        aligned[f"{clip.speaker}/{clip.name}"] = named
    for made in load_manifest(cache):
        aligned[f"{made.speaker}/{made.name}"] = Recording(made.file, made.key, frames=made.frames)
    return aligned


def _check_sound(path: Path, info: VideoInfo) -> None:
    if not info.has_audio:
        raise VideoError(f"{path}: has no sound; add the speech that drives it")


def _is_crop(info: VideoInfo) -> bool:
    """A video of this size is taken for aligned crops."""
    return (info.height, info.width) == (FRAME_HEIGHT, FRAME_WIDTH)
