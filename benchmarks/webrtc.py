"""The WebRTC loop as a client sees it: delay from microphone to loudspeaker, sessions at 25 fps.

    python benchmarks/webrtc.py [--sessions 3] [--seconds 20] [--model NAME]

Server and clients run in this one process, so the clients' coding and decoding is in the numbers.
The delay is that of sound: from the moment a click is handed to the client's encoder to the moment
the returned click has been decoded, which includes two jitter buffers of aiortc, 80 ms each. The
picture belongs to it to within a frame, see tests/web/test_live_session.py.
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
import numpy as np
import uvicorn
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from fastapi import FastAPI

from stillspeak.web.live.routes import live_router
from stillspeak.web.settings import ServeSettings

RATE, PACKET = 48_000, 960
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


class Client:
    """One peer; counts what comes back."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.clicks = Clicks()
        self.heard: list[float] = []
        self.frames: list[float] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer.addTrack(self.clicks)
        self.peer.addTransceiver("video", direction="recvonly")
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
                    continue
                loud = bool(np.abs(frame.to_ndarray()).max() > 12_000)
                if loud and not before:
                    self.heard.append(time.monotonic())
                before = loud
        except MediaStreamError:
            pass

    async def connect(self) -> None:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        body = json.dumps({"sdp": self.peer.localDescription.sdp, "type": "offer"}).encode()
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


async def measure(url: str, sessions: int, seconds: float) -> dict[str, float]:
    clients = [Client(url) for _ in range(sessions)]
    for client in clients:
        await client.connect()
    await asyncio.sleep(2)
    since = time.monotonic()
    cpu = time.process_time()
    await asyncio.sleep(seconds)
    cpu = time.process_time() - cpu
    rates = [sum(t > since for t in client.frames) / seconds for client in clients]
    delays = [delay for client in clients for delay in client.delays(since)]
    for client in clients:
        await client.close()
    await asyncio.sleep(1)
    return {
        "sessions": sessions,
        "fps_least": min(rates),
        "fps_mean": float(np.mean(rates)),
        "delay_median": float(np.median(delays)) if delays else float("nan"),
        "delay_95": float(np.percentile(delays, 95)) if delays else float("nan"),
        "cores": cpu / seconds,
    }


async def run(most: int, seconds: float, model: str) -> list[dict[str, float]]:
    """Print a table for 1 to ``most`` sessions, and return its rows."""
    rows: list[dict[str, float]] = []
    app = FastAPI()
    app.include_router(live_router(ServeSettings(models=(model,), live_sessions=most)))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        running = asyncio.create_task(server._serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} before; model {model}")
        print("sessions | frames/s least | mean | delay ms median | 95 % | cores used")
        try:
            for sessions in range(1, most + 1):
                row = await measure(url, sessions, seconds)
                rows.append(row)
                print(
                    f"{row['sessions']} | {row['fps_least']:.1f} | {row['fps_mean']:.1f} | "
                    f"{1000 * row['delay_median']:.0f} | {1000 * row['delay_95']:.0f} | "
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
    given = arguments.parse_args()
    asyncio.run(run(given.sessions, given.seconds, given.model))
