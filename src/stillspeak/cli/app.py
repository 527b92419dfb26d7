"""The command line. It reads arguments, draws progress and prints; the work is elsewhere."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stillspeak import __version__
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
    command_line,
    fail,
    in_bytes,
    in_time,
    listed,
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
from stillspeak.cli.conceal import conceal
from stillspeak.cli.export import export
from stillspeak.cli.inspect import inspect
from stillspeak.cli.serve import serve
from stillspeak.cli.stream import stream
from stillspeak.cli.study import app as study_app
from stillspeak.errors import (
    ConfigError,
    OutputError,
    StillspeakError,
    causes,
    out_of_files,
    out_of_memory,
)
from stillspeak.options import AnimateOptions

if TYPE_CHECKING:
    from stillspeak.data.clips import Clip, Rejected
    from stillspeak.media.marks.marking import MarkChoices
    from stillspeak.training.dry_run import Plan

app = typer.Typer(
    name="stillspeak",
    help="One face image and one speech clip become a talking-face video.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; a user's mistake is one line and exit code 1."""
    # Idle OpenMP threads spin by default and take the cores from decoding, detection and
    # encoding; set before torch is imported, and only where nobody chose otherwise.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # NumPy's matrices are small here: a second thread of OpenBLAS would only spin beside the first.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not sys.warnoptions:  # libraries warn of what an error or nothing at all comes of
        warnings.simplefilter("ignore")
    try:
        app(prog_name="stillspeak")
    except StillspeakError as error:
        # Without memory anything goes wrong, and files are blamed that are as good as ever.
        fail(NO_MEMORY if any(map(out_of_memory, causes(error))) else str(error))
    except OSError as error:  # what no function of ours foresaw, such as a full standard output
        _drop_stdout()
        where = f"{error.filename}: " if error.filename else ""
        fail(f"{where}{(error.strerror or str(error)).lower()}")
    except KeyboardInterrupt:
        fail("interrupted", code=130)
    except (MemoryError, RuntimeError, ImportError) as error:
        if out_of_memory(error):
            fail(NO_MEMORY)
        if out_of_files(error):
            fail("too many open files; allow more of them (ulimit -n)")
        raise


NO_MEMORY = (
    "not enough memory; give a smaller picture, a shorter sound or fewer --workers, or close other "
    "programs"
)


def _drop_stdout() -> None:
    """Let what could not be written go, or Python would try again, and complain, at its exit."""
    with suppress(OSError):  # where not one more file can be opened, say
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)


def _show_version(value: bool) -> None:
    if value:
        print(f"stillspeak {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print it.")
    ] = False,
) -> None:
    pass


# --- making videos ----------------------------------------------------------------------------

STDOUT_FORMATS = ("mp4", "webm", "gif")


@app.command()
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


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write it.")] = Path(
        "demo.mp4"
    ),
    model: Model = "default",
    device: Device = "auto",
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Make the bundled example speak: a public-domain portrait and a bundled sentence."""
    from importlib.resources import files

    from skimage.data import astronaut

    from stillspeak.media.video import check_output

    check_output(output, overwrite=overwrite)
    speech = Path(str(files("stillspeak"))) / "resources" / "speech.flac"
    with open_animator(model, device) as animator:
        portrait = astronaut()  # type: ignore[no-untyped-call]
        animation = animator.animate(portrait, speech)
        save(animation, output, overwrite=overwrite, quiet=quiet)
    if not quiet:
        print(output.resolve())


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


@app.command()
def weights(
    name: Annotated[str | None, typer.Argument(help="A model's name or a weights file.")] = None,
) -> None:
    """List the released models and measuring networks, or show how one of them was made."""
    from stillspeak.weights import catalogue, judges, read_info, resolve_model

    if name is not None:
        path = judges()[name].path if name in judges() else resolve_model(name)[0]
        print(json.dumps({"file": str(path), **read_info(path)}, indent=1))
        return
    default = catalogue()["default"].name
    for key, entry in sorted(catalogue().items()):
        if key != "default":
            there = f"{entry.path.stat().st_size / 2**20:.1f} MiB" if entry.path.is_file() else "-"
            mark = " (default)" if key == default else ""
            print(f"{key:16}{there:>10}  {entry.summary}{mark}")
    for key, entry in sorted(judges().items()):
        size = entry.path.stat().st_size / 2**20
        print(f"{key:16}{size:6.1f} MiB  {entry.summary} (measures)")


# --- training ---------------------------------------------------------------------------------


@app.command()
def prepare(
    corpus: Annotated[Path, typer.Argument(help="The corpus's folder.")],
    cache: Annotated[Path, typer.Argument(help="Where the prepared clips go.")],
    layout: Annotated[
        str, typer.Option(help="grid, tcd-timit, crema-d, or folder: any tree of videos.")
    ] = "grid",
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = 2,
    list_only: Annotated[
        bool, typer.Option("--list", help="Only list speakers, splits and clips.")
    ] = False,
    min_seconds: Annotated[
        float | None, typer.Option(help="Shortest clip, with --layout folder: 2 by default.")
    ] = None,
    max_seconds: Annotated[
        float | None, typer.Option(help="Longest clip, with --layout folder: 8 by default.")
    ] = None,
    split: Annotated[
        list[str] | None,
        typer.Option(
            help="Only clips of this split: train, validation or test. May be given repeatedly."
        ),
    ] = None,
    mouth_scale: Annotated[
        int, typer.Option(help="2 keeps the mouth at twice the crops' scale as well.")
    ] = 0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Align a corpus's faces once, into a cache that training reads."""
    from stillspeak.data.clips import SPLITS
    from stillspeak.data.corpora import LAYOUTS
    from stillspeak.data.prepare import MOUTH_SCALES
    from stillspeak.data.prepare import prepare as run

    splits = [name for name in SPLITS if name in (split or ())]
    if unknown := set(split or ()) - set(SPLITS):
        raise typer.BadParameter(f"--split {min(unknown)!r} is not one of {', '.join(SPLITS)}")
    if mouth_scale not in MOUTH_SCALES:
        raise typer.BadParameter(f"--mouth-scale {mouth_scale} is neither 0 nor 2")
    if layout not in LAYOUTS:
        raise typer.BadParameter(f"--layout {layout!r} is not one of {', '.join(sorted(LAYOUTS))}")
    given = {"min_seconds": min_seconds, "max_seconds": max_seconds}
    limits = {name: value for name, value in given.items() if value is not None}
    if limits and layout != "folder":
        raise typer.BadParameter("--min-seconds and --max-seconds go with --layout folder")
    unusable: list[Rejected] = []
    try:
        if layout == "folder":
            clips = _cut_folder(corpus, cache, limits, unusable.append, quiet)
        else:
            clips = LAYOUTS[layout](corpus)
        if list_only:
            for line in _listing(clips, splits):
                print(line)
        else:
            count = sum(not splits or c.split in splits for c in clips)
            with progress_bar("preparing", count, quiet) as advance:
                summary = run(
                    clips,
                    cache,
                    workers=workers,
                    mouth_scale=mouth_scale,
                    splits=splits,
                    progress=lambda p: advance(p.done, ""),
                )
            unusable += summary.rejected
    finally:
        for one in unusable:
            named = one.reason.startswith(str(one.path))
            reason = one.reason if named else f"{one.path}: {one.reason}"
            print(f"stillspeak: left out: {reason}", file=sys.stderr)
    if not list_only:
        print(
            f"{summary.prepared} clips prepared, {summary.skipped} were there already, "
            f"{len(summary.rejected)} left out; {summary.frames} frames in {cache}"
        )
    if unusable:
        raise SystemExit(1)


def _cut_folder(
    corpus: Path,
    cache: Path,
    limits: dict[str, float],
    rejected: Callable[[Rejected], None],
    quiet: bool,
) -> list[Clip]:
    """Clips of a folder of videos, with a progress bar of its own."""
    from stillspeak.data.layouts.folder import find_folder
    from stillspeak.data.segments import SegmentRules

    try:
        rules = SegmentRules(**limits)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from error
    with progress_bar("cutting videos", None, quiet) as advance:
        return find_folder(
            corpus,
            rules=rules,
            memory=cache / ".segments",
            progress=lambda p: advance(p.done, f"of {p.total}  {p.path.name}"),
            rejected=rejected,
        )


def _listing(clips: Sequence[Clip], splits: Sequence[str]) -> Iterator[str]:
    """A line for each speaker, by split: clips, their length and emotions where known.

    Speakers of ``splits`` alone unless that is empty.
    """
    groups: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        if not splits or clip.split in splits:
            groups.setdefault((clip.split, clip.speaker), []).append(clip)
    for (split, speaker), group in sorted(groups.items()):
        line = f"{split:12}{speaker:12}{len(group):6} clips"
        known = [clip.seconds for clip in group if clip.seconds is not None]
        if len(known) == len(group):
            line += f"{sum(known):10.1f} s"
        moods = Counter(clip.emotion for clip in group if clip.emotion)
        yield line + "".join(f"  {mood} {count}" for mood, count in sorted(moods.items()))
    if not any(clip.split == "validation" for clip in clips):
        yield "no speaker is for validation: more speakers or a split.json would change that"


@app.command()
def train(
    config: Annotated[Path, typer.Option(help="TOML file, see configs/.")],
    data: Annotated[Path, typer.Option(help="A prepared cache.")],
    run: Annotated[Path, typer.Option(help="The run's folder.")],
    minutes: Annotated[float | None, typer.Option(help="Stop after so many minutes.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the newest checkpoint.")] = (
        False
    ),
    start_from: Annotated[
        str | None, typer.Option("--from", help="Take over what fits of a model's weights.")
    ] = None,
    device: Device = "auto",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="section.key=value over the file's values.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost; write nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a dry run as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")] = False,
) -> None:
    """Train a generator, or a network that measures, on a prepared cache."""
    from stillspeak.training.run import train as run_training

    if as_json and not dry_run:
        raise typer.BadParameter("--json goes with --dry-run")
    # Under torchrun every process runs this; one speaks for all.
    first = os.environ.get("RANK", "0") == "0"
    quiet = quiet or not first

    def report(line: str) -> None:
        if not quiet:
            print(line, file=sys.stderr)

    if dry_run:
        from stillspeak.training.dry_run import dry_run as measure

        plan = measure(
            config,
            data,
            run,
            overrides=tuple(overrides or ()),
            resume=resume,
            start_from=start_from,
            device=device,
            report=report,
        )
        if first and as_json:
            print(json.dumps(plan.table()))
        elif first:
            _print_plan(plan, minutes)
        return

    with progress_bar("training", None, quiet) as advance:

        def progress(step: int, steps: int, values: Mapping[str, float]) -> None:
            advance(step, f"of {steps}  loss {values['loss']:.4f}")

        reason = run_training(
            config,
            data,
            run,
            overrides=tuple(overrides or ()),
            minutes=minutes,
            resume=resume,
            start_from=start_from,
            device=device,
            info={"command": command_line()},
            report=report,
            progress=progress,
        )
    if first:
        print(f"stopped: {reason}; the run is in {run}")


def _print_plan(plan: Plan, minutes: float | None) -> None:
    """A dry run for people: a table, one row a number."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_header=False, box=None)
    add = table.add_row

    def parameters(name: str, parts: Mapping[str, int]) -> None:
        listed = ", ".join(f"{part} {number:,}" for part, number in parts.items())
        add(name, f"{sum(parts.values()):,} parameters: {listed}" if parts else "none")

    each = "" if plan.processes == 1 else f" in each of {plan.processes} processes"
    memory, disk = plan.memory, plan.disk
    add("device", plan.device + each)
    add("precision", f"{plan.precision}: {plan.precision_reason}")
    add("data", f"{plan.clips} clips of {plan.speakers} speakers, {plan.validation_clips} to check")
    parameters("generator", plan.generator)
    parameters("discriminators", plan.discriminators)
    if plan.training_only:
        add("training only", f"{plan.training_only:,} parameters that are not released")
    add("a frame", f"{plan.gflop_frame:.4g} GFLOP, and {plan.gflop_clip:.4g} once a clip")
    add("steps", f"{plan.steps_left} left of {plan.steps}; {plan.steps_per_epoch} an epoch")
    for phase in plan.phases:
        waits = ", slowed by its batches" if phase.batch_seconds > phase.step_seconds else ""
        add(
            phase.name,
            f"{phase.steps_left} steps from {phase.first_step} on, each {phase.gflop_step:.4g} "
            f"GFLOP and {phase.step_seconds:.3g} s{waits}; batches {in_bytes(phase.batch_bytes)} "
            f"in {phase.batch_seconds:.3g} s; activations {in_bytes(phase.activation_bytes)}; "
            f"{in_time(phase.seconds_left)} left",
        )
    if plan.validations_left:
        each = f"{plan.validation_seconds:.3g} s"
        add("validations", f"{plan.validations_left} left, each {each}")
    add(
        "memory",
        f"{in_bytes(memory.total)}: parameters {in_bytes(memory.parameters)}, gradients "
        f"{in_bytes(memory.gradients)}, optimisers {in_bytes(memory.optimizers)}, average "
        f"{in_bytes(memory.average)}, activations {in_bytes(memory.activations)}, batch "
        f"{in_bytes(memory.batch)}",
    )
    if memory.cuda_peak is not None:
        add("CUDA peak", in_bytes(memory.cuda_peak))
    add(
        "disk",
        f"{in_bytes(disk.total)}: up to {disk.checkpoints} checkpoints of "
        f"{in_bytes(disk.checkpoint)}, 2 weights files of {in_bytes(disk.weights)}",
    )
    cut = "" if minutes is None else f"; this call stops after {in_time(60 * minutes)}"
    add("time left", in_time(plan.seconds_left) + cut)
    Console(soft_wrap=not sys.stdout.isatty()).print(table, markup=False, highlight=False)


# --- evaluation -------------------------------------------------------------------------------


@app.command()
def evaluate(
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder of the results.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="A released model's name or a weights file; still and real are floor and ceiling."
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A prepared cache, or any folder of videos: see --layout.")
    ] = None,
    layout: Annotated[
        str,
        typer.Option(help="What --data is: cache, or folder for videos as they are, uncut."),
    ] = "cache",
    first_frame: Annotated[
        bool,
        typer.Option(
            "--first-frame",
            help="With --layout folder: a video's first frame with a face is its still. The rule "
            "there is, said aloud.",
        ),
    ] = False,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    videos: Annotated[
        Path | None, typer.Option(help="Videos of any other system, instead of --model.")
    ] = None,
    real: Annotated[
        Path | None, typer.Option(help="The real videos, named as those of --videos.")
    ] = None,
    speakers: Annotated[str | None, typer.Option(help="Only these, separated by commas.")] = None,
    clips: Annotated[
        int | None, typer.Option(min=1, help="At most so many, from the speakers in turn.")
    ] = None,
    metrics: Annotated[
        str | None, typer.Option(help="Only these, separated by commas; see --list.")
    ] = None,
    embedder: Annotated[
        Path | None, typer.Option(help="ONNX face embedder for acd, instead of dlib's.")
    ] = None,
    lip_reader: Annotated[
        Path | None, typer.Option(help="Weights of a lip reader for wer, instead of ours.")
    ] = None,
    sync: Annotated[
        Path | None, typer.Option(help="Weights of a sync scorer for av_offset, instead of ours.")
    ] = None,
    real_cache: Annotated[
        Path | None,
        typer.Option(
            help="Keeps what is found in real frames for the next system, with --layout folder "
            "their aligned crops too; in --data, or in the results, by default."
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Processes.")] = 2,
    list_only: Annotated[bool, typer.Option("--list", help="Only list the metrics.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace results of another system.")
    ] = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on a test set or a folder of videos, or the videos of any other system."""
    from stillspeak.evaluation.evaluate import evaluate_folder, evaluate_model, evaluate_videos
    from stillspeak.evaluation.registry import all_metrics
    from stillspeak.evaluation.summary import format_table

    if list_only:
        for metric in all_metrics():
            print(f"{metric.name} (version {metric.version}, {metric.unit}): {metric.definition}")
        return
    if output is None:
        raise typer.BadParameter("-o FOLDER is needed")
    if (model is None or data is None) == (videos is None or real is None):
        raise typer.BadParameter("give --model and --data, or --videos and --real")
    if (model is None) != (data is None) or (videos is None) != (real is None):
        raise typer.BadParameter("--model goes with --data, --videos goes with --real")
    if layout not in ("cache", "folder"):
        raise typer.BadParameter(f"--layout {layout!r} is neither cache nor folder")
    if layout == "folder" and model is None:
        raise typer.BadParameter("--layout folder goes with --model and --data")
    if first_frame and layout != "folder":
        raise typer.BadParameter("--first-frame goes with --layout folder")
    with ExitStack() as bars:
        advance: Callable[[int, str], None] = lambda done, text: None  # noqa: E731
        shown = ""

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal advance, shown
            if stage != shown:
                bars.close()
                advance, shown = bars.enter_context(progress_bar(stage, total, quiet)), stage
            advance(done, "")

        common: dict[str, Any] = {
            "speakers": listed(speakers),
            "clips": clips,
            "metrics": listed(metrics),
            "embedder": embedder,
            "lip_reader": lip_reader,
            "sync": sync,
            "real_cache": real_cache,
            "workers": workers,
            "overwrite": overwrite,
            "command": command_line(),
            "progress": progress,
        }
        if model is not None and data is not None and layout == "folder":
            result = evaluate_folder(model, data, output, **common)
        elif model is not None and data is not None:
            result = evaluate_model(model, data, output, split=split, **common)
        else:
            assert videos is not None and real is not None
            result = evaluate_videos(videos, real, output, **common)
    for failure in result.failed:
        print(f"stillspeak: {failure.clip}: skipped: {failure.reason}", file=sys.stderr)
    for reason in dict.fromkeys(result.left_out.values()):
        without = ", ".join(name for name, why in result.left_out.items() if why == reason)
        print(f"stillspeak: without {without}: {reason}", file=sys.stderr)
    if not quiet:
        print(format_table(result.metrics))
        print(
            f"{result.scored} clips scored, {result.reused} were there already, "
            f"{len(result.failed)} failed; {output / 'summary.json'}"
        )
    if result.failed:
        raise SystemExit(1)


@app.command()
def report(
    results: Annotated[list[Path], typer.Argument(help="Folders that evaluate wrote.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder of the report.")],
    data: Annotated[
        Path | None, typer.Option(help="The prepared cache, if it is elsewhere by now.")
    ] = None,
    title: Annotated[str, typer.Option(help="Of the page.")] = "Talking faces: results",
    clips: Annotated[
        int, typer.Option(min=1, max=100, help="Clips whose lips and blinks are drawn.")
    ] = 4,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a report.")] = False,
    quiet: Quiet = False,
) -> None:
    """Make a page and Markdown of results, beside the paper's Table 1."""
    from stillspeak.evaluation.report.results import write_report

    with ExitStack() as bars:
        advance: Callable[[int, str], None] | None = None

        def progress(stage: str, done: int, total: int) -> None:
            nonlocal advance
            advance = advance or bars.enter_context(progress_bar(stage, total, quiet))
            advance(done, "")

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
        print(f"stillspeak: note: {note}", file=sys.stderr)
    if not quiet:
        print(f"{written.page} and {written.markdown}: {', '.join(written.systems)}")


# --- the web ----------------------------------------------------------------------------------

app.command()(serve)
app.command()(inspect)
app.command()(stream)
app.add_typer(study_app, name="study")


# --- elsewhere --------------------------------------------------------------------------------

app.command()(export)


# --- lost frames --------------------------------------------------------------------------

app.command()(conceal)
