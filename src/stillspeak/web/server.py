"""Runs the application under uvicorn until it is told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from stillspeak.errors import ConfigError
from stillspeak.media.source import reason
from stillspeak.web.app import create_app
from stillspeak.web.settings import ServeSettings

if TYPE_CHECKING:
    from fastapi import FastAPI

MAX_CONNECTIONS = 200
"""Connections at the same time; further ones get 503."""

SHUTDOWN_SECONDS = 3
"""How long a stop waits for answers under way."""


def run(settings: ServeSettings, *, ready: Callable[[str], None] = lambda url: None) -> None:
    """Serve until interrupted; ``ready`` is called once with the URL.

    Raises:
        ConfigError: the address, folder, label or certificate cannot be used.
        MissingDependencyError: the ``serve`` extra is not installed.
        WeightsError: a model that the settings name is not there.
    """
    settings.choices.check()
    app = create_app(settings)
    if settings.models:
        app.state.studio.models.offered()  # a wrong name is an error now and not for visitors
    # Before the server starts, which would report a failure with a traceback.
    storage = app.state.studio.storage
    storage.open()
    try:
        serve_app(
            app,
            settings.host,
            settings.port,
            ready,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_graceful_shutdown=SHUTDOWN_SECONDS,
            h11_max_incomplete_event_size=32 * 1024,
        )
    finally:
        storage.close()


def serve_app(
    app: FastAPI, host: str, port: int, ready: Callable[[str], None], **options: Any
) -> None:
    """Serve any application as :func:`run` does, with options of ``uvicorn.Config``."""
    import uvicorn

    six = ":" in host
    try:
        listening = socket.create_server(
            (host, port),
            family=socket.AF_INET6 if six else socket.AF_INET,
            dualstack_ipv6=six and socket.has_dualstack_ipv6(),
            backlog=1024,
        )
    except (OSError, OverflowError) as problem:
        raise ConfigError(
            f"serve: cannot listen on {host} port {port} ({reason(problem)}); "
            "choose another with --port or --host"
        ) from problem
    with listening:
        name, number = listening.getsockname()[:2]
        if name in ("0.0.0.0", "::"):  # noqa: S104 - shown, not bound
            name = "127.0.0.1"
        ready(f"http://[{name}]:{number}/" if ":" in name else f"http://{name}:{number}/")
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, **options
        )
        uvicorn.Server(config).run(sockets=[listening])
