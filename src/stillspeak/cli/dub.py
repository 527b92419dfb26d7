"""``stillspeak dub``: a video with new speech."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from stillspeak.cli.common import (
    AsJson,
    Device,
    Model,
    Overwrite,
    Quiet,
    SigningOptions,
    progress_stages,
    tell,
    tell_unmarked,
)
from stillspeak.dub.options import DubOptions


def dub(
    video: Annotated[str, typer.Argument(help="A video of somebody, with or without sound.")],
    speech: Annotated[
        str, typer.Argument(help="The new speech: a sound file, a video with sound, or - (stdin).")
    ],
    output: Annotated[str, "-o", "--output", ".mp4, .m4v, .mov, .mkv or .webm."],
    *,
    options: DubOptions,
    model: Model = "default",
    device: Device = "auto",
    crf: Annotated[int, Field(ge=0, le=51), "Picture quality; 0 lossless, more is smaller."] = 12,
    marks: SigningOptions,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
) -> None:
    """Give VIDEO new SPEECH: the mouth moves with it, all else stays as it was filmed."""
    started = time.perf_counter()
    marking = marks.choices()
    from stillspeak.media.video_editor import check_rewrite

    check_rewrite(video, output, overwrite=overwrite)  # before the slow part
    from stillspeak.dub.video import dub

    with _as_file(speech) as said, progress_stages(quiet) as progress:
        result = dub(
            *(video, said, output),
            model=model,
            device=device,
            progress=progress,
            crf=crf,
            overwrite=overwrite,
            mark=marking.mark,
            certificate=marks.certificate,
            key=marks.key,
            **vars(options),
        )
    tell_unmarked(marking, quiet)
    for note in result.notes:
        tell(f"note: {video}: {note}", quiet)
    if as_json:
        took = round(time.perf_counter() - started, 3)
        print(json.dumps({**result.as_dict(), "model": model, "took": took}))
    elif not quiet:
        print(f"{Path(output)}: {result.summary()}")


@contextmanager
def _as_file(speech: str) -> Iterator[str]:
    """The file of a sound; that of standard input is removed afterwards."""
    if speech != "-":
        yield speech
        return
    with tempfile.TemporaryDirectory(prefix="stillspeak-") as folder:
        path = Path(folder) / "standard input"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield str(path)
