"""Many animations from one table, with the models loaded once."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from stillspeak.animate import Animator
from stillspeak.errors import ConfigError, InputError, StillspeakError
from stillspeak.media.marks.marking import MarkChoices
from stillspeak.media.source import reason
from stillspeak.options import OPTIONS, AnimateOptions, read_faces
from stillspeak.rendering.check import StillWarning
from stillspeak.system.configuration import first_mistake

COLUMNS = ("photo", "speech", "output")
OPTIONAL = (*OPTIONS, "speech_for")


@dataclass(frozen=True)
class BatchJob:
    """One line of the table."""

    line: int
    photo: Path
    speech: Path
    output: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    """Those that the line names."""
    others: Mapping[int, Path | None] = field(default_factory=dict)
    """What other faces of the photo say; None: one listens."""


@dataclass(frozen=True)
class BatchResult:
    """The outcome of a job: frames written and warnings, or the error's one line."""

    job: BatchJob
    frames: int = 0
    skipped: bool = False
    error: str | None = None
    warnings: tuple[StillWarning, ...] = ()


def read_jobs(path: Path) -> list[BatchJob]:
    """Read a CSV table with the columns photo, speech, output and any options of ``animate``.

    Paths are relative to the table's folder. Empty options mean the command line's value. Several
    faces are ``0;1`` in the column face, what others than the first say ``1=b.wav;2=c.wav`` in
    speech_for.

    Raises:
        InputError: a missing table, other columns, a wrong line, or two jobs with one output.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = list(table.fieldnames or ())
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({reason(error)})") from error
    if not set(COLUMNS) <= set(columns) <= {*COLUMNS, *OPTIONAL}:
        raise InputError(
            f"{path}: needs the columns {', '.join(COLUMNS)} and may have "
            f"{', '.join(OPTIONAL)}; found {', '.join(columns) or 'none'}"
        )
    if not rows:
        raise InputError(f"{path}: holds no jobs")
    jobs: list[BatchJob] = []
    outputs: dict[Path, int] = {}
    for line, row in rows:
        try:
            job = _job(line, row, path.parent)
        except InputError as error:
            raise InputError(f"{path}: line {line}: {error}") from error
        before = outputs.setdefault(job.output.resolve(), line)
        if before != line:
            raise InputError(f"{path}: line {line}: writes {job.output}, as line {before} does")
        jobs.append(job)
    return jobs


def _job(line: int, row: Mapping[Any, str | None], folder: Path) -> BatchJob:
    if None in row:  # where csv puts the cells that no column is left for
        raise InputError("has more cells than columns; quote commas")
    cells = {name: (text or "").strip() for name, text in row.items()}
    files = [cells[column] for column in COLUMNS]
    if not all(files):
        raise InputError("photo, speech and output must all be given")
    if any("\0" in file for file in files):
        raise InputError("holds a name with a NUL, which no file has")
    photo, speech, output = (folder / file for file in files)
    options: dict[str, Any] = {}
    try:
        speeches = [one for one in cells.get("speech_for", "").split(";") if one]
        face, others = read_faces(cells.get("face"), speeches)
    except ConfigError as error:
        raise InputError(str(error)) from error
    if face is not None:
        options["face"] = face
    for name, option in OPTIONS.items():
        if name != "face" and (text := cells.get(name)):
            # Without the range: a value out of range fails its own job alone.
            kind: Any = option.annotation
            try:
                options[name] = TypeAdapter(kind).validate_python(text)
            except ValidationError as error:
                raise InputError(f"{name} {first_mistake(error)}") from error
    spoken = {number: folder / file if file else None for number, file in others.items()}
    return BatchJob(line, photo, speech, output, options, spoken)


def shard(jobs: Sequence[BatchJob], text: str) -> list[BatchJob]:
    """The ``i``-th of ``n`` parts of the jobs, for ``i/n``; ConfigError for any other text."""
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ConfigError(f"shard {text!r} is not of the form i/n with i from 1 to n")
    return list(jobs[int(index) - 1 :: int(count)])


def run_jobs(
    animator: Animator,
    jobs: Sequence[BatchJob],
    options: AnimateOptions | None = None,
    *,
    overwrite: bool = False,
    skip_existing: bool = False,
    choices: MarkChoices | None = None,
    progress: Callable[[int, BatchResult], None] = lambda done, result: None,
) -> list[BatchResult]:
    """Run jobs one after the other. A failed job is noted and the next one begun.

    Args:
        animator, jobs: the model to use, and what :func:`read_jobs` found.
        options: for jobs whose line does not say otherwise.
        overwrite, skip_existing: replace outputs that exist, or leave their jobs alone.
        choices: the marks of every video.
        progress: called after each job.
    """
    results = []
    for number, job in enumerate(jobs, start=1):
        result = BatchResult(job, skipped=True)
        try:
            if not (skip_existing and job.output.exists()):
                wanted = replace(options or AnimateOptions(), **job.options)
                animation = animator.animate(job.photo, job.speech, wanted, others=job.others)
                marks = vars(choices or MarkChoices())
                frames = animation.save(job.output, overwrite=overwrite, **marks)
                warnings = (*animation.warnings, *animation.lost_in(job.output))
                result = BatchResult(job, frames=frames, warnings=warnings)
        except StillspeakError as error:
            result = BatchResult(job, error=str(error))
        except MemoryError:  # the next job may be smaller
            result = BatchResult(job, error=f"{job.output}: not enough memory for this one")
        except OSError as error:  # a name that the file system refuses even to look up
            result = BatchResult(job, error=f"{error.filename or job.output}: {reason(error)}")
        results.append(result)
        progress(number, result)
    return results
