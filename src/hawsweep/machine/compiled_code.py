"""The folder of code that was compiled here and is loaded into processes: a user's own."""

import os
import stat
import struct
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from hawsweep.errors import BackendError
from hawsweep.files import files_under

# Special to a shell inside double quotes: MLX names the folder to the compiler that way.
_REFUSED_CHARACTERS = '"$`\\'
_PRIVATE = 0o700
# A kernel takes about 20 kB.
_PROBE_BYTES = 1_000_000
_WRITTEN_S = 60.0
_ELF, _ELF_HEADER = b"\x7fELF", struct.Struct("<4s36xQ10xHH2x")
_TEMPORARY_VARIABLES = ("TMPDIR", "TEMP", "TMP")  # in Python's order


def own_folder(cache: Path) -> Path:
    """The folder for compiled code in a cache, made if it is missing.

    Another user must not write there, nor put another folder in its place: what lies in it is run.

    Raises:
        BackendError: It cannot be made, or is not this user's alone.
    """
    folder = folder_in(cache)
    try:
        folder.mkdir(_PRIVATE, parents=True, exist_ok=True)
    except OSError as fault:
        raise BackendError(
            f"The folder for compiled code, {folder}, cannot be made: {fault.strerror}. Set "
            "HAWSWEEP_CACHE to a folder that can be written."
        ) from fault
    if (fault_found := fault_of(folder)) is not None:
        raise BackendError(fault_found)
    return folder


def folder_in(cache: Path) -> Path:
    """The path of a cache's folder for this user's compiled code."""
    return cache.absolute() / f"code-{os.geteuid()}"


def fault_of(folder: Path) -> str | None:
    """Why code in this folder must not be run, and what to do; None if it may."""
    found = folder.lstat()
    remedy = "Remove it, or set HAWSWEEP_CACHE to a folder of your own."
    if not stat.S_ISDIR(found.st_mode):
        return f"{folder}, where compiled code is kept, is no folder. {remedy}"
    if found.st_uid != os.geteuid():
        return f"{folder}, where compiled code is kept, belongs to another user. {remedy}"
    if (mode := found.st_mode & 0o777) != _PRIVATE:
        return (
            f"{folder}, where compiled code is kept, has the mode {mode:04o}, must be "
            f"{_PRIVATE:04o}: another user may have changed what is run. {remedy}"
        )
    for above in folder.resolve().parents:
        mode = above.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return (
                f"{folder}, where compiled code is kept, lies in {above}, where every user can "
                "put another folder in its place. Set HAWSWEEP_CACHE to a folder of your own."
            )
    if set(_REFUSED_CHARACTERS) & set(str(folder)):
        return (
            f"{folder}, where compiled code is kept, has one of the characters "
            f"{' '.join(_REFUSED_CHARACTERS)} in its path, which a shell would obey. Set "
            "HAWSWEEP_CACHE to another folder."
        )
    return None


def remove_partial(folder: Path) -> None:
    """Remove the libraries that a compiler which was killed left in part: each process would fail
    to load them. Those of the last minute may still be written.
    """
    for path in files_under(folder):
        with suppress(OSError):
            is_old = time.time() - path.stat().st_mtime > _WRITTEN_S
            if path.suffix == ".so" and is_old and not _is_whole(path):
                path.unlink()


def _is_whole(library: Path) -> bool:
    """Whether a library of 64 bits reaches to its table of sections, which is the last (elf(5))."""
    with library.open("rb") as file:
        head = file.read(_ELF_HEADER.size)
    if len(head) < _ELF_HEADER.size:
        return False
    magic, starts_at, size, number = _ELF_HEADER.unpack(head)
    return bool(magic != _ELF or starts_at + size * number <= library.stat().st_size)


def check_room(folder: Path) -> None:
    """Refuse a folder for compiled code, or for temporary files, that is full or not writable.

    Raises:
        BackendError: The message has the folder and the remedy.
    """
    _probe(folder, "The folder for compiled code", "HAWSWEEP_CACHE")
    named = next((os.environ[each] for each in _TEMPORARY_VARIABLES if os.environ.get(each)), None)
    try:
        temporary = Path(named or tempfile.gettempdir())
    except FileNotFoundError as fault:  # none of the usual ones can be written
        raise BackendError(
            f"{fault.strerror}. Make room in one of them, or set TMPDIR to a folder that can be "
            "written."
        ) from fault
    _probe(temporary, "The temporary folder", "TMPDIR")


def _probe(folder: Path, what: str, variable: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(_PROBE_BYTES))
            file.flush()
    except OSError as fault:
        raise BackendError(
            f"{what}, {folder}, cannot be written: {fault.strerror}. Make room there, or set "
            f"{variable} to another folder that can be written."
        ) from fault
