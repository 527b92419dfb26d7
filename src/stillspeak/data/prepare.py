"""Fill a cache with the aligned clips of a corpus; see :mod:`stillspeak.data.cache`.

A file with the right key, a hash of all that it depends on, is never made again. Each frame is
aligned by itself, with landmarks averaged over seven frames, by a detector that knows nothing of
other frames: the same source always gives the same cache.
"""

import hashlib
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.cache import (
    FORMAT,
    MANIFEST,
    CachedClip,
    load_manifest,
    open_clip,
    write_tensors,
)
from stillspeak.data.clips import Clip, Rejected, Split, check_clips
from stillspeak.data.layouts.grid import read_alignment
from stillspeak.errors import DataError, StillspeakError, of_the_machine
from stillspeak.face.align import (
    SMOOTHING_WINDOW,
    canonical_face,
    crop_face,
    face_transform,
    smooth_landmarks,
    transform_points,
)
from stillspeak.face.landmarks import Face, LandmarkDetector, MediaPipeDetector
from stillspeak.media.video import iter_frames, read_clip
from stillspeak.models.regions import LOWER_BOX
from stillspeak.system.atomic import claim, sweep, whole_file
from stillspeak.system.workers import WorkerPool

MAX_GAP = 5
"""Frames in a row without a face that are bridged by interpolation."""

MAX_MISSED = 0.1
"""Share of a clip's frames that may be interpolated."""

MAX_OTHERS = 0.1
"""Share of the frames that may show a second face where one alone is asked for."""

MOUTH_SCALES = (0, 2)
"""What ``mouth_scale`` may be: no mouth pixels, or twice the scale of a 128 x 96 crop."""

_MANIFEST_EVERY = 25
_SAMPLES = SAMPLE_RATE // VIDEO_FPS

Outcome = Literal["prepared", "skipped", "rejected"]
DetectorFactory = Callable[[], LandmarkDetector]
_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Progress:
    """What the progress callback gets after each clip."""

    done: int
    total: int
    clip: Clip
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True)
class Summary:
    """What :func:`prepare` did: counts of clips, frames in the cache, wall-clock seconds."""

    prepared: int
    skipped: int
    rejected: tuple[Rejected, ...]
    frames: int
    seconds: float
    manifest: Path


@dataclass(frozen=True)
class _Settings:
    cache_dir: Path
    height: int
    width: int
    mouth_scale: int

    def file(self, clip: Clip) -> Path:
        return self.cache_dir / clip.speaker / f"{clip.name}.safetensors"


@dataclass(frozen=True)
class _Result:
    outcome: Outcome
    reason: str = ""
    frames: int = 0
    key: str = ""


def default_detector() -> LandmarkDetector:
    """The detector of :func:`prepare`: image mode, because video mode makes the lips lag."""
    return MediaPipeDetector(max_faces=2)


def prepare(
    clips: Sequence[Clip],
    cache_dir: str | Path,
    *,
    detector_factory: DetectorFactory = default_detector,
    workers: int = 2,
    height: int = FRAME_HEIGHT,
    width: int = FRAME_WIDTH,
    mouth_scale: int = 0,
    splits: Collection[Split] = (),
    progress: Callable[[Progress], None] | None = None,
) -> Summary:
    """Fill a cache with the aligned clips of a corpus.

    May be stopped and started again at any time: finished clips are kept, and the manifest is
    renewed every few clips so that training can begin meanwhile. A clip that cannot be used
    never stops the run; it is reported in the summary.

    Args:
        clips: what to prepare, in this order.
        cache_dir: the cache's folder; made if needed.
        detector_factory: makes one detector a worker; a function at the top of a module.
        workers: processes; 0 works in this one.
        height: rows of the crops, a multiple of the canonical 128 x 96.
        width: columns of the crops.
        mouth_scale: 2 keeps :data:`~stillspeak.models.regions.LOWER_BOX` at twice the scale of
            a 128 x 96 crop as well, drawn from the source, whatever the crops' size; 0 does not.
        splits: prepare only clips of these; all if empty. The others are left as they are.
        progress: called after each clip.

    Returns:
        The summary. The manifest lists exactly the usable clips of this call, and those of the
        other splits that an earlier call listed.

    Raises:
        DataError: if there are no clips, the list is inconsistent, the cache cannot be
            written, or another process is filling it.
        MissingDependencyError: if the detector cannot be made.
    """
    begin = time.monotonic()
    if not clips:
        raise DataError("there are no clips to prepare")
    check_clips(clips)
    canon = canonical_face()
    if height * canon.width != width * canon.height or height < 1:
        raise ValueError(f"crops must have the shape {canon.height}:{canon.width}")
    if mouth_scale not in MOUTH_SCALES:
        raise ValueError(f"mouth_scale must be one of {MOUTH_SCALES}, got {mouth_scale}")
    chosen = [i for i, clip in enumerate(clips) if not splits or clip.split in splits]
    if not chosen:
        raise DataError(f"there are no clips of the split {' or '.join(splits)} to prepare")
    settings = _Settings(Path(cache_dir).resolve(), height, width, mouth_scale)
    try:
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{cache_dir}: the cache cannot be made ({error.strerror})") from error

    busy = DataError(
        f"{cache_dir}: another stillspeak prepare is filling this cache; wait for it, or name "
        "another cache"
    )
    with claim(settings.cache_dir, busy):
        for folder in {settings.file(clip).parent for clip in clips}:
            sweep(folder)
        return _fill(clips, chosen, settings, detector_factory, workers, progress, begin)


def _fill(
    clips: Sequence[Clip],
    chosen: Sequence[int],
    settings: _Settings,
    detector_factory: DetectorFactory,
    workers: int,
    progress: Callable[[Progress], None] | None,
    begin: float,
) -> Summary:
    manifest = settings.cache_dir / MANIFEST
    known = _known_clips(settings.cache_dir)
    results: dict[int, _Result] = {}
    wanted = [clips[i] for i in chosen]
    for number, result in _results(wanted, settings, detector_factory, workers):
        results[chosen[number]] = result
        if len(results) % _MANIFEST_EVERY == 0 or len(results) == len(wanted):
            _write_manifest(manifest, clips, results, known, settings)
        if progress is not None:
            progress(
                Progress(len(results), len(wanted), wanted[number], result.outcome, result.reason)
            )

    outcomes = [results[i] for i in chosen]
    return Summary(
        prepared=sum(r.outcome == "prepared" for r in outcomes),
        skipped=sum(r.outcome == "skipped" for r in outcomes),
        rejected=tuple(
            Rejected(clip.path, r.reason)
            for clip, r in zip(wanted, outcomes, strict=True)
            if r.outcome == "rejected"
        ),
        frames=sum(r.frames for r in outcomes),
        seconds=time.monotonic() - begin,
        manifest=manifest,
    )


# ------------------------------------------------------------------ one clip


def _prepare_clip(clip: Clip, settings: _Settings, detector: LandmarkDetector) -> _Result:
    """Prepare one clip unless that was done before; never raises for a bad source."""
    target = settings.file(clip)
    try:
        begin = clip.start or 0.0
        words = [] if clip.alignment is None else read_alignment(clip.alignment)
        stat = clip.path.stat()
        size = stat.st_size
        known: dict[str, Any] = {
            "format": FORMAT,
            "speaker": clip.speaker,
            "stem": clip.stem,
            "name": clip.name,
            "split": clip.split,
            "text": clip.text,
            "words": [[w.start - begin, w.end - begin, w.word] for w in words],
            **_mood(clip),
        }
        if clip.start is not None:  # here and below: whole clips' keys are what they always were
            known["span"] = [clip.start, clip.end]
        inputs = known | {
            "source_sha256": _sha256(clip.path, size, stat.st_mtime_ns),
            "source": clip.path.name,
            "height": settings.height,
            "width": settings.width,
            "fps": VIDEO_FPS,
            "sample_rate": SAMPLE_RATE,
            "smoothing": SMOOTHING_WINDOW,
            "canonical": [list(canonical_face().indices), canonical_face().points.tolist()],
            "max_gap": MAX_GAP,
            "max_missed": MAX_MISSED,
            "detector": detector.version,
        }
        if clip.alone:
            inputs["alone"] = MAX_OTHERS
        if settings.mouth_scale:
            inputs |= {"mouth_scale": settings.mouth_scale, "mouth_box": LOWER_BOX}
        key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        frames = _frames_if_current(target, key)
        if frames:
            return _Result("skipped", frames=frames, key=key)
        tensors, source, facts = _extract(clip, settings, detector)
    except (StillspeakError, OSError) as error:
        if of_the_machine(error):  # the clip, and what was made of it, may be as good as ever
            raise DataError(
                f"{' '.join(str(error).split())}; what is prepared is kept, so run it again"
            ) from error
        target.unlink(missing_ok=True)  # what was made of an earlier, better source
        return _Result("rejected", reason=" ".join(str(error).split()))
    about = {"name": clip.path.name, "bytes": size, **source}
    metadata = {**known, "key": key, "source": about, **facts}
    if settings.mouth_scale:
        metadata["mouth_scale"] = settings.mouth_scale
    write_tensors(target, tensors, {k: json.dumps(v) for k, v in metadata.items()})
    return _Result("prepared", frames=len(tensors["frames"]), key=key)


def _extract(
    clip: Clip, settings: _Settings, detector: LandmarkDetector
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any], dict[str, Any]]:
    """The tensors of one clip, facts about its source and facts about the tensors."""
    start, end = clip.start or 0.0, clip.end
    frames, audio = read_clip(
        clip.path, fps=VIDEO_FPS, sample_rate=SAMPLE_RATE, start=start, end=end
    )
    faces = _track(clip, frames, detector)
    points, shapes, pose, names, filled = _fill_gaps(faces)
    T = len(faces)

    smooth = smooth_landmarks(points)
    scale = settings.height / canonical_face().height
    crops = np.empty((T, settings.height, settings.width, 3), dtype=np.uint8)
    landmarks = np.empty((T, points.shape[1], 2), dtype=np.float32)
    top, bottom, left, right = (edge * settings.mouth_scale for edge in LOWER_BOX)
    mouth_size = (bottom - top, right - left)
    mouths = np.empty((T, *mouth_size, 3), dtype=np.uint8)
    # Decoded a second time: the transform of a frame needs landmarks of later ones, and the
    # frames of a long clip do not fit into memory.
    t = -1
    for t, frame in enumerate(iter_frames(clip.path, fps=VIDEO_FPS, start=start, end=end)):
        transform = face_transform(smooth[t], scale=scale)
        crops[t] = crop_face(frame, transform, settings.height, settings.width)
        landmarks[t] = transform_points(points[t], transform)
        if settings.mouth_scale:
            # A shift by whole pixels: pixel edges stay in place, and blocks of scale x scale
            # pixels of the mouth cover exactly a pixel of the 128 x 96 crop.
            transform = face_transform(smooth[t], scale=settings.mouth_scale)
            transform[:, 2] -= (left, top)
            mouths[t] = crop_face(frame, transform, *mouth_size)
    if t + 1 != T:
        raise DataError(f"{clip.place}: gave {T} frames at first and {t + 1} the second time")
    height, width = frame.shape[:2]

    sound = np.zeros(T * _SAMPLES, dtype=np.float32)
    sound[: min(len(audio), len(sound))] = audio[: len(sound)]
    tensors: dict[str, npt.NDArray[Any]] = {
        "frames": crops,
        "audio": sound,
        "landmarks": landmarks,
        "blendshapes": shapes.astype(np.float16),
        "head_pose": pose,
    }
    if settings.mouth_scale:
        tensors["mouth"] = mouths
    source = {"height": height, "width": width, "samples": len(audio)}
    return tensors, source, {"blendshapes": names, "interpolated": filled}


def _track(
    clip: Clip, frames: Iterable[npt.NDArray[np.uint8]], detector: LandmarkDetector
) -> list[Face | None]:
    """The speaker's face in every frame, None where it was not found.

    Begins with the largest face, then follows the one nearest to where it was last. Raises
    ``DataError`` where it is lost, or others are seen beside it, for too long or too often.
    """
    faces: list[Face | None] = []
    last: Face | None = None
    missing = others = 0
    for frame in frames:
        found = detector.detect(frame)
        face = _nearest(found, last) if last is not None else (found[0] if found else None)
        faces.append(face)
        others += len(found) > 1
        missing = 0 if face is not None else missing + 1
        if missing > MAX_GAP:
            raise DataError(
                f"{clip.place}: no face in frames {len(faces) - missing} to {len(faces) - 1};"
                f" at most {MAX_GAP} in a row are bridged"
            )
        last = face or last
    missed = sum(face is None for face in faces)
    if missed == len(faces) or missed > MAX_MISSED * len(faces):
        raise DataError(
            f"{clip.place}: no face in {missed} of {len(faces)} frames;"
            f" at most {MAX_MISSED:.0%} are bridged"
        )
    if clip.alone and others > MAX_OTHERS * len(faces):
        raise DataError(
            f"{clip.place}: two faces in {others} of {len(faces)} frames; whose voice it is"
            " cannot be told, so one alone is needed"
        )
    return faces


def _nearest(found: list[Face], last: Face) -> Face | None:
    """The face nearest to the last one, unless it is a face's width away: someone else's."""

    def distance(face: Face) -> float:
        return float(np.hypot(*np.subtract(face.centre, last.centre)))

    best = min(found, key=distance, default=None)
    return best if best is not None and distance(best) < last.size else None


def _fill_gaps(
    faces: Sequence[Face | None],
) -> tuple[_Floats, _Floats, _Floats, list[str], list[int]]:
    """Landmarks (T, K, 2), blendshapes (T, 52), pose (T, 3), names and the frames filled in.

    Between two detections values run straight, before the first and after the last they stay.
    """
    known = np.array([t for t, face in enumerate(faces) if face is not None])
    there = [face for face in faces if face is not None]
    names = list(there[0].blendshapes)
    rows = np.array(
        [
            [*f.points.ravel(), *(f.blendshapes[n] for n in names), f.yaw, f.pitch, f.roll]
            for f in there
        ],
        np.float64,
    )
    T, K = len(faces), there[0].points.shape[0]
    times = np.arange(T)
    if len(known) < T:
        rows = np.stack([np.interp(times, known, column) for column in rows.T], axis=1)
    result = np.ascontiguousarray(rows, dtype=np.float32)
    points, shapes, pose = np.split(result, [2 * K, 2 * K + len(names)], axis=1)
    filled = [t for t, face in enumerate(faces) if face is None]
    return points.reshape(T, K, 2), shapes, np.ascontiguousarray(pose), names, filled


def _mood(clip: Clip) -> dict[str, str]:
    """Emotion and level, as far as known."""
    known = {"emotion": clip.emotion, "level": clip.level}
    return {name: value for name, value in known.items() if value is not None}


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    """The hash of a file's content, worked out once for all the stretches of a video."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _frames_if_current(path: Path, key: str) -> int:
    """How many frames a cached file holds if it has this key, else 0."""
    with suppress(DataError), open_clip(path) as clip:  # missing or damaged: made again
        return clip.n_frames if clip.metadata.get("key") == key else 0
    return 0


def _known_clips(cache_dir: Path) -> dict[Path, CachedClip]:
    """What the manifest of an earlier run lists and is still there, by file."""
    try:
        return {clip.file: clip for clip in load_manifest(cache_dir) if clip.file.is_file()}
    except DataError:
        return {}


def _write_manifest(
    path: Path,
    clips: Sequence[Clip],
    results: dict[int, _Result],
    known: dict[Path, CachedClip],
    settings: _Settings,
) -> None:
    """One JSON line per usable clip, in the clips' order, replaced in one step.

    Clips whose turn has not come yet keep the line of an earlier run, so that training can
    go on reading while a cache is looked through again.
    """
    lines = []
    for index, clip in enumerate(clips):
        file, result = settings.file(clip), results.get(index)
        if result is None:
            if file not in known:
                continue
            old = asdict(known[file])
            row = {k: v for k, v in old.items() if v is not None or k not in ("emotion", "level")}
        elif result.outcome == "rejected":
            continue
        else:
            row = {
                "speaker": clip.speaker,
                "stem": clip.stem,
                "name": clip.name,
                "split": clip.split,
                "frames": result.frames,
                "key": result.key,
                "text": clip.text,
                **_mood(clip),
            }
        row["file"] = file.relative_to(settings.cache_dir).as_posix()
        lines.append(json.dumps(row) + "\n")
    with whole_file(path) as partial:
        partial.write_text("".join(lines), "utf8")


# ------------------------------------------------------------------ many clips

_worker: tuple[_Settings, LandmarkDetector] | None = None
"""In a worker process: what all its clips are prepared with."""


def _start_worker(settings: _Settings, detector_factory: DetectorFactory) -> None:
    global _worker
    import cv2

    cv2.setNumThreads(1)  # the clips are what runs in parallel here
    _worker = settings, detector_factory()


def _work(clip: Clip) -> _Result:
    assert _worker is not None
    return _prepare_clip(clip, *_worker)


def _died(clip: Clip) -> _Result:
    # Which a native library can do to a process over a damaged file.
    return _Result("rejected", reason=f"{clip.place}: a worker process died while reading it")


def _results(
    clips: Sequence[Clip],
    settings: _Settings,
    detector_factory: DetectorFactory,
    workers: int,
) -> Iterator[tuple[int, _Result]]:
    """Index and result of every clip, as they get ready."""
    if workers <= 0:
        with closing(detector_factory()) as detector:
            for index, clip in enumerate(clips):
                yield index, _prepare_clip(clip, settings, detector)
        return
    # Made here once so that a missing package is told in the caller's process, in one line.
    detector_factory().close()
    pool = WorkerPool(_work, _start_worker, (settings, detector_factory), workers, _died)
    yield from pool.results(clips)
