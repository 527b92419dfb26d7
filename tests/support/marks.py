"""Frames and files for the tests of marks."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np

from stillspeak.media.marks.marking import Marks
from stillspeak.media.marks.origin import Origin, Source
from stillspeak.media.marks.signing import find_signer, sign
from support.animate import portrait


@cache
def speaking(frames: int = 30) -> tuple[np.ndarray, ...]:
    """(256, 256, 3) uint8 frames: the portrait with a mouth that opens and shuts."""
    return _with_mouth(portrait(), (131, 143), frames)


@cache
def speaking_photo(frames: int = 26) -> tuple[np.ndarray, ...]:
    """(512, 512, 3) uint8 frames: the same in the whole photo."""
    from skimage.data import astronaut

    return _with_mouth(astronaut(), (227, 143), frames)


def _with_mouth(still: np.ndarray, place: tuple[int, int], frames: int) -> tuple[np.ndarray, ...]:
    made = []
    for index in range(frames):
        frame = still.copy()
        opening = 2 + round(3 * abs(np.sin(0.5 * index)))
        cv2.ellipse(frame, place, (14, opening), 0, 0, 360, (90, 30, 35), -1, cv2.LINE_AA)
        frame.flags.writeable = False
        made.append(frame)
    return tuple(made)


def origin(seed: int = 0, still: Source | None = None) -> Origin:
    """An origin in which everything is known."""
    return Origin(
        "alive",
        64 * "a",
        still or Source(f"{seed:064x}", "file", "image/png"),
        Source(64 * "b", "samples"),
        settings={"seed": seed},
    )


def marks(seed: int = 0) -> Marks:
    return Marks(origin(seed))


def sign_copy(plain: Path, signed: Path, told: Origin, watermark: int | None) -> None:
    """A copy of an MP4 with credentials that tell what you like."""
    with plain.open("rb") as file, signed.open("w+b") as target:
        sign(file, target, "video/mp4", told, watermark, find_signer())


def encoded(frames: Sequence[np.ndarray], crf: int = 23, scale: float = 1.0) -> list[np.ndarray]:
    """Frames after H.264, of another size if wanted."""
    height, width = (round(scale * side / 2) * 2 for side in frames[0].shape[:2])
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": str(crf)})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames:
            if frame.shape[:2] != (height, width):
                way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
                frame = cv2.resize(frame, (width, height), interpolation=way)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    file.seek(0)
    with av.open(file) as container:
        return [
            np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
            for frame in container.decode(video=0)
        ]


def flipped(path: Path, place: int) -> Path:
    """A copy of a file with one bit turned."""
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    copy = path.with_name(f"flipped-{path.name}")
    copy.write_bytes(bytes(data))
    return copy
