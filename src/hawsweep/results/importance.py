"""Importance: which settings changed the score, and how well validation loss predicts it."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import FrozenTrial, TrialState

from hawsweep.scoring.intervals import rank_correlation
from hawsweep.study.attributes import TARGETS_PER_BYTE, VAL_LOSS

# With fewer trials importance is noise.
FEWEST_TRIALS = 8
# Parts of a number's range, with equally many trials each.
_N_PARTS = 3
# Below this correlation a validation loss is a poor guide to the score.
LOW_AGREEMENT = 0.5


@dataclass(frozen=True)
class Marginal:
    """The trials with a parameter in one part of its range.

    Attributes:
        part: A choice, or ``low to high`` of the trials' values.
        mean: Their mean score.
    """

    part: str
    n_trials: int
    mean: float
    best: float


@dataclass(frozen=True)
class Insight:
    """The importance of settings and of validation loss.

    Attributes:
        n_trials: Complete trials, which alone have a score.
        importance: Each parameter's share by PED-ANOVA (Watanabe, Bansal and Hutter 2023), largest
            first; empty for fewer than ``FEWEST_TRIALS`` trials, or equal scores.
        marginals: Each parameter's parts.
        agreement: Spearman's correlation of minus validation loss with score; None for fewer than
            three trials.
    """

    n_trials: int
    importance: dict[str, float]
    marginals: dict[str, list[Marginal]]
    agreement: float | None


def find_insight(study: optuna.Study) -> Insight:
    """The insight from the complete trials."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    names = _varied(trials)
    shares: Mapping[str, float] = {}
    if len(trials) >= FEWEST_TRIALS and names and len({trial.value for trial in trials}) > 1:
        shares = optuna.importance.get_param_importances(
            study, evaluator=evaluator_of(len(trials)), params=names
        )
    losses = [trial for trial in trials if VAL_LOSS in trial.user_attrs]
    return Insight(
        len(trials),
        dict(sorted(shares.items(), key=lambda item: -item[1])),
        {name: _marginals(trials, name) for name in names},
        rank_correlation(
            [-_comparable_loss(trial) for trial in losses], [_score(t) for t in losses]
        ),
    )


def no_importance(insight: Insight) -> str:
    """Why no importance is known, in a sentence."""
    if insight.n_trials < FEWEST_TRIALS:
        return f"Importance needs {FEWEST_TRIALS} complete trials; there are {insight.n_trials}."
    return "All trials score the same." if insight.marginals else "No parameter varied."


def evaluator_of(n_trials: int) -> "optuna.importance.PedAnovaImportanceEvaluator":
    """PED-ANOVA by the best tenth of so many trials, and at least five."""
    best = min(0.5, max(0.1, 5 / n_trials))
    return optuna.importance.PedAnovaImportanceEvaluator(target_quantile=best)


def _comparable_loss(trial: FrozenTrial) -> float:
    """Validation losses: per byte for several models, whose tokens differ; else per token."""
    values = trial.user_attrs
    return float(values[VAL_LOSS] * values.get(TARGETS_PER_BYTE, 1.0))


def _varied(trials: list[FrozenTrial]) -> list[str]:
    values: defaultdict[str, set[Any]] = defaultdict(set)
    for trial in trials:
        for name, value in trial.params.items():
            values[name].add(value)
    return [name for name, seen in values.items() if len(seen) > 1]


def _marginals(trials: list[FrozenTrial], name: str) -> list[Marginal]:
    having = sorted((t for t in trials if name in t.params), key=lambda t: _order(t.params[name]))
    values = [trial.params[name] for trial in having]
    is_choice = isinstance(having[0].distributions[name], CategoricalDistribution)
    if is_choice or len(set(values)) <= _N_PARTS:
        parts = [[t for t in having if t.params[name] == value] for value in dict.fromkeys(values)]
    else:
        indices = np.array_split(np.arange(len(having)), _N_PARTS)
        parts = [[having[i] for i in part] for part in indices if len(part)]
    return [_marginal(part, name) for part in parts]


def _marginal(part: list[FrozenTrial], name: str) -> Marginal:
    low, high = part[0].params[name], part[-1].params[name]
    scores = [_score(trial) for trial in part]
    text = _text(low) if low == high else f"{_text(low)} to {_text(high)}"
    return Marginal(text, len(part), float(np.mean(scores)), max(scores))


def _order(value: Any) -> tuple[bool, Any]:
    return (isinstance(value, str), value)


def _text(value: Any) -> str:
    return f"{value:.2e}" if isinstance(value, float) and abs(value) < 0.01 else f"{value}"


def _score(trial: FrozenTrial) -> float:
    assert trial.value is not None
    return trial.value
