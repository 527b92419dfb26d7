"""Eyelids that come down, brows that go up, and nothing else that moves."""

import numpy as np
import pytest
import torch
from skimage.data import astronaut

from stillspeak.constants import BLINK_PEAK
from stillspeak.face.align import crop_face, face_transform, transform_points
from stillspeak.face.eyes import LEFT_LOWER_LID, LEFT_UPPER_LID, brow_heights, eye_outlines
from stillspeak.face.landmarks import MediaPipeDetector
from stillspeak.models.decoders import Motion, compose
from stillspeak.models.pixels import from_model, to_model
from stillspeak.rendering.eyelids import (
    FINE,
    Eyelids,
    move_eyelids,
    move_eyelids_in_frames,
)

SHUT = [[BLINK_PEAK[1], 0.0]]


def resting(frames: int = 1) -> Motion:
    return Motion(*(torch.zeros(1, frames, channels, 64, 48) for channels in (2, 1, 3)))


@pytest.fixture(scope="module")
def face():
    """A portrait's crop at four times the model's resolution, and its landmarks at one."""
    picture = astronaut()
    with MediaPipeDetector() as detector:
        points = detector.detect(picture)[0].points
    large = crop_face(picture, face_transform(points, scale=4), 512, 384)
    return large, transform_points(points, face_transform(points))


def drawn(face, curves) -> np.ndarray:
    large, points = face
    overlay = Eyelids(large, eye_outlines(points)).overlay(torch.tensor(curves))
    motion = move_eyelids(resting(len(curves)), overlay)
    return from_model(compose(to_model(large[None]), motion)[0])


def test_at_rest_nothing_changes(face) -> None:
    large, points = face
    overlay = Eyelids(large, eye_outlines(points)).overlay(torch.zeros(2, 2))
    assert not overlay.field.any() and not overlay.line.any()
    assert np.abs(drawn(face, [[0.0, 0.0]])[0].astype(int) - large).max() <= 1


def test_a_shut_eye_shows_skin_and_lashes_where_the_eyeball_was(face) -> None:
    large, points = face
    (shut,) = drawn(face, SHUT)
    middle = points[[159, 145]].mean(axis=0)  # between the lids of the eye at the left
    x, y = np.rint((middle + 0.5) * 4 - 0.5).astype(int)
    eyeball, lid = large[y - 3 : y + 3, x - 8 : x + 8], shut[y - 3 : y + 3, x - 8 : x + 8]
    rim = points[159]
    sx, sy = np.rint((rim + (0, -2.5) + 0.5) * 4 - 0.5).astype(int)
    skin = large[sy - 2 : sy + 2, sx - 8 : sx + 8].mean(axis=(0, 1))
    # From the iris towards the skin above it.
    before = np.abs(eyeball.mean(axis=(0, 1)) - skin).sum()
    assert np.abs(lid.mean(axis=(0, 1)) - skin).sum() < before


def test_a_detector_sees_the_eyes_close(face) -> None:
    frames = drawn(face, [[0.0, 0.0], *SHUT])
    with MediaPipeDetector() as detector:
        opened, shut = (detector.detect(frame)[0] for frame in frames)

    def gap(found) -> float:
        upper, lower = found.points[159], found.points[145]
        return float(np.linalg.norm(upper - lower))

    assert gap(shut) < 0.6 * gap(opened)
    closing = [
        f.blendshapes["eyeBlinkLeft"] + f.blendshapes["eyeBlinkRight"] for f in (opened, shut)
    ]
    assert closing[1] > closing[0] + 0.3


def test_lids_move_further_the_more_the_eye_closes(face) -> None:
    large, points = face
    curves = torch.tensor([[share, 0.0] for share in (0.1, 0.2, 0.3, 0.47)])
    field = Eyelids(large, eye_outlines(points)).overlay(curves).field
    reach = field[:, 1].abs().amax((1, 2))
    assert (reach.diff() > 0).all()
    assert not field[:, 0].any()  # straight down
    # Beyond shut there is nothing.
    further = (
        Eyelids(large, eye_outlines(points)).overlay(torch.tensor([[0.47, 0.0], [0.9, 0.0]])).field
    )
    assert torch.equal(further[0], further[1])


def test_a_blink_touches_the_eyes_and_what_is_above_them_alone(face) -> None:
    large, points = face
    overlay = Eyelids(large, eye_outlines(points)).overlay(torch.tensor(SHUT))
    moved = (overlay.field[0, 1] != 0) | (overlay.line[0, 0] > 1 / 255)
    rows, _ = np.nonzero(moved.numpy())
    y = (rows + 0.5) / 2 - 0.5
    eyes = points[[*LEFT_UPPER_LID, *LEFT_LOWER_LID], 1]
    assert y.max() < points[[145, 374], 1].max() + 4
    assert y.min() > eyes.min() - 16
    nose = int((points[168, 0] + 0.5) * 2)  # between the eyes
    assert not moved[:, nose].any()


def test_brows_go_up_and_down_by_their_height(face) -> None:
    frames = drawn(face, [[0.0, -1.0], [0.0, 0.0], [0.0, 1.0]])
    with MediaPipeDetector() as detector:
        heights = [brow_heights(detector.detect(f)[0].points[None]).mean() / 4 for f in frames]
    # Two pixels of the crop each way; a detector smooths.
    assert heights[2] - heights[1] > 0.4 and heights[1] - heights[0] > 0.4


def test_what_the_decoder_made_goes_along(face) -> None:
    """Paint that lies on the eyelid is carried down with it, and the mouth stays."""
    large, points = face
    motion = resting()
    motion.mask[..., 40:50, 20:30] = 1
    motion.colour[:, :, 0] = 1
    overlay = Eyelids(large, eye_outlines(points)).overlay(torch.tensor(SHUT))
    joined = move_eyelids(motion, overlay)
    assert joined.flow.shape[-2:] == FINE
    plain = motion.maps(FINE)
    assert torch.allclose(joined.mask[..., 140:220, :], plain.mask[..., 140:220, :], atol=1e-5)
    assert float(joined.mask.min()) >= 0 and float(joined.mask.max()) <= 1


def test_frames_of_a_decoder_that_paints_blink_as_well(face) -> None:
    large, points = face
    small = crop_face(large, np.array([[0.25, 0, -0.375], [0, 0.25, -0.375]]), 128, 96)
    overlay = Eyelids(small, eye_outlines(points)).overlay(torch.tensor([[0.0, 0.0], *SHUT]))
    frames = to_model(np.stack([small, small]))
    made = from_model(move_eyelids_in_frames(frames, overlay))
    assert np.abs(made[0].astype(int) - small).max() <= 1
    changed = np.abs(made[1].astype(int) - small).max(axis=-1)
    assert changed[30:60].max() > 40
    assert changed[70:].max() <= 1
