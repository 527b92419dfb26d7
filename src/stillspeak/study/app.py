"""The study in the browser: one page, a small interface, and the videos.

What a visitor's browser learns: texts, questions, and names of videos that hold for one trial of
one session. What is kept of a visitor: see :mod:`stillspeak.study.store`; never an address.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stillspeak.errors import MissingDependencyError, StudyError
from stillspeak.study import judge
from stillspeak.study.config import StudyConfig, load_config
from stillspeak.study.materials import Materials, Video, load_materials
from stillspeak.study.plan import check_plan
from stillspeak.study.rate_limit import Rate
from stillspeak.study.store import (
    FullError,
    Session,
    Store,
    StoredTrial,
    default_database,
    shown_code,
    valid_code,
)
from stillspeak.study.texts import render

# This module is imported by who serves, and by nobody else.
try:
    import uvicorn
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
_WATCH_SLACK = 0.8
"""A video counts as watched after this share of its length; clocks and decoders differ."""

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


class _RefusedError(Exception):
    """A request that is answered with one sentence."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Study:
    """A loaded study and what its answers to requests are, without the web around it."""

    def __init__(self, folder: Path, database: str | None) -> None:
        self.folder = folder
        self.materials: Materials = load_materials(folder)
        self.config: StudyConfig = load_config(folder)
        check_plan(self.config, self.materials)
        self.store = Store(database or default_database(folder), self.materials)
        self.video_of: dict[str, Video] = self.materials.by_id()
        limits = self.config.limits
        self.starts = Rate(limits.starts_per_hour, 3600)
        self.tries = Rate(30, 3600)
        self.requests = Rate(limits.requests_per_minute, 60)

    def state(self, session: Session | None, code: str) -> dict[str, Any]:
        """What the page needs to show what comes next."""
        if session is None:
            return {"phase": "consent"}
        trials = self.store.trials(session.id)
        todo = next((t for t in trials if not t.answered), None)
        state: dict[str, Any] = {"code": shown_code(code), "total": len(trials)}
        if todo is None:
            return state | {"phase": "done", "score": self._score(session)}
        state |= {"phase": "trial", "trial": self._trial(session, todo)}
        after = next((t for t in trials if t.position > todo.position and not t.answered), None)
        if after is not None:  # so that the next videos can load meanwhile
            state["next"] = [f["url"] for f in self._files(session, after)]
        return state

    def _files(self, session: Session, stored: StoredTrial) -> list[dict[str, Any]]:
        files = []
        for side, name in (("first", stored.trial.first), ("second", stored.trial.second)):
            if name:
                video = self.video_of[name]
                token = self.store.token(session.id, stored.position, side)
                files.append(
                    {
                        "url": f"video/{token}",
                        "width": video.width,
                        "height": video.height,
                        "seconds": video.seconds,
                    }
                )
        return files

    def _trial(self, session: Session, stored: StoredTrial) -> dict[str, Any]:
        playback = self.config.playback
        trial = stored.trial
        told: dict[str, Any] = {
            "position": stored.position,
            "training": trial.role == "training",
            "videos": self._files(session, stored),
            "plays": stored.plays,
            "watched": stored.watched > 0 or not playback.must_watch,
        }
        if self.config.kind == "intelligibility" and trial.role == "catch":
            told["instead"] = trial.expected
        return told

    def _score(self, session: Session) -> dict[str, int] | None:
        if self.config.kind != "turing":
            return None
        mine = [a for a in self.store.answers(session.id) if a.trial.role == "main"]
        question = self.config.questions[0].id
        right = sum(a.values[question] == a.trial.expected for a in mine)
        return {"right": right, "of": len(mine)}

    def settings(self) -> dict[str, Any]:
        """What holds for every trial."""
        config = self.config
        return {
            "kind": config.kind,
            "questions": [
                {"id": q.id, "text": q.text, "labels": list(q.labels)} for q in config.questions
            ],
            "entry": config.trials.entry,
            "choices": [list(place) for place in self.materials.choices],
            "mustWatch": config.playback.must_watch,
            "maxPlays": config.playback.max_plays,
            "together": config.playback.together,
            "sound": config.playback.sound and config.kind != "intelligibility",
        }

    def start(self, code: str) -> Session:
        try:
            return self.store.start(code, self.config)
        except FullError:
            raise _RefusedError(
                403, "This study has all the visitors that it needs. Thank you."
            ) from None

    def stored_trial(self, session: Session, body: dict[str, Any]) -> StoredTrial:
        position = body.get("position")
        trials = self.store.trials(session.id)
        if type(position) is not int or not 1 <= position <= len(trials):
            raise _RefusedError(422, "There is no such trial.")
        return trials[position - 1]

    def played(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        stored = self.stored_trial(session, body)
        most = self.config.playback.max_plays
        if not stored.answered and not self.store.played(stored, most=most):
            raise _RefusedError(409, "This video cannot be played more often.")
        return {"plays": stored.plays + 1}

    def watched(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        stored = self.stored_trial(session, body)
        if not stored.answered:
            if stored.first_played is None or (
                time.time() - stored.first_played < _WATCH_SLACK * self._length(stored)
            ):
                raise _RefusedError(409, "The videos were not played to their end.")
            self.store.watched(stored)
        return {"watched": True}

    def _length(self, stored: StoredTrial) -> float:
        names = [n for n in (stored.trial.first, stored.trial.second) if n]
        lengths = [self.video_of[name].seconds for name in names]
        return max(lengths) if self.config.playback.together else sum(lengths)

    def answer(self, session: Session, body: dict[str, Any]) -> dict[str, Any]:
        stored = self.stored_trial(session, body)
        took = body.get("responseMs")
        if type(took) is not int or not 0 <= took <= 86_400_000:
            raise _RefusedError(422, "The response time is missing.")
        try:
            values = judge.checked(self.config, self.materials, body.get("answers"))
        except ValueError as error:
            raise _RefusedError(422, f"The answer cannot be stored: {error}.") from None
        trials = self.store.trials(session.id)
        waiting = [t.position for t in trials if not t.answered]
        new = False
        if not stored.answered:
            if stored.position != waiting[0]:
                raise _RefusedError(409, "An earlier trial has no answer yet.")
            if self.config.playback.must_watch and not stored.watched:
                raise _RefusedError(409, "Please watch the videos to their end first.")
            try:
                new = self.store.answer(session.id, stored, values, took, last=len(waiting) == 1)
            except LookupError:
                raise _RefusedError(401, "Your answers were deleted.") from None
        said = ""
        if stored.trial.role == "training" and self.config.trials.feedback:
            said = judge.feedback(self.config, self.materials, stored.trial, values)
        return {"stored": True, "again": not new, "feedback": said}

    def video(self, session: Session, token: str) -> Video:
        """The video behind a name; only of trials that have come, and the next one."""
        for stored in self._open(session):
            for side, name in (("first", stored.trial.first), ("second", stored.trial.second)):
                if name and self.store.token(session.id, stored.position, side) == token:
                    return self.video_of[name]
        raise _RefusedError(404, "There is no such video.")

    def _open(self, session: Session) -> Iterator[StoredTrial]:
        ahead = 0
        for stored in self.store.trials(session.id):
            if not stored.answered:
                ahead += 1
            if ahead > 2:
                return
            yield stored


def create_app(folder: str | Path, *, database: str | None = None) -> FastAPI:
    """The web application of a study.

    Args:
        folder: the study's.
        database: SQLAlchemy's URL; ``answers.db`` in the folder by default.

    Raises:
        StudyError, ConfigError: the study or its database cannot be used.
        MissingDependencyError: the extra ``study`` is not installed.
    """
    study = _Study(Path(folder), database)
    page = _page(study)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        study.store.close()

    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.study = study

    def refused(status: int, message: str) -> Response:
        return JSONResponse({"message": message}, status)

    @app.middleware("http")
    async def guard(
        request: Request, call_next: Callable[[Request], Awaitable[Response]]
    ) -> Response:
        if not study.requests.allow(_address(request)):
            response = refused(429, "Too many requests; please wait a minute.")
            response.headers["Retry-After"] = "60"
        elif request.method not in ("GET", "HEAD", "POST"):
            response = refused(405, "That cannot be done here.")
        elif request.method == "POST" and not _from_our_page(request):
            response = refused(403, "This request does not come from the study's page.")
        else:
            response = await call_next(request)
        for name, value in _SECURITY.items():
            response.headers.setdefault(name, value)
        response.headers.setdefault("Cache-Control", "no-store")
        return response

    @app.exception_handler(_RefusedError)
    def on_refusal(request: Request, error: _RefusedError) -> Response:
        return refused(error.status, str(error))

    @app.exception_handler(StudyError)
    def on_trouble(request: Request, error: StudyError) -> Response:
        return refused(503, "The answers cannot be stored just now; please try again.")

    def visitor(request: Request) -> tuple[Session | None, str]:
        code = valid_code(request.cookies.get(COOKIE, ""))
        session = study.store.find(code) if code else None
        return session, code or ""

    def known(request: Request) -> tuple[Session, str]:
        session, code = visitor(request)
        if session is None:
            raise _RefusedError(401, "Your session has ended. Please reload the page.")
        return session, code

    def with_cookie(request: Request, code: str, state: dict[str, Any]) -> Response:
        response = JSONResponse(state)
        response.set_cookie(
            COOKIE,
            code,
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
            path=request.scope.get("root_path") or "/",
        )
        return response

    async def body_of(request: Request) -> dict[str, Any]:
        if not request.headers.get("content-type", "").startswith("application/json"):
            raise _RefusedError(415, "JSON is expected.")
        data = b""
        try:
            async with asyncio.timeout(_BODY_SECONDS):
                async for chunk in request.stream():
                    data += chunk
                    if len(data) > MAX_BODY:
                        raise _RefusedError(413, "That is too long.")
        except TimeoutError:
            raise _RefusedError(408, "The request took too long.") from None
        try:
            body = json.loads(data)
        except (ValueError, RecursionError):
            body = None
        if not isinstance(body, dict):
            raise _RefusedError(400, "JSON is expected.")
        return body

    @app.get("/")
    def home() -> Response:
        return Response(page, media_type="text/html; charset=utf-8")

    @app.get("/healthz")
    def health() -> dict[str, str]:
        study.store.deleted()  # asks the database
        return {"status": "ok"}

    @app.get("/static/{name}")
    def static(name: str) -> Response:
        if name not in _STATIC:
            raise _RefusedError(404, "There is no such page.")
        data = (files("stillspeak.study") / "static" / name).read_bytes()
        return Response(data, media_type=_STATIC[name])

    @app.get("/api/state")
    def state(request: Request) -> dict[str, Any]:
        return study.state(*visitor(request))

    @app.post("/api/start")
    async def start(request: Request) -> Response:
        body = await body_of(request)

        def work() -> Response:
            session, code = visitor(request)
            if session is None:
                key = body.get("key")
                if body.get("agreed") is not True:
                    raise _RefusedError(422, "Without your consent the study cannot begin.")
                if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{32,64}", key):
                    raise _RefusedError(422, "The request is incomplete.")
                if not study.starts.allow(_address(request)):
                    raise _RefusedError(
                        429, "Too many people began from your network; please try again later."
                    )
                code = study.store.code_for(key)
                session = study.start(code)
            return with_cookie(request, code, study.state(session, code))

        return await run_in_threadpool(work)

    @app.post("/api/resume")
    async def resume(request: Request) -> Response:
        body = await body_of(request)

        def work() -> Response:
            if not study.tries.allow(_address(request)):
                raise _RefusedError(429, "Too many tries; please try again later.")
            code = valid_code(str(body.get("code", ""))[:60])
            session = study.store.find(code) if code else None
            if session is None or code is None:
                raise _RefusedError(404, "There are no answers under this code.")
            return with_cookie(request, code, study.state(session, code))

        return await run_in_threadpool(work)

    def changing(path: str, action: Callable[[Session, dict[str, Any]], dict[str, Any]]) -> None:
        async def endpoint(request: Request) -> Response:
            body = await body_of(request)

            def work() -> Response:
                session, code = known(request)
                result = action(session, body)
                if path == "/api/answer":
                    result["state"] = study.state(session, code)
                return JSONResponse(result)

            return await run_in_threadpool(work)

        app.add_api_route(path, endpoint, methods=["POST"], response_model=None)

    changing("/api/played", study.played)
    changing("/api/watched", study.watched)
    changing("/api/answer", study.answer)

    @app.post("/api/delete")
    async def delete(request: Request) -> Response:
        body = await body_of(request)

        def work() -> Response:
            session, _ = known(request)
            if body.get("confirmed") is not True:
                raise _RefusedError(422, "Please confirm that your answers shall be deleted.")
            study.store.delete(session.id)
            response = JSONResponse({"phase": "deleted"})
            response.delete_cookie(COOKIE, path=request.scope.get("root_path") or "/")
            return response

        return await run_in_threadpool(work)

    @app.get("/video/{token}")
    def video(request: Request, token: str) -> Response:
        session, _ = known(request)
        found = study.video(session, token)
        path = study.folder / found.file
        try:
            size = path.stat().st_size
        except OSError:
            raise _RefusedError(404, "There is no such video.") from None
        begin, end, status = _range(request.headers.get("range"), size)
        headers = {
            "Accept-Ranges": "bytes",
            "Content-Length": str(end - begin),
            # A name of its own for each trial, so that keeping it shows nothing stale.
            "Cache-Control": "private, max-age=3600",
            "ETag": f'"{token}"',
        }
        if status == 416:
            headers |= {"Content-Range": f"bytes */{size}", "Content-Length": "0"}
            return Response(status_code=416, headers=headers)
        if status == 206:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{size}"
        return StreamingResponse(_bytes(path, begin, end), status, headers, found.type)

    return app


def _bytes(path: Path, begin: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(begin)
        left = end - begin
        while left > 0:
            data = file.read(min(_CHUNK, left))
            if not data:
                return
            left -= len(data)
            yield data


def _range(header: str | None, size: int) -> tuple[int, int, int]:
    """First byte, end and status of the answer to a Range header of one range."""
    match = re.fullmatch(r"bytes=(\d{0,15})-(\d{0,15})", (header or "").strip())
    if match is None or not any(match.groups()):
        return 0, size, 200
    first, last = match.groups()
    if not first:
        begin, end = max(0, size - int(last)), size
    else:
        begin, end = int(first), min(size, int(last) + 1) if last else size
    if begin >= end:
        return 0, 0, 416
    return begin, end, 206


def _address(request: Request) -> str:
    return request.client.host if request.client else "unknown"


def _from_our_page(request: Request) -> bool:
    """Whether the study's own page sent this: other sites' pages can neither send the header
    without asking first, which nothing here allows, nor hide where they come from.
    """
    if request.headers.get(HEADER) != "1":
        return False
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return False
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")


def _page(study: _Study) -> str:
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
        settings=json.dumps(study.settings()),
        kind=study.config.kind,
    )


def serve(
    folder: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    database: str | None = None,
    trusted_proxies: str | None = None,
    root_path: str = "",
    ready: Callable[[str], None] | None = None,
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
        StudyError: the study or its database cannot be used, or the port is taken.
        ConfigError: study.toml is wrong.
        MissingDependencyError: the extra ``study`` is not installed.
    """
    app = create_app(folder, database=database)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
        except (OSError, OverflowError) as error:
            text = str(getattr(error, "strerror", None) or error).lower()
            raise StudyError(f"{host}:{port}: cannot be listened at ({text})") from error
        listener.listen(1024)
        where = f"[{host}]" if ":" in host else host
        if ready is not None:
            ready(f"http://{where}:{listener.getsockname()[1]}/")
        settings = uvicorn.Config(
            app,
            access_log=False,
            log_level="warning",
            proxy_headers=trusted_proxies is not None,
            forwarded_allow_ips=trusted_proxies or "",
            root_path=root_path,
            server_header=False,
            timeout_keep_alive=30,
        )
        uvicorn.Server(settings).run(sockets=[listener])
