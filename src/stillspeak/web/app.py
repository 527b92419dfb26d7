"""The application: pages, API and live part in one FastAPI app."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stillspeak import __version__
from stillspeak.errors import MissingDependencyError
from stillspeak.web.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.responses import Response

    from stillspeak.face.landmarks import LandmarkDetector

__all__ = ["STATIC", "ServeSettings", "create_app"]

STATIC = Path(__file__).parent / "static"
"""Pages, styles and scripts, as they are sent."""


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
    from stillspeak.web.errors import add_error_handlers, log
    from stillspeak.web.guard import Guard
    from stillspeak.web.studio.api import router
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
    if settings.live_sessions:
        try:
            from stillspeak.web.live.routes import live_router, max_offer_bytes
        except MissingDependencyError as error:
            log.warning("without the live page: %s", error)
        else:
            app.include_router(live_router(settings, animator=studio.models.animator))
            studio.live = True
            large["/live/offer"] = max_offer_bytes(settings)
    app.add_middleware(Guard, settings=settings, large_bodies=large)
    add_error_handlers(app)
    app.include_router(router)
    _add_pages(app)
    return app


def _add_pages(app: FastAPI) -> None:
    from starlette.responses import FileResponse
    from starlette.staticfiles import StaticFiles

    # Asked for again each time, so that pages and scripts are of one version.
    fresh = {"cache-control": "no-cache"}

    class Files(StaticFiles):
        def file_response(self, *args: object, **kwargs: object) -> Response:
            answer: Response = super().file_response(*args, **kwargs)  # type: ignore[arg-type]
            answer.headers.update(fresh)
            return answer

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(STATIC / "index.html", headers=fresh)

    app.mount("/static", Files(directory=STATIC), name="static")
