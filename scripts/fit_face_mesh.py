"""Fits resources/face_mesh.safetensors: an average face, how skin follows a mouth, how a smile
lets go.

    python scripts/fit_face_mesh.py PORTRAITS CACHE OUT

PORTRAITS holds NNN_neutral.jpg and NNN_smiling.jpg (Face Research Lab London Set, CC BY 4.0);
CACHE is a prepared GRID cache. Only averages and coefficients are kept.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file, save_file
from scipy.optimize import linear_sum_assignment

from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.face.mouth import LIPS, POSE_POINTS, lip_opening
from stillspeak.media.image import load_image
from stillspeak.rendering import mesh
from stillspeak.rendering.mesh import AROUND

Array = npt.NDArray[np.float64]

DATA = (
    "Face Research Lab London Set (DeBruine, Jones 2017), 67 of 82 people, CC BY 4.0; "
    "GRID (Cooke, Barker, Cunningham, Shao 2006), 13 training speakers, CC BY 4.0"
)
HELD_OUT = ("s20", "s23", "s27", "s29", "s30", "s34", "s2", "s4", "s15")
MIDLINE = (1, 4, 5, 195, 197, 6, 168, 152, 0, 17)
CLIPS = 12
"""Clips a speaker."""
COMPONENTS = 16
"""Principal components of an open mouth."""
FOLLOWED = 8
"""Principal components of a speaking mouth that skin follows."""
RIDGE_REST, RIDGE_FOLLOW = 0.002, 0.02


def main(arguments: list[str]) -> int:
    """Run as a script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("portraits", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args(arguments)
    people = dict(detect(options.portraits))
    numbers = sorted({name[:3] for name in people})
    learned, held_out = numbers[:-15], numbers[-15:]
    # Which point mirrors which is seen in smiles, where the lips do not lie on each other.
    _, mirror = average_face([people[f"{n}_smiling"] for n in learned])
    template, _ = average_face([people[f"{n}_neutral"] for n in learned], mirror)
    stored = {"template": template, "slopes": slopes(template)}
    mesh.face_model = lambda: mesh.FaceModel(  # type: ignore[assignment]
        template, stored["slopes"], *[np.zeros(0)] * 4
    )
    clips = list(speaking(options.cache))
    stored["follow"] = follow(clips, mirror)
    stored |= rest(people, learned, held_out, clips, mirror)
    info = {"command": "python scripts/fit_face_mesh.py PORTRAITS CACHE OUT", "data": DATA}
    arrays = {k: np.ascontiguousarray(v, np.float32) for k, v in stored.items()}
    save_file(arrays, options.out, {"info": json.dumps(info)})
    return 0


class _Deep(MediaPipeDetector):
    """Keeps the depth of the last face found."""

    def deep(self, image: npt.NDArray[np.uint8]) -> Array:
        """(478, 3) landmarks in pixels."""
        (face,) = self.detect(image)
        marks = self._landmarker.detect(self._make_image(image)).face_landmarks[0]
        return np.column_stack([face.points, [mark.z * image.shape[1] for mark in marks]])


def detect(folder: Path) -> Iterator[tuple[str, Array]]:
    """(478, 3) landmarks of each portrait, by the file's name without its ending."""
    with _Deep() as detector:
        for path in sorted(folder.glob("*.jpg")):
            yield path.stem, detector.deep(load_image(path))


def average_face(
    faces: list[Array], known: npt.NDArray[np.intp] | None = None
) -> tuple[Array, npt.NDArray[np.intp]]:
    """(478, 3) the symmetric mean face in its own frame, and each point's mirror image (478,)."""
    eyes = [*mesh._LEFT_EYE, *mesh._RIGHT_EYE]

    def framed(face: Array) -> Array:
        face = face - face[eyes].mean(axis=0)
        return face / mesh._eye_distance(face)

    mean, mirror = framed(faces[0]), known
    for _ in range(4):
        laid = []
        for face in faces:
            rotation, _ = mesh._head_pose(face, mean)
            laid.append(framed(face @ rotation))
        mean = np.mean(laid, axis=0)
        if mirror is None or known is None:
            flipped = mean * (-1, 1, 1)
            flipped[:, 0] += 2 * mean[list(MIDLINE), 0].mean()
            apart = np.linalg.norm(mean[:, None] - flipped[None], axis=-1)
            mirror = linear_sum_assignment(apart**2)[1]
        # Each pair lies straight across the face; its plane of symmetry goes through the midline.
        across = np.linalg.svd(mean - mean[mirror])[2][0]
        across *= np.sign(across[0])
        down = np.array([0.0, 1.0, 0.0]) - across[1] * across
        down /= np.linalg.norm(down)
        mean = framed(mean @ np.column_stack([across, down, np.cross(across, down)]))
        mean = framed((mean + mean[mirror] * (-1, 1, 1)) / 2)
    assert mirror is not None
    unpaired = int((mirror[mirror] != np.arange(len(mirror))).sum())
    print(f"{unpaired} of 478 points have no mirror image")
    return mean, mirror


def slopes(template: Array) -> Array:
    """(478, 2) of the skin at each point, from planes through its neighbours."""
    out = np.zeros((len(template), 2))
    for k, point in enumerate(template):
        near = np.argsort(np.linalg.norm(template - point, axis=1))[:14]
        offsets = template[near] - point
        design = np.column_stack([offsets[:, :2], np.ones(len(near))])
        normal = design.T @ design + np.diag([2e-3, 2e-3, 0])
        out[k] = np.linalg.solve(normal, design.T @ offsets[:, 2])[:2]
    return out.clip(-1.2, 1.2)


def flip(own: Array, mirror: npt.NDArray[np.intp]) -> Array:
    """(..., 478, 2) the mirrored face."""
    return own[..., mirror, :] * (-1, 1)


def speaking(cache: Path) -> Iterator[tuple[Array, Array]]:
    """(T, 478, 2) in the face's own frame and (478, 2) its rest, of each clip."""
    for folder in sorted(p for p in cache.iterdir() if p.is_dir() and p.name not in HELD_OUT):
        for path in sorted(folder.glob("*.safetensors"))[:CLIPS]:
            marks = load_file(path)["landmarks"].astype(np.float64)
            marks = marks[np.isfinite(marks).all(axis=(1, 2))]
            own = np.stack([mesh.face_frame(one).points for one in marks])
            opening = lip_opening(own)
            yield own, own[opening <= np.quantile(opening, 0.15)].mean(axis=0)


def follow(clips: list[tuple[Array, Array]], mirror: npt.NDArray[np.intp]) -> Array:
    """(2 F, 82) how the skin follows the mouth, from speaking people."""
    poses, skins = [], []
    for own, still in clips:
        for part in (own - still, flip(own - still, mirror)):
            poses.append(part[:, POSE_POINTS].reshape(len(part), -1))
            skins.append(part[:, AROUND].reshape(len(part), -1))
    x, y = np.concatenate(poses), np.concatenate(skins)
    # Along what mouths do, and nothing for what they do not: a pose that nobody has shown must
    # not pull the cheeks out of shape.
    vt = np.linalg.eigh(x.T @ x)[1][:, ::-1][:, :FOLLOWED].T
    z = x @ vt.T
    ridge = RIDGE_FOLLOW * np.trace(z.T @ z) / len(vt) * np.eye(len(vt))
    weights = (vt.T @ np.linalg.solve(z.T @ z + ridge, z.T @ y)).T
    print(f"follow: at most {np.linalg.norm(weights, 2):.2f} times the pose")
    left = y - x @ weights.T
    print(f"follow: {len(x)} frames, {left.std():.4f} of {y.std():.4f} is left")
    return weights


def rest(
    people: dict[str, Array],
    learned: list[str],
    held_out: list[str],
    clips: list[tuple[Array, Array]],
    mirror: npt.NDArray[np.intp],
) -> dict[str, Array]:
    """The regression from an open mouth, which smiles or speaks, to the mouth at rest."""

    def pairs(numbers: list[str]) -> tuple[Array, Array]:
        features, targets = [], []
        for number in numbers:
            smiling = mesh.face_frame(people[f"{number}_smiling"][:, :2]).points
            neutral = mesh.face_frame(people[f"{number}_neutral"][:, :2]).points
            for a, b in ((smiling, neutral), (flip(smiling, mirror), flip(neutral, mirror))):
                features.append(mesh.rest_features(a))
                targets.append((b - a)[[*LIPS, *AROUND]].ravel())
        return np.stack(features), np.stack(targets)

    def spoken() -> tuple[Array, Array]:
        features, targets = [], []
        for own, still in clips:
            opening = lip_opening(own)
            for frame in own[np.argsort(opening)[len(own) // 2 :: 12]]:
                for a, b in ((frame, still), (flip(frame, mirror), flip(still, mirror))):
                    features.append(mesh.rest_features(a))
                    targets.append((b - a)[[*LIPS, *AROUND]].ravel())
        return np.stack(features), np.stack(targets)

    smiles, speech = pairs(learned), spoken()
    print(f"rest: {len(smiles[0])} smiles, {len(speech[0])} frames of speech")
    times = max(len(speech[0]) // len(smiles[0]), 1)  # as much of the one as of the other
    x, y = (
        np.concatenate([np.tile(a, (times, 1)), b]) for a, b in zip(smiles, speech, strict=True)
    )
    mean, bias = x.mean(axis=0), y.mean(axis=0)
    _, s, vt = np.linalg.svd(x - mean, full_matrices=False)
    vt, s = vt[:COMPONENTS], s[:COMPONENTS]
    z = (x - mean) @ vt.T
    ridge = RIDGE_REST * s[0] ** 2 * np.eye(len(s))
    out = np.linalg.solve(z.T @ z + ridge, z.T @ (y - bias))
    for name, (a, b) in (("smiles", smiles), ("held out", pairs(held_out)), ("speech", speech)):
        guess = (a - mean) @ vt.T @ out + bias
        lips = slice(0, 80)
        print(
            f"rest, {name}: {np.abs(guess - b)[:, lips].mean():.4f} off at the lips, "
            f"{np.abs(b - bias)[:, lips].mean():.4f} by the mean smile, "
            f"{np.abs(b)[:, lips].mean():.4f} if nothing moves"
        )
    return {"rest_mean": mean, "rest_in": vt.T, "rest_out": out, "rest_bias": bias}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
