"""Which worker has a trial, where workers die, are interrupted, or ask at once."""

import json
import subprocess
import sys
from contextlib import suppress

import pytest
from asked_trial import next_trial
from optuna.trial import TrialState

from hawsweep.machine.processes import identity
from hawsweep.results.leaderboard import trial_row
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.study.faults import GONE, Fault
from hawsweep.study.optuna_door import storage_of, trial_id
from hawsweep.study.queue import end_failed, end_needless, pause, reap_running, repeat_trial
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study
from hawsweep.study.trials import count_begun, count_finished, state_of

SPEC = check_sweep(
    {
        "model": "some/model",
        "data": "phrasebook",
        "search": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
        "sampler": {"name": "tpe", "n_startup_trials": 2},
    },
    "a sweep",
)


@pytest.fixture
def study(place):
    return create_study(open_storage(place, create=True), place, "rates", SPEC, {})[0]


def dead_pid():
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_trials_of_dead_processes_here_are_reaped_with_the_reason(study):
    owners = [
        {**identity(), "pid": dead_pid()},
        identity(),
        {"host": "another machine", "pid": dead_pid()},
        None,
    ]
    for owner in owners:
        trial = study.ask()
        if owner is not None:
            trial.set_user_attr("worker", owner)
    assert list(reap_running(study, Fault("bug", "it fell over"))) == [0]
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.FAIL, *[TrialState.RUNNING] * 3]
    assert study.trials[0].user_attrs["reason"] == "it fell over"


def test_trials_from_before_the_last_boot_are_reaped_whatever_has_their_number_now(study):
    study.ask().set_user_attr("worker", {**identity(), "boot": "another"})
    study.ask().set_user_attr("worker", {**identity(), "started": 1.0})
    study.ask().set_user_attr("worker", identity())
    assert list(reap_running(study, GONE)) == [0, 1]


def test_trial_with_bad_luck_comes_once_more_after_another_began(study, tmp_path):
    space = distributions(SPEC.search)
    unlucky = next_trial(study, space, tmp_path, n_trials=9)
    killed = Fault("killed", "it was ended from outside")
    (ending,) = reap_running(study, killed, identity()).values()
    assert ending.state == "fail"
    assert ending.reason == "it was ended from outside; tried once more"
    assert next_trial(study, space, tmp_path, n_trials=9).number == 2  # another one first
    again = next_trial(study, space, tmp_path, n_trials=9)
    assert (again.number, again.params) == (1, unlucky.params)
    assert again.user_attrs["retried_after"] == "killed"
    endings = reap_running(study, killed, identity())
    assert endings[1].reason == "it was ended from outside; not tried again"
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert [trial.user_attrs["repeats"] for trial in waiting] == [2]


def test_trial_with_bad_luck_is_the_last_where_nothing_is_left_to_come_before(study, tmp_path):
    space = distributions(SPEC.search)
    next_trial(study, space, tmp_path, n_trials=1)
    reap_running(study, Fault("hung", "silent"), identity())
    assert next_trial(study, space, tmp_path, n_trials=1).number == 1


def test_trial_that_no_plan_could_shrink_is_known_not_to_fit(study):
    study.ask().set_user_attr("worker", identity())
    (ending,) = reap_running(study, Fault("out_of_memory", "no memory"), identity()).values()
    assert ending.state == "infeasible"
    (trial,) = study.get_trials()
    assert trial.state == TrialState.PRUNED
    assert trial.system_attrs["constraints:memory"] > 0
    assert trial.user_attrs["fault"] == "out_of_memory"
    assert count_finished(study) == 0


def test_ending_a_trial_that_somebody_marked_meanwhile_changes_nothing(study):
    trial = study.ask()
    study.tell(trial, state=TrialState.FAIL)
    assert end_failed(study, trial.number, GONE) is None
    assert [each.state for each in study.trials] == [TrialState.FAIL]  # nor is it tried again
    assert "reason" not in study.trials[0].user_attrs


def test_trials_of_one_worker_are_reaped_alive_or_not(study):
    study.ask().set_user_attr("worker", identity())
    study.ask().set_user_attr("worker", {**identity(), "pid": dead_pid()})
    ended = study.ask()
    ended.set_user_attr("worker", identity())
    study.tell(ended, 0.5)
    assert list(reap_running(study, GONE, identity())) == [0]
    assert study.trials[2].state == TrialState.COMPLETE


def test_interrupted_trial_goes_on_under_its_number_before_the_queue(study, tmp_path):
    space = distributions(SPEC.search)
    study.enqueue_trial({"learning_rate": 5e-4})
    first = study.ask(space)
    study.enqueue_trial({"learning_rate": 2e-4})
    first.set_user_attr("worker", {**identity(), "pid": 2**22 + 1})
    [ending] = reap_running(study, GONE).values()
    assert ending.state == state_of(study.trials[0]) == "paused"
    assert ending.reason == "its worker is gone; it goes on at the next start"
    assert trial_row(study.trials[0]).reason == "interrupted"
    assert count_begun(study.trials) == 1
    again = next_trial(study, space, tmp_path)
    assert (again.number, again.params) == (0, {"learning_rate": 5e-4})
    assert again.user_attrs["interrupted"] is False
    assert next_trial(study, space, tmp_path).params == {"learning_rate": 2e-4}


def test_trial_that_another_worker_has_by_now_is_not_ended(study):
    study.ask().set_user_attr("worker", {**identity(), "pid": dead_pid()})
    trial = study.trials[0]
    before = trial.user_attrs["worker"]
    storage_of(study).set_trial_user_attr(trial_id(trial), "worker", identity())
    assert end_failed(study, 0, GONE, before) is None
    assert study.trials[0].state == TrialState.RUNNING


SILENT = Fault("silent", "studio-2 was not heard of for 2 min")


@pytest.fixture
def strike(study, monkeypatch):
    """Do something just before a write of ``end_failed``, as another machine would."""
    storage = storage_of(study)

    def before(name, do):
        real = getattr(storage, name)

        def write(*arguments, **named):
            monkeypatch.setattr(storage, name, real)
            do()
            return real(*arguments, **named)

        monkeypatch.setattr(storage, name, write)

    return before


def test_result_that_comes_while_its_trial_is_given_up_stands(study, tmp_path, strike):
    space = distributions(SPEC.search)
    first = next_trial(study, space, tmp_path)
    strike("set_trial_state_values", lambda: study.tell(first.number, 0.5))
    assert end_failed(study, first.number, SILENT) is None
    assert trial_row(study.trials[0]).state == "complete"
    assert trial_row(study.trials[0]).reason is None
    assert "reason" in study.trials[0].user_attrs  # of a finished trial it stays
    end_needless(study)
    assert [state_of(trial) for trial in study.trials] == ["complete", "fail"]
    assert study.trials[1].user_attrs["reason"] == "trial 0 went on after all"
    assert (count_begun(study.trials), count_finished(study)) == (1, 1)


def test_retry_that_went_needless_is_not_run_after_another_fault(study, tmp_path):
    space = distributions(SPEC.search)
    first = next_trial(study, space, tmp_path)
    repeat_trial(study, first.number)  # by one that dies before it ends the trial
    first.report(0.9, 20)
    pause(study, first.number)
    end_needless(study)
    storage_of(study).set_trial_state_values(trial_id(study.trials[0]), TrialState.RUNNING)
    ending = end_failed(study, first.number, Fault("bug", "it fell over"))
    assert ending.reason == "it fell over"
    assert [trial.state for trial in study.trials] == [TrialState.FAIL] * 2


def test_setting_is_not_lost_where_its_trial_pauses_while_it_is_given_up(study, tmp_path, strike):
    space = distributions(SPEC.search)
    first = next_trial(study, space, tmp_path)

    def pauses():
        first.report(0.9, 20)
        pause(study, first.number)
        end_needless(study)  # as another machine does that asks now
        assert study.trials[1].state == TrialState.FAIL

    strike("set_trial_state_values", pauses)
    assert end_failed(study, first.number, SILENT).reason.endswith("its settings are tried again")
    assert study.trials[0].state == TrialState.FAIL
    again = next_trial(study, space, tmp_path)
    assert (again.params, again.user_attrs["repeats"]) == (first.params, 0)
    assert "reason" not in again.user_attrs


def test_of_two_retries_of_one_trial_one_runs(study, tmp_path, strike):
    space = distributions(SPEC.search)
    first = next_trial(study, space, tmp_path)
    # Another one gives it up, too, after this one has looked whether a retry waits.
    strike("create_new_trial", lambda: repeat_trial(study, first.number))
    end_failed(study, first.number, SILENT)
    waiting = study.get_trials(states=(TrialState.WAITING,))
    assert [trial.user_attrs["repeats"] for trial in waiting] == [0, 0]
    assert next_trial(study, space, tmp_path).number == 1
    assert next_trial(study, space, tmp_path).number == 3
    assert study.trials[2].user_attrs["reason"] == "trial 1 repeats trial 0, too"


def test_retry_that_has_ended_is_not_queued_again_by_a_late_one(study, tmp_path):
    space = distributions(SPEC.search)
    first = next_trial(study, space, tmp_path)
    end_failed(study, first.number, SILENT)
    again = next_trial(study, space, tmp_path)
    study.tell(again.number, 0.5)
    repeat_trial(study, first.number)  # by one that saw the first trial run
    assert len(study.trials) == 2


N_ASKERS, N_EACH = 4, 20
ASKER = """
import json, sys
from pathlib import Path
from hawsweep.study.place import Place
from hawsweep.study.study import load_study, spec_of
from hawsweep.study.storage import open_storage
from functools import partial
from hawsweep.search.distributions import distributions
from hawsweep.search.sampler import make_sampler
from hawsweep.study.queue import ask
place, worker, n_each = Place(Path(sys.argv[1])), {"pid": int(sys.argv[2])}, int(sys.argv[3])
study = load_study(open_storage(place), "rates")
spec = spec_of(study)
make, space = partial(make_sampler, spec), distributions(spec.search)
asked = study, make, space, place.study_dir("rates"), worker
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps([ask(*asked) for _ in range(n_each)]), flush=True)
"""


@pytest.fixture
def asked_at_once(study, place):
    """What processes that ask at once are given, by their number; the study has a queue."""

    def ask(n_queued):
        for _ in range(n_queued):
            study.enqueue_trial({"learning_rate": 2e-4})
        command = [sys.executable, "-c", ASKER, str(place.studies_dir)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        askers = [
            subprocess.Popen([*command, str(number), str(N_EACH)], **pipes)
            for number in range(N_ASKERS)
        ]
        for asker in askers:
            assert asker.stdout.readline() == "ready\n"
        for asker in askers:
            asker.stdin.write("go\n")
            asker.stdin.flush()
        return [json.loads(asker.communicate()[0]) for asker in askers]

    return ask


@pytest.mark.parametrize("n_queued", [N_ASKERS * N_EACH, N_EACH])
def test_trial_is_one_workers_where_several_ask_at_once(study, asked_at_once, n_queued):
    given = asked_at_once(n_queued)
    n_trials = N_ASKERS * N_EACH
    assert sorted(number for numbers in given for number in numbers) == list(range(n_trials))
    asked_by = {number: worker for worker, numbers in enumerate(given) for number in numbers}
    trials = study.get_trials()
    assert {trial.number: trial.user_attrs["worker"]["pid"] for trial in trials} == asked_by
    assert {trial.state for trial in trials} == {TrialState.RUNNING}
    proposed = [trial.params["learning_rate"] for trial in trials[n_queued:]]
    assert len(set(proposed)) == len(proposed)  # each by a sampler that knew the one before


class AskerDiedError(Exception):
    """Stands for the end of the process that asks."""


STEPS = ("set_trial_user_attr", "set_trial_state_values", "create_new_trial", "set_trial_param")


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("n_queued", [0, 1])
def test_trial_whose_asker_dies_at_any_step_is_given_again(
    study, tmp_path, monkeypatch, step, is_done, n_queued
):
    space = distributions(SPEC.search)
    for _ in range(n_queued):
        study.enqueue_trial({"learning_rate": 2e-4})
    worker = {**identity(), "pid": dead_pid()}  # ends with the one that asks
    storage = storage_of(study)
    real = getattr(storage, step)

    def dies(*arguments):
        if is_done:
            real(*arguments)
        raise AskerDiedError

    with monkeypatch.context() as patch, suppress(AskerDiedError):
        patch.setattr(storage, step, dies)
        next_trial(study, space, tmp_path, worker)
    reap_running(study, GONE)
    again = next_trial(study, space, tmp_path)
    assert again.user_attrs["worker"] == identity()
    if n_queued:
        assert again.params == {"learning_rate": 2e-4}
    running = study.get_trials(states=(TrialState.RUNNING,))
    assert [trial.number for trial in running] == [again.number]


def test_trial_that_another_machine_took_or_ended_is_not_given(study, tmp_path, monkeypatch):
    space = distributions(SPEC.search)
    for _ in range(3):
        study.enqueue_trial({"learning_rate": 2e-4})
    stale = study.get_trials()
    study.ask(space)
    storage_of(study).set_trial_state_values(trial_id(stale[1]), TrialState.FAIL)
    monkeypatch.setattr(study, "get_trials", lambda **_: stale)
    assert next_trial(study, space, tmp_path).number == 2
