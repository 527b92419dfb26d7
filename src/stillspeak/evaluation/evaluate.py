"""Score a system on a test set: one JSON line per clip and metric, and a summary.

The folder of results::

    system.json                 what was evaluated
    clips/SPEAKER/NAME.jsonl    the values of one clip, replaced in one step
    values.jsonl                all values that this run asked for, in the clips' order
    summary.json                means, medians, 95 % intervals, failures, versions
    traces/SPEAKER/NAME.json    curves over time, where landmarks were found (see ``traces``)
    aligned/                    for folders of videos: their aligned crops

A value is kept under a key, the hash over the weights' SHA-256, the clip's key, the metric's
name, version and definition, and the versions of what it was computed with. A run that is
started again computes what is missing and nothing else.

What is found in real frames is kept beside them for the next system, see ``real_side``.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import Any, cast

from stillspeak import __version__
from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, VIDEO_FPS
from stillspeak.data.corpora import SPLITS, Clip
from stillspeak.data.layouts.folder import list_videos
from stillspeak.data.prepare import DetectorFactory, default_detector, load_manifest, prepare
from stillspeak.errors import (
    ConfigError,
    DataError,
    MissingDependencyError,
    OutputError,
    OutputExistsError,
    StillspeakError,
    VideoError,
    WeightsError,
)
from stillspeak.evaluation.clip import Material, Mouth
from stillspeak.evaluation.real_cache import RealSide
from stillspeak.evaluation.registry import Metric, all_metrics, find_metrics
from stillspeak.evaluation.report.traces import is_trace, trace
from stillspeak.evaluation.summary import MetricSummary, as_json, summarise, write_number
from stillspeak.evaluation.systems import (
    SEED,
    FrameSource,
    OneFaceDetector,
    Recording,
    System,
    frame_source,
    load_recording,
    open_system,
)
from stillspeak.evaluation.tools import TOOLS, Tool, ToolFiles, Tools, load_tools
from stillspeak.face.landmarks import LandmarkDetector
from stillspeak.media.video import VideoInfo, iter_frames, probe_video
from stillspeak.system.atomic import claim, whole_file
from stillspeak.system.workers import WorkerPool

FORMAT = 2
"""Version of what is computed around the metrics; raised when values would change by it."""

VIDEO_SUFFIXES = (".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi", ".mpg", ".mpeg")

LENGTH_TOLERANCE = 1
"""Frames by which another system's video may be longer or shorter than the real one."""

REAL_SIDE = ".evaluation"
"""Folder in a prepared cache that keeps what was found in real frames."""

OTHERS = 8
"""Clips at most whose real lips a clip's lips are compared with where they should not fit."""

OTHERS_LENGTH = 75
"""Frames (3 s) that such a clip has, or half of those of the clip it is compared with."""

RATE_TOLERANCE = 0.01
"""Largest relative difference of frame rates that counts as none (29.97 and 30)."""

LONGEST = 600.0
"""Seconds of a video of a folder at most: two times 36 KB a frame, and what is found in them."""

FIRST_FACE = 2.0
"""Seconds in which such a video has to show a face; what comes before the face is cut off."""

Progress = Callable[[str, int, int], None]
"""Called with the stage, what is done and how many there are."""


@dataclass(frozen=True)
class Failure:
    """A clip that could not be scored, and why."""

    clip: str
    reason: str


@dataclass(frozen=True)
class Evaluation:
    """What :func:`evaluate_model` and :func:`evaluate_videos` did.

    Attributes:
        system: what was evaluated.
        scored: clips for which something was computed.
        reused: clips whose values were all there.
        failed: clips that were skipped.
        left_out: metrics that were not asked for by name and lack a package, with the reason.
        metrics: summaries, in the order of registration.
    """

    system: System
    scored: int
    reused: int
    failed: tuple[Failure, ...]
    left_out: dict[str, str]
    metrics: tuple[MetricSummary, ...]


@dataclass(frozen=True)
class _Job:
    """One clip. ``generated`` is None where the system makes the frames; ``others`` are the real
    clips that its lips are compared with where they should not fit.
    """

    speaker: str
    name: str
    real: Recording
    generated: Recording | None = None
    others: tuple[tuple[str, Recording], ...] = ()

    @property
    def clip(self) -> str:
        return f"{self.speaker}/{self.name}"


@dataclass(frozen=True)
class _Task:
    """What all clips of a run have in common."""

    system: System
    output: Path
    metrics: tuple[str, ...]
    versions: dict[Tool, str]
    files: ToolFiles
    real_side: Path


@dataclass(frozen=True)
class _Result:
    """The lines of one clip, or why there are none."""

    lines: tuple[dict[str, Any], ...] = ()
    computed: int = 0
    error: str | None = None


def evaluate_model(
    model: str | Path,
    data: str | Path,
    output: str | Path,
    *,
    split: str = "test",
    speakers: Sequence[str] | None = None,
    clips: int | None = None,
    metrics: Sequence[str] | None = None,
    embedder: str | Path | None = None,
    lip_reader: str | Path | None = None,
    sync: str | Path | None = None,
    real_cache: str | Path | None = None,
    workers: int = 2,
    overwrite: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Generate clips of a prepared cache from their first frame and their sound, and score them.

    Args:
        model: a released model's name, a weights file, ``still`` (the first frame repeated: the
            floor) or ``real`` (the real frames themselves: the ceiling).
        data: a prepared cache.
        output: the folder of results; made if needed.
        split: which of the cache's splits.
        speakers: only these.
        clips: at most so many, drawn from the speakers in turn.
        metrics: by name; None takes all whose packages and weights are there.
        embedder: ONNX file for the identity metrics instead of dlib's network.
        lip_reader: weights file for the word error rate instead of the released one.
        sync: weights file for the audio-visual offset instead of the released one.
        real_cache: folder that keeps what is found in the real frames for the next system;
            ``.evaluation`` in ``data`` by default. Numbers do not depend on it, and nothing
            fails where it cannot be written.
        workers: processes; 0 works in this one. Numbers do not depend on it.
        overwrite: replace results of another system.
        command: what to note as the command that made the results.
        progress: called after each clip.

    Returns:
        The summary; a clip that could not be scored is in it and stops nothing.

    Raises:
        DataError: no cache, no clips in it that were asked for, or a model of other sizes.
        WeightsError: the model's weights cannot be used.
        ConfigError: an unknown metric, split or embedder.
        MissingDependencyError, WeightsError: a metric asked for by name lacks a package or
            the weights of its network.
        OutputExistsError: ``output`` holds results of another system.
        OutputError: it cannot be written.
    """
    if split not in SPLITS:
        raise ConfigError(f"split {split!r} is none of {', '.join(SPLITS)}")
    chosen = [clip for clip in load_manifest(data) if clip.split == split]
    if not chosen:
        raise DataError(f"{data}: holds no clips of the split {split!r}")
    jobs = [
        _Job(
            *(clip.speaker, clip.name),
            Recording(clip.file, f"{clip.key} {clip.frames}", frames=clip.frames),
        )
        for clip in chosen
    ]
    jobs = _with_others(_select(jobs, speakers, clips, str(data)), jobs)
    return _evaluate(
        open_system(model),
        jobs,
        (),
        Path(output),
        metrics=metrics,
        files=_tool_files(embedding=embedder, lipreader=lip_reader, sync=sync),
        real_side=Path(data) / REAL_SIDE if real_cache is None else Path(real_cache),
        workers=workers,
        overwrite=overwrite,
        facts={"command": command, "data": str(data), "split": split},
        progress=progress,
    )


def evaluate_folder(
    model: str | Path,
    folder: str | Path,
    output: str | Path,
    *,
    speakers: Sequence[str] | None = None,
    clips: int | None = None,
    metrics: Sequence[str] | None = None,
    embedder: str | Path | None = None,
    lip_reader: str | Path | None = None,
    sync: str | Path | None = None,
    real_cache: str | Path | None = None,
    workers: int = 2,
    overwrite: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a model on any folder of videos, each of which shows one person who speaks.

    Nothing is cut at pauses: the first frame with a face is the still, the video's own sound
    drives it, and its frames are what is compared with. Any size, and any frame rate, of which
    the frames nearest to 25 a second are taken; a second is enough and ten minutes the limit.
    Speakers and names are those of ``find_folder``; ``STEM.align`` beside a video (GRID's format)
    gives word timings; videos of 128 x 96 pixels are taken for aligned crops as they are.

    Args:
        model: as in :func:`evaluate_model`.
        folder: the folder of videos.
        real_cache: folder for the aligned crops, a prepared cache, and for what is found in them:
            several systems can share it; ``aligned/real`` in ``output`` by default.
        output, speakers, clips, metrics, embedder, lip_reader, sync, workers, overwrite, command,
            progress: as there.

    Returns:
        The summary. Named in it and skipped: videos that are damaged, without sound, too long,
        without a face in their first two seconds or later, or with a second face.

    Raises:
        DataError: no such folder, or no videos in it.
        ConfigError, MissingDependencyError, WeightsError, OutputExistsError, OutputError: as
            there.
    """
    root = Path(folder)
    if not root.is_dir():
        raise DataError(f"{folder}: no such folder; give the folder that holds the videos")
    found = list_videos(root)
    if not found:
        raise DataError(f"{folder}: holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    jobs = [_Job(speaker, name, Recording(path, "")) for speaker, name, path in found]
    jobs = _select(jobs, speakers, clips, str(folder))
    if metrics is not None:
        find_metrics(metrics)  # a wrong name is told before the slow part
    system, target = open_system(model), Path(output)
    cache = target / "aligned" / "real" if real_cache is None else Path(real_cache)
    with _claimed(target, system, overwrite=overwrite):
        failures: list[Failure] = []
        whole: list[Clip] = []
        with closing(default_detector()) as detector:
            for number, job in enumerate(jobs, start=1):
                try:
                    whole.append(_from_first_face(job, detector))
                except (StillspeakError, OSError) as error:
                    failures.append(Failure(job.clip, " ".join(str(error).split())))
                if progress is not None:
                    progress("looking for faces", number, len(jobs))
        aligned = _align(whole, cache, default_detector, workers, progress)
        ready = []
        for job in jobs:
            recording = aligned.get(job.clip)
            if isinstance(recording, str):
                failures.append(Failure(job.clip, recording))
            elif recording is not None:
                ready.append(replace(job, real=recording))
        ready = _with_others(ready, ready)
        return _evaluate(
            system,
            ready,
            failures,
            target,
            metrics=metrics,
            files=_tool_files(embedding=embedder, lipreader=lip_reader, sync=sync),
            real_side=cache / REAL_SIDE,
            workers=workers,
            overwrite=overwrite,
            # Whoever looks for the frames later finds them in the cache.
            facts={"command": command, "data": str(cache), "split": "test", "folder": str(folder)},
            progress=progress,
            claiming=False,
        )


def evaluate_videos(
    videos: str | Path,
    real: str | Path,
    output: str | Path,
    *,
    speakers: Sequence[str] | None = None,
    clips: int | None = None,
    metrics: Sequence[str] | None = None,
    embedder: str | Path | None = None,
    lip_reader: str | Path | None = None,
    sync: str | Path | None = None,
    real_cache: str | Path | None = None,
    workers: int = 2,
    overwrite: bool = False,
    command: str | None = None,
    progress: Progress | None = None,
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
        real_cache: as in :func:`evaluate_model`; ``aligned/real/.evaluation`` in ``output`` by
            default.
        output, speakers, clips, metrics, embedder, lip_reader, sync, workers, overwrite, command,
            progress: as there.

    Returns:
        The summary. Named in it and skipped: videos that are missing, damaged, without sound,
        of another length (more than one frame) or rate, without a face or with two.

    Raises:
        DataError: a folder is missing or the real one holds no videos.
        ConfigError, MissingDependencyError, WeightsError, OutputExistsError, OutputError: as
            there.
    """
    sources, truths = _find_videos(Path(videos)), _find_videos(Path(real))
    if not truths:
        raise DataError(f"{real}: holds no videos ({', '.join(VIDEO_SUFFIXES)})")
    places = [
        _Job(place.parent.as_posix().replace("/", "-"), place.name, Recording(file, ""))
        for place, file in truths.items()
    ]
    places = [replace(j, speaker="all") if j.speaker == "." else j for j in places]
    of = dict(zip([(j.speaker, j.name) for j in places], truths, strict=True))
    if len(of) != len(truths):
        raise DataError(f"{real}: two folders give the same speaker's name; rename one")
    places = _select(places, speakers, clips, str(real))
    if metrics is not None:
        find_metrics(metrics)  # a wrong name is told before the slow part
    target = Path(output)
    system = System("videos", str(videos), "videos")
    with _claimed(target, system, overwrite=overwrite):
        failures: list[Failure] = []
        usable: list[tuple[_Job, Path]] = []
        for number, job in enumerate(places, start=1):
            source = sources.get(of[job.speaker, job.name])
            try:
                if source is None:
                    raise VideoError(f"{videos}: has no video of this name")
                _check_pair(source, job.real.file)
                usable.append((job, source))
            except StillspeakError as error:
                failures.append(Failure(job.clip, str(error)))
            if progress is not None:
                progress("checking", number, len(places))
        real_side = _align(
            [_whole(job, job.real.file) for job, _ in usable],
            target / "aligned" / "real",
            OneFaceDetector,
            workers,
            progress,
        )
        video_side = _align(
            [_whole(job, video) for job, video in usable],
            target / "aligned" / "videos",
            OneFaceDetector,
            workers,
            progress,
        )
        jobs = []
        for job, _ in usable:
            sides = (real_side[job.clip], video_side[job.clip])
            reasons = [side for side in sides if isinstance(side, str)]
            if reasons:
                failures.append(Failure(job.clip, "; ".join(reasons)))
            else:
                own, generated = cast(tuple[Recording, Recording], sides)
                jobs.append(replace(job, real=own, generated=generated))
        jobs = _with_others(jobs, jobs)
        return _evaluate(
            system,
            jobs,
            failures,
            target,
            metrics=metrics,
            files=_tool_files(embedding=embedder, lipreader=lip_reader, sync=sync),
            real_side=(
                target / "aligned" / "real" / REAL_SIDE if real_cache is None else Path(real_cache)
            ),
            workers=workers,
            overwrite=overwrite,
            facts={"command": command, "videos": str(videos), "real": str(real)},
            progress=progress,
            claiming=False,
        )


# ------------------------------------------------------------------ which clips


def _select(
    jobs: Sequence[_Job], speakers: Sequence[str] | None, count: int | None, where: str
) -> list[_Job]:
    """The clips asked for, speaker by speaker; a limited number is drawn from all in turn."""
    by_speaker: dict[str, list[_Job]] = defaultdict(list)
    for job in jobs:
        by_speaker[job.speaker].append(job)
    if speakers is not None:
        unknown = sorted(set(speakers) - set(by_speaker))
        if unknown:
            raise DataError(
                f"{where}: has no clips of {', '.join(unknown)}; there are "
                f"{', '.join(sorted(by_speaker))}"
            )
        by_speaker = defaultdict(list, {s: by_speaker[s] for s in sorted(set(speakers))})
    groups = [sorted(group, key=lambda job: job.name) for _, group in sorted(by_speaker.items())]
    if count is not None:
        longest = max(map(len, groups))
        in_turn = [
            (turn, i) for turn in range(longest) for i, g in enumerate(groups) if turn < len(g)
        ]
        taken = {(i, turn) for turn, i in in_turn[:count]}
        groups = [
            [job for turn, job in enumerate(group) if (i, turn) in taken]
            for i, group in enumerate(groups)
        ]
    return [job for group in groups for job in group]


def _with_others(jobs: Sequence[_Job], among: Sequence[_Job]) -> list[_Job]:
    """Jobs with the clips that their lips should not fit, always the same ones.

    Clips of other people; where there are none, other clips of the same person. Of these the ones
    that last three seconds or half of the clip; where there are none, any. Of these eight, by a
    hash of both clips' names.
    """
    found = []
    for job in jobs:
        enough = min(OTHERS_LENGTH, job.real.frames / 2)
        others = [o for o in among if o.speaker != job.speaker] or [
            o for o in among if o.clip != job.clip
        ]
        others = [o for o in others if o.real.frames >= enough] or others
        others.sort(key=lambda o: hashlib.sha256(f"{job.clip} {o.clip}".encode()).digest())
        found.append(replace(job, others=tuple((o.clip, o.real) for o in others[:OTHERS])))
    return found


def _find_videos(folder: Path) -> dict[Path, Path]:
    """Videos below a folder by their place in it without suffix, sorted."""
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder of videos")
    found: dict[Path, Path] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file():
            place = path.relative_to(folder).with_suffix("")
            if place in found:
                raise DataError(f"{path} and {found[place].name} differ in their suffix alone")
            found[place] = path
    return found


def _check_pair(video: Path, real: Path) -> None:
    """Refuse what can be known to be wrong before frames are looked at."""
    made, truth = probe_video(video), probe_video(real)
    if not made.has_audio:
        raise VideoError(f"{video}: has no sound; add the speech that drives it")
    if abs(made.fps - truth.fps) > RATE_TOLERANCE * truth.fps:
        raise VideoError(
            f"{video}: shows {made.fps:g} frames a second and the real video {truth.fps:g}; "
            "convert it to the same rate"
        )
    if abs(made.duration - truth.duration) * truth.fps > LENGTH_TOLERANCE + 0.5:
        raise VideoError(
            f"{video}: lasts {made.duration:.2f} s and the real video {truth.duration:.2f} s; "
            "cut both to the same speech"
        )


def _whole(job: _Job, video: Path) -> Clip:
    """A whole video as a clip, with the word timings that lie beside it."""
    words = video.with_suffix(".align")
    return Clip(job.speaker, job.name, video, "test", alignment=words if words.is_file() else None)


def _from_first_face(job: _Job, detector: LandmarkDetector) -> Clip:
    """A video of a folder from the first frame with a face on.

    Raises:
        StillspeakError: it cannot be used.
    """
    path = job.real.file
    info = probe_video(path)
    if not info.has_audio:
        raise VideoError(f"{path}: has no sound; add the speech that drives it")
    if info.duration > LONGEST:
        raise VideoError(
            f"{path}: lasts {info.duration / 60:.0f} minutes, {LONGEST / 60:.0f} are the limit; "
            "cut it into parts"
        )
    clip = replace(_whole(job, path), alone=True)
    if _is_crop(info):
        return clip
    looked = islice(iter_frames(path, fps=VIDEO_FPS), round(FIRST_FACE * VIDEO_FPS))
    first = next((t for t, frame in enumerate(looked) if detector.detect(frame)), None)
    if first is None:
        raise VideoError(f"{path}: no face in the first {FIRST_FACE:g} s; cut it to the speaker")
    if first == 0:
        return clip
    return replace(clip, start=first / VIDEO_FPS, end=round(info.duration * VIDEO_FPS) / VIDEO_FPS)


def _is_crop(info: VideoInfo) -> bool:
    """A video of this size is taken for aligned crops."""
    return (info.height, info.width) == (FRAME_HEIGHT, FRAME_WIDTH)


def _align(
    videos: Sequence[Clip],
    cache: Path,
    detector_factory: DetectorFactory,
    workers: int,
    progress: Progress | None,
) -> dict[str, Recording | str]:
    """Aligned crops of videos, by clip; text says why there are none."""
    aligned: dict[str, Recording | str] = {}
    clips: dict[Path, Clip] = {}
    for clip in videos:
        info = probe_video(clip.path)
        if _is_crop(info):
            key, words = f"crop {_file_sha256(clip.path)}", clip.alignment
            if words is not None:
                key += f" {_file_sha256(words)}"
            frames = round(info.duration * VIDEO_FPS)
            recording = Recording(clip.path, key, prepared=False, alignment=words, frames=frames)
            aligned[f"{clip.speaker}/{clip.name}"] = recording
        else:
            clips[clip.path] = clip
    if not clips:
        return aligned

    def advance(event: Any) -> None:
        if progress is not None:
            progress(f"aligning {cache.name}", event.done, event.total)

    outcome = prepare(
        list(clips.values()),
        cache,
        detector_factory=detector_factory,
        workers=workers,
        progress=advance,
    )
    for rejected in outcome.rejected:
        reason = rejected.reason
        named = reason if str(rejected.path) in reason else f"{rejected.path}: {reason}"
        clip = clips[rejected.path]
        aligned[f"{clip.speaker}/{clip.name}"] = named
    for made in load_manifest(cache):
        aligned[f"{made.speaker}/{made.name}"] = Recording(made.file, made.key, frames=made.frames)
    return aligned


def _file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ------------------------------------------------------------------ all clips


def _evaluate(
    system: System,
    jobs: Sequence[_Job],
    failures: Sequence[Failure],
    output: Path,
    *,
    metrics: Sequence[str] | None,
    files: ToolFiles,
    real_side: Path,
    workers: int,
    overwrite: bool,
    facts: dict[str, Any],
    progress: Progress | None,
    claiming: bool = True,
) -> Evaluation:
    """Score clips; ``claiming`` unless the folder of results was claimed before."""
    chosen = all_metrics() if metrics is None else find_metrics(metrics)
    versions, left_out = _tool_versions(chosen, files, asked=metrics is not None)
    chosen = [m for m in chosen if m.name not in left_out]
    with _claimed(output, system, overwrite=overwrite) if claiming else nullcontext():
        return _score(
            system,
            jobs,
            failures,
            output,
            chosen=chosen,
            versions=versions,
            left_out=left_out,
            files=files,
            real_side=real_side,
            workers=workers,
            facts=facts,
            progress=progress,
        )


def _score(
    system: System,
    jobs: Sequence[_Job],
    failures: Sequence[Failure],
    output: Path,
    *,
    chosen: Sequence[Metric],
    versions: dict[Tool, str],
    left_out: dict[str, str],
    files: ToolFiles,
    real_side: Path,
    workers: int,
    facts: dict[str, Any],
    progress: Progress | None,
) -> Evaluation:
    names = tuple(m.name for m in chosen)
    task = _Task(system, output, names, versions, files, real_side.absolute())
    results: dict[int, _Result] = {}
    # Nothing is loaded, and no process started, for clips whose values are all there.
    for index, job in enumerate(jobs):
        there = _stored(job, chosen, task)
        if there is not None:
            results[index] = _Result(there)
    todo = [index for index in range(len(jobs)) if index not in results]
    for position, result in _results([jobs[index] for index in todo], task, workers):
        results[todo[position]] = result
        if progress is not None:
            progress("evaluating", len(results), len(jobs))
    ordered = [(job, results[i]) for i, job in enumerate(jobs)]
    lines = [line for _, result in ordered for line in result.lines]
    failed = (*failures, *(Failure(j.clip, r.error) for j, r in ordered if r.error is not None))
    evaluation = Evaluation(
        system,
        scored=sum(1 for _, r in ordered if r.error is None and r.computed),
        reused=sum(1 for _, r in ordered if r.error is None and not r.computed),
        failed=tuple(sorted(failed, key=lambda failure: failure.clip)),
        left_out=left_out,
        metrics=tuple(
            summarise([line for line in lines if line["metric"] == m.name], _describe(m))
            for m in chosen
        ),
    )
    _write_lines(output / "values.jsonl", lines)
    _write_summary(output / "summary.json", evaluation, versions, facts)
    return evaluation


def _describe(metric: Metric) -> dict[str, Any]:
    names = ("name", "version", "definition", "definition_hash", "unit", "better")
    return {name: getattr(metric, name) for name in names}


def _tool_files(**files: str | Path | None) -> ToolFiles:
    """Named files of tools, in a form that worker processes find."""
    given = ((tool, files.get(tool)) for tool in TOOLS)
    return {tool: Path(file).absolute() for tool, file in given if file is not None}


def _tool_versions(
    metrics: Sequence[Metric], files: ToolFiles, *, asked: bool
) -> tuple[dict[Tool, str], dict[str, str]]:
    """Versions of what the metrics need, each made once here so that what is missing is told in
    one line; and the metrics to leave out for want of it.
    """
    versions: dict[Tool, str] = {}
    left_out: dict[str, str] = {}
    needed = {tool for metric in metrics for tool in metric.tools}
    for tool in [tool for tool in TOOLS if tool in needed]:
        try:
            tools = load_tools([tool], files)
        except (MissingDependencyError, WeightsError) as error:
            # A file that was named is asked for.
            if asked or tool in files:
                raise
            left_out |= {m.name: str(error) for m in metrics if tool in m.tools}
        else:
            versions |= tools.versions
            tools.close()
    return versions, left_out


@contextmanager
def _claimed(output: Path, system: System, *, overwrite: bool) -> Iterator[None]:
    """Make the folder of results this system's, and have it for this process alone."""
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot be made ({error.strerror or error})") from error
    busy = OutputError(
        f"{output}: another evaluation is writing there; wait for it, or give another folder"
    )
    with claim(output, busy):
        _name_owner(output, system, overwrite=overwrite)
        yield


def _name_owner(output: Path, system: System, *, overwrite: bool) -> None:
    """Note whose results a folder holds, unless they are another system's."""
    path = output / "system.json"
    mine = {"kind": system.kind, "label": system.label, "sha256": system.sha256}
    try:
        theirs = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        theirs = None
    except (OSError, ValueError) as error:
        raise OutputError(f"{path}: cannot be read ({error}); give another folder") from error
    if theirs is not None and _identity(theirs) != _identity(mine) and not overwrite:
        raise OutputExistsError(
            f"{output}: holds the results of {theirs.get('label')} ({theirs.get('sha256')}); give "
            "another folder, or allow them to be overwritten"
        )
    _write(path, json.dumps(mine, indent=1) + "\n")


def _identity(system: dict[str, Any]) -> tuple[Any, ...]:
    """A model is its weights, whatever they are called."""
    if system.get("kind") == "model":
        return "model", system.get("sha256")
    return system.get("kind"), system.get("label")


def _write_summary(
    path: Path, evaluation: Evaluation, versions: dict[Tool, str], facts: dict[str, Any]
) -> None:
    packages = ("numpy", "scipy", "scikit-image", "torch", "opencv-contrib-python", "av")
    tools = {str(tool): version for tool, version in versions.items()}
    table = {
        "system": {
            "kind": evaluation.system.kind,
            "label": evaluation.system.label,
            "sha256": evaluation.system.sha256,
        },
        **facts,
        "clips": evaluation.scored + evaluation.reused,
        "failed": [{"clip": f.clip, "reason": f.reason} for f in evaluation.failed],
        "left_out": evaluation.left_out,
        "metrics": {m.name: as_json(m) for m in evaluation.metrics},
        "versions": {
            "stillspeak": __version__,
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in packages},
            **tools,
        },
    }
    _write(path, json.dumps(table, indent=1) + "\n")


# ------------------------------------------------------------------ one clip


@dataclass
class _Worker:
    """What is loaded once in a process."""

    task: _Task
    metrics: list[Metric]
    source: FrameSource
    tools: Tools
    mouths: dict[str, Mouth | None] = field(default_factory=dict)
    """Real mouths of other clips by their keys; None: the clip cannot be read."""


_worker: _Worker | None = None


def _load_worker(task: _Task) -> _Worker:
    return _Worker(
        task,
        find_metrics(task.metrics),
        frame_source(task.system),
        load_tools(task.versions, task.files),
    )


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for OpenCV and torch: clips run in parallel, and sums have one order."""
    import cv2
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def _start_worker(task: _Task) -> None:
    """First call in a worker process."""
    global _worker
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    _worker = _load_worker(task)


def _work(job: _Job) -> _Result:
    assert _worker is not None
    return _score_clip(job, _worker)


def _died(job: _Job) -> _Result:
    return _Result(error=f"{job.real.file}: a worker process died while scoring it")


def _results(jobs: Sequence[_Job], task: _Task, workers: int) -> Iterator[tuple[int, _Result]]:
    """Index and result of every clip, as they get ready."""
    if not jobs:
        return
    if workers > 0:
        pool = WorkerPool(_work, _start_worker, (task,), min(workers, len(jobs)), _died)
        yield from pool.results(jobs)
        return
    with _one_thread():
        worker = _load_worker(task)
        try:
            for index, job in enumerate(jobs):
                yield index, _score_clip(job, worker)
        finally:
            worker.tools.close()


def _score_clip(job: _Job, worker: _Worker) -> _Result:
    """Values of one clip: those that are there, and the missing ones computed; and its trace."""
    task = worker.task
    path, curves = _clip_file(job, task), _trace_file(job, task)
    about = _clip_identity(job, task)
    keys = {metric.name: _value_key(job, metric, task) for metric in worker.metrics}
    before = _read_lines(path)
    # Of other metrics and earlier versions what belongs to this very clip stays.
    kept = {line["key"]: line for line in before if {k: line.get(k) for k in about} == about}
    if len(kept) < len(before):
        curves.unlink(missing_ok=True)  # it may be another clip's, as those values are
    missing = [metric for metric in worker.metrics if keys[metric.name] not in kept]
    traced = _wants_trace(task) and (
        any("landmarks" in metric.tools for metric in missing) or not is_trace(curves)
    )
    if missing or traced:
        try:
            material = _load_material(job, worker)
        except (StillspeakError, OSError) as error:
            # What was made of an earlier, better source.
            path.unlink(missing_ok=True)
            curves.unlink(missing_ok=True)
            return _Result(error=" ".join(str(error).split()))
        for metric in missing:
            score = metric.measure(material)
            kept[keys[metric.name]] = {
                "system": task.system.label,
                **about,
                "clip": job.clip,
                "speaker": job.speaker,
                "metric": metric.name,
                "version": metric.version,
                "definition": metric.definition_hash,
                "unit": metric.unit,
                "value": write_number(score.value),
                "note": score.note,
                "key": keys[metric.name],
            }
        if traced:
            # Before the values, without which a stopped run begins this clip again.
            _write(curves, json.dumps(trace(job.clip, material), allow_nan=False) + "\n")
        if missing:
            _write_lines(path, kept.values())
    lines = tuple(kept[keys[metric.name]] for metric in worker.metrics)
    return _Result(lines, computed=len(missing) + traced)


def _stored(job: _Job, metrics: Sequence[Metric], task: _Task) -> tuple[dict[str, Any], ...] | None:
    """The lines of a clip if all of them are there, and its trace."""
    kept = {line["key"]: line for line in _read_lines(_clip_file(job, task))}
    lines = [kept.get(_value_key(job, metric, task)) for metric in metrics]
    found = tuple(line for line in lines if line is not None)
    if len(found) < len(lines) or (_wants_trace(task) and not is_trace(_trace_file(job, task))):
        return None
    return found


def _clip_file(job: _Job, task: _Task) -> Path:
    return task.output / "clips" / job.speaker / f"{job.name}.jsonl"


def _trace_file(job: _Job, task: _Task) -> Path:
    return task.output / "traces" / job.speaker / f"{job.name}.json"


def _wants_trace(task: _Task) -> bool:
    return "landmarks" in task.versions


def _clip_identity(job: _Job, task: _Task) -> dict[str, str]:
    """What the frames of a clip depend on."""
    generated = task.system.sha256 if job.generated is None else job.generated.key
    return {"system_sha256": generated, "clip_key": job.real.key}


def _value_key(job: _Job, metric: Metric, task: _Task) -> str:
    inputs: dict[str, Any] = {
        "format": FORMAT,
        "seed": SEED,
        **_clip_identity(job, task),
        "metric": [metric.name, metric.version, metric.definition_hash],
        "tools": [[tool, task.versions[tool]] for tool in sorted(metric.tools)],
    }
    if metric.others:
        inputs["others"] = [real.key for _, real in job.others]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _load_material(job: _Job, worker: _Worker) -> Material:
    real = load_recording(job.real)
    frames, audio = real.frames, real.audio
    if job.generated is None:
        generated = worker.source(frames, audio)
    else:
        generated = load_recording(job.generated).frames
        if abs(len(generated) - len(frames)) > LENGTH_TOLERANCE:
            raise VideoError(
                f"{job.generated.file}: {len(generated)} frames at 25 a second, the real video "
                f"{job.real.file} has {len(frames)}; cut both to the same speech, and replace a "
                "file that breaks off"
            )
        length = min(len(generated), len(frames))
        generated, frames = generated[:length], frames[:length]
    return Material(
        *(generated, frames, audio, real.words, real.text, worker.tools),
        kept=_kept(job.clip, job.real, len(frames), worker.task),
        others=lambda: _other_mouths(job, worker),
    )


def _kept(clip: str, real: Recording, frames: int, task: _Task) -> RealSide:
    return RealSide(task.real_side, clip, f"{real.key} {frames}", task.versions)


def _other_mouths(job: _Job, worker: _Worker) -> list[Mouth]:
    """Real mouths of the clips that this one's lips should not fit, as far as they can be read."""
    for clip, real in job.others:
        if real.key not in worker.mouths:
            try:
                loaded = load_recording(real)
            except (StillspeakError, OSError):
                worker.mouths[real.key] = None
                continue
            kept = _kept(clip, real, len(loaded.frames), worker.task)
            both = Material(
                *(loaded.frames, loaded.frames, loaded.audio), tools=worker.tools, kept=kept
            )
            worker.mouths[real.key] = both.real_mouth
    found = (worker.mouths[real.key] for _, real in job.others)
    return [mouth for mouth in found if mouth is not None]


# ------------------------------------------------------------------ files


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """The values of a clip's file; none if there is no such file or it is damaged."""
    try:
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    except (OSError, ValueError):
        return []
    return [line for line in lines if isinstance(line, dict) and "key" in line]


def _write_lines(path: Path, lines: Iterable[dict[str, Any]]) -> None:
    _write(path, "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines))


def _write(path: Path, text: str) -> None:
    """Write a file so that its name never stands for half of it.

    Raises:
        OutputError: the disk refuses.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as partial:
            partial.write_text(text, "utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror or error})") from error
