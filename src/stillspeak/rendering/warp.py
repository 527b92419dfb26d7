"""Draw a face's motion straight into its photo, pixel by pixel of the photo.

The motion is known on a coarse grid over the aligned crop. Each photo pixel looks up where it
comes from and is fetched from the photo itself: nothing is cut out, enlarged and put back, so a
pixel that does not move is bit for bit the photo's, at any size and turn of the face.
"""

import math

import numpy as np
import numpy.typing as npt

from stillspeak.constants import FRAME_HEIGHT, FRAME_WIDTH
from stillspeak.face.align import (
    FloatArray,
    Image,
    Transform,
    crop_box_in_photo,
    scale_transform,
    smoothstep,
    transform_points,
)

JAW_DROP = 12.0
"""Lines of the 128 by which the chin may come down."""

FADE = 9.0
"""Pixels of the crop over which the motion fades to nothing inside the face's outline."""

EDGE = 24.0
"""Pixels of the crop from the photo's edge over which movement across that edge fades to nothing:
wide enough for a head that sways by eight pixels to be squeezed there, and not smeared."""

_FINE = 4  # times the crop's resolution at which the outline is drawn

Maps = npt.NDArray[np.float32]


def face_support(points: FloatArray, pose: Transform, height: int, width: int) -> Maps:
    """How much of the motion is let through: 1 in the face, 0 from its outline on.

    The outline is the hull of the landmarks, lengthened below for the jaw to open, so that hair,
    background and collar do not take part.

    Args:
        points: (478, 2) landmarks in photo pixels.
        pose: (2, 3) photo pixels -> pixels of the 128 x 96 crop.
        height: rows of the grid over the crop.
        width: its columns.

    Returns:
        (height, width) float32 in [0, 1].
    """
    import cv2

    placed = transform_points(np.asarray(points, float), scale_transform(pose, _FINE))
    below = placed[placed[:, 1] > np.median(placed[:, 1])] + (0, JAW_DROP * _FINE)
    hull = cv2.convexHull(np.concatenate([placed, below]).astype(np.float32))
    # A border around the crop, so that a face that reaches over it does not end there abruptly.
    rows, columns = FRAME_HEIGHT * _FINE, FRAME_WIDTH * _FINE
    inside = np.zeros((rows + 2, columns + 2), np.uint8)
    cv2.fillConvexPoly(inside, np.rint(hull).astype(np.int32) + 1, 1)
    inside[[0, -1]] = inside[:, [0, -1]] = 0
    near = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    support = cv2.resize(
        smoothstep(near.astype(np.float32) / (FADE * _FINE)),
        (width, height),
        interpolation=cv2.INTER_AREA,
    )
    support[[0, -1]] = 0
    support[:, [0, -1]] = 0
    return np.asarray(support, dtype=np.float32)


class FaceWarper:
    """Draws frames of one clip into one photo. What does not change in a clip is made once.

    Args:
        photo: (H, W, 3) uint8.
        transform: (2, 3) photo pixels -> pixels of the 128 x 96 crop.
        reach: how far the maps cover beyond the crop, (x, y) times its half. 1: the crop itself.
    """

    def __init__(
        self, photo: Image, transform: Transform, reach: tuple[float, float] = (1.0, 1.0)
    ) -> None:
        self._photo = np.ascontiguousarray(photo)
        self._transform = np.array(transform, dtype=np.float64)
        self._reach = reach
        # Displacements of the crop's [-1, 1] coordinates -> displacements in photo pixels.
        half = np.diag([FRAME_WIDTH / 2, FRAME_HEIGHT / 2])
        self._to_photo = (np.linalg.inv(self._transform[:, :2]) @ half).T.astype(np.float32)
        self.box = self._box_of((-1.0, -1.0, 1.0, 1.0))
        x0, y0, x1, y1 = self.box
        ramp = EDGE / math.sqrt(abs(float(np.linalg.det(self._transform[:, :2]))))
        self._across = _off_the_edge(x0, x1, photo.shape[1], ramp)[None, :]
        self._down = _off_the_edge(y0, y1, photo.shape[0], ramp)[:, None]
        self._x = np.arange(x0, x1, dtype=np.float32)[None, :]
        self._y = np.arange(y0, y1, dtype=np.float32)[:, None]

    def draw(self, flow: Maps, photo: Image | None = None) -> Image:
        """The photo with one frame's motion in it.

        Args:
            flow: (h, w, 2) where each place comes from, offsets (x, y) in the [-1, 1] coordinates
                of the crop.
            photo: (H, W, 3) uint8, a frame whose mouth speaks already, to be drawn of instead, and
                into.

        Returns:
            (H, W, 3) uint8, ``photo`` or a new array, equal to the photo where the flow is 0.
        """
        import cv2

        out = self._photo.copy() if photo is None else photo
        photo = self._photo if photo is None else photo
        box = self._touched((flow[..., 0] != 0) | (flow[..., 1] != 0))
        x0, y0, x1, y1 = box
        if x0 >= x1 or y0 >= y1:
            return out
        bx, by = self.box[:2]
        rows, columns = slice(y0 - by, y1 - by), slice(x0 - bx, x1 - bx)
        (xx, xy), (yx, yy) = self._to_photo
        across, down = flow[..., 0], flow[..., 1]
        # One by one: OpenCV interpolates two channels at once in coarser steps.
        offset_x = self._spread(across * xx + down * yx, box)
        offset_y = self._spread(across * xy + down * yy, box)
        offset_x *= self._across[:, columns]
        offset_y *= self._down[rows]
        offset_x += self._x[:, columns]
        offset_y += self._y[rows]
        drawn = out[y0:y1, x0:x1]
        drawn[:] = cv2.remap(
            photo, offset_x, offset_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
        )
        return out

    def _spread(self, maps: npt.NDArray, box: tuple[int, int, int, int]) -> npt.NDArray:  # type: ignore[type-arg]
        """Maps on the grid -> on the photo's pixels in a box."""
        import cv2

        x0, y0, x1, y1 = box
        to_grid = self._to_grid(maps.shape[0], maps.shape[1])
        step = math.sqrt(abs(float(np.linalg.det(to_grid[:, :2]))))
        if step > 1.5:  # a grid finer than the photo: average before looking up
            block = round(step)
            size = (-(-maps.shape[1] // block), -(-maps.shape[0] // block))
            maps = cv2.resize(maps, size, interpolation=cv2.INTER_AREA)
            to_grid = self._to_grid(size[1], size[0])
        to_grid[:, 2] += to_grid[:, :2] @ (x0, y0)
        spread = cv2.warpAffine(
            maps,
            to_grid,
            (x1 - x0, y1 - y0),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        return np.asarray(spread)

    def _to_grid(self, height: int, width: int) -> Transform:
        """(2, 3) photo pixels -> cells of a grid over the crop and what is around it."""
        centre = ((FRAME_WIDTH - 1) / 2, (FRAME_HEIGHT - 1) / 2)
        scale = np.array([width / FRAME_WIDTH, height / FRAME_HEIGHT]) / self._reach
        to_grid = self._transform.copy()
        to_grid[:, 2] -= centre
        to_grid *= scale[:, None]
        to_grid[:, 2] += ((width - 1) / 2, (height - 1) / 2)
        return to_grid

    def _touched(self, where: npt.NDArray[np.bool_]) -> tuple[int, int, int, int]:
        """The box of photo pixels whose look-up meets one of these cells."""
        rows, columns = np.flatnonzero(where.any(axis=1)), np.flatnonzero(where.any(axis=0))
        if not len(rows):
            return 0, 0, 0, 0
        height, width = where.shape
        # A cell is felt up to the middle of the next; one more for an averaged grid.
        x0, x1 = columns[0] - 1.5, columns[-1] + 2.5
        y0, y1 = rows[0] - 1.5, rows[-1] + 2.5
        box = (2 * x0 / width - 1, 2 * y0 / height - 1, 2 * x1 / width - 1, 2 * y1 / height - 1)
        return self._box_of((max(box[0], -1), max(box[1], -1), min(box[2], 1), min(box[3], 1)))

    def _box_of(self, region: tuple[float, float, float, float]) -> tuple[int, int, int, int]:
        """Photo pixels x0, y0, x1, y1 (ends excluded) of a region in [-1, 1] of the grid."""
        (left, top, right, bottom), (rx, ry) = region, self._reach
        middle = (FRAME_WIDTH / 2 - 0.5, FRAME_HEIGHT / 2 - 0.5)
        x = middle[0] + np.array([left, right]) * rx * FRAME_WIDTH / 2
        y = middle[1] + np.array([top, bottom]) * ry * FRAME_HEIGHT / 2
        return crop_box_in_photo(
            self._transform, (x[0], y[0], x[1], y[1]), self._photo.shape[0], self._photo.shape[1]
        )


def _off_the_edge(start: int, stop: int, length: int, ramp: float) -> Maps:
    """(stop - start,) 1 in the photo, smoothly 0 at its first and last pixel."""
    place = np.arange(start, stop, dtype=np.float32)
    near = np.minimum(place, length - 1 - place) / ramp
    return np.asarray(smoothstep(near), dtype=np.float32)
