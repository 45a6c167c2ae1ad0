import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime

import pytest
from click.testing import CliRunner
from optuna.trial import TrialState

from hawsweep.cli import main
from hawsweep.prepare.examine_database import examine, versions_of_studies
from hawsweep.search.distributions import distributions
from hawsweep.spec.read import check_sweep
from hawsweep.study.backup import back_up, backup_path
from hawsweep.study.place import Place
from hawsweep.study.provenance import versions
from hawsweep.study.storage import open_storage
from hawsweep.study.study import create_study

SPEC = check_sweep(
    {
        "model": "some/model",
        "data": "phrasebook",
        "search": {"learning_rate": {"low": 1e-5, "high": 1e-3, "log": True}},
    },
    "a sweep",
)
N_TRIALS = 40  # enough for several pages of a table
PAGE = 4096


@pytest.fixture(scope="module")
def studies_dir(tmp_path_factory):
    """The study ``rates`` with trials, the last of them failed, and ``new`` without any."""
    place = Place(tmp_path_factory.mktemp("made") / "studies")
    storage = open_storage(place, create=True)
    study, _ = create_study(storage, place, "rates", SPEC, {})
    create_study(storage, place, "new", SPEC, {})
    for number in range(N_TRIALS):
        trial = study.ask(distributions(SPEC.search))
        failed = number == N_TRIALS - 1
        study.tell(
            trial,
            None if failed else number / 64,
            state=TrialState.FAIL if failed else TrialState.COMPLETE,
        )
        place.trial_dir("rates", number).mkdir()
    back_up(place.database_path)
    storage.remove_session()
    storage.engine.dispose()
    return place.studies_dir


@pytest.fixture
def made(studies_dir, place):
    """Where a test finds a copy of these studies."""
    shutil.copytree(studies_dir, place.studies_dir)
    return place


def damage(place, change):
    """Changes the bytes of the database; gives the new ones."""
    content = place.database_path.read_bytes()
    changed = bytes(change(bytearray(content)))
    assert changed != content
    place.database_path.write_bytes(changed)
    return changed


def overwritten(content, start, end):
    content[start:end] = b"\xa5" * (end - start)
    return content


def middle_page(content):
    start = len(content) // 2 // PAGE * PAGE
    return overwritten(content, start, start + PAGE)


DAMAGES = {
    "truncated": (lambda content: content[: len(content) // 2], "damaged"),
    "truncated within a page": (lambda content: content[: 3 * PAGE + 77], "damaged"),
    "truncated within the header": (lambda content: content[:40], "damaged"),
    "header overwritten": (lambda content: overwritten(content, 0, 100), "not SQLite"),
    "first page overwritten but for its name": (
        lambda content: overwritten(content, 16, PAGE),
        "damaged",
    ),
    "page in the middle": (middle_page, "damaged"),
    "empty": (lambda content: b"", "not SQLite"),
    "text": (lambda content: b"These are notes, not a database.\n" * 300, "not SQLite"),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damage_is_found_and_the_backup_put_back_as_it_says(made, how):
    change, state = DAMAGES[how]
    content = damage(made, change)
    found = examine(made)
    assert found.database.state == state
    assert found.database.detail != ""
    assert not found.is_fine
    assert found.backup.studies == {"new": {}, "rates": {"complete": N_TRIALS - 1, "fail": 1}}
    assert made.database_path.read_bytes() == content
    subprocess.run(found.restore, shell=True, check=True)
    after = examine(made)
    assert after.is_fine
    assert after.database.studies == found.backup.studies
    assert after.restore is None
    assert (made.studies_dir / "hawsweep.db.damaged").read_bytes() == content


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_backup_is_said_and_not_put_back(made, how):
    change, state = DAMAGES[how]
    damage(made, change)
    shutil.copy(made.database_path, backup_path(made.database_path))
    found = examine(made)
    assert (found.backup.state, found.restore) == (state, None)


def test_fine_database_is_counted_and_left_as_it_is(made):
    content = made.database_path.read_bytes()
    found = examine(made)
    assert (found.database.state, found.database.detail, found.is_fine) == ("fine", "", True)
    assert found.database.studies == {"new": {}, "rates": {"complete": N_TRIALS - 1, "fail": 1}}
    assert (found.n_trial_dirs, found.restore) == (N_TRIALS, None)
    assert made.database_path.read_bytes() == content


def test_database_that_a_sweep_writes_to_is_fine(made):
    with closing(sqlite3.connect(made.database_path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE studies SET study_name = 'other' WHERE study_name = 'new'")
        assert examine(made).database.state == "fine"


def test_missing_database_before_the_first_study_is_fine(place):
    found = examine(place)
    assert (found.database.state, found.is_fine) == ("missing", True)
    assert not place.studies_dir.exists()


def test_missing_database_is_put_back(made):
    made.database_path.unlink()
    found = examine(made)
    assert (found.database.state, found.is_fine) == ("missing", False)
    subprocess.run(found.restore, shell=True, check=True)
    assert examine(made).is_fine


def test_missing_database_of_trials_that_have_folders_is_not_fine(made):
    made.database_path.unlink()
    backup_path(made.database_path).unlink()
    found = examine(made)
    assert (found.database.state, found.backup, found.is_fine) == ("missing", None, False)
    assert (found.n_trial_dirs, found.restore) == (N_TRIALS, None)


def test_locked_database_is_said_and_not_replaced(made, monkeypatch):
    monkeypatch.setattr("hawsweep.prepare.examine_database._BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(made.database_path)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        found = examine(made)
        assert (found.database.state, found.restore) == ("locked", None)
    assert examine(made).is_fine


def test_database_of_another_program_is_said(place):
    place.studies_dir.mkdir()
    with closing(sqlite3.connect(place.database_path)) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    shutil.copy(place.database_path, backup_path(place.database_path))
    found = examine(place)
    assert (found.database.state, found.restore) == ("foreign", None)


def test_folder_in_place_of_the_database_is_said(place):
    place.database_path.mkdir(parents=True)
    found = examine(place).database
    assert (found.state, found.detail) == ("not readable", "Is a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_database_that_may_not_be_read_is_said(made):
    made.database_path.chmod(0)
    found = examine(made).database
    assert (found.state, found.detail) == ("not readable", "Permission denied")


def test_database_given_as_storage_is_examined(made):
    there = Place(made.studies_dir, f"sqlite:///{made.database_path}")
    found = examine(there).database
    assert (found.where, found.state) == (str(made.database_path), "fine")
    assert found.studies == examine(made).database.studies
    gone = Place(made.studies_dir, "postgresql://me:s3cret@127.0.0.1:1/none")
    found = examine(gone)
    assert (found.database.state, found.is_fine) == ("not readable", False)
    assert "s3cret" not in found.database.detail
    assert (found.backup, found.restore) == (None, None)


def test_versions_of_studies_are_read_and_nothing_is_changed(made):
    content = made.database_path.read_bytes()
    expected = {"new": versions(), "rates": versions()}
    assert versions_of_studies(made, examine(made).database) == expected
    assert made.database_path.read_bytes() == content
    there = Place(made.studies_dir, f"sqlite:///{made.database_path}?timeout=5")
    assert versions_of_studies(there, examine(there).database) == expected
    made.database_path.write_bytes(b"")
    assert versions_of_studies(made, examine(made).database) == {}
    assert made.database_path.read_bytes() == b""


def doctor(place, *options):
    """Without what measures and trains; that is test_examination's."""
    options = ["--quick", "--studies-dir", str(place.studies_dir), *options]
    return CliRunner().invoke(main, ["doctor", *options], env={"COLUMNS": "200"})


def test_command_says_what_is_fine_with_exit_code_0(made):
    done = doctor(made)
    assert done.exit_code == 0
    head, backup, _, *table = done.output.splitlines()
    assert head == f"{made.database_path}: fine"
    made_at = datetime.fromtimestamp(int(backup_path(made.database_path).stat().st_mtime))
    assert backup == f"{made.database_path}.backup: fine, made {made_at:%Y-%m-%d %H:%M:%S}"
    assert [line.split() for line in table[:3]] == [
        ["study", "in", "the", "database", "in", "its", "backup"],
        ["new", "no", "trials", "no", "trials"],
        ["rates", *["39", "complete,", "1", "fail"] * 2],
    ]


def test_command_says_what_is_wrong_with_exit_code_1_and_what_to_do(made):
    damage(made, middle_page)
    done = doctor(made)
    assert done.exit_code == 1
    assert f"{made.database_path}: damaged: " in done.output
    lines = done.output.splitlines()
    intro = lines.index("To restore the backup, end all processes that use the database, then run:")
    subprocess.run(lines[intro + 1].strip(), shell=True, check=True)
    assert doctor(made).exit_code == 0


def test_command_says_where_there_is_no_backup(made):
    backup_path(made.database_path).unlink()
    damage(made, lambda content: b"")
    done = doctor(made)
    assert done.exit_code == 1
    assert "hawsweep.db: not SQLite: it is empty" in done.output
    assert "There is no usable backup of it." in done.output
    made.database_path.unlink()
    missing = doctor(made)
    assert missing.exit_code == 1
    assert "There is no usable backup of it." in missing.output


def test_rebuild_says_what_to_do_instead(made):
    done = doctor(made, "--rebuild")
    assert done.exit_code == 2
    assert "--rebuild is gone: the database has a backup beside it; `hawsweep doctor`" in (
        " ".join(done.output.split())
    )
    assert "--rebuild" not in doctor(made, "--help").output


def test_command_before_the_first_study_says_how_to_start(place):
    done = doctor(place)
    assert done.exit_code == 0
    assert "missing: the first start makes it" in done.output
    assert "hawsweep start NAME" in done.output


def test_command_gives_json(made):
    fine = json.loads(doctor(made, "--json").output)
    assert fine["is_fine"] is True
    assert fine["database"]["studies"]["rates"] == {"complete": N_TRIALS - 1, "fail": 1}
    assert fine["backup"]["studies"] == fine["database"]["studies"]
    assert fine["restore"] is None
    damage(made, middle_page)
    done = doctor(made, "--json")
    said = json.loads(done.output)
    assert (done.exit_code, said["database"]["state"]) == (1, "damaged")
    subprocess.run(said["restore"], shell=True, check=True)
    assert json.loads(doctor(made, "--json").output)["is_fine"] is True


def test_command_does_without_mlx(place):
    code = (
        "import sys; from hawsweep.cli import main\n"
        f"where = ['--studies-dir', {str(place.studies_dir)!r}]\n"
        "main(['doctor', '--quick', *where], standalone_mode=False)\n"
        "print([name for name in sys.modules if name in ('mlx', 'torch', 'transformers')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
