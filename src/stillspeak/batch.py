"""Many animations from one table, with the models loaded once."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stillspeak.animate import Animator
from stillspeak.errors import ConfigError, InputError, StillspeakError
from stillspeak.media.source import reason
from stillspeak.options import AnimateOptions
from stillspeak.rendering.check import StillWarning

COLUMNS = ("photo", "speech", "output")
OPTIONS = ("seed", "face", "size")


@dataclass(frozen=True)
class Job:
    """One line of the table."""

    line: int
    photo: Path
    speech: Path
    output: Path
    seed: int | None = None
    face: int | None = None
    size: int | None = None


@dataclass(frozen=True)
class JobResult:
    """What became of a job: frames written and warnings, or the error's one line."""

    job: Job
    frames: int = 0
    skipped: bool = False
    error: str | None = None
    warnings: tuple[StillWarning, ...] = ()


def read_jobs(path: Path) -> list[Job]:
    """Read a CSV table with the columns photo, speech, output and, if wanted, seed, face, size.

    Paths are relative to the table's folder. Empty options mean the command line's value.

    Raises:
        InputError: the table is missing, has other columns, an empty cell where a file is
            needed, more cells than columns, a number that is none, or two jobs with one output.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = csv.DictReader(file)
            columns = list(table.fieldnames or ())
            rows = [(table.line_num, row) for row in table]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: cannot be read as a CSV table ({reason(error)})") from error
    if not set(COLUMNS) <= set(columns) <= {*COLUMNS, *OPTIONS}:
        raise InputError(
            f"{path}: needs the columns {', '.join(COLUMNS)} and may have "
            f"{', '.join(OPTIONS)}; found {', '.join(columns) or 'none'}"
        )
    jobs: list[Job] = []
    outputs: dict[Path, int] = {}
    for line, row in rows:
        if None in row:  # where csv puts the cells that no column is left for
            raise InputError(f"{path}: line {line}: has more cells than columns; quote commas")
        files = [(row[column] or "").strip() for column in COLUMNS]
        if not all(files):
            raise InputError(f"{path}: line {line}: photo, speech and output must all be given")
        if any("\0" in file for file in files):
            raise InputError(f"{path}: line {line}: holds a name with a NUL, which no file has")
        photo, speech, output = (path.parent / file for file in files)
        place = output.resolve()
        if place in outputs:
            raise InputError(f"{path}: line {line}: writes {output}, as line {outputs[place]} does")
        outputs[place] = line
        options = {name: _number(row.get(name), name, path, line) for name in OPTIONS}
        jobs.append(Job(line, photo, speech, output, **options))
    if not jobs:
        raise InputError(f"{path}: holds no jobs")
    return jobs


def shard(jobs: Sequence[Job], text: str) -> list[Job]:
    """The ``i``-th of ``n`` parts of the jobs, for ``i/n`` with i from 1 to n.

    Raises:
        ConfigError: not of that form.
    """
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise ConfigError(f"shard {text!r} is not of the form i/n with i from 1 to n")
    return list(jobs[int(index) - 1 :: int(count)])


def run_jobs(
    animator: Animator,
    jobs: Sequence[Job],
    options: AnimateOptions | None = None,
    *,
    overwrite: bool = False,
    skip_existing: bool = False,
    mark: bool = True,
    label: str | None = None,
    certificate: Path | None = None,
    key: Path | None = None,
    progress: Callable[[int, JobResult], None] = lambda done, result: None,
) -> list[JobResult]:
    """Run jobs one after the other. A failed job is noted and the next one begun.

    Args:
        animator: with the model to use.
        jobs: from :func:`read_jobs`.
        options: for jobs whose line does not say otherwise.
        overwrite: replace outputs that exist.
        skip_existing: leave jobs alone whose output exists.
        mark, label, certificate, key: as in :meth:`Animation.save`.
        progress: called after each job.
    """
    results = []
    options = options or AnimateOptions()
    for number, job in enumerate(jobs, start=1):
        result = JobResult(job, skipped=True)
        try:
            if not (skip_existing and job.output.exists()):
                given = {name: getattr(job, name) for name in OPTIONS}
                told = {name: value for name, value in given.items() if value is not None}
                animation = animator.animate(job.photo, job.speech, replace(options, **told))
                frames = animation.save(
                    job.output,
                    overwrite=overwrite,
                    mark=mark,
                    label=label,
                    certificate=certificate,
                    key=key,
                )
                result = JobResult(job, frames=frames, warnings=animation.warnings)
        except StillspeakError as error:
            result = JobResult(job, error=str(error))
        except MemoryError:  # the next job may be smaller
            result = JobResult(job, error=f"{job.output}: not enough memory for this one")
        except OSError as error:  # a name that the file system refuses even to look up
            result = JobResult(job, error=f"{error.filename or job.output}: {reason(error)}")
        results.append(result)
        progress(number, result)
    return results


def _number(text: str | None, name: str, path: Path, line: int) -> int | None:
    if text is None or not text.strip():
        return None
    try:
        return int(text)
    except ValueError as error:
        raise InputError(f"{path}: line {line}: {name} {text!r} is not a whole number") from error
