"""Which settings moved the score of a made-up study, and what its validation loss was worth."""

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution

from hawsweep.results.importance import FEWEST_TRIALS, find_insight
from hawsweep.views.terminal.verdict import insight_picture

SPACE = {
    "learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
    "lora_parameters.rank": CategoricalDistribution([4, 8, 16]),
    "optimizer": CategoricalDistribution(["adam"]),
}


def study_of(n, *, loss_noise=0.0, n_pruned=0):
    """The score follows the learning rate alone; validation loss follows the score."""
    generator = np.random.default_rng(0)
    study = optuna.create_study(direction="maximize")
    for i in range(n + n_pruned):
        rate = float(10 ** generator.uniform(-5, -2))
        score = 0.5 - 0.1 * abs(np.log10(rate) + 3)
        params = {"learning_rate": rate, "lora_parameters.rank": [4, 8, 16][i % 3]}
        study.add_trial(
            optuna.trial.create_trial(
                params={**params, "optimizer": "adam"},
                distributions=SPACE,
                value=score if i < n else None,
                state=optuna.trial.TrialState.COMPLETE if i < n else optuna.trial.TrialState.PRUNED,
                user_attrs={"val_loss": 2 - score + loss_noise * generator.normal()},
            )
        )
    return study


def test_what_moves_the_score_is_the_most_important():
    found = find_insight(study_of(40, n_pruned=5))
    assert found.n_trials == 40
    assert list(found.importance) == ["learning_rate", "lora_parameters.rank"]
    assert found.importance["learning_rate"] > 0.8
    assert found.agreement == pytest.approx(1)


def test_marginals_are_of_all_trials_in_parts():
    found = find_insight(study_of(30))
    assert "optimizer" not in found.marginals  # it never varied
    rates = found.marginals["learning_rate"]
    assert [part.n_trials for part in rates] == [10, 10, 10]
    assert all(" to " in part.part for part in rates)
    assert max(rates, key=lambda part: part.mean) is rates[1] or rates[2].mean > rates[0].mean
    ranks = found.marginals["lora_parameters.rank"]
    assert [part.part for part in ranks] == ["4", "8", "16"]
    assert sum(part.n_trials * part.mean for part in ranks) == pytest.approx(
        sum(part.n_trials * part.mean for part in rates)
    )
    assert all(part.best >= part.mean for part in (*rates, *ranks))


def shown(study):
    from rich.console import Console

    console = Console(width=120, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(insight_picture(find_insight(study)))
    return captured.get()


def test_low_correlation_of_loss_and_score_is_warned_of():
    assert find_insight(study_of(30, loss_noise=2.0)).agreement < 0.5
    assert "poor guide" in shown(study_of(30, loss_noise=2.0))
    assert "poor guide" not in shown(study_of(30))


def test_few_trials_are_said_to_be_few():
    text = shown(study_of(FEWEST_TRIALS - 1))
    assert f"Importance needs {FEWEST_TRIALS} complete trials; there are 7" in text
    assert find_insight(study_of(2)).agreement is None
    empty = shown(study_of(0))
    assert "there are 0" in empty
    assert "Too few trials" in empty
