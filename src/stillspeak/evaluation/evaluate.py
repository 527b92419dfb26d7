"""Score a system on a test set: one JSON line per clip and metric, and a summary.

What is written is described in :mod:`~stillspeak.evaluation.results`, how values are kept in
:mod:`~stillspeak.evaluation.scoring`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from stillspeak.data.cache import load_manifest
from stillspeak.data.corpora import SPLITS, Clip
from stillspeak.data.layouts.folder import list_videos
from stillspeak.data.prepare import default_detector
from stillspeak.errors import (
    ConfigError,
    DataError,
    MissingDependencyError,
    StillspeakError,
    VideoError,
    WeightsError,
)
from stillspeak.evaluation.metrics import all_metrics, find_metrics
from stillspeak.evaluation.options import EvaluationOptions
from stillspeak.evaluation.results import Evaluation, Failure, claimed, write_lines, write_summary
from stillspeak.evaluation.scoring import ClipPair, Run, results
from stillspeak.evaluation.summary import summarise
from stillspeak.evaluation.systems import OneFaceDetector, Recording, System, open_system
from stillspeak.evaluation.tools import TOOLS, Tool, load_tools
from stillspeak.evaluation.videos import (
    VIDEO_SUFFIXES,
    align,
    check_pair,
    find_videos,
    from_first_face,
    whole_video,
)

REAL_CACHE = ".evaluation"
"""Folder in a prepared cache that keeps what was found in real frames."""

OTHERS = 8
"""Clips at most whose real lips a clip's lips are compared with where they should not fit."""

OTHERS_LENGTH = 75
"""Frames (3 s) that such a clip has, or half of those of the clip it is compared with."""

T = TypeVar("T")


def evaluate_model(
    model: str | Path, data: str | Path, output: str | Path, *, split: str = "test", **options: Any
) -> Evaluation:
    """Generate clips of a prepared cache from their first frame and their sound, and score them.

    Args:
        model: a released model's name, a weights file, ``still`` (the first frame repeated: the
            floor) or ``real`` (the real frames themselves: the ceiling).
        data: a prepared cache.
        output: the folder of results; made if needed.
        split: which of the cache's splits.
        options: fields of :class:`EvaluationOptions`. ``real_cache`` is ``.evaluation`` in
            ``data`` by default.

    Returns:
        The summary; a clip that could not be scored is in it and stops nothing.

    Raises:
        DataError: no cache, no clips in it that were asked for, or a model of other sizes.
        ConfigError: an unknown metric, split, embedder or option of a model.
        MissingDependencyError, WeightsError: the model, or a metric asked for by name, lacks a
            package or weights.
        OutputExistsError: ``output`` holds results of another system.
        OutputError: it cannot be written.
    """
    asked = EvaluationOptions(**options)
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is none of {', '.join(SPLITS)}")
    chosen = [clip for clip in load_manifest(data) if clip.split == split]
    if not chosen:
        raise DataError(f"{data}: holds no clips of the split {split!r}")
    pairs = [
        ClipPair(c.speaker, c.name, Recording(c.file, f"{c.key} {c.frames}", frames=c.frames))
        for c in chosen
    ]
    pairs = _with_others(_select(pairs, asked, str(data)), pairs)
    run = _plan(
        open_system(model, asked.animate),
        output,
        asked,
        asked.real_cache or Path(data) / REAL_CACHE,
    )
    with claimed(run.output, run.system, overwrite=asked.overwrite):
        facts = {"command": asked.command, "data": str(data), "split": split}
        return _score(run, pairs, (), asked, facts)


def evaluate_folder(
    model: str | Path, folder: str | Path, output: str | Path, **options: Any
) -> Evaluation:
    """Score a model on any folder of videos, each of which shows one person who speaks.

    Nothing is cut at pauses: the first frame with a face is the reference image, the video's own
    sound drives it, and its frames are what is compared with. Any size, and any frame rate, of
    which the frames nearest to 25 a second are taken; a second is enough and ten minutes the
    limit. Speakers and names are those of ``find_folder``; ``STEM.align`` beside a video (GRID's
    format) gives word timings; videos of 128 x 96 pixels are taken for aligned crops as they are.

    Args:
        model: as in :func:`evaluate_model`.
        folder: the folder of videos.
        output: the folder of results; made if needed.
        options: fields of :class:`EvaluationOptions`. ``real_cache`` also holds the aligned
            crops, a prepared cache, so that several systems can share them; ``aligned/real`` in
            ``output`` by default.

    Returns:
        The summary. Named in it and skipped: videos that are damaged, without sound, too long,
        without a face in their first two seconds or later, or with a second face.

    Raises:
        DataError: no such folder, or no videos in it.
        ConfigError, MissingDependencyError, WeightsError, OutputExistsError, OutputError: as
            there.
    """
    asked = EvaluationOptions(**options)
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder that holds the videos")
    found = [ClipPair(s, name, Recording(path, "")) for s, name, path in list_videos(root)]
    if not found:
        raise DataError(f"{folder}: holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    found = _select(found, asked, str(folder))
    cache = asked.real_cache or Path(output) / "aligned" / "real"
    run = _plan(open_system(model, asked.animate), output, asked, cache / REAL_CACHE)
    with claimed(run.output, run.system, overwrite=asked.overwrite):
        with closing(default_detector()) as detector:

            def cut(pair: ClipPair) -> tuple[ClipPair, Clip]:
                return pair, from_first_face(_whole(pair, pair.real), detector)

            usable, failures = _usable(found, cut, "looking for faces", asked)
        whole = [clip for _, clip in usable]
        real = align(whole, cache, default_detector, asked.workers, asked.progress)
        pairs = _aligned([pair for pair, _ in usable], failures, real=real)
        # The report finds the frames in the cache.
        facts = {"command": asked.command, "data": str(cache), "split": "test"}
        return _score(run, pairs, failures, asked, {**facts, "folder": str(folder)})


def evaluate_videos(
    videos: str | Path, real: str | Path, output: str | Path, **options: Any
) -> Evaluation:
    """Score the videos of any system beside the real ones.

    Videos belong together by their place below the two folders, suffixes aside; the folder that
    a real video lies in names its speaker. Both are brought to 25 frames a second and to the
    aligned crop by their own landmarks, exactly as a corpus is prepared; videos of 128 x 96
    pixels are taken for aligned crops as they are. ``STEM.align`` beside a real video gives
    its word timings.

    Args:
        videos: folder of generated videos with sound.
        real: folder of the real ones.
        output: the folder of results; made if needed.
        options: fields of :class:`EvaluationOptions`. ``real_cache`` is
            ``aligned/real/.evaluation`` in ``output`` by default.

    Returns:
        The summary. Named in it and skipped: videos that are missing, damaged, without sound,
        of another length (more than one frame) or rate, without a face or with two.

    Raises:
        DataError: a folder is missing or the real one holds no videos.
        ConfigError, MissingDependencyError, WeightsError, OutputExistsError, OutputError: as
            there.
    """
    asked = EvaluationOptions(**options)
    if asked.animate:
        raise ConfigError(f"finished videos have no options ({asked.animate})")
    sources, truths = find_videos(Path(videos)), find_videos(Path(real))
    if not truths:
        raise DataError(f"{real}: holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    found = []
    for place, file in truths.items():
        speaker = place.parent.as_posix().replace("/", "-")
        made = Recording(sources[place], "") if place in sources else None
        speaker = "all" if speaker == "." else speaker
        found.append(ClipPair(speaker, place.name, Recording(file, ""), made))
    if len({pair.clip for pair in found}) < len(found):
        raise DataError(f"{real}: two folders give the same speaker's name; rename one")
    found = _select(found, asked, str(real))

    def check(pair: ClipPair) -> tuple[ClipPair, Clip, Clip]:
        if pair.generated is None:
            raise VideoError(f"{videos}: has no video of this name")
        check_pair(pair.generated.file, pair.real.file)
        return pair, _whole(pair, pair.real), _whole(pair, pair.generated)

    cache = Path(output) / "aligned"
    kept = asked.real_cache or cache / "real" / REAL_CACHE
    run = _plan(System("videos", str(videos), "videos"), output, asked, kept)
    with claimed(run.output, run.system, overwrite=asked.overwrite):
        usable, failures = _usable(found, check, "checking", asked)

        def aligned(clips: list[Clip], folder: str) -> dict[str, Recording | str]:
            return align(clips, cache / folder, OneFaceDetector, asked.workers, asked.progress)

        sides = {
            "real": aligned([clip for _, clip, _ in usable], "real"),
            "generated": aligned([clip for _, _, clip in usable], "videos"),
        }
        pairs = _aligned([pair for pair, *_ in usable], failures, **sides)
        facts = {"command": asked.command, "videos": str(videos), "real": str(real)}
        return _score(run, pairs, failures, asked, facts)


# ------------------------------------------------------------------ which clips


def _select(pairs: Sequence[ClipPair], asked: EvaluationOptions, where: str) -> list[ClipPair]:
    """The clips asked for, speaker by speaker; a limited number is drawn from all in turn."""
    speakers = {pair.speaker for pair in pairs}
    chosen = speakers if asked.speakers is None else set(asked.speakers)
    if unknown := ", ".join(sorted(chosen - speakers)):
        known = ", ".join(sorted(speakers))
        raise DataError(f"{where}: has no clips of {unknown}; there are {known}")
    turns = []
    for speaker in chosen:
        own = sorted((p for p in pairs if p.speaker == speaker), key=lambda pair: pair.name)
        turns += [(turn, speaker, pair) for turn, pair in enumerate(own)]
    turns = sorted(turns, key=lambda one: one[:2])[: asked.clips]
    return [pair for _, _, pair in sorted(turns, key=lambda one: (one[1], one[0]))]


def _with_others(pairs: Sequence[ClipPair], among: Sequence[ClipPair]) -> list[ClipPair]:
    """Clips with those that their lips should not fit, always the same ones: of other people, else
    of the same person; that last three seconds or half of the clip, else any; of these eight, by
    a hash of both clips' names.
    """
    found = []
    for pair in pairs:
        enough = min(OTHERS_LENGTH, pair.real.frames / 2)
        others = [o for o in among if o.speaker != pair.speaker] or [
            o for o in among if o.clip != pair.clip
        ]
        others = [o for o in others if o.real.frames >= enough] or others
        others.sort(key=lambda o: hashlib.sha256(f"{pair.clip} {o.clip}".encode()).digest())
        found.append(replace(pair, others=tuple((o.clip, o.real) for o in others[:OTHERS])))
    return found


def _whole(pair: ClipPair, video: Recording) -> Clip:
    return whole_video(pair.speaker, pair.name, video.file)


def _usable(
    pairs: Sequence[ClipPair], check: Callable[[ClipPair], T], stage: str, asked: EvaluationOptions
) -> tuple[list[T], list[Failure]]:
    """What a check gives for each clip, and the clips that it refuses."""
    usable, failures = [], []
    for number, pair in enumerate(pairs, start=1):
        try:
            usable.append(check(pair))
        except (StillspeakError, OSError) as error:
            failures.append(Failure.of(pair.clip, error))
        if asked.progress is not None:
            asked.progress(stage, number, len(pairs))
    return usable, failures


def _aligned(
    pairs: Iterable[ClipPair], failures: list[Failure], **sides: dict[str, Recording | str]
) -> list[ClipPair]:
    """Clips with their aligned videos; those without one join the failures."""
    ready = []
    for pair in pairs:
        found: dict[str, Any] = {name: side[pair.clip] for name, side in sides.items()}
        reasons = [one for one in found.values() if isinstance(one, str)]
        if reasons:
            failures.append(Failure(pair.clip, "; ".join(reasons)))
        else:
            ready.append(replace(pair, **found))
    return _with_others(ready, ready)


# ------------------------------------------------------------------ all clips


def _plan(system: System, output: str | Path, asked: EvaluationOptions, real_cache: Path) -> Run:
    """What to compute. Every tool is loaded once, so that a missing one is reported before the
    slow part; metrics that need it are left out, unless they were asked for by name.
    """
    metrics = all_metrics() if asked.metrics is None else find_metrics(asked.metrics)
    files = asked.files
    versions: dict[Tool, str] = {}
    left_out: dict[str, str] = {}
    needed = {tool for metric in metrics for tool in metric.tools}
    for tool in [tool for tool in TOOLS if tool in needed]:
        try:
            tools = load_tools([tool], files)
        except (MissingDependencyError, WeightsError) as error:
            if asked.metrics is not None or tool in files:
                raise
            left_out |= {m.name: str(error) for m in metrics if tool in m.tools}
        else:
            versions |= tools.versions
            tools.close()
    names = tuple(m.name for m in metrics if m.name not in left_out)
    return Run(system, Path(output), names, versions, files, real_cache.absolute(), left_out)


def _score(
    run: Run,
    pairs: Sequence[ClipPair],
    failures: Sequence[Failure],
    asked: EvaluationOptions,
    facts: dict[str, Any],
) -> Evaluation:
    # Nothing is loaded, and no process started, for clips whose values are all there.
    found = {pair: stored for pair in pairs if (stored := run.stored(pair)) is not None}
    todo = [pair for pair in pairs if pair not in found]
    for position, result in results(todo, run, asked.workers):
        found[todo[position]] = result
        if asked.progress is not None:
            asked.progress("evaluating", len(found), len(pairs))
    ordered = [found[pair] for pair in pairs]
    lines = [line for result in ordered for line in result.lines]
    failed = [*failures, *(r.failure for r in ordered if r.failure is not None)]
    scored = sum(result.computed for result in ordered)
    summaries = (
        summarise([line for line in lines if line["metric"] == metric.name], metric.about)
        for metric in run.chosen
    )
    evaluation = Evaluation(
        run.system,
        scored=scored,
        reused=sum(result.failure is None for result in ordered) - scored,
        failed=tuple(sorted(failed, key=lambda failure: failure.clip)),
        left_out=run.left_out,
        metrics=tuple(summaries),
    )
    write_lines(run.output / "values.jsonl", lines)
    write_summary(run.output, evaluation, run.versions, facts)
    return evaluation
