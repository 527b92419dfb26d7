"""``stillspeak poses``: what a face does with a sound, for other tools."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from stillspeak.cli.common import AsJson, Device, Model, Overwrite, Quiet, read_source, usage
from stillspeak.errors import OutputError
from stillspeak.options import OPTIONS, AnimateOptions


def poses(
    speech: Annotated[str, typer.Argument(help="The sound; - reads it from stdin.")],
    output: Annotated[
        str | None, "-o", "--output", "A file of JSON lines, or - for stdout."
    ] = None,
    fps: Annotated[float | None, OPTIONS["fps"]] = None,
    seed: Annotated[int, OPTIONS["seed"]] = 0,
    blink: Annotated[float, OPTIONS["blink"]] = 1.0,
    expression: Annotated[float, OPTIONS["expression"]] = 1.0,
    head_motion: Annotated[float, OPTIONS["head_motion"]] = 1.0,
    mood: Annotated[str, OPTIONS["mood"]] = "neutral",
    model: Model = "default",
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Write a face's timing for games and 3-D tools, no picture needed: SPEECH -o OUT.jsonl.

    A line each: a header, then frames (mouth pose, ARKit blendshapes, head, gaze) and visemes.
    """
    if output is None:
        raise typer.BadParameter("-o OUTPUT is needed")
    to_file = output != "-"
    usage({"-o - and --json would both write to stdout": as_json and not to_file})
    from stillspeak.media.video_writer import check_file

    if to_file:
        check_file(output, overwrite=overwrite)  # before the slow part
    elif sys.stdout is None:
        raise OutputError("standard output: is closed; give the name of a file")
    from stillspeak.poses import hear_poses

    track = hear_poses(
        read_source(speech),
        AnimateOptions(
            fps=fps,
            seed=seed,
            blink=blink,
            expression=expression,
            head_motion=head_motion,
            mood=mood,
        ),
        model=model,
        device=device,
        name="standard input" if speech == "-" else speech,
    )
    if not to_file:
        for line in track.lines():
            print(line)
        return
    frames = track.save(Path(output), overwrite=overwrite)
    if as_json:
        seconds = frames / track.fps
        print(
            json.dumps({"output": output, "frames": frames, "fps": track.fps, "seconds": seconds})
        )
    elif not quiet:
        print(output)
