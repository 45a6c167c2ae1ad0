"""The trials of a study: a trial by its number, the best, the number of finished ones; and the
number of records to test one on.
"""

from collections.abc import Sequence

import optuna
from optuna.trial import FrozenTrial, TrialState

from hawsweep.errors import StudyError
from hawsweep.study.attributes import INFEASIBLE, SPEC


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
    searched = study.user_attrs.get(SPEC, {}).get("search", {})
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return [trial for trial in complete if trial.params.keys() >= searched.keys()]


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """The complete trial with the highest value; of equal ones the earliest."""
    return max(complete_trials(study), key=lambda t: (t.value, -t.number), default=None)


def count_finished(study: optuna.Study) -> int:
    """The number of trials with a result: complete, or pruned for another reason than memory."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    return sum(not trial.user_attrs.get(INFEASIBLE) for trial in trials)


def n_test_records(study: optuna.Study) -> int:
    """Records of the test split; a split's fingerprint begins with their number."""
    prints = study.user_attrs.get(SPEC, {}).get("fingerprints", {})
    n_records, _, _ = str(prints.get("test", "0:")).partition(":")
    return int(n_records) if n_records.isdecimal() else 0
