import os
import sqlite3
import traceback
import warnings
from contextlib import closing

import optuna
import pytest
from optuna.pruners import MedianPruner, NopPruner, PercentilePruner
from optuna.trial import create_trial

from hawsweep.errors import StudyError
from hawsweep.spec.read import check_sweep
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, make_pruner


def sweep(**changes):
    content = {
        "model": "some/model",
        "data": "phrasebook",
        "search": {
            "learning_rate": {"low": 1e-5, "high": 1e-3, "log": True},
            "lora_parameters.rank": {"choices": [4, 8, 16]},
        },
    }
    return check_sweep({**content, **changes}, "a sweep")


def make_study(place, name="rates", spec=None):
    storage = open_storage(place, create=True)
    return create_study(storage, place, name, spec or sweep(), {})[0]


def fault_of(place, **options):
    with pytest.raises(StudyError) as caught:
        open_storage(place, **options)
    return str(caught.value)


def test_database_is_in_wal_mode(place):
    make_study(place)
    with closing(sqlite3.connect(place.database_path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_database_waits_for_a_writer_instead_of_failing(place):
    make_study(place)
    storage = open_storage(place)
    with storage.engine.connect() as connection:
        (timeout_ms,) = connection.exec_driver_sql("PRAGMA busy_timeout").fetchone()
    assert timeout_ms >= 10_000


def test_creating_a_study_warns_of_nothing(place):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Of tests before this one, which may be collected now.
        warnings.filterwarnings("ignore", "unclosed database", ResourceWarning)
        make_study(place)


def test_missing_database_says_how_to_start(place):
    fault = fault_of(place)
    assert f"There are no studies in {place.studies_dir}" in fault
    assert "Start one: hawsweep start NAME" in fault
    assert not place.studies_dir.exists()


@pytest.mark.parametrize("create", [True, False])
def test_file_that_is_no_database_is_refused_and_left_as_it_is(place, create):
    place.studies_dir.mkdir()
    content = b"These are notes, not a database. " * 100
    place.database_path.write_bytes(content)
    fault = fault_of(place, create=create)
    assert f"{place.database_path} is not a usable SQLite database" in fault
    doctor = place.command("doctor")
    assert f"It is unchanged. `{doctor}` shows whether a backup can be restored" in fault
    assert place.database_path.read_bytes() == content


def test_damaged_database_is_refused_and_left_as_it_is(place):
    storage = open_storage(place, create=True)
    create_study(storage, place, "rates", sweep(), {})
    storage.remove_session()
    storage.engine.dispose()
    content = bytearray(place.database_path.read_bytes())
    page = 4096
    content[page : len(content) // 2] = b"\xa5" * (len(content) // 2 - page)
    place.database_path.write_bytes(content)
    assert "is not a usable SQLite database" in fault_of(place)
    assert place.database_path.read_bytes() == content


def test_database_of_another_program_is_left_as_it_is(place):
    place.studies_dir.mkdir()
    with closing(sqlite3.connect(place.database_path)) as connection:
        connection.execute("CREATE TABLE version_info (notes TEXT)")
        connection.execute("INSERT INTO version_info VALUES ('mine')")
        connection.commit()
    assert f"{place.database_path} has no studies yet" in fault_of(place)
    assert f"{place.database_path} cannot be opened" in fault_of(place, create=True)
    with closing(sqlite3.connect(place.database_path)) as connection:
        assert connection.execute("SELECT * FROM version_info").fetchall() == [("mine",)]


def test_folder_in_place_of_the_database_is_refused(place):
    place.database_path.mkdir(parents=True)
    assert "is a folder, must be a database" in fault_of(place, create=True)


def test_studies_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    fault = fault_of(Place(tmp_path / "file" / "studies"), create=True)
    assert "cannot be made: Not a directory. Choose another --studies-dir" in fault


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_folder_is_refused(place):
    place.studies_dir.mkdir()
    place.studies_dir.chmod(0o500)
    fault = fault_of(place, create=True)
    assert "cannot be written. Correct its permissions" in fault


def test_study_folder_that_cannot_be_written_makes_no_study(place):
    storage = open_storage(place, create=True)
    place.study_dir("rates").write_text("")
    with pytest.raises(StudyError, match=r"cannot be written: .*Choose another --studies-dir"):
        create_study(storage, place, "rates", sweep(), {})
    assert optuna.get_all_study_names(storage) == []


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@127.0.0.1:1/none",
        "nonsense://me:s3cret@host/none",
        "s3cret",
        "postgresql://me:a@s3cret@127.0.0.1:1/none",
        "postgresql://me:a@b:s3cret@127.0.0.1:1/none",
        "postgresql://me:s3cret/none",
        "sqlite://me:s3cret@host/none",
        "sqlite://me@host/none?password=s3cret",
        "sqlite://me@host/none?password=s3cret%20s3cret",
    ],
)
def test_storage_that_cannot_be_reached_is_refused_without_its_password(tmp_path, url):
    place = Place(tmp_path, url)
    with pytest.raises(StudyError) as caught:
        open_storage(place)
    assert str(caught.value).startswith("the database given as storage cannot be opened: ")
    assert "s3cret" not in "".join(traceback.format_exception(caught.value)) + repr(place)


def test_path_of_a_database_that_cannot_be_reached_is_not_hidden(tmp_path):
    url = f"sqlite:///{tmp_path}/nowhere/x.db"
    assert f"{tmp_path}/nowhere/x.db is missing" in fault_of(Place(tmp_path, url))


def test_password_is_written_nowhere(tmp_path):
    url = f"sqlite:///file:{tmp_path / 'x.db'}?uri=true&password=s3cret"
    study = make_study(Place(tmp_path / "studies", url))
    study.add_trial(create_trial(value=1))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {"x.db", "spec.yaml"} <= {path.name for path in files}
    assert not any(b"s3cret" in path.read_bytes() for path in files)


def test_storage_url_is_used_in_place_of_the_folders_database(tmp_path):
    place = Place(tmp_path / "studies", f"sqlite:///{tmp_path / 'other.db'}")
    make_study(place)
    assert (tmp_path / "other.db").exists()
    assert not (tmp_path / "studies" / "hawsweep.db").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("median", MedianPruner), ("percentile", PercentilePruner), ("none", NopPruner)],
)
def test_pruner_is_made_by_name(name, kind):
    assert type(make_pruner(sweep(pruning={"name": name}))) is kind


@pytest.mark.parametrize(("loss", "is_pruned"), [(2.5, True), (1.5, False)])
def test_pruner_ends_what_is_behind_in_validation_loss(place, loss, is_pruned):
    spec = sweep(pruning={"name": "median", "n_startup_trials": 3, "n_warmup_steps": 20})
    study = make_study(place, spec=spec)
    study.pruner = make_pruner(spec)
    for earlier in (1.0, 2.0, 3.0):
        trial = study.ask()
        for step in (20, 40):
            trial.report(-earlier, step)
        study.tell(trial, 0.5)
    trial = study.ask()
    trial.report(-9.0, 10)
    assert not trial.should_prune()  # warming up
    trial.report(-loss, 40)
    assert bool(trial.should_prune()) == is_pruned


def test_reader_of_a_database_that_is_being_made_makes_no_tables(place):
    place.studies_dir.mkdir()
    with closing(sqlite3.connect(place.database_path)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")  # as a start does before all else
        assert "If a start is just making it, try again" in fault_of(place)
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
