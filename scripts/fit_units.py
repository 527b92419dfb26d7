"""Fits resources/face_units.safetensors: how each action unit moves the skin of a face.

    python scripts/fit_units.py PORTRAITS OUT

PORTRAITS holds NNN_neutral.jpg and NNN_smiling.jpg (Face Research Lab London Set, CC BY 4.0). The
smile, cheek_raiser and lip_corner_puller, is the mean over its people. The other units are stated
here, after what the Facial Action Coding System (Ekman, Friesen, Hager 2002) says of each: which
parts move, and where to. Only averages are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.face.mouth import INNER_LIPS, OUTER_LIPS
from stillspeak.media.image import load_image
from stillspeak.motion.frames import UNITS
from stillspeak.rendering.mesh import LOWER, UPPER, face_frame, face_model

Array = npt.NDArray[np.float64]

DATA = (
    "Face Research Lab London Set (DeBruine, Jones 2017), 67 of 82 people, CC BY 4.0, for the "
    "smile; the other units are stated in the script"
)
HELD_OUT = 15
"""People at the end of the list that nothing is learned from."""

CHEEKS, LIPS_FROM = 0.45, 0.95
"""Heights between which a smile goes over from cheeks and lids to the mouth, in distances between
the eyes, which all lengths here are in."""


BETWEEN = (
    ((184, 74, 73, 72, 11, 302, 303, 304, 408), (77, 90, 180, 85, 16, 315, 404, 320, 307)),
    ((183, 42, 41, 38, 12, 268, 271, 272, 407), (96, 89, 179, 86, 15, 316, 403, 319, 325)),
)
"""Two rings between the outer lips and the inner ones, the upper lip's points and the lower's."""


class Bump(NamedTuple):
    """Skin around a landmark of the picture's right that moves, and its mirror image."""

    landmark: int
    right: float  # outwards
    down: float
    across: float  # standard deviations of a Gaussian: to the sides,
    above: float  # above the landmark
    below: float  # and below it


STATED: dict[str, tuple[Bump, ...]] = {
    "inner_brow_raiser": (Bump(336, 0.0, -0.13, 0.20, 0.35, 0.13),),
    "outer_brow_raiser": (Bump(334, 0.0, -0.12, 0.26, 0.30, 0.12),),
    "brow_lowerer": (
        Bump(285, -0.05, 0.09, 0.24, 0.26, 0.12),
        Bump(282, -0.02, 0.05, 0.30, 0.20, 0.10),
    ),
    "upper_lid_raiser": (Bump(386, 0.0, -0.045, 0.17, 0.09, 0.035),),
    "lid_tightener": (
        Bump(374, 0.0, -0.04, 0.17, 0.035, 0.16),
        Bump(386, 0.0, 0.015, 0.17, 0.05, 0.03),
    ),
    "nose_wrinkler": (
        Bump(358, 0.01, -0.07, 0.13, 0.25, 0.15),
        Bump(285, -0.03, 0.05, 0.16, 0.15, 0.10),
        Bump(267, 0.0, -0.03, 0.18, 0.12, 0.06),
    ),
    "upper_lip_raiser": (
        Bump(270, 0.0, -0.06, 0.14, 0.25, 0.11),
        Bump(425, 0.01, -0.03, 0.20, 0.20, 0.20),
    ),
    "lip_corner_depressor": (
        Bump(291, 0.01, 0.08, 0.15, 0.12, 0.12),
        Bump(422, 0.0, 0.03, 0.20, 0.15, 0.20),
    ),
    "chin_raiser": (
        Bump(428, 0.0, -0.05, 0.22, 0.14, 0.12),
        Bump(317, 0.0, -0.02, 0.15, 0.06, 0.10),
    ),
    "lip_stretcher": (Bump(291, 0.07, 0.02, 0.18, 0.16, 0.18),),
    "lip_tightener": (
        Bump(267, 0.0, 0.02, 0.16, 0.05, 0.03),
        Bump(314, 0.0, -0.025, 0.16, 0.03, 0.05),
        Bump(291, -0.02, 0.0, 0.12, 0.10, 0.10),
    ),
    "jaw_drop": (Bump(377, 0.0, 0.07, 0.55, 0.30, 0.60), Bump(317, 0.0, 0.015, 0.20, 0.08, 0.10)),
}


def main(arguments: list[str]) -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("portraits", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    smile = mean_smile(options.portraits)
    units = np.stack([unit_field(name, smile) for name in UNITS])
    info = {"command": "python scripts/fit_units.py PORTRAITS OUT", "data": DATA, "units": UNITS}
    save_file({"units": units.astype(np.float16)}, options.out, {"info": json.dumps(info)})
    return 0


def mean_smile(folder: Path) -> Array:
    """(478, 2) how landmarks move from a neutral face to a smiling one, in the face's own frame."""
    moved = []
    with MediaPipeDetector() as detector:
        neutral = sorted(folder.glob("*_neutral.jpg"))
        for path in neutral[:-HELD_OUT]:
            pair = (path, path.with_name(path.name.replace("neutral", "smiling")))
            faces = [detector.detect(load_image(one))[0].points for one in pair]
            before, after = (face_frame(points).points for points in faces)
            moved.append(after - before)
    return np.asarray(np.mean(moved, axis=0))


def unit_field(name: str, smile: Array) -> Array:
    """(478, 2) how landmarks move with a unit at intensity 1."""
    template = face_model().template
    if name in STATED:
        field = sum((stated(template, bump) for bump in STATED[name]), np.zeros((478, 2)))
    else:
        mouth = np.clip((template[:, 1] - CHEEKS) / (LIPS_FROM - CHEEKS), 0, 1)[:, None]
        field = smile * (mouth if name == "lip_corner_puller" else 1 - mouth)
    # Lips that met stay together: both of a pair move as their mean does. A smile with teeth also
    # parts the red of the lips; with the lips closed they keep their thickness.
    rings = [np.array(INNER_LIPS)[[list(UPPER), list(LOWER)]]]
    if name == "lip_corner_puller":
        rings += [np.array(OUTER_LIPS)[[list(UPPER), list(LOWER)]], *map(np.array, BETWEEN)]
    for upper, lower in rings:
        field[upper] = field[lower] = (field[upper] + field[lower]) / 2
    return field


def stated(template: Array, bump: Bump) -> Array:
    """(478, 2) the movement that one bump and its mirror image stand for."""
    x, y = template[:, 0], template[:, 1]
    centre = template[bump.landmark]
    down = y - centre[1]
    height = np.exp(-0.5 * (down / np.where(down > 0, bump.below, bump.above)) ** 2)
    sides = [np.exp(-0.5 * ((way * x - centre[0]) / bump.across) ** 2) for way in (1, -1)]
    right = bump.right * height * (sides[0] - sides[1])
    return np.column_stack([right, bump.down * height * np.maximum(*sides)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
