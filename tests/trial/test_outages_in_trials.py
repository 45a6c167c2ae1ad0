"""A trial whose database does not answer for a while."""

import pytest

from hawsweep.errors import StorageOutageError
from hawsweep.study.optuna_door import storage_of
from hawsweep.study.patience import StorageAwayError
from hawsweep.study.trials import train_of
from hawsweep.training.checkpoints import load_state
from hawsweep.trial import watch


class Outage:
    """The calls of a storage raise in place of an answer between two iterations."""

    def __init__(self, storage, monkeypatch, first, last, fault):
        self.iteration, self.n_lost = 0, 0
        for name in ("set_trial_user_attr", "set_trial_intermediate_value", "get_trial"):
            monkeypatch.setattr(storage, name, self._lossy(getattr(storage, name)))
        self._first, self._last, self._fault = first, last, fault

    def _lossy(self, method):
        def call(*args, **kwargs):
            if self._first <= self.iteration <= self._last:
                self.n_lost += 1
                raise self._fault
            return method(*args, **kwargs)

        return call

    def tell(self, kind, **values):
        if kind == "iteration":
            self.iteration = values["iteration"]


def test_what_a_trial_reports_is_written_when_the_database_answers_again(sweep, monkeypatch):
    monkeypatch.setattr(watch, "_TRY_AGAIN_S", (0.0, 0.0))
    here = sweep()
    whole, _, _ = here.run(iters=12)
    outage = Outage(storage_of(here.study), monkeypatch, 3, 6, StorageAwayError())
    trial, _, metrics = here.run(tell=outage.tell, iters=12, learning_rate=1.1e-3)
    assert outage.n_lost == 3  # at the evaluation of 4, and before the iterations 5 and 6 end
    evals = {each["iteration"]: each["val_loss"] for each in metrics if each["type"] == "eval"}
    assert trial.intermediate_values == {at: -loss for at, loss in evals.items()}
    assert list(trial.intermediate_values) == list(whole.intermediate_values) == [4, 8, 12]
    assert trial.user_attrs.keys() == whole.user_attrs.keys()


def test_after_too_long_the_trial_keeps_its_state(sweep, monkeypatch):
    here = sweep()
    outage = Outage(storage_of(here.study), monkeypatch, 7, 99, StorageOutageError("away"))
    with pytest.raises(StorageOutageError):
        here.run(tell=outage.tell, iters=12)
    outage.iteration = 0
    (trial,) = here.study.get_trials(deepcopy=False)
    state = load_state(here.place.trial_dir("tiny", 0), train_of(here.spec, trial))
    assert state.progress.iteration == 8
