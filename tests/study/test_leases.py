"""Counters that are raised and watched: of trials, of the process that leads a study, of turns."""

import threading
import time
from contextlib import ExitStack

import optuna
import pytest
from optuna.trial import TrialState

from hawsweep.errors import StudyBusyError
from hawsweep.machine.processes import identity
from hawsweep.study.attributes import LEASE, REASON, REPEATS, SUPERVISOR, TURN, WORKER
from hawsweep.study.leases import (
    Leader,
    Watched,
    count_running,
    counters,
    elsewhere,
    leader_of,
    leading,
    leased,
    silent,
    turn,
)
from hawsweep.study.place import Place
from hawsweep.study.queue import end_failed
from hawsweep.study.storage import open_storage

ELSEWHERE = {"host": "studio-2", "machine": "abc@studio-2", "boot": "b", "pid": 7, "started": 1.0}
RAISE_S = 0.05


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("HAWSWEEP_LEASE_S", str(RAISE_S))


@pytest.fixture
def studies(tmp_path):
    """Gives the same study as another process opens it."""
    place = Place(tmp_path)

    def opened():
        storage = open_storage(place, create=True)
        return optuna.create_study(storage=storage, study_name="s", load_if_exists=True)

    opened()
    return opened


class Clock:
    def __init__(self):
        self.s = 0.0

    def __call__(self):
        return self.s


def test_counter_that_stands_still_expires_by_the_watchers_own_clock():
    clock = Clock()
    watched, n = Watched(clock), 0
    for _ in range(20):
        clock.s += RAISE_S
        n += clock.s < 10 * RAISE_S  # "b" is raised at first only
        expired = watched.look({"a": clock.s, "b": n})
    assert expired == {"b"}
    assert watched.look({"a": 0}) == set()  # one that is gone is watched no more


def test_watcher_that_was_away_judges_nobody():
    clock = Clock()
    watched = Watched(clock)
    watched.look({"a": 1})
    clock.s += 100
    assert watched.look({"a": 1}) == set()
    for _ in range(7):
        clock.s += RAISE_S
        expired = watched.look({"a": 1})
    assert expired == {"a"}


def test_database_that_was_away_for_nearly_two_minutes_costs_no_living_host_its_trial(monkeypatch):
    monkeypatch.setenv("HAWSWEEP_LEASE_S", "20")
    clock = Clock()
    watched = Watched(clock)
    watched.look({"a": 1})
    for away_s in (18, 110, 10):  # it is raised again 20 s after the first answer, at the latest
        clock.s += away_s
        assert watched.look({"a": 1}) == set()


def wait_until(holds, seconds=10):
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def begin(study, owner):
    trial = study.ask()
    trial.set_user_attr(WORKER, owner)
    return trial.number


def test_running_trial_is_raised_until_its_end(studies):
    study, other = studies(), studies()
    number, lost = begin(study, identity()), threading.Event()

    def counter():
        return other.get_trials(deepcopy=False)[number].user_attrs.get(LEASE, 0)

    with leased(study, number, lost.set):
        wait_until(lambda: counter() >= 3)
        assert not lost.is_set()
        other.tell(number, state=TrialState.FAIL)
        assert lost.wait(10)
    last = counter()
    time.sleep(4 * RAISE_S)
    assert counter() == last


def test_trial_of_a_lost_machine_is_freed_and_tried_again(studies):
    study = studies()
    here, there = begin(study, identity()), begin(study, ELSEWHERE)
    study.ask()  # of another program
    trials = study.get_trials(deepcopy=False)
    assert count_running(trials) == 2
    assert elsewhere(trials).keys() == {there}
    assert counters(study).keys() == {there}
    end = end_failed(study, there, silent(ELSEWHERE))
    assert end.reason == "studio-2 was not heard of for 1 s; its settings are tried again"
    ended, again = study.get_trials(deepcopy=False)[there], study.get_trials(deepcopy=False)[-1]
    assert (ended.state, ended.user_attrs[REASON]) == (TrialState.FAIL, end.reason)
    assert (again.state, again.user_attrs[REPEATS]) == (TrialState.WAITING, there)
    with pytest.raises(ValueError, match="Cannot tell a FAIL trial"):  # the machine returns
        study.tell(there, 0.5)
    assert study.get_trials(deepcopy=False)[here].state == TrialState.RUNNING


def test_one_process_leads(studies):
    study, other, said = studies(), studies(), []
    with leading(study, "hawsweep worker s", said.append) as lead:
        assert leader_of(other)["pid"] == identity()["pid"]
        leader = Leader(other, lambda: 0.0)
        assert leader.lives()
        assert not leader.has_ended()
        assert leader.left_s() is None
        lead.left_s = lambda: 3600.0
        wait_until(lambda: leader.left_s() == 3600.0)
        with (
            pytest.raises(StudyBusyError, match="Run trials of it here, too: `hawsweep worker s`"),
            leading(other, "hawsweep worker s", said.append),
        ):
            pass
        assert not lead.taken_over.is_set()
    assert said == []
    assert leader_of(other) is None
    assert leader.has_ended()
    assert not Leader(other).has_ended()  # it has seen none
    assert not Leader(other).lives()


def test_time_that_a_leader_said_is_left_runs_on_by_the_own_clock(studies):
    study, now = studies(), [100.0]
    leader = Leader(study, lambda: now[0])
    study.set_user_attr(SUPERVISOR, {**ELSEWHERE, "n": 1, "left_s": 30.0})
    assert leader.left_s() == 30.0
    now[0] += 18.0
    assert leader.left_s() == 12.0
    study.set_user_attr(SUPERVISOR, {**ELSEWHERE, "n": 2, "left_s": 11.0})
    assert leader.left_s() == 11.0


def test_leader_on_another_machine_that_is_raised_is_left(studies, monkeypatch):
    monkeypatch.setenv("HAWSWEEP_LEASE_S", "5")  # it is raised far more often
    study, other, said = studies(), studies(), []
    with ExitStack() as held:
        done = threading.Event()
        held.callback(done.set)

        def run():
            n = 0
            while not done.is_set():
                n += 1
                other.set_user_attr(SUPERVISOR, {**ELSEWHERE, "n": n})
                done.wait(RAISE_S)

        other.set_user_attr(SUPERVISOR, {**ELSEWHERE, "n": 0})
        threading.Thread(target=run, daemon=True).start()
        with pytest.raises(StudyBusyError, match="by process 7 on studio-2"):
            held.enter_context(leading(study, "hawsweep worker s", said.append))
        assert Leader(study).lives()
    assert said == ["studio-2 runs this study, or was lost: whether it does is known in 30 s"]


def test_lead_of_a_lost_machine_is_taken_over(studies):
    study, other, said = studies(), studies(), []
    study.set_user_attr(SUPERVISOR, {**ELSEWHERE, "n": 5})
    leader = Leader(other)
    assert leader.lives()
    with leading(study, "hawsweep worker s", said.append) as lead:
        assert leader_of(other)["host"] != "studio-2"
        assert len(said) == 1
        # The lost one was asleep, and goes on. It raises its counter again where the new leader
        # wrote in between: a storage has no compare-and-set.
        for n in range(6, 60):
            other.set_user_attr(SUPERVISOR, {**ELSEWHERE, "n": n})
            if lead.taken_over.wait(1.5 * RAISE_S):
                break
        assert lead.taken_over.is_set()
    assert leader_of(other)["host"] == "studio-2"  # what is another's is not ended


def test_one_process_at_a_time_has_its_turn(studies):
    inside, most, n_turns = [], [], 5

    def run(name):
        confirming = studies()
        for _ in range(n_turns):
            with turn(confirming, name):
                inside.append(name)
                most.append(len(inside))
                time.sleep(0.01)
                inside.remove(name)

    threads = [threading.Thread(target=run, args=(f"{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * (4 * n_turns)


def test_a_process_that_was_killed_in_its_turn_is_passed_by_one_at_a_time(studies, monkeypatch):
    monkeypatch.setattr("hawsweep.study.leases._TURN_S", 3.0)
    monkeypatch.setattr("hawsweep.study.leases._POLL_S", 0.01)
    studies().set_user_attr(f"{TURN}killed", [False, 1, 0])
    inside, most = [], []

    def run(name):
        with turn(studies(), name):
            inside.append(name)
            most.append(len(inside))
            time.sleep(0.5)  # the last ones wait for longer than the killed one is waited for
            inside.remove(name)

    threads = [threading.Thread(target=run, args=(f"{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 8
    assert studies().user_attrs[f"{TURN}killed"][1] == 0
    began = time.monotonic()
    with turn(studies(), "next"):
        assert time.monotonic() - began < 3.0
