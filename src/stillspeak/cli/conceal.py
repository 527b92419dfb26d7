"""``stillspeak conceal``: what a video lost, made from its sound."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from stillspeak.cli.common import (
    Advance,
    AsJson,
    Blink,
    Device,
    Expression,
    FaceIndex,
    Model,
    Overwrite,
    Quiet,
    Seed,
    SigningOptions,
    progress_bar,
    tell_unmarked,
    usage,
)
from stillspeak.options import AnimateOptions

if TYPE_CHECKING:
    from stillspeak.conceal.concealer import Concealer
    from stillspeak.conceal.occlusion import DeoccludedVideo
    from stillspeak.conceal.video import ConcealedVideo


def conceal(
    video: Annotated[str, typer.Argument(help="A video with its whole sound.")],
    output: Annotated[str, typer.Argument(help=".mp4, .mov, .mkv or .webm.")],
    lost: Annotated[
        str | None,
        "Lost intervals: 1.0-1.4,2.2-2.6 in seconds, 25-34 in frame numbers, or a .csv, "
        ".json or .txt file.",
    ] = None,
    detect: Annotated[bool, "Frozen, black and damaged frames count as lost."] = False,
    online: Annotated[bool, "Each frame from the past alone, as in a call."] = False,
    ease: Annotated[
        int, Field(ge=0, le=25), "With --online: good frames over which the picture returns."
    ] = 0,
    extend: Annotated[bool, "Frames before and after the picture while sound goes on."] = True,
    fps: Annotated[
        float | None, Field(ge=1, le=240), "True frame rate, if too few frames are left."
    ] = None,
    occlusion: Annotated[
        str | None,
        "What hides the face: a picture or video, white where hidden, or x,y,width,height.",
    ] = None,
    reference: Annotated[
        str | None, "With --occlusion: a picture of the bare face, or a frame's number."
    ] = None,
    grow: Annotated[
        float | None, Field(ge=0, le=1), "Face widths to widen the mask by; 0.04 by default."
    ] = None,
    model: Model = "default",
    seed: Seed = AnimateOptions.seed,
    face: FaceIndex = None,
    device: Device = "auto",
    blink: Blink = AnimateOptions.blink,
    expression: Expression = AnimateOptions.expression,
    crf: Annotated[int, Field(ge=0, le=51), "Picture quality; 0 lossless, more is smaller."] = 12,
    *,
    marks: SigningOptions,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Generate the frames that VIDEO lost, or the part of a face that something hides."""
    gaps = lost or detect or online or fps or not extend
    help_with = reference is not None or grow is not None
    usage(
        {
            "--reference and --grow go with --occlusion": occlusion is None and help_with,
            "--ease goes with --online": ease and not online,
            "--occlusion goes without --lost, --detect, --online, --fps and --no-extend; fill the "
            "gaps first": occlusion is not None and gaps,
        }
    )
    started = time.perf_counter()
    from stillspeak.media.video_editor import check_rewrite

    check_rewrite(video, output, overwrite=overwrite)  # before the slow part
    from stillspeak.conceal.concealer import Concealer

    marking = marks.choices()
    motion: dict[str, Any] = {"seed": seed, "face": face, "blink": blink, "expression": expression}
    written = {"crf": crf, "overwrite": overwrite, "mark": marking.mark}
    signed = {"certificate": marks.certificate, "key": marks.key}
    lost_frames = {"lost": lost, "detect": detect, "extend": extend, "fps": fps}
    lost_frames |= {"online": online, "ease": ease}
    hidden = {"reference": reference} | ({} if grow is None else {"grow": grow})
    choices = motion | written | signed | (lost_frames if occlusion is None else hidden)
    with progress_bar("concealing", None, quiet) as advance:
        result = _edit(video, output, occlusion, Concealer(model, device=device), advance, choices)
    tell_unmarked(marking, quiet)
    if as_json:
        took = round(time.perf_counter() - started, 3)
        print(json.dumps({**result.as_dict(), "model": model, "seed": seed, "took": took}))
    elif not quiet:
        print(f"{Path(output)}: {result.summary()}")


def _edit(
    video: str,
    output: str,
    occlusion: str | None,
    concealer: Concealer,
    progress: Advance,
    choices: dict[str, Any],
) -> ConcealedVideo | DeoccludedVideo:
    from stillspeak.conceal.occlusion import uncover_video
    from stillspeak.conceal.video import conceal_video

    with concealer:
        choices = {**choices, "concealer": concealer, "progress": progress}
        if occlusion is not None:
            return uncover_video(video, output, occlusion, **choices)
        return conceal_video(video, output, **choices)
