"""Rankings: a better order never measures worse, intervals hold the mean, fusion keeps what all agree on."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from expstar_utils.ranking import chance, fused_scores, hits, interval, ndcg

GRADES = {"a": 5, "b": 3, "c": 2}


def test_hits_are_those_of_the_first_k_and_queries_without_gold_do_not_count():
    rankings, gold = [["a", "b", "c"], ["c", "a"], ["a"]], [{"b"}, {"c", "x"}, set()]
    assert hits(rankings, gold, 1).tolist() == [0, 1]
    assert hits(rankings, gold, 2).tolist() == [1, 1]
    assert hits([[]], [{"a"}], 5).tolist() == [0]


@pytest.mark.parametrize("k", [1, 2, 5])
def test_ndcg_is_that_of_scikit_learn_with_exponential_gains(k):
    items = ["a", "b", "c", "d", "e"]
    gains = np.array([[2.0 ** (GRADES.get(i, 1) - 1) - 1 for i in items]])
    for order in itertools.permutations(range(5)):
        scores = np.array([[-order.index(i) for i in range(5)]], float)
        [ours] = ndcg([[items[i] for i in order]], [GRADES], k)
        assert ours == pytest.approx(ndcg_score(gains, scores, k=k))


def test_the_best_order_has_one_and_nothing_relevant_does_not_count():
    assert ndcg([["a", "b", "c", "d"]], [GRADES], 8).tolist() == [1.0]
    assert ndcg([["d", "e"]], [GRADES], 8).tolist() == [0.0]
    assert ndcg([["a"]], [{"a": 1}], 8).tolist() == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_an_interval_holds_its_mean(values):
    mean, low, high = interval(np.array(values), resamples=200)
    assert low - 1e-9 <= mean <= high + 1e-9


def test_intervals_shrink_with_more_queries_and_are_the_same_for_one_seed():
    rng = np.random.default_rng(0)
    few, many = rng.integers(0, 2, 40).astype(float), rng.integers(0, 2, 4000).astype(float)
    widths = [high - low for _, low, high in map(interval, (few, many))]
    assert widths[1] < widths[0] / 5
    assert interval(few) == interval(few)
    assert interval(np.ones(9)) == (1.0, 1.0, 1.0)
    assert all(np.isnan(interval(np.array([]))))


def order(*arguments):
    return list(fused_scores(*arguments))


def test_what_all_rank_first_stays_first_and_weights_decide():
    assert order([[3, 1, 2], [3, 2, 1]])[0] == 3
    assert order([[1, 2], [2, 1]], [1.0, 2.0])[0] == 2
    assert order([[1, 2], [2, 1]]) == [1, 2]
    assert order([[1], [2, 1]])[0] == 1
    assert order([]) == []


def test_chance_is_that_of_drawing_without_putting_back():
    assert chance(10, 1, 8) == pytest.approx(0.8)
    assert chance(20, 2, 8) == pytest.approx(1 - (12 * 11) / (20 * 19))
    assert chance(5, 1, 8) == 1
    assert chance(5, 0, 3) == 0
