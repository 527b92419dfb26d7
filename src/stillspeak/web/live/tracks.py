"""The tracks that a peer receives: sound in packets of 20 ms, and pictures.

Sound and picture of a frame have the same place on both time lines.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from fractions import Fraction
from typing import Any

import av
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from stillspeak.media.audio import Waveform
from stillspeak.realtime.session import Picture, RealtimeSession, even, pcm16

RATE = 48_000
"""Samples a second of Opus, in and out."""

PACKET = RATE // 50
"""Samples in an audio packet: 20 ms."""

VIDEO_CLOCK = 90_000
"""Ticks a second of RTP video."""

SOUND_PACKETS = 50
"""Packets of sound that wait for a slow network, 1 s; the oldest are dropped beyond."""


class _Track(MediaStreamTrack):
    """A bounded queue; the oldest items are dropped for new ones."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self._items: deque[tuple[int, Any]] = deque(maxlen=size)
        self._more = asyncio.Event()
        self.dropped = 0

    def _put(self, time_stamp: int, item: Any) -> None:
        self.dropped += len(self._items) == self._items.maxlen
        self._items.append((time_stamp, item))
        self._more.set()

    async def _take(self) -> tuple[int, Any]:
        while not self._items:
            self._more.clear()
            if self.readyState != "live":
                raise MediaStreamError
            await self._more.wait()
        return self._items.popleft()

    def stop(self) -> None:
        super().stop()
        self._more.set()


class SoundTrack(_Track):
    """Sound in packets, each when it is due."""

    kind = "audio"

    def __init__(self, talk: RealtimeSession) -> None:
        super().__init__(SOUND_PACKETS)
        self._talk = talk

    def put(self, index: int, sound: Waveform) -> None:
        """Queue the sound of a frame, (1920,) float32."""
        samples = pcm16(sound)
        for begin in range(0, len(samples), PACKET):
            self._put(index * len(samples) + begin, samples[begin : begin + PACKET])

    async def recv(self) -> av.AudioFrame:
        pts, samples = await self._take()
        # Sender reports tie the time stamp of the last packet to the time it was sent: the second
        # packet of a frame must not go out with the first.
        wait = self._talk.due(pts / RATE * self._talk.fps) - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, pts, Fraction(1, RATE)
        return frame


class PictureTrack(_Track):
    """Pictures; one that the encoder has not taken is replaced by the next."""

    kind = "video"

    def __init__(self, fps: int) -> None:
        super().__init__(1)
        self._fps = fps

    def put(self, index: int, picture: Picture) -> None:
        """Queue the picture of a frame, (H, W, 3) uint8."""
        self._put(index, picture)

    async def recv(self) -> av.VideoFrame:
        index, picture = await self._take()
        frame = av.VideoFrame.from_ndarray(even(picture), "rgb24")
        frame.pts = index * VIDEO_CLOCK // self._fps
        frame.time_base = Fraction(1, VIDEO_CLOCK)
        return frame
