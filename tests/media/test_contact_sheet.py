"""Contact sheets."""

import numpy as np

from stillspeak.media.contact_sheet import contact_sheet


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
