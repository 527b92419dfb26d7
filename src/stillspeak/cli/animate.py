"""``stillspeak animate``: one video, or a table of them."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stillspeak.cli.common import (
    AsJson,
    Certificate,
    Device,
    Key,
    LabelText,
    Model,
    NoMark,
    Overwrite,
    Quiet,
    WithLabel,
    mark_choices,
    nothing,
    open_animator,
    progress_bar,
    save,
    say_unmarked,
    say_warnings,
    source,
    source_name,
    with_options,
)
from stillspeak.errors import ConfigError, OutputError
from stillspeak.options import AnimateOptions

if TYPE_CHECKING:
    from stillspeak.media.marks.marking import MarkChoices


STDOUT_FORMATS = ("mp4", "webm", "gif")


@with_options
def animate(
    photo: Annotated[str | None, typer.Argument(help="The picture; - reads it from stdin.")] = None,
    speech: Annotated[str | None, typer.Argument(help="The sound; - reads it from stdin.")] = None,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", help="mp4, webm, gif, a folder of PNGs, or - for stdout."),
    ] = None,
    model: Model = "default",
    device: Device = "auto",
    *,
    options: AnimateOptions,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    stdout_format: Annotated[
        str | None, typer.Option("--format", help="What -o - writes: mp4 (default), webm or gif.")
    ] = None,
    jobs: Annotated[
        Path | None, typer.Option(help="CSV table with the columns photo, speech, output.")
    ] = None,
    no_mark: NoMark = False,
    label: WithLabel = False,
    label_text: LabelText = None,
    certificate: Certificate = None,
    key: Key = None,
    part: Annotated[str | None, typer.Option("--shard", help="Part i/n of the jobs.")] = None,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Leave jobs alone whose output exists.")
    ] = False,
) -> None:
    """Make a picture speak: PHOTO SPEECH -o OUT.mp4, or many with --jobs TABLE.csv."""
    if jobs is not None:
        if photo or speech or output or stdout_format:
            raise typer.BadParameter("--jobs takes its files from the table alone")
        _animate_jobs(
            jobs,
            part or "1/1",
            model=model,
            device=device,
            options=options,
            choices=mark_choices(no_mark, label, label_text, certificate, key),
            overwrite=overwrite,
            skip_existing=skip_existing,
            quiet=quiet,
            as_json=as_json,
        )
        return
    if photo is None or speech is None or output is None:
        raise typer.BadParameter("PHOTO, SPEECH and -o OUTPUT are needed, or --jobs TABLE.csv")
    if photo == "-" and speech == "-":
        raise typer.BadParameter("only one of PHOTO and SPEECH can come from stdin")
    if part or skip_existing:
        raise typer.BadParameter("--shard and --skip-existing go with --jobs")
    to_stdout = output == "-"
    if to_stdout and as_json:
        raise typer.BadParameter("-o - and --json would both write to stdout")
    if stdout_format and not to_stdout:
        raise typer.BadParameter("--format goes with -o -; else OUTPUT's suffix decides")
    if stdout_format not in (None, *STDOUT_FORMATS):
        raise typer.BadParameter(f"--format is one of {', '.join(STDOUT_FORMATS)}")
    started = time.perf_counter()
    from stillspeak.media.video import check_output

    choices = mark_choices(no_mark, label, label_text, certificate, key)
    if not to_stdout:
        check_output(output, overwrite=overwrite)  # before the slow part
    elif sys.stdout is None:
        raise OutputError("standard output: is closed; give the name of a file")
    with open_animator(model, device) as animator:
        animation = animator.animate(
            source(photo),
            source(speech),
            options,
            image_name=source_name(photo),
            audio_name=source_name(speech),
        )
        say_warnings(animation.warnings, source_name(photo), quiet)
        with tempfile.TemporaryDirectory() if to_stdout else nothing() as folder:
            target = str(Path(folder, f"video.{stdout_format or 'mp4'}")) if folder else output
            frames = save(animation, target, overwrite=overwrite, quiet=quiet, choices=choices)
            say_unmarked(choices, quiet)
            if to_stdout:
                with Path(target).open("rb") as file:
                    shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
                return
    if as_json:
        result = {
            "output": output,
            "frames": frames,
            "fps": animation.fps,
            "width": animation.width,
            "height": animation.height,
            "seconds": frames / animation.fps,
            "model": model,
            "seed": options.seed,
            "identifier": f"{animation.origin.identifier:08x}" if choices.mark else None,
            "warnings": [asdict(warning) for warning in animation.warnings],
            "took": round(time.perf_counter() - started, 3),
        }
        print(json.dumps(result))
    elif not quiet:
        print(output)


def _animate_jobs(
    table: Path,
    part: str,
    *,
    model: str,
    device: str,
    options: AnimateOptions,
    choices: MarkChoices,
    overwrite: bool,
    skip_existing: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    from stillspeak.batch import read_jobs, run_jobs, shard

    try:
        mine = shard(read_jobs(table), part)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    with (
        open_animator(model, device) as animator,
        progress_bar("animating", len(mine), quiet) as advance,
    ):
        results = run_jobs(
            animator,
            mine,
            options,
            overwrite=overwrite,
            skip_existing=skip_existing,
            **asdict(choices),
            progress=lambda done, result: advance(done, ""),
        )
    say_unmarked(choices, quiet)
    failed = [result for result in results if result.error]
    for result in results:
        say_warnings(result.warnings, f"{table}, line {result.job.line}", quiet)
    if as_json:
        for result in results:
            row = {
                "line": result.job.line,
                "output": str(result.job.output),
                "frames": result.frames,
                "skipped": result.skipped,
                "error": result.error,
                "warnings": [asdict(warning) for warning in result.warnings],
            }
            print(json.dumps(row))
    elif not quiet:
        made = sum(1 for result in results if result.frames)
        there = sum(1 for result in results if result.skipped)
        print(f"{made} videos made, {there} were there already, {len(failed)} failed")
    for result in failed:
        print(f"stillspeak: {table}, line {result.job.line}: {result.error}", file=sys.stderr)
    if failed:
        raise SystemExit(1)
