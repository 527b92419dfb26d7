"""The live face in a browser: WebRTC, sound in, picture and sound out in step.

:func:`live_router` is the part of ``stillspeak serve`` under ``/live``: a page, and an endpoint
that answers a WebRTC offer. All sessions share one model. Each has a
:class:`~stillspeak.realtime.session.RealtimeSession`, whose frames go to two tracks on one clock:
sound and picture of a frame have the same place on both tracks' time lines and leave at the same
moment, which is what a receiver brings into step by RTP time stamps and sender reports.

No server of anybody else is asked for anything: there is no STUN server unless the user names one.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stillspeak.errors import ConfigError, MissingDependencyError, StillspeakError
from stillspeak.options import OPTIONS, AnimateOptions
from stillspeak.realtime.session import Picture, RealtimeSession, even, pcm16
from stillspeak.weights import DEFAULT_MODEL

try:
    import av
    from aiortc import (
        RTCConfiguration,
        RTCDataChannel,
        RTCIceServer,
        RTCPeerConnection,
        RTCSessionDescription,
    )
    from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
    from fastapi import APIRouter, Request
    from fastapi.responses import FileResponse, JSONResponse, Response
except ImportError as error:
    raise MissingDependencyError(
        f"live video in the browser needs {error.name}: pip install 'stillspeak[serve]'"
    ) from error

if TYPE_CHECKING:
    from stillspeak.animate import Animator
    from stillspeak.rendering.check import StillWarning

log = logging.getLogger(__name__)

RATE = 48_000
"""Samples a second of Opus, in and out."""

PACKET = RATE // 50
"""Samples in an audio packet: 20 ms, what Opus in WebRTC takes at a time."""

VIDEO_CLOCK = 90_000
"""Ticks a second of RTP video."""

SOUND_PACKETS = 50
"""Packets of sound that wait for a slow network, 1 s; the oldest are dropped beyond."""

OFFER_BYTES = 256 * 1024
"""Largest SDP of an offer."""

MESSAGE_BYTES = 4096
"""Largest message on the data channel."""

CHANNEL_BYTES = 64 * 1024
"""Bytes that may wait on the data channel; while they do no statistics are sent."""

STATS_SECONDS = 1.0
"""Between two messages with statistics."""

STATIC = Path(__file__).parents[1] / "static" / "live"
PAGES = {
    "": ("index.html", "text/html"),
    "live.js": ("live.js", "text/javascript"),
    "live.css": ("live.css", "text/css"),
}
HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@dataclass(frozen=True)
class LiveSettings:
    """What a server allows, and how it draws.

    Raises:
        ConfigError: a number out of range, or a URL that is none of a STUN or TURN server.
    """

    model: str | Path = DEFAULT_MODEL
    """A released model's name, or a weights file."""
    device: str = "auto"
    sessions: int = 4
    """Sessions at a time; more are refused with status 503."""
    size: int = 512
    """Largest height in pixels of a session's picture."""
    session_seconds: float = 1800.0
    """A session ends after so long."""
    quiet_seconds: float = 30.0
    """A session ends when nothing, no packet and no message, has come for so long."""
    connect_seconds: float = 20.0
    """A session ends when its peer has not connected after so long."""
    upload_bytes: int = 10 * 2**20
    """Largest picture that may be sent."""
    workers: int = field(default_factory=lambda: max(min(os.cpu_count() or 1, 4), 1))
    """Threads that compute, for all sessions together."""
    stun: str | None = None
    """URL of a STUN server; none unless given, so that nobody else is asked for anything."""
    turn: str | None = None
    """URL of a TURN server."""
    turn_user: str | None = None
    turn_password: str | None = None

    def __post_init__(self) -> None:
        for name, least, most in (
            ("sessions", 1, 1000),
            ("size", 64, 2048),
            ("session_seconds", 1, 86_400),
            ("quiet_seconds", 1, 86_400),
            ("connect_seconds", 1, 600),
            ("upload_bytes", 1024, 2**30),
            ("workers", 1, 64),
        ):
            value = getattr(self, name)
            if not least <= value <= most:
                raise ConfigError(f"{name} {value:g} is out of range; give {least} to {most}")
        for name, schemes in (("stun", ("stun:", "stuns:")), ("turn", ("turn:", "turns:"))):
            url = getattr(self, name)
            if url is not None and not url.startswith(schemes):
                raise ConfigError(f"{name} {url!r} is no such server; give {schemes[0]}HOST:PORT")

    @property
    def ice_servers(self) -> list[dict[str, str]]:
        """The servers named, as WebRTC's configuration has them."""
        servers = [] if self.stun is None else [{"urls": self.stun}]
        if self.turn is not None:
            servers.append(
                {
                    "urls": self.turn,
                    "username": self.turn_user or "",
                    "credential": self.turn_password or "",
                }
            )
        return servers


class RefusedError(Exception):
    """A request that is answered with an error; the session does not come to be."""

    def __init__(self, status: int, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": code, "message": message, **more}}

    def response(self) -> JSONResponse:
        headers = {"Retry-After": "10"} if self.status == 503 else None
        return JSONResponse(self.body, self.status, headers)


class SoundTrack(MediaStreamTrack):
    """The beats' sound as packets of 20 ms; the oldest go where too many wait."""

    kind = "audio"

    def __init__(self, talk: RealtimeSession) -> None:
        super().__init__()
        self._talk = talk
        self._packets: deque[tuple[int, Any]] = deque(maxlen=SOUND_PACKETS)
        self._more = asyncio.Event()
        self.dropped = 0
        """Packets dropped because the network did not take them."""

    def put(self, beat: int, sound: Any) -> None:
        """Queue the sound of a beat, (1920,) float32."""
        samples = pcm16(sound)
        for begin in range(0, len(samples), PACKET):
            self.dropped += len(self._packets) == SOUND_PACKETS
            self._packets.append((beat * len(samples) + begin, samples[begin : begin + PACKET]))
        self._more.set()

    def stop(self) -> None:
        super().stop()
        self._more.set()

    async def recv(self) -> av.AudioFrame:
        """The next packet, when it is due."""
        while not self._packets:
            self._more.clear()
            if self.readyState != "live":
                raise MediaStreamError
            await self._more.wait()
        pts, samples = self._packets.popleft()
        # Sender reports tie the time stamp of the last packet to the time it was sent: the second
        # packet of a beat must not go out with the first.
        wait = self._talk.due(pts / RATE * self._talk.fps) - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, pts, Fraction(1, RATE)
        return frame


class PictureTrack(MediaStreamTrack):
    """The beats' pictures; one that the encoder has not taken is replaced by the next."""

    kind = "video"

    def __init__(self, fps: int) -> None:
        super().__init__()
        self._fps = fps
        self._next: tuple[int, Picture] | None = None
        self._more = asyncio.Event()
        self.dropped = 0
        """Pictures dropped because the encoder or the network did not take them."""

    def put(self, beat: int, picture: Picture) -> None:
        """Queue the picture of a beat, (H, W, 3) uint8."""
        self.dropped += self._next is not None
        self._next = beat, picture
        self._more.set()

    def stop(self) -> None:
        super().stop()
        self._more.set()

    async def recv(self) -> av.VideoFrame:
        """The next picture."""
        while self._next is None:
            self._more.clear()
            if self.readyState != "live":
                raise MediaStreamError
            await self._more.wait()
        (beat, picture), self._next = self._next, None
        frame = av.VideoFrame.from_ndarray(even(picture), "rgb24")
        frame.pts = beat * VIDEO_CLOCK // self._fps
        frame.time_base = Fraction(1, VIDEO_CLOCK)
        return frame


class LiveSession:
    """One peer: its connection, its face, and the tasks between them.

    Args:
        talk: the face and its clock.
        settings: the server's.
        ended: called once, when everything is closed.
    """

    def __init__(
        self, talk: RealtimeSession, settings: LiveSettings, ended: Callable[[LiveSession], None]
    ) -> None:
        self.id = secrets.token_urlsafe(16)
        """Whoever knows it may end the session."""
        self.talk = talk
        self.sdp = ""
        """The answer, once there is one."""
        self.warnings: tuple[StillWarning, ...] = ()
        """What about the still makes its picture worse."""
        self.sound, self.picture = SoundTrack(talk), PictureTrack(talk.fps)
        self.reason: str | None = None
        """Why it ended."""
        self._settings = settings
        self._ended = ended
        self._peer = RTCPeerConnection(
            RTCConfiguration(iceServers=[RTCIceServer(**s) for s in settings.ice_servers])
        )
        self._channel: RTCDataChannel | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing: asyncio.Task[None] | None = None
        self._began = self._last_sign = time.monotonic()
        self._connected = False
        self._speaking = False
        self._listening = False
        self._peer.on("track", self._on_track)
        self._peer.on("datachannel", self._on_channel)
        self._peer.on("connectionstatechange", self._on_state)

    async def answer(self, sdp: str) -> str:
        """The SDP that answers an offer.

        Raises:
            RefusedError: the offer cannot be answered.
        """
        try:
            await self._peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except Exception as error:  # SDP that is none makes the parser raise any class there is
            raise RefusedError(400, "offer", "the offer's SDP cannot be read") from error
        kinds = [transceiver.kind for transceiver in self._peer.getTransceivers()]
        if sorted(kinds) != ["audio", "video"]:
            raise RefusedError(
                422, "offer", "the offer must have one audio and one video section, to receive both"
            )
        self._peer.addTrack(self.sound)
        self._peer.addTrack(self.picture)
        try:
            await self._peer.setLocalDescription(await self._peer.createAnswer())
        except Exception as error:  # as above: what was offered and cannot be agreed on
            raise RefusedError(
                422, "offer", "the offer shares no codec or transport with us"
            ) from error
        self._start(self._watch())
        return self._peer.localDescription.sdp

    def interrupt(self) -> None:
        """Drop what was not played yet."""
        self.talk.interrupt()

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
            self.sound.stop()
            self.picture.stop()
            with suppress(TimeoutError, ConnectionError):
                await asyncio.wait_for(self._peer.close(), 10)
        finally:
            self._peer.remove_all_listeners()
            self._channel = None
            self._ended(self)
            log.info("live session ended: %s", self.reason)

    def _start(self, work: Any) -> None:
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

    # --- what the peer does -----------------------------------------------------------------

    def _on_track(self, track: MediaStreamTrack) -> None:
        if track.kind == "audio" and not self._listening:
            self._listening = True
            self._start(self._listen(track))

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
            self.interrupt()
            self._send({"type": "reset"})
        elif kind == "stats":
            self._send(self._stats())
        elif kind == "ping":
            self._send({"type": "pong"})
        elif kind == "end":
            self.close("ended by the peer")
        else:
            known = "reset, stats, ping and end"
            self._send({"type": "error", "message": f"no such type; there are {known}"})

    def _send(self, message: Mapping[str, Any]) -> None:
        channel = self._channel
        if channel is None or channel.readyState != "open":
            return
        if channel.bufferedAmount < CHANNEL_BYTES:  # else the peer does not read
            with suppress(ConnectionError):
                channel.send(json.dumps(message))

    def _stats(self) -> dict[str, Any]:
        stats = self.talk.stats()
        stats["network"] = {
            "sound_packets_dropped": self.sound.dropped,
            "pictures_dropped": self.picture.dropped,
        }
        return {"type": "stats", **stats}

    # --- tasks ------------------------------------------------------------------------------

    async def _listen(self, track: MediaStreamTrack) -> None:
        """Bring the peer's sound to the face."""
        expected: int | None = None
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return  # the watch sees whether anything else still comes
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

    async def _play(self) -> None:
        """Bring the beats to the tracks, and what happens to the data channel."""
        told = 0
        async for beat in self.talk:
            self.sound.put(beat.index, beat.sound)
            if beat.picture is not None:
                self.picture.put(beat.index, beat.picture)
            if beat.speaking != self._speaking:
                self._speaking = beat.speaking
                state = "speaking" if beat.speaking else "idle"
                self._send({"type": "state", "state": state, "beat": beat.index})
            if beat.index - told >= STATS_SECONDS * self.talk.fps:
                told = beat.index
                self._send(self._stats())

    async def _watch(self) -> None:
        """End the session when its peer is gone or its time is over."""
        settings = self._settings
        while True:
            await asyncio.sleep(min(0.5, settings.quiet_seconds / 4))
            now = time.monotonic()
            if not self._connected:
                if now - self._began > settings.connect_seconds:
                    self.close("the peer did not connect")
            elif now - self._last_sign > settings.quiet_seconds:
                self.close("nothing came from the peer")
            if now - self._began > settings.session_seconds:
                self.close(f"the session's {settings.session_seconds:g} s are over")


class LiveHub:
    """All live sessions of a server, their model and their threads.

    Args:
        settings: what the server allows.
        animator: gives a loaded model and detector that the server has already and keeps; called
            once, in a thread. By default the hub loads its own for the first session.
    """

    def __init__(
        self, settings: LiveSettings, animator: Callable[[], Animator] | None = None
    ) -> None:
        self.settings = settings
        self.sessions: dict[str, LiveSession] = {}
        """Those that have an answer, by their id."""
        self._waiting = 0
        self._give = animator
        self._animator: Animator | None = None
        self._lock = threading.Lock()  # one detector, which is not for several threads
        self._pool: ThreadPoolExecutor | None = None
        self._shut = False

    @property
    def busy(self) -> int:
        """Sessions there are, those being set up included."""
        return len(self.sessions) + self._waiting

    @property
    def pool(self) -> ThreadPoolExecutor:
        """The threads that compute."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.settings.workers, thread_name_prefix="live")
        return self._pool

    async def open(self, sdp: str, still: bytes | None, options: Mapping[str, Any]) -> LiveSession:
        """A new session, and its answer in its peer connection.

        Args:
            sdp: the offer.
            still: a picture's file, or None for the bundled portrait.
            options: of :class:`~stillspeak.stream.StreamSession`.

        Raises:
            RefusedError: there are too many, or the offer, the picture or an option cannot be used.
        """
        if self._shut:
            raise RefusedError(503, "closing", "the server is shutting down")
        if self.busy >= self.settings.sessions:
            limit = self.settings.sessions
            raise RefusedError(
                503, "full", f"all {limit} live sessions are taken; try again later", limit=limit
            )
        self._waiting += 1
        session: LiveSession | None = None
        try:
            loop = asyncio.get_running_loop()
            face = await loop.run_in_executor(self.pool, self._face, still, options)
            talk = RealtimeSession(face, rate=RATE, live=True, executor=self.pool)
            session = LiveSession(talk, self.settings, self._forget)
            session.warnings = face.warnings
            session.sdp = await session.answer(sdp)
            if self._shut:
                raise RefusedError(503, "closing", "the server is shutting down")
            self.sessions[session.id] = session
            return session
        except BaseException as error:
            if session is not None:
                await asyncio.shield(session.close("not set up"))
            if isinstance(error, StillspeakError):
                raise RefusedError(422, "input", str(error)) from error
            raise
        finally:
            self._waiting -= 1

    def _forget(self, session: LiveSession) -> None:
        self.sessions.pop(session.id, None)

    def _face(self, still: bytes | None, options: Mapping[str, Any]) -> Any:
        """In a thread: a session's face."""
        from stillspeak.animate import Animator
        from stillspeak.media.image import load_image
        from stillspeak.stream import StreamSession

        if still is None:
            from skimage.data import astronaut

            picture = np.asarray(astronaut())  # type: ignore[no-untyped-call]
        else:
            picture = load_image(still, name="the picture")
        with self._lock:
            if self._shut:
                raise ConfigError("the server is shutting down")
            if self._animator is None:
                self._animator = (
                    Animator(self.settings.model, device=self.settings.device)
                    if self._give is None
                    else self._give()
                )
            wanted = AnimateOptions(**options)
            if wanted.size is None and not wanted.crop and len(picture) > self.settings.size:
                wanted = replace(wanted, size=self.settings.size)
            return StreamSession(picture, wanted, animator=self._animator)

    async def close(self) -> None:
        """End every session and free model and threads."""
        self._shut = True
        sessions = list(self.sessions.values())
        await asyncio.gather(*(s.close("the server is shutting down") for s in sessions))
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None
        with self._lock:
            animator, self._animator = self._animator, None
            if animator is not None and self._give is None:
                animator.close()


def live_router(
    settings: LiveSettings | None = None,
    *,
    animator: Callable[[], Animator] | None = None,
    prefix: str = "/live",
) -> APIRouter:
    """The live part of the server, to be included in an application.

    Args:
        settings: what it allows.
        animator: see :class:`LiveHub`.
        prefix: where it is.

    Returns:
        The router; its lifespan ends all sessions. ``router.hub`` is its :class:`LiveHub`.
    """
    hub = LiveHub(settings or LiveSettings(), animator)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await hub.close()

    router = APIRouter(prefix=prefix, lifespan=lifespan)
    router.hub = hub  # type: ignore[attr-defined]

    def page(name: str) -> Callable[[], FileResponse]:
        file, kind = PAGES[name]
        return lambda: FileResponse(STATIC / file, media_type=kind, headers=HEADERS)

    for name in PAGES:
        router.add_api_route(f"/{name}", page(name), methods=["GET"], include_in_schema=False)

    async def config() -> dict[str, Any]:
        """What a client has to know before it makes an offer."""
        return {
            "ice_servers": hub.settings.ice_servers,
            "sessions": hub.busy,
            "limit": hub.settings.sessions,
            "upload_bytes": hub.settings.upload_bytes,
            "session_seconds": hub.settings.session_seconds,
        }

    async def offer(request: Request) -> Response:
        """Answer an offer: JSON with ``sdp``, ``type`` and, if wanted, ``picture`` and options."""
        try:
            sdp, still, options = await _read_offer(request, hub.settings)
            session = await hub.open(sdp, still, options)
        except RefusedError as refusal:
            return refusal.response()
        return JSONResponse(
            {
                "type": "answer",
                "sdp": session.sdp,
                "id": session.id,
                "fps": session.talk.fps,
                "delay_seconds": session.talk.delay / session.talk.fps,
                "warnings": [asdict(warning) for warning in session.warnings],
            }
        )

    async def reset(session_id: str) -> Response:
        """Interrupt, for clients without a data channel."""
        session = hub.sessions.get(session_id)
        if session is None:
            return RefusedError(404, "unknown", "there is no such session").response()
        session.interrupt()
        return Response(status_code=204)

    async def end(session_id: str) -> Response:
        """End a session."""
        session = hub.sessions.get(session_id)
        if session is None:
            return RefusedError(404, "unknown", "there is no such session").response()
        await asyncio.shield(session.close("ended by the peer"))
        return Response(status_code=204)

    router.add_api_route("/config", config, methods=["GET"])
    router.add_api_route("/offer", offer, methods=["POST"])
    router.add_api_route("/sessions/{session_id}/reset", reset, methods=["POST"])
    router.add_api_route("/sessions/{session_id}", end, methods=["DELETE"])
    return router


async def _read_offer(
    request: Request, settings: LiveSettings
) -> tuple[str, bytes | None, dict[str, Any]]:
    """SDP, picture and options of a request.

    Raises:
        RefusedError: it is too large or not what it should be.
    """
    # Another site's page can make a browser send a form or plain text without being asked first,
    # but not this.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, "type", "send the offer as application/json")
    limit = OFFER_BYTES + settings.upload_bytes * 4 // 3 + 4
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > limit:
            raise RefusedError(413, "large", _too_large(settings), limit=settings.upload_bytes)
    try:
        asked = json.loads(bytes(body))
        sdp, role = asked["sdp"], asked["type"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise RefusedError(400, "offer", "send a JSON object with sdp and type") from None
    if role != "offer" or not isinstance(sdp, str) or not 0 < len(sdp) <= OFFER_BYTES:
        raise RefusedError(400, "offer", 'sdp has to be a text, and type "offer"')
    still: bytes | None = None
    picture = asked.get("picture")
    if picture is not None:
        try:
            still = base64.b64decode(picture, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise RefusedError(
                400, "picture", "picture has to be a file's bytes in base64"
            ) from None
        if len(still) > settings.upload_bytes:
            raise RefusedError(413, "large", _too_large(settings), limit=settings.upload_bytes)
    options: dict[str, Any] = {}
    for name, option in OPTIONS.items():
        value = asked.get(name)
        types = (int, float) if option.kind is float else (option.kind,)
        if value is None:
            continue
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise RefusedError(422, "input", f"{name} is a {types[-1].__name__}")
        options[name] = value
    if options.get("size", 0) > settings.size:
        raise RefusedError(422, "input", f"size is at most {settings.size} here")
    return sdp, still, options


def _too_large(settings: LiveSettings) -> str:
    return f"the picture is larger than {settings.upload_bytes / 2**20:.3g} MiB; send a smaller one"
