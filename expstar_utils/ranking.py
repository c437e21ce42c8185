"""How good rankings are: recall and nDCG of every query, means with bootstrap intervals, and rankings fused into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

RANK_OFFSET = 60  # of reciprocal-rank fusion (Cormack, Clarke, Buettcher, SIGIR 2009)


def hits(rankings: Sequence[Sequence[str]], gold: Sequence[set[str]], k: int) -> np.ndarray:
    """Whether one of the passages that a query needs is among its first k; float [queries with gold], 0 or 1."""
    return np.array([float(not needed.isdisjoint(ranking[:k])) for ranking, needed in zip(rankings, gold, strict=True) if needed])


def chance(choices: int, gold: int, k: int) -> float:
    """Probability that k passages drawn at random from so many hold at least one of the gold ones."""
    from scipy.stats import hypergeom  # here and below: retrieval fuses rankings without it, and starts sooner
    return float(hypergeom.sf(0, choices, gold, min(k, choices)))


def ndcg(rankings: Sequence[Sequence[str]], grades: Sequence[Mapping[str, int]], k: int) -> np.ndarray:
    """Normalised discounted cumulative gain of every query; float [queries with a grade over 1], 0 to 1.

    The gain of a grade g is 2^(g-1) - 1, so that grade 1, irrelevant, gains nothing (Jarvelin and Kekalainen, TOIS 2002, with
    exponential gains).

    Args:
        rankings: ids of passages, best first. grades: by query, id -> 1 to 5; ids that are not there have grade 1.
    """
    found = []
    for ranking, known in zip(rankings, grades, strict=True):
        best = _gain(sorted(known.values(), reverse=True)[:k])
        if best > 0:
            found.append(_gain([known.get(p, 1) for p in ranking[:k]]) / best)
    return np.array(found)


def _gain(grades: Sequence[int]) -> float:
    gains = 2.0 ** (np.asarray(grades, float) - 1) - 1
    return float((gains / np.log2(np.arange(len(gains)) + 2)).sum())


def interval(values: np.ndarray, level: float = 0.95, resamples: int = 2000, seed: int = 42) -> tuple[float, float, float]:
    """(mean, low, high): percentile bootstrap over queries; NaN where there is none, no width where all are equal."""
    if len(values) == 0:
        return (float("nan"),) * 3
    mean = float(values.mean())
    if np.ptp(values) == 0:
        return mean, mean, mean
    from scipy.stats import bootstrap
    drawn = bootstrap((values,), np.mean, n_resamples=resamples, confidence_level=level, method="percentile",
                      rng=np.random.default_rng(seed))
    return mean, float(drawn.confidence_interval.low), float(drawn.confidence_interval.high)


def fused_scores(rankings: Sequence[Sequence[int]], weights: Sequence[float] | None = None,
                 offset: int = RANK_OFFSET) -> dict[int, float]:
    """Items of several rankings of one query with their weighted reciprocal ranks, best first; ties as in the first ranking.

    For rankings that do not live in one space, where scores cannot be added.
    """
    weights = weights or [1.0] * len(rankings)
    scores: dict[int, float] = {}
    for ranking, weight in zip(rankings, weights, strict=True):
        for rank, item in enumerate(ranking, 1):
            scores[item] = scores.get(item, 0.0) + weight / (offset + rank)
    return dict(sorted(scores.items(), key=lambda pair: -pair[1]))
