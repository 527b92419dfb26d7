"""The study in the browser: one page, a small interface, and the videos.

A visitor's browser learns texts, questions, and names of videos that hold for one trial of one
session. No address is kept.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stillspeak.errors import MissingDependencyError, StudyError
from stillspeak.study.kinds import Study
from stillspeak.study.plan import check_plan
from stillspeak.study.rate_limit import Rate
from stillspeak.study.store import AnswerStore, StudyFullError, valid_code
from stillspeak.study.texts import render
from stillspeak.study.visit import RefusedError, Visit, settings
from stillspeak.web.server import serve_app

# Only what serves imports this module.
try:
    from fastapi import FastAPI
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response, StreamingResponse
except ImportError as error:
    raise MissingDependencyError(
        f"{error.name} is not installed; install stillspeak with the extras: "
        "pip install 'stillspeak[serve,study]'"
    ) from error

COOKIE = "study_session"
HEADER = "x-study"
"""Sent by the page with every request that changes something; other sites' pages cannot."""

MAX_BODY = 16 * 1024
_BODY_SECONDS = 20
_CHUNK = 256 * 1024
_SECURITY = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "media-src 'self'; connect-src 'self'; form-action 'none'; base-uri 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "X-Robots-Tag": "noindex",
}
_STATIC = {"study.css": "text/css; charset=utf-8", "study.js": "text/javascript; charset=utf-8"}


class StudySite:
    """A loaded study and its answers to requests."""

    def __init__(self, folder: Path, database: str | None) -> None:
        self.study = Study.load(folder)
        check_plan(self.study)
        self.store = AnswerStore(self.study, database)
        self.page = _page(self.study)
        limits = self.study.config.limits
        self.starts = Rate(limits.starts_per_hour, 3600)
        self.tries = Rate(30, 3600)
        self.requests = Rate(limits.requests_per_minute, 60)

    def visit(self, code: str | None) -> Visit | None:
        """The visit of a code; None if there is none (any more)."""
        session = self.store.find(code) if code else None
        return Visit(self.study, self.store, session, code) if code and session else None

    def here(self, request: Request) -> Visit | None:
        return self.visit(valid_code(request.cookies.get(COOKIE, "")))

    def known(self, request: Request) -> Visit:
        if visit := self.here(request):
            return visit
        raise RefusedError(401, "Your session has ended. Please reload the page.")

    def home(self) -> Response:
        return Response(self.page, media_type="text/html; charset=utf-8")

    def health(self) -> dict[str, str]:
        self.store.deleted()  # asks the database
        return {"status": "ok"}

    def static(self, name: str) -> Response:
        if name not in _STATIC:
            raise RefusedError(404, "There is no such page.")
        data = (files("stillspeak.study") / "static" / name).read_bytes()
        return Response(data, media_type=_STATIC[name])

    def video(self, request: Request, token: str) -> Response:
        found = self.known(request).video(token)
        path = self.study.folder / found.file
        try:
            size = path.stat().st_size
        except OSError:
            raise RefusedError(404, "There is no such video.") from None
        begin, end, status = _range(request.headers.get("range"), size)
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Length": str(end - begin),
            # A name of its own for each trial, so that keeping it shows nothing stale.
            "Cache-Control": "private, max-age=3600",
            "ETag": f'"{token}"',
        }
        if status == 416:
            headers["Content-Range"] = f"bytes */{size}"
            return Response(status_code=416, headers=headers)
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        return StreamingResponse(_bytes(path, begin, end), status, headers, found.type)

    def state(self, request: Request) -> dict[str, Any]:
        visit = self.here(request)
        return {"phase": "consent"} if visit is None else visit.state()

    def start(self, request: Request, body: dict[str, Any]) -> Response:
        visit = self.here(request)
        if visit is None:
            key = body.get("key")
            if body.get("agreed") is not True:
                raise RefusedError(422, "Without your consent the study cannot begin.")
            if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{32,64}", key):
                raise RefusedError(422, "The request is incomplete.")
            if not self.starts.allow(_address(request)):
                raise RefusedError(
                    429, "Too many people began from your network; please try again later."
                )
            code = self.store.code_for(key)
            try:
                visit = Visit(self.study, self.store, self.store.start(code), code)
            except StudyFullError:
                raise RefusedError(
                    403, "This study has all the visitors that it needs. Thank you."
                ) from None
        return _with_cookie(request, visit)

    def resume(self, request: Request, body: dict[str, Any]) -> Response:
        if not self.tries.allow(_address(request)):
            raise RefusedError(429, "Too many tries; please try again later.")
        visit = self.visit(valid_code(str(body.get("code", ""))[:60]))
        if visit is None:
            raise RefusedError(404, "There are no answers under this code.")
        return _with_cookie(request, visit)

    def delete(self, request: Request, body: dict[str, Any]) -> Response:
        visit = self.known(request)
        if body.get("confirmed") is not True:
            raise RefusedError(422, "Please confirm that your answers shall be deleted.")
        self.store.delete(visit.session)
        response = JSONResponse({"phase": "deleted"})
        response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/")
        return response


def create_app(folder: str | Path, *, database: str | None = None) -> FastAPI:
    """The web application of a study; arguments and errors as those of :func:`serve`."""
    site = StudySite(Path(folder), database)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        site.store.close()

    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.study = site

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if not site.requests.allow(_address(request)):
            response = _refused(429, "Too many requests; please wait a minute.")
            response.headers["Retry-After"] = "60"
        elif request.method not in ("GET", "HEAD", "POST"):
            response = _refused(405, "That cannot be done here.")
        elif request.method == "POST" and not _from_our_page(request):
            response = _refused(403, "This request does not come from the study's page.")
        else:
            response = await call_next(request)
        for name, value in _SECURITY.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.exception_handler(RefusedError)
    def on_refusal(request: Request, error: RefusedError) -> Response:
        return _refused(error.status, str(error))

    @app.exception_handler(StudyError)
    def on_trouble(request: Request, error: StudyError) -> Response:
        return _refused(503, "The answers cannot be stored just now; please try again.")

    for path, show in (
        ("/", site.home),
        ("/healthz", site.health),
        ("/static/{name}", site.static),
        ("/api/state", site.state),
        ("/video/{token}", site.video),
    ):
        app.add_api_route(path, show, methods=["GET"], response_model=None)

    def add(act: Callable[[Any, dict[str, Any]], Any], whose: Callable[[Request], Any]) -> None:
        @app.post(f"/api/{act.__name__}", response_model=None)
        async def endpoint(request: Request) -> Any:
            body = await _body(request)
            return await run_in_threadpool(lambda: act(whose(request), body))

    for done in (Visit.played, Visit.watched, Visit.answer):
        add(done, site.known)
    for act in (site.start, site.resume, site.delete):
        add(act, lambda request: request)
    return app


def _refused(status: int, message: str) -> Response:
    return JSONResponse({"message": message}, status)


def _with_cookie(request: Request, visit: Visit) -> Response:
    response = JSONResponse(visit.state())
    response.set_cookie(
        COOKIE,
        visit.code,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
        path=request.scope.get("root_path") or "/",
    )
    return response


async def _body(request: Request) -> dict[str, Any]:
    if not request.headers.get("content-type", "").startswith("application/json"):
        raise RefusedError(415, "JSON is expected.")
    data = b""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                data += chunk
                if len(data) > MAX_BODY:
                    raise RefusedError(413, "That is too long.")
    except TimeoutError:
        raise RefusedError(408, "The request took too long.") from None
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RefusedError(400, "JSON is expected.")
    return body


def _bytes(path: Path, begin: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(begin)
        while begin < end and (data := file.read(min(_CHUNK, end - begin))):
            begin += len(data)
            yield data


def _range(header: str | None, size: int) -> tuple[int, int, int]:
    """First byte, end and status of the answer to a Range header of one range."""
    match = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", (header or "").strip())
    if match is None or not any(match.groups()):
        return 0, size, 200
    first, last = match.groups()
    begin = int(first) if first else max(0, size - int(last))
    end = min(size, int(last) + 1) if first and last else size
    return (begin, end, 206) if begin < end else (0, 0, 416)


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _from_our_page(request: Request) -> bool:
    """Whether the study's own page sent this: other sites' pages can neither send the header
    without asking first, which nothing here allows, nor hide where they come from.
    """
    headers = request.headers
    origin = headers.get("origin")
    return (
        headers.get(HEADER) == "1"
        and headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
        and (origin is None or urlsplit(origin).netloc == headers.get("host"))
    )


def _page(study: Study) -> str:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("stillspeak.study", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    texts = study.config.texts
    return environment.get_template("study.html.j2").render(
        texts=texts,
        intro=Markup(render(texts.intro)),  # noqa: S704 - rendered without raw HTML
        consent=Markup(render(texts.consent)),  # noqa: S704
        thanks=Markup(render(texts.thanks)),  # noqa: S704
        settings=json.dumps(settings(study)),
    )


def serve(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    database: str | None = None,
    trusted_proxies: str | None = None,
    root_path: str = "",
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serve a study until interrupted. Nothing about requests is logged.

    Args:
        folder: the study's.
        host, port: to listen at; port 0 is any free one.
        database: SQLAlchemy's URL; ``answers.db`` in the folder by default.
        trusted_proxies: addresses of reverse proxies, separated by commas, whose
            X-Forwarded-For and X-Forwarded-Proto are believed.
        root_path: where a reverse proxy mounts the study.
        ready: told the page's address once it answers.

    Raises:
        StudyError: the study or its database cannot be used.
        ConfigError: study.toml is wrong, or the address cannot be listened on.
        MissingDependencyError: the extra ``study`` is not installed.
    """
    serve_app(
        create_app(folder, database=database),
        host,
        port,
        ready,
        proxy_headers=trusted_proxies is not None,
        forwarded_allow_ips=trusted_proxies or "",
        root_path=root_path,
        timeout_keep_alive=30,
    )
