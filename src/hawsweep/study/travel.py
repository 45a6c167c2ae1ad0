"""Trials' files between machines: one archive for each trial's folder, in the study's store.

The trial's attribute ``ARTIFACT`` names the archive, its hash and its size. It is set before the
trial is told complete or paused. Optuna does not let it change afterwards.
"""

import hashlib
import os
import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any, TypeVar

import optuna
from optuna.trial import FrozenTrial

from hawsweep.errors import StudyError, TravelError
from hawsweep.files import HALF_WRITTEN, digest_of, files_under
from hawsweep.layout import ARCHIVE_MARK, CONFIRM_SUFFIX
from hawsweep.study.artifact_stores import (
    ARTIFACT_ID,
    artifacts_url,
    is_missing,
    is_refusal,
    open_store,
)
from hawsweep.study.attributes import ARTIFACT
from hawsweep.study.clean_up import BULK
from hawsweep.study.optuna_door import storage_of, trial_id
from hawsweep.study.patience import LONGEST_WAIT_S, outage_s
from hawsweep.study.place import Place
from hawsweep.text import SayProgress

# Called about each second while files travel; gives whether a fault of the network is waited out.
Waiting = Callable[[], bool]
_Given = TypeVar("_Given")

_BESIDE = f"{HALF_WRITTEN}files-"
_DAY_S = 86400
_BLOCK_BYTES = 1 << 20
_REMOVED = "removed"
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class _Archive:
    """The value of ``ARTIFACT``."""

    id: str
    sha256: str
    bytes: int


def put(
    study: optuna.Study,
    place: Place,
    number: int,
    *,
    bulk: bool = True,
    waiting: Waiting | None = None,
) -> None:
    """Put the files of a running trial into the study's store, if it has one.

    Args:
        bulk: Also its adapters and its state, which are large.
        waiting: By default a fault of the network is not waited out.

    Raises:
        TravelError: The store does not take them. They stay where they are, and no archive is named
            any more.
    """
    url = artifacts_url(study)
    if url is None:
        return
    trial = study.get_trials(deepcopy=False)[number]
    folder = place.folder_of(study.study_name, number)
    before = _known(trial)
    try:
        store = open_store(url, folder.parent.parent)
        with _beside(folder) as there:
            archive = _pack(folder, there / "archive.tar", _new_id(study, number), bulk=bulk)

            def upload() -> None:
                with (there / "archive.tar").open("rb") as file:
                    store.write(archive.id, file)

            _patiently(upload, waiting)
    except Exception as fault:
        if before is not None:  # of an earlier state
            _set(study, trial, None)
        raise _told(number, "put into", url, fault) from fault
    try:
        _set(study, trial, asdict(archive))
    except optuna.exceptions.UpdateFinishedTrialError:  # no trial would name it
        with suppress(Exception):
            store.remove(archive.id)
        raise
    (folder / ARCHIVE_MARK).write_text(archive.sha256)
    if before is not None:
        with suppress(Exception):  # it only takes room
            store.remove(before.id)


def fetch(
    study: optuna.Study,
    place: Place,
    trial: FrozenTrial,
    say: SayProgress = lambda _: None,
    waiting: Waiting | None = None,
) -> bool:
    """Bring a trial's files where its folder is not of their archive.

    Args:
        say: Told what is fetched, and its size.
        waiting: By default a fault of the network is not waited out.

    Returns:
        Whether they were brought. Not where there is no store, the trial has no archive, its files
        are here, or the archive was removed.

    Raises:
        TravelError: They cannot be fetched, or are not what was put. The folder is unchanged.
    """
    number, folder = trial.number, place.folder_of(study.study_name, trial.number)
    if not _is_elsewhere(trial, folder) or (url := artifacts_url(study)) is None:
        return False
    try:
        store, archive = open_store(url, folder.parent.parent), _archive_of(trial)
        with _beside(folder) as there:
            _check_room(there, archive)
            of = "the confirming run" if study.study_name.endswith(CONFIRM_SUFFIX) else "trial"
            size = f"{archive.bytes / 1e6:.1f} MB"
            say(f"fetching the files of {of} {number}, {size}, from {url}")

            def download() -> None:
                with store.open_reader(archive.id) as source:
                    _receive(source, there / "archive.tar", archive)

            _patiently(download, waiting)
            _unpack(there / "archive.tar", there / "new", archive)
            (there / "new" / ARCHIVE_MARK).write_text(archive.sha256)
            _install(there, folder, archive)
    except Exception as fault:
        if is_missing(fault):
            return False
        raise _told(number, "fetched from", url, fault) from fault
    return True


def fetch_ended(
    study: optuna.Study,
    place: Place,
    numbers: Collection[int] | None = None,
    say: SayProgress = lambda _: None,
) -> int:
    """Bring the files of ended trials, of all or of these; give how many were brought.

    Raises:
        TravelError: See ``fetch``.
    """
    if artifacts_url(study) is None:
        return 0
    ended = [trial for trial in study.get_trials(deepcopy=False) if trial.state.is_finished()]
    wanted = [trial for trial in ended if numbers is None or trial.number in numbers]
    return sum(fetch(study, place, trial, say) for trial in wanted)


def remove(study: optuna.Study, place: Place, trial: FrozenTrial) -> None:
    """Remove a trial's archive from the store, if it is there.

    Raises:
        TravelError: The store does not do it.
    """
    folder, archive = place.folder_of(study.study_name, trial.number), _known(trial)
    mark = folder / ARCHIVE_MARK
    if archive is None or _marked(folder)[1:] == [_REMOVED]:
        return
    if (url := artifacts_url(study)) is None:
        return
    try:
        open_store(url, folder.parent.parent).remove(archive.id)
    except Exception as fault:
        if not is_missing(fault):
            raise _told(trial.number, "removed from", url, fault) from fault
    if mark.exists():
        mark.write_text(f"{archive.sha256} {_REMOVED}")


def _is_elsewhere(trial: FrozenTrial, folder: Path) -> bool:
    """Whether a trial has an archive that its folder here is not of."""
    described = trial.user_attrs.get(ARTIFACT)
    return described is not None and _marked(folder)[:1] != [_sha256(described)]


def _sha256(described: Any) -> Any:
    return described.get("sha256") if isinstance(described, dict) else None


def _marked(folder: Path) -> list[str]:
    """The hash of the archive that a folder is of, and ``_REMOVED`` where that is gone."""
    with suppress(OSError, UnicodeDecodeError):
        return (folder / ARCHIVE_MARK).read_text().split()
    return []


def _known(trial: FrozenTrial) -> _Archive | None:
    with suppress(ValueError):
        return _archive_of(trial)
    return None


def _archive_of(trial: FrozenTrial) -> _Archive:
    """A trial's archive. Its attribute is as trustworthy as the database."""
    described = trial.user_attrs.get(ARTIFACT)
    with suppress(TypeError):
        archive = _Archive(**(described or {}))
        is_size = isinstance(archive.bytes, int) and archive.bytes > 0
        if is_size and ARTIFACT_ID.fullmatch(archive.id) and _SHA256.fullmatch(archive.sha256):
            return archive
    raise ValueError("the trial's attribute artifact is not one of hawsweep")


def _new_id(study: optuna.Study, number: int) -> str:
    """A name that says whose files it is, and that no other archive has."""
    name = re.sub(r"[^A-Za-z0-9._-]", "-", study.study_name)[:100].lstrip(".-_")
    return f"{name or 'study'}-{number:04d}-{os.urandom(8).hex()}.tar"


def _set(study: optuna.Study, trial: FrozenTrial, value: dict[str, Any] | None) -> None:
    storage_of(study).set_trial_user_attr(trial_id(trial), ARTIFACT, value)


def _told(number: int, done: str, url: str, fault: Exception) -> TravelError:
    if isinstance(fault, StudyError):  # there is no store
        return TravelError(f"{fault} The files of trial {number} stay where they are.")
    said = str(fault).strip().removesuffix(".") or type(fault).__name__
    return TravelError(
        f"The files of trial {number} cannot be {done} the store {url}: {said}. They stay where "
        "they are."
    )


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    """A folder for what is half made, on the disk of the trial's folder; left by a killed process
    it is removed after a day.
    """
    above = folder.parent.parent
    above.mkdir(parents=True, exist_ok=True)
    for left in above.glob(f"{_BESIDE}*"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > _DAY_S:
                shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix=_BESIDE, dir=above) as there:
        yield Path(there)


def _pack(folder: Path, target: Path, name: str, *, bulk: bool) -> _Archive:
    """Write an archive: of the same files always the same bytes."""
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        for path in files_under(folder):
            inside = path.relative_to(folder)
            is_half = any(part.startswith(HALF_WRITTEN) for part in inside.parts)
            is_left_out = not bulk and inside.parts[0] in BULK
            if is_half or is_left_out or inside.name == ARCHIVE_MARK or path.is_symlink():
                continue
            with path.open("rb") as file:
                member = tarfile.TarInfo(inside.as_posix())
                member.size = os.fstat(file.fileno()).st_size
                archive.addfile(member, file)
    return _Archive(name, digest_of(target), target.stat().st_size)


def _check_room(there: Path, archive: _Archive) -> None:
    free_bytes, needed = shutil.disk_usage(there).free, 2 * archive.bytes  # packed and unpacked
    if free_bytes < needed:
        raise ValueError(
            f"the disk has {free_bytes / 1e9:.1f} GB free, and they need {needed / 1e9:.1f}"
        )


def _receive(source: IO[bytes], target: Path, archive: _Archive) -> None:
    """Store what comes, if it is the archive: no byte more, and with its hash."""
    digest, n_bytes = hashlib.sha256(), 0
    with target.open("wb") as file:
        while block := source.read(_BLOCK_BYTES):
            n_bytes += len(block)
            if n_bytes > archive.bytes:
                raise ValueError(
                    f"the archive {archive.id} is larger than the {archive.bytes} bytes put"
                )
            digest.update(block)
            file.write(block)
    if n_bytes < archive.bytes:
        raise ConnectionError(f"of {archive.bytes} bytes {n_bytes} came")
    if digest.hexdigest() != archive.sha256:
        raise ValueError(f"{archive.id} has another hash than the archive put")


def _unpack(source: Path, target: Path, described: _Archive) -> None:
    """Write an archive's files. Whoever can write into the database and the store made it: only
    regular files inside the folder are taken.
    """
    target.mkdir()
    left_bytes = described.bytes
    with tarfile.open(source, "r:") as archive:
        for member in archive:
            path, name = PurePosixPath(member.name), member.name
            if member.type not in {tarfile.REGTYPE, tarfile.AREGTYPE} or member.issparse():
                raise ValueError(f"the archive has {name!r}, which is not a regular file")
            parts = path.parts
            if path.is_absolute() or not parts or {"..", ARCHIVE_MARK} & {*parts} or "\0" in name:
                raise ValueError(f"the archive has {name!r}, a path out of the trial's folder")
            left_bytes -= member.size
            if left_bytes < 0:
                raise ValueError(f"the archive's files are larger than its {described.bytes} bytes")
            there = target / path
            there.parent.mkdir(parents=True, exist_ok=True)
            with there.open("xb") as file:  # a second of the same name is refused
                shutil.copyfileobj(_content(archive, member), file)


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = archive.extractfile(member)
    assert content is not None  # of a regular file
    return content


def _install(there: Path, folder: Path, archive: _Archive) -> None:
    """Let the new files take the place of the folder, unless another process was faster: it may
    have begun to use them.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    if _marked(folder)[:1] == [archive.sha256]:
        return
    with suppress(FileNotFoundError):
        os.rename(folder, there / "old")
    try:
        os.rename(there / "new", folder)
    except OSError:
        if _marked(folder)[:1] != [archive.sha256]:
            raise


def _patiently(do: Callable[[], _Given], waiting: Waiting | None) -> _Given:
    """Do what the network may prevent, again after growing waits."""
    if waiting is None:
        return do()
    until = time.monotonic() + outage_s()
    wait_s = 1.0
    while True:
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(do)
            while not wait({future}, timeout=1.0).done:
                waiting()
        fault = future.exception()
        if fault is None:
            return future.result()
        if isinstance(fault, ValueError) or is_refusal(fault):
            raise fault
        again = time.monotonic() + wait_s
        while time.monotonic() < again:
            if not waiting() or time.monotonic() >= until:
                raise fault
            time.sleep(min(1.0, wait_s))
        wait_s = min(2 * wait_s, LONGEST_WAIT_S)
