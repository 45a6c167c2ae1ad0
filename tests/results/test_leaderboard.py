"""The leaderboard while trials end."""

import optuna

from hawsweep.results import leaderboard as leaderboard_module
from hawsweep.results.leaderboard import leaderboard


def test_a_trial_that_ends_on_another_machine_while_it_is_made(monkeypatch):
    study = optuna.create_study(direction="maximize")

    def end_meanwhile(_):
        study.add_trial(optuna.trial.create_trial(value=0.5))
        return []

    monkeypatch.setattr(leaderboard_module, "baselines", end_meanwhile)
    assert leaderboard(study) == []
    assert [(row.label, row.score) for row in leaderboard(study)] == [("0", 0.5)]
