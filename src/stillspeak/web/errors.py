"""What a refusal looks like in HTTP: ``{"error": {"code", "message"}}``.

The code is for programs and stays as it is; the message is one line for people.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from stillspeak.errors import InputError, MissingDependencyError, StillspeakError

PRIVATE = {"cache-control": "private, no-store"}
"""Only the client may keep an answer, and only as long as it wants."""

log = logging.getLogger("stillspeak.web")


class ApiError(Exception):
    """A request that is refused; ``more`` is what else programs are told."""

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: int | None = None, **more: Any
    ) -> None:
        super().__init__(message)
        self.status, self.code = status, code
        self.retry_after, self.more = retry_after, more


def error_response(error: Exception, headers: Mapping[str, str] = PRIVATE) -> JSONResponse:
    """The answer to anything raised; what is not foreseen is 500, without details."""
    refusal = _refusal(error)
    headers = {**headers, **(getattr(error, "headers", None) or {})}
    if refusal.retry_after is not None:
        headers["retry-after"] = str(refusal.retry_after)
    # One line of characters that can be sent: half a surrogate pair cannot.
    line = " ".join(str(refusal).encode("utf-8", "replace").decode().split())
    content = {"error": {"code": refusal.code, "message": line, **refusal.more}}
    return JSONResponse(content, refusal.status, headers)


def _refusal(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case MissingDependencyError():
            return ApiError(503, "unavailable", str(error))
        case InputError():
            return ApiError(422, "bad_input", str(error))
        case StillspeakError():
            return ApiError(422, "refused", str(error))
        case RequestValidationError():
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"][1:] if isinstance(part, str))
            return ApiError(422, "bad_request", f"{place}: {first['msg']}".removeprefix(": "))
        case HTTPException():
            code = {404: "not_found", 405: "not_allowed"}.get(error.status_code, "bad_request")
            return ApiError(error.status_code, code, str(error.detail).lower())
    # The server's log has the rest.
    return ApiError(500, "internal", "something went wrong inside the server; try again")


def add_error_handlers(app: FastAPI) -> None:
    """Let an application answer all errors in this form."""

    async def answer(request: Request, error: Exception) -> Response:
        return error_response(error)

    for kind in (ApiError, StillspeakError, RequestValidationError, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
