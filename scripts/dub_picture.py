"""Makes docs/images/dub.jpg: frames of a video, and the same frames dubbed.

python scripts/dub_picture.py VIDEO SPEECH -o docs/images/dub.jpg
"""

from __future__ import annotations

import argparse
import tempfile
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

import stillspeak
from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.media.contact_sheet import contact_sheet
from stillspeak.media.video import iter_frames

COLUMNS, SIDE, QUALITY = 8, 220, 88


def main() -> None:
    """Dub a video, cut faces out of both, write them in two rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("video", type=Path)
    parser.add_argument("speech", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--first", type=int, default=12, help="frame of the first column")
    parser.add_argument("--step", type=int, default=6, help="frames from column to column")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dubbed = Path(folder) / "dubbed.mkv"
        stillspeak.dub(arguments.video, arguments.speech, dubbed, crf=0)
        stop = arguments.first + COLUMNS * arguments.step
        rows = [
            list(islice(iter_frames(path), arguments.first, stop, arguments.step))
            for path in (arguments.video, dubbed)
        ]
    with MediaPipeDetector() as detector:
        boxes = [detector.detect(frame)[0].box for frame in rows[0]]
    cut = [[face(frame, box) for frame, box in zip(row, boxes, strict=True)] for row in rows]
    Image.fromarray(contact_sheet(cut, gap=6)).save(
        arguments.output, quality=QUALITY, optimize=True
    )


def face(frame: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """A square around a face, from the brows down."""
    x0, y0, x1, y1 = box
    side = 1.15 * (x1 - x0)
    x, y = (x0 + x1) / 2, y0 + 0.58 * (y1 - y0)
    where = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    picture = Image.fromarray(frame).crop(tuple(map(round, where)))
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS))


if __name__ == "__main__":
    main()
