"""Each text of a GPU's fault through a worker to what follows for study, settings and process."""

import json
import subprocess
import sys

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


LOADS = """
import json, sys
from hawsweep.errors import ModelError
from hawsweep.running import worker

class Loading(worker.Worker):
    def __init__(self, setting, events):
        self.place, self.waits = None, lambda: None
        self._fault, self._told = setting["fault"], events

    def prepare(self):
        try:
            raise RuntimeError(self._fault)
        except RuntimeError as fault:
            raise ModelError(f"model cannot be loaded as an MLX model: {fault}") from fault

    def tell(self, kind, **values):
        print(kind, file=self._told, flush=True)

worker.Worker = Loading
worker.main()
"""


@pytest.mark.parametrize(
    ("text", "told"), [(next(iter(TEXTS)), ""), ("Missing 3 parameters", "fatal\n")]
)
def test_fault_of_a_gpu_while_weights_are_loaded_costs_the_worker_alone(tmp_path, text, told):
    setting = {"log": str(tmp_path / "log.txt"), "nice": 0, "fault": text}
    done = subprocess.run(
        [sys.executable, "-c", LOADS],
        input=f"{json.dumps(setting)}\n",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert done.stdout == told
    words = (tmp_path / "log.txt").read_text()
    assert (f"RuntimeError: {text}" in words) == (not told)
