"""The validation losses of a trial, as Optuna keeps them, and how much they fluctuate.

Evaluations of a run at a constant rate fluctuate from one to the next, by 1 to 5 % with SmolLM2 on
the phrase book at rates from 2e-4 to 1.6e-3: trials are compared by means of two.
"""

import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np
from optuna.trial import FrozenTrial

_AVERAGED = 2
# The evaluations that show how much a run fluctuates: the last ones, as it falls steeply before.
_LATE = 8
# The gain in a doubling that is taken where the first half was not evaluated.
_UNKNOWN_GAIN = 0.02


def lowest_so_far(trial: FrozenTrial) -> dict[int, float]:
    """The lowest geometric mean of two evaluations in a row, until each evaluation, by iteration;
    the first stands alone. Infinite before a finite one.
    """
    logs: list[float] = []
    lowest, found = math.inf, {}
    for step, loss in _losses(trial):
        logs.append(math.log(loss) if 0 < loss < math.inf else math.inf)
        lowest = min(lowest, math.exp(statistics.fmean(logs[-_AVERAGED:])))
        found[step] = lowest
    return found


def mean_curve(curves: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The geometric mean of curves with the same iterations."""
    return {
        step: math.prod(curve[step] for curve in curves) ** (1 / len(curves)) for step in curves[0]
    }


def value_at(curve: Mapping[int, float], step: int) -> float | None:
    """A curve's last value until a step; None before its first."""
    return next((curve[each] for each in sorted(curve, reverse=True) if each <= step), None)


def fluctuation(trials: Sequence[FrozenTrial]) -> float:
    """The standard deviation of an evaluation around its neighbours, as a share of the loss: the
    median of the trials; 0 where none has three evaluations.
    """
    found = []
    for trial in trials:
        losses = [loss for _, loss in _losses(trial) if 0 < loss < math.inf][-_LATE:]
        bends = np.diff(np.log(losses), 2)
        if len(bends):
            # Of independent errors a second difference has six times the variance.
            found.append(math.sqrt(float(np.mean(bends**2)) / 6))
    return statistics.median(found) if found else 0.0


def gain_at(curve: Mapping[int, float], step: int) -> float:
    """By which share the loss of ``lowest_so_far`` fell while the iterations doubled until a step;
    .02 where the first half was not evaluated.
    """
    steps = [each for each in sorted(curve) if each <= step]
    n_before = sum(each <= step // 2 for each in steps)
    late, early = len(steps) - 1, n_before - 1
    if early < 0:
        return _UNKNOWN_GAIN
    if late == early:  # it ended before
        return 0.0

    def middle(at: int) -> float:
        """About where the evaluations lie whose mean is the curve's value."""
        return math.sqrt(steps[at] * steps[max(0, at - 1)])

    doublings = math.log2(middle(late) / middle(early))
    return (1 - curve[steps[late]] / curve[steps[early]]) / doublings


def _losses(trial: FrozenTrial) -> list[tuple[int, float]]:
    values = sorted(trial.intermediate_values.items())
    return [(step, math.inf if math.isnan(value) else -value) for step, value in values]
