"""Encoders of video files: one container with its picture and sound tracks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from stillspeak.media.audio import Waveform
from stillspeak.media.video import Frame

if TYPE_CHECKING:
    import av

# Encoder's sample format and bit rate, by codec.
_SAMPLE_FORMATS = {"aac": "fltp", "libopus": "flt", "pcm_s16le": "s16"}
_BIT_RATES = {"aac": 128_000, "libopus": 64_000}
_PCM_BLOCK = 1024
# Names that the MP4 container has a place for; others need its free-form list.
_MP4_KEYS = frozenset(
    {"title", "artist", "album", "album_artist", "comment", "composer", "copyright", "date"}
    | {"description", "genre", "synopsis", "encoder"}
)


class MovieEncoder:
    """One file with H.264 or VP9 pictures in BT.709, and the sound that belongs to them.

    Args:
        place: as of :func:`open_output`, with ``muxer``, FFmpeg's name of the container.
        picture: FFmpeg's name of the encoder, and its options.
        size: height and width of the frames in pixels, even numbers.
        sound: FFmpeg's name of the encoder, and samples a second; None: no sound.
    """

    def __init__(
        self,
        place: Path | BinaryIO,
        muxer: str,
        picture: tuple[str, dict[str, str]],
        size: tuple[int, int],
        fps: int,
        sound: tuple[str, int] | None,
        metadata: Mapping[str, str],
    ) -> None:
        from av.video.reformatter import ColorRange

        self.count = 0
        self.container = open_output(place, muxer, metadata)
        self._time_base = Fraction(1, fps)
        self._picture = add_picture(self.container, picture, fps, size, "yuv420p")
        context = self._picture.codec_context
        context.time_base = self._time_base
        # Without the tags every player makes its own guess at the colours. In ITU-T H.273,
        # which FFmpeg follows, BT.709 is number 1 in all three lists.
        context.color_primaries = context.color_trc = context.colorspace = 1
        context.color_range = ColorRange.MPEG
        self.sound = None if sound is None else SoundEncoder(self.container, *sound)
        self.container.start_encoding()

    def convert(self, frame: Frame) -> av.VideoFrame:
        """A frame (H, W, 3) uint8 as the encoder takes it."""
        from av.video.reformatter import ColorRange, Colorspace

        return rgb_frame(frame).reformat(
            format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )

    def write(self, picture: av.VideoFrame) -> None:
        """Show a converted frame next; the same one may be shown again."""
        picture.pts, picture.time_base = self.count, self._time_base
        self.count += 1
        self.container.mux(self._picture.encode(picture))

    def finish(self, samples: int | None = None) -> None:
        """End the file; ``samples`` is the length of the sound, if it is not what came in."""
        self.container.mux(self._picture.encode(None))
        if self.sound is not None:
            self.sound.finish(samples)
        self.container.close()

    def close(self) -> None:
        """Let go of an unfinished file; after :meth:`finish` nothing happens."""
        with suppress(Exception):
            self.container.close()


class SoundEncoder:
    """A mono sound track, encoded in blocks as the samples come."""

    def __init__(self, container: av.container.OutputContainer, codec: str, rate: int) -> None:
        import av

        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        self._container, self._stream, self._rate = container, stream, rate
        self._format = _SAMPLE_FORMATS[codec]
        self._ready: Waveform = np.zeros(0, np.float32)
        self._written = 0
        context = stream.codec_context
        context.layout, context.format = "mono", self._format
        if codec in _BIT_RATES:
            context.bit_rate = _BIT_RATES[codec]
        context.time_base = Fraction(1, rate)

    def add(self, samples: Waveform) -> None:
        """Samples (S,) float32; what lies beyond [-1, 1] is clipped."""
        self._ready = np.concatenate([self._ready, samples])
        while self._ready.shape[0] >= self._block:
            self._encode()

    def finish(self, samples: int | None = None) -> None:
        """Encode the rest, cut or filled with silence to ``samples`` in all."""
        if samples is not None:
            left = samples - self._written
            self._ready = np.pad(self._ready, (0, max(left - self._ready.shape[0], 0)))[:left]
        while self._ready.size:
            self._encode()
        self._container.mux(self._stream.encode(None))

    @property
    def _block(self) -> int:
        """Samples that are encoded at once; known once the file has begun."""
        return self._stream.codec_context.frame_size or _PCM_BLOCK

    def _encode(self) -> None:
        import av

        samples, self._ready = np.split(self._ready, [self._block])
        samples = np.clip(samples, -1.0, 1.0)
        if self._format == "s16":
            samples = np.rint(samples * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], self._format, "mono")
        frame.sample_rate = self._rate
        # Without a time of its own the first frame would be placed after the encoder's
        # start-up delay, and the sound would come that much late.
        frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
        self._written += samples.shape[0]
        self._container.mux(self._stream.encode(frame))


def rgb_frame(pixels: Frame) -> av.VideoFrame:
    """A frame (H, W, 3) uint8 as FFmpeg takes it."""
    import av

    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")


def picture_encoder(suffix: str, crf: int, *, speed: int = 5) -> tuple[str, dict[str, str]]:
    """FFmpeg's name and options of a movie's picture encoder; ``speed`` is VP9's, up to 8."""
    if suffix != ".webm":
        return "libx264", {"crf": str(crf)}
    # VP9's scale ends at 63, not 51. At its default speed it takes seconds for a frame.
    vp9 = {"crf": str(round(crf * 63 / 51)), "b": "0", "deadline": "good"}
    return "libvpx-vp9", vp9 | {"cpu-used": str(speed), "row-mt": "1"}


def open_output(
    place: Path | BinaryIO, muxer: str, metadata: Mapping[str, str] | None = None
) -> av.container.OutputContainer:
    """A container to write to: a file, or an open file that a player reads meanwhile."""
    import av

    metadata = metadata or {}
    options = {}
    if not isinstance(place, Path):
        options["flush_packets"] = "1"
    elif muxer in ("mp4", "mov"):
        own_keys = "" if _MP4_KEYS.issuperset(metadata) else "+use_metadata_tags"
        options["movflags"] = f"+faststart{own_keys}"
    container = av.open(
        # The prefix keeps a colon in the path from being read as the end of a protocol's name.
        f"file:{place}" if isinstance(place, Path) else place,
        mode="w",
        format=muxer,
        container_options=options,
    )
    container.metadata.update(metadata)
    return container


def add_picture(
    container: av.container.OutputContainer,
    encoder: tuple[str, dict[str, str]],
    fps: int | Fraction,
    size: tuple[int, int],
    pixel_format: str,
) -> av.VideoStream:
    """A picture track; ``size`` is height and width in pixels."""
    import av

    codec, options = encoder
    stream = container.add_stream(codec, rate=fps, options=options)
    assert isinstance(stream, av.VideoStream)
    stream.height, stream.width = size
    stream.pix_fmt = pixel_format
    return stream
