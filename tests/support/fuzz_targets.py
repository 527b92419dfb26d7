"""The six kinds of input that are fuzzed: good inputs of each, and the code that reads them."""

from __future__ import annotations

import functools
import io
import itertools
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

import stillspeak
from stillspeak import weights
from stillspeak.batch import read_jobs
from stillspeak.conceal.lost_frames import read_lost
from stillspeak.data.cache import MANIFEST, load_manifest, write_tensors
from stillspeak.data.clips import read_split
from stillspeak.data.config import AugmentConfig, DataConfig
from stillspeak.data.corpora import find_grid
from stillspeak.data.dataset import TrainingData
from stillspeak.data.layouts.grid import read_alignment
from stillspeak.evaluation.measures.lipreading import load_lip_reader
from stillspeak.evaluation.measures.sync import load_sync_scorer
from stillspeak.media.audio import ChunkResampler, load_audio, mono_chunk, read_track
from stillspeak.media.image import load_image
from stillspeak.media.video import iter_frames, probe_video, read_clip
from stillspeak.media.video_writer import write_video
from stillspeak.models.config import GeneratorConfig
from stillspeak.models.generator import Generator
from stillspeak.models.lipnet import LIPNET_FORMAT, LipNet, LipNetConfig, golden_reading
from stillspeak.models.pose import PoseConfig
from stillspeak.models.speech import SpeechEncoderConfig
from stillspeak.models.syncnet import SYNC_FORMAT, SyncNet, SyncNetConfig, golden_sync
from stillspeak.study.kinds import Study
from stillspeak.study.plan import check_plan, plan_session
from stillspeak.study.videos import init_study
from stillspeak.system.configuration import build, merge, parse_overrides, read_toml
from stillspeak.training.auxiliary.kinds import auxiliary_config, auxiliary_kind
from stillspeak.training.checkpoint import load_checkpoint, save_checkpoint
from stillspeak.training.config import run_config
from stillspeak.web.settings import ServeSettings
from support.dub import Painter
from support.faces import face_pictures, face_points
from support.fuzz import Body, FindingError, Form, Target, as_toml
from support.study import GRID_CHOICES, paper_study, write_clip

ROOT = Path(__file__).parents[2]

PIXELS = 4_000_000
"""Largest picture that is decoded here, so that the bound on memory means something."""


def _into(name: str, read: Callable[[Path], object]) -> Body:
    """A body that reads a file of that name."""

    def body(content: bytes, folder: Path) -> None:
        path = folder / name
        path.write_bytes(content)
        read(path)

    return body


def _files(make: Callable[[Path], Sequence[Path]]) -> list[bytes]:
    """The contents of files that are made in a folder."""
    with tempfile.TemporaryDirectory() as folder:
        return [path.read_bytes() for path in make(Path(folder))]


# --- pictures ---------------------------------------------------------------------------------


def _pictures() -> list[bytes]:
    import PIL.Image

    random = np.random.default_rng(0)
    rgb = random.integers(0, 256, (11, 14, 3), np.uint8)
    alpha = random.integers(0, 256, (11, 14, 4), np.uint8)
    wide = random.integers(0, 65536, (11, 14)).astype(np.uint16)
    photo, clear = PIL.Image.fromarray(rgb), PIL.Image.fromarray(alpha)
    grey16 = PIL.Image.fromarray(wide)
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    frames = [photo.quantize(8), clear.convert("RGB").quantize(4)]
    seeds = []

    def add(picture: PIL.Image.Image, kind: str, **options: Any) -> None:
        file = io.BytesIO()
        picture.save(file, kind, **options)
        seeds.append(file.getvalue())

    add(photo, "JPEG", exif=turned)
    add(photo, "JPEG", progressive=True)
    add(photo.convert("CMYK"), "JPEG")
    add(photo, "PNG")
    add(clear, "PNG", exif=turned)
    add(photo.quantize(8), "PNG", transparency=1)
    add(grey16, "PNG")
    add(photo.convert("1"), "PNG")
    add(photo, "WEBP", lossless=True)
    add(clear, "WEBP", exif=turned.tobytes())
    add(photo, "BMP")
    add(photo.quantize(8), "BMP")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        add(photo, "TIFF", compression=compression)
    add(grey16, "TIFF")
    add(PIL.Image.fromarray(np.float32(wide / 65535)), "TIFF")
    add(photo.convert("LA"), "TIFF")
    add(frames[0], "GIF", save_all=True, append_images=frames[1:], transparency=0)
    return seeds


def _read_picture(content: bytes, folder: Path) -> None:
    picture = load_image(content, max_pixels=PIXELS)
    _sane(picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8, picture.shape)
    _sane(picture.shape[0] * picture.shape[1] <= PIXELS, picture.shape)


def _sane(fine: bool, what: object) -> None:
    if not fine:
        raise FindingError(f"not what was promised: {what}")


_TYPES = ("u1", "<u2", ">u2", "<f2", "<f4", ">f4", "<f8", "<i2", ">i2", "<i4", "<u4", "<i8", "b1")
_TYPES += ("<c8", "S3", "<U2", "<M8[s]", "O")


def _array(content: bytes) -> np.ndarray[Any, Any]:
    """An array out of bytes: type, number of axes, sizes, and the values over and over."""
    data = content.ljust(12, b"\0")
    kind = np.dtype(_TYPES[data[0] % len(_TYPES)])
    shape = [int(n) for n in data[2 : 2 + data[1] % 5]]
    if kind.hasobject:
        return np.full(shape[:2], None, object)
    size = int(np.prod(shape, dtype=np.int64))
    if size > 2_000_000:
        shape, size = shape[:2], int(np.prod(shape[:2], dtype=np.int64))
    values = data[7:] * (size * kind.itemsize // len(data[7:]) + 1)
    array = np.frombuffer(values[: size * kind.itemsize], kind).reshape(shape)
    return array[..., ::-1] if data[6] % 3 == 1 and array.ndim else array


def _arrays(*shapes: tuple[int, ...]) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        seeds = []
        for kind, shape in itertools.product(range(len(_TYPES)), shapes):
            head = bytes([kind, len(shape), *shape])
            seeds.append(head.ljust(7, b"\0") + np.float32([0.1, 0.2, 0.7]).tobytes())
        return seeds

    return make


def _read_picture_array(content: bytes, folder: Path) -> None:
    picture = load_image(_array(content), max_pixels=PIXELS)
    _sane(picture.ndim == 3 and picture.shape[2] == 3 and picture.dtype == np.uint8, picture.shape)


# --- sound and video --------------------------------------------------------------------------


def _sounds() -> list[bytes]:
    import av

    time = np.arange(4000) / 16_000
    tone = (0.3 * np.sin(2 * np.pi * 300 * time)).astype(np.float32)
    seeds = []
    for container, codec, form in (
        ("wav", "pcm_s16le", "s16"),
        ("wav", "pcm_f32le", "flt"),
        ("wav", "pcm_u8", "u8"),
        ("aiff", "pcm_s16be", "s16"),
        ("au", "pcm_mulaw", "s16"),
        ("flac", "flac", "s16"),
        ("mp3", "mp3", "s16p"),
        ("ogg", "libopus", "flt"),
        ("ipod", "aac", "fltp"),
        ("matroska", "pcm_f32le", "flt"),
    ):
        file = io.BytesIO()
        rate = 48_000 if codec == "libopus" else 16_000
        with av.open(file, "w", format=container) as output:
            stream = output.add_stream(codec, rate=rate, format=form, layout="mono")
            size = stream.codec_context.frame_size or 1024
            for start in range(0, len(tone), size):
                block = np.ascontiguousarray(tone[None, start : start + size])
                frame = av.AudioFrame.from_ndarray(block, format="fltp", layout="mono")
                frame.sample_rate, frame.pts = rate, start
                resampler = av.AudioResampler(format=form, layout="mono", rate=rate)
                for ready in resampler.resample(frame):
                    output.mux(stream.encode(ready))
            output.mux(stream.encode(None))
        seeds.append(file.getvalue())
    return seeds


def _read_sound(content: bytes, folder: Path) -> None:
    sound = load_audio(content, max_seconds=120)
    _sane(sound.ndim == 1 and sound.dtype == np.float32 and bool(len(sound)), sound.shape)
    _sane(bool((np.abs(sound) <= 1).all()), "samples beyond [-1, 1]")


def _read_sound_file(path: Path) -> None:
    length = 0
    for piece, _ in read_track(path):
        length += len(piece)
        if length > 120 * 16_000:
            break


def _read_sound_array(content: bytes, folder: Path) -> None:
    rates = (16_000, 48_000, 1, 0, -5, 2**40, float("nan"), float("inf"), 44_100.5, None, "16000")
    rate: Any = rates[content[0] // 16 % len(rates)] if content else 16_000
    sound = load_audio((_array(content), rate), max_seconds=120)
    _sane(bool((np.abs(sound) <= 1).all()), "samples beyond [-1, 1]")


def _read_live_sound(content: bytes, folder: Path) -> None:
    wave_ = mono_chunk(_array(content), name="microphone")
    _sane(wave_.ndim == 1 and wave_.dtype == np.float32, wave_.shape)
    if len(wave_):
        resampler = ChunkResampler(48_000, 16_000)
        resampler.feed(wave_)
        resampler.finish()


def _videos() -> list[bytes]:
    import av

    def make(folder: Path) -> list[Path]:
        made = [write_clip(folder / "a.mp4", frames=8), write_clip(folder / "b.webm", frames=8)]
        write_video(folder / "c.gif", [np.full((32, 32, 3), 40 * k, np.uint8) for k in range(4)])
        made.append(folder / "c.gif")
        for name, codec in (("d.avi", "mpeg4"), ("e.mpg", "mpeg1video"), ("f.mkv", "ffv1")):
            with av.open(str(folder / name), "w") as output:
                stream = output.add_stream(codec, rate=25)
                stream.width = stream.height = 32
                stream.pix_fmt = "yuv420p"
                for k in range(6):
                    picture = np.full((32, 32, 3), 40 * k, np.uint8)
                    output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                output.mux(stream.encode(None))
            made.append(folder / name)
        return made

    return _files(make)


def _read_video(path: Path) -> None:
    info = probe_video(path)
    _sane(np.isfinite(info.fps) and np.isfinite(info.duration), info)
    for _ in itertools.islice(iter_frames(path), 60):
        pass
    frames = iter_frames(path, fps=25)
    if sum(1 for _ in itertools.islice(frames, 100_000)) == 100_000:
        raise FindingError(f"a file of {path.stat().st_size} bytes lasts more than an hour")


def _read_both(path: Path) -> None:
    frames, _ = read_clip(path, fps=25, start=0.04, end=0.2)
    for _ in frames:
        pass


def _dub(path: Path) -> None:
    for fit in ("loop", "freeze"):
        speech = np.full(8000, 0.5, np.float32), 16_000
        stillspeak.dub(
            *(path, speech, path.with_name("out.mkv")),
            fit=fit,
            dubber=Painter((4, 4, 9, 9)),
            overwrite=True,
            mark=False,
        )


# --- weights ----------------------------------------------------------------------------------


def tiny_config(**changes: Any) -> GeneratorConfig:
    """A generator that is built and run in milliseconds."""
    values: dict[str, Any] = {
        "decoder": "unet",
        "height": 16,
        "width": 16,
        "identity_channels": (3, 4),
        "audio_channels": (3, 3, 4),
        "audio_dim": 4,
        "context_dim": 5,
        "context_layers": 1,
        "identity_dim": 3,
        "noise_dim": 2,
    }
    return GeneratorConfig(**(values | changes))


LISTENING = {
    "audio_input": "speech",
    "noise_dim": 0,
    "speech": SpeechEncoderConfig(width=4, heads=2, behind=3, ahead=(1,)),
    "pose": PoseConfig(hidden=3, basis=2),
    # As everywhere in speech.
    "sample_rate": 16_000,
    "fps": 25,
}


def _generators() -> list[bytes]:
    def make(folder: Path) -> list[Path]:
        made = []
        for number, changes in enumerate(
            ({}, {"decoder": "unet", "noise_dim": 0}, {"decoder": "layers", **LISTENING})
        ):
            path = folder / f"{number}.safetensors"
            torch.manual_seed(number)
            weights.save_model(
                Generator(tiny_config(**changes)).eval(), path, {"command": "none", "steps": 1}
            )
            made.append(path)
        return made

    return _files(make)


def _lip_readers() -> list[bytes]:
    def make(folder: Path) -> list[Path]:
        config = LipNetConfig(channels=(2, 2, 2), state=3)
        weights.save_network(
            LipNet(config).eval(),
            folder / "a",
            {"command": "none"},
            format_name=LIPNET_FORMAT,
            config={"network": asdict(config), "places": [["bin", "lay"], ["at"]]},
            rounded=LipNet(config),
            golden=golden_reading,
        )
        return [folder / "a"]

    return _files(make)


def _sync_networks() -> list[bytes]:
    def make(folder: Path) -> list[Path]:
        config = SyncNetConfig(bands=8, picture_channels=(2, 2, 2, 2), sound_channels=(2, 2), dim=2)
        weights.save_network(
            SyncNet(config).eval(),
            folder / "a",
            {"command": "none"},
            format_name=SYNC_FORMAT,
            config=asdict(config),
            rounded=SyncNet(config),
            golden=golden_sync,
        )
        return [folder / "a"]

    return _files(make)


def _checkpoints() -> list[bytes]:
    def make(folder: Path) -> list[Path]:
        state = {"step": 3, "best": None, "config": {"a": {"b": [1, 2.5]}}}
        save_checkpoint(
            folder / "a", state | {"network": {"w": torch.ones(2, 3), 0: [torch.ones(1)]}}
        )
        return [folder / "a"]

    return _files(make)


def _public_lip_reader() -> list[bytes]:
    file = io.BytesIO()
    torch.save({"conv1.weight": torch.ones(2, 3)}, file)
    old = io.BytesIO()
    torch.save({"state_dict": {"x": torch.ones(2)}}, old, _use_new_zipfile_serialization=False)
    return [file.getvalue(), old.getvalue()]


# --- prepared data ----------------------------------------------------------------------------

_FRAMES = 10


def _cache(folder: Path) -> Path:
    """A cache of two clips."""
    rows = []
    for number, speaker in enumerate("ab"):
        opening = np.linspace(2, 8, _FRAMES)
        tensors = {
            "frames": face_pictures(opening, number)[:, ::8, ::6],
            "audio": np.sin(np.arange(_FRAMES * 640) / 20).astype(np.float32),
            "landmarks": (face_points(opening) / 8).astype(np.float32),
            "blendshapes": np.zeros((_FRAMES, 52), np.float16),
            "head_pose": np.zeros((_FRAMES, 3), np.float32),
        }
        file = f"{speaker}/one.safetensors"
        write_tensors(folder / file, tensors, {"key": '"k"', "speaker": json.dumps(speaker)})
        row = {"file": file, "speaker": speaker, "stem": "one", "name": "one", "split": "train"}
        rows.append(row | {"frames": _FRAMES, "key": "k", "text": None})
    (folder / MANIFEST).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@functools.cache
def _ready_cache() -> dict[str, bytes]:
    """Its files by name."""
    with tempfile.TemporaryDirectory() as place:
        folder = _cache(Path(place))
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def _lay_out(folder: Path, changed: str, content: bytes) -> None:
    for name, data in (_ready_cache() | {changed: content}).items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def _train_from(folder: Path) -> None:
    clips = [clip for clip in load_manifest(folder) if clip.split == "train"]
    generator = tiny_config(decoder="unet")
    settings = DataConfig(batch=1, window_frames=6, decoded_frames=2, lead_frames=1, audio_batch=1)
    data = TrainingData(clips, settings, AugmentConfig(), generator, seed=1)
    data.batch(0)
    data.audio_batch(0)


def _train(changed: str) -> Body:
    def body(content: bytes, folder: Path) -> None:
        _lay_out(folder, changed, content)
        _train_from(folder)

    return body


def _splits(content: bytes, folder: Path) -> None:
    for speaker in ("s1", "s2"):
        (folder / speaker).mkdir()
        (folder / speaker / "bbaf2n.mp4").touch()
    (folder / "split.json").write_bytes(content)
    read_split(folder, {"train": ["s1"], "validation": ["s2"], "test": []})
    find_grid(folder)


# --- configurations ---------------------------------------------------------------------------


def _toml(path: str) -> Callable[[], list[bytes]]:
    def make() -> list[bytes]:
        return [as_toml(read_toml(ROOT / path)).encode(), b'a = 1\n[b]\nc = "d"\n']

    return make


def _read_run(path: Path) -> None:
    table = read_toml(path)
    if auxiliary_kind(table) is None:
        run_config(table, name=path.name)
    else:
        auxiliary_config(table, name=path.name)


_SERVE = b"""host = "127.0.0.1"
port = 8000
allow_hosts = ["faces.example.org"]
models = ["default"]
max_seconds = 30.5
folder = "here"
mark = true
stun = "stun:localhost:3478"
"""


def _read_overrides(content: bytes, folder: Path) -> None:
    text = content.decode("utf-8", "surrogateescape").splitlines()
    run_config(merge({}, parse_overrides(text)), name="--set")


_CSV = (b"start,end\n1.0,1.4\n2.2,2.6\n", b"first,last\n25,34\n", b"frame\n3\n4\n", b"1.0-1.4\n")
_LOST_JSON = (b'{"seconds": [[1.0, 1.4]]}', b'{"frames": [[25, 34], 7]}', b"[[1, 2], [3.5, 4.0]]")
_LOST_TEXT = (b"1.0-1.4,2.2-2.6\n", b"25-34, 60\n70- # rest\n", b"1s-2s;25s..26s\n")
_JOBS = (b"photo,speech,output,seed\na.jpg,b.wav,c.mp4,1\nd.jpg,e.wav,f.mp4,\n",)


# --- studies ----------------------------------------------------------------------------------

_KINDS = ("preference", "turing", "mos", "intelligibility")


@functools.cache
def _study_files(kind: str) -> dict[str, bytes]:
    """A study's files by name. Its videos are empty: enough for plans and answers."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "study"
        lips = kind == "intelligibility"
        paper_study(
            folder,
            kind,
            items=4,
            training=1,
            catches=2,
            count=4,
            catch=1,
            words=[("bin", "blue", "at", "a", "one", "now")] if lips else None,
            choices=GRID_CHOICES if lips else (),
        )
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }


def _write_study(kind: str, folder: Path, changes: dict[str, bytes]) -> Path:
    (folder / "videos").mkdir(parents=True)
    for name, data in (_study_files(kind) | changes).items():
        (folder / name).write_bytes(data)
    return folder


def _open_study(folder: Path) -> None:
    from stillspeak.study.app import create_app

    study = Study.load(folder)
    check_plan(study)
    plan_session(study, {}, 1)
    create_app(folder).state.study.store.close()


def _settings() -> list[bytes]:
    import tomllib

    return [
        as_toml(tomllib.loads(_study_files(kind)["study.toml"].decode())).encode()
        for kind in _KINDS
    ]


def _read_settings(content: bytes, folder: Path) -> None:
    # The kind of the videos is that of the first good line, so that more than one can be tried.
    kind = next((k for k in _KINDS if k.encode() in content[:60]), _KINDS[0])
    _open_study(_write_study(kind, folder / "study", {"study.toml": content}))


def _read_truth(content: bytes, folder: Path) -> None:
    kind = next((k for k in _KINDS if f'"kind": "{k}"'.encode() in content), _KINDS[0])
    _open_study(_write_study(kind, folder / "study", {"materials.json": content}))


@functools.cache
def _clip_bytes() -> tuple[bytes, bytes]:
    mp4, webm = _files(
        lambda folder: [
            write_clip(folder / "a.mp4", frames=6, size=(16, 16)),
            write_clip(folder / "b.webm", frames=6, size=(16, 16)),
        ]
    )
    return mp4, webm


def _make_study(content: bytes, folder: Path) -> None:
    source = folder / "ours"
    source.mkdir()
    suffix = "webm" if content.startswith(b"\x1a\x45") else "mp4"
    (source / f"bbaf2n.{suffix}").write_bytes(content)
    init_study(folder / "study", "mos", [source])


def _read_words(content: bytes, folder: Path) -> None:
    from stillspeak.study.videos import read_words

    (folder / "words.csv").write_bytes(content)
    read_words(folder / "words.csv")


_API = ("start", "resume", "played", "watched", "answer", "delete")
_OTHERS = ("/", "/healthz", "/static/study.js", "/api/state", "/video/", "/video/0123", "/none")


def _requests() -> list[bytes]:
    answers: tuple[Any, ...] = ("first", "real", 3, ["bin"] * 6, "bin blue")
    seeds = []
    for answer in answers:
        said = {"position": 1, "responseMs": 900, "answers": {"natural": answer, "real": answer}}
        seeds.append([["POST", "/api/answer", {}, said | {"answers": {"quality": answer}}]])
        seeds.append([["POST", "/api/answer", {}, said | {"answers": {"words": answer}}]])
        seeds.append([["POST", "/api/answer", {}, said | {"answers": {"natural": answer}}]])
        seeds.append([["POST", "/api/answer", {}, said | {"answers": {"real": answer}}]])
    for name in ("played", "watched"):
        seeds.append([["POST", f"/api/{name}", {}, {"position": 1}]])
    seeds.append([["POST", "/api/start", {"origin": "http://testserver"}, {"key": "0" * 32}]])
    seeds.append([["POST", "/api/start", {}, {"key": "0" * 32, "agreed": True}]])
    seeds.append([["POST", "/api/resume", {"cookie": "study_session=AB12"}, {"code": "ABCD-EFGH"}]])
    seeds.append([["POST", "/api/delete", {}, {"confirmed": True}], ["GET", "/api/state", {}, ""]])
    for path in _OTHERS:
        seeds.append([["GET", path, {"range": "bytes=0-5"}, ""], ["HEAD", path, {}, ""]])
    return [json.dumps(seed).encode() for seed in seeds]


@functools.cache
def _served(kind: str) -> Any:
    """A study's application in this process, and a browser of it."""
    import atexit

    from starlette.testclient import TestClient

    from stillspeak.study.app import create_app
    from stillspeak.study.rate_limit import Rate

    folder = Path(tempfile.mkdtemp(prefix="fuzz-study-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    text = _study_files(kind)["study.toml"].replace(b"must_watch = true", b"must_watch = false")
    text = text.replace(b"starts_per_hour = 60", b"starts_per_hour = 0")
    text = text.replace(b"requests_per_minute = 1200", b"requests_per_minute = 0")
    app = create_app(_write_study(kind, folder / "study", {"study.toml": text}))
    app.state.study.tries = Rate(0, 3600)  # else all but the first thirty say only "too many"
    client = TestClient(app)
    client.__enter__()
    return client


def _ask(content: bytes, folder: Path) -> None:
    """Requests of a visitor: a list of method, path, headers and body."""
    try:
        asked = json.loads(content)
    except (ValueError, RecursionError):
        asked = content
    if not isinstance(asked, list):
        asked = [["POST", f"/api/{_API[len(content) % len(_API)]}", {}, content]]
    client = _served(_KINDS[sum(content[:400]) % len(_KINDS)])
    client.cookies.clear()
    usual = {"x-study": "1", "content-type": "application/json"}
    client.post("/api/start", json={"key": "ab" * 16, "agreed": True}, headers=usual)
    for item in asked[:6]:
        method, path, headers, body = _parts(item)
        if not isinstance(body, bytes):
            try:
                body = json.dumps(body).encode()
            except RecursionError:
                body = b"[" * 9000
        try:
            request = client.build_request(
                method, path, headers=usual | headers, content=body if method != "GET" else None
            )
        except Exception:  # noqa: S112 - no client can send that
            continue
        if request.url.host != "testserver":
            continue
        answer = client.send(request)
        _sane(
            answer.status_code < 500, f"{method} {path[:60]!r} {body[:200]!r}: {answer.text[:200]}"
        )


def _parts(item: Any) -> tuple[str, str, dict[str, str], Any]:
    if not isinstance(item, list):
        return "POST", "/api/answer", {}, item
    method, path, headers, body = [*item, "GET", "/", {}, ""][:4] if len(item) < 4 else item[:4]
    given = headers if isinstance(headers, dict) else {}
    return (
        str(method)[:20],
        path if isinstance(path, str) and path.startswith("/") else "/",
        {str(k)[:50]: str(v)[:2000] for k, v in given.items()},
        body,
    )


# --- all of them ------------------------------------------------------------------------------


def _make_targets() -> Iterator[Target]:
    few = _arrays((3, 4), (3, 4, 1), (3, 4, 3), (3, 4, 4), (5,), (3, 4, 2))
    yield Target(
        "image",
        (
            Form("picture", _pictures, _read_picture),
            Form("picture array", few, _read_picture_array),
        ),
    )
    live = _arrays((40,), (40, 2), (2, 40), (0,), (40, 33))
    yield Target(
        "audio",
        (
            Form("sound", _sounds, _read_sound),
            Form("sound file", _sounds, _into("sound.bin", _read_sound_file)),
            Form("sound array", live, _read_sound_array),
            Form("live sound", live, _read_live_sound),
            Form("video", _videos, _into("video.bin", _read_video)),
            Form("video to dub", _videos, _into("video.bin", _dub)),
            Form("video with sound", lambda: _videos()[:2], _into("video.bin", _read_both)),
        ),
    )
    yield Target(
        "weights",
        (
            Form(
                "generator", _generators, _into("a.safetensors", weights.load_model), "safetensors"
            ),
            Form("header", _generators, _into("a.safetensors", weights.read_info), "safetensors"),
            Form(
                "lip reader", _lip_readers, _into("a.safetensors", load_lip_reader), "safetensors"
            ),
            Form(
                "sync network",
                _sync_networks,
                _into("a.safetensors", load_sync_scorer),
                "safetensors",
            ),
            Form(
                "checkpoint", _checkpoints, _into("a.safetensors", load_checkpoint), "safetensors"
            ),
        ),
    )
    yield Target(
        "cache",
        (
            Form("manifest", lambda: [_ready_cache()[MANIFEST]], _train(MANIFEST), "lines"),
            Form(
                "prepared clip",
                lambda: [_ready_cache()["a/one.safetensors"]],
                _train("a/one.safetensors"),
                "safetensors",
            ),
            Form(
                "split",
                lambda: [b'{"train": ["s1"], "validation": ["s2"], "test": []}'],
                _splits,
                "json",
            ),
            Form(
                "alignment",
                lambda: [b"0 23750 sil\n23750 29500 bin\n29500 34000 blue\n"],
                _into("a.align", read_alignment),
                "text",
            ),
        ),
    )
    yield Target(
        "configuration",
        (
            Form("training", _toml("configs/smoke.toml"), _into("a.toml", _read_run), "toml"),
            Form("auxiliary", _toml("configs/lipnet.toml"), _into("a.toml", _read_run), "toml"),
            Form(
                "web settings",
                lambda: [_SERVE],
                _into("a.toml", lambda p: build(ServeSettings, read_toml(p), name=p.name)),
                "toml",
            ),
            Form(
                "overrides",
                lambda: [b"training.steps=5\ndata.batch = 3\ngenerator.decoder=unet\n"],
                _read_overrides,
                "text",
            ),
            Form("lost frames, CSV", lambda: _CSV[:3], _into("a.csv", read_lost), "text"),
            Form("lost frames, JSON", lambda: _LOST_JSON, _into("a.json", read_lost), "json"),
            Form("lost frames, text", lambda: _LOST_TEXT, _into("a.txt", read_lost), "text"),
            Form("jobs", lambda: _JOBS, _into("jobs.csv", read_jobs), "text"),
        ),
    )
    yield Target(
        "study",
        (
            Form("study.toml", _settings, _read_settings, "toml"),
            Form(
                "materials",
                lambda: [_study_files(kind)["materials.json"] for kind in _KINDS],
                _read_truth,
                "json",
            ),
            Form("study's video", _clip_bytes, _make_study),
            Form(
                "words",
                lambda: [b"file,words\nbbaf2n.mp4,bin blue at f two now\nx,lay red\n"],
                _read_words,
                "text",
            ),
            Form("requests", _requests, _ask, "json", fresh=False),
            Form("more requests", _requests, _ask, "json", fresh=False),
        ),
    )


@functools.cache
def targets() -> dict[str, Target]:
    """The targets by name."""
    return {target.name: target for target in _make_targets()}
