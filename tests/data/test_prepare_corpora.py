"""What the corpora ask of the cache: other rates, moods, and keys that stay what they were."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.cache import FORMAT, CachedClip, load_manifest, open_clip
from stillspeak.data.clips import Clip
from stillspeak.data.corpora import find_crema_d, find_grid, find_tcd_timit
from stillspeak.data.prepare import Summary, prepare
from stillspeak.face.align import SMOOTHING_WINDOW, canonical_face
from stillspeak.face.landmarks import Face
from support.film import film, flashes

SECONDS = 20.0
TIMES = [0.6, 19.2]


def face_at(x: float) -> Face:
    """A face in the middle third of a picture of 48 x 64 pixels."""
    points = np.random.default_rng(0).uniform((x, 14), (x + 20, 34), (478, 2))
    points[[2, 33, 133, 362, 263]] = [(x + a, b) for a, b in EYES]
    return Face(points.astype(np.float32), {"jawOpen": 0.5}, yaw=0.0, pitch=0.0, roll=0.0)


EYES = [(10, 29), (3, 21), (7, 21), (13, 21), (17, 21)]


class Watching:
    """A detector that says for each frame's brightness which faces there are."""

    version = "watching"

    def __init__(self, faces: Callable[[np.ndarray], list[Face]]) -> None:
        self.faces = faces

    def detect(self, image: np.ndarray) -> list[Face]:
        return self.faces(image)

    def close(self) -> None:
        pass


@pytest.fixture
def run() -> Callable[..., Summary]:
    detector = Watching(lambda image: [face_at(22)])
    return partial(prepare, detector_factory=lambda: detector, workers=0)


def onsets(bright: np.ndarray, rate: int) -> list[float]:
    """Seconds at which a row of values rises above its middle, a second apart at least."""
    loud = np.flatnonzero(bright > 0.4 * bright.max())
    first = np.concatenate([[True], np.diff(loud) > rate])
    return [float(at) / rate for at in loud[first]]


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30_000, 1001)])
@pytest.mark.parametrize("suffix", ["mp4", "flv"])
def test_thirty_frames_a_second_stay_in_time(
    tmp_path: Path, run: Callable[..., Summary], rate: Fraction, suffix: str
) -> None:
    if suffix == "mp4":
        path = tmp_path / "volunteers/01M/Clips/straightcam/sa1.mp4"
        find: Callable[[Path], list[Clip]] = find_tcd_timit
    else:
        path = tmp_path / "VideoFlash/1001_DFA_ANG_XX.flv"
        find = find_crema_d
    path.parent.mkdir(parents=True)
    film(path, flashes(rate, TIMES, SECONDS), rate, TIMES, SECONDS)
    summary = run(find(tmp_path), tmp_path / "cache")
    assert summary.prepared == 1
    (cached,) = load_manifest(tmp_path / "cache")
    assert cached.frames == round(SECONDS * VIDEO_FPS)
    with open_clip(cached) as clip:
        light = clip.get_tensor("frames").mean(axis=(1, 2, 3))
        sound = np.abs(clip.get_tensor("audio"))
    seen, heard = onsets(light, VIDEO_FPS), onsets(sound, SAMPLE_RATE)
    assert len(seen) == len(heard) == len(TIMES)
    for due, picture, click in zip(TIMES, seen, heard, strict=True):
        assert abs(picture - click) <= 1 / VIDEO_FPS
        assert abs(picture - due) <= 1 / VIDEO_FPS
        assert abs(click - due) <= 0.01


def test_crema_ds_moods_are_in_the_manifest(tmp_path: Path, run: Callable[..., Summary]) -> None:
    folder = tmp_path / "VideoFlash"
    folder.mkdir()
    for name in ("1001_DFA_ANG_HI", "1001_DFA_NEU_XX"):
        rate = Fraction(30)
        film(folder / f"{name}.flv", flashes(rate, [], 1.0), rate, [0.5], 1.0)
    cache = tmp_path / "cache"
    assert run(find_crema_d(tmp_path), cache).prepared == 2
    first, second = load_manifest(cache)
    assert (first.emotion, first.level) == ("anger", "high")
    assert (second.emotion, second.level) == ("neutral", "unspecified")
    with open_clip(first) as clip:
        assert clip.metadata["emotion"] == "anger"
        assert clip.metadata["level"] == "high"
    assert run(find_crema_d(tmp_path), cache).skipped == 2
    other = [replace(clip, emotion="fear") for clip in find_crema_d(tmp_path)]
    assert run(other, cache).prepared == 2


def test_the_key_of_a_plain_clip_is_what_it_was(
    tmp_path: Path, run: Callable[..., Summary]
) -> None:
    """Caches of GRID that were made before there were moods and stretches stay valid."""
    path = tmp_path / "s1" / "bbaf2n.mp4"
    path.parent.mkdir()
    film(path, flashes(Fraction(25), [], 1.0), Fraction(25), [0.5], 1.0)
    run(find_grid(tmp_path), tmp_path / "cache")
    inputs = {
        "format": FORMAT,
        "source_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "source": "bbaf2n.mp4",
        "speaker": "s1",
        "stem": "bbaf2n",
        "name": "bbaf2n",
        "split": "train",
        "text": "bin blue at f two now",
        "words": [],
        "height": 128,
        "width": 96,
        "fps": 25,
        "sample_rate": 16_000,
        "smoothing": SMOOTHING_WINDOW,
        "canonical": [list(canonical_face().indices), canonical_face().points.tolist()],
        "max_gap": 5,
        "max_missed": 0.1,
        "detector": "watching",
    }
    key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
    row = json.loads((tmp_path / "cache" / "manifest.jsonl").read_text())
    assert row == {
        "speaker": "s1",
        "stem": "bbaf2n",
        "name": "bbaf2n",
        "split": "train",
        "frames": 25,
        "key": key,
        "text": "bin blue at f two now",
        "file": "s1/bbaf2n.safetensors",
    }


def test_a_manifest_without_moods_loads(tmp_path: Path) -> None:
    row = {"speaker": "s1", "stem": "a", "name": "a", "split": "train", "frames": 3, "key": "k"}
    line = json.dumps(row | {"text": None, "file": "s1/a.safetensors"})
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    (clip,) = load_manifest(tmp_path)
    assert isinstance(clip, CachedClip)
    assert (clip.emotion, clip.level) == (None, None)


# ------------------------------------------------------------------ stretches


@pytest.fixture(scope="module")
def long_film(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Twenty seconds at 30 frames a second, a flash and a click at 0.6 and 19.2 s."""
    yield film(
        tmp_path_factory.mktemp("film") / "talk.mp4",
        flashes(Fraction(30), TIMES, SECONDS),
        Fraction(30),
        TIMES,
        SECONDS,
    )


def stretch(path: Path, start: float, end: float, name: str) -> Clip:
    return Clip("anna", path.stem, path, "train", name=name, start=start, end=end, alone=True)


def test_a_stretch_is_prepared(
    long_film: Path, tmp_path: Path, run: Callable[..., Summary]
) -> None:
    clips = [stretch(long_film, 0.0, 2.0, "a"), stretch(long_film, 18.4, 20.0, "b")]
    assert run(clips, tmp_path).prepared == 2
    first, second = load_manifest(tmp_path)
    assert (first.frames, second.frames) == (50, 40)
    assert first.key != second.key
    for cached, due in ((first, 0.6), (second, 0.8)):
        with open_clip(cached) as clip:
            light = clip.get_tensor("frames").mean(axis=(1, 2, 3))
            sound = np.abs(clip.get_tensor("audio"))
            assert clip.metadata["span"] == ([0.0, 2.0] if cached is first else [18.4, 20.0])
        (picture,), (click,) = onsets(light, VIDEO_FPS), onsets(sound, SAMPLE_RATE)
        assert abs(picture - due) <= 1 / VIDEO_FPS
        assert abs(click - due) <= 0.01
    assert run(clips, tmp_path).skipped == 2
    moved = [clips[0], stretch(long_film, 18.36, 20.0, "b")]
    again = run(moved, tmp_path)
    assert (again.prepared, again.skipped) == (1, 1)


def test_a_stretch_must_show_one_face(long_film: Path, tmp_path: Path) -> None:
    def faces(image: np.ndarray) -> list[Face]:
        two = image.mean() > 128  # in the flash
        return [face_at(22), face_at(2)] if two else [face_at(22)]

    clips = [
        stretch(long_film, 0.4, 1.0, "two"),
        stretch(long_film, 2.0, 3.0, "one"),
        replace(stretch(long_film, 0.4, 1.0, "whatever"), alone=False),
    ]
    summary = prepare(clips, tmp_path, detector_factory=lambda: Watching(faces), workers=0)
    (rejected,) = summary.rejected
    assert f"{long_film}, 0.40 to 1.00 s: two faces in" in rejected.reason
    assert [c.name for c in load_manifest(tmp_path)] == ["one", "whatever"]


def test_a_stretch_without_a_face(long_film: Path, tmp_path: Path) -> None:
    summary = prepare(
        [stretch(long_film, 3.0, 4.0, "none")],
        tmp_path,
        detector_factory=lambda: Watching(lambda image: []),
        workers=0,
    )
    (rejected,) = summary.rejected
    assert "talk.mp4, 3.00 to 4.00 s: no face in frames 0 to 5" in rejected.reason
