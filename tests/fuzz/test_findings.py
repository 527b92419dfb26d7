"""What fuzzing found, one test a kind of finding; each failed before it was mended."""

from __future__ import annotations

import io
import json
import math
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from stillspeak.batch import read_jobs
from stillspeak.conceal.lost_frames import read_lost
from stillspeak.data.cache import MANIFEST, load_manifest, open_clip, sound_and_landmarks
from stillspeak.data.clips import read_split
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.dataset import TrainingData
from stillspeak.data.layouts.grid import read_alignment
from stillspeak.errors import (
    LONGEST,
    AudioError,
    CheckpointError,
    ConfigError,
    DataError,
    ImageError,
    InputError,
    StillspeakError,
    StudyError,
    VideoError,
    WeightsError,
)
from stillspeak.evaluation.measures.lipreading import load_lip_reader
from stillspeak.media.audio import MAX_RATE, load_audio
from stillspeak.media.image import load_image
from stillspeak.media.video import iter_frames
from stillspeak.models.generator import Generator
from stillspeak.models.lipnet import LIPNET_FORMAT, LipNet, LipNetConfig, golden_reading
from stillspeak.study.kinds import Study
from stillspeak.study.transcode import check_playable
from stillspeak.system.configuration import DEEPEST, build, parse_overrides, read_json, read_toml
from stillspeak.training.checkpoint import load_checkpoint
from stillspeak.web.settings import ServeSettings
from stillspeak.weights import load_model, read_info, save_model, save_network
from support.fuzz_targets import _cache, _study_files, _write_study, as_toml, tiny_config
from support.study import write_clip

DEEP = "[" * 20_000 + "]" * 20_000


# --- messages ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: it\nis\r\n  wrong", "a: it is wrong"),
        ("a\u2028b\x85c\x0bd\te", "a b c d e"),
        ("a\x1b[31mred\x00", "a\\x1b[31mred\\x00"),
        ("a\udcff.jpg", "a\\udcff.jpg"),
        ("two  blanks, é, 中", "two  blanks, é, 中"),
    ],
)
def test_a_message_is_one_printable_line_whatever_it_quotes(text: str, line: str) -> None:
    assert str(StillspeakError(text)) == line


def test_a_message_has_an_end() -> None:
    text = str(InputError("photo.jpg: " + "x" * 50_000 + ": not a number"))
    assert text.startswith("photo.jpg: xxx")
    assert text.endswith("xxx: not a number")
    assert len(text) <= LONGEST


# --- weights ----------------------------------------------------------------------------------

Header = dict[str, Any]


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., Path]:
    """Writes a small generator's weights with another header or other tensors."""
    path = tmp_path / "model.safetensors"
    torch.manual_seed(0)
    save_model(Generator(tiny_config()).eval(), path, {"command": "none"})

    def make(
        config: dict[str, object] | str | None = None,
        tensors: dict[str, torch.Tensor] | None = None,
        **texts: str,
    ) -> Path:
        size = int.from_bytes(path.read_bytes()[:8], "little")
        metadata = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
        if isinstance(config, str):
            metadata["config"] = config
        elif config is not None:
            metadata["config"] = json.dumps(json.loads(metadata["config"]) | config)
        path.write_bytes(save(load(path.read_bytes()) | (tensors or {}), metadata | texts))
        return path

    return make


def test_unchanged_weights_load(changed: Callable[..., Path]) -> None:
    """Or else the tests below would tell nothing."""
    assert load_model(changed()).config == tiny_config()


@pytest.mark.parametrize(
    "config",
    [
        {"height": 2**40},
        {"height": 2048, "width": 2048},
        {"context_dim": 10**400},
        {"context_dim": 2_000_000_000},
        {"context_layers": 10**9},
        {"identity_channels": [3] * 3000},
        {"identity_channels": [4096, 4096]},
        {"sample_rate": 10**9, "fps": 1},
        {"audio_channels": [10**18, 4]},
        {"speech": 3},
        {"speech": {"width": 10**12}},
        {"speech": {"behind": 7.5}},
        {"speech": {"ahead": [1, 2.5]}},
        {"pose": {"hidden": 10**12}},
        {"pose": {"layers": "1"}},
        {"height": "16"},
        {"height": 16.0},
        {"height": True},
        {"height": None},
        {"audio_channels": [3, "3", 4]},
        {"noise_std": math.nan},
        {"audio_dropout": []},
        {"decoder": ["unet"]},
        {"line\nbreak": 1},
    ],
)
def test_a_configuration_that_no_memory_holds_or_of_other_types(
    changed: Callable[..., Path], config: dict[str, object]
) -> None:
    with pytest.raises(WeightsError, match=r"made for another version|do not fit"):
        load_model(changed(config))


def test_a_configuration_is_compared_with_the_tensors_before_it_is_built(
    changed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = []
    register = torch.nn.Module.register_parameter

    def noted(self: torch.nn.Module, name: str, parameter: torch.nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            real.append(name)
        register(self, name, parameter)

    path = changed({"context_dim": 4096, "identity_dim": 4096})
    monkeypatch.setattr(torch.nn.Module, "register_parameter", noted)
    with pytest.raises(WeightsError, match="its tensors do not fit its own configuration"):
        load_model(path)
    assert real == []


@pytest.mark.parametrize(
    "texts",
    [
        {"config": "[]"},
        {"config": "3"},
        {"info": '"text"'},
        {"info": DEEP},
        {"golden": "[" + "9" * 5000 + "]"},
    ],
)
def test_a_header_of_another_kind(changed: Callable[..., Path], texts: dict[str, str]) -> None:
    path = changed(**texts)
    for read in (load_model, read_info):
        with pytest.raises(WeightsError, match="its header is damaged"):
            read(path)


@pytest.mark.parametrize(
    "golden", ["{}", "1.5", "null", '["a"]', "[[1]]", "[1e308]", "[" + "9" * 400 + "]"]
)
def test_a_golden_answer_of_another_kind(changed: Callable[..., Path], golden: str) -> None:
    with pytest.raises(WeightsError, match="golden answer is damaged"):
        load_model(changed(golden=golden))


def test_tensors_too_many_or_complex(changed: Callable[..., Path]) -> None:
    with pytest.raises(WeightsError, match="do not fit"):
        load_model(changed(tensors={"another": torch.ones(1)}))


@pytest.mark.parametrize("places", [None, "bin", [["bin", 3]], [["b n"]], [[""]], [[["bin"]]]])
def test_a_lip_readers_words_of_another_kind(tmp_path: Path, places: object) -> None:
    from dataclasses import asdict

    config = LipNetConfig(channels=(2, 2, 2), state=3)
    save_network(
        LipNet(config).eval(),
        tmp_path / "a.safetensors",
        {},
        format_name=LIPNET_FORMAT,
        config={"network": asdict(config), "places": places},
        rounded=LipNet(config),
        golden=golden_reading,
    )
    with pytest.raises(WeightsError, match="its lists of words are damaged"):
        load_lip_reader(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "state", ["[]", "3", '{"__pairs__": 1}', '{"__pairs__": [1]}', '{"__tensor__": []}', DEEP]
)
def test_a_checkpoints_state_of_another_kind(tmp_path: Path, state: str) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(
        save({"w": torch.ones(1)}, {"format": "stillspeak-checkpoint-1", "state": state})
    )
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


# --- configurations ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"a = {DEEP}", "nested too deeply"),
        ("a = " + "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1), "nested too deeply"),
        ("a = " + "9" * 5000, "not valid TOML"),
        ('extends = "a\\u0000b"', "not valid TOML"),
        ('extends = "/dev/zero"', "not a file"),
        ('extends = "' + "x" * 3000 + '"', "cannot be read"),
        ("a = 1 #" + " " * 2**20, "larger than 1 MiB"),
    ],
)
def test_configurations_without_an_end(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.toml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        read_toml(tmp_path / "a.toml")


def test_overrides_without_an_end() -> None:
    assert parse_overrides(["a.b=" + "[" * 5000]) == {"a": {"b": "[" * 5000}}
    with pytest.raises(ConfigError, match="nested too deeply"):
        parse_overrides([".".join("a" * 5000) + "=1"])


def test_a_configuration_that_is_no_table() -> None:
    with pytest.raises(ConfigError, match="serve: not a table"):
        build(ServeSettings, [1], name="serve")  # type: ignore[arg-type]


def test_a_setting_of_400_digits() -> None:
    with pytest.raises(ConfigError, match=r"serve: max_seconds: must be at most 3600"):
        build(ServeSettings, {"max_seconds": 10**300}, name="serve")
    with pytest.raises(ConfigError, match="serve"):
        build(ServeSettings, {"max_pixels": 10**400}, name="serve")


def test_json_without_an_end_is_no_json() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        read_json(DEEP)


def test_jobs_with_names_that_no_file_has(tmp_path: Path) -> None:
    (tmp_path / "jobs.csv").write_text("photo,speech,output\na.jpg,b.wav,c\0.mp4\n")
    with pytest.raises(InputError, match="line 2: holds a name with a NUL"):
        read_jobs(tmp_path / "jobs.csv")


def test_lost_intervals_with_a_number_of_400_digits(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'{{"frames": [[3, {10**400}]]}}')
    (interval,) = read_lost(tmp_path / "a.json")
    assert (interval.start, interval.frames) == (3, True)
    assert math.isfinite(interval.stop)
    (tmp_path / "a.json").write_text('{"seconds": [[1, Infinity]]}')
    with pytest.raises(InputError, match="is not an interval"):
        read_lost(tmp_path / "a.json")


# --- prepared data ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe",
        DEEP.encode(),
        b"3",
        b'{"file": 3}',
        b'{"frames": "many"}',
        b'{"frames": 0}',
        b'{"frames": 1e400}',
        b'{"speaker": ["a"]}',
        b'{"split": "exam"}',
        b'{"file": null}',
        b'{"sp\\neaker\\u001b": 1}',
    ],
)
def test_a_manifest_of_other_types(tmp_path: Path, line: bytes) -> None:
    cache = _cache(tmp_path)
    first = json.loads((cache / MANIFEST).read_text().splitlines()[0])
    if line.startswith(b"{"):
        line = json.dumps(first | json.loads(line)).encode()
    (cache / MANIFEST).write_bytes(line + b"\n")
    with pytest.raises(DataError, match=r"manifest\.jsonl, line 1: damaged"):
        load_manifest(cache)


def rewritten(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    """A prepared clip with other tensors."""
    size = int.from_bytes(path.read_bytes()[:8], "little")
    metadata = json.loads(path.read_bytes()[8 : 8 + size])["__metadata__"]
    tensors = load(path.read_bytes())
    change(tensors)
    path.write_bytes(save(tensors, metadata))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.update(frames=t["frames"][0]), r"frames is U8 \[16, 16, 3\]"),
        (lambda t: t.update(frames=t["frames"].float()), "frames is F32"),
        (lambda t: t.update(frames=t["frames"][1:]), r"frames in its parts .*: \[9, 10\]"),
        (lambda t: t.update(landmarks=t["landmarks"][..., :1].contiguous()), "landmarks is F32"),
        (lambda t: t.update(landmarks=t["landmarks"][:, :5].contiguous()), "5 landmarks a frame"),
        (lambda t: t["landmarks"].fill_(math.nan), "landmarks holds NaN"),
        (lambda t: t["audio"].fill_(1e30), "audio holds NaN or values beyond"),
        (lambda t: t.update(audio=t["audio"].reshape(2, -1)), "audio is F32"),
        (lambda t: t.pop("audio"), "holds no audio"),
        (lambda t: t.pop("frames"), "holds no frames"),
    ],
)
def test_a_prepared_clip_with_other_tensors(
    tmp_path: Path, change: Callable[[dict[str, torch.Tensor]], object], message: str
) -> None:
    cache = _cache(tmp_path)
    rewritten(cache / "a" / "one.safetensors", change)
    settings = DataConfig(batch=1, window_frames=6, decoded_frames=2, lead_frames=1)
    with pytest.raises(DataError, match=message):
        TrainingData(
            load_manifest(cache), settings, AugmentConfig(), tiny_config(decoder="unet"), seed=1
        )


def test_a_prepared_clip_as_it_should_be(tmp_path: Path) -> None:
    clip = load_manifest(_cache(tmp_path))[0]
    with open_clip(clip) as tensors:
        audio, landmarks = sound_and_landmarks(tensors)
        assert (len(audio), landmarks.shape) == (6400, (10, 478, 2))


@pytest.mark.parametrize("text", [DEEP, '{"train": "s1", "validation": [], "test": []}', "\xff"])
def test_a_split_that_is_no_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match="expected lists of speakers"):
        read_split(tmp_path, {"train": [], "validation": [], "test": []})


def test_an_alignment_with_a_time_of_400_digits(tmp_path: Path) -> None:
    (tmp_path / "a.align").write_text(f"0 {10**400} sil\n")
    with pytest.raises(DataError, match="line 1: expected 'start end word'"):
        read_alignment(tmp_path / "a.align")


# --- studies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda t: t["videos"][0].update(file=["videos"]),
        lambda t: t["videos"][0].update(item=["clip"]),
        lambda t: t["videos"][0].update(id=None),
        lambda t: t["videos"][0].update(seconds=-math.inf),
        lambda t: t["videos"][0].update(id=t["videos"][1]["id"]),
        lambda t: t["videos"][0].update(system="whose"),
        lambda t: t.update(videos=t["videos"][1:]),
        lambda t: t.update(systems=[]),
        lambda t: t.update(choices=[[]]),
        lambda t: t.update(kind=["preference"]),
        lambda t: t.pop("version"),
    ],
)
def test_a_study_whose_videos_contradict_each_other(
    tmp_path: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    """Some of these made the plan of a visitor's trials go on for ever."""
    table = json.loads(_study_files("preference")["materials.json"])
    change(table)
    content = json.dumps(table).encode()
    folder = _write_study("preference", tmp_path / "study", {"materials.json": content})
    with pytest.raises(StudyError, match="damaged"):
        Study.load(folder)


def test_a_study_of_everything_deep_or_of_no_text(tmp_path: Path) -> None:
    for number, content in enumerate((DEEP.encode(), b"\xff\xfe{", b"[1]", b"null")):
        folder = _write_study("preference", tmp_path / str(number), {"materials.json": content})
        with pytest.raises(StudyError, match="damaged"):
            Study.load(folder)


# --- pictures ---------------------------------------------------------------------------------


def test_a_damaged_tiff_prints_nothing_of_its_own(tmp_path: Path) -> None:
    """libtiff writes to standard error, past Python; a process of its own shows it."""
    import PIL.Image

    file = io.BytesIO()
    random = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    PIL.Image.fromarray(random).save(file, "TIFF", compression="tiff_adobe_deflate")
    data = bytearray(file.getvalue())
    data[200:260] = bytes(60)
    (tmp_path / "a.tif").write_bytes(data)
    with pytest.raises(ImageError, match="damaged"):
        load_image(tmp_path / "a.tif")
    program = (
        "import sys\nfrom stillspeak.errors import ImageError\n"
        "from stillspeak.media.image import load_image\n"
        "try:\n    load_image(sys.argv[1])\nexcept ImageError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a.tif")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 1


# --- sound and video --------------------------------------------------------------------------


def film(path: Path, times: list[int]) -> None:
    """Frames at these times, in 25ths of a second."""
    import av

    with av.open(str(path), "w") as output:
        stream = output.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for number, time in enumerate(times):
            picture = np.full((32, 32, 3), 40 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = time, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def test_a_video_whose_clock_jumps_by_months_has_an_end(tmp_path: Path) -> None:
    """A small file was millions of frames long: the one before the jump, again and again."""
    film(tmp_path / "a.mkv", [0, 1, 2, 25 * 10**7, 25 * 10**7 + 1])
    assert sum(1 for _ in islice(iter_frames(tmp_path / "a.mkv", fps=25), 1000)) == 5


def test_a_picture_that_is_held_is_held(tmp_path: Path) -> None:
    film(tmp_path / "a.mkv", [0, 1, 751])
    assert sum(1 for _ in iter_frames(tmp_path / "a.mkv", fps=25)) == 752


@pytest.mark.parametrize("rate", [MAX_RATE + 1, 2**40])
def test_a_sample_rate_that_no_memory_holds(rate: int) -> None:
    with pytest.raises(AudioError, match=f"give at most {MAX_RATE} Hz"):
        load_audio((np.zeros(100, np.float32), rate))


def test_a_sound_file_with_such_a_rate() -> None:
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 2**31 - 1, 2**31 - 1, 1, 8)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", 1000) + bytes(1000)
    with pytest.raises(AudioError, match="the sample rate is 2147483647; give at most"):
        load_audio(struct.pack("<4sI", b"RIFF", len(body)) + body)


def test_a_video_with_a_sound_track_of_no_known_kind(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4")
    data = path.read_bytes()
    at = data.rindex(b"stsd")  # what the sound track is, after that of the pictures
    path.write_bytes(data[:at] + bytes(4) + data[at + 4 :])
    with pytest.raises(VideoError, match=r"browsers do not play unknown sound in \.mp4"):
        check_playable(path)


def test_sound_of_eight_planes(tmp_path: Path) -> None:
    """Fuzzing made an M4A say 56 channels, which ended the process. So do good files of eight in
    PyAV's own hands: it looks for a null pointer behind the planes, where other memory begins."""
    import av

    tone = 0.5 * np.sin(np.arange(48_000) / 20)
    with av.open(str(tmp_path / "a.m4a"), "w") as output:
        stream = output.add_stream("aac", rate=48_000, layout="7.1")
        for start in range(0, 48_000, 1000):
            block = np.repeat((tone[start : start + 1000] * 32767).astype(np.int16), 8)[None]
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="7.1")
            frame.sample_rate, frame.pts = 48_000, start
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    mono = load_audio(tmp_path / "a.m4a", sample_rate=48_000)
    assert 0.3 < np.abs(mono).max() <= 1
    assert abs(len(mono) - 48_000) < 3000


def test_tables_are_written_as_they_are_read() -> None:
    """The fuzzer's own writer of TOML, or else nothing that it makes of a table would be one."""
    table = {"a": 1, "b": {"c": [1.5, "x\ny", True], "d e": -math.inf}, "f": []}
    assert tomllib.loads(as_toml(table)) == table
