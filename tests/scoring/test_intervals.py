"""Means and how sure they are."""

import math

import numpy as np
import pytest
from scipy import stats

from hawsweep.scoring.intervals import (
    detectable_difference,
    difference_interval,
    items_for,
    mean_interval,
    rank_correlation,
)


def normal(seed, n, mean=0.5, deviation=0.2):
    return np.random.default_rng(seed).normal(mean, deviation, n)


@pytest.mark.parametrize("n", [12, 64, 400])
def test_interval_of_normal_values_is_about_as_wide_as_students(n):
    values = normal(3, n)
    found = mean_interval(values)
    width = stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / math.sqrt(n)
    assert found.mean == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(2 * width, rel=0.15)
    assert found.low < found.mean < found.high


@pytest.mark.parametrize(("n", "n_studies"), [(10, 600), (48, 600)])
def test_interval_holds_the_truth_as_often_as_it_says(n, n_studies):
    generator = np.random.default_rng(n)
    holds = 0
    for _ in range(n_studies):
        values = generator.beta(6, 2, n)  # skewed, as similarities are
        found = mean_interval(values)
        holds += found.low <= 6 / 8 <= found.high
    assert 0.93 <= holds / n_studies <= 0.97


def test_higher_level_is_wider_and_the_same_seed_the_same():
    values = normal(0, 30)
    usual, sure = mean_interval(values), mean_interval(values, level=0.99)
    assert sure.low < usual.low < usual.high < sure.high
    assert mean_interval(values) == usual
    assert mean_interval(values, seed=1) != usual


def test_too_few_values_say_nothing_of_how_sure_they_are():
    assert not mean_interval([0.3, 0.9, 0.5]).excludes_zero
    assert mean_interval([0.5] * 10).excludes_zero


def test_one_value_says_nothing_of_how_sure_it_is():
    found = mean_interval([0.3])
    assert (found.mean, found.low, found.high) == (0.3, -math.inf, math.inf)
    assert not found.excludes_zero


def test_ends_stay_within_what_a_score_can_be():
    values = [1.0, 0.0, 0.1, 0.1, 0.1, 0.1, 0.0, 0.0, 1.0, 0.0]
    free, kept = mean_interval(values), mean_interval(values, bounds=(-1.0, 1.0))
    assert free.high > 1
    assert (kept.mean, kept.low, kept.high) == (free.mean, free.low, 1.0)
    turned = mean_interval([1 - value for value in values], bounds=(0.0, 1.0))
    assert (turned.low, turned.high) == pytest.approx((0.0, 1 - free.low))
    few = mean_interval([1.0] * 7 + [0.2, 0.3], bounds=(0.0, 1.0))
    assert few.low == -math.inf  # not known, and not taken for 0


def test_differences_on_the_same_items_are_surer_than_of_two_means():
    items = normal(1, 50, deviation=0.3)
    one, other = items + 0.05 + normal(2, 50, 0, 0.02), items
    found = difference_interval(one, other)
    assert found.excludes_zero
    assert found.high - found.low < 0.1 * (mean_interval(one).high - mean_interval(one).low)


@pytest.mark.parametrize("n_wrong", [1, 3])
def test_differences_of_shares_have_ends_also_where_nearly_all_are_equal(n_wrong):
    right = np.array([0.0] * n_wrong + [1.0] * (64 - n_wrong))
    found = difference_interval(right, np.zeros(64))
    assert 0.8 < found.low < found.mean < found.high <= 1
    back = difference_interval(np.zeros(64), right)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))
    far = difference_interval(right * 0.5, np.zeros(64))  # no shares: nothing is known of the ends
    assert not math.isfinite(far.high - far.low)


@pytest.mark.parametrize(
    ("n_up", "n_down", "differs"),
    # Mid-p values of two sides: .25, .0625, .031, .0703, .039, .0127.
    [(2, 0, False), (4, 0, False), (5, 0, True), (6, 1, False), (7, 1, True), (30, 14, True)],
)
@pytest.mark.parametrize("n", [60, 400])
def test_few_right_answers_more_are_no_difference(n_up, n_down, differs, n):
    one = np.array([1.0] * n_up + [0.0] * (n - n_up))
    other = np.array([0.0] * n_up + [1.0] * n_down + [0.0] * (n - n_up - n_down))
    found, back = difference_interval(one, other), difference_interval(other, one)
    assert (found.low > 0) == (back.high < 0) == differs
    assert found.low <= found.mean <= found.high


def test_equal_systems_of_which_few_answers_differ_are_rarely_told_apart():
    random = np.random.default_rng(5)
    told = 0
    for _ in range(400):
        one, other = np.zeros((2, 40))
        differing = random.random(40) < 0.05
        one[differing] = random.integers(0, 2, differing.sum())
        other[differing] = 1 - one[differing]
        interval = difference_interval(one, other)
        told += not interval.low <= 0 <= interval.high
    assert told <= 0.05 * 400


def test_many_items_are_resampled_in_parts():
    values = normal(5, 20_000)
    found = mean_interval(values)
    width = 2 * 1.96 * values.std() / math.sqrt(len(values))
    assert found.high - found.low == pytest.approx(width, rel=0.06)


def test_detectable_difference_is_found_in_four_of_five_cases():
    deviation, n = 0.2, 60
    difference = detectable_difference(deviation, n)
    generator = np.random.default_rng(0)
    found = [mean_interval(generator.normal(difference, deviation, n)).low > 0 for _ in range(400)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.06)
    assert items_for(deviation, difference) == n


def test_rank_correlation_is_spearmans():
    one, other = normal(1, 40).round(1), normal(2, 40).round(1)
    assert rank_correlation(one, other) == pytest.approx(stats.spearmanr(one, other).statistic)
    assert rank_correlation([1, 2, 3], [9, 8, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 1], [1, 2, 3]) is None
    assert rank_correlation([1, 2], [1, 2]) is None
