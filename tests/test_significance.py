"""Intervals cover what they promise, wider where rows of one experiment are alike; a test finds what is there and no more."""

from __future__ import annotations

import numpy as np
import pytest

from expstar_utils.records import ExpStarError
from expstar_utils.significance import Tally, compare, interval


def rows(rng, experiments=40, steps=5, alike=0.0, right=0.7):
    """0 or 1 a step; `alike` is the share of experiments whose steps are all as the first."""
    values, group = [], []
    for e in range(experiments):
        drawn = (rng.random(steps) < right).astype(float)
        values += [drawn[0]] * steps if rng.random() < alike else list(drawn)
        group += [f"e{e}"] * steps
    return Tally.mean(values, group)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = [low <= 0.7 <= high for low, high in (interval(rows(rng, alike=0.5), draws=400) for _ in range(300))]
    assert 0.90 <= np.mean(hits) <= 0.98


def test_steps_that_are_alike_make_it_wider():
    rng = np.random.default_rng(1)
    widths = [np.diff(interval(rows(rng, alike=alike, experiments=200)))[0] for alike in (0.0, 1.0)]
    assert widths[1] > 1.7 * widths[0]  # sqrt(5) = 2.2 times, for five steps that are one


def test_a_ratio_of_sums_is_no_mean_of_ratios():
    tally = Tally(np.array([1.0, 1.0]), np.array([1.0, 9.0]), ["a", "b"])
    assert tally.value == pytest.approx(0.2)
    low, high = interval(tally)
    assert (low, high) == (pytest.approx(1 / 9), pytest.approx(1.0))


def test_rows_without_a_value_do_not_count():
    tally = Tally.mean([1.0, float("nan"), 0.0], ["a", "a", "b"])
    assert tally.value == 0.5
    assert np.isnan(Tally.mean([float("nan")], ["a"]).value)
    assert np.isnan(interval(Tally.mean([float("nan")], ["a"]))).all()
    assert np.isnan(interval(Tally.mean([], []))).all()
    assert interval(Tally.mean([0.25, 0.75], ["a", "a"])) == (0.5, 0.5)


def test_p_is_uniform_where_nothing_differs():
    rng = np.random.default_rng(2)
    p = [compare(rows(rng), rows(rng), seed=s, draws=400).p for s in range(200)]
    assert np.mean(np.asarray(p) < 0.1) == pytest.approx(0.1, abs=0.05)


def test_a_difference_is_found():
    rng = np.random.default_rng(3)
    found = compare(rows(rng, right=0.9), rows(rng, right=0.6))
    assert found.difference == pytest.approx(0.3, abs=0.1)
    assert found.low > 0
    assert found.p < 0.01
    other = compare(rows(np.random.default_rng(3), right=0.6), rows(np.random.default_rng(4), right=0.9))
    assert other.high < 0


def test_the_same_file_twice_differs_in_nothing():
    tally = rows(np.random.default_rng(5))
    assert compare(tally, tally) == compare(tally, tally)
    assert (compare(tally, tally).difference, compare(tally, tally).p) == (0.0, 1.0)


def test_other_experiments_are_refused():
    with pytest.raises(ExpStarError, match="found experiment 'a' in one of two prediction files alone"):
        compare(Tally.mean([1.0], ["a"]), Tally.mean([1.0], ["b"]))
