"""``stillspeak serve``: the web application on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from stillspeak.cli.common import MarkOptions, Quiet, known_device, tell_unmarked


def serve(
    config: Annotated[Path | None, typer.Option(help="A TOML file of settings.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on: 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="TCP port: 8000; 0 takes a free one.")
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A name under which browsers reach it. May be given repeatedly."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="A released model's name or a weights file to choose from, the default first; "
            "all released ones if left out. May be given repeatedly."
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.", callback=known_device)
    ] = None,
    keep_minutes: Annotated[
        float | None, typer.Option(min=0.1, help="When files are removed: 60.")
    ] = None,
    live_sessions: Annotated[
        int | None, typer.Option(min=0, max=1000, help="Live sessions: 2; 0 switches them off.")
    ] = None,
    stun: Annotated[
        str | None, typer.Option(help="A STUN server for the live page, as stun:HOST:PORT.")
    ] = None,
    turn: Annotated[
        str | None,
        typer.Option(help="A TURN server, as turn:HOST:PORT; name and password by --config."),
    ] = None,
    *,
    marks: MarkOptions,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page here.")] = False,
    quiet: Quiet = False,
) -> None:
    """Open the web application: a picture and speech become a video in the browser."""
    from stillspeak.system.configuration import build, merge, read_toml
    from stillspeak.web.server import run
    from stillspeak.web.settings import ServeSettings

    choices = marks.choices()
    given: dict[str, Any] = {
        "host": host,
        "port": port,
        "allow_hosts": allow_host,
        "models": model,
        "device": device,
        "live_sessions": live_sessions,
        "stun": stun,
        "turn": turn,
        "mark": False if marks.no_mark else None,
        "label": choices.label,
        "certificate": marks.certificate,
        "key": marks.key,
        "keep_seconds": None if keep_minutes is None else 60 * keep_minutes,
    }
    table = merge(
        read_toml(config) if config else {},
        {key: value for key, value in given.items() if value is not None},
    )
    settings = build(ServeSettings, table, name=str(config or "serve"))

    tell_unmarked(settings.choices, quiet)

    def ready(url: str) -> None:
        if not quiet:
            typer.echo(f"{url}  (Ctrl-C stops)")
        if open_browser:
            typer.launch(url)

    run(settings, ready=ready)
