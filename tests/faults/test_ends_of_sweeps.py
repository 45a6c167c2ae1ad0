"""Sweeps are killed, stopped, and started twice; what finished stays."""

import random
import signal
import time

import psutil
import pytest
from harness import count, kill, wait_until
from optuna.trial import TrialState

from hawsweep.machine.processes import supervisor_of
from hawsweep.study.place import Place
from hawsweep.study.trials import state_of


def test_sweep_is_interrupted_while_its_first_worker_imports(lab):
    here = lab(trials=1)
    with here.start(warm=False) as run:
        run.next(("study",))
        wait_until(lambda: psutil.Process(run.process.pid).children())
        kill(run.process.pid, signal.SIGINT)
        assert run.wait() == 0
    assert run.events[-1]["how"] == "interrupted"
    here.finish()
    here.check(1)


@pytest.mark.parametrize("seed", range(8))
def test_supervisor_is_killed_and_started_again(lab, seed):
    here, generator = lab(trials=6), random.Random(seed)
    with here.start() as run:
        n_before = generator.randint(1, 3)
        seen = 0
        for _ in range(n_before):
            _, seen = run.next(("trial_start",), seen)
        time.sleep(generator.uniform(0, 0.5))
        workers = run.workers()
        assert kill(run.process.pid, signal.SIGKILL)
        count("supervisor killed")
        run.wait()
        if generator.random() < 0.5:  # as when the power goes
            for pid in workers.values():
                kill(pid, signal.SIGKILL)
    before = here.finished()
    here.finish()
    here.check(6)
    after = here.finished()
    assert {number: after[number] for number in before} == before
    assert not [t for t in here.trials() if t.state == TrialState.WAITING]


def test_workers_whose_supervisor_is_gone_end(lab):
    here = lab(trials=2, search={"iters": {"choices": [400]}})
    with here.start() as run:
        run.next(("eval",))
        pid = run.workers()[0]
        assert kill(run.process.pid, signal.SIGKILL)
        count("supervisor killed")
        run.wait()
    wait_until(lambda: not psutil.pid_exists(pid))
    assert state_of(here.trials()[0]) == "paused"


def test_second_start_of_a_study_is_refused_and_harms_nothing(lab):
    here = lab(trials=3, search={"iters": {"choices": [200]}})
    with here.start() as run:
        run.next(("trial_start",))
        for _ in range(2):
            with here.start() as second:
                assert second.wait() == 1
            count("second supervisor")
            assert second.error["error"] == "StudyBusyError"
            assert f"process {run.process.pid}" in second.error["message"]
        assert run.wait() == 0
    here.check(3)
    assert len(here.trials()) == 3


def test_second_start_that_joins_shares_the_trials(lab):
    here = lab(trials=8, search={"iters": {"choices": [200]}})
    with here.start() as run:
        run.next(("trial_start",))
        with here.start("join") as second:
            count("second supervisor")
            assert second.wait() == 0
        assert run.wait() == 0
    here.check(8)
    by_both = [
        {e["values"]["number"] for e in each.events if e["kind"] == "trial_end"}
        for each in (run, second)
    ]
    assert all(by_both)
    assert not by_both[0] & by_both[1]
    assert here.study.user_attrs["test"]["n_opened"] == 1


def test_joining_workers_that_are_killed_leave_nothing_running(lab):
    here = lab(trials=5, search={"iters": {"choices": [200]}})
    with here.start() as run:
        run.next(("trial_start",))
        with here.start("join") as second:
            second.next(("eval",))
            workers = second.workers()
            for pid in (second.process.pid, *workers.values()):
                kill(pid, signal.SIGKILL)
            count("supervisor killed")
        assert run.wait() == 0
    here.check(5)


@pytest.mark.parametrize("n_times", [1, 2])
def test_interrupt_leaves_a_study_that_goes_on(lab, n_times):
    here = lab(trials=2, search={"iters": {"choices": [200]}})
    with here.start() as run:
        event, _ = run.next(("eval",))
        for _ in range(n_times):
            kill(run.process.pid, signal.SIGINT)
            time.sleep(0.05)
        count("interrupt")
        assert run.wait() == 0
    assert run.events[-1]["how"] == "interrupted"
    assert state_of(here.trials()[0]) == "paused"
    first = next(each for each in here.finish().events if each["kind"] == "eval")
    assert first["values"]["iteration"] >= event["values"]["iteration"]  # nothing is done twice
    here.check(2)
    assert [trial.number for trial in here.trials()] == [0, 1]


def test_stop_from_elsewhere_ends_the_sweep(lab):
    from hawsweep.running.stop import ask_to_stop

    here = lab(trials=3, search={"iters": {"choices": [400]}})
    with here.start() as run:
        run.next(("eval",))
        assert ask_to_stop("tiny", Place(here.studies), lambda: None)
        count("stopped from elsewhere")
        assert run.wait() == 0
    assert run.events[-1]["how"] == "interrupted"
    assert supervisor_of(here.studies / "tiny") is None
    assert not ask_to_stop("tiny", Place(here.studies), lambda: None)
    here.finish("trials=1")
    here.check(1)


def test_trial_marked_as_failed_in_the_dashboard_stops_at_its_next_evaluation(lab):
    here = lab(trials=2, search={"iters": {"choices": [400]}})
    with here.start() as run:
        _, seen = run.next(("eval",))
        study = here.study
        study._storage.set_trial_state_values(study.trials[0]._trial_id, TrialState.FAIL)
        count("marked from outside")
        end, _ = run.next(("trial_end",), seen)
        assert (end["values"]["number"], end["values"]["state"]) == (0, "fail")
        assert end["values"]["reason"] == "marked as failed from outside"
        assert run.wait() == 0
    here.check(2)
    assert here.trials()[0].last_step < 400


@pytest.mark.parametrize(("trials", "workers", "told"), [(4, 1, 1), (2, 2, 0)])
def test_sweep_of_two_settings_ends_with_two_trials_and_confirms_both(lab, trials, workers, told):
    search = {"learning_rate": {"choices": [1e-3, 5e-3]}}
    asked = {"sampler": {"name": "gp"}, "confirm": {"top": 2, "seeds": 1}}
    here = lab(trials=trials, search=search, workers=workers, **asked)
    run = here.finish("train.iters=8")
    assert [event["kind"] for event in run.events].count("exhausted") == told
    assert run.events[-1]["how"] == "finished"
    trials = here.trials()
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 2
    assert {trial.params["learning_rate"] for trial in trials} == {1e-3, 5e-3}
    confirmed = here.study.user_attrs["confirm"]
    assert {each["trial_number"] for each in confirmed} == {0, 1}
    assert all(len(each["scores"]) == 1 for each in confirmed)
    with here.start("train.iters=8") as again:  # nothing is left to do
        again.wait()
    assert again.events[-1]["how"] == "finished"
    assert len(here.trials()) == 2
