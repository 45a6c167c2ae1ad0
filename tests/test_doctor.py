import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from click.testing import CliRunner
from optuna.trial import TrialState

from hawsweep.cli import main
from hawsweep.doctor import examine, examine_and_rebuild, versions_of_studies
from hawsweep.errors import StudyError
from hawsweep.provenance import versions
from hawsweep.recovery import write_record, write_study_record
from hawsweep.space import distributions
from hawsweep.study import Place, create_study, open_storage
from hawsweep.sweepfile import check_sweep

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
    for number in range(N_TRIALS):
        write_record(study, number, place.trial_dir("rates", number))
    write_study_record(study, place.study_dir("rates"))
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
def test_damage_is_found_and_the_studies_are_rebuilt_beside_it(made, how):
    change, state = DAMAGES[how]
    content = damage(made, change)
    found = examine(made)
    assert found.database.state == state
    assert found.database.detail != ""
    assert not found.is_fine
    assert [(each.name, each.n_records) for each in found.recoverable] == [
        *(("new", 0), ("rates", N_TRIALS))
    ]
    again = examine_and_rebuild(made)
    assert made.database_path.read_bytes() == content
    assert again.rebuilt == made.studies_dir / "hawsweep-recovered.db"
    for command in again.commands:
        subprocess.run(command, shell=True, check=True)
    after = examine(made)
    assert after.is_fine
    assert after.database.studies == {"rates": {"complete": N_TRIALS - 1, "fail": 1}}
    assert (made.studies_dir / "hawsweep-damaged.db").read_bytes() == content


def test_fine_database_is_counted_and_left_as_it_is(made):
    content = made.database_path.read_bytes()
    found = examine(made)
    assert (found.database.state, found.database.detail, found.is_fine) == ("fine", "", True)
    assert found.database.studies == {"new": {}, "rates": {"complete": N_TRIALS - 1, "fail": 1}}
    assert made.database_path.read_bytes() == content
    with pytest.raises(StudyError, match=r"hawsweep\.db is fine: there is nothing to rebuild"):
        examine_and_rebuild(made)


def test_database_that_a_sweep_writes_to_is_fine(made):
    with closing(sqlite3.connect(made.database_path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE studies SET study_name = 'other' WHERE study_name = 'new'")
        assert examine(made).database.state == "fine"


def test_missing_database_before_the_first_study_is_fine(place):
    found = examine(place)
    assert (found.database.state, found.is_fine) == ("missing", True)
    assert not place.studies_dir.exists()


def test_missing_database_of_recorded_studies_is_not_fine_and_can_be_rebuilt(made):
    made.database_path.unlink()
    assert not examine(made).is_fine
    (command,) = examine_and_rebuild(made).commands
    assert command.startswith("mv ")
    subprocess.run(command, shell=True, check=True)
    assert examine(made).is_fine


def test_locked_database_is_said_and_not_rebuilt(made, monkeypatch):
    monkeypatch.setattr("hawsweep.doctor._BUSY_TIMEOUT_S", 0.05)
    with closing(sqlite3.connect(made.database_path)) as other:
        other.execute("PRAGMA locking_mode=EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        assert examine(made).database.state == "locked"
        with pytest.raises(StudyError, match=r"hawsweep\.db is in use: database is locked\. End"):
            examine_and_rebuild(made)
    assert examine(made).is_fine


def test_database_of_another_program_is_said(place):
    place.studies_dir.mkdir()
    with closing(sqlite3.connect(place.database_path)) as connection:
        connection.execute("CREATE TABLE notes (text TEXT)")
    assert examine(place).database.state == "foreign"


def test_folder_in_place_of_the_database_is_said(place):
    place.database_path.mkdir(parents=True)
    found = examine(place).database
    assert (found.state, found.detail) == ("not readable", "Is a directory")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_database_that_may_not_be_read_is_said(made):
    made.database_path.chmod(0)
    found = examine(made).database
    assert (found.state, found.detail) == ("not readable", "Permission denied")


def test_files_beside_the_lost_database_are_moved_with_it(made):
    damage(made, middle_page)
    for end in ("-wal", "-shm"):
        made.database_path.with_name(f"hawsweep.db{end}").write_bytes(b"")
    (made.studies_dir / "hawsweep-damaged.db").write_text("an earlier one")
    folder = made.studies_dir
    assert examine_and_rebuild(made).commands == (
        f"mv {folder}/hawsweep.db {folder}/hawsweep-damaged-2.db",
        f"mv {folder}/hawsweep.db-wal {folder}/hawsweep-damaged-2.db-wal",
        f"mv {folder}/hawsweep.db-shm {folder}/hawsweep-damaged-2.db-shm",
        f"mv {folder}/hawsweep-recovered.db {folder}/hawsweep.db",
    )


def test_commands_are_quoted_for_a_shell(studies_dir, tmp_path):
    made = Place(tmp_path / "my studies")
    shutil.copytree(studies_dir, made.studies_dir)
    made.database_path.unlink()
    (command,) = examine_and_rebuild(made).commands
    assert f"'{made.studies_dir}/hawsweep-recovered.db'" in command


def test_earlier_rebuilt_database_is_not_written_over(made):
    made.database_path.unlink()
    examine_and_rebuild(made)
    with pytest.raises(StudyError, match=r"hawsweep-recovered\.db is there already"):
        examine_and_rebuild(made)


def test_database_given_as_storage_is_examined_and_no_server_is_rebuilt(made):
    there = Place(made.studies_dir, f"sqlite:///{made.database_path}")
    found = examine(there).database
    assert (found.where, found.state) == (str(made.database_path), "fine")
    assert found.studies == examine(made).database.studies
    gone = Place(made.studies_dir, "postgresql://me:s3cret@127.0.0.1:1/none")
    found = examine(gone)
    assert (found.database.state, found.is_fine) == ("not readable", False)
    assert "s3cret" not in found.database.detail
    with pytest.raises(StudyError, match="Leave out --storage and unset HAWSWEEP_STORAGE"):
        examine_and_rebuild(gone)


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
    head, _, *table = done.output.splitlines()
    assert head == f"{made.database_path}: fine"
    assert [line.split()[:6] for line in table[1:3]] == [
        ["new", "0", "0", "0", "0", "0"],
        ["rates", "39", "complete,", "1", "fail", "40"],
    ]
    assert "0.5938" in table[2]  # 38 / 64


def test_command_says_what_is_wrong_with_exit_code_1_and_what_to_do(made):
    damage(made, middle_page)
    done = doctor(made)
    assert done.exit_code == 1
    assert f"{made.database_path}: damaged: " in done.output
    assert "the same command with --rebuild" in done.output
    rebuilt = doctor(made, "--rebuild")
    assert rebuilt.exit_code == 0
    assert f"\n  mv {made.database_path} {made.studies_dir}/hawsweep-damaged.db\n" in rebuilt.output
    again = doctor(made, "--rebuild")
    assert again.exit_code == 1
    assert "Error: " in again.output


def test_command_says_to_restore_where_nothing_was_recorded(made):
    shutil.rmtree(made.study_dir("rates"))
    damage(made, lambda content: b"")
    done = doctor(made)
    assert done.exit_code == 1
    assert "hawsweep.db: not SQLite: it is empty" in done.output
    assert "Restore it from a backup, or move it away" in done.output
    refused = doctor(made, "--rebuild")
    assert (refused.exit_code, "Nothing can be rebuilt" in refused.output) == (1, True)


def test_command_before_the_first_study_says_how_to_start(place):
    done = doctor(place)
    assert done.exit_code == 0
    assert "missing: there is no such file" in done.output
    assert "hawsweep start NAME" in done.output


def test_command_gives_json(made):
    fine = json.loads(doctor(made, "--json").output)
    assert fine["is_fine"] is True
    assert fine["database"]["studies"]["rates"] == {"complete": N_TRIALS - 1, "fail": 1}
    assert fine["recoverable"][1]["n_records"] == N_TRIALS
    damage(made, middle_page)
    done = doctor(made, "--json")
    assert (done.exit_code, json.loads(done.output)["database"]["state"]) == (1, "damaged")
    rebuilt = json.loads(doctor(made, "--json", "--rebuild").output)
    assert rebuilt["rebuilt"] == f"{made.studies_dir}/hawsweep-recovered.db"
    assert len(rebuilt["commands"]) >= 2


def test_command_does_without_mlx(place):
    code = (
        "import sys; from hawsweep.cli import main\n"
        f"where = ['--studies-dir', {str(place.studies_dir)!r}]\n"
        "main(['doctor', '--quick', *where], standalone_mode=False)\n"
        "print([name for name in sys.modules if name in ('mlx', 'torch', 'transformers')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
