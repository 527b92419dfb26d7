"""``stillspeak animate``: one video, or a table of them."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from stillspeak.cli.common import (
    AsJson,
    Device,
    MarkOptions,
    Model,
    Overwrite,
    Quiet,
    progress_bar,
    read_source,
    save,
    tell,
    tell_unmarked,
    tell_warnings,
    usage,
)
from stillspeak.errors import ConfigError, OutputError
from stillspeak.options import OPTIONS, AnimateOptions, Speeches, read_faces

STDOUT_FORMATS = ("mp4", "webm", "gif")


def animate(
    photo: Annotated[str | None, typer.Argument(help="The picture; - reads it from stdin.")] = None,
    speech: Annotated[str | None, typer.Argument(help="The sound; - reads it from stdin.")] = None,
    output: Annotated[
        str | None,
        "-o",
        "--output",
        "mp4, mov, mkv, m4v, webm, gif, a folder of PNGs, or - for stdout.",
    ] = None,
    model: Model = "default",
    device: Device = "auto",
    *,
    options: AnimateOptions,
    face: Annotated[str | None, typer.Option(help=OPTIONS["face"].description)] = None,
    speech_for: Annotated[
        list[str] | None,
        typer.Option(help="N=FILE, with --face 0,N: what face N says; without, it listens."),
    ] = None,
    export: Annotated[
        Path | None, "Also write the face's timing as JSON lines, as stillspeak poses does."
    ] = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    as_json: AsJson = False,
    stdout_format: Annotated[
        str | None, "--format", "What -o - writes: mp4 (default), webm or gif."
    ] = None,
    jobs: Annotated[Path | None, "CSV table with the columns photo, speech, output."] = None,
    marks: MarkOptions,
    part: Annotated[str | None, "--shard", "Part i/n of the jobs."] = None,
    skip_existing: Annotated[bool, "Leave jobs alone whose output exists."] = False,
) -> None:
    """Make a picture speak: PHOTO SPEECH -o OUT.mp4, or many with --jobs TABLE.csv."""
    try:
        first, others = read_faces(face, speech_for or ())
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    options = replace(options, face=first)
    how = _How(model, device, options, others, marks, export, overwrite, quiet, as_json)
    usage({"--export goes with one face, and not with --jobs": export and (others or jobs)})
    if jobs is not None:
        given = photo or speech or output or stdout_format or others
        usage({"--jobs takes its files from the table alone": given})
        _animate_table(jobs, part or "1/1", skip_existing, how)
        return
    if photo is None or speech is None or output is None:
        raise typer.BadParameter("PHOTO, SPEECH and -o OUTPUT are needed, or --jobs TABLE.csv")
    forms = ", ".join(STDOUT_FORMATS)
    to_file = output != "-"
    usage(
        {
            "only one of PHOTO and SPEECH can come from stdin": photo == speech == "-",
            "--shard and --skip-existing go with --jobs": part or skip_existing,
            "-o - and --json would both write to stdout": as_json and not to_file,
            "--format goes with -o -; else OUTPUT's suffix decides": stdout_format and to_file,
            f"--format is one of {forms}": stdout_format not in (None, *STDOUT_FORMATS),
        }
    )
    _animate_one(photo, speech, output, stdout_format or "mp4", how)


@dataclass(frozen=True)
class _How:
    """How videos are made, and what is said about them."""

    model: str
    device: str
    options: AnimateOptions
    others: Speeches
    marks: MarkOptions
    export: Path | None
    overwrite: bool
    quiet: bool
    as_json: bool


def _animate_one(photo: str, speech: str, output: str, stdout_format: str, how: _How) -> None:
    started = time.perf_counter()
    from stillspeak.media.video_writer import check_file, check_output

    choices = how.marks.choices()
    if how.export is not None:
        check_file(how.export, overwrite=how.overwrite)
    if output != "-":
        check_output(output, overwrite=how.overwrite)  # before the slow part
    elif sys.stdout is None:
        raise OutputError("standard output: is closed; give the name of a file")
    from stillspeak.animate import Animator

    photo_name = "standard input" if photo == "-" else photo
    speech_name = "standard input" if speech == "-" else speech
    with Animator(how.model, device=how.device) as animator:
        animation = animator.animate(
            read_source(photo),
            read_source(speech),
            how.options,
            image_name=photo_name,
            audio_name=speech_name,
            others=how.others,
        )
        shown = output if output != "-" else f"video.{stdout_format}"
        warnings = (*animation.warnings, *animation.lost_in(shown))
        tell_warnings(warnings, photo_name, how.quiet)
        if how.export is not None:
            from stillspeak.poses import hear_poses

            heard = (animation.audio, animation.sample_rate)
            track = hear_poses(heard, how.options, animator=animator)
            track.save(how.export, overwrite=how.overwrite)
        with tempfile.TemporaryDirectory() if output == "-" else nullcontext() as folder:
            target = str(Path(folder, shown)) if folder else output
            frames = save(
                animation, target, overwrite=how.overwrite, quiet=how.quiet, choices=choices
            )
            tell_unmarked(choices, how.quiet)
            if folder:
                with Path(target).open("rb") as file:
                    shutil.copyfileobj(file, sys.stdout.buffer)
                sys.stdout.buffer.flush()
                return
    if how.as_json:
        result = {
            "output": output,
            "frames": frames,
            "fps": animation.fps,
            "width": animation.width,
            "height": animation.height,
            "seconds": frames / animation.fps,
            "model": how.model,
            "seed": how.options.seed,
            "identifier": f"{animation.origin.identifier:08x}" if choices.mark else None,
            "warnings": [asdict(warning) for warning in warnings],
            "took": round(time.perf_counter() - started, 3),
        }
        print(json.dumps(result))
    elif not how.quiet:
        print(output)


def _animate_table(table: Path, part: str, skip_existing: bool, how: _How) -> None:
    from stillspeak.animate import Animator
    from stillspeak.batch import read_jobs, run_jobs, shard

    choices = how.marks.choices()
    try:
        mine = shard(read_jobs(table), part)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    with (
        Animator(how.model, device=how.device) as animator,
        progress_bar("animating", len(mine), how.quiet) as advance,
    ):
        results = run_jobs(
            animator,
            mine,
            how.options,
            overwrite=how.overwrite,
            skip_existing=skip_existing,
            choices=choices,
            progress=lambda done, result: advance(done),
        )
    tell_unmarked(choices, how.quiet)
    for result in results:
        tell_warnings(result.warnings, f"{table}, line {result.job.line}", how.quiet)
        if how.as_json:
            row = asdict(result)
            job = row.pop("job")
            print(json.dumps({"line": job["line"], "output": str(job["output"]), **row}))
    failed = [result for result in results if result.error]
    if not (how.as_json or how.quiet):
        made = sum(bool(result.frames) for result in results)
        there = sum(result.skipped for result in results)
        print(f"{made} videos made, {there} were there already, {len(failed)} failed")
    for result in failed:
        tell(f"{table}, line {result.job.line}: {result.error}")
    if failed:
        raise SystemExit(1)
