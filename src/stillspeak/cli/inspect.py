"""``stillspeak inspect``: what marks a file carries, and whether they are intact."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillspeak.cli.common import AsJson, tell
from stillspeak.errors import InputError, StillspeakError

if TYPE_CHECKING:
    from stillspeak.media.marks.credentials import Credentials
    from stillspeak.media.marks.inspection import Inspection

EXIT_CODES = {"intact": 0, "re-encoded": 3, "unmarked": 4, "untrusted": 5, "tampered": 6}
"""By verdict. 1: a file could not be read, 2: usage."""


def inspect(
    files: Annotated[
        list[Path], typer.Argument(help="Videos, pictures, or folders of PNG frames.")
    ],
    trust: Annotated[
        Path | None, "PEM file of root certificates that the signer must have."
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what marks FILES carry: intact, tampered, re-encoded (watermark only) or unmarked.

    Exit code: 0 all intact, 3 re-encoded, 4 unmarked, 5 not signed by --trust, 6 tampered, the
    highest of all files; 1 a file could not be read.
    """
    from stillspeak.media.marks.inspection import inspect_file

    roots = None if trust is None else _read(trust)
    code = 0
    unread = False
    for number, file in enumerate(files):
        try:
            found = inspect_file(file, trust=roots)
        except InputError as error:
            unread = True
            if as_json:
                print(json.dumps({"file": str(file), "error": str(error)}))
            tell(str(error))
            continue
        code = max(code, EXIT_CODES[found.verdict])
        if as_json:
            print(json.dumps(_table(found)))
        else:
            print(("\n" if number else "") + _text(found))
    if unread or code:
        raise SystemExit(1 if unread else code)


def _table(found: Inspection) -> dict[str, Any]:
    mark, credentials = found.watermark, found.credentials
    return {
        "file": str(found.path),
        "verdict": found.verdict,
        "summary": found.summary,
        "watermark": {**asdict(mark), "identifier": _hex(mark.identifier)},
        "credentials": credentials
        and {**asdict(credentials), "watermark": _hex(credentials.watermark)},
    }


def _hex(identifier: int | None) -> str | None:
    return None if identifier is None else f"{identifier:08x}"


def _text(found: Inspection) -> str:
    lines = [f"{found.path}: {found.verdict} ({found.summary})"]

    def add(name: str, value: object) -> None:
        if value:  # a file may say of itself what would steer a terminal
            plain = "".join(c if c.isprintable() else "?" for c in str(value))
            lines.append(f"  {name:12}{plain}")

    mark, credentials = found.watermark, found.credentials
    if credentials is not None:
        add("signed by", _signer(credentials))
        add("time stamp", credentials.signed_at)
        add("tool", credentials.tool)
        add("actions", ", ".join(credentials.actions))
        add("source", ", ".join(credentials.source_types))
        model = credentials.model
        if model and credentials.model_sha256:
            model += f", SHA-256 {credentials.model_sha256}"
        add("model", model)
        for one in credentials.ingredients:
            text = f"SHA-256 {one['sha256']}" if one["sha256"] else str(one["title"] or "unnamed")
            text += ", with credentials of its own" if one["credentials"] else ""
            add(str(one["title"] or "ingredient").removeprefix("the "), text)
        for problem in credentials.problems:
            add("problem", problem)
    if mark.identifier is not None:
        add("watermark", _hex(mark.identifier))
    elif mark.present:
        add("watermark", "there, but its identifier cannot be read any more")
    else:
        add("watermark", "not found" if mark.frames else "the picture cannot be read")
    return "\n".join(lines)


def _signer(credentials: Credentials) -> str:
    name = credentials.signer or "an unknown signer"
    if credentials.organisation and not credentials.self_made:
        name += f" of {credentials.organisation}"
    if credentials.self_made:
        whose = " that is trusted here" if credentials.trusted else ", which anyone can make"
        return f"{name}: a self-made certificate{whose}"
    if credentials.trusted:
        return f"{name}: trusted"
    return f"{name}: not trusted here; --trust ROOT.pem says whom to trust"


def _read(path: Path) -> str:
    try:
        text = path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read as certificates in PEM form") from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise StillspeakError(f"{path}: holds no certificate in PEM form")
    return text
