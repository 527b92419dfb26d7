"""The WebRTC loop as a client sees it: delay from microphone to loudspeaker, sessions at 25 fps.

    python benchmarks/webrtc.py [--sessions 3] [--seconds 20] [--model NAME] [--camera 1280x720]

Server and clients run in this one process, so the clients' coding and decoding is in the numbers.
The delay is that of sound: from the moment a click is handed to the client's encoder to the moment
the returned click has been decoded, which includes two jitter buffers of aiortc, 80 ms each. The
picture belongs to it to within a frame, see tests/web/test_live_session.py.

With --camera each client sends pictures of that size, 25 a second, whose face says the sound. Black
and white fields in them count; a picture's delay is from handing it to the client's encoder to
having decoded the one that came back.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import time
import urllib.request
from fractions import Fraction
from typing import Any

import av
import cv2
import numpy as np
import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from fastapi import FastAPI
from skimage.data import astronaut

from stillspeak.dub.live import LiveDub
from stillspeak.web.live.routes import live_router
from stillspeak.web.settings import ServeSettings

RATE, PACKET = 48_000, 960
BITS, FIELD = 7, 40  # of the number in a camera's picture, and the side of each in pixels
EVERY = 50
"""Packets, 20 ms each, from one click to the next."""


class Clicks(MediaStreamTrack):
    """A short loud tone every second over a quiet one, in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self.sent = 0
        self.began = 0.0
        self.at: list[float] = []

    async def recv(self) -> Any:
        self.began = self.began or time.monotonic()
        await asyncio.sleep(max(self.began + self.sent * PACKET / RATE - time.monotonic(), 0))
        loud = self.sent % EVERY == 0
        tone = np.sin(2 * np.pi * 500 * np.arange(PACKET) / RATE)
        samples = np.rint((25_000 if loud else 600) * tone).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(samples[None], "s16", "mono")
        frame.sample_rate, frame.pts = RATE, self.sent * PACKET
        frame.time_base = Fraction(1, RATE)
        self.sent += 1
        if loud:
            self.at.append(time.monotonic())
        return frame


class Camera(MediaStreamTrack):
    """A portrait that sways before a camera, 25 pictures a second, each with its number."""

    kind = "video"

    def __init__(self, width: int, height: int) -> None:
        super().__init__()
        self.count = 0
        self.at: list[float] = []
        """When each picture was handed over."""
        side = min(width, height)
        face = cv2.resize(np.asarray(astronaut()), (side, side), interpolation=cv2.INTER_CUBIC)
        self._wide = np.full((height, width + 200, 3), 90, np.uint8)
        left = (width + 200 - side) // 2
        self._wide[:side, left : left + side] = face
        self._width = width

    def picture(self, count: int) -> np.ndarray:
        """(H, W, 3) uint8, the picture of a number."""
        shift = 100 + round(60 * np.sin(count / 12))
        picture = np.ascontiguousarray(self._wide[:, shift : shift + self._width])
        for bit in range(BITS):
            picture[:FIELD, bit * FIELD : (bit + 1) * FIELD] = 255 * (count >> bit & 1)
        return picture

    async def recv(self) -> Any:
        began = self.at[0] if self.at else time.monotonic()
        await asyncio.sleep(max(began + self.count / 25 - time.monotonic(), 0))
        frame = av.VideoFrame.from_ndarray(self.picture(self.count), "rgb24")
        frame.pts, frame.time_base = self.count * 3600, Fraction(1, 90_000)
        self.count += 1
        self.at.append(time.monotonic())
        return frame


def number_of(frame: Any, height: int) -> int:
    """A camera's picture's number, up to 2**BITS, of what came back."""
    levels = frame.to_ndarray(format="gray")
    side = FIELD * levels.shape[0] / height
    middles = [(round(side / 2), round((bit + 0.5) * side)) for bit in range(BITS)]
    return sum(int(levels[y, x] > 127) << bit for bit, (y, x) in enumerate(middles))


class Client:
    """One peer; counts what comes back."""

    def __init__(self, url: str, camera: tuple[int, int] | None = None) -> None:
        self.url = url
        self.camera = None if camera is None else Camera(*camera)
        self.size = camera
        self.looks: list[float] = []
        """Seconds from each picture to its return."""
        self.clicks = Clicks()
        self.heard: list[float] = []
        self.frames: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer.addTrack(self.clicks)
        if self.camera is None:
            self.peer.addTransceiver("video", direction="recvonly")
        else:
            self.peer.addTrack(self.camera)
        self.peer.on(
            "track", lambda track: self.tasks.append(asyncio.create_task(self._take(track)))
        )

    async def _take(self, track: Any) -> None:
        before = True
        try:
            while True:
                frame = await track.recv()
                if track.kind == "video":
                    self.frames.append(time.monotonic())
                    self._note(frame)
                    continue
                loud = bool(np.abs(frame.to_ndarray()).max() > 12_000)
                if loud and not before:
                    self.heard.append(time.monotonic())
                before = loud
        except MediaStreamError:
            pass

    def _note(self, frame: Any) -> None:
        if self.camera is None or self.size is None or not self.camera.at:
            return
        late = (self.camera.count - 1 - number_of(frame, self.size[1])) % 2**BITS
        if late < min(len(self.camera.at), 100):
            self.looks.append(time.monotonic() - self.camera.at[-1 - late])

    async def connect(self) -> None:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        offer = {"sdp": self.peer.localDescription.sdp, "type": "offer"}
        body = json.dumps(offer | {"camera": self.camera is not None}).encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/live/offer", body, {"Content-Type": "application/json"}
        )

        def send() -> Any:
            with urllib.request.urlopen(request, timeout=120) as answer:  # noqa: S310
                return json.load(answer)

        answer = await asyncio.to_thread(send)
        await self.peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        while not self.frames:
            await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self.peer.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def delays(self, since: float) -> list[float]:
        """Seconds from each click to its return."""
        found = []
        for at in self.clicks.at:
            back = next((t for t in self.heard if at < t < at + PACKET / RATE * EVERY), None)
            if at > since and back is not None:
                found.append(back - at)
        return found


async def measure(
    url: str, sessions: int, seconds: float, camera: tuple[int, int] | None = None
) -> dict[str, float]:
    clients = [Client(url, camera) for _ in range(sessions)]
    for client in clients:
        await client.connect()
    await asyncio.sleep(2 if camera is None else 6)  # while it learns the mouth
    for client in clients:
        client.looks.clear()
    since = time.monotonic()
    cpu = time.process_time()
    await asyncio.sleep(seconds)
    cpu = time.process_time() - cpu
    rates = [sum(t > since for t in client.frames) / seconds for client in clients]
    delays = [delay for client in clients for delay in client.delays(since)]
    looks = [delay for client in clients for delay in client.looks]
    for client in clients:
        await client.close()
    await asyncio.sleep(1)
    return {
        "sessions": sessions,
        "fps_least": min(rates),
        "fps_mean": float(np.mean(rates)),
        "delay_median": float(np.median(delays)) if delays else float("nan"),
        "delay_95": float(np.percentile(delays, 95)) if delays else float("nan"),
        "look_median": float(np.median(looks)) if looks else float("nan"),
        "cores": cpu / seconds,
    }


def steps(model: str, camera: tuple[int, int], frames: int = 200) -> dict[str, float]:
    """Frames of a camera's face without any network: what the clock and the processor say of one,
    all threads together, once the mouth is known."""
    source, block = Camera(*camera), 640
    time_line = np.arange(block * (frames + 100)) / 16_000
    sound = 0.3 * np.sin(2 * np.pi * 150 * time_line) * np.sin(2 * np.pi * 3 * time_line)
    pushed = iter(np.split(sound.astype(np.float32), frames + 100))
    dub = LiveDub(model=model)
    for count in range(100):
        dub.look(source.picture(count))
        dub.push(next(pushed))
    clock, cpu, drawn = time.perf_counter(), time.process_time(), dub.counts.drawn
    for count in range(100, 100 + frames):
        dub.look(source.picture(count))
        dub.push(next(pushed))
    found = {
        "clock": (time.perf_counter() - clock) / frames,
        "cpu": (time.process_time() - cpu) / frames,
        "drawn": (dub.counts.drawn - drawn) / frames,
    }
    dub.close()
    return found


async def run(
    most: int, seconds: float, model: str, camera: tuple[int, int] | None = None
) -> list[dict[str, float]]:
    """Print a table for 1 to ``most`` sessions, and return its rows."""
    rows: list[dict[str, float]] = []
    app = FastAPI()
    lines = {} if camera is None else {"live_size": camera[1]}
    router = live_router(ServeSettings(models=(model,), live_sessions=most, **lines))
    app.include_router(router)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        running = asyncio.create_task(server._serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; model {model}")
        if camera is not None:
            found = steps(model, camera)
            print(
                f"a camera of {camera[0]} x {camera[1]}; a frame without network: "
                f"{1000 * found['clock']:.1f} ms by the clock, {1000 * found['cpu']:.1f} ms of "
                f"processor; {found['drawn']:.0%} drawn"
            )
        print("sessions | frames/s least | mean | delay ms median | 95 % | picture's | cores used")
        try:
            for sessions in range(1, most + 1):
                row = await measure(url, sessions, seconds, camera)
                rows.append(row)
                print(
                    f"{row['sessions']} | {row['fps_least']:.1f} | {row['fps_mean']:.1f} | "
                    f"{1000 * row['delay_median']:.0f} | {1000 * row['delay_95']:.0f} | "
                    f"{1000 * row['look_median']:.0f} | "
                    f"{row['cores']:.2f}",
                    flush=True,
                )
        finally:
            server.should_exit = True
            await running
    return rows


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--sessions", type=int, default=3)
    arguments.add_argument("--seconds", type=float, default=20.0)
    arguments.add_argument("--model", default="default")
    arguments.add_argument("--camera", metavar="WIDTHxHEIGHT")
    given = arguments.parse_args()
    size = None
    if given.camera is not None:
        width, height = (int(part) for part in given.camera.split("x"))
        size = (width, height)
    asyncio.run(run(given.sessions, given.seconds, given.model, size))
