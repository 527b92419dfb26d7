"""A prepared cache as a few files of limited size, for a machine that is reached in parcels.

A cache holds 36 KB a frame. Packed, a frame takes about 2 KB:

==============  ===================================================================
``frames``      H.264 4:4:4, the clip as one group of pictures, at a constant quality
``mouth``       the same, where a clip has it
``audio``       FLAC, 16 bit
``landmarks``   in 1/64 pixel, differences in time and between neighbours, LZMA
all others      as they are, LZMA
==============  ===================================================================

A tensor that does not fit its coding (other type, not finite, out of range) goes as it is.
Sound is off by at most 1/32768, landmarks by at most 1/128 pixel; everything else is equal.

Clips go in turns: one of every speaker, then a second one of every speaker, and so on, a
speaker's own clips in an order that spreads evenly over all of them. So a limit takes from the
speakers with many clips, and every part by itself is a fair sample.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from archive import (
    MIB,
    MOST_PARTS,
    OVERHEAD,
    Box,
    confined,
    read_box,
    replacing,
    table_bytes,
    write_box,
)
from stillspeak.constants import SAMPLE_RATE, VIDEO_FPS
from stillspeak.data.cache import MANIFEST, CachedClip, cached_clip, load_manifest, open_clip
from stillspeak.errors import DataError
from stillspeak.system.configuration import read_json

FORMAT = 1
"""Version of the parts; raise it whenever an older reader would read them wrongly."""

CRF = 10
"""Quality of the crops on H.264's scale: 42.2 dB PSNR on GRID at 0.9 KB a frame."""

LANDMARK_STEP = 1 / 64
"""Pixels."""

PART_BYTES = 45 * MIB
SPLITS = ("train", "validation")
"""What is packed unless something else is asked for: the test split stays where it is."""

RECORD = "unpacked.json"
"""In an unpacked cache: which parts it was made of."""

_PART = "part-{:03d}-of-{:03d}.pack"
_PARTS = "part-*-of-*.pack"
_ENCODED = ".encoded"
_LZMA: list[dict[str, int]] = [{"id": lzma.FILTER_LZMA2, "preset": 6}]
_TENSOR_LIMIT = 8 * 2**30
_PLAIN_LIMIT = 128 * MIB
"""Of tensors that are neither pictures nor sound: half an hour of landmarks."""
_LENGTH = 4

Array = npt.NDArray[Any]
Progress = Callable[[int, int, str], None]
"""Called with what is done, of how many, and the name of the last one."""


@dataclass(frozen=True)
class Packed:
    """What :func:`pack` made: files in order, their bytes, clips and frames in them.

    ``left_out`` counts the clips that the limit kept out, ``again`` says that everything was
    there already.
    """

    parts: tuple[Path, ...]
    bytes: int
    clips: int
    frames: int
    speakers: int
    left_out: int
    again: bool


@dataclass(frozen=True)
class Unpacked:
    """What :func:`unpack` found and did.

    ``clips`` were written now, ``skipped`` were there; ``missing`` are the numbers of the
    ``parts`` that have not arrived yet, ``damaged`` one line a part that cannot be used.
    """

    clips: int
    skipped: int
    listed: int
    parts: int
    missing: tuple[int, ...]
    damaged: tuple[str, ...]


def pack(
    cache: Path,
    folder: Path,
    *,
    splits: Sequence[str] = SPLITS,
    speakers: Sequence[str] | None = None,
    clips_per_speaker: int | None = None,
    part_bytes: int = PART_BYTES,
    max_bytes: int | None = None,
    crf: int = CRF,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Packed:
    """Pack a prepared cache.

    May be stopped and started again: encoded clips are kept in the folder until all parts are
    written. Older parts in the folder are removed when the new ones are in place. The same
    cache and choice give the same bytes with the same encoders.

    Args:
        cache: a prepared cache.
        folder: of the parts; made if missing.
        splits: which to take.
        speakers: which to take; None takes all.
        clips_per_speaker: at most so many of each.
        part_bytes: no part is larger.
        max_bytes: all parts together are not larger; None sets no limit.
        crf: quality of the crops, 0 (best) to 51.
        workers: threads; None takes one a core.
        progress: called after each clip.

    Raises:
        DataError: nothing to pack, a clip cannot be read, a clip does not fit into a part,
            or the disk refuses.
    """
    cache = cache.absolute()
    unknown = set(splits) - {*SPLITS, "test"}
    if unknown:
        raise DataError(
            f"there is no split {', '.join(sorted(unknown))}; choose from train, validation, test"
        )
    if not 0 <= crf <= 51:
        raise DataError(f"a crf of {crf} is none; choose from 0 (best) to 51")
    listed = load_manifest(cache)
    absent = set(speakers or ()) - {clip.speaker for clip in listed}
    if absent:
        raise DataError(f"{cache}: holds no speaker {', '.join(sorted(absent))}")
    chosen = [
        (position, clip)
        for position, clip in enumerate(listed)
        if clip.split in splits and (speakers is None or clip.speaker in speakers)
    ]
    order = in_turns(chosen, clips_per_speaker)
    if not order:
        raise DataError(f"{cache}: holds no clip of this choice; see its {MANIFEST}")
    request = hashlib.sha256(
        table_bytes(
            {
                "format": FORMAT,
                "crf": crf,
                "step": LANDMARK_STEP,
                "part_bytes": part_bytes,
                "max_bytes": max_bytes,
                "clips": [[p, _relative(cache, c), c.key, c.frames] for p, c in order],
            }
        )
    ).hexdigest()
    known = _known_parts(folder, request)
    if known is None:
        entries = _encode(cache, folder, order, crf, max_bytes, workers, progress)
        parts = _plan(entries, part_bytes, max_bytes)
        paths = _write_parts(folder, parts, request)
    else:
        paths = known
    taken = [str(clip["file"]) for path in paths for clip in read_box(path).table["clips"]]
    by_file = {_relative(cache, clip): clip for _, clip in order}
    return Packed(
        parts=tuple(paths),
        bytes=sum(path.stat().st_size for path in paths),
        clips=len(taken),
        frames=sum(by_file[file].frames for file in taken),
        speakers=len({by_file[file].speaker for file in taken}),
        left_out=len(order) - len(taken),
        again=known is not None,
    )


def in_turns(
    clips: Sequence[tuple[int, CachedClip]], clips_per_speaker: int | None = None
) -> list[tuple[int, CachedClip]]:
    """Clips with their positions, one of every speaker, then the next one of every speaker.

    A speaker's clips come in bit-reversed order, so that any first few are spread evenly.
    """
    by_speaker: dict[str, list[tuple[int, CachedClip]]] = {}
    for item in clips:
        by_speaker.setdefault(item[1].speaker, []).append(item)
    rows: list[tuple[int, int, tuple[int, CachedClip]]] = []
    for place, own in enumerate(by_speaker.values()):
        bits = len(own).bit_length()
        spread = sorted(range(len(own)), key=lambda i: int(f"{i:0{bits}b}"[::-1], 2))
        rows += [(turn, place, own[i]) for turn, i in enumerate(spread[:clips_per_speaker])]
    return [item for _, _, item in sorted(rows, key=lambda row: row[:2])]


def unpack(
    folder: Path,
    cache: Path,
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Unpacked:
    """Restore a cache that training reads from the parts that are there.

    Parts may come in any order over several calls; those of earlier calls need not be there
    any more. The manifest lists what has arrived, in the order of the packed cache. Clips that
    are there already are left alone. Their keys say that they are packed copies, so
    ``stillspeak prepare`` never takes them for originals.

    Args:
        folder: of the parts.
        cache: made if missing; holds nothing but unpacked clips.
        workers: threads; None takes one a core.
        progress: called after each clip.

    Raises:
        DataError: no part at all; parts of two packs; the cache was prepared or belongs to
            another pack; a part wants to write outside the cache; the disk refuses.
    """
    cache = cache.absolute()
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    boxes: dict[int, Box] = {}
    damaged = []
    paths = sorted(folder.glob(_PARTS))
    if not paths:
        raise DataError(f"{folder}: no parts of a packed cache here ({_PARTS})")
    record = _read_record(cache)
    for path in paths:
        try:
            box = read_box(path)
        except DataError as error:
            damaged.append(str(error))
            continue
        table = box.table
        if table.get("content") != "cache" or table.get("format") != FORMAT:
            raise DataError(f"{path}: was not packed by this version of stillspeak; pack again")
        if not _is_table(table):
            raise DataError(f"{path}: its table is damaged; pack again")
        if record is None:
            record = {"set": table["set"], "parts": table["parts"], "clips": {}}
        if table["set"] != record["set"]:
            raise DataError(
                f"{path}: belongs to another pack than {cache} or the parts beside it; "
                "keep the parts of one pack, and unpack each pack into its own folder"
            )
        boxes[int(table["part"])] = box
    if record is None:
        return Unpacked(0, 0, 0, 0, (), tuple(damaged))
    work: list[tuple[int, Box, dict[str, Any], int, Path]] = []
    for number, box in sorted(boxes.items()):
        offset = 0
        for entry in box.table["clips"]:
            target = confined(cache, entry["file"], suffix=".safetensors")
            work.append((number, box, entry, offset, target))
            offset += int(entry["bytes"])

    def restore(item: tuple[int, Box, dict[str, Any], int, Path]) -> tuple[dict[str, Any], bool]:
        _, box, entry, offset, target = item
        return _restore(box.read(offset, int(entry["bytes"])), box.path, entry["file"], target)

    written = 0
    clips: dict[str, list[dict[str, Any]]] = {}
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        for done, (item, (row, new)) in enumerate(
            zip(work, pool.map(restore, work), strict=True), 1
        ):
            written += new
            clips.setdefault(str(item[0]), []).append(row)
            if progress is not None:
                progress(done, len(work), str(item[2]["file"]))
            if done == len(work) or work[done][0] != item[0]:  # the part is done
                record["clips"] |= clips
                _write_lines(cache / RECORD, [record])
                _write_manifest(cache, record)
    total = int(record["parts"])
    here = {int(number) for number in record["clips"]}
    return Unpacked(
        clips=written,
        skipped=len(work) - written,
        listed=len(_rows(cache, record)),
        parts=total,
        missing=tuple(sorted(set(range(1, total + 1)) - here)),
        damaged=tuple(damaged),
    )


# ------------------------------------------------------------------ parts


@dataclass(frozen=True)
class _Entry:
    """An encoded clip: its line in a part's table and where its bytes are."""

    file: str
    bytes: int
    sha256: str
    path: Path

    @property
    def line(self) -> dict[str, Any]:
        return {"file": self.file, "bytes": self.bytes, "sha256": self.sha256}


def _encode(
    cache: Path,
    folder: Path,
    order: Sequence[tuple[int, CachedClip]],
    crf: int,
    max_bytes: int | None,
    workers: int | None,
    progress: Progress | None,
) -> list[_Entry]:
    """Encode clips in order until all are done or their bytes alone exceed the limit."""
    store = folder / _ENCODED
    wanted = {}
    for position, clip in order:
        choice = [FORMAT, crf, LANDMARK_STEP, position, _relative(cache, clip), clip.key]
        wanted[position] = store / hashlib.sha256(json.dumps(choice).encode()).hexdigest()
    if store.is_dir():
        for path in store.iterdir():
            if path not in set(wanted.values()):
                path.unlink()

    def encode(item: tuple[int, CachedClip]) -> _Entry:
        position, clip = item
        path = wanted[position]
        if not path.is_file():
            with replacing(path) as file:
                file.write(_encode_clip(cache, position, clip, crf))
        data = path.read_bytes()
        return _Entry(_relative(cache, clip), len(data), hashlib.sha256(data).hexdigest(), path)

    entries: list[_Entry] = []
    total = 0
    count = workers or os.cpu_count() or 1
    with ThreadPoolExecutor(count) as pool:
        for start in range(0, len(order), 4 * count):
            for entry in pool.map(encode, order[start : start + 4 * count]):
                entries.append(entry)
                total += entry.bytes
                if progress is not None:
                    progress(len(entries), len(order), entry.file)
            if max_bytes is not None and total > max_bytes:
                break
    return entries


def _table(clips: Sequence[dict[str, Any]], name: str, request: str, part: int, parts: int) -> Any:
    """A part's table; numbers are padded so that its length says nothing of them."""
    return {
        "content": "cache",
        "format": FORMAT,
        "set": name,
        "request": request,
        "part": f"{part:06d}",
        "parts": f"{parts:06d}",
        "clips": list(clips),
    }


def _is_table(table: dict[str, Any]) -> bool:
    """Whether a part's table is one that :func:`_table` makes."""
    try:
        return (
            isinstance(table["set"], str)
            and 1 <= int(table["part"]) <= int(table["parts"]) <= MOST_PARTS
            and all(
                "file" in clip and type(clip["bytes"]) is int and clip["bytes"] >= 0
                for clip in table["clips"]
            )
        )
    except (LookupError, ValueError, TypeError, OverflowError):
        return False


def _plan(entries: Sequence[_Entry], part_bytes: int, max_bytes: int | None) -> list[list[_Entry]]:
    """Fill part after part; stop before the first clip that would exceed the whole's limit.

    Raises:
        DataError: a clip is larger than a part, or the first one than the whole.
    """
    empty = OVERHEAD + len(table_bytes(_table([], "0" * 64, "0" * 64, 0, 0)))
    parts: list[list[_Entry]] = []
    total = size = 0
    for entry in entries:
        own = len(table_bytes(entry.line)) + entry.bytes
        if empty + own > part_bytes:
            raise DataError(
                f"{entry.file}: takes {empty + own} bytes, more than a part may have "
                f"({part_bytes}); allow larger parts"
            )
        fresh = not parts or size + 1 + own > part_bytes
        more = empty + own if fresh else 1 + own  # 1: the comma between two lines
        if max_bytes is not None and total + more > max_bytes:
            break
        if fresh:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += more
        total += more
    if not parts:
        raise DataError(f"not even one clip fits into {max_bytes} bytes; allow more")
    return parts


def _write_parts(folder: Path, parts: Sequence[Sequence[_Entry]], request: str) -> list[Path]:
    name = hashlib.sha256(
        table_bytes({"clips": [[entry.line for entry in part] for part in parts]})
    ).hexdigest()
    paths = []
    for number, part in enumerate(parts, 1):
        table = _table([entry.line for entry in part], name, request, number, len(parts))
        path = folder / _PART.format(number, len(parts))
        write_box(path, table, (entry.path.read_bytes() for entry in part))
        paths.append(path)
    for old in set(folder.glob(_PARTS)) - set(paths):
        old.unlink()
    for encoded in (folder / _ENCODED).iterdir():
        encoded.unlink()
    (folder / _ENCODED).rmdir()
    return paths


def _known_parts(folder: Path, request: str) -> list[Path] | None:
    """The parts in the folder if they are whole and what is asked for now."""
    paths = sorted(folder.glob(_PARTS))
    try:
        tables = [read_box(path).table for path in paths]
    except DataError:
        return None
    fits = all(
        table.get("request") == request and int(table["parts"]) == len(paths) for table in tables
    )
    return paths if paths and fits else None


def _relative(cache: Path, clip: CachedClip) -> str:
    try:
        return clip.file.relative_to(cache).as_posix()
    except ValueError:
        raise DataError(f"{clip.file}: lies outside of {cache}; prepare the cache again") from None


# ------------------------------------------------------------------ one clip


def _encode_clip(cache: Path, position: int, clip: CachedClip, crf: int) -> bytes:
    """A clip as its description, compressed and preceded by its length, and the streams."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(clip.file, framework="numpy") as file:
            metadata = dict(file.metadata() or {})
            arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{clip.file}: cannot be read ({error}); run stillspeak prepare again"
        ) from error
    coded = [_encode_tensor(name, array, crf) for name, array in arrays.items()]
    row = asdict(clip)
    row["file"] = _relative(cache, clip)
    row["key"] = _packed_key(clip.key, crf)
    metadata["key"] = json.dumps(row["key"])
    described = {
        "position": position,
        "row": row,
        "metadata": metadata,
        "tensors": [description for description, _ in coded],
    }
    head = zlib.compress(table_bytes(described), 9)
    return b"".join([len(head).to_bytes(_LENGTH, "little"), head, *(data for _, data in coded)])


def _packed_key(key: str, crf: int) -> str:
    """The key of a packed copy: it names the original's, and is none that prepare makes."""
    return f"{key}+packed-{FORMAT}-crf-{crf}"


def _encode_tensor(name: str, array: Array, crf: int) -> tuple[dict[str, Any], bytes]:
    described: dict[str, Any] = {
        "name": name,
        "shape": list(array.shape),
        "dtype": array.dtype.str,
    }
    extra: dict[str, Any] = {}
    if _is_video(name, array):
        coding, packets = "h264", _encode_video(array, crf)
        extra["packets"] = [len(packet) for packet in packets]
        data = b"".join(packets)
    elif _is_sound(name, array):
        coding = "flac"
        packets, head = _encode_sound(array)
        extra = {"packets": [len(packet) for packet in packets], "head": head.hex()}
        data = b"".join(packets)
    elif _are_landmarks(name, array):
        coding, data = "steps", _encode_steps(array)
        extra["step"] = LANDMARK_STEP
    else:
        coding, data = "lzma", _squeeze(array)
    return described | {"coding": coding, "bytes": len(data)} | extra, data


def _is_video(name: str, array: Array) -> bool:
    return (
        name in ("frames", "mouth")
        and array.dtype == np.uint8
        and array.ndim == 4
        and array.shape[-1] == 3
        and min(array.shape) > 0
        and min(array.shape[1:3]) >= 16
    )


def _is_sound(name: str, array: Array) -> bool:
    return (
        name == "audio"
        and array.dtype == np.float32
        and array.ndim == 1
        and array.size > 0
        and bool((np.abs(array) <= 1).all())
    )


def _are_landmarks(name: str, array: Array) -> bool:
    limit = (2**15 - 1) * LANDMARK_STEP
    return (
        name == "landmarks"
        and array.dtype == np.float32
        and array.ndim == 3
        and bool((np.abs(array) < limit).all())
    )


def _restore(data: bytes, source: Path, file: str, target: Path) -> tuple[dict[str, Any], bool]:
    """Write one clip unless it is there. Returns its line of the record and whether it is new."""
    from safetensors import SafetensorError
    from safetensors.numpy import save

    wrong = f"{source}: {file} cannot be unpacked; pack again with this version of stillspeak"
    try:
        size = int.from_bytes(data[:_LENGTH], "little")
        described = read_json(_inflate(data[_LENGTH : _LENGTH + size]))
        row = dict(described["row"])
        if row["file"] != file:
            raise DataError(wrong)
        clip = cached_clip(row, target, name=f"{source}: {file}")
        line = {"position": int(described["position"]), "row": row}
        if _is_there(clip):
            return line, False
        offset = _LENGTH + size
        tensors = {}
        for tensor in described["tensors"]:
            stream = data[offset : offset + int(tensor["bytes"])]
            offset += len(stream)
            tensors[tensor["name"]] = _decode_tensor(tensor, stream)
        metadata = {str(k): str(v) for k, v in described["metadata"].items()}
        whole = save(tensors, metadata=metadata)
    except (LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{wrong} ({error})") from error
    except (SafetensorError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{wrong} ({error})") from error
    with replacing(target) as out:
        out.write(whole)
    return line, True


def _is_there(clip: CachedClip) -> bool:
    if not clip.file.is_file():
        return False
    try:
        with open_clip(clip) as tensors:
            return bool(tensors.metadata.get("key") == clip.key)
    except DataError:
        return False


def _inflate(data: bytes) -> bytes:
    decoder = zlib.decompressobj()
    text = decoder.decompress(data, 16 * MIB)
    if not decoder.eof:
        raise ValueError("its description does not end")
    return text


def _decode_tensor(described: dict[str, Any], data: bytes) -> Array:
    shape = tuple(int(n) for n in described["shape"])
    dtype = np.dtype(str(described["dtype"]))
    if dtype.kind not in "biuf" or min(shape, default=0) < 0:
        raise ValueError(f"a tensor of type {dtype} and shape {shape}")
    if int(np.prod(shape, dtype=object)) * dtype.itemsize > _TENSOR_LIMIT:
        raise ValueError(f"a tensor of shape {shape} is too large")
    coding = described["coding"]
    if coding == "lzma":
        array = _unsqueeze(data, shape, dtype)
    elif coding == "steps":
        array = _decode_steps(data, shape, float(described["step"]))
    elif coding == "h264":
        array = _decode_video(_split(data, described["packets"]), shape)
    elif coding == "flac":
        array = _decode_sound(_split(data, described["packets"]), described["head"], shape)
    else:
        raise ValueError(f"the coding {coding!r}")
    if array.shape != shape or array.dtype != dtype:
        raise ValueError(f"{described['name']} has another shape or type than it should")
    return np.ascontiguousarray(array)


def _split(data: bytes, sizes: Iterable[int]) -> list[bytes]:
    packets, offset = [], 0
    for size in sizes:
        packets.append(data[offset : offset + size])
        offset += size
    if offset != len(data):
        raise ValueError("its packets and their sizes disagree")
    return packets


# ------------------------------------------------------------------ codings


def _encode_video(frames: npt.NDArray[np.uint8], crf: int) -> list[bytes]:
    """Packets of frames (T, H, W, 3); one thread, so that the bytes are always the same."""
    import av

    T, H, W, _ = frames.shape
    context = av.CodecContext.create("libx264", "w")
    assert isinstance(context, av.VideoCodecContext)
    context.width, context.height, context.pix_fmt = W, H, "yuv444p"
    context.time_base, context.framerate = Fraction(1, VIDEO_FPS), Fraction(VIDEO_FPS)
    context.options = {"crf": str(crf), "preset": "slow", "g": str(max(T, 1))}
    context.thread_count = 1
    packets = []
    for t, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame = frame.reformat(format="yuv444p")
        frame.pts = t
        packets += [bytes(packet) for packet in context.encode(frame)]
    packets += [bytes(packet) for packet in context.encode(None)]
    return [packet for packet in packets if packet]


def _decode_video(packets: Sequence[bytes], shape: tuple[int, ...]) -> Array:
    import av

    context = av.CodecContext.create("h264", "r")
    assert isinstance(context, av.VideoCodecContext)
    context.thread_count = 1
    if len(shape) != 4 or not 0 < shape[0] <= len(packets):
        raise ValueError("its pictures are others than stated")
    frames = np.empty(0, np.uint8)
    t = 0
    for frame in _decoded(context, packets):
        if t == shape[0] or (frame.height, frame.width, 3) != shape[1:]:
            raise ValueError("its pictures are others than stated")
        if not t:  # not before there is one of the stated size, or a number could take all memory
            frames = np.empty(shape, np.uint8)
        frames[t] = frame.to_ndarray(format="rgb24")
        t += 1
    if t != shape[0]:
        raise ValueError(f"{t} of {shape[0]} pictures could be decoded")
    return frames


def _encode_sound(audio: npt.NDArray[np.float32]) -> tuple[list[bytes], bytes]:
    """Packets of sound (S,) in [-1, 1], and the stream's head."""
    import av

    samples = np.clip(np.rint(audio * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)
    context = av.CodecContext.create("flac", "w")
    assert isinstance(context, av.AudioCodecContext)
    context.sample_rate = SAMPLE_RATE
    context.layout, context.format = "mono", "s16"
    context.options = {"compression_level": "12"}
    context.open()
    size = context.frame_size
    packets = []
    for start in range(0, len(samples), size):
        block = np.ascontiguousarray(samples[None, start : start + size])
        frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
        frame.sample_rate, frame.pts = SAMPLE_RATE, start
        packets += [bytes(packet) for packet in context.encode(frame)]
    packets += [bytes(packet) for packet in context.encode(None)]
    return [packet for packet in packets if packet], bytes(context.extradata or b"")


def _decode_sound(packets: Sequence[bytes], head: str, shape: tuple[int, ...]) -> Array:
    import av

    context = av.CodecContext.create("flac", "r")
    context.extradata = bytes.fromhex(head)
    blocks: list[Array] = []
    left = shape[0] if len(shape) == 1 else 0
    for frame in _decoded(context, packets):
        left -= frame.samples
        # More than one channel is none of ours, and from eight on PyAV reads past the frame.
        if left < 0 or len(frame.layout.channels) != 1:
            raise ValueError("its sound is another than stated")
        blocks.append(frame.to_ndarray().reshape(-1))
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.int16)
    if samples.dtype != np.int16 or samples.shape != shape:
        raise ValueError("its sound is another than stated")
    return samples.astype(np.float32) / np.float32(2**15)


def _decoded(context: Any, packets: Sequence[bytes]) -> Iterator[Any]:
    import av

    try:
        for packet in packets:
            yield from context.decode(av.Packet(packet))
        yield from context.decode(None)
    except av.FFmpegError as error:
        raise ValueError(f"its packets cannot be decoded: {error}") from error


def _encode_steps(values: npt.NDArray[np.float32]) -> bytes:
    """Values (T, K, D) in whole steps; numbers wrap around in 16 bits and come back right."""
    steps = np.rint(values / LANDMARK_STEP).astype(np.int16).view(np.uint16)
    change = np.diff(steps, axis=0, prepend=np.zeros_like(steps[:1]))
    change = np.diff(change, axis=1, prepend=np.zeros_like(change[:, :1]))
    signed = change.view(np.int16)
    # Small numbers of either sign get a zero as their high byte.
    return _squeeze(((signed << 1) ^ (signed >> 15)).view(np.uint16))


def _decode_steps(data: bytes, shape: tuple[int, ...], step: float) -> Array:
    coded = _unsqueeze(data, shape, np.dtype(np.uint16))
    change = (coded >> 1) ^ (0 - (coded & 1)).astype(np.uint16)
    steps = np.cumsum(np.cumsum(change, axis=1, dtype=np.uint16), axis=0, dtype=np.uint16)
    return steps.view(np.int16).astype(np.float32) * np.float32(step)


def _squeeze(array: Array) -> bytes:
    """Compress without loss: all first bytes, then all second bytes, and so on."""
    flat = np.ascontiguousarray(array).reshape(-1)
    planes = flat.view(np.uint8).reshape(-1, array.dtype.itemsize).T
    return lzma.compress(planes.tobytes(), format=lzma.FORMAT_RAW, filters=_LZMA)


def _unsqueeze(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if size > _PLAIN_LIMIT:
        raise ValueError(f"a tensor of shape {shape} is too large for its coding")
    decoder = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=_LZMA)
    planes = decoder.decompress(data, max_length=size + 1)
    if len(planes) != size:
        raise ValueError("a tensor is longer or shorter than stated")
    flat = np.frombuffer(planes, np.uint8).reshape(dtype.itemsize, -1).T
    return np.ascontiguousarray(flat).view(dtype).reshape(shape)


# ------------------------------------------------------------------ the unpacked cache


def _read_record(cache: Path) -> dict[str, Any] | None:
    """Which parts the cache was made of; None for a new cache.

    Raises:
        DataError: the cache holds prepared clips, or its record is damaged.
    """
    path = cache / RECORD
    if not path.exists():
        if (cache / MANIFEST).exists():
            raise DataError(
                f"{cache}: holds prepared clips, which unpacking would replace by packed "
                "copies; name a new folder"
            )
        return None
    try:
        record: dict[str, Any] = read_json(path.read_bytes())
        parts = int(record["parts"])
        if not isinstance(record["set"], str) or not 1 <= parts <= MOST_PARTS:
            raise ValueError("its parts")
        for number, lines in record["clips"].items():
            if not 1 <= int(number) <= parts:
                raise ValueError("its parts")
            for line in lines:
                if type(line["position"]) is not int or not isinstance(line["row"]["file"], str):
                    raise ValueError("its clips")
    except (OSError, LookupError, ValueError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(f"{path}: damaged; remove {cache} and unpack again") from error
    return record


def _rows(cache: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """The manifest's rows of the clips that are there, in the packed cache's order."""
    lines = [line for part in record["clips"].values() for line in part]
    return [
        line["row"]
        for line in sorted(lines, key=lambda line: line["position"])
        if confined(cache, line["row"]["file"]).is_file()
    ]


def _write_manifest(cache: Path, record: dict[str, Any]) -> None:
    _write_lines(cache / MANIFEST, _rows(cache, record))


def _write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    with replacing(path) as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows).encode())
