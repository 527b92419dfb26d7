"""Means and intervals, against what is known of them."""

import json

import numpy as np
import pytest

from stillspeak.evaluation.summary import (
    SpeakerMean,
    as_json,
    bootstrap,
    format_table,
    summarise,
    write_number,
)

ABOUT = {
    "name": "psnr",
    "version": 1,
    "definition": "what it is",
    "definition_hash": "abc",
    "unit": "dB",
    "better": "higher",
}


def rows(*pairs: tuple[str, float | str | None]) -> list[dict[str, object]]:
    return [{"speaker": s, "value": v, "note": "n" if v is None else ""} for s, v in pairs]


def test_means_medians_and_counts() -> None:
    result = summarise(rows(("a", 1.0), ("a", 2.0), ("b", 6.0), ("b", None)), ABOUT)
    assert (result.clips, result.undefined, result.mean, result.median) == (3, 1, 3, 2)
    assert result.speakers == {"a": SpeakerMean(2, 1.5), "b": SpeakerMean(1, 6.0)}
    assert result.notes == {"n": 1}


def test_infinite_values_stay_infinite_and_are_valid_json() -> None:
    result = summarise(rows(("a", "inf"), ("b", "inf")), ABOUT)
    assert result.mean == np.inf
    assert result.interval_clips is result.interval_speakers is None
    table = json.loads(json.dumps(as_json(result), allow_nan=False))
    assert table["mean"] == "inf"
    assert write_number(2.5) == 2.5
    assert write_number(None) is None


def test_no_values_at_all() -> None:
    result = summarise(rows(("a", None)), ABOUT)
    assert (result.clips, result.mean, result.median, result.interval_clips) == (
        0,
        None,
        None,
        None,
    )
    assert "-" in format_table([result])
    assert summarise([], ABOUT).clips == 0


def test_the_interval_of_a_mean_is_about_two_standard_errors() -> None:
    values = np.random.default_rng(1).normal(10, 3, 200)
    low, high = bootstrap([np.array([v]) for v in values])
    assert low == pytest.approx(values.mean() - 1.96 * values.std() / 200**0.5, abs=0.06)
    assert high == pytest.approx(values.mean() + 1.96 * values.std() / 200**0.5, abs=0.06)
    assert (low, high) == bootstrap([np.array([v]) for v in values])


def test_speakers_are_drawn_whole() -> None:
    # Clips of a speaker are alike: only the number of speakers counts.
    groups = [np.full(50, 1.0), np.full(50, 2.0)]
    assert bootstrap(groups) == (1, 2)
    low, high = bootstrap([np.array([v]) for v in np.concatenate(groups)])
    assert 1.3 < low < high < 1.7
    assert bootstrap(groups[:1]) is None


def test_the_table_has_a_line_a_metric() -> None:
    table = format_table([summarise(rows(("a", 1.0), ("b", 2.0)), ABOUT)]).splitlines()
    assert len(table) == 2
    assert table[0].startswith("metric")
    assert "1 to 2" in table[1]
