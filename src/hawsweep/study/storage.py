"""The database of studies: opening it, and what it raises."""

import os
import shlex
import sqlite3
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import optuna
import sqlalchemy.exc
from optuna.storages import BaseStorage, GrpcStorageProxy, RDBStorage
from sqlalchemy.engine import URL, make_url

from hawsweep.errors import HawsweepError, StorageOutageError, StudyError
from hawsweep.layout import CONFIRM_SUFFIX
from hawsweep.study.backup import tell_what_is_left
from hawsweep.study.credentials import PROXY, parse_storage_url, without_secrets
from hawsweep.study.faults import is_disk_fault
from hawsweep.study.optuna_door import storage_of
from hawsweep.study.patience import (
    ConnectionLostError,
    Patience,
    PatientDatabase,
    PatientProxy,
    StorageAwayError,
    at_once,
)
from hawsweep.study.place import Place

_BUSY_TIMEOUT_S = 60
_BY_LIBPQ = ("postgresql", "psycopg", "psycopg2")
# Seconds in which a proxy must answer at first.
_ANSWERS_WITHIN_S = 10.0
# The exceptions of a database that become a StudyError.
STORAGE_FAULTS = (
    sqlalchemy.exc.SQLAlchemyError,
    optuna.exceptions.StorageInternalError,
    sqlite3.Error,
)
_OPENING_FAULTS = (*STORAGE_FAULTS, ConnectionLostError, RuntimeError, ImportError)


# PostgreSQL's connections that are dead without a word are noticed within a minute.
_NOTICED = {
    "connect_timeout": 10,
    "keepalives_idle": 20,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}


def open_storage(
    place: Place, *, create: bool = False, only_look: bool = True, patient: bool = False
) -> BaseStorage:
    """Open the database, or a proxy of it. SQLite is set to WAL mode with a busy timeout.

    Args:
        create: Make it if it is missing.
        only_look: It may be one that cannot be written.
        patient: Calls of a shared database are tried again while its connection is at fault, and so
            is opening it, unless it may be made.

    Raises:
        StudyError: It is missing, corrupt, read-only, or cannot be reached. No file is overwritten.
    """
    path = place.database_path
    if path is None:
        return _open_given(place.url, patient, waits=patient and not create)
    _check_not_elsewhere(path)
    _check_place(path, place, create)
    options = _how_to_open(path)
    if options and (create or not only_look):
        raise StudyError(
            f"{path} cannot be written. Correct its permissions or choose another --studies-dir."
        )
    _check_sqlite(path, place, create, options)
    url = place.url
    if options:
        uri, query = path.absolute().as_uri(), {"uri": "true", **options}
        url = URL.create("sqlite", database=uri, query=query).render_as_string()
    try:
        return RDBStorage(url, engine_kwargs={"connect_args": {"timeout": _BUSY_TIMEOUT_S}})
    except _OPENING_FAULTS as fault:
        raise StudyError(f"{path} cannot be opened: {_first_line(fault)}") from fault


def _how_to_open(path: Path) -> dict[str, str]:
    """SQLite's options for a database; none where it can be written.

    In WAL mode even a reader needs files beside the database. Where they are missing and cannot be
    made, it is opened as a file that does not change.
    """
    there = (path, path.parent) if path.exists() else (path.parent,)
    if all(os.access(each, os.W_OK) for each in there):
        return {}
    has_log = path.with_name(f"{path.name}-wal").exists()
    return {"mode": "ro"} if has_log else {"immutable": "1"}


def _open_given(url: str, patient: bool, waits: bool) -> BaseStorage:
    parsed = parse_storage_url(url)
    if parsed.drivername == PROXY:
        return _open_proxy(parsed, patient, waits)
    options: dict[str, Any] = {"engine_kwargs": {"pool_pre_ping": True}}
    if parsed.get_backend_name() == "postgresql" and parsed.drivername.endswith(_BY_LIBPQ):
        missing = {key: value for key, value in _NOTICED.items() if key not in parsed.query}
        options["engine_kwargs"]["connect_args"] = missing
    try:
        if patient:
            patience = Patience(parsed.host or "localhost")
            opening = partial(PatientDatabase, url, patience, **options)
            return patience.call(opening) if waits else opening()
        return RDBStorage(url, **options)
    except ImportError:
        said = (
            f"the driver of {parsed.drivername} is not installed. Install it; for PostgreSQL write "
            "postgresql+psycopg:// and in a clone, pip install -e '.[postgresql]'."
        )
    except _OPENING_FAULTS as fault:
        said = without_secrets(_first_line(fault), url) + (
            ". Check that --storage is an Optuna RDB URL and that the database answers."
        )
    # Raised without its cause, whose text may hold the password.
    raise StudyError(f"the database given as storage cannot be opened: {said}")


def _open_proxy(url: URL, patient: bool, waits: bool) -> BaseStorage:
    """Connect to the process that serves a study's storage with Optuna's gRPC proxy."""
    try:
        import grpc
    except ImportError as fault:
        raise StudyError(
            f"{url} needs the package grpcio. Install it: in a clone, pip install -e '.[grpc]'"
        ) from fault
    assert url.host is not None
    assert url.port is not None
    os.environ.setdefault("no_grpc_proxy", url.host)  # not by way of an http_proxy
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        kind = PatientProxy if patient else GrpcStorageProxy
        proxy = kind(host=url.host, port=url.port)
    try:
        ready = partial(proxy.wait_server_ready, _ANSWERS_WITHIN_S)
        if waits and isinstance(proxy, PatientProxy):
            proxy.patience.call(ready)
        else:
            ready()
        with suppress(KeyError), at_once():
            proxy.get_study_id_from_name("")
    except (ConnectionError, grpc.RpcError, StorageAwayError) as fault:
        proxy.close()
        is_other = isinstance(fault, grpc.RpcError)
        said = "another server answers" if is_other else "no storage proxy answers"
        raise StudyError(
            f"{said} at {url}. Check host and port, and that `hawsweep start` runs there."
        ) from fault
    return proxy


@contextmanager
def storage_faults_told(place: Place) -> Iterator[None]:
    """Turn all that a storage in use raises, and a full disk, into a StudyError."""
    try:
        yield
    except StorageOutageError:
        raise
    except Exception as fault:
        is_storage = is_storage_fault(fault)
        if (is_storage or isinstance(fault, OSError)) and is_disk_fault(fault):
            raise disk_fault(place) from None
        if not is_storage:
            raise
        path, said = place.database_path, _first_line(fault)
        where = "the database given as storage" if path is None else str(path)
        if place.storage_url is not None:
            said = without_secrets(said, place.storage_url)
        # Raised without its cause, whose text may hold a password.
        raise StudyError(
            f"{where} cannot be used: {said}. Finished trials are kept; the same command goes on."
        ) from None


def is_storage_fault(fault: BaseException) -> bool:
    """Whether an exception comes out of Optuna's storage: also a KeyError, which it raises for a
    study or trial that was deleted.
    """
    if isinstance(fault, (*STORAGE_FAULTS, StorageOutageError)):
        return True
    frames = (frame for frame, _ in traceback.walk_tb(fault.__traceback__))
    return not isinstance(fault, MemoryError | HawsweepError) and any(
        frame.f_globals.get("__name__", "").startswith("optuna.storages.") for frame in frames
    )


def disk_fault(place: Place) -> StudyError:
    """The error of a disk that is full or cannot be written."""
    return StudyError(
        f"The disk that holds {place.studies_dir} is full or cannot be written. Finished trials "
        "are kept. Make room, then go on with the same command."
    )


def study_names(storage: BaseStorage) -> list[str]:
    """The names of all studies, sorted, without those that confirm another."""
    names = optuna.get_all_study_names(storage)
    return sorted(name for name in names if not name.endswith(CONFIRM_SUFFIX))


def check_folder(study: optuna.Study, place: Place) -> None:
    """Refuse a study without its folder, if there are folders without a study.

    Raises:
        StudyError: It is such a study, as after optuna-dashboard has renamed it.
    """
    has_folder = place.study_dir(study.study_name).exists()
    if not has_folder and (left := tell_what_is_left(place, study_names(storage_of(study)))):
        raise StudyError(left)


def confirm_name(name: str) -> str:
    """The name of the study that confirms another."""
    return name + CONFIRM_SUFFIX


def _check_not_elsewhere(path: Path) -> None:
    """Refuse to begin anew beside studies of an earlier version, which wrote the path into the URL
    as it is: of ``a?b/hawsweep.db`` it made ``a``.
    """
    there = Path(str(make_url(f"sqlite:///{path}").database))
    if there != path and _has_studies(there) and not _has_studies(path):
        move = shlex.join(["mv", str(there), str(path)])
        raise StudyError(
            f"The studies of {path.parent} are in {there}, where an earlier version put them. Move "
            f"them: {move}"
        )


def _has_studies(path: Path) -> bool:
    with suppress(sqlite3.Error):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, timeout=_BUSY_TIMEOUT_S, uri=True)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master")
            return ("studies",) in tables.fetchall()
    return False


def _check_place(path: Path, place: Place, create: bool) -> None:
    if not path.exists():
        if not create:
            left = tell_what_is_left(place) or "Start one: hawsweep start NAME."
            raise StudyError(f"There are no studies in {path.parent}: {path} is missing. {left}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as fault:
            raise StudyError(
                f"{path.parent} cannot be made: {fault.strerror}. Choose another --studies-dir."
            ) from fault
    elif path.is_dir():
        raise StudyError(
            f"{path} is a folder, must be a database. Move it away or choose another --studies-dir."
        )


def _check_sqlite(path: Path, place: Place, create: bool, options: Mapping[str, str]) -> None:
    uri = f"{path.absolute().as_uri()}?{urlencode(options)}"
    try:
        with closing(sqlite3.connect(uri, timeout=_BUSY_TIMEOUT_S, uri=True)) as connection:
            names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            # Another start may be making Optuna's tables; these two come first.
            if names and not names & {"studies", "version_info"}:
                raise StudyError(
                    f"{path} is another program's database: it has no studies of Optuna. It is "
                    "unchanged. Move it away, or choose another --studies-dir."
                )
            if create:
                connection.execute("PRAGMA journal_mode=WAL")
            if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("its pages are damaged")
            # The last of Optuna's tables. Two processes that make them would disturb each other.
            if not create and "alembic_version" not in names:
                raise StudyError(
                    f"{path} has no studies yet. If a start is just making it, try again in some "
                    "seconds."
                )
    except sqlite3.Error as fault:
        if options.get("mode") == "ro":
            raise StudyError(
                f"{path} cannot be read with the changes in {path.name}-wal: {fault}. To read it, "
                "copy the folder to where it can be written."
            ) from fault
        raise StudyError(
            f"{path} is not a usable SQLite database: {fault}. It is unchanged. "
            f"`{place.command('doctor')}` shows whether a backup can be restored. Or move it away, "
            "or choose another --studies-dir."
        ) from fault


def _first_line(fault: BaseException) -> str:
    text = str(fault.args[0]) if isinstance(fault, KeyError) and fault.args else str(fault)
    if callable(details := getattr(fault, "details", None)):  # a grpc.RpcError
        text = str(details())
    lines: Sequence[str] = text.strip().splitlines()
    return lines[0].removesuffix(".") if lines else type(fault).__name__
