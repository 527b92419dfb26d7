import hashlib
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata, resources

import numpy as np
import pytest

from stillspeak.errors import (
    FaceTooSmallError,
    FaceTurnedError,
    MissingDependencyError,
    NoFaceError,
)
from stillspeak.face.align import crop_face, face_transform, invert_transform, transform_points
from stillspeak.face.landmarks import Face, MediaPipeDetector, check_face, choose_face

# By eye in the 512x512 picture: middle of her right eye (image left), of the other, nose tip.
EYES = np.array([(204, 102), (246, 104)])
NOSE = np.array((223, 130))


def eye_middles(face: Face) -> np.ndarray:
    return np.stack([face.points[[33, 133]].mean(axis=0), face.points[[362, 263]].mean(axis=0)])


def made_face(*, eyes: float = 40.0, yaw: float = 0.0, at: float = 100.0) -> Face:
    points = np.zeros((478, 2), dtype=np.float32)
    points[[362, 263]] = (eyes, 0)
    points[0] = (eyes / 2, 2 * eyes)
    return Face(points + np.float32(at), {}, yaw=yaw, pitch=0, roll=0)


def redraw(portrait: np.ndarray, transform: np.ndarray, height: int, width: int) -> np.ndarray:
    """The head of the portrait drawn elsewhere on grey; portrait pixels -> ``transform``."""
    corner = transform_points(np.array([(110, 0), (330, 0), (330, 240), (110, 240)]), transform)
    drawn = crop_face(portrait, transform, height, width)
    y, x = np.mgrid[:height, :width]
    inside = np.ones((height, width), dtype=bool)
    for (ax, ay), (bx, by) in zip(corner, np.roll(corner, -1, axis=0), strict=True):
        inside &= (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0
    return np.where(inside[..., None], drawn, np.uint8(120))


def similarity(degrees: float, scale: float, to: tuple[float, float]) -> np.ndarray:
    """Her nose tip goes to ``to``, turned clockwise in the picture."""
    angle = np.radians(degrees)
    matrix = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([matrix, np.array(to) - matrix @ NOSE])


def test_the_portrait(portrait_face: Face) -> None:
    face = portrait_face
    assert face.points.shape == (478, 2)
    assert face.points.dtype == np.float32
    assert np.abs(eye_middles(face) - EYES).max() < 4
    assert 38 < face.eye_distance < 45
    assert len(face.blendshapes) == 52
    assert all(0 <= value <= 1 for value in face.blendshapes.values())
    assert face.blendshapes["mouthSmileLeft"] > 0.5
    assert face.blendshapes["eyeBlinkLeft"] < 0.5
    assert abs(face.yaw) < 10
    assert 0 < face.roll < 8  # the line of her eyes falls to the right
    x0, y0, x1, y1 = face.box
    assert face.area == pytest.approx((x1 - x0) * (y1 - y0))
    assert face.size == pytest.approx(max(x1 - x0, y1 - y0))
    assert np.abs(np.array(face.centre) - NOSE).max() < 20
    check_face(face)


@pytest.mark.parametrize("times", [2, 3])
def test_points_count_from_pixel_centres(
    detector: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face, times: int
) -> None:
    """Twice the size moves a centre x to 2 x + 0.5, not to 2 x."""
    large = portrait.repeat(times, axis=0).repeat(times, axis=1)
    (face,) = detector.detect(large)
    shift = face.points - (portrait_face.points * times + (times - 1) / 2)
    assert np.abs(shift.mean(axis=0)).max() < 0.2


def test_points_are_not_shifted_to_one_side(
    detector: MediaPipeDetector, portrait: np.ndarray
) -> None:
    """Points on the midline of a face and of its mirror image lie at mirrored places."""
    midline = [0, 1, 2, 6, 8, 9, 10, 13, 14, 17, 152, 168]
    large = portrait.repeat(4, axis=0).repeat(4, axis=1)  # a face of 430 pixels
    (face,), (mirrored,) = detector.detect(large), detector.detect(large[:, ::-1])
    shift = (face.points + mirrored.points)[midline, 0] - (large.shape[1] - 1)
    assert abs(shift.mean()) / 2 < 0.0025 * face.size


def test_a_view_that_is_not_contiguous_holds_the_face_too(
    detector: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face
) -> None:
    mirrored = portrait[:, ::-1]
    assert not mirrored.flags.c_contiguous
    (face,) = detector.detect(mirrored)
    expected = eye_middles(portrait_face)[::-1] * (-1, 1) + (511, 0)
    assert np.abs(eye_middles(face) - expected).max() < 2
    assert face.roll == pytest.approx(-portrait_face.roll, abs=3)


@pytest.mark.parametrize("degrees", [-40, -20, 20, 40])
def test_a_turned_head(
    detector: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face, degrees: float
) -> None:
    transform = similarity(degrees, 1.2, (300, 260))
    (face,) = detector.detect(redraw(portrait, transform, 512, 600))
    expected = transform_points(portrait_face.points, transform)
    assert np.abs(face.points - expected).mean() < 3
    assert face.roll - portrait_face.roll == pytest.approx(degrees, abs=4)
    assert face.yaw == pytest.approx(portrait_face.yaw, abs=5)


@pytest.fixture(scope="module")
def any_way_up() -> Iterator[MediaPipeDetector]:
    with MediaPipeDetector(any_way_up=True) as detector:
        yield detector


@pytest.mark.parametrize("degrees", [0, 30, -30, 60, 90, -90, 120, -120, 150, -150, 180])
@pytest.mark.parametrize("scale", [0.5, 1.5])
def test_a_head_at_any_turn(
    any_way_up: MediaPipeDetector,
    portrait: np.ndarray,
    portrait_face: Face,
    degrees: float,
    scale: float,
) -> None:
    transform = similarity(degrees, scale, (420, 330))
    (face,) = any_way_up.detect(redraw(portrait, transform, 700, 900))
    expected = transform_points(portrait_face.points, transform)
    assert np.abs(face.points - expected).mean() < 0.03 * portrait_face.size * scale
    apart = (face.roll - portrait_face.roll - degrees + 180) % 360 - 180
    assert abs(apart) < 6
    assert abs(face.yaw - portrait_face.yaw) < 8


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_photo_on_its_side(
    any_way_up: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face, quarters: int
) -> None:
    """The portrait of 512 x 400 pixels in all four ways a phone may have been held."""
    photo = np.rot90(portrait[:400], -quarters)
    (face,) = any_way_up.detect(photo)
    x, y = portrait_face.points.T
    turned = {0: (x, y), 1: (399 - y, x), 2: (511 - x, 399 - y), 3: (y, 511 - x)}[quarters]
    assert np.abs(face.points - np.stack(turned, -1)).mean() < 1.5


def test_looking_any_way_up_finds_no_face_where_none_is(any_way_up: MediaPipeDetector) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
    assert any_way_up.detect(noise) == []


def test_an_upright_face_is_left_as_it_was_found(
    any_way_up: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face
) -> None:
    (face,) = any_way_up.detect(portrait)
    np.testing.assert_array_equal(face.points, portrait_face.points)


@pytest.mark.parametrize("to", [(90, 110), (540, 400)])
def test_a_head_in_a_corner(
    detector: MediaPipeDetector,
    portrait: np.ndarray,
    portrait_face: Face,
    to: tuple[float, float],
) -> None:
    transform = similarity(0, 0.7, to)
    (face,) = detector.detect(redraw(portrait, transform, 480, 640))
    expected = transform_points(portrait_face.points, transform)
    assert np.abs(face.points - expected).mean() < 1.5


@pytest.mark.parametrize(
    ("size", "to"), [(60, (1500, 1400)), (60, (400, 990)), (100, (1010, 505)), (150, (1960, 200))]
)
def test_a_small_face_in_a_large_photo(
    detector: MediaPipeDetector,
    portrait: np.ndarray,
    portrait_face: Face,
    size: float,
    to: tuple[float, float],
) -> None:
    transform = similarity(0, size / portrait_face.size, to)
    (face,) = detector.detect(redraw(portrait, transform, 1600, 2000))
    expected = transform_points(portrait_face.points, transform)
    assert face.size == pytest.approx(size, rel=0.1)
    assert np.abs(face.points - expected).mean() < 0.03 * size


@pytest.mark.parametrize("scale", [1, 4])
def test_a_face_that_fills_the_picture(
    detector: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face, scale: int
) -> None:
    transform = face_transform(portrait_face.points, scale=scale)
    crop = crop_face(portrait, transform, 128 * scale, 96 * scale)
    (face,) = detector.detect(crop)
    expected = transform_points(portrait_face.points, transform)
    assert np.abs(face.points - expected).mean() < 1.0 * scale


def test_a_face_cut_by_the_border(detector: MediaPipeDetector, portrait: np.ndarray) -> None:
    closeup = portrait[75:165, 170:275]  # brows to chin, cheek to cheek
    (face,) = detector.detect(closeup)
    assert np.abs(eye_middles(face) - (EYES - (170, 75))).max() < 5


def test_two_faces_come_largest_first(
    detector: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face
) -> None:
    small, large = similarity(0, 0.9, (120, 200)), similarity(0, 1.3, (420, 220))
    left = redraw(portrait, small, 400, 640)
    right = redraw(portrait, large, 400, 640)
    both = np.where(np.arange(640)[None, :, None] < 240, left, right)
    faces = detector.detect(both)
    assert len(faces) == 2
    for face, transform in zip(faces, (large, small), strict=True):
        expected = transform_points(portrait_face.points, transform)
        assert np.abs(face.points - expected).mean() < 2
    assert choose_face(faces) is faces[0]
    assert choose_face(faces, 1) is faces[1]
    with pytest.raises(NoFaceError, match=r"us\.png: there is no face number 2, 2 faces were"):
        choose_face(faces, 2, name="us.png")


@pytest.mark.parametrize("shape", [(64, 64, 3), (300, 900, 3), (1, 1, 3)])
def test_no_face(detector: MediaPipeDetector, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(0)
    faces = detector.detect(rng.integers(0, 256, shape, dtype=np.uint8))
    assert faces == []
    with pytest.raises(NoFaceError, match=r"^tree\.jpg: no face found; use a picture"):
        choose_face(faces, name="tree.jpg")


def test_choosing_among_one() -> None:
    face = made_face()
    assert choose_face([face], 0) is face
    for index in (1, -1):
        with pytest.raises(NoFaceError, match="1 face was found; choose from 0"):
            choose_face([face], index)


def test_a_face_that_is_too_small() -> None:
    check_face(made_face(eyes=16))
    with pytest.raises(FaceTooSmallError, match=r"^me\.png: .* 15 pixels apart and 16 are needed"):
        check_face(made_face(eyes=15), name="me.png")
    check_face(made_face(eyes=15), min_eye_distance=10)


@pytest.mark.parametrize("yaw", [50, -50])
def test_a_face_that_is_turned_away(yaw: float) -> None:
    with pytest.raises(FaceTurnedError, match=r"^me\.png: .* turned 50 degrees .* at most 35"):
        check_face(made_face(yaw=yaw), name="me.png")
    check_face(made_face(yaw=yaw), max_yaw=60)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((10, 10), dtype=np.uint8),
        np.zeros((10, 10, 4), dtype=np.uint8),
        np.zeros((10, 10, 3), dtype=np.float32),
        np.zeros((0, 10, 3), dtype=np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(detector: MediaPipeDetector, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match="need an"):
        detector.detect(image)


def test_the_same_picture_gives_the_same_points(
    detector: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face
) -> None:
    (again,) = detector.detect(portrait)
    np.testing.assert_array_equal(again.points, portrait_face.points)
    assert again.blendshapes == portrait_face.blendshapes


def test_video_mode_follows_a_face(portrait: np.ndarray, portrait_face: Face) -> None:
    with MediaPipeDetector(video=True) as detector:
        for shift in range(4):
            (face,) = detector.detect(np.roll(portrait, shift, axis=1))
        assert np.abs(face.points - portrait_face.points - (3, 0)).mean() < 2
        with pytest.raises(ValueError, match="100 ms after 120 ms"):
            detector.detect(portrait, timestamp_ms=100)
        assert detector.detect(portrait, timestamp_ms=1000)


def test_the_version_tells_the_modes_apart(detector: MediaPipeDetector) -> None:
    assert metadata.version("mediapipe") in detector.version
    versions = {detector.version}
    for options in ({"max_faces": 1}, {"search": False}, {"video": True}, {"any_way_up": True}):
        with MediaPipeDetector(**options) as other:
            versions.add(other.version)
    assert len(versions) == 5


def test_a_closed_detector(portrait: np.ndarray) -> None:
    detector = MediaPipeDetector()
    detector.close()
    detector.close()
    with pytest.raises(ValueError, match="closed"):
        detector.detect(portrait)


def test_at_least_one_face() -> None:
    with pytest.raises(ValueError, match="max_faces"):
        MediaPipeDetector(max_faces=0)


@pytest.mark.parametrize("ending", ["", "d.close()", "del d", "raise SystemExit(0)"])
def test_nothing_is_written_to_stderr(ending: str) -> None:
    """Neither MediaPipe's C++ log at the start nor its __del__ at the end reaches the user."""
    program = (
        "import numpy as np\n"
        "from stillspeak.face.landmarks import MediaPipeDetector\n"
        "d = MediaPipeDetector()\n"
        "d.detect(np.zeros((64, 64, 3), np.uint8))\n"
        f"{ending}\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_stderr_works_again_afterwards() -> None:
    program = (
        "import os, sys\n"
        "from stillspeak.face.landmarks import MediaPipeDetector\n"
        "with MediaPipeDetector():\n"
        "    os.write(2, b'one ')\n"
        "    print('two', file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stderr == "one two\n"


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, stillspeak.face.landmarks\n"
        "print([m for m in ('mediapipe', 'cv2', 'torch', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_the_model_file_is_the_one_that_its_notice_names() -> None:
    folder = resources.files("stillspeak").joinpath("resources")
    digest = hashlib.sha256(folder.joinpath("face_landmarker.task").read_bytes()).hexdigest()
    notice = folder.joinpath("LICENSE-face_landmarker.txt").read_text("utf-8")
    assert f"SHA-256 {digest}" in notice
    assert "Apache License" in notice


def test_mediapipe_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mediapipe.tasks.python.vision", None)
    with pytest.raises(MissingDependencyError, match="pip install 'mediapipe"):
        MediaPipeDetector()


@pytest.mark.parametrize("kind", [OSError, ImportError])
def test_a_system_library_is_missing(
    monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    vision = pytest.importorskip("mediapipe.tasks.python.vision.face_landmarker")

    def fail(options: object) -> None:
        raise kind("libEGL.so.1: cannot open shared object file: No such file or directory")

    monkeypatch.setattr(vision.FaceLandmarker, "create_from_options", fail)
    with pytest.raises(MissingDependencyError, match=r"libEGL\.so\.1.*libegl1 libgles2") as caught:
        MediaPipeDetector()
    assert "\n" not in str(caught.value)


def test_the_inverse_transform_puts_the_crop_under_the_points(
    detector: MediaPipeDetector, portrait: np.ndarray, portrait_face: Face
) -> None:
    """Detect in the crop, go back to the photo: the same points again."""
    transform = face_transform(portrait_face.points, scale=2)
    (face,) = detector.detect(crop_face(portrait, transform, 256, 192))
    back = transform_points(face.points, invert_transform(transform))
    assert np.abs(back - portrait_face.points).mean() < 0.5
