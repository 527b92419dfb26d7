"""The values of single clips, computed in worker processes and kept in the folder of results.

A value is kept under a key, the hash over the weights' SHA-256, the clip's key, the metric's
name, version and definition, and the versions of what it was computed with. A run that is
started again computes what is missing and nothing else.

What is found in real frames is kept beside them for the next system, see ``real_cache``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillspeak.errors import StillspeakError, VideoError
from stillspeak.evaluation.clip import EvaluationClip, OtherClip
from stillspeak.evaluation.metrics import all_metrics
from stillspeak.evaluation.real_cache import RealCache
from stillspeak.evaluation.registry import Metric
from stillspeak.evaluation.results import Failure, read_lines, write_lines, write_text
from stillspeak.evaluation.summary import write_number
from stillspeak.evaluation.systems import (
    SEED,
    Recording,
    System,
    frame_source,
    load_recording,
)
from stillspeak.evaluation.tools import Tool, ToolFiles, load_tools
from stillspeak.evaluation.traces import is_trace, trace
from stillspeak.evaluation.videos import LENGTH_TOLERANCE
from stillspeak.system.workers import WorkerPool

FORMAT = 3
"""Version of what is computed around the metrics; raised when values would change by it."""


@dataclass(frozen=True)
class ClipPair:
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
        """``SPEAKER/NAME``."""
        return f"{self.speaker}/{self.name}"


@dataclass(frozen=True)
class Run:
    """What all clips of an evaluation have in common: ``metrics`` to compute, ``versions`` of the
    tools that they need, ``files`` of tools that were named, and why metrics are ``left_out``.
    """

    system: System
    output: Path
    metrics: tuple[str, ...]
    versions: dict[Tool, str]
    files: ToolFiles
    real_cache: Path
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def chosen(self) -> list[Metric]:
        """The metrics to compute."""
        return [metric for metric in all_metrics() if metric.name in self.metrics]

    def values_file(self, pair: ClipPair) -> Path:
        """Where the values of a clip are."""
        return self.output / "clips" / pair.speaker / f"{pair.name}.jsonl"

    def trace_file(self, pair: ClipPair) -> Path:
        """Where the curves of a clip are."""
        return self.output / "traces" / pair.speaker / f"{pair.name}.json"

    def lacks_trace(self, pair: ClipPair) -> bool:
        """Whether the curves of a clip are wanted and not there."""
        return "landmarks" in self.versions and not is_trace(self.trace_file(pair))

    def identity(self, pair: ClipPair) -> dict[str, str]:
        """What the frames of a clip depend on."""
        generated = self.system.identity if pair.generated is None else pair.generated.key
        return {"system_sha256": generated, "clip_key": pair.real.key}

    def value_key(self, pair: ClipPair, metric: Metric) -> str:
        """Hash of everything that a value depends on."""
        inputs: dict[str, Any] = {
            "format": FORMAT,
            "seed": SEED,
            **self.identity(pair),
            "metric": [metric.name, metric.version, metric.definition_hash],
            "tools": [[tool, self.versions[tool]] for tool in sorted(metric.tools)],
        }
        if metric.others:
            inputs["others"] = [real.key for _, real in pair.others]
        return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()

    def cache_of(self, clip: str, real: Recording, frames: int) -> RealCache:
        """What is kept of a real clip of so many frames."""
        return RealCache(self.real_cache, clip, f"{real.key} {frames}", self.versions)

    def stored(self, pair: ClipPair) -> ClipResult | None:
        """The lines of a clip if all of them are there, and its trace."""
        kept = {line["key"]: line for line in read_lines(self.values_file(pair))}
        lines = [kept.get(self.value_key(pair, metric)) for metric in self.chosen]
        found = tuple(line for line in lines if line is not None)
        return None if len(found) < len(lines) or self.lacks_trace(pair) else ClipResult(found)


@dataclass(frozen=True)
class ClipResult:
    """The lines of one clip and whether any was computed, or why there are none."""

    lines: tuple[dict[str, Any], ...] = ()
    computed: bool = False
    failure: Failure | None = None


class _Worker:
    """What is loaded once in a process."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.tools = load_tools(run.versions, run.files)
        self.metrics = run.chosen
        self.source = frame_source(run.system)
        self.others: dict[str, OtherClip | None] = {}
        """Other clips by their keys; None: the clip cannot be read."""


_worker: _Worker | None = None


def results(pairs: Sequence[ClipPair], run: Run, workers: int) -> Iterator[tuple[int, ClipResult]]:
    """Index and result of every clip, as they get ready."""
    if not pairs:
        return
    if workers > 0:
        pool = WorkerPool(_work, _start_worker, (run,), min(workers, len(pairs)), _died)
        yield from pool.results(pairs)
        return
    with _one_thread():
        worker = _Worker(run)
        try:
            for index, pair in enumerate(pairs):
                yield index, _score_clip(pair, worker)
        finally:
            worker.tools.close()


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for OpenCV and torch: clips run in parallel, and sums have one order."""
    import cv2
    import torch

    before = cv2.getNumThreads(), torch.get_num_threads()
    _set_threads(1, 1)
    try:
        yield
    finally:
        _set_threads(*before)


def _set_threads(opencv: int, pytorch: int) -> None:
    import cv2
    import torch

    cv2.setNumThreads(opencv)
    torch.set_num_threads(pytorch)


def _start_worker(run: Run) -> None:
    global _worker
    _set_threads(1, 1)
    _worker = _Worker(run)


def _work(pair: ClipPair) -> ClipResult:
    assert _worker is not None
    return _score_clip(pair, _worker)


def _died(pair: ClipPair) -> ClipResult:
    reason = f"{pair.real.file}: a worker process died while scoring it"
    return ClipResult(failure=Failure(pair.clip, reason))


def _score_clip(pair: ClipPair, worker: _Worker) -> ClipResult:
    """Values of one clip: those that are there, and the missing ones computed; and its trace."""
    run = worker.run
    values, curves, about = run.values_file(pair), run.trace_file(pair), run.identity(pair)
    keys = {metric.name: run.value_key(pair, metric) for metric in worker.metrics}
    before = read_lines(values)
    # Of other metrics and earlier versions what belongs to this very clip stays.
    kept = {line["key"]: line for line in before if {k: line.get(k) for k in about} == about}
    if len(kept) < len(before):
        curves.unlink(missing_ok=True)  # it may be another clip's, as those values are
    missing = [metric for metric in worker.metrics if keys[metric.name] not in kept]
    traced = any("landmarks" in metric.tools for metric in missing) or run.lacks_trace(pair)
    if missing or traced:
        try:
            clip = _load_clip(pair, worker)
        except (StillspeakError, OSError) as error:
            # The files hold what was computed from an earlier, better source.
            values.unlink(missing_ok=True)
            curves.unlink(missing_ok=True)
            return ClipResult(failure=Failure.of(pair.clip, error))
        for metric in missing:
            score = metric.measure(clip)
            kept[keys[metric.name]] = {
                "system": run.system.name,
                **about,
                "clip": pair.clip,
                "speaker": pair.speaker,
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
            write_text(curves, json.dumps(trace(pair.clip, clip), allow_nan=False) + "\n")
        if missing:
            write_lines(values, kept.values())
    lines = tuple(kept[keys[metric.name]] for metric in worker.metrics)
    return ClipResult(lines, computed=bool(missing or traced))


def _load_clip(pair: ClipPair, worker: _Worker) -> EvaluationClip:
    real = load_recording(pair.real)
    frames, audio = real.frames, real.audio
    if pair.generated is None:
        generated, head = worker.source(frames, audio)
    else:
        given = load_recording(pair.generated)
        generated, head = given.frames, given.head
        if abs(len(generated) - len(frames)) > LENGTH_TOLERANCE:
            raise VideoError(
                f"{pair.generated.file}: {len(generated)} frames at 25 a second, the real video "
                f"{pair.real.file} has {len(frames)}; cut both to the same speech, and replace a "
                "file that breaks off"
            )
        length = min(len(generated), len(frames))
        generated, frames = generated[:length], frames[:length]
    clip = EvaluationClip(
        *(generated, frames, audio, real.words, real.text, worker.tools),
        real_cache=worker.run.cache_of(pair.clip, pair.real, len(frames)),
        others=lambda: _others(pair, worker),
    )
    heads = (None if one is None else one[: len(frames)] for one in (head, real.head))
    clip.track_heads(*heads)
    return clip


def _others(pair: ClipPair, worker: _Worker) -> list[OtherClip]:
    """The clips that this one's video should not fit, as far as they can be read."""
    found = []
    for name, real in pair.others:
        if real.key not in worker.others:
            try:
                frames, audio, *_ = load_recording(real)
            except (StillspeakError, OSError):
                worker.others[real.key] = None
                continue
            cache = worker.run.cache_of(name, real, len(frames))
            clip = EvaluationClip(frames, frames, audio, tools=worker.tools, real_cache=cache)
            worker.others[real.key] = OtherClip(clip.real.opening, clip.real.width, clip.accents)
        found.append(worker.others[real.key])
    return [other for other in found if other is not None]
