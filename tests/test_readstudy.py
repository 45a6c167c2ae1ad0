import math

import optuna
import pytest
from long_study import make_study
from optuna.trial import TrialState, create_trial

from hawsweep.errors import StudyError
from hawsweep.leaderboard import leaderboard
from hawsweep.readstudy import ReadStudy, curve_of
from hawsweep.study import Place, open_storage

SPACE = {
    "rate": optuna.distributions.FloatDistribution(1e-5, 1e-3, log=True),
    "rank": optuna.distributions.CategoricalDistribution([4, 8, 16]),
    "iters": optuna.distributions.IntDistribution(60, 140, step=40),
}


@pytest.fixture
def storage(tmp_path):
    return open_storage(Place(tmp_path / "studies"), create=True)


@pytest.fixture
def study(storage):
    made = optuna.create_study(storage=storage, study_name="x", direction="maximize")
    params = {"rate": 1e-4, "rank": 16, "iters": 100}
    kinds = {"params": params, "distributions": SPACE}
    curve = {20: -3.0, 40: -math.inf, 60: math.nan}
    attributes = {"reason": 'a "quoted" [text], ʻokina', "plan": {"text": "whole"}, "n": 1.5}
    made.add_trial(create_trial(value=0.5, intermediate_values=curve, **kinds))
    made.add_trial(create_trial(value=math.inf, user_attrs=attributes, **kinds))
    made.add_trial(create_trial(state=TrialState.PRUNED, system_attrs={"k": [1, 2]}, **kinds))
    made.add_trial(create_trial(state=TrialState.FAIL))
    made.enqueue_trial({"rank": 8})
    made.ask(SPACE).report(-2.0, 20)
    made.enqueue_trial({"rank": 4})
    return made


def whole(trial):
    """All of a trial but the intermediate values of a finished one."""
    left_out = {"intermediate_values"} if trial.state.is_finished() else set()
    return {key: value for key, value in vars(trial).items() if key not in left_out}


def test_trials_are_what_optuna_reads(storage, study):
    read = ReadStudy(storage, "x")
    expected = study.get_trials()
    assert {each.state for each in expected} == {*TrialState}
    assert [whole(each) for each in read.get_trials()] == [whole(each) for each in expected]
    pruned = (TrialState.PRUNED,)
    assert [each.number for each in read.get_trials(states=pruned)] == [2]


def test_curve_of_a_finished_trial_is_read_when_asked_for(storage, study):
    read = ReadStudy(storage, "x")
    first, *_, running, _ = read.get_trials()
    assert first.intermediate_values == {}
    steps = curve_of(read, first)
    assert steps[0] == (20, 3.0)
    assert steps[1] == (40, math.inf)
    assert math.isnan(steps[2][1])
    assert curve_of(read, running) == ((20, 2.0),)


def test_refresh_reads_what_is_new_and_what_has_ended(storage, study):
    read = ReadStudy(storage, "x")
    before = {each.number: each for each in read.get_trials()}
    (running,) = (n for n, each in before.items() if each.state == TrialState.RUNNING)
    study.tell(running, 0.75)
    study.add_trial(create_trial(value=0.25))
    study.set_user_attr("base", {"score": 0.125})
    assert read.get_trials()[running].state == TrialState.RUNNING
    read.refresh()
    now = read.get_trials()
    assert [whole(each) for each in now] == [whole(each) for each in study.get_trials()]
    assert now[0] is before[0]  # not read again
    assert read.user_attrs == {"base": {"score": 0.125}}


def test_other_databases_give_the_same(storage, study, monkeypatch):
    expected = [whole(each) for each in ReadStudy(storage, "x").get_trials()]
    monkeypatch.setattr(storage.engine.dialect, "name", "another")
    assert [whole(each) for each in ReadStudy(storage, "x").get_trials()] == expected


def test_attribute_that_is_no_json_is_named(storage, study):
    with storage.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE trial_user_attributes SET value_json = 'no'")
    with pytest.raises(StudyError, match="An attribute of a trial in the database is no JSON"):
        ReadStudy(storage, "x")


def test_leaderboard_is_the_same_as_by_optuna(tmp_path):
    place = Place(tmp_path / "studies")
    make_study(place, 20)
    storage = open_storage(place)
    by_optuna = leaderboard(optuna.load_study(storage=storage, study_name="long"))
    assert leaderboard(ReadStudy(storage, "long")) == by_optuna
