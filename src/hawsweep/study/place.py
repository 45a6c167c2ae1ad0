"""Where studies are kept: a folder and a database."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hawsweep.errors import StudyError
from hawsweep.layout import CONFIRM_SUFFIX
from hawsweep.study.credentials import with_password

DEFAULT_STUDIES_DIR = Path("studies")
# Names of folders whose content a service moves away and back while it is in use.
_CLOUDS = {
    "Mobile Documents": "iCloud",
    "Dropbox": "Dropbox",
    "OneDrive": "OneDrive",
    "Google Drive": "Google Drive",
    "GoogleDrive": "Google Drive",
    "CloudStorage": "a cloud",
}
STUDIES_DIR_VARIABLE, STORAGE_VARIABLE = "HAWSWEEP_STUDIES_DIR", "HAWSWEEP_STORAGE"


@dataclass(frozen=True)
class Place:
    """Where studies are kept: a folder and a database.

    Attributes:
        studies_dir: Holds the database, unless ``storage_url`` names another, and a folder per
            study.
        storage_url: An Optuna RDB URL; it may hold a password and is never shown.
    """

    studies_dir: Path = DEFAULT_STUDIES_DIR
    storage_url: str | None = field(default=None, repr=False)

    @property
    def database_path(self) -> Path | None:
        """The SQLite file, or None where the storage is another database."""
        if self.storage_url is None:
            return self.studies_dir / "hawsweep.db"
        scheme, _, path = self.storage_url.partition(":///")
        is_file = scheme == "sqlite" and path and "?" not in path and path != ":memory:"
        return Path(path) if is_file else None

    @property
    def url(self) -> str:
        """The URL Optuna opens."""
        return self.storage_url or f"sqlite:///{self.studies_dir / 'hawsweep.db'}"

    @property
    def options(self) -> list[str]:
        """The options with which a command finds studies here; mostly none."""
        is_known = self.studies_dir == DEFAULT_STUDIES_DIR or STUDIES_DIR_VARIABLE in os.environ
        return [] if is_known else [f"--studies-dir={self.studies_dir}"]

    def study_dir(self, name: str) -> Path:
        """The folder of a study, inside ``studies_dir``.

        Raises:
            StudyError: Its name, perhaps of another program, could lead to a folder elsewhere.
        """
        return self.studies_dir / folder_name(name)

    def trial_dir(self, name: str, number: int) -> Path:
        """The folder of a trial."""
        return self.study_dir(name) / "trials" / f"{number:04d}"

    def confirm_dir(self, name: str, number: int) -> Path:
        """The folder of a confirming run."""
        return self.study_dir(name) / "confirm" / f"{number:04d}"


def find_place(studies_dir: str | Path | None = None, storage: str | None = None) -> Place:
    """The place of studies: as given, else by the environment, else ``./studies``.

    Args:
        studies_dir: Else ``HAWSWEEP_STUDIES_DIR``.
        storage: Else ``HAWSWEEP_STORAGE``. A password missing in it is looked up; see
            ``credentials.with_password``.

    Raises:
        StudyError: The storage is no URL, or the keyring cannot be read.
    """
    folder = studies_dir or os.environ.get(STUDIES_DIR_VARIABLE) or DEFAULT_STUDIES_DIR
    url = storage or os.environ.get(STORAGE_VARIABLE)
    return Place(Path(folder).expanduser(), with_password(url) if url else None)


def check_name(name: str) -> None:
    """Refuse a name that a new study cannot have.

    Raises:
        StudyError: It has other characters than letters, digits, ``-``, ``_`` and ``.``, or is that
            of a study that confirms another.
    """
    if name.endswith(CONFIRM_SUFFIX):
        raise StudyError(
            f"A study cannot be named {name!r}: names that end in {CONFIRM_SUFFIX} are those of "
            "runs that confirm another. Choose another name."
        )
    folder_name(name)


def check_case(name: str, others: Iterable[str]) -> None:
    """Refuse a new study's name that differs from another's in large and small letters alone.

    Raises:
        StudyError: There is such a study: on a Mac both would have one folder.
    """
    for other in others:
        if other != name and other.casefold() == name.casefold():
            raise StudyError(
                f"There is a study {other!r}: on a Mac a study {name!r} would have the same "
                "folder. Choose another name, or go on with that one."
            )


def synced_by(folder: Path) -> str | None:
    """The service that keeps a folder in a cloud, by the names on its path; None without one."""
    parts = folder.expanduser().absolute().parts
    for name, service in _CLOUDS.items():  # CloudStorage, which holds the others, is the last
        if any(part == name or part.startswith((f"{name} ", f"{name}-")) for part in parts):
            return service
    return None


def folder_name(name: str) -> str:
    """A study's name, checked to be a safe name of a folder."""
    if not name or name[0] in ".-" or not all(c.isalnum() or c in "-_." for c in name):
        raise StudyError(
            f"A study cannot be named {name!r}: its folder has the same name. Use letters, digits, "
            "'-', '_' and '.', a letter or digit first."
        )
    return name


def printable(name: str) -> str:
    """A name without control characters, which another program may have put into it."""
    return name if name.isprintable() else repr(name)
