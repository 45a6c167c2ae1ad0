"""How a trial's validation losses are read."""

import math

import pytest
from optuna.trial import TrialState, create_trial

from hawsweep.search.curves import fluctuation, lowest_so_far, value_at


def trial(*losses):
    values = {10 * n: -loss for n, loss in enumerate(losses, 1)}
    return create_trial(state=TrialState.PRUNED, intermediate_values=values)


def test_lowest_mean_of_two_in_a_row_counts_until_each_evaluation():
    found = lowest_so_far(trial(2.0, 1.0, 4.0, 1.0))
    assert found == pytest.approx(
        {10: 2.0, 20: math.sqrt(2.0), 30: math.sqrt(2.0), 40: math.sqrt(2)}
    )


@pytest.mark.parametrize("wrong", [math.nan, math.inf, 0.0])
def test_loss_that_is_no_number_lets_the_lowest_before_stand(wrong):
    assert lowest_so_far(trial(2.0, wrong)) == pytest.approx({10: 2.0, 20: 2.0})
    assert lowest_so_far(trial(wrong, 2.0, 2.0)) == pytest.approx(
        {10: math.inf, 20: math.inf, 30: 2}
    )


def test_value_of_a_curve_is_its_last_until_then():
    curve = {10: 3.0, 20: 2.0}
    assert [value_at(curve, step) for step in (5, 10, 15, 99)] == [None, 3.0, 3.0, 2.0]


def test_losses_that_fall_evenly_do_not_fluctuate():
    assert fluctuation([trial(*(0.9**n for n in range(8)))]) == pytest.approx(0, abs=1e-12)
    assert fluctuation([trial(3.0, 1.0), trial(1.0)]) == 0


def test_fluctuation_is_that_of_the_evaluations_and_of_the_middle_trial():
    # Up and down by 1 %: each second difference is four times that, over the root of six.
    uneasy = trial(*(0.9**n * math.exp(0.01 * (-1) ** n) for n in range(10)))
    assert fluctuation([uneasy]) == pytest.approx(0.04 / math.sqrt(6))
    even = trial(*(0.9**n for n in range(8)))
    assert fluctuation([even, uneasy, uneasy]) == pytest.approx(0.04 / math.sqrt(6))
    assert fluctuation([even, even, uneasy]) == pytest.approx(0, abs=1e-12)
