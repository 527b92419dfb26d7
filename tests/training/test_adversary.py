"""What each discriminator is shown, what it learns, and what it tells the generator."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from stillspeak.data.dataset import Batch
from stillspeak.errors import ConfigError
from stillspeak.models.discriminators import FrameDiscriminator
from stillspeak.training.adversarial.discriminators import (
    Adversary,
    FrameAdversary,
    SequenceAdversary,
    SyncAdversary,
    make_adversaries,
)
from stillspeak.training.config import RunConfig
from stillspeak.training.loop import TrainingLoop

Game = Callable[..., RunConfig]
Make = Callable[..., TrainingLoop]

HOP, MARGIN = 640, 960
CLIPS, WINDOWS, FRAMES = 3, 12, 6
FIRSTS = (2, 6, 3)
"""Window of each clip's first decoded frame."""
KINDS = (FrameAdversary, SequenceAdversary, SyncAdversary)
LN2, LN3 = math.log(2), math.log(3)


@pytest.fixture(scope="module")
def batch() -> Batch:
    """A batch in which every number says where it comes from.

    Sample s of clip b is 100,000 b + s, counted from the first window's own frame; a frame's
    pixels are 100 b + its window; the still of clip b is -(b + 1).
    """
    samples = torch.arange(-MARGIN, WINDOWS * HOP + MARGIN, dtype=torch.float32)
    waves = samples + 100_000 * torch.arange(CLIPS)[:, None]
    positions = torch.tensor(FIRSTS)[:, None] + torch.arange(FRAMES)
    values = positions + 100 * torch.arange(CLIPS)[:, None]
    return Batch(
        windows=waves.unfold(1, HOP + 2 * MARGIN, HOP).contiguous(),
        mouth=torch.zeros(CLIPS, WINDOWS, 7),
        still=-(torch.arange(CLIPS)[:, None, None, None] + 1.0).expand(-1, 3, 128, 96),
        frames=values[:, :, None, None, None].expand(-1, -1, 3, 128, 96).float().contiguous(),
        positions=positions,
    )


def drawn(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Stub(nn.Module):
    """Gives the logits that it is told, one call after the other, and keeps what it was shown.

    A number stands for that logit for all; each depends on the inputs, so that it has a slope.
    """

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = list(logits)
        self.shown: list[tuple[torch.Tensor, ...]] = []
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        value = self.logits[len(self.shown)]
        self.shown.append(inputs)
        return self.scale * torch.full((len(inputs[0]),), value)


class Linear(nn.Module):
    """One logit for each row of the judged frames: the sum of half of all pixels."""

    def __init__(self, judged: int) -> None:
        super().__init__()
        self.judged = judged
        self.slope = nn.Parameter(torch.tensor(0.5))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return (inputs[self.judged] * self.slope).flatten(1).sum(1) / 1000


def stubbed(adversary: Adversary, *logits: float) -> Stub:
    stub = Stub(*logits)
    adversary.network = stub
    return stub


# ----------------------------------------------------------------------- what they are shown


def test_frames_of_a_clip_are_drawn_uniformly_and_never_twice(game: Game, batch: Batch) -> None:
    adversary = FrameAdversary(game(adversarial={"frames": 2}))
    random = drawn()
    counts = torch.zeros(FRAMES, FRAMES)
    draws = 2000
    apart = 0
    for _ in range(draws):
        (places,) = adversary.draw(batch, random)
        assert places.shape == (CLIPS, 2)
        assert (places[:, 0] != places[:, 1]).all()
        apart += int((places[0] != places[1]).any())
        for first, second in places.tolist():
            counts[first, second] += 1
    # Every pair in every order: 30 cells; five standard deviations.
    mean = CLIPS * draws / (FRAMES * (FRAMES - 1))
    off = ~torch.eye(FRAMES, dtype=torch.bool)
    assert ((counts[off] - mean).abs() < 5 * math.sqrt(mean)).all()
    assert apart > draws / 2  # each clip draws for itself


@pytest.mark.parametrize("frames", [0, FRAMES, 99])
def test_all_frames_where_no_fewer_are_asked_for(frames: int, game: Game, batch: Batch) -> None:
    adversary = FrameAdversary(game(adversarial={"frames": frames}))
    (places,) = adversary.draw(batch, drawn())
    assert places.sort(dim=1).values.tolist() == [list(range(FRAMES))] * CLIPS


def test_each_frame_goes_with_its_own_clips_still(game: Game, batch: Batch) -> None:
    adversary = FrameAdversary(game(adversarial={"frames": 4}))
    draw = adversary.draw(batch, drawn())
    still, frame = adversary.look(batch, batch.frames, draw)
    assert still.shape == frame.shape == (CLIPS * 4, 3, 128, 96)
    for row in range(CLIPS * 4):
        clip, place = row // 4, int(draw[0][row // 4, row % 4])
        assert still[row].unique().tolist() == [-(clip + 1)]
        assert frame[row].unique().tolist() == [100 * clip + FIRSTS[clip] + place]


def test_each_frame_of_a_sequence_has_its_own_window(game: Game, batch: Batch) -> None:
    adversary = SequenceAdversary(game())
    frames, windows, lengths = adversary.look(batch, batch.frames, adversary.draw(batch, drawn()))
    assert torch.equal(frames, batch.frames)
    assert lengths.tolist() == [FRAMES] * CLIPS
    for clip in range(CLIPS):
        for place in range(FRAMES):
            start = 100_000 * clip + (FIRSTS[clip] + place) * HOP - MARGIN
            expected = torch.arange(start, start + HOP + 2 * MARGIN)
            assert torch.equal(windows[clip, place], expected.float())


def test_lengths_are_drawn_from_the_shortest_to_the_whole(game: Game, batch: Batch) -> None:
    adversary = SequenceAdversary(game(adversarial={"sequence_min": 3}))
    random = drawn()
    lengths = torch.cat([adversary.draw(batch, random)[0] for _ in range(800)])
    counts = torch.bincount(lengths)
    assert counts[:3].tolist() == [0, 0, 0]
    assert len(counts) == FRAMES + 1
    assert ((counts[3:] - 600).abs() < 5 * math.sqrt(600)).all()


def test_the_sound_of_a_face_is_that_of_its_frames_and_the_decoy_never_is(
    game: Game, batch: Batch
) -> None:
    adversary = SyncAdversary(game(adversarial={"sync_min_shift": 2}))
    random = drawn()
    starts, shifts = set(), set()
    for _ in range(40):
        draw = adversary.draw(batch, random)
        face, sound = adversary.look(batch, batch.frames, draw)
        ((decoy_face, decoy),) = adversary.mismatched_negatives(batch, draw)
        assert face.shape == (CLIPS, 5, 3, 128, 96)
        assert sound.shape == decoy.shape == (CLIPS, 5 * HOP)
        assert torch.equal(decoy_face, face)
        for clip in range(CLIPS):
            windows = face[clip, :, 0, 0, 0] - 100 * clip
            first = int(windows[0])
            assert windows.tolist() == list(range(first, first + 5))
            samples = torch.arange(first * HOP, (first + 5) * HOP) + 100_000 * clip
            assert torch.equal(sound[clip], samples.float())
            # The other sound: as long, without a gap, of this clip, and of another moment.
            begin = int(decoy[clip, 0]) - 100_000 * clip
            assert torch.equal(decoy[clip].diff(), torch.ones(5 * HOP - 1))
            assert begin % HOP == 0
            assert 0 <= begin // HOP <= WINDOWS - 5
            assert abs(begin // HOP - first) >= 2
            starts.add((clip, first - FIRSTS[clip]))
            shifts.add(begin // HOP - first)
    # Two places for a stretch of 5 in 6 frames; shifts to both sides, up to the ends.
    assert starts == {(clip, place) for clip in range(CLIPS) for place in range(2)}
    assert {-7, -2, 2, 5} <= shifts


@pytest.mark.parametrize("kind", KINDS)
def test_real_and_generated_are_looked_at_alike(
    kind: type[Adversary], game: Game, batch: Batch
) -> None:
    adversary = kind(game(adversarial={"frames": 2, "sequence_min": 2}))
    stub = stubbed(adversary, 0, 0, 0)
    adversary(batch, batch.frames + 0.5, adversary.draw(batch, drawn()))
    real, fake, *decoys = stub.shown
    judged = 1 if kind is FrameAdversary else 0
    assert torch.equal(fake[judged], real[judged] + 0.5)
    for index in set(range(len(real))) - {judged}:
        assert torch.equal(fake[index], real[index])
    assert len(decoys) == (kind is SyncAdversary)
    for face, sound in decoys:
        assert torch.equal(face, real[0])
        assert not (sound == real[1]).any()


# ---------------------------------------------------------------------------- what they learn

# softplus(-ln 3) = ln 4/3, softplus(0) = ln 2, softplus(ln 3) = ln 4, softplus(-ln 9) = ln 10/9
GIVEN = (LN3, 0.0, -math.log(9))


@pytest.mark.parametrize(
    ("kind", "loss", "right"),
    [
        (FrameAdversary, math.log(4 / 3) + LN2, 1.0),
        (SequenceAdversary, math.log(4 / 3) + LN2, 1.0),
        # Generated and shifted share the weight of what is false.
        (SyncAdversary, math.log(4 / 3) + (LN2 + math.log(10 / 9)) / 2, 1.0),
    ],
)
def test_the_loss_by_hand(
    kind: type[Adversary], loss: float, right: float, game: Game, batch: Batch
) -> None:
    adversary = kind(game())
    stubbed(adversary, *GIVEN)
    opinion = adversary(batch, batch.frames, adversary.draw(batch, drawn()))
    assert opinion.loss.item() == pytest.approx(loss, rel=1e-5)
    assert opinion.loss.requires_grad
    assert set(opinion.terms) == {"loss", "accuracy"}
    assert opinion.terms["loss"].item() == pytest.approx(loss, rel=1e-5)
    assert opinion.terms["accuracy"].item() == right
    assert not any(term.requires_grad for term in opinion.terms.values())


@pytest.mark.parametrize(
    ("logits", "right"),
    [
        ((1, -1, -1), 1.0),
        ((-1, -1, -1), 0.5),
        ((1, 1, -1), 0.75),  # a quarter for the generated, a quarter for the shifted
        ((1, -1, 1), 0.75),
        ((1, 1, 1), 0.5),
        ((-1, 1, 1), 0.0),
    ],
)
def test_accuracy_of_the_sync_discriminator(
    logits: tuple[int, ...], right: float, game: Game, batch: Batch
) -> None:
    adversary = SyncAdversary(game())
    stubbed(adversary, *logits)
    opinion = adversary(batch, batch.frames, adversary.draw(batch, drawn()))
    assert opinion.terms["accuracy"].item() == right


@pytest.mark.parametrize("kind", KINDS)
def test_the_form_is_the_configurations(kind: type[Adversary], game: Game, batch: Batch) -> None:
    adversary = kind(game(adversarial={"form": "hinge"}))
    stubbed(adversary, 0.25, -0.5, -0.5)
    draw = adversary.draw(batch, drawn())
    assert adversary(batch, batch.frames, draw).loss.item() == pytest.approx(0.75 + 0.5)
    stubbed(adversary, 3.0)
    (advice,) = adversary.generator_terms(batch, batch.frames, draw).values()
    assert advice.item() == pytest.approx(-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_discriminator_learns_to_tell(kind: type[Adversary], game: Game) -> None:
    """Real ones up, generated ones down: with the roles changed, it would be always wrong."""
    torch.manual_seed(0)
    adversary = kind(game(adversarial={"form": "hinge", "frames": 2, "sequence_min": 3}))
    random = drawn()
    real = torch.rand(2, FRAMES, 3, 128, 96, generator=random) * 0.2 + 0.5
    made = real - 1.0
    given = Batch(
        windows=0.1 * torch.randn(2, WINDOWS, HOP + 2 * MARGIN, generator=random),
        mouth=torch.zeros(2, WINDOWS, 7),
        still=real[:, 0],
        frames=real,
        positions=(3 + torch.arange(FRAMES)).expand(2, -1),
    )
    optimizer = torch.optim.Adam(adversary.parameters(), lr=1e-2)
    for _ in range(12):
        draw = adversary.draw(given, random)
        optimizer.zero_grad()
        adversary(given, made, draw).loss.backward()
        optimizer.step()
    with torch.no_grad():
        truth = adversary.network(*adversary.look(given, real, draw))
        lies = adversary.network(*adversary.look(given, made, draw))
        assert truth.min() > lies.max()
        # What it tells the generator: frames like the real ones cost less.
        (good,) = adversary.generator_terms(given, real, draw).values()
        (bad,) = adversary.generator_terms(given, made, draw).values()
        assert good < bad


# ------------------------------------------------------------------------------------------ R1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("frames", [1, 3])
def test_r1_of_a_linear_discriminator(
    kind: type[Adversary], frames: int, game: Game, batch: Batch
) -> None:
    weight, every = 0.25, 8
    settings = {"r1": weight, "r1_every": every, "frames": frames}
    adversary = kind(game(adversarial=settings))
    adversary.network = Linear(1 if kind is FrameAdversary else 0)
    draw = adversary.draw(batch, drawn())
    plain = adversary(batch, batch.frames, draw)
    assert "r1" not in plain.terms
    penalised = adversary(batch, batch.frames, draw, True)
    judged = {FrameAdversary: 1, SequenceAdversary: FRAMES, SyncAdversary: 5}[kind]
    norm = judged * 3 * 128 * 96 * (0.5 / 1000) ** 2
    assert penalised.terms["r1"].item() == pytest.approx(norm, rel=1e-4)
    added = (penalised.loss - plain.loss).item()
    assert added == pytest.approx(weight * every * norm, rel=1e-2)
    # It teaches the network, and leaves the batch as it was.
    adversary.zero_grad()
    (penalised.loss - plain.loss).backward()
    assert adversary.network.slope.grad.item() == pytest.approx(4 * weight * every * norm, rel=1e-2)
    assert not batch.frames.requires_grad


def test_no_r1_unless_it_has_a_weight(game: Game, batch: Batch) -> None:
    adversary = FrameAdversary(game())
    stubbed(adversary, 0, 0)
    opinion = adversary(batch, batch.frames, adversary.draw(batch, drawn()), True)
    assert set(opinion.terms) == {"loss", "accuracy"}


@pytest.mark.parametrize("kind", KINDS)
def test_r1_reaches_the_networks_themselves(
    kind: type[Adversary], game: Game, batch: Batch
) -> None:
    torch.manual_seed(0)
    adversary = kind(game(adversarial={"r1": 1e6}))
    small = batch._replace(
        windows=0.1 * torch.randn(batch.windows.shape, generator=drawn()),
        frames=torch.rand(batch.frames.shape, generator=drawn()),
        still=torch.rand(batch.still.shape, generator=drawn()),
    )
    draw = adversary.draw(small, drawn())
    opinion = adversary(small, small.frames, draw, True)
    assert opinion.terms["r1"] > 0
    opinion.loss.backward()
    first = adversary.network.layers[0].weight.grad
    adversary.zero_grad()
    adversary(small, small.frames, draw).loss.backward()
    assert (first - adversary.network.layers[0].weight.grad).abs().max() > 1e-3


# ------------------------------------------------------------------ what the generator is told


def judging(game: Game, **settings: Any) -> FrameAdversary:
    torch.manual_seed(0)
    return FrameAdversary(game(adversarial={"frame": 0.1, **settings}))


def test_feature_matching_is_zero_for_identical_frames(game: Game, batch: Batch) -> None:
    adversary = judging(game, feature_matching=1.0, frames=2)
    real = batch._replace(
        frames=torch.rand(batch.frames.shape, generator=drawn()), still=batch.still / 10
    )
    draw = adversary.draw(real, drawn())
    same = adversary.generator_terms(real, real.frames, draw)
    assert set(same) == {"frame", "feature_matching"}
    assert same["feature_matching"].item() == 0
    made = (real.frames * 0.5).requires_grad_()
    other = adversary.generator_terms(real, made, draw)
    # By hand: the mean over layers of the mean distance within each.
    assert isinstance(adversary.network, FrameDiscriminator)
    with torch.no_grad():
        _, maps = adversary.network.judge(*adversary.look(real, made, draw))
        _, truth = adversary.network.judge(*adversary.look(real, real.frames, draw))
    distances = [(a - b).abs().mean().item() for a, b in zip(maps, truth, strict=True)]
    assert len(distances) == 5
    assert min(distances) > 0
    assert other["feature_matching"].item() == pytest.approx(sum(distances) / 5, rel=1e-4)
    other["feature_matching"].backward()
    assert made.grad is not None
    moved = made.grad.abs().amax((2, 3, 4)) > 0
    expected = torch.zeros(CLIPS, FRAMES, dtype=torch.bool).scatter(1, draw[0], True)
    assert torch.equal(moved, expected)


def test_without_feature_matching_its_term_is_absent(game: Game, batch: Batch) -> None:
    adversary = judging(game)
    assert set(adversary.generator_terms(batch, batch.frames, adversary.draw(batch, drawn()))) == {
        "frame"
    }


def test_who_plays(game: Game) -> None:
    def names(**weights: float) -> list[str]:
        return [a.name for a in make_adversaries(game(adversarial=weights))]

    assert names() == ["frame", "sequence", "sync"]
    assert names(sequence=0.0) == ["frame", "sync"]
    assert names(frame=0.0, sync=0.0) == ["sequence"]
    assert names(frame=0.0, sequence=0.0, sync=0.0) == []


def test_each_has_its_learning_rate(game: Game) -> None:
    config = game(
        adversarial={
            "frame_learning_rate": 1e-1,
            "sequence_learning_rate": 1e-2,
            "sync_learning_rate": 1e-3,
        }
    )
    found = {a.name: a.learning_rate for a in make_adversaries(config)}
    assert found == {"frame": 0.1, "sequence": 0.01, "sync": 0.001}


# ------------------------------------------------------------------------------- in the trainer


def after(trainer: TrainingLoop, steps: int = 1) -> list[dict[str, float]]:
    """Values of some steps on the trainer's own batches."""
    return [
        trainer.task.train_step([trainer.task.data.batch(trainer.task.step)]) for _ in range(steps)
    ]


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def weighted(value: float) -> dict[str, float]:
    return {"frame": value, "sequence": value, "sync": value}


def test_a_discriminators_step_does_not_move_the_generator(game: Game, make: Make) -> None:
    """With terms of no weight the generator moves as if it were alone."""
    alone = make(game(adversarial=weighted(0.0)))
    played = make(game(adversarial=weighted(1e-30) | {"r1": 1.0}))
    start = weights_of(alone.task.objective)
    assert same(start, weights_of(played.task.objective))
    after(alone)
    values = after(played)
    assert {"frame", "frame_loss", "frame_r1", "sequence_r1", "sync_r1"} <= set(values[0])
    assert same(weights_of(alone.task.objective), weights_of(played.task.objective))
    assert not same(start, weights_of(alone.task.objective))


def test_the_generators_terms_do_not_move_a_discriminator(game: Game, make: Make) -> None:
    """However much the generator cares, a discriminator's first step is the same."""
    little = make(game(adversarial=weighted(1e-30)))
    much = make(game(adversarial=weighted(1e3) | {"feature_matching": 1e3}))
    start = [weights_of(a) for a in much.task.adversaries]
    after(little)
    after(much)
    for before, one, other in zip(
        start, little.task.adversaries, much.task.adversaries, strict=True
    ):
        assert same(weights_of(one), weights_of(other))
        assert not same(before, weights_of(one))
        assert all(p.requires_grad for p in other.parameters())
    # And the generator did care.
    assert not same(weights_of(little.task.objective), weights_of(much.task.objective))


def test_advice_leaves_no_gradient_in_a_discriminator(game: Game, make: Make) -> None:
    trainer = make(game(adversarial={"feature_matching": 0.4}))
    batch = trainer.task.data.batch(0)
    frames = (batch.frames * 0.5).requires_grad_()
    draws = [a.draw(batch, drawn()) for a in trainer.task.adversaries]
    terms, total = trainer.task.generator_terms(batch, frames, draws)
    total.backward()
    assert all(p.grad is None for a in trainer.task.adversaries for p in a.parameters())
    assert frames.grad is not None
    assert frames.grad.any()
    weights = {"frame": 0.1, "sequence": 0.2, "sync": 0.3, "feature_matching": 0.4}
    assert set(terms) == set(weights)
    by_hand = sum(weights[name] * term.item() for name, term in terms.items())
    assert total.item() == pytest.approx(by_hand, rel=1e-5)


def test_discriminators_get_generated_frames_without_their_history(
    game: Game, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    forward = Adversary.forward

    def watched(self: Adversary, batch: Batch, generated: torch.Tensor, *rest: Any) -> Any:
        seen.append(generated.requires_grad)
        return forward(self, batch, generated, *rest)

    monkeypatch.setattr(Adversary, "forward", watched)
    after(make(game()))
    assert seen == [False] * 3


def test_they_enter_at_their_step_and_fade_in(game: Game, make: Make) -> None:
    trainer = make(game(adversarial={"start": 1, "fade": 2, "feature_matching": 0.4}))
    before = [weights_of(a) for a in trainer.task.adversaries]
    objective = trainer.task.config.objective
    fades = []
    for step in range(4):
        (values,) = after(trainer)
        alone = sum(getattr(objective, n) * values[n] for n in ("l1", "gradient", "mouth_shape"))
        moved = [
            not same(b, weights_of(a))
            for a, b in zip(trainer.task.adversaries, before, strict=True)
        ]
        assert moved == [step >= 1] * 3
        if step < 1:
            assert not any(name.startswith(("frame", "sequence", "sync")) for name in values)
            assert values["loss"] == pytest.approx(alone, rel=1e-5)
            continue
        weights = {"frame": 0.1, "sequence": 0.2, "sync": 0.3, "feature_matching": 0.4}
        advice = sum(weight * values[name] for name, weight in weights.items())
        fades.append((values["loss"] - alone) / advice)
    assert fades == pytest.approx([0.5, 1, 1], rel=1e-3)


def test_the_audio_warm_start_is_without_discriminators(game: Game, make: Make) -> None:
    trainer = make(game(training={"audio_steps": 3}, adversarial={"start": 1, "fade": 2}))
    assert trainer.task.config.adversarial_start == 3
    expected = [(False, 0.0), (False, 0.0), (False, 0.0), (True, 0.5), (True, 1.0), (True, 1.0)]
    for step, (playing, fade) in enumerate(expected):
        trainer.task.step = step
        assert trainer.task.is_adversarial == playing
        if playing:
            assert trainer.task.fade == fade


def test_without_a_fade_they_count_at_once(game: Game, make: Make) -> None:
    trainer = make(game())
    assert trainer.task.is_adversarial
    assert trainer.task.fade == 1


def test_r1_comes_every_few_steps_from_their_start(game: Game, make: Make) -> None:
    trainer = make(game(adversarial={"r1": 0.5, "r1_every": 2, "start": 1}))
    penalised = [
        [n for n in ("frame", "sequence", "sync") if f"{n}_r1" in values]
        for values in after(trainer, 6)
    ]
    everyone = ["frame", "sequence", "sync"]
    assert penalised == [[], everyone, [], everyone, [], everyone]


def test_accumulated_batches_are_one_larger_batch(game: Game, make: Make) -> None:
    """Means over batches, for every player."""
    trainer = make(game(training={"accumulate": 2}))
    batches = [trainer.task.data.batch(0, part) for part in range(2)]
    values = trainer.task.train_step(batches)
    halves = []
    for part in range(2):
        one = make(game())
        random = one.task._random
        one.task._random = lambda purpose, _, part=part, r=random: r(purpose, part)  # type: ignore[method-assign]
        halves.append(one.task.train_step([batches[part]]))
    for name in ("l1", "frame_loss", "sequence_loss", "sync_loss", "frame_accuracy", "sync"):
        mean = (halves[0][name] + halves[1][name]) / 2
        assert values[name] == pytest.approx(mean, rel=1e-4), name


# ---------------------------------------------------------------------------------------- wrong


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"data": {"consecutive": False}}, "data.consecutive = true"),
        ({"data": {"decoded_frames": 4}}, "data.decoded_frames of 5 or more"),
        ({"adversarial": {"sequence_min": 7}}, "adversarial.sequence_min exceeds"),
        ({"adversarial": {"sync_min_shift": 4}}, "no room to shift"),
        ({"adversarial": {"sync_min_shift": 0}}, "sync_min_shift: must be greater than 0"),
        ({"adversarial": {"r1_every": 0}}, "r1_every: must be greater than 0"),
        ({"adversarial": {"frame": -0.1}}, r"adversarial\.frame: must be"),
        ({"adversarial": {"r1": math.inf}}, r"adversarial\.r1: must be"),
        ({"adversarial": {"frame": 0.0, "feature_matching": 1.0}}, r"needs adversarial\.frame"),
        ({"adversarial": {"start": -1}}, r"adversarial\.start: must be"),
        ({"adversarial": {"fade": -1}}, r"adversarial\.fade: must be"),
        ({"adversarial": {"sync_learning_rate": 0.0}}, "sync_learning_rate: must be"),
        ({"adversarial": {"betas": [0.5, 1.0]}}, r"adversarial\.betas"),
        ({"adversarial": {"form": "wasserstein"}}, r"adversarial\.form"),
        ({"frame_discriminator": {"norm": "layer"}}, r"frame_discriminator\.norm"),
        ({"sync_discriminator": {"region": "upper"}}, r"sync_discriminator\.region"),
        ({"sequence_discriminator": {"depth": 3}}, r"sequence_discriminator\.depth"),
    ],
)
def test_what_cannot_be_played(tables: dict[str, Any], says: str, game: Game) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        game(**tables)
    assert "\n" not in str(caught.value)
