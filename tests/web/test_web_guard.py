"""Who may talk to the server, and what browsers are told."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from stillspeak.web.guard import HEADERS, SMALL_BODY, Guard
from stillspeak.web.settings import ServeSettings


def ask(guard: Guard, *, method: str = "GET", path: str = "/api/x", headers: Any = (), **more: Any):
    """One request through the guard; status, headers and body of the answer."""
    sent: list[dict] = []
    pieces = iter(more.get("body", ()))
    delay = more.get("delay", 0.0)

    async def receive():
        piece = next(pieces, None)
        if delay:
            await asyncio.sleep(delay)
        if piece is None:
            return {"type": "http.request", "body": b"", "more_body": False}
        return {"type": "http.request", "body": piece, "more_body": True}

    async def send(message):
        sent.append(message)

    names = dict(headers)
    names.setdefault("host", "127.0.0.1:8000")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "headers": [(k.encode(), v.encode()) for k, v in names.items() if v is not None],
    }
    asyncio.run(guard(scope, receive, send))
    start = sent[0]
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, body


async def reader(scope, receive, send):
    """An application that reads the body and answers its length."""
    size = 0
    while True:
        message = await receive()
        size += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


GUARD = Guard(
    reader, ServeSettings(allow_hosts=("faces.example.org",)), large_bodies={"/api/big": 1_000_000}
)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1:8000",
        "localhost",
        "localhost:1",
        "[::1]:8000",
        "192.168.1.7:80",
        "faces.example.org",
        "FACES.example.org:8443",
    ],
)
def test_hosts_that_are_ours(host: str):
    assert ask(GUARD, headers={"host": host})[0] == 200


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.com",
        "x@evil.example",
        "[::1",
        "faces.example.org.evil.com",
    ],
)
def test_names_that_were_made_to_lead_here_are_refused(host: str | None):
    status, _, body = ask(GUARD, headers={"host": host})
    assert status == 403
    assert b'"forbidden"' in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9000"},
        {"origin": "http://localhost:8000"},
        {"origin": "https://127.0.0.1"},
        {"origin": "null"},
        {"origin": "file://"},
        {"origin": ""},
        {"origin": "http://127.0.0.1:99999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "cross-site"},
    ],
)
def test_pages_of_other_sites_change_nothing(method: str, headers: dict):
    assert ask(GUARD, method=method, headers=headers)[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "http://127.0.0.1:8000", "sec-fetch-site": "same-origin"},
        {"host": "faces.example.org", "origin": "https://faces.example.org"},
        {"host": "faces.example.org:443", "origin": "https://faces.example.org"},
    ],
)
def test_own_pages_and_programs_may_post(headers: dict):
    assert ask(GUARD, method="POST", headers=headers)[0] == 200


def test_other_sites_read_no_data_but_may_link_to_the_page():
    away = {"sec-fetch-site": "cross-site"}
    assert ask(GUARD, headers=away)[0] == 403
    assert ask(GUARD, path="/", headers=away)[0] == 200


def test_there_are_no_web_sockets(client: TestClient):
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/live/x"):
        pass


@pytest.mark.parametrize(
    ("path", "limit"), [("/api/x", SMALL_BODY), ("/api/big", 1_000_000), ("/api/big/", SMALL_BODY)]
)
def test_bodies_are_counted_as_they_come(path: str, limit: int):
    def pieces(size: int) -> Iterable[bytes]:
        while size > 0:
            yield b"x" * min(size, 10_000)
            size -= 10_000

    assert ask(GUARD, method="POST", path=path, body=pieces(limit))[2] == str(limit).encode()
    status, headers, body = ask(GUARD, method="POST", path=path, body=pieces(limit + 1))
    assert status == 413
    assert b'"too_large"' in body
    assert headers["connection"] == "close"


def test_a_body_that_is_announced_as_too_large_is_not_read():
    def never() -> Iterable[bytes]:
        raise AssertionError("it was read")
        yield b""

    headers = {"content-length": str(SMALL_BODY + 1)}
    assert ask(GUARD, method="POST", headers=headers, body=never())[0] == 413


@pytest.mark.parametrize("limits", [{"idle_seconds": 0.1}, {"upload_seconds": 0.1}])
def test_slow_clients_time_out(limits: dict):
    slow = Guard(reader, ServeSettings(**limits), {})
    status, _, body = ask(slow, method="POST", body=[b"x"] * 100, delay=0.3)
    assert status == 408
    assert b'"too_slow"' in body


def test_every_answer_carries_the_headers(client: TestClient):
    for path in ("/", "/static/base.css", "/static/none", "/api/health", "/api/jobs/x", "/nowhere"):
        answer = client.get(path)
        for name, value in HEADERS.items():
            assert answer.headers[name] == value, (path, name)
        assert "access-control-allow-origin" not in answer.headers
    policy = HEADERS["content-security-policy"]
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy
    asked = client.options("/api/jobs", headers={"origin": "http://evil.example"})
    assert asked.status_code == 405
    assert not [name for name in asked.headers if name.startswith("access-control")]
