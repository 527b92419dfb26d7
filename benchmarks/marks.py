"""What the marks cost and what they survive.

    python benchmarks/marks.py [--videos FOLDER] [--trials 20000] [--output results/marks]

Bit errors of the watermark after H.264 at several qualities and sizes, its cost in time, file size
and likeness, how often it is seen where there is none, and 40 files that ``stillspeak inspect`` has
to judge. Portraits are skimage's astronaut, animated by the default model, and a drawn face, whose
smooth colours are where a pattern would show. FOLDER holds unmarked videos to look for false alarms
in. Times are CPU milliseconds of one thread. Writes marks.md and marks.json.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from stillspeak.media.marks import watermark
from stillspeak.media.marks.credentials import read_credentials
from stillspeak.media.marks.inspection import inspect_file
from stillspeak.media.marks.marking import Marks
from stillspeak.media.marks.origin import Origin, Source
from stillspeak.media.marks.signing import find_signer, sign
from stillspeak.media.marks.watermark import Watermarker, read_watermark, symbol_bits
from stillspeak.media.video import iter_frames
from stillspeak.media.video_writer import write_video

Frames = list[np.ndarray]

CONDITIONS = (
    ("crf 18", 18, 1.0),
    ("crf 23", 23, 1.0),
    ("crf 28", 28, 1.0),
    ("0.5x, crf 23", 23, 0.5),
    ("0.75x, crf 23", 23, 0.75),
    ("1.5x, crf 23", 23, 1.5),
)
"""Each on top of the crf 18 that the file was written with."""
FRAMES = 75


def main() -> None:
    """Run all parts and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--identifiers", type=int, default=4, help="videos of each portrait")
    parser.add_argument("--trials", type=int, default=20_000, help="keys tried on unmarked files")
    parser.add_argument("--videos", type=Path, help="folder of unmarked videos")
    parser.add_argument("--output", type=Path, default=Path("results/marks"))
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    portraits = animated()
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["STILLSPEAK_CONFIG"] = str(Path(folder, "config"))
        table: dict[str, Any] = {
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python "
            f"{platform.python_version()}",
            "costs": [cost(name, frames) for name, frames in portraits.items()],
            "bits": [
                row
                for name, frames in portraits.items()
                for row in bits(name, frames, arguments.identifiers)
            ],
            "false_alarms": false_alarms(portraits, arguments.trials, arguments.videos),
            "credentials": credentials_cost(portraits, Path(folder)),
            "files": judged(portraits, Path(folder, "files")),
        }
    table["took_s"] = round(time.perf_counter() - started, 1)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "marks.json").write_text(json.dumps(table, indent=1))
    text = markdown(table)
    (arguments.output / "marks.md").write_text(text)
    print(text)


# --- material -----------------------------------------------------------------------------------


def animated() -> dict[str, Frames]:
    """Unmarked frames (H, W, 3) uint8 by what they show: the astronaut and a drawn face."""
    from importlib.resources import files

    from skimage.data import astronaut

    from stillspeak import Animator, load_audio

    speech = load_audio(Path(str(files("stillspeak"))) / "resources" / "speech.flac")
    speech = speech[: FRAMES * 640]
    made: dict[str, Frames] = {}
    with Animator(device="cpu") as animator:
        for name, options in (
            ("crop 96x128", {"crop": True}),
            ("crop 384x512", {"crop": True, "size": 512}),
            ("photo 256x256", {"size": 256}),
            ("photo 512x512", {}),
            ("photo 1024x1024", {"size": 1024}),
        ):
            made[name] = list(animator.animate(astronaut(), (speech, 16_000), **options))
    made["drawn 384x512"] = drawn(512, 384)
    made["drawn 96x128"] = drawn(128, 96)
    return made


def drawn(height: int, width: int) -> Frames:
    """A face of smooth colours on a smooth ground, with a mouth that opens and shuts."""
    ys, xs = np.mgrid[:height, :width].astype(np.float32)
    x, y = (xs - width / 2) / (0.36 * width), (ys - 0.48 * height) / (0.36 * height)
    ground = np.stack([150 + 40 * ys / height, 160 + 20 * xs / width, 170 - 0 * xs], axis=-1)
    skin = np.stack([215 - 25 * y, 170 - 20 * y, 150 - 15 * x], axis=-1)

    def inside(distance: np.ndarray, soft: float) -> np.ndarray:
        return (1 / (1 + np.exp(np.clip((distance - 1) * soft, -40, 40))))[..., None]

    face = ground + (skin - ground) * inside(x**2 + y**2, 30)
    for side in (-0.35, 0.35):
        eye = ((x - side) / 0.14) ** 2 + ((y + 0.2) / 0.09) ** 2
        face = face + (np.array([60, 45, 40]) - face) * inside(eye, 12)
    frames = []
    for index in range(FRAMES):
        opening = 0.04 + 0.1 * abs(np.sin(0.5 * index))
        mouth = inside((x / 0.3) ** 2 + ((y - 0.5) / opening) ** 2, 10)
        frames.append(np.rint(face + (np.array([90, 35, 40]) - face) * mouth).astype(np.uint8))
    return frames


def encode(
    frames: Sequence[np.ndarray], crf: int, scale: float = 1.0, codec: str = "libx264"
) -> bytes:
    """An MP4 (or WebM, for libvpx-vp9) of frames, scaled first."""
    height, width = (max(round(scale * side / 2) * 2, 16) for side in frames[0].shape[:2])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    options = {"crf": str(crf)}
    if codec != "libx264":
        options |= {"b": "0", "deadline": "good", "cpu-used": "5"}
    file = io.BytesIO()
    with av.open(file, "w", format="mp4" if codec == "libx264" else "webm") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, frame in enumerate(frames):
            if frame.shape[:2] != (height, width):
                frame = cv2.resize(frame, (width, height), interpolation=way)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return file.getvalue()


def decode(data: bytes) -> Frames:
    """All frames of a file."""
    with av.open(io.BytesIO(data)) as container:
        return [
            np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


# --- the watermark ------------------------------------------------------------------------------


def cost(name: str, frames: Frames) -> dict[str, Any]:
    """Time, likeness and file size of the watermark in one video."""
    from skimage.metrics import structural_similarity

    Watermarker(1).mark(frames[0])  # tables, libraries
    began = time.process_time()
    Watermarker(2).mark(frames[0])
    first = time.process_time() - began
    marker = Watermarker(0x5EED0001)
    began = time.process_time()
    marked = [marker.mark(frame) for frame in frames]
    each = (time.process_time() - began) / len(frames)
    began = time.process_time()
    read_watermark(marked[:25])
    reading = time.process_time() - began
    pairs = list(zip(frames[::15], marked[::15], strict=True))
    error = np.mean([np.mean((one.astype(float) - two) ** 2) for one, two in pairs])
    likeness = [structural_similarity(one, two, channel_axis=2) for one, two in pairs]
    # Where the unmarked video stands still, the marked one has to.
    still = (np.ptp(np.stack(frames[:25]), axis=0) == 0).all(axis=-1)
    moves = (np.ptp(np.stack(marked[:25]), axis=0) != 0).any(axis=-1)
    flat = flat_places(frames[0])
    change = marked[0].astype(float) - frames[0]
    return {
        "video": name,
        "first_frame_ms": 1000 * first,
        "frame_ms": 1000 * each,
        "read_a_second_ms": 1000 * reading,
        "psnr_db": float(10 * np.log10(255**2 / error)),
        "ssim": float(np.mean(likeness)),
        "rms_in_flat_places": float(np.sqrt(np.mean(change[flat] ** 2))) if flat.any() else None,
        "largest_change": int(np.abs(change).max()),
        "still_pixels_that_move": int((still & moves).sum()),
        "file_bytes": len(encode(frames, 18)),
        "file_bytes_marked": len(encode(marked, 18)),
    }


def flat_places(frame: np.ndarray) -> np.ndarray:
    """(H, W) bool: neither edges nor texture within 7 pixels."""
    luma = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = np.abs(luma - cv2.GaussianBlur(luma, (0, 0), 2))
    return cv2.dilate(fine, np.ones((15, 15), np.uint8)) < 2


def bits(name: str, frames: Frames, identifiers: int) -> Iterator[dict[str, Any]]:
    """Bit errors of one portrait under every condition."""
    random = np.random.default_rng(3)
    chosen = [int(random.integers(2**32)) for _ in range(identifiers)]
    written = {}
    for identifier in chosen:
        marker = Watermarker(identifier)
        written[identifier] = decode(encode([marker.mark(frame) for frame in frames], 18))
    for condition, crf, scale in CONDITIONS:
        wrong, found, read, false = 0, 0, 0, 0
        for identifier, shown in written.items():
            again = decode(encode(shown, crf, scale))
            wrong += (symbol_bits(again) ^ identifier).bit_count()
            reading = read_watermark(again)
            found += reading.present
            read += reading.identifier == identifier
            false += reading.identifier not in (None, identifier)
        yield {
            "video": name,
            "condition": condition,
            "bit_error_rate": wrong / (32 * identifiers),
            "found": found / identifiers,
            "identifier_read": read / identifiers,
            "identifier_wrong": false / identifiers,
        }


def false_alarms(portraits: dict[str, Frames], trials: int, videos: Path | None) -> dict[str, Any]:
    """How often a mark is seen where there is none.

    Another key is the same as other signs of the chips, so each random choice of signs on an
    unmarked picture is a trial of its own.
    """
    import skimage.data

    stills = [frames[0] for frames in portraits.values()]
    for name in ("coffee", "chelsea", "rocket", "retina", "immunohistochemistry", "camera"):
        try:
            picture = getattr(skimage.data, name)()
        except Exception as problem:  # some are fetched from the network, which may be away
            print(f"without {name}: {type(problem).__name__}")
            continue
        if picture.ndim == 2:
            picture = np.repeat(picture[..., None], 3, axis=2)
        stills.append(np.ascontiguousarray(picture))
    random = np.random.default_rng(5)
    scores = []
    alarms = 0
    each = trials // len(stills)
    for still in stills:
        values = watermark._levelled(watermark._canonical(still))
        total = watermark._Sum()
        total.windows = 1
        for _ in range(each):
            signs = 1.0 - 2.0 * random.integers(0, 2, values.size)
            total.total = (values * signs).astype(np.float32)
            reading = total.reading(1)
            scores.append(reading.score)
            alarms += reading.present
    own = [read_watermark([still]).score for still in stills]
    result: dict[str, Any] = {
        "pictures": len(stills),
        "trials": len(scores),
        "alarms": alarms,
        "score_mean": float(np.mean(scores)),
        "score_deviation": float(np.std(scores)),
        "score_largest": float(np.max(scores)),
        "scores_above_4": int(np.sum(np.array(scores) >= watermark.PRESENT_WITH_IDENTIFIER)),
        "own_key_scores": own,
    }
    if videos is not None:
        files = [p for p in sorted(videos.rglob("*")) if p.suffix in (".mpg", ".mp4", ".webm")]
        readings = [read_watermark(iter_frames(path)) for path in files]
        result |= {
            "videos": len(files),
            "video_alarms": sum(reading.present for reading in readings),
            "video_score_largest": max((reading.score for reading in readings), default=None),
        }
    return result


def credentials_cost(portraits: dict[str, Frames], folder: Path) -> list[dict[str, Any]]:
    """CPU time and bytes that credentials add to a file."""
    rows = []
    plain = folder / "plain.mp4"
    signed = folder / "signed.mp4"
    for name in ("crop 96x128", "photo 512x512", "photo 1024x1024"):
        write_video(plain, portraits[name], overwrite=True)
        signer = find_signer()
        began = time.process_time()
        for _ in range(10):
            with plain.open("rb") as source, signed.open("w+b") as target:
                sign(source, target, "video/mp4", origin(1), 1, signer)
        took = 1000 * (time.process_time() - began) / 10
        began = time.process_time()
        for _ in range(10):
            read_credentials(signed)
        check = 1000 * (time.process_time() - began) / 10
        rows.append(
            {
                "video": name,
                "sign_ms": took,
                "check_ms": check,
                "bytes": signed.stat().st_size - plain.stat().st_size,
                "file_bytes": plain.stat().st_size,
            }
        )
    return rows


# --- forty files --------------------------------------------------------------------------------


def origin(seed: int) -> Origin:
    return Origin(
        "alive",
        "0" * 64,
        Source(f"{seed:064x}", "file", "image/png"),
        Source(f"{seed + 1:064x}", "file", "audio/wav"),
        settings={"seed": seed},
    )


def judged(portraits: dict[str, Frames], folder: Path) -> list[dict[str, Any]]:
    """Ten files of each kind, what they are and what ``inspect`` says."""
    folder.mkdir()
    rows = []
    makers = (("intact", intact), ("tampered", tampered), ("re-encoded", encoded_again))
    for kind, make in (*makers, ("unmarked", unmarked)):
        for what, path in make(portraits, folder / kind):
            found = inspect_file(path)
            rows.append(
                {
                    "kind": kind,
                    "what": what,
                    "verdict": found.verdict,
                    "right": found.verdict == kind,
                    "score": found.watermark.score,
                    "identifier": found.watermark.identifier,
                    "problem": "; ".join(found.credentials.problems) if found.credentials else "",
                }
            )
    return rows


Made = Iterator[tuple[str, Path]]


def tone(frames: Frames) -> np.ndarray:
    return (0.2 * np.sin(np.arange(len(frames) * 640) / 9)).astype(np.float32)


def written(path: Path, frames: Frames, marks: Marks | None) -> Path:
    path.parent.mkdir(exist_ok=True)
    write_video(path, frames, audio=tone(frames), marks=marks, overwrite=True)
    return path


def intact(portraits: dict[str, Frames], folder: Path) -> Made:
    for number, (name, frames) in enumerate(portraits.items()):
        shown = frames[:50] if "1024" in name else frames
        yield f"mp4, {name}", written(folder / f"{number}.mp4", shown, Marks(origin(number)))
    photo = portraits["photo 512x512"]
    yield "gif", written(folder / "a.gif", portraits["photo 256x256"][:15], Marks(origin(20)))
    label = Marks(origin(21), label="AI-generated")
    yield "mp4 with a label", written(folder / "label.mp4", photo, label)
    yield "folder of png", written(folder / "frames", photo[:10], Marks(origin(22)))


def tampered(portraits: dict[str, Frames], folder: Path) -> Made:
    photo = portraits["photo 512x512"]
    whole = written(folder / "whole.mp4", photo, Marks(origin(30)))
    data = whole.read_bytes()

    def changed(name: str, change: Callable[[bytearray], object]) -> Path:
        new = bytearray(data)
        result = change(new)
        path = folder / name
        path.write_bytes(bytes(result if isinstance(result, bytes | bytearray) else new))
        return path

    def flip(place: int) -> Callable[[bytearray], None]:
        def change(new: bytearray) -> None:
            new[place] ^= 1

        return change

    picture = data.index(b"mdat")
    yield "a bit of the picture", changed("picture.mp4", flip(picture + (len(data) - picture) // 2))
    yield "a bit of the last sound", changed("sound.mp4", flip(len(data) - 20))
    comment = data.index(b"Synthetic") if b"Synthetic" in data else data.index(b"moov") + 30
    yield "the metadata", changed("metadata.mp4", flip(comment))
    yield (
        "a hash in the credentials",
        changed("claim.mp4", flip(data.index(b"org.stillspeak") + 80)),
    )
    signature = data.index(b"c2cs") if b"c2cs" in data else data.index(b"c2pa.signature")
    yield "the signature", changed("signature.mp4", flip(signature + 400))
    yield "cut short", changed("short.mp4", lambda new: new[: int(0.8 * len(new))])
    box = (24).to_bytes(4, "big") + b"mdat" + bytes(16)
    yield "data appended", changed("longer.mp4", lambda new: new + box)
    # Credentials of one video put into another one.
    begin, end = manifest_box(data)
    other = written(folder / "other.mp4", portraits["crop 384x512"], None).read_bytes()
    first = int.from_bytes(other[:4], "big")
    moved = folder / "moved.mp4"
    moved.write_bytes(shifted(other, first, data[begin:end]))
    yield "another video's credentials", moved
    # Signed again, with an identifier that the pixels do not bear.
    lie = folder / "lie.mp4"
    plain = written(folder / "plain.mp4", photo, Marks(origin(31), credentials=False))
    with plain.open("rb") as source, lie.open("w+b") as target:
        sign(source, target, "video/mp4", origin(32), origin(32).identifier, find_signer())
    yield "signed for another identifier", lie
    frames = written(folder / "frames", photo[:10], Marks(origin(33)))
    target = frames / "000004.png"
    shown = cv2.imread(str(target))
    shown[:40, :40] = 0
    cv2.imwrite(str(target), shown)
    yield "one png of ten drawn upon", frames


def manifest_box(data: bytes) -> tuple[int, int]:
    """Where the box with the credentials lies in an MP4."""
    place = 0
    while place < len(data):
        size = int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] == b"uuid":
            return place, place + size
        place += size
    raise ValueError("no credentials")


def shifted(data: bytes, place: int, box: bytes) -> bytes:
    """An MP4 with a box put in, its tables of offsets moved along."""
    new = bytearray(data)
    at = 0
    while (at := new.find(b"stco", at)) >= 0:
        count = int.from_bytes(new[at + 8 : at + 12], "big")
        for index in range(count):
            where = slice(at + 12 + 4 * index, at + 16 + 4 * index)
            new[where] = (int.from_bytes(new[where], "big") + len(box)).to_bytes(4, "big")
        at += 4
    return bytes(new[:place]) + box + bytes(new[place:])


def encoded_again(portraits: dict[str, Frames], folder: Path) -> Made:
    folder.mkdir()
    photo = written(folder / "photo.mp4", portraits["photo 512x512"], Marks(origin(40)))
    shown = list(iter_frames(photo))

    def put(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    for crf, scale in ((18, 1.0), (23, 1.0), (28, 1.0), (23, 0.5), (23, 0.75), (23, 1.5)):
        data = encode(shown, crf, scale)
        yield f"mp4, {scale:g}x, crf {crf}", put(f"{crf}-{scale:g}.mp4", data)
    yield "webm, VP9", put("vp9.webm", encode(shown, 33, codec="libvpx-vp9"))
    yield "mp4, mirrored, crf 23", put("mirror.mp4", encode([f[:, ::-1] for f in shown], 23))
    wide = [cv2.copyMakeBorder(f, 0, 0, 200, 200, cv2.BORDER_CONSTANT) for f in shown]
    yield "mp4, black bars at the sides, crf 23", put("bars.mp4", encode(wide, 23))
    small = written(folder / "crop.mp4", portraits["crop 96x128"], Marks(origin(41)))
    yield "mp4, crop 96x128, crf 23", put("small.mp4", encode(list(iter_frames(small)), 23))


def unmarked(portraits: dict[str, Frames], folder: Path) -> Made:
    for number, (name, frames) in enumerate(portraits.items()):
        shown = frames[:50] if "1024" in name else frames
        yield f"mp4, {name}", written(folder / f"{number}.mp4", shown, None)
    yield "webm", written(folder / "a.webm", portraits["photo 256x256"], None)
    yield "gif", written(folder / "a.gif", portraits["crop 96x128"], None)
    random = np.random.default_rng(6)
    noise = [random.integers(0, 256, (256, 256, 3), dtype=np.uint8) for _ in range(25)]
    yield "mp4 of noise", written(folder / "noise.mp4", noise, None)


# --- tables -------------------------------------------------------------------------------------


def markdown(table: dict[str, Any]) -> str:
    """All results as Markdown."""
    lines = ["# Marks", "", f"{table['machine']}; {table['took_s']} s for all of it.", ""]
    lines += ["## Bit error rate, and the share of videos whose identifier was read", ""]
    names = list(dict.fromkeys(row["video"] for row in table["bits"]))
    lines += ["| | " + " | ".join(name for name, _, _ in CONDITIONS) + " |"]
    lines += ["| --- |" + " ---: |" * len(CONDITIONS)]
    for name in names:
        rows = [row for row in table["bits"] if row["video"] == name]
        cells = (f"{row['bit_error_rate']:.3f} ({row['identifier_read']:.0%})" for row in rows)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    for title, key in (("Cost of the watermark", "costs"), ("Credentials", "credentials")):
        lines += ["", f"## {title}", ""]
        keys = list(table[key][0])
        lines += ["| " + " | ".join(keys) + " |", "|" + " --- |" * len(keys)]
        for row in table[key]:
            cells = (f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values())
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## False alarms", ""]
    lines += [f"- {name}: {value}" for name, value in table["false_alarms"].items()]
    right = sum(row["right"] for row in table["files"])
    lines += ["", f"## Files judged: {right} of {len(table['files'])} rightly", ""]
    lines += ["| what it is | how it was made | verdict | score | problem |"]
    lines += ["| --- | --- | --- | ---: | --- |"]
    for row in table["files"]:
        verdict = row["verdict"] + ("" if row["right"] else " (WRONG)")
        problem = row["problem"][:90].replace("|", "/")
        lines.append(
            f"| {row['kind']} | {row['what']} | {verdict} | {row['score']:.1f} | {problem} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
