"""Where studies are kept: a folder and a database."""

import os
import shlex
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hawsweep.errors import StudyError
from hawsweep.layout import CONFIRM_SUFFIX
from hawsweep.study.credentials import parse_storage_url, with_password, without_password
from hawsweep.text import shorten

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
# Desktop and Documents keep their names where iCloud has them. macOS puts these extended attributes
# there, the second from macOS 15 on and at the folders of all services.
_CLOUD_ATTRIBUTES = {
    "com.apple.icloud.desktop": "iCloud",
    "com.apple.file-provider-domain-id": "a cloud",
}
# Of a folder's name: as file systems allow, and of a new study, as names of files are made of it.
_LONGEST_BYTES, _LONGEST_NEW_BYTES = 255, 200
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
        url = parse_storage_url(self.storage_url)
        is_file = url.drivername == "sqlite" and url.database not in (None, "", ":memory:")
        has_more = url.host or url.username or url.query
        return Path(str(url.database)) if is_file and not has_more else None

    @property
    def url(self) -> str:
        """The URL Optuna opens. In a folder's name a ? would end the path, and %20 be a space, so
        that it is quoted.
        """
        if self.storage_url is not None:
            return self.storage_url
        from sqlalchemy.engine import URL

        return URL.create("sqlite", database=str(self.database_path)).render_as_string()

    @property
    def folder_options(self) -> list[str]:
        """The options with which a command finds the folder."""
        is_known = self.studies_dir == _usual_studies_dir()
        return [] if is_known else [f"--studies-dir={self.studies_dir}"]

    @property
    def options(self) -> list[str]:
        """The options with which a command finds studies here; mostly none. A password is not in
        them: it is looked up again.
        """
        return [*self.folder_options, *self.storage_options]

    @property
    def storage_options(self) -> list[str]:
        """The option with which a command finds the database."""
        usual = os.environ.get(STORAGE_VARIABLE)
        if self.storage_url is None or usual == self.storage_url:
            return []
        url = without_password(self.storage_url)
        return [] if usual == url else [f"--storage={url}"]

    def command(self, *words: str) -> str:
        """A command of hawsweep on the studies here, for a shell."""
        return shlex.join(["hawsweep", *words, *self.options])

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

    def folder_of(self, study_name: str, number: int) -> Path:
        """The folder of a trial, or of a confirming run where the study is one of these."""
        name = study_name.removesuffix(CONFIRM_SUFFIX)
        return (self.trial_dir if name == study_name else self.confirm_dir)(name, number)


def find_place(studies_dir: str | Path | None = None, storage: str | None = None) -> Place:
    """The place of studies: as given, else by the environment, else ``./studies``.

    Args:
        studies_dir: Else ``HAWSWEEP_STUDIES_DIR``.
        storage: Else ``HAWSWEEP_STORAGE``. A password missing in it is looked up; see
            ``credentials.with_password``.

    Raises:
        StudyError: The storage is no URL, or the keyring cannot be read.
    """
    folder = Path(studies_dir).expanduser() if studies_dir else _usual_studies_dir()
    url = storage or os.environ.get(STORAGE_VARIABLE)
    return Place(folder, with_password(url) if url else None)


def _usual_studies_dir() -> Path:
    """The folder of studies of a command without the option."""
    return Path(os.environ.get(STUDIES_DIR_VARIABLE) or DEFAULT_STUDIES_DIR).expanduser()


def check_name(name: str) -> str:
    """The name that a new study gets, in NFC.

    Raises:
        StudyError: It has other characters than letters, digits, ``-``, ``_`` and ``.``, is too
            long, or is that of a study that confirms another.
    """
    if name.endswith(CONFIRM_SUFFIX):
        raise StudyError(
            f"A study cannot be named {name!r}: names that end in {CONFIRM_SUFFIX} are those of "
            "runs that confirm another. Choose another name."
        )
    return _folder_name(name, _LONGEST_NEW_BYTES)


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
    """The service that keeps a folder in a cloud, by the names on its path and by what macOS notes
    at a synced folder; None without one.
    """
    path = folder.expanduser().absolute()
    for name, service in _CLOUDS.items():  # CloudStorage, which holds the others, is the last
        if any(part == name or part.startswith((f"{name} ", f"{name}-")) for part in path.parts):
            return service
    from hawsweep.machine.mac import has_attribute

    for attribute, service in _CLOUD_ATTRIBUTES.items():
        if any(has_attribute(each, attribute) for each in (path, *path.parents)):
            return service
    return None


def folder_name(name: str) -> str:
    """A study's name in NFC, checked to be a safe name of a folder."""
    return _folder_name(name, _LONGEST_BYTES)


def _folder_name(name: str, longest: int) -> str:
    name = unicodedata.normalize("NFC", name)  # a Mac's files may have the other form
    if (n_bytes := len(name.encode())) > longest:
        raise StudyError(
            f"A study cannot be named {shorten(name, 40)!r}: its folder has the same name, of at "
            f"most {longest} bytes, and this has {n_bytes}. Choose a shorter name."
        )
    if not name or name[0] in ".-" or not all(c.isalnum() or c in "-_." for c in name):
        raise StudyError(
            f"A study cannot be named {name!r}: its folder has the same name. Use letters, digits, "
            "'-', '_' and '.', a letter or digit first."
        )
    return name


def printable(name: str) -> str:
    """A name without control characters, which another program may have put into it."""
    return name if name.isprintable() else repr(name)
