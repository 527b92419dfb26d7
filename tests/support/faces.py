"""Synthetic aligned crops and their landmarks, with a mouth that opens as told."""

import numpy as np

from stillspeak.face.mouth import MOUTH_PAIRS

HEIGHT, WIDTH = 128, 96


_PAIRS = (
    *("browDown", "browOuterUp", "eyeBlink", "eyeSquint", "eyeWide"),
    *("mouthFrown", "mouthSmile", "mouthStretch", "mouthUpperUp"),
)


def blendshapes(**scores: float) -> dict[str, float]:
    """Expression coefficients, 0 unless given, those of both sides by their common name."""
    found = {"browInnerUp": scores.get("browInnerUp", 0.0)}
    for name in _PAIRS:
        found |= {f"{name}{side}": scores.get(name, 0.0) for side in ("Left", "Right")}
    return found


def face_points(opening: np.ndarray) -> np.ndarray:
    """Landmarks (T, 478, 2) of a face whose mouth opens downwards by (T,) pixels."""
    points = np.random.default_rng(0).uniform((10, 10), (86, 118), (478, 2))
    lips = {0: (50, 82), 13: (50, 86), 82: (45, 86), 312: (55, 86), 61: (36, 87), 291: (64, 87)}
    lips |= {78: (38, 87), 308: (62, 87), 2: (49, 72)}
    below = {14: (50, 86), 87: (45, 86), 317: (55, 86), 17: (50, 90), 152: (50, 114)}
    assert {p for pair in MOUTH_PAIRS for p in pair} == {*lips, *below}
    for index, place in (lips | below).items():
        points[index] = place
    moving = np.repeat(points[None], len(opening), axis=0)
    for index in below:
        moving[:, index, 1] += opening
    return moving


def face_pictures(opening: np.ndarray, seed: int) -> np.ndarray:
    """Frames (T, 128, 96, 3) uint8: smooth colours and a dark mouth, open by (T,) pixels."""
    ys, xs = np.mgrid[:HEIGHT, :WIDTH]
    skin = np.stack(
        [140 + 60 * np.sin(0.05 * ys + 0.04 * xs * (c + 1) + seed) for c in range(3)], axis=-1
    )
    frames = []
    for wide in opening:
        distance = ((xs - 50) / 14) ** 2 + ((ys - 86 - wide / 2) / (1 + wide / 2)) ** 2
        mouth = 1 / (1 + np.exp(np.minimum(8 * (distance - 1), 50)))[..., None]
        frames.append(skin * (1 - mouth) + 30 * mouth)
    return np.stack(frames).astype(np.uint8)
