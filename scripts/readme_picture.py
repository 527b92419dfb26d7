"""Makes docs/images/demo.gif, the moving picture at the top of the README.

    python scripts/readme_picture.py [--model default] [--output docs/images/demo.gif]

Left what goes in, the portrait and the sound with the moment that is heard; right what comes out.
Both inputs are those of ``stillspeak demo``: NASA's portrait, public domain, and the bundled
sentence. The same model gives the same pictures.
"""

from __future__ import annotations

import argparse
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from skimage.data import astronaut

import stillspeak
from stillspeak.weights import DEFAULT_MODEL

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "docs" / "images" / "demo.gif"
SPEECH = Path(str(files("stillspeak"))) / "resources" / "speech.flac"

HEAD = (slice(8, 238), slice(108, 338))
"""Rows and columns of the portrait that are shown: the head, large enough to see its lips."""

SIDE, STILL, MARGIN = 260, 170, 14
"""Pixels of the video, of the still, and between things."""

EVERY = 3
"""Of so many frames one is shown: in a GIF all that moves is stored anew."""

COLOURS = 96
LIMIT = 1_500_000
"""Bytes that a picture in a README may have."""

INK, FAINT, MARK = (31, 41, 51), (155, 165, 175), (192, 57, 43)


def panel(
    still: Image.Image, frame: Image.Image, wave: npt.NDArray[np.float32], share: float
) -> Image.Image:
    """One frame of the GIF.

    Args:
        still: STILL x STILL.
        frame: SIDE x SIDE.
        wave: (STILL,) heights in [0, 1], a column of the waveform each.
        share: how much of the sound has been heard, in [0, 1].
    """
    width, height = 3 * MARGIN + STILL + 46 + SIDE, 2 * MARGIN + SIDE + 22
    picture = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(14)
    picture.paste(still, (MARGIN, MARGIN))
    draw.text((MARGIN, MARGIN + STILL + 4), "one picture", INK, font)
    middle = MARGIN + STILL + 84
    for column, size in enumerate(wave):
        tall = max(round(40 * float(size)), 1)
        heard = column <= share * len(wave)
        x = MARGIN + column
        draw.line((x, middle - tall, x, middle + tall), INK if heard else FAINT)
    x = MARGIN + round(share * (len(wave) - 1))
    draw.line((x, middle - 48, x, middle + 48), MARK, 2)
    draw.text((MARGIN, middle + 52), "one sound", INK, font)
    left = MARGIN + STILL + MARGIN
    y = MARGIN + SIDE // 2
    draw.line((left, y, left + 38, y), INK, 3)
    draw.polygon([(left + 44, y), (left + 32, y - 7), (left + 32, y + 7)], INK)
    picture.paste(frame, (left + 46 + MARGIN // 2, MARGIN))
    draw.text(
        (left + 46 + MARGIN // 2, MARGIN + SIDE + 4), "a synthetic video, on a CPU", INK, font
    )
    return picture


def frames(model: str) -> tuple[list[Image.Image], int]:
    """The GIF's frames, and how many milliseconds each is shown."""
    portrait = np.ascontiguousarray(astronaut()[HEAD])
    animation = stillspeak.animate(portrait, SPEECH, model=model, size=SIDE)
    still = Image.fromarray(portrait).resize((STILL, STILL), Image.Resampling.LANCZOS)
    columns = np.array_split(np.abs(animation.audio), STILL)
    wave = np.array([part.max() for part in columns], np.float32)
    wave /= wave.max()
    # The silence at the end shows nothing.
    heard = np.flatnonzero(np.abs(animation.audio) > 0.02)[-1] / animation.sample_rate + 0.4
    count = min(round(heard * animation.fps), len(animation))
    pictures = []
    for index, frame in enumerate(animation):
        if index >= count:
            break
        if index % EVERY == 0:
            share = (index + 0.5) / len(animation)
            pictures.append(panel(still, Image.fromarray(frame), wave, share))
    return pictures, 1000 * EVERY // animation.fps


def save(pictures: list[Image.Image], milliseconds: int, path: Path) -> int:
    """Write a GIF with one palette for all frames; its size in bytes."""
    some = pictures[:: max(len(pictures) // 8, 1)]
    together = Image.new("RGB", (some[0].width, some[0].height * len(some)))
    for index, picture in enumerate(some):
        together.paste(picture, (0, index * picture.height))
    palette = together.quantize(COLOURS, Image.Quantize.MEDIANCUT)
    # Without dithering what stays the same keeps its colour.
    shown = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
    first, rest = shown[0], list(map(_difference, shown, shown[1:]))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.partial")
    first.save(
        temporary,
        "GIF",
        save_all=True,
        append_images=rest,
        duration=milliseconds,
        loop=0,
        disposal=1,
        transparency=COLOURS,
        optimize=False,
        comment=b"Synthetic talking-face video, made with stillspeak",
    )
    temporary.replace(path)
    return path.stat().st_size


def _difference(before: Image.Image, after: Image.Image) -> Image.Image:
    """A frame in which what was there already is transparent, which takes no room."""
    old, new = np.asarray(before), np.asarray(after)
    picture = Image.fromarray(np.where(old == new, COLOURS, new).astype(np.uint8), "P")
    picture.putpalette(after.getpalette() or [])
    picture.info["transparency"] = COLOURS
    return picture


def main() -> None:
    """Make the picture and refuse one that is too large."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    arguments = parser.parse_args()
    pictures, milliseconds = frames(arguments.model)
    size = save(pictures, milliseconds, arguments.output)
    print(f"{arguments.output}: {len(pictures)} frames, {size:,} bytes")
    if size > LIMIT:
        raise SystemExit(f"{arguments.output}: more than {LIMIT:,} bytes; show fewer frames")


if __name__ == "__main__":
    main()
