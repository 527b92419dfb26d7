"""Who may talk to the server, in what amount, and what browsers are told about its pages.

:class:`Guard` is ASGI middleware around a whole application:

- **Host**: ``localhost``, a bare address or a name that the operator allowed. Another name that
  was made to resolve to this machine (DNS rebinding) gets 403.
- **Origin**: a request that changes something, or any web socket, must come from a page of this
  server or from no page at all (curl, Python). Pages of other sites get 403, and so do their
  requests for data. There is no CORS.
- **Bodies** are counted and timed while they are read.
- **Headers**: a content security policy without inline code and third parties, and its kin.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "media-src 'self' blob: mediastream:",
        "connect-src 'self'",
        "font-src 'self'",
        "manifest-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)

HEADERS: Mapping[str, str] = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(self), geolocation=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""Sent with every answer, unless the application set one itself."""

SMALL_BODY = 64 * 1024
"""Bytes of a request's body where nothing larger is allowed."""

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


class Guard:
    """Middleware; arguments other than ``app`` by name.

    Args:
        app: the application.
        allow_hosts: host names allowed beside ``localhost`` and bare addresses.
        large_bodies: paths whose bodies may be larger than :data:`SMALL_BODY`, and how large.
        body_seconds: time within which a body has to be there.
        idle_seconds: longest pause inside a body.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        allow_hosts: tuple[str, ...] = (),
        large_bodies: Mapping[str, int] | None = None,
        body_seconds: float = 60.0,
        idle_seconds: float = 15.0,
    ) -> None:
        self.app = app
        self.allow_hosts = frozenset(name.lower() for name in allow_hosts) | {"localhost"}
        self.large_bodies = dict(large_bodies or {})
        self.body_seconds = body_seconds
        self.idle_seconds = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        reason = self._refusal(scope, headers)
        if scope["type"] == "websocket":
            if reason is None:
                await self.app(scope, receive, send)
            else:
                await receive()  # the connect message
                await send({"type": "websocket.close", "code": 1008, "reason": reason})
            return
        answer = _Answer(send)
        if reason is not None:
            await answer.refuse(403, "forbidden", reason)
            return
        limit = self.large_bodies.get(scope["path"], SMALL_BODY)
        body = _Body(receive, limit, self.body_seconds, self.idle_seconds)
        if _declared_length(headers) > limit:
            await answer.refuse(413, "too_large", body.too_large)
            return
        with suppress(BodyError):  # said below, if nothing was said yet
            await self.app(scope, body.receive, lambda message: answer.send(message, body))
        if body.error is not None and not answer.started:
            await answer.refuse(body.error.status, body.error.code, str(body.error))

    def _refusal(self, scope: Scope, headers: Mapping[str, str]) -> str | None:
        """Why a request is refused, or None."""
        host = headers.get("host", "")
        name = _host_name(host)
        if name is None or not (name in self.allow_hosts or _is_address(name)):
            return (
                f"this server does not answer to the name {name or '(none)'}; open it as "
                "localhost, or start it with --allow-host"
            )
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE
        if origin is not None and changes and not _same_place(origin, host):
            return "a page of another site may not use this server"
        # Browsers say where a request comes from even where they send no origin.
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none") and (changes or scope["path"].startswith("/api/")):
            return "a page of another site may not use this server"
        return None


class BodyError(Exception):
    """A request's body is too large or too slow; ``status`` and ``code`` say which."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class _Body:
    """A request's body as it comes in, counted and timed."""

    def __init__(self, receive: Receive, limit: int, seconds: float, idle: float) -> None:
        self._receive = receive
        self._limit = limit
        self._seconds = seconds
        self._idle = idle
        self._size = 0
        self._began: float | None = None
        self._whole = False
        self.error: BodyError | None = None

    @property
    def too_large(self) -> str:
        size = self._limit
        shown = f"{size / 2**20:.4g} MiB" if size >= 2**20 else f"{size / 1024:.4g} KiB"
        return f"the upload is larger than {shown}; make it smaller"

    async def receive(self) -> Message:
        if self._whole:  # what is awaited now is the client's going away
            return await self._receive()
        clock = asyncio.get_running_loop().time
        if self._began is None:
            self._began = clock()
        left = self._began + self._seconds - clock()
        try:
            async with asyncio.timeout(max(min(left, self._idle), 0)):
                message = await self._receive()
        except TimeoutError:
            self.error = BodyError(
                408, "too_slow", "the upload stalled or took too long; try again"
            )
            raise self.error from None
        if message["type"] == "http.request":
            self._size += len(message.get("body", b""))
            if self._size > self._limit:
                self.error = BodyError(413, "too_large", self.too_large)
                raise self.error
            self._whole = not message.get("more_body", False)
        return message


class _Answer:
    """The answer on its way out: gets the headers, and is replaced where the body was at fault."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def send(self, message: Message, body: _Body | None = None) -> None:
        if body is not None and body.error is not None and not self.started:
            return  # the application's guess at what went wrong
        if message["type"] == "http.response.start":
            self.started = True
            have = {name.lower() for name, _ in message.get("headers", ())}
            extra = [
                (name.encode(), value.encode())
                for name, value in HEADERS.items()
                if name.encode() not in have
            ]
            message = {**message, "headers": [*message.get("headers", ()), *extra]}
        await self._send(message)

    async def refuse(self, status: int, code: str, text: str) -> None:
        content = json.dumps({"error": {"code": code, "message": text}}).encode()
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", str(len(content)).encode()),
                    # What is left of a body is not read.
                    (b"connection", b"close"),
                    (b"cache-control", b"no-store"),
                ],
            }
        )
        await self.send({"type": "http.response.body", "body": content})


def _declared_length(headers: Mapping[str, str]) -> int:
    text = headers.get("content-length", "0")
    return int(text) if text.isdecimal() and text.isascii() and len(text) < 20 else 0


def _host_name(host: str) -> str | None:
    """The name or address in a Host header, without its port; None where there is none."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return None
    return name or None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _same_place(origin: str, host: str) -> bool:
    """Whether an Origin header names the server that a Host header names, port included."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"{page.scheme}://{host}")
        port = {"http": 80, "https": 443}.get(page.scheme)
        return (
            port is not None
            and page.hostname is not None
            and page.hostname == here.hostname
            and (page.port or port) == (here.port or port)
        )
    except ValueError:
        return False
