import json
from pathlib import Path

import pytest

from stillspeak.data.corpora import (
    LAYOUTS,
    SPLITS,
    Clip,
    Word,
    check_clips,
    find_grid,
    grid_root,
    grid_text,
    read_alignment,
)
from stillspeak.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    touch(
        tmp_path,
        "s10/lwik9s.mpg",
        "s2/bbaf2n.mp4",
        "s2/notes.txt",
        "s2/prazsa.mp4",
        "s9/SRWQ3P.MPG",
        "s7/notes.txt",  # a speaker without clips is none
        "alignments/s2/bbaf2n.align",
        "README.md",
    )
    return tmp_path


def test_clips_of_a_tree(tree: Path) -> None:
    clips = find_grid(tree)
    assert [(c.speaker, c.stem, c.split) for c in clips] == [
        ("s2", "bbaf2n", "test"),
        ("s2", "prazsa", "test"),
        ("s9", "SRWQ3P", "validation"),
        ("s10", "lwik9s", "train"),
    ]
    first = clips[0]
    assert first.path == tree / "s2" / "bbaf2n.mp4"
    assert first.name == "bbaf2n"
    assert first.text == "bin blue at f two now"
    assert first.alignment == tree / "alignments" / "s2" / "bbaf2n.align"
    assert clips[1].alignment is None
    assert clips[2].text == "set red with q three please"


def test_the_layouts_are_named() -> None:
    assert LAYOUTS["grid"] is find_grid


def test_split_json_decides(tree: Path) -> None:
    split = {"train": ["s2"], "validation": ["s9"], "test": ["s10"], "source": "a test"}
    (tree / "split.json").write_text(json.dumps(split))
    assert [c.split for c in find_grid(tree)] == ["train", "train", "validation", "test"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ({"train": ["s2", "s9"], "validation": [], "test": []}, "s10 is in none of the splits"),
        ({"train": ["s2", "s9"], "validation": ["s2"], "test": ["s10"]}, "s2 is in both train and"),
        ({"train": ["s2"]}, "expected lists of speakers"),
        ([], "expected lists of speakers"),
    ],
)
def test_a_wrong_split_json(tree: Path, split: object, message: str) -> None:
    (tree / "split.json").write_text(json.dumps(split))
    with pytest.raises(DataError, match=message) as caught:
        find_grid(tree)
    assert "\n" not in str(caught.value)


def test_a_split_json_that_is_no_json(tree: Path) -> None:
    (tree / "split.json").write_text("train: s2")
    with pytest.raises(DataError, match=r"split\.json: expected lists"):
        find_grid(tree)


def test_the_literatures_split_shares_no_speaker(tmp_path: Path) -> None:
    touch(tmp_path, *(f"s{n}/bbaf2n.mp4" for n in range(1, 35) if n != 21))
    clips = find_grid(tmp_path)
    speakers = {split: {c.speaker for c in clips if c.split == split} for split in SPLITS}
    assert [len(speakers[split]) for split in SPLITS] == [16, 7, 10]
    assert len(set.union(*speakers.values())) == 33


def test_two_encodings_of_a_sentence_get_two_names(tmp_path: Path) -> None:
    touch(tmp_path, "s1/bbaf2n.mp4", "s1/bbaf2n.mpg", "s1/bbaf3s.mp4")
    clips = find_grid(tmp_path)
    assert [c.name for c in clips] == ["bbaf2n-mp4", "bbaf2n-mpg", "bbaf3s"]
    assert [c.stem for c in clips] == ["bbaf2n", "bbaf2n", "bbaf3s"]


def test_no_clips(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no clips found"):
        find_grid(tmp_path)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        find_grid(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("stem", "text"),
    [
        ("bbaf2n", "bin blue at f two now"),
        ("lgbz7a", "lay green by z seven again"),
        ("prizzp", "place red in z zero please"),
        ("swwv1s", "set white with v one soon"),
    ],
)
def test_the_stem_spells_the_sentence(stem: str, text: str) -> None:
    assert grid_text(stem) == text


@pytest.mark.parametrize("stem", ["", "bbaf2", "bbaf2nn", "xbaf2n", "bbaw2n", "bbaf0n", "clip01"])
def test_a_stem_that_spells_nothing(stem: str) -> None:
    assert grid_text(stem) is None


def test_an_alignment(tmp_path: Path) -> None:
    path = tmp_path / "a.align"
    path.write_text("0 23750 sil\n23750 29500 bin\n\n29500 74500 blue\n")
    assert read_alignment(path) == [
        Word(0.0, 0.95, "sil"),
        Word(0.95, 1.18, "bin"),
        Word(1.18, 2.98, "blue"),
    ]


@pytest.mark.parametrize("line", ["0 23750", "a b sil", "0 1 two words"])
def test_a_broken_alignment(tmp_path: Path, line: str) -> None:
    path = tmp_path / "a.align"
    path.write_text(f"0 5 sil\n{line}\n")
    with pytest.raises(DataError, match=r"a\.align, line 2: expected 'start end word'"):
        read_alignment(path)


def test_an_alignment_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_alignment(tmp_path / "a.align")


def test_a_speaker_in_two_splits_is_refused() -> None:
    clips = [Clip("s1", "a", Path("a"), "train"), Clip("s1", "b", Path("b"), "test")]
    with pytest.raises(DataError, match="s1 is in both train and test"):
        check_clips(clips)


def test_two_clips_of_one_name_are_refused() -> None:
    clips = [Clip("s1", "a", Path("x/a.mp4"), "train"), Clip("s1", "a", Path("y/a.mp4"), "train")]
    with pytest.raises(DataError, match="same name"):
        check_clips(clips)


def test_where_grid_lies(tmp_path: Path, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STILLSPEAK_GRID", str(tree))
    assert grid_root() == tree
    monkeypatch.setenv("STILLSPEAK_GRID", str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"STILLSPEAK_GRID=.*nowhere: no such folder"):
        grid_root()
    monkeypatch.delenv("STILLSPEAK_GRID")
    (tmp_path / "shared" / "grid").mkdir(parents=True)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    assert grid_root() == tmp_path / "shared" / "grid"


@pytest.mark.grid
def test_the_real_corpus() -> None:
    root = grid_root()
    if root is None:
        pytest.skip("no GRID clips: set STILLSPEAK_GRID")
    clips = find_grid(root)
    assert all(clip.text for clip in clips)
    assert all(clip.path.is_file() for clip in clips)
    for clip in clips[::50]:
        if clip.alignment is not None:
            words = [w.word for w in read_alignment(clip.alignment) if w.word not in ("sil", "sp")]
            assert words == str(clip.text).split()
