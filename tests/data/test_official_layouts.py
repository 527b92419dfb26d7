"""TCD-TIMIT and CREMA-D as they lie on disk, in trees of empty files."""

import json
from pathlib import Path

import pytest

from stillspeak.data.clips import plain_text
from stillspeak.data.corpora import LAYOUTS, SPLITS, Clip, find_crema_d, find_tcd_timit
from stillspeak.errors import DataError

# All 59, in the order of their numbers.
VOLUNTEERS = (
    "01M 02M 03F 04M 05F 06M 07F 08F 09F 10M 11F 12M 13F 14M 15F 16M 17F 18M 19M 20M 21M 22M 23M"
    " 24M 25M 26M 27M 28M 29M 30F 31F 32F 33F 34M 35M 36F 37F 38F 39M 40F 41M 42M 43F 44F 45F"
    " 46F 47M 48M 49F 50F 51F 52M 53M 54M 55F 56M 57M 58F 59F"
)
HELD_OUT = "13F 15F 21M 23M 24M 25M 28M 29M 30F 31F 34M 36F 37F 43F 47M 51F 54M"


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def speakers(clips: list[Clip]) -> dict[str, set[str]]:
    return {split: {c.speaker for c in clips if c.split == split} for split in SPLITS}


def test_the_layouts_are_named() -> None:
    assert LAYOUTS["tcd-timit"] is find_tcd_timit
    assert LAYOUTS["crema-d"] is find_crema_d


# ------------------------------------------------------------------ TCD-TIMIT


def test_tcd_timit(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "volunteers/01M/Clips/straightcam/sa1.mp4",
        "volunteers/01M/Clips/straightcam/sx162.mp4",
        "volunteers/01M/Clips/straightcam/sx162.wav",
        "volunteers/01M/Clips/30degcam/sa1.mp4",
        "volunteers/21M/straightcam/si2010.mp4",
        "volunteers/27M/Clips/straightcam/sa1.mp4",
        "volunteers/51F/Clips/30degcam/sa1.mp4",
        "volunteers/notes/Clips/straightcam/sa1.mp4",
        "lipspeakers/Lipspkr1/Clips/straightcam/sa1.mp4",
    )
    folder = tmp_path / "volunteers/01M/Clips/straightcam"
    (folder / "SA1.txt").write_text("0 46797 She had your dark suit, Don't ask!\n")
    clips = find_tcd_timit(tmp_path)
    assert [(c.speaker, c.stem, c.split) for c in clips] == [
        ("01M", "sa1", "train"),
        ("01M", "sx162", "train"),
        ("21M", "si2010", "validation"),
    ]
    assert clips[0].path == folder / "sa1.mp4"
    assert clips[0].text == "she had your dark suit don't ask"
    assert clips[1].text is None
    assert clips[0].seconds is None
    assert find_tcd_timit(tmp_path / "volunteers") == clips


def test_all_of_tcd_timits_speakers(tmp_path: Path) -> None:
    touch(
        tmp_path, *(f"volunteers/{name}/Clips/straightcam/sa1.mp4" for name in VOLUNTEERS.split())
    )
    assert len(VOLUNTEERS.split()) == 59
    found = speakers(find_tcd_timit(tmp_path))
    assert [len(found[split]) for split in SPLITS] == [39, 5, 12]
    assert found["validation"] == {"21M", "25M", "30F", "36F", "47M"}
    assert found["validation"] | found["test"] == set(HELD_OUT.split())
    assert set.union(*found.values()) == set(VOLUNTEERS.split()) - {"27M", "35M", "53M"}


def test_tcd_timits_split_json_may_name_those_left_out(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "volunteers/01M/Clips/straightcam/sa1.mp4",
        "volunteers/27M/Clips/straightcam/sa1.mp4",
        "volunteers/35M/Clips/straightcam/sa1.mp4",
        "lipspeakers/Lipspkr2/Clips/straightcam/sa1.mp4",
    )
    split = {"train": ["Lipspkr2", "01M"], "validation": ["27M"], "test": []}
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert [(c.speaker, c.split) for c in find_tcd_timit(tmp_path)] == [
        ("01M", "train"),
        ("27M", "validation"),
        ("Lipspkr2", "train"),
    ]
    split["train"] = ["Lipspkr2"]
    (tmp_path / "split.json").write_text(json.dumps(split))
    with pytest.raises(DataError, match="speaker 01M is in none of the splits"):
        find_tcd_timit(tmp_path)


def test_no_tcd_timit(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no clips found; .*volunteers/01M/Clips/straightcam/sa1"):
        find_tcd_timit(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_tcd_timit(tmp_path / "nowhere")


def test_a_sentence_that_cannot_be_read(tmp_path: Path) -> None:
    touch(tmp_path, "volunteers/01M/Clips/straightcam/sa1.mp4")
    (tmp_path / "volunteers/01M/Clips/straightcam/sa1.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"sa1\.txt: the sentence cannot be read"):
        find_tcd_timit(tmp_path)


# ------------------------------------------------------------------ CREMA-D


def test_crema_d(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "VideoFlash/1001_DFA_ANG_XX.flv",
        "VideoFlash/1001_IEO_HAP_LO.mp4",
        "VideoFlash/1001_IEO_HAP_LO.flv",
        "VideoFlash/1008_ITS_NEU_XX.flv",
        "VideoFlash/1040_ITH_SAD_X.flv",
        "VideoFlash/1091_ZZZ_ZZZ_HI.flv",
        "VideoFlash/readme.flv",
        "AudioWAV/1001_DFA_ANG_XX.wav",
    )
    clips = find_crema_d(tmp_path)
    assert [(c.speaker, c.split, c.text, c.emotion, c.level) for c in clips] == [
        ("1001", "train", "don't forget a jacket", "anger", "unspecified"),
        ("1001", "train", "it's eleven o'clock", "happy", "low"),
        ("1008", "validation", "i think i've seen this before", "neutral", "unspecified"),
        ("1040", "test", "i think i have a doctor's appointment", "sad", "unspecified"),
        ("1091", "train", None, None, "high"),
    ]
    assert clips[1].path == tmp_path / "VideoFlash" / "1001_IEO_HAP_LO.flv"
    assert find_crema_d(tmp_path / "VideoFlash") == clips


def test_all_of_crema_ds_actors(tmp_path: Path) -> None:
    touch(tmp_path, *(f"VideoFlash/{n}_TIE_FEA_MD.flv" for n in range(1001, 1092)))
    found = speakers(find_crema_d(tmp_path))
    assert [len(found[split]) for split in SPLITS] == [64, 9, 18]
    assert len(set.union(*found.values())) == 91


def test_crema_ds_split_json(tmp_path: Path) -> None:
    touch(tmp_path, "VideoFlash/1001_TIE_FEA_MD.flv", "VideoFlash/1002_TIE_FEA_MD.flv")
    split = {"train": ["1002"], "validation": ["1001"], "test": []}
    (tmp_path / "split.json").write_text(json.dumps(split))
    assert speakers(find_crema_d(tmp_path)) == {
        "train": {"1002"},
        "validation": {"1001"},
        "test": set(),
    }
    touch(tmp_path, "VideoFlash/1003_TIE_FEA_MD.flv")
    with pytest.raises(DataError, match="speaker 1003 is in none of the splits"):
        find_crema_d(tmp_path)


def test_no_crema_d(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no clips found; .*VideoFlash/1001_DFA_ANG_XX\.flv"):
        find_crema_d(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_crema_d(tmp_path / "nowhere")


def test_a_sentence_in_plain_words() -> None:
    assert plain_text("We\u2019ll stop -- in 2 minutes.") == "we'll stop in minutes"
    assert plain_text(" 12 ") is None
