"""``stillspeak prepare``: a corpus becomes a cache that training reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import Field

from stillspeak.cli.common import progress_bar, tell, usage
from stillspeak.errors import ConfigError

if TYPE_CHECKING:
    from stillspeak.data.clips import Clip, Rejected


def prepare(
    corpus: Annotated[Path, typer.Argument(help="The corpus's folder.")],
    cache: Annotated[Path, typer.Argument(help="Where the prepared clips go.")],
    layout: Annotated[str, "grid, tcd-timit, crema-d, or folder: any tree of videos."] = "grid",
    workers: Annotated[int, Field(ge=1), "Processes."] = 2,
    list_only: Annotated[bool, "--list", "Only list speakers, splits and clips."] = False,
    min_seconds: Annotated[
        float | None, "Shortest clip, with --layout folder: 2 by default."
    ] = None,
    max_seconds: Annotated[
        float | None, "Longest clip, with --layout folder: 8 by default."
    ] = None,
    split: Annotated[
        list[str] | None,
        "Only clips of this split: train, validation or test. May be given repeatedly.",
    ] = None,
    mouth_scale: Annotated[int, "2 keeps the mouth at twice the crops' scale as well."] = 0,
    quiet: Annotated[bool, "--quiet", "-q", "No progress bar."] = False,
) -> None:
    """Align a corpus's faces once, into a cache that training reads."""
    from stillspeak.data.clips import SPLITS
    from stillspeak.data.corpora import LAYOUTS
    from stillspeak.data.prepare import MOUTH_SCALES
    from stillspeak.data.prepare import prepare as run

    splits = [name for name in SPLITS if name in (split or ())]
    unknown = sorted(set(split or ()) - set(SPLITS))
    given = {"min_seconds": min_seconds, "max_seconds": max_seconds}
    limits = {name: value for name, value in given.items() if value is not None}
    layouts, misplaced = ", ".join(sorted(LAYOUTS)), limits and layout != "folder"
    usage(
        {
            f"--split {next(iter(unknown), None)!r} is not one of {', '.join(SPLITS)}": unknown,
            f"--mouth-scale {mouth_scale} is neither 0 nor 2": mouth_scale not in MOUTH_SCALES,
            f"--layout {layout!r} is not one of {layouts}": layout not in LAYOUTS,
            "--min-seconds and --max-seconds go with --layout folder": misplaced,
        }
    )
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
                    progress=lambda p: advance(p.done),
                )
            unusable += summary.rejected
    finally:
        for one in unusable:
            named = one.reason.startswith(str(one.path))
            reason = one.reason if named else f"{one.path}: {one.reason}"
            tell(f"left out: {reason}")
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
    """A line for each speaker of ``splits``, or of all if that is empty."""
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
