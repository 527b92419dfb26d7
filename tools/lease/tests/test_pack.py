"""A packed cache comes back: what is equal, what is close, and what is refused."""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest

import pack as packing
from archive import MIB, Box, read_box, write_box
from pack import LANDMARK_STEP, RECORD, in_turns, pack, unpack
from stillspeak.data.cache import CachedClip, load_manifest, open_clip, write_tensors
from stillspeak.errors import DataError

PSNR = 40.0
"""What the crops keep at the default quality, in dB; GRID's keep more than 40.9."""


@pytest.fixture
def parts(speaking_cache: Path, tmp_path: Path) -> Path:
    """The synthetic cache, one clip a part."""
    folder = tmp_path / "parts"
    sizes = [path.stat().st_size for path in pack(speaking_cache, folder).parts]
    (whole,) = sizes
    pack(speaking_cache, folder, part_bytes=whole // 2 - 2000)
    assert len(list(folder.iterdir())) > 2
    return folder


def in_order(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.pack"))


def names(cache: Path) -> list[tuple[str, str]]:
    return [(clip.speaker, clip.name) for clip in load_manifest(cache)]


def test_what_comes_back(speaking_cache: Path, tmp_path: Path) -> None:
    packed = pack(speaking_cache, tmp_path / "parts")
    assert (packed.clips, packed.speakers, packed.left_out, packed.again) == (4, 3, 0, False)
    assert packed.bytes == packed.parts[0].stat().st_size
    done = unpack(tmp_path / "parts", tmp_path / "cache")
    assert (done.clips, done.listed, done.parts, done.missing, done.damaged) == (4, 4, 1, (), ())

    before, after = load_manifest(speaking_cache), load_manifest(tmp_path / "cache")
    assert sum(clip.frames for clip in before) == packed.frames
    for old, new in zip(before, after, strict=True):
        ours, theirs = asdict(old), asdict(new)
        assert theirs.pop("key") != ours.pop("key")
        assert theirs.pop("file").relative_to(tmp_path / "cache") == ours.pop("file").relative_to(
            speaking_cache
        )
        assert ours == theirs
        with open_clip(old) as a, open_clip(new) as b:
            error = a.get_tensor("frames").astype(float) - b.get_tensor("frames")
            assert 10 * np.log10(255**2 / np.mean(error**2)) > PSNR
            moved = np.abs(a.get_tensor("landmarks") - b.get_tensor("landmarks"))
            assert moved.max() <= LANDMARK_STEP / 2 + 1e-6
            assert np.abs(a.get_tensor("audio") - b.get_tensor("audio")).max() <= 2**-15
            for name in ("blendshapes", "head_pose"):
                np.testing.assert_array_equal(a.get_tensor(name), b.get_tensor(name))
            assert {k: v for k, v in a.metadata.items() if k != "key"} == {
                k: v for k, v in b.metadata.items() if k != "key"
            }
            assert b.metadata["key"] == new.key


def rich_cache(folder: Path, **tensors: np.ndarray) -> Path:
    """A cache of one clip with these tensors and a whole header."""
    frames = len(tensors["frames"])
    header = {"key": "k", "words": [[0.0, 0.4, "bin"]], "text": "bin", "emotion": "happy"}
    write_tensors(
        folder / "s" / "x.safetensors", tensors, {k: json.dumps(v) for k, v in header.items()}
    )
    row = {"speaker": "s", "stem": "x", "name": "x", "split": "train", "text": "bin"}
    row |= {"file": "s/x.safetensors", "frames": frames, "key": "k"}
    (folder / "manifest.jsonl").write_text(json.dumps(row) + "\n")
    return folder


def test_what_does_not_fit_its_coding_goes_as_it_is(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tensors = {
        "frames": random.integers(0, 255, (3, 33, 17, 3), dtype=np.uint8),
        "audio": np.array([0.5, 3.0, np.nan], np.float32),  # outside of [-1, 1]
        "landmarks": np.full((3, 4, 2), 600.0, np.float32),  # beyond 16 bits of 1/64 pixel
        "gaze": random.normal(size=(3, 2)),
        "nothing": np.zeros((0, 5), np.float16),
    }
    cache = rich_cache(tmp_path / "cache", **tensors)
    pack(cache, tmp_path / "parts", crf=0)
    unpack(tmp_path / "parts", tmp_path / "again")
    (clip,) = load_manifest(tmp_path / "again")
    with open_clip(clip) as back:
        for name in ("audio", "landmarks", "gaze", "nothing"):
            np.testing.assert_array_equal(back.get_tensor(name), tensors[name])
            assert back.get_tensor(name).dtype == tensors[name].dtype
        assert back.get_tensor("frames").shape == (3, 33, 17, 3)
        assert back.metadata["words"] == [[0.0, 0.4, "bin"]]
        assert back.metadata["emotion"] == "happy"


def test_landmarks_wrap_around_without_loss() -> None:
    steps = np.random.default_rng(0).integers(-(2**15) + 1, 2**15 - 1, (5, 7, 2))
    values = (steps * LANDMARK_STEP).astype(np.float32)
    coded = packing._encode_steps(values)
    np.testing.assert_array_equal(packing._decode_steps(coded, values.shape, LANDMARK_STEP), values)


def test_the_same_cache_gives_the_same_bytes_and_is_packed_once(
    speaking_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = pack(speaking_cache, tmp_path / "one", workers=1)
    two = pack(speaking_cache, tmp_path / "two", workers=3)
    assert [p.read_bytes() for p in one.parts] == [p.read_bytes() for p in two.parts]
    monkeypatch.setattr(packing, "_encode_clip", None)
    again = pack(speaking_cache, tmp_path / "one")
    assert again.again
    assert again.parts == one.parts


def test_an_interrupted_pack_goes_on(
    speaking_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode, seen = packing._encode_clip, []

    def tired(cache: Path, position: int, clip: CachedClip, crf: int) -> bytes:
        if len(seen) == 2:
            raise KeyboardInterrupt
        seen.append(clip.name)
        return encode(cache, position, clip, crf)

    monkeypatch.setattr(packing, "_encode_clip", tired)
    with pytest.raises(KeyboardInterrupt):
        pack(speaking_cache, tmp_path / "parts", workers=1)
    assert not in_order(tmp_path / "parts")
    seen.clear()
    packed = pack(speaking_cache, tmp_path / "parts", workers=1)
    assert len(seen) == 2
    assert [path.name for path in (tmp_path / "parts").iterdir()] == [packed.parts[0].name]


def test_every_limit_is_kept(speaking_cache: Path, tmp_path: Path) -> None:
    whole = pack(speaking_cache, tmp_path / "parts")
    for limit in (whole.bytes - 1, whole.bytes // 2):
        packed = pack(speaking_cache, tmp_path / "parts", max_bytes=limit)
        assert packed.bytes <= limit
        assert packed.clips + packed.left_out == 4
        assert packed.left_out > 0
    for part_bytes, parts in ((whole.bytes, 1), (whole.bytes - 1, 2)):
        packed = pack(speaking_cache, tmp_path / "parts", part_bytes=part_bytes)
        assert max(path.stat().st_size for path in packed.parts) <= part_bytes
        assert (packed.clips, len(packed.parts)) == (4, parts)
    with pytest.raises(DataError, match="allow larger parts"):
        pack(speaking_cache, tmp_path / "small", part_bytes=5000)
    with pytest.raises(DataError, match="not even one clip"):
        pack(speaking_cache, tmp_path / "none", max_bytes=5000)


def test_choices(speaking_cache: Path, tmp_path: Path) -> None:
    parts, cache = tmp_path / "parts", tmp_path / "cache"
    pack(speaking_cache, parts, clips_per_speaker=1)
    unpack(parts, cache)
    assert names(cache) == [("a", "one"), ("b", "one"), ("v", "one")]
    pack(speaking_cache, parts, splits=["validation"])
    unpack(parts, tmp_path / "validation")
    assert names(tmp_path / "validation") == [("v", "one")]
    pack(speaking_cache, parts, speakers=["a"])
    unpack(parts, tmp_path / "a")
    assert names(tmp_path / "a") == [("a", "one"), ("a", "two")]
    with pytest.raises(DataError, match="no speaker z"):
        pack(speaking_cache, parts, speakers=["z"])
    with pytest.raises(DataError, match="no split tests"):
        pack(speaking_cache, parts, splits=["tests"])
    with pytest.raises(DataError, match="no clip of this choice"):
        pack(speaking_cache, parts, splits=["test"])


def test_speakers_take_turns_and_a_deep_one_is_thinned_evenly() -> None:
    def clip(speaker: str, name: str) -> CachedClip:
        return CachedClip(Path(name), speaker, name, name, "train", 1, "k", None)

    listed = [clip("deep", f"{i:02d}") for i in range(64)] + [clip("a", "x"), clip("b", "y")]
    order = [c for _, c in in_turns(list(enumerate(listed)))]
    assert [c.speaker for c in order[:4]] == ["deep", "a", "b", "deep"]
    first = sorted(int(c.name) for c in order if c.speaker == "deep")
    assert first == list(range(64))
    eight = sorted([int(c.name) for c in order if c.speaker == "deep"][:8])
    assert max(np.diff(eight)) <= 16
    assert len(in_turns(list(enumerate(listed)), 3)) == 5


def test_parts_arrive_over_several_calls(parts: Path, speaking_cache: Path, tmp_path: Path) -> None:
    cache, inbox = tmp_path / "cache", tmp_path / "inbox"
    all_parts = in_order(parts)
    for done, path in enumerate(reversed(all_parts), 1):
        shutil.rmtree(inbox, ignore_errors=True)
        inbox.mkdir()
        shutil.copy(path, inbox)
        result = unpack(inbox, cache)
        assert result.missing == tuple(range(1, len(all_parts) - done + 1))
        assert result.listed == len(load_manifest(cache))
    assert names(cache) == names(speaking_cache)
    again = unpack(parts, cache)
    assert (again.clips, again.skipped, again.missing) == (0, 4, ())
    assert (cache / RECORD).is_file()


def test_a_damaged_part_gets_one_line_and_the_others_are_used(parts: Path, tmp_path: Path) -> None:
    bad = in_order(parts)[1]
    data = bytearray(bad.read_bytes())
    data[-100] ^= 1
    bad.write_bytes(data)
    result = unpack(parts, tmp_path / "cache")
    (line,) = result.damaged
    assert bad.name in line
    assert "send this file again" in line
    assert "\n" not in line
    assert result.missing == (2,)
    assert result.listed == len(load_manifest(tmp_path / "cache")) > 0
    for junk in (b"", b"hello", data[:40], data[:-1]):
        bad.write_bytes(junk)
        assert bad.name in unpack(parts, tmp_path / "cache").damaged[0]


def test_foreign_parts_are_refused(parts: Path, speaking_cache: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    unpack(parts, cache)
    before = (cache / "manifest.jsonl").read_bytes()
    other = pack(speaking_cache, tmp_path / "other", clips_per_speaker=1)
    with pytest.raises(DataError, match="another pack"):
        unpack(tmp_path / "other", cache)
    shutil.copy(other.parts[0], parts)
    with pytest.raises(DataError, match="another pack"):
        unpack(parts, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    assert (cache / "manifest.jsonl").read_bytes() == before


def test_prepared_clips_are_never_overwritten(
    parts: Path, speaking_cache: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="holds prepared clips"):
        unpack(parts, speaking_cache)
    with pytest.raises(DataError, match="no parts"):
        unpack(tmp_path, tmp_path / "cache")
    with pytest.raises(DataError, match="no such folder"):
        unpack(tmp_path / "nowhere", tmp_path / "cache")


def rewritten(box: Box, file: str, path: Path) -> None:
    """The same part with its first clip under another name, and a right checksum."""
    table = json.loads(json.dumps(box.table))
    table["clips"][0]["file"] = file
    write_box(path, table, [box.read(0, box.size - box.start)])


@pytest.mark.parametrize(
    "file",
    [
        "../outside.safetensors",
        "/outside.safetensors",
        "a/../../outside.safetensors",
        "a//one.safetensors",
        "a\\..\\outside.safetensors",
        ".hidden/one.safetensors",
        "manifest.jsonl",
        "link/one.safetensors",
        "",
        None,
    ],
)
def test_a_part_cannot_write_outside_the_cache(
    speaking_cache: Path, tmp_path: Path, file: str
) -> None:
    (path,) = pack(speaking_cache, tmp_path / "parts", speakers=["v"]).parts
    rewritten(read_box(path), file, path)
    cache = tmp_path / "cache"
    cache.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (cache / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="refused"):
        unpack(tmp_path / "parts", cache)
    assert [p.name for p in cache.iterdir()] == ["link"]
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_part_whose_insides_are_wrong_gets_one_line(speaking_cache: Path, tmp_path: Path) -> None:
    (path,) = pack(speaking_cache, tmp_path / "parts", speakers=["v"]).parts
    box = read_box(path)
    whole = box.read(0, box.size - box.start)
    write_box(path, box.table, [whole[:-7]])
    with pytest.raises(DataError, match="disagree"):
        unpack(tmp_path / "parts", tmp_path / "cache")
    write_box(path, box.table, [whole])
    rewritten(box, "v/other.safetensors", path)
    with pytest.raises(DataError, match="pack again"):
        unpack(tmp_path / "parts", tmp_path / "cache")
    write_box(path, {"content": "cake"}, [])
    with pytest.raises(DataError, match="not packed by this version"):
        unpack(tmp_path / "parts", tmp_path / "cache")


def test_a_tensor_that_claims_too_much_is_refused() -> None:
    described = {"name": "x", "shape": [2**40, 2**10], "dtype": "<f4", "coding": "lzma"}
    with pytest.raises(ValueError, match="too large"):
        packing._decode_tensor(described, b"")
    bomb = packing._squeeze(np.zeros(MIB, np.uint8))
    with pytest.raises(ValueError, match="longer or shorter"):
        packing._unsqueeze(bomb, (10,), np.dtype(np.uint8))
    with pytest.raises(ValueError, match="type"):
        packing._decode_tensor(described | {"shape": [1], "dtype": "|O"}, b"")


def test_mouths_are_packed_as_video(tmp_path: Path, write_clip: Callable[..., CachedClip]) -> None:
    coarse = np.random.default_rng(2).integers(0, 256, (24, 10, 10, 3), dtype=np.uint8)
    mouths = np.stack([cv2.resize(one, (144, 144)) for one in coarse])
    clips = [write_clip(tmp_path, mouths=mouths), write_clip(tmp_path, name="two")]
    packed = pack(tmp_path, tmp_path / "parts")
    unpack(tmp_path / "parts", tmp_path / "there")
    assert packed.bytes < sum(clip.file.stat().st_size for clip in clips) / 4
    one, two = load_manifest(tmp_path / "there")
    with open_clip(one) as new:
        assert new.get_tensor("mouth").shape == (24, 144, 144, 3)
        assert np.abs(mouths.astype(float) - new.get_tensor("mouth")).mean() < 3
    with open_clip(two) as new:
        assert not new.has("mouth")
