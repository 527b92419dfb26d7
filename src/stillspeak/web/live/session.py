"""One live session: a WebRTC peer, its face, and the tasks between them."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import numpy.typing as npt
from aiortc import (
    RTCConfiguration,
    RTCDataChannel,
    RTCIceServer,
    RTCPeerConnection,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

from stillspeak.errors import ConfigError, StillspeakError
from stillspeak.realtime.session import RealtimeSession
from stillspeak.web.errors import ApiError, log
from stillspeak.web.live.tracks import PictureTrack, SoundTrack
from stillspeak.web.settings import ServeSettings

if TYPE_CHECKING:
    from stillspeak.dub.live import LiveDub
    from stillspeak.rendering.check import StillWarning

MESSAGE_BYTES = 4096
"""Largest message on the data channel."""

CHANNEL_BYTES = 64 * 1024
"""Bytes that may wait on the data channel; while they do no statistics are sent."""

CAMERA_PIXELS = 4096 * 2304
"""Largest picture of a camera."""

STATS_SECONDS = 1.0
"""Between two messages with statistics."""


def _shown(frame: av.VideoFrame, most: int) -> npt.NDArray[np.uint8]:
    """A camera's frame as (H, W, 3) uint8 RGB, H being ``most`` at most."""
    rows = min(frame.height, most)
    columns = max(round(frame.width * rows / frame.height), 1)
    return np.asarray(frame.reformat(columns, rows, "rgb24").to_ndarray(), np.uint8)


class LiveSession:
    """One peer: its connection, its face, and the tasks between them.

    ``ended`` is called once, when everything is closed.
    """

    def __init__(
        self, talk: RealtimeSession, settings: ServeSettings, ended: Callable[[LiveSession], object]
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        """Those who know it may end the session."""
        self.talk = talk
        self.sdp = ""
        """The answer, once there is one."""
        self.warnings: tuple[StillWarning, ...] = ()
        """What about the reference image makes its picture worse."""
        self.camera: LiveDub | None = None
        """Whose face the peer's own pictures show; None: they are not looked at."""
        self.sound, self.picture = SoundTrack(talk), PictureTrack(talk.fps)
        self.reason: str | None = None
        """Why it ended."""
        self._settings, self._ended = settings, ended
        self._peer = RTCPeerConnection(
            RTCConfiguration(iceServers=[RTCIceServer(**s) for s in settings.ice_servers])
        )
        self._channel: RTCDataChannel | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._began = self._last_sign = time.monotonic()
        self._connected = self._speaking = self._listening = self._looking = False
        self._peer.on("track", self._on_track)
        self._peer.on("datachannel", self._on_channel)
        self._peer.on("connectionstatechange", self._on_state)

    async def answer(self, sdp: str) -> str:
        """The SDP that answers an offer."""
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except Exception as error:  # of broken SDP the parser raises any class there is
            raise ApiError(400, "offer", "the offer's SDP cannot be read") from error
        kinds = [transceiver.kind for transceiver in self._peer.getTransceivers()]
        if sorted(kinds) != ["audio", "video"]:
            message = "the offer must have one audio and one video section, to receive both"
            raise ApiError(422, "offer", message)
        self._peer.addTrack(self.sound)
        self._peer.addTrack(self.picture)
        try:
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except Exception as error:  # likewise, where there is nothing to agree on
            message = "the offer shares no codec or transport with us"
            raise ApiError(422, "offer", message) from error
        self._start(self._watch())
        return self._peer.localDescription.sdp

    def close(self, reason: str) -> asyncio.Task[None]:
        """End the session; the task is done when nothing of it is left."""
        if self._closing is None:
            self.reason = reason
            self._closing = asyncio.create_task(self._close())
        return self._closing

    async def _close(self) -> None:
        self._send({"type": "end", "reason": self.reason})
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            await self.talk.close()
            if self.camera is not None:
                self.camera.close()
            self.sound.stop()
            self.picture.stop()
            with suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(self._peer.close(), 10)
        finally:
            self._peer.remove_all_listeners()
            self._channel = None
            self._ended(self)
            log.info("live session ended: %s", self.reason)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or self._closing is not None:
            return
        failure = task.exception()
        if failure is not None:
            log.error("live session failed", exc_info=failure)
            self.close(str(failure) if isinstance(failure, StillspeakError) else "internal error")

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and not self._listening:
            self._listening = True
            self._start(self._listen(track))
        elif track.kind == "video" and self.camera is not None and not self._looking:
            self._looking = True
            self._start(self._look(track, self.camera))

    def _on_channel(self, channel: RTCDataChannel) -> None:
        if self._channel is not None:
            return
        self._channel = channel
        channel.on("message", self._on_message)
        latency = self.talk.delay / self.talk.fps
        self._send({"type": "hello", "fps": self.talk.fps, "delay_seconds": latency})
        self._send({"type": "state", "state": "speaking" if self._speaking else "idle"})

    def _on_state(self) -> None:
        state = self._peer.connectionState
        if state == "connected" and not self._connected:
            self._connected = True
            self._last_sign = time.monotonic()
            self._start(self._play())
        elif state in ("failed", "closed", "disconnected"):
            self.close("the peer is gone")

    def _on_message(self, message: str | bytes) -> None:
        self._last_sign = time.monotonic()
        try:
            if len(message) > MESSAGE_BYTES:
                raise ValueError
            asked = json.loads(message)
            kind = asked["type"]
        except (ValueError, TypeError, KeyError, RecursionError):
            self._send({"type": "error", "message": 'messages are JSON objects with a "type"'})
            return
        if kind == "reset":
            self.talk.interrupt()
            self._send({"type": "reset"})
        elif kind == "mood":
            self._set_mood(asked.get("mood"))
        elif kind == "stats":
            self._send(self._stats())
        elif kind == "ping":
            self._send({"type": "pong"})
        elif kind == "end":
            self.close("ended by the peer")
        else:
            known = "reset, mood, stats, ping and end"
            self._send({"type": "error", "message": f"no such type; there are {known}"})

    def _set_mood(self, mood: Any) -> None:
        try:
            self.talk.set_mood(mood if isinstance(mood, str) else "")
        except ConfigError as error:
            self._send({"type": "error", "message": f"mood: {error}"})
        else:
            self._send({"type": "mood", "mood": mood})

    def _send(self, message: Mapping[str, Any]) -> None:
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return
        if channel.bufferedAmount < CHANNEL_BYTES:  # else the peer does not read
            with suppress(ConnectionError):
                channel.send(json.dumps(message))

    def _stats(self) -> dict[str, Any]:
        network = {
            "sound_packets_dropped": self.sound.dropped,
            "pictures_dropped": self.picture.dropped,
        }
        stats = {"type": "stats", **self.talk.stats(), "network": network}
        return stats if self.camera is None else stats | {"camera": asdict(self.camera.counts)}

    async def _listen(self, track: MediaStreamTrack) -> None:
        """Bring the peer's sound to the face."""
        expected: int | None = None
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return  # _watch sees whether anything else still comes
            self._last_sign = time.monotonic()
            if not self._connected or not isinstance(frame, av.AudioFrame):
                continue
            if expected is not None and frame.pts is not None:
                gap = (frame.pts - expected) / frame.sample_rate
                if 0 < gap <= 1:  # packets that were lost, not a clock that jumped
                    self.talk.buffer.silence(gap)
            expected = None if frame.pts is None else frame.pts + frame.samples
            channels = len(frame.layout.channels)
            samples = np.ascontiguousarray(frame.to_ndarray()).reshape(-1, channels)
            self.talk.push(samples, frame.sample_rate)

    async def _look(self, track: MediaStreamTrack, camera: LiveDub) -> None:
        """Bring the peer's pictures to the face, which takes the newest when it draws."""
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self._last_sign = time.monotonic()
            if not isinstance(frame, av.VideoFrame):
                continue
            if frame.width * frame.height > CAMERA_PIXELS:
                self.close(f"the camera's pictures have more than {CAMERA_PIXELS} pixels")
                return
            camera.look(partial(_shown, frame, self._settings.live_size))

    async def _play(self) -> None:
        """Bring frames to the tracks, and what happens to the data channel."""
        told = 0
        async for frame in self.talk:
            self.sound.put(frame.index, frame.sound)
            if frame.picture is not None:
                self.picture.put(frame.index, frame.picture)
            if frame.speaking != self._speaking:
                self._speaking = frame.speaking
                state = "speaking" if frame.speaking else "idle"
                self._send({"type": "state", "state": state, "beat": frame.index})
            if frame.index - told >= STATS_SECONDS * self.talk.fps:
                told = frame.index
                self._send(self._stats())

    async def _watch(self) -> None:
        """End the session when its peer is gone or its time is over."""
        settings = self._settings
        while True:
            await asyncio.sleep(min(0.5, settings.live_quiet_seconds / 4))
            now = time.monotonic()
            if not self._connected:
                if now - self._began > settings.live_connect_seconds:
                    self.close("the peer did not connect")
            elif now - self._last_sign > settings.live_quiet_seconds:
                self.close("nothing came from the peer")
            if now - self._began > settings.live_session_seconds:
                self.close(f"the session's {settings.live_session_seconds:g} s are over")
