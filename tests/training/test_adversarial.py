"""Adversarial losses against numbers worked out by hand. D(logit) = 1 / (1 + exp(-logit))."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch

from stillspeak.training.adversarial.losses import (
    accuracy,
    fake_loss,
    generator_loss,
    gradient_penalty,
    real_loss,
    shifted_starts,
)
from stillspeak.training.config import LossForm

Loss = Callable[[torch.Tensor, LossForm], torch.Tensor]

FORMS: tuple[LossForm, ...] = get_args(LossForm)
# D = 1/2, 3/4 and 1/10.
LOGITS = (0.0, math.log(3), -math.log(9))
LN2, LN3, LN9 = math.log(2), math.log(3), math.log(9)

REAL = {
    "log": (LN2 + math.log(4 / 3) + math.log(10)) / 3,
    "hinge": (1 + 0 + 1 + LN9) / 3,  # ln 3 > 1: sure enough
    "least_squares": (1 + (LN3 - 1) ** 2 + (LN9 + 1) ** 2) / 3,
}
FAKE = {
    "log": (LN2 + math.log(4) + math.log(10 / 9)) / 3,
    "hinge": (1 + 1 + LN3 + 0) / 3,
    "least_squares": (0 + LN3**2 + LN9**2) / 3,
}
GENERATOR = {
    "log": REAL["log"],
    "minimax": -FAKE["log"],
    "hinge": -(LN3 - LN9) / 3,
    "least_squares": REAL["least_squares"],
}
REAL["minimax"], FAKE["minimax"] = REAL["log"], FAKE["log"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("loss", "expected"),
    [(real_loss, REAL), (fake_loss, FAKE), (generator_loss, GENERATOR)],
    ids=["real", "fake", "generator"],
)
@pytest.mark.parametrize("shape", [(3,), (3, 1), (1, 1, 3)])
def test_by_hand(
    loss: Loss, expected: dict[str, float], form: LossForm, shape: tuple[int, ...]
) -> None:
    value = loss(torch.tensor(LOGITS).view(shape), form)
    assert value.shape == ()
    assert value.item() == pytest.approx(expected[form], rel=1e-5)


def test_the_log_forms_are_logarithms_of_probabilities() -> None:
    logits = torch.linspace(-4, 4, 9)
    sure = torch.sigmoid(logits)
    torch.testing.assert_close(real_loss(logits, "log"), -sure.log().mean())
    torch.testing.assert_close(fake_loss(logits, "log"), -(1 - sure).log().mean())
    torch.testing.assert_close(generator_loss(logits, "log"), -sure.log().mean())
    # As equation 1 is printed: the generator minimises what the discriminator maximises.
    torch.testing.assert_close(generator_loss(logits, "minimax"), (1 - sure).log().mean())
    torch.testing.assert_close(generator_loss(logits, "minimax"), -fake_loss(logits, "minimax"))


def slope(loss: Loss, form: LossForm, logit: float) -> float:
    logits = torch.tensor([float(logit)], requires_grad=True)
    loss(logits, form).backward()
    assert logits.grad is not None
    return logits.grad.item()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("logit", [-0.7, 0.0, 0.7])
def test_who_pulls_where(form: LossForm, logit: float) -> None:
    """A step against the slope: real ones up, fakes down, and the generator wants up."""
    assert slope(real_loss, form, logit) < 0
    assert slope(generator_loss, form, logit) < 0
    if form == "least_squares":  # fakes are to reach 0 from either side
        assert slope(fake_loss, form, logit) == pytest.approx(2 * logit)
    else:
        assert slope(fake_loss, form, logit) > 0


def test_only_the_printed_form_gives_up_where_the_discriminator_is_sure() -> None:
    assert slope(generator_loss, "minimax", -20) == pytest.approx(0, abs=1e-8)
    assert slope(generator_loss, "log", -20) == pytest.approx(-1)
    assert slope(generator_loss, "hinge", -20) == pytest.approx(-1)
    assert slope(generator_loss, "least_squares", -20) == pytest.approx(-42)


@pytest.mark.parametrize("form", FORMS)
def test_large_and_coarse_logits_are_fine(form: LossForm) -> None:
    for loss in (real_loss, fake_loss, generator_loss):
        extremes = torch.tensor([-300.0, 300.0], dtype=torch.float16)
        value = loss(extremes, form)
        assert value.dtype == torch.float32
        assert value.isfinite()  # 300 squared is none of float16's numbers
    if form in ("log", "minimax"):
        assert real_loss(extremes, form).item() == pytest.approx(150)


def test_accuracy_counts_real_and_fake_by_half() -> None:
    def right(real: list[float], fake: list[float]) -> float:
        return accuracy(torch.tensor(real), torch.tensor(fake)).item()

    assert right([1, 2], [-1]) == 1
    assert right([-1, -2], [1]) == 0
    assert right([3, -1, 2, 5], [-1, -9]) == pytest.approx((3 / 4 + 1) / 2)
    assert right([3, 1], [-1, 2, 3, 4]) == pytest.approx((1 + 1 / 4) / 2)
    # One that always says the same is right half of the time.
    assert right([0.0], [0.0]) == 0.5
    assert right([1, 1, 1], [1]) == 0.5


# -------------------------------------------------------------------------------------- R1


def test_r1_of_a_linear_critic_is_its_squared_norm() -> None:
    weights = torch.tensor([[1.0, -2.0], [3.0, 0.5]], requires_grad=True)
    frames = torch.randn(4, 2, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
    penalty = gradient_penalty((frames * weights).sum((1, 2)) + 7, frames)
    assert penalty.item() == pytest.approx(1 + 4 + 9 + 0.25)
    # It teaches the critic: the slope of |w|^2 is 2 w.
    penalty.backward()
    torch.testing.assert_close(weights.grad, 2 * weights.detach())


def test_r1_is_a_mean_over_examples() -> None:
    frames = torch.zeros(2, 3, requires_grad=True)
    scale = torch.tensor([1.0, 3.0])
    logits = (frames * torch.tensor([1.0, 2.0, 2.0])).sum(1) * scale
    assert gradient_penalty(logits, frames).item() == pytest.approx((9 + 81) / 2)


def test_r1_does_not_grow_with_the_frames_that_are_judged_in_a_clip() -> None:
    """Three logits a clip, each of a frame of its own, are three examples and not one."""
    frames = torch.zeros(2, 3, 4, requires_grad=True)
    logits = (frames * 0.5).sum(2).flatten()
    assert gradient_penalty(logits, frames).item() == pytest.approx(4 * 0.25)


def test_r1_sees_what_is_not_linear() -> None:
    frames = torch.tensor([[1.0], [2.0]], requires_grad=True)
    assert gradient_penalty(frames[:, 0] ** 3, frames).item() == pytest.approx((9 + 144) / 2)


# ------------------------------------------------------------------------- another moment


@pytest.mark.parametrize(
    ("low", "high", "least"), [(0, 19, 3), (0, 6, 1), (-4, 9, 5), (5, 25, 7), (0, 3, 2)]
)
def test_never_in_sync_and_every_other_place_alike(low: int, high: int, least: int) -> None:
    draws = 4000
    random = torch.Generator().manual_seed(0)
    for start in range(low, high + 1):
        allowed = [p for p in range(low, high + 1) if abs(p - start) >= least]
        if not allowed:
            continue
        moved = shifted_starts(torch.full((draws,), start), low, high, least, random)
        assert moved.dtype == torch.int64
        assert sorted(set(moved.tolist())) == allowed
        counts = torch.bincount(moved - low, minlength=high - low + 1)[torch.tensor(allowed) - low]
        mean = draws / len(allowed)
        # Five standard deviations of a uniform draw.
        assert ((counts - mean).abs() < 5 * math.sqrt(mean)).all(), start


def test_each_start_has_its_own_other_place() -> None:
    random = torch.Generator().manual_seed(1)
    for _ in range(300):
        starts = torch.randint(0, 20, (8,), generator=random)
        moved = shifted_starts(starts, 0, 19, 4, random)
        assert moved.shape == starts.shape
        assert ((moved - starts).abs() >= 4).all()
        assert ((moved >= 0) & (moved <= 19)).all()


def test_the_same_random_state_gives_the_same_places() -> None:
    starts = torch.arange(12)
    first, second = (
        shifted_starts(starts, 0, 30, 3, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first, second)
    assert not torch.equal(
        first, shifted_starts(starts, 0, 30, 3, torch.Generator().manual_seed(6))
    )


@pytest.mark.parametrize(
    ("starts", "high", "least"), [([0, 3], 6, 4), ([2], 2, 3), ([0], 0, 1), ([9, 5, 0], 9, 6)]
)
def test_no_such_place(starts: list[int], high: int, least: int) -> None:
    with pytest.raises(ValueError, match=f"no place in 0 to {high} is {least} away"):
        shifted_starts(torch.tensor(starts), 0, high, least, torch.Generator())


@pytest.mark.parametrize("least", [0, -3])
def test_a_shift_by_nothing(least: int) -> None:
    with pytest.raises(ValueError, match="no shift"):
        shifted_starts(torch.tensor([1]), 0, 9, least, torch.Generator())
