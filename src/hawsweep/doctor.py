"""What is wrong with the database, and what can be done about it."""

import json
import shlex
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import optuna

from hawsweep.errors import StudyError
from hawsweep.optuna_door import study_id
from hawsweep.recovery import Recoverable, rebuild, survey
from hawsweep.study import Place, open_storage

RECOVERED_FILE = "hawsweep-recovered.db"
_MAGIC = b"SQLite format 3\0"
_BUSY_TIMEOUT_S = 2.0
_CHECK = "PRAGMA quick_check(3)"
# Beside a database in WAL mode; its own would be applied to another in its place.
_SIDE_FILES = ("", "-wal", "-shm")
State = Literal["missing", "not SQLite", "damaged", "locked", "not readable", "foreign", "fine"]
_STATES: dict[int, State] = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
}


@dataclass(frozen=True)
class Database:
    """The state of a database.

    Attributes:
        where: Its file's path; or in words, where it is another database.
        state: ``missing``; ``not SQLite``; ``damaged``; ``locked`` by another process; ``not
            readable`` for other reasons; ``foreign``: of another program; or ``fine``.
        detail: What was found, in words; empty where it is fine.
        studies: For each, the number of its trials by state; where the database is fine.
    """

    where: str
    state: State
    detail: str = ""
    studies: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """The database, and what each study's folder could give back.

    Attributes:
        rebuilt: The new database, where one was made.
        commands: For a shell: they take it into use and keep the other.
    """

    database: Database
    recoverable: list[Recoverable]
    rebuilt: Path | None = None
    commands: tuple[str, ...] = ()

    @property
    def is_fine(self) -> bool:
        """Whether nothing is wrong; before the first study nothing is."""
        nothing_lost = not any(each.n_records for each in self.recoverable)
        state = self.database.state
        return state == "fine" or (state == "missing" and nothing_lost)

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "is_fine": self.is_fine,
            "database": asdict(self.database),
            "recoverable": [
                {**asdict(each), "last": each.last and each.last.isoformat()}
                for each in self.recoverable
            ],
            "rebuilt": self.rebuilt and str(self.rebuilt),
            "commands": list(self.commands),
        }


def examine(place: Place) -> Diagnosis:
    """Look at the database and the studies' folders. Nothing is changed."""
    path = place.database_path
    database = _examine_other(place) if path is None else _examine_file(path)
    return Diagnosis(database, survey(place.studies_dir))


def examine_and_rebuild(place: Place) -> Diagnosis:
    """Also make a new database beside one that is lost; that one is not touched.

    Raises:
        StudyError: The database is fine, in use, or not a file in the studies' folder, or there is
            nothing to rebuild.
    """
    found = examine(place)
    where, state = found.database.where, found.database.state
    if state == "fine":
        raise StudyError(f"{where} is fine: there is nothing to rebuild. Leave out --rebuild.")
    if state == "locked":
        raise StudyError(f"{where} is in use: {found.database.detail}. End what uses it first.")
    if place.database_path is None:
        raise StudyError(
            f"Only a database in {place.studies_dir} can be rebuilt. Leave out --storage and unset "
            "HAWSWEEP_STORAGE to make one there."
        )
    recovered = place.studies_dir / RECOVERED_FILE
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would tell of each study it makes
    rebuild(place.studies_dir, recovered)
    return replace(found, rebuilt=recovered, commands=_commands(place.database_path, recovered))


def versions_of_studies(place: Place, found: Database) -> dict[str, dict[str, str]]:
    """The versions each study was made with; nothing is changed.

    Args:
        found: What was found of the database: of one that is not fine nothing is read.
    """
    path = place.database_path
    if found.state != "fine":
        return {}
    if path is None:
        storage = open_storage(place)
        return {
            study.study_name: dict(study.user_attrs.get("versions", {}))
            for study in storage.get_all_studies()
        }
    try:
        with closing(_connect(path, _BUSY_TIMEOUT_S)) as connection:
            rows = connection.execute(
                "SELECT study_name, value_json FROM studies JOIN study_user_attributes "
                "USING (study_id) WHERE key = 'versions' ORDER BY study_name"
            ).fetchall()
        return {name: dict(json.loads(versions)) for name, versions in rows}
    except (sqlite3.Error, TypeError, ValueError):
        return {}  # another program wrote it, or writes now


def check_readable(place: Place) -> None:
    """Refuse a database file that cannot be read at this moment, without waiting for it.

    Raises:
        StudyError: It is locked, or it is not as SQLite left it.
    """
    if place.database_path is None:
        return
    try:
        with closing(_connect(place.database_path, timeout_s=0.0)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as fault:
        raise StudyError(
            f"{place.database_path} cannot be read: {fault}. `hawsweep doctor` examines it."
        ) from fault


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    # Read only: opened to write, SQLite itself may change a damaged file.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout_s, uri=True)


def _examine_other(place: Place) -> Database:
    where = "the database given as storage"
    try:
        storage = open_storage(place)
    except StudyError as fault:
        return Database(where, "not readable", str(fault))
    studies = {
        study.study_name: dict(
            Counter(t.state.name.lower() for t in storage.get_all_trials(study_id(study)))
        )
        for study in storage.get_all_studies()
    }
    return Database(where, "fine", studies=dict(sorted(studies.items())))


def _examine_file(path: Path) -> Database:
    where = str(path)
    if not path.exists():
        return Database(where, "missing", "there is no such file")
    try:
        with path.open("rb") as file:
            head = file.read(len(_MAGIC))
    except OSError as fault:
        return Database(where, "not readable", str(fault.strerror))
    if head != _MAGIC:
        return Database(where, "not SQLite", f"it begins with {head!r}" if head else "it is empty")
    try:
        with closing(_connect(path, _BUSY_TIMEOUT_S)) as connection:
            faults = [" ".join(row[0].split()) for row in connection.execute(_CHECK)]
            if faults != ["ok"]:
                return Database(where, "damaged", "; ".join(faults))
            return _count(where, connection)
    except sqlite3.Error as fault:
        return Database(where, _STATES.get(fault.sqlite_errorcode, "not readable"), str(fault))


def _count(where: str, connection: sqlite3.Connection) -> Database:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if not {"studies", "trials", "trial_values"} <= tables:
        return Database(where, "foreign", "it has no tables of Optuna's")
    studies: defaultdict[str, dict[str, int]] = defaultdict(dict)
    for name, state, n_trials in connection.execute(
        "SELECT study_name, state, count(trial_id) FROM studies LEFT JOIN trials USING (study_id) "
        "GROUP BY study_id, state ORDER BY study_name, state"
    ):
        studies[name]
        if n_trials:
            studies[name][state.lower()] = n_trials
    return Database(where, "fine", studies=dict(studies))


def _commands(database: Path, recovered: Path) -> tuple[str, ...]:
    aside = database.with_stem(f"{database.stem}-damaged")
    number = 2
    while aside.exists():
        aside = database.with_stem(f"{database.stem}-damaged-{number}")
        number += 1
    moves = [
        (database.with_name(database.name + end), aside.with_name(aside.name + end))
        for end in _SIDE_FILES
    ]
    there = [(one, other) for one, other in moves if one.exists()]
    return tuple(shlex.join(["mv", str(a), str(b)]) for a, b in (*there, (recovered, database)))
