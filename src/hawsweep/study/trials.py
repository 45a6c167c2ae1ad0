"""The trials of a study: a trial by its number, the best, the number of finished ones."""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import StudyError


def trial_of(study: optuna.Study, number: int) -> FrozenTrial:
    """A trial by its number.

    Raises:
        StudyError: There is no such trial.
    """
    trials: Sequence[FrozenTrial] = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        there = f"it has 0 to {len(trials) - 1}" if trials else "it has none"
        raise StudyError(f"Study {study.study_name!r} has no trial {number}; {there}.")
    return trials[number]


def complete_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Complete trials with all settings of the study's search. Trials of other programs may lack
    some, and could not be trained.
    """
    searched = study.user_attrs.get("spec", {}).get("search", {})
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in complete if trial.params.keys() >= searched.keys()]


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the highest value; of equal ones the earliest."""
    return max(complete_trials(study), key=lambda t: (t.value, -t.number), default=None)


def count_finished(study: optuna.Study) -> int:
    """The number of trials with a result: complete, or pruned for another reason than memory."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return sum(not trial.user_attrs.get("infeasible") for trial in trials)
