"""A study made up in memory, whose score follows its learning rate, for pictures and reports."""

import warnings

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

SPACE = {
    "learning_rate": FloatDistribution(1e-5, 2e-3, log=True),
    "lora_parameters.rank": CategoricalDistribution([4, 8, 16, 32]),
    "optimizer": CategoricalDistribution(["adam", "muon"]),
    "iters": IntDistribution(60, 140, step=40),
}
BASE = {"val_loss": 3.7, "score": 0.11, "low": 0.07, "high": 0.15, "similarity": 0.11}
STEPS = range(20, 101, 20)


def make_study(n_complete, n_pruned=0, *, has_plan=True, has_base=True):
    study = optuna.create_study(direction="maximize")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names(["semantic similarity"])
    if has_base:
        study.set_user_attr("base", BASE)
    for number in range(n_complete + n_pruned):
        study.add_trial(make_trial(number, number < n_complete, has_plan))
    return study


def make_trial(number, is_complete, has_plan=True, **attributes):
    rate = float(10 ** np.random.default_rng(number).uniform(-5, -2.7))
    loss = 3.5 - (np.log10(rate) + 5)
    score = float(0.9 - 0.2 * loss)
    known = {
        "val_loss": loss,
        "low": score - 0.06,
        "high": score + 0.05,
        "similarity": score,
        "peak_memory_bytes": 1_100_000_000 + 10_000_000 * number,
        "plan": {"peak_bytes": 1_122_000_000 + 10_000_000 * number} if has_plan else None,
    }
    return create_trial(
        state=TrialState.COMPLETE if is_complete else TrialState.PRUNED,
        value=score if is_complete else None,
        params={
            "learning_rate": rate,
            "lora_parameters.rank": [4, 8, 16, 32][number % 4],
            "optimizer": ["adam", "muon"][number % 2],
            "iters": [60, 100, 140][number % 3],
        },
        distributions=SPACE,
        intermediate_values={
            step: -(3.7 + (loss - 3.7) * step / 100)
            for step in (STEPS if is_complete else STEPS[:2])
        },
        user_attrs={**known, **attributes},
    )
