"""Folders of studies with any name, commands that lead back to them, and names of studies."""

import shlex
import shutil
import sqlite3
import subprocess
import unicodedata
from contextlib import closing
from pathlib import Path

import optuna
import pytest
from click.testing import CliRunner
from reported_study import make_reported_study
from test_storage import make_study

from hawsweep.cli import main
from hawsweep.errors import StudyError
from hawsweep.study.credentials import PASSWORD_VARIABLE
from hawsweep.study.place import (
    STORAGE_VARIABLE,
    STUDIES_DIR_VARIABLE,
    Place,
    check_name,
    find_place,
)
from hawsweep.study.storage import open_storage, study_names
from hawsweep.study.study import load_study

NEED_FILES = ("compare", "export", "report")
FOLDERS = ["a?b", "a%20b", "a#b", "a b", "100%", "über", "u\u0308ber", "{SCHEMA_VERSION}", "a&b=c"]


@pytest.mark.parametrize("name", FOLDERS)
def test_database_lies_in_the_folder_whatever_its_name(tmp_path, name):
    place = Place(tmp_path / name)
    make_study(place)
    assert [each.name for each in tmp_path.iterdir()] == [name]
    with closing(sqlite3.connect(tmp_path / name / "hawsweep.db")) as connection:
        assert connection.execute("SELECT study_name FROM studies").fetchall() == [("rates",)]
    done = CliRunner().invoke(main, ["list", "--json", f"--studies-dir={place.studies_dir}"])
    assert '"study": "rates"' in done.stdout or '"name": "rates"' in done.stdout


def test_relative_folder_is_the_same_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_study(Place(Path("a?b")))
    assert study_names(open_storage(Place(tmp_path / "a?b"))) == ["rates"]


def test_file_of_a_storage_url_is_read_as_optuna_reads_it(tmp_path):
    url = f"sqlite:///{tmp_path}/a%20b.db"
    make_study(Place(tmp_path / "studies", url))
    assert Place(tmp_path, url).database_path == tmp_path / "a b.db"
    assert (tmp_path / "a b.db").exists()


def test_studies_that_an_earlier_version_put_beside_the_folder_are_named(tmp_path):
    before = Place(tmp_path / "before")
    make_study(before)
    with closing(sqlite3.connect(before.database_path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before.database_path.rename(tmp_path / "a")  # what came before the ?
    place = Place(tmp_path / "a?b")
    place.studies_dir.mkdir()
    place.database_path.touch()  # an earlier version left it empty
    for create in (False, True):
        with pytest.raises(StudyError, match="where an earlier version put them") as caught:
            open_storage(place, create=create)
    move = str(caught.value).partition("Move them: ")[2]
    subprocess.run(shlex.split(move), check=True)
    assert study_names(open_storage(place)) == ["rates"]


@pytest.mark.parametrize(
    ("variable", "option", "options"),
    [
        (None, None, []),
        (None, "studies", []),
        (None, "mine", ["--studies-dir=mine"]),
        ("mine", None, []),
        ("mine", "mine", []),
        ("mine", "other", ["--studies-dir=other"]),
        ("mine", "studies", ["--studies-dir=studies"]),
    ],
)
def test_printed_command_finds_the_same_studies(monkeypatch, variable, option, options):
    monkeypatch.delenv(STUDIES_DIR_VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(STUDIES_DIR_VARIABLE, variable)
    place = find_place(option)
    assert place.options == options
    again = find_place(options[0].partition("=")[2] if options else None)
    assert again == place
    assert place.command("status", "rates") == shlex.join(["hawsweep", "status", "rates", *options])


@pytest.mark.parametrize(
    ("variable", "option", "options"),
    [
        (None, None, []),
        (None, "postgresql://me@db/hawsweep", ["--storage=postgresql://me@db/hawsweep"]),
        ("postgresql://me@db/hawsweep", "postgresql://me@db/hawsweep", []),
        ("postgresql://me:s3cret@db/hawsweep", None, []),
        ("postgresql://me@db/old", "grpc://host:8000", ["--storage=grpc://host:8000"]),
        ("no URL", "grpc://host:8000", ["--storage=grpc://host:8000"]),
        (None, "postgresql://s3cret@db/s3cret", ["--storage=postgresql://s3cret@db/s3cret"]),
    ],
)
def test_printed_command_names_the_database_without_its_password(
    monkeypatch, variable, option, options
):
    monkeypatch.delenv(STORAGE_VARIABLE, raising=False)
    monkeypatch.setenv(PASSWORD_VARIABLE, "s3cret")
    if variable is not None:
        monkeypatch.setenv(STORAGE_VARIABLE, variable)
    place = find_place(None, option)
    assert place.options == options
    assert place.folder_options == []
    again = find_place(None, options[0].partition("=")[2] if options else None)
    assert again.storage_url == place.storage_url


def test_secret_in_the_query_of_a_database_is_not_printed():
    url = "postgresql://me:s3cret@db/hawsweep?sslpassword=tops3cret"
    assert Place(storage_url=url).options == [
        "--storage=postgresql://me@db/hawsweep?sslpassword=***"
    ]


def test_name_too_long_for_a_folder_is_one_sentence():
    assert check_name("n" * 200) == "n" * 200
    with pytest.raises(StudyError) as caught:
        check_name("n" * 300)
    assert "at most 200 bytes, and this has 300" in str(caught.value)
    assert len(str(caught.value)) < 200
    with pytest.raises(StudyError, match="at most 200 bytes, and this has 201"):
        check_name("n" * 201)


def test_study_of_an_earlier_version_with_a_longer_name_is_shown(tmp_path):
    place, name = Place(tmp_path), "n" * 255
    make_study(place, name)
    done = CliRunner().invoke(main, ["status", name, f"--studies-dir={tmp_path}"])
    assert done.exit_code == 0, done.output
    with pytest.raises(StudyError, match="at most 255 bytes, and this has 256"):
        place.study_dir("n" * 256)


@pytest.mark.parametrize("command", ["status", "show", "compare", "stop", "report", "worker"])
def test_no_command_fails_otherwise_by_a_long_name(tmp_path, command):
    make_study(Place(tmp_path))
    done = CliRunner().invoke(main, [command, "n" * 300, f"--studies-dir={tmp_path}"])
    assert done.exit_code == 1
    assert "and this has 300" in done.stderr


def test_name_in_either_unicode_form_is_the_same_study(tmp_path):
    composed = "kōkua"
    decomposed = unicodedata.normalize("NFD", composed)
    assert composed != decomposed
    place = Place(tmp_path)
    make_study(place, check_name(decomposed))
    assert load_study(open_storage(place), decomposed).study_name == composed
    assert place.study_dir(decomposed) == tmp_path / composed
    done = CliRunner().invoke(main, ["status", decomposed, f"--studies-dir={tmp_path}"])
    assert done.exit_code == 0, done.output


def test_sweep_file_is_found_in_either_unicode_form(tmp_path, monkeypatch):
    from hawsweep.spec.read import find_sweep

    monkeypatch.chdir(tmp_path)
    path = Path("sweeps") / f"{unicodedata.normalize('NFD', 'kōkua')}.yaml"
    path.parent.mkdir()
    path.touch()
    assert find_sweep("kōkua") == find_sweep(unicodedata.normalize("NFD", "kōkua")) == path


def test_study_renamed_in_another_program_is_told_with_its_folder(tmp_path):
    _, place = make_reported_study(tmp_path)
    storage = open_storage(place)
    before = load_study(storage, "rates")
    after = optuna.create_study(storage=storage, study_name="ranks", direction="maximize")
    after.add_trials(before.get_trials(deepcopy=False))  # as optuna-dashboard renames
    for key, value in before.user_attrs.items():
        after.set_user_attr(key, value)
    optuna.delete_study(study_name="rates", storage=storage)
    move = ["mv", str(tmp_path / "studies" / "rates"), str(tmp_path / "studies" / "ranks")]
    asked = ["list"], ["status", "rates"], *([each, "ranks"] for each in NEED_FILES)
    for command in asked:
        done = CliRunner().invoke(main, [*command, f"--studies-dir={place.studies_dir}"])
        said = "Study 'ranks' has no folder: if it was renamed, move that folder"
        assert f"{said}: `{shlex.join(move)}`." in done.stdout + done.stderr
    subprocess.run(move, check=True)
    for command in (["list"], *([each, "ranks"] for each in ("status", "show", "compare"))):
        for option in ([], ["--json"]):
            arguments = [*command, *option, f"--studies-dir={place.studies_dir}"]
            done = CliRunner().invoke(main, arguments)
            assert done.exit_code == 0, done.stderr
            assert "rates" not in done.output
        assert command == ["compare", "ranks"] or '"ranks"' in done.stdout


def test_studies_that_were_moved_or_copied_are_the_same(tmp_path):
    _, place = make_reported_study(tmp_path / "one")
    shown = CliRunner().invoke(
        main, ["show", "rates", "--json", "--studies-dir", str(place.studies_dir)]
    )
    with closing(sqlite3.connect(place.database_path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    shutil.copytree(place.studies_dir, tmp_path / "two")
    moved = CliRunner().invoke(
        main, ["show", "rates", "--json", f"--studies-dir={tmp_path / 'two'}"]
    )
    text = moved.stdout.replace(str(tmp_path / "two"), str(place.studies_dir))
    assert moved.exit_code == 0
    assert text == shown.stdout
