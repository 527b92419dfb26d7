"""The live part of the server: the real application, a real WebRTC client, real UDP."""

import asyncio
import base64
import ctypes
import gc
import resource
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from stillspeak.animate import Animator
from stillspeak.dub.live import quick_detector
from stillspeak.face.tracker import following
from stillspeak.motion.moods import Mood
from support.animate import lively, portrait, shared_detector, speech
from support.live import RATE, Peer, animator, call, serving, until, use_loopback

pytest.importorskip("fastapi", reason="the serve extra is not installed")
pytest.importorskip("aiortc", reason="the serve extra is not installed")

from fastapi import FastAPI

from stillspeak.web.errors import add_error_handlers
from stillspeak.web.live.hub import LiveHub
from stillspeak.web.live.routes import live_router
from stillspeak.web.live.tracks import PictureTrack, SoundTrack
from stillspeak.web.settings import ServeSettings


@pytest.fixture(autouse=True)
def _loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    use_loopback(monkeypatch)


@asynccontextmanager
async def live(
    *, using: Callable[[], Animator] = animator, **settings: Any
) -> AsyncIterator[tuple[str, LiveHub]]:
    """A server with the small generator; nothing of it may be left."""
    threads = threading.active_count()
    app = FastAPI()
    add_error_handlers(app)
    router = live_router(ServeSettings(**({"live_sessions": 4} | settings)), animator=using)
    app.include_router(router)
    async with serving(app) as url:
        yield url, router.hub
    assert router.hub.busy == 0
    await until(lambda: len(asyncio.all_tasks()) == 1, "the end of all tasks", 20)
    await until(lambda: threading.active_count() <= threads + 8, "the end of threads", 20)


def voice(seconds: float = 2.0) -> np.ndarray:
    """(S,) float32 at 48 kHz."""
    narrow = speech(seconds)
    places = np.arange(3 * len(narrow)) / 3
    return np.interp(places, np.arange(len(narrow)), narrow).astype(np.float32)


def offer_body(sdp: str = "v=0", **more: Any) -> dict[str, Any]:
    return {"sdp": sdp, "type": "offer", **more}


# --- a camera -----------------------------------------------------------------------------------


@cache
def moving_lips() -> Animator:
    """A small generator that predicts poses."""
    return Animator(lively("layers"), precision="float32", detector=shared_detector())


def sway(index: int) -> np.ndarray:
    """The portrait before a camera."""
    large = np.kron(portrait(), np.ones((2, 2, 1), np.uint8))
    return np.roll(large, round(8 * np.sin(index / 9)), axis=1)


@pytest.mark.e2e
def test_the_peers_own_face_says_the_sound():
    with following(quick_detector()):
        pass  # MediaPipe keeps the frames, and what they hold, of whoever asks for it first

    async def work() -> tuple[Peer, list[dict[str, Any]]]:
        async with live(using=moving_lips) as (url, hub):
            peer = Peer(url, voice(), camera=sway)
            await peer.connect(camera=True)
            await until(
                lambda: any(m.get("camera", {}).get("drawn", 0) > 20 for m in peer.messages),
                "frames with a new mouth",
            )
            peer.send({"type": "mood", "mood": "happy"})
            await peer.heard(type="error", message="mood: a face before a camera has its own mood")
            peer.send({"type": "reset"})
            await peer.heard(type="reset")
            (session,) = hub.sessions.values()
            kept = weakref.ref(session.camera)
            del session
            await peer.close()
            await until(lambda: hub.busy == 0, "the end of the session")
            await until(lambda: gc.collect() >= 0 and kept() is None, "the end of the face", 10)
            return peer, [m["camera"] for m in peer.messages if "camera" in m]

    peer, counts = asyncio.run(work())
    last = counts[-1]
    assert last["learned"] >= 1
    assert last["seen"] >= last["drawn"] > 20
    rows, columns = portrait().shape[:2]
    shown = [picture for _, picture in peer.pictures if picture.shape[0] == 2 * rows]
    assert shown and shown[-1].shape == (2 * rows, 2 * columns, 3)
    # It is the camera's picture: one of those that were sent, but for the mouth and the codec.
    sent = [sway(index)[: rows // 2] for index in range(57)]
    apart = min(np.abs(shown[-1][: rows // 2].astype(int) - one).mean() for one in sent)
    assert apart < 10


@pytest.mark.e2e
def test_offers_with_a_camera_that_cannot_be_served_are_refused():
    async def work() -> list[tuple[int, Any]]:
        async with live() as (url, hub):
            peer = Peer(url, camera=sway)
            found = [
                await peer.offer(camera=True),  # this model paints
                await peer.offer(camera=True, mood="happy"),
                await peer.offer(camera=True, picture=base64.b64encode(b"x").decode()),
                await peer.offer(camera="yes"),
            ]
            assert hub.busy == 0
            await peer.close()
            return found

    found = asyncio.run(work())
    assert [status for status, _ in found] == [422, 422, 422, 422]
    messages = [answer["error"]["message"] for _, answer in found]
    assert "cannot move lips that a camera shows" in messages[0]
    assert messages[1] == messages[2]
    assert "camera goes without a picture" in messages[1]


# --- lips and sound -----------------------------------------------------------------------------


def chirp() -> np.ndarray:
    """(S,) float32 at 48 kHz, 4 s whose pitch says where one is: 200 Hz, then 800 more a second."""
    time = np.arange(4 * RATE) / RATE
    return (0.5 * np.sin(2 * np.pi * (200 * time + 400 * time**2))).astype(np.float32)


class PitchFace:
    """A face whose grey level is the pitch of its frame's sound, two frames late as a model is."""

    sample_rate, fps, look_ahead = 16_000, 25, 2
    warnings = ()

    def __init__(self) -> None:
        self.latency = SimpleNamespace(
            algorithmic=(1 + self.look_ahead) / 25, resampling=0.0, median=None, percentile_99=None
        )
        self.reset()

    def reset(self, motion: bool = True) -> None:
        self.sound = np.zeros(0, np.float32)
        self.waiting: list[int] = []

    def push(self, samples: np.ndarray) -> list[SimpleNamespace]:
        self.sound = np.concatenate((self.sound, samples))
        while len(self.sound) >= 640:
            block, self.sound = self.sound[:640], self.sound[640:]
            spectrum = np.abs(np.fft.rfft(block * np.hanning(640), 8192))
            hertz = float(np.argmax(spectrum)) * 16_000 / 8192
            self.waiting.append(round(float(np.clip(20 + (hertz - 200) / 16, 0, 255))))
        made = self.waiting[: max(len(self.waiting) - self.look_ahead, 0)]
        self.waiting = self.waiting[len(made) :]
        return [self.frame(level) for level in made]

    def idle(self, frames: int) -> list[SimpleNamespace]:
        return [self.frame(0)] * frames

    @staticmethod
    def frame(level: int) -> SimpleNamespace:
        return SimpleNamespace(picture=np.full((96, 96, 3), level, np.uint8))


@pytest.mark.e2e
def test_pictures_and_sound_are_in_step(monkeypatch):
    """Where a returned picture belongs in the sent sound, and where the returned sound beside it
    belongs, by the clock that receivers bring both tracks into step by: no more than a frame apart.
    """
    monkeypatch.setattr(LiveHub, "_face", lambda *_: PitchFace())
    sent = chirp()

    async def work() -> Peer:
        async with live() as (url, _):
            peer = Peer(url, sent)
            await peer.connect()
            reports = peer.reports
            await until(
                lambda: peer.sent > 7 * RATE and len(reports["audio"]) > 2 < len(reports["video"]),
                "some seconds of talk and sender reports",
            )
            await peer.close()
            return peer

    peer = asyncio.run(work())
    # The sound's place in what was sent, by cross-correlation at 8 kHz over a stretch of 1 s.
    start = peer.sounds[0][0]
    heard = np.zeros(peer.sounds[-1][0] - start + 960)
    for pts, piece in peer.sounds:
        heard[pts - start : pts - start + len(piece)] = piece[:960]
    middle = len(heard) - 3 * RATE
    stretch = heard[middle : middle + RATE : 6]
    around = np.concatenate((sent, sent))[::6]
    scores = np.correlate(around, stretch, "valid")[: len(sent) // 6]
    place = 6 * int(np.argmax(scores)) / RATE
    sound_time = (start + middle) / RATE  # seconds on the track's own time line

    def ntp(kind: str, seconds: float, clock: int) -> float:
        """A track's time on the sender's clock, by the sender reports.

        A report is as late as its packet was: the earliest says when packets are due.
        """

        def since(rtp: float, origin: int) -> float:
            return ((rtp - origin + 2**31) % 2**32 - 2**31) / clock

        origin = peer.origin(kind)
        begin = min(stamp / 2**32 - since(rtp, origin) for stamp, rtp in peer.reports[kind])
        return begin + seconds

    at_place = ntp("audio", sound_time, RATE)
    offsets = []
    for pts, picture in peer.pictures:
        seconds = ntp("video", pts / 90_000, 90_000) - at_place
        if 0 <= seconds <= 1:
            expected = (place + seconds + 0.02) % 4  # the middle of its frame
            shown = (float(picture.mean()) - 20) * 16 / 800
            offsets.append((shown - expected + 2) % 4 - 2)
    assert len(offsets) >= 5
    # Frames are 40 ms long; the colours of a video come back a level off.
    assert abs(np.median(offsets)) <= 0.08, offsets


def test_time_stamps_share_one_clock_and_the_sound_has_no_hole():
    async def work() -> Peer:
        async with live() as (url, _):
            peer = Peer(url, voice())
            await peer.connect(crop=True)
            await until(lambda: len(peer.sounds) > 100, "two seconds of sound")
            await peer.close()
            return peer

    peer = asyncio.run(work())
    stamps = np.array([pts for pts, _ in peer.sounds])
    assert (np.diff(stamps) == 960).all()
    pictures = np.array([pts for pts, _ in peer.pictures])
    assert (np.diff(pictures) > 0).all() and (np.diff(pictures) % 3600 == 0).all()
    # Both tracks' first packets belong to the same beat, or nearly.
    assert {picture.shape for _, picture in peer.pictures} == {(128, 96, 3)}


def test_while_nobody_speaks_the_picture_goes_on_and_the_state_is_told():
    async def work() -> None:
        async with live() as (url, _):
            peer = Peer(url, voice())
            peer.muted = True
            await peer.connect(crop=True)
            await peer.heard(type="state", state="idle")
            frames = peer.frames
            await until(lambda: peer.frames > frames + 5, "idle pictures")
            silent = [np.abs(piece).max() for _, piece in peer.sounds]
            assert max(silent) < 200
            peer.muted = False
            await peer.heard(type="state", state="speaking")
            await peer.heard(type="hello", fps=25)
            stats = await peer.heard(type="stats")
            assert stats["delay_seconds"] == 0.12 and stats["rate"] == RATE
            await peer.close()

    asyncio.run(work())


def test_the_mood_is_changed_by_a_message():
    async def work() -> None:
        async with live() as (url, hub):
            peer = Peer(url, voice())
            await peer.connect(crop=True)
            await peer.heard(type="hello")
            (session,) = hub.sessions.values()
            set_to: list[Mood] = []
            session.talk._source.set_mood = set_to.append
            peer.send({"type": "mood", "mood": "happy:0.5"})
            await peer.heard(type="mood", mood="happy:0.5")
            await until(lambda: set_to == [Mood("happy", 0.5)], "the mood to reach the face")
            for wrong, said in (
                ({"mood": "happy:3"}, "mood: 'happy:3': strength"),
                ({}, "mood: ''"),
            ):
                peer.messages.clear()
                peer.send({"type": "mood", **wrong})
                assert (await peer.heard(type="error"))["message"].startswith(said)
            await peer.close()

    asyncio.run(work())


def test_an_interruption_silences_what_was_not_played():
    async def work() -> None:
        async with live() as (url, hub):
            peer = Peer(url, voice())
            await peer.connect(crop=True)
            await peer.heard(type="state", state="speaking")
            (session,) = hub.sessions.values()
            resets = []
            interrupt = session.talk.interrupt

            def watched() -> None:
                interrupt()
                resets.append(session.talk.buffer.seconds)
                assert not any(b.sound.any() for _, b in session.talk._line)

            session.talk.interrupt = watched
            peer.muted = True
            peer.send({"type": "reset"})
            await peer.heard(type="reset")
            status, _ = await call(f"{url}/live/sessions/{peer.id}/reset", b"", method="POST")
            assert status == 204
            assert resets == [0, 0]

            def quiet() -> bool:
                states = [m["state"] for m in peer.messages if m["type"] == "state"]
                return "speaking" in states and states[-1] == "idle"

            await until(quiet, "silence")
            frames = peer.frames
            await until(lambda: peer.frames > frames + 3, "pictures afterwards")
            await peer.close()

    asyncio.run(work())


def test_messages_that_make_no_sense_are_answered_and_change_nothing():
    async def work() -> None:
        async with live() as (url, hub):
            peer = Peer(url)
            await peer.connect(crop=True)
            await until(lambda: peer.channel.readyState == "open", "the channel")
            for message in (
                "{",
                "[]",
                "7",
                '{"type": 5}',
                "[" * 3000,
                "x" * 9000,
                '{"type":"dance"}',
            ):
                peer.send(message)
            await until(
                lambda: sum(m["type"] == "error" for m in peer.messages) == 7, "seven answers"
            )
            peer.send({"type": "ping"})
            peer.send({"type": "stats"})
            await peer.heard(type="pong")
            await peer.heard(type="stats")
            peer.send({"type": "end"})
            await until(lambda: not hub.sessions, "the end")
            await peer.close()

    asyncio.run(work())


# --- who comes and goes -------------------------------------------------------------------------


def test_sessions_are_limited_and_a_place_that_is_free_can_be_taken():
    async def work() -> None:
        async with live(live_sessions=1) as (url, hub):
            first, second, third = Peer(url), Peer(url), Peer(url)
            await first.connect(crop=True)
            status, answer = await second.offer()
            assert status == 503
            assert answer["error"]["code"] == "full" and answer["error"]["limit"] == 1
            assert "1 live session" in answer["error"]["message"]
            assert (await call(f"{url}/live/config"))[1]["sessions"] == 1
            status, _ = await call(f"{url}/live/sessions/{first.id}", method="DELETE")
            assert status == 204 and hub.busy == 0
            await third.connect(crop=True)
            for peer in (first, second, third):
                await peer.close()
            await until(lambda: not hub.sessions, "the end")

    asyncio.run(work())


def test_several_sessions_share_the_model_and_nothing_else():
    async def work() -> None:
        async with live(live_sessions=2) as (url, hub):
            talking, silent = Peer(url, voice()), Peer(url)
            await talking.connect(crop=True)
            await silent.connect(crop=True, seed=5)
            await talking.heard(type="state", state="speaking")
            sounds = len(silent.sounds)
            await until(lambda: len(silent.sounds) > sounds + 20, "some sound")
            assert max(np.abs(piece).max() for _, piece in silent.sounds) < 200
            faces = [session.talk._source for session in hub.sessions.values()]
            assert len({id(face) for face in faces}) == 2
            assert len({id(face._face.engine) for face in faces}) == 1
            await talking.close()
            await silent.close()

    asyncio.run(work())


def test_a_client_that_closes_is_forgotten_at_once():
    async def work() -> None:
        async with live() as (url, hub):
            peer = Peer(url)
            await peer.connect(crop=True)
            (session,) = hub.sessions.values()
            await peer.close()
            await until(lambda: not hub.sessions, "the end")
            assert session.reason == "the peer is gone"
            assert session.sound.readyState == session.picture.readyState == "ended"

    asyncio.run(work())


def test_a_client_that_vanishes_is_forgotten():
    """Without a farewell: its sockets simply fall silent."""

    async def work() -> None:
        async with live(live_quiet_seconds=1) as (url, hub):
            peer = Peer(url)
            await peer.connect(crop=True)
            (session,) = hub.sessions.values()
            for transceiver in peer.pc.getTransceivers():
                connection = transceiver.sender.transport.transport._connection

                async def nothing(*_: Any) -> None: ...

                connection.sendto = nothing
            await until(lambda: not hub.sessions, "the end")
            assert session.reason == "nothing came from the peer"
            await peer.close()

    asyncio.run(work())


def test_a_client_that_never_connects_is_forgotten():
    async def work() -> None:
        async with live(live_connect_seconds=1) as (url, hub):
            peer = Peer(url)
            await peer.pc.setLocalDescription(await peer.pc.createOffer())
            status, _ = await call(
                f"{url}/live/offer", offer_body(peer.pc.localDescription.sdp, crop=True)
            )
            assert status == 200 and hub.busy == 1
            (session,) = hub.sessions.values()
            await until(lambda: not hub.sessions, "the end")
            assert session.reason == "the peer did not connect"
            await peer.close()

    asyncio.run(work())


def test_a_session_has_its_time():
    async def work() -> None:
        async with live(live_session_seconds=2) as (url, hub):
            peer = Peer(url)
            await peer.connect(crop=True)
            end = await peer.heard(type="end")
            assert "2 s are over" in end["reason"]
            await until(lambda: not hub.sessions, "the end")
            await peer.close()

    asyncio.run(work())


def test_the_server_ends_its_sessions_when_it_stops():
    async def work() -> Peer:
        async with live() as (url, _):
            peer = Peer(url)
            await peer.connect(crop=True)
        await until(lambda: peer.pc.connectionState != "connected", "the farewell")
        await peer.close()
        return peer

    assert asyncio.run(work()).frames


# --- what is offered ----------------------------------------------------------------------------


def test_offers_that_cannot_be():
    async def work() -> None:
        async with live(live_upload_bytes=2000) as (url, hub):
            offer = f"{url}/live/offer"

            async def refused(body: Any, status: int, words: str, **more: Any) -> None:
                got, answer = await call(offer, body, **more)
                assert got == status, answer
                assert words in answer["error"]["message"], answer
                assert hub.busy == 0

            await refused(b"{", 400, "sdp and type")
            await refused(b"[" * 9999, 400, "sdp and type")
            await refused({"sdp": "v=0"}, 400, "sdp and type")
            await refused({"sdp": 5, "type": "offer"}, 400, "text")
            await refused({"sdp": "v=0", "type": "answer"}, 400, "offer")
            await refused(offer_body(), 422, "one audio and one video")
            await refused(offer_body("v=0\r\nm=audio x nonsense\r\n"), 400, "cannot be read")
            await refused(offer_body(), 415, "application/json", kind="text/plain")
            await refused(offer_body(picture="***"), 400, "base64")
            await refused(offer_body(picture=7), 400, "base64")
            large = base64.b64encode(bytes(3000)).decode()
            await refused(offer_body(picture=large), 413, "MiB")
            await refused(b" " * 400_000, 413, "MiB")
            noise = base64.b64encode(bytes(range(256))).decode()
            await refused(offer_body(picture=noise), 422, "not a picture")
            await refused(offer_body(seed="one"), 422, "seed")
            await refused(offer_body(seed=True), 422, "seed")
            await refused(offer_body(blink=9), 422, "blink")
            await refused(offer_body(mood="sadly"), 422, "mood: 'sadly': name: must be")
            await refused(offer_body(size=4000), 422, "512")
            for path in ("sessions/none", "sessions/none/reset"):
                method = "POST" if path.endswith("reset") else "DELETE"
                status, answer = await call(f"{url}/live/{path}", method=method)
                assert status == 404 and answer["error"]["code"] == "unknown"
            from aiortc import RTCPeerConnection

            silent = RTCPeerConnection()
            silent.addTransceiver("video", direction="recvonly")
            await silent.setLocalDescription(await silent.createOffer())
            await refused(
                offer_body(silent.localDescription.sdp, crop=True), 422, "one audio and one video"
            )
            await silent.close()

    asyncio.run(work())


def test_the_sample_is_the_picture_unless_one_is_sent():
    async def work() -> None:
        async with live(live_size=256) as (url, hub):
            peer = Peer(url)
            status, answer = await peer.offer()
            assert status == 200
            assert [warning["code"] for warning in answer["warnings"]] == ["face_small"]
            (session,) = hub.sessions.values()
            assert (session.talk._source.width, session.talk._source.height) == (256, 256)
            await until(lambda: peer.frames, "a picture")
            assert peer.pictures[0][1].shape == (256, 256, 3)  # half its size
            await peer.close()
            await until(lambda: not hub.sessions, "the end")
            peer = Peer(url)
            await peer.connect(size=128)
            assert peer.pictures[0][1].shape == (128, 128, 3)
            await peer.close()

    asyncio.run(work())


def test_pages_are_there_and_ask_nobody_else():
    async def work() -> None:
        named = {"stun": "stun:stun.example:3478", "turn": "turn:t.example", "turn_user": "u"}
        async with live(**named) as (url, hub):
            for name, word in (("", "<video"), ("live.js", "RTCPeerConnection"), ("live.css", "{")):
                status, text = await call(f"{url}/live/{name}")
                assert status == 200 and word in text
                assert "http://" not in text and "https://" not in text
            _, config = await call(f"{url}/live/config")
            assert [s["urls"] for s in config["ice_servers"]] == [
                "stun:stun.example:3478", "turn:t.example",
            ]  # fmt: skip
            assert hub.busy == 0

    asyncio.run(work())
    assert ServeSettings().ice_servers == []


def test_nobody_else_is_asked_for_anything(monkeypatch: pytest.MonkeyPatch):
    """aiortc's own default is a public STUN server."""
    from aiortc import rtcicetransport

    asked = []
    original = rtcicetransport.connection_kwargs

    def noted(servers: Any) -> Any:
        asked.append(list(servers))
        return original(servers)

    monkeypatch.setattr(rtcicetransport, "connection_kwargs", noted)

    async def work() -> None:
        async with live() as (url, _):
            peer = Peer(url)
            await peer.connect(crop=True)
            await peer.close()

    asyncio.run(work())
    assert len(asked) >= 2 and not any(asked)


# --- a slow network -----------------------------------------------------------------------------


def test_tracks_are_bounded_and_drop_pictures_first():
    async def work() -> None:
        talk = SimpleNamespace(due=lambda beat: 0.0, fps=25)
        sound, pictures = SoundTrack(talk), PictureTrack(25)
        for beat in range(100):  # 4 s that the network does not take
            sound.put(beat, np.full(1920, beat / 200, np.float32))
            pictures.put(beat, np.full((4, 5, 3), beat, np.uint8))
        assert pictures.dropped == 99 and sound.dropped == 150
        picture = await pictures.recv()
        assert picture.pts == 99 * 3600 and (picture.width, picture.height) == (4, 4)
        taken = [await sound.recv() for _ in range(50)]
        assert [frame.pts for frame in taken] == [(150 + k) * 960 for k in range(50)]
        waiting = [asyncio.create_task(track.recv()) for track in (sound, pictures)]
        await asyncio.sleep(0)
        sound.stop()
        pictures.stop()
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(result).__name__ for result in results] == ["MediaStreamError"] * 2

    asyncio.run(work())


# --- soak ---------------------------------------------------------------------------------------


def soak(sessions: int) -> tuple[list[int], list[weakref.ref[Any]]]:
    """Peak memory in KiB after each of so many short sessions, and all sessions there were."""
    memory: list[int] = []
    seen: list[weakref.ref[Any]] = []
    animator()  # MediaPipe keeps the frames, and what they hold, of whoever asks for it first

    async def work() -> None:
        async with live(live_sessions=1) as (url, hub):
            for number in range(sessions):
                peer = Peer(url, voice(0.5), keep=False)
                await peer.connect(crop=number % 2 == 0)
                (session,) = hub.sessions.values()
                seen.extend((weakref.ref(session), weakref.ref(session.talk._source)))
                del session
                if number % 3 == 0:
                    peer.send({"type": "reset"})
                frames = peer.frames
                await until(lambda peer=peer, n=frames: peer.frames > n + 3, "some pictures")
                if number % 2:
                    await call(f"{url}/live/sessions/{peer.id}", method="DELETE")
                await peer.close()
                await until(lambda: not hub.busy, "the end")
                del peer
                gc.collect()
                memory.append(resident())
            assert len(asyncio.all_tasks()) < 15

    asyncio.run(work())
    return memory, seen


def resident() -> int:
    """Resident memory in KiB, without what the C library has free and keeps for later."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
    try:
        pages = Path("/proc/self/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize() // 1024
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.e2e
def test_short_sessions_leave_nothing_behind():
    threads = threading.active_count()
    _, seen = soak(4)
    gc.collect()
    assert not [reference for reference in seen if reference() is not None]
    assert threading.active_count() <= threads + 8  # the loop's pool is of a fixed size


@pytest.mark.long
@pytest.mark.timeout(2 * 3600)
def test_two_hundred_sessions_end_with_the_memory_of_the_tenth():
    memory, seen = soak(200)
    gc.collect()
    assert not [reference for reference in seen if reference() is not None]
    after = {number: memory[number - 1] for number in (1, 10, 50, 100, 200)}
    sys.stdout.write(f"KiB after so many sessions: {after}\n")
    assert np.median(memory[-10:]) - np.median(memory[9:19]) < 8 * 1024
