"""How heads, brows and eyes move beside real ones: amplitude, spectrum, accents, blinks; and cost.

    python benchmarks/motion.py [--cache CACHE] [--split test] [--videos FOLDER] [--seeds 4]
        [--weights FILE] [--seconds 600]

Draws the motion of the sound of real clips, those of a prepared cache and those of a folder of
videos, whose faces are found first, with several seeds each, and tells the same numbers of both. No
picture is made: angles are compared as they are. Amplitudes are medians over clips. Correlations
with accents stand beside those with the accents of the set's other clips. Then so many seconds of
the bundled sentence, over and over, and of silence: time a frame on one thread, rates, and how far
the head gets. Prints one JSON object; nothing here asserts a number.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.cache import load_manifest, open_clip
from stillspeak.evaluation.measures import head
from stillspeak.evaluation.measures.accents import accents
from stillspeak.evaluation.measures.expression import find_blinks
from stillspeak.face.eyes import EYE_CORNERS, brow_heights
from stillspeak.media.audio import frame_windows, load_audio
from stillspeak.models.config import GeneratorConfig
from stillspeak.motion import process
from stillspeak.motion.frames import FaceMotion, unit
from streaming import machine

Curve = npt.NDArray[np.float64]

CONFIG = GeneratorConfig()
HOP = SAMPLE_RATE // VIDEO_FPS
SENTENCE = Path(str(files("stillspeak"))) / "resources" / "speech.flac"


class Moving(NamedTuple):
    """Head (T, 3) in degrees, closure (T,), and the brows' height (T,) in distances between the
    eyes."""

    head: Curve
    closure: Curve
    brows: Curve


class Real(NamedTuple):
    """A clip: its sound (640 T,) and how it moves."""

    audio: npt.NDArray[np.float32]
    moving: Moving


def of_cache(cache: Path, split: str) -> Iterator[Real]:
    """The clips of a split."""
    for clip in load_manifest(cache):
        if clip.split == split:
            with open_clip(clip) as tensors:
                names = tensors.metadata["blendshapes"]
                parts = [tensors.get_tensor(n) for n in ("head_pose", "blendshapes", "landmarks")]
                yield Real(tensors.get_tensor("audio"), _moving(*parts, names))


def of_videos(folder: Path) -> Iterator[Real]:
    """The videos of a folder, as one face in them is found frame by frame."""
    from stillspeak.face.landmarks import MediaPipeDetector
    from stillspeak.media.video import read_clip

    for path in sorted(folder.glob("*.mp4")):
        frames, sound = read_clip(path)
        with MediaPipeDetector() as detector:
            found = [faces[0] if (faces := detector.detect(one)) else None for one in frames]
        seen = [face for face in found if face is not None]
        if len(seen) < len(found) / 2:
            continue
        last, faces = seen[0], []
        for face in found:
            last = face or last
            faces.append(last)
        audio = np.zeros(len(faces) * HOP, np.float32)
        audio[: len(sound)] = sound[: len(audio)]
        pose = np.array([(f.yaw, f.pitch, f.roll) for f in faces])
        shapes = np.array([list(f.blendshapes.values()) for f in faces])
        points = np.stack([f.points for f in faces])
        yield Real(audio, _moving(pose, shapes, points, list(last.blendshapes)))


def _moving(pose: Any, shapes: Any, points: Any, names: list[str]) -> Moving:
    closure = shapes[:, [names.index("eyeBlinkLeft"), names.index("eyeBlinkRight")]].mean(1)
    corners = points[:, EYE_CORNERS[1]] - points[:, EYE_CORNERS[0]]
    brows = brow_heights(points).mean(1) / (np.linalg.norm(corners, axis=1) / 1.45)
    # Where eyes shut, landmarks of brows go along.
    steady = np.convolve(closure > np.median(closure) + 0.1, np.ones(5), "same") == 0
    if steady.sum() > 1:
        place = np.arange(len(brows))
        brows = np.interp(place, place[steady], brows[steady])
    return Moving(*(np.asarray(part, np.float64) for part in (pose, closure, brows)))


def made(audio: npt.NDArray[np.float32], seed: int) -> Moving:
    """What is drawn for a sound."""
    drawn = process.MotionProcess(seed, CONFIG).draw(frame_windows(audio, CONFIG.window, HOP))
    return _of_motion(drawn)


def _of_motion(drawn: FaceMotion) -> Moving:
    raised = drawn.units[:, unit("inner_brow_raiser")] - drawn.units[:, unit("brow_lowerer")]
    parts = (drawn.head, drawn.closure, raised * process.BROW_UNIT)
    return Moving(*(part.astype(np.float64) for part in parts))


def compared(clips: Iterable[Real], seeds: int) -> dict[str, Any]:
    """The table of a set."""
    rows: dict[str, list[Any]] = {}

    def note(name: str, value: Any) -> None:
        rows.setdefault(name, []).append(value)

    reals = list(clips)
    voices = [accents(one.audio, len(one.moving.head)) for one in reals]
    for index, one in enumerate(reals):
        for seed in range(seeds):
            drawn = made(one.audio, 100 * index + seed)
            note("ratio", head.amplitude(drawn.head, one.moving.head))
            _describe("made", drawn, index, voices, note)
        _describe("real", one.moving, index, voices, note)

    def middle(name: str) -> Any:
        return np.round(np.nanmedian(np.array(rows[name]), 0), 4).tolist()

    def mean(name: str) -> Any:
        return np.round(np.nanmean(np.array(rows[name]), 0), 3).tolist()

    rows["within"] = [0.5 <= ratio <= 1.5 for ratio in rows["ratio"]]
    table: dict[str, Any] = {
        "clips": len(reals),
        "seconds": round(sum(len(v) for v in voices) / VIDEO_FPS, 1),
        "amplitude, median of clips": middle("ratio"),
        "amplitude, of medians": round(middle("made amplitude") / middle("real amplitude"), 3),
        "share of clips within .5 to 1.5": mean("within"),
    }
    for kind in ("real", "made"):
        table[kind] = {
            "turn, nod, tilt in degrees": middle(f"{kind} deviations"),
            "speed in degrees a second": middle(f"{kind} speed"),
            "shares of power by octave": dict(
                zip(head.BANDS, mean(f"{kind} octaves"), strict=True)
            ),
            "nod with accents": mean(f"{kind} nod"),
            "nod with other accents": mean(f"{kind} nod, others"),
            "speed with accents": mean(f"{kind} speeds"),
            "speed with other accents": mean(f"{kind} speeds, others"),
            "brows with accents": mean(f"{kind} brow"),
            "brows with other accents": mean(f"{kind} brow, others"),
            "brows in eye distances": middle(f"{kind} brows"),
            "blinks a second": mean(f"{kind} blinks"),
        }
    return table


def _describe(kind: str, moving: Moving, index: int, voices: list[Curve], note: Any) -> None:
    deviations = head.deviations(moving.head)
    note(f"{kind} deviations", deviations)
    note(f"{kind} amplitude", np.linalg.norm(deviations))
    note(f"{kind} speed", head.speed(moving.head))
    note(f"{kind} octaves", head.octave_shares(moving.head))
    note(f"{kind} brows", head.averaged(moving.brows, head.STEADY).std())
    note(f"{kind} blinks", len(find_blinks(moving.closure)) / len(moving.closure) * VIDEO_FPS)
    speed = np.linalg.norm(np.gradient(head.averaged(moving.head, head.STEADY), axis=0), axis=1)
    others = [voice for place, voice in enumerate(voices) if place != index][:16]
    for name, curve in (("nod", moving.head[:, 1]), ("brow", moving.brows), ("speeds", speed)):
        note(f"{kind} {name}", head.with_accents(curve, voices[index]))
        wrong = [head.with_accents(curve, voice) for voice in others]
        note(f"{kind} {name}, others", float(np.mean(wrong)) if wrong else np.nan)


def long_run(audio: npt.NDArray[np.float32]) -> dict[str, Any]:
    """What becomes of motion in a long sound, and what a frame costs."""
    drawing = process.MotionProcess(0, CONFIG)
    windows = frame_windows(audio, CONFIG.window, HOP)
    begin = time.process_time()
    drawn = drawing.draw(windows)
    taken = time.process_time() - begin
    moving = _of_motion(drawn)
    pieces = np.array_split(moving.head, max(len(moving.head) // 75, 1))
    return {
        "microseconds a frame": round(1e6 * taken / len(windows), 1),
        "farthest": np.abs(moving.head).max(0).round(2).tolist(),
        "deviation": moving.head.std(0).round(3).tolist(),
        "deviation in 3 s": np.mean([p.std(0) for p in pieces], 0).round(3).tolist(),
        "speed in degrees a second": round(head.speed(moving.head), 3),
        "blinks a second": round(len(find_blinks(moving.closure)) / len(windows) * VIDEO_FPS, 3),
        "looks away": round(float(drawn.gaze.any(1).mean()), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--split", default="test")
    parser.add_argument("--videos", type=Path)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=600)
    given = parser.parse_args()
    if given.weights:
        weights = process.load_motion(given.weights)
        process.bundled_motion = lambda: weights
    table: dict[str, Any] = {"machine": machine()}
    if given.cache:
        table["cache"] = compared(of_cache(given.cache, given.split), given.seeds)
    if given.videos:
        table["videos"] = compared(of_videos(given.videos), given.seeds)
    sentence = load_audio(SENTENCE)
    length = given.seconds * SAMPLE_RATE
    table["speech"] = long_run(np.resize(sentence, length).astype(np.float32))
    table["silence"] = long_run(np.zeros(length, np.float32))
    print(json.dumps(table, indent=2))


if __name__ == "__main__":
    main()
