"""A detector for the tests of faces and rendering, and the picture it looks at."""

from collections.abc import Iterator

import numpy as np
import pytest

from stillspeak.face.landmarks import Face, MediaPipeDetector


@pytest.fixture(scope="session")
def detector() -> Iterator[MediaPipeDetector]:
    with MediaPipeDetector() as detector:
        yield detector


@pytest.fixture(scope="session")
def portrait() -> np.ndarray:
    """(512, 512, 3) uint8: Eileen Collins, NASA, public domain."""
    data = pytest.importorskip("skimage.data")
    picture = data.astronaut()
    picture.flags.writeable = False
    return picture


@pytest.fixture(scope="session")
def portrait_face(detector: MediaPipeDetector, portrait: np.ndarray) -> Face:
    (face,) = detector.detect(portrait)
    return face
