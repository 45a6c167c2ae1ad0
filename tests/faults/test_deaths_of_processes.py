"""Workers and supervisors die at any moment; what finished stays, what was begun goes on."""

import random
import signal
import time
from datetime import datetime, timedelta

import psutil
import pytest
from harness import (
    INTERVAL,
    count,
    kill,
    note_pause,
    pauses_after_deaths,
    wait_until,
    workers_of,
)
from optuna.trial import TrialState

from hawsweep import supervisor
from hawsweep.processes import GO_ON, PAUSE, supervisor_of
from hawsweep.starting import run_sweep
from hawsweep.study import Place
from hawsweep.sweepfile import read_sweep

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV)
N_STRIKES = 18  # of each seed


def strike(run, generator, n_strikes, seen=0):
    """Hit workers at random moments of their lives; give how often, and what finished meanwhile."""
    done, struck = {}, set()
    while len(struck) < n_strikes:
        event, seen = run.next(("ready", "trial_start", "trial_end"), seen)
        if event is None:
            break
        if event["kind"] == "trial_end" and event["values"]["state"] == "complete":
            done[event["values"]["number"]] = event["values"]["score"]
        time.sleep(generator.uniform(0, 0.4) ** 2)
        workers = [pid for pid in run.workers().values() if pid not in struck]
        if workers and generator.random() < 0.7:
            pid = generator.choice(workers)
            if kill(pid, generator.choice(SIGNALS)):
                struck.add(pid)
    return len(struck), done


@pytest.mark.parametrize("seed", range(4))
def test_workers_die_by_signals_at_random_moments(lab, seed):
    here, generator = lab(workers=2), random.Random(seed)
    n_struck, done = 0, {}
    while n_struck < N_STRIKES:
        # Of one kind in a row a sweep stops by design: then it is started again.
        with here.start("trials=1000") as run:
            struck, ended = strike(run, generator, N_STRIKES - n_struck)
            n_struck, done = n_struck + struck, done | ended
            kill(run.process.pid, signal.SIGINT)
            run.wait()
        for pause_s in pauses_after_deaths(run.events):
            note_pause(pause_s)
    count("worker killed by a signal", n_struck)
    n_finished = len(here.finished())
    here.finish(f"trials={n_finished + 2}")
    here.check(n_finished + 2)
    known = here.finished()
    assert done
    for number, score in done.items():
        assert known[number][1] == score


def test_worker_kept_in_case_one_dies_takes_its_place(lab, monkeypatch):
    monkeypatch.setattr(supervisor, "_SPARE_AFTER_S", 0.0)
    monkeypatch.setattr(supervisor, "_LOOK_S", 0.2)
    here, pids, nice = lab(trials=1, search={"iters": {"choices": [240]}}), [], []

    def listen(event):
        if event.kind == "trial_start":
            nice.extend(psutil.Process(pid).nice() for pid in pids[1:])
        kept = [each.pid for each in workers_of(psutil.Process())]
        if event.kind == "eval" and not pids and len(kept) == 2:
            pids.extend(kept)
            nice.extend(psutil.Process(pid).nice() for pid in pids)
            kill(pids[0], signal.SIGKILL)
            count("worker killed by a signal")

    run_sweep(
        read_sweep(here.folder / "sweep.yaml"), "tiny", studies_dir=here.studies, on_event=listen
    )
    assert [trial.user_attrs["worker"]["pid"] for trial in here.trials()] == pids
    assert not any(psutil.pid_exists(pid) for pid in pids)
    ours = psutil.Process().nice()
    assert nice == [ours + 5, ours, ours + 5]  # the one that is kept hurries until it is needed
    here.check(1)


@pytest.mark.parametrize("number", SIGNALS)
def test_trial_goes_on_from_its_last_evaluation(lab, number):
    here = lab(trials=1, search={"iters": {"choices": [120]}})
    with here.start() as run:
        seen = 0
        for _ in range(6):
            event, seen = run.next(("eval",), seen)
        pid = run.workers()[0]
        reached = event["values"]["iteration"]
        assert kill(pid, number)
        count("worker killed by a signal")
        assert run.wait() == 0
    first, again = here.trials()
    assert first.state == TrialState.FAIL
    assert again.state == TrialState.COMPLETE
    assert again.user_attrs["continues"]["trial"] == 0
    assert again.user_attrs["continues"]["iteration"] >= reached - INTERVAL
    kinds = {signal.SIGKILL: "killed", signal.SIGABRT: "crashed", signal.SIGSEGV: "crashed"}
    assert first.user_attrs["fault"] == kinds.get(number, "interrupted")
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
    states = [trial.state for trial in here.trials()]
    assert states[0] == TrialState.FAIL
    assert here.trials()[0].user_attrs["fault"] == "interrupted"


@pytest.mark.parametrize("when", ["trial", "scoring"])
def test_worker_without_a_sign_of_life_is_ended(lab, when):
    # Longer than a busy machine takes between two signs of life of a worker that is well.
    here = lab(trials=2, machine={"hang_timeout": "15s", "keep_awake": False})
    with here.start() as run:
        run.next(("trial_start" if when == "trial" else "scoring",))
        pid = run.workers()[0]
        assert kill(pid, signal.SIGSTOP)
        count("worker hangs")
        assert run.wait() == 0
    died = [event for event in run.events if event["kind"] == "died"]
    assert "no sign of life" in died[0]["values"]["reason"]
    assert here.trials()[0].user_attrs["fault"] == "hung"
    here.check(2)


METRIC_THAT_HANGS = """
import time
from pathlib import Path

def metric(source, reference, output):
    if not Path("hung").exists():
        Path("hung").touch()
        time.sleep(1000)
    return 0.5
"""


def test_place_where_a_worker_hung_is_in_its_log(lab):
    here = lab(trials=1, machine={"hang_timeout": "15s", "keep_awake": False})
    (here.folder / "judge.py").write_text(METRIC_THAT_HANGS)
    (here.folder / "hung").touch()
    with here.start("scoring.metric=judge:metric") as run:
        run.next(("trial_start",))
        (here.folder / "hung").unlink()
        count("worker hangs")
        assert run.wait() == 0
    log = here.studies / "tiny" / "trials" / "0000" / "log.txt"
    assert 'judge.py", line 8 in metric' in log.read_text()
    states = [t.state for t in here.trials() if t.state != TrialState.WAITING]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]


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
    first = here.trials()[0]
    assert first.state == TrialState.FAIL
    here.finish()
    here.check(2)
    again = here.trials()[1]
    assert again.user_attrs["continues"]["iteration"] >= event["values"]["iteration"] - INTERVAL


def test_stop_from_elsewhere_ends_the_sweep(lab):
    from hawsweep.starting import ask_to_stop

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


@pytest.mark.parametrize("after", [1, 2, 3])
def test_address_limit_that_is_met_ends_no_sweep(lab, after):
    here = lab(trials=2, search={"iters": {"choices": [400]}})
    with here.start() as run:
        seen = 0
        for _ in range(after):
            _, seen = run.next(("eval",), seen)
        pid = run.workers()[0]
        psutil.Process(pid).rlimit(psutil.RLIMIT_AS, (1 << 20, 1 << 20))  # no more from here on
        count("address limit")
        assert run.wait() == 0
    here.check(2)
    assert here.trials()[0].user_attrs["fault"] in ("out_of_memory", "crashed")


def test_sweep_outside_its_window_waits_and_can_be_stopped(lab):
    later = datetime.now() + timedelta(hours=2)
    window = f"{later:%H:%M}-{later + timedelta(hours=1):%H:%M}"
    here = lab(trials=1, machine={"window": window, "keep_awake": False})
    with here.start() as run:
        paused, _ = run.next(("paused",))
        assert paused["values"]["reason"] == f"outside {window}"
        run.next(("ready",))
        kill(run.process.pid, signal.SIGINT)
        assert run.wait() == 0
    assert run.events[-1]["how"] == "interrupted"
    assert not [event for event in run.events if event["kind"] == "base_start"]
    here.finish("machine.window=null")
    here.check(1)


def test_trial_that_is_paused_goes_on_where_it_was(lab):
    here = lab(trials=1, search={"iters": {"choices": [120]}})
    with here.start() as run:
        run.next(("eval",))
        pid = run.workers()[0]
        kill(pid, PAUSE)
        time.sleep(1.0)  # the iteration it was at, and what it had told before
        with run._arrived:
            told = len(run.events)
        time.sleep(1.0)
        assert len(run.events) == told
        kill(pid, GO_ON)
        assert run.wait() == 0
    (trial, *_) = here.trials()
    assert trial.state == TrialState.COMPLETE
    assert "continues" not in trial.user_attrs
