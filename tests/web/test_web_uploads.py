"""Fuzzed uploads: whatever comes, never a 500, never a file left behind."""

import io
import json
import select
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import PIL.Image
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from support.animate import portrait, speech, write_wav
from support.film import SPEECH
from support.web import URL, kept, serving


def encoded(picture: Any, kind: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.fromarray(np.asarray(picture, np.uint8)).save(file, kind, **options)
    return file.getvalue()


def png(width: int, height: int, data: bytes) -> bytes:
    """A grey PNG of this size, whose compressed pixels are ``data``."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"".join(
        (b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", data), chunk(b"IEND", b""))
    )


def text_bomb() -> bytes:
    """A PNG with a comment that is 1,000 times as long as the file."""
    body = b"Comment\0\0" + zlib.compress(bytes(20_000_000), 9)
    chunk = (
        struct.pack(">I", len(body))
        + b"zTXt"
        + body
        + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    )
    whole = encoded(portrait())
    return whole[:33] + chunk + whole[33:]


def bad_pictures() -> dict[str, bytes]:
    jpeg = encoded(portrait(), "JPEG")
    plain = encoded(np.full((64, 64, 3), 128))
    return {
        "empty": b"",
        "text": b"hello, I am a picture\n" * 50,
        "html": b"<!doctype html><script>alert(1)</script>",
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        "zip": b"PK\x03\x04" + bytes(2000),
        "program": b"\x7fELF\x02\x01\x01" + bytes(range(256)) * 8,
        "noise": np.random.default_rng(0).bytes(5000),
        "zeros": bytes(5000),
        "a sound": SPEECH.read_bytes(),
        "jpeg cut after its mark": jpeg[:3],
        "jpeg cut in its header": jpeg[:100],
        "jpeg cut in its pixels": jpeg[: len(jpeg) // 2],
        "jpeg mark alone": b"\xff\xd8\xff" + bytes(500),
        "no face": encoded(np.full((200, 200, 3), 128), "JPEG"),
        "face too small": encoded(np.asarray(PIL.Image.fromarray(portrait()).resize((48, 48)))),
        "one pixel": encoded(np.zeros((1, 1, 3))),
        "a line": encoded(np.zeros((1, 3000, 3))),
        "bomb that says so": png(60_000, 60_000, zlib.compress(b"")),
        "bomb just above the limit": png(7000, 6000, zlib.compress(bytes(42_006_000), 9)),
        "bomb that lies": png(100, 100, zlib.compress(bytes(50_000_000), 9)),
        "no width": png(0, 10, b""),
        "negative size": png(2**32 - 1, 2**32 - 1, b""),
        "gif bomb": b"GIF89a" + struct.pack("<HH", 65_535, 65_535) + bytes(100),
        "tiff bomb": b"II*\0\x08\0\0\0\x02\0\x00\x01\x04\0\x01\0\0\0\xff\xff\xff\x7f"
        b"\x01\x01\x04\0\x01\0\0\0\xff\xff\xff\x7f\0\0\0\0",
        "tiff in a circle": b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
        "webp cut": b"RIFF\xff\xff\xff\x7fWEBPVP8 " + bytes(100),
        "bmp bomb": b"BM" + bytes(12) + struct.pack("<IiiHH", 40, 2**30, 2**30, 1, 24) + bytes(24),
        "wrong sum": plain[:40] + bytes([plain[40] ^ 255]) + plain[41:],
    }


def bad_sounds() -> dict[str, bytes]:
    flac = SPEECH.read_bytes()
    rate = 16_000
    return {
        "empty": b"",
        "text": b"#EXTM3U\nfile:///etc/passwd\n",
        "playlist": b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:9/x.ts\n",
        "concat": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nm=audio 9 RTP/AVP 0\n",
        "html": b"<html></html>",
        "a picture": encoded(portrait(), "JPEG"),
        "noise": np.random.default_rng(1).bytes(5000),
        "zeros": bytes(5000),
        "flac cut": flac[:40],
        "silence": wav(np.zeros(rate)),
        "too short": wav(speech(1)[: rate // 10]),
        "too long": wav(np.tile(speech(1), 62)),
        "nothing": wav(np.zeros(0)),
        "wav that lies": wav(speech(1))[:40] + b"\xff\xff\xff\xff",
        "wav of no rate": wav(speech(1)).replace(struct.pack("<I", rate), bytes(4), 1),
        "mp4 mark alone": b"\0\0\0\x20ftypisom" + bytes(500),
        "ogg mark alone": b"OggS" + bytes(500),
        "matroska mark alone": b"\x1a\x45\xdf\xa3" + bytes(500),
    }


def wav(samples: Any) -> bytes:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        return write_wav(Path(folder, "x.wav"), np.asarray(samples, np.float32)).read_bytes()


PICTURES, SOUNDS = bad_pictures(), bad_sounds()
NAMES = [
    "../../../etc/cron.d/x",
    "..\\..\\x.jpg",
    "a\0b",
    "x" * 900,
    "\u202egpj",
    "con",
    "%2e%2e/",
    "",
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, weights_file: Any) -> Iterator[TestClient]:
    """One application for all files, since none of them may leave anything."""
    from stillspeak.web.app import create_app
    from stillspeak.web.settings import ServeSettings
    from support.animate import shared_detector

    settings = ServeSettings(
        models=(str(weights_file),),
        folder=tmp_path_factory.mktemp("kept"),
        preload=False,
        live_sessions=0,
        max_upload_bytes=4 * 2**20,
    )
    app = create_app(settings, detector=shared_detector())
    with TestClient(app, base_url=URL, raise_server_exceptions=False) as client:
        yield client


def refused(answer: Any) -> str:
    """Checks that an answer is a clear refusal of what was sent."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    error = answer.json()["error"]
    assert set(error) == {"code", "message"}
    message = error["message"]
    assert message and "\n" not in message and len(message) < 400
    assert ".partial" not in message and "Traceback" not in message
    return message


@pytest.mark.parametrize("what", PICTURES)
def test_what_is_no_portrait_is_refused_and_gone(shared: TestClient, what: str):
    answer = shared.post("/api/pictures", params={"name": "me.jpg"}, content=PICTURES[what])
    message = refused(answer)
    assert answer.status_code == 422
    assert message.startswith("me.jpg: ") or what == "empty"
    assert kept(shared.app) == []


@pytest.mark.parametrize("what", SOUNDS)
def test_what_is_no_speech_is_refused_and_gone(shared: TestClient, what: str):
    answer = shared.post("/api/sounds", params={"name": "say.wav"}, content=SOUNDS[what])
    message = refused(answer)
    assert answer.status_code == 422
    assert message.startswith("say.wav: ") or what == "empty"
    assert "max_seconds" not in message
    assert kept(shared.app) == []


def test_a_long_comment_in_a_picture_does_no_harm(shared: TestClient):
    answer = shared.post("/api/pictures", content=text_bomb())
    assert answer.status_code in (201, 422), answer.text
    if answer.status_code == 201:
        shared.delete(f"/api/pictures/{answer.json()['id']}")
    assert kept(shared.app) == []


@pytest.mark.parametrize("name", NAMES)
def test_names_are_no_paths(shared: TestClient, name: str, sound_bytes: bytes):
    answer = shared.post("/api/sounds", params={"name": name}, content=sound_bytes)
    assert answer.status_code == 201
    item = answer.json()
    assert "/" not in item["name"] and "\\" not in item["name"] and item["name"]
    assert kept(shared.app) == [item["id"], f"{item['id']}/sound.wav", f"{item['id']}/source"]
    assert shared.delete(f"/api/sounds/{item['id']}").status_code == 204
    assert kept(shared.app) == []


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("path", ["/api/pictures", "/api/sounds"])
def test_oversize_uploads_are_cut_off(shared: TestClient, path: str, announced: bool):
    def pieces() -> Iterator[bytes]:
        for _ in range(80):
            yield bytes(2**16)

    answer = shared.post(path, content=bytes(80 * 2**16) if announced else pieces())
    assert answer.status_code == 413
    assert "larger than 4 MiB" in refused(answer)
    assert kept(shared.app) == []


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files_are_taken_or_refused(
    shared: TestClient, seed: int, picture_bytes: bytes, sound_bytes: bytes
):
    random = np.random.default_rng(seed)
    kind = ("pictures", "sounds")[seed % 2]
    original = [picture_bytes, sound_bytes, encoded(portrait()), SPEECH.read_bytes()][seed % 4]
    damaged = bytearray(original)
    for place in random.integers(0, len(damaged), random.integers(1, 40)):
        damaged[place] = random.integers(256)
    if seed % 3 == 0:
        del damaged[random.integers(1, len(damaged)) :]
    if seed % 5 == 0:  # in the header, where it matters most
        for place in random.integers(0, 64, 4):
            damaged[min(place, len(damaged) - 1)] = random.integers(256)
    answer = shared.post(f"/api/{kind}", content=bytes(damaged))
    if answer.status_code == 201:
        assert shared.delete(f"/api/{kind}/{answer.json()['id']}").status_code == 204
    else:
        refused(answer)
    assert kept(shared.app) == []


def test_forms_are_not_taken_for_files(shared: TestClient, picture_bytes: bytes):
    answer = shared.post("/api/pictures", files={"file": ("me.jpg", picture_bytes)})
    assert answer.status_code == 422
    assert kept(shared.app) == []


# --- over a real socket -------------------------------------------------------------------------


def raw(url: str, path: str, length: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Sends a request whose body comes in pieces, and then no more; the answer's beginning."""
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: {length}\r\n\r\n"
        connection.sendall(head.encode())
        for piece in pieces:
            connection.sendall(piece)
            if select.select([connection], [], [], pause)[0]:
                break  # it has an answer
        return connection.recv(65_536)


def settled(app: Any) -> None:
    """Waits until no upload is under way."""
    end = time.monotonic() + 30
    while app.state.studio.uploads or kept(app):
        assert time.monotonic() < end, (app.state.studio.uploads, kept(app))
        time.sleep(0.02)


def test_clients_that_stall_or_go_away_leave_nothing(make_app: Callable[..., FastAPI]):
    app = make_app(idle_seconds=0.3, upload_seconds=1.0)
    with serving(app) as url:
        # Says that more comes, and waits.
        assert raw(url, "/api/pictures", 1000, b"\xff\xd8").startswith(b"HTTP/1.1 408")
        settled(app)
        # A little at a time, for ever.
        drip = raw(url, "/api/sounds", 100_000, *[b"x"] * 30, pause=0.1)
        assert drip.startswith(b"HTTP/1.1 408")
        settled(app)
        # Goes away in the middle.
        host, port = url.removeprefix("http://").split(":")
        for _ in range(5):
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(
                    f"POST /api/pictures HTTP/1.1\r\nHost: {host}:{port}\r\n"
                    "Content-Length: 100000\r\n\r\n".encode()
                    + b"x" * 5000
                )
        settled(app)
        # The server learns of it when it next reads.
        deadline = time.monotonic() + 30
        while (answer := httpx.get(f"{url}/api/health").json())["uploads"]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert answer["status"] == "ok"
        settled(app)


def test_others_are_served_while_one_is_slow(make_app: Callable[..., FastAPI], sound_bytes: bytes):
    app = make_app(idle_seconds=20)
    with serving(app) as url:
        host, port = url.removeprefix("http://").split(":")
        slow = [socket.create_connection((host, int(port))) for _ in range(4)]
        try:
            for connection in slow:
                connection.sendall(
                    f"POST /api/pictures HTTP/1.1\r\nHost: {host}:{port}\r\n"
                    "Content-Length: 1000\r\n\r\nx".encode()
                )
            answer = httpx.post(f"{url}/api/sounds", content=sound_bytes, timeout=15)
            assert answer.status_code == 201
            httpx.delete(f"{url}/api/sounds/{answer.json()['id']}")
        finally:
            for connection in slow:
                connection.close()
        settled(app)


@pytest.mark.e2e
def test_many_at_once(make_app: Callable[..., FastAPI], picture_bytes: bytes, sound_bytes: bytes):
    """Good, bad and huge uploads side by side: each gets its own answer and nobody else's."""
    app = make_app(max_uploads=6, max_items=12, max_upload_bytes=2**20)
    bad = PICTURES["jpeg cut in its pixels"]
    start = threading.Barrier(12)

    def send(number: int) -> tuple[int, str]:
        kind, content = [
            ("sounds", sound_bytes),
            ("pictures", bad),
            ("pictures", picture_bytes),
            ("sounds", bytes(2**20 + 1)),
        ][number % 4]
        start.wait(30)
        with httpx.Client(base_url=url, timeout=60) as client:
            try:
                answer = client.post(
                    f"/api/{kind}", params={"name": f"mine-{number}"}, content=content
                )
            except httpx.TransportError:  # cut off while it still sent
                return 413, ""
            if answer.status_code == 201:
                assert answer.json()["name"] == f"mine-{number}"
                assert client.delete(f"/api/{kind}/{answer.json()['id']}").status_code == 204
            elif answer.status_code == 422:
                assert answer.json()["error"]["message"].startswith(f"mine-{number}: ")
            return answer.status_code, answer.text

    with serving(app) as url, ThreadPoolExecutor(12) as pool:
        outcomes = list(pool.map(send, range(36)))
        settled(app)
        statuses = Counter(status for status, _ in outcomes)
        assert set(statuses) <= {201, 413, 422, 503}, outcomes
        assert statuses[201] and statuses[413] == 9
        for status, text in outcomes:
            if status == 503:
                assert "try again" in json.loads(text)["error"]["message"]
