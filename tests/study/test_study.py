import json
from datetime import date

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from hawsweep.errors import SpecChangedError, StudyError
from hawsweep.results.leaderboard import StudyRow, leaderboard, list_studies
from hawsweep.results.one_trial import describe_trial
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import STORED, check_sweep
from hawsweep.spec.sweep import GONE_KEYS
from hawsweep.study.storage import open_storage, study_names
from hawsweep.study.study import check_tokens, create_study, date_of, load_study, newest, spec_of
from hawsweep.study.trials import best_trial, count_finished

DATA = {"train": "24:abc", "valid": "8:def", "test": "8:fed"}
CONTENT = {
    "description": "Learning rate alone.",
    "model": "some/model",
    "data": "phrasebook",
    "search": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
    "sampler": {"name": "tpe", "n_startup_trials": 2},
}


def sweep(**changes):
    return check_sweep({**CONTENT, **changes}, "a sweep")


@pytest.fixture
def storage(place):
    return open_storage(place, create=True)


@pytest.fixture
def study(storage, place):
    return create_study(storage, place, "rates", sweep(), DATA)[0]


@pytest.fixture
def measured(study):
    """A study that has begun: its base is measured."""
    study.set_user_attr("base", {"similarity": 0.25})
    return study


def add(study, rate, value=None, state=TrialState.COMPLETE, **attributes):
    trial = create_trial(
        state=state,
        value=value,
        params={"learning_rate": rate},
        distributions=distributions(sweep().search),
        user_attrs=attributes,
    )
    study.add_trial(trial)


def test_new_study_keeps_its_spec_and_folder(study, place):
    assert study.direction == optuna.study.StudyDirection.MAXIMIZE
    assert spec_of(study).fingerprint() == sweep().fingerprint()
    assert study.user_attrs["description"] == CONTENT["description"]
    assert study.user_attrs["versions"].keys() >= {"hawsweep", "mlx", "mlx-lm", "optuna"}
    folder = place.study_dir("rates")
    assert (folder / "trials").is_dir()
    header, text = (folder / "spec.yaml").read_text(encoding="utf-8").split("\n", 1)
    assert json.loads(header.removeprefix("# "))["fingerprints"] == DATA
    assert text == sweep().dump_yaml()


def test_study_is_reopened_with_its_trials(study, place):
    add(study, 1e-4, 0.5)
    again, is_new = create_study(open_storage(place), place, "rates", sweep(), DATA)
    assert not is_new
    assert [trial.value for trial in again.trials] == [0.5]


def test_study_goes_on_with_more_trials_and_workers(measured, storage, place):
    more = sweep(trials=99, workers=3, timeout="8h", description="Another text.")
    assert create_study(storage, place, "rates", more, DATA)[1] is False


def test_study_that_recorded_its_memory_goes_on_with_another_budget(measured, storage, place):
    before = {**measured.user_attrs["spec"], "memory": {"budget": "auto"}}
    measured.set_user_attr("spec", before)
    other = sweep(memory={"budget": "24GB"})
    assert create_study(storage, place, "rates", other, DATA)[1] is False


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"search": {"learning_rate": {"low": 1e-5, "high": 2e-3, "log": True}}},
            ["search.learning_rate.high was 0.001, is 0.002"],
        ),
        ({"train": {"batch_size": 2}}, ["train.batch_size was 4, is 2"]),
        (
            {"search": {"iters": {"choices": [1, 2]}}},
            ["search.iters.choices was not set, is [1, 2]", "search.learning_rate.low was 1e-05"],
        ),
        ({"model": "other", "seed": 1}, ["model was some/model, is other; seed was 0, is 1"]),
    ],
)
def test_changed_spec_is_refused_with_each_key_and_both_values(
    measured, storage, place, changes, told
):
    with pytest.raises(SpecChangedError) as caught:
        create_study(storage, place, "rates", sweep(**changes), DATA)
    message = str(caught.value)
    assert message.startswith("Study 'rates' was made with another spec: ")
    assert all(text in message for text in told), message
    assert "Start it under another name with --study, or restore the value." in message


def test_changed_data_is_refused_with_the_split(measured, storage, place):
    with pytest.raises(
        SpecChangedError, match=r"the content of valid has changed \(8:def, now 9:xyz\)"
    ):
        create_study(storage, place, "rates", sweep(), {**DATA, "valid": "9:xyz"})


def test_study_keeps_the_date_of_its_first_start(study, storage, place):
    assert date_of(study) == date.today()
    study.set_user_attr("date", "2026-01-31")
    again, _ = create_study(storage, place, "rates", sweep(), DATA)
    assert date_of(again) == date(2026, 1, 31)


def test_study_keeps_its_first_start_and_the_last_ones(study, storage, place):
    first = study.user_attrs["starts"][0]
    study.set_user_attr("starts", [first, *({"time": float(n)} for n in range(99))])
    again, _ = create_study(storage, place, "rates", sweep(), DATA)
    starts = again.user_attrs["starts"]
    assert (len(starts), starts[0], starts[1]["time"]) == (100, first, 1.0)
    assert starts[-1]["time"] >= first["time"]


def test_study_of_an_earlier_version_has_the_date_of_its_first_start(study):
    study.set_user_attr("date", None)
    study.set_user_attr("starts", [{"time": 86400.0 * 365}, {"time": 86400.0 * 400}])
    assert date_of(study) == date.fromtimestamp(86400.0 * 365)
    study.set_user_attr("starts", [])
    assert date_of(study) == date.today()


def test_study_of_an_earlier_version_is_refused_where_it_learned_other_tokens(measured):
    check_tokens(measured, differs=True)  # made by this version
    measured.set_user_attr("date", None)
    check_tokens(measured, differs=False)
    with pytest.raises(SpecChangedError, match=r"trained other tokens .* another name with"):
        check_tokens(measured, differs=True)


def test_changed_spec_is_refused_once_a_trial_has_begun(study, storage, place):
    study.ask()
    with pytest.raises(SpecChangedError, match="model was some/model, is other"):
        create_study(storage, place, "rates", sweep(model="other"), DATA)


def test_study_that_measured_nothing_yet_takes_another_spec(study, storage, place):
    study.enqueue_trial({"learning_rate": 1e-4})
    again, is_new = create_study(storage, place, "rates", sweep(model="other"), DATA)
    assert is_new
    assert again.trials == []
    assert spec_of(again).model == "other"
    assert "model: other" in (place.study_dir("rates") / "spec.yaml").read_text()


def test_study_that_measured_nothing_yet_is_kept_with_the_same_spec(study, storage, place):
    study.enqueue_trial({"learning_rate": 1e-4})
    again, is_new = create_study(storage, place, "rates", sweep(), DATA)
    assert not is_new
    assert [trial.state for trial in again.trials] == [TrialState.WAITING]


def test_unknown_study_lists_those_there_are(study, storage):
    with pytest.raises(StudyError, match=r"no study 'ranks'\. Studies here: rates\."):
        load_study(storage, "ranks")


def test_newest_study_is_the_one_made_last(study, storage, place):
    create_study(storage, place, "a-later-one", sweep(), DATA)
    assert newest(storage, place) == "a-later-one"
    assert study_names(storage) == ["a-later-one", "rates"]


def test_newest_of_no_studies_says_how_to_start_one(storage, place):
    with pytest.raises(StudyError, match=r"no studies yet\. Start one: hawsweep start"):
        newest(storage, place)


def test_studies_are_listed_with_trials_and_best(study, storage, place):
    add(study, 1e-4, 0.5)
    add(study, 2e-4, 0.7)
    add(study, 3e-4, state=TrialState.FAIL)
    study.set_user_attr("base", {"similarity": 0.25})
    assert list_studies(storage, place) == [
        StudyRow(
            name="rates",
            description=CONTENT["description"],
            trials={"complete": 2, "fail": 1},
            best_trial=1,
            best_score=0.7,
            base_score=0.25,
            use=None,
        )
    ]


def test_leaderboard_ranks_by_similarity_then_loss_then_state(study):
    add(study, 1e-4, 0.5, similarity=0.5, val_loss=2.0)
    add(study, 1e-4, state=TrialState.FAIL, reason="killed")
    add(study, 2e-4, 0.25, state=TrialState.PRUNED, val_loss=3.0)
    add(study, 3e-4, 0.25, state=TrialState.PRUNED, val_loss=2.5)
    add(study, 4e-4, 0.75, similarity=0.75, val_loss=4.0)
    add(study, 4e-4, 0.125, similarity=0.125, val_loss=1.0)
    study.ask()
    study.enqueue_trial({"learning_rate": 5e-4})
    study.set_user_attr("base", {"similarity": 0.25, "val_loss": 5.0, "time_s": 1.5})
    rows = leaderboard(study)
    labels = [row.label for row in rows]
    assert labels == ["4", "0", "base", "5", "3", "2", "1", "6", "7"]
    assert [row.state for row in rows[4:]] == ["pruned", "pruned", "fail", "running", "waiting"]
    by_label = {row.label: row for row in rows}
    assert by_label["base"].val_loss == 5.0
    assert by_label["1"].reason == "killed"
    assert by_label["4"].settings == {"learning_rate": 4e-4}


def test_best_trial_is_the_earlier_of_equals(study):
    assert best_trial(study) is None
    add(study, 1e-4, 0.5)
    add(study, 2e-4, 0.75)
    add(study, 3e-4, 0.75)
    add(study, 4e-4, 0.9, state=TrialState.PRUNED)
    assert best_trial(study).number == 1


def test_finished_trials_are_complete_or_pruned(study):
    for state in (TrialState.COMPLETE, TrialState.PRUNED):
        add(study, 1e-4, 0.5, state=state)
    add(study, 1e-4, state=TrialState.FAIL)
    study.ask()
    assert count_finished(study) == 2


def test_trial_is_described_with_its_files_and_samples(study, place):
    add(study, 1e-4, 0.5, similarity=0.5)
    folder = place.trial_dir("rates", 0)
    (folder / "adapters").mkdir(parents=True)
    (folder / "adapters" / "a.json").write_text("{}")
    (folder / "samples.jsonl").write_text('{"output": "one"}\n{"output": "two"}\n')
    described = describe_trial(study, place, 0)
    assert described["similarity"] == 0.5
    assert described["files"] == ["adapters/a.json", "samples.jsonl"]
    assert described["samples"] == [
        {"output": "one", "base_output": None},
        {"output": "two", "base_output": None},
    ]
    json.dumps(described)


def test_missing_trial_says_which_there_are(study, place):
    with pytest.raises(StudyError, match="'rates' has no trial 0; it has none"):
        describe_trial(study, place, 0)
    add(study, 1e-4, 0.5)
    add(study, 1e-4, 0.5)
    with pytest.raises(StudyError, match="has no trial 2; it has 0 to 1"):
        describe_trial(study, place, 2)


def test_study_older_than_a_key_goes_on_where_the_key_has_its_default(storage, place, measured):
    stored = dict(measured.user_attrs["spec"])
    stored["train"] = {k: v for k, v in stored["train"].items() if k != "order"}
    stored["data"] = stored["data"][0]
    measured.set_user_attr("spec", stored)
    assert create_study(storage, place, "rates", sweep(), DATA)[1] is False
    with pytest.raises(SpecChangedError, match=r"train\.order was shuffle, is curriculum"):
        create_study(storage, place, "rates", sweep(train={"order": "curriculum"}), DATA)


def test_study_that_recorded_its_sampler_goes_on_with_another(storage, place, measured):
    before = {**measured.user_attrs["spec"], "sampler": {"name": "tpe", "n_startup_trials": 10}}
    measured.set_user_attr("spec", before)
    for name in ("gp", "random"):
        other = sweep(sampler={"name": name})
        assert create_study(storage, place, "rates", other, DATA)[1] is False


def test_study_with_stored_keys_that_went_goes_on(storage, place, measured):
    stored, how = dict(measured.user_attrs["spec"]), sweep().model_dump(mode="json")["machine"]
    gone = {"window": None, "on_battery": "pause", "on_memory_pressure": "run"}
    assert {f"machine.{key}" for key in gone} == {*GONE_KEYS}
    measured.set_user_attr("spec", {**stored, "machine": gone})
    measured.set_user_attr("how", {"trials": 7, "machine": {**how, **gone, "nice": 9}})
    again, is_new = create_study(storage, place, "rates", sweep(), DATA)
    assert is_new is False
    assert (spec_of(again).trials, spec_of(again).machine.nice) == (7, 9)
    with pytest.raises(SpecChangedError) as caught:
        create_study(storage, place, "rates", sweep(seed=4), DATA)
    assert "was made with another spec: seed was 0, is 4. " in str(caught.value)


def test_specs_of_studies_begin_as_the_reader_of_sweeps_knows_them(storage, place, measured):
    text = (place.study_dir("rates") / "spec.yaml").read_text(encoding="utf-8")
    assert text.startswith(STORED)
