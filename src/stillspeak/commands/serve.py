"""``stillspeak serve``: the web application on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stillspeak.commands.common import Quiet


def serve(
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on: 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port: 8000; 0 takes a free one.")] = None,
    quiet: Quiet = False,
) -> None:
    """Open the web application: a picture and speech become a video in the browser."""
    from stillspeak.configuration import build, merge, read_toml
    from stillspeak.web.server import run
    from stillspeak.web.settings import ServeSettings

    given: dict[str, Any] = {"host": host, "port": port}
    table = merge(
        read_toml(config) if config else {},
        {key: value for key, value in given.items() if value is not None},
    )
    settings = build(ServeSettings, table, name=str(config or "serve"))

    def ready(url: str) -> None:
        if not quiet:
            typer.echo(f"{url}  (Ctrl-C stops)")

    run(settings, ready=ready)
