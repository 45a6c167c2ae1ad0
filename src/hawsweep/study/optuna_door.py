"""The only file that touches what Optuna keeps private; each function says why it must."""

from collections.abc import Mapping

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudySummary
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial


def storage_of(study: optuna.Study) -> BaseStorage:
    """The storage that a study reads and writes.

    Optuna gives a study's storage to no one: it holds another one than the ``RDBStorage`` it was
    opened with, a cache of the trials that ended.
    """
    return study._storage


def study_id(study: optuna.Study | StudySummary | FrozenStudy) -> int:
    """The id by which a storage's own methods know a study, and optuna-dashboard's addresses.

    In public a study has its name only.
    """
    return study._study_id


def trial_id(trial: FrozenTrial | optuna.Trial) -> int:
    """The id by which a storage's own methods know a trial, among those of all studies.

    In public a trial has its number only, which is of its study.
    """
    return trial._trial_id


def trial_to_run(study: optuna.Study, number: int) -> optuna.Trial:
    """A trial as the process that runs it needs it: it may report, and ask whether to prune.

    Optuna gives one to the process that called ``Study.ask`` alone.
    """
    of_study = storage_of(study).get_trial_id_from_study_id_trial_number
    return optuna.Trial(study, of_study(study_id(study), number))


def suggest(trial: optuna.Trial, space: Mapping[str, BaseDistribution]) -> None:
    """Give a trial its settings: those it was queued with, else what the sampler proposes.

    ``Study.ask`` does it only for the trial that it chooses itself: the first of those that wait.
    """
    for name, distribution in space.items():
        trial._suggest(name, distribution)
