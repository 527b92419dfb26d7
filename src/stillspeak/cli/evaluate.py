"""``stillspeak evaluate``: metrics of a model or of finished videos."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import Field

from stillspeak.cli.common import Quiet, command_line, progress_stages, tell, usage
from stillspeak.evaluation.options import EvaluationOptions

if TYPE_CHECKING:
    from stillspeak.evaluation.results import Evaluation


def evaluate(
    output: Annotated[Path | None, "-o", "--output", "Folder of the results."] = None,
    model: Annotated[
        str | None,
        "A released model's name or a weights file; still and real are floor and ceiling.",
    ] = None,
    data: Annotated[Path | None, "A prepared cache, or any folder of videos: see --layout."] = None,
    layout: Annotated[
        str, "What --data is: cache, or folder for videos as they are, uncut."
    ] = "cache",
    first_frame: Annotated[
        bool,
        "With --layout folder: the first frame with a face is the reference image. This "
        "is the only rule; the option states it.",
    ] = False,
    split: Annotated[str, "train, validation or test."] = "test",
    videos: Annotated[Path | None, "Videos of any other system, instead of --model."] = None,
    real: Annotated[Path | None, "The real videos, named as those of --videos."] = None,
    *,
    options: EvaluationOptions,
    workers: Annotated[int, Field(ge=1, le=64), "Processes."] = 2,
    list_only: Annotated[bool, "--list", "Only list the metrics."] = False,
    quiet: Quiet = False,
) -> None:
    """Score a model on a test set or a folder of videos, or the videos of any other system."""
    from stillspeak.evaluation.evaluate import evaluate_folder, evaluate_model, evaluate_videos
    from stillspeak.evaluation.metrics import all_metrics

    if list_only:
        for metric in all_metrics():
            print(f"{metric.name} (version {metric.version}, {metric.unit}): {metric.definition}")
        return
    if output is None:
        raise typer.BadParameter("-o FOLDER is needed")
    no_model, no_videos = model is None or data is None, videos is None or real is None
    halves = (model is None) != (data is None) or (videos is None) != (real is None)
    usage(
        {
            "give --model and --data, or --videos and --real": no_model == no_videos,
            "--model goes with --data, --videos goes with --real": halves,
            f"--layout {layout!r} is neither cache nor folder": layout not in ("cache", "folder"),
            "--layout folder goes with --model and --data": layout == "folder" and no_model,
            "--first-frame goes with --layout folder": first_frame and layout != "folder",
        }
    )
    with progress_stages(quiet) as progress:
        common: dict[str, Any] = {
            **vars(options),
            "workers": workers,
            "command": command_line(),
            "progress": progress,
        }
        if model is None or data is None:
            assert videos is not None and real is not None
            result = evaluate_videos(videos, real, output, **common)
        elif layout == "folder":
            result = evaluate_folder(model, data, output, **common)
        else:
            result = evaluate_model(model, data, output, split=split, **common)
    _report(result, output, quiet)


def _report(result: Evaluation, output: Path, quiet: bool) -> None:
    from stillspeak.evaluation.summary import format_table

    for failure in result.failed:
        tell(f"{failure.clip}: skipped: {failure.reason}")
    for reason in dict.fromkeys(result.left_out.values()):
        without = ", ".join(name for name, why in result.left_out.items() if why == reason)
        tell(f"without {without}: {reason}")
    if not quiet:
        print(format_table(result.metrics))
        print(
            f"{result.scored} clips scored, {result.reused} were there already, "
            f"{len(result.failed)} failed; {output / 'summary.json'}"
        )
    if result.failed:
        raise SystemExit(1)
