"""Plans: fair counts over visitors and sides, nothing out of place within a visitor."""

from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from stillspeak.data.layouts.grid import grid_text
from stillspeak.errors import ConfigError
from stillspeak.study.kinds import Study
from stillspeak.study.kinds.turing import FAKE, REAL
from stillspeak.study.plan import check_plan, plan_session
from stillspeak.study.records import FIRST, SECOND, Trial
from support.study import GRID_CHOICES, GRID_NAMES, paper_study

WORDS = [tuple((grid_text(name) or "").split()) for name in GRID_NAMES]


def many(study: Study, visitors: int) -> list[list[Trial]]:
    """Plans of visitors who come one after the other."""
    check_plan(study)
    shown: Counter[tuple[str, str]] = Counter()
    plans = []
    for number in range(1, visitors + 1):
        plan = plan_session(study, shown, number)
        shown.update((t.first, t.second) for t in plan if t.role == "main")
        plans.append(plan)
    return plans


def test_two_systems_as_in_the_paper(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "preference", count=30, catch=2, repeats=3)
    plans = many(study, 20)
    video = study.video_of
    for plan in plans:
        assert Counter(t.role for t in plan) == {"main": 30, "catch": 2, "repeat": 3}
        main = [t for t in plan if t.role == "main"]
        assert len({video[t.first].item for t in main}) == 30
        assert all(video[t.first].item == video[t.second].item for t in main)
        # 15 times on the left each.
        assert Counter(video[t.first].system for t in main) == {"ours": 15, "theirs": 15}
    # Each item: as often this way round as that.
    sides = Counter(
        (video[t.first].item, video[t.first].system)
        for plan in plans for t in plan if t.role == "main"
    )  # fmt: skip
    assert set(sides.values()) == {10}
    orders = {tuple(t.first for t in plan) for plan in plans}
    assert len(orders) == 20
    assert many(study, 3) == plans[:3]


def test_fewer_trials_than_items_are_spread_evenly(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "preference", items=9, count=4)
    video = study.video_of
    plans = many(study, 27)
    items = Counter(video[t.first].item for plan in plans for t in plan)
    assert set(items.values()) == {27 * 4 // 9}
    odd = paper_study(tmp_path / "odd", "preference", items=9, count=5)
    plans = many(odd, 36)
    video = odd.video_of
    for plan in plans:
        left = sum(video[t.first].system == "ours" for t in plan)
        assert left in (2, 3)
    total = Counter(video[t.first].system for plan in plans for t in plan)
    assert abs(total["ours"] - total["theirs"]) <= 4


def test_three_systems_meet_equally_often(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "preference", systems=("a", "b", "c"), items=10, count=15)
    video = study.video_of
    plans = many(study, 20)
    cells: Counter[object] = Counter()
    for plan in plans:
        pairs = [frozenset((video[t.first].system, video[t.second].system)) for t in plan]
        assert set(Counter(pairs).values()) == {5}
        assert all(x != y for x, y in pairwise(video[t.first].item for t in plan))
        for t in plan:
            cells[video[t.first].item, frozenset((t.first, t.second))] += 1
        for pair in set(pairs):
            a = min(pair)
            first = [video[t.first].system for t, p in zip(plan, pairs, strict=True) if p == pair]
            assert first.count(a) in (2, 3)
    assert len(cells) == 30
    assert set(cells.values()) == {10}


def test_repeats_come_later_with_sides_exchanged(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "preference", items=12, count=12, repeats=4)
    for plan in many(study, 10):
        for place, trial in enumerate(plan):
            if trial.role == "repeat":
                before = [(t.first, t.second) for t in plan[: place - 1]]
                assert (trial.second, trial.first) in before
                assert (trial.first, trial.second) not in before


def test_catch_trials_name_the_good_video_and_never_come_first(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "preference", items=6, count=6, catch=3)
    video = study.video_of
    expected = Counter()
    for plan in many(study, 20):
        assert plan[0].role == "main"
        for trial in plan:
            if trial.role == "catch":
                expected[trial.expected] += 1
                bad = trial.second if trial.expected == FIRST else trial.first
                assert video[bad].role == "catch"
                assert video[trial.first].item == video[trial.second].item
    assert min(expected[FIRST], expected[SECOND]) > 15


def test_training_is_first_and_on_videos_of_its_own(tmp_path: Path) -> None:
    for kind in ("preference", "turing", "mos"):
        study = paper_study(tmp_path / kind, kind, items=8, training=2, count=8)
        video = study.video_of
        for plan in many(study, 5):
            assert [t.role for t in plan[:2]] == ["training"] * 2
            for trial in plan:
                assert video[trial.first].role == trial.role
        if kind == "turing":
            assert {t.expected for t in plan[:2]} == {REAL, FAKE}


def test_turing_by_a_coin(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "turing", items=40, count=10)
    video = study.video_of
    reals = []
    shown: Counter[str] = Counter()
    for plan in many(study, 120):
        assert len({video[t.first].item for t in plan}) == 10
        assert all(video[t.first].system == t.expected for t in plan)
        reals.append(sum(t.expected == REAL for t in plan))
        shown.update(t.first for t in plan)
    # A coin's number of heads in ten: mean 5, standard deviation 1.58.
    assert abs(sum(reals) / 120 - 5) < 0.5
    assert 1.2 < (sum((r - 5) ** 2 for r in reals) / 120) ** 0.5 < 2
    assert max(shown.values()) - min(shown.values()) <= 4


def test_turing_by_halves_and_with_a_side_that_runs_out(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "turing", count=10, sampling="equal")
    for plan in many(study, 20):
        assert Counter(t.expected for t in plan) == {REAL: 5, FAKE: 5}
    few = paper_study(tmp_path / "few", "turing", items=10, count=10)
    for plan in many(few, 10):
        assert len(plan) == 10


def test_ratings_take_systems_in_turn_and_items_once(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "mos", systems=("a", "b", "c"), items=12, count=12)
    video = study.video_of
    shown: Counter[str] = Counter()
    for plan in many(study, 18):
        assert len({video[t.first].item for t in plan}) == 12
        assert set(Counter(video[t.first].system for t in plan).values()) == {4}
        shown.update(t.first for t in plan)
    assert sum(shown.values()) == 18 * 12
    assert max(shown.values()) - min(shown.values()) <= 2


def test_all_cells_can_be_asked_of_one_person(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "mos", items=5, count=10)
    (plan,) = many(study, 1)
    assert len({t.first for t in plan}) == 10


def test_lip_reading_shows_no_sentence_twice(tmp_path: Path) -> None:
    study = paper_study(
        tmp_path / "s", "intelligibility", items=8, count=8, catch=1, words=WORDS,
        choices=GRID_CHOICES,
    )  # fmt: skip
    video = study.video_of
    for plan in many(study, 6):
        main = [t for t in plan if t.role == "main"]
        assert len({video[t.first].item for t in main}) == 8
        (catch,) = [t for t in plan if t.role == "catch"]
        assert len(catch.expected.split()) == 6
        for word, place in zip(catch.expected.split(), GRID_CHOICES, strict=True):
            assert word in place


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("preference", {"count": 31}, "trials.count: 31, but there are only 30"),
        ("preference", {"training": 1, "count": 5}, "trials.training: 1, but 0"),
        ("mos", {"count": 5, "catch": 5}, "trials.catch: 5, but there are only 4"),
        ("turing", {"count": 31}, "trials.count: 31"),
        ("intelligibility", {"count": 5, "entry": "pick"}, "trials.entry"),
    ],
)
def test_too_much_asked_for(
    tmp_path: Path, kind: str, changes: dict[str, object], message: str
) -> None:
    from dataclasses import replace

    study = paper_study(tmp_path / "s", kind, count=5, entry="type", words=[("a", "b"), ("c",)])
    trials = replace(study.config.trials, **changes)
    study = replace(study, config=replace(study.config, trials=trials))
    with pytest.raises(ConfigError, match=message):
        check_plan(study)


def test_the_kind_must_be_that_of_the_videos(tmp_path: Path) -> None:
    study = paper_study(tmp_path / "s", "mos", count=5)
    text = (study.folder / "study.toml").read_text("utf-8").replace('"mos"', '"turing"')
    (study.folder / "study.toml").write_text(text.split("[[questions]]")[0], "utf-8")
    with pytest.raises(ConfigError, match="kind: turing, but the videos are for mos"):
        Study.load(study.folder)
