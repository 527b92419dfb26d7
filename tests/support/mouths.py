"""A drawn face with closed lips, and mouth poses."""

import cv2
import numpy as np

from stillspeak.face.align import transform_points
from stillspeak.face.mouth import INNER_LIPS, OUTER_LIPS, POSE_POINTS
from stillspeak.rendering.mesh import face_model


def drawing(scale: float = 60.0, turn: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """A drawn face with its lips closed, (H, W, 3) uint8, and its landmarks (478, 2)."""
    c, s = scale * np.cos(np.radians(turn)), scale * np.sin(np.radians(turn))
    place = np.array([[c, -s, 200.0], [s, c, 200.0]])
    points = transform_points(face_model().template[:, :2] - (0, 0.7), place)
    y, x = np.mgrid[:400, :400]
    skin = np.stack([190 + 20 * np.sin(0.05 * x + 0.04 * y), 140 + 0 * x, 120 + 0.05 * y], -1)
    picture = skin.astype(np.uint8)
    for ring, colour in ((OUTER_LIPS, (170, 90, 90)), (INNER_LIPS, (60, 20, 20))):
        placed = np.rint(points[list(ring)] * 16).astype(np.int32)
        cv2.fillPoly(picture, [placed], colour, cv2.LINE_AA, 4)
        cv2.polylines(picture, [placed], True, colour, 1, cv2.LINE_AA, 4)
    return picture, points


def opened(lower: float, upper: float = 0.0, chin: float | None = None) -> np.ndarray:
    """(41, 2) a pose whose lower lip is down and whose upper lip is up, most in the middle."""
    rest = face_model().template[list(POSE_POINTS), :2]
    side = np.abs(rest[:, 0]) / np.abs(rest[0, 0])
    bow = np.sqrt(np.clip(1 - side**2, 0, 1))
    pose = np.zeros((len(POSE_POINTS), 2), np.float32)
    for ring in (0, 20):
        pose[ring + 1 : ring + 10, 1] = lower * bow[ring + 1 : ring + 10]
        pose[ring + 11 : ring + 20, 1] = -upper * bow[ring + 11 : ring + 20]
    pose[-1, 1] = 0.6 * lower if chin is None else chin
    return pose
