"""``stillspeak weights``: the released networks."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def weights(
    name: Annotated[str | None, typer.Argument(help="A model's name or a weights file.")] = None,
) -> None:
    """List the released models and measuring networks, or show how one of them was made."""
    from stillspeak.weights import catalogue, read_info, resolve_model, scorers

    if name is not None:
        path = scorers()[name].path if name in scorers() else resolve_model(name)[0]
        print(json.dumps({"file": str(path), **read_info(path)}, indent=1))
        return
    default = catalogue()["default"].name
    for key, entry in sorted(catalogue().items()):
        if key != "default":
            there = f"{entry.path.stat().st_size / 2**20:.1f} MiB" if entry.path.is_file() else "-"
            mark = " (default)" if key == default else ""
            print(f"{key:16}{there:>10}  {entry.summary}{mark}")
    for key, entry in sorted(scorers().items()):
        size = entry.path.stat().st_size / 2**20
        print(f"{key:16}{size:6.1f} MiB  {entry.summary} (measures)")
