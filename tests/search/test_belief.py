"""What a search says it knows, where the truth is known."""

import math

import pytest
from optuna.trial import TrialState, create_trial

from hawsweep.search.belief import find_belief
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep

RATE, RANK = "learning_rate", "lora_parameters.rank"
ITERS, BEST = 100, 3e-4
SEARCH = {RATE: {"low": 1e-5, "high": 1e-2, "log": True}, RANK: {"choices": [4, 8]}}


def sweep(search=SEARCH):
    content = {"model": "some/model", "data": "phrasebook", "train": {"iters": ITERS}}
    return check_sweep({**content, "search": search}, "a sweep")


def loss(rate, rank):
    """Lowest at the best rate; the higher rank is 3 % better."""
    return math.exp(0.05 * math.log10(rate / BEST) ** 2 + (0.03 if rank == 4 else 0.0))


def study(*settings, step=ITERS, spec=None):
    trials = []
    for number, (rate, rank) in enumerate(settings):
        trials.append(
            create_trial(
                state=TrialState.COMPLETE,
                value=0.5,
                params={RATE: rate, RANK: rank},
                distributions=distributions((spec or sweep()).search),
                intermediate_values={step: -loss(rate, rank)},
            )
        )
        trials[-1].number = number
    return trials


SPREAD = [(rate, rank) for rank in (4, 8) for rate in (2e-5, 1e-4, 2.8e-4, 1e-3, 5e-3)]


def test_nothing_is_known_before_three_trials_have_shown_something():
    assert find_belief(sweep(), study(*SPREAD[:2]), 4) is None
    assert find_belief(sweep(), study(*SPREAD[:3]), 4) is not None


def test_one_trial_seen_often_is_one_trial():
    (trial,) = study(SPREAD[0])
    trial.intermediate_values = dict.fromkeys((12, 25, 50, 100), -1.0)
    assert find_belief(sweep(), [trial], 4) is None


def test_what_trials_show_is_known():
    belief = find_belief(sweep(), study(*SPREAD), 4)
    rate, rank = belief.keys
    assert (rate.key, rank.key) == (RATE, RANK)
    assert rate.low < BEST < rate.high
    assert rate.high / rate.low < 20  # of a thousand
    assert rank.value == 8
    assert rank.chance > 0.9
    assert SPREAD[belief.leader] == (2.8e-4, 8)
    assert belief.leader_stays > 0.9
    assert 0 <= belief.gain_low <= belief.gain <= belief.gain_high < 0.01  # .28 is close to .3


def test_more_trials_narrow_a_range_down():
    few, more = (
        find_belief(sweep(), study(*settings), 4).keys[0]
        for settings in (SPREAD[:5], [*SPREAD, (2e-4, 8), (4e-4, 8), (5e-4, 8)])
    )
    assert more.high / more.low < few.high / few.low


def test_less_is_known_from_trials_that_were_trained_less():
    early, late = (find_belief(sweep(), study(*SPREAD, step=step), 4) for step in (10, ITERS))
    assert early.leader_stays <= late.leader_stays
    assert early.keys[1].chance <= late.keys[1].chance


def late_study(best, delay):
    """Trials of a problem in which lower rates come down later, paused at an eighth but for two."""

    def value(rate, rank, step):
        scale = 0.03 * ITERS * best
        fall, whole = ((1 + rate * at / scale) ** -0.6 for at in (step, ITERS))
        return 1 + 0.04 * math.log10(rate / best) ** 2 + (rank == 4) * 0.01 + delay * (fall - whole)

    trials = []
    for number, (rate, rank) in enumerate([*SPREAD, (5e-4, 8), (2e-4, 8)]):
        is_whole = rate in (2.8e-4, 1e-3)
        trial = create_trial(
            state=TrialState.COMPLETE if is_whole else TrialState.WAITING,
            value=0.5 if is_whole else None,
            params={RATE: rate, RANK: rank},
            distributions=distributions(sweep().search),
            intermediate_values={
                step: -value(rate, rank, step)
                for step in (12, 25, 50, 100)
                if step == 12 or is_whole
            },
        )
        trial.number = number
        trials.append(trial)
    return trials


@pytest.mark.parametrize("delay", [0.0, 0.17, 0.25])
def test_rates_that_come_down_late_are_in_the_range_of_the_best(delay):
    best = 2e-4
    rate = find_belief(sweep(), late_study(best, delay), 4).keys[0]
    assert rate.low < best < rate.high
    assert rate.high / rate.low < 60


def test_of_a_space_in_which_all_was_tried_nothing_more_is_expected():
    search = {RATE: {"choices": [1e-4, 3e-4]}, RANK: {"choices": [4, 8]}}
    settings = [(rate, rank) for rate in (1e-4, 3e-4) for rank in (4, 8)]
    belief = find_belief(sweep(search), study(*settings, spec=sweep(search)), 4)
    assert (belief.n_next, belief.gain, belief.gain_high) == (0, 0.0, 0.0)
    assert belief.keys[0].value == 3e-4


def test_where_no_setting_would_begin_no_gain_is_expected():
    belief = find_belief(sweep(), study(*SPREAD), 0)
    assert (belief.n_next, belief.gain, belief.gain_high) == (0, 0.0, 0.0)


def test_the_same_trials_say_the_same():
    assert find_belief(sweep(), study(*SPREAD), 4) == find_belief(sweep(), study(*SPREAD), 4)


def test_a_thousand_trials_are_too_many_to_look_at_all():
    settings = [(10 ** (-5 + 3 * n / 999), 4 + 4 * (n % 2)) for n in range(1000)]
    belief = find_belief(sweep(), study(*settings), 4)
    assert belief.keys[0].low < BEST < belief.keys[0].high
    assert settings[belief.leader][0] == pytest.approx(BEST, rel=0.5)


def test_hour_that_begins_part_of_a_setting_brings_that_part():
    part, one = (find_belief(sweep(), study(*SPREAD), n_next) for n_next in (0.25, 1))
    assert (part.n_next, one.n_next) == (1, 1)
    assert 0 < part.gain == pytest.approx(0.25 * one.gain, rel=0.05)  # shares of logarithms
