"""Find a face, bring it to the canonical crop, put a crop back into its photo."""

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
from stillspeak.face.paste import FacePaster

__all__ = [
    "Face",
    "FacePaster",
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
