"""From decoded frames to pictures: right place, right size, nothing else touched."""

from typing import Any

import numpy as np
import pytest
import torch

from stillspeak.face.align import crop_box_in_photo, crop_face, face_transform
from stillspeak.models.decoders import Decoded
from stillspeak.models.generator import Generator
from stillspeak.motion.frames import FaceMotion
from stillspeak.rendering.head import FaceMover
from stillspeak.rendering.portrait import Portrait, fit_picture
from stillspeak.rendering.renderer import FaceRenderer
from support.animate import config, lively, portrait, portrait_face


def renderer_of(
    generator: Generator,
    photo: np.ndarray | None = None,
    points: np.ndarray | None = None,
    **shown: Any,
) -> FaceRenderer:
    """Draws the portrait's face, or one with other pixels or landmarks."""
    photo = portrait() if photo is None else photo
    points = portrait_face().points if points is None else points
    return FaceRenderer(Portrait.of(photo, points, generator), **shown)


def decode(renderer: FaceRenderer, generator: Generator, frames: int = 2) -> Decoded:
    """The generator's answer to some noise of (1, T, N) samples."""
    random = torch.Generator().manual_seed(0)
    windows = 0.3 * torch.randn(1, frames, generator.config.window, generator=random)
    noise = generator.draw_noise(1, frames, random)
    with torch.inference_mode():
        decoded, _ = generator.step(
            renderer.portrait.prepared, windows, noise, generator.initial_state()
        )
    return decoded


def render(renderer: FaceRenderer, generator: Generator, frames: int = 2) -> list[np.ndarray]:
    return list(renderer.render(decode(renderer, generator, frames)))


def resting(renderer: FaceRenderer) -> Decoded:
    """A frame that is the still itself."""
    return Decoded(renderer.portrait.still[:, None])


def box_of() -> tuple[slice, slice]:
    """Rows and columns of the portrait that the crop takes."""
    ends = (-0.5, -0.5, 95.5, 127.5)
    x0, y0, x1, y1 = crop_box_in_photo(face_transform(portrait_face().points), ends, 256, 256)
    return slice(y0, y1), slice(x0, x1)


def turned(*head: float) -> FaceMotion:
    """One frame with the head turned, nodding and tilted by so many degrees."""
    motion = FaceMotion.rest(1)
    motion.head[:] = head
    return motion


def outline() -> np.ndarray:
    """(256, 256) bool: the face with its chin, as far as it may come down, and two pixels more."""
    import cv2

    points = portrait_face().points
    down = points[points[:, 1] > np.median(points[:, 1])] + (0, 12 * 165 / 128)
    mask = np.zeros((256, 256), np.uint8)
    hull = cv2.convexHull(np.concatenate([points, down]).astype(np.float32))
    cv2.fillConvexPoly(mask, hull.round().astype(np.int32), 1)
    return cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0


# --- the whole picture -------------------------------------------------------------------------


def test_only_the_face_changes_in_the_whole_picture():
    generator = lively("unet")
    renderer = renderer_of(generator)
    face = outline()
    assert 0.1 < face.mean() < 0.4
    frames = render(renderer, generator)
    assert (renderer.height, renderer.width) == (256, 256)
    for frame in frames:
        assert frame.shape == (256, 256, 3)
        assert frame.dtype == np.uint8
        # Hair, background and collar: bit for bit.
        assert np.array_equal(frame[~face], portrait()[~face])
        changed = np.abs(frame[face].astype(int) - portrait()[face])
        assert changed.mean() > 5
    assert not np.array_equal(frames[0], frames[1])


def test_a_frame_that_is_the_still_gives_the_photo():
    renderer = renderer_of(lively("unet"))
    (frame,) = renderer.render(resting(renderer))
    assert np.array_equal(frame, portrait())


def test_paint_fades_towards_the_border_of_the_crop():
    renderer = renderer_of(lively("unet"))
    rows, columns = box_of()
    (frame,) = renderer.render(Decoded(torch.full((1, 1, 3, 128, 96), -1.0)))
    nose = portrait_face().points[1].round().astype(int)
    assert frame[nose[1], nose[0]].max() == 0
    # The columns at the crop's border do not differ, although all of it is painted black.
    border = np.abs(frame[rows, columns].astype(int) - portrait()[rows, columns])
    assert border[:, 0].max() == 0
    assert border[:, -1].max() == 0


@pytest.mark.parametrize("decoder", ["layers", "unet"])
def test_the_change_has_no_edge(decoder):
    """From one pixel to the next the change to the photo grows no faster than within the face."""
    flat = np.full((256, 256, 3), 128, np.uint8)
    generator = lively(decoder)
    renderer = renderer_of(generator, flat)
    (frame,) = render(renderer, generator, frames=1)
    change = frame.astype(int) - 128
    steps = np.maximum(
        np.abs(np.diff(change, axis=0))[:, :-1].max(-1),
        np.abs(np.diff(change, axis=1))[:-1].max(-1),
    )
    import cv2

    face = outline()[:-1, :-1].astype(np.uint8)
    rim = (face - cv2.erode(face, np.ones((13, 13), np.uint8))) > 0
    assert change.any()
    assert steps[rim].max() <= 12


@pytest.mark.parametrize("decoder", ["layers", "unet"])
def test_head_motion_takes_the_head_along_and_fades_out(decoder):
    generator = lively(decoder)
    photo = np.pad(portrait(), ((0, 200), (150, 150), (0, 0)), "edge")
    points = portrait_face().points + np.float32((150, 0))
    renderer = renderer_of(generator, photo, points)
    (frame,) = renderer.render(decode(renderer, generator, 1), turned(5, 4, 3))
    x0, y0, x1, y1 = FaceMover(photo, points).box
    outside = np.ones(photo.shape[:2], bool)
    outside[y0:y1, x0:x1] = False
    assert outside.mean() > 0.2
    assert np.array_equal(frame[outside], photo[outside])
    hair = points[10] - (0, 25)  # above the forehead
    x, y = np.rint(hair).astype(int)
    assert (frame[y - 3 : y + 4, x - 3 : x + 4] != photo[y - 3 : y + 4, x - 3 : x + 4]).mean() > 0.5


@pytest.mark.parametrize("decoder", ["layers", "unet"])
def test_all_that_is_drawn_moves_with_the_head(decoder):
    """The mouth of the moved frame is that of the resting one, moved."""
    generator = lively(decoder)
    renderer = renderer_of(generator)
    (still,) = render(renderer, generator, 1)
    motion = turned(4, 3, 2)
    (frame,) = renderer.render(decode(renderer, generator, 1), motion)
    assert np.array_equal(frame, renderer.move(motion, still.copy(), [(0, 0, 256, 256)]))


def test_a_face_that_rests_is_the_photo_at_any_size():
    noise = np.random.default_rng(0).integers(0, 256, (600, 500, 3)).astype(np.uint8)
    for times in (1, 8):
        renderer = renderer_of(lively("unet"), noise, portrait_face().points * times)
        (frame,) = renderer.render(resting(renderer))
        assert np.array_equal(frame, noise)


# --- the crop ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(None, (128, 96)), (128, (128, 96)), (512, (512, 384)), (64, (64, 48)), (131, (132, 99))],
)
def test_the_crop_shows_the_photo_at_the_size_asked_for(lines, expected):
    points = portrait_face().points
    renderer = renderer_of(lively("layers"), crop=True, size=lines)
    assert (renderer.height, renderer.width) == expected
    (frame,) = renderer.render(Decoded(pose=torch.zeros(1, 1, 41, 2)))
    wanted = crop_face(portrait(), face_transform(points, scale=expected[0] / 128), *expected)
    assert frame.shape == wanted.shape
    above = slice(0, expected[0] // 3)  # the mouth comes to rest
    assert np.abs(frame[above].astype(int) - wanted[above]).max() <= 1


def test_motion_is_the_same_at_every_size():
    generator = lively("layers")
    points = portrait_face().points
    sizes = {}
    for lines in (128, 512):
        renderer = renderer_of(generator, crop=True, size=lines)
        (sizes[lines],) = render(renderer, generator, frames=1)
    shrunk = fit_picture(sizes[512], 128)
    still = crop_face(portrait(), face_transform(points), 128, 96)
    apart = np.abs(shrunk.astype(int) - sizes[128]).mean()
    moved = np.abs(still.astype(int) - sizes[128]).mean()
    assert apart < 0.25 * moved


def test_the_u_net_is_enlarged_to_the_size_asked_for():
    generator = lively("unet")
    plain = renderer_of(generator, crop=True)
    large = renderer_of(generator, crop=True, size=256)
    (small,) = render(plain, generator, frames=1)
    (big,) = render(large, generator, frames=1)
    assert small.shape == (128, 96, 3)
    assert big.shape == (256, 192, 3)
    assert np.abs(fit_picture(big, 128).astype(int) - small).mean() < 0.2 * small.std()


def test_a_model_of_another_size_sees_the_whole_face():
    generator = Generator(config(height=64, width=64))
    points = portrait_face().points
    renderer = renderer_of(generator, crop=True)
    (frame,) = renderer.render(resting(renderer))
    wanted = crop_face(portrait(), face_transform(points, scale=0.5), 64, 64)
    assert np.abs(frame.astype(int) - wanted).max() <= 1
