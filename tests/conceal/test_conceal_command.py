"""``stillspeak conceal`` from file to file: gaps however they are named, and hidden faces."""

import json
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest

from stillspeak.cli.app import main
from stillspeak.conceal import occlusion
from stillspeak.conceal import video as gaps
from stillspeak.dub import mouth_model as core
from stillspeak.face.tracker import AHEAD
from stillspeak.media.video import iter_frames
from stillspeak.media.video_editor import TimedFrame, timed_frames
from stillspeak.weights import save_model
from support.animate import listing, portrait, shared_detector, speech, write_picture, write_wav
from support.conceal import FPS, planes, sound_packets, talker, talking, times, write_timed

COUNT = 30
SECONDS = COUNT / FPS
GAP = range(12, 18)
GOOD = [k for k in range(COUNT) if k not in GAP]
RECTANGLE = (100, 128, 58, 46)  # x, y, width, height: mouth and chin of the portrait


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("conceal")
    save_model(talker(), folder / "small.safetensors", {"made": "for tests"})
    frames, audio = talking(COUNT), speech(SECONDS)
    blank = frames.copy()
    blank[list(GAP)] = 0
    covered = frames.copy()
    covered[6:][:, under(RECTANGLE)] = (70, 60, 50)
    return SimpleNamespace(
        model=folder / "small.safetensors",
        whole=write_timed(folder / "whole.mp4", frames, range(COUNT), audio, crf=0),
        holes=write_timed(folder / "holes.mp4", frames[GOOD], GOOD, audio, crf=0),
        black=write_timed(folder / "black.mp4", blank, range(COUNT), audio, crf=0),
        covered=write_timed(folder / "covered.mp4", covered, range(COUNT), audio, crf=0),
        mute=write_timed(folder / "mute.mp4", frames[:8], range(8), None),
    )


def under(rectangle: tuple[int, int, int, int]) -> np.ndarray:
    x, y, width, height = rectangle
    hidden = np.zeros((256, 256), bool)
    hidden[y : y + height, x : x + width] = True
    return hidden


class Command:
    """The command in this process, with the session's detector."""

    def __init__(self, model: Path, patch: pytest.MonkeyPatch, capsys: Any) -> None:
        patch.setattr(core, "MediaPipeDetector", shared_detector)
        self._model, self._patch, self._capsys = model, patch, capsys

    def __call__(self, *arguments: Any) -> tuple[int, str, str]:
        """Exit code, standard output and error."""
        words = ["stillspeak", "conceal", *map(str, arguments), "--model", str(self._model)]
        self._patch.setattr(sys, "argv", words)
        self._capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        said = self._capsys.readouterr()
        return code, said.out, said.err

    def record(self, *arguments: Any) -> dict[str, Any]:
        code, out, err = self(*arguments, "--json", "-q")
        assert (code, err) == (0, "")
        return dict(json.loads(out))


@pytest.fixture
def conceal(files, monkeypatch, capsys) -> Command:
    return Command(files.model, monkeypatch, capsys)


def darkest(path: Path) -> float:
    return float(min(frame.mean() for frame in iter_frames(path)))


# --- what is lost -------------------------------------------------------------------------------


def test_holes_in_the_time_stamps_are_filled(files, conceal, tmp_path):
    output = tmp_path / "out.mp4"
    code, out, err = conceal(files.holes, output, "--crf", 0)
    assert code == 0
    assert "6 of 30 frames generated in 1 gap, the longest of 0.24 s" in out
    assert "Traceback" not in err
    assert times(output) == times(files.whole) == [round(k / FPS, 3) for k in range(COUNT)]
    assert sound_packets(output) == sound_packets(files.holes)
    made, good, truth = planes(output), planes(files.holes), planes(files.whole)
    for place, picture in zip(GOOD, good, strict=True):
        assert np.array_equal(made[place], picture)
    for place in GAP:
        assert not np.array_equal(made[place], truth[place])
        assert np.abs(made[place].astype(int) - truth[place]).mean() < 4
    with av.open(str(output)) as container:
        assert "Partly synthetic" in container.metadata["comment"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("12-17", "marked"),
        ("0.48-0.72", "marked"),
        ("a.csv", "marked"),
        ("a.json", "marked"),
        (None, "seen"),
    ],
)
def test_lost_frames_may_be_named_or_found(files, conceal, tmp_path, lost, reason):
    (tmp_path / "a.csv").write_text("start,end\n0.48,0.72\n")
    (tmp_path / "a.json").write_text('{"frames": [[12, 17]]}')
    named = tmp_path / lost if lost and lost.startswith("a.") else lost
    how = ["--detect"] if named is None else ["--lost", named]
    record = conceal.record(files.black, tmp_path / "out.mkv", *how)
    assert (record["generated"], record["gaps"], record["frames"]) == (6, 1, COUNT)
    assert {key: record[key] for key in ("dropped", "marked", "seen")} == {
        "dropped": 0,
        "marked": 0,
        "seen": 0,
        reason: 6,
    }
    assert darkest(files.black) < 2
    assert darkest(tmp_path / "out.mkv") > 0.8 * portrait().mean()


def test_a_picture_that_begins_late_and_ends_early(files, conceal, tmp_path):
    frames = talking(COUNT)
    late = write_timed(tmp_path / "late.mp4", frames[:10], range(10), speech(2.4), first=0.8)
    record = conceal.record(late, tmp_path / "out.mp4")
    # The sound ends with a whole packet, up to 64 ms late.
    assert record["frames"] in (60, 61, 62)
    assert (record["dropped"], record["gaps"]) == (record["frames"] - 10, 2)
    assert times(tmp_path / "out.mp4") == [round(k / FPS, 3) for k in range(record["frames"])]
    record = conceal.record(late, tmp_path / "bare.mp4", "--no-extend")
    assert (record["frames"], record["generated"]) == (10, 0)


def test_where_too_few_frames_are_left_their_rate_may_be_told(files, conceal, tmp_path):
    places = range(0, COUNT, 2)
    thin = write_timed(tmp_path / "thin.mp4", talking(COUNT)[::2], places, speech(SECONDS), crf=18)
    assert conceal.record(thin, tmp_path / "a.mp4")["generated"] == 0
    record = conceal.record(thin, tmp_path / "b.mp4", "--fps", 25)
    assert (record["generated"], record["gaps"], record["fps"]) == (14, 14, 25.0)


def test_online_and_its_eased_return(files, conceal, tmp_path):
    shown = []
    for name, more in (("a", []), ("b", ["--ease", 3])):
        output = tmp_path / f"{name}.mp4"
        record = conceal.record(files.holes, output, "--online", "--crf", 0, *more)
        assert (record["generated"], record["eased"]) == (6, 3 if more else 0)
        shown.append(planes(output))
    good = planes(files.whole)
    same = [[np.array_equal(a, b) for a, b in zip(good, one, strict=True)] for one in shown]
    assert [k for k in range(COUNT) if not same[0][k]] == list(GAP)
    assert [k for k in range(COUNT) if not same[1][k]] == [*GAP, 18, 19, 20]


def test_the_same_seed_gives_the_same_file(files, conceal, tmp_path):
    for name in "ab":
        conceal.record(files.holes, tmp_path / f"{name}.mp4", "--seed", 3, "--no-mark")
    first, again = ((tmp_path / f"{name}.mp4").read_bytes() for name in "ab")
    assert first == again


def test_another_container_and_codec(files, conceal, tmp_path):
    opus = tmp_path / "opus.mkv"
    with av.open(str(files.holes)) as source, av.open(str(opus), "w") as target:
        picture = target.add_stream_from_template(source.streams.video[0])
        track = target.add_stream("libopus", rate=48_000, layout="mono")
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = picture
                target.mux(packet)
        source.seek(0)
        resampler = av.AudioResampler("flt", "mono", 48_000, frame_size=960)
        for frame in [*source.decode(audio=0), None]:
            for part in resampler.resample(frame):
                target.mux(track.encode(part))
        target.mux(track.encode(None))
    record = conceal.record(opus, tmp_path / "out.webm")
    assert record["generated"] == 6
    with av.open(str(tmp_path / "out.webm")) as container:
        assert container.streams.video[0].codec_context.name in ("vp9", "libvpx-vp9")
        assert container.streams.audio[0].codec_context.name in ("opus", "libopus")
    assert sound_packets(tmp_path / "out.webm") == sound_packets(opus)


# --- what is hidden -----------------------------------------------------------------------------


def white_under(rectangle: tuple[int, int, int, int]) -> np.ndarray:
    return np.repeat(np.where(under(rectangle), 255, 0).astype(np.uint8)[..., None], 3, 2)


@pytest.mark.parametrize("kind", ["rectangle", "picture", "video"])
def test_a_hidden_mouth_is_generated_and_the_rest_stays(files, conceal, tmp_path, kind):
    if kind == "rectangle":
        mask: Any = ",".join(map(str, RECTANGLE))
        more = ["--reference", 2]  # the rectangle hides the mouth in every frame
    elif kind == "picture":
        mask = write_picture(tmp_path / "mask.png", white_under(RECTANGLE))
        more = ["--reference", write_picture(tmp_path / "bare.png", portrait())]
    else:
        masks = np.zeros((COUNT, 256, 256, 3), np.uint8)
        masks[6:] = white_under(RECTANGLE)
        mask, more = write_timed(tmp_path / "mask.mp4", masks, range(COUNT), None), []
    output = tmp_path / "out.mp4"
    record = conceal.record(files.covered, output, "--occlusion", mask, "--crf", 0, *more)
    hidden = 24 if kind == "video" else 30
    share = RECTANGLE[2] * RECTANGLE[3] / 256**2
    assert (record["frames"], record["generated"], record["lost_track"]) == (COUNT, hidden, 0)
    assert record["hidden"] == pytest.approx(share, rel=0.05)
    assert record["reference"] == {
        "rectangle": "frame 2", "picture": str(tmp_path / "bare.png"), "video": "frame 0"
    }[kind]  # fmt: skip
    assert times(output) == times(files.covered)
    assert sound_packets(output) == sound_packets(files.covered)
    made, covered = planes(output), planes(files.covered)
    truth = talking(COUNT)
    x, y, width, height = RECTANGLE
    far = slice(None), slice(0, x - 24)  # of the luma plane, the first 256 rows
    for place, picture in enumerate(iter_frames(output)):
        assert np.array_equal(made[place][:256][far], covered[place][:256][far])
        inside = (slice(y, y + height), slice(x, x + width))
        error = np.abs(picture[inside].astype(int) - truth[place][inside]).mean()
        # Nearer by far than what hid it, whichever mouth the small model makes.
        hid = np.abs(np.array((70, 60, 50)) - truth[place][inside]).mean()
        assert error < 0.2 * hid, (place, error, hid)
    if kind == "video":
        for place in range(6):
            assert np.array_equal(made[place], covered[place])
        lower = np.stack(list(iter_frames(output)))[6:, y : y + height, x : x + width]
        assert np.abs(np.diff(lower.astype(int), axis=0)).mean(axis=(1, 2, 3)).max() > 0.2


def test_a_face_of_which_little_is_seen_stays_where_it_is(files, conceal, tmp_path):
    # Landmarks found in such frames are sometimes anywhere; the head does not leap there.
    face = (90, 100, 80, 70)  # all but the forehead and the chin
    covered = talking(COUNT).copy()
    covered[:, under(face)] = (70, 60, 50)
    source = write_timed(tmp_path / "in.mp4", covered, range(COUNT), speech(SECONDS), crf=18)
    bare = write_picture(tmp_path / "bare.png", portrait())
    mask = ",".join(map(str, face))
    conceal.record(source, tmp_path / "out.mp4", "--occlusion", mask, "--reference", bare)
    for place, picture in enumerate(iter_frames(tmp_path / "out.mp4")):
        truth = talking(COUNT)[place].astype(int)
        error, hid = (np.abs(p - truth)[under(face)].mean() for p in (picture, covered[place]))
        assert error < 0.3 * hid, (place, error, hid)


# --- memory -------------------------------------------------------------------------------------


class Counted:
    """Frames of a video, of which it counts how many are alive at most."""

    def __init__(self) -> None:
        self._alive: list[weakref.ref[TimedFrame]] = []
        self.most = 0

    def frames(self, path: str | Path) -> Iterator[TimedFrame]:
        for frame in timed_frames(path):
            self._alive = [ref for ref in self._alive if ref() is not None]
            self._alive.append(weakref.ref(frame))
            self.most = max(self.most, len(self._alive))
            yield frame


@pytest.fixture
def long_video(tmp_path) -> Path:
    frames = [talking(20)[k % 20] for k in range(80)]
    return write_timed(tmp_path / "long.mp4", frames, range(80), speech(3.2), crf=28)


@pytest.mark.e2e
def test_frames_do_not_pile_up(conceal, long_video, tmp_path, monkeypatch):
    counted = Counted()
    monkeypatch.setattr(gaps, "timed_frames", counted.frames)
    assert conceal.record(long_video, tmp_path / "a.mp4", "--lost", "20-49")["generated"] == 30
    assert counted.most <= 6
    # Only pictures are looked at again, among the last few good ones.
    counted = Counted()
    monkeypatch.setattr(occlusion, "timed_frames", counted.frames)
    mask = ",".join(map(str, RECTANGLE))
    record = conceal.record(long_video, tmp_path / "b.mp4", "--occlusion", mask, "--reference", 0)
    assert record["generated"] == 80
    assert counted.most <= 2 * AHEAD + 4


# --- mistakes -----------------------------------------------------------------------------------

MISTAKES = [
    (["MUTE", "OUT", "--lost", "2-3"], 1, "has no sound track"),
    (["MUTE", "OUT", "--occlusion", "0,0,9,9"], 1, "has no sound track"),
    (["nowhere.mp4", "OUT"], 1, "no such file"),
    (["WAV", "OUT"], 1, "no picture"),
    (["TEXT", "OUT"], 1, "text.mp4"),
    (["GREY", "OUT", "--lost", "3-5"], 1, "no usable face beside any of its 1 gaps"),
    (["BLACK", "OUT", "--lost", "0-29"], 1, "every frame is lost"),
    (["BLACK", "OUT", "--lost", "900-990"], 1, "lies in the lost intervals"),
    (["BLACK", "OUT", "--lost", "soon"], 1, "is not an interval"),
    (["BLACK", "OUT", "--lost", "nowhere.csv"], 1, "no such file"),
    (["BLACK", "out.avi"], 1, "suffix .avi"),
    (["BLACK", "nowhere/out.mp4"], 1, "nowhere"),
    (["BLACK", "BLACK"], 1, "is the video that is read"),
    (["BLACK", "TAKEN"], 1, "exists already"),
    (["BLACK", "OUT", "--ease", "4"], 2, "--ease goes with --online"),
    (["BLACK", "OUT", "--fps", "0"], 2, "--fps"),
    (["BLACK", "OUT", "--grow", "0.1"], 2, "go with --occlusion"),
    (["BLACK", "OUT", "--occlusion", "0,0,9,9", "--detect"], 2, "goes without --lost"),
    (["BLACK", "OUT", "--occlusion", "0,0,9,9", "--no-extend"], 2, "goes without --lost"),
    (["BLACK", "OUT", "--device", "abacus"], 2, "'abacus' is not one of"),
    (["COVERED", "OUT", "--occlusion", "300,0,10,10"], 1, "no part of a picture of 256x256"),
    (["COVERED", "OUT", "--occlusion", "100,128,58,46"], 1, "with --reference"),
    (["COVERED", "OUT", "--occlusion", "0,0,256,256", "--reference", "2"], 1, "found in none"),
    (["COVERED", "OUT", "--occlusion", "100,128,58,46", "--reference", "77"], 1, "no frame 77"),
    (["COVERED", "OUT", "--occlusion", "nowhere.png"], 1, "nowhere.png"),
    (["COVERED", "OUT", "--occlusion", "SMALL"], 1, "has 64x64 pixels and the video 256x256"),
    (["COVERED", "OUT", "--occlusion", "SHORT"], 1, "the mask ends after 9 frames"),
]


@pytest.fixture(scope="module")
def inputs(files, tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("mistakes")
    (folder / "text.mp4").write_text("not a video")
    (folder / "taken.mp4").write_bytes(b"of value")
    grey = np.full((10, 128, 128, 3), 120, np.uint8)
    short = np.zeros((9, 256, 256, 3), np.uint8)
    return {
        "MUTE": files.mute,
        "BLACK": files.black,
        "COVERED": files.covered,
        "WAV": write_wav(folder / "speech.wav", speech(0.5)),
        "TEXT": folder / "text.mp4",
        "TAKEN": folder / "taken.mp4",
        "GREY": write_timed(folder / "grey.mp4", grey, range(10), speech(0.4)),
        "SMALL": write_picture(folder / "small.png", np.full((64, 64, 3), 255, np.uint8)),
        "SHORT": write_timed(folder / "short.mp4", short, range(9), None),
    }


@pytest.mark.parametrize(("words", "code", "said"), MISTAKES)
def test_a_mistake_is_said_in_a_line_and_leaves_nothing(
    inputs, conceal, tmp_path, monkeypatch, words, code, said
):
    monkeypatch.chdir(tmp_path)
    folders = (tmp_path, *{path.parent for path in inputs.values()})
    before = listing(*folders)
    ended, out, err = conceal(
        *(inputs.get(word, "out.mp4" if word == "OUT" else word) for word in words), "-q"
    )
    assert ended == code, err
    assert said in " ".join(err.split())
    assert "Traceback" not in err and out == ""
    if code == 1:
        assert err.startswith("stillspeak: ") and err.count("\n") == 1
    assert listing(*folders) == before


def test_what_stood_there_survives_a_failure(inputs, conceal, tmp_path):
    kept = tmp_path / "kept.mp4"
    kept.write_bytes(b"of value")
    code, _, _ = conceal(
        inputs["COVERED"], kept, "--occlusion", inputs["SHORT"], "--overwrite", "-q"
    )
    assert (code, kept.read_bytes()) == (1, b"of value")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.mp4"]
    assert conceal.record(inputs["BLACK"], kept, "--detect", "--overwrite")["generated"] == 6
    assert kept.stat().st_size > 1000
