"""The mouth of a good frame, and how it becomes the mouth that is heard.

Sound gives displacements from the mouth at rest. What it gives for a good frame's own moment is not
what the camera saw there; that difference is known at the ends of a gap and fades inwards, so that
the drawn mouth meets the real ones. Shapes are in the face's own frame, in distances between the
eyes, so that one shape can be drawn into the frames on both sides of a gap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stillspeak.conceal.poses import HeardPoses, Poses
from stillspeak.face.align import Transform, invert_transform
from stillspeak.face.mouth import LIPS
from stillspeak.face.pose import CHIN, POSE_POINTS
from stillspeak.rendering.mesh import AROUND, face_frame, rest_pose

_CHIN = AROUND.index(CHIN)
_INNER = slice(20, 40)
_TRUST = 0.02  # of an open mouth's rest, against 1 of one that is at rest


@dataclass(frozen=True, eq=False)
class SeenMouth:
    """A mouth as a good frame shows it.

    Attributes:
        shape: (41, 2) ``face.pose.POSE_POINTS`` in the face's own frame.
        rest: (41, 2) the same at rest, as far as one frame tells.
        scale: by which displacements of speech are multiplied.
        open: share, 0 to 1, by which the mouth counts as open.
        to_picture: (2, 3) the face's own frame -> pixels, as it is at the lips.
    """

    shape: Poses
    rest: Poses
    scale: float
    open: float
    to_picture: Transform

    @classmethod
    def of(cls, points: npt.NDArray[np.floating]) -> SeenMouth:
        """From landmarks (478, 2) in pixels."""
        frame = face_frame(points)
        rest = rest_pose(frame.points)
        shape = frame.points[list(POSE_POINTS)]
        axes = frame.jacobians[list(LIPS)].mean(axis=0)
        seen = np.asarray(points, np.float64)[list(LIPS), :2].mean(axis=0)
        to_picture = np.column_stack([axes, seen - axes @ shape[:-1].mean(axis=0)])
        at_rest = shape + np.concatenate([rest.lips, rest.around[_CHIN : _CHIN + 1]])
        if rest.open == 0:  # lips that meet, whatever the landmarks leave between them
            shape[_INNER] = at_rest[_INNER]
        return cls(shape, at_rest, rest.scale, rest.open, to_picture)

    def pose(self, shapes: Poses) -> Poses:
        """Shapes (..., 41, 2) as displacements from this mouth's rest, as layers draw them."""
        return (shapes - self.rest) / self.scale

    def moved_to(self, other: SeenMouth) -> Transform:
        """(2, 3) pixels around this mouth -> pixels of the other frame, speech aside."""
        back = invert_transform(self.to_picture)
        turned = other.to_picture[:, :2] @ back
        turned[:, 2] += other.to_picture[:, 2]
        return np.asarray(turned)


@dataclass(frozen=True, eq=False)
class HeardMouth:
    """A good frame's mouth, and what the sound says of the same moment: (41, 2)."""

    seen: SeenMouth
    heard: Poses

    @classmethod
    def at(cls, place: float, seen: SeenMouth, heard: HeardPoses) -> HeardMouth:
        """``place`` is in model frames."""
        return cls(seen, heard.at(np.array([place]))[0])


def joined_shapes(
    heard: Poses,
    ends: Sequence[tuple[HeardMouth, npt.NDArray[np.float64]]],
    mouths: Sequence[SeenMouth],
) -> Poses:
    """The mouth's shapes in a gap.

    Args:
        heard: (T, 41, 2) what the sound says.
        ends: good frames beside the gap, each with the share (T,) by which it still counts.
        mouths: those that tell how the mouth rests, at least one; closed ones tell most.

    Returns:
        (T, 41, 2), equal to a good frame's shape where its share is 1 and the others' 0, and
        ``heard`` is what was heard there.
    """
    trust = np.array([1 - mouth.open + _TRUST for mouth in mouths])
    trust /= trust.sum()
    rest = np.einsum("k,kij->ij", trust, [mouth.rest for mouth in mouths])
    scale = float(trust @ [mouth.scale for mouth in mouths])
    shapes: Poses = rest + scale * heard
    for end, share in ends:
        difference = end.seen.shape - (rest + scale * end.heard)
        shapes = shapes + share[:, None, None] * difference
    return shapes
