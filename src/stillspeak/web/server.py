"""Runs the application under uvicorn until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable

from stillspeak.errors import ConfigError
from stillspeak.media.source import reason
from stillspeak.web.app import create_app
from stillspeak.web.settings import ServeSettings

MAX_CONNECTIONS = 200
"""Connections at the same time; further ones get 503."""

SHUTDOWN_SECONDS = 3
"""How long a stop waits for answers under way."""


def run(settings: ServeSettings, *, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until interrupted.

    Args:
        settings: what to serve and where.
        ready: called once with the URL, from when on connections are taken.

    Raises:
        ConfigError: the address cannot be listened on, no files can be kept, or the label or
            certificate of the settings cannot be used.
        MissingDependencyError: the ``serve`` extra is not installed.
        WeightsError: a model that the settings name is not there.
    """
    settings.choices.check()
    app = create_app(settings)
    if settings.models:
        app.state.studio.models.offered()  # a wrong name is an error now and not for visitors
    import uvicorn

    with _listen(settings.host, settings.port) as listening:
        # Before the server starts, which would report a failure with a traceback.
        app.state.studio.storage.open()
        ready(_url(listening))
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,  # no log of what visitors did
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            h11_max_incomplete_event_size=32 * 1024,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        finally:
            app.state.studio.storage.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as problem:
        raise ConfigError(
            f"serve: cannot listen on {host} port {port} ({reason(problem)}); "
            "choose another with --port or --host"
        ) from problem


def _url(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    if host in ("0.0.0.0", "::"):  # noqa: S104 - shown, not bound
        host = "127.0.0.1"
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
