"""Each door to what Optuna keeps private, through the Optuna that is installed."""

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState
from sqlalchemy import event

from hawsweep.study.optuna_door import (
    read_once,
    storage_of,
    study_id,
    suggest,
    trial_id,
    trial_to_run,
)

SPACE = {"rate": FloatDistribution(0.0, 1.0), "decay": FloatDistribution(0.0, 1.0)}


@pytest.fixture
def storage(place):
    from hawsweep.study.storage import open_storage

    return open_storage(place, create=True)


def test_every_door_leads_to_what_it_says(storage):
    optuna.create_study(storage=storage, study_name="another").ask(SPACE)
    study = optuna.create_study(storage=storage, study_name="rates")
    study.enqueue_trial({"rate": 0.25})
    held = storage_of(study)
    at = study_id(study)
    assert held.get_study_name_from_id(at) == "rates"
    summaries = {each.study_name: each for each in optuna.get_all_study_summaries(storage)}
    assert study_id(summaries["rates"]) == at
    frozen = {each.study_name: each for each in storage.get_all_studies()}
    assert study_id(frozen["rates"]) == at
    (waiting,) = study.get_trials()
    assert held.get_trial_number_from_id(trial_id(waiting)) == 0
    assert held.set_trial_state_values(trial_id(waiting), TrialState.RUNNING)
    running = trial_to_run(study, 0)
    assert trial_id(running) == trial_id(waiting)
    suggest(running, SPACE)
    assert running.params["rate"] == 0.25
    assert 0.0 <= running.params["decay"] <= 1.0
    again = trial_to_run(optuna.load_study(storage=storage, study_name="rates"), 0)
    assert again.params == running.params
    again.report(0.5, 1)
    again.study.tell(again, 0.5)
    (ended,) = study.get_trials()
    assert (ended.value, ended.intermediate_values) == (0.5, {1: 0.5})


def test_what_is_asked_several_times_is_read_once_in_the_block(storage):
    study = optuna.create_study(storage=storage, study_name="rates")
    study.enqueue_trial({"rate": 0.25})
    queries = []
    event.listen(storage.engine, "before_cursor_execute", lambda *_: queries.append(_[2]))
    with read_once(study):
        (waiting,) = study.get_trials(deepcopy=False)
        assert study.user_attrs == {}
        n_queries = len(queries)
        assert study.get_trials(deepcopy=False, states=[TrialState.WAITING]) == [waiting]
        assert study.get_trials(states=[TrialState.RUNNING]) == []
        assert study.get_trials()[0] is not waiting
        assert study.user_attrs == {}
        assert len(queries) == n_queries
        study.set_user_attr("mine", 1)  # what is written here is seen
        assert study.user_attrs == {"mine": 1}
        trial = study.ask()
        assert study.get_trials(deepcopy=False)[0].state == TrialState.RUNNING
    study.tell(trial, 1.0)
    assert study.get_trials(deepcopy=False)[0].state == TrialState.COMPLETE
    trial.study.set_user_attr("mine", 2)
    assert study.user_attrs == {"mine": 2}
