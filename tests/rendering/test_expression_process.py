"""The curves that blink and raise brows: at a human rate, whatever chunks they are drawn in."""

import numpy as np
import pytest
import torch

from stillspeak.constants import BROW_PIXELS
from stillspeak.evaluation.measures.expression import find_blinks
from stillspeak.rendering.expression import (
    BLINK_PAUSE,
    BROW_DEVIATION,
    BROW_MEMORY,
    GAZE_HOLD,
    GAZE_MOST,
    HEAD_DEGREES,
    HEAD_PIXELS,
    ExpressionProcess,
    HeadProcess,
)


def test_chunks_do_not_matter() -> None:
    whole = ExpressionProcess(3).draw(400)
    parts = ExpressionProcess(3)
    pieces = torch.cat([parts.draw(n) for n in (1, 7, 0, 92, 300)], 1)
    assert torch.equal(whole, pieces)
    assert not torch.equal(whole, ExpressionProcess(4).draw(400))


@pytest.mark.parametrize(("blink", "low", "high"), [(1.0, 0.36, 0.44), (2.0, 0.70, 0.90)])
def test_blinks_come_at_the_rate_asked_for(blink: float, low: float, high: float) -> None:
    minutes = 40
    closure = ExpressionProcess(1, blink=blink).draw(minutes * 1500)[0, :, 0].double().numpy()
    blinks = find_blinks(closure)
    assert low < len(blinks) / (60 * minutes) < high
    starts = np.array([first for first, _ in blinks])
    assert np.diff(starts).min() >= BLINK_PAUSE * 25 - 1
    lengths = np.array([last - first for first, last in blinks]) / 25
    assert 0.1 < lengths.mean() < 0.3
    peaks = np.array([closure[a:b].max() for a, b in blinks])
    assert peaks.min() >= 0.47 and peaks.max() <= 0.60


def test_no_blinks_and_no_brows() -> None:
    assert not ExpressionProcess(1, blink=0.0, strength=0.0).draw(3000).any()


def test_the_gaze_jumps_rests_and_mostly_comes_back() -> None:
    gaze = ExpressionProcess(1).draw(20_000)[0, :, 2:].double().numpy()
    size = np.hypot(*gaze.T)
    assert size.max() <= GAZE_MOST + 1e-6
    assert 0.2 < (size > 0).mean() < 0.5  # the rest of the time at the camera
    # A move is done within two frames, then the eyes rest.
    moves = np.flatnonzero(np.abs(np.diff(gaze, axis=0)).max(axis=1) > 0)
    starts = moves[np.diff(moves, prepend=-9) > 2]
    assert len(moves) <= 2 * len(starts)
    assert np.diff(starts).min() >= GAZE_HOLD[0] * 25 - 1
    # Blinks and brows are the same without it, and it is the same with more blinks.
    assert np.array_equal(gaze, ExpressionProcess(1, blink=3).draw(20_000)[0, :, 2:].double())
    half = ExpressionProcess(1, strength=0.5).draw(20_000)[0, :, 2:].double().numpy()
    np.testing.assert_allclose(half, gaze / 2, atol=1e-6)


def test_brows_move_as_much_and_as_slowly_as_peoples() -> None:
    brows = BROW_PIXELS * ExpressionProcess(1).draw(20_000)[0, :, 1].double()
    assert float(brows.std()) == pytest.approx(BROW_DEVIATION, rel=0.05)
    memory = float(torch.corrcoef(torch.stack((brows[1:], brows[:-1])))[0, 1])
    assert memory == pytest.approx(BROW_MEMORY, abs=0.02)
    half = BROW_PIXELS * ExpressionProcess(1, strength=0.5).draw(20_000)[0, :, 1].double()
    assert torch.allclose(half, brows / 2, atol=1e-6)


def test_it_starts_at_rest_and_other_rates_take_as_long() -> None:
    assert not ExpressionProcess(5).draw(1).any()
    slow = ExpressionProcess(1, fps=25).draw(50_000)[0, :, 0]
    fast = ExpressionProcess(1, fps=50).draw(100_000)[0, :, 0]
    assert float((slow > 0.1).double().mean()) == pytest.approx(
        float((fast > 0.1).double().mean()), rel=0.15
    )


def test_the_head_moves_slowly_by_what_was_said_and_starts_at_rest() -> None:
    poses = HeadProcess(2).draw(40_000).double()
    assert not poses[0].any()
    expected = torch.tensor([HEAD_DEGREES, HEAD_PIXELS, HEAD_PIXELS]).double()
    assert torch.allclose(poses.std(0), expected, rtol=0.15)
    # Nobody jerks: from frame to frame far less than it wanders, and without corners.
    assert bool((poses.diff(dim=0).std(0) < 0.1 * expected).all())
    parts = HeadProcess(2)
    assert torch.equal(torch.cat([parts.draw(n) for n in (3, 0, 97)]).double(), poses[:100])
    assert not HeadProcess(2, strength=0.0).draw(50).any()
