"""What the routes of the API share: the studio behind a request, its items and their files."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import FileResponse

from stillspeak.web.errors import PRIVATE
from stillspeak.web.studio.storage import GoneError, Kept
from stillspeak.web.studio.studio import Studio


async def _studio(request: Request) -> Studio:
    studio: Studio = request.app.state.studio
    return studio


Current = Annotated[Studio, Depends(_studio)]
"""The studio of the application that a request came to."""


def finder(kind: type[Kept]) -> Callable[..., Coroutine[Any, Any, Kept]]:
    """A dependency of routes whose path has an item's ``name``."""

    async def find(name: str, studio: Current) -> Kept:
        return studio.storage.get(kind, name)

    return find


def file_response(path: Path, media_type: str, file_name: str | None = None) -> FileResponse:
    """A file, to be saved if it has a name."""
    try:
        status = path.stat()
    except OSError:  # its time came just now
        raise GoneError("file") from None
    return FileResponse(
        path, media_type=media_type, filename=file_name, headers=PRIVATE, stat_result=status
    )
