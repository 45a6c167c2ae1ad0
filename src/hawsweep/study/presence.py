"""Whether the database, folders and rows of a running study are still those it began with."""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import optuna

from hawsweep.errors import StudyGoneError
from hawsweep.study.attributes import STARTS
from hawsweep.study.backup import SIDE_FILES, backup_path, has_study
from hawsweep.study.optuna_door import storage_of, study_id
from hawsweep.study.place import Place
from hawsweep.study.storage import is_storage_fault


class Presence:
    """What a running study needs: files and folders by device and inode, studies by their rows.

    What is at a path now counts only if it is what was there when it was first looked at. Another
    database than a SQLite file is known by its rows alone.
    """

    def __init__(self, place: Place, name: str) -> None:
        self._place, self._name = place, name
        self._files: dict[Path, tuple[int, int]] = {}
        self._studies: list[tuple[optuna.Study, object]] = []
        self._held = ExitStack()
        self._hold(place.studies_dir)
        self._hold(place.study_dir(name))
        if (path := place.database_path) is not None:
            # The connections of this process hold the inodes.
            for each in (path.with_name(path.name + end) for end in SIDE_FILES):
                if (found := _inode(each)) is not None:
                    self._files[each] = found

    def add_studies(self, *studies: optuna.Study) -> None:
        """Look from now on also at these studies, and at the folder of the trials."""
        trials = self._place.study_dir(self._name) / "trials"
        if trials.is_dir():  # with a database elsewhere this machine may have none yet
            self._hold(trials)
        self._studies += [(each, _first_start(each)) for each in studies]

    def _hold(self, folder: Path) -> None:
        """Note a folder; while it is open no other one gets its inode."""
        opened = os.open(folder, os.O_RDONLY)
        self._held.callback(os.close, opened)
        self._files[folder] = _identity(os.fstat(opened))

    def close(self) -> None:
        """Let go of the folders."""
        self._held.close()

    def check(self) -> None:
        """Refuse to go on if something has vanished.

        Raises:
            StudyGoneError: Something was removed, moved or replaced; the message says what is kept.
        """
        if (gone := self.fault()) is not None:
            raise gone

    def check_files(self) -> None:
        """As ``check``, without a question to the database.

        Raises:
            StudyGoneError: A file or folder was removed, moved or replaced.
        """
        if (gone := self._file_fault()) is not None:
            raise gone

    def fault(self) -> StudyGoneError | None:
        """What has vanished; None if nothing has, or if the database does not answer."""
        if (gone := self._file_fault()) is not None:
            return gone
        for study, first in self._studies:
            if not _is_there(study, first):
                return self._study_gone(study.study_name)
        return None

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Say what has vanished when the block ends, also in place of its own fault.

        Raises:
            StudyGoneError: Something has vanished.
        """
        try:
            yield
        except Exception:
            if (gone := self.fault()) is not None:
                raise gone from None
            raise
        self.check()

    def _file_fault(self) -> StudyGoneError | None:
        for path, known in self._files.items():
            if (found := _inode(path)) != known:
                return self._file_gone(path, is_replaced=found is not None)
        return None

    def _file_gone(self, path: Path, *, is_replaced: bool) -> StudyGoneError:
        if is_replaced:
            what = f"{path} was replaced by another while the sweep ran."
            remedy = "Put the former one back, or go on with this one: by the same command."
        else:
            what = f"{path} was removed or moved while the sweep ran."
            remedy = "Put it back, then go on with the same command."
        return StudyGoneError(f"{what} The sweep has stopped. {self._kept()} {remedy}")

    def _study_gone(self, name: str) -> StudyGoneError:
        path = self._place.database_path
        remedy = (
            f"The backup has the study: move {path} and the files {path.name}-* beside it away, "
            f"and copy {backup_path(path).name} to {path.name}. Then go on with the same command."
            if path is not None and has_study(backup_path(path), name)
            else f"Move {self._place.study_dir(self._name)} away before you start it anew."
        )
        return StudyGoneError(
            f"Study {name!r} was deleted from the database while the sweep ran, for instance in "
            f"the dashboard. The sweep has stopped. {self._kept()} {remedy}"
        )

    def _kept(self) -> str:
        path, folder = self._place.database_path, self._place.study_dir(self._name)
        kept = [str(each) for each in (path, folder) if each is not None and self._is_same(each)]
        if path is not None and backup_path(path).exists():
            kept.append(str(backup_path(path)))
        return f"These are kept: {', '.join(kept)}." if kept else "Nothing is left where it was."

    def _is_same(self, path: Path) -> bool:
        return path in self._files and _inode(path) == self._files[path]


@contextmanager
def watching(place: Place, name: str) -> Iterator[Presence]:
    """Watch what a study needs during the block; see ``Presence.noticed``.

    Raises:
        StudyGoneError: Something has vanished.
    """
    presence = Presence(place, name)
    try:
        with presence.noticed():
            yield presence
    finally:
        presence.close()


def _inode(path: Path) -> tuple[int, int] | None:
    """The device and inode of what is at a path; None if nothing is there that can be looked at."""
    try:
        return _identity(path.stat())
    except OSError:
        return None


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _first_start(study: optuna.Study) -> object:
    """The record of a study's first start, which tells it from a later one with its number."""
    return next(iter(study.user_attrs.get(STARTS, ())), None)


def _is_there(study: optuna.Study, first: object) -> bool:
    try:
        number = storage_of(study).get_study_id_from_name(study.study_name)
        return number == study_id(study) and _first_start(study) == first
    except KeyError:
        return False
    except Exception as fault:
        if is_storage_fault(fault):
            return True  # it cannot be told
        raise
