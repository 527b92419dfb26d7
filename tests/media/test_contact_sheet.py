"""Contact sheets."""

import numpy as np

from stillspeak.media.contact_sheet import (
    MARGIN,
    contact_sheet,
    labelled_sheet,
    scale_to_width,
)


def picture(value: int) -> np.ndarray:
    return np.full((4, 3, 3), value, np.uint8)


def test_rows_of_pictures_on_white() -> None:
    sheet = contact_sheet([[picture(1), picture(2)], [picture(3)]], gap=2)
    assert sheet.shape == (10, 8, 3)
    assert sheet.dtype == np.uint8
    assert (sheet[:4, :3] == 1).all()
    assert (sheet[:4, 5:] == 2).all()
    assert (sheet[6:, :3] == 3).all()
    white = np.ones((10, 8), bool)
    white[:4, :3] = white[:4, 5:] = white[6:, :3] = False
    assert (sheet[white] == 255).all()


def test_one_picture_and_no_gap() -> None:
    assert (contact_sheet([[picture(9)]]) == picture(9)).all()
    assert contact_sheet([[picture(1)] * 3] * 2, gap=0).shape == (8, 9, 3)


def test_labelled_rows_of_unequal_heights() -> None:
    red, blue = np.array([200, 0, 0], np.uint8), np.array([0, 0, 200], np.uint8)
    wide, low = np.tile(red, (10, 40, 1)), np.tile(blue, (5, 40, 1))
    sheet = labelled_sheet([("above", [wide, wide]), ("", [low])], ["one", "two\nlines"], gap=4)
    assert sheet.shape[1] == 2 * MARGIN + 84
    ys, xs = np.nonzero((sheet == red).all(axis=-1))
    assert (ys.max() - ys.min() + 1, xs.min(), xs.max() + 1) == (10, MARGIN, MARGIN + 84)
    below = sheet[ys.max() + 1 :]
    assert (below == blue).all(axis=-1).sum() == 5 * 40
    assert (below[:, MARGIN + 40 :] == 255).all()
    headings = sheet[: ys.min()]
    assert headings.min() < 50
    assert headings[:, MARGIN + 44 :].min() < 50


def test_scaled_to_a_width_shapes_stay() -> None:
    assert scale_to_width(picture(9), 6).shape == (8, 6, 3)
    assert (scale_to_width(picture(9), 6) == 9).all()
    assert scale_to_width(np.zeros((1, 50, 3), np.uint8), 5).shape == (1, 5, 3)
