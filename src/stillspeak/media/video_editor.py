"""Rewrite a video with some of its frames replaced, and its sound copied or replaced.

The source's own samples go from the decoder to the encoder as they are, without a detour through
RGB; time stamps, size, rotation, rate and colour tags are the source's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import OutputError, VideoError
from stillspeak.media.dynamic_range import standard_range
from stillspeak.media.encoder import (
    MUXERS,
    SoundWriter,
    add_picture,
    open_output,
    picture_encoder,
    rgb_frame,
)
from stillspeak.media.marks.marking import Marking, Marks
from stillspeak.media.sound import SoundSource
from stillspeak.media.tracks import CopiedTracks
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

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, ends excluded."""

MAX_HOLE = 3600.0
"""Seconds without a frame that are still taken for lost frames and not for a broken clock."""

_SAMPLE = 2000  # packets from which the frame rate is worked out
_STANDARD_RATES = (
    *(Fraction(n * 1000, 1001) for n in (24, 30, 60, 120)),
    *(Fraction(n) for n in (10, 12, 15, 20, 24, 25, 30, 48, 50, 60, 100, 120)),
)
_RATE_TOLERANCE = 0.004
_STEP = 10.0  # seconds of sound that are written at once
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
    key_interval: int
    """Most frames from one key frame to the next."""


def scan_video(path: str | Path, *, fps: Fraction | None = None) -> VideoScan:
    """Read a video's time stamps; ``fps`` is its true rate, where too little is left to tell.

    Raises:
        VideoError: missing, empty, text or damaged file, no picture track, or a clock that is
            set back inside.
    """
    name = str(path)
    times: list[float] = []
    frames = since_key = key_interval = 0
    start = sound_start = np.inf
    end = sound_end = last_dts = -np.inf
    with open_video(path) as (container, stream), read_errors(name):
        sounds = container.streams.audio[:1]
        nominal = nominal_rate(stream)
        for packet in container.demux(stream, *sounds):
            if packet.pts is None or packet.time_base is None:
                continue
            time = float(packet.pts * packet.time_base)
            own = float((packet.duration or 0) * packet.time_base)
            if packet.stream is not stream:
                sound_start, sound_end = min(sound_start, time), max(sound_end, time + own)
                continue
            # Matroska has no decoding times; the first ones cannot be worked out.
            dts = last_dts if packet.dts is None else float(packet.dts * packet.time_base)
            if dts < last_dts - 1.0:
                raise VideoError(
                    f"{name}: its clock is set back at {last_dts:.1f} s, as in files joined end to "
                    "end; re-encode it first"
                )
            last_dts = dts
            frames += 1
            since_key = 1 if packet.is_keyframe else since_key + 1
            key_interval = max(key_interval, since_key)
            start, end = min(start, time), max(end, time)
            if len(times) < _SAMPLE:
                times.append(time)
    if not frames:
        # Neither time stamps nor pictures: decoding tells which.
        raise VideoError(f"{name}: holds no video frames with time stamps; give {VIDEO_FORMATS}")
    rate = fps or _rate_of(times, nominal)
    begins, ends = (sound_start, sound_end) if sound_start < np.inf else (None, None)
    return VideoScan(start, end + float(1 / rate), rate, frames, begins, ends, key_interval)


def _rate_of(times: list[float], nominal: Fraction | None) -> Fraction:
    """The frame rate of a video that lost some of its frames."""
    steps = np.diff(np.sort(np.asarray(times)))
    steps = steps[steps > 1e-4]
    if not len(steps):
        return Fraction(VIDEO_FPS) if nominal is None else nominal
    usual = float(np.sort(steps)[(len(steps) - 1) // 2])  # of two, the one that there is
    interval = float(steps[(steps > 0.6 * usual) & (steps < 1.4 * usual)].mean())
    for known in (nominal, *_STANDARD_RATES):
        if known and abs(float(known) * interval - 1) < _RATE_TOLERANCE:
            return Fraction(known)
    return Fraction(1 / interval).limit_denominator(1001) or Fraction(1, 1001)


@dataclass(frozen=True, eq=False)
class TimedFrame:
    """A frame as decoded, of standard range, and its time in seconds on the container's clock."""

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
            if time - last > MAX_HOLE and first is not None:
                raise VideoError(
                    f"{path}: its time stamps jump by {time - last:.0f} s at {last:.1f} s; repair "
                    "or cut it first"
                )
            first = first or frame
            if (frame.height, frame.width) != (first.height, first.width):
                raise VideoError(
                    f"{path}: its frames change their size at {time:.2f} s; re-encode it first"
                )
            last = time
            yield TimedFrame(standard_range(frame), time)


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
    """Writes frames as they come, and the sound and the subtitles in step with them.

    A context manager: left without an error it puts the file in place in one step; otherwise
    nothing of it remains.

    Args:
        source: the video whose tracks, rate, colours and time stamps are kept.
        output: where to write; see :func:`check_rewrite`.
        scan: of the source.
        overwrite: replace what is there.
        crf: picture quality on H.264's scale, 0 (lossless) to 51.
        preset: x264's, such as ``veryfast``; None: its own choice.
        marks: what the file's credentials tell, if it has a place for them. Neither watermark nor
            label is drawn: good frames stay as they are.
        sound: takes the place of the source's first sound track, from the first frame on.

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
        preset: str | None = None,
        marks: Marks | None = None,
        sound: SoundSource | None = None,
    ) -> None:
        if not 0 <= crf <= 51:
            raise ValueError(f"crf is {crf}, it must be 0 to 51")
        self._source, self._name, self._overwrite = source, str(output), overwrite
        self._target = check_rewrite(source, output, overwrite=overwrite)
        self._scan, self._crf, self._preset, self._new_sound = scan, crf, preset, sound
        self._marking: Marking | None = None
        if marks is not None:
            plain = replace(marks, watermark=False, label=None)
            self._marking = Marking(plain, self._target.suffix.lower())
        self._zero = scan.start
        if sound is None and scan.sound_start is not None:
            self._zero = min(scan.start, scan.sound_start)
        self._stack = ExitStack()
        self._container: av.container.OutputContainer | None = None
        self._sound: SoundWriter | None = None
        self._shown, self._said = -1, 0.0
        self.frames = 0
        self.seconds = 0.0
        """How long it is so far."""
        self.left_out: list[str] = []
        """Codecs of the source's tracks that the output has no place for."""

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
        self._write(self._even(frame.source.reformat(format=self._format)), frame.time)

    def start(self, like: TimedFrame) -> None:
        """Begin the file; ``like`` is any frame of the source."""
        if self._container is None:
            with output_errors(self._name):
                self._open(like.source)

    def add(self, picture: Frame, time: float) -> None:
        """Write a new frame (H, W, 3) uint8, upright, at a time on the source's clock."""
        self._write(self._even(self._from_rgb(self._lying(picture))), time)

    def change(self, frame: TimedFrame, was: Frame, picture: Frame, box: Box | None = None) -> None:
        """Write a frame of the source with new pixels.

        Args:
            frame: whose samples are kept wherever the two pictures are equal.
            was: (H, W, 3) uint8, upright: the frame's own picture.
            picture: likewise, with new pixels.
            box: the only pixels that can differ; None: all.
        """
        kept = frame.source.reformat(format=self._format)
        if kept is frame.source:  # which may be the decoder's, and be shown again
            kept = _copied(kept)
        old, new = self._lying(was), self._lying(picture)
        height, width = old.shape[:2]
        x0, y0, x1, y1 = _turned(box or (0, 0, was.shape[1], was.shape[0]), self._turns, was.shape)
        # Whole chroma samples, and a margin that the filters of the conversion see.
        x0, y0 = max(x0 // 2 * 2 - 2, 0), max(y0 // 2 * 2 - 2, 0)
        x1, y1 = min(-(-x1 // 2) * 2 + 2, width), min(-(-y1 // 2) * 2 + 2, height)
        part = np.s_[y0:y1, x0:x1]
        unlike = old[part] != new[part]
        differs = unlike[..., 0] | unlike[..., 1] | unlike[..., 2]
        if differs.any():
            for target, origin in zip(kept.planes, self._from_rgb(new[part]).planes, strict=True):
                samples, made = _samples(target), _samples(origin)
                down, across = -(-height // target.height), -(-width // target.width)
                touched = _any(differs, down, across)[: made.shape[0], : made.shape[1]]
                area = samples[y0 // down :, x0 // across :]
                np.copyto(area[: made.shape[0], : made.shape[1]], made, where=touched)
        self._write(self._even(kept), frame.time)

    def _open(self, like: av.VideoFrame) -> None:
        from av.video.reformatter import Colorspace

        suffix = self._target.suffix.lower()
        self._turns = round(like.rotation / 90) % 4
        keeps = like.format.name in _KEPT_FORMATS and suffix != ".webm"
        self._format = like.format.name if keeps else "yuv420p"
        self._temporary = self._stack.enter_context(partial_folder(self._target)) / "video.part"
        container = open_output(self._temporary, MUXERS[suffix], {"comment": _PARTLY_SYNTHETIC})
        self._container = container
        codec, options = picture_encoder(suffix, self._crf, speed=4)
        if self._preset and codec == "libx264":
            options = options | {"preset": self._preset}
        # Subsampled colours have no place for the last of an odd number of rows or columns.
        self._size = (like.height + like.height % 2, like.width + like.width % 2)
        stream = add_picture(container, (codec, options), self._scan.fps, self._size, self._format)
        self._stream = stream
        if self._turns:
            stream.set_display_rotation(90 * self._turns)
        with open_video(self._source) as (_, source):
            context = stream.codec_context
            self._time_base = source.time_base or Fraction(1, 90_000)
            context.time_base = self._time_base
            for tag in ("colorspace", "color_primaries", "color_trc", "color_range"):
                setattr(context, tag, getattr(like, tag))
            if source.sample_aspect_ratio:
                context.sample_aspect_ratio = source.sample_aspect_ratio
        # What no tag names is taken for BT.601 both ways.
        known = like.colorspace in {int(c) for c in Colorspace}
        self._colours = {
            "dst_colorspace": like.colorspace if known else None,
            "dst_color_range": like.color_range or None,
        }
        self._open_tracks(container, MUXERS[suffix])

    def _open_tracks(self, container: av.container.OutputContainer, muxer: str) -> None:
        import av

        new = self._new_sound
        if new is not None:
            self._sound = SoundWriter(container, muxer, new)
            self._stack.callback(self._sound.close)
        self._tracks = CopiedTracks(
            *(self._source, container, self._zero, self._target.name),
            but_sound=new is not None,
            stack=self._stack,
        )
        self.left_out = self._tracks.left_out
        try:
            container.start_encoding()
        except (ValueError, av.FFmpegError) as problem:
            if not self._tracks.sounds:
                raise
            raise self._tracks.refusal() from problem

    def _lying(self, picture: Frame) -> Frame:
        """An upright picture as the source's frames lie."""
        return np.rot90(picture, -self._turns)

    def _from_rgb(self, picture: Frame) -> av.VideoFrame:
        # A second thread costs more than it saves, as it is begun for each picture.
        return rgb_frame(picture).reformat(format=self._format, threads=1, **self._colours)

    def _even(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The picture with its last row and column twice, if it has an odd number of them."""
        if (picture.height, picture.width) == self._size:
            return picture
        return _copied(picture, self._size)

    def _write(self, picture: av.VideoFrame, time: float) -> None:
        from av.video.frame import PictureType

        assert self._container is not None, "start comes first"
        pts = round((time - self._zero) / float(self._time_base))
        # Two frames may not share a tick of a coarse clock.
        self._shown = max(pts, self._shown + 1)
        picture.pts, picture.time_base = self._shown, self._time_base
        picture.pict_type = PictureType.NONE  # the source's choice of key frames is not ours
        self.seconds = time - self._zero + float(1 / self._scan.fps)
        with output_errors(self._name):
            self._container.mux(self._stream.encode(picture))
            self.frames += 1
            self._say(time - self._zero)
            self._tracks.copy(time)

    def _say(self, until: float) -> None:
        """Write the new sound up to a time, little by little: a frame may stand for an hour."""
        if self._sound is not None:
            while self._said < until:
                self._said = min(self._said + _STEP, until)
                self._sound.until(self._said)

    def _finish(self) -> None:
        if self._container is None:
            raise OutputError(f"{self._name}: there are no frames to write; nothing was written")
        with output_errors(self._name):
            self._container.mux(self._stream.encode(None))
            if self._sound is not None:
                self._say(self.seconds)
                self._sound.finish(self.seconds)
                self._tracks.copy(self._zero + self.seconds)
            else:
                self._tracks.copy(None)
            self._container.close()
            self._container = None
            # It may have appeared while the frames were made.
            check_rewrite(self._source, self._target, overwrite=self._overwrite)
            if self._marking is not None:
                self._marking.sign_file(self._temporary, self._name)
            self._temporary.replace(self._target)


def _turned(box: Box, turns: int, shape: tuple[int, ...]) -> Box:
    """A box of an upright picture (H, W) in the same picture as it lies, turned back so often."""
    x0, y0, x1, y1 = box
    height, width = shape[:2]
    for _ in range(turns):  # a quarter clockwise
        x0, y0, x1, y1 = height - y1, x0, height - y0, x1
        height, width = width, height
    return x0, y0, x1, y1


def _copied(frame: av.VideoFrame, size: tuple[int, int] | None = None) -> av.VideoFrame:
    """A frame's samples in one of its own, of the same size or larger by a row or a column."""
    import av

    height, width = size or (frame.height, frame.width)
    copy = av.VideoFrame(width, height, frame.format.name)
    for target, origin in zip(copy.planes, frame.planes, strict=True):
        new, old = _samples(target), _samples(origin)
        new[: old.shape[0], : old.shape[1]] = old
        new[old.shape[0] :] = new[old.shape[0] - 1]
        new[:, old.shape[1] :] = new[:, old.shape[1] - 1 : old.shape[1]]
    copy.colorspace, copy.color_range = frame.colorspace, frame.color_range
    return copy


def _samples(plane: av.video.plane.VideoPlane) -> npt.NDArray[np.uint8]:
    """A plane's samples, (rows, columns) uint8, to be written to."""
    whole = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)  # type: ignore[call-overload]
    samples: npt.NDArray[np.uint8] = whole[: plane.height, : plane.width]
    return samples


def _any(where: npt.NDArray[np.bool_], down: int, across: int) -> npt.NDArray[np.bool_]:
    """Whether any pixel of each block of down x across is true."""
    where = np.pad(where, ((0, -where.shape[0] % down), (0, -where.shape[1] % across)))
    found = np.zeros((where.shape[0] // down, where.shape[1] // across), bool)
    for row in range(down):  # several times as fast as any() over blocks
        for column in range(across):
            found |= where[row::down, column::across]
    return found
