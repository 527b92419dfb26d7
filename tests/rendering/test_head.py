"""The head's movement: it goes where it should, and the border of the crop stays."""

import numpy as np
import pytest
import torch

from stillspeak.face.align import invert_transform, transform_points
from stillspeak.rendering.head import (
    EDGE,
    HEAD,
    SHOULDERS,
    HeadWarper,
    head_field,
    move_head_in_frames,
)


def spot(x: int, y: int) -> torch.Tensor:
    """A picture (1, 3, 128, 96) that is dark but for a soft spot."""
    ys, xs = torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing="ij")
    light = torch.exp(-((xs - x) ** 2 + (ys - y) ** 2) / 8)
    return (2 * light - 1).expand(1, 3, -1, -1)


def middle(picture: torch.Tensor) -> tuple[float, float]:
    light = (picture[0] + 1).clamp_min(0)
    ys, xs = torch.meshgrid(torch.arange(128.0), torch.arange(96.0), indexing="ij")
    return float((light * xs).sum() / light.sum()), float((light * ys).sum() / light.sum())


def test_no_pose_no_field() -> None:
    assert not head_field(torch.zeros(2, 3), 32, 24).any()


def test_the_border_stays() -> None:
    field = head_field(torch.tensor([[3.0, 2.0, -2.0]]), 128, 96)[0]
    assert field.abs().max() > 0.02
    for edge in (field[:, 0], field[:, -1], field[:, :, 0], field[:, :, -1]):
        assert edge.abs().max() < 1e-3


@pytest.mark.parametrize(("dx", "dy"), [(2.0, 0.0), (0.0, -2.0), (1.5, 1.0)])
def test_a_shift_is_that_many_pixels(dx: float, dy: float) -> None:
    still = spot(48, 60)
    moved = move_head_in_frames(still, torch.tensor([[0.0, dx, dy]]))
    x, y = middle(moved[0])
    assert (x - 48, y - 60) == pytest.approx((dx, dy), abs=0.1)


def test_a_tilt_turns_about_the_neck() -> None:
    # The pivot lies at x 47.5, y 111.5; a spot 51.5 px above it goes 51.5 sin(2 degrees) aside.
    x, y = middle(move_head_in_frames(spot(48, 60), torch.tensor([[2.0, 0.0, 0.0]]))[0])
    assert x - 48 == pytest.approx(51.5 * 0.0349, abs=0.15)
    assert y == pytest.approx(60, abs=0.1)


@pytest.mark.parametrize("reach", [(1.0, 1.0), HEAD])
def test_nothing_moves_on_the_grid_s_outermost_places(reach: tuple[float, float]) -> None:
    field = head_field(torch.tensor([[4.0, 3.0, -3.0]]), 64, 48, reach)
    for edge in (field[..., 0, :], field[..., -1, :], field[..., 0], field[..., -1]):
        assert not edge.any()
    assert field.abs().max() > 0.05


def test_a_wider_reach_moves_the_whole_head_alike_and_not_the_shoulders() -> None:
    shift = head_field(torch.tensor([[0.0, 2.0, 0.0]]), 128, 96, HEAD)[0, 0]
    rows = (torch.arange(128) + 0.5) / 64 * HEAD[1] - HEAD[1]
    columns = (torch.arange(96) + 0.5) / 48 * HEAD[0] - HEAD[0]
    head = shift[(rows > -1.25) & (rows < 0.6)][:, columns.abs() < 1.2]
    assert torch.allclose(head, torch.tensor(-2 * 2 / 96), atol=1e-5)
    assert not shift[rows > SHOULDERS].any()


def test_the_field_never_folds() -> None:
    """Three times people's motion, and what lies side by side still does."""
    poses = torch.tensor([[10.0, 0.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, -8.0], [6.0, 5.0, 5.0]])
    field = head_field(poses, 128, 96, HEAD)
    # In cells of the grid; a slope of -1 lays two places on one.
    x = field[:, 0] * 96 / (2 * HEAD[0])
    y = field[:, 1] * 128 / (2 * HEAD[1])
    assert x.diff(dim=2).min() > -1
    assert y.diff(dim=1).min() > -1


# --- drawn into the picture --------------------------------------------------------------------


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
    out = HeadWarper(portrait.shape[:2], transform).draw(shift(), portrait.copy())
    np.testing.assert_array_equal(out, portrait)


def test_outside_the_crop_the_photo_is_unchanged(
    portrait: np.ndarray, transform: np.ndarray
) -> None:
    out = HeadWarper(portrait.shape[:2], transform).draw(shift(3, 4), portrait.copy())
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
    out = HeadWarper(photo.shape[:2], transform).draw(shift(0, 3), photo.copy())
    back = invert_transform(transform)
    at, source = transform_points(np.array([(40.0, 60.0), (40.0, 63.0)]), back)
    column, row = np.rint(at).astype(int)
    assert out[row, column, :2] == pytest.approx(80 + 0.2 * source, abs=1.5)


def test_the_grid_s_fineness_does_not_matter(portrait: np.ndarray) -> None:
    for scale in (0.4, 2.0):  # a face of 320 and of 64 lines
        warper = HeadWarper((512, 512), turned(20, scale, (220, 130)))
        coarse, fine = (
            warper.draw(shift(2, 2, size), portrait.copy()).astype(float)
            for size in ((64, 48), (256, 192))
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
    out = HeadWarper(photo.shape[:2], turned(0, 0.5, centre)).draw(shift(*move), photo.copy())
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
    out = HeadWarper(ramp.shape[:2], turned(0, 0.5, (0, 128))).draw(shift(0, 5), ramp.copy())
    np.testing.assert_array_equal(out[128, :60, 0], 138)


def test_a_wider_reach_is_the_same_in_the_crop(portrait: np.ndarray) -> None:
    transform = turned(10, 0.5, (240, 250))
    flow = shift(2, 3)
    near = HeadWarper(portrait.shape[:2], transform).draw(flow, portrait.copy())
    padded = np.pad(flow, ((32, 32), (24, 24), (0, 0)))
    wide = HeadWarper(portrait.shape[:2], transform, (2.0, 2.0)).draw(padded, portrait.copy())
    assert np.abs(near.astype(int) - wide).max() <= 1


def test_a_crop_beside_the_photo_changes_nothing(portrait: np.ndarray) -> None:
    out = HeadWarper(portrait.shape[:2], turned(0, 1, (-500, 200))).draw(
        shift(3, 3), portrait.copy()
    )
    np.testing.assert_array_equal(out, portrait)


def test_only_the_needed_region_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a photo of 4,000 lines no more is looked up than the face's own pixels."""
    import cv2

    photo = np.zeros((4000, 3000, 3), np.uint8)
    warper = HeadWarper(photo.shape[:2], turned(0, 1, (700, 3000)))
    looked_up = []
    remap = cv2.remap
    monkeypatch.setattr(
        cv2, "remap", lambda *args, **more: looked_up.append(args[1].size) or remap(*args, **more)
    )
    warper.draw(shift(2, 2), photo)
    assert looked_up[0] <= 132 * 100
