"""The cache, made from a tiny corpus: the astronaut, shifted a little in every frame."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import av
import numpy as np
import pytest

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH, SAMPLE_RATE, VIDEO_FPS
from stillspeak.data import prepare as prepare_module
from stillspeak.data.cache import FORMAT, load_manifest, open_clip
from stillspeak.data.corpora import Clip, find_grid, grid_root
from stillspeak.data.prepare import MAX_GAP, Progress, prepare
from stillspeak.errors import DataError
from stillspeak.face.landmarks import Face, LandmarkDetector, MediaPipeDetector

T = 14
SAMPLES = SAMPLE_RATE // VIDEO_FPS


def write_clip(path: Path, frames: list[np.ndarray], *, sound: bool = True) -> None:
    """Frames (H, W, 3) uint8 at 25 fps and a 440 Hz tone as H.264 and AAC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=VIDEO_FPS, options={"crf": "12"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        if sound:
            audio = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for frame in frames:
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if sound:
            tone = 0.3 * np.sin(2 * np.pi * 440 / SAMPLE_RATE * np.arange(len(frames) * SAMPLES))
            chunk = av.AudioFrame.from_ndarray(
                tone.astype(np.float32)[None], format="fltp", layout="mono"
            )
            chunk.sample_rate = SAMPLE_RATE
            chunk.pts = 0
            container.mux(audio.encode(chunk))
            container.mux(audio.encode(None))


def head(portrait: np.ndarray, dx: int = 0, dy: int = 0) -> np.ndarray:
    return portrait[0 + dy : 224 + dy, 110 + dx : 334 + dx]


@pytest.fixture(scope="module")
def portrait() -> np.ndarray:
    """(512, 512, 3) uint8: Eileen Collins, NASA, public domain."""
    return np.asarray(pytest.importorskip("skimage.data").astronaut())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory, portrait: np.ndarray) -> Path:
    """A corpus in GRID's layout: three speakers, one file that is no video."""
    root = tmp_path_factory.mktemp("corpus")
    moving = [head(portrait, dx=t // 2, dy=t // 4) for t in range(T)]
    write_clip(root / "s1" / "bbaf2n.mp4", moving)
    write_clip(root / "s1" / "lgbz7a.mp4", moving[::-1])
    write_clip(root / "s4" / "prizzp.mp4", moving[:10])
    (root / "s9").mkdir()
    (root / "s9" / "swwv1s.mp4").write_bytes(b"no video at all")
    words = root / "alignments" / "s1" / "bbaf2n.align"
    words.parent.mkdir(parents=True)
    words.write_text("0 2500 sil\n2500 7500 bin\n7500 14000 blue\n")
    return root


@pytest.fixture
def corpus(sources: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    root = tmp_path / "corpus"
    for path in sources.rglob("*"):
        if path.is_file():
            target = root / path.relative_to(sources)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    return root


@pytest.fixture(scope="module")
def detector() -> Iterator[MediaPipeDetector]:
    with MediaPipeDetector(max_faces=2) as detector:
        yield detector


class Kept:
    """A detector that outlives the preparation, so that tests share one."""

    def __init__(self, detector: LandmarkDetector) -> None:
        self.detector = detector
        self.version = detector.version
        self.seen = 0

    def detect(self, image: np.ndarray) -> list[Face]:
        self.seen += 1
        return self.detector.detect(image)

    def close(self) -> None:
        pass


@pytest.fixture
def kept(detector: MediaPipeDetector) -> Kept:
    return Kept(detector)


@pytest.fixture
def run(kept: Kept) -> Callable[..., prepare_module.Summary]:
    return partial(prepare, detector_factory=lambda: kept, workers=0)


def test_what_a_prepared_clip_holds(
    sources: Path, tmp_path: Path, run: Callable[..., prepare_module.Summary]
) -> None:
    seen: list[Progress] = []
    summary = run(find_grid(sources), tmp_path, progress=seen.append)

    assert (summary.prepared, summary.skipped) == (3, 0)
    assert summary.frames == 2 * T + 10
    (rejected,) = summary.rejected
    assert rejected.path.name == "swwv1s.mp4"
    assert "swwv1s.mp4" in rejected.reason
    assert "\n" not in rejected.reason
    assert [(p.done, p.total) for p in seen] == [(i, 4) for i in range(1, 5)]
    assert {p.clip.stem: p.outcome for p in seen}["swwv1s"] == "rejected"

    clips = load_manifest(tmp_path)
    assert [(c.speaker, c.stem, c.split, c.frames) for c in clips] == [
        ("s1", "bbaf2n", "train", T),
        ("s1", "lgbz7a", "train", T),
        ("s4", "prizzp", "test", 10),
    ]
    assert clips[0].file == tmp_path / "s1" / "bbaf2n.safetensors"
    assert clips[0].text == "bin blue at f two now"
    assert len({c.key for c in clips}) == 3

    with open_clip(clips[0]) as clip:
        expected = {
            "frames": (np.uint8, (T, FRAME_HEIGHT, FRAME_WIDTH, 3)),
            "audio": (np.float32, (T * SAMPLES,)),
            "landmarks": (np.float32, (T, 478, 2)),
            "blendshapes": (np.float16, (T, 52)),
            "head_pose": (np.float32, (T, 3)),
        }
        for name, (dtype, shape) in expected.items():
            tensor = clip.get_tensor(name)
            assert (tensor.dtype, tensor.shape) == (dtype, shape)
        assert clip.n_frames == T
        part = clip.get_slice("frames")[3:5]
        np.testing.assert_array_equal(part, clip.get_tensor("frames")[3:5])

        facts = clip.metadata
        assert facts["key"] == clips[0].key
        assert facts["format"] == FORMAT
        assert (facts["speaker"], facts["stem"], facts["split"]) == ("s1", "bbaf2n", "train")
        assert facts["text"] == "bin blue at f two now"
        assert facts["words"] == [[0, 0.1, "sil"], [0.1, 0.3, "bin"], [0.3, 0.56, "blue"]]
        size = (sources / "s1" / "bbaf2n.mp4").stat().st_size
        source = facts["source"]
        assert (source["name"], source["bytes"]) == ("bbaf2n.mp4", size)
        assert (source["height"], source["width"]) == (224, 224)
        assert len(facts["blendshapes"]) == 52
        assert "jawOpen" in facts["blendshapes"]
        assert facts["interpolated"] == []


def test_frames_are_aligned_and_sound_is_in_time(
    sources: Path, tmp_path: Path, run: Callable[..., prepare_module.Summary]
) -> None:
    run(find_grid(sources)[:1], tmp_path)
    (cached,) = load_manifest(tmp_path)
    with open_clip(cached) as clip:
        landmarks = clip.get_tensor("landmarks")
        frames = clip.get_tensor("frames").astype(float)
        audio = clip.get_tensor("audio")
        pose = clip.get_tensor("head_pose")
        smile = clip.metadata["blendshapes"].index("mouthSmileLeft")
        assert (clip.get_tensor("blendshapes")[:, smile] > 0.5).all()
    # She moves by up to seven pixels in the source and by almost none in the crop.
    eyes = landmarks[:, [33, 263]].mean(axis=0)
    assert np.abs(eyes - [(24, 43.3), (72.2, 42)]).max() < 3
    assert landmarks.std(axis=0).mean() < 1
    assert np.abs(frames - frames.mean(axis=0)).mean() < 6
    assert np.abs(pose[:, 0]).max() < 15
    # The whole length is the tone, at its pitch and strength.
    spectrum = np.abs(np.fft.rfft(audio))
    assert abs(spectrum.argmax() * SAMPLE_RATE / len(audio) - 440) < 2
    assert audio[:SAMPLES].std() > 0.1
    assert audio[-SAMPLES:].std() > 0.1


def test_a_second_run_skips_what_is_there(
    corpus: Path, tmp_path: Path, run: Callable[..., prepare_module.Summary], kept: Kept
) -> None:
    clips, cache = find_grid(corpus), tmp_path / "cache"
    first = run(clips, cache)
    before = {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()}
    looked = kept.seen
    second = run(clips, cache)
    assert (second.prepared, second.skipped, len(second.rejected)) == (0, 3, 1)
    assert second.frames == first.frames
    assert kept.seen == looked
    assert {p: p.read_bytes() for p in cache.rglob("*") if p.is_file()} == before


def test_a_run_that_is_stopped_can_be_gone_on_with(
    sources: Path,
    tmp_path: Path,
    run: Callable[..., prepare_module.Summary],
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The manifest follows during the run and never loses clips whose turn is still to come."""
    monkeypatch.setattr(prepare_module, "_MANIFEST_EVERY", 1)
    clips = find_grid(sources)[:3]

    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(clips, tmp_path, progress=stop)
    half = load_manifest(tmp_path)
    assert [c.name for c in half] == ["bbaf2n", "lgbz7a"]
    summary = run(clips, tmp_path)
    assert (summary.prepared, summary.skipped) == (1, 2)
    whole = load_manifest(tmp_path)
    assert whole[:2] == half

    kept.version = "another detector"
    with pytest.raises(KeyboardInterrupt):
        run(clips, tmp_path, progress=stop)
    again = load_manifest(tmp_path)
    assert [c.name for c in again] == [c.name for c in whole]
    assert [a.key == b.key for a, b in zip(again, whole, strict=True)] == [False, False, True]


def test_the_same_sources_give_the_same_values(
    sources: Path, tmp_path: Path, run: Callable[..., prepare_module.Summary]
) -> None:
    clips = find_grid(sources)[:1]
    run(clips, tmp_path / "a")
    run(clips, tmp_path / "b")
    (first,), (second,) = load_manifest(tmp_path / "a"), load_manifest(tmp_path / "b")
    with open_clip(first) as a, open_clip(second) as b:
        assert a.metadata == b.metadata
        for name in ("frames", "audio", "landmarks", "blendshapes", "head_pose"):
            np.testing.assert_array_equal(a.get_tensor(name), b.get_tensor(name))


def test_what_changed_is_made_again(
    corpus: Path,
    tmp_path: Path,
    portrait: np.ndarray,
    run: Callable[..., prepare_module.Summary],
    kept: Kept,
) -> None:
    cache = tmp_path / "cache"
    only = find_grid(corpus)[:2]
    run(only, cache)
    keys = [c.key for c in load_manifest(cache)]

    write_clip(corpus / "s1" / "bbaf2n.mp4", [head(portrait, dx=3)] * 8)
    summary = run(only, cache)
    assert (summary.prepared, summary.skipped, summary.frames) == (1, 1, 8 + T)
    changed = load_manifest(cache)
    assert [c.frames for c in changed] == [8, T]
    assert changed[0].key != keys[0]
    assert changed[1].key == keys[1]

    (corpus / "alignments" / "s1" / "bbaf2n.align").write_text("0 25000 bin\n")
    assert run(only, cache).prepared == 1

    kept.version = "another detector"
    assert run(only, cache).prepared == 2

    assert run([replace(c, split="test") for c in only], cache).prepared == 2


def test_a_damaged_file_in_the_cache_is_made_again(
    sources: Path, tmp_path: Path, run: Callable[..., prepare_module.Summary]
) -> None:
    clips = find_grid(sources)[:1]
    run(clips, tmp_path)
    (cached,) = load_manifest(tmp_path)
    cached.file.write_bytes(cached.file.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"bbaf2n\.safetensors: the prepared clip cannot be read"):
        open_clip(cached)
    assert run(clips, tmp_path).prepared == 1
    with open_clip(cached) as clip:
        assert clip.n_frames == T


def test_a_source_that_broke_leaves_no_old_clip_behind(
    corpus: Path, tmp_path: Path, run: Callable[..., prepare_module.Summary]
) -> None:
    clips, cache = find_grid(corpus)[:1], tmp_path / "cache"
    run(clips, cache)
    clips[0].path.write_bytes(b"gone")
    summary = run(clips, cache)
    assert len(summary.rejected) == 1
    assert load_manifest(cache) == []
    assert not list(cache.rglob("*.safetensors"))


def test_a_failed_write_leaves_the_old_file(
    sources: Path,
    tmp_path: Path,
    run: Callable[..., prepare_module.Summary],
    kept: Kept,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clips = find_grid(sources)[:1]
    run(clips, tmp_path)
    target = tmp_path / "s1" / "bbaf2n.safetensors"
    before = target.read_bytes()
    kept.version = "a newer detector"

    def fail(self: Path, target: Path) -> Path:
        assert self.stat().st_size == pytest.approx(len(before), abs=200)
        raise RuntimeError("the power went")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(RuntimeError, match="the power went"):
        run(clips, tmp_path)
    assert target.read_bytes() == before
    assert not list(tmp_path.rglob("*.partial"))


def test_larger_crops(
    sources: Path, tmp_path: Path, run: Callable[..., prepare_module.Summary]
) -> None:
    clips = find_grid(sources)[:1]
    run(clips, tmp_path / "small")
    run(clips, tmp_path / "large", height=256, width=192)
    (small,), (large,) = load_manifest(tmp_path / "small"), load_manifest(tmp_path / "large")
    assert small.key != large.key
    with open_clip(small) as s, open_clip(large) as b:
        assert b.get_tensor("frames").shape == (T, 256, 192, 3)
        np.testing.assert_allclose(
            (b.get_tensor("landmarks") + 0.5) / 2 - 0.5, s.get_tensor("landmarks"), atol=1e-3
        )
    with pytest.raises(ValueError, match="128:96"):
        run(clips, tmp_path, height=128, width=128)


class Scripted:
    """Finds a made face where ``script`` has a place (x), nothing where it has None.

    A tuple stands for several faces, the largest first.
    """

    version = "scripted"

    def __init__(self, script: list[object]) -> None:
        self.script = iter(script)

    def detect(self, image: np.ndarray) -> list[Face]:
        places = next(self.script)
        if places is None:
            return []
        found = places if isinstance(places, tuple) else (places,)
        return [scripted_face(float(x)) for x in found]

    def close(self) -> None:
        pass


def scripted_face(x: float) -> Face:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 60, (478, 2))
    points[[2, 33, 133, 362, 263]] = [(30, 45), (10, 20), (22, 20), (38, 20), (50, 20)]
    points += (x, 20)
    return Face(points.astype(np.float32), {"jawOpen": x / 100}, yaw=x, pitch=0.0, roll=0.0)


def scripted(clips: list[Clip], cache: Path, script: list[object]) -> prepare_module.Summary:
    return prepare(clips, cache, detector_factory=lambda: Scripted(script), workers=0)


def test_short_gaps_are_bridged(sources: Path, tmp_path: Path) -> None:
    clips = find_grid(sources)[:1]
    script: list[object] = [10.0] * T
    script[5], script[6] = None, 16.0
    summary = scripted(clips, tmp_path, script)
    assert summary.prepared == 1
    (cached,) = load_manifest(tmp_path)
    with open_clip(cached) as clip:
        assert clip.metadata["interpolated"] == [5]
        pose = clip.get_tensor("head_pose")[:, 0]
        np.testing.assert_allclose(pose[4:8], [10, 13, 16, 10])
        assert clip.get_tensor("blendshapes")[5, 0] == np.float16(0.13)


@pytest.mark.parametrize("missing", [0, T - 1])
def test_gaps_at_the_ends_repeat_the_nearest(sources: Path, tmp_path: Path, missing: int) -> None:
    script: list[object] = [float(10 + t) for t in range(T)]
    script[missing] = None
    assert scripted(find_grid(sources)[:1], tmp_path, script).prepared == 1
    (cached,) = load_manifest(tmp_path)
    with open_clip(cached) as clip:
        pose = clip.get_tensor("head_pose")[:, 0]
        neighbour = 1 if missing == 0 else T - 2
        assert pose[missing] == pose[neighbour]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ([None] * T, f"no face in frames 0 to {MAX_GAP}"),
        ([10.0, *[None] * (T - 1)], f"no face in frames 1 to {MAX_GAP + 1}"),
        ([10.0, None] * (T // 2), f"no face in {T // 2} of {T} frames"),
    ],
)
def test_too_many_gaps(sources: Path, tmp_path: Path, script: list[object], reason: str) -> None:
    summary = scripted(find_grid(sources)[:1], tmp_path, script)
    (rejected,) = summary.rejected
    assert reason in rejected.reason
    assert "bbaf2n.mp4" in rejected.reason


def test_the_face_nearest_to_the_last_one_is_followed(sources: Path, tmp_path: Path) -> None:
    """Another face may become the largest, or be all that is found: it is not taken."""
    script: list[object] = [12.0] * T
    script[3] = (150.0, 13.0)
    script[7] = 150.0
    assert scripted(find_grid(sources)[:1], tmp_path, script).prepared == 1
    (cached,) = load_manifest(tmp_path)
    with open_clip(cached) as clip:
        assert clip.metadata["interpolated"] == [7]
        np.testing.assert_allclose(clip.get_tensor("head_pose")[[3, 7], 0], [13, 12])


def test_a_clip_without_sound_is_rejected(
    tmp_path: Path, portrait: np.ndarray, run: Callable[..., prepare_module.Summary]
) -> None:
    path = tmp_path / "corpus" / "s1" / "bbaf2n.mp4"
    write_clip(path, [head(portrait)] * 4, sound=False)
    summary = run(find_grid(tmp_path / "corpus"), tmp_path / "cache")
    (rejected,) = summary.rejected
    assert "bbaf2n.mp4" in rejected.reason


def test_no_clips_and_no_cache(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clips to prepare"):
        prepare([], tmp_path)
    with pytest.raises(DataError, match=r"manifest\.jsonl: no prepared clips here; run"):
        load_manifest(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cache cannot be made"):
        prepare([Clip("s1", "a", Path("a"), "train")], tmp_path / "file" / "cache")


@pytest.mark.parametrize("line", ["{", '{"file": "x"}', "[]", '{"speaker": 1}'])
def test_a_damaged_manifest(tmp_path: Path, line: str) -> None:
    (tmp_path / "manifest.jsonl").write_text(line + "\n")
    with pytest.raises(DataError, match=r"manifest\.jsonl, line 1: damaged"):
        load_manifest(tmp_path)


class Fatal(Scripted):
    """Ends its process at a picture of 96 rows, as a native crash would."""

    def __init__(self) -> None:
        super().__init__([])

    def detect(self, image: np.ndarray) -> list[Face]:
        if image.shape[0] == 96:
            os._exit(11)
        return [scripted_face(10.0)]


def test_worker_processes_and_the_death_of_one(sources: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = list(rng.integers(0, 256, (3, 96, 128, 3), dtype=np.uint8))
    write_clip(tmp_path / "corpus" / "s9" / "bbaf2n.mp4", noise)
    clips = [*find_grid(tmp_path / "corpus"), *find_grid(sources)[:3]]
    seen: list[Progress] = []
    summary = prepare(
        clips, tmp_path / "cache", detector_factory=Fatal, workers=2, progress=seen.append
    )
    assert (summary.prepared, summary.frames) == (3, 2 * T + 10)
    (rejected,) = summary.rejected
    assert rejected.path == clips[0].path
    assert "a worker process died" in rejected.reason
    assert len(seen) == 4
    assert [c.speaker for c in load_manifest(tmp_path / "cache")] == ["s1", "s1", "s4"]


@pytest.mark.grid
def test_a_real_clip(tmp_path: Path, run: Callable[..., prepare_module.Summary]) -> None:
    root = grid_root()
    if root is None:
        pytest.skip("no GRID clips: set STILLSPEAK_GRID")
    clip = next(c for c in find_grid(root) if c.alignment is not None)
    summary = run([clip], tmp_path)
    assert summary.prepared == 1
    (cached,) = load_manifest(tmp_path)
    with open_clip(cached) as prepared:
        landmarks = prepared.get_tensor("landmarks")
        audio = prepared.get_tensor("audio")
        words = prepared.metadata["words"]
    assert cached.frames in (74, 75)
    corners = landmarks[:, [61, 291]].mean(axis=0)
    assert np.abs(corners - [(36.4, 87.6), (63.5, 87.1)]).max() < 8
    # Sound and word times agree: it is louder inside the sentence than before it.
    spoken = [w for w in words if w[2] not in ("sil", "sp")]
    start, end = (int(s * SAMPLE_RATE) for s in (spoken[0][0], spoken[-1][1]))
    assert audio[start:end].std() > 4 * audio[: max(start - 1600, 1600)].std()
    json.dumps(words)
