"""The live face in a browser: a page, and an endpoint that answers a WebRTC offer.

No other machine is asked for anything: there is no STUN server unless the operator names one.
"""

from __future__ import annotations

import base64
import json
from asyncio import shield
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BeforeValidator, Field, ValidationError

from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import MissingDependencyError
from stillspeak.web.errors import ApiError
from stillspeak.web.settings import ServeSettings
from stillspeak.web.studio.model_cache import ModelCache
from stillspeak.web.studio.schemas import OptionsIn, with_options

try:
    from stillspeak.web.live.hub import LiveHub
except ImportError as error:
    raise MissingDependencyError(
        f"live video in the browser needs {error.name}: pip install 'stillspeak[serve]'"
    ) from error

if TYPE_CHECKING:
    from stillspeak.animate import Animator
    from stillspeak.web.live.session import LiveSession

MAX_SDP_BYTES = 256 * 1024

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


def _decoded(text: Any) -> bytes:
    if not isinstance(text, str):
        raise ValueError("not a text")
    return base64.b64decode(text, validate=True)


@with_options
class OfferIn(OptionsIn):
    """An offer: SDP, and how its peer wants to be shown."""

    sdp: str = Field(min_length=1, max_length=MAX_SDP_BYTES)
    type: Literal["offer"]
    picture: Annotated[bytes | None, BeforeValidator(_decoded)] = None
    camera: bool = False
    """The offer sends video, whose face is to speak."""


def live_router(
    settings: ServeSettings | None = None, *, animator: Callable[[], Animator] | None = None
) -> APIRouter:
    """The live part of the server, to be included in an application.

    The application needs :func:`~stillspeak.web.errors.add_error_handlers` too.

    Args:
        settings: what it allows.
        animator: gives a loaded model and detector; by default the router loads the first of the
            settings' models with the first session.

    Returns:
        The router; its lifespan ends all sessions. ``router.hub`` is its :class:`LiveHub`.
    """
    settings = settings or ServeSettings()
    models = ModelCache(settings)
    hub = LiveHub(settings, animator or models.animator)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await hub.close()
            models.close()

    router = APIRouter(prefix="/live", lifespan=lifespan)
    router.hub = hub  # type: ignore[attr-defined]

    for name, (file, kind) in PAGES.items():
        page = partial(_page, file, kind)
        router.add_api_route(f"/{name}", page, methods=["GET"], include_in_schema=False)

    def session(session_id: str) -> LiveSession:
        found = hub.sessions.get(session_id)
        if found is None:
            raise ApiError(404, "unknown", "there is no such session")
        return found

    @router.get("/config")
    async def config() -> dict[str, Any]:
        """What a client has to know before it makes an offer."""
        return {
            "ice_servers": settings.ice_servers,
            "sessions": hub.busy,
            "limit": settings.live_sessions,
            "upload_bytes": settings.live_upload_bytes,
            "session_seconds": settings.live_session_seconds,
        }

    @router.post("/offer")
    async def offer(request: Request) -> Response:
        """Answer an offer: JSON with ``sdp``, ``type`` and, if wanted, ``picture`` and options, or
        ``camera``."""
        asked = await _read_offer(request, settings)
        session = await hub.open(asked.sdp, asked.picture, asked.options, camera=asked.camera)
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

    @router.post("/sessions/{session_id}/reset")
    async def reset(session_id: str) -> Response:
        """Interrupt, for clients without a data channel."""
        session(session_id).talk.interrupt()
        return Response(status_code=204)

    @router.delete("/sessions/{session_id}")
    async def end(session_id: str) -> Response:
        """End a session."""
        await shield(session(session_id).close("ended by the peer"))
        return Response(status_code=204)

    return router


def _page(file: str, kind: str) -> FileResponse:
    return FileResponse(STATIC / file, media_type=kind, headers=HEADERS)


def max_offer_bytes(settings: ServeSettings) -> int:
    """Bytes of an offer, with its picture in base64."""
    return MAX_SDP_BYTES + settings.live_upload_bytes * 4 // 3 + 1024


async def _read_offer(request: Request, settings: ServeSettings) -> OfferIn:
    # Another site's page can make a browser send a form or plain text, but not this.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, "type", "send the offer as application/json")
    most = settings.live_upload_bytes
    message = f"the picture is larger than {most / 2**20:.3g} MiB; send a smaller one"
    too_large = ApiError(413, "large", message, limit=most)
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > max_offer_bytes(settings):
            raise too_large
    try:
        given = {k: v for k, v in json.loads(bytes(body)).items() if v is not None}
        asked = OfferIn.model_validate(given, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        match first["loc"][0]:
            case "sdp" | "type":
                refusal = ApiError(400, "offer", 'sdp and type are needed: a text, and "offer"')
            case "picture":
                refusal = ApiError(400, "picture", "picture has to be a file's bytes in base64")
            case name:
                refusal = ApiError(422, "input", f"{name}: {first['msg']}")
        raise refusal from None
    except (ValueError, AttributeError, RecursionError):
        raise ApiError(400, "offer", "send a JSON object with sdp and type") from None
    if asked.picture is not None and len(asked.picture) > most:
        raise too_large
    if asked.camera and (asked.picture is not None or asked.options.changed()):
        message = "camera goes without a picture and its options: the face is the camera's"
        raise ApiError(422, "input", message)
    if (asked.options.size or 0) > settings.live_size:
        raise ApiError(422, "input", f"size is at most {settings.live_size} here")
    if asked.options.fps not in (None, VIDEO_FPS):
        raise ApiError(422, "input", f"fps is {VIDEO_FPS} here")
    return asked
