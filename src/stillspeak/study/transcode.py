"""Single video files: what browsers play, copies without metadata, conversion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np

from stillspeak.errors import AudioError, VideoError
from stillspeak.media.audio import load_audio
from stillspeak.media.video import Frame, iter_frames, open_video, probe_video
from stillspeak.media.video_writer import write_video

SUFFIXES = {".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm"}
_CODECS = {
    "video/mp4": ({"h264", "av1", "vp9"}, {"aac", "mp3", "mp3float", "opus", "flac"}),
    "video/webm": ({"vp8", "vp9", "av1"}, {"opus", "vorbis"}),
}
_PIXELS = {"yuv420p", "yuvj420p"}
_RATE = 48_000


def check_playable(path: Path) -> str:
    """The MIME type of a video that browsers play.

    Raises:
        VideoError: it cannot be decoded to its end, or browsers do not play it.
    """
    probe_video(path)  # says clearly what is missing, empty, text, or no video at all
    kind = SUFFIXES.get(path.suffix.lower())
    hint = "re-encode it as H.264 with yuv420p in mp4, or give --convert"

    def unplayable(what: str) -> VideoError:
        return VideoError(f"{path}: browsers do not play {what}; {hint}")

    if kind is None:
        raise unplayable(f"{path.suffix} files")
    pictures, sounds = _CODECS[kind]
    with open_video(path) as (container, stream):
        formats = set(container.format.name.split(","))
        if kind.removeprefix("video/") not in formats:
            raise VideoError(
                f"{path}: is not what its suffix says ({container.format.name}); {hint}"
            )
        codec, names = _codec(stream)
        if not names & pictures:
            raise unplayable(f"{codec} in {path.suffix}")
        if stream.codec_context.pix_fmt not in _PIXELS:
            raise unplayable(f"{stream.codec_context.pix_fmt} pictures")
        for sound in container.streams.audio:
            codec, names = _codec(sound)
            if not names & sounds:
                raise unplayable(f"{codec} sound in {path.suffix}")
        try:
            frames = sum(1 for _ in container.decode(stream))
        except av.FFmpegError as error:
            raise VideoError(
                f"{path}: the video is damaged ({error.strerror}); export it again"
            ) from error
        if stream.frames and frames < stream.frames - 1:
            raise VideoError(
                f"{path}: ends after {frames} of {stream.frames} frames; export it again"
            )
    return kind


def _codec(stream: Any) -> tuple[str, set[str]]:
    """What messages call a track's codec, and all its names."""
    if stream.codec_context is None:  # of a kind that FFmpeg does not know
        return "unknown", set()
    return stream.codec_context.name, {stream.codec_context.name, stream.codec.canonical_name}


def copy_streams(path: Path, target: Path, *, silent: bool) -> None:
    """The same pictures and sound, bit for bit, in a file without metadata."""
    try:
        with open_video(path) as (container, stream), av.open(str(target), "w") as output:
            if target.suffix == ".mp4":
                output.container_options.update({"movflags": "+faststart"})
            chosen = [stream, *([] if silent else container.streams.audio[:1])]
            twins = {s.index: output.add_stream_from_template(s) for s in chosen}
            for twin in twins.values():
                twin.metadata.clear()
            for packet in container.demux(chosen):
                if packet.dts is None:
                    continue
                packet.stream = twins[packet.stream.index]
                output.mux(packet)
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(f"{path}: cannot be copied ({error}); try --link or --convert") from error


def convert(path: Path, target: Path, *, silent: bool, spoil: bool = False) -> None:
    """H.264 and AAC in MP4; with ``spoil`` the first picture, coarse, all along."""
    info = probe_video(path)
    fps = max(1, round(info.fps))
    sound = None
    if info.has_audio and not silent:
        with suppress(AudioError):
            sound = load_audio(path, sample_rate=_RATE)
    frames = iter_frames(path, fps=fps)
    if spoil:
        frames = _spoilt(frames)
    write_video(target, frames, fps=fps, audio=sound, sample_rate=_RATE, crf=18)


def _spoilt(frames: Iterator[Frame]) -> Iterator[Frame]:
    first = next(frames)
    size = max(4, min(first.shape[:2]) // 8)
    rows, columns = (np.arange(length) // size * size for length in first.shape[:2])
    still = np.ascontiguousarray(first[rows][:, columns])
    yield still
    yield from (still for _ in frames)
