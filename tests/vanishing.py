"""Ways in which what a running sweep needs is removed, replaced or moved."""

import os
import shutil
import sqlite3
from contextlib import closing

import optuna

from hawsweep.study.place import Place
from hawsweep.study.storage import open_storage


def _remove_database(studies):
    (studies / "hawsweep.db").unlink()


def _empty_database(studies):
    _remove_database(studies)
    (studies / "hawsweep.db").touch()


def _other_database(studies):
    other = Place(studies.parent / "elsewhere")
    storage = open_storage(other, create=True)
    optuna.create_study(storage=storage, study_name="other")
    storage.remove_session()
    storage.engine.dispose()
    os.replace(other.database_path, studies / "hawsweep.db")


def _copied_database(studies):
    """A copy in its place, as when a backup is restored."""
    path, copy = studies / "hawsweep.db", studies / "copy.db"
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    os.replace(copy, path)


def _remove_wal(studies):
    (studies / "hawsweep.db-wal").unlink()


def _remove_shm(studies):
    (studies / "hawsweep.db-shm").unlink()


def _move(folder):
    folder.rename(folder.with_name(f"{folder.name}-moved"))


def _copy_in_place(folder):
    _move(folder)
    # The sweep may have made it anew meanwhile.
    shutil.copytree(folder.with_name(f"{folder.name}-moved"), folder, dirs_exist_ok=True)


def _link(folder):
    """A link to a copy in its place."""
    _copy_in_place(folder)
    copy = folder.with_name(f"{folder.name}-copy")
    folder.rename(copy)
    folder.symlink_to(copy, target_is_directory=True)


def _remove(folder):
    moved = folder.with_name(f"{folder.name}-gone")
    folder.rename(moved)  # at once, for the sweep writes to it
    shutil.rmtree(moved, ignore_errors=True)


def _remove_and_make(folder):
    """A new one, which may get the number of the one before."""
    _remove(folder)
    folder.mkdir(exist_ok=True)


def _delete_study(studies, name="tiny"):
    optuna.delete_study(study_name=name, storage=open_storage(Place(studies)))


def _delete_and_make_study(studies):
    """Another study, which gets the number of the one before."""
    storage = open_storage(Place(studies))
    for name in ("tiny.confirm", "tiny"):
        optuna.delete_study(study_name=name, storage=storage)
    for name in ("tiny", "tiny.confirm"):
        optuna.create_study(storage=storage, study_name=name)


OF_DATABASE = {
    "database removed": _remove_database,
    "database emptied": _empty_database,
    "database of others": _other_database,
    "database restored": _copied_database,
    "wal removed": _remove_wal,
    "shm removed": _remove_shm,
}
OF_FOLDERS = {
    "studies moved": _move,
    "studies removed": _remove,
    "studies copied": _copy_in_place,
    "studies linked elsewhere": _link,
    "study's folder moved": lambda studies: _move(studies / "tiny"),
    "study's folder removed": lambda studies: _remove(studies / "tiny"),
    "study's folder made anew": lambda studies: _remove_and_make(studies / "tiny"),
    "study's folder linked elsewhere": lambda studies: _link(studies / "tiny"),
    "trials moved": lambda studies: _move(studies / "tiny" / "trials"),
}
OF_STUDY = {
    "study deleted": _delete_study,
    "study deleted and made": _delete_and_make_study,
    "confirming study deleted": lambda studies: _delete_study(studies, "tiny.confirm"),
}
WAYS = OF_DATABASE | OF_FOLDERS | OF_STUDY
