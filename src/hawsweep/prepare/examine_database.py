"""Examines the database and its backup, and names the remedy for each fault."""

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from hawsweep.errors import StudyError
from hawsweep.study.attributes import VERSIONS
from hawsweep.study.backup import backup_path, count_trial_dirs, restore_command
from hawsweep.study.optuna_door import study_id
from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage
from hawsweep.study.trials import state_of

_MAGIC = b"SQLite format 3\0"
_BUSY_TIMEOUT_S = 2.0
_CHECK = "PRAGMA quick_check(3)"
State = Literal["missing", "not SQLite", "damaged", "locked", "not readable", "foreign", "fine"]
_LOST: tuple[State, ...] = ("missing", "not SQLite", "damaged")
_STATES: dict[int, State] = {
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
}


@dataclass(frozen=True)
class Database:
    """The state of a database.

    Attributes:
        where: Its file's path; for another database a description.
        state: ``missing``; ``not SQLite``; ``damaged``; ``locked`` by another process; ``not
            readable`` for other reasons; ``foreign``: of another program; or ``fine``.
        detail: The fault in words; empty if it is fine.
        studies: For each study, the number of its trials by state, if the database is fine.
    """

    where: str
    state: State
    detail: str = ""
    studies: Mapping[str, Mapping[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """The database and its backup.

    Attributes:
        backup: None without a backup.
        backup_made: Local time.
        n_trial_dirs: The number of trials with a folder.
        restore: A shell command that restores the backup, if the database is lost and the backup
            fine.
    """

    database: Database
    backup: Database | None = None
    backup_made: datetime | None = None
    n_trial_dirs: int = 0
    restore: str | None = None

    @property
    def is_fine(self) -> bool:
        """Whether there is no fault; a missing database without trials is no fault."""
        is_new = self.backup is None and self.n_trial_dirs == 0
        return self.database.state == "fine" or (self.database.state == "missing" and is_new)

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        made = self.backup_made and self.backup_made.isoformat()
        return {"is_fine": self.is_fine, **asdict(self), "backup_made": made}


def examine(place: Place) -> Diagnosis:
    """Examine the database and its backup. Nothing is changed."""
    path, n_trial_dirs = place.database_path, count_trial_dirs(place)
    if path is None:
        return Diagnosis(_examine_other(place), n_trial_dirs=n_trial_dirs)
    database = _examine_file(path)
    if not backup_path(path).exists():
        return Diagnosis(database, n_trial_dirs=n_trial_dirs)
    backup = _examine_file(backup_path(path))
    made = datetime.fromtimestamp(int(backup_path(path).stat().st_mtime))
    helps = database.state in _LOST and backup.state == "fine"
    restore = restore_command(path) if helps else None
    return Diagnosis(database, backup, made, n_trial_dirs, restore)


def versions_of_studies(place: Place, found: Database) -> dict[str, dict[str, str]]:
    """The versions each study was made with; nothing is changed.

    Args:
        found: The examination of the database; only a fine one is read.
    """
    path = place.database_path
    if found.state != "fine":
        return {}
    if path is None:
        storage = open_storage(place)
        return {
            study.study_name: dict(study.user_attrs.get(VERSIONS, {}))
            for study in storage.get_all_studies()
        }
    try:
        with closing(_connect(path, _BUSY_TIMEOUT_S)) as connection:
            rows = connection.execute(
                "SELECT study_name, value_json FROM studies JOIN study_user_attributes "
                "USING (study_id) WHERE key = ? ORDER BY study_name",
                (VERSIONS,),
            ).fetchall()
        return {name: dict(json.loads(versions)) for name, versions in rows}
    except (sqlite3.Error, TypeError, ValueError):
        return {}  # another program made it, or writes to it now


def check_readable(place: Place) -> None:
    """Refuse a database file that cannot be read now, without waiting for it.

    Raises:
        StudyError: It is locked, or it is damaged.
    """
    if place.database_path is None:
        return
    try:
        with closing(_connect(place.database_path, timeout_s=0.0)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.Error as fault:
        raise StudyError(
            f"{place.database_path} cannot be read: {fault}. `{place.command('doctor')}` "
            "examines it."
        ) from fault


def _connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    # Read only: SQLite may change a damaged file that is opened for writing.
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", timeout=timeout_s, uri=True)


def _examine_other(place: Place) -> Database:
    where = "the database given as storage"
    try:
        storage = open_storage(place)
    except StudyError as fault:
        return Database(where, "not readable", str(fault))
    studies = {
        study.study_name: dict(
            Counter(state_of(t) for t in storage.get_all_trials(study_id(study)))
        )
        for study in storage.get_all_studies()
    }
    return Database(where, "fine", studies=dict(sorted(studies.items())))


def _examine_file(path: Path) -> Database:
    where = str(path)
    if not path.exists():
        return Database(where, "missing", "the first start makes it")
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
