"""Rewrite a video with some of its frames replaced; the sound is copied packet by packet.

The good frames go from the decoder to the encoder as they are, without a detour through RGB;
time stamps, size, rate and colour tags are the source's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import AudioError, OutputError, VideoError
from stillspeak.media.encoder import MUXERS, add_picture, open_output, picture_encoder, rgb_frame
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.source import Wanted, open_container
from stillspeak.media.video import (
    VIDEO_FORMATS,
    Frame,
    decode,
    frame_time,
    nominal_rate,
    open_video,
    read_errors,
    to_rgb,
)
from stillspeak.media.video_writer import check_file, output_errors
from stillspeak.system.atomic import partial_folder

if TYPE_CHECKING:
    import av

REWRITE_SUFFIXES = tuple(MUXERS)

MAX_HOLE = 3600.0
"""Seconds without a frame that are still taken for lost frames and not for a broken clock."""

_WANTED = Wanted("a video", VIDEO_FORMATS, AudioError)
_SAMPLE = 2000  # packets from which the frame rate is worked out
_STANDARD_RATES = (
    *(Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)),
    *(Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120)),
)
_RATE_TOLERANCE = 0.004
_KEPT_FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p")
_PARTLY_SYNTHETIC = "Partly synthetic video: frames or parts of frames made with stillspeak"


@dataclass(frozen=True)
class VideoScan:
    """What the packets say, without decoding. Times are seconds on the container's clock."""

    start: float
    end: float
    """Of the last frame, its own duration included."""
    fps: Fraction
    """Frames a second that the time stamps keep to where none is lost."""
    frames: int
    sound_start: float | None
    """Of the first sound track; None without one."""
    sound_end: float | None


def scan_video(path: str | Path, *, fps: Fraction | None = None) -> VideoScan:
    """Read a video's time stamps; ``fps`` is its true rate, where too little is left to tell.

    Raises:
        VideoError: missing, empty, text or damaged file, no picture track, or a clock that is
            set back inside.
    """
    name = str(path)
    times: list[float] = []
    frames = 0
    start = sound_start = np.inf
    end = sound_end = last_dts = -np.inf
    with open_video(path) as (container, stream), read_errors(name):
        sounds = container.streams.audio[:1]
        nominal = nominal_rate(stream)
        for packet in container.demux(stream, *sounds):
            if packet.pts is None or packet.time_base is None or packet.dts is None:
                continue
            time = float(packet.pts * packet.time_base)
            own = float((packet.duration or 0) * packet.time_base)
            if packet.stream is not stream:
                sound_start, sound_end = min(sound_start, time), max(sound_end, time + own)
                continue
            dts = float(packet.dts * packet.time_base)
            if dts < last_dts - 1.0:
                raise VideoError(
                    f"{name}: its clock is set back at {last_dts:.1f} s, as in files joined end to "
                    "end; re-encode it first"
                )
            last_dts = dts
            frames += 1
            start, end = min(start, time), max(end, time)
            if len(times) < _SAMPLE:
                times.append(time)
    if not frames:
        # Neither time stamps nor pictures: decoding tells which.
        raise VideoError(f"{name}: holds no video frames with time stamps; give {VIDEO_FORMATS}")
    rate = fps or _rate_of(times, nominal)
    sound = (sound_start, sound_end) if sound_start < np.inf else (None, None)
    return VideoScan(start, end + float(1 / rate), rate, frames, *sound)


def _rate_of(times: list[float], nominal: Fraction | None) -> Fraction:
    """The frame rate of a video that lost some of its frames."""
    steps = np.diff(np.sort(np.asarray(times)))
    steps = steps[steps > 1e-4]
    if not len(steps):
        return Fraction(VIDEO_FPS) if nominal is None else nominal
    usual = float(np.median(steps))
    interval = float(steps[(steps > 0.6 * usual) & (steps < 1.4 * usual)].mean())
    for known in (nominal, *_STANDARD_RATES):
        if known and abs(float(known) * interval - 1) < _RATE_TOLERANCE:
            return Fraction(known)
    return Fraction(1 / interval).limit_denominator(1001)


@dataclass(frozen=True, eq=False)
class TimedFrame:
    """A frame as decoded and its time in seconds on the container's clock."""

    source: av.VideoFrame
    time: float

    def rgb(self) -> Frame:
        """(H, W, 3) uint8, upright."""
        return to_rgb(self.source)

    @property
    def corrupt(self) -> bool:
        """The decoder found errors in it."""
        return bool(self.source.is_corrupt)


def timed_frames(path: str | Path) -> Iterator[TimedFrame]:
    """Every frame of a video, one at a time; those without a time stamp are left out.

    Raises:
        VideoError: it cannot be read, or its frames change their size.
    """
    with open_video(path) as (container, stream):
        first: av.VideoFrame | None = None
        last = -np.inf
        for frame in decode(container, stream, str(path)):
            time = frame_time(frame)
            if time is None or time <= last:
                continue
            first = first or frame
            if (frame.height, frame.width) != (first.height, first.width):
                raise VideoError(
                    f"{path}: its frames change their size at {time:.2f} s; re-encode it first"
                )
            last = time
            yield TimedFrame(frame, time)


def check_rewrite(source: str | Path, output: str | Path, *, overwrite: bool) -> Path:
    """Find out before the work begins whether ``output`` can be written.

    Raises:
        OutputExistsError: it is there and ``overwrite`` is False.
        OutputError: another suffix, a folder that is missing, or the source itself.
    """
    target = Path(output)
    suffix = target.suffix.lower()
    if suffix not in REWRITE_SUFFIXES:
        shown = f"the suffix {suffix}" if suffix else "no suffix"
        raise OutputError(
            f"{output}: videos with {shown} are not written here; give {REWRITE_SUFFIXES[0]}, "
            f"{', '.join(REWRITE_SUFFIXES[1:-1])} or {REWRITE_SUFFIXES[-1]}"
        )
    with suppress(OSError):
        if target.exists() and target.samefile(source):
            raise OutputError(f"{output}: is the video that is read; give another name")
    return check_file(output, overwrite=overwrite)


class Rewriter:
    """Writes frames as they come, and the source's sound packets in step with them.

    A context manager: left without an error it puts the file in place in one step; otherwise
    nothing of it remains.

    Args:
        source: the video whose sound, rate, colours and time stamps are kept.
        output: where to write; see :func:`check_rewrite`.
        scan: of the source.
        overwrite: replace what is there.
        crf: picture quality on H.264's scale, 0 (lossless) to 51.
        marks: what the file's credentials tell, if it has a place for them. Neither watermark nor
            label is drawn: good frames stay as they are.

    Raises:
        OutputError, OutputExistsError: it cannot be written.
        ConfigError: the certificate of the marks cannot be used.
    """

    def __init__(
        self,
        source: str | Path,
        output: str | Path,
        scan: VideoScan,
        *,
        overwrite: bool = False,
        crf: int = 12,
        marks: Marks | None = None,
    ) -> None:
        if not 0 <= crf <= 51:
            raise ValueError(f"crf is {crf}, it must be 0 to 51")
        self._source, self._name, self._overwrite = source, str(output), overwrite
        self._target = check_rewrite(source, output, overwrite=overwrite)
        self._scan, self._crf = scan, crf
        self._marking: Marking | None = None
        if marks is not None:
            plain = replace(marks, watermark=False, label=None)
            self._marking = Marking(plain, self._target.suffix.lower())
        self._zero = scan.start if scan.sound_start is None else min(scan.start, scan.sound_start)
        self._stack = ExitStack()
        self._container: av.container.OutputContainer | None = None
        self._shown = -1
        self.frames = 0

    def __enter__(self) -> Rewriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            if self._container is not None:
                with suppress(Exception):
                    self._container.close()
            self._stack.close()

    def keep(self, frame: TimedFrame) -> None:
        """Write a frame of the source as it is."""
        if not (self._turned or self._padded):
            picture = frame.source.reformat(format=self._format)
        else:
            picture = self._from_rgb(frame.rgb())
        self._write(picture, frame.time)

    def start(self, like: TimedFrame) -> None:
        """Begin the file; ``like`` is any frame of the source."""
        if self._container is None:
            with output_errors(self._name):
                self._open(like.source)

    def add(self, picture: Frame, time: float) -> None:
        """Write a new frame (H, W, 3) uint8, upright, at a time on the source's clock."""
        self._write(self._from_rgb(picture), time)

    def change(self, frame: TimedFrame, picture: Frame, where: npt.NDArray[np.bool_]) -> None:
        """Write a frame of the source with new pixels where ``where`` (H, W) is True.

        ``picture`` (H, W, 3) uint8 is upright. Elsewhere the source's own samples are kept.
        """
        drawn = self._from_rgb(picture)
        if not (self._turned or self._padded):
            kept = frame.source.reformat(format=self._format)
            for target, origin in zip(drawn.planes, kept.planes, strict=True):
                new, old = _samples(target), _samples(origin)
                down = -(-where.shape[0] // new.shape[0])
                across = -(-where.shape[1] // new.shape[1])
                touched = _any(where, down, across)
                np.copyto(new, old, where=~touched[: new.shape[0], : new.shape[1]])
        self._write(drawn, frame.time)

    def _open(self, like: av.VideoFrame) -> None:
        import av
        from av.video.reformatter import Colorspace

        suffix = self._target.suffix.lower()
        turns = round(like.rotation / 90) % 4
        self._turned = turns != 0
        height, width = (like.width, like.height) if turns % 2 else (like.height, like.width)
        self._padded = bool(height % 2 or width % 2)
        keeps = like.format.name in _KEPT_FORMATS and suffix != ".webm"
        self._format = like.format.name if keeps else "yuv420p"
        self._temporary = self._stack.enter_context(partial_folder(self._target)) / "video.part"
        container = open_output(self._temporary, MUXERS[suffix], {"comment": _PARTLY_SYNTHETIC})
        self._container = container
        encoder = picture_encoder(suffix, self._crf, speed=4)
        size = (height + height % 2, width + width % 2)
        stream = add_picture(container, encoder, self._scan.fps, size, self._format)
        self._stream = stream
        opened, source = self._stack.enter_context(open_video(self._source))
        context, before = stream.codec_context, source.codec_context
        self._time_base = source.time_base or Fraction(1, 90_000)
        context.time_base = self._time_base
        for tag in ("colorspace", "color_primaries", "color_trc", "color_range"):
            setattr(context, tag, getattr(before, tag))
        if source.sample_aspect_ratio and not self._turned:
            context.sample_aspect_ratio = source.sample_aspect_ratio
        # What no tag names is taken for BT.601 both ways.
        known = like.colorspace in {int(c) for c in Colorspace}
        self._colours = {
            "dst_colorspace": like.colorspace if known else None,
            "dst_color_range": like.color_range or None,
        }
        self._sounds = {}
        self._packets: Iterator[av.Packet[Any]] = iter(())
        if opened.streams.audio:
            sound = self._stack.enter_context(
                open_container(self._source, str(self._source), _WANTED)
            )
            for track in sound.streams.audio:
                try:
                    self._sounds[track.index] = container.add_stream_from_template(track)
                except (ValueError, av.FFmpegError) as problem:
                    raise self._cannot_copy(track) from problem
            self._packets = sound.demux(*sound.streams.audio)
        try:
            container.start_encoding()
        except (ValueError, av.FFmpegError) as problem:
            if not self._sounds:
                raise
            raise self._cannot_copy(sound.streams.audio[0]) from problem
        self._waiting: av.Packet[Any] | None = None

    def _cannot_copy(self, track: av.AudioStream) -> OutputError:
        return OutputError(
            f"{self._name}: the sound ({track.codec_context.name}) cannot be copied into "
            f"{self._target.suffix}; write .mkv instead"
        )

    def _from_rgb(self, picture: Frame) -> av.VideoFrame:
        pad = ((0, picture.shape[0] % 2), (0, picture.shape[1] % 2), (0, 0))
        frame = rgb_frame(np.pad(picture, pad, mode="edge"))
        return frame.reformat(format=self._format, **self._colours)

    def _write(self, picture: av.VideoFrame, time: float) -> None:
        from av.video.frame import PictureType

        assert self._container is not None, "start comes first"
        pts = round((time - self._zero) / float(self._time_base))
        # Two frames may not share a tick of a coarse clock.
        self._shown = max(pts, self._shown + 1)
        picture.pts, picture.time_base = self._shown, self._time_base
        picture.pict_type = PictureType.NONE  # the source's choice of key frames is not ours
        with output_errors(self._name):
            self._container.mux(self._stream.encode(picture))
        self.frames += 1
        self._copy_sound(time)

    def _copy_sound(self, until: float | None) -> None:
        """Copy the packets of sound that begin before a time; None: all that are left."""
        while True:
            if self._waiting is None:
                with read_errors(str(self._source)):
                    self._waiting = next(self._packets, None)
            packet = self._waiting
            if packet is None:
                return
            if packet.dts is not None and packet.time_base is not None:
                if until is not None and float(packet.dts * packet.time_base) > until:
                    return
                shift = round(self._zero / float(packet.time_base))
                packet.dts -= shift
                if packet.pts is not None:
                    packet.pts -= shift
                packet.stream = self._sounds[packet.stream.index]
                assert self._container is not None
                with output_errors(self._name):
                    self._container.mux(packet)
            self._waiting = None

    def _finish(self) -> None:
        if self._container is None:
            raise OutputError(f"{self._name}: there are no frames to write; nothing was written")
        with output_errors(self._name):
            self._container.mux(self._stream.encode(None))
        self._copy_sound(None)
        with output_errors(self._name):
            self._container.close()
            self._container = None
            # It may have appeared while the frames were made.
            check_rewrite(self._source, self._target, overwrite=self._overwrite)
            if self._marking is not None:
                self._marking.sign_file(self._temporary, self._name)
            self._temporary.replace(self._target)


def _samples(plane: av.video.plane.VideoPlane) -> npt.NDArray[np.uint8]:
    """A plane's samples, (rows, columns) uint8, to be written to."""
    whole = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    samples: npt.NDArray[np.uint8] = whole[: plane.height, : plane.width]
    return samples


def _any(where: npt.NDArray[np.bool_], down: int, across: int) -> npt.NDArray[np.bool_]:
    """Whether any pixel of each block of down x across is true."""
    rows, columns = -where.shape[0] % down, -where.shape[1] % across
    padded = np.pad(where, ((0, rows), (0, columns)))
    blocks = padded.reshape(padded.shape[0] // down, down, -1, across)
    return np.asarray(blocks.any(axis=(1, 3)))
