"""The only file that uses private parts of Optuna; each function gives the reason."""

from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudySummary
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial

# What Optuna's cache calls of an ``RDBStorage`` where its own callers call a public method.
CALLED_BY_CACHE = ("_create_new_trial", "_get_best_trial_id", "_get_trials", "_set_trial_param")


def storage_of(study: optuna.Study) -> BaseStorage:
    """The storage that a study reads and writes.

    Optuna has no public access to it: a study holds not the ``RDBStorage`` it was opened with, but
    a cache of ended trials around it.
    """
    return study._storage


def study_id(study: optuna.Study | StudySummary | FrozenStudy) -> int:
    """The id of a study in a storage's methods and in optuna-dashboard's addresses.

    The public identity of a study is its name.
    """
    return study._study_id


def trial_id(trial: FrozenTrial | optuna.Trial) -> int:
    """The id of a trial in a storage's methods, unique among all studies.

    The public identity of a trial is its number in its study.
    """
    return trial._trial_id


def trial_to_run(study: optuna.Study, number: int) -> optuna.Trial:
    """A trial object for the process that runs it, which can report and ask whether to prune.

    Optuna gives it only to the process that called ``Study.ask``.
    """
    of_study = storage_of(study).get_trial_id_from_study_id_trial_number
    return optuna.Trial(study, of_study(study_id(study), number))


def suggest(trial: optuna.Trial, space: Mapping[str, BaseDistribution]) -> None:
    """Give a trial its settings: the queued ones, else the sampler's proposal.

    ``Study.ask`` does it only for the first waiting trial.
    """
    for name, distribution in space.items():
        trial._suggest(name, distribution)
