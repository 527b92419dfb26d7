"""A live server and its peer: the real application and a real aiortc client, over UDP."""

import asyncio
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np

from stillspeak.animate import Animator
from support.animate import lively, shared_detector

RATE = 48_000
PACKET = 960


@cache
def animator() -> Animator:
    """The small generator and the session's detector.

    In float32: such a model makes much of bfloat16's last place, in portions as frame by frame.
    """
    return Animator(lively(), precision="float32", detector=shared_detector())


@cache
def still() -> bytes:
    """A picture's file: the portrait, small."""
    import io

    import PIL.Image

    from support.animate import portrait

    file = io.BytesIO()
    PIL.Image.fromarray(portrait()).save(file, "PNG")
    return file.getvalue()


def use_loopback(monkeypatch: Any) -> None:
    """Let both peers find each other on a machine without any network."""
    import aioice.ice

    monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """The application under uvicorn on a free port; yields its URL."""
    import uvicorn

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)
        server = uvicorn.Server(config)
        server.install_signal_handlers = lambda: None
        running = asyncio.create_task(server._serve(sockets=[listening]))
        try:
            while not server.started:
                assert not running.done(), "the server did not start"
                await asyncio.sleep(0.01)
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


async def call(
    url: str, body: Any = None, *, method: str | None = None, kind: str = "application/json"
) -> tuple[int, Any]:
    """Status and JSON (or text) of an answer."""
    data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": kind}, method=method)  # noqa: S310

    def send() -> tuple[int, bytes]:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()

    status, content = await asyncio.to_thread(send)
    try:
        return status, json.loads(content)
    except ValueError:
        return status, content.decode()


async def until(condition: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    """Wait for something, long enough for a machine that is busy."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"waited {seconds} s for: {what}"
        await asyncio.sleep(0.02)
    return value


class Peer:
    """An aiortc client that sends a sound and keeps what comes back.

    Args:
        url: of the server.
        sound: (S,) float32 at 48 kHz, sent in real time over and over; None sends silence.
        keep: keep sound and pictures, else only count them.
        camera: gives the k-th picture (H, W, 3) uint8 that is sent, 25 a second; None sends none.
    """

    def __init__(
        self,
        url: str,
        sound: np.ndarray | None = None,
        *,
        keep: bool = True,
        camera: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        from aiortc import RTCConfiguration, RTCPeerConnection
        from aiortc.mediastreams import MediaStreamError, MediaStreamTrack

        self.url, self.keep = url, keep
        self.messages: list[dict[str, Any]] = []
        self.pictures: list[tuple[int, np.ndarray]] = []
        """RTP time stamps (from the first packet's on) and (H, W, 3) uint8."""
        self.sounds: list[tuple[int, np.ndarray]] = []
        """RTP time stamps likewise, and (960,) int16."""
        self.frames = self.packets = 0
        self.reports: dict[str, list[tuple[int, int]]] = {"audio": [], "video": []}
        """Sender reports: NTP time in 1 / 2**32 s, and the RTP time stamp that belongs to it."""
        self.muted = False
        self.id = ""
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.channel = self.pc.createDataChannel("control")
        self.channel.on("message", lambda text: self.messages.append(json.loads(text)))
        self.sent = 0
        """Samples sent."""
        self._tasks: list[asyncio.Task[None]] = []
        peer = self

        class Voice(MediaStreamTrack):
            kind = "audio"
            began: float | None = None

            async def recv(self) -> Any:
                import av

                if self.readyState != "live":
                    raise MediaStreamError
                self.began = self.began or time.monotonic()
                wait = self.began + peer.sent / RATE - time.monotonic()
                await asyncio.sleep(max(wait, 0))
                piece = np.zeros(PACKET, np.float32)
                if sound is not None and not peer.muted:
                    piece = sound[np.arange(peer.sent, peer.sent + PACKET) % len(sound)]
                whole = np.rint(piece * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(whole[None], "s16", "mono")
                frame.sample_rate, frame.pts = RATE, peer.sent
                frame.time_base = Fraction(1, RATE)
                peer.sent += PACKET
                return frame

        class Camera(MediaStreamTrack):
            kind = "video"
            count, began = 0, 0.0

            async def recv(self) -> Any:
                import av

                self.began = self.began or time.monotonic()
                await asyncio.sleep(max(self.began + self.count / 25 - time.monotonic(), 0))
                frame = av.VideoFrame.from_ndarray(camera(self.count), "rgb24")
                frame.pts, frame.time_base = self.count, Fraction(1, 25)
                self.count += 1
                return frame

        self.pc.addTrack(Voice())
        if camera is None:
            self.pc.addTransceiver("video", direction="recvonly")
        else:
            self.pc.addTrack(Camera())

        @self.pc.on("track")
        def _(track: Any) -> None:
            self._tasks.append(asyncio.create_task(self._take(track)))

    async def _take(self, track: Any) -> None:
        from aiortc.mediastreams import MediaStreamError

        with suppress(MediaStreamError):
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self.frames += 1
                    if self.keep:
                        self.pictures.append((frame.pts, frame.to_ndarray(format="rgb24")))
                else:
                    self.packets += 1
                    if self.keep:
                        samples = frame.to_ndarray().reshape(-1, len(frame.layout.channels))
                        self.sounds.append((frame.pts, samples[:, 0].copy()))

    def _note_reports(self) -> None:
        """Keep what a browser brings sound and picture into step by."""
        from aiortc.rtp import RtcpSrPacket

        for transceiver in self.pc.getTransceivers():
            receiver = transceiver.receiver
            original = receiver._handle_rtcp_packet

            async def handle(packet: Any, original: Any = original, kind: str = transceiver.kind):
                if isinstance(packet, RtcpSrPacket):
                    info = packet.sender_info
                    self.reports[kind].append((info.ntp_timestamp, info.rtp_timestamp))
                await original(packet)

            receiver._handle_rtcp_packet = handle

    def origin(self, kind: str) -> int:
        """RTP time stamp of a track's first packet, which aiortc takes off."""
        (receiver,) = [t.receiver for t in self.pc.getTransceivers() if t.kind == kind]
        return receiver._RTCRtpReceiver__timestamp_mapper._origin

    async def offer(self, **more: Any) -> tuple[int, Any]:
        """Make an offer; on success the connection is on its way."""
        from aiortc import RTCSessionDescription

        await self.pc.setLocalDescription(await self.pc.createOffer())
        local = self.pc.localDescription
        body = {"sdp": local.sdp, "type": local.type, **more}
        status, answer = await call(f"{self.url}/live/offer", body)
        if status == 200:
            self.id = answer["id"]
            self._note_reports()
            await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        return status, answer

    async def connect(self, **more: Any) -> None:
        """Make an offer with the small portrait, or the camera, and wait until pictures come."""
        import base64

        shown = {"picture": base64.b64encode(still()).decode()}
        status, answer = await self.offer(**({} if "camera" in more else shown), **more)
        assert status == 200, answer
        await until(lambda: self.frames and self.packets, "the first picture and sound")

    def send(self, message: Any) -> None:
        self.channel.send(message if isinstance(message, str) else json.dumps(message))

    async def heard(self, **wanted: Any) -> dict[str, Any]:
        """The first message that has all these items."""

        def find() -> dict[str, Any] | None:
            return next((m for m in self.messages if wanted.items() <= m.items()), None)

        return await until(find, f"the message {wanted}")

    async def close(self) -> None:
        await self.pc.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
