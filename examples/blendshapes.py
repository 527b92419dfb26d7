"""A speech drives the blendshapes of a character: from poses.jsonl to the curves of an animation.

    stillspeak poses speech.wav -o poses.jsonl
    python examples/blendshapes.py poses.jsonl curves.json

The result has what an animation of morph targets in glTF has, and a shape key's curves in Blender:
for each blendshape the times and the weights where it moves. Nothing of stillspeak is needed here.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def read(path: Path) -> tuple[dict, list[dict], list[dict]]:
    """Header, frames and visemes of a file that ``stillspeak poses`` wrote."""
    header, *lines = map(json.loads, path.read_text("utf-8").splitlines())
    if header.get("format") != "stillspeak-poses" or header["version"] != 1:
        raise SystemExit(f"{path}: no poses that this example knows")
    frames = [line for line in lines if "time" in line]
    return header, frames, [line for line in lines if "viseme" in line]


def curves(header: dict, frames: list[dict]) -> dict[str, list[list[float]]]:
    """For each blendshape that moves, its keys: times and weights, without those between two equal
    ones."""
    found = {}
    for place, name in enumerate(header["blendshapes"]):
        keys = [[frame["time"], frame["blendshapes"][place]] for frame in frames]
        if any(weight for _, weight in keys):
            inner = zip(keys, keys[1:], keys[2:], strict=False)
            kept = [here for before, here, after in inner if not before[1] == here[1] == after[1]]
            found[name] = [keys[0], *kept, *keys[-1:]]
    return found


def main(source: Path, target: Path) -> None:
    header, frames, visemes = read(source)
    shapes = curves(header, frames)
    target.write_text(json.dumps({"fps": header["fps"], "curves": shapes, "visemes": visemes}))
    for name, keys in sorted(shapes.items(), key=lambda item: -max(w for _, w in item[1])):
        print(f"{name:22} up to {max(weight for _, weight in keys):.2f}, {len(keys)} keys")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
