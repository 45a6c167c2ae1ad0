"""A storage's calls are tried again while its connection is at fault, and done once."""

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy import event

from hawsweep.errors import StorageOutageError
from hawsweep.study.optuna_door import storage_of, trial_id
from hawsweep.study.patience import (
    ConnectionLostError,
    Patience,
    PatientDatabase,
    StorageAwayError,
    at_once,
    while_waiting,
)


class Clock:
    """A clock that goes on by what is slept only."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        self.now += seconds
        self.slept.append(seconds)


class Away:
    """A call that does not answer until the clock says so."""

    def __init__(self, clock, until):
        self.clock, self.until, self.asked = clock, until, []

    def __call__(self):
        self.asked.append(self.clock.now)
        if self.clock.now < self.until:
            raise ConnectionLostError
        return "answer"


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def patience(clock):
    return Patience("db.example", now=lambda: clock.now, sleep=clock.sleep)


def test_call_is_made_until_it_has_an_answer_with_waits_that_grow(clock, patience):
    call = Away(clock, until=200.0)
    assert patience.call(call) == "answer"
    waits = [after - before for before, after in zip(call.asked, call.asked[1:], strict=False)]
    for number, wait in enumerate(waits):
        longest = min(30.0, 0.5 * 2**number)
        assert longest / 2 <= wait <= longest + 1e-6
    assert 200.0 <= clock.now < 230.0


def test_after_ten_minutes_it_is_given_up_and_later_calls_are_made_once(clock, patience):
    with pytest.raises(StorageOutageError) as caught:
        patience.call(Away(clock, until=1e9))
    assert clock.now == pytest.approx(600.0)
    assert str(caught.value).startswith(
        "The database at db.example did not answer for 10 minutes. Finished trials"
    )
    later = Away(clock, until=1e9)
    with pytest.raises(StorageOutageError):
        patience.call(later)
    assert len(later.asked) == 1
    assert patience.call(Away(clock, until=0.0)) == "answer"
    assert patience.call(Away(clock, until=clock.now + 100.0)) == "answer"  # patient again


def test_call_at_once_says_that_the_storage_is_away_and_gives_up_after_ten_minutes(clock, patience):
    call = Away(clock, until=1e9)
    with at_once():
        with pytest.raises(StorageAwayError):
            patience.call(call)
        clock.now = 599.0
        with pytest.raises(StorageAwayError):
            patience.call(call)
        clock.now = 600.0
        with pytest.raises(StorageOutageError):
            patience.call(call)
    assert len(call.asked) == 3


def test_fault_of_the_statement_is_raised_at_once(clock, patience):
    with pytest.raises(KeyError):
        patience.call({}.popitem)
    assert clock.slept == []


def test_who_waits_can_stop(clock, patience):
    def stop():
        if clock.now > 5:
            raise KeyboardInterrupt

    with while_waiting(stop), pytest.raises(KeyboardInterrupt):
        patience.call(Away(clock, until=1e9))
    assert 5 < clock.now < 6


@pytest.fixture
def study(tmp_path, patience):
    storage = PatientDatabase(f"sqlite:///{tmp_path / 'x.db'}", patience)
    return optuna.create_study(storage=storage, study_name="s", direction="maximize")


@pytest.fixture
def lose(study):
    """Lose the connection at the next commit: before it is done, or after."""

    def lose(*, done):
        engine = storage_of(study)._backend.engine

        def at_commit(connection):
            event.remove(engine, "commit", at_commit)
            if done:
                connection.connection.commit()
            raise ConnectionLostError

        event.listen(engine, "commit", at_commit)

    return lose


each_time = pytest.mark.parametrize("done", [False, True])


@each_time
def test_trial_is_made_once(study, lose, done):
    lose(done=done)
    study.enqueue_trial({"rate": 0.5}, user_attrs={"by": "you"})
    (trial,) = study.get_trials()
    assert (trial.state, trial.user_attrs) == (TrialState.WAITING, {"by": "you"})
    lose(done=done)
    assert study.ask().number == 0
    lose(done=done)
    assert study.ask().number == 1  # one that did not wait
    assert [trial.number for trial in study.get_trials()] == [0, 1]


@each_time
def test_trial_is_taken_once_and_by_one(study, lose, done):
    study.enqueue_trial({})
    storage, (waiting,) = storage_of(study), study.get_trials()
    storage.set_trial_user_attr(trial_id(waiting), "worker", {"pid": 7})
    lose(done=done)
    assert storage.set_trial_state_values(trial_id(waiting), TrialState.RUNNING)
    assert not storage.set_trial_state_values(trial_id(waiting), TrialState.RUNNING)


def test_trial_that_another_process_took_meanwhile_is_not_ours(study, lose, tmp_path):
    study.enqueue_trial({})
    storage, (waiting,) = storage_of(study), study.get_trials()
    storage.set_trial_user_attr(trial_id(waiting), "worker", {"pid": 7})
    lose(done=False)
    other = RDBStorage(f"sqlite:///{tmp_path / 'x.db'}")

    def take():
        other.set_trial_user_attr(trial_id(waiting), "worker", {"pid": 8})
        other.set_trial_state_values(trial_id(waiting), TrialState.RUNNING)

    with while_waiting(take):
        assert not storage.set_trial_state_values(trial_id(waiting), TrialState.RUNNING)


@each_time
def test_result_is_told_once(study, lose, done):
    trial = study.ask()
    lose(done=done)
    trial.report(0.25, 4)
    lose(done=done)
    trial.suggest_float("rate", 0.0, 1.0)
    lose(done=done)
    study.tell(trial, 0.5)
    (ended,) = study.get_trials()
    assert (ended.state, ended.value, ended.intermediate_values) == (
        TrialState.COMPLETE,
        0.5,
        {4: 0.25},
    )
    with pytest.raises(optuna.exceptions.UpdateFinishedTrialError):
        trial.set_user_attr("late", 1)


@each_time
def test_study_is_made_and_deleted_once(study, lose, done):
    storage = storage_of(study)
    lose(done=done)
    optuna.create_study(storage=storage, study_name="more")
    lose(done=done)
    optuna.delete_study(study_name="more", storage=storage)
    assert optuna.get_all_study_names(storage) == ["s"]
