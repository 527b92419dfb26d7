"""``stillspeak conceal``: what a video lost, made from its sound."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import Field

from stillspeak.cli.common import (
    AsJson,
    Device,
    Model,
    Overwrite,
    Quiet,
    SigningOptions,
    progress_bar,
    tell_unmarked,
    usage,
)
from stillspeak.conceal.options import GapOptions, MotionOptions
from stillspeak.system.configuration import fields_of

GAPS = fields_of(GapOptions)


def conceal(
    video: Annotated[str, typer.Argument(help="A video with its whole sound.")],
    output: Annotated[str, typer.Argument(help=".mp4, .mov, .mkv or .webm.")],
    lost: Annotated[
        str | None,
        "Lost intervals: 1.0-1.4,2.2-2.6 in seconds, 25-34 in frame numbers, or a .csv, "
        ".json or .txt file.",
    ] = None,
    detect: Annotated[bool, "Frozen, black and damaged frames count as lost."] = False,
    online: Annotated[bool, GAPS["online"]] = GapOptions.online,
    ease: Annotated[int, GAPS["ease"]] = GapOptions.ease,
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
    device: Device = "auto",
    *,
    motion: MotionOptions,
    crf: Annotated[int, Field(ge=0, le=51), "Picture quality; 0 lossless, more is smaller."] = 12,
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
    from stillspeak.conceal.occlusion import DeoccludedVideo, uncover_video
    from stillspeak.conceal.video import ConcealedVideo, conceal_video

    marking = marks.choices()
    with progress_bar("concealing", None, quiet) as advance, Concealer(model, device=device) as own:
        common: dict[str, Any] = {
            **vars(motion),
            "crf": crf,
            "overwrite": overwrite,
            "mark": marking.mark,
            "certificate": marks.certificate,
            "key": marks.key,
            "concealer": own,
            "progress": advance,
        }
        result: ConcealedVideo | DeoccludedVideo
        if occlusion is None:
            common |= {"lost": lost, "detect": detect, "extend": extend, "fps": fps}
            common |= {"online": online, "ease": ease}
            result = conceal_video(video, output, **common)
        else:
            if grow is not None:
                common["grow"] = grow
            result = uncover_video(video, output, occlusion, reference=reference, **common)
    tell_unmarked(marking, quiet)
    if as_json:
        took = round(time.perf_counter() - started, 3)
        print(json.dumps({**result.as_dict(), "model": model, "seed": motion.seed, "took": took}))
    elif not quiet:
        print(f"{Path(output)}: {result.summary()}")
