"""``stillspeak serve``: the web application on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from stillspeak.cli.common import MarkOptions, Quiet, known_device, tell_unmarked
from stillspeak.system.configuration import build, fields_of, merge, read_toml
from stillspeak.web.settings import ServeSettings

SETTINGS = fields_of(ServeSettings)


def serve(
    config: Annotated[Path | None, "A TOML file of settings."] = None,
    host: Annotated[str | None, SETTINGS["host"]] = None,
    port: Annotated[int | None, SETTINGS["port"]] = None,
    allow_host: Annotated[list[str] | None, SETTINGS["allow_hosts"]] = None,
    model: Annotated[list[str] | None, SETTINGS["models"]] = None,
    device: Annotated[
        str | None, typer.Option(help="auto, cpu, cuda or mps.", callback=known_device)
    ] = None,
    keep_minutes: Annotated[float | None, Field(ge=0.1), "When files are removed: 60."] = None,
    live_sessions: Annotated[int | None, SETTINGS["live_sessions"]] = None,
    stun: Annotated[str | None, SETTINGS["stun"]] = None,
    turn: Annotated[str | None, SETTINGS["turn"]] = None,
    *,
    marks: MarkOptions,
    open_browser: Annotated[bool, "--open", "Open the page here."] = False,
    quiet: Quiet = False,
) -> None:
    """Open the web application: a picture and speech become a video in the browser."""
    from stillspeak.web.server import run

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
    given = {key: value for key, value in given.items() if value is not None}
    table = merge(read_toml(config) if config else {}, given)
    settings = build(ServeSettings, table, name=str(config or "serve"))
    tell_unmarked(settings.choices, quiet)

    def ready(url: str) -> None:
        if not quiet:
            typer.echo(f"{url}  (Ctrl-C stops)")
        if open_browser:
            typer.launch(url)

    run(settings, ready=ready)
