"""How sure a metric is: bootstrap intervals, and tests between two prediction files, over whole experiments.

Steps of one experiment are alike, so experiments are drawn, not steps: drawing steps would give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from expstar_utils.records import ExpStarError

DRAWS = 2000


@dataclass(frozen=True)
class Tally:
    """A metric as a ratio of sums over rows: a mean (values over ones), or n-gram precision (matches over n-grams).

    numerator, denominator: float [rows]. group: the experiment of each row.
    """

    numerator: np.ndarray
    denominator: np.ndarray
    group: Sequence[str]

    @classmethod
    def mean(cls, values: Sequence[float], group: Sequence[str]) -> Tally:
        """Mean of a value a row; NaN stands for a row that has none."""
        found = np.asarray(values, dtype=float)
        return cls(np.nan_to_num(found), (~np.isnan(found)).astype(float), group)

    @property
    def value(self) -> float:
        """The metric over all rows; NaN where nothing counts."""
        return float(_ratio(self.numerator.sum(), self.denominator.sum()))

    def by_group(self, names: Sequence[str]) -> np.ndarray:
        """Sums over the rows of each group, float [groups, 2]; 0 where a group has no row."""
        place = {name: i for i, name in enumerate(names)}
        sums = np.zeros((len(names), 2))
        np.add.at(sums, [place[g] for g in self.group], np.stack([self.numerator, self.denominator], 1))
        return sums


def _ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.divide(top, bottom, out=np.full(np.shape(bottom), np.nan), where=np.asarray(bottom) > 0)


def interval(tally: Tally, level: float = 0.95, seed: int = 0, draws: int = DRAWS) -> tuple[float, float]:
    """Percentile bootstrap interval of a metric; experiments are drawn with replacement (Efron and Tibshirani 1993, chapter 13).

    Returns:
        (low, high); NaN where nothing counts, the metric itself twice where there is one experiment.
    """
    names = sorted(set(tally.group))
    if not names:
        return float("nan"), float("nan")
    sums = tally.by_group(names)
    drawn = sums[np.random.default_rng(seed).integers(len(names), size=(draws, len(names)))].sum(1)
    values = _ratio(drawn[:, 0], drawn[:, 1])
    if np.isnan(values).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


@dataclass(frozen=True)
class Comparison:
    """Two files on the same rows. difference: first minus second; low, high: its 95% interval; p: of the two-sided test."""

    difference: float
    low: float
    high: float
    p: float


def compare(first: Tally, second: Tally, seed: int = 0, draws: int = DRAWS) -> Comparison:
    """Paired comparison of a metric of two files over the same experiments.

    The interval is a paired bootstrap's (Koehn 2004); p is that of approximate randomisation (Riezler and Maxwell 2005): how
    often the two differ as much when each experiment's results change sides by chance.

    Raises:
        ExpStarError: the two are of other experiments.
    """
    names = sorted(set(first.group))
    if odd := set(names) ^ set(second.group):
        raise ExpStarError(f"found experiment {sorted(odd)[0]!r} in one of two prediction files alone, expected the same ones in "
                           "both; compare files of one split")
    a, b = first.by_group(names), second.by_group(names)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(names), size=(draws, len(names)))
    differences = _difference(a[drawn].sum(1), b[drawn].sum(1))
    swapped = rng.integers(2, size=(draws, len(names)))[..., None].astype(bool)
    chance = _difference(np.where(swapped, b, a).sum(1), np.where(swapped, a, b).sum(1))
    difference = first.value - second.value
    as_much = int((np.abs(chance) >= abs(difference) - 1e-12).sum())
    low, high = np.nanquantile(differences, [0.025, 0.975])
    return Comparison(difference, float(low), float(high), (as_much + 1) / (draws + 1))


def _difference(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _ratio(a[..., 0], a[..., 1]) - _ratio(b[..., 0], b[..., 1])
