"""A face in its own frame: where the head's right and down are in the picture, whichever way it
is turned, and how its mouth rests.

The face's own frame has its origin midway between the eyes' centres, x to the right, y down, and
the distance between the eyes' centres for a unit.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from stillspeak.face.align import smoothstep
from stillspeak.face.mouth import LIPS
from stillspeak.rendering.raster import Points

AROUND = (
    # next to the lips, above and below
    164, 167, 393, 165, 391, 92, 322, 186, 410, 57, 287, 43, 273, 106, 335, 182, 406, 83, 313, 18,
    # cheeks and folds
    206, 426, 203, 423, 216, 436, 212, 432, 207, 427, 205, 425, 187, 411,
    # chin
    202, 422, 204, 424, 194, 418, 201, 421, 200, 199, 208, 428, 211, 431,
    # jaw
    152, 148, 377, 176, 400, 149, 378, 150, 379, 136, 365, 172, 397, 58, 288, 214, 434, 192, 416,
)  # fmt: skip
"""Points of the skin that move with a mouth."""

UPPER = (0, *range(19, 10, -1), 10)
"""Along the upper lip from the picture's left to its right: rows of either ring of ``LIPS``."""

LOWER = tuple(range(11))
"""Along the lower lip, in the same direction and corners included, each below its counterpart."""

USUAL_WIDTH = 0.83
"""Width of a mouth at rest, between the outer corners."""

_LEFT_EYE, _RIGHT_EYE = (33, 133), (362, 263)
_NOSE_BASE = 2
_RESOURCE = "resources/face_mesh.safetensors"


@dataclass(frozen=True)
class FaceModel:
    """What is known of faces in general. All in the face's own frame."""

    template: Points  # (478, 3) an average face at rest; z away from the viewer
    slopes: Points  # (478, 2) by how much z grows with x and with y along its skin
    follow: Points  # (2 F, 82) displacement of AROUND for one of POSE_POINTS, x and y in turn
    rest_mean: Points  # (D,) of the landmarks that tell how a smile lets go
    rest_map: Points  # (D, 2 (40 + F)) their deviation -> displacement of LIPS, AROUND to rest
    rest_bias: Points  # (2 (40 + F),) of the mean smile


@cache
def face_model() -> FaceModel:
    """The average face, read once."""
    from safetensors.numpy import load

    stored = load(resources.files("stillspeak").joinpath(_RESOURCE).read_bytes())
    arrays = {name: values.astype(np.float64) for name, values in stored.items()}
    rest_map = arrays.pop("rest_in") @ arrays.pop("rest_out")
    for values in (rest_map, *arrays.values()):
        values.flags.writeable = False
    return FaceModel(rest_map=rest_map, **arrays)


@dataclass(frozen=True)
class FaceFrame:
    """How a face's own frame lies in a picture."""

    rotation: Points  # (3, 3) face -> camera, x right, y down, z away
    scale: float  # pixels a unit
    origin: Points  # (2,) pixels
    points: Points  # (478, 2) the landmarks in the face's own frame
    jacobians: Points  # (478, 2, 2) displacements along the skin at each landmark -> pixels
    pixels: Points  # (478, 2) the landmarks

    @property
    def axes(self) -> Points:
        """(2, 2) the face's right and down at the mouth, as columns of unit length in pixels."""
        axes = self.jacobians[list(LIPS)].mean(axis=0)
        return np.asarray(axes / np.linalg.norm(axes, axis=0))


def face_frame(points: npt.NDArray[np.floating]) -> FaceFrame:
    """Find the frame of a face by its landmarks (478, 2) in pixels, or (478, 3) with a depth in
    pixels, away from the viewer."""
    model = face_model()
    p = np.asarray(points, np.float64)
    rotation, scale = _head_pose(p, model.template)
    depth = scale * (model.template @ rotation[2]) if p.shape[1] == 2 else p[:, 2]
    camera = np.column_stack([p[:, :2], depth])
    eyes = camera[list(_LEFT_EYE + _RIGHT_EYE)].mean(axis=0)
    own = (camera - eyes) @ rotation
    left, right = (own[list(eye), :2].mean(axis=0) for eye in (_LEFT_EYE, _RIGHT_EYE))
    unit = float(np.linalg.norm(right - left))
    along = np.zeros((len(p), 3, 2))
    along[:, 0, 0] = along[:, 1, 1] = 1.0
    along[:, 2] = model.slopes
    jacobians = unit * (rotation[:2] @ along)
    return FaceFrame(rotation, unit, eyes[:2], own[:, :2] / unit, jacobians, p[:, :2])


def _head_pose(p: Points, template: Points) -> tuple[Points, float]:
    """The rotation face -> camera and the scale that lay the template over the landmarks."""
    steady = template[:, 1] < template[_NOSE_BASE, 1]
    a = template[steady] - template[steady].mean(axis=0)
    b = p[steady] - p[steady].mean(axis=0)
    if p.shape[1] == 3:  # Kabsch
        u, s, vt = np.linalg.svd(b.T @ a)
        sign = np.diag([1.0, 1.0, np.linalg.det(u @ vt)])
        return u @ sign @ vt, float((s * np.diag(sign)).sum() / (a**2).sum())
    affine = np.linalg.lstsq(a, b, rcond=None)[0].T  # (2, 3)
    u, s, vt = np.linalg.svd(affine, full_matrices=False)
    rows = u @ vt
    return np.vstack([rows, np.cross(rows[0], rows[1])]), float(s.mean())


SMILE_KEPT = np.array([0.5, 0.15])
"""Share of a smile that stays as a mood, across and down."""

_MET, _OPEN = 0.012, 0.03  # distance of the inner lips: at rest up to here, open from here
_SWELL = 0.85  # share of its thickness that a lip regains,
_STRETCH = 1.7  # and how many times as thick as the still's it becomes: more shows in its pixels
_SEAM = 0.25  # where between the lips of an open mouth they are taken to meet, from above


@dataclass(frozen=True)
class Rest:
    """How a still's mouth rests: displacements in the face's own frame."""

    lips: Points  # (40, 2) of LIPS from the still to the mouth at rest, where inner lips meet
    around: Points  # (F, 2) of AROUND
    scale: float  # this mouth's size over the usual one's, by which speech is multiplied
    open: float  # share, 0 to 1, by which the still's mouth counts as open; 0: it is at rest
    follows: bool = False  # closed lips are moved as well: how they rest is known from elsewhere
    skin: Points | None = None  # (F, 2) of AROUND, speech included; None: it goes with the lips


def rest_pose(own: Points) -> Rest:
    """Let a still's mouth come to rest: the lips met, the smile let go as far as speech needs; of
    landmarks (478, 2) in the face's own frame."""
    lips = own[list(LIPS)]
    outer, inner = lips[:20], lips[20:]
    opened = open_share(own)
    moved, around = _predicted_rest(own)
    share = opened * (1 - SMILE_KEPT)
    # Where the lips meet, and how thick each is: still and rest, and what is kept of the still.
    seam = _met(inner)
    seam_at_rest = seam + share * (_met(inner + moved[20:]) - seam)
    thick = outer - inner
    thick_at_rest = thick + opened * _SWELL * (moved[:20] - moved[20:])
    wanted, given = (np.linalg.norm(part, axis=1) for part in (thick_at_rest, thick))
    regained = wanted / np.maximum(given, 1e-6)
    thick_at_rest *= (np.minimum(regained, _STRETCH) / np.maximum(regained, 1e-6))[:, None]
    rest = np.concatenate([seam_at_rest + thick_at_rest, seam_at_rest])
    # A mouth that is closed stays as it is, pixel by pixel, but for the seam.
    closed = np.concatenate([outer, seam])
    rest = closed + opened * (rest - closed)
    width = np.linalg.norm(rest[10] - rest[0])
    return Rest(
        lips=rest - lips,
        around=share * around,
        scale=float(np.clip(width / USUAL_WIDTH, 0.8, 1.2)),
        open=opened,
    )


def open_share(own: Points) -> float:
    """The share, 0 to 1, by which a mouth counts as open, of landmarks (478, 2) in the face's own
    frame."""
    inner = own[list(LIPS[20:])]
    gaps = (inner[list(LOWER)] - inner[list(UPPER)])[1:-1, 1]
    apart = np.sort(gaps)[-5:].mean(keepdims=True)
    return float(smoothstep((apart - _MET) / (_OPEN - _MET))[0])


def rest_features(own: Points) -> Points:
    """(D,) what the letting go of a smile is predicted from: lips, cheeks and jaw."""
    chosen = own[[*LIPS, *AROUND]]
    return np.asarray((chosen - own[_NOSE_BASE]).ravel())


def _predicted_rest(own: Points) -> tuple[Points, Points]:
    """Displacements of ``LIPS`` (40, 2) and of AROUND (F, 2) to a neutral face."""
    model = face_model()
    moved = (rest_features(own) - model.rest_mean) @ model.rest_map + model.rest_bias
    moved = moved.reshape(-1, 2)
    return moved[: len(LIPS)], moved[len(LIPS) :]


def _met(inner: Points) -> Points:
    """(20, 2) the inner ring with both lips on the line where they meet."""
    upper, lower = inner[list(UPPER)], inner[list(LOWER)]
    line = upper + _SEAM * (lower - upper)
    met = np.empty_like(inner)
    met[list(UPPER)] = met[list(LOWER)] = line
    return met
