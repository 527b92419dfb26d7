"""``stillspeak export``: a model for programs that do not bring PyTorch along."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from stillspeak.cli.common import AsJson, FaceIndex, Overwrite, Quiet, in_bytes, progress_bar


def export(
    model: Annotated[str, typer.Argument(help="A released model's name, or a weights file.")],
    output: Annotated[Path, typer.Argument(help="The folder for the files.")],
    onnx: Annotated[bool, "hear.onnx, sound to poses; or still.onnx and step.onnx."] = False,
    photo: Annotated[
        str | None, "A picture, whose face's inputs of still.onnx are written as face.npz."
    ] = None,
    face: FaceIndex = None,
    check: Annotated[bool, "--check/--no-check", "Compare with PyTorch in ONNX Runtime."] = True,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX graphs that run without PyTorch, a frame at a time."""
    if not onnx:
        raise typer.BadParameter("say what to write: --onnx")
    if face is not None and photo is None:
        raise typer.BadParameter("--face goes with --photo")
    from stillspeak.export.onnx import CHECKED, export_onnx

    with progress_bar("comparing", CHECKED, quiet) as advance:
        made = export_onnx(
            model,
            output,
            image=photo,
            face=face,
            overwrite=overwrite,
            check=check,
            progress=lambda done, _: advance(done),
        )
    files = [path for path in (made.still, made.step, made.face) if path is not None]
    unit = "eye_distances" if made.still is None else "levels"
    if as_json:
        result = {
            "files": [str(path) for path in files],
            f"difference_{unit}": made.difference,
            "steps_compared": CHECKED if check else 0,
            f"tolerance_{unit}": float(made.metadata[f"tolerance_{unit}"]),
            "metadata": made.metadata,
        }
        print(json.dumps(result))
    elif not quiet:
        for path in files:
            print(f"{path}: {in_bytes(path.stat().st_size)}")
        if made.difference is not None:
            what = "of 255 levels" if made.still else "of the distance between the eyes"
            print(
                f"{CHECKED} frames in ONNX Runtime differ from PyTorch's by at most "
                f"{made.difference:.2g} {what}"
            )
