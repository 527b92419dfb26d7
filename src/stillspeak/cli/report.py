"""``stillspeak report``: a page about results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field

from stillspeak.cli.common import Quiet, progress_stages, tell


def report(
    results: Annotated[list[Path], typer.Argument(help="Folders that evaluate wrote.")],
    output: Annotated[Path, "-o", "--output", "Folder of the report."],
    data: Annotated[Path | None, "The prepared cache, if it is elsewhere by now."] = None,
    title: Annotated[str, "Of the page."] = "Talking faces: results",
    clips: Annotated[int, Field(ge=1, le=100), "Clips whose lips and blinks are drawn."] = 4,
    overwrite: Annotated[bool, "Replace a report."] = False,
    quiet: Quiet = False,
) -> None:
    """Make a page and Markdown of results, beside the paper's Table 1."""
    from stillspeak.evaluation.report.page import write_report

    with progress_stages(quiet) as progress:
        written = write_report(
            results,
            output,
            data=data,
            title=title,
            clips=clips,
            overwrite=overwrite,
            progress=progress,
        )
    for note in written.notes:
        tell(f"note: {note}")
    if not quiet:
        print(f"{written.page} and {written.markdown}: {', '.join(written.systems)}")
