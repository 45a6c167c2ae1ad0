"""The only file that uses private parts of Optuna; each function gives the reason."""

import copy
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudySummary
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

# What Optuna's cache calls of an ``RDBStorage`` where its own callers call a public method.
CALLED_BY_CACHE = ("_create_new_trial", "_get_best_trial_id", "_get_trials", "_set_trial_param")


def storage_of(study: optuna.Study) -> BaseStorage:
    """The storage that a study reads and writes.

    Optuna has no public access to it: a study holds not the ``RDBStorage`` it was opened with, but
    a cache of ended trials around it.
    """
    return study._storage


@contextmanager
def read_once(*studies: optuna.Study) -> Iterator[None]:
    """Read the trials and user attributes of studies at most once in the block, or once after each
    change that it makes: what is asked of them several times is as it was at one moment.

    A study has no public way to another storage.
    """
    before = [study._storage for study in studies]
    once: list[Any] = [_ReadOnce(storage) for storage in before]
    for study, reads in zip(studies, once, strict=True):
        study._storage = reads
    try:
        yield
    finally:
        for study, storage, reads in zip(studies, before, once, strict=True):
            study._storage = storage
            reads.close()


class _ReadOnce:
    """A storage that keeps what it has read until something is written through it."""

    def __init__(self, storage: BaseStorage) -> None:
        self._storage, self._is_open = storage, True
        self._known: dict[tuple[str, int], Any] = {}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        trials = self._read("get_all_trials", study_id, deepcopy=False)
        found = [each for each in trials if states is None or each.state in states]
        return copy.deepcopy(found) if deepcopy else found

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        attributes: dict[str, Any] = self._read("get_study_user_attrs", study_id)
        return attributes

    def close(self) -> None:
        self._is_open = False
        self._known.clear()

    def _read(self, name: str, study_id: int, **how: Any) -> Any:
        if (name, study_id) in self._known:
            return self._known[name, study_id]
        answer = getattr(self._storage, name)(study_id, **how)
        if self._is_open:
            self._known[name, study_id] = answer
        return answer

    def __getattr__(self, name: str) -> Any:
        if not name.startswith(("get_", "set_study_system_attr")):  # which none of what is kept has
            self._known.clear()
        return getattr(self._storage, name)


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
