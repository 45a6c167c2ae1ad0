"""What is said of a study's winner, and how often that is false."""

import math
import re

import numpy as np
import optuna
import pytest

from hawsweep.results.verdict import Candidate, Cost, gain_text, judge, without_verdict
from hawsweep.scoring.intervals import Interval, mean_interval
from hawsweep.study.confirm import Confirmation, ranked

N_STUDIES, N_TRIALS = 400, 12
N_VALID, N_TEST = 64, 128
BASE = 0.5
SEED_LUCK = 0.02


def scored(label, mean, *, n=200, seed=0, test=None, cost=None):
    items = np.random.default_rng(99).normal(0, 0.2, n)
    noise = np.random.default_rng(seed).normal(0, 0.1, n)
    test_scores = None if test is None else items - items.mean() + test + noise - noise.mean()
    return Candidate(label, items - items.mean() + mean + noise - noise.mean(), test_scores, cost)


def test_no_trial_no_verdict():
    assert judge([], [scored("base", 0.5)]) is None


def test_winner_far_above_the_base_is_the_one_to_use():
    trials = [scored("trial 1", 0.6, seed=1), scored("trial 2", 0.8, seed=2, test=0.79)]
    found = judge(trials, [scored("base", 0.5, seed=3, test=0.5)])
    assert (found.winner, found.ships, found.ties) == ("trial 2", True, ())
    assert found.baselines[0].on_test
    assert found.sentences[0].startswith(
        "Use trial 2: it is better than the untuned model, +0.29 (95 % 0.2"
    )
    assert found.use == 2
    assert "better than the untuned model, +0.29" in found.sentences[0]
    assert found.sentences[1].startswith("trial 2 is better than trial 1, the next one: +0.20")


def test_without_a_test_split_the_level_pays_for_the_choice():
    trials = [scored(f"trial {i}", 0.5 + i / 100, seed=i) for i in range(10)]
    found = judge(trials, [scored("base", 0.5, seed=50)])
    assert not found.baselines[0].on_test
    assert found.baselines[0].gain.level == pytest.approx(0.995)
    assert "on the validation prompts it was chosen by" in found.sentences[0]


def test_trial_not_told_apart_that_takes_less_is_said_with_how_much():
    trials = [
        scored("trial 1", 0.800, seed=1, cost=Cost(560, 4, 2 * 10**9)),
        scored("trial 2", 0.801, seed=2, cost=Cost(560, 16, 3 * 10**9)),
        scored("trial 3", 0.799, seed=3, cost=Cost(420, 32)),
        scored("trial 4", 0.5, seed=4, cost=Cost(4, 1)),
    ]
    found = judge(trials, [scored("base", 0.4, seed=9)])
    assert found.ties == ("trial 1", "trial 3")
    assert found.use == 2  # the best stays the one to use
    assert found.cheaper == "trial 1"
    assert found.sentences[1] == (
        "trial 2 is not told apart from trial 1 and trial 3 by these prompts; trial 1 takes less: "
        "rank 4, not 16, 1 GB less."
    )


@pytest.mark.parametrize(
    ("other", "less"),
    [
        (Cost(560, 16), ""),  # equal: no clock decides
        (Cost(420, 16), "25% fewer examples"),
        (Cost(420, 32), ""),  # less of one and more of the other
        (Cost(560, 8, 99), "rank 8, not 16"),  # a difference of memory below 5 % is none
        (None, ""),
    ],
)
def test_cheaper_is_what_takes_less_by_its_settings(other, less):
    best = scored("trial 2", 0.801, seed=2, cost=Cost(560, 16, 100))
    found = judge([best, scored("trial 5", 0.8, seed=5, cost=other)], [])
    assert found.cheaper == ("trial 5" if less else "")
    told = f"; trial 5 takes less: {less}." if less else "by these prompts."
    assert found.sentences[0].endswith(told)


def test_no_trial_beats_a_better_baseline():
    trial = scored("trial 0", 0.5, seed=1)
    few_shot = scored("4-shot base", 0.6, seed=2)
    found = judge([trial], [scored("base", 0.3, seed=3), few_shot])
    assert not found.ships
    assert found.use is None
    assert found.sentences[0].startswith(
        "Use no trial: trial 0 is worse than the untuned model with 4 examples, -0.10"
    )
    near = judge([trial], [scored("base", 0.499, seed=3)], advice="What may help: more pairs.")
    assert not near.ships
    assert near.sentences[0].startswith(
        "Use no trial yet: trial 0 is not told apart from the untuned model"
    )
    assert near.sentences[1] == "What may help: more pairs."


def test_judged_trial_may_be_another_than_the_best_by_now():
    trials = [scored("trial 1", 0.6, seed=1, test=0.6), scored("trial 2", 0.8, seed=2)]
    found = judge(trials, [scored("base", 0.5, seed=3, test=0.5)], winner="trial 1")
    assert found.winner == "trial 1"
    assert found.baselines[0].on_test


def test_winner_without_answers_here_has_no_verdict():
    trials = [scored("trial 1", 0.6, seed=1), scored("trial 2", 0.8, seed=2)]
    assert judge(trials, [scored("base", 0.5, seed=3)], winner="trial 7") is None
    study = optuna.create_study(direction="maximize")
    assert without_verdict(study) == "No trial is complete yet."
    study.add_trial(optuna.trial.create_trial(value=0.8))
    said = "No verdict: the answers of trial 0, the best, are not on this machine."
    assert without_verdict(study) == said


def test_winner_by_new_seeds_may_score_lower_on_these_prompts():
    trials = [scored("trial 3", 0.74, seed=1), scored("trial 7", 0.80, seed=2)]
    found = judge(trials, [scored("base", 0.5, seed=3)], winner="trial 3")
    said = "trial 3 is best by new seeds; its first run scored lower than that of trial 7:"
    assert found.sentences[1].startswith(f"{said} -0.06")


def test_nearly_every_right_answer_is_a_win():
    for n_wrong in (0, 1, 2, 3):
        right = np.array([0.0] * n_wrong + [1.0] * (64 - n_wrong))
        found = judge([Candidate("trial 3", right)], [Candidate("base", np.zeros(64))])
        assert found.ships, n_wrong


class Simulation:
    """A study with known truth: items differ, answers are skewed, settings differ by 0.01 a step,
    and each seed has its luck. In every second study no settings are better than the base.
    """

    def __init__(self, seed):
        self.draw = np.random.default_rng(seed)
        steps = np.arange(N_TRIALS) / 100
        self.gains = self.draw.permutation(-steps if seed % 2 else steps - 0.04)
        self.truths = self.gains + self.draw.normal(0, SEED_LUCK, N_TRIALS)  # of each adapter
        self.items = {n: self.draw.normal(0, 0.15, n) for n in (N_VALID, N_TEST)}

    def answer(self, truth, n):
        noise = 0.12 - self.draw.gamma(1.0, 0.12, n)  # mean 0, a long lower tail
        return BASE + truth + self.items[n] + noise

    def again(self, number):
        """Two more adapters of the same settings, on the validation items."""
        truths = self.gains[number] + self.draw.normal(0, SEED_LUCK, 2)
        return tuple(float(self.answer(truth, N_VALID).mean()) for truth in truths)


def test_simulated_studies_are_judged_as_the_truth_is():
    holds, gain_holds, false, n_null = [], [], 0, 0
    selection_bias, test_bias, shrinkage = [], [], []
    for seed in range(N_STUDIES):
        made = Simulation(seed)
        valid = [made.answer(truth, N_VALID) for truth in made.truths]
        best = sorted(range(N_TRIALS), key=lambda i: -valid[i].mean())[:3]
        confirmed = ranked(Confirmation(i, valid[i].mean(), made.again(i)) for i in best)
        winner = confirmed[0].trial_number
        test = made.answer(made.truths[winner], N_TEST)
        base = Candidate("base", made.answer(0.0, N_VALID), made.answer(0.0, N_TEST))
        trials = [
            Candidate(f"trial {i}", valid[i], test if i == winner else None)
            for i in range(N_TRIALS)
        ]
        found = judge(trials, [base], winner=f"trial {winner}")
        gain = found.baselines[0].gain
        gain_holds.append(gain.low <= made.truths[winner] <= gain.high)
        for number in range(4):
            own = mean_interval(valid[number])
            holds.append(own.low <= BASE + made.truths[number] <= own.high)
        if made.truths[winner] <= 0:
            n_null += 1
            false += found.ships
        selection_bias.append(valid[best[0]].mean() - (BASE + made.truths[best[0]]))
        test_bias.append(test.mean() - (BASE + made.truths[winner]))
        first = next(each for each in confirmed if each.trial_number == best[0])
        shrinkage.append(first.selected - first.mean)
    assert 0.93 <= np.mean(holds) <= 0.97
    assert 0.93 <= np.mean(gain_holds) <= 0.97
    assert n_null > 100
    assert false / n_null <= 0.05
    assert np.mean(selection_bias) > 0.005  # or there would be nothing to correct
    assert abs(np.mean(test_bias)) < np.mean(selection_bias) / 4
    assert np.mean(shrinkage) > np.mean(selection_bias)  # luck with the items, and with the seed


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0.27, 0.35, "+0.31 (95 % 0.27 to 0.35)"),
        (0.303, 0.317, "+0.310 (95 % 0.303 to 0.317)"),
        (0.01, math.inf, "+0.310 (95 % at least 0.010)"),
        (-math.inf, math.inf, "+0.310 (95 % not known)"),
    ],
)
def test_gain_is_said_with_its_interval(low, high, text):
    assert gain_text(Interval(0.31, low, high, 0.95)) == text


def test_value_of_a_choice_is_compared_by_the_best_trial_of_each():
    random = np.random.default_rng(0)
    best = random.normal(0.6, 0.1, 40)
    near, far = best + random.normal(0, 0.05, 40), best - random.normal(0.2, 0.05, 40)

    def trial(number, scores, accum):
        return Candidate(f"trial {number}", scores, choices={"grad_accumulation_steps": accum})

    near -= near.mean() - best.mean() + 0.001
    trials = [trial(0, best, 1), trial(1, near, 4), trial(2, far, 16), trial(3, far - 0.1, 4)]
    *_, said = judge(trials, []).sentences
    assert re.fullmatch(
        r"accum: 1 is better than 16, \+0\.20 \(95 % 0\.1\d to 0\.2\d\); it is not told apart from "
        r"4, \+0\.00 \(95 % -0\.0\d to 0\.0\d\); by the best trial of each\.",
        said,
    ), said
    assert not any("by the best trial" in each for each in judge(trials[1::2], []).sentences)
