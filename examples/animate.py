"""A picture and a sound become a video.

python examples/animate.py [PHOTO SPEECH] [OUTPUT]
"""

from __future__ import annotations

import sys
from importlib.resources import as_file, files
from typing import Any

import stillspeak


def main(arguments: list[str]) -> int:
    """Animate and return the exit code."""
    *inputs, output = arguments or ["hello.mp4"]
    if len(inputs) not in (0, 2) or output.startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2
    with as_file(files("stillspeak") / "resources" / "speech.flac") as sentence:
        photo: Any = inputs[0] if inputs else portrait()
        speech = inputs[1] if inputs else sentence
        try:
            animation = stillspeak.animate(photo, speech, seed=1)
            frames = animation.save(output, overwrite=True)
        except stillspeak.StillspeakError as error:
            # One line for people: which file, what is wrong, what to do.
            print(f"cannot animate: {error}", file=sys.stderr)
            return 1
    print(f"{output}: {frames} frames, {animation.width} x {animation.height} pixels")
    return 0


def portrait() -> Any:
    """(512, 512, 3) uint8: Eileen Collins, photographed by NASA, public domain."""
    from skimage.data import astronaut

    return astronaut()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
