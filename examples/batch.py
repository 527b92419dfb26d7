"""Every picture of a folder says every sound of another one.

    python examples/batch.py PHOTOS SOUNDS VIDEOS

The model and the face detector are loaded once, a picture that holds no face is named and left
out, and videos that are there already are not made again, so a run that was stopped can be
started again. The command line does the same from a table:
``stillspeak animate --jobs TABLE.csv --skip-existing``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import stillspeak

PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
SOUNDS = {".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"}


def main(arguments: list[str]) -> int:
    """Make all videos and return the exit code: 1 if any failed."""
    if len(arguments) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    photos, sounds, videos = map(Path, arguments)
    videos.mkdir(parents=True, exist_ok=True)
    failed = 0
    with stillspeak.Animator() as animator:
        for photo in sorted(p for p in photos.iterdir() if p.suffix.lower() in PICTURES):
            for sound in sorted(s for s in sounds.iterdir() if s.suffix.lower() in SOUNDS):
                output = videos / f"{photo.stem}-{sound.stem}.mp4"
                if output.exists():
                    continue
                try:
                    # A seed of its own, so that not everybody blinks at the same moment.
                    seed = sum(output.name.encode())
                    animator.animate(photo, sound, seed=seed).save(output)
                except stillspeak.StillspeakError as error:
                    print(f"left out: {error}", file=sys.stderr)
                    failed += 1
                else:
                    print(output)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
