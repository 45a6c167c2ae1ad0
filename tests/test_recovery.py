import json
import math
import subprocess
import sys

import optuna
import pytest
from optuna.trial import TrialState

from hawsweep import recovery
from hawsweep.confirm import CONFIRMS, SEED, conclude, open_confirmation
from hawsweep.errors import StudyError
from hawsweep.leaderboard import leaderboard, list_studies
from hawsweep.recovery import rebuild, survey, write_record, write_study_record
from hawsweep.space import distributions
from hawsweep.study import Place, create_study, load_study, open_storage
from hawsweep.sweepfile import check_sweep

SPEC = check_sweep(
    {
        "model": "some/model",
        "data": "phrasebook",
        "search": {
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "iters": {"low": 40, "high": 120, "step": 40},
            "lora_parameters.rank": {"choices": [4, 8, 16]},
            "optimizer": {"choices": ["adam", "muon"]},
        },
        "confirm": {"top": 1, "seeds": 2},
    },
    "a sweep",
)
FINGERPRINTS = {"train": "24:abc", "valid": "8:def", "test": "0:"}
BASE = {"val_loss": 3.5, "score": 0.1, "similarity": 0.1, "low": 0.05, "high": 0.15, "time_s": 9.0}


def record(study, place, number):
    """Writes what a worker writes when a trial ends."""
    name, is_confirming = study.study_name.removesuffix(".confirm"), "." in study.study_name
    folder_of = place.confirm_dir if is_confirming else place.trial_dir
    write_record(study, number, folder_of(name, number))
    write_study_record(study, folder_of(name, number).parents[0 if is_confirming else 1])


def run(study, place, end, **attributes):
    """A trial that ``end`` brings to its end; gives its number."""
    trial = study.ask(distributions(SPEC.search))
    for key, value in attributes.items():
        trial.set_user_attr(key, value)
    end(study, trial)
    record(study, place, trial.number)
    return trial.number


def complete(value):
    def end(study, trial):
        trial.set_constraint("memory", 0.0)
        trial.set_user_attr("val_loss", 2.0 - value)
        trial.set_user_attr("plan", {"micro_batch": 2, "text": "whole"})
        for step in (20, 40):
            trial.report(-2.0 / step, step)
        study.tell(trial, value)

    return end


def pruned(study, trial):
    trial.report(-2.125, 20)
    trial.report(math.nan, 40)
    trial.set_user_attr("reason", "behind the median of earlier trials")
    study.tell(trial, state=TrialState.PRUNED)


def infeasible(study, trial):
    trial.set_constraint("memory", 1.5)
    trial.set_user_attr("infeasible", True)
    study.tell(trial, state=TrialState.PRUNED)


def failed(study, trial):
    trial.set_user_attr("reason", "the worker died by SIGKILL")
    study.tell(trial, state=TrialState.FAIL)


def make_study(place, name="rates"):
    """A study with a trial of every kind, and what confirms it."""
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, name, SPEC, FINGERPRINTS)
    study.set_user_attr("base", BASE)
    study.set_user_attr("references", {"ʻolelo": 0.8787})
    study.enqueue_trial({"learning_rate": 1e-4, "iters": 80}, user_attrs={"suggested_by": "us"})
    for end in (complete(0.5), pruned, infeasible, failed, complete(0.625)):
        run(study, place, end, worker={"host": "here", "pid": 7})
    confirming = open_confirmation(storage, study, SPEC)
    for seed in (1, 2):
        confirming.enqueue_trial(study.best_params, user_attrs={CONFIRMS: 4, SEED: seed})
        run(confirming, place, complete(0.5 + seed / 16))
    conclude(study, confirming, SPEC)
    write_study_record(study, place.study_dir(name))
    return study


def reopened(place, name="rates", database="new.db"):
    again = Place(place.studies_dir, f"sqlite:///{place.studies_dir / database}")
    return load_study(open_storage(again), name)


def content(trial):
    return {key: value for key, value in vars(trial).items() if key != "_trial_id"}


def everything(study):
    """All that Optuna has of a study."""
    trials = [content(trial) for trial in study.get_trials()]
    return repr((trials, study.user_attrs, study.direction, study.metric_names))


def rebuilt(place):
    rebuild(place.studies_dir, place.studies_dir / "new.db")
    return reopened(place)


def test_rebuilt_study_is_the_one_that_was_recorded(place):
    study = make_study(place)
    again = rebuilt(place)
    assert everything(again) == everything(study)
    states = [row.state for row in leaderboard(again)]
    assert sorted(states) == [
        *("base", "complete", "complete", "fail", "infeasible", "pruned", "reference")
    ]
    assert repr(leaderboard(again)) == repr(leaderboard(study))
    assert [row.confirmed for row in leaderboard(again) if row.label == "4"] == [0.59375]
    assert again.get_trials()[2].constraints == {"memory": 1.5}
    assert again.get_trials()[0].system_attrs["fixed_params"]["iters"] == 80


def test_rebuilt_database_has_the_confirming_study(place):
    make_study(place)
    rebuilt(place)
    before = load_study(open_storage(place), "rates.confirm")
    assert len(before.get_trials()) == 2
    assert everything(reopened(place, "rates.confirm")) == everything(before)
    listed = list_studies(
        open_storage(Place(place.studies_dir, f"sqlite:///{place.studies_dir}/new.db"))
    )
    assert listed == list_studies(open_storage(place))


def test_rebuilt_study_goes_on_with_the_same_spec(place):
    study = make_study(place)
    proposal = load_study(open_storage(place), "rates", SPEC).ask(distributions(SPEC.search)).params
    rebuild(place.studies_dir, place.studies_dir / "new.db")
    new = Place(place.studies_dir, f"sqlite:///{place.studies_dir / 'new.db'}")
    again, is_new = create_study(open_storage(new), new, "rates", SPEC, FINGERPRINTS)
    assert not is_new
    assert again.ask(distributions(SPEC.search)).params == proposal
    assert len(again.get_trials()) == len(study.get_trials())


def test_trial_without_a_record_is_a_failed_one_that_says_so(place):
    study = make_study(place)
    for number in (0, 3):
        (place.trial_dir("rates", number) / "trial.json").unlink()
    again = rebuilt(place)
    trials, before = again.get_trials(), study.get_trials()
    assert [trial.number for trial in trials] == list(range(5))
    for number in (0, 3):
        assert trials[number].state == TrialState.FAIL
        assert trials[number].user_attrs == {"reason": recovery.NOTHING_KEPT}
    assert [content(trials[n]) for n in (2, 4)] == [content(before[n]) for n in (2, 4)]
    # Recorded once more, it is still one study.
    record(again, place, 4)
    assert [each.n_records for each in survey(place.studies_dir)] == [4 - 1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[1, 2]",
        lambda text: text.replace('"COMPLETE"', '"DONE"'),
        lambda text: text.replace('"value": 0.5', '"value": null'),
        lambda text: text.replace('"learning_rate"', '"rate"', 1),
        lambda text: text.replace('"FloatDistribution"', '"NoDistribution"', 1),
        lambda text: text.replace('"number": 0', '"number": 6'),
        lambda text: text.replace('"datetime_start": "', '"datetime_start": "at '),
        lambda text: "\udcff",
    ],
)
def test_damaged_record_is_counted_and_ignored(place, damage):
    make_study(place)
    path = place.trial_dir("rates", 0) / "trial.json"
    text = path.read_text(encoding="utf-8")
    damaged = damage(text)
    assert damaged != text
    path.write_bytes(damaged.encode("utf-8", "surrogateescape"))
    (found,) = survey(place.studies_dir)
    assert (found.n_records, found.n_unreadable) == (4, 1)
    assert rebuilt(place).get_trials()[0].user_attrs == {"reason": recovery.NOTHING_KEPT}


def test_half_written_record_is_not_taken_for_one(place):
    make_study(place)
    path = place.trial_dir("rates", 0) / "trial.json"
    path.rename(path.with_name("~trial.json"))
    (found,) = survey(place.studies_dir)
    assert (found.n_trials, found.n_records, found.n_unreadable) == (5, 4, 0)


def test_records_of_an_earlier_study_of_the_name_are_left_out(place):
    make_study(place)
    before = place.trial_dir("rates", 4) / "trial.json"
    earlier = before.read_text(encoding="utf-8")
    for path in (place.database_path, *place.studies_dir.glob("hawsweep.db-*")):
        path.unlink()
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, "rates", SPEC, FINGERPRINTS)
    for _ in range(2):
        run(study, place, complete(0.25))
    assert before.read_text(encoding="utf-8") == earlier
    (found,) = survey(place.studies_dir)
    assert (found.n_records, found.n_unreadable, found.best_score) == (2, 3, 0.25)
    assert found.n_confirming == 0
    assert everything(rebuilt(place)) == everything(study)


@pytest.mark.parametrize("text", [None, "", '{"name": "rates"', "[]", "null"])
def test_study_whose_record_is_lost_goes_on_by_its_spec(place, text):
    study = make_study(place)
    path = place.study_dir("rates") / "study.json"
    path.unlink() if text is None else path.write_text(text)
    again = rebuilt(place)
    before = [content(trial) for trial in study.get_trials()]
    assert repr([content(trial) for trial in again.get_trials()]) == repr(before)  # NaN among them
    kept = ("spec", "versions", "description")
    assert again.user_attrs == {key: study.user_attrs[key] for key in kept}
    assert again.metric_names == study.metric_names
    new = Place(place.studies_dir, f"sqlite:///{place.studies_dir / 'new.db'}")
    assert not create_study(open_storage(new), new, "rates", SPEC, FINGERPRINTS)[1]


@pytest.mark.parametrize(
    "text", [None, "", "# not JSON\nmodel: x", "# []\nmodel: x", "model: [", "# {}"]
)
def test_study_of_which_only_trials_are_kept_is_shown(place, text):
    study = make_study(place)
    (place.study_dir("rates") / "study.json").unlink()
    path = place.study_dir("rates") / "spec.yaml"
    path.unlink() if text is None else path.write_text(text)
    again = rebuilt(place)
    assert again.user_attrs == {}
    assert len(leaderboard(again)) == len(study.get_trials())


def test_survey_says_what_each_folder_could_give_back(place):
    study = make_study(place)
    make_study(place, "another")
    adapters = place.trial_dir("rates", 1) / "adapters"
    adapters.mkdir()
    (adapters / "adapters.safetensors").write_bytes(b"weights")
    place.trial_dir("rates", 5).mkdir()  # of a trial that had not ended
    (place.studies_dir / "notes").mkdir()
    (place.studies_dir / "file.txt").write_text("")
    another, rates = survey(place.studies_dir)
    assert (another.name, another.n_trials, another.n_adapters) == ("another", 5, 0)
    assert rates == recovery.Recoverable(
        name="rates",
        n_trials=6,
        n_records=5,
        n_unreadable=0,
        n_adapters=1,
        n_confirming=2,
        best_score=0.625,
        last=study.get_trials()[4].datetime_complete,
    )


def test_study_of_which_nothing_was_recorded_is_listed(place):
    open_storage(place, create=True)
    storage = open_storage(place)
    create_study(storage, place, "rates", SPEC, FINGERPRINTS)
    (found,) = survey(place.studies_dir)
    assert (found.n_trials, found.n_records, found.best_score, found.last) == (0, 0, None, None)


def test_survey_of_a_folder_that_is_missing_is_empty(place):
    assert survey(place.studies_dir) == []


def test_studies_are_rebuilt_in_the_order_they_began(place):
    for name in ("zeta", "alpha"):
        make_study(place, name)
    assert rebuild(place.studies_dir, place.studies_dir / "new.db") == ["zeta", "alpha"]
    new = Place(place.studies_dir, f"sqlite:///{place.studies_dir / 'new.db'}")
    names = {each._study_id: each.study_name for each in open_storage(new).get_all_studies()}
    assert [names[key] for key in sorted(names)] == [
        *("zeta", "zeta.confirm", "alpha", "alpha.confirm")
    ]


def test_file_that_is_there_is_not_written_over(place):
    make_study(place)
    path = place.studies_dir / "new.db"
    path.write_text("mine")
    with pytest.raises(
        StudyError, match=r"new\.db is there already and is not written over\. Move"
    ):
        rebuild(place.studies_dir, path)
    assert path.read_text() == "mine"


def test_nothing_is_rebuilt_out_of_nothing(place):
    open_storage(place, create=True)
    path = place.studies_dir / "new.db"
    with pytest.raises(StudyError, match="Nothing can be rebuilt: no study's folder in"):
        rebuild(place.studies_dir, path)
    assert not path.exists()


def test_database_that_cannot_be_written_is_said(place):
    make_study(place)
    with pytest.raises(StudyError, match="cannot be written: No such file or directory"):
        rebuild(place.studies_dir, place.studies_dir / "nowhere" / "new.db")


def test_half_a_database_is_not_left_behind(place, monkeypatch):
    make_study(place)

    def fails(kept):
        raise KeyboardInterrupt

    monkeypatch.setattr(recovery, "_lost_trial", fails)
    (place.trial_dir("rates", 3) / "trial.json").unlink()
    with pytest.raises(KeyboardInterrupt):
        rebuild(place.studies_dir, place.studies_dir / "new.db")
    assert list(place.studies_dir.glob("new.db*")) == []


def test_full_disk_is_said_and_leaves_nothing(place, monkeypatch):
    make_study(place)

    def fails(*_):
        raise optuna.exceptions.StorageInternalError from OSError("database or disk is full")

    monkeypatch.setattr(recovery, "_add", fails)
    with pytest.raises(
        StudyError, match=r"new\.db cannot be written: database or disk is full\. Is"
    ):
        rebuild(place.studies_dir, place.studies_dir / "new.db")
    assert list(place.studies_dir.glob("new.db*")) == []


def test_rebuilding_changes_nothing_that_is_there(place):
    make_study(place)

    def files():
        # Not the database: SQLite writes to it when this process closes it.
        paths = [p for p in place.studies_dir.rglob("*") if "hawsweep.db" not in p.name]
        return {path: path.read_bytes() for path in paths if path.is_file()}

    before = files()
    rebuild(place.studies_dir, place.studies_dir / "new.db")
    after = files()
    assert after.pop(place.studies_dir / "new.db")
    assert after == before


def test_trial_that_ends_before_the_first_has_begun_is_recorded(place):
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, "rates", SPEC, FINGERPRINTS)
    study.enqueue_trial({"iters": 80})
    trial = optuna.trial.create_trial(state=TrialState.FAIL, user_attrs={"reason": "x"})
    study.add_trial(trial)
    record(study, place, 1)
    assert [t.state for t in rebuilt(place).get_trials()] == [TrialState.FAIL] * 2


def test_record_is_plain_json_with_the_names_of_optuna(place):
    make_study(place)
    kept = json.loads((place.trial_dir("rates", 4) / "trial.json").read_text(encoding="utf-8"))
    assert (kept["number"], kept["state"], kept["value"]) == (4, "COMPLETE", 0.625)
    assert kept["distributions"]["iters"]["attributes"]["step"] == 40
    assert kept["system_attrs"]["constraints:memory"] == 0.0
    assert kept["intermediate_values"] == {"20": -0.1, "40": -0.05}


def test_reading_records_does_without_mlx():
    code = "import sys; import hawsweep.recovery; print([m for m in sys.modules if m[:3] == 'mlx'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
