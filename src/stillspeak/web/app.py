"""The application: pages, API and live part under one roof."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillspeak import __version__
from stillspeak.errors import MissingDependencyError
from stillspeak.web.guard import Guard
from stillspeak.web.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["STATIC", "ServeSettings", "create_app"]

STATIC = Path(__file__).parent / "static"
"""Pages, styles and scripts, as they are sent."""


def create_app(settings: ServeSettings | None = None) -> FastAPI:
    """Build the web application; nothing runs until its lifespan begins.

    Args:
        settings: defaults if None.

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
    from starlette.responses import FileResponse
    from starlette.staticfiles import StaticFiles

    settings = settings or ServeSettings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield

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
    app.add_middleware(
        Guard,
        allow_hosts=settings.allow_hosts,
        large_bodies=dict.fromkeys(("/api/pictures", "/api/sounds"), settings.max_upload_bytes),
        body_seconds=settings.upload_seconds,
        idle_seconds=settings.idle_seconds,
    )

    @app.get("/api/health")
    async def health() -> dict[str, Any]:
        return {"status": "ok", "version": __version__}

    @app.get("/", include_in_schema=False)
    async def studio() -> FileResponse:
        return FileResponse(STATIC / "index.html")

    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    return app
