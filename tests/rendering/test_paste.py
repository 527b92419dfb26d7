import numpy as np
import pytest

from stillspeak.face.align import crop_face, face_transform, invert_transform, transform_points
from stillspeak.face.landmarks import Face
from stillspeak.rendering.paste import FacePaster, PasteMode

MODES: tuple[PasteMode, ...] = ("detail", "residual", "blend")


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


@pytest.mark.parametrize("mode", ["detail", "residual"])
def test_an_unchanged_crop_leaves_the_photo_bit_for_bit(
    portrait: np.ndarray, transform: np.ndarray, mode: PasteMode
) -> None:
    paster = FacePaster(portrait, transform, 128, 96, mode=mode)
    out = paster.paste(crop_face(portrait, transform, 128, 96))
    np.testing.assert_array_equal(out, portrait)
    assert out is not portrait


def test_blending_an_unchanged_crop_gives_the_photo_back(
    portrait: np.ndarray, portrait_face: Face
) -> None:
    transform = face_transform(portrait_face.points, scale=2)
    paster = FacePaster(portrait, transform, 256, 192, mode="blend")
    out = paster.paste(crop_face(portrait, transform, 256, 192))
    x0, y0, x1, y1 = paster.box
    error = np.abs(out.astype(float) - portrait)[y0:y1, x0:x1]
    assert error.mean() < 1.5


@pytest.mark.parametrize("mode", MODES)
def test_outside_the_mask_nothing_changes(
    portrait: np.ndarray, transform: np.ndarray, mode: PasteMode
) -> None:
    paster = FacePaster(portrait, transform, 128, 96, mode=mode)
    out = paster.paste(np.full((128, 96, 3), 255, dtype=np.uint8))
    outside = paster.mask() == 0
    np.testing.assert_array_equal(out[outside], portrait[outside])
    x0, y0, x1, y1 = paster.box
    assert 0 <= x0 < x1 <= 512
    assert 0 <= y0 < y1 <= 512
    inside = paster.mask() == 1
    assert inside.any()
    if mode != "residual":  # which keeps the photo's fine detail upon the white
        np.testing.assert_array_equal(out[inside], 255)


@pytest.mark.parametrize("mode", MODES)
def test_colour_is_neither_shifted_nor_mixed(mode: PasteMode) -> None:
    photo = np.full((300, 300, 3), (200, 100, 50), dtype=np.uint8)
    transform = turned(0.3, 0.6, (150, 150))
    paster = FacePaster(photo, transform, 128, 96, mode=mode)
    out = paster.paste(np.full((128, 96, 3), (10, 60, 250), dtype=np.uint8))
    inside = paster.mask() == 1
    np.testing.assert_array_equal(out[inside], np.broadcast_to((10, 60, 250), (inside.sum(), 3)))


def test_the_mask_falls_from_the_middle_to_zero_at_the_border() -> None:
    photo = np.zeros((400, 400, 3), dtype=np.uint8)
    transform = turned(0.5, 0.5, (200, 200))
    mask = FacePaster(photo, transform, 128, 96, feather=0.2).mask()
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
    photo = np.zeros((200, 200, 3), dtype=np.uint8)
    transform = turned(0.0, 1.0, (100, 100))
    narrow, wide = (FacePaster(photo, transform, 128, 96, f).mask() for f in (0.05, 0.4))
    assert (wide <= narrow + 1e-6).all()
    assert wide.sum() < narrow.sum()


def test_detail_stays_where_nothing_moves_and_goes_where_the_mouth_does() -> None:
    """A fine pattern survives beside the changed part and is gone within it."""
    rng = np.random.default_rng(0)
    photo = np.repeat(rng.integers(80, 176, (400, 400, 1), dtype=np.uint8), 3, axis=2)
    transform = turned(0.0, 0.4, (200, 200))
    crop = crop_face(photo, transform, 128, 96)
    crop[80:110] = 230
    out = {m: FacePaster(photo, transform, 128, 96, mode=m).paste(crop) for m in MODES}
    still = np.s_[110:180, 150:250]  # crop rows 28 to 55
    moving = np.s_[265:290, 150:250]  # crop rows 90 to 99
    np.testing.assert_array_equal(out["detail"][still], photo[still])
    assert out["blend"][still].std() < 0.6 * photo[still].std()
    assert out["residual"][moving].std() > 15
    assert (out["detail"][moving] == 230).all()


def test_a_crop_beside_the_photo_changes_nothing(portrait: np.ndarray) -> None:
    for mode in MODES:
        paster = FacePaster(portrait, turned(0, 1, (-500, 200)), 128, 96, mode=mode)
        out = paster.paste(np.zeros((128, 96, 3), dtype=np.uint8))
        np.testing.assert_array_equal(out, portrait)


def test_wrong_values_are_refused(portrait: np.ndarray) -> None:
    transform = turned(0, 1, (200, 200))
    with pytest.raises(ValueError, match="feather"):
        FacePaster(portrait, transform, 128, 96, feather=0)
    with pytest.raises(ValueError, match="mode"):
        FacePaster(portrait, transform, 128, 96, mode="melt")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"\(128, 96, 3\), got \(96, 128, 3\)"):
        FacePaster(portrait, transform, 128, 96).paste(np.zeros((96, 128, 3), dtype=np.uint8))
