"""A face in its photo: sizes, and what is known before the first sound."""

import numpy as np
import pytest
import torch

from stillspeak.errors import ConfigError
from stillspeak.face.align import crop_face, face_transform
from stillspeak.models.pixels import to_model
from stillspeak.rendering.portrait import MAX_SIDE, Portrait, crop_at, fit_picture
from support.animate import lively, portrait, portrait_face


@pytest.mark.parametrize("lines", [128, 100, 512])
def test_the_crop_at_any_size_is_the_aligned_one(lines):
    points, columns = portrait_face().points, lines * 3 // 4
    wanted = crop_face(portrait(), face_transform(points, scale=lines / 128), lines, columns)
    got = crop_at(portrait(), face_transform(points), lines, columns)
    assert np.array_equal(got, wanted)


def test_what_the_generator_sees_is_the_crop():
    made = Portrait.of(portrait(), portrait_face().points, lively())
    assert made.crop.shape == (128, 96, 3)
    assert torch.equal(made.still, to_model(made.crop[None]))
    assert torch.equal(made.prepared.still, made.still)


def test_a_bare_crop_is_seen_as_it_is_with_or_without_a_face():
    whole = Portrait.of(portrait(), portrait_face().points, lively())
    bare = Portrait.of_crop(whole.crop, None, lively())
    assert np.array_equal(bare.pose, np.eye(2, 3))
    assert torch.equal(bare.still, whole.still)
    assert bare.points is None


def test_a_picture_of_fitting_size_is_left_alone():
    picture = np.zeros((MAX_SIDE, 30, 3), np.uint8)
    assert fit_picture(picture, None) is picture
    assert fit_picture(portrait(), 256) is portrait()


@pytest.mark.parametrize(
    ("shape", "height", "expected"),
    [
        ((2 * MAX_SIDE, 1000), None, (MAX_SIDE, 500)),
        ((1000, 2 * MAX_SIDE), None, (500, MAX_SIDE)),
        ((200, 300), 100, (100, 150)),
        ((200, 300), 401, (401, 602)),
    ],
)
def test_a_picture_gets_the_size_asked_for(shape, height, expected):
    out = fit_picture(np.zeros((*shape, 3), np.uint8), height)
    assert out.shape == (*expected, 3)
    assert out.dtype == np.uint8
    assert out.flags.c_contiguous


def test_resizing_keeps_pixel_edges_in_place():
    # Two by two blocks of one value each: half the size must give the blocks exactly.
    blocks = np.random.default_rng(0).integers(0, 256, (100, 80, 3)).astype(np.uint8)
    doubled = blocks.repeat(2, axis=0).repeat(2, axis=1)
    assert np.abs(fit_picture(doubled, 100).astype(int) - blocks).max() <= 1


def test_a_height_that_makes_a_panorama_huge_is_refused():
    panorama = np.zeros((100, 1000, 3), np.uint8)
    assert fit_picture(panorama, 800).shape == (800, 8000, 3)
    with pytest.raises(ConfigError, match=r"size 1000 .* 1000x100 10000 pixels wide"):
        fit_picture(panorama, 1000)
