"""A backup of the SQLite database beside it, and the command that puts it back."""

import shlex
import sqlite3
import time
from collections.abc import Collection
from contextlib import closing, suppress
from pathlib import Path

from hawsweep.errors import StudyError
from hawsweep.files import replacing
from hawsweep.layout import SPEC_FILE
from hawsweep.study.place import Place, folder_name, printable
from hawsweep.text import counted

_BUSY_TIMEOUT_S = 1.0
_LEAST_INTERVAL_S = 5.0
# At most one part in this many of the time is spent on backups.
_SHARE = 20
# Beside a database in WAL mode: SQLite would apply its log to another database in its place.
SIDE_FILES = ("", "-wal", "-shm")


def backup_path(database: Path) -> Path:
    """The path of a database's backup."""
    return database.with_name(f"{database.name}.backup")


def back_up(database: Path) -> None:
    """Replace the last backup of a database by a new copy; the database may be in use.

    Raises:
        sqlite3.Error: It cannot be read or is damaged, or the disk is full; the last backup stays.
        OSError: The backup cannot be written; the last backup stays.
    """
    uri = f"{database.absolute().as_uri()}?mode=ro"
    with (
        replacing(backup_path(database)) as beside,
        closing(sqlite3.connect(uri, timeout=_BUSY_TIMEOUT_S, uri=True)) as source,
        closing(sqlite3.connect(beside)) as copy,
    ):
        copy.execute("PRAGMA synchronous=OFF")  # ``replacing`` waits for the disk, once
        source.backup(copy, progress=_refuse_locked)
        copy.execute("PRAGMA journal_mode=DELETE")  # one file, with nothing beside it
        (state,) = copy.execute("PRAGMA quick_check(1)").fetchone()
        if state != "ok":
            raise sqlite3.DatabaseError(state)


def _refuse_locked(status: int, *_: object) -> None:
    """Give up on a locked database; Python would retry without end."""
    if status in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        raise sqlite3.OperationalError("database is locked")


class Backups:
    """Backs up a SQLite database after changes, with seconds in between. Other databases are not
    backed up.
    """

    def __init__(self, place: Place) -> None:
        self._database = place.database_path
        self._is_due = False
        self._earliest = 0.0

    def note_change(self) -> None:
        """Note that the database has changed."""
        self._is_due = True

    def look(self) -> None:
        """Make a backup if the database has changed and the last backup is old enough."""
        if self._is_due and time.monotonic() >= self._earliest:
            self.make()

    def make(self) -> None:
        """Make a backup. If that fails the sweep goes on: the last backup stays, and doctor shows
        its time.
        """
        if self._database is None:
            return
        self._is_due = False
        began = time.monotonic()
        with suppress(sqlite3.Error, OSError):
            back_up(self._database)
        took_s = time.monotonic() - began
        self._earliest = time.monotonic() + max(_LEAST_INTERVAL_S, _SHARE * took_s)


def has_study(database: Path, name: str) -> bool:
    """Whether a database file can be read and has a study; nothing is changed."""
    uri = f"{database.absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, timeout=_BUSY_TIMEOUT_S, uri=True)) as connection:
            found = connection.execute("SELECT 1 FROM studies WHERE study_name = ?", (name,))
            return found.fetchone() is not None
    except (sqlite3.Error, OSError):
        return False


def restore_command(database: Path) -> str:
    """A shell command that restores the backup, and moves the present file aside."""
    there = [database.with_name(database.name + end) for end in SIDE_FILES]
    moves = [["mv", str(path), f"{path}.damaged"] for path in there if path.exists()]
    copy = ["cp", str(backup_path(database)), str(database)]
    return " && ".join(map(shlex.join, [*moves, copy]))


def check_database_not_lost(place: Place) -> None:
    """Refuse to make a new database if it is missing but its backup exists.

    Raises:
        StudyError: Only the backup exists; the message says how to restore it.
    """
    path = place.database_path
    if path is None or not backup_path(path).exists():
        return
    if not path.exists() or path.stat().st_size == 0:
        raise StudyError(
            f"{path} is missing, but its backup exists. Restore it: "
            f"`{restore_command(path)}`. Or move {backup_path(path)} away to begin anew."
        )


def check_trials_not_lost(name: str, place: Place) -> None:
    """Refuse to make a study whose folder has trials that the database lacks.

    Raises:
        StudyError: There are such trials; the message has the remedy.
    """
    n_trials = count_trial_dirs(place, name)
    if n_trials == 0:
        return
    path = place.database_path
    backup = "" if path is None or not backup_path(path).exists() else backup_path(path)
    known = (
        f" {backup} may know it: `{place.command('doctor')}` shows its studies." if backup else ""
    )
    raise StudyError(
        f"{place.study_dir(name)} has files of {counted(n_trials, 'trial')}, but the database has "
        f"no such study.{known} Move that folder away, or start under another name with --study."
    )


def folders_without_study(place: Place, known: Collection[str]) -> list[str]:
    """The names of studies' folders whose studies are not among the ``known`` ones, sorted."""
    found = (path for kept in (SPEC_FILE, "trials") for path in place.studies_dir.glob(f"*/{kept}"))
    return sorted({path.parent.name for path in found}.difference(known))


def check_study_not_lost(name: str, place: Place, known: Collection[str]) -> None:
    """Refuse a study that has a folder, but is not among the ``known`` ones of the database.

    Raises:
        StudyError: It is such a study.
    """
    if folder_name(name) in folders_without_study(place, known):
        raise StudyError(
            f"Study {name!r} is not in the database, only its folder is there. "
            f"{tell_what_is_left(place, known)}"
        )


def tell_what_is_left(place: Place, known: Collection[str] = ()) -> str:
    """Say in a sentence or two that there are folders of studies that the database lacks, or a
    backup without its database; empty if there are neither.

    Args:
        known: The studies of the database.
    """
    folders, path = folders_without_study(place, known), place.database_path
    lost = path is not None and not path.exists() and backup_path(path).exists()
    if not folders and not lost:
        return ""
    told = [f"{path} is missing, but its backup exists."] if lost else []
    if folders:
        names = ", ".join(map(printable, folders))
        told.append(f"{place.studies_dir} has folders of studies that are in no database: {names}.")
    without = [name for name in known if not (place.studies_dir / name).exists()]
    if len(folders) == len(without) == 1:
        with suppress(StudyError):  # another program's name, which no folder can have
            move = shlex.join(["mv", *map(str, map(place.study_dir, (*folders, *without)))])
            said = f"Study {without[0]!r} has no folder: if it was renamed, move that folder"
            return " ".join([*told, f"{said}: `{move}`."])
    return " ".join([*told, f"`{place.command('doctor')}` shows whether a backup can be restored."])


def count_trial_dirs(place: Place, name: str = "*") -> int:
    """The number of trials' folders of a study, or of all."""
    return sum(1 for _ in place.studies_dir.glob(f"{name}/trials/*/"))
