"""Encoders of video files: one container with its picture and sound tracks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from stillspeak.media.audio import SOUND, Waveform, sound_stream
from stillspeak.media.sound import LAYOUTS, SoundFeed, SoundSource
from stillspeak.media.source import open_container, source_name
from stillspeak.media.video import Frame

if TYPE_CHECKING:
    import av

MUXERS = {".mp4": "mp4", ".mov": "mov", ".mkv": "matroska", ".m4v": "mp4", ".webm": "webm"}
"""FFmpeg's name of the container, by the suffix of a movie."""

SOUND_ENCODERS = {"mp4": "aac", "mov": "aac", "matroska": "aac", "webm": "libopus"}
"""FFmpeg's name of the sound's encoder, by container."""

# Encoder's sample format, and bit rate by layout, by codec.
_SAMPLE_FORMATS = {"aac": "fltp", "libopus": "flt", "pcm_s16le": "s16"}
_BIT_RATES = {
    "aac": {"mono": 128_000, "stereo": 192_000, "5.1": 384_000},
    "libopus": {"mono": 64_000, "stereo": 128_000, "5.1": 256_000},
}
# Opus knows no 44.1 kHz, and AAC's start-up delay of 1,024 samples, which some players do not
# take back, is 21 ms here but 64 ms at 16 kHz.
_SOUND_RATE = 48_000
_KEPT_RATES = (44_100, _SOUND_RATE)
# Codecs that are copied rather than encoded anew: what the container's usual players know.
_COPIED = {
    "mp4": {"aac"},
    "mov": {"aac", "alac", "pcm_s16le", "pcm_s24le"},
    "matroska": {"aac", "opus", "vorbis", "mp3", "flac"},
    "webm": {"opus", "vorbis"},
}
_WITH_HEADER = {"aac", "alac", "opus", "vorbis", "flac"}
_STEP_TOLERANCE = 0.005  # seconds by which packets may miss each other's ends
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
        pixel_format: FFmpeg's name of how the encoder takes pixels.
        sound: a source, whose sound is written in step with the pictures; or, for mono sound that
            is added to :attr:`sound`, FFmpeg's name of the encoder and samples a second; None: no
            sound.
    """

    def __init__(
        self,
        place: Path | BinaryIO,
        muxer: str,
        picture: tuple[str, dict[str, str]],
        size: tuple[int, int],
        fps: int | Fraction,
        sound: tuple[str, int] | SoundSource | None,
        metadata: Mapping[str, str],
        pixel_format: str = "yuv420p",
    ) -> None:
        from av.video.reformatter import ColorRange

        self.count = 0
        self.container = open_output(place, muxer, metadata)
        self._time_base = 1 / Fraction(fps)
        self._format = pixel_format
        self._picture = add_picture(self.container, picture, fps, size, pixel_format)
        context = self._picture.codec_context
        context.time_base = self._time_base
        # Without the tags every player makes its own guess at the colours. In ITU-T H.273,
        # which FFmpeg follows, BT.709 is number 1 in all three lists.
        context.color_primaries = context.color_trc = context.colorspace = 1
        context.color_range = ColorRange.MPEG
        self.sound = SoundEncoder(self.container, *sound) if isinstance(sound, tuple) else None
        self._track: SoundWriter | None = None
        if isinstance(sound, SoundSource):
            self._track = SoundWriter(self.container, muxer, sound)
        self.container.start_encoding()

    def convert(self, frame: Frame) -> av.VideoFrame:
        """A frame (H, W, 3) or RGBA (H, W, 4) uint8 as the encoder takes it."""
        from av.video.reformatter import ColorRange, Colorspace

        return rgb_frame(frame).reformat(
            format=self._format, dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG
        )

    def write(self, picture: av.VideoFrame) -> None:
        """Show a converted frame next; the same one may be shown again."""
        picture.pts, picture.time_base = self.count, self._time_base
        self.count += 1
        self.container.mux(self._picture.encode(picture))
        if self._track is not None:
            self._track.until(self.count * self._time_base)

    def finish(self) -> None:
        """End the file, and the track's sound with the picture."""
        self.container.mux(self._picture.encode(None))
        if self.sound is not None:
            self.sound.finish()
        if self._track is not None:
            self._track.finish(self.count * self._time_base)
        self.container.close()

    def close(self) -> None:
        """Let go of an unfinished file; after :meth:`finish` nothing happens."""
        if self._track is not None:
            self._track.close()
        with suppress(Exception):
            self.container.close()


class SoundEncoder:
    """A sound track, encoded in blocks as the samples come.

    Args:
        container: what it goes into, before its encoding starts.
        codec: FFmpeg's name of the encoder.
        rate: samples a second.
        layout: one of :data:`~stillspeak.media.sound.LAYOUTS`.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        codec: str,
        rate: int,
        layout: str = "mono",
    ) -> None:
        import av

        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.AudioStream)
        self._container, self._stream, self._rate = container, stream, rate
        self._format, self._layout = _SAMPLE_FORMATS[codec], layout
        self._ready: Waveform = np.zeros((LAYOUTS[layout], 0), np.float32)
        self._written = 0
        context = stream.codec_context
        context.layout, context.format = layout, self._format
        if codec in _BIT_RATES:
            context.bit_rate = _BIT_RATES[codec][layout]
        context.time_base = Fraction(1, rate)

    def add(self, samples: Waveform) -> None:
        """Samples (C, S), or (S,) for mono, float32; what lies beyond [-1, 1] is clipped."""
        self._ready = np.concatenate([self._ready, np.atleast_2d(samples)], axis=1)
        while self._ready.shape[1] >= self._block:
            self._encode()

    def finish(self) -> None:
        """Encode the rest."""
        while self._ready.size:
            self._encode()
        self._container.mux(self._stream.encode(None))

    @property
    def _block(self) -> int:
        """Samples that are encoded at once; known once the file has begun."""
        return self._stream.codec_context.frame_size or _PCM_BLOCK

    def _encode(self) -> None:
        import av

        samples, self._ready = np.split(self._ready, [self._block], axis=1)
        count = samples.shape[1]
        samples = np.clip(samples, -1.0, 1.0)
        if self._format == "s16":
            samples = np.rint(samples * 32767).astype(np.int16)
        if not self._format.endswith("p"):  # channels side by side
            samples = samples.T.reshape(1, -1)
        samples = np.ascontiguousarray(samples)
        frame = av.AudioFrame.from_ndarray(samples, self._format, self._layout)
        frame.sample_rate = self._rate
        # Without a time of its own the first frame would be placed after the encoder's
        # start-up delay, and the sound would come that much late.
        frame.pts, frame.time_base = self._written, Fraction(1, self._rate)
        self._written += count
        self._container.mux(self._stream.encode(frame))


class SoundWriter:
    """A source's sound in a container, written in step with the picture.

    The packets of its file are copied where they keep to their clock and the container's players
    know them; the last one may outlast the picture. Other sound is encoded anew, to the sample as
    long as the picture.

    Args:
        container: what it goes into, before its encoding starts.
        muxer: FFmpeg's name of the container.
        sound: its sample 0 comes with time 0.
        copy: False: encode in any case.

    Raises:
        AudioError: the sound cannot be read; the methods raise it too.
    """

    def __init__(
        self,
        container: av.container.OutputContainer,
        muxer: str,
        sound: SoundSource,
        *,
        copy: bool = True,
    ) -> None:
        self._container = container
        self._stack = ExitStack()
        self._packets: Iterator[av.Packet[Any]] | None = None
        self._waiting: av.Packet[Any] | None = None
        if copy and self._copies(muxer, sound):
            return
        codec = SOUND_ENCODERS[muxer]
        rate = sound.rate if codec != "libopus" and sound.rate in _KEPT_RATES else _SOUND_RATE
        self._rate, self._done = rate, 0
        self._encoder = SoundEncoder(container, codec, rate, sound.layout)
        self._feed = SoundFeed(sound.at(rate))

    def until(self, seconds: float | Fraction) -> None:
        """Write what sounds before this time, in seconds."""
        if self._packets is not None:
            self._copy(seconds)
            return
        end = round(seconds * self._rate)
        self._encoder.add(self._feed.take(end - self._done))
        self._done = end

    def finish(self, seconds: float | Fraction) -> None:
        """Write the rest; the track ends at this time."""
        self.until(seconds)
        if self._packets is None:
            self._encoder.finish()
        self.close()

    def close(self) -> None:
        """Let go of the sound's file."""
        self._stack.close()

    def _copies(self, muxer: str, sound: SoundSource) -> bool:
        """Add a track for the packets of the sound's own file, if they can be copied."""
        import av

        if sound.file is None:
            return False
        name = source_name(sound.file)
        with open_container(sound.file, name, SOUND) as file:
            if not _copyable(file, sound_stream(file, name), muxer):
                return False
        file = self._stack.enter_context(open_container(sound.file, name, SOUND))
        source = sound_stream(file, name)
        try:
            self._track = self._container.add_stream_from_template(source)
        except (ValueError, av.FFmpegError):
            self.close()
            return False
        assert source.time_base is not None
        self._shift = round(sound.start / source.time_base)
        self._packets = file.demux(source)
        return True

    def _copy(self, until: float | Fraction) -> None:
        assert self._packets is not None
        while True:
            packet = self._waiting = self._waiting or next(self._packets, None)
            if packet is None or packet.pts is None:  # the end
                return
            begin = (packet.pts - self._shift) * packet.time_base
            if begin >= until:
                return
            packet.pts -= self._shift
            packet.dts = packet.pts
            packet.stream = self._track
            self._container.mux(packet)
            self._waiting = None


def _copyable(file: av.container.InputContainer, stream: av.AudioStream, muxer: str) -> bool:
    """Whether a sound's packets are what a container's players know and follow each other."""
    context, clock = stream.codec_context, stream.time_base
    if context is None or not clock:  # no decoder knows it
        return False
    codec = context.codec.canonical_name
    if codec not in _COPIED[muxer]:
        return False
    # Milliseconds, as Matroska counts, are too coarse for formats that count samples.
    if muxer in ("mp4", "mov") and clock > Fraction(1, 8000):
        return False
    if codec in _WITH_HEADER and not context.extradata:
        return False
    expected: int | None = None
    for packet in file.demux(stream):
        if not packet.size:
            continue
        if packet.pts is None or not packet.duration or packet.is_corrupt:
            return False
        if expected is not None and abs(packet.pts - expected) * clock > _STEP_TOLERANCE:
            return False
        expected = packet.pts + packet.duration
    return expected is not None


def rgb_frame(pixels: Frame) -> av.VideoFrame:
    """A frame (H, W, 3) or RGBA (H, W, 4) uint8 as FFmpeg takes it."""
    import av

    form = "rgb24" if pixels.shape[2] == 3 else "rgba"
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format=form)


def picture_encoder(suffix: str, crf: int, *, speed: int = 5) -> tuple[str, dict[str, str]]:
    """FFmpeg's name and options of a movie's picture encoder; ``speed`` is VP9's, up to 8."""
    if suffix != ".webm":
        return "libx264", {"crf": str(crf)}
    # VP9's scale ends at 63, not 51. At its default speed it takes seconds for a frame.
    vp9 = {"crf": str(round(crf * 63 / 51)), "b": "0", "deadline": "good"}
    return "libvpx-vp9", vp9 | {"cpu-used": str(speed), "row-mt": "1"}


def cutout_encoder(suffix: str, crf: int) -> tuple[tuple[str, dict[str, str]], str] | None:
    """A movie's picture encoder for frames with transparency, and the pixel format it takes: VP9
    with alpha, or ProRes 4444, which has a quality of its own. None: the format has none."""
    if suffix == ".webm":
        codec, options = picture_encoder(suffix, crf)
        return (codec, options | {"auto-alt-ref": "0"}), "yuva420p"
    if suffix == ".mov":
        return ("prores_ks", {"profile": "4444", "alpha_bits": "16"}), "yuva444p10le"
    return None


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
