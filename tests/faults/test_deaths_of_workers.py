"""Workers die at any moment; what finished stays, what was begun goes on."""

import random
import signal
import sys
import time

import psutil
import pytest
from harness import (
    INTERVAL,
    children_of,
    count,
    kill,
    note_pause,
    pauses_after_deaths,
    spare_of,
    wait_until,
    workers_of,
)
from optuna.trial import TrialState
from tiny_sweep import tiny_sweep

from hawsweep.running.start import run_sweep
from hawsweep.running.status import StatusReader
from hawsweep.spec.read import read_sweep
from hawsweep.study.place import Place
from hawsweep.views.terminal.tables import test_text as text_of_test

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGABRT, signal.SIGSEGV)
N_STRIKES = 18  # of each seed


def strike(run, generator, n_strikes, done):
    """Hit workers at random moments of their lives; give how often, and note in ``done`` what
    finished meanwhile: at least one trial, which has to stay as it is.
    """
    struck, seen = set(), 0
    if not done:
        seen = run.next(("trial_end",))[1] - 1
    while len(struck) < n_strikes:
        event, seen = run.next(("ready", "trial_start", "trial_end"), seen)
        if event is None:
            break
        if event["kind"] == "trial_end" and event["values"]["state"] == "complete":
            done[event["values"]["number"]] = event["values"]["score"]
        time.sleep(generator.uniform(0, 1.5) ** 2)  # often before a trial has ended, not always
        workers = [pid for pid in run.workers().values() if pid not in struck]
        if workers and generator.random() < 0.7:
            pid = generator.choice(workers)
            if kill(pid, generator.choice(SIGNALS)):
                struck.add(pid)
    return len(struck)


@pytest.mark.parametrize("seed", range(4))
def test_workers_die_by_signals_at_random_moments(lab, seed):
    here, generator = lab(workers=2), random.Random(seed)
    n_struck, done = 0, {}
    while n_struck < N_STRIKES:
        # Of one kind in a row a sweep stops by design: then it is started again.
        with here.start("trials=1000") as run:
            n_struck += strike(run, generator, N_STRIKES - n_struck, done)
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


def test_worker_that_dies_is_replaced_by_the_spare_one(lab):
    here, workers, spares = lab(trials=1, search={"iters": {"choices": [240]}}), [], []

    def listen(event):
        if event.kind == "trial_start":
            (worker,) = workers_of(psutil.Process())
            workers.append((worker.pid, worker.nice()))
        if event.kind == "eval" and len(workers) == 1:
            spares.append(spare_of(psutil.Process()).pid)
            kill(workers[0][0], signal.SIGKILL)
            count("worker killed by a signal")

    run_sweep(
        read_sweep(here.folder / "sweep.yaml"), "tiny", studies_dir=here.studies, on_event=listen
    )
    here.check(1)
    (first, nice), (second, again) = workers
    assert second == spares[0] != first
    assert [trial.user_attrs["worker"]["pid"] for trial in here.trials()] == [first, second]
    assert nice == again == psutil.Process().nice() + 5
    assert children_of(psutil.Process(), "hawsweep.running.worker") == set()


def test_spare_worker_ends_with_its_supervisor(lab):
    here = lab(trials=1, search={"iters": {"choices": [400]}})
    with here.start(warm=False) as run:
        run.next(("eval",))
        spare = spare_of(psutil.Process(run.process.pid))
        assert kill(run.process.pid, signal.SIGKILL)
        count("supervisor killed")
        run.wait()
    wait_until(lambda: not spare.is_running())


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
    first, *others = here.trials()
    kinds = {signal.SIGKILL: "killed", signal.SIGABRT: "crashed", signal.SIGSEGV: "crashed"}
    if number in kinds:
        [again] = others
        assert (first.state, first.user_attrs["fault"]) == (TrialState.FAIL, kinds[number])
        assert again.user_attrs["continues"]["trial"] == 0
        assert again.user_attrs["continues"]["iteration"] >= reached - INTERVAL
    else:  # it was interrupted, and went on
        again = first
        assert not others
        later = [e["values"]["iteration"] for e in run.events[seen:] if e["kind"] == "eval"]
        assert min(later) > reached - INTERVAL
    assert again.state == TrialState.COMPLETE
    here.check(1)


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


METRIC_THAT_NEEDS_MEMORY = """
import numpy as np

def metric(source, reference, output):
    return np.empty(1 << 27).size / (1 << 28)
"""


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS sets no such limit for others")
@pytest.mark.parametrize("after", [1, 2, 3])
def test_address_limit_that_is_met_ends_no_sweep(lab, after):
    here = lab(trials=2, search={"iters": {"choices": [120]}})
    # What training needs it may have already; what the metric wants is new each time.
    (here.folder / "judge.py").write_text(METRIC_THAT_NEEDS_MEMORY)
    with here.start("scoring.metric=judge:metric") as run:
        seen = 0
        for _ in range(after):
            _, seen = run.next(("eval",), seen)
        pid = run.workers()[0]
        psutil.Process(pid).rlimit(psutil.RLIMIT_AS, (1 << 20, 1 << 20))  # no more from here on
        count("address limit")
        assert run.wait() == 0
    here.check(2)
    assert here.trials()[0].user_attrs["fault"] in ("out_of_memory", "crashed")


def test_worker_that_dies_while_it_answers_the_test_split_has_opened_it(lab):
    scoring = tiny_sweep("", "")["scoring"] | {"max_examples": 100, "max_tokens": 100}
    here, struck = lab(trials=1, scoring=scoring), []

    def listen(event):
        if event.kind == "test_start" and not struck:
            (worker,) = workers_of(psutil.Process())
            wait_until(lambda: here.study.user_attrs.get("test_opened") == 1)
            assert kill(worker.pid, signal.SIGKILL)
            count("worker killed by a signal")
            struck.append(here.study.user_attrs.get("test"))

    run_sweep(
        read_sweep(here.folder / "sweep.yaml"), "tiny", studies_dir=here.studies, on_event=listen
    )
    here.check(1)
    assert struck == [None]  # it died before there were scores
    assert here.study.user_attrs["test_opened"] == here.study.user_attrs["test"]["n_opened"] == 2
    test = StatusReader(Place(here.studies), "tiny").look().test
    assert "The test split was opened 2 times" in text_of_test(test)
