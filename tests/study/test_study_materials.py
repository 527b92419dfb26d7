"""Making a study: matching, checking, copying, and what is said when that cannot be."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from stillspeak.errors import InputError, OutputExistsError, StudyError, VideoError
from stillspeak.media.video import iter_frames, probe_video
from stillspeak.study.answers import normalise
from stillspeak.study.kinds import Study, load_config
from stillspeak.study.materials import load_materials
from stillspeak.study.plan import check_plan
from stillspeak.study.records import VideoOptions
from stillspeak.study.transcode import check_playable
from stillspeak.study.videos import init_study
from support.study import GRID_CHOICES, GRID_NAMES, write_clip


@pytest.fixture
def folders(tmp_path: Path, videos: Path) -> Callable[..., list[Path]]:
    """Makes folders with some of the little videos, linked."""

    def make(*names: str, count: int = 3) -> list[Path]:
        made = []
        for name in names:
            folder = tmp_path / name
            folder.mkdir(parents=True)
            side = "ours" if not made else "theirs"
            for clip in GRID_NAMES[:count]:
                os.link(videos / side / f"{clip}.mp4", folder / f"{clip}.mp4")
            made.append(folder)
        return made

    return make


def test_pairs_are_matched_copied_and_named_so_that_nothing_is_told(
    tmp_path: Path, folders: Callable[..., list[Path]]
) -> None:
    a, b = folders("alive", "baseline")
    study, notes = init_study(tmp_path / "study", "preference", [a, b])
    assert study.materials.systems == ("alive", "baseline")
    assert len(study.materials.videos) == 9
    study = Study.load(tmp_path / "study")
    check_plan(study)
    materials = study.materials
    table = materials.of("main")
    assert list(table) == sorted(GRID_NAMES[:3])
    assert all(set(systems) == {"alive", "baseline"} for systems in table.values())
    names = sorted(p.name for p in (tmp_path / "study" / "videos").iterdir())
    assert names == sorted(Path(v.file).name for v in materials.videos)
    for video in materials.videos:
        data = (tmp_path / "study" / video.file).read_bytes()
        assert not any(word in data for word in (b"synthetic", b"theirs", b"alive", b"bbaf2n"))
    for video in table["bbaf2n"].values():
        copy, source = tmp_path / "study" / video.file, Path(video.source)
        for one, other in zip(iter_frames(copy), iter_frames(source), strict=True):
            np.testing.assert_array_equal(one, other)
        assert (video.seconds, video.fps, video.sound) == (pytest.approx(0.4), 25, True)
        assert probe_video(copy).has_audio
    assert notes == ()


def test_names_do_not_repeat_between_studies(
    tmp_path: Path, folders: Callable[..., list[Path]]
) -> None:
    a, b = folders("a", "b", count=2)
    ids = []
    for name in ("one", "two"):
        init_study(tmp_path / name, "preference", [a, b])
        ids += [v.id for v in load_materials(tmp_path / name).videos]
    assert len(set(ids)) == len(ids)


def test_catch_videos_are_a_coarse_still(
    tmp_path: Path, folders: Callable[..., list[Path]]
) -> None:
    (a,) = folders("a", count=2)
    init_study(tmp_path / "study", "mos", [a])
    materials = load_materials(tmp_path / "study")
    caught = [v for v in materials.videos if v.role == "catch"]
    assert {v.item for v in caught} == set(GRID_NAMES[:2])
    frames = list(iter_frames(tmp_path / "study" / caught[0].file))
    assert len(frames) == 10
    assert np.abs(frames[0].astype(int) - frames[-1]).max() < 12  # it stands still
    source = list(iter_frames(a / f"{caught[0].item}.mp4"))
    assert np.abs(source[0].astype(int) - source[-1]).max() > 40


def test_links_and_given_catch_videos(tmp_path: Path, folders: Callable[..., list[Path]]) -> None:
    a, b, bad = folders("a", "b", "bad", count=2)
    init_study(tmp_path / "study", "preference", [a, b], VideoOptions(link=True, catch=bad))
    materials = load_materials(tmp_path / "study")
    assert sorted(v.role for v in materials.videos) == ["catch"] * 2 + ["main"] * 4
    for video in materials.videos:
        assert (tmp_path / "study" / video.file).samefile(video.source)


def test_what_visitors_could_tell_systems_apart_by_is_noted(tmp_path: Path) -> None:
    write_clip(tmp_path / "a" / "x.mp4")
    write_clip(tmp_path / "b" / "x.webm", size=(60, 80), sound=False)
    _, notes = init_study(tmp_path / "study", "preference", [tmp_path / "a", tmp_path / "b"])
    told = " ".join(notes)
    assert "by size (a: 64 x 48; b: 80 x 60)" in told
    assert "by kind of file (a: mp4; b: webm)" in told
    assert "by sound (a: some; b: none)" in told


def test_training_items_are_kept_apart(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "base.mp4", frames=3, size=(16, 16), sound=False)
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        for number in range(31):
            os.link(clip, tmp_path / side / f"{number:02}.mp4")
    init_study(
        tmp_path / "study", "preference", [tmp_path / "a", tmp_path / "b"], VideoOptions(link=True)
    )
    study = Study.load(tmp_path / "study")
    config, materials = study.config, study.materials
    assert (config.trials.count, config.trials.training) == (30, 1)
    assert (len(materials.of("main")), len(materials.of("training"))) == (30, 1)
    check_plan(study)


def test_turing_needs_no_partners(tmp_path: Path, folders: Callable[..., list[Path]]) -> None:
    real, fake = folders("x", "y")
    (fake / "bbaf2n.mp4").rename(fake / "other.mp4")
    study, _ = init_study(tmp_path / "study", "turing", [real, fake])
    assert study.materials.systems == ("real", "fake")
    assert (len(study.materials.of("main")), study.config.trials.count) == (4, 4)


def test_lip_reading_is_silent_and_knows_grid(
    tmp_path: Path, folders: Callable[..., list[Path]]
) -> None:
    (a,) = folders("a")
    init_study(tmp_path / "study", "intelligibility", [a])
    materials = load_materials(tmp_path / "study")
    assert materials.choices == GRID_CHOICES
    assert materials.of("main")["bbaf2n"]["a"].words == ("bin", "blue", "at", "f", "two", "now")
    assert not any(v.sound for v in materials.videos)
    for video in materials.videos:
        assert not probe_video(tmp_path / "study" / video.file).has_audio
    config = load_config(tmp_path / "study")
    assert config.trials.entry == "pick"
    assert config.questions[0].labels[:2] == ("Command", "Colour")


def test_lip_reading_with_words_of_ones_own(
    tmp_path: Path, folders: Callable[..., list[Path]]
) -> None:
    (a,) = folders("a")
    table = tmp_path / "words.csv"
    table.write_text("file,words\nbbaf2n.mp4,Good day!\nlgwz5s,Good 2\nprbc9n.mp4,bad day\n")
    init_study(tmp_path / "study", "intelligibility", [a], VideoOptions(words=table))
    materials = load_materials(tmp_path / "study")
    assert materials.choices == (("bad", "good"), ("day", "two"))
    table.write_text("file,words\nbbaf2n.mp4,Good day!\nlgwz5s,Good\nprbc9n.mp4,bad day\n")
    _, notes = init_study(tmp_path / "typed", "intelligibility", [a], VideoOptions(words=table))
    assert load_config(tmp_path / "typed").trials.entry == "type"
    assert "visitors type them" in notes[-1]


def test_words_are_compared_without_case_and_punctuation() -> None:
    assert normalise("  Bin BLUE, at F 2 now. ") == ["bin", "blue", "at", "f", "two", "now"]
    assert normalise("Don’t — stop-light") == ["don't", "stop-light"]
    assert normalise("!?") == []


def broken(folder: Path, how: str) -> None:
    clip = folder / "bbaf2n.mp4"
    data = clip.read_bytes()
    clip.unlink()
    if how == "empty":
        clip.write_bytes(b"")
    elif how == "text":
        clip.write_text("This is no video.\n" * 10)
    elif how == "noise":
        clip.write_bytes(bytes(range(256)) * 30)
    elif how == "cut":
        clip.write_bytes(data[: len(data) * 6 // 10])
    elif how in ("yuv444p", "mpeg4"):
        with av.open(str(clip), "w") as output:
            stream = output.add_stream("libx264" if how == "yuv444p" else "mpeg4", 25)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = how if how == "yuv444p" else "yuv420p"
            for k in range(5):
                picture = np.full((48, 64, 3), 40 * k, np.uint8)
                output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            output.mux(stream.encode(None))
    elif how == "webm in mp4":
        write_clip(folder / "t.webm")
        (folder / "t.webm").rename(clip)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("empty", "empty"),
        ("text", "text"),
        ("noise", "bbaf2n.mp4"),
        ("cut", "bbaf2n.mp4"),
        ("yuv444p", "browsers do not play yuv444p pictures"),
        ("mpeg4", "browsers do not play mpeg4 in .mp4"),
        ("webm in mp4", "is not what its suffix says"),
    ],
)
def test_videos_that_no_browser_plays(
    tmp_path: Path, folders: Callable[..., list[Path]], how: str, message: str
) -> None:
    a, b = folders("a", "b")
    broken(b, how)
    with pytest.raises(InputError, match=message) as caught:
        init_study(tmp_path / "study", "preference", [a, b])
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]  # nothing half-made


@pytest.mark.parametrize("how", ["yuv444p", "mpeg4", "webm in mp4"])
def test_convert_makes_them_playable(
    tmp_path: Path, folders: Callable[..., list[Path]], how: str
) -> None:
    a, b = folders("a", "b")
    broken(b, how)
    init_study(tmp_path / "study", "preference", [a, b], VideoOptions(convert=True))
    video = load_materials(tmp_path / "study").of("main")["bbaf2n"]["b"]
    assert check_playable(tmp_path / "study" / video.file) == "video/mp4"


def test_other_containers_are_named_and_converted(
    tmp_path: Path, folders: Callable[..., list[Path]]
) -> None:
    a, b = folders("a", "b")
    for clip in b.iterdir():
        with av.open(str(clip.with_suffix(".mpg")), "w", format="mpeg") as output:
            stream = output.add_stream("mpeg1video", 25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            for frame in iter_frames(clip):
                output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            output.mux(stream.encode(None))
        clip.unlink()
    with pytest.raises(InputError, match=r"browsers do not play \.mpg files \(3 such files\)"):
        init_study(tmp_path / "study", "preference", [a, b])
    study, _ = init_study(tmp_path / "study", "preference", [a, b], VideoOptions(convert=True))
    assert len(study.materials.of("main")) == 3


def test_partners(tmp_path: Path, folders: Callable[..., list[Path]]) -> None:
    a, b = folders("a", "b")
    (b / "lgwz5s.mp4").unlink()
    with pytest.raises(InputError, match=r"lgwz5s\.mp4: b has no video of that name"):
        init_study(tmp_path / "study", "preference", [a, b])
    study, _ = init_study(
        tmp_path / "study", "preference", [a, b], VideoOptions(skip_unpaired=True)
    )
    assert len(study.materials.of("main")) == 2
    for clip in b.iterdir():
        clip.rename(b / f"x{clip.name}")
    with pytest.raises(InputError, match="no name of a video is in all folders"):
        init_study(tmp_path / "other", "preference", [a, b], VideoOptions(skip_unpaired=True))


def test_partners_of_other_length(tmp_path: Path) -> None:
    write_clip(tmp_path / "a" / "x.mp4", frames=10)
    write_clip(tmp_path / "b" / "x.mp4", frames=30)
    both = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(InputError, match=r"x\.mp4: lasts 1\.20 s, .*x\.mp4 0\.40 s"):
        init_study(tmp_path / "study", "preference", both)
    init_study(tmp_path / "study", "preference", both, VideoOptions(length_tolerance=1))


def test_folders_that_cannot_be(tmp_path: Path, folders: Callable[..., list[Path]]) -> None:
    a, b = folders("p/videos", "q/videos", count=2)
    target = tmp_path / "study"
    for kind, sources, message in (
        ("preference", [a], "1 folders given"),
        ("turing", [a, b, tmp_path], "the real videos, then the fake ones"),
        ("preference", [a, tmp_path / "nowhere"], "no such folder"),
        ("preference", [a, a], "given twice"),
    ):
        with pytest.raises(InputError, match=message):
            init_study(target, kind, sources)
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no mp4 or webm"):
        init_study(target, "mos", [tmp_path / "none"])
    study, _ = init_study(target, "preference", [a, b])
    assert study.materials.systems == ("p/videos", "q/videos")
    with pytest.raises(OutputExistsError, match="is not empty"):
        init_study(target, "preference", [a, b])
    with pytest.raises(InputError, match="--names: 1 given for 2"):
        init_study(tmp_path / "s2", "preference", [a, b], names=["x"])
    with pytest.raises(InputError, match="same name"):
        init_study(tmp_path / "s2", "preference", [a, b], names=["x", "x"])
    (a / "bbaf2n.webm").write_bytes(b"x")
    with pytest.raises(InputError, match="has the same name"):
        init_study(tmp_path / "s2", "preference", [a, b])


def test_words_that_cannot_be(tmp_path: Path, folders: Callable[..., list[Path]]) -> None:
    (a,) = folders("a")
    shutil.copy(a / "bbaf2n.mp4", a / "hello.mp4")
    with pytest.raises(InputError, match="spells no GRID sentence"):
        init_study(tmp_path / "s", "intelligibility", [a])
    table = tmp_path / "w.csv"
    for text, message in (
        ("name,text\n", "needs a first line with the columns file and words"),
        ("file,words\nhello.mp4,\n", "line 2: no file or no words"),
        ("file,words\nhello.mp4,hi\n", "has no words for bbaf2n.mp4"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=message):
            init_study(tmp_path / "s", "intelligibility", [a], VideoOptions(words=table))
    table.write_bytes(b"\xff\xfe\x00file")
    with pytest.raises(InputError, match="no CSV file in UTF-8"):
        init_study(tmp_path / "s", "intelligibility", [a], VideoOptions(words=table))
    with pytest.raises(InputError, match="--words"):
        init_study(tmp_path / "s", "mos", [a], VideoOptions(words=table))


def test_a_damaged_study_is_refused(tmp_path: Path, folders: Callable[..., list[Path]]) -> None:
    (a,) = folders("a", count=2)
    study = tmp_path / "study"
    with pytest.raises(StudyError, match=r"holds no materials\.json"):
        load_materials(study)
    init_study(study, "mos", [a])
    truth = study / "materials.json"
    table = json.loads(truth.read_text())
    table["videos"][0]["file"] = "../../etc/passwd"
    truth.write_text(json.dumps(table))
    with pytest.raises(StudyError, match="names a file outside the study"):
        load_materials(study)
    truth.write_text("{}")
    with pytest.raises(StudyError, match="is damaged"):
        load_materials(study)


def test_a_missing_video_is_named(tmp_path: Path, folders: Callable[..., list[Path]]) -> None:
    (a,) = folders("a", count=1)
    init_study(tmp_path / "study", "mos", [a])
    next((tmp_path / "study" / "videos").iterdir()).unlink()
    with pytest.raises(StudyError, match="is missing"):
        load_materials(tmp_path / "study")


def test_playable_says_what_it_is(tmp_path: Path) -> None:
    assert check_playable(write_clip(tmp_path / "x.webm")) == "video/webm"
    other = write_clip(tmp_path / "y.mp4").rename(tmp_path / "y.mov")
    with pytest.raises(VideoError, match=r"browsers do not play \.mov"):
        check_playable(other)
