"""What a video holds beside its picture: further tracks, copied packet by packet, and titles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillspeak.errors import OutputError, VideoError
from stillspeak.media.source import Wanted, open_container
from stillspeak.media.video import VIDEO_FORMATS, read_errors

if TYPE_CHECKING:
    import av

_WANTED = Wanted("a video", VIDEO_FORMATS, VideoError)
_TITLES = frozenset(
    {"title", "artist", "album", "date", "description", "synopsis", "genre", "copyright", "show"}
)


class CopiedTracks:
    """A video's sound and subtitle tracks on their way into another file.

    Args:
        source: the video that is read.
        container: the one that is written; its header is not written yet.
        zero: what the source's clock shows when the output's shows 0.
        name: what messages call the output.
        but_sound: leave the first sound track out; what is left need not fit into the output.
        stack: closes the source.

    Raises:
        OutputError: a sound track cannot be copied into such a container.
    """

    def __init__(
        self,
        source: str | Path,
        container: av.container.OutputContainer,
        zero: float,
        name: str,
        *,
        but_sound: bool,
        stack: ExitStack,
    ) -> None:
        self.left_out: list[str] = []
        """Codecs of the tracks that cannot be in such a file."""
        self.sounds: list[str] = []
        """Codecs of the sound tracks that are copied."""
        self._name, self._zero, self._target, self._written = str(source), zero, container, name
        opened = stack.enter_context(open_container(source, self._name, _WANTED))
        self._tracks: dict[int, av.stream.Stream] = {}
        sounds = opened.streams.audio[1:] if but_sound else opened.streams.audio
        for track in (*sounds, *opened.streams.subtitles):
            self._take(track, must=track.type == "audio" and not but_sound)
        wanted = [track for track in opened.streams if track.index in self._tracks]
        self._packets: Iterator[av.Packet[Any]] = opened.demux(*wanted) if wanted else iter(())
        self._waiting: av.Packet[Any] | None = None
        titles = {key: text for key, text in opened.metadata.items() if key.lower() in _TITLES}
        container.metadata.update(titles)
        if chapters := opened.chapters():
            container.set_chapters(chapters)

    def _take(self, track: av.stream.Stream, must: bool) -> None:
        import av

        codec = track.codec_context.name if track.codec_context else "unknown"
        try:
            copy = self._target.add_stream_from_template(track)
        except (ValueError, av.FFmpegError) as problem:
            if must:
                raise self.refusal(codec) from problem
            self.left_out.append(codec)
            return
        self._tracks[track.index] = copy
        if track.type == "audio":
            self.sounds.append(codec)
        copy.metadata.update(
            {key: track.metadata[key] for key in ("language", "title") if key in track.metadata}
        )

    def copy(self, until: float | None) -> None:
        """Copy the packets that begin before a time on the source's clock; None: all that are
        left.

        Raises:
            VideoError, OutputError: they cannot be read, or written.
        """
        while True:
            if self._waiting is None:
                with read_errors(self._name):
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
                packet.stream = self._tracks[packet.stream.index]
                self._target.mux(packet)
            self._waiting = None

    def refusal(self, codec: str | None = None) -> OutputError:
        """That sound of a codec, by default of the first track, cannot be in such a file."""
        suffix = Path(self._written).suffix
        return OutputError(
            f"{self._written}: the sound ({codec or self.sounds[0]}) cannot be copied into "
            f"{suffix}; write .mkv instead"
        )
