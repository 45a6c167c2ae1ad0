"""The validation losses of a trial, as Optuna keeps them: a trial's result is its best one."""

import math
from collections.abc import Mapping

from optuna.trial import FrozenTrial


def lowest_so_far(trial: FrozenTrial) -> dict[int, float]:
    """The lowest loss until each evaluation, by iteration; infinite before a finite one."""
    lowest, found = math.inf, {}
    for step, value in sorted(trial.intermediate_values.items()):
        lowest = min(lowest, math.inf if math.isnan(value) else -value)
        found[step] = lowest
    return found


def value_at(curve: Mapping[int, float], step: int) -> float | None:
    """A curve's last value until a step; None before its first."""
    return next((curve[each] for each in sorted(curve, reverse=True) if each <= step), None)
