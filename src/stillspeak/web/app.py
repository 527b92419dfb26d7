"""The application: pages, API and live part under one roof."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from stillspeak import __version__
from stillspeak.errors import MissingDependencyError, StillspeakError
from stillspeak.web.guard import Guard
from stillspeak.web.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request
    from starlette.responses import Response

    from stillspeak.face.landmarks import LandmarkDetector
    from stillspeak.web.studio.studio import Studio

__all__ = ["STATIC", "ServeSettings", "create_app"]

STATIC = Path(__file__).parent / "static"
"""Pages, styles and scripts, as they are sent."""

_LIVE_PICTURE = 10 * 2**20  # bytes of a live session's picture

_log = logging.getLogger("stillspeak.web")


def create_app(
    settings: ServeSettings | None = None, *, detector: LandmarkDetector | None = None
) -> FastAPI:
    """Build the web application; nothing runs until its lifespan begins.

    ``app.state.studio`` is the :class:`~stillspeak.web.studio.studio.Studio` behind it.

    Args:
        settings: defaults if None.
        detector: finds faces; MediaPipe's if None.

    Raises:
        MissingDependencyError: the ``serve`` extra is not installed.
    """
    try:
        from fastapi import FastAPI
    except ImportError as error:
        raise MissingDependencyError(
            f"stillspeak serve needs {error.name}, which is not installed; "
            "pip install 'stillspeak[serve]'"
        ) from error
    from fastapi.exceptions import RequestValidationError
    from starlette.exceptions import HTTPException
    from starlette.responses import FileResponse
    from starlette.staticfiles import StaticFiles

    from stillspeak.web.studio.api import ApiError, api_router, error_answer, error_of
    from stillspeak.web.studio.studio import Studio

    settings = settings or ServeSettings()
    studio = Studio(settings, detector)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await studio.open()
        try:
            yield
        finally:
            await studio.close()

    app = FastAPI(
        title="stillspeak",
        version=__version__,
        lifespan=lifespan,
        # The pages of FastAPI's documentation come from elsewhere: docs/web.md has it instead.
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/openapi.json",
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.settings = settings
    app.state.studio = studio
    large = dict.fromkeys(("/api/pictures", "/api/sounds"), settings.max_upload_bytes)
    large |= _add_live(app, studio)
    app.add_middleware(
        Guard,
        allow_hosts=settings.allow_hosts,
        large_bodies=large,
        body_seconds=settings.upload_seconds,
        idle_seconds=settings.idle_seconds,
    )

    async def known(request: Request, problem: Exception) -> Response:
        return error_of(problem)

    async def invalid(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, RequestValidationError)
        first = problem.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str))
        return error_answer(422, "bad_request", f"{place}: {first['msg']}".removeprefix(": "))

    async def http(request: Request, problem: Exception) -> Response:
        assert isinstance(problem, HTTPException)
        code = {404: "not_found", 405: "not_allowed"}.get(problem.status_code, "bad_request")
        answer = error_answer(problem.status_code, code, str(problem.detail).lower())
        answer.headers.update(problem.headers or {})
        return answer

    async def unforeseen(request: Request, problem: Exception) -> Response:
        # The server's log has the rest; what a visitor sees holds nothing of the inside.
        return error_answer(500, "internal", "something went wrong inside the server; try again")

    app.add_exception_handler(StillspeakError, known)
    app.add_exception_handler(ApiError, known)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(Exception, unforeseen)

    class Files(StaticFiles):
        """Files that browsers ask for again, so that pages and scripts are of one version."""

        def file_response(self, *args: object, **kwargs: object) -> Response:
            answer: Response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
            answer.headers["cache-control"] = "no-cache"
            return answer

    app.include_router(api_router(studio))

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers={"cache-control": "no-cache"})

    app.mount("/static", Files(directory=STATIC), name="static")
    return app


def _add_live(app: FastAPI, studio: Studio) -> dict[str, int]:
    """Add the live page, if it is wanted and can be had; the bodies that it takes, in bytes."""
    settings = studio.settings
    if not settings.live_sessions or find_spec("stillspeak.web.live.session") is None:
        return {}
    try:
        live = import_module("stillspeak.web.live.session")
    except MissingDependencyError as error:
        _log.warning("without the live page: %s", error)
        return {}
    chosen = live.LiveSettings(
        sessions=settings.live_sessions,
        device=settings.device,
        upload_bytes=_LIVE_PICTURE,
        stun=settings.stun,
        turn=settings.turn,
        turn_user=settings.turn_user,
        turn_password=settings.turn_password,
    )
    app.include_router(live.live_router(chosen, animator=studio.shelf.animator))
    studio.live = True
    # Pictures come in base64 there.
    return {"/live/offer": live.OFFER_BYTES + _LIVE_PICTURE * 4 // 3 + 1024}
