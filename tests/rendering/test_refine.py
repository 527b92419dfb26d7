"""The learned correction of a drawn mouth, laid over a picture."""

import numpy as np
import pytest
import torch

from stillspeak.models.refiner import COLUMNS, ROWS, MouthRefiner, RefinerConfig
from stillspeak.rendering.mouth import MouthLayers
from stillspeak.rendering.refine import View, released_refiner
from support.mouths import drawing, opened

REST = np.zeros((41, 2))


class Flat(MouthRefiner):
    """Makes everything brighter alike, as far as the border lets it."""

    def __init__(self, gain: float) -> None:
        super().__init__(RefinerConfig((4, 4, 4)))
        self.gain = gain
        self.seen: list[torch.Tensor] = []

    def forward(self, still: torch.Tensor, drawn: torch.Tensor, hole: torch.Tensor) -> torch.Tensor:
        self.seen = [still, drawn, hole]
        return self.gain * self.window.expand(len(still), 1, -1, -1)


def changes(scale: float, turn: float, refiner: MouthRefiner) -> tuple[np.ndarray, MouthLayers]:
    """(H, W, 3) what the refiner changes in a frame whose mouth is open."""
    picture, points = drawing(scale, turn)
    pose = opened(0.2)
    refined = MouthLayers(picture, points, refiner)
    plain = MouthLayers(picture, points, None)
    return refined.draw(pose).astype(int) - plain.draw(pose), refined


@pytest.mark.parametrize("turn", [0, 25, -90])
def test_the_correction_lies_around_the_mouth_and_fades(turn: float) -> None:
    changed, layers = changes(60, turn, Flat(0.2))
    x, y = np.rint(layers.view.to_picture @ (COLUMNS / 2, 0.7 * ROWS, 1)).astype(int)
    after = layers.draw(opened(0.2))[y, x].astype(int)
    assert np.abs(changed[y, x] - 0.2 * (after - changed[y, x])).max() <= 1
    x0, y0, x1, y1 = layers.view.box(changed.shape[:2])
    changed[y0:y1, x0:x1] = 0
    assert not changed.any()


def test_it_is_the_same_at_any_size() -> None:
    columns, rows = np.meshgrid(np.arange(4, COLUMNS, 8), np.arange(4, 48, 8))
    grid = np.column_stack([columns.ravel(), rows.ravel(), np.ones(columns.size)])
    seen = []
    for scale in (50, 90):
        changed, layers = changes(scale, 0, Flat(0.2))
        x, y = np.rint(layers.view.to_picture @ grid.T).astype(int)
        after = layers.draw(opened(0.2)).astype(int)
        seen.append(changed[y, x, 0] / np.maximum(after[y, x, 0] - changed[y, x, 0], 1))
    assert np.median(seen[0]) > 0.15
    assert np.abs(seen[0] - seen[1]).mean() < 0.02


def test_the_network_sees_the_hole_and_white_as_one() -> None:
    refiner = Flat(0)
    _, layers = changes(60, 0, refiner)
    still, drawn, hole = refiner.seen
    assert still.shape == drawn.shape == (1, 3, ROWS, COLUMNS)
    assert hole.shape == (1, 1, ROWS, COLUMNS)
    assert hole.max() > 0.9 and 0.01 < hole.mean() < 0.2
    skin = hole.expand_as(still) == 0
    assert (still[skin] - drawn[skin]).abs().mean() < 0.1
    assert 0.2 < still.mean() < 1.2
    layers.draw(REST)
    assert refiner.seen[2].max() > 0.9, "a mouth at rest is not corrected"


def test_a_closed_mouth_at_rest_stays_the_photo() -> None:
    picture, points = drawing()
    plain, refined = (MouthLayers(picture, points, r).draw(REST) for r in (None, Flat(0.3)))
    assert (plain == refined).all()


def test_warm_photos_are_corrected_as_others_are() -> None:
    picture, points = drawing()
    pose = opened(0.2)
    warm = (picture * np.array([1.0, 0.8, 0.55])).astype(np.uint8)
    given = []
    for photo in (picture, warm):
        layers = MouthLayers(photo, points)
        plain = MouthLayers(photo, points, None).draw(pose).astype(float)
        given.append((layers.draw(pose) - plain) / np.maximum(plain, 40))
    strong = np.abs(given[0]).max(axis=2) > 0.05
    assert strong.sum() > 50
    red, blue = (given[0][strong][:, channel] for channel in (0, 2))
    assert np.abs(red - blue).mean() < 0.03
    assert np.abs(given[0] - given[1])[strong].mean() < 0.4 * np.abs(given[0])[strong].mean()


def test_a_view_of_a_part_is_the_view_of_the_whole() -> None:
    picture, points = drawing()
    view = MouthLayers(picture, points, None).view
    x0, y0, x1, y1 = view.box(picture.shape[:2], margin=12)
    part = picture[y0:y1, x0:x1]
    assert (view.of(picture) == view.of(part, (x0, y0))).all()
    assert not View(np.array([-900.0, -900.0]), np.eye(2), 200.0).of(picture).any()


def test_the_released_one_is_small_and_says_how_it_was_made() -> None:
    network = released_refiner()
    assert released_refiner() is network
    assert sum(p.numel() for p in network.parameters()) < 200_000
