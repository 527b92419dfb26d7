"""Motion drawn into the photo: where it belongs, nowhere else, at any turn, size and place."""

import numpy as np
import pytest

from stillspeak.face.align import face_transform, invert_transform, transform_points
from stillspeak.face.landmarks import Face
from stillspeak.rendering.warp import EDGE, FaceWarper, face_support


def turned(degrees: float, scale: float, centre: tuple[float, float]) -> np.ndarray:
    """Photo -> 128x96 crop: the crop's middle at ``centre``, turned and scaled."""
    angle = np.radians(degrees)
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[c, -s], [s, c]])
    return np.column_stack([matrix, (47.5, 63.5) - matrix @ np.array(centre)])


def shift(dx: float = 0, dy: float = 0, size: tuple[int, int] = (64, 48)) -> np.ndarray:
    """Motion by (dx, dy) pixels of the 128 x 96 crop, the outermost cells at rest."""
    inside = np.zeros(size, np.float32)
    inside[1:-1, 1:-1] = 1
    return inside[..., None] * np.array([2 * dx / 96, 2 * dy / 128], np.float32)


@pytest.fixture(
    params=[
        (0, 0.5, (256, 256)),
        (30, 0.7, (220, 120)),
        (-90, 0.3, (300, 300)),
        (180, 0.6, (250, 200)),
        (12, 2.0, (222, 110)),
        (17, 0.6, (20, 30)),
        (0, 0.2, (480, 500)),
    ],
    ids=["upright", "30", "-90", "180", "small", "over the edge", "mostly outside"],
)
def transform(request: pytest.FixtureRequest) -> np.ndarray:
    return turned(*request.param)


def test_without_motion_the_photo_is_unchanged(portrait: np.ndarray, transform: np.ndarray) -> None:
    out = FaceWarper(portrait, transform).draw(shift())
    np.testing.assert_array_equal(out, portrait)
    assert out is not portrait


def test_outside_the_crop_the_photo_is_unchanged(
    portrait: np.ndarray, transform: np.ndarray
) -> None:
    out = FaceWarper(portrait, transform).draw(shift(3, 4))
    y, x = np.mgrid[:512, :512]
    u, v = np.moveaxis(transform_points(np.stack([x, y], -1).astype(float), transform), -1, 0)
    outside = (u < -0.5) | (u > 95.5) | (v < -0.5) | (v > 127.5)
    np.testing.assert_array_equal(out[outside], portrait[outside])
    inside = (u > 4) & (u < 91) & (v > 4) & (v < 123)
    assert inside.any()
    assert (out[inside] != portrait[inside]).mean() > 0.5


@pytest.mark.parametrize("degrees", [0, 30, -30, 90, 180])
@pytest.mark.parametrize("scale", [0.25, 1.5])
def test_motion_goes_the_way_the_face_stands(degrees: float, scale: float) -> None:
    """What the crop fetches from 3 pixels below its place lies there in the turned face."""
    y, x = np.mgrid[:600, :600].astype(float)
    photo = np.stack([80 + 0.2 * x, 80 + 0.2 * y, 0 * x], -1).round().astype(np.uint8)
    transform = turned(degrees, scale, (300, 300))
    out = FaceWarper(photo, transform).draw(shift(0, 3))
    back = invert_transform(transform)
    at, source = transform_points(np.array([(40.0, 60.0), (40.0, 63.0)]), back)
    column, row = np.rint(at).astype(int)
    assert out[row, column, :2] == pytest.approx(80 + 0.2 * source, abs=1.5)


def test_the_grid_s_fineness_does_not_matter(portrait: np.ndarray) -> None:
    for scale in (0.4, 2.0):  # a face of 320 and of 64 lines
        warper = FaceWarper(portrait, turned(20, scale, (220, 130)))
        coarse, fine = (
            warper.draw(shift(2, 2, size)).astype(float) for size in ((64, 48), (256, 192))
        )
        y, x = np.rint(np.array([130, 220])).astype(int)
        reach = int(30 / scale)
        near = np.s_[y - reach : y + reach, x - reach : x + reach]
        assert np.abs(coarse - fine)[near].mean() < 0.2


@pytest.mark.parametrize("side", ["left", "right", "top", "bottom"])
@pytest.mark.parametrize("sign", [-1, 1])
def test_nothing_is_fetched_across_the_photo_s_edge(side: str, sign: int) -> None:
    """A ramp from black to white stays one without flat places: no repeated edge pixels."""
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 256, axis=0).repeat(3, axis=2)
    across = side in ("left", "right")
    photo = np.ascontiguousarray(ramp if across else ramp.transpose(1, 0, 2))
    end = 0 if side in ("left", "top") else 255
    centre = (end, 128) if across else (128, end)
    move = (8 * sign, 0) if across else (0, 8 * sign)
    out = FaceWarper(photo, turned(0, 0.5, centre)).draw(shift(*move))
    line = out[128, :, 0] if across else out[:, 128, 0]
    assert line[end] == end
    near = line[: int(EDGE)] if end == 0 else line[-int(EDGE) :]
    steps = np.diff(near.astype(int))
    assert steps.min() >= 0  # never back
    assert np.count_nonzero(steps == 0) < len(steps) / 2
    # Away from the edge it moves in full, 16 pixels of the photo.
    far = 80 if end == 0 else 175
    assert line[far] == pytest.approx(far + 16 * sign, abs=1)


def test_motion_along_the_photo_s_edge_is_whole() -> None:
    ramp = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 256, axis=1).repeat(3, axis=2)
    out = FaceWarper(ramp, turned(0, 0.5, (0, 128))).draw(shift(0, 5))
    np.testing.assert_array_equal(out[128, :60, 0], 138)


def test_the_support_is_the_face_and_not_its_surroundings(portrait_face: Face) -> None:
    support = face_support(portrait_face.points, face_transform(portrait_face.points), 128, 96)
    assert support.dtype == np.float32
    assert (support.min(), support.max()) == (0, 1)
    placed = transform_points(portrait_face.points, face_transform(portrait_face.points))

    def at(index: int, dy: float = 0) -> float:
        x, y = np.rint(placed[index] + (0, dy)).astype(int)
        return float(support[y, x])

    for inner in (13, 14, 61, 291, 1, 33, 263, 105, 334):  # lips, nose, eyes, brows
        assert at(inner) > 0.9
    assert at(152) > 0.8  # the chin, which comes down
    assert at(10) < 0.3  # the top of the forehead
    for side in (234, 454):  # where the ears begin
        assert at(side) < 0.2
    for edge in (support[0], support[-1], support[:, 0], support[:, -1]):
        assert not edge.any()
    # It falls gently: no seam.
    assert np.abs(np.diff(support, axis=0)).max() < 0.2
    assert np.abs(np.diff(support, axis=1)).max() < 0.2


def test_a_wider_reach_is_the_same_in_the_crop(portrait: np.ndarray) -> None:
    transform = turned(10, 0.5, (240, 250))
    flow = shift(2, 3)
    near = FaceWarper(portrait, transform).draw(flow)
    padded = np.pad(flow, ((32, 32), (24, 24), (0, 0)))
    wide = FaceWarper(portrait, transform, (2.0, 2.0)).draw(padded)
    assert np.abs(near.astype(int) - wide).max() <= 1


def test_a_crop_beside_the_photo_changes_nothing(portrait: np.ndarray) -> None:
    out = FaceWarper(portrait, turned(0, 1, (-500, 200))).draw(shift(3, 3))
    np.testing.assert_array_equal(out, portrait)


def test_only_the_needed_region_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a photo of 4,000 lines no more is looked up than the face's own pixels."""
    import cv2

    photo = np.zeros((4000, 3000, 3), np.uint8)
    warper = FaceWarper(photo, turned(0, 1, (700, 3000)))
    looked_up = []
    remap = cv2.remap
    monkeypatch.setattr(
        cv2, "remap", lambda *args, **more: looked_up.append(args[1].size) or remap(*args, **more)
    )
    warper.draw(shift(2, 2))
    assert looked_up[0] <= 132 * 100
