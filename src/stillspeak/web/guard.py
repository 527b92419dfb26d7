"""Who may talk to the server, in what amount, and what browsers are told about its pages.

:class:`Guard` is ASGI middleware around a whole application:

- **Host**: ``localhost``, a bare address or an allowed name; others (DNS rebinding) get 403.
- **Origin**: pages of other sites get 403 where they change something or ask for data.
- **Bodies** are counted and timed while they are read.
- **Headers**: a content security policy without inline code and third parties, and its kin.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stillspeak.web.errors import ApiError, error_response
from stillspeak.web.settings import ServeSettings, is_address

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
    """The middleware; ``large_bodies`` has the limits of paths beyond :data:`SMALL_BODY`."""

    def __init__(
        self, app: ASGIApp, settings: ServeSettings, large_bodies: Mapping[str, int]
    ) -> None:
        self._app, self._settings, self._large_bodies = app, settings, large_bodies
        self._hosts = {name.lower() for name in settings.allow_hosts} | {"localhost"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        body = _Body(receive, self._large_bodies.get(scope["path"], SMALL_BODY))
        length = headers.get("content-length", "0")
        if reason := self._refusal(scope, headers):
            body.error = ApiError(403, "forbidden", reason)
        elif re.fullmatch("[0-9]{1,19}", length) and int(length) > body.limit:
            body.error = body.too_large
        started = False

        async def answer(message: Message) -> None:
            nonlocal started
            if body.error is not None and not started:
                return  # what the application takes for the reason
            if message["type"] == "http.response.start":
                started = True
                _add_headers(message)
            await send(message)

        if body.error is None:
            with suppress(ApiError):  # answered below, if nothing was answered yet
                await self._app(scope, body.timed(self._settings), answer)
        if body.error is not None and not started:
            error, body.error = body.error, None
            # What is left of the body is not read.
            closing = {"connection": "close", "cache-control": "no-store"}
            await error_response(error, closing)(scope, receive, answer)

    def _refusal(self, scope: Scope, headers: Headers) -> str | None:
        """Why a request is refused, or None."""
        host = headers.get("host", "")
        name = None
        with suppress(ValueError):
            name = urlsplit(f"//{host}").hostname
        if not name or not (name in self._hosts or is_address(name)):
            return (
                f"this server does not answer to the name {name or '(none)'}; open it as "
                "localhost, or start it with --allow-host"
            )
        origin = headers.get("origin")
        changes = scope["method"] not in _SAFE
        foreign = origin is not None and changes and not _same_place(origin, host)
        # Browsers say where a request comes from even where they send no origin.
        site = headers.get("sec-fetch-site", "none")
        if site not in ("same-origin", "none") and (changes or scope["path"].startswith("/api/")):
            foreign = True
        return "a page of another site may not use this server" if foreign else None


class _Body:
    """A request's body as it comes in, counted and timed."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self.limit = receive, limit
        self.error: ApiError | None = None
        """Why it is refused."""

    @property
    def too_large(self) -> ApiError:
        size = self.limit
        shown = f"{size / 2**20:.4g} MiB" if size >= 2**20 else f"{size / 1024:.4g} KiB"
        return ApiError(413, "too_large", f"the upload is larger than {shown}; make it smaller")

    def timed(self, settings: ServeSettings) -> Receive:
        """What an application receives it by; raises :attr:`error`."""
        size, whole = 0, False
        end: float | None = None

        async def receive() -> Message:
            nonlocal size, whole, end
            if whole:  # what is awaited now is the client's going away
                return await self._receive()
            now = asyncio.get_running_loop().time()
            end = now + settings.upload_seconds if end is None else end
            try:
                async with asyncio.timeout(max(min(end - now, settings.idle_seconds), 0)):
                    message = await self._receive()
            except TimeoutError:
                text = "the upload stalled or took too long; try again"
                self.error = ApiError(408, "too_slow", text)
                raise self.error from None
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > self.limit:
                    self.error = self.too_large
                    raise self.error
                whole = not message.get("more_body", False)
            return message

        return receive


def _add_headers(message: Message) -> None:
    message.setdefault("headers", [])
    headers = MutableHeaders(scope=message)
    for name, value in HEADERS.items():
        headers.setdefault(name, value)


def _same_place(origin: str, host: str) -> bool:
    """Whether an Origin header names the server that a Host header names, port included."""
    try:
        page = urlsplit(origin)
        here = urlsplit(f"{page.scheme}://{host}")
        port = {"http": 80, "https": 443}[page.scheme]
        same = page.hostname == here.hostname and (page.port or port) == (here.port or port)
        return same and page.hostname is not None
    except (KeyError, ValueError):
        return False
