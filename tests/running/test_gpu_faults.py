"""Each text of a GPU's fault through a worker to what follows for study, settings and process."""

import pytest
from gpu_faults import TEXTS
from harness import Lab
from optuna.trial import TrialState

from hawsweep.running import worker as worker_module
from hawsweep.search.distributions import distributions
from hawsweep.study.attributes import MEMORY_FACTOR
from hawsweep.study.optuna_door import storage_of, trial_id

PLAN = {"peak_bytes": 10**9}
# What the settings' repetition has, and by how much later plans leave more room.
FOLLOWS = {
    "watchdog": ({}, 1.0, "its settings are tried again"),
    "gpu": ({"retried_after": "gpu"}, 1.0, "tried once more"),
    "resource_limit": ({"retried_after": "resource_limit"}, 1.0, "tried once more"),
    "out_of_memory": ({"below_bytes": 10**9}, 1.15, "tried once more with a smaller plan"),
}


@pytest.fixture(scope="module")
def worker(tmp_path_factory, tiny_model_dir, chat_data_dir):
    lab = Lab(tmp_path_factory.mktemp("lab"), tiny_model_dir, chat_data_dir)
    return lab.worker(tiny_model_dir)


@pytest.mark.parametrize(("text", "kind"), TEXTS.items())
def test_fault_of_a_gpu_has_its_consequence(worker, monkeypatch, text, kind):
    def fail(_context, trial, *_):
        trial.set_user_attr("plan", PLAN)
        raise RuntimeError(text)

    monkeypatch.setattr(worker_module, "run_trial", fail)
    study = worker._study
    room = study.user_attrs.get(MEMORY_FACTOR, 1.0)
    number = study.ask(distributions(worker.spec.search)).number
    worker.trial(number)

    has, growth, words = FOLLOWS[kind]
    trial, [again] = study.trials[number], study.get_trials(states=(TrialState.WAITING,))
    storage_of(study).set_trial_state_values(trial_id(again), TrialState.FAIL)
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["fault"] == kind
    assert trial.user_attrs["reason"].endswith(f"; {words}")
    assert "infeasible" not in trial.user_attrs
    assert again.system_attrs["fixed_params"] == trial.params
    assert again.user_attrs == {**has, "repeats": number}
    assert study.user_attrs.get(MEMORY_FACTOR, 1.0) / room == pytest.approx(growth)
    assert worker.is_tainted  # a new process goes on
    told = worker._events.getvalue().splitlines()[-1]
    assert f'"fault": "{kind}"' in told
