import os
import shutil
import sqlite3
import subprocess
import threading
from contextlib import closing

import pytest

from hawsweep.errors import StudyError
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.study import backup
from hawsweep.study.backup import (
    Backups,
    back_up,
    backup_path,
    check_database_not_lost,
    check_trials_not_lost,
    restore_command,
)
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study, load_study

SPEC = check_sweep(
    {
        "model": "some/model",
        "data": "phrasebook",
        "search": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
    },
    "a sweep",
)


def make_study(place, name="rates", n_trials=3):
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, name, SPEC, {})
    for _ in range(n_trials):
        add_trial(study)
    return study


def add_trial(study):
    trial = study.ask(distributions(SPEC.search))
    trial.set_user_attr("val_loss", 2.0)
    trial.report(-2.0, 20)
    study.tell(trial, 0.5)


def content(study):
    """All that Optuna has of a study but the ids."""
    trials = [{**vars(each), "_trial_id": None} for each in study.get_trials()]
    return repr((trials, study.user_attrs, study.direction, study.metric_names))


def close(study):
    study._storage._backend.remove_session()
    study._storage._backend.engine.dispose()


def of_backup(place):
    path = backup_path(place.database_path)
    return load_study(open_storage(Place(place.studies_dir, f"sqlite:///{path}")), "rates")


@pytest.fixture
def clock(monkeypatch):
    """Time as ``recovery`` reads it; stands still unless moved."""

    class Clock:
        now = 1000.0

    monkeypatch.setattr(backup.time, "monotonic", lambda: Clock.now)
    return Clock


def test_backup_of_a_database_in_use_has_everything_in_one_file(place):
    study = make_study(place)
    assert place.database_path.with_name("hawsweep.db-wal").stat().st_size > 0
    back_up(place.database_path)
    names = sorted(path.name for path in place.studies_dir.glob("*hawsweep*"))
    assert names == ["hawsweep.db", "hawsweep.db-shm", "hawsweep.db-wal", "hawsweep.db.backup"]
    assert content(of_backup(place)) == content(study)


def test_backup_is_made_while_another_process_writes(place):
    make_study(place)
    with closing(sqlite3.connect(place.database_path, isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE trials SET number = 100")
        back_up(place.database_path)
    assert [each.number for each in of_backup(place).get_trials()] == [0, 1, 2]


def test_database_that_is_locked_keeps_its_last_backup(place, monkeypatch):
    monkeypatch.setattr(backup, "_BUSY_TIMEOUT_S", 0.05)
    study = make_study(place)
    back_up(place.database_path)
    before = backup_path(place.database_path).read_bytes()
    add_trial(study)
    close(study)
    with closing(sqlite3.connect(place.database_path)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            back_up(place.database_path)
    assert backup_path(place.database_path).read_bytes() == before


def test_damaged_database_keeps_its_last_backup(place):
    study = make_study(place, n_trials=40)
    back_up(place.database_path)
    close(study)
    before = backup_path(place.database_path).read_bytes()
    middle = len(before) // 2 // 4096 * 4096
    with place.database_path.open("r+b") as file:
        file.seek(middle)
        file.write(b"\xa5" * 4096)
    with pytest.raises(sqlite3.DatabaseError):
        back_up(place.database_path)
    assert backup_path(place.database_path).read_bytes() == before
    assert [path for path in place.studies_dir.iterdir() if path.name.startswith("~")] == []


def test_database_that_is_gone_keeps_its_last_backup(place):
    study = make_study(place)
    back_up(place.database_path)
    close(study)
    place.database_path.unlink()
    backups = Backups(place)
    backups.make()
    assert not place.database_path.exists()
    assert len(of_backup(place).get_trials()) == 3


def test_backups_have_seconds_between_them_and_none_is_forgotten(place, clock):
    study, backups = make_study(place), Backups(place)
    path = backup_path(place.database_path)
    backups.look()
    assert not path.exists()
    backups.note_change()
    backups.look()
    assert len(of_backup(place).get_trials()) == 3
    add_trial(study)
    backups.note_change()
    clock.now += 4.9
    backups.look()
    assert len(of_backup(place).get_trials()) == 3
    clock.now += 0.2
    backups.look()
    assert len(of_backup(place).get_trials()) == 4
    made = path.stat().st_mtime_ns
    clock.now += 100
    backups.look()
    assert path.stat().st_mtime_ns == made  # nothing was new
    add_trial(study)
    backups.make()
    assert len(of_backup(place).get_trials()) == 5


def test_backups_that_take_long_are_rarer(place, clock, monkeypatch):
    made = []

    def slow(_):
        made.append(clock.now)
        clock.now += 2.0

    monkeypatch.setattr(backup, "back_up", slow)
    backups = Backups(place)
    for _ in range(100):
        backups.note_change()
        backups.look()
        clock.now += 1.0
    assert made == [1000.0, 1042.0, 1084.0]  # 2 s each, and 20 times that between them


def test_full_disk_ends_no_sweep(place, monkeypatch):
    make_study(place)

    def fails(_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(backup, "back_up", fails)
    Backups(place).make()


def test_database_on_a_server_has_no_backup(tmp_path, monkeypatch):
    monkeypatch.setattr(backup, "back_up", lambda _: pytest.fail("it was backed up"))
    backups = Backups(Place(tmp_path, "postgresql://h/x"))
    backups.note_change()
    backups.look()
    backups.make()


def test_two_processes_that_back_up_at_once_leave_a_whole_backup(place, monkeypatch):
    study = make_study(place)
    numbers = iter(range(1000))
    monkeypatch.setattr(os, "getpid", lambda: next(numbers))  # as in several processes
    threads = [
        threading.Thread(target=lambda: [back_up(place.database_path) for _ in range(10)])
        for _ in range(3)
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert content(of_backup(place)) == content(study)


def run_shell(command):
    subprocess.run(command, shell=True, check=True)


@pytest.mark.parametrize("folder", ["studies", "my studies"])
@pytest.mark.parametrize("is_there", [True, False])
def test_backup_is_put_back_by_its_command(tmp_path, folder, is_there):
    place = Place(tmp_path / folder)
    study = make_study(place)
    back_up(place.database_path)
    saved = content(study)
    add_trial(study)
    for end in ("-wal", "-shm"):  # as a killed process leaves them
        there = f"{place.database_path}{end}"
        shutil.copy(there, f"{there}.kept")
    close(study)
    for end in ("-wal", "-shm"):
        there = f"{place.database_path}{end}"
        os.replace(f"{there}.kept", there)
    place.database_path.write_bytes(b"x" * 5000)
    if not is_there:
        place.database_path.unlink()
    run_shell(restore_command(place.database_path))
    assert content(load_study(open_storage(place), "rates")) == saved
    assert backup_path(place.database_path).exists()
    aside = place.database_path.with_name("hawsweep.db.damaged")
    assert aside.exists() == is_there
    assert aside.with_name("hawsweep.db-wal.damaged").exists()
    again, is_new = create_study(open_storage(place, create=True), place, "rates", SPEC, {})
    assert (is_new, len(again.get_trials())) == (False, 3)


def test_restore_command_says_only_what_is_needed(tmp_path):
    database = tmp_path / "hawsweep.db"
    assert restore_command(database) == f"cp {database}.backup {database}"
    database.write_bytes(b"")
    assert restore_command(database) == (
        f"mv {database} {database}.damaged && cp {database}.backup {database}"
    )


@pytest.mark.parametrize("left", [None, b""])
def test_no_database_is_made_where_one_was_lost(place, left):
    check_database_not_lost(place)
    study = make_study(place)
    check_database_not_lost(place)
    back_up(place.database_path)
    check_database_not_lost(place)
    close(study)
    place.database_path.unlink()
    if left is not None:
        place.database_path.write_bytes(left)
    missing = r"hawsweep\.db is missing, but its backup exists"
    with pytest.raises(StudyError, match=missing) as caught:
        check_database_not_lost(place)
    run_shell(str(caught.value).split("`")[1])
    check_database_not_lost(place)
    assert len(load_study(open_storage(place), "rates").get_trials()) == 3
    check_database_not_lost(Place(place.studies_dir, "postgresql://h/x"))


def test_study_is_not_begun_anew_over_the_folders_of_trials(place):
    check_trials_not_lost("rates", place)
    (place.study_dir("rates") / "trials").mkdir(parents=True)
    check_trials_not_lost("rates", place)  # of a start that failed
    for number in range(2):
        place.trial_dir("rates", number).mkdir()
    check_trials_not_lost("others", place)
    with pytest.raises(StudyError) as caught:
        check_trials_not_lost("rates", place)
    assert str(caught.value) == (
        f"{place.study_dir('rates')} has files of 2 trials, but the database has no such study. "
        "Move that folder away, or start under another name with --study."
    )
    backup_path(place.database_path).touch()
    with pytest.raises(StudyError, match=r"hawsweep\.db\.backup may know it: `hawsweep doctor "):
        check_trials_not_lost("rates", place)
