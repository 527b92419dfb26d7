"""Anybody's videos: who speaks, which split, which clips, and what is said about the rest."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from stillspeak.data.cache import load_manifest, open_clip
from stillspeak.data.clips import SPLITS, Rejected
from stillspeak.data.corpora import LAYOUTS, find_folder
from stillspeak.data.layouts import folder
from stillspeak.data.layouts.folder import Looking, split_speakers
from stillspeak.data.prepare import prepare
from stillspeak.data.segments import SegmentRules
from stillspeak.errors import DataError, VideoError
from stillspeak.face.landmarks import Face
from support.film import talk


@pytest.fixture
def cut(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """No video is looked into: each has two clips, but one named ``bad`` is damaged."""
    looked: list[str] = []

    def find_segments(path: Path, rules: object, voice: object) -> list[tuple[int, int]]:
        looked.append(path.name)
        if path.stem == "bad":
            raise VideoError(f"{path}: the video\nis damaged")
        return [(0, 60), (75, 150)]

    monkeypatch.setattr(folder, "find_segments", find_segments)
    return looked


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())


def test_speakers_and_names(tmp_path: Path, cut: list[str]) -> None:
    assert LAYOUTS["folder"] is find_folder
    touch(
        tmp_path,
        "anna/monday.mp4",
        "anna/trip/day1.MOV",
        "anna/trip/day1.webm",
        "anna/notes.txt",
        "anna/.hidden/x.mp4",
        "bert.mkv",
        ".trash/old.mp4",
    )
    clips = find_folder(tmp_path)
    assert [(c.speaker, c.name) for c in clips] == [
        ("anna", "monday-00000000"),
        ("anna", "monday-00003000"),
        ("anna", "trip-day1-MOV-00000000"),
        ("anna", "trip-day1-MOV-00003000"),
        ("anna", "trip-day1-webm-00000000"),
        ("anna", "trip-day1-webm-00003000"),
        ("bert", "bert-00000000"),
        ("bert", "bert-00003000"),
    ]
    first = clips[0]
    assert (first.path, first.stem) == (tmp_path / "anna" / "monday.mp4", "monday")
    assert (first.start, first.end, first.seconds) == (0.0, 2.4, 2.4)
    assert first.alone
    assert first.text is None
    assert clips[1].place == f"{first.path}, 3.00 to 6.00 s"
    assert {c.split for c in clips} == {"train", "validation"}


def test_a_split_that_needs_no_list() -> None:
    names = [f"speaker{n}" for n in range(40)]
    split = split_speakers(names)
    assert [len(split[s]) for s in SPLITS] == [32, 4, 4]
    assert sorted(name for names_of in split.values() for name in names_of) == sorted(names)
    assert split_speakers(reversed(names)) == split
    assert split_speakers(["anna"]) == {"train": ["anna"], "validation": [], "test": []}
    assert [len(split_speakers("ab")[s]) for s in SPLITS] == [1, 1, 0]
    assert [len(split_speakers("abc")[s]) for s in SPLITS] == [1, 1, 1]


def test_split_json_decides(tmp_path: Path, cut: list[str]) -> None:
    touch(tmp_path, "anna.mp4", "bert.mp4")
    (tmp_path / "split.json").write_text(
        json.dumps({"train": [], "validation": [], "test": ["anna", "bert"]})
    )
    assert {c.split for c in find_folder(tmp_path)} == {"test"}
    touch(tmp_path, "carl.mp4")
    cut.clear()
    with pytest.raises(DataError, match="speaker carl is in none of the splits"):
        find_folder(tmp_path)
    assert cut == []  # said before the slow part


def test_a_bad_video_among_good_ones(tmp_path: Path, cut: list[str]) -> None:
    touch(tmp_path, "anna/bad.mp4", "anna/good.mp4", "bert.mp4")
    rejected: list[Rejected] = []
    seen: list[Looking] = []
    clips = find_folder(tmp_path, rejected=rejected.append, progress=seen.append)
    assert len(clips) == 4
    (one,) = rejected
    assert one.path == tmp_path / "anna" / "bad.mp4"
    assert one.reason == f"{one.path}: the video is damaged"
    assert [(p.done, p.total, p.path.name) for p in seen] == [
        (1, 3, "bad.mp4"),
        (2, 3, "good.mp4"),
        (3, 3, "bert.mp4"),
    ]


def test_nothing_to_use(tmp_path: Path, cut: list[str]) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_folder(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"no videos found; they end in .*\.mp4"):
        find_folder(tmp_path)
    touch(tmp_path, "bad.mp4")
    with pytest.raises(DataError, match=r"none of 1 videos can be used; .*bad\.mp4: the video is"):
        find_folder(tmp_path)


def test_what_was_found_is_remembered_while_it_holds(
    tmp_path: Path, cut: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root, memory = tmp_path / "videos", tmp_path / "cache" / ".segments"
    touch(root, "anna.mp4", "bert.mp4")
    clips = find_folder(root, memory=memory)
    assert cut == ["anna.mp4", "bert.mp4"]
    assert find_folder(root, memory=memory) == clips
    assert len(cut) == 2

    (root / "anna.mp4").write_bytes(b"another film")
    find_folder(root, memory=memory)
    assert cut[2:] == ["anna.mp4"]
    find_folder(root, memory=memory, rules=SegmentRules(2, 9))
    assert cut[3:] == ["anna.mp4", "bert.mp4"]
    monkeypatch.setattr(folder, "versions", lambda: {"silero-vad": "another"})
    find_folder(root, memory=memory)
    assert cut[5:] == ["anna.mp4", "bert.mp4"]

    for file in memory.iterdir():
        file.write_text("[[1")
    assert find_folder(root, memory=memory) == clips
    assert cut[7:] == ["anna.mp4", "bert.mp4"]
    assert not list(memory.glob("*.partial"))
    touch(tmp_path, "file")
    with pytest.raises(DataError, match="cannot be made"):
        find_folder(root, memory=tmp_path / "file" / "cache")


class Watching:
    """A detector that says from each picture which faces there are."""

    version = "watching"

    def __init__(self, faces: Callable[[np.ndarray], list[Face]]) -> None:
        self.faces = faces

    def detect(self, image: np.ndarray) -> list[Face]:
        return self.faces(image)

    def close(self) -> None:
        pass


def face_at(x: float) -> Face:
    points = np.random.default_rng(0).uniform((x, 14), (x + 20, 34), (478, 2))
    points[[2, 33, 133, 362, 263]] = [(x + a, b) for a, b in EYES]
    return Face(points.astype(np.float32), {"jawOpen": 0.5}, yaw=0.0, pitch=0.0, roll=0.0)


EYES = [(10, 29), (3, 21), (7, 21), (13, 21), (17, 21)]


def test_from_videos_to_the_cache(tmp_path: Path) -> None:
    """One long video: three utterances, the second of them in a scene with two people."""
    root, cache = tmp_path / "videos", tmp_path / "cache"
    root.mkdir()
    talk(root / "anna.mp4", utterances=3, cuts=(130, 255))
    (root / "notes.mp4").write_text("no video")
    rejected: list[Rejected] = []
    clips = find_folder(root, rejected=rejected.append)
    assert [r.path.name for r in rejected] == ["notes.mp4"]
    assert len(clips) == 3

    def faces(image: np.ndarray) -> list[Face]:
        return [face_at(22), face_at(2)] if image[5, 5, 0] > 120 else [face_at(22)]

    summary = prepare(clips, cache, detector_factory=lambda: Watching(faces), workers=0)
    assert summary.prepared == 2
    (two,) = summary.rejected
    assert two.reason.startswith(f"{clips[1].place}: two faces in")
    first, third = load_manifest(cache)
    for cached, clip in ((first, clips[0]), (third, clips[2])):
        assert cached.name == clip.name
        assert clip.seconds is not None
        assert cached.frames == round(clip.seconds * 25)
        with open_clip(cached) as reader:
            sound = reader.get_tensor("audio")
            assert reader.metadata["span"] == [clip.start, clip.end]
        # The margin at the beginning is silent, the voice begins right after it.
        assert np.abs(sound[:2400]).max() < 0.01
        assert np.abs(sound[:8000]).max() > 0.05
