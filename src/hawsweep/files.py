"""Only regular files are read. Written ones are whole or missing: a process killed while writing
leaves the earlier file.
"""

import errno
import fcntl
import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from hawsweep.errors import StudyError

if TYPE_CHECKING:
    import numpy.typing as npt

# The prefix of files that are being written. No code reads them.
HALF_WRITTEN = "~"
_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


class UnfitFileError(OSError):
    """A path leads to no regular file, or to one that is too large."""

    def __init__(self, reason: str) -> None:
        super().__init__(errno.EINVAL, reason)

    def __str__(self) -> str:
        return str(self.strerror)


def check_regular(path: Path, most_bytes: int | None = None) -> None:
    """Check a file that another library opens; see ``open_regular``. It is not opened."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        if path.is_symlink():
            raise UnfitFileError("it is a link to a file that is not there") from None
        raise
    except ValueError as fault:
        raise UnfitFileError(f"its name is no path: {fault}") from fault
    _check(found, most_bytes)


def open_regular(path: Path, most_bytes: int | None = None) -> BinaryIO:
    """Open a file that a stranger may have placed. A FIFO would let the reader wait without end,
    and a device has no end.

    A link to a regular file is one: the hub's cache consists of links.

    Raises:
        OSError: It is not a regular file, has more than ``most_bytes``, or cannot be read;
            ``strerror`` says which.
    """
    check_regular(path, most_bytes)
    # Without waiting, and checked again: another file may have taken its place.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        _check(os.fstat(descriptor), most_bytes)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path, most_bytes: int) -> bytes:
    """The content of a file; see ``open_regular``."""
    with open_regular(path, most_bytes) as file:
        content = file.read(most_bytes + 1)  # it may have grown, and in /proc sizes are 0
    if len(content) > most_bytes:
        raise _too_large(len(content), most_bytes)
    return content


def _check(found: os.stat_result, most_bytes: int | None) -> None:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "of another kind")
        raise UnfitFileError(f"it is {kind}, not a regular file; save its content as a file")
    if most_bytes is not None and found.st_size > most_bytes:
        raise _too_large(found.st_size, most_bytes)


def _too_large(n_bytes: int, most_bytes: int) -> UnfitFileError:
    return UnfitFileError(f"it has {n_bytes:,} bytes, and at most {most_bytes:,} are read")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path to write to; the written file then replaces ``path`` and is synced to disk.

    Raises:
        OSError: It cannot be written; ``path`` is unchanged.
    """
    # The name has the process id: another worker may write the same file.
    beside = path.with_name(f"{HALF_WRITTEN}{os.getpid()}-{path.name}")
    try:
        yield beside
        with beside.open("rb") as written:
            _sync(written.fileno())  # else a crash of the machine could leave an empty file
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def _sync(descriptor: int) -> None:
    # On a Mac fsync leaves the data in the disk's own buffer (its fsync(2)).
    if whole := getattr(fcntl, "F_FULLFSYNC", None):
        with suppress(OSError):  # a file system that has none
            fcntl.fcntl(descriptor, whole)
            return
    os.fsync(descriptor)


def replace_text(path: Path, text: str) -> None:
    """Replace ``path`` by a text file; see ``replacing``."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


def cached_array(path: Path, make: Callable[[], "npt.NDArray[Any]"]) -> "npt.NDArray[Any]":
    """The array in a file of NumPy's ``.npy``. Where it is missing or damaged it is made, and kept
    if it can be written.
    """
    import numpy as np

    with suppress(OSError, ValueError, EOFError):
        return cast("npt.NDArray[Any]", np.load(path))
    made = make()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as beside:
            np.save(beside, made)
    return made


def files_under(folder: Path) -> list[Path]:
    """The regular files, and links to such, in ``folder`` and its subfolders, sorted.

    Others may add and remove meanwhile: ``Path.rglob`` fails where a subfolder vanishes. What may
    not be read is left out.

    Raises:
        OSError: The disk fails.
    """

    def check(fault: OSError) -> None:
        if not isinstance(fault, FileNotFoundError | PermissionError):
            raise fault

    walk = os.walk(folder, onerror=check)
    return sorted(
        path for above, _, names in walk for name in names if (path := Path(above, name)).is_file()
    )


def remove_half_written(folder: Path) -> None:
    """Remove half-written files of killed processes from ``folder`` and its subfolders."""
    for path in files_under(folder):
        if path.name.startswith(HALF_WRITTEN):
            path.unlink(missing_ok=True)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSON lines file; none if it is missing.

    Raises:
        StudyError: It is damaged.
    """
    if not path.is_file():
        return []
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError) as fault:
        raise StudyError(
            f"{path} is damaged: {fault}. Restore it from a backup, or move it away."
        ) from fault


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def existing_folder(folder: Path) -> Path:
    """A folder, or of one that is yet to be made the nearest above it that is there."""
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder
