"""What a running study needs is removed, replaced or moved; folders are left without a study."""

import json
import re
import sqlite3

import optuna
import pytest
from click.testing import CliRunner
from vanishing import OF_DATABASE, OF_FOLDERS, OF_STUDY, WAYS

from hawsweep.cli import main
from hawsweep.errors import StudyError, StudyGoneError
from hawsweep.spec.read import check_sweep
from hawsweep.study.backup import back_up
from hawsweep.study.optuna_door import storage_of, trial_id
from hawsweep.study.place import Place
from hawsweep.study.presence import Presence, watching
from hawsweep.study.storage import confirm_name, is_storage_fault, open_storage, storage_faults_told
from hawsweep.study.study import create_study

SWEEP = {
    "model": "some/model",
    "data": "phrasebook",
    "search": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
}


@pytest.fixture
def begun(place):
    """A study as it is when its workers start, and one that confirms it."""
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, "tiny", check_sweep(SWEEP, "a sweep"), {})
    return study, optuna.create_study(storage=storage, study_name=confirm_name("tiny"))


@pytest.fixture
def presence(place, begun):
    made = Presence(place, "tiny")
    made.add_studies(*begun)
    yield made
    made.close()


def test_study_that_nothing_happens_to_is_there(presence, begun, place):
    begun[0].set_user_attr("key", 1)
    begun[0].enqueue_trial({"learning_rate": 1e-4})
    back_up(place.database_path)
    (place.study_dir("tiny") / "trials" / "0000").mkdir()
    presence.check()


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_study_of_which_something_vanished_is_gone(presence, place, way):
    way(place.studies_dir)
    with pytest.raises(StudyGoneError, match=r"while the sweep ran.* The sweep has stopped\. "):
        presence.check()


@pytest.mark.parametrize("way", (OF_DATABASE | OF_FOLDERS).values(), ids=OF_DATABASE | OF_FOLDERS)
def test_files_are_looked_at_without_the_database(presence, place, way):
    way(place.studies_dir)
    with pytest.raises(StudyGoneError):
        presence.check_files()


def test_folder_that_is_moved_and_linked_is_still_there(presence, place, tmp_path):
    folder = place.study_dir("tiny")
    folder.rename(tmp_path / "larger-disk")
    folder.symlink_to(tmp_path / "larger-disk")
    presence.check()


def test_removed_database_is_named_with_what_is_kept(presence, place):
    back_up(place.database_path)
    place.database_path.unlink()
    assert str(presence.fault()) == (
        f"{place.database_path} was removed or moved while the sweep ran. The sweep has stopped. "
        f"These are kept: {place.study_dir('tiny')}, {place.database_path}.backup. "
        "Put it back, then go on with the same command."
    )


def test_replaced_folder_is_named_with_what_is_kept(presence, place):
    OF_FOLDERS["study's folder made anew"](place.studies_dir)
    assert str(presence.fault()) == (
        f"{place.study_dir('tiny')} was replaced by another while the sweep ran. The sweep has "
        f"stopped. These are kept: {place.database_path}. Put the former one back, or go on with "
        "this one: by the same command."
    )


def test_moved_studies_leave_nothing(presence, place):
    OF_FOLDERS["studies moved"](place.studies_dir)
    assert "Nothing is left where it was. Put it back" in str(presence.fault())


def test_deleted_study_is_named_with_the_backup_that_has_it(presence, place):
    back_up(place.database_path)
    OF_STUDY["study deleted"](place.studies_dir)
    fault = str(presence.fault())
    assert fault.startswith("Study 'tiny' was deleted from the database while the sweep ran, for ")
    assert f"The backup has the study: move {place.database_path} and the files" in fault
    assert "copy hawsweep.db.backup to hawsweep.db. Then go on" in fault


@pytest.mark.parametrize("content", [None, b"", b"no database", "earlier"])
def test_backup_without_the_deleted_study_is_not_offered(presence, place, content):
    backup = place.database_path.with_name("hawsweep.db.backup")
    if content == "earlier":
        sqlite3.connect(backup).execute("CREATE TABLE studies (study_name)")
    elif content is not None:
        backup.write_bytes(content)
    OF_STUDY["study deleted"](place.studies_dir)
    assert f"Move {place.study_dir('tiny')} away before you start it anew" in str(presence.fault())


def test_database_elsewhere_is_known_by_its_studies_alone(tmp_path):
    # As with PostgreSQL there is no file to compare.
    place = Place(tmp_path / "studies", f"sqlite:///file:{tmp_path / 'x.db'}?uri=true")
    assert place.database_path is None
    storage = open_storage(place)
    study, _ = create_study(storage, place, "tiny", check_sweep(SWEEP, "a sweep"), {})
    with watching(place, "tiny") as presence:
        presence.add_studies(study)
        presence.check()
    presence.add_studies(study)
    optuna.delete_study(study_name="tiny", storage=storage)
    assert "Study 'tiny' was deleted" in str(presence.fault())


@pytest.mark.parametrize("fault", [KeyError("x"), OSError("x"), StudyError("x"), None], ids=repr)
def test_what_vanished_is_said_in_place_of_what_followed(place, begun, fault):
    def run():
        with watching(place, "tiny"):
            place.database_path.unlink()
            if fault is not None:
                raise fault

    with pytest.raises(StudyGoneError):
        run()


def test_other_faults_are_not_hidden(place, begun):
    with pytest.raises(ZeroDivisionError), watching(place, "tiny"):
        _ = 1 / 0


def test_locked_database_is_not_taken_for_a_deleted_study(place, begun, monkeypatch):
    def locked(*_):
        raise sqlite3.OperationalError("database is locked")

    presence = Presence(place, "tiny")
    presence.add_studies(*begun)
    monkeypatch.setattr(type(storage_of(begun[0])), "get_study_id_from_name", locked)
    assert presence.fault() is None
    presence.close()


# What a sweep asks of a study, by the study, a trial that runs, and its storage.
ASKS = {
    "user_attrs": lambda study, _: study.user_attrs,
    "set_user_attr": lambda study, _: study.set_user_attr("a", 1),
    "get_trials": lambda study, _: study.get_trials(deepcopy=False),
    "enqueue_trial": lambda study, _: study.enqueue_trial({}),
    "ask": lambda study, _: study.ask(),
    "tell": lambda study, trial: study.tell(trial, 1.0),
    "report": lambda _, trial: trial.report(1.0, 1),
    "trial.set_user_attr": lambda _, trial: trial.set_user_attr("a", 1),
    "suggest": lambda _, trial: trial.suggest_float("b", 0, 1),
    "should_prune": lambda study, trial: should_prune(study, trial),
    "set_constraint": lambda _, trial: trial.set_constraint("c", 0.0),
    "set_trial_state": lambda study, trial: storage_of(study).set_trial_state_values(
        trial_id(trial), optuna.trial.TrialState.FAIL
    ),
}


def should_prune(study, trial):
    study.pruner = optuna.pruners.MedianPruner()  # without one nothing is looked up
    return trial.should_prune()


def delete_study(place):
    storage = open_storage(place)
    optuna.delete_study(study_name="tiny", storage=storage)


def delete_trials(place):
    with sqlite3.connect(place.database_path) as connection:
        connection.execute("DELETE FROM trials")


OF_TRIALS = (
    "tell",
    "report",
    "trial.set_user_attr",
    "suggest",
    "set_constraint",
    "set_trial_state",
)


@pytest.mark.parametrize(
    ("ask", "delete"),
    [(ASKS[name], delete_study) for name in ASKS] + [(ASKS[n], delete_trials) for n in OF_TRIALS],
    ids=[*ASKS, *(f"{name} of a deleted trial" for name in OF_TRIALS)],
)
def test_what_storage_raises_for_what_was_deleted_is_one_sentence(place, begun, ask, delete):
    study, _ = begun
    trial = study.ask()
    delete(place)
    with pytest.raises(StudyError) as caught, storage_faults_told(place):
        ask(study, trial)
    assert str(caught.value) == (
        f"{place.database_path} cannot be used: Record does not exist. "
        "Finished trials are kept; the same command goes on."
    )


def test_faults_of_others_are_not_the_storages():
    for fault in (KeyError("x"), MemoryError(), StudyError("x"), ValueError("optuna.storages")):
        assert not is_storage_fault(fault)
        with pytest.raises(type(fault)), storage_faults_told(Place()):
            raise fault


def said(*arguments):
    done = CliRunner().invoke(main, [*arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, " ".join(done.output.split())


LEFT = "has folders of studies that are in no database: tiny."
# A backup may be there; or the one study without a folder may be that of the one without a study.
HELP = (
    r"`hawsweep doctor --studies-dir=\S+` shows whether a backup can be restored\."
    r"|has no folder: if it was renamed, move that folder: `mv \S+/tiny \S+`\."
)


def other_database(studies):
    for end in ("wal", "shm"):  # else SQLite would apply them to the other one
        (studies / f"hawsweep.db-{end}").unlink()
    OF_DATABASE["database of others"](studies)


LOSSES = {
    "database removed": OF_DATABASE["database removed"],
    "database of others": other_database,
    "study deleted": OF_STUDY["study deleted"],
}


@pytest.fixture(params=LOSSES)
def orphaned(request, place, begun):
    """A folder of studies with one whose study is lost."""
    LOSSES[request.param](place.studies_dir)
    return f"--studies-dir={place.studies_dir}"


def test_list_names_folders_without_a_study(orphaned):
    code, text = said("list", orphaned)
    assert code == 0
    assert LEFT in text
    assert re.search(HELP, text)
    assert "No studies yet" not in text
    assert json.loads(said("list", "--json", orphaned)[1])["folders_without_study"] == ["tiny"]


def test_status_of_a_lost_study_names_its_folder(orphaned):
    code, text = said("status", "tiny", orphaned)
    assert code == 1
    assert LEFT in text
    assert re.search(HELP, text)
    assert "Start one" not in text


@pytest.mark.parametrize("loss", ["database removed", "study deleted"])
def test_status_of_the_newest_of_lost_studies_names_the_folder(place, begun, loss):
    LOSSES[loss](place.studies_dir)
    code, text = said("status", f"--studies-dir={place.studies_dir}")
    assert code == 1
    assert LEFT in text
    assert "Start one" not in text


def test_list_names_a_backup_without_its_database(place, begun):
    back_up(place.database_path)
    place.database_path.unlink()
    _, text = said("list", f"--studies-dir={place.studies_dir}")
    assert f"{place.database_path} is missing, but its backup exists." in text


def test_list_of_whole_studies_speaks_of_no_loss(place, begun):
    (place.studies_dir / "notes").mkdir()
    _, text = said("list", f"--studies-dir={place.studies_dir}")
    assert "in no database" not in text


def test_list_of_nothing_says_how_to_start(tmp_path):
    assert "No studies yet. Start one" in said("list", f"--studies-dir={tmp_path}")[1]
