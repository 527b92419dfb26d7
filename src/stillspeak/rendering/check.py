"""Whether a still can speak: what is refused in one line, and what is only warned of.

Landmarks are found where no mouth can be seen, too: beyond the picture's edge and behind a mask.
So the picture is asked. A small network looks at 64 x 56 pixels around the lips, in which the eyes
are 48 pixels apart, and says whether lips are there; ``scripts/fit_covered_mouth.py`` taught it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from stillspeak.errors import MouthOutsideError
from stillspeak.face.align import canonical_face, crop_face, face_transform, scale_transform
from stillspeak.face.landmarks import MAX_YAW, Face, check_face
from stillspeak.face.mouth import CHIN, LIPS, OUTER_LIPS, lip_opening
from stillspeak.rendering.light import edge_blur, median_colour
from stillspeak.rendering.raster import Picture

SMALL_EYES = 32.0
"""Pixels between the eyes below which lips are soft."""

LARGEST_YAW = 60.0
"""Degrees beyond which half of the mouth cannot be seen."""

WIDE_OPEN = 0.35
"""Distance of the inner lips, in distances between the eyes, that no speaker reaches."""

BLURRED = 0.05
"""Blur of the sharpest edges, standard deviation in distances between the eyes."""

COVERED = 1.6
"""Score above which lips count as covered: log odds."""

SELDOM_COVERED = (151, 9, 117, 346, 50, 280, 6, 195)
"""Landmarks whose skin is seldom hidden: forehead, cheekbones, nose."""

PATCH = (56, 64)
"""Rows and columns that the network sees."""

_EYES = 48.0  # pixels between the eyes there
_OUTSIDE = 0.06  # how far beyond the edge, in distances between the eyes, a landmark may err
_RESOURCE = "resources/covered_mouth.safetensors"
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class StillWarning:
    """Something about a still that makes its video worse."""

    code: str
    """``mouth_covered``, ``mouth_wide_open``, ``chin_outside``, ``face_small``, ``face_turned``,
    ``picture_blurred`` or ``blink_reduced``; what a program decides by."""
    message: str
    """One line for people, without the picture's name."""


def check_still(
    picture: Picture, face: Face, *, name: str = "the picture"
) -> tuple[StillWarning, ...]:
    """Refuse a face that cannot speak, and tell what is wrong with one that can.

    Args:
        picture: (H, W, 3) uint8 RGB.
        face: found in it.
        name: what errors call the picture.

    Returns:
        The warnings, none for a good still.

    Raises:
        MouthOutsideError: a part of the lips lies beyond the picture's edge.
        FaceTooSmallError: the eyes are less than 16 pixels apart.
        FaceTurnedError: the face looks more than 60 degrees to a side.
    """
    check_face(face, max_yaw=LARGEST_YAW, name=name)
    unit = face.eye_distance
    if _beyond(picture, face.points[list(OUTER_LIPS)]) > _OUTSIDE * unit:
        raise MouthOutsideError(
            f"{name}: the mouth is cut off by the picture's edge; "
            "use a picture that shows the whole mouth and the chin"
        )
    covered = covered_score(picture, face.points) > COVERED
    wide = not covered and float(lip_opening(face.points)) > WIDE_OPEN * unit
    found = (
        (
            *(covered, "mouth_covered"),
            "the mouth seems to be covered, at least partly; what covers it will move with the "
            "lips; use a picture in which the lips can be seen",
        ),
        (
            *(wide, "mouth_wide_open"),
            "the mouth is wide open; closing it stretches the lips; use a picture with the lips "
            "closed or a smile",
        ),
        (
            *(_beyond(picture, face.points[[CHIN]]) > _OUTSIDE * unit, "chin_outside"),
            "the chin is cut off by the picture's edge; use a picture with room below it",
        ),
        (
            *(unit < SMALL_EYES, "face_small"),
            f"the face is small, its eyes are {unit:.0f} pixels apart; lips and teeth will be "
            "soft; use a larger picture, best with 100 or more",
        ),
        (
            *(abs(face.yaw) > MAX_YAW, "face_turned"),
            f"the face is turned {abs(face.yaw):.0f} degrees to the side; beyond {MAX_YAW:.0f} "
            "the far half of the mouth is guessed; use a picture that looks at the camera",
        ),
        (
            *(edge_blur(picture, _box(picture, face)) > BLURRED * unit, "picture_blurred"),
            "the face is blurred, and so will the mouth be; use a sharper one",
        ),
    )
    return tuple(StillWarning(code, message) for bad, code, message in found if bad)


def _beyond(picture: Picture, points: npt.NDArray[np.float32]) -> float:
    """How many pixels the outermost of (K, 2) points lies beyond the picture's edge."""
    last = np.array(picture.shape[1::-1]) - 1
    return float(np.maximum(-points, points - last).max())


def _box(picture: Picture, face: Face) -> tuple[int, int, int, int]:
    x0, y0, x1, y1 = np.rint(face.box).astype(int)
    rows, columns = picture.shape[:2]
    return max(x0, 0), max(y0, 0), min(x1 + 1, columns), min(y1 + 1, rows)


def covered_score(picture: Picture, points: npt.NDArray[np.floating]) -> float:
    """Log odds of a mouth's being covered, at least partly; landmarks (478, 2) are in pixels."""
    patch, skin = mouth_patch(picture, points)
    with torch.inference_mode():
        seen = relative_colours(
            torch.tensor(patch).permute(2, 0, 1)[None].float(), torch.tensor(skin)[None].float()
        )
        return float(covered_logits(_weights(), seen))


def mouth_patch(
    picture: Picture, points: npt.NDArray[np.floating]
) -> tuple[Picture, npt.NDArray[np.float64]]:
    """What the network sees: :data:`PATCH` upright around the lips, (56, 64, 3) uint8, and the
    colour of skin, (3,) levels of 255."""
    face = canonical_face().points
    eyes = float(np.linalg.norm(face[3:5].mean(axis=0) - face[1:3].mean(axis=0)))
    to_patch = scale_transform(face_transform(points), _EYES / eyes)
    places = np.asarray(points, np.float64)
    middle = (np.array(PATCH[::-1]) - 1) / 2
    to_patch[:, 2] = middle - to_patch[:, :2] @ places[list(LIPS)].mean(axis=0)
    reach = 0.05 * _EYES / float(np.hypot(*to_patch[:, 0]))
    patches = [median_colour(picture, places[[i]], reach) for i in SELDOM_COVERED]
    return crop_face(picture, to_patch, *PATCH), np.median(patches, axis=0)


def relative_colours(patch: Tensor, skin: Tensor) -> Tensor:
    """Brightness and two ratios of colours (N, 3, h, w), each relative to the skin's (N, 3) and in
    logarithms, of levels of 255: light, camera and skin change little."""
    patch, skin = patch + 6, (skin + 6)[..., None, None]
    luma = patch.new_tensor(_LUMA)[:, None, None]
    bright = (patch * luma).sum(1, keepdim=True).log() - (skin * luma).sum(1, keepdim=True).log()
    ratios = [
        (patch[:, [c]] / patch[:, [1]]).log() - (skin[:, [c]] / skin[:, [1]]).log() for c in (0, 2)
    ]
    return torch.cat([bright.clamp(-3, 2), *((3 * one).clamp(-2, 2) for one in ratios)], dim=1)


def covered_logits(weights: dict[str, Tensor], seen: Tensor) -> Tensor:
    """The network: three convolutions of stride 2, one of 1 x 1, one sum. Weights ``a.weight`` to
    ``e.bias`` and (N, 3, 56, 64) of :func:`relative_colours` -> (N,) log odds."""
    for layer in "abc":
        seen = functional.conv2d(
            seen, weights[f"{layer}.weight"], weights[f"{layer}.bias"], stride=2, padding=1
        ).relu()
    seen = functional.conv2d(seen, weights["d.weight"], weights["d.bias"]).relu()
    return functional.linear(seen.flatten(1), weights["e.weight"], weights["e.bias"])[:, 0]


@cache
def _weights() -> dict[str, Tensor]:
    from safetensors.torch import load

    stored = load(resources.files("stillspeak").joinpath(_RESOURCE).read_bytes())
    return {name: values.float() for name, values in stored.items()}
