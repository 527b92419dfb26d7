"""Find a face and bring it to the canonical crop."""

from stillspeak.face.align import (
    crop_face,
    face_transform,
    invert_transform,
    similarity_transform,
    smooth_landmarks,
    transform_points,
)
from stillspeak.face.landmarks import (
    Face,
    LandmarkDetector,
    MediaPipeDetector,
    check_face,
    choose_face,
)

__all__ = [
    "Face",
    "LandmarkDetector",
    "MediaPipeDetector",
    "check_face",
    "choose_face",
    "crop_face",
    "face_transform",
    "invert_transform",
    "similarity_transform",
    "smooth_landmarks",
    "transform_points",
]
