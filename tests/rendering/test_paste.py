import numpy as np
import pytest

from stillspeak.face.align import crop_face, face_transform, invert_transform, transform_points
from stillspeak.face.landmarks import Face
from stillspeak.rendering.paste import FacePaster, face_support


def turned(angle: float, scale: float, centre: tuple[float, float]) -> np.ndarray:
    """Photo -> 128x96 crop: the crop's middle at ``centre``, turned and scaled."""
    c, s = scale * np.cos(angle), scale * np.sin(angle)
    matrix = np.array([[c, -s], [s, c]])
    return np.column_stack([matrix, (47.5, 63.5) - matrix @ np.array(centre)])


@pytest.fixture(
    params=[
        (0.0, 0.5, (256, 256)),
        (0.4, 0.7, (220, 120)),
        (-1.2, 0.3, (300, 300)),
        (0.2, 2.0, (222, 110)),
        (0.3, 0.6, (20, 30)),
        (0.0, 0.2, (480, 500)),
    ],
    ids=["upright", "turned", "far turned", "small face", "over the edge", "mostly outside"],
)
def transform(request: pytest.FixtureRequest) -> np.ndarray:
    return turned(*request.param)


def shown_share(transform: np.ndarray, size: int, feather: float) -> np.ndarray:
    """(size, size) how much of each pixel of a photo comes from the crop."""
    paster = FacePaster(np.zeros((size, size, 3), np.uint8), transform, 128, 96, feather)
    return paster.paste(np.full((128, 96, 3), 255, np.uint8))[..., 0] / 255


def test_an_unchanged_crop_leaves_the_photo_bit_for_bit(
    portrait: np.ndarray, transform: np.ndarray
) -> None:
    paster = FacePaster(portrait, transform, 128, 96)
    out = paster.paste(crop_face(portrait, transform, 128, 96))
    np.testing.assert_array_equal(out, portrait)
    assert out is not portrait


def test_outside_the_crop_nothing_changes(portrait: np.ndarray, transform: np.ndarray) -> None:
    paster = FacePaster(portrait, transform, 128, 96)
    out = paster.paste(np.full((128, 96, 3), 255, dtype=np.uint8))
    y, x = np.mgrid[:512, :512]
    u, v = np.moveaxis(transform_points(np.stack([x, y], -1).astype(float), transform), -1, 0)
    outside = (u < -0.5) | (u > 95.5) | (v < -0.5) | (v > 127.5)
    np.testing.assert_array_equal(out[outside], portrait[outside])
    x0, y0, x1, y1 = paster.box
    assert 0 <= x0 < x1 <= 512
    assert 0 <= y0 < y1 <= 512
    inside = (u > 12) & (u < 84) & (v > 12) & (v < 116)
    assert inside.any()
    np.testing.assert_array_equal(out[inside], 255)


def test_colour_is_neither_shifted_nor_mixed() -> None:
    photo = np.full((300, 300, 3), (200, 100, 50), dtype=np.uint8)
    transform = turned(0.3, 0.6, (150, 150))
    paster = FacePaster(photo, transform, 128, 96)
    out = paster.paste(np.full((128, 96, 3), (10, 60, 250), dtype=np.uint8))
    inside = shown_share(transform, 300, 0.12) == 1
    assert inside.any()
    np.testing.assert_array_equal(out[inside], np.broadcast_to((10, 60, 250), (inside.sum(), 3)))


def test_the_mask_falls_from_the_middle_to_zero_at_the_border() -> None:
    transform = turned(0.5, 0.5, (200, 200))
    mask = shown_share(transform, 400, 0.2)
    assert mask.min() == 0
    assert mask.max() == 1
    to_photo = invert_transform(transform)
    for border in [(-0.5, 63.5), (95.5, 63.5), (47.5, -0.5), (47.5, 127.5), (-0.5, -0.5)]:
        line = np.linspace((47.5, 63.5), border, 60)
        x, y = np.rint(transform_points(line, to_photo)).astype(int).T
        along = mask[y, x]
        assert (np.diff(along) <= 1e-6).all()
        assert along[0] == 1
        assert along[-1] < 0.02


def test_a_wider_feather_fades_earlier() -> None:
    transform = turned(0.0, 1.0, (100, 100))
    narrow, wide = (shown_share(transform, 200, feather) for feather in (0.05, 0.4))
    assert (wide <= narrow + 1e-6).all()
    assert wide.sum() < narrow.sum()


def test_detail_stays_where_nothing_moves_and_goes_where_the_mouth_does() -> None:
    """A fine pattern survives beside the changed part and is gone within it."""
    rng = np.random.default_rng(0)
    photo = np.repeat(rng.integers(80, 176, (400, 400, 1), dtype=np.uint8), 3, axis=2)
    transform = turned(0.0, 0.4, (200, 200))
    crop = crop_face(photo, transform, 128, 96)
    crop[80:110] = 230
    out = FacePaster(photo, transform, 128, 96).paste(crop)
    still = np.s_[110:180, 150:250]  # crop rows 28 to 55
    moving = np.s_[265:290, 150:250]  # crop rows 90 to 99
    np.testing.assert_array_equal(out[still], photo[still])
    assert (out[moving] == 230).all()


def test_a_crop_beside_the_photo_changes_nothing(portrait: np.ndarray) -> None:
    paster = FacePaster(portrait, turned(0, 1, (-500, 200)), 128, 96)
    out = paster.paste(np.zeros((128, 96, 3), dtype=np.uint8))
    np.testing.assert_array_equal(out, portrait)


def test_wrong_values_are_refused(portrait: np.ndarray) -> None:
    transform = turned(0, 1, (200, 200))
    with pytest.raises(ValueError, match=r"\(128, 96, 3\), got \(96, 128, 3\)"):
        FacePaster(portrait, transform, 128, 96).paste(np.zeros((96, 128, 3), dtype=np.uint8))


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
