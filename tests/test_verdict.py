"""What is said of a study's winner, and how often that is false."""

import numpy as np
import pytest

from hawsweep.intervals import mean_interval
from hawsweep.verdict import Candidate, judge

N_STUDIES, N_TRIALS = 400, 12
N_VALID, N_TEST = 64, 128
BASE = 0.5


def scored(label, mean, *, n=200, seed=0, test=None, cost=0.0):
    items = np.random.default_rng(99).normal(0, 0.2, n)
    noise = np.random.default_rng(seed).normal(0, 0.1, n)
    test_scores = None if test is None else items - items.mean() + test + noise - noise.mean()
    return Candidate(label, items - items.mean() + mean + noise - noise.mean(), test_scores, cost)


def test_no_trial_no_verdict():
    assert judge([], [scored("base", 0.5)]) is None


def test_winner_far_above_the_base_is_worth_shipping():
    trials = [scored("trial 1", 0.6, seed=1), scored("trial 2", 0.8, seed=2, test=0.79)]
    found = judge(trials, [scored("base", 0.5, seed=3, test=0.5)])
    assert (found.winner, found.ships, found.ties) == ("trial 2", True, ())
    assert found.baselines[0].on_test
    assert found.sentences[0].startswith("trial 2 is worth shipping: +0.29 (95 % 0.2")
    assert "over the base on the test split" in found.sentences[0]
    assert found.sentences[1].startswith("trial 2 is better than trial 1, the next one: +0.20")


def test_without_a_test_split_the_level_pays_for_the_choice():
    trials = [scored(f"trial {i}", 0.5 + i / 100, seed=i) for i in range(10)]
    found = judge(trials, [scored("base", 0.5, seed=50)])
    assert not found.baselines[0].on_test
    assert found.baselines[0].gain.level == pytest.approx(0.995)
    assert "on the validation prompts it was chosen by" in found.sentences[0]


def test_trial_not_told_apart_gives_way_to_a_cheaper_one():
    trials = [
        scored("trial 1", 0.800, seed=1, cost=100.0),
        scored("trial 2", 0.801, seed=2, cost=300.0),
        scored("trial 3", 0.799, seed=3, cost=200.0),
        scored("trial 4", 0.5, seed=4, cost=1.0),
    ]
    found = judge(trials, [scored("base", 0.4, seed=9)])
    assert found.ties == ("trial 1", "trial 3")
    assert found.prefer == "trial 1"
    assert (
        "not told apart from trial 1 and trial 3: prefer the cheaper one, trial 1."
        in (found.sentences[1])
    )
    cheapest = judge([trials[1], scored("trial 5", 0.8, seed=5, cost=999.0)], [])
    assert cheapest.prefer == "trial 2"
    assert "prefer" not in cheapest.sentences[0]


def test_no_trial_beats_a_better_baseline():
    trial = scored("trial 0", 0.5, seed=1)
    few_shot = scored("4-shot base", 0.6, seed=2)
    found = judge([trial], [scored("base", 0.3, seed=3), few_shot])
    assert not found.ships
    assert found.sentences[0].startswith("No trial beats the 4-shot base: trial 0 -0.10")
    near = judge([trial], [scored("base", 0.499, seed=3)])
    assert not near.ships
    assert "is not told apart from the base" in near.sentences[0]


def test_judged_trial_may_be_another_than_the_best_by_now():
    trials = [scored("trial 1", 0.6, seed=1, test=0.6), scored("trial 2", 0.8, seed=2)]
    found = judge(trials, [scored("base", 0.5, seed=3, test=0.5)], winner="trial 1")
    assert found.winner == "trial 1"
    assert found.baselines[0].on_test


def simulated(seed):
    """A study with known truth: items differ, answers are skewed, trials differ by 0.01 a step.

    In every second study no trial is better than the base.
    """
    generator = np.random.default_rng(seed)
    steps = np.arange(N_TRIALS) / 100
    gains = -steps if seed % 2 else steps - 0.04
    gains = np.append(generator.permutation(gains), 0.0)  # the base is the last
    scores = []
    for n in (N_VALID, N_TEST):
        items = generator.normal(0, 0.15, n)
        noise = 0.12 - generator.gamma(1.0, 0.12, (N_TRIALS + 1, n))  # mean 0, a long lower tail
        scores.append(BASE + gains[:, None] + items + noise)
    return gains, *scores


def test_simulated_studies_are_judged_as_the_truth_is():
    holds, gain_holds, false, n_null, selection_bias, test_bias = [], [], 0, 0, [], []
    for seed in range(N_STUDIES):
        gains, valid, test = simulated(seed)
        best = int(np.argmax(valid[:-1].mean(axis=1)))
        trials = [
            Candidate(f"trial {i}", valid[i], test[i] if i == best else None)
            for i in range(N_TRIALS)
        ]
        found = judge(trials, [Candidate("base", valid[-1], test[-1])])
        assert found.winner == f"trial {best}"
        truth = gains[best]
        gain = found.baselines[0].gain
        gain_holds.append(gain.low <= truth <= gain.high)
        for trial in trials[:4]:
            own = mean_interval(trial.scores)
            holds.append(own.low <= BASE + gains[int(trial.label[6:])] <= own.high)
        if truth <= 0:
            n_null += 1
            false += found.ships
        selection_bias.append(valid[best].mean() - (BASE + truth))
        test_bias.append(test[best].mean() - (BASE + truth))
    assert 0.93 <= np.mean(holds) <= 0.97
    assert 0.93 <= np.mean(gain_holds) <= 0.975
    assert n_null > 150
    assert false / n_null <= 0.05
    assert np.mean(selection_bias) > 0.01  # or there would be nothing to correct
    assert abs(np.mean(test_bias)) < np.mean(selection_bias) / 4
