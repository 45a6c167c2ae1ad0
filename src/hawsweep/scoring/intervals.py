"""Uncertainty of means: bootstrap intervals, differences on the same items, and the smallest
difference that a number of items can tell apart.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator

from hawsweep.text import short_repr

# A number that may be infinite; null in JSON, which has no infinity.
Unbounded = Annotated[
    float,
    BeforeValidator(
        lambda value: math.inf if value is None else value, json_schema_input_type=float | None
    ),
]
Values = Sequence[float] | npt.NDArray[np.floating[Any]]

LEVEL = 0.95
UNBOUNDED = (-math.inf, math.inf)
_POWER = 0.8
_N_RESAMPLES = 4_000
# Resamples of fewer items are too similar for an interval.
_FEWEST = 8
# Of a resample matrix at a time: what a processor's cache holds takes half as long as all at once.
_CHUNK_VALUES = 100_000


@dataclass(frozen=True, repr=False)
class Interval:
    """A mean and the interval that holds the true one in ``level`` of all cases."""

    mean: float
    low: Unbounded
    high: Unbounded
    level: float = LEVEL

    __repr__ = short_repr

    @property
    def excludes_zero(self) -> bool:
        """Whether all of it is on one side of zero."""
        return self.low > 0 or self.high < 0


def mean_interval(
    values: Values,
    *,
    level: float = LEVEL,
    seed: int = 0,
    bounds: tuple[float, float] = UNBOUNDED,
) -> Interval:
    """The bootstrap-t interval of a mean over items (Efron and Tibshirani 1993, section 12.5).

    Similarities are skewed. With few items, plain percentile intervals contain the truth too
    seldom: with ten such values in 92 to 93 % of cases, these intervals in 94 %.

    Args:
        values: One for each item, ``[items]``; of differences for a paired comparison.
        level: The share of cases in which it is to hold the truth.
        bounds: The lowest and the highest possible value, which no end goes beyond.

    Returns:
        The interval; it has no ends if there are too few items.
    """
    known = np.asarray(values, np.float64)
    n = len(known)
    mean = float(known.mean())
    if n < _FEWEST:
        return Interval(mean, -np.inf, np.inf, level)
    ratios = _resampled_ratios(known, seed)
    tail = (1 - level) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail], method="nearest")
    deviation = float(known.std(ddof=1))
    if deviation == 0:
        return Interval(mean, mean, mean, level)
    ends = (float(mean - high * deviation), float(mean - low * deviation))
    # An end that is not known stays infinite.
    within = [min(max(end, bounds[0]), bounds[1]) if math.isfinite(end) else end for end in ends]
    return Interval(mean, within[0], within[1], level)


def difference_interval(one: Values, other: Values, *, level: float = LEVEL) -> Interval:
    """The interval of the mean difference of ``one`` and ``other`` on the same items.

    Of scores that are all 0 or 1 an end that resamples do not give is Wilson's, and the interval
    holds 0 unless McNemar's test of the items that differ, with the mid-p value, says otherwise:
    resamples of two such items know nothing of a third.
    """
    differences = np.subtract(one, other)
    found = mean_interval(differences, level=level)
    n, is_share = len(one), bool(np.isin([*one, *other], (0, 1)).all())
    if n < _FEWEST or not is_share:
        return found
    share = share_interval(n * (found.mean + 1) / 2, n, level=level)
    low = found.low if math.isfinite(found.low) else 2 * share.low - 1
    high = found.high if math.isfinite(found.high) else 2 * share.high - 1
    if not _differ(int((differences > 0).sum()), int((differences < 0).sum()), level):
        low, high = min(low, 0.0), max(high, 0.0)
    return Interval(found.mean, max(low, -1.0), min(high, 1.0), level)


def _differ(n_up: int, n_down: int, level: float) -> bool:
    """Whether so many items that went up, and down, would be rare if both were equally likely."""
    from scipy.special import bdtrc

    n, most = n_up + n_down, max(n_up, n_down)
    beyond, at_least = bdtrc(most, n, 0.5), bdtrc(most - 1, n, 0.5)
    return bool((beyond + at_least) / 2 < (1 - level) / 2)


def share_interval(n_found: float, n_items: int, *, level: float = LEVEL) -> Interval:
    """Wilson's interval of a share, which also holds for few items and for shares of 0 and 1.

    Args:
        n_found: For values from 0 to 1 their sum, and the interval is at least as wide as need be.
        n_items: At least 1.
    """
    z = NormalDist().inv_cdf(1 - (1 - level) / 2)
    share, weight = n_found / n_items, z * z / n_items
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt((share * (1 - share) + weight / 4) / n_items) / (1 + weight)
    return Interval(share, max(0.0, middle - half), min(1.0, middle + half), level)


def detectable_difference(deviation: float, n_items: int) -> float:
    """The smallest true difference that a paired comparison finds in 80 % of cases.

    Args:
        deviation: Standard deviation of one item's difference.
    """
    normal = NormalDist()
    z = normal.inv_cdf(1 - (1 - LEVEL) / 2) + normal.inv_cdf(_POWER)
    return float(z * deviation / np.sqrt(n_items))


def items_for(deviation: float, difference: float) -> int:
    """The number of items that find a difference; see ``detectable_difference``."""
    return math.ceil(round((detectable_difference(deviation, 1) / difference) ** 2, 6))


def rank_correlation(one: Values, other: Values) -> float | None:
    """Spearman's correlation, from -1 to 1; None if all values of one are equal."""
    from scipy.stats import spearmanr

    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(other) == 0:
        return None
    return float(spearmanr(one, other).statistic)


def _resampled_ratios(values: npt.NDArray[np.float64], seed: int) -> npt.NDArray[np.float64]:
    """Distances of resampled means from the mean, in their own standard deviations."""
    generator = np.random.default_rng(seed)
    n, mean = len(values), values.mean()
    rows = max(1, min(_N_RESAMPLES, _CHUNK_VALUES // n))
    ratios = []
    for at in range(0, _N_RESAMPLES, rows):
        chosen = values[generator.integers(0, n, (min(rows, _N_RESAMPLES - at), n))]
        means = chosen.mean(axis=1, keepdims=True)
        away, deviation = means[:, 0] - mean, chosen.std(axis=1, ddof=1, mean=means)
        # A resample of equal values counts as infinitely far.
        far = np.where(np.abs(away) > 1e-12, np.copysign(np.inf, away), 0.0)
        ratios.append(np.divide(away, deviation, out=far, where=deviation > 1e-12))
    return np.concatenate(ratios)
